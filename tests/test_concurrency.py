"""The kit for waiting, on asyncio's loop, on uvloop and on the loop with virtual time."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from aioregistry._concurrency import Alarm, Notifier, Supervised, in_daemon_thread
from tests.session.simulation import VirtualLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

LONG = 20.0
"""Seconds that a test waits for what happens at once on a machine that is not loaded."""

MOMENT = 0.01

REAL_LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_each_loop(scenario: Callable[[], Coroutine[Any, Any, None]], loops: dict[str, LoopFactory]) -> Any:
    """Make a test of *scenario* that fails for whatever a callback raises, or a task that is left."""

    @pytest.mark.parametrize("new_loop", loops.values(), ids=loops.keys())
    def test(new_loop: LoopFactory) -> None:
        reported: list[dict[str, Any]] = []

        async def whole() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            await scenario()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(whole())
        gc.collect()
        assert not reported

    test.__doc__ = scenario.__doc__
    return test


def everywhere(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Any:
    return on_each_loop(scenario, REAL_LOOPS | {"virtual time": VirtualLoop})


def in_real_time(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Any:
    """Where threads take part: virtual time does not wait for them."""
    return on_each_loop(scenario, dict(REAL_LOOPS))


async def waiting(notifier: Notifier, number: int) -> None:
    while len(notifier) < number:
        await asyncio.sleep(0)


# ---------------------------------------------------------------- news


@everywhere
async def test_news_wake_all_that_wait_and_nobody_later() -> None:
    notifier = Notifier()
    first, second = (asyncio.ensure_future(notifier.wait()) for _ in range(2))
    await waiting(notifier, 2)
    notifier.notify()
    assert [await first, await second] == [True, True]
    assert len(notifier) == 0
    assert await notifier.wait(MOMENT) is False


@everywhere
async def test_news_that_come_while_waiters_wake_are_for_those_who_wait_again() -> None:
    notifier, woken = Notifier(), 0

    async def again() -> None:
        nonlocal woken
        for _ in range(2):
            await notifier.wait()
            woken += 1

    task = asyncio.ensure_future(again())
    await waiting(notifier, 1)
    notifier.notify()
    notifier.notify()  # nobody has begun to wait anew
    await waiting(notifier, 1)
    assert woken == 1
    notifier.notify()
    await task


@everywhere
async def test_a_waiter_that_is_cancelled_or_too_late_is_forgotten() -> None:
    notifier = Notifier()
    for _ in range(300):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await notifier.wait()
    cancelled = asyncio.ensure_future(notifier.wait())
    await waiting(notifier, 1)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert await notifier.wait(0) is False
    assert len(notifier) == 0
    notifier.notify()


@everywhere
async def test_a_waiter_that_is_cancelled_with_the_news_leaves_nothing() -> None:
    notifier = Notifier()
    task = asyncio.ensure_future(notifier.wait())
    await waiting(notifier, 1)
    notifier.notify()
    task.cancel()
    await asyncio.wait([task])
    assert len(notifier) == 0


@everywhere
async def test_an_answer_ends_the_wait() -> None:
    notifier = Notifier()
    loop = asyncio.get_running_loop()
    answered, cancelled, done = (loop.create_future() for _ in range(3))
    done.set_result(None)
    waits = [asyncio.ensure_future(notifier.wait(LONG, answer=answer)) for answer in (answered, cancelled)]
    await waiting(notifier, 2)
    answered.set_result(None)
    cancelled.cancel()
    assert await asyncio.gather(*waits) == [False, False]
    assert await notifier.wait(LONG, answer=done) is False


@everywhere
async def test_a_condition_is_asked_at_once_and_after_all_news() -> None:
    notifier, asked = Notifier(), 0

    def third_time() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    task = asyncio.ensure_future(notifier.until(third_time))
    await waiting(notifier, 1)
    notifier.notify()
    await waiting(notifier, 1)
    notifier.notify()
    assert await task is True
    assert await notifier.until(lambda: True, 0) is True
    assert await notifier.until(lambda: False, MOMENT) is False


# ---------------------------------------------------------------- a timer


@everywhere
async def test_an_alarm_rings_once_at_the_time_it_was_set_to_last() -> None:
    loop = asyncio.get_running_loop()
    rung: list[float] = []
    rang = asyncio.Event()

    def ring() -> None:
        rung.append(loop.time())
        rang.set()

    alarm = Alarm()
    assert alarm.when is None
    alarm.set_in(MOMENT, ring)
    alarm.set_at(due := loop.time() + 3 * MOMENT, ring)
    assert alarm.when == pytest.approx(due, abs=0.002)  # uvloop counts milliseconds
    await rang.wait()
    assert alarm.when is None
    await asyncio.sleep(3 * MOMENT)
    assert len(rung) == 1
    assert rung[0] >= due - 0.002


@everywhere
async def test_an_alarm_is_brought_forward_and_never_put_off() -> None:
    alarm = Alarm()
    now = asyncio.get_running_loop().time()
    for wanted, expected in ((50.0, 50.0), (70.0, 50.0), (30.0, 30.0)):
        alarm.set_no_later_than(now + wanted, print)
        assert alarm.when == pytest.approx(now + expected, abs=0.002)
    alarm.cancel()


@everywhere
async def test_an_alarm_that_is_cancelled_does_not_ring() -> None:
    rung: list[None] = []
    alarm = Alarm()
    alarm.set_in(MOMENT, lambda: rung.append(None))
    alarm.cancel()
    alarm.cancel()
    await asyncio.sleep(3 * MOMENT)
    assert not rung


@everywhere
async def test_an_alarm_may_be_set_anew_while_it_rings() -> None:
    rang = asyncio.Event()
    times = 0

    def ring() -> None:
        nonlocal times
        times += 1
        if times == 3:
            rang.set()
        else:
            alarm.set_in(MOMENT, ring)

    alarm = Alarm()
    alarm.set_in(0, ring)
    await rang.wait()
    assert alarm.when is None


def test_an_alarm_that_is_not_set_holds_nobody() -> None:
    class Handle:
        def __init__(self) -> None:
            self.alarm = Alarm()

        def ring(self) -> None: ...

    async def scenario() -> None:
        handle = Handle()
        handle.alarm.set_in(LONG, handle.ring)
        handle.alarm.cancel()
        held = weakref.ref(handle)
        gc.disable()
        try:
            del handle
            assert held() is None
        finally:
            gc.enable()

    asyncio.run(scenario())


# ---------------------------------------------------------------- a task with an owner


class Owner:
    def __init__(self) -> None:
        self.heard: list[BaseException] = []
        self.news = Notifier()
        self.task = Supervised(self.died)

    def died(self, error: BaseException) -> None:
        self.heard.append(error)
        self.news.notify()

    async def hears(self) -> BaseException:
        await self.news.until(lambda: self.heard, LONG)
        return self.heard[0]


class Fatal(BaseException):
    """No Exception, and no end of the process either."""


@pytest.mark.parametrize("error", [ValueError("x"), BaseExceptionGroup("x", [Fatal()]), Fatal()])
def test_what_a_task_raises_reaches_its_owner(error: BaseException) -> None:
    async def scenario() -> None:
        owner = Owner()

        async def work() -> None:
            await asyncio.sleep(0)
            raise error

        owner.task.start(work(), name="work")
        assert await owner.hears() is error
        assert not owner.task.running

    for new_loop in (*REAL_LOOPS.values(), VirtualLoop):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(scenario())


@pytest.mark.parametrize("turns", [0, 3])
def test_a_task_that_another_cancels_is_dead(turns: int) -> None:
    async def scenario() -> None:
        owner = Owner()
        owner.task.start(asyncio.sleep(LONG), name="found")
        for _ in range(turns):
            await asyncio.sleep(0)
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "found")
        task.cancel()
        assert isinstance(await owner.hears(), asyncio.CancelledError)

    for new_loop in (*REAL_LOOPS.values(), VirtualLoop):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(scenario())


@everywhere
async def test_an_owner_that_ends_its_task_is_told_nothing() -> None:
    for turns in range(3):
        owner = Owner()
        await owner.task.aclose()
        owner.task.start(asyncio.sleep(LONG), name="work")
        for _ in range(turns):
            await asyncio.sleep(0)
        assert owner.task.running
        assert owner.task.loop is asyncio.get_running_loop()
        await owner.task.aclose()
        await owner.task.aclose()
        assert not owner.task.running
        assert not owner.heard


@everywhere
async def test_a_task_that_returned_may_be_started_again_and_fails_then() -> None:
    owner = Owner()
    owner.task.start(asyncio.sleep(0), name="first")
    await asyncio.sleep(MOMENT)
    assert not owner.task.running
    assert not owner.heard

    async def fails() -> None:
        raise ValueError

    owner.task.start(fails(), name="second")
    assert isinstance(await owner.hears(), ValueError)


@everywhere
async def test_what_goes_wrong_while_a_task_ends_reaches_its_owner() -> None:
    owner = Owner()

    async def work() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            raise ValueError("while ending")

    owner.task.start(work(), name="work")
    await asyncio.sleep(0)
    await owner.task.aclose()
    assert isinstance(await owner.hears(), ValueError)


@everywhere
async def test_who_waits_for_the_end_of_a_task_may_be_cancelled() -> None:
    owner, released = Owner(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            await released.wait()

    owner.task.start(work(), name="work")
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(owner.task.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert owner.task.running
    released.set()
    await owner.task.aclose()
    assert not owner.heard


# ---------------------------------------------------------------- a thread


@in_real_time
async def test_a_thread_answers() -> None:
    assert await in_daemon_thread(lambda: threading.current_thread().name, name="a thread of ours") == (
        "a thread of ours"
    )
    assert await in_daemon_thread(lambda: threading.current_thread().daemon, name="x")


@pytest.mark.parametrize("raised", [ValueError("x"), Fatal(), SystemExit(3), StopIteration("x")])
def test_a_thread_that_raises_answers(raised: BaseException) -> None:
    async def scenario() -> None:
        def work() -> None:
            raise raised

        answer = in_daemon_thread(work, name="x")
        await asyncio.wait([answer], timeout=LONG)
        error = answer.exception()
        assert error is raised or (isinstance(error, RuntimeError) and error.__cause__ is raised)

    for new_loop in REAL_LOOPS.values():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(scenario())


@in_real_time
async def test_an_answer_that_nobody_waits_for_is_forgotten() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(LONG)
        ended.set()
        raise ValueError

    answer = in_daemon_thread(work, name="x")
    answer.cancel()
    go_on.set()
    assert await asyncio.to_thread(ended.wait, LONG)
    await asyncio.sleep(MOMENT)
    assert answer.cancelled()


def test_a_thread_may_outlive_its_loop() -> None:
    go_on = threading.Event()

    async def scenario() -> None:
        _ = in_daemon_thread(lambda: go_on.wait(LONG), name="outlives")

    for new_loop in REAL_LOOPS.values():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(scenario())
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "outlives":
            thread.join(LONG)
            assert not thread.is_alive()


def test_a_system_without_room_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            answer = in_daemon_thread(lambda: None, name="x")
        error = answer.exception()
        assert isinstance(error, OSError)
        assert error.errno == errno.EAGAIN

    for new_loop in REAL_LOOPS.values():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(scenario())
