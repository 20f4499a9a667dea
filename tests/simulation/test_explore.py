"""Every order of events for two claimants; and what a search finds where the fence is missing."""

from __future__ import annotations

from aioregistry.protocol import Delete, Multi
from aioregistry.registration.transactions import Target, creation
from tests.registration.test_claimants import Habits
from tests.simulation.explore import explore


def test_two_claimants_and_a_fault_violate_nothing() -> None:
    found = explore(claimants=2, faults=1)

    assert found.violation is None, found.story
    assert found.closed
    assert found.states > 500


def test_two_takeovers_without_a_fence_are_found_to_take_a_live_node() -> None:
    def unfenced(target: Target, data: bytes, version: int) -> Multi:
        return Multi([Delete(target.path, version), creation(target, data)])

    found = explore(claimants=2, faults=0, habits=Habits(takeover=unfenced))

    assert found.violation is not None
    assert found.violation.guarantee == "Published"
