"""Every order of events for two claimants; and what a search finds where the fence is missing."""

from __future__ import annotations

import random
from collections.abc import Hashable
from itertools import chain

from aioregistry._protocol import Delete, Multi
from aioregistry._registration.transactions import Target, creation
from tests.registration.test_claimants import Habits
from tests.simulation.explore import OneId, Scene
from tests.simulation.search import search
from tests.support.checkers import Violated


def test_two_claimants_and_a_fault_violate_nothing() -> None:
    found = search(OneId(2), faults=1, seconds=60.0)

    assert found.violation is None, found.story
    assert found.closed
    assert found.states > 400


def test_two_takeovers_without_a_fence_are_found_to_take_a_live_node() -> None:
    def unfenced(target: Target, data: bytes, version: int) -> Multi:
        return Multi([Delete(target.path, version), creation(target, data)])

    found = search(OneId(2, Habits(takeover=unfenced)), faults=0, seconds=60.0)

    assert isinstance(found.violation, Violated)
    assert found.violation.guarantee == "Published"


def outcomes(model: OneId, scene: Scene) -> set[Hashable]:
    """The possible outcomes, for any of the claimants that are alike."""
    came: set[Hashable] = set()
    for _, move in chain(model.what_goes_well(scene), model.what_goes_wrong(scene)):
        successor = model.twin(scene)
        move(successor)
        came.add(frozenset(model.keys(successor)))
    return came


def test_what_counts_as_one_state_goes_on_in_the_same_ways() -> None:
    """Or the search would leave out what it takes for seen."""
    draw, model = random.Random(1), OneId(3)
    first: dict[Hashable, Scene] = {}
    again = 0
    for _ in range(60):
        scene = model.first()
        for _ in range(20):
            moves = [*model.what_goes_well(scene), *model.what_goes_wrong(scene)]
            scene = model.twin(scene)
            draw.choice(moves)[1](scene)
            other = first.setdefault(frozenset(model.keys(scene)), scene)
            if other is not scene:
                again += 1
                assert outcomes(model, scene) == outcomes(model, other)
    assert again > 100
