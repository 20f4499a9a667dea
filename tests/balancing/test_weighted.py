"""Weighted choice, and the tree of sums below it."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._errors import InvalidArgument, NoInstances
from aioregistry._model import Added
from aioregistry.balancing import Member, Picker, Weighted
from aioregistry.balancing._members import HEAVIEST, LIGHTEST, Census, Load, Traits
from tests.balancing.service import (
    add,
    check_proportions,
    entry,
    instance,
    only_pool,
    picked,
    picker,
    remove,
    snapshot,
    update,
)

weights = st.floats(LIGHTEST, HEAVIEST)


def test_chances_are_in_proportion_to_a_field() -> None:
    given_weights = {f"n{number}": float(number) for number in range(8)}
    chosen = picker({id: {"weight": weight} for id, weight in given_weights.items()}, Weighted("weight"))
    check_proportions(Counter(picked(chosen, 20_000)), given_weights)


def test_chances_follow_changes() -> None:
    chosen = picker({f"n{number}": {"weight": 1} for number in range(100)}, Weighted("weight"))
    for number in range(4, 100):
        remove(chosen, f"n{number}")
    update(chosen, "n0", {"weight": 5})
    update(chosen, "n1", {"weight": 0})
    add(chosen, "x", {"weight": 2.5})
    check_proportions(Counter(picked(chosen, 20_000)), {"n0": 5.0, "n1": 0.0, "n2": 1.0, "n3": 1.0, "x": 2.5})


def test_a_function_of_a_typed_payload() -> None:
    class Meta(msgspec.Struct, frozen=True):
        cores: int

    by_function = picker({"a": Meta(1), "b": Meta(3)}, Weighted(lambda each: each.payload.cores))
    check_proportions(Counter(picked(by_function, 5000)), {"a": 1.0, "b": 3.0})
    by_attribute = picker({"a": Meta(1), "b": Meta(3)}, Weighted("cores"))
    check_proportions(Counter(picked(by_attribute, 5000)), {"a": 1.0, "b": 3.0})


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), weights | st.none()), min_size=1, max_size=120),
    st.floats(0, 1, exclude_max=True),
)
def test_the_tree_never_chooses_who_is_not_there(steps: list[tuple[int, float | None]], drawn: float) -> None:
    """For all weights, orders of changes and draws, the choice is where the sums say, up to rounding."""
    pool = Weighted("weight").pool(lambda: drawn, Census())
    present: dict[int, Member[Any]] = {}
    for number, weight in steps:
        if number in present:
            pool.discard(present.pop(number))
        if weight is not None:
            present[number] = Member(instance(f"n{number}"), Traits(weight), Load())
            pool.add(present[number])
        assert len(pool) == len(present)
        if present:
            assert pool.choose(None) in present.values()


@settings(deadline=None)
@given(st.lists(weights, min_size=1, max_size=40), st.frozensets(st.integers(0, 39)), st.floats(0, 1, exclude_max=True))
def test_an_exclusion_leaves_no_trace(given_weights: list[float], tried: frozenset[int], drawn: float) -> None:
    pool = Weighted("weight").pool(lambda: drawn, Census())
    members = [Member(instance(f"n{number}"), Traits(each), Load()) for number, each in enumerate(given_weights)]
    for member in members:
        pool.add(member)
    sums = list(pool._sums)  # type: ignore[attr-defined]
    excluded = frozenset(f"n{number}" for number in tried)
    found = pool.choose(None, excluded)
    left = [member for member in members if member.id not in excluded]
    assert found in left if left else found is None
    assert pool._sums == sums  # type: ignore[attr-defined]


@pytest.mark.parametrize("excluded", range(4))
def test_the_others_keep_their_shares_beside_an_exclusion(excluded: int) -> None:
    draws = iter([number / 90 for number in range(90)])
    pool = Weighted("weight").pool(lambda: next(draws), Census())
    shares = [1, 2, 3, 4]
    for number, share in enumerate(shares):
        pool.add(Member(instance(f"n{number}"), Traits(float(share)), Load()))
    total = sum(shares) - shares[excluded]
    chosen = Counter(str(member.id) for _ in range(90) if (member := pool.choose(None, frozenset({f"n{excluded}"}))))
    expected = {f"n{number}": 90 * share / total for number, share in enumerate(shares) if number != excluded}
    assert chosen.keys() == expected.keys()
    assert all(abs(chosen[id] - expected[id]) <= 1 for id in expected)


def test_a_place_that_is_free_is_used_again() -> None:
    chosen = picker({"a": {"weight": 1}}, Weighted("weight"))
    for number in range(1000):
        add(chosen, f"n{number}", {"weight": 2})
        remove(chosen, f"n{number}")
    pool = only_pool(chosen)
    assert len(pool._sums) == 32


@pytest.mark.parametrize("scale", [2, 9])
def test_rounding_leads_to_nobody_who_is_not_there(scale: float) -> None:
    """A draw just below 1 of sums that were rounded may leave a rest where nobody is: one in 300 of these do."""
    order = random.Random(5)
    instances = [instance(f"n{number}") for number in range(36)]
    for _ in range(1500):
        pool = Weighted("weight").pool(lambda: math.nextafter(1, 0), Census())
        for each in instances[: order.randrange(1, 36)]:
            pool.add(Member(each, Traits(10 ** order.uniform(-scale, scale)), Load()))
        assert pool.choose(None) is not None


@pytest.mark.parametrize("drawn", [0.0, 0.5, math.nextafter(1, 0)])
def test_the_ends_of_a_draw_choose_somebody(drawn: float) -> None:
    pool = Weighted("weight").pool(lambda: drawn, Census())
    for number in range(17):
        pool.add(Member(instance(f"n{number}"), Traits(0.1 * (number + 1)), Load()))
    member = pool.choose(None)
    assert member is not None
    assert member.id in {f"n{number}" for number in range(17)}


@pytest.mark.parametrize(
    "weight",
    [-1, -0.5, math.nan, math.inf, -math.inf, "3", None, True, [1], {}, 10**400, 2e9, 1e9 + 1, 1e-300, 0.99e-9],
)
def test_a_weight_that_is_none_is_refused(weight: object) -> None:
    strategy: Weighted[Any] = Weighted(lambda each: weight if each.id == "bad" else 1)  # type: ignore[arg-type,return-value]
    chosen = picker(["bad", "good"], strategy)
    assert set(picked(chosen, 50)) == {"good"}
    assert chosen.refused["bad"].field == "weight"
    assert chosen.refused["bad"].value is weight
    assert "bad" in str(chosen.refused["bad"])
    with pytest.raises(InvalidArgument, match="weight="):
        picker(["bad"], strategy)


def test_the_lightest_and_the_heaviest_weight_are_taken() -> None:
    chosen = picker({"a": {"weight": 1e-9}, "b": {"weight": 1e9}, "c": {"weight": 0}}, Weighted("weight"))
    assert chosen.refused == {}


def test_a_field_that_nobody_has_is_an_error_at_once() -> None:
    with pytest.raises(InvalidArgument, match="wieght=None"):
        picker({"a": {"weight": 1}, "b": {"weight": 2}}, Weighted("wieght"))


def test_a_function_that_raises_refuses_the_instance() -> None:
    chosen = picker({"a": {"load": 1}, "b": {}}, Weighted(lambda each: each.payload["load"]))
    assert set(picked(chosen, 20)) == {"a"}
    assert "KeyError" in chosen.refused["b"].reason


def test_all_of_weight_0_are_nothing_to_pick() -> None:
    chosen = picker({"a": {"weight": 0}}, Weighted("weight"))
    with pytest.raises(NoInstances, match="weight 0") as caught:
        chosen.pick(None, 0.0)
    assert caught.value.reason == "of weight 0"


@pytest.mark.parametrize("weight", [None, 3, "", b"weight", ["weight"]])
def test_what_is_no_weight_is_refused_at_once(weight: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^weight="):
        Weighted(weight)


def test_a_refusal_is_told_once() -> None:
    chosen = Picker(snapshot({"a": {"weight": 1}}), Weighted("weight"), draw=random.Random(1).random)
    assert [error.value for error in chosen.apply(Added(entry("b", {"weight": -1}), 2), 0.0)] == [-1]
    assert chosen.apply(Added(entry("b", {"weight": -2}), 2), 0.0) == []
    assert chosen.refused["b"].value == -2
    assert chosen.apply(Added(entry("b", {"weight": 1}), 2), 0.0) == []
    assert chosen.refused == {}
