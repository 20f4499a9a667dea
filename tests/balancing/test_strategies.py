"""Round robin, random, the least outstanding of two."""

from __future__ import annotations

import gc
import itertools
import random
from collections import Counter
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._model import Added, Change, Entry, Removed, ServiceInstance, Snapshot, Updated
from aioregistry.balancing import LeastOutstanding, Member, Picker, Random, RoundRobin
from aioregistry.balancing._members import Census, Load, Traits
from aioregistry.balancing._strategies import Pool
from tests.balancing.service import (
    add,
    check_proportions,
    critical,
    entry,
    instance,
    members_of,
    picked,
    picker,
    remove,
    snapshot,
    update,
)

TEN = [f"n{number}" for number in range(10)]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 4))
def test_round_robin_picks_each_once_in_a_lap(size: int, laps: int) -> None:
    ids = [f"n{number}" for number in range(size)]
    seen = picked(picker(ids, RoundRobin()), laps * size)
    for lap in range(laps):
        assert sorted(seen[lap * size : (lap + 1) * size]) == sorted(ids)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "update", "remove", "pick"]), st.sampled_from("abcdef"))))
def test_round_robin_starves_nobody_whatever_changes(steps: list[tuple[str, str]]) -> None:
    """Nobody who stays is passed by more picks than two laps have: it is picked once in each."""
    chosen = picker("abc", RoundRobin())
    waiting = dict.fromkeys("abc", 0)
    for step, id in steps:
        if step == "add" and id not in waiting:
            add(chosen, id)
            waiting[id] = 0
        elif step == "update" and id in waiting:
            update(chosen, id, {"load": len(steps)})
        elif step == "remove" and id in waiting:
            remove(chosen, id)
            del waiting[id]
        elif step == "pick" and waiting:
            [next_one] = picked(chosen, 1)
            waiting = {each: passed + 1 for each, passed in waiting.items()} | {next_one: 0}
            assert max(waiting.values()) < 12


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_even_among_those_that_stay(seed: int) -> None:
    """Each has one turn in a lap, whoever comes and goes: between two turns of one, another has two at most."""
    order = random.Random(seed)
    pool = RoundRobin().pool(order.random, Census())
    members = {id: Member(instance(id), Traits(), Load()) for id in "abcdefgh"}
    since: dict[str, Counter[str]] = {}  # for each that is there, the turns of others since its own
    for _ in range(300):
        id = order.choice("abcdefgh")
        if order.random() < 0.6 and since:
            turn = chosen(pool).id
            since[turn] = Counter()
            for counts in since.values():
                counts[turn] += 1
                assert counts[turn] <= 2
        elif id not in since:
            pool.add(members[id])
            since[id] = Counter()
        else:
            pool.discard(members[id])
            del since[id]
            for counts in since.values():
                del counts[id]


def test_processes_do_not_go_round_in_step() -> None:
    draws = [random.Random(seed).random for seed in range(40)]
    starts = {Picker(snapshot(TEN), "round-robin", draw=draw).pick(None, 0.0).id for draw in draws}
    assert len(starts) > 5


CONSUMERS = 1000


def busiest(consumers: list[Picker[Any]]) -> int:
    return max(Counter(each.pick(None, 0.0).id for each in consumers).values())


@pytest.mark.parametrize("passing", ["restart", "disabled", "replaced"])
def test_consumers_do_not_fall_into_step_when_servers_come_back_in_turn(passing: str) -> None:
    """Of 1,000 consumers that pick at one moment, the busiest of ten servers gets what chance gives it.

    That is 100, and with a chance of one in a million for each more than 100 + 4.9 * sqrt(90).
    """
    most = 100 + 4.9 * (CONSUMERS * 0.1 * 0.9) ** 0.5
    consumers = [Picker(snapshot(TEN), "round-robin", draw=random.Random(seed).random) for seed in range(CONSUMERS)]
    for id in TEN:
        assert busiest(consumers) <= most
        away: Change[Any] = Removed(entry(id), 2)
        if passing == "disabled":
            away = Updated(entry(id, enabled=False), entry(id), 2)
        back = Added(entry(f"new-{id}" if passing == "replaced" else id), 3)
        for each in consumers:
            each.apply(away, 0.0)
            each.apply(back, 0.0)
    for _ in range(20):
        assert busiest(consumers) <= most


def test_one_that_was_tried_costs_nobody_a_turn() -> None:
    """With one of four dead and a retry for each of its calls, the others share them evenly: no neighbour has two."""
    chosen = picker("abcd", RoundRobin())
    served: Counter[str] = Counter()
    for _ in range(300):
        id = chosen.pick(None, 0.0).id
        if id == "a":
            id = chosen.pick(None, 0.0, frozenset("a")).id
        served[id] += 1
    assert served == {"b": 100, "c": 100, "d": 100}


