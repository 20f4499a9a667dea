"""One timer tells all registrations of a session that it may have expired."""

from __future__ import annotations

import asyncio

import pytest

from aioregistry._registration.expiry import Expiry
from tests.support.fake_session import FakeRuntime, FakeSession, until
from tests.support.model_tree import ModelTree


@pytest.fixture
async def session() -> FakeSession:
    session = FakeSession(ModelTree())
    session.connect()
    return session


def timers() -> int:
    loop = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]


async def test_one_timer_tells_everybody_once(session: FakeSession) -> None:
    session.timeout = 0.05
    expiry, told = Expiry(session.as_session), list[int]()
    before = timers()
    callbacks = [lambda number=number: told.append(number) for number in range(5)]
    for callback in callbacks:
        expiry.tell(callback)
    assert timers() == before + 1
    expiry.forget(callbacks[3])
    session.disconnect()
    await until(lambda: bool(told))
    assert told == [0, 1, 2, 4]
    assert session.presumed_expired
    assert timers() == before


async def test_evidence_that_is_renewed_puts_it_off(session: FakeSession) -> None:
    session.timeout = 0.05
    expiry, told = Expiry(session.as_session), list[bool]()
    expiry.tell(lambda: told.append(session.presumed_expired))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while loop.time() < begun + 0.2:
        session.reconnect()  # an answer of the quorum
        await asyncio.sleep(0)
    session.disconnect()
    await until(lambda: bool(told))
    assert told == [True]


async def test_a_timeout_that_becomes_shorter_is_kept(session: FakeSession) -> None:
    expiry, told = Expiry(session.as_session), list[str]()
    session.timeout = 1000.0
    expiry.tell(lambda: told.append("a"))
    session.timeout = 0.05
    expiry.tell(lambda: told.append("b"))
    session.disconnect()
    await until(lambda: bool(told))
    assert told == ["a", "b"]


async def test_nobody_left_to_tell_leaves_no_timer(session: FakeSession) -> None:
    expiry = Expiry(session.as_session)
    before = timers()

    def nobody() -> None:
        raise AssertionError

    expiry.forget(nobody)
    expiry.tell(nobody)
    expiry.tell(nobody)
    expiry.forget(nobody)
    assert timers() == before
    assert isinstance(session.runtime, FakeRuntime)
    session.runtime.asleep += 1000.0
