"""Hypothesis draws what happens to a world, and shrinks what breaks it to the least that does."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from tests.simulation.faults import FAULTS, Fault
from tests.simulation.test_mutations import event_of_the_own_node_ignored
from tests.simulation.world import Profile, World

LENGTH: Final = 30.0
SMALL: Final = Profile(length=LENGTH, processes=(2, 3), services=1, sizes=(1, 3), timeouts=(4.0,), paces=(0.0,))
ALONE: Final = replace(SMALL, length=8.0, processes=(1, 1), sizes=(1,), updates=(None,))


def lists_of(kinds: list[str], *, latest: int) -> st.SearchStrategy[list[Fault]]:
    fault = st.builds(
        Fault,
        at=st.integers(1, latest).map(float),
        kind=st.sampled_from(kinds),
        target=st.integers(0, 9),
        duration=st.sampled_from([0.05, 1.0, 3.0, 9.0]),
        dice=st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 0.99]),
    )
    return st.lists(fault, max_size=6)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 7), faults=lists_of(sorted(FAULTS.keys() - {"flood"}), latest=int(LENGTH) - 1))
def test_whatever_happens_nothing_is_violated(seed: int, faults: list[Fault]) -> None:
    outcome = World(seed, SMALL, faults).run()

    assert outcome.violation is None, outcome.told()


def test_what_breaks_a_world_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    event_of_the_own_node_ignored(monkeypatch)

    least = find(
        lists_of(["cut", "delete", "slow link", "block", "litter"], latest=6),
        lambda faults: World(1, ALONE, faults, judged="Published").run().violation is not None,
        settings=settings(max_examples=100, deadline=None, database=None, derandomize=True),
    )

    assert [fault.kind for fault in least] == ["delete"]
