"""Cancelling an operation at each of its awaits in turn, by asyncio and by anyio's scopes."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, NamedTuple

import anyio


class Outcome(NamedTuple):
    """How an operation ended that was to be cancelled at a certain await."""

    reached: bool
    """It did not end before."""
    error: BaseException | None


@types.coroutine
def _interrupted(
    coroutine: Coroutine[Any, Any, Any], at: int, interrupt: Callable[[], object]
) -> Generator[Any, Any, bool]:
    """Run *coroutine* and call *interrupt* when it waits for the *at*-th time; return whether it did so often."""
    waits = 0
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration:
            return waits >= at
        waits += 1
        if waits == at:
            interrupt()
        value, error = None, None
        try:
            value = yield awaited
        except BaseException as thrown:  # noqa: BLE001  # passed on, as if nobody stood between
            error = thrown


async def cancelled_by_asyncio(operation: Callable[[], Coroutine[Any, Any, Any]], at: int) -> Outcome:
    """Run *operation* in a task of its own that is cancelled at its *at*-th await."""
    reached = False

    async def run() -> None:
        nonlocal reached
        task = asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            nonlocal reached
            reached = True
            task.cancel()

        await _interrupted(operation(), at, interrupt)

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    return Outcome(reached, asyncio.CancelledError() if task.cancelled() else task.exception())


async def cancelled_by_anyio(operation: Callable[[], Coroutine[Any, Any, Any]], at: int) -> Outcome:
    """Run *operation* in a scope that is cancelled at its *at*-th await, and at every later one again."""
    error: BaseException | None = None
    with anyio.CancelScope() as scope:
        try:
            await _interrupted(operation(), at, scope.cancel)
        except BaseException as failure:
            error = failure
            if isinstance(failure, asyncio.CancelledError):
                raise
    return Outcome(scope.cancel_called, error)


CANCELLERS = {"asyncio": cancelled_by_asyncio, "anyio": cancelled_by_anyio}
Canceller = Callable[[Callable[[], Coroutine[Any, Any, Any]], int], Awaitable[Outcome]]
