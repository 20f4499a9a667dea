"""Every order of events for one session with a fault; and what a search finds where a habit is wrong."""

from __future__ import annotations

import random
from collections.abc import Hashable
from itertools import chain
from types import MappingProxyType

import pytest

from aioregistry._session import machine as module
from aioregistry._session.vocabulary import Accepted, Phase
from tests.session.test_machine_and_ensemble import (
    DatesByArrival,
    LearnsFromEverybody,
    Manner,
    World,
    forgets_what_was_replaced,
)
from tests.simulation.explore_session import OneSession, key, twin, what_goes_well, what_goes_wrong
from tests.simulation.search import Move, search

CONNECTIONS = 2


def test_two_connections_and_a_fault_violate_nothing() -> None:
    found = search(OneSession(CONNECTIONS), faults=1, seconds=60.0)
    assert found.violation is None, found.story
    assert found.closed
    assert found.states > 1_000


@pytest.mark.parametrize(("world", "guarantee"), [(DatesByArrival, "Honest"), (LearnsFromEverybody, "Legal")])
def test_a_wrong_habit_is_found(world: type[World], guarantee: str) -> None:
    found = search(OneSession(1, world), faults=1, seconds=60.0)
    assert str(found.violation).startswith(guarantee), found.violation
    assert len(found.story) == 8  # the shortest there is


class Replacing(World):
    """Among servers that grant another session to whoever offers one."""

    def __init__(self) -> None:
        super().__init__()
        for server in self.ensemble.servers:
            server.manner = Manner.REPLACES


def test_sessions_that_are_replaced_without_a_refusal_violate_nothing() -> None:
    found = search(OneSession(CONNECTIONS, Replacing), faults=1, seconds=60.0)
    assert found.violation is None, found.story
    assert found.closed


def test_a_session_that_was_replaced_and_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    place = (Phase.HANDSHAKING, Accepted)
    monkeypatch.setattr(
        module,
        "TABLE",
        MappingProxyType({**module.TABLE, place: module.TABLE[place]._replace(decide=forgets_what_was_replaced)}),
    )
    found = search(OneSession(CONNECTIONS, Replacing), faults=1, seconds=60.0)
    assert str(found.violation).startswith("Owned"), found.violation


def moves(world: World) -> list[Move[World]]:
    return [*what_goes_well(world, CONNECTIONS), *what_goes_wrong(world)]


def successors(world: World) -> set[Hashable]:
    """The possible outcomes, by name."""
    came: set[Hashable] = set()
    for name, move in moves(world):
        successor = twin(world)
        move(successor)
        came.add((name, key(successor)))
    return came


def walk(draw: random.Random) -> list[World]:
    """The worlds on a way of so many steps, most of which go well."""
    world, way = World(), []
    for _ in range(25):
        well, wrong = list(what_goes_well(world, CONNECTIONS)), list(what_goes_wrong(world))
        likely = well if well and draw.random() < 0.8 else well + wrong
        if not likely:
            break
        world = twin(world)
        draw.choice(likely)[1](world)
        way.append(world)
    return way


def test_what_counts_as_one_state_goes_on_in_the_same_ways() -> None:
    """Or the search would leave out what it takes for seen."""
    draw = random.Random(1)
    first: dict[Hashable, World] = {}
    again = 0
    for world in chain.from_iterable(walk(draw) for _ in range(100)):
        other = first.setdefault(key(world), world)
        if other is not world and draw.random() < 0.3:
            again += 1
            assert successors(world) == successors(other)
    assert again > 200


def test_what_is_done_to_a_twin_is_not_done_to_the_other() -> None:
    for world in chain.from_iterable(walk(random.Random(seed)) for seed in range(10)):
        before, beside = key(world), str(vars(world))
        successors(world)
        twin(world).teardown()
        assert (key(world), str(vars(world))) == (before, beside)
