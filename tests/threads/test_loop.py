"""The loop in a thread of its own, and the ways across."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from aioregistry import HandleClosed, RequestTimeout, UsageError
from aioregistry._streams import Source, Stream
from aioregistry._threads.loop import LoopThread
from aioregistry._threads.streams import BlockingStream, ThreadStream
from tests.support.forks import outcomes_of, told_by_child

DEADLINE = 100.0

OUTAGE = {"zk1:2181": "it is asleep"}


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("test", lambda: OUTAGE)
    yield thread
    thread.stop()
    thread.join()


class Numbers(Stream[int]):
    def __init__(self) -> None:
        super().__init__(10_000)


class Feed:
    """A source on the thread's loop, and the stream that it feeds."""

    def __init__(self, thread: LoopThread) -> None:
        self.thread = thread
        self.source: Source[int] = Source()
        self.stream = thread.call(self._attached)

    def _attached(self) -> Numbers:
        stream = Numbers()
        self.source.attach(stream)
        return stream

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            self.thread.post(self.source.offer, number)

    def close(self, error: Exception | None = None) -> None:
        self.thread.post(self.source.close, error)


async def ident() -> int:
    return threading.get_ident()


def fail() -> None:
    raise LookupError("x")


async def test_what_runs_there_runs_on_another_thread(thread: LoopThread) -> None:
    assert len({await thread.run(ident), thread.wait(ident), thread.call(threading.get_ident)}) == 1
    assert await thread.run(ident) != threading.get_ident()


async def test_what_is_raised_there_is_raised_here(thread: LoopThread) -> None:
    async def failing() -> None:
        fail()

    with pytest.raises(LookupError):
        thread.call(fail)
    with pytest.raises(LookupError):
        thread.wait(failing)
    with pytest.raises(LookupError):
        await thread.run(failing)


def test_a_call_from_the_thread_itself_does_not_wait_for_itself(thread: LoopThread) -> None:
    assert thread.call(lambda: thread.call(lambda: 1)) == 1


