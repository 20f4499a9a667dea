"""The nodes above the instances: one registration of a session finds out about them, and one makes them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from aioregistry._errors import RegistrationDisplaced
from aioregistry._model import ServiceInstance
from aioregistry._protocol import Create, Create2, CreateContainer, Delete, GetData, Message, Multi, SetData, Sync
from aioregistry._registration import Registration, Status, Withdrawals
from tests.support.fake_session import FakeSession, Fate, quiet, until
from tests.support.model_tree import ModelTree

PATH = "/services/chat/1"


def several(session: FakeSession, numbers: range, withdrawals: Withdrawals, **options: Any) -> list[Registration[Any]]:
    return [
        Registration(
            session.as_session,
            ServiceInstance("chat", id=str(number), address="10.0.0.7", port=7000),
            base_path="/services",
            withdrawals=withdrawals,
            **options,
        )
        for number in numbers
    ]


async def opened(registration: Registration[Any]) -> Registration[Any]:
    return await registration


@pytest.fixture
async def session() -> FakeSession:
    session = FakeSession(ModelTree())
    session.connect()
    return session


async def test_a_hundred_of_a_new_service_make_its_parents_once(session: FakeSession) -> None:
    many = several(session, range(100), Withdrawals())
    await asyncio.gather(*map(opened, many))
    made = [message.path for message in session.served if isinstance(message, CreateContainer)]
    assert made == ["/services/chat", "/services", "/services/chat"]  # the nearest first, then what it lacks
    assert sum(type(message) is Create2 for message in session.served) == 101  # that of the first, twice
    assert len(session.served) <= 3 * len(many)
    await asyncio.gather(*(each.aclose() for each in many))


async def test_they_are_made_once_more_when_they_were_reaped(session: FakeSession) -> None:
    many = several(session, range(100), Withdrawals())
    await asyncio.gather(*map(opened, many))
    session.expire()
    for path in ("/services/chat", "/services"):
        session.tree.delete(path)
    session.served.clear()
    session.connect()
    await until(lambda: all(each.status is Status.LIVE for each in many))
    assert sum(isinstance(message, CreateContainer) for message in session.served) <= 6
    await asyncio.gather(*(each.aclose() for each in many))


@pytest.mark.parametrize("fate", [Fate.REQUEST_LOST, Fate.REPLY_LOST])
@pytest.mark.parametrize("kind", [Sync, CreateContainer, Create2])
async def test_the_others_go_on_when_the_first_fails(
    session: FakeSession, fate: Fate, kind: type[Message[Any]]
) -> None:
    def lose(message: Message[Any]) -> Fate | None:
        if not isinstance(message, kind):
            return None
        session.fate = lambda message: None
        return fate

    session.fate = lose
    many = several(session, range(5), Withdrawals(), wait=False, close_timeout=0.01)
    for each in many:
        _ = await each
    await until(lambda: not session.connected)
    await many[0].aclose()
    session.connect()
    await until(lambda: all(each.status is Status.LIVE for each in many[1:]))
    await asyncio.gather(*(each.aclose() for each in many))
    assert session.tree.children("/services/chat") == []


async def test_whoever_waits_for_the_first_can_be_closed(session: FakeSession) -> None:
    session.fate = lambda message: Fate.UNANSWERED
    first, second = several(session, range(2), Withdrawals(), wait=False, close_timeout=1000.0)
    _ = await first, await second
    await quiet()
    await second.aclose()
    assert second.withdrawn
    session.fate = lambda message: None
    session.reconnect()
    await first.wait_live(5)
    await first.aclose()


# ---------------------------------------------------------------- created without having looked


async def beside(session: FakeSession, **options: Any) -> tuple[Registration[Any], Registration[Any]]:
    """A registration that knows the parents, and another one that is to be entered."""
    withdrawals = Withdrawals()
    (first,) = several(session, range(1), withdrawals)
    _ = await first
    (second,) = several(session, range(1, 2), withdrawals, **options)
    session.served.clear()
    return first, second


async def test_a_known_service_takes_one_round_trip(session: FakeSession) -> None:
    first, second = await beside(session)
    before = session.round_trips
    _ = await second
    assert session.round_trips - before == 1
    assert [type(message) for message in session.served] == [Create2, GetData]
    await asyncio.gather(first.aclose(), second.aclose())


@pytest.mark.parametrize("version", [0, 3])
async def test_a_ghost_is_taken_over(session: FakeSession, version: int) -> None:
    first, second = await beside(session)
    ghost = session.tree.open_session()
    session.tree.apply(ghost, Create2(PATH, b"ghost", (), 1))
    for _ in range(version):
        session.tree.apply(ghost, SetData(PATH, b"ghost"))
    _ = await second
    assert session.tree.nodes[PATH].owner == session.id
    await asyncio.gather(first.aclose(), second.aclose())


async def test_whoever_takes_the_node_before_it_is_read_is_newer(session: FakeSession) -> None:
    """The claim is as old as the node that was created, not as the read behind it."""
    first, second = await beside(session, on_displaced="stop")
    other = session.tree.open_session()

    def take(message: Message[Any]) -> None:
        if isinstance(message, GetData) and message.path == PATH and session.tree.nodes[PATH].owner == session.id:
            operations = [Delete(PATH, 0), Create2(PATH, b"newer", (), 1), SetData(PATH, b"newer", 0)]
            session.tree.apply(other, Multi(operations))

    session.fate = take
    with pytest.raises(RegistrationDisplaced):
        _ = await second
    assert session.tree.nodes[PATH].owner == other
    await first.aclose()


async def test_whoever_comes_while_the_reply_is_lost_is_newer(session: FakeSession) -> None:
    first, second = await beside(session, on_displaced="stop", wait=False)
    session.fate = lambda message: Fate.REPLY_LOST if isinstance(message, Create2) else None
    _ = await second
    await until(lambda: not session.connected)
    session.fate = lambda message: None
    other = session.tree.open_session()
    operations = [Delete(PATH, 0), Create2(PATH, b"newer", (), 1), SetData(PATH, b"newer", 0)]
    session.tree.apply(other, Multi(operations))
    session.connect()
    assert isinstance(await second.wait_closed(), RegistrationDisplaced)
    assert session.tree.nodes[PATH].owner == other
    await asyncio.gather(first.aclose(), second.aclose())


# ---------------------------------------------------------------- the chroot


@pytest.mark.parametrize("there", [False, True])
async def test_a_chroot_that_is_made_is_told(caplog: pytest.LogCaptureFixture, there: bool) -> None:
    session = FakeSession(ModelTree())
    session.connect()
    if there:
        session.tree.make("/prdo/eu")
    me = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)
    options: dict[str, Any] = {"base_path": "/prdo/eu/services", "chroot": "/prdo/eu", "create_chroot": True}
    withdrawals = Withdrawals()
    with caplog.at_level(logging.WARNING):
        async with Registration(session.as_session, me, withdrawals=withdrawals, **options):
            other = Registration(session.as_session, me.replace(id="b"), withdrawals=withdrawals, **options)
            async with other:
                pass
    told = [record for record in caplog.records if "chroot='/prdo/eu'" in record.getMessage()]
    assert len(told) == (0 if there else 1)


async def test_the_root_of_markers_is_made_first(session: FakeSession) -> None:
    first, second = await beside(session)
    assert any(isinstance(message, Create) for message in session.served) is False
    assert session.tree.node("/services-withdrawn") is not None
    _ = await second
    await asyncio.gather(first.aclose(), second.aclose())
