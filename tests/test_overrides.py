"""The contents of an override, and its end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry import Override, ServiceInstance
from aioregistry._bounds import LATEST
from aioregistry._overrides import LONGEST, ServiceOverrides, UnfitOverride, encoded, overrides_root, read_override
from tests.support.checkers import Violated, check_obeyed

ME = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000, registration_time_ms=1)


def read(data: bytes, mtime_ms: int = 1_000_000) -> Override:
    return read_override(data, "chat", "a", mtime_ms, 3)


def lasting(seconds: float | None, **fields: Any) -> Override:
    arguments = {"enabled": False, "reason": "new disk", "by": "ann", "registration_time_ms": None, **fields}
    return read(encoded(seconds=seconds, **arguments))


@given(
    st.sampled_from([None, False]),
    st.none() | st.floats(0, 1),
    st.text(max_size=50),
    st.none() | st.floats(0, LONGEST),
    st.none() | st.integers(0, 2**63 - 1),
)
def test_what_is_written_is_read(
    enabled: bool | None, weight: float | None, text: str, seconds: float | None, registered: int | None
) -> None:
    data = encoded(
        enabled=enabled, weight=weight, reason=text, by=text, seconds=seconds, registration_time_ms=registered
    )
    override = read(data)
    assert override.weight == weight
    assert (override.enabled, override.reason, override.by) == (enabled, text, text)
    assert override.registration_time_ms == registered
    assert override.since == 1000.0
    assert override.until == (None if seconds is None else 1000.0 + seconds)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["enabled", "reason", "by", "seconds", "registrationTimeUTC", "weight"])


@given(st.binary(max_size=30) | st.dictionaries(FIELDS, JSON).map(lambda each: json.dumps(each).encode()))
def test_whatever_others_write_is_an_override_or_unfit(data: bytes) -> None:
    try:
        override = read(data, mtime_ms=2**63 - 1)
    except UnfitOverride:
        return
    assert override.enabled in (None, False)
    assert override.weight is None or 0 <= override.weight <= 1
    assert override.since == LATEST
    assert override.until is None or 0 <= override.until - override.since <= LONGEST
    assert len(override.reason) <= 1000


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1e999", "1e308", "-1e308", "NaN", '"1h"', "true", "[]"])
@pytest.mark.parametrize("field", ["seconds", "registrationTimeUTC", "weight"])
def test_what_is_no_number_is_unfit(field: str, number: str) -> None:
    with pytest.raises(UnfitOverride, match=field):
        read(f'{{"enabled": false, "{field}": {number}}}'.encode())


@pytest.mark.parametrize(
    "document",
    ['{"enabled": true}', '{"enabled": 0}', '{"enabled": "no"}', '{"registrationTimeUTC": 1.5}', "[]", "7", "{"],
)
def test_what_no_override_can_say_is_unfit(document: str) -> None:
    with pytest.raises(UnfitOverride):
        read(document.encode())


@pytest.mark.parametrize(
    ("seconds", "lasts"), [("-5", 0.0), ("0", 0.0), ("0.5", 0.5), ("315360000", 3.1536e8), ("315360001", 3.1536e8)]
)
def test_it_lasts_ten_years_at_most_and_never_less_than_nothing(seconds: str, lasts: float) -> None:
    assert read(f'{{"seconds": {seconds}}}'.encode()).until == 1000.0 + lasts


def test_what_is_not_written_says_nothing_and_a_text_has_a_bound() -> None:
    override = read(b"{}")
    assert (override.enabled, override.weight, override.reason, override.by) == (None, None, "", "")
    assert (override.until, override.registration_time_ms, override.version) == (None, None, 3)
    long = read(json.dumps({"reason": "x" * 1001, "by": "y" * 1000}).encode())
    assert (len(long.reason), len(long.by)) == (1000, 1000)


@pytest.mark.parametrize(
    ("written", "read_as"), [("7", 1.0), ("-0.5", 0.0), ("1e300", 1.0), ("0.25", 0.25), ("0", 0.0)]
)
def test_a_weight_that_others_write_is_bounded(written: str, read_as: float) -> None:
    assert read(f'{{"weight": {written}}}'.encode()).weight == read_as


@pytest.mark.parametrize(("registered", "applies"), [(1, True), (2, False), (None, True)])
def test_one_incarnation_is_meant_or_any(registered: int | None, applies: bool) -> None:
    assert lasting(60.0, registration_time_ms=registered).applies_to(ME) is applies


def test_half_a_surrogate_in_a_text_is_replaced() -> None:
    override = read_override(b'{"reason": "a\\ud800", "by": "\\udcff"}', "chat", "a", 0, 0)
    assert (override.reason, override.by) == ("a?", "?")


def test_one_that_was_seen_being_set_lasts_its_time_whatever_the_wall_clock_says() -> None:
    overrides = ServiceOverrides()
    overrides.read([lasting(60.0)], now=5.0, wall=9e9, seen_being_set=True)
    assert list(overrides.in_force(64.9)) == ["a"]
    assert overrides.next_end(5.0) == 65.0
    assert (dict(overrides.in_force(65.0)), [each.id for each in overrides.over(65.0)]) == ({}, ["a"])


@pytest.mark.parametrize(("wall", "asks"), [(1000.0, 65.0), (1045.0, 20.0), (0.0, 65.0), (5000.0, 5.0)])
def test_one_that_was_there_lasts_its_time_and_by_the_wall_clock_the_server_is_only_asked(
    wall: float, asks: float
) -> None:
    overrides = ServiceOverrides()
    overrides.read([lasting(60.0)], now=5.0, wall=wall, seen_being_set=False)
    assert list(overrides.in_force(64.9)) == ["a"]
    assert list(overrides.in_force(65.0)) == []
    assert overrides.over(asks - 0.001) == []
    assert [each.id for each in overrides.over(asks)] == ["a"]
    assert overrides.next_end(5.0 - 0.001) == asks


@pytest.mark.parametrize(("left", "ends"), [(20.0, 28.0), (1000.0, 65.0), (0.0, 8.0), (-5.0, 8.0)])
def test_the_server_says_how_long_it_is_in_force_which_is_never_longer_than_it_lasts(left: float, ends: float) -> None:
    overrides = ServiceOverrides()
    overrides.read([lasting(60.0)], now=5.0, wall=5000.0, seen_being_set=False)
    overrides.learn("a", left, 8.0)
    assert list(overrides.in_force(ends - 0.001)) == ["a"]
    assert list(overrides.in_force(ends)) == []
    assert overrides.over(ends - 0.001) == []
    assert [each.id for each in overrides.over(ends)] == ["a"]
    overrides.read([lasting(60.0)], now=50.0, wall=5000.0, seen_being_set=False)
    assert list(overrides.in_force(ends)) == []


@pytest.mark.parametrize(("left", "again"), [(3000.0, 126.0), (20.0, 86.0)])
def test_where_it_has_lasted_its_time_and_the_server_says_otherwise_it_is_asked_again(
    left: float, again: float
) -> None:
    """Its clock was set back: the override is not in force, and is not removed yet."""
    overrides = ServiceOverrides()
    overrides.read([lasting(60.0)], now=5.0, wall=1000.0, seen_being_set=True)
    overrides.learn("a", left, 66.0)
    assert (dict(overrides.in_force(66.0)), overrides.over(again - 0.001)) == ({}, [])
    assert overrides.next_end(66.0) == again
    assert [each.id for each in overrides.over(again)] == ["a"]


def test_at_the_very_end_of_its_time_the_server_is_asked_again_when_it_says() -> None:
    overrides = ServiceOverrides()
    overrides.read([lasting(60.0)], now=5.0, wall=1000.0, seen_being_set=True)
    assert overrides.next_end(64.999) == 65.0
    assert overrides.next_end(65.0) is None
    overrides.learn("a", 20.0, 65.0)
    assert (dict(overrides.in_force(65.0)), overrides.over(84.999)) == ({}, [])
    assert overrides.next_end(65.0) == 85.0


def test_reading_again_moves_no_end_but_a_new_override_has_its_own() -> None:
    overrides = ServiceOverrides()
    overrides.read([lasting(60.0)], now=5.0, wall=1000.0, seen_being_set=True)
    overrides.read([lasting(60.0)], now=50.0, wall=1000.0, seen_being_set=True)
    assert overrides.next_end(50.0) == 65.0
    overrides.read([lasting(90.0)], now=50.0, wall=1000.0, seen_being_set=True)
    assert overrides.next_end(50.0) == 140.0
    overrides.read([], now=60.0, wall=1000.0, seen_being_set=True)
    assert overrides.next_end(60.0) is None


def test_one_for_ever_has_no_end() -> None:
    overrides = ServiceOverrides()
    overrides.read([lasting(None)], now=5.0, wall=1000.0, seen_being_set=False)
    assert (list(overrides.in_force(1e300)), overrides.next_end(5.0), overrides.over(1e300)) == (["a"], None, [])


@pytest.mark.parametrize(("services", "root"), [("/services", "/services-overrides"), ("", None), ("/", None)])
def test_overrides_stand_beside_the_services(services: str, root: str | None) -> None:
    assert overrides_root(services) == root


def test_picking_in_maintenance_is_a_violation() -> None:
    check_obeyed(seen=["a"], picked=["b"])
    with pytest.raises(Violated, match="Obeyed"):
        check_obeyed(seen=["a", "b"], picked=["b"])
