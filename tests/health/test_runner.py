"""The runner in a world whose time is exact: what it says, when, and what a bad check costs the others."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aioregistry import Check, CheckState, HttpCheck, InvalidArgument, TcpCheck
from aioregistry._health import Runner, checked_checks
from tests.session.simulation import World, simulated
from tests.support.checkers import Violated, check_truthful
from tests.support.raising import ODD, raising

Probe = Callable[[], Awaitable[object]]


class Watched:
    """A runner, and what it said."""

    def __init__(self, world: World, **checks: Check | Probe) -> None:
        self.world = world
        self.events: list[tuple[str, CheckState]] = []
        self.history: list[tuple[float, bool]] = []
        self.runner = Runner(checked_checks(checks), title="chat/a", about={}, runtime=world, changed=self.changed)

    def changed(self, name: str) -> None:
        self.events.append((name, self.state(name)))
        if not self.history or self.history[-1][1] is not self.runner.passing:
            self.history.append((self.world.monotonic(), self.runner.passing))

    async def __aenter__(self) -> Watched:
        self.history.append((self.world.monotonic(), self.runner.passing))
        self.runner.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.runner.stop()
        await self.runner.over()

    def state(self, name: str) -> CheckState:
        return self.runner.statuses[name].state


async def well() -> None:
    """Passes."""


@simulated
async def test_failing_until_the_first_success(world: World) -> None:
    answers = [False, False, True]

    async def slow_to_start() -> bool:
        return answers.pop(0) if answers else True

    async with Watched(world, db=Check(slow_to_start, interval=5, rise=4)) as watched:
        assert not watched.runner.passing
        assert watched.runner.reason == "db: has not passed yet"
        await asyncio.sleep(6)
        assert watched.state("db") is CheckState.STARTING
        assert watched.runner.statuses["db"].reason == "it returned False"
        await asyncio.sleep(6)
        assert watched.runner.passing
        assert watched.runner.reason is None
        assert watched.runner.statuses["db"].since <= world.wall()


@simulated
async def test_passing_from_the_start_by_choice(world: World) -> None:
    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    async with Watched(world, db=Check(never, interval=5, timeout=1, fall=2, initial="passing")) as watched:
        assert watched.runner.passing
        await asyncio.sleep(4.4)
        assert watched.runner.passing
        await asyncio.sleep(2)
        assert not watched.runner.passing


@simulated
async def test_fall_and_rise(world: World) -> None:
    healthy = True

    async def check() -> bool:
        return healthy

    async with Watched(world, db=Check(check, interval=10, timeout=1, rise=2, fall=3)) as watched:
        await asyncio.sleep(1)
        assert watched.runner.passing
        healthy = False
        await asyncio.sleep(20)
        assert watched.runner.passing
        await asyncio.sleep(10)
        assert watched.state("db") is CheckState.FAILING
        healthy = True
        await asyncio.sleep(10)
        assert watched.state("db") is CheckState.FAILING
        await asyncio.sleep(10)
        assert watched.runner.passing
    assert watched.events == [("db", CheckState.PASSING), ("db", CheckState.FAILING), ("db", CheckState.PASSING)]


@pytest.mark.parametrize("kind", ODD)
def test_whatever_a_check_raises_it_has_failed_and_costs_nobody_else_anything(kind: str) -> None:
    @simulated
    async def scenario(world: World) -> None:
        async def bad() -> None:
            raising(kind)

        def worse() -> Awaitable[object]:
            raising(kind)

        async with Watched(world, bad=bad, worse=worse, good=well) as watched:
            await asyncio.sleep(60)
            assert [watched.state(name) for name in ("bad", "worse", "good")] == [
                CheckState.STARTING, CheckState.STARTING, CheckState.PASSING,
            ]  # fmt: skip
            assert watched.runner.statuses["worse"].reason

    scenario()


@simulated
async def test_what_is_no_async_function_has_failed_and_says_so(world: World) -> None:
    plain: Any = lambda: True  # noqa: E731
    async with Watched(world, plain=Check(plain), good=well) as watched:
        await asyncio.sleep(1)
        assert watched.state("plain") is CheckState.STARTING
        assert watched.state("good") is CheckState.PASSING
        reason = watched.runner.statuses["plain"].reason
        assert reason is not None
        assert reason.startswith("its function is not async: it returned bool, which cannot be awaited")


@simulated
async def test_a_result_that_was_not_awaited_has_failed_and_says_so(world: World) -> None:
    async def coroutine() -> object:
        return well()

    async def future() -> object:
        return asyncio.get_running_loop().create_future()

    async with Watched(world, coroutine=coroutine, future=future) as watched:
        await asyncio.sleep(1)
        for name in ("coroutine", "future"):
            assert watched.state(name) is CheckState.STARTING
            reason = watched.runner.statuses[name].reason
            assert reason is not None
            assert reason.endswith("an await is missing")


@simulated
async def test_the_largest_numbers_are_waited_for(world: World) -> None:
    most = Check(well, interval=sys.float_info.max, timeout=sys.float_info.max, rise=1_000_000, fall=1_000_000)
    async with Watched(world, most=most) as watched:
        await asyncio.sleep(1)
        assert watched.state("most") is CheckState.PASSING


@simulated
async def test_a_plain_function_that_returns_an_awaitable_is_one_that_can_be_asked(world: World) -> None:
    """As the methods of redis-py's asynchronous client."""

    def coroutine() -> Awaitable[None]:
        return well()

    def future() -> Awaitable[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(True)
        return answer

    async with Watched(world, coroutine=coroutine, future=future, partial=functools.partial(well)) as watched:
        await asyncio.sleep(1)
        assert watched.runner.passing


@simulated
async def test_one_that_hangs_fails_in_time_and_delays_no_other(world: World) -> None:
    calls: list[float] = []
    hanging = False

    async def db() -> None:
        if hanging:
            await asyncio.get_running_loop().create_future()

    async def other() -> None:
        calls.append(world.monotonic())

    async with Watched(world, db=Check(db, interval=5, timeout=1, fall=3), other=Check(other, interval=1)) as watched:
        await asyncio.sleep(0.5)
        assert watched.runner.passing
        hanging = True
        await asyncio.sleep(15.5)
        assert watched.state("db") is CheckState.FAILING
        assert watched.runner.statuses["db"].reason == "no answer within 1 s"
    assert all(after - before <= 1.001 for before, after in itertools.pairwise(calls))
    assert len(calls) >= 16


@simulated
async def test_one_that_cannot_be_cancelled_runs_once(world: World) -> None:
    running = most = 0
    release = asyncio.Event()

    async def stubborn() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        running -= 1

    async with Watched(world, stubborn=Check(stubborn, interval=1, timeout=0.5, fall=1)) as watched:
        await asyncio.sleep(30)
        assert most == 1
        assert "has not ended" in (watched.runner.statuses["stubborn"].reason or "")
        release.set()
        await asyncio.sleep(3)
        assert watched.state("stubborn") is CheckState.PASSING
        release.clear()
        await asyncio.sleep(1.5)
    # The end waited for nobody.
    release.set()
    await asyncio.sleep(0.1)
    assert running == 0


@pytest.mark.parametrize("timeout", [0.2, 1, 5, 30])
@pytest.mark.parametrize("fall", [1, 2, 3])
def test_truthful(timeout: float, fall: int) -> None:
    """For whatever a check does, also one that may take longer than its interval."""

    @simulated
    async def scenario(world: World) -> None:
        successes: list[float] = []

        async def check() -> bool:
            began = world.monotonic()
            mood = world.uniform(0, 10)
            if mood > 7:
                await asyncio.sleep(world.uniform(0, timeout * 1.5))
            if mood > 9:
                await asyncio.get_running_loop().create_future()
            if mood < 3:
                return False
            successes.append(began)
            return True

        interval = 5.0
        async with Watched(world, db=Check(check, interval=interval, timeout=timeout, fall=fall)) as watched:
            await asyncio.sleep(3000)
            assert len(watched.history) > 10
            check_truthful(
                enabled=watched.history, successes=successes, until=world.monotonic(),
                interval=interval, timeout=timeout, fall=fall, publishing=0.01,
            )  # fmt: skip

    scenario()


def test_the_checker_finds_what_is_not_truthful() -> None:
    check_truthful(enabled=[(0, False), (1, True)], successes=[1, 5], until=10, interval=5, timeout=1, fall=1)
    with pytest.raises(Violated, match="Truthful"):
        check_truthful(enabled=[(0, False), (1, True)], successes=[1, 5], until=12, interval=5, timeout=1, fall=1)
    with pytest.raises(Violated, match="Truthful"):
        check_truthful(enabled=[(0, True)], successes=[1], until=2, interval=5, timeout=1, fall=1)


@simulated
async def test_it_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    healthy, name, why = True, "db", "no route to the database"

    async def check() -> None:
        if not healthy:
            raise ValueError(why)

    caplog.set_level(logging.INFO, logger="aioregistry.health")
    async with Watched(world, **{name: Check(check, interval=1, fall=1)}):
        await asyncio.sleep(0.5)
        healthy = False
        await asyncio.sleep(60)
        healthy = True
        await asyncio.sleep(2)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert caplog.records[1].getMessage() == (
        f"chat/a: check {name!r} ({check.__qualname__}) fails, "
        f"so the instance is listed as not enabled: ValueError: {why}"
    )


@simulated
async def test_checks_of_many_do_not_fall_into_step(world: World) -> None:
    begun: list[list[float]] = [[] for _ in range(20)]

    def made(times: list[float]) -> Probe:
        async def check() -> None:
            times.append(world.monotonic())

        return check

    async with Watched(world, **{f"c{i}": Check(made(times), interval=10) for i, times in enumerate(begun)}):
        await asyncio.sleep(300)
    last = [times[-1] for times in begun]
    assert max(last) - min(last) > 1


@pytest.mark.parametrize(
    ("checks", "field"),
    [
        (None, "checks"),
        ([well], "checks"),
        ({"": well}, "checks"),
        ({1: well}, "checks"),
        ({"two\nlines": well}, "checks"),
        ({"db": 1}, "checks['db']"),
        ({"db": well()}, "checks['db']"),
    ],
)
def test_what_is_no_check_is_refused(checks: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        checked_checks(checks)
    assert raised.value.field == field
    if isinstance(checks, dict) and asyncio.iscoroutine(each := next(iter(checks.values()))):
        each.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("interval", value) for value in (0, -1, float("nan"), "5", None, True)),
        *(("timeout", value) for value in (0, -0.1, float("nan"), "1", None)),
        *(("rise", value) for value in (0, -1, 1.0, True, None)),
        *(("fall", value) for value in (0, -1, 1.0, True, None)),
        ("initial", "unknown"),
        ("probe", 7),
    ],
)
def test_options_that_are_wrong_are_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Check(**({"probe": well} | {field: value}))
    assert (raised.value.field, raised.value.value) == (field, value)
    assert field in str(raised.value)


class Unspeakable(Check):
    """A check of a caller's own that cannot say what it asks."""

    def describe(self) -> str:
        raise RuntimeError


async def refuse() -> bool:
    return False


@pytest.mark.parametrize(
    ("kind", "probe"),
    [(lambda: HttpCheck("http://nosuch.invalid/a?b=1", fall=1), "http://nosuch.invalid/a?b=1"),
     (lambda: TcpCheck("nosuch.invalid:7000", fall=1), "nosuch.invalid:7000"),
     (lambda: Unspeakable(refuse), "Unspeakable")],
)  # fmt: skip
@simulated
async def test_the_line_says_what_the_check_asks(
    world: World, caplog: pytest.LogCaptureFixture, kind: Callable[[], Check], probe: str
) -> None:
    check = kind()
    check.probe = refuse
    async with Watched(world, web=check):
        await asyncio.sleep(60)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"check 'web' ({probe}) fails" in told
