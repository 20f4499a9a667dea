"""When an outage is told: in time, ever more rarely, and by which connections it ends."""

from __future__ import annotations

import pytest

from aioregistry._session.outage import Outage


@pytest.mark.parametrize(("timeout", "first"), [(3.0, 1.0), (30.0, 10.0), (30.3, 10.0), (3600.0, 10.0)])
def test_it_is_told_first_after_a_third_of_the_timeout_and_ten_seconds_at_most(timeout: float, first: float) -> None:
    assert Outage(100.0, timeout).due == 100.0 + first


def test_pauses_double_up_to_ten_minutes() -> None:
    outage = Outage(100.0, 30.0)
    pauses = []
    for _ in range(7):
        now = outage.due
        assert outage.tell(now) == now - 100.0
        pauses.append(outage.due - now)
    assert pauses == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


def test_the_next_pause_begins_when_it_is_told_which_may_be_late() -> None:
    outage = Outage(0.0, 3.0)
    assert outage.tell(7.0) == 7.0
    assert outage.due == 10.0


def test_it_is_told_until_a_connection_serves() -> None:
    outage = Outage(0.0, 30.0)
    assert (outage.told, outage.explained) == (False, False)
    outage.tell(10.0)
    outage.explained = True
    assert outage.told
    outage.served(12.0)
    assert (outage.told, outage.explained) == (False, False)


@pytest.mark.parametrize(("lasted", "goes_on"), [(0.0, True), (0.999, True), (1.0, False), (60.0, False)])
def test_a_connection_that_serves_for_a_second_ends_it(lasted: float, goes_on: bool) -> None:
    outage = Outage(0.0, 30.0)
    assert not outage.interrupted
    outage.served(64.0)
    assert outage.lost(64.0 + lasted) is goes_on
    assert outage.interrupted is goes_on


def test_one_that_never_served_goes_on() -> None:
    outage = Outage(0.0, 30.0)
    assert outage.lost(1000.0)
    assert outage.interrupted
