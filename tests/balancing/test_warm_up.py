"""New instances get few calls at first, whatever the strategy."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry import InvalidArgument, ServiceInstance, WarmUp
from aioregistry._model import Added, Entry, Removed, Snapshot, Updated
from aioregistry.balancing import (
    Arrivals,
    Ejection,
    LeastOutstanding,
    OwnZone,
    Picker,
    Random,
    Ring,
    RoundRobin,
    Sticky,
    Strategy,
    Weighted,
)
from aioregistry.balancing._newcomers import Newcomers
from tests.balancing.service import check_proportions, members_of, placed, snapshot

FOUR = {"a": {"zone": "x"}, "b": {"zone": "x"}, "c": {"zone": "y"}, "new": {"zone": "x"}}
HALF_AN_HOUR = 1800.0


class Broken(msgspec.Struct):
    """A payload that cannot be asked for what Spring Cloud's servers say."""

    @property
    def metadata(self) -> object:
        raise RuntimeError("broken")


def warm(
    strategy: Strategy[Any] | str, payloads: Mapping[str, Any] | Iterable[str], new: Mapping[str, float], **options: Any
) -> Picker[Any]:
    """Return a picker of instances of which those that are *new* are so since a moment."""
    return Picker(snapshot(payloads), strategy, arrivals=new, draw=random.Random(11).random, **options)


def counts(chosen: Picker[Any], number: int = 20_000, *, now: float, keys: bool = False) -> Counter[Any]:
    return Counter(chosen.pick(f"key-{each}" if keys else None, now).id for each in range(number))


# ---------------------------------------------------------------- the weight


@pytest.mark.parametrize("strategy", [RoundRobin(), Random(), LeastOutstanding(), Weighted(lambda _: 3.0)])
@pytest.mark.parametrize(("now", "weight"), [(0.0, 0.1), (2.9, 0.1), (15.0, 0.5), (24.0, 0.8), (30.0, 1.0)])
def test_a_newcomer_gets_its_weight_in_proportion(strategy: Strategy[Any], now: float, weight: float) -> None:
    chosen = warm(WarmUp(strategy), FOUR, {"new": 0.0})
    check_proportions(counts(chosen, now=now), {"a": 1.0, "b": 1.0, "c": 1.0, "new": weight})
    assert chosen.warming_up(now) == ({"new": weight} if weight < 1 else {})


def test_several_newcomers_of_unlike_weights_and_ages() -> None:
    payloads = {id: {"weight": weight} for id, weight in {"a": 1, "b": 4, "c": 2, "d": 3, "old": 1, "new": 4}.items()}
    chosen = warm(WarmUp(Weighted("weight")), payloads, {"old": 0.0, "new": 12.0})
    weights = {"a": 1.0, "b": 4.0, "c": 2.0, "d": 3.0, "old": 0.8, "new": 4 * 0.4}
    check_proportions(counts(chosen, now=24.0), weights)


@given(seconds=st.floats(0.001, 3600), least=st.floats(0.000_001, 1), aggression=st.floats(0.01, 100), data=st.data())
def test_the_weight_grows_from_the_least_to_one(seconds: float, least: float, aggression: float, data: Any) -> None:
    rule: WarmUp[Any] = WarmUp("random", seconds=seconds, least=least, aggression=aggression)
    ages = sorted(data.draw(st.lists(st.floats(-seconds, 2 * seconds), min_size=2, max_size=8)))
    weights = [rule.weight(age) for age in ages]
    assert weights == sorted(weights)
    assert all(least <= weight <= 1 for weight in weights)
    assert (rule.weight(0.0), rule.weight(seconds)) == (least, 1.0)


def test_aggression_is_envoys() -> None:
    assert WarmUp(RoundRobin(), aggression=2.0).weight(7.5) == pytest.approx(0.5)
    assert WarmUp(RoundRobin(), aggression=0.5).weight(15.0) == pytest.approx(0.25)


