"""The one guard around code of others: hooks, filters, strategies, checks, predicates, payload types and their methods.

Such code may raise anything. In the middle of a callback of the event loop that does more harm than in the caller's own
frame: a ``CancelledError`` (``future.result()`` of a cancelled future raises it) ends the task that it happens to pass
through as if that had been cancelled, an exception group may escape ``except Exception``, a ``StopIteration`` ends a
generator, and the code after the call never runs. So every call goes through :func:`call`, which raises
one kind of exception only, :class:`ForeignError`, whatever was raised.

``KeyboardInterrupt`` and ``SystemExit``, alone or in an exception group, say that the process is to end. That is
obeyed, but in order: the code under way here finishes first, then the loop raises it in its next turn, as it does
for a callback of its own (``asyncio.run`` then cancels all tasks, those of aioregistry too, so nothing is withdrawn).
Without a running loop it is raised at once.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, ParamSpec, TypeVar

__all__ = ["ForeignError", "call", "printable", "repr_of", "shown", "traced", "wait"]

A = ParamSpec("A")
R = TypeVar("R")


class ForeignError(Exception):
    """Code of others raised ``error``; the text of this is safe to show, whatever that exception's own does."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(shown(error))
        self.error = error


def call(function: Callable[A, R], *args: A.args, **kwargs: A.kwargs) -> R:
    """Return what *function* returns.

    Raises:
        ForeignError: it raised, anything; chained to that.
    """
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        ending = _ending(error)
        if ending is not None:
            _end_process(ending)
        raise ForeignError(error) from error


async def wait(function: Callable[[], Awaitable[R]]) -> R:
    """Return the result of *function*. Cancelling the task that waits cancels *function*, and is not an error.

    Raises:
        ForeignError: it raised, anything, or what it returned cannot be awaited; chained to that.
    """
    import asyncio  # only here: the guard is used by code that has no loop, too

    try:
        return await function()
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        ending = _ending(error)
        if ending is not None:
            _end_process(ending)
        raise ForeignError(error) from error


def printable(text: str) -> str:
    """Return *text* with escapes for what moves a cursor, turns a line around, breaks it, or is not seen.

    Every client may write a node or name a service, and a terminal obeys control characters. In a log a line break
    would begin a line that looks like another record.
    """
    return "".join(c if c.isprintable() and not _UNSEEN.match(c) else _escaped(c) for c in text)


# Printable to Python, and nothing to the eye: fillers, joiners and selectors of variants, and a blank of Braille.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U0001d159\U000e0100-\U000e01ef]"
)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def shown(error: BaseException) -> str:
    """Return the exception's type and text in a line that is :func:`printable`, also where its ``__str__`` raises."""
    try:
        text = printable(" ".join(str(error).split()))
    except BaseException as other:  # noqa: BLE001 - the first error shows it as its context
        text = f"its text cannot be shown, which raised {type(other).__name__}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def repr_of(value: object) -> str:
    """Return the value's ``repr``, and its type where that raises."""
    try:
        return call(repr, value)
    except ForeignError:
        return f"<{type(value).__name__}>"


def traced(error: BaseException) -> str:
    """Return the exception's traceback as text, for a log, also where it cannot be formatted."""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except BaseException as other:  # noqa: BLE001 - as above
        return f"{shown(error)} (its traceback cannot be shown, which raised {type(other).__name__})"


def _ending(error: BaseException) -> BaseException | None:
    """Return what asks for the end of the process; None where nothing does."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return error
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            ending = _ending(each)
            if ending is not None:
                return ending
    return None


def _end_process(error: BaseException) -> None:
    import asyncio  # only here: the guard is used by code that has no loop, too

    def end() -> NoReturn:
        raise error

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise error from None
    loop.call_soon(end)
