"""An event loop in a daemon thread of its own, and the ways across: from another loop, and from plain threads.

All that lives on that loop is touched by its thread only. A caller outside waits for a coroutine there to end. It
passes its cancellation on, and returns when the coroutine has answered to that, as an ``await`` would.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar

import anyio

from aioregistry._arguments import check_seconds
from aioregistry._errors import HandleClosed, RequestTimeout, UsageError
from aioregistry._runtime import running_loop

__all__ = ["LoopThread", "Remote"]

T = TypeVar("T")

log = logging.getLogger("aioregistry.threads")

_PATIENCE: Final = 5.0
"""Seconds for the thread to end once everything on it was closed; it is a daemon, so the process waits no longer."""


class LoopThread:
    """An event loop on a thread of its own, from its making until :meth:`stop`.

    The thread is a daemon: a process that ends without :meth:`stop` does not wait for it.

    Args:
        name: of the thread.
        outage_attempts: returns the answer of each address while there is no connection, for errors about a timeout.
    """

    def __init__(self, name: str, outage_attempts: Callable[[], Mapping[str, str]]) -> None:
        self._outage_attempts = outage_attempts
        self._loop = asyncio.new_event_loop()
        self._stopping = False
        self._process = os.getpid()
        # Between the last thing that is begun and the stop. A finalizer may come in between on the same thread.
        self._lock = threading.RLock()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            while not self._stopping:
                try:
                    loop.run_forever()
                except (KeyboardInterrupt, SystemExit):
                    # A callback of the user's raised it on this thread. Only the main thread can end the process.
                    log.exception("a callback asked for the end of the process: the main thread is interrupted")
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        finally:
            _cancel_all(loop)
            loop.close()
            self._ended.set_result(None)

    # ------------------------------------------------------------------ ways across

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have *function* called on the loop in its next turn.

        Raises:
            HandleClosed: after the stop.
            UsageError: this process was forked from the one that has the thread.
        """
        self.check_process()  # before the lock: another thread of the parent may have had it at the fork
        with self._lock:
            if self._stopping:
                raise HandleClosed("the registry was closed, and its thread with it")
            self._loop.call_soon_threadsafe(function, *arguments)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return ``function(*arguments)``, called on the loop in its next turn; the calling thread waits for that.

        Raises the function's exception. After the stop, when nothing runs there, the function is called here.
        """
        if self.is_here():  # in a callback on the loop, such as the hook for events
            return function(*arguments)
        answer: Future[T] = Future()

        def answering() -> None:
            try:
                answer.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
                answer.set_exception(error)

        try:
            self.post(answering)
        except HandleClosed:
            self.join()
            return function(*arguments)
        return answer.result()

    async def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Return what ``await function(*arguments)`` returns on the loop, waiting on the loop that is running here.

        Cancelling cancels it there, and waits until it has ended. Raises its exception, and :class:`HandleClosed` after
        the stop.
        """
        caller = running_loop()
        done: asyncio.Future[None] = caller.create_future()

        def settle() -> None:
            if not done.done():
                done.set_result(None)

        def ended(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the waiting loop was closed meanwhile
                caller.call_soon_threadsafe(settle)

        remote = self._begin(function, arguments)
        remote.answer.add_done_callback(ended)
        cancelled: asyncio.CancelledError | None = None
        # Without the shield anyio would cancel the waiting again in every turn of the loop.
        with anyio.CancelScope() as scope:
            while not done.done():
                try:
                    await asyncio.wait([done])
                except asyncio.CancelledError as cancellation:
                    cancelled, scope.shield = cancellation, True
                    self.cancel(remote)
        if cancelled is None:
            return remote.answer.result()
        failure = remote.answer.exception()
        if failure is not None and not isinstance(failure, asyncio.CancelledError):
            raise failure from cancelled
        raise cancelled

    def is_here(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return threading.get_ident() == self._thread.ident and not self.is_elsewhere()

    def is_elsewhere(self) -> bool:
        """Whether this process was forked from the one that has the thread."""
        return self._process != os.getpid()

    def check_process(self) -> None:
        """Raise :class:`UsageError` in a process that was forked from the one that has the thread."""
        if self.is_elsewhere():
            raise UsageError(
                f"the registry was opened in process {self._process}, before a fork: open one after the fork, "
                "in each process"
            )

    def check_outside(self) -> None:
        """Raise :class:`UsageError` where a wait would have no end: on the loop's own thread, and in a forked process.

        The thread would wait for itself, and a fork copies no thread.
        """
        self.check_process()
        if self.is_here():
            raise UsageError(
                "a call that waits was made on the registry's own thread, which would wait for itself for ever: "
                "make it on another thread"
            )

    def wait(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Return what ``await function(*arguments)`` returns on the loop, blocking the calling thread.

        An exception that a signal raises here (KeyboardInterrupt, say) cancels it there, and is raised when it has
        ended. Raises its exception, :class:`HandleClosed` after the stop, and :class:`UsageError` on the loop's own
        thread.
        """
        return self.wait_for(Remote(function, arguments))

    def wait_for(self, remote: Remote[T]) -> T:
        """Begin *remote*, and return its outcome as :meth:`wait` does; :meth:`cancel` ends the waiting early."""
        self.check_outside()
        try:
            self.post(remote.begin)
            return remote.answer.result()
        except BaseException:
            # A signal may have come at any point of this.
            if self.cancel(remote):
                remote.answer.exception()  # waits
            raise

    def wait_within(
        self,
        timeout: float | None,
        what: str,
        function: Callable[..., Coroutine[Any, Any, T]],
        *arguments: Any,
    ) -> T:
        """Return what ``await function(*arguments)`` returns on the loop, as :meth:`wait` does.

        Raises:
            RequestTimeout: that took more than *timeout* seconds, and was cancelled; names *what*.
            InvalidArgument: *timeout* is not a number of seconds above 0, and not None.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)

        async def within() -> T:
            with anyio.move_on_after(timeout):
                return await function(*arguments)
            raise RequestTimeout(f"{what} did not come within timeout={timeout:g} s", self._outage_attempts())

        return self.wait(within)

    def outage_attempts(self) -> Mapping[str, str]:
        """Return what each address answered while there is no connection, for a caller outside."""
        return self.call(self._outage_attempts)

    def begin(self, function: Callable[..., Coroutine[Any, Any, object]], *arguments: Any) -> bool:
        """Have ``await function(*arguments)`` run on the loop, and wait for nothing.

        Return False after the stop, and in a forked process.
        """
        try:
            self._begin(function, arguments)
        except UsageError:
            return False
        return True

    async def over(self) -> None:
        """Wait, on another loop, for the end of the thread after :meth:`stop`; at most five seconds."""
        with anyio.move_on_after(_PATIENCE):
            await asyncio.wrap_future(self._ended)
            self.join()  # it has nothing left to do

    def _begin(self, function: Callable[..., Coroutine[Any, Any, T]], arguments: tuple[Any, ...]) -> Remote[T]:
        remote = Remote(function, arguments)
        self.post(remote.begin)
        return remote

    def cancel(self, remote: Remote[Any]) -> bool:
        """Cancel the call, if it is under way.

        Return False after the stop, which cancels everything, and in a forked process.
        """
        try:
            self.post(remote.cancel)
        except UsageError:
            return False
        return True

    def stop(self) -> None:
        """Cancel the calls that are still under way, then end the loop and its thread. May be called again."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self) -> None:
        """Wait for the end of the thread after :meth:`stop`, blocking this one; at most five seconds."""
        self._thread.join(_PATIENCE)


class Remote(Generic[T]):
    """A coroutine on the loop, and its outcome for a thread outside."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, T]], arguments: tuple[Any, ...]) -> None:
        self.answer: Future[T] = Future()
        self._function, self._arguments = function, arguments
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        """Start it; on the loop."""
        if self.answer.done():
            return
        try:
            self._task = asyncio.get_running_loop().create_task(self._function(*self._arguments))
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
            self.answer.set_exception(error)
        else:
            self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        """Cancel it; on the loop."""
        if self._task is not None:
            self._task.cancel()
        elif not self.answer.done():
            self.answer.set_exception(asyncio.CancelledError())

    def _settle(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            # Not by cancelling the future: `result()` would raise the other CancelledError, of concurrent.futures.
            self.answer.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(task.result())


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    # The last task to end needs one more turn to tell those outside.
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(loop.shutdown_asyncgens())
