"""Bounded async iterators, and the source that feeds them.

One stream, one consumer. A stream never holds up who feeds it: offering is synchronous, and what does not fit is
decided by the stream (the oldest goes). The pattern of clear ends is trio's memory channel: a stream ends when its
source is closed and raises when its source failed; items offered before are delivered first.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, Self, TypeVar

from ._errors import UsageError
from ._runtime import running_loop

__all__ = ["Source", "Stream"]

T = TypeVar("T")


class Stream(AsyncIterator[T]):
    """An async iterator over the items of a source, from its creation on.

    ``async for`` takes item after item; :meth:`aclose` (or ``async with``) ends it early. Cancelling a waiting
    ``__anext__`` loses no item. If its source fails, it gives the items from before, and then raises that error. It
    raises :class:`UsageError` if two tasks wait on it, if a task waits on it in another loop than it was made in, or
    under trio.

    Args:
        capacity: items that it holds; beyond them the oldest goes.
        first: items that it holds from the beginning.
    """

    def __init__(self, capacity: int, *first: T) -> None:
        self._items: deque[T] = deque(first, maxlen=capacity)
        self._waiter: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._source: Source[T] | None = None
        self._ended = False
        self._error: BaseException | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._waiter is not None:
            raise UsageError("this stream is being waited on by another task: open a stream for each consumer")
        while not self._ready():
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._change()
        return self._take()

    async def _change(self) -> None:
        self._waiter = self._own_loop().create_future()
        if self._source is not None:
            self._source._hold(self)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._source is not None:
                self._source._release(self)

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        loop = running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise UsageError("this stream belongs to another event loop or thread")
        return loop

    async def aclose(self) -> None:
        """End the stream now; a task that waits on it sees its end. Never blocks."""
        self._items.clear()
        self._end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def take_ready(self, limit: int) -> list[T]:
        """Return up to *limit* items that are there now, without waiting for any."""
        ready: list[T] = []
        while len(ready) < limit and self._ready():
            ready.append(self._take())
        return ready

    def _ready(self) -> bool:
        return bool(self._items)

    def _take(self) -> T:
        return self._items.popleft()

    def _offer(self, item: T) -> None:
        if not self._ended:
            self._items.append(item)
            self._wake()

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Source(Generic[T]):
    """Feeds any number of streams; holds them weakly, so that one that was dropped costs nothing."""

    def __init__(self) -> None:
        self._streams: dict[int, weakref.ref[Stream[T]]] = {}
        # A task that waits on a stream is often referenced nowhere else: the event loop holds its tasks weakly, and
        # both would go in a garbage collection, in silence.
        self._waited_on: dict[int, Stream[T]] = {}
        self._ended = False
        self._error: BaseException | None = None

    def attach(self, stream: Stream[T]) -> None:
        """Feed *stream*, which has no other source, from now on; a source that is closed already ends it at once."""
        if self._ended:
            stream._end(self._error)
            return
        stream._source = self
        with contextlib.suppress(RuntimeError):  # outside of a loop, the first wait tells
            stream._loop = asyncio.get_running_loop()
        key = id(stream)
        self._streams[key] = weakref.ref(stream, lambda _: self._streams.pop(key, None))

    def offer(self, item: T) -> None:
        """Offer *item* to every stream."""
        for stream in self._live():
            stream._offer(item)

    def close(self, error: BaseException | None = None) -> None:
        """End every stream, now and later ones, with *error* if given."""
        if self._ended:
            return
        self._ended, self._error = True, error
        for stream in self._live():
            stream._end(error)
        self._streams.clear()

    def _hold(self, stream: Stream[T]) -> None:
        self._waited_on[id(stream)] = stream

    def _release(self, stream: Stream[T]) -> None:
        self._waited_on.pop(id(stream), None)

    def _live(self) -> list[Stream[T]]:
        live = []
        for key, reference in list(self._streams.items()):
            stream = reference()
            if stream is None or stream._ended:
                self._streams.pop(key, None)
            else:
                live.append(stream)
        return live