def test_a_tiny_weight_is_never_none() -> None:
    chosen = warm(WarmUp("random", seconds=3600, least=0.001), "abcd", {"d": 0.0})
    found = counts(chosen, 100_000, now=0.0)
    assert 0 < found["d"] < 100
    lonely = warm(WarmUp("round-robin", least=0.000_001), "ab", {"b": 0.0})
    lonely.apply(Removed(snapshot("a").entries["a"], 2), 0.0)
    assert counts(lonely, 10, now=0.0) == {"b": 10}


def test_not_when_more_than_half_are_new() -> None:
    half = warm(WarmUp("random"), "abcd", {"c": 0.0, "d": 0.0})
    check_proportions(counts(half, now=0.0), {"a": 1.0, "b": 1.0, "c": 0.1, "d": 0.1})
    most = warm(WarmUp("random"), "abcd", dict.fromkeys("bcd", 0.0))
    check_proportions(counts(most, now=0.0), dict.fromkeys("abcd", 1.0))
    assert most.warming_up(0.0) == {}


def test_who_was_as_good_as_the_others_stays_so() -> None:
    arrivals = dict.fromkeys("bcd", 0.0)
    chosen = warm(WarmUp("random"), "abcd", arrivals)
    chosen.pick(None, 0.0)
    for id in "efgh":
        chosen.apply(Added(snapshot(id).entries[id], 2), 1.0)
    arrivals["i"] = 1.0
    chosen.apply(Added(snapshot("i").entries["i"], 2), 1.0)
    assert chosen.warming_up(1.0) == {"i": 0.1}  # four of nine are new, and the three were spared


def test_who_was_as_good_as_the_others_stays_so_when_it_is_updated() -> None:
    chosen = warm(WarmUp("random"), "abcd", dict.fromkeys("bcd", 0.0))
    chosen.pick(None, 0.0)
    for id in "efgh":
        chosen.apply(Added(snapshot(id).entries[id], 2), 1.0)
    for id in "bcd":
        before = snapshot(id).entries[id]
        chosen.apply(Updated(snapshot({id: {"load": 1}}).entries[id], before, 3), 1.0)
    assert chosen.warming_up(1.0) == {}


class CountedRamp:
    """A weight of one half for a second; counts how often the second is asked for."""

    asked = 0

    @property
    def seconds(self) -> float:
        self.asked += 1
        return 1.0

    @seconds.setter
    def seconds(self, value: float) -> None:
        raise NotImplementedError

    def weight(self, age: float) -> float:
        return 0.5 if age < 1.0 else 1.0


def test_one_that_is_new_again_and_again_leaves_few_ends_to_look_at() -> None:
    ramp = CountedRamp()
    newcomers = Newcomers(ramp)
    newcomers.note("b", 0.0)
    for number in range(1000):
        newcomers.note("a", number / 1000)
    ramp.asked = 0
    newcomers.at(1.9, 100)
    assert set(newcomers.weights) == {"a"}
    assert ramp.asked <= 2 * 2 + 16
    newcomers.at(1.999, 100)
    assert (newcomers.since, newcomers.weights) == ({}, {})


def test_in_a_panic_who_is_well_again_gets_no_fewer_calls_than_those_that_fail() -> None:
    arrivals: dict[str, float] = {}
    failing = {id: listed(id, enabled=False, status="failing") for id in "abcd"}
    chosen = Picker(
        Snapshot("chat", failing, {}, as_of=1), WarmUp("random"), arrivals=arrivals, draw=random.Random(11).random
    )
    arrivals["a"] = 1.0
    chosen.apply(Updated(listed("a"), failing["a"], 2), 1.0)
    assert chosen.in_panic
    check_proportions(counts(chosen, now=1.0), dict.fromkeys("abcd", 1.0))
    assert chosen.warming_up(1.0) == {}
    for id in "bcd":  # by then the first is as warm as it was before
        chosen.apply(Updated(listed(id), failing[id], 3), 2.0)
    arrivals["b"] = 2.0
    chosen.apply(Updated(listed("b"), listed("b"), 4), 2.0)
    assert not chosen.in_panic
    assert set(chosen.warming_up(2.0)) == {"b"}


