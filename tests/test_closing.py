"""How long a registry waits for the end of its session: an answer to that is what the rest was withdrawn by."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import aioregistry
from aioregistry import ServiceInstance, _registry
from aioregistry._protocol import Create2, Multi
from aioregistry._registry import farewell_patience
from tests.session import scripted_server as script
from tests.session.scripted_server import Ensemble
from tests.session.simulation import World, simulated
from tests.support.inside import session_of

BOUND = 3.0


@pytest.mark.parametrize(
    ("spent", "patience"),
    [(0.0, 3.0), (1.0, 2.0), (2.0, 1.0), (2.5, 1.25), (3.0, 1.5), (6.0, 3.0), (60.0, 3.0)],
)
def test_what_is_left_or_half_of_what_was_spent(spent: float, patience: float) -> None:
    assert farewell_patience(spent, BOUND) == patience


@pytest.mark.parametrize(("late", "proven"), [(2.8, True), (4.0, False)])
@simulated
async def test_a_busy_process_lets_the_server_be_late_too(
    late: float, proven: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = Ensemble(timeout=12.0)
    world.servers["10.0.0.1", 2181] = ensemble.server("10.0.0.1")
    answer = script.Link._answer

    def answer_late(self: Any, xid: int, opcode: int, body: Any) -> None:
        if opcode == script.CLOSE:
            self._waits = True  # what comes behind it is never answered
            world.loop.call_later(late, answer, self, xid, opcode, body)
        else:
            answer(self, xid, opcode, body)

    monkeypatch.setattr(script.Link, "_answer", answer_late)
    begun: list[Any] = []

    def begin_slowly(registration: Any) -> None:
        begun.append(registration)
        world.block(2 * BOUND)

    monkeypatch.setattr(_registry, "begin_withdrawal", begin_slowly)
    registry = await aioregistry.connect("10.0.0.1:2181", runtime=world, close_timeout=BOUND, session_timeout=12.0)
    many = []
    for parent in ("/services", "/services/chat"):
        ensemble.set(parent)
    for number in range(3):
        ensemble.set(f"/services/chat/{number}")  # somebody else's: what is waited for is only looked at
        instance = ServiceInstance("chat", id=str(number), address="10.0.0.7", port=1)
        many.append(await registry.register(instance, wait=False, on_conflict="wait"))
    closing = world.loop.now
    await registry.aclose()
    assert len(begun) == 1  # nothing else is begun when it is time to end the session
    assert (session_of(registry).closed_id != 0) is proven
    assert world.loop.now - closing == pytest.approx(2 * BOUND + min(late, BOUND), abs=0.2)
    assert {registration.withdrawn for registration in many} == {True}  # of what was never written


@pytest.mark.parametrize("number", [1, 3])
@simulated
async def test_closing_one_after_another_in_silence_takes_one_bound_in_all(number: int, world: World) -> None:
    """As on SIGTERM: a process that is told to end leaves its registrations, and then the registry."""
    ensemble = Ensemble(timeout=12.0)
    world.servers["10.0.0.1", 2181] = server = ensemble.server("10.0.0.1")
    for parent in ("/services", "/services/chat"):
        ensemble.set(parent)
    registry = await aioregistry.connect("10.0.0.1:2181", runtime=world, close_timeout=BOUND, session_timeout=12.0)
    server.silent_to = {Multi.opcode, Create2.opcode}
    many = []
    for each in range(number):
        instance = ServiceInstance("chat", id=str(each), address="10.0.0.7", port=1)
        many.append(await registry.register(instance, wait=False))
    await asyncio.sleep(1.0)
    assert not server.silent_to.isdisjoint(server.asked)
    closing = world.loop.now
    for registration in many:
        await registration.aclose()
    await registry.aclose()
    assert world.loop.now - closing == pytest.approx(BOUND, abs=0.05)
    assert False in {registration.withdrawn for registration in many}
