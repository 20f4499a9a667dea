"""The common part of the handles for threads without a loop."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from typing import TYPE_CHECKING, Self

from aioregistry._errors import HandleClosed, UsageError
from aioregistry._handles import Handle, discard

from .loop import Remote

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import LoopThread

__all__ = ["BlockingHandle"]


class BlockingHandle:
    """Base of the handles for threads: opened once in a process, by ``with`` or a first use, and closed once."""

    _opened_in: int | None = None
    _closed = False
    _is_closing = False
    _entering: Remote[None] | None = None
    """The opening that is under way, which closing ends."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}
        """Between threads that use it first, and one that closes it; by process: a thread of the parent, which a fork
        does not copy, may have had the lock at the fork."""

    def open(self) -> Self:
        """Open it, if it is not open yet, and return it; waits as entering it in asyncio does, and raises the same.

        Threads that open it at the same time wait for the one opening. If opening fails, a later call tries again.

        Raises:
            HandleClosed: it was closed, or another thread closed it meanwhile.
            UsageError: it was opened before a fork, in the parent process; or this is the registry's own thread, on
                which an event's hook or a check runs.
        """
        self._check()
        if self._opened_in is None:
            self._check_outside()
            with self._lock:
                self._check()
                if self._opened_in is None:
                    self._open()
                    self._opened_in = os.getpid()
        return self

    def close(self) -> None:
        """Close it, within ``close_timeout`` seconds; closing a registration withdraws it.

        It may be called again, and before it was opened. A thread that is opening it sees its end. In a child process
        it does nothing to a handle that the parent opened.

        Raises:
            UsageError: this is the registry's own thread, on which an event's hook or a check runs.
        """
        if self._opened_in not in (None, os.getpid()):
            return
        self._check_outside()
        self._is_closing = True
        thread, entering = self._loop_thread(), self._entering
        if thread is not None and entering is not None:
            thread.cancel(entering)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._opened_in is None:
                self._discard()
            else:
                self._close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _use(self) -> None:
        """Open it, if this is its first use; raise unless it can be used."""
        if self._opened_in != os.getpid() or self._closed:
            self.open()

    def _open_once(self) -> None:
        """Open it, if this is its first use; you may still read the facts of a closed handle."""
        if self._opened_in is None or self._opened_in != os.getpid():
            self.open()

    @property
    def _lock(self) -> threading.RLock:
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def _check_outside(self) -> None:
        """Raise :class:`UsageError` on the registry's own thread, which must not wait for what it has to do itself."""
        thread = self._loop_thread()
        if thread is not None and not thread.is_elsewhere():
            thread.check_outside()

    def _enter(self, thread: LoopThread, handle: Handle) -> None:
        """Wait until *handle* is entered on the loop of *thread*, or until another thread closes this one."""
        self._entering = entering = Remote(_entered, (handle,))
        try:
            if self._is_closing:
                raise asyncio.CancelledError
            thread.wait_for(entering)
        except BaseException as error:
            discard(handle)  # if it was not even begun
            if self._is_closing and isinstance(error, asyncio.CancelledError):
                raise HandleClosed(f"{self._title()} was closed while it was opened") from None
            raise
        finally:
            self._entering = None

    def _check(self) -> None:
        if self._opened_in not in (None, os.getpid()):
            raise UsageError(
                f"{self._title()} was opened in process {self._opened_in}, before a fork: open it after the fork, "
                "in each process"
            )
        if self._closed or (self._is_closing and self._opened_in is None):
            raise HandleClosed(f"{self._title()} is closed")

    def _loop_thread(self) -> LoopThread | None:
        """Return the registry's thread, if there is one."""
        raise NotImplementedError

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _discard(self) -> None:
        """It will not be opened."""

    def _title(self) -> str:
        raise NotImplementedError

    def _repr_of(self, remote: Callable[[], object]) -> str:
        """Return the repr of what *remote* returns, on the loop; in a forked process, which handle this is."""
        if self._opened_in is None:
            return f"<{self._title()}, not opened>"
        thread = self._loop_thread()
        if thread is None or thread.is_elsewhere():
            return f"<{self._title()}, opened in process {self._opened_in}>"
        return thread.call(lambda: repr(remote()))

    def _is_open(self) -> bool:
        return self._opened_in == os.getpid() and not self._closed

    def __del__(self) -> None:
        if self._is_open():
            warnings.warn(f"{self._title()} was never closed", ResourceWarning, source=self, stacklevel=1)


async def _entered(handle: Handle) -> None:
    _ = await handle
