"""Round robin, random, the least outstanding of two."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry.balancing import LeastOutstanding, Member, Picker, Random, RoundRobin
from aioregistry.balancing._members import Census, Traits
from aioregistry.balancing._strategies import Pool
from tests.balancing.service import add, check_proportions, critical, instance, picked, picker, remove, snapshot, update

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
    """Nobody who stays is passed by more picks than there are others."""
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
            assert max(waiting.values()) < 6


def test_processes_do_not_go_round_in_step() -> None:
    draws = [random.Random(seed).random for seed in range(40)]
    starts = {Picker(snapshot(TEN), "round-robin", draw=draw).pick(None, 0.0).id for draw in draws}
    assert len(starts) > 5


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
    members = {id: Member(instance(id), Traits()) for id in ids}
    for member in members.values():
        pool.add(member)
    return pool, members


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=8), st.integers())
def test_the_busiest_alone_is_never_the_less_busy_of_two(loads: list[int], seed: int) -> None:
    pool, members = pool_of(LeastOutstanding(), [f"n{number}" for number in range(len(loads))], seed)
    for member, load in zip(members.values(), loads, strict=True):
        member.outstanding = load
    busiest = max(loads)
    if loads.count(busiest) == 1:
        assert all(pool.choose(None).outstanding < busiest for _ in range(20))


def test_two_choices_level_the_queues() -> None:
    """Calls that never end: one choice leaves the longest queue far above the mean, two within a few (Mitzenmacher)."""
    longest = {}
    for strategy in (Random(), LeastOutstanding()):
        pool, members = pool_of(strategy, [f"n{number}" for number in range(1000)])
        for _ in range(10_000):
            pool.choose(None).outstanding += 1
        longest[type(strategy)] = max(member.outstanding for member in members.values())
    assert longest[LeastOutstanding] <= 13 < longest[Random]


def test_the_check_of_proportions_can_fail() -> None:
    with pytest.raises(AssertionError):
        check_proportions({"a": 600, "b": 400}, {"a": 1.0, "b": 1.0})
    with pytest.raises(AssertionError):
        check_proportions({"a": 10, "b": 1}, {"a": 1.0, "b": 0.0})
    assert 23.9 < critical(1) < 28  # the approximation errs on the safe side
    assert 45 < critical(9) < 47.5
