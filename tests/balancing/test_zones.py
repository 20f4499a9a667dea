"""The own zone first, and what spills over."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._errors import InvalidArgument
from aioregistry.balancing import Ejection, OwnZone, Picker, Ring, RoundRobin, Sticky, Weighted
from tests.balancing.service import add, check_proportions, members_of, picked, picker, placed, remove, update

OURS = {f"a{number}": {"zone": "a"} for number in range(4)}
THEIRS = {f"b{number}": {"zone": "b"} for number in range(4)}


def set_aside(chosen: Picker[Any], id: str) -> None:
    """As one failure does, where one suffices."""
    member = members_of(chosen)[id]
    assert chosen.report(member, False, 0.0, 0.0)


def in_ours(chosen: Picker[Any], number: int = 4000) -> float:
    return sum(id in OURS for id in picked(chosen, number)) / number


def test_nobody_else_is_picked_while_the_zone_suffices() -> None:
    chosen = picker(OURS | THEIRS, OwnZone("a", RoundRobin()))
    assert Counter(picked(chosen, 40)) == dict.fromkeys(OURS, 10)


def test_a_failing_zone_spills_what_it_cannot_carry() -> None:
    chosen = picker(OURS | THEIRS, OwnZone("a", RoundRobin(), healthy=0.75), ejection=Ejection(failures=1, remaining=0))
    set_aside(chosen, "a0")
    assert in_ours(chosen) == 1.0
    set_aside(chosen, "a1")
    assert in_ours(chosen) == pytest.approx(2 / 3, abs=0.05)
    set_aside(chosen, "a2")
    assert in_ours(chosen) == pytest.approx(1 / 3, abs=0.05)
    set_aside(chosen, "a3")
    assert in_ours(chosen) == 0.0


def test_a_zone_that_is_too_small_spills() -> None:
    chosen = picker({"a0": {"zone": "a"}} | THEIRS, OwnZone("a", RoundRobin(), at_least=4))
    check_proportions(
        Counter("ours" if id in OURS else "theirs" for id in picked(chosen, 4000)), {"ours": 1.0, "theirs": 3.0}
    )
    for number in range(1, 4):
        add(chosen, f"a{number}", {"zone": "a"})
    assert in_ours(chosen) == 1.0


def test_an_empty_zone_and_a_world_of_one_zone() -> None:
    chosen = picker(THEIRS, OwnZone("a", RoundRobin()))
    assert in_ours(chosen, 20) == 0.0
    add(chosen, "a0", {"zone": "a"})
    for id in THEIRS:
        remove(chosen, id)
    lonely = picker({"a0": {"zone": "a"}}, OwnZone("a", RoundRobin(), at_least=9))
    assert set(picked(chosen, 5) + picked(lonely, 5)) == {"a0"}


def test_an_instance_may_move_and_one_without_a_zone_is_elsewhere() -> None:
    chosen = picker({"x": {"zone": "a"}, "y": {}, "z": None}, OwnZone("a", RoundRobin()))
    assert set(picked(chosen, 10)) == {"x"}
    update(chosen, "x", {"zone": "b"})
    update(chosen, "y", {"zone": "a"})
    assert set(picked(chosen, 10)) == {"y"}


class Metadata(msgspec.Struct, frozen=True):
    zone: str


class Payload(msgspec.Struct, frozen=True):
    metadata: Metadata


@pytest.mark.parametrize(
    "field",
    ["metadata.zone", lambda each: each.payload["metadata"]["zone"], "a.b.c.d"],
    ids=["path", "function", "deep path"],
)
def test_the_zone_may_lie_deeper(field: Any) -> None:
    payloads = {
        id: {"metadata": {"zone": zone}, "a": {"b": {"c": {"d": zone}}}}
        for id, zone in (("x", "a"), ("y", "b"), ("z", "b"))
    }
    chosen = picker(payloads, OwnZone("a", RoundRobin(), field=field))
    assert set(picked(chosen, 20)) == {"x"}
    remove(chosen, "x")
    assert set(picked(chosen, 20)) == {"y", "z"}


@pytest.mark.parametrize(
    ("payload", "local"),
    [
        (Payload(Metadata("a")), True),
        ({"metadata.zone": "a", "metadata": {"zone": "b"}}, True),  # what has the whole name comes first
        ({"metadata": {"zone": "b"}}, False),
        ({"metadata": None}, False),
        ({"metadata": "zone"}, False),
        ({"metadata": ["zone"]}, False),
        ({}, False),
        (None, False),
        ("text", False),
    ],
)
def test_what_has_no_zone_where_it_is_looked_for_is_elsewhere(payload: Any, local: bool) -> None:
    chosen = picker({"x": payload, "y": {"metadata": {"zone": "b"}}}, OwnZone("a", RoundRobin(), field="metadata.zone"))
    assert (set(picked(chosen, 20)) == {"x"}) is local


def test_a_function_that_raises_refuses_the_instance() -> None:
    payloads = {"x": {"metadata": {"zone": "a"}}, "y": {}, "z": {"metadata": {"zone": "b"}}}
    zone = OwnZone[Any]("a", RoundRobin(), field=lambda each: each.payload["metadata"]["zone"])
    chosen = picker(payloads, zone)
    assert set(picked(chosen, 20)) == {"x"}
    assert list(chosen.refused) == ["y"]
    assert chosen.refused["y"].field == "field"


def test_weights_and_filters_lie_deeper_too() -> None:
    payloads = {
        id: {"metadata": {"weight": weight, "tier": tier}}
        for id, weight, tier in (("x", 1, "gold"), ("y", 3, "gold"), ("z", 9, "tin"))
    }
    chosen = picker(payloads, Weighted("metadata.weight"), where={"metadata.tier": "gold"})
    check_proportions(Counter(picked(chosen, 4000)), {"x": 1.0, "y": 3.0})


def test_weights_hold_within_the_zone() -> None:
    payloads = {id: {"zone": "a", "weight": weight} for id, weight in (("p", 1), ("q", 3))} | {
        "r": {"zone": "b", "weight": 9}
    }
    chosen = picker(payloads, OwnZone("a", Weighted("weight")))
    check_proportions(Counter(picked(chosen, 4000)), {"p": 1.0, "q": 3.0})


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 8))
def test_keys_that_spill_are_always_the_same_ones(local: int, at_least: int) -> None:
    keys = [f"room-{number}" for number in range(300)]
    chosen = picker(
        {f"a{number}": {"zone": "a"} for number in range(local)} | THEIRS, OwnZone("a", Ring(), at_least=at_least)
    )
    before = placed(chosen, keys)
    assert placed(chosen, keys) == before
    add(chosen, "new", {"zone": "a"})
    after = placed(chosen, keys)
    moved = [key for key in keys if after[key] != before[key]]
    assert all(after[key].startswith(("a", "new")) for key in moved)  # back home, and nobody out of it
    assert all(after[key] == "new" for key in moved if before[key].startswith("a"))


@pytest.mark.parametrize(
    ("field", "arguments", "options"),
    [
        ("zone", ("", RoundRobin()), {}),
        ("zone", (3, RoundRobin()), {}),
        ("strategy", ("a", RoundRobin), {}),
        ("strategy", ("a", "round-robin"), {}),
        ("strategy", ("a", None), {}),
        ("strategy", ("a", OwnZone("b", RoundRobin())), {}),
        ("strategy", ("a", Sticky(OwnZone("b", RoundRobin()))), {}),
        ("field", ("a", RoundRobin()), {"field": ""}),
        ("field", ("a", RoundRobin()), {"field": ("metadata", "zone")}),
        ("at_least", ("a", RoundRobin()), {"at_least": 0}),
        ("at_least", ("a", RoundRobin()), {"at_least": 1.5}),
        ("healthy", ("a", RoundRobin()), {"healthy": 1.1}),
        ("healthy", ("a", RoundRobin()), {"healthy": float("nan")}),
        ("healthy", ("a", RoundRobin()), {"healthy": True}),
    ],
)
def test_bad_arguments_are_named(field: str, arguments: Any, options: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        OwnZone(*arguments, **options)
    assert caught.value.field == field


def test_what_an_instance_lacked_goes_with_it() -> None:
    chosen = picker({"a0": {"zone": "a"}} | THEIRS, OwnZone("a", RoundRobin(), healthy=1.0))
    add(chosen, "a1", {"zone": "a"}, weight=0.25)
    add(chosen, "a2", {"zone": "a"}, weight=0.5)
    assert in_ours(chosen) == pytest.approx(1.75 / 3, abs=0.05)
    remove(chosen, "a1")
    assert in_ours(chosen) == pytest.approx(1.5 / 2, abs=0.05)
    update(chosen, "a2", {"zone": "a"})
    assert in_ours(chosen) == 1.0
