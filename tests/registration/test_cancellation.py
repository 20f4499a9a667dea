"""Cancelled at every await of entering, updating and leaving, by asyncio and by anyio's scopes."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioregistry._document import decode
from aioregistry._model import ServiceInstance
from aioregistry._registration import Registration, Status
from tests.support.cancelling import CANCELLERS, Canceller
from tests.support.checkers import check_withdrawn
from tests.support.fake_session import FakeSession, quiet, until
from tests.support.model_tree import ModelTree

PATH = "/services/chat/10.0.0.7:7000"
CHAT = ServiceInstance("chat", address="10.0.0.7", port=7000, payload={"load": 0})


def registration(session: FakeSession, **options: Any) -> Registration[Any]:
    return Registration(session.as_session, CHAT, base_path="/services", **options)


@pytest.fixture
async def session() -> AsyncIterator[FakeSession]:
    session = FakeSession(ModelTree())
    session.connect()
    yield session
    await quiet()
    assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert session.observers == []


def check_gone(session: FakeSession, registered: Registration[Any]) -> None:
    node = session.tree.node(PATH)
    check_withdrawn(withdrawn=registered.withdrawn, sessions=[session.id], owner=None if node is None else node.owner)
    assert registered.withdrawn
    assert registered.status is Status.CLOSED


@pytest.mark.parametrize("cancelled", CANCELLERS.values(), ids=CANCELLERS.keys())
async def test_entering(session: FakeSession, cancelled: Canceller) -> None:
    for at in itertools.count(1):
        registered = registration(session)
        outcome = await cancelled(registered.__aenter__, at)
        if not outcome.reached:
            assert at > 1
            assert registered.status is Status.LIVE
            await registered.aclose()
        await quiet()
        check_gone(session, registered)
        if not outcome.reached:
            break


@pytest.mark.parametrize("turns", range(1, 14))
async def test_entering_at_every_turn_of_the_loop(session: FakeSession, turns: int) -> None:
    """The worker's awaits are its own: here the entering is cancelled wherever they stand."""
    registered = registration(session)
    entering = asyncio.ensure_future(registered.__aenter__())
    for _ in range(turns):
        await asyncio.sleep(0)
    entering.cancel()
    await asyncio.wait([entering])
    if not entering.cancelled():
        await registered.aclose()
    check_gone(session, registered)


@pytest.mark.parametrize("cancelled", CANCELLERS.values(), ids=CANCELLERS.keys())
async def test_entering_while_disconnected(cancelled: Canceller) -> None:
    session = FakeSession(ModelTree())
    registered = registration(session, close_timeout=1000.0)
    assert (await cancelled(registered.__aenter__, 1)).reached
    check_gone(session, registered)


@pytest.mark.parametrize("cancelled", CANCELLERS.values(), ids=CANCELLERS.keys())
async def test_updating(session: FakeSession, cancelled: Canceller) -> None:
    async with registration(session) as registered:
        for at in itertools.count(1):
            wanted = {"load": at}
            outcome = await cancelled(lambda wanted=wanted: registered.update(payload=wanted), at)  # type: ignore[misc]
            await until(lambda wanted=wanted: decode(session.tree.nodes[PATH].data).payload == wanted)  # type: ignore[misc]
            assert registered.status is Status.LIVE
            if not outcome.reached:
                break
        assert at > 1


@pytest.mark.parametrize("cancelled", CANCELLERS.values(), ids=CANCELLERS.keys())
async def test_leaving(session: FakeSession, cancelled: Canceller) -> None:
    for at in itertools.count(1):
        registered = await registration(session).__aenter__()
        outcome = await cancelled(registered.__aexit__, at)
        check_gone(session, registered)
        if not outcome.reached:
            break
    assert at > 1


@pytest.mark.parametrize("cancelled", CANCELLERS.values(), ids=CANCELLERS.keys())
async def test_leaving_because_the_body_was_cancelled(session: FakeSession, cancelled: Canceller) -> None:
    """Every await of ``__aexit__`` is cancelled again, at once under anyio's scopes."""
    inside = False

    async def serve(registered: Registration[Any]) -> None:
        nonlocal inside
        async with registered:
            inside = True
            await asyncio.Event().wait()

    for at in itertools.count(1):
        registered = registration(session)
        assert (await cancelled(functools.partial(serve, registered), at)).reached
        check_gone(session, registered)
        if inside:
            break


@pytest.mark.parametrize("cancelled", CANCELLERS.values(), ids=CANCELLERS.keys())
@pytest.mark.parametrize("operation", ["wait_live", "wait_closed"])
async def test_waiting(session: FakeSession, cancelled: Canceller, operation: str) -> None:
    async with registration(session) as registered:
        session.disconnect()
        outcome = await cancelled(getattr(registered, operation), 1)
        assert outcome.reached
        session.connect()
        await registered.wait_live(5)
