"""The server says to random histories what a real ZooKeeper says (docs/server.md, "How it is compared")."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.server.differential.conftest import HISTORIES, Compare
from tests.server.differential.histories import histories, slow_histories
from tests.server.differential.language import History

# Workers of `nox -s conformance` play a share each.
SHARES = range(int(HISTORIES > 0) + 1)


@pytest.mark.parametrize("share", SHARES)
def test_it_says_what_zookeeper_says(compare: Compare, share: int) -> None:
    @given(histories())
    @settings(max_examples=HISTORIES // len(SHARES) or 300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def same(history: History) -> None:
        difference = compare(history)
        assert difference is None, difference

    same()


@pytest.mark.parametrize("share", SHARES)
def test_it_does_by_itself_what_zookeeper_does(compare_in_time: Compare, share: int) -> None:
    @given(slow_histories())
    @settings(
        max_examples=HISTORIES // 100 // len(SHARES) or 6, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    def same(history: History) -> None:
        difference = compare_in_time(history)
        assert difference is None, difference

    same()
