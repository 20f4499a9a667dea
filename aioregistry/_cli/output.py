"""Lines that never hold up the session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import stat
import threading
from collections.abc import Callable
from typing import Self, TextIO


class Output:
    """Writes lines to a file of this process, from a thread of its own.

    A pager or a terminal that stands still (Ctrl-S) stops the writer; on the event loop that would stop the heartbeats
    too.

    Args:
        file: standard output or standard error.
        gone: called on the event loop when *file* is a pipe and its reader goes away: waiting for the next line to find
            that out could take for ever.
    """

    def __init__(self, file: TextIO, gone: Callable[[], object]) -> None:
        self._fd = file.fileno()
        self._gone = gone
        self._failure: OSError | None = None
        self._loop = asyncio.get_running_loop()
        self._lines: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()

    async def __aenter__(self) -> Self:
        # Daemon: a writer that is stuck must not hold up the exit.
        threading.Thread(target=self._write_lines, name="aioregistry-output", daemon=True).start()
        if self._is_pipe():
            self._loop.add_reader(self._fd, self._reader_gone)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._is_pipe():
            self._loop.remove_reader(self._fd)

    def put(self, text: str) -> asyncio.Future[None]:
        """Queue *text* as a line; return a future that is done when the line is written, or could not be.

        Raises OSError when an earlier line could not be written, BrokenPipeError when the reader is gone.
        """
        if self._failure is not None:
            raise self._failure
        written: asyncio.Future[None] = self._loop.create_future()
        self._lines.put((f"{text}\n".encode(), written))
        return written

    async def line(self, text: str) -> None:
        """Write *text* as a line and return when it is written; raises as `put`. Cancelling stops only the waiting."""
        await self.put(text)
        if self._failure is not None:
            raise self._failure

    def _is_pipe(self) -> bool:
        return stat.S_ISFIFO(os.fstat(self._fd).st_mode)

    def _reader_gone(self) -> None:
        # The write end of a pipe becomes "readable" when the last reader closes; asyncio's write pipes rely on it too.
        self._loop.remove_reader(self._fd)
        self._gone()

    def _write_lines(self) -> None:
        while True:
            data, written = self._lines.get()
            failure = None
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended: no task waits
                self._loop.call_soon_threadsafe(self._settle, written, failure)

    def _settle(self, written: asyncio.Future[None], failure: OSError | None) -> None:
        self._failure = self._failure or failure
        if not written.done():
            written.set_result(None)
