"""Secrets that are not shown by error reporters, which show the variables of a traceback.

Frames of a traceback keep their variables, arguments too. So a secret is put into one of these by the first function
that has it.
"""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ["Hidden", "Secret", "unshown"]


T = TypeVar("T")


class Secret(bytes):
    """Bytes like any others, but for their ``repr``. A part of them, or a join with others, is plain bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"

    __str__ = __repr__


class Hidden:
    """Any value, to be handed on without being shown.

    Args:
        value: the secret; another of these objects stands for the secret that it holds.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value: Any = value.value if isinstance(value, Hidden) else value

    def __repr__(self) -> str:
        return "<hidden>"


class _Unshown(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


def unshown(servers: T) -> T:
    """Return a connect string that may hold a password as text whose ``repr`` hides it, and others as they are."""
    return _Unshown(servers) if isinstance(servers, str) and "@" in servers else servers  # type: ignore[return-value]
