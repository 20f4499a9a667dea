"""Dialing several addresses: who hangs costs the others nothing, and nothing is left when it is over."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from aioregistry._incident_log import IncidentLog
from aioregistry._runtime import Endpoint
from aioregistry._session.attempts import AttemptOutcome
from aioregistry._session.connection import Connection
from aioregistry._session.dialer import Dialer
from tests.session.simulation import LATENCY, World, simulated
from tests.support.raising import ODD, raising

HANGS = float("inf")
TIMEOUT = 2.0
STAGGER = 0.25


def endpoint(name: str) -> Endpoint:
    return Endpoint(name, 1, name)


class Addresses:
    """Addresses that take their time to be connected to; a negative time refuses after it."""

    def __init__(self, world: World, **delays: float) -> None:
        self.world = world
        self.delays = delays
        self.began: dict[str, float] = {}
        self.failures: dict[str, tuple[AttemptOutcome, str]] = {}
        self.made: dict[str, Connection] = {}
        self.dialer = Dialer([endpoint(name) for name in delays], self._dial, TIMEOUT, self._failed)

    def _failed(self, endpoint: Endpoint, outcome: AttemptOutcome, reason: str) -> None:
        self.failures[str(endpoint)] = outcome, reason

    async def _dial(self, endpoint: Endpoint) -> Connection:
        self.began[endpoint.address] = self.world.loop.now
        delay = self.delays[endpoint.address]
        if delay == HANGS:
            await asyncio.Event().wait()
        await asyncio.sleep(abs(delay))
        if delay < 0:
            raise ConnectionRefusedError(111, "Connection refused")
        return self._connection(endpoint)

    def _connection(self, endpoint: Endpoint) -> Connection:
        def never(*_: Any) -> None:
            raise AssertionError

        self.made[endpoint.address] = Connection(
            1,
            endpoint,
            self.world,
            max_request=1,
            repeated=IncidentLog(logging.getLogger("aioregistry.session")),
            on_greeting=never,
            on_event=never,
            on_answer=never,
            on_lost=never,
        )
        return self.made[endpoint.address]

    async def everybody(self) -> list[str | None]:
        """The order they come in."""
        names: list[str | None] = []
        while (connection := await self.dialer.next()) is not None:
            names.append(connection.endpoint.address)
        return names


@simulated
async def test_one_after_the_other(world: World) -> None:
    addresses = Addresses(world, a=0.01, b=0.01, c=0.01)
    assert await addresses.everybody() == ["a", "b", "c"]
    assert addresses.failures == {}


@simulated
async def test_only_as_many_as_are_asked_for(world: World) -> None:
    addresses = Addresses(world, a=0.01, b=0.01)
    assert (await addresses.dialer.next()) is addresses.made["a"]
    assert list(addresses.began) == ["a"]
    await addresses.dialer.aclose()


@simulated
async def test_one_that_hangs_does_not_hold_up_the_next(world: World) -> None:
    addresses = Addresses(world, hangs=HANGS, fine=0.01)
    assert (await addresses.dialer.next()) is addresses.made["fine"]
    assert addresses.began == pytest.approx({"hangs": 0, "fine": STAGGER}, abs=1e-6)
    await addresses.dialer.aclose()


@simulated
async def test_a_refusal_is_followed_at_once(world: World) -> None:
    addresses = Addresses(world, hangs=HANGS, refuses=-0.01, too=-0.01, fine=0.01)
    assert (await addresses.dialer.next()) is addresses.made["fine"]
    assert addresses.began == pytest.approx({"hangs": 0, "refuses": 0.25, "too": 0.26, "fine": 0.27}, abs=1e-6)
    await addresses.dialer.aclose()


@simulated
async def test_a_slow_one_may_still_win(world: World) -> None:
    addresses = Addresses(world, slow=0.4, slower=0.5)
    assert await addresses.everybody() == ["slow", "slower"]


@simulated
async def test_several_at_once_are_given_one_by_one(world: World) -> None:
    addresses = Addresses(world, a=0.5, b=0.25)  # both at 0.5 s
    assert sorted(map(str, await addresses.everybody())) == ["a", "b"]


@simulated
async def test_nobody(world: World) -> None:
    assert await Addresses(world).everybody() == []


@simulated
async def test_what_went_wrong_is_told_by_address(world: World) -> None:
    addresses = Addresses(world, refuses=-0.01, hangs=HANGS)
    assert await addresses.everybody() == []
    assert addresses.failures == {
        "refuses:1": (AttemptOutcome.REFUSED, "the connection was refused: nothing listens there"),
        "hangs:1": (AttemptOutcome.SILENT, "no connection within 2 s"),
    }
    assert world.loop.now == pytest.approx(0.01 + TIMEOUT)


@simulated
async def test_an_error_without_words_is_told_by_its_name(world: World) -> None:
    addresses = Addresses(world, odd=0.0)

    async def fail(_: Endpoint) -> Connection:
        raise BrokenPipeError

    addresses.dialer._dial = fail
    assert await addresses.everybody() == []
    assert addresses.failures == {"odd:1": (AttemptOutcome.UNREACHABLE, "no connection was made: BrokenPipeError")}


@pytest.mark.parametrize("kind", ODD)
@simulated
async def test_whatever_code_of_the_tls_context_raises_is_the_attempts_failure(kind: str, world: World) -> None:
    addresses = Addresses(world, odd=0.0)

    async def fail(_: Endpoint) -> Connection:
        raising(kind)

    addresses.dialer._dial = fail
    assert await addresses.everybody() == []
    assert [outcome for outcome, _ in addresses.failures.values()] == [AttemptOutcome.UNREACHABLE]


class TestAddressesThatChange:
    @simulated
    async def test_a_new_one_is_tried_while_the_old_one_hangs(self, world: World) -> None:
        addresses = Addresses(world, old=HANGS)
        addresses.delays["new"] = 0.01
        waiting = asyncio.ensure_future(addresses.dialer.next())
        await asyncio.sleep(1)
        addresses.dialer.offer([endpoint("old"), endpoint("new")])
        assert (await waiting) is addresses.made["new"]
        assert world.loop.now == pytest.approx(1.01)
        await addresses.dialer.aclose()

    @simulated
    async def test_one_that_is_none_any_more_is_given_up(self, world: World) -> None:
        addresses = Addresses(world, old=1.0, older=1.0)
        addresses.delays["new"] = TIMEOUT + 0.1
        waiting = asyncio.ensure_future(addresses.dialer.next())
        await asyncio.sleep(0.1)
        addresses.dialer.offer([endpoint("new")])
        assert (await waiting) is None  # two seconds are too long
        assert list(addresses.began) == ["old", "new"]
        assert list(addresses.made) == []
        await addresses.dialer.aclose()

    @simulated
    async def test_one_that_came_up_as_it_was_given_up_is_closed(self, world: World) -> None:
        addresses = Addresses(world, a=0.5, b=0.25)  # both at 0.5 s
        waiting = asyncio.ensure_future(addresses.dialer.next())
        world.loop.call_at(0.5, addresses.dialer.offer, [])
        await waiting
        await addresses.dialer.aclose()
        given = waiting.result()
        assert all(connection.closed for connection in addresses.made.values() if connection is not given)

    @simulated
    async def test_what_was_tried_is_not_tried_again(self, world: World) -> None:
        addresses = Addresses(world, refuses=-0.01)
        assert await addresses.dialer.next() is None
        addresses.dialer.offer([endpoint("refuses")])
        assert await addresses.dialer.next() is None
        assert addresses.began == pytest.approx({"refuses": 0.0}, abs=1e-6)


class TestGivingUp:
    @simulated
    async def test_leaves_nothing(self, world: World) -> None:
        addresses = Addresses(world, first=HANGS, second=0.26, third=0.01)
        assert (await addresses.dialer.next()) is addresses.made["second"]
        await addresses.dialer.aclose()
        assert not addresses.made["second"].closed  # it was given away
        assert len(asyncio.all_tasks()) == 1

    @simulated
    async def test_closes_what_came_up_and_was_not_given(self, world: World) -> None:
        addresses = Addresses(world, a=0.5, b=0.25)
        given = await addresses.dialer.next()
        await asyncio.sleep(1)
        await addresses.dialer.aclose()
        assert [connection.closed for connection in addresses.made.values() if connection is not given] == [True]

    @simulated
    async def test_closes_it_even_when_it_is_cancelled_itself(self, world: World) -> None:
        addresses = Addresses(world, a=0.5, b=0.25)
        given = await addresses.dialer.next()
        closing = asyncio.ensure_future(addresses.dialer.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert [connection.closed for connection in addresses.made.values() if connection is not given] == [True]

    @pytest.mark.parametrize("at", [0.0, 0.1, 0.25, 0.3, 0.5, 0.51])
    @simulated
    async def test_at_any_time(self, at: float, world: World) -> None:
        addresses = Addresses(world, a=0.5, b=0.25, c=HANGS)
        waiting = asyncio.ensure_future(addresses.dialer.next())
        await asyncio.sleep(at)
        waiting.cancel()
        await asyncio.wait([waiting])
        await addresses.dialer.aclose()
        given = None if waiting.cancelled() else waiting.result()
        assert all(connection.closed for connection in addresses.made.values() if connection is not given)
        await asyncio.sleep(LATENCY)
        assert len(asyncio.all_tasks()) == 1

    @simulated
    async def test_without_anything_under_way(self, world: World) -> None:
        addresses = Addresses(world, a=0.1)
        await addresses.dialer.aclose()
        assert addresses.began == {}