def test_a_service_of_one_and_an_empty_one() -> None:
    chosen = warm(WarmUp(), "a", {"a": 0.0})
    assert chosen.pick(None, 0.0).id == "a"
    chosen.apply(Removed(snapshot("a").entries["a"], 2), 0.0)
    assert chosen.warming_up(0.0) == {}


# ---------------------------------------------------------------- strategies


def test_keys_move_to_a_newcomer_one_by_one_and_once() -> None:
    chosen = warm(WarmUp(Ring()), "abcdefgh", {"h": 0.0})
    keys = [f"key-{number}" for number in range(2000)]
    owners: list[dict[str, str]] = []
    for now in (0.0, 10.0, 20.0, 30.0):
        owners.append({key: chosen.pick(key, now).id for key in keys})
        assert owners[-1] == {key: chosen.pick(key, now).id for key in keys}
    cold = {"a", "b", "c", "d", "e", "f", "g"}
    shares = [Counter(each.values())["h"] for each in owners]
    assert shares == sorted(shares)
    assert owners[-1] == placed(Picker(snapshot("abcdefgh"), Ring(), draw=random.random), keys)
    assert shares[0] == pytest.approx(0.1 * shares[-1], rel=0.6)
    for before, after in itertools.pairwise(owners):
        moved = {key for key in keys if before[key] != after[key]}
        assert all(before[key] in cold and after[key] == "h" for key in moved)


def test_all_processes_agree_about_a_key_while_weights_are_the_same() -> None:
    strategy: WarmUp[Any] = WarmUp(Ring())
    pickers = [Picker(snapshot("abcd"), strategy, arrivals={"d": 0.0}, draw=random.Random(n).random) for n in range(3)]
    for key in map(str, range(200)):
        assert len({chosen.pick(key, 9.0).id for chosen in pickers}) == 1


def test_what_sticks_stays_and_new_keys_go_by_weight() -> None:
    arrivals: dict[str, float] = {}
    chosen = warm(Sticky(WarmUp(RoundRobin())), "abcd", arrivals)
    before = placed(chosen, map(str, range(100)))
    arrivals["d"] = 0.0
    entry = snapshot("d").entries["d"]
    chosen.apply(Updated(entry, entry, 2), 0.0)
    assert placed(chosen, map(str, range(100))) == before
    check_proportions(counts(chosen, now=0.0, keys=True), {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.1})


def test_around_what_sticks_the_key_decides_and_stays_where_it_is_sent() -> None:
    chosen = warm(WarmUp(Sticky(RoundRobin())), "abcd", {"d": 0.0})
    first = placed(chosen, map(str, range(400)))
    assert Counter(first.values())["d"] < 40
    for now in (15.0, 60.0):
        assert {key: chosen.pick(key, now).id for key in first} == first


@pytest.mark.parametrize("nested", [WarmUp(OwnZone("x", RoundRobin())), OwnZone("x", WarmUp(RoundRobin()))])
def test_within_the_own_zone(nested: Strategy[Any]) -> None:
    chosen = warm(nested, FOUR, {"new": 0.0})
    check_proportions(counts(chosen, now=0.0), {"a": 1.0, "b": 1.0, "new": 0.1})


def test_a_zone_of_newcomers_keeps_to_itself() -> None:
    chosen = warm(WarmUp(OwnZone("x", Random())), {"new": {"zone": "x"}, "c": {"zone": "y"}}, {"new": 0.0})
    assert counts(chosen, 200, now=0.0) == {"new": 200}


@pytest.mark.parametrize("strategy", ["round-robin", LeastOutstanding(), Weighted(lambda _: 1.0)])
def test_a_retry_finds_another_though_it_is_new(strategy: Any) -> None:
    chosen = warm(WarmUp(strategy, least=0.000_001), "abc", {"c": 0.0})
    assert {chosen.pick(None, 0.0, frozenset("ab")).id for _ in range(20)} == {"c"}


