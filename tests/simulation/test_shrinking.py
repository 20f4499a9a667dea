"""Hypothesis draws what happens to a world, and shrinks what breaks it to the least that does."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from tests.simulation.faults import FAULTS, Fault
from tests.simulation.test_mutations import event_of_the_own_node_ignored
from tests.simulation.world import Profile, World

LENGTH: Final = 30.0
SMALL: Final = Profile(length=LENGTH, processes=(2, 3), services=1, sizes=(1, 3), timeouts=(4.0,), paces=(0.0,))

faults = st.lists(
    st.builds(
        Fault,
        at=st.integers(0, int(LENGTH) * 10).map(lambda tenths: tenths / 10),
        kind=st.sampled_from(sorted(FAULTS.keys() - {"flood"})),
        target=st.integers(0, 9),
        duration=st.sampled_from([0.05, 1.0, 3.0, 5.0, 9.0]),
        dice=st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 0.99]),
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 7), faults=faults)
def test_whatever_happens_nothing_is_violated(seed: int, faults: list[Fault]) -> None:
    outcome = World(seed, SMALL, faults).run()

    assert outcome.violation is None, outcome.told()


def test_what_breaks_a_world_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    event_of_the_own_node_ignored(monkeypatch)

    least = find(
        faults,
        lambda chosen: World(1, SMALL, chosen, judged="Published").run().violation is not None,
        settings=settings(
            max_examples=300, deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink]
        ),
    )

    assert len(least) == 1
