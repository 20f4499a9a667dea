"""Outlier ejection: when, for how long, and the floor."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._errors import InvalidArgument
from aioregistry.balancing import Ejection
from aioregistry.balancing._ejection import Outliers


def outliers(**options: Any) -> Outliers:
    return Outliers(Ejection(**options), random.Random(3).random)


def test_failures_in_a_row_set_aside() -> None:
    found = outliers(failures=3, jitter=0)
    assert found.failed("a", 0.0, 0.0, 10) is None
    assert found.failed("a", 0.0, 0.0, 10) is None
    found.succeeded("a", 0.0)
    assert [found.failed("a", 0.0, 0.0, 10) for _ in range(3)] == [None, None, 5.0]
    assert found.aside == {"a": 5.0}
    assert found.returned(4.9, 10) == []
    assert found.returned(5.0, 10) == ["a"]


def test_pauses_double_up_to_a_cap_while_it_goes_on_failing() -> None:
    found = outliers(failures=3, pause=5, longest=60, jitter=0)
    now, pauses = 0.0, []
    for _ in range(3):
        found.failed("a", now, now, 10)
    for _ in range(6):
        pauses.append(found.aside["a"] - now)
        now = found.aside["a"]
        assert found.returned(now, 10) == ["a"]
        found.failed("a", now, now, 10)  # on probation: one is enough
    assert pauses == [5, 10, 20, 40, 60, 60]


@pytest.mark.parametrize("later", [0.0, 5.2, 1000.0])
def test_only_a_good_call_after_the_return_begins_anew(later: float) -> None:
    """However long it stays in: where calls are rare, time proves nothing."""
    found = outliers(failures=3, pause=5, jitter=0)
    for _ in range(3):
        found.failed("a", 0.0, 0.0, 10)
    now = 5.0 + later
    assert found.returned(now, 10) == ["a"]
    assert found.failed("a", now, now, 10) == 10.0
    now += 10.0
    assert found.returned(now, 10) == ["a"]
    assert found.succeeded("a", now) is False
    assert found.failed("a", now, now, 10) is None  # three in a row, as ever
    assert found.failed("a", now, now, 10) is None
    assert found.failed("a", now, now, 10) == 5.0


def test_who_returns_is_probed_by_one_call_at_a_time() -> None:
    found = outliers(failures=1, pause=5, jitter=0)
    found.failed("a", 0.0, 0.0, 10)
    assert found.returned(5.0, 10) == ["a"]
    assert found.probation == {"a"}
    assert found.picked("a", 5.0, 10) is True
    assert (found.aside, found.out) == ({}, {"a": 10.0})
    assert found.returned(9.9, 10) == []
    assert found.succeeded("a", 5.0) is True
    assert (found.out, found.probation) == ({}, set())
    assert found.returned(20.0, 10) == []


def test_a_probe_that_fails_sets_aside_for_longer() -> None:
    found = outliers(failures=3, pause=5, jitter=0)
    for _ in range(3):
        found.failed("a", 0.0, 0.0, 10)
    found.returned(5.0, 10)
    found.picked("a", 5.0, 10)
    assert found.failed("a", 5.0, 6.0, 10) == 10.0
    assert (found.aside, found.probation) == ({"a": 16.0}, set())
    assert found.returned(15.9, 10) == []
    assert found.returned(16.0, 10) == ["a"]


def test_a_probe_that_says_nothing_makes_room_for_another() -> None:
    found = outliers(failures=1, pause=5, jitter=0)
    found.failed("a", 0.0, 0.0, 10)
    found.returned(5.0, 10)
    found.picked("a", 5.0, 10)
    assert found.said_nothing("a", 4.0) is False  # a call from before
    assert found.said_nothing("a", 5.0) is True
    assert found.said_nothing("a", 5.0) is False
    assert found.probation == {"a"}
    found.picked("a", 6.0, 10)
    assert found.returned(10.9, 10) == []
    assert found.returned(11.0, 10) == ["a"]  # nobody tells of that one: it has had as long as the pause
    assert found.failed("a", 6.0, 12.0, 10) == 10.0  # now somebody does


def test_a_probe_takes_its_place_from_those_that_can_be_spared() -> None:
    found = outliers(failures=1, pause=5, jitter=0, remaining=0.5)
    found.failed("a", 0.0, 0.0, 4)
    found.returned(5.0, 4)
    found.failed("b", 5.0, 5.0, 4)
    found.failed("c", 5.0, 5.0, 4)
    assert found.picked("a", 5.0, 4) is False  # the floor matters more
    assert found.failed("a", 5.0, 5.0, 4) is None
    assert found.returned(10.0, 4) == ["b", "c"]
    assert found.failed("a", 10.0, 10.0, 4) == 10.0


def test_the_defaults() -> None:
    rule = Ejection()
    assert (rule.failures, rule.pause, rule.longest, rule.jitter, rule.remaining) == (3, 5.0, 300.0, 0.2, 0.5)
    assert rule.errors == (Exception,)
    assert repr(rule) == (
        f"Ejection(errors={(Exception,)!r}, failures=3, jitter=0.2, longest=300.0, pause=5.0, remaining=0.5)"
    )


@given(st.integers(0, 100), st.integers(0, 1000))
def test_the_share_that_remains_is_what_was_written(percent: int, total: int) -> None:
    """0.55 of 100 is 55, and not the 56 that is the least above 0.55 * 100 in floating point."""
    spared = Ejection(remaining=percent / 100).spared(total)
    assert total - spared == -(-percent * total // 100)


def test_the_first_return_is_the_first_whoever_was_forgotten() -> None:
    found = outliers(failures=1, jitter=0, remaining=0)
    for number in range(400):
        found.failed(f"n{number:03d}", 0.0, float((number * 7919) % 400), 400)
    for number in range(400):
        if number % 7 != 3:
            found.forget(f"n{number:03d}")
            assert found.next_return() == min(found.out.values())


def test_a_call_from_before_the_pause_counts_no_more() -> None:
    found = outliers(failures=1, pause=5, jitter=0)
    found.failed("a", 0.0, 1.0, 10)
    assert found.failed("a", 0.5, 2.0, 10) is None
    found.returned(6.0, 10)
    assert found.failed("a", 0.5, 30.0, 10) is None
    assert found.failed("a", 6.0, 30.0, 10) == 10.0


@given(st.floats(0, 1), st.integers(0, 100), st.integers(0, 10**6))
def test_pauses_are_within_their_bounds(jitter: float, pauses: int, seed: int) -> None:
    rule = Ejection(pause=2, longest=100, jitter=jitter)
    nominal = min(100, 2 * 2.0**pauses)
    assert nominal * (1 - jitter) <= rule.duration(pauses, random.Random(seed).random) <= nominal


def test_jitter_spreads_the_returns() -> None:
    found = outliers(failures=1, jitter=0.5, remaining=0)
    for number in range(50):
        found.failed(f"n{number}", 0.0, 0.0, 50)
    assert len(set(found.aside.values())) == 50
    assert 2.5 <= min(found.aside.values()) < 3.2
    assert 4.3 < max(found.aside.values()) <= 5


@settings(deadline=None)
@given(
    st.integers(0, 100),
    st.lists(
        st.tuples(st.sampled_from(["fail", "succeed", "nothing", "pick", "leave", "come", "wait"]), st.integers(0, 9)),
        max_size=80,
    ),
)
def test_the_floor_holds_whatever_happens(percent: int, steps: list[tuple[str, int]]) -> None:
    found = outliers(failures=1, remaining=percent / 100)
    present, out, now = {str(number) for number in range(10)}, set[str](), 0.0
    for step, number in steps:
        id = str(number)
        now += 0.5 + 8 * (step == "wait")
        if step == "leave":
            present.discard(id)
            out.discard(id)
            found.forget(id)
        elif step == "come":
            present.add(id)
        elif step == "fail" and id in present and found.failed(id, now, now, len(present)) is not None:
            out.add(id)
        elif (step == "succeed" and found.succeeded(id, now)) or (step == "nothing" and found.said_nothing(id, now)):
            assert id in present
            out.discard(id)
        elif step == "pick" and id in found.probation - out and found.picked(id, now, len(present)):
            out.add(id)
        out -= set(found.returned(now, len(present)))
        assert out == found.out.keys() <= present
        assert found.aside.keys() == out - found.probation
        assert len(present) - len(out) >= -(-percent * len(present) // 100)
        assert all(until > now for until in found.out.values())
        assert found.next_return() == min(found.out.values(), default=None)


def test_the_one_that_is_due_first_returns_where_it_cannot_be_spared() -> None:
    found = outliers(failures=1, remaining=0.5, jitter=0)
    found.failed("a", 0.0, 0.0, 4)
    found.failed("b", 1.0, 1.0, 4)
    assert found.failed("c", 1.0, 1.0, 4) is None
    assert found.returned(2.0, 3) == ["a"]
    assert found.returned(2.0, 2) == []


def test_what_is_remembered_is_bounded() -> None:
    found, most = outliers(failures=1), 0
    for number in range(1000):
        found.failed(f"n{number}", 0.0, 0.0, 10)
        found.forget(f"n{number}")
        most = max(most, len(found._due))
    assert most == 16
    assert not found.records


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failures", 0),
        ("failures", 2.0),
        ("pause", 0),
        ("pause", math.nan),
        ("pause", "5"),
        ("longest", 1),
        ("longest", math.inf),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("remaining", 1.01),
        ("remaining", None),
        ("errors", ()),
        ("errors", BaseException),
        ("errors", "OSError"),
        ("errors", (OSError, 3)),
    ],
)
def test_bad_arguments_are_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Ejection(**{field: value})
    assert caught.value.field == field


def test_the_bounds_of_the_options_are_taken_and_nothing_outside() -> None:
    for seconds in (0.001, 86_400):
        rule = Ejection(pause=seconds, longest=seconds)
        assert (rule.pause, rule.longest) == (seconds, seconds)
    for share in (0, 1):
        rule = Ejection(jitter=share, remaining=share)
        assert (rule.jitter, rule.remaining) == (share, share)
    outside: list[tuple[str, dict[str, float]]] = [
        ("pause", {"pause": 0.0009}),
        ("pause", {"pause": 86_400.5}),
        ("longest", {"pause": 0.001, "longest": 0.0009}),
        ("longest", {"longest": 86_400.5}),
        ("jitter", {"jitter": -0.001}),
        ("jitter", {"jitter": 1.001}),
        ("remaining", {"remaining": -0.001}),
        ("remaining", {"remaining": 1.001}),
    ]
    for field, options in outside:
        with pytest.raises(InvalidArgument) as caught:
            Ejection(**options)  # type: ignore[arg-type]  # none is a count
        assert caught.value.field == field
        assert "must be a number from" in caught.value.reason


def test_a_pause_beyond_the_longest_names_both() -> None:
    with pytest.raises(InvalidArgument, match=r"longest=300\.0: must not be less than pause=400"):
        Ejection(pause=400)
