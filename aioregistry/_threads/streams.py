"""Streams on another loop, taken in batches: one crossing brings all that is there, not one item."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, Self, TypeVar

from aioregistry._arguments import check_seconds
from aioregistry._errors import RequestTimeout, UsageError
from aioregistry._streams import Stream

from .loop import LoopThread

__all__ = ["BlockingStream", "ThreadStream"]

T = TypeVar("T")

_BATCH: Final = 256
"""Items of one crossing; the rest stays in the stream on the loop, which bounds it."""


async def _batch(stream: Stream[T]) -> list[T]:
    """Wait for an item of *stream*, and return it with those that are there beside it; empty at the end."""
    try:
        first = await anext(stream)
    except StopAsyncIteration:
        return []
    return [first, *stream.take_ready(_BATCH - 1)]


class ThreadStream(Stream[T]):
    """A stream on the registry's loop, to be iterated on the loop of the caller.

    Args:
        thread: whose loop *remote* is on.
        remote: the stream there; only this object iterates it.
    """

    def __init__(self, thread: LoopThread, remote: Stream[T]) -> None:
        super().__init__(_BATCH)
        self._thread, self._remote = thread, remote
        self._receiver: _Receiver[T] | None = None
        """Of the batch that was asked for and has not come yet."""
        weakref.finalize(self, thread.begin, remote.aclose).atexit = False

    async def aclose(self) -> None:
        """End the stream now; a task that waits on it sees its end. Never blocks."""
        await super().aclose()
        self._thread.begin(self._remote.aclose)

    async def _change(self) -> None:
        loop = self._own_loop()
        self._thread.check_process()
        if self._receiver is None:
            self._receiver = _Receiver(self)
            if not self._thread.begin(_ask, self._remote, self._receiver, loop):
                self._end(None)  # its registry was closed
                return
        receiver = self._receiver
        receiver.waited_on = self
        try:
            await super()._change()
        finally:
            receiver.waited_on = None

    def _deliver(self, items: list[T], error: BaseException | None) -> None:
        """A batch has come, or the end."""
        self._receiver = None
        for item in items:
            self._offer(item)
        if not items:
            self._end(error)


class _Receiver(Generic[T]):
    """Holds its stream while a task waits on that, and only then: else nothing would end a stream that was dropped."""

    def __init__(self, stream: ThreadStream[T]) -> None:
        self.waited_on: ThreadStream[T] | None = None
        self._stream = weakref.ref(stream)

    def deliver(self, items: list[T], error: BaseException | None) -> None:
        """Give it a batch, or its end; on its own loop."""
        stream = self._stream()
        if stream is not None:
            stream._deliver(items, error)


async def _ask(remote: Stream[T], receiver: _Receiver[T], loop: asyncio.AbstractEventLoop) -> None:
    items: list[T] = []
    error: BaseException | None = None
    try:
        items = await _batch(remote)
    except BaseException as failure:  # noqa: BLE001 - it belongs to the task that iterates
        error = failure
    with contextlib.suppress(RuntimeError):  # that loop was closed
        loop.call_soon_threadsafe(receiver.deliver, items, error)


class BlockingStream(Iterator[T]):
    """A stream on the registry's loop, to be iterated in a thread; ``with`` or :meth:`close` ends it early.

    Args:
        thread: whose loop *remote* is on.
        remote: the stream there; only this object iterates it.
        timeout: seconds without an item after which an iteration ends; the stream goes on, and may be iterated again.
            None waits for as long as it takes.

    Raises:
        InvalidArgument: *timeout* is not a time to wait for.
    """

    def __init__(self, thread: LoopThread, remote: Stream[T], timeout: float | None) -> None:
        if timeout is not None:
            check_seconds("timeout", timeout)
        self._thread, self._remote, self._timeout = thread, remote, timeout
        self._items: deque[T] = deque()
        self._busy = threading.Lock()
        weakref.finalize(self, thread.begin, remote.aclose).atexit = False

    def __next__(self) -> T:
        try:
            return self.next(self._timeout)
        except RequestTimeout:
            raise StopIteration from None

    def next(self, timeout: float | None = None) -> T:
        """Wait for the next item.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: nothing came in time; the stream goes on.
            StopIteration: the stream has ended.
            UsageError: another thread is waiting on this stream; or it was opened before a fork, in the parent process,
                or this is the registry's own thread.
        """
        self._thread.check_outside()
        if not self._busy.acquire(blocking=False):
            raise UsageError("this stream is being waited on by another thread: open a stream for each consumer")
        try:
            if not self._items:
                self._thread.wait_within(timeout, "an item", self._fetch)
            if not self._items:
                raise StopIteration
            return self._items.popleft()
        finally:
            self._busy.release()

    async def _fetch(self) -> None:
        """Take a batch, on the loop: a signal may end the wait of the thread when the items have left the stream."""
        self._items.extend(await _batch(self._remote))

    def close(self) -> None:
        """End the stream; a thread that waits on it sees its end."""
        self._thread.begin(self._remote.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
