"""Reprs of objects that are half made.

Error reporters, which show the variables of a traceback, meet an object whose constructor has refused an
argument: its ``repr`` must not hide the error by one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["shown_half_made"]

C = TypeVar("C", bound=type)


def shown_half_made(cls: C) -> C:
    """Let the ``repr`` of *cls*, a class to decorate, say of an object without its attributes that it was not made."""
    whole: Callable[[object], str] = vars(cls)["__repr__"]

    def shown(self: object) -> str:
        try:
            return whole(self)
        except AttributeError:
            return f"<{type(self).__name__}, not made>"

    type.__setattr__(cls, "__repr__", shown)  # to type checkers the class keeps the method that it declares
    return cls