@pytest.mark.parametrize("scoped", [False, True])
async def test_cancelling_reaches_across_and_waits_for_the_end(thread: LoopThread, scoped: bool) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            ended.set()

    async def cancelled() -> None:
        if scoped:
            with anyio.CancelScope() as scope:
                asyncio.get_running_loop().call_later(0.01, scope.cancel)
                await thread.run(endless)
            assert scope.cancelled_caught
        else:
            task = asyncio.create_task(thread.run(endless))
            await asyncio.to_thread(begun.wait, DEADLINE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    await cancelled()
    assert ended.is_set()


async def test_what_a_cancelled_one_raises_instead_is_told(thread: LoopThread) -> None:
    begun = threading.Event()

    async def stubborn() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise LookupError from None

    task = asyncio.create_task(thread.run(stubborn))
    await asyncio.to_thread(begun.wait, DEADLINE)
    task.cancel()
    with pytest.raises(LookupError):
        await task


def test_a_signal_cancels_what_a_thread_waits_for(thread: LoopThread) -> None:
    ended = threading.Event()

    async def endless() -> None:
        try:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        thread.wait(endless)
    assert ended.is_set()


def test_the_stop_cancels_what_is_under_way_and_refuses_what_comes_later(thread: LoopThread) -> None:
    begun = threading.Event()
    told: list[BaseException] = []

    async def endless() -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    def waiting() -> None:
        try:
            thread.wait(endless)
        except asyncio.CancelledError as error:
            told.append(error)

    waiter = threading.Thread(target=waiting)
    waiter.start()
    assert begun.wait(DEADLINE)
    thread.stop()
    thread.stop()
    waiter.join(DEADLINE)
    assert len(told) == 1
    with pytest.raises(HandleClosed):
        thread.wait(endless)
    assert not thread.begin(endless)
    assert thread.call(lambda: 1) == 1  # nothing moves there any more: it may be read from here


def test_its_own_thread_is_refused_a_wait_for_itself(thread: LoopThread) -> None:
    numbers = Feed(thread)
    stream = BlockingStream(thread, numbers.stream, None)

    def waits() -> None:
        waiting: list[Callable[[], object]] = [
            lambda: thread.wait(ident),
            lambda: thread.wait_within(DEADLINE, "a bus", ident),
            lambda: stream.next(DEADLINE),
        ]
        for wait in waiting:
            with pytest.raises(UsageError, match="own thread"):
                wait()

    thread.call(waits)
    numbers.offer(1)
    assert stream.next(DEADLINE) == 1


def test_a_forked_process_is_refused_and_the_thread_goes_on(thread: LoopThread) -> None:
    numbers = Feed(thread)
    stream = BlockingStream(thread, numbers.stream, None)
    numbers.offer(1, 2, 3)
    assert stream.next(DEADLINE) == 1
    crossing = ThreadStream(thread, Feed(thread).stream)

    def child() -> list[str]:
        told = outcomes_of(
            [
                lambda: thread.wait(ident),
                lambda: thread.call(threading.get_ident),
                lambda: thread.post(threading.get_ident),
                stream.next,  # items are waiting in it, too
                lambda: asyncio.run(anext(crossing)),
            ]
        )
        told.append(str(thread.begin(ident)))
        stream.close()
        return told

    assert told_by_child(child) == ["refused"] * 5 + ["False"]
    assert [stream.next(DEADLINE), stream.next(DEADLINE)] == [2, 3]
    numbers.offer(4)
    assert stream.next(DEADLINE) == 4


def test_a_signal_in_the_middle_loses_no_item(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = Feed(thread)
    stream = BlockingStream(thread, numbers.stream, None)
    numbers.offer(1, 2)
    waits = thread.wait_for

    def interrupted(*arguments: Any) -> Any:
        waits(*arguments)
        raise KeyboardInterrupt  # the items have left the stream on the loop

    with monkeypatch.context() as patched:
        patched.setattr(thread, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.next(DEADLINE)
    assert [stream.next(DEADLINE), stream.next(DEADLINE)] == [1, 2]


def test_an_end_of_the_process_asked_for_there_is_passed_on_and_the_loop_goes_on(thread: LoopThread) -> None:
    def leave() -> None:
        raise SystemExit

    def told() -> None:
        thread.post(leave)
        threading.Event().wait(DEADLINE)

    with pytest.raises(KeyboardInterrupt):
        told()
    assert thread.call(lambda: 1) == 1


def test_a_deadline_names_what_did_not_come(thread: LoopThread) -> None:
    async def endless() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RequestTimeout, match="did not come within timeout=") as late:
        thread.wait_within(0.01, "a bus", endless)
    assert str(late.value).startswith("a bus ")
    assert str(late.value).endswith("zk1:2181: it is asleep")
    assert late.value.attempts == OUTAGE


# ---------------------------------------------------------------- streams


async def test_a_stream_brings_all_in_order_and_ends(thread: LoopThread) -> None:
    feed = Feed(thread)
    stream: ThreadStream[int] = ThreadStream(thread, feed.stream)
    feed.offer(*range(1000))
    feed.close()
    assert [number async for number in stream] == [*range(1000)]


async def test_a_stream_raises_what_its_source_failed_with(thread: LoopThread) -> None:
    feed = Feed(thread)
    stream: ThreadStream[int] = ThreadStream(thread, feed.stream)
    feed.offer(1)
    feed.close(LookupError("x"))
    assert await anext(stream) == 1
    with pytest.raises(LookupError):
        await anext(stream)


async def test_a_cancelled_wait_loses_nothing(thread: LoopThread) -> None:
    feed = Feed(thread)
    stream: ThreadStream[int] = ThreadStream(thread, feed.stream)
    got: list[int] = []
    for number in range(50):
        waiter = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        feed.offer(number)
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            got.append(await waiter)
    feed.close()
    got += [number async for number in stream]
    assert got == [*range(50)]


async def test_a_stream_that_was_dropped_ends_on_its_loop(thread: LoopThread) -> None:
    feed = Feed(thread)
    stream: ThreadStream[int] | None = ThreadStream(thread, feed.stream)
    assert stream is not None
    waiter = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiter.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiter
    stream = waiter = None  # type: ignore[assignment]
    async with asyncio.timeout(DEADLINE):
        while not feed.stream._ended:
            gc.collect()
            await asyncio.sleep(0.001)


async def test_a_stream_that_is_waited_on_survives_a_collection(thread: LoopThread) -> None:
    feed = Feed(thread)

    async def first() -> int:
        return await anext(ThreadStream(thread, feed.stream))

    waiter = asyncio.ensure_future(first())
    await asyncio.sleep(0)
    gc.collect()
    feed.offer(7)
    async with asyncio.timeout(DEADLINE):
        assert await waiter == 7


async def test_a_closed_stream_ends_the_wait_on_it(thread: LoopThread) -> None:
    feed = Feed(thread)
    stream: ThreadStream[int] = ThreadStream(thread, feed.stream)
    waiter = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    await stream.aclose()
    async with asyncio.timeout(DEADLINE):
        assert await waiter is None


async def test_a_stream_of_a_stopped_thread_ends(thread: LoopThread) -> None:
    stream: ThreadStream[int] = ThreadStream(thread, Feed(thread).stream)
    thread.stop()
    assert await anext(stream, None) is None


def test_a_blocking_stream_ends_an_iteration_in_a_pause_and_goes_on(thread: LoopThread) -> None:
    feed = Feed(thread)
    stream = BlockingStream(thread, feed.stream, 0.05)
    feed.offer(1, 2)
    assert [*stream] == [1, 2]
    feed.offer(3)
    assert [*stream] == [3]
    with pytest.raises(RequestTimeout):
        stream.next(0.01)
    feed.offer(4)
    feed.close()
    assert stream.next() == 4
    with pytest.raises(StopIteration):
        stream.next()


def test_a_blocking_stream_is_for_one_thread_at_a_time(thread: LoopThread) -> None:
    feed = Feed(thread)
    stream = BlockingStream(thread, feed.stream, None)
    got: list[int] = []
    waiter = threading.Thread(target=lambda: got.extend(stream))
    waiter.start()

    def until_the_other_waits() -> None:
        while True:
            with contextlib.suppress(RequestTimeout):
                stream.next(0.001)

    with pytest.raises(UsageError):
        until_the_other_waits()
    stream.close()
    waiter.join(DEADLINE)
    assert not waiter.is_alive()
    assert got == []
