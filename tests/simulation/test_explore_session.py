"""Every order of events for one session with a fault; and what a search finds where a habit is wrong."""

from __future__ import annotations

import pytest

from tests.session.test_machine_and_ensemble import DatesByArrival, LearnsFromEverybody, World
from tests.simulation.explore_session import explore_session


def test_two_connections_and_a_fault_violate_nothing() -> None:
    found = explore_session(connections=2, faults=1)
    assert found.violation is None, found.story
    assert found.closed
    assert found.states > 1_000


@pytest.mark.parametrize(("world", "guarantee"), [(DatesByArrival, "Honest"), (LearnsFromEverybody, "Legal")])
def test_a_wrong_habit_is_found(world: type[World], guarantee: str) -> None:
    found = explore_session(connections=1, faults=1, world=world)
    assert str(found.violation).startswith(guarantee), found.violation
    assert len(found.story) == 8  # the shortest there is
