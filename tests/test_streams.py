"""Streams: nothing lost by cancelling, clear ends, one consumer, nobody held up, nothing held for those who left."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aioregistry._errors import SessionFailed, UsageError
from aioregistry._streams import Source, Stream
from tests.support.waiting import DEADLINE


def stream_of(source: Source[int], capacity: int = 8) -> Stream[int]:
    stream: Stream[int] = Stream(capacity)
    source.attach(stream)
    return stream


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_items_come_in_order_to_every_stream() -> None:
    source: Source[int] = Source()
    first, second = stream_of(source), stream_of(source)
    for item in (1, 2, 3):
        source.offer(item)
    source.close()
    assert [item async for item in first] == [1, 2, 3]
    assert [item async for item in second] == [1, 2, 3]


async def test_a_waiting_consumer_is_woken() -> None:
    source: Source[int] = Source()
    stream = stream_of(source)
    waiting = asyncio.ensure_future(anext(stream))
    await turns()
    assert not waiting.done()
    source.offer(1)
    assert await waiting == 1


async def test_a_stream_begins_when_it_is_attached() -> None:
    source: Source[int] = Source()
    source.offer(1)
    stream = stream_of(source)
    source.offer(2)
    assert await anext(stream) == 2


async def test_what_does_not_fit_drops_the_oldest_of_this_stream_only() -> None:
    source: Source[int] = Source()
    slow, roomy = stream_of(source, capacity=2), stream_of(source)
    for item in (1, 2, 3):
        source.offer(item)
    source.close()
    assert [item async for item in slow] == [2, 3]
    assert [item async for item in roomy] == [1, 2, 3]


class TestEnds:
    async def test_closing_the_source_ends_after_what_was_offered(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        source.offer(1)
        source.close()
        source.offer(2)
        assert await anext(stream) == 1
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    async def test_a_failure_is_raised_after_what_was_offered_and_again_each_time(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        source.offer(1)
        failure = SessionFailed("gone")
        source.close(failure)
        assert await anext(stream) == 1
        for _ in range(2):
            with pytest.raises(SessionFailed) as raised:
                await anext(stream)
            assert raised.value is failure

    async def test_the_first_closing_counts(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        source.close(SessionFailed("first"))
        source.close()
        with pytest.raises(SessionFailed, match="first"):
            await anext(stream)

    @pytest.mark.parametrize("failure", [None, SessionFailed("gone")])
    async def test_a_waiting_consumer_sees_the_end(self, failure: SessionFailed | None) -> None:
        source: Source[int] = Source()
        waiting = asyncio.ensure_future(anext(stream_of(source)))
        await turns()
        source.close(failure)
        with pytest.raises(SessionFailed if failure else StopAsyncIteration):
            await waiting

    @pytest.mark.parametrize("failure", [None, SessionFailed("gone")])
    async def test_a_stream_of_a_closed_source_is_ended(self, failure: SessionFailed | None) -> None:
        source: Source[int] = Source()
        source.close(failure)
        with pytest.raises(SessionFailed if failure else StopAsyncIteration):
            await anext(stream_of(source))

    async def test_aclose_ends_this_stream_at_once_and_no_other(self) -> None:
        source: Source[int] = Source()
        closed, other = stream_of(source), stream_of(source)
        source.offer(1)
        await closed.aclose()
        await closed.aclose()
        source.offer(2)
        with pytest.raises(StopAsyncIteration):
            await anext(closed)
        assert [await anext(other), await anext(other)] == [1, 2]

    async def test_aclose_wakes_who_waits(self) -> None:
        stream = stream_of(Source())
        waiting = asyncio.ensure_future(anext(stream))
        await turns()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting

    async def test_leaving_the_context_closes(self) -> None:
        source: Source[int] = Source()
        async with stream_of(source) as stream:
            source.offer(1)
            assert await anext(stream) == 1
        source.offer(2)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


class TestCancelling:
    async def test_while_waiting_loses_nothing(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        waiting = asyncio.ensure_future(anext(stream))
        await turns()
        waiting.cancel()
        source.offer(1)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await anext(stream) == 1

    async def test_between_the_wake_and_the_taking_loses_nothing(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        waiting = asyncio.ensure_future(anext(stream))
        await turns()
        source.offer(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await anext(stream) == 1

    async def test_at_a_deadline_that_falls_on_the_offer(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        taken: list[int] = []

        async def impatient() -> None:
            while len(taken) < 100:
                try:
                    async with asyncio.timeout(0.0005):
                        taken.append(await anext(stream))
                except TimeoutError:
                    continue

        consumer = asyncio.ensure_future(impatient())
        for item in range(100):
            source.offer(item)
            await asyncio.sleep(0.0003 * (item % 4))
        async with asyncio.timeout(DEADLINE):
            await consumer
        assert taken == list(range(100))


class TestOneConsumer:
    async def test_a_second_one_is_told(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        waiting = asyncio.ensure_future(anext(stream))
        await turns()
        with pytest.raises(UsageError, match="another task"):
            await anext(stream)
        source.offer(1)
        assert await waiting == 1

    async def test_one_after_the_other_is_fine(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        for item in (1, 2):
            source.offer(item)
            assert await asyncio.ensure_future(anext(stream)) == item


class TestWhoIsHeld:
    async def test_a_dropped_stream_costs_nothing(self) -> None:
        source: Source[int] = Source()
        dropped = weakref.ref(stream_of(source))
        kept = stream_of(source)
        gc.collect()
        assert dropped() is None
        assert len(source._streams) == 1
        source.offer(1)
        assert await anext(kept) == 1

    async def test_a_closed_stream_is_forgotten_with_the_next_item(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        await stream.aclose()
        source.offer(1)
        assert not source._streams

    async def test_a_task_that_nobody_else_holds_goes_on_waiting(self) -> None:
        source: Source[int] = Source()
        seen: list[int] = []

        async def follow() -> None:
            async for item in stream_of(source):
                seen.append(item)  # noqa: PERF401 - to be seen while it goes on

        task = weakref.ref(asyncio.ensure_future(follow()))
        await turns()
        gc.collect()
        for item in (1, 2):
            source.offer(item)
            await turns()
            gc.collect()
        assert seen == [1, 2]
        source.close()
        await turns()
        gc.collect()
        assert task() is None

    async def test_a_cancelled_wait_holds_nothing(self) -> None:
        source: Source[int] = Source()
        stream = stream_of(source)
        waiting = asyncio.ensure_future(anext(stream))
        await turns()
        waiting.cancel()
        await asyncio.wait([waiting])
        dropped = weakref.ref(stream)
        del stream, waiting
        gc.collect()
        assert dropped() is None


def in_a_thread(wait: Callable[[], Coroutine[Any, Any, object]]) -> Exception:
    """The exception of a wait in a thread with a loop of its own."""
    with ThreadPoolExecutor(1) as threads:
        error = threads.submit(lambda: asyncio.run(asyncio.wait_for(wait(), 5))).exception()
    assert isinstance(error, Exception)
    return error


async def test_another_loop_is_told_at_once() -> None:
    """Its future would be resolved from this thread, which asyncio does not notice: a wait without end."""
    source: Source[int] = Source()
    stream = stream_of(source)
    assert isinstance(in_a_thread(stream.__anext__), UsageError)
    source.offer(1)
    assert await anext(stream) == 1


def test_a_stream_made_outside_of_a_loop_belongs_to_the_first_that_waits() -> None:
    source: Source[int] = Source()
    stream = stream_of(source)

    async def wait() -> int:
        asyncio.get_running_loop().call_soon(source.offer, 1)
        return await anext(stream)

    assert asyncio.run(wait()) == 1
    with pytest.raises(UsageError, match="another event loop"):
        asyncio.run(wait())
