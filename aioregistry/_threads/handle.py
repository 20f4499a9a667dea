"""The common part of the handles for threads without a loop."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Self

from aioregistry._errors import HandleClosed, UsageError

__all__ = ["BlockingHandle"]


class BlockingHandle:
    """Base of the handles for threads: opened once in a process, by ``with`` or a first use, and closed once."""

    _opened_in: int | None = None
    _closed = False

    def __init__(self) -> None:
        self._lock = threading.RLock()  # between threads that use it first, and one that closes it

    def open(self) -> Self:
        """Open it, if it is not open yet, and return it; waits as entering it in asyncio does, and raises the same.

        Threads that open it at the same time wait for the one opening. If opening fails, a later call tries again.

        Raises:
            HandleClosed: it was closed.
            UsageError: it was opened before a fork, in the parent process.
        """
        with self._lock:
            self._check()
            if self._opened_in is None:
                self._open()
                self._opened_in = os.getpid()
        return self

    def close(self) -> None:
        """Close it, within ``close_timeout`` seconds; closing a registration withdraws it.

        It may be called again, and before it was opened. In a child process it does nothing to a handle that the parent
        opened.
        """
        if self._opened_in not in (None, os.getpid()):
            return
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

    def _check(self) -> None:
        if self._opened_in not in (None, os.getpid()):
            raise UsageError(
                f"{self._title()} was opened in process {self._opened_in}, before a fork: open it after the fork, "
                "in each process"
            )
        if self._closed:
            raise HandleClosed(f"{self._title()} is closed")

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _discard(self) -> None:
        """It will not be opened."""

    def _title(self) -> str:
        raise NotImplementedError

    def _is_open(self) -> bool:
        return self._opened_in == os.getpid() and not self._closed

    def __del__(self) -> None:
        if self._is_open():
            warnings.warn(f"{self._title()} was never closed", ResourceWarning, source=self, stacklevel=1)