@pytest.mark.parametrize("strategy", [Random(), LeastOutstanding()])
def test_chance_is_equal_among_those_that_are_left(strategy: Any) -> None:
    chosen = picker(TEN, strategy)
    tried = frozenset({"n0", "n4", "n9", "nobody"})
    found: Counter[Hashable] = Counter(chosen.pick(None, 0.0, tried).id for _ in range(20_000))
    check_proportions(found, {id: float(id not in tried) for id in TEN})


@pytest.mark.parametrize("strategy", [Random(), LeastOutstanding()])
def test_chance_is_equal(strategy: Any) -> None:
    chosen = picker([*TEN, "x", "y"], strategy)
    remove(chosen, "x")
    remove(chosen, "n3")
    add(chosen, "n3")
    remove(chosen, "y")
    check_proportions(Counter(picked(chosen, 20_000)), dict.fromkeys(TEN, 1.0))


def pool_of(strategy: Any, ids: list[str], seed: int = 1) -> tuple[Pool[Any], dict[str, Member[Any]]]:
    pool = strategy.pool(random.Random(seed).random, Census())
    members = {id: Member(instance(id), Traits(), Load()) for id in ids}
    for member in members.values():
        pool.add(member)
    return pool, members


def chosen(pool: Pool[Any]) -> Member[Any]:
    member = pool.choose(None)
    assert member is not None
    return member


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=8), st.integers())
def test_the_busiest_alone_is_never_the_less_busy_of_two(loads: list[int], seed: int) -> None:
    pool, members = pool_of(LeastOutstanding(), [f"n{number}" for number in range(len(loads))], seed)
    for member, load in zip(members.values(), loads, strict=True):
        member.load.calls = load
    busiest = max(loads)
    if loads.count(busiest) == 1:
        assert all(chosen(pool).load.calls < busiest for _ in range(20))


def test_each_two_of_three_are_compared_as_often() -> None:
    """With every draw there is: of the six pairs in order the least busy one is in four, the busiest one never wins."""
    wins = Counter[str]()
    for first, second in itertools.product((1, 3, 5), (1, 3)):
        draws = iter((first / 6, second / 4))
        pool = LeastOutstanding().pool(lambda: next(draws), Census())  # noqa: B023 - it is used up here
        for calls, id in enumerate("abc"):
            member = Member(instance(id), Traits(), Load())
            member.load.calls = calls
            pool.add(member)
        chosen = pool.choose(None)
        assert chosen is not None
        wins[chosen.id] += 1
    assert wins == {"a": 4, "b": 2}


def test_two_choices_level_the_queues() -> None:
    """Calls that never end: one choice leaves the longest queue far above the mean, two within a few (Mitzenmacher)."""
    longest = {}
    for strategy in (Random(), LeastOutstanding()):
        pool, members = pool_of(strategy, [f"n{number}" for number in range(1000)])
        for _ in range(10_000):
            chosen(pool).load.calls += 1
        longest[type(strategy)] = max(member.load.calls for member in members.values())
    assert longest[LeastOutstanding] <= 13 < longest[Random]


@pytest.mark.parametrize("strategy", [RoundRobin(), Random(), LeastOutstanding()])
def test_an_empty_pool_has_nothing_to_choose(strategy: Any) -> None:
    """A strategy of a caller's own may contain another, and ask an empty pool."""
    pool, members = pool_of(strategy, ["a"])
    pool.discard(members["a"])
    assert pool.choose(None) is None
    assert pool.choose(None, frozenset("a")) is None


# ---------------------------------------------------------------- calls under way


def at(id: str, port: int, **fields: Any) -> Entry[Any]:
    return Entry(ServiceInstance("chat", id=id, address="10.0.0.7", port=port, **fields), 1, 1, 1, 0, 0.0, 0.0)


def balanced() -> tuple[Picker[Any], dict[str, Load]]:
    """Four with a hundred calls under way each, and whoever holds these."""
    entries = {id: at(id, port) for port, id in enumerate("abcd", 7000)}
    ok = Snapshot("chat", entries, {}, as_of=1)
    chosen = Picker(ok, LeastOutstanding(), where=lambda each: each.payload is None, draw=random.Random(6).random)
    held = {id: member.load for id, member in members_of(chosen).items()}
    for load in held.values():
        load.calls = 100
    return chosen, held


