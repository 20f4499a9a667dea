"""A transcript leaves out only what a real ZooKeeper leaves open: it tells releases apart."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from tests.server.differential.conftest import HISTORIES, PATIENT, Play, comparison, player_on, told_apart
from tests.server.differential.histories import histories
from tests.server.differential.language import UNKNOWN, History, without_patch
from tests.support.embedded import profile_of
from tests.support.zookeeper import ZooKeeperServer


def test_zookeeper_agrees_with_itself(on_reference: Play, reference: ZooKeeperServer, release: str) -> None:
    """The same history below roots of different names: their nodes have other places in hash sets."""
    elsewhere = player_on(reference.host, reference.port, release, "/another-place-")

    @given(histories())
    @settings(max_examples=HISTORIES // 10 or 50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def agrees(history: History) -> None:
        difference = told_apart(history, on_reference(history), elsewhere(history))
        assert difference is None, difference

    agrees()


def test_other_releases_are_told_apart(on_reference: Play, release: str) -> None:
    for version in sorted(set(UNKNOWN) - {without_patch(release)}):
        assert "They part at" in found_between(on_reference, release, version)


def found_between(on_reference: Play, release: str, version: str) -> str:
    with comparison(on_reference, PATIENT, release, version) as compare:
        searching = settings(max_examples=500, deadline=None, database=None, phases=[Phase.generate])
        found = find(histories(), lambda history: compare(history) is not None, settings=searching)
        return compare(found) or ""


@pytest.mark.parametrize(
    ("real", "name"),
    [("3.5.9", "3.5"), ("3.8.0", "3.8"), ("3.9.3", "3.9.5"), ("3.9.5", "3.9.5"), ("3.9.6", "3.9"), ("3.9.10", "3.9")],
)
def test_a_real_version_is_compared_with_the_profile_of_its_patch(real: str, name: str) -> None:
    assert profile_of(real) == name
