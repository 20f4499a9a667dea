"""Tools for waiting: news for many, a timer that can be set again, a task with an owner, a thread that delays no task.

Each exists once, because each has an end that is easily forgotten: a waiter that was cancelled stays in a list, a timer
that was replaced still rings, a task dies unnoticed, a thread is joined at exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

__all__ = ["SHORTEST_WAIT", "Alarm", "Notifier", "Supervised", "in_daemon_thread", "release"]

T = TypeVar("T")

SHORTEST_WAIT: Final = 0.001
"""Seconds. A timer that rings at once, and too early by the clock that counts, would be set for ever: the loop's clock
may run a little ahead of another. No time at all is not a timeout to many."""


class Notifier:
    """Wakes all tasks that wait for news; its length is their number. News are not kept for later tasks."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[bool], None] = {}

    def notify(self) -> None:
        """Wake all that wait now."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)

    async def wait(self, timeout: float | None = None, *, answer: asyncio.Future[Any] | None = None) -> bool:
        """Wait for the next news; return whether they came.

        Cancelling leaves nothing behind.

        Args:
            timeout: seconds after which the wait is over; None waits as long as it takes.
            answer: a future that ends the wait too, when it is done or cancelled.
        """
        # Not asyncio.wait: an idle session does this all day.
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()

        def enough() -> None:
            if not waiter.done():
                waiter.set_result(False)

        def answered(_: asyncio.Future[Any]) -> None:
            enough()

        self._waiters[waiter] = None
        timer = None if timeout is None else loop.call_later(timeout, enough)
        if answer is not None:
            answer.add_done_callback(answered)
        try:
            return await waiter
        finally:
            self._waiters.pop(waiter, None)
            if timer is not None:
                timer.cancel()
            if answer is not None:
                answer.remove_done_callback(answered)

    async def until(self, condition: Callable[[], object], timeout: float | None = None) -> bool:
        """Wait until *condition* holds, which is asked now and after all news; return whether it does.

        It is False only after *timeout* seconds, if given.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not condition():
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            await self.wait(left)
        return True

    def __len__(self) -> int:
        return len(self._waiters)

    def __repr__(self) -> str:
        return f"<Notifier, {len(self)} waiting>"


class Alarm:
    """A timer that can be set again: it rings once, at the time that it was set to last.

    It holds what rings only while it is set: an owner that is dropped goes at once.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    @property
    def when(self) -> float | None:
        """When it rings, by the loop's clock; None while it is not set."""
        return None if self._timer is None else self._timer.when()

    def set_at(self, when: float, ring: Callable[[], object]) -> None:
        """Let the loop call *ring* at *when*, by its clock, and at no other time."""
        self.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._due, ring)

    def set_in(self, seconds: float, ring: Callable[[], object]) -> None:
        """Let the loop call *ring* in so many seconds, and at no other time."""
        self.set_at(asyncio.get_running_loop().time() + seconds, ring)

    def set_no_later_than(self, when: float, ring: Callable[[], object]) -> None:
        """Let the loop call *ring* at *when*, by its clock, unless the alarm rings before."""
        if self._timer is None or when < self._timer.when():
            self.set_at(when, ring)

    def cancel(self) -> None:
        """Do not ring; may be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, ring: Callable[[], object]) -> None:
        self._timer = None
        ring()

    def __repr__(self) -> str:
        return "<Alarm, not set>" if self._timer is None else f"<Alarm at {self._timer.when():.3f}>"


class Supervised:
    """A task whose death reaches its owner, who alone ends it.

    Args:
        died: called by the loop with what the task ended with, unless it returned or its owner ended it:
            CancelledError where another cancelled it, also before its first step.
    """

    def __init__(self, died: Callable[[BaseException], None]) -> None:
        self._died = died
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._task is not None and not self._task.done()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where it was started; None before."""
        return None if self._task is None else self._task.get_loop()

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run *work* as a task of this *name*. It may be started again when it has ended."""
        self._ending = False
        self._task = asyncio.get_running_loop().create_task(work, name=name)
        self._task.add_done_callback(self._done)

    def cancel(self) -> None:
        """Ask it to end, without telling its owner."""
        self._ending = True
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """End it, and return when it has ended, also where it was cancelled before or not started."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._ending:
                self._died(asyncio.CancelledError())
        elif error := task.exception():
            self._died(error)


def release(waiters: Iterable[asyncio.Future[None]], error: BaseException | None) -> None:
    """End each wait that is not over: with *error*, or without one where that is None."""
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
            waiter.exception()  # counts as retrieved, even if no caller looks


def in_daemon_thread(work: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Let *work* run in a thread of its own, and return its answer's future.

    The threads of the loop's executor are joined at exit, so that a disk or a name server that hangs holds up the whole
    process (measured: 6 s); a daemon thread is not. Cancelling the future forgets the answer: the thread goes on until
    the system ends it, so the caller bounds how many are under way.

    The future fails with what *work* raised, or with OSError where no thread can be started.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # counts as retrieved

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(result)  # type: ignore[arg-type]  # there is one where there is no error
        else:
            answer.set_exception(error)

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except StopIteration as ended:  # which no future takes
            error = RuntimeError("the work raised StopIteration")
            error.__cause__ = ended
        except BaseException as failure:  # noqa: BLE001 - raised by the waiter: without an answer they wait for ever
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: no task is waiting
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:  # as many as the system allows, or the interpreter ends
        failure = OSError(errno.EAGAIN, "no thread can be started")
        failure.__cause__ = error
        answer.set_exception(failure)
    return answer