@pytest.mark.parametrize(
    ("away", "back"),
    [
        ([Updated(at("a", 7000, enabled=False), at("a", 7000), 2)], at("a", 7000)),
        ([Updated(at("a", 7000, payload="filtered"), at("a", 7000), 2)], at("a", 7000)),
        ([Removed(at("a", 7000), 2)], at("a", 7000)),
        ([Removed(at("a", 7000), 2)], at("another-id", 7000)),
        ([Updated(at("a", 7009), at("a", 7000), 2)], at("a", 7000)),
        ([Removed(at("a", 7000), 2), Removed(at("b", 7001), 2), Added(at("b", 7001), 2)], at("a", 7000)),
        ([Added(at("new", 7000), 2), Removed(at("a", 7000), 2)], at("new", 7000)),
        ([Added(at("new", 7000), 2), Removed(at("a", 7000), 2), Removed(at("new", 7000), 3)], at("newest", 7000)),
        ([Updated(at("b", 7000), at("b", 7001), 2), Updated(at("b", 7001), at("b", 7000), 2)], at("a", 7000)),
    ],
    ids=[
        "disabled",
        "filtered out",
        "gone",
        "gone, with another id",
        "moved",
        "two gone",
        "another id first, then gone",
        "another id first, then both gone",
        "another moves there and away",
    ],
)
def test_calls_stay_counted_where_they_are_served(away: list[Any], back: Entry[Any]) -> None:
    chosen, held = balanced()
    for change in (*away, Added(back, 3)):
        chosen.apply(change, 0.0)
    assert [member.load.calls for member in members_of(chosen).values()] == [100] * 4
    held["a"].count(-30)
    assert members_of(chosen)[back.instance.id].load.calls == 70


def test_a_member_of_which_nothing_is_said_is_like_most() -> None:
    member = Member(instance("a"), Traits(), Load())
    assert (member.weight, member.rank, member.suspect, member.failing) == (1.0, 0, False, False)
    assert (Traits().weight, Traits().local) == (1.0, False)


def test_another_address_has_no_calls() -> None:
    chosen, _ = balanced()
    chosen.apply(Updated(at("a", 7009), at("a", 7000), 2), 0.0)
    assert members_of(chosen)["a"].load.calls == 0


def test_calls_that_have_ended_are_forgotten() -> None:
    chosen, held = balanced()
    for change in (Removed(at("a", 7000), 2), Added(at("a", 7000), 3), Removed(at("a", 7000), 4)):
        chosen.apply(change, 0.0)
    held.clear()
    gc.collect()
    chosen.apply(Added(at("a", 7000), 5), 0.0)
    assert members_of(chosen)["a"].load.calls == 0
    assert not chosen._loads._exact
    assert not chosen._loads._by_place


def test_two_that_publish_one_address_are_counted_apart() -> None:
    entries = {id: at(id, 7000) for id in "ab"}
    chosen = Picker(Snapshot("chat", entries, {}, as_of=1), LeastOutstanding(), draw=random.Random(6).random)
    members_of(chosen)["a"].load.calls += 1
    assert set(picked(chosen, 20)) == {"b"}


def test_calls_of_one_that_went_are_its_own_when_it_is_back() -> None:
    chosen, held = balanced()
    for change in (Added(at("new", 7000), 2), Removed(at("a", 7000), 3)):
        chosen.apply(change, 0.0)
    new = members_of(chosen)["new"].load
    new.count(7)
    held["a"].count(-40)
    assert new.calls == 67
    chosen.apply(Added(at("a", 7000), 4), 0.0)
    assert members_of(chosen)["a"].load is held["a"]
    assert (held["a"].calls, new.calls) == (60, 7)
    held["a"].count(-60)
    assert (held["a"].calls, new.calls) == (0, 7)


def test_where_several_are_left_at_an_address_the_calls_of_one_that_went_are_not_theirs() -> None:
    chosen, held = balanced()
    for change in (Added(at("x", 7000), 2), Added(at("y", 7000), 2), Removed(at("a", 7000), 3)):
        chosen.apply(change, 0.0)
    assert [members_of(chosen)[id].load.calls for id in "xy"] == [0, 0]
    chosen.apply(Added(at("a", 7000), 4), 0.0)
    assert members_of(chosen)["a"].load is held["a"]
    assert held["a"].calls == 100


def test_the_check_of_proportions_can_fail() -> None:
    with pytest.raises(AssertionError):
        check_proportions({"a": 600, "b": 400}, {"a": 1.0, "b": 1.0})
    with pytest.raises(AssertionError):
        check_proportions({"a": 10, "b": 1}, {"a": 1.0, "b": 0.0})
    assert 23.9 < critical(1) < 28  # the approximation errs on the safe side
    assert 45 < critical(9) < 47.5