def test_with_ejection_a_newcomer_that_is_set_aside_is_not_picked_and_goes_on() -> None:
    chosen = warm(WarmUp("random"), "abcd", {"d": 0.0}, ejection=Ejection(failures=1, jitter=0.0))
    assert chosen.report(members_of(chosen)["d"], False, 0.0, 0.0) == 5.0
    assert counts(chosen, 1000, now=1.0)["d"] == 0
    member = next(member for _ in range(1000) if (member := chosen.pick(None, 15.0)).id == "d")
    chosen.report(member, True, 15.0, 15.0)
    check_proportions(counts(chosen, now=15.0), {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.5})


def test_a_pick_looks_at_few_and_costs_nothing_where_nobody_is_new() -> None:
    draws = 0

    def draw() -> float:
        nonlocal draws
        draws += 1
        return 0.999

    ids = [f"n{number}" for number in range(1000)]
    nobody = Picker(snapshot(ids), WarmUp("random"), draw=draw)
    draws = 0
    nobody.pick(None, 0.0)
    assert draws == 1
    half = Picker(snapshot(ids), WarmUp("random"), arrivals=dict.fromkeys(ids[500:], 0.0), draw=draw)
    draws = 0
    half.pick(None, 0.0)
    assert draws < 100


WRONG: dict[str, list[Any]] = {
    "seconds": [0, -1, math.inf, math.nan, 3601, True, "30", None],
    "least": [0, -0.1, 1.1, math.nan, "0.1", None],
    "aggression": [0, -1, math.inf, math.nan, 101, "1", None],
    "strategy": ["fastest", RoundRobin, None, 5, WarmUp(), Sticky(WarmUp())],
}


@pytest.mark.parametrize(
    ("field", "options"), [(field, {field: value}) for field, values in WRONG.items() for value in values]
)
def test_what_is_wrong_is_refused_at_once(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        WarmUp(**options)
    assert raised.value.field == field


def test_it_says_what_it_is() -> None:
    assert repr(WarmUp(seconds=60)) == "WarmUp(RoundRobin(), seconds=60, least=0.1, aggression=1)"


# ---------------------------------------------------------------- who is new


def listed(id: str, registered: int | None = 1, **fields: Any) -> Entry[Any]:
    instance = ServiceInstance("chat", id=id, address="10.0.0.7", registration_time_ms=registered, **fields)
    return Entry(instance, 1, 1, 1, 0, 0.0, 0.0)


SPRING = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance"


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        (Added(listed("a"), 2), True),
        (Updated(listed("a", 2), listed("a", 1), 2), True),
        (Updated(listed("a", 1), listed("a", 2), 2), True),  # the clocks of two hosts differ
        (Updated(listed("a", payload=1), listed("a"), 2), False),
        (Updated(listed("a"), listed("a", enabled=False, status="failing"), 2), True),
        (Updated(listed("a"), listed("a", enabled=False, status="maintenance"), 2), True),
        (Updated(listed("a", enabled=False, status="failing"), listed("a"), 2), False),
        (Updated(listed("a", enabled=False), listed("a", enabled=False, status="failing"), 2), False),
    ],
)
def test_what_makes_an_instance_new(change: Any, is_new: bool) -> None:
    arrivals = Arrivals()
    arrivals.take([change], 7.0)
    assert arrivals.since == ({"a": 7.0} if is_new else {})
    first = Arrivals()
    first.take([change], 7.0, first=True)
    assert first.since == {}


def test_springs_word_that_it_is_up_again_is_health_too() -> None:
    def said(status: str) -> Entry[Any]:
        return listed("a", payload={"metadata": {"instance_status": status}}, payload_class=SPRING)

    arrivals = Arrivals()
    arrivals.take([Updated(said("UP"), said("OUT_OF_SERVICE"), 2)], 7.0)
    assert arrivals.since == {"a": 7.0}


def test_a_payload_that_raises_when_it_is_asked_ends_nothing() -> None:
    broken = listed("a", payload=Broken(), payload_class=SPRING)
    arrivals = Arrivals()
    arrivals.take([Updated(broken, broken, 2)], 7.0)
    assert arrivals.since == {}
    arrivals.take([Updated(listed("a"), broken, 3)], 8.0)
    assert arrivals.since == {"a": 8.0}


