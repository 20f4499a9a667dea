"""The exceptions that foreign code may raise: everything that is not a plain exception with a text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

__all__ = ["ODD", "raising"]


class _Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class _Cancelling(Exception):
    def __str__(self) -> str:
        raise asyncio.CancelledError


class _Own(BaseException):
    pass


ODD: dict[str, Callable[[], BaseException]] = {
    "plain": lambda: ValueError("plain"),
    "cancelled": asyncio.CancelledError,
    "group": lambda: BaseExceptionGroup("several", [asyncio.CancelledError(), ValueError("one")]),
    "stop": StopIteration,
    "async stop": StopAsyncIteration,
    "exit of a generator": GeneratorExit,
    "base": _Own,
    "silent": _Silent,
    "cancelling when shown": _Cancelling,
    "recursion": RecursionError,
}


def raising(kind: str) -> NoReturn:
    error = ODD[kind]()
    raise error
