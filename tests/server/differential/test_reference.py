"""A real ZooKeeper says the same twice, below roots of different names: what a transcript sorts is all that it may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings

from tests.server.differential.conftest import HISTORIES, PATIENT, player_on, real_server
from tests.server.differential.histories import histories
from tests.server.differential.language import History
from tests.server.differential.transcript import explain, first_difference
from tests.support.zookeeper import ZooKeeperServer


@pytest.fixture(scope="module")
def reference() -> Iterator[ZooKeeperServer]:
    with real_server(PATIENT) as server:
        yield server


def test_zookeeper_agrees_with_itself(reference: ZooKeeperServer) -> None:
    play = player_on(reference.host, reference.port)
    play_elsewhere = player_on(reference.host, reference.port, "/another-place-")

    @given(histories())
    @settings(max_examples=HISTORIES // 10 or 50, deadline=None)
    def agrees(history: History) -> None:
        expected, found = play(history), play_elsewhere(history)
        at = first_difference(expected, found)
        assert at is None, explain(history, expected, found, at)

    agrees()