def test_who_was_new_an_hour_ago_is_forgotten_though_one_that_came_before_it_is_new_again() -> None:
    arrivals = Arrivals()
    for number, id in enumerate("abc"):
        arrivals.take([Added(listed(id), 2)], float(number))
    arrivals.take([Updated(listed("a", 9), listed("a"), 3)], 10.0)
    arrivals.take([], 3602.0)
    assert arrivals.since == {"a": 10.0}


def test_who_registers_again_is_not_new() -> None:
    arrivals = Arrivals()
    arrivals.take([Removed(listed("a"), 2), Added(listed("a"), 3), Removed(listed("b"), 4)], 7.0)
    arrivals.take([Added(listed("b"), 5)], 8.0)
    assert arrivals.since == {}
    arrivals.take([Removed(listed("a"), 6), Added(listed("a", 9), 7)], 9.0)
    assert arrivals.since == {"a": 9.0}


def test_who_was_not_well_when_it_went_and_is_when_it_is_back_is_new() -> None:
    sick = listed("a", enabled=False, status="failing")
    arrivals = Arrivals()
    arrivals.take([Removed(sick, 2), Added(sick, 3)], 7.0)
    assert arrivals.since == {}
    arrivals.take([Removed(sick, 4), Added(listed("a"), 5)], 8.0)
    assert arrivals.since == {"a": 8.0}


def test_who_was_new_when_it_went_goes_on_when_it_is_back() -> None:
    arrivals = Arrivals()
    arrivals.take([Added(listed("a"), 2)], 1.0)
    arrivals.take([Removed(listed("a"), 3)], 2.0)
    assert arrivals.since == {}
    arrivals.take([Added(listed("a"), 4)], 5.0)
    assert arrivals.since == {"a": 1.0}


def test_what_is_remembered_is_bounded() -> None:
    arrivals = Arrivals()
    for number in range(10_050):
        arrivals.take([Removed(listed(f"n{number}"), 2)], 0.0)
    arrivals.take([Added(listed("n49"), 3), Added(listed("n50"), 3)], 1.0)
    assert arrivals.since == {"n49": 1.0}
    arrivals.take([Added(listed("late"), 4)], 1.0 + HALF_AN_HOUR)
    arrivals.take([], 3601.0)
    assert list(arrivals.since) == ["late"]


@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["come", "again", "update", "sick", "well", "go", "clock"]), st.sampled_from("abcd")),
        max_size=40,
    )
)
def test_whatever_happens_a_balancer_made_now_agrees_with_one_that_was_told(moves: list[tuple[str, str]]) -> None:
    arrivals, entries, now, times = Arrivals(), dict[str, Entry[Any]](), 0.0, iter(range(1, 100))
    rule: WarmUp[Any] = WarmUp("random", seconds=5)
    told = Picker(Snapshot("chat", {}, {}, as_of=1), rule, arrivals=arrivals.since, draw=random.Random(1).random)
    for move, id in moves:
        before = entries.get(id)
        if move == "clock":
            now += 1.0
            continue
        if move == "go":
            change: Any = None if before is None else Removed(entries.pop(id), 2)
        else:
            stays = move != "again" and before is not None
            registered = before.instance.registration_time_ms if stays and before is not None else next(times)
            sick = move == "sick" or (move == "update" and before is not None and not before.instance.enabled)
            entries[id] = listed(id, registered, enabled=not sick, status="failing" if sick else None)
            change = Added(entries[id], 2) if before is None else Updated(entries[id], before, 2)
        if change is not None:
            arrivals.take([change], now)
            told.apply(change, now)
    made = Picker(Snapshot("chat", entries, {}, as_of=1), rule, arrivals=arrivals.since, draw=random.Random(1).random)
    new = {id for id, since in arrivals.since.items() if now - since < 5 and id in members_of(made)}
    assert told.in_panic is made.in_panic
    if made.in_panic or 2 * len(new) > len(members_of(made)):
        assert made.warming_up(now) == told.warming_up(now) == {}
    else:
        assert set(made.warming_up(now)) == {id for id in new if rule.weight(now - arrivals.since[id]) < 1}
        assert told.warming_up(now) == made.warming_up(now)
