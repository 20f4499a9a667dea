"""The picker as a whole: who may be picked, in which order, and why nobody."""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from aioregistry._document import decode
from aioregistry._errors import InvalidArgument, NoInstances
from aioregistry._model import Added, Entry, InstanceStatus, Removed, Resynced, ServiceInstance, Snapshot, Updated
from aioregistry.balancing import (
    STRATEGIES,
    Ejection,
    LeastOutstanding,
    Member,
    OwnZone,
    Picker,
    Random,
    Ring,
    RoundRobin,
    Sticky,
    Strategy,
    WarmUp,
    Weighted,
)
from aioregistry.balancing._members import Traits
from aioregistry.balancing._panic import UNIT, panics, units_of
from tests.balancing.service import add, check_proportions, entry, members_of, picked, picker, remove, snapshot, update

IDS = [f"n{number}" for number in range(7)]


# ---------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, "abcd"),
        ({"zone": "eu"}, "ab"),
        ({"zone": {"eu", "us"}}, "abc"),
        ({"zone": "eu", "canary": True}, "b"),
        ({"canary": None}, "acd"),
        (lambda each: each.payload["zone"] != "eu", "cd"),
    ],
)
def test_only_what_the_filter_lets_through_is_picked(where: Any, expected: str) -> None:
    payloads = {"a": {"zone": "eu"}, "b": {"zone": "eu", "canary": True}, "c": {"zone": "us"}, "d": {"zone": "ap"}}
    assert set(picked(picker(payloads, "round-robin", where=where), 20)) == set(expected)


def test_true_is_not_1() -> None:
    chosen = picker({"a": {"canary": 1}, "b": {"canary": True}}, "round-robin", where={"canary": True})
    assert set(picked(chosen, 5)) == {"b"}


@pytest.mark.parametrize("where", [{}, {"zone": set()}, {"": 1}, {3: 1}, "zone", 5, ["zone"]])
def test_filters_that_say_nothing_are_refused(where: Any) -> None:
    with pytest.raises(InvalidArgument, match="where"):
        picker("a", "round-robin", where=where)


class Incomparable:
    """As an array of numbers is: to compare it gives no bool."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Choosy(RoundRobin):
    """Somebody's own strategy, which takes a payload for granted."""

    def traits(self, instance: ServiceInstance[Any]) -> Traits:
        return Traits(weight=1.0 + instance.payload["zone"])


@pytest.mark.parametrize(
    ("field", "strategy", "where"),
    [("where", "round-robin", {"zone": Incomparable()}), ("strategy", Choosy(), None)],
)
def test_an_instance_at_which_code_of_the_callers_fails_is_refused(field: str, strategy: Any, where: Any) -> None:
    chosen = picker([], strategy, where=where)
    [refusal] = chosen.apply(Added(entry("a", {"zone": "eu"}), 2), 0.0)
    assert refusal.field == field
    assert "of a: it raised" in str(refusal)
    assert list(chosen.refused) == ["a"]
    with pytest.raises(InvalidArgument, match=f"{field}=None: of a"):
        picker({"a": {"zone": "eu"}}, strategy, where=where)


@pytest.mark.parametrize("answer", [1, None, "yes"])
def test_a_filter_that_does_not_answer_lets_nothing_through(answer: Any) -> None:
    chosen = picker("ab", "round-robin", where=lambda each: True if each.id == "b" else answer)
    assert set(picked(chosen, 5)) == {"b"}
    assert chosen.refused["a"].field == "where"
    with pytest.raises(InvalidArgument, match="where"):
        picker("a", "round-robin", where=lambda each: answer)


def test_a_filter_that_raises_lets_nothing_through() -> None:
    chosen = picker({"a": {}, "b": {"zone": 1}}, "round-robin", where=lambda each: each.payload["zone"] == 1)
    assert set(picked(chosen, 5)) == {"b"}
    assert "KeyError" in str(chosen.refused["a"])


# ---------------------------------------------------------------- addresses


def at(id: str, address: str | None) -> Entry[Any]:
    read = decode(json.dumps({"name": "chat", "id": id, "address": address, "port": 7000}).encode(), name="chat", id=id)
    return Entry(read, 1, 1, 1, 0, 0.0, 0.0)


def among(*entries: Entry[Any]) -> Picker[Any]:
    listed = Snapshot("chat", {each.instance.id: each for each in entries}, {}, as_of=1)
    return Picker(listed, "round-robin", draw=random.Random(5).random)


@pytest.mark.parametrize("address", ["10.0.0.07", "1.2.3.999", "a b", "::1%\r\nX: y", "::1%]:80#", "\u2603.invalid"])
def test_what_nobody_can_connect_to_is_refused(address: str) -> None:
    chosen = among(at("a", address), at("b", "10.0.0.7"))
    assert set(picked(chosen, 5)) == {"b"}
    assert (chosen.refused["a"].field, chosen.refused["a"].value) == ("address", address)
    assert chosen.apply(Updated(at("b", address), at("b", "10.0.0.7"), 2), 0.0) == [chosen.refused["b"]]
    with pytest.raises(NoInstances) as raised:
        chosen.pick(None, 0.0)
    assert raised.value.counts == {"refused": 2}
    chosen.apply(Updated(at("a", "10.0.0.7"), at("a", address), 3), 0.0)
    assert set(picked(chosen, 5)) == {"a"}
    assert set(chosen.refused) == {"b"}


def test_an_address_is_not_blamed_on_the_arguments() -> None:
    with pytest.raises(NoInstances):
        among(at("a", "10.0.0.07")).pick(None, 0.0)


def test_without_an_address_an_instance_is_picked() -> None:
    assert picked(among(at("a", None)), 1) == ["a"]


# ---------------------------------------------------------------- Spring Cloud's status

SPRING = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance"


def spring(id: str, status: object, payload_class: str | None = SPRING) -> Entry[Any]:
    payload = {"id": "application-1", "name": "chat", "metadata": {} if status is None else {"instance_status": status}}
    written = ServiceInstance(
        "chat", id=id, address="10.0.0.7", port=7000, payload=payload, payload_class=payload_class
    )
    return Entry(written, 1, 1, 1, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("status", "picked_too"),
    [
        (None, True),
        ("UP", True),
        ("up", True),
        ("Up ", True),
        ("", True),
        ("  ", True),
        ("OUT_OF_SERVICE", False),
        ("out_of_service", False),
        ("DOWN", False),
        ("STARTING", False),
        ("nonsense", False),
        (0, False),
    ],
)
def test_a_server_of_springs_that_says_it_is_not_up_is_not_picked(status: object, picked_too: bool) -> None:
    chosen = picker("a", "round-robin")
    chosen.apply(Added(spring("b", status), 2), 0.0)
    assert set(picked(chosen, 10)) == ({"a", "b"} if picked_too else {"a"})
    remove(chosen, "a")
    if not picked_too:
        error = nothing(chosen)
        assert (error.reason, error.counts) == ("out of service", {"out of service": 1})
        assert repr(chosen) == "<Picker chat RoundRobin(): 0 admitted, 1 out of service>"
        chosen.apply(Updated(spring("b", "UP"), spring("b", status), 3), 0.0)
        assert set(picked(chosen, 3)) == {"b"}


def test_what_others_call_a_status_is_their_own_affair() -> None:
    chosen = picker("a", "round-robin")
    chosen.apply(Added(spring("b", "OUT_OF_SERVICE", payload_class=None), 2), 0.0)
    chosen.apply(Added(spring("c", "OUT_OF_SERVICE", payload_class="org.example.Other"), 2), 0.0)
    assert set(picked(chosen, 10)) == {"a", "b", "c"}


def test_a_filter_may_say_itself_which_status_is_picked() -> None:
    wanted = {"metadata.instance_status": {"UP", "OUT_OF_SERVICE"}}
    chosen = picker([], "round-robin", where=wanted)
    for id, status in (("a", "UP"), ("b", "OUT_OF_SERVICE"), ("c", "DOWN")):
        chosen.apply(Added(spring(id, status), 2), 0.0)
    assert set(picked(chosen, 10)) == {"a", "b"}


# ---------------------------------------------------------------- strategies by name


def test_every_name_is_a_strategy() -> None:
    for name in STRATEGIES:
        assert set(picked(picker("abc", name), 60)) == set("abc")


@pytest.mark.parametrize("strategy", ["roundrobin", "", "ring", None, 3, RoundRobin, object()])
def test_unknown_strategies_are_refused(strategy: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^strategy="):
        picker("abc", strategy)


@pytest.mark.parametrize("ejection", [True, "on", Ejection, 0.5])
def test_what_is_no_ejection_is_refused(ejection: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^ejection="):
        picker("abc", "random", ejection=ejection)


def test_a_key_is_given_where_it_is_taken_and_only_there() -> None:
    with pytest.raises(InvalidArgument, match="does not take a key"):
        picker("abc", "random").pick("room", 0.0)
    needy: list[Any] = [Ring(), Sticky(RoundRobin()), OwnZone("a", Ring())]
    for strategy in needy:
        with pytest.raises(InvalidArgument, match="needs one"):
            picker("abc", strategy).pick(None, 0.0)


# ---------------------------------------------------------------- suspects


def test_suspects_are_picked_only_when_nothing_confirmed_is_left() -> None:
    chosen = picker("ab", "round-robin")
    update(chosen, "a", suspect=True)
    assert set(picked(chosen, 10)) == {"b"}
    remove(chosen, "b")
    add(chosen, "c", suspect=True)
    assert set(picked(chosen, 10)) == {"a", "c"}
    update(chosen, "a")
    assert set(picked(chosen, 10)) == {"a"}


@pytest.mark.parametrize(
    ("suspects", "all_listed", "none_listed"), [("last", "bc", "a"), ("never", "bc", ""), ("equal", "abc", "a")]
)
def test_suspects_are_picked_last_never_or_as_all_others(suspects: Any, all_listed: str, none_listed: str) -> None:
    chosen = picker("abc", "round-robin", suspects=suspects)
    update(chosen, "a", suspect=True)
    assert set(picked(chosen, 12)) == set(all_listed)
    remove(chosen, "b")
    remove(chosen, "c")
    if none_listed:
        assert set(picked(chosen, 3)) == set(none_listed)
    else:
        assert nothing(chosen).counts == {"suspect": 1}
    update(chosen, "a")
    assert set(picked(chosen, 3)) == {"a"}


def test_why_it_is_not_picked_is_first_what_it_says_itself() -> None:
    chosen = picker("a", "round-robin", suspects="never")
    update(chosen, "a", enabled=False, suspect=True)
    assert nothing(chosen).reason == "disabled"


@pytest.mark.parametrize(
    ("field", "value"), [("suspects", "first"), ("suspects", None), ("panic", 1.01), ("panic", True)]
)
def test_wrong_options_for_suspects_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        picker("a", "round-robin", **{field: value})
    assert (caught.value.field, caught.value.value) == (field, value)


# ---------------------------------------------------------------- panic


@pytest.mark.parametrize(
    ("confirmed", "known", "panic", "begins", "goes_on"),
    [
        (0, 0, 0.5, False, False),
        (0, 1, 0.5, True, True),
        (1, 2, 0.5, False, False),
        (4, 10, 0.5, True, True),
        (5, 10, 0.5, False, False),
        (45, 100, 0.5, False, True),  # a sixteenth of them later than it ends
        (43, 100, 0.5, True, True),
        (0, 10, 0.0, False, False),
        (9, 10, 1.0, True, True),
        (10, 10, 1.0, False, False),
        (7, 100, 0.07, False, False),  # in floating point 0.07 * 100 is more than 7
    ],
)
def test_panic_is_a_matter_of_shares(confirmed: int, known: int, panic: float, begins: bool, goes_on: bool) -> None:
    share = Fraction(str(panic))
    assert panics(confirmed, known, share, already=False) is begins
    assert panics(confirmed, known, share, already=True) is goes_on


def lose(chosen: Picker[Any], ids: Iterable[str]) -> None:
    """These become suspect, where callers report how calls went."""
    chosen.report(chosen.pick("key" if chosen.strategy.keyed else None, 0.0), True, 0.0, 0.0)
    for id in ids:
        update(chosen, id, suspect=True)


def test_without_reports_suspects_come_last_however_few_are_confirmed() -> None:
    chosen = picker(IDS, "round-robin")
    for id in IDS[1:]:
        update(chosen, id, suspect=True)
    member = chosen.pick(None, 0.0)
    assert set(picked(chosen, 10)) == {"n0"}
    chosen.report(member, True, 0.0, 0.0)
    assert set(picked(chosen, 14)) == set(IDS)


@pytest.mark.parametrize("strategy", ["round-robin", "random", "least-outstanding", Weighted(lambda _: 1.0)])
def test_no_instance_gets_three_times_its_share_while_a_service_comes_back(strategy: Any) -> None:
    ids = [f"n{number:02d}" for number in range(40)]
    chosen = picker(ids, strategy)
    lose(chosen, ids)
    for back in range(40):
        counts = Counter(picked(chosen, 4000))
        assert max(counts.values()) <= 3 * 4000 / 40
        update(chosen, ids[back])
    assert not chosen.in_panic


LIGHT, HEAVY = [f"l{number}" for number in range(5)], [f"h{number}" for number in range(5)]
LIGHT_AND_HEAVY = {id: {"weight": 1 if id in LIGHT else 99} for id in (*LIGHT, *HEAVY)}


@pytest.mark.parametrize(
    "strategy",
    [RoundRobin(), Random(), Weighted(lambda _: 1.0), OwnZone("eu", RoundRobin()), WarmUp(RoundRobin())],
    ids=lambda strategy: type(strategy).__name__,
)
def test_a_suspect_gets_half_a_share_in_a_panic_until_it_answers(strategy: Any) -> None:
    chosen = picker({id: {"zone": "eu"} for id in "abcdef"}, strategy)
    for id in "bcdef":
        update(chosen, id, {"zone": "eu"}, suspect=True)
    chosen.report(members_of(chosen)["a"], True, 0.0, 0.0)
    assert chosen.in_panic
    check_proportions(Counter(picked(chosen, 7000)), {"a": 1.0} | dict.fromkeys("bcdef", 0.5))
    for id in "bcd":
        chosen.report(members_of(chosen)[id], True, 0.0, 0.0)
    chosen.report(members_of(chosen)["e"], False, 0.0, 0.0)  # that speaks no more for it than before
    check_proportions(Counter(picked(chosen, 10_000)), dict.fromkeys("abcd", 1.0) | dict.fromkeys("ef", 0.5))
    update(chosen, "b", {"zone": "eu", "new": 1}, suspect=True)  # as suspect as before: it has answered
    check_proportions(Counter(picked(chosen, 10_000)), dict.fromkeys("abcd", 1.0) | dict.fromkeys("ef", 0.5))


def test_an_answer_counts_for_the_suspicion_that_it_came_in() -> None:
    chosen = picker("abc", "round-robin")
    for id in "bc":
        update(chosen, id, suspect=True)
        chosen.report(members_of(chosen)[id], True, 0.0, 0.0)
    update(chosen, "b")
    update(chosen, "b", suspect=True)
    check_proportions(Counter(picked(chosen, 7000)), {"a": 1.0, "b": 0.5, "c": 1.0})


def test_where_nobody_is_confirmed_suspects_are_alike() -> None:
    chosen = picker("abc", "round-robin")
    for id in "abc":
        update(chosen, id, suspect=True)
    chosen.report(members_of(chosen)["a"], True, 0.0, 0.0)
    assert sorted(picked(chosen, 30)) == sorted("abc" * 10)


def test_keys_stay_where_they_are_whatever_speaks_for_a_suspect() -> None:
    chosen = picker("abcdef", Ring())
    keys = [f"room {number}" for number in range(200)]
    before = [chosen.pick(key, 0.0).id for key in keys]
    for id in "bcdef":
        update(chosen, id, suspect=True)
    chosen.report(members_of(chosen)["a"], True, 0.0, 0.0)
    assert chosen.in_panic
    assert [chosen.pick(key, 0.0).id for key in keys] == before


def times_its_share(chosen: Picker[Any], weights: Mapping[str, float]) -> float:
    """The share of the busiest, as a multiple of its share if all were picked."""
    number = 5000
    counts = Counter(chosen.pick(f"k{each}" if chosen.strategy.keyed else None, 0.0).id for each in range(number))
    return max(counts[id] / number * sum(weights.values()) / weight for id, weight in weights.items())


@pytest.mark.parametrize("strategy", [Weighted("weight"), Ring("weight")], ids=repr)
@pytest.mark.parametrize("doubt", [{"suspect": True}, {"status": "failing"}], ids=["suspect", "failing"])
def test_light_instances_do_not_carry_the_calls_of_heavy_ones(strategy: Any, doubt: Any) -> None:
    """Half of the instances are well, with a hundredth of the weight."""
    chosen = picker(LIGHT_AND_HEAVY, strategy)
    lose(chosen, ())
    for id in HEAVY:
        update(chosen, id, LIGHT_AND_HEAVY[id], **doubt)
    assert (chosen.in_panic, chosen.healthy) == (True, (5, 10))
    assert times_its_share(chosen, {id: each["weight"] for id, each in LIGHT_AND_HEAVY.items()}) <= 3
    for id in HEAVY[:3]:
        update(chosen, id, LIGHT_AND_HEAVY[id])
    assert not chosen.in_panic
    assert chosen.healthy_weight[0] * 500 == chosen.healthy_weight[1] * 302


@pytest.mark.parametrize("strategy", ["round-robin", "random", "least-outstanding", Ring()], ids=repr)
def test_one_does_not_carry_the_calls_of_those_that_are_to_get_fewer(strategy: Any) -> None:
    """Half of the instances are confirmed, and operators gave four of these five a tenth of their calls."""
    chosen = picker([*LIGHT, *HEAVY], strategy)
    lose(chosen, HEAVY)
    for id in LIGHT[1:]:
        update(chosen, id, weight=0.1)
    assert chosen.in_panic
    assert times_its_share(chosen, {id: 0.1 if id in LIGHT[1:] else 1.0 for id in (*LIGHT, *HEAVY)}) <= 3


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_no_instance_gets_three_times_its_share_whoever_comes_back_first(seed: int | None) -> None:
    payloads = {f"n{number:02d}": {"weight": 1 if number < 16 else 5} for number in range(20)}
    weights = {id: each["weight"] for id, each in payloads.items()}
    chosen = picker(payloads, Weighted("weight"))
    lose(chosen, ())
    for id, payload in payloads.items():
        update(chosen, id, payload, suspect=True)
    for id in payloads if seed is None else random.Random(seed).sample(list(payloads), len(payloads)):
        update(chosen, id, payloads[id])
        assert times_its_share(chosen, weights) <= 3
    assert not chosen.in_panic


def test_a_weight_that_a_strategy_of_the_caller_s_makes_up_is_taken_for_1() -> None:
    assert [units_of(weight, 0.5) for weight in (2, 1e9, math.nan, math.inf, -1, 0, "x")] == [
        UNIT,
        UNIT * 500_000_000,
        *[UNIT // 2] * 5,
    ]


def test_sums_of_weights_are_exact() -> None:
    chosen = picker({"a": {"weight": 1e9}, "b": {"weight": 1e-9}}, Weighted("weight"))
    before = chosen.healthy_weight
    for number in range(100):
        add(chosen, f"n{number}", {"weight": 0.1}, status="failing" if number % 2 else None)
    for number in range(100):
        remove(chosen, f"n{number}")
    assert chosen.healthy_weight == before
    remove(chosen, "a")
    assert chosen.healthy_weight == (UNIT // 10**9, UNIT // 10**9)


def test_keys_stay_while_suspects_are_picked_like_all_others() -> None:
    chosen = picker(IDS, Ring())
    keys = [f"room-{number}" for number in range(50)]
    before = {key: chosen.pick(key, 0.0).id for key in keys}
    lose(chosen, IDS)
    update(chosen, IDS[0])
    assert {key: chosen.pick(key, 0.0).id for key in keys} == before


def test_a_suspect_that_fails_once_is_set_aside_but_never_more_than_can_be_spared() -> None:
    chosen = picker(IDS, "round-robin", ejection=Ejection(failures=3))
    lose(chosen, IDS)
    for _ in range(50):
        chosen.report(chosen.pick(None, 0.0), False, 0.0, 0.0)
    assert len(chosen.aside) == 3  # of seven


def test_the_confirmed_have_a_floor_of_their_own() -> None:
    """Three confirmed of nine: half of nine may be set aside, but not all three."""
    ids = [f"n{number}" for number in range(9)]
    chosen = picker(ids, "round-robin", ejection=Ejection(failures=1), panic=0)
    lose(chosen, ids[3:])
    for _ in range(20):
        member = chosen.pick(None, 0.0)
        assert not member.suspect
        chosen.report(member, False, 0.0, 0.0)
    assert len(chosen.aside) == 1


def test_the_well_have_a_floor_of_their_own_among_failing_ones() -> None:
    """Three of nine are well: those whose checks fail are picked too, and do not make up for any of the three."""
    ids = [f"n{number}" for number in range(9)]
    chosen = picker(ids, "round-robin", ejection=Ejection(failures=1))
    fail(chosen, ids[3:])
    for _ in range(200):
        member = chosen.pick(None, 0.0)
        chosen.report(member, member.failing, 0.0, 0.0)
    assert len(chosen.aside) == 1
    for _ in range(200):
        chosen.report(chosen.pick(None, 0.0), False, 0.0, 0.0)
    assert Counter(id in ids[:3] for id in chosen.aside) == {True: 1, False: 3}


def fail(chosen: Picker[Any], ids: Iterable[str], status: InstanceStatus = "failing") -> None:
    for id in ids:
        update(chosen, id, status=status)


def test_failing_instances_are_picked_where_too_few_are_well_and_need_no_reports() -> None:
    chosen = picker("abcd", "round-robin")
    fail(chosen, "ab")
    assert (chosen.in_panic, chosen.healthy) == (False, (2, 4))
    assert set(picked(chosen, 8)) == set("cd")
    fail(chosen, "c")
    assert (chosen.in_panic, chosen.healthy) == (True, (1, 4))
    assert Counter(picked(chosen, 8)) == dict.fromkeys("abcd", 2)
    assert sum(chosen.pick(None, 0.0).instance.status == "failing" for _ in range(4)) == 3
    update(chosen, "a")
    assert (chosen.in_panic, chosen.healthy) == (False, (2, 4))
    assert set(picked(chosen, 8)) == set("ad")


def test_when_a_shared_dependency_fails_all_are_picked_and_those_that_are_to_rest_are_not() -> None:
    chosen = picker("abcdefg", "random", ejection=Ejection())
    fail(chosen, "abc")
    fail(chosen, "d", "maintenance")
    fail(chosen, "e", "draining")
    update(chosen, "f", enabled=False)
    remove(chosen, "g")
    assert chosen.in_panic
    assert set(picked(chosen, 100)) == set("abc")
    made = Picker(
        Snapshot("chat", {"a": entry("a", status="failing")}, {}, as_of=1), "random", draw=random.Random(1).random
    )
    assert made.in_panic
    assert made.pick(None, 0.0).id == "a"


def test_without_panic_no_failing_instance_is_picked() -> None:
    chosen = picker("abcd", "round-robin", panic=0)
    fail(chosen, "abc")
    assert set(picked(chosen, 8)) == {"d"}
    fail(chosen, "d")
    assert nothing(chosen).counts == {"failing": 4}
    assert not chosen.in_panic


@pytest.mark.parametrize(("panic", "picks"), [(0.25, "d"), (0.26, "abcd"), (1.0, "abcd")])
def test_the_threshold_is_the_caller_s(panic: float, picks: str) -> None:
    chosen = picker("abcd", "round-robin", panic=panic)
    fail(chosen, "abc")
    assert set(picked(chosen, 8)) == set(picks)


def test_failing_instances_and_suspects_are_one_rule() -> None:
    chosen = picker(IDS[:6], "round-robin")
    for id in IDS[:2]:
        update(chosen, id, suspect=True)
    fail(chosen, IDS[2:4])
    assert (chosen.in_panic, chosen.healthy) == (True, (2, 6))
    assert set(picked(chosen, 30)) == set(IDS[2:6])  # nobody reported yet: suspects come last
    chosen.report(chosen.pick(None, 0.0), True, 0.0, 0.0)
    assert set(picked(chosen, 30)) == set(IDS[:6])
    update(chosen, IDS[2])
    assert (chosen.in_panic, chosen.healthy) == (False, (3, 6))
    assert set(picked(chosen, 30)) == {IDS[2], IDS[4], IDS[5]}


@pytest.mark.parametrize(
    ("suspects", "before", "in_panic"), [("never", "c", "c"), ("equal", "ac", "abc"), ("last", "bc", "bc")]
)
def test_a_suspect_that_fails_is_picked_as_suspects_are(suspects: Any, before: str, in_panic: str) -> None:
    chosen = picker("abc", "round-robin", suspects=suspects)
    update(chosen, "a", suspect=True)
    update(chosen, "b", status="failing", suspect=suspects != "last")
    assert set(picked(chosen, 9)) == set(before)
    fail(chosen, "c")
    assert chosen.in_panic
    assert set(picked(chosen, 9)) == set(in_panic)


def test_an_instance_whose_health_comes_back_begins_anew() -> None:
    chosen = picker("abc", "round-robin", ejection=Ejection(failures=1, remaining=0))
    fail(chosen, "abc")
    failed = chosen.pick(None, 0.0)
    chosen.report(failed, False, 0.0, 0.0)
    assert list(chosen.aside) == [failed.id]
    update(chosen, failed.id)
    assert chosen.aside == {}


def test_one_that_is_confirmed_begins_anew() -> None:
    chosen = picker("ab", "round-robin", ejection=Ejection(failures=1))
    lose(chosen, "ab")
    failed = chosen.pick(None, 0.0)
    chosen.report(failed, False, 0.0, 0.0)
    assert list(chosen.aside) == [failed.id]
    update(chosen, failed.id)
    assert chosen.aside == {}
    assert set(picked(chosen, 4)) == {failed.id}


# ---------------------------------------------------------------- another one

ZONES = {"near": {"zone": "a", "weight": 99}, "far": {"zone": "b", "weight": 1}, "farther": {"zone": "b", "weight": 1}}


@pytest.mark.parametrize("key", ["room-1", "room-2", "room-3"])
@pytest.mark.parametrize(
    "strategy",
    [
        RoundRobin(),
        Random(),
        LeastOutstanding(),
        Weighted("weight"),
        Ring(),
        Ring("weight"),
        Sticky(RoundRobin()),
        OwnZone("a", RoundRobin()),
        OwnZone("a", Ring()),
        OwnZone("a", Weighted("weight")),
        Sticky(OwnZone("a", LeastOutstanding())),
    ],
    ids=repr,
)
def test_whoever_was_not_tried_is_found_at_once(strategy: Any, key: str) -> None:
    """In whatever zone, with whatever weight, suspect or not: once each, and then there is nobody."""
    chosen = picker({**ZONES, "doubted": {"zone": "a", "weight": 5}}, strategy)
    update(chosen, "doubted", {"zone": "a", "weight": 5}, suspect=True)
    tried: list[str] = []
    for _ in range(4):
        tried.append(chosen.pick(key if strategy.keyed else None, 0.0, frozenset(tried)).id)
    assert sorted(tried) == ["doubted", "far", "farther", "near"]
    assert tried[-1] == "doubted"
    with pytest.raises(NoInstances, match="can be picked: all 4 are excluded") as caught:
        chosen.pick(key if strategy.keyed else None, 0.0, frozenset(tried))
    assert (caught.value.reason, caught.value.returns_in) == ("excluded", None)


def test_whoever_is_set_aside_is_not_another() -> None:
    chosen = picker("abc", "round-robin", ejection=Ejection(failures=1, remaining=0, jitter=0))
    chosen.report(members_of(chosen)["a"], False, 0.0, 0.0)
    with pytest.raises(NoInstances) as caught:
        chosen.pick(None, 1.0, frozenset("bc"))
    assert caught.value.counts == {"set aside": 1, "excluded": 2}
    assert caught.value.returns_in == 4.0


@pytest.mark.parametrize(
    "strategy",
    [RoundRobin(), LeastOutstanding(), Weighted(lambda _: 1.0), Ring(), Sticky(RoundRobin())],
    ids=lambda strategy: type(strategy).__name__,
)
@pytest.mark.parametrize("good", [True, False])
def test_one_retry_that_has_nobody_else_shares_the_probe(strategy: Any, good: bool) -> None:
    """Of two, one is probed and the other fails: one of its retries goes where the probe is, and counts as it does."""
    chosen = picker("ab", strategy, ejection=Ejection(failures=1, jitter=0))
    key = "room" if strategy.keyed else None
    for id in ("a", "b"):  # the last that is left stays
        chosen.report(members_of(chosen)[id], False, 0.0, 0.0)
    probed = chosen.pick(key, 6.0, frozenset("b"))
    assert probed.id == "a"
    assert chosen.out == {"a"}
    assert {chosen.pick(key, 6.0).id for _ in range(5)} == {"b"}  # a first attempt does not
    assert chosen.pick(key, 6.0, frozenset("b")) is probed
    for _ in range(100):
        with pytest.raises(NoInstances):
            chosen.pick(key, 6.0, frozenset("b"))  # two calls are enough to find out
    with pytest.raises(NoInstances):
        chosen.pick(key, 6.0, frozenset("ab"))
    chosen.dismiss(probed, 6.0)  # another pair of calls may probe it
    assert [chosen.pick(key, 6.0, frozenset("b")) for _ in range(2)] == [probed] * 2
    chosen.report(probed, good, 6.0, 7.0)
    assert chosen.out == (set() if good else {"a"})
    if not good:
        with pytest.raises(NoInstances) as caught:
            chosen.pick(key, 7.0, frozenset("b"))  # set aside again: not for retries either
        assert caught.value.returns_in == 10.0


# ---------------------------------------------------------------- nothing to pick


def nothing(chosen: Picker[Any], now: float = 0.0) -> NoInstances:
    with pytest.raises(NoInstances) as caught:
        chosen.pick(None, now)
    return caught.value


def test_nothing_says_why() -> None:
    chosen = picker([], "round-robin", where={"zone": "eu"}, ejection=Ejection(failures=1, remaining=0, jitter=0))
    error = nothing(chosen)
    assert (error.reason, error.counts, error.returns_in) == ("empty", {}, None)
    assert str(error) == "no instance of 'chat' can be picked: the service is empty"

    add(chosen, "a", {"zone": "eu"}, enabled=False)
    assert str(nothing(chosen)) == "no instance of 'chat' can be picked: the only one is disabled"
    add(chosen, "b", {"zone": "eu"}, enabled=False)
    assert nothing(chosen).reason == "disabled"
    assert str(nothing(chosen)).endswith("all 2 are disabled")

    add(chosen, "c", {"zone": "us"})
    error = nothing(chosen)
    assert (error.reason, error.counts) == ("mixed", {"disabled": 2, "filtered out": 1})
    assert str(error).endswith("of 3 instances 2 are disabled, 1 are filtered out")

    for id in "abc":
        remove(chosen, id)
    add(chosen, "d", {"zone": "eu"})
    assert chosen.report(chosen.pick(None, 1.0), False, 1.0, 1.0) == 5.0
    error = nothing(chosen, 2.0)
    assert (error.reason, error.counts, error.returns_in) == ("set aside", {"set aside": 1}, 4.0)
    assert str(error).endswith("the only one is set aside, the first for 4.0 s")
    assert chosen.pick(None, 6.0).id == "d"


def test_nothing_but_the_refused_says_what_is_wrong() -> None:
    chosen = picker({"a": {"weight": 1}, "b": {"weight": -1}}, Weighted("weight"))
    remove(chosen, "a")
    error = nothing(chosen)
    assert error.reason == "refused"
    assert isinstance(error.__cause__, InvalidArgument)
    assert (error.__cause__.field, error.__cause__.value) == ("weight", -1)


# ---------------------------------------------------------------- changes


def test_a_resync_brings_the_differences() -> None:
    chosen = picker("abc", "round-robin")
    changes = (Removed(entry("a"), 2), Added(entry("d"), 2), Updated(entry("b", enabled=False), entry("b"), 2))
    chosen.apply(Resynced(changes, snapshot("bcd")), 0.0)
    assert set(picked(chosen, 10)) == {"c", "d"}


def test_a_pick_shows_the_instance_as_it_is_now() -> None:
    chosen = picker("a", "round-robin")
    update(chosen, "a", {"load": 3})
    assert chosen.pick(None, 0.0).instance.payload == {"load": 3}


def test_a_report_about_one_that_was_replaced_does_not_touch_its_successor() -> None:
    chosen = picker("ab", "round-robin", ejection=Ejection(failures=1))
    before = chosen.pick(None, 0.0)
    remove(chosen, before.id)
    add(chosen, before.id)
    assert chosen.report(before, False, 0.0, 0.0) is None
    assert chosen.aside == {}


def test_the_repr_tells_the_state() -> None:
    chosen = picker("abc", "round-robin", ejection=Ejection(failures=1))
    chosen.report(chosen.pick(None, 0.0), False, 0.0, 0.0)
    add(chosen, "d", enabled=False)
    assert repr(chosen) == "<Picker chat RoundRobin(): 3 admitted, 1 set aside, 1 disabled>"


# ---------------------------------------------------------------- everything at once, against a naive reference

payloads = st.fixed_dictionaries(
    {
        "weight": st.sampled_from([0, 1, 2.5, 7, -1, "x", None]),
        "zone": st.sampled_from(["ours", "theirs", None]),
        "tier": st.sampled_from(["gold", "tin"]),
    }
)
STRATEGIES_TO_TRY: list[Strategy[Any]] = [
    RoundRobin(),
    Random(),
    LeastOutstanding(),
    Weighted("weight"),
    Ring(),
    Ring("weight"),
    Sticky(Weighted("weight")),
    OwnZone("ours", RoundRobin(), at_least=2),
    OwnZone("ours", Ring("weight")),
    Sticky(OwnZone("ours", LeastOutstanding(), healthy=1.0)),
    WarmUp(RoundRobin(), seconds=10),
    WarmUp(OwnZone("ours", Ring()), seconds=10),
    Sticky(WarmUp(Weighted("weight"), seconds=10)),
]
RULE = Ejection(failures=2, pause=4, longest=16, jitter=0, remaining=0.4)


class Failures:
    """The state of one instance that failed."""

    def __init__(self) -> None:
        self.number = self.pauses = 0
        self.pause = 0.0
        self.ended = -math.inf
        self.until: float | None = None  # while it may not be picked
        self.probed = self.shared = self.on_probation = False


class Apart:
    """Which instances are set aside, or probed, by the rule as the docs tell it; slow and plain.

    Args:
        threshold: failures in a row.
    """

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self.of: dict[str, Failures] = {}

    @property
    def out(self) -> dict[str, Failures]:
        return {id: each for id, each in self.of.items() if each.until is not None}

    @property
    def shareable(self) -> set[str]:
        return {id for id, each in self.out.items() if each.probed and not each.shared}

    def spared(self, total: int) -> int:
        return total - math.ceil(0.4 * total)

    def pass_time(self, now: float, total: int) -> None:
        while self.out:
            until, id = min((each.until or 0.0, id) for id, each in self.out.items())
            if until > now and len(self.out) <= self.spared(total):
                return
            each = self.of[id]
            if not each.probed:
                each.ended, each.number, each.on_probation = min(until, now), self.threshold - 1, True
            each.until, each.probed, each.shared = None, False, False

    def picked(self, id: str, now: float, total: int) -> None:
        each = self.of.get(id)
        if each and each.on_probation and each.until is None and len(self.out) < self.spared(total):
            each.until, each.probed = now + each.pause, True

    def is_late(self, id: str, since: float) -> bool:
        each = self.of[id]
        return (each.until is not None and not each.probed) or since < each.ended

    def succeeded(self, id: str, since: float) -> None:
        if id in self.of and not self.is_late(id, since):
            del self.of[id]

    def said_nothing(self, id: str, since: float) -> None:
        if id in self.of and not self.is_late(id, since):
            self.of[id].until, self.of[id].probed, self.of[id].shared = None, False, False

    def failed(self, id: str, since: float, now: float, total: int) -> None:
        each = self.of.setdefault(id, Failures())
        if self.is_late(id, since):
            return
        each.number += 1
        if each.number >= self.threshold and (id in self.out or len(self.out) < self.spared(total)):
            each.pause = min(16.0, 4.0 * 2**each.pauses)
            each.pauses += 1
            each.ended = each.until = now + each.pause
            each.probed = each.shared = each.on_probation = False


class Picking(RuleBasedStateMachine):
    """The reference knows the entries, judges each anew for every question, and checks what the picker does."""

    @initialize(strategy=st.sampled_from(STRATEGIES_TO_TRY), seed=st.integers(0, 99))
    def start(self, strategy: Any, seed: int) -> None:
        self.now = 0.0
        self.entries: dict[str, Entry[Any]] = {}
        self.arrivals: dict[str, float] = {}
        self.panic = self.reported = False
        self.outstanding: list[tuple[Member[Any], float, int]] = []
        self.apart = {"well": Apart(2), "suspect": Apart(1), "failing": Apart(2)}
        self.lives: Counter[str] = Counter()  # how often each was not admitted: a later one is another
        self.weighs = "weight" in repr(strategy)
        self.strategy = strategy
        self.picker = Picker(
            snapshot([]),
            strategy,
            where={"tier": "gold"},
            ejection=RULE,
            arrivals=self.arrivals,
            draw=random.Random(seed).random,
        )

    @rule(
        id=st.sampled_from(IDS),
        payload=payloads,
        status=st.sampled_from([None, None, None, "failing", "draining"]),
        suspect=st.booleans(),
        weight=st.sampled_from([1.0, 0.3, 0.0]),
    )
    def put(self, id: str, payload: Any, status: InstanceStatus | None, suspect: bool, weight: float) -> None:
        after = entry(id, payload, status=status, suspect=suspect, weight=weight)
        before = self.entries.get(id)
        if before is None:
            self.arrivals[id] = self.now
        self.entries[id] = after
        self.picker.apply(Added(after, 1) if before is None else Updated(after, before, 1), self.now)
        if not self.is_admitted(after):
            self.lives[id] += 1
        if not self.is_admitted(after) or (before and self.standing(before) != self.standing(after)):
            self.forget(id)
        self.changed()

    @rule(id=st.sampled_from(IDS))
    def remove(self, id: str) -> None:
        if id in self.entries:
            self.picker.apply(Removed(self.entries.pop(id), 1), self.now)
            self.lives[id] += 1
            self.forget(id)
            self.changed()

    def forget(self, id: str) -> None:
        for apart in self.apart.values():
            apart.of.pop(id, None)

    def changed(self) -> None:
        self.look_for_panic()
        self.pass_time()

    def pass_time(self) -> None:
        for kind, apart in self.apart.items():
            apart.pass_time(self.now, self.number(kind))

    def number(self, kind: str) -> int:
        return sum(each == kind for each in self.admitted().values())

    def out(self) -> set[str]:
        return {id for apart in self.apart.values() for id in apart.out}

    def chose(self, member: Member[Any]) -> None:
        kind = self.admitted()[member.id]
        self.apart[kind].picked(member.id, self.now, self.number(kind))
        self.outstanding.append((member, self.now, self.lives[member.id]))

    def apart_of(self, member: Member[Any], life: int) -> Apart | None:
        admitted = self.admitted()
        if member.id not in admitted or self.lives[member.id] != life:
            return None
        return self.apart[admitted[member.id]]

    def standing(self, each: Entry[Any]) -> tuple[bool, bool]:
        return each.suspicion is not None, not each.instance.enabled

    def look_for_panic(self) -> None:
        known = {id: self.standing(each) for id, each in self.entries.items() if self.might_be(each)}
        failing = [id for id, (_, fails) in known.items() if fails]
        before = self.panic
        well = sum(standing == (False, False) for standing in known.values())
        few = well < 0.5 * len(known)  # of seven, there is no sixteenth
        weights = {id: self.weight(self.entries[id]) for id in known}
        weighed = sum(weights.values())
        light = sum(weights[id] for id in known if known[id] == (False, False)) < (
            weighed / 2 if before else weighed * 7 / 16
        )
        self.panic = (self.reported or bool(failing)) and (few or light)
        if before and not self.panic:
            for id in failing:
                self.lives[id] += 1
                self.forget(id)

    def weight(self, each: Entry[Any]) -> Fraction:
        return Fraction((each.instance.payload["weight"] if self.weighs else 1) * each.weight)

    def comes_last(self, kind: str) -> bool:
        return kind == "suspect" and not (self.panic and self.reported)

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(good=st.booleans(), which=st.integers(0, 5))
    def report(self, good: bool, which: int) -> None:
        if self.outstanding:
            member, since, life = self.outstanding.pop(which % len(self.outstanding))
            self.picker.report(member, good, since, self.now)
            self.reported = True
            self.look_for_panic()
            apart = self.apart_of(member, life)
            if apart is not None:
                self.pass_time()
                if good:
                    apart.succeeded(member.id, since)
                else:
                    apart.failed(member.id, since, self.now, self.number(self.admitted()[member.id]))

    @rule(key=st.text(max_size=3), times=st.integers(1, 4))
    def pick(self, key: str, times: int) -> None:
        given = key if self.strategy.keyed else None
        for _ in range(times):
            best = self.best()
            if not best:
                with pytest.raises(NoInstances) as caught:
                    self.picker.pick(given, self.now)
                assert sum(caught.value.counts.values()) == len(self.entries)
                return
            member = self.picker.pick(given, self.now)
            assert member.id in best
            assert member.instance is self.entries[member.id].instance
            self.chose(member)
            if self.strategy.keyed and not self.is_probed(member):
                assert self.picker.pick(given, self.now) is member

    @rule(key=st.text(max_size=3), tried=st.frozensets(st.sampled_from([*IDS, "nobody"])))
    def pick_another(self, key: str, tried: frozenset[str]) -> None:
        """An instance that is not excluded is found, in any zone or rank, and as fast: exclusion leaves no trace."""
        given = key if self.strategy.keyed else None
        left = {id: rank for id, rank in self.in_turn().items() if id not in tried}
        shares = bool(tried) and not left
        admitted = self.admitted()
        if shares:  # what one other call probes
            probed = {id for apart in self.apart.values() for id in apart.shareable} - tried
            left = {id: self.comes_last(admitted[id]) for id in probed}
        if not left:
            with pytest.raises(NoInstances) as caught:
                self.picker.pick(given, self.now, tried)
            assert sum(caught.value.counts.values()) == len(self.entries)
            return
        member = self.picker.pick(given, self.now, tried)
        assert left[member.id] == min(left.values())
        self.chose(member)
        if shares:
            self.apart[admitted[member.id]].of[member.id].shared = True
        if self.strategy.keyed and not self.is_probed(member):
            assert self.picker.pick(given, self.now, tried) is member

    @rule(which=st.integers(0, 5))
    def say_nothing(self, which: int) -> None:
        if self.outstanding:
            member, since, life = self.outstanding.pop(which % len(self.outstanding))
            self.picker.dismiss(member, since)
            apart = self.apart_of(member, life)
            if apart is not None:
                apart.said_nothing(member.id, since)

    def is_probed(self, member: Member[Any]) -> bool:
        return member.id in self.out()

    def in_turn(self) -> dict[str, bool]:
        """Whether they come last, those that may be picked now."""
        self.pass_time()
        out = self.out()
        return {id: self.comes_last(kind) for id, kind in self.admitted().items() if id not in out}

    def admitted(self) -> dict[str, str]:
        """The state of those that may be picked at all."""
        return {id: self.kind(each) for id, each in self.entries.items() if self.is_admitted(each)}

    def kind(self, each: Entry[Any]) -> str:
        suspect, failing = self.standing(each)
        return "suspect" if suspect else "failing" if failing else "well"

    def is_admitted(self, each: Entry[Any]) -> bool:
        return self.might_be(each) and (each.instance.enabled or self.panic)

    def might_be(self, each: Entry[Any]) -> bool:
        """Whether it may be picked in a panic, at least."""
        payload = each.instance.payload
        if each.instance.status == "draining" or payload["tier"] != "gold" or not each.weight:
            return False
        return not self.weighs or (isinstance(payload["weight"], int | float) and payload["weight"] > 0)

    def best(self) -> set[str]:
        left = self.in_turn()
        return {id for id, last in left.items() if last == min(left.values())}

    @invariant()
    def never_fewer_than_the_floor(self) -> None:
        admitted = self.admitted()
        assert self.picker.out == self.out() <= admitted.keys()
        assert self.picker.aside == {
            id: each.until for apart in self.apart.values() for id, each in apart.out.items() if not each.probed
        }
        for kind in self.apart:
            those = {id for id, each in admitted.items() if each == kind}
            assert len(those - self.picker.out) >= math.ceil(RULE.remaining * len(those))
        assert self.picker.in_panic is self.panic
        assert self.picker._census.total == len(admitted)
        assert sum(map(len, self.picker._pools.values())) == len(admitted) - len(self.picker.out)


def test_whatever_happens_only_who_may_be_is_picked() -> None:
    run_state_machine_as_test(Picking, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))


# ---------------------------------------------------------------- floors, shares, bounds

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["pick", "succeed", "fail", "abandon", "disable", "return", "suspect", "confirm", "clock"]),
        st.integers(0, 6),
    ),
    max_size=60,
)


STANDINGS: dict[str, Callable[[bool, bool], tuple[bool, bool]]] = {
    "disable": lambda enabled, suspect: (False, suspect),
    "return": lambda enabled, suspect: (True, suspect),
    "suspect": lambda enabled, suspect: (enabled, True),
    "confirm": lambda enabled, suspect: (enabled, False),
}
"""Whether an instance is enabled, and whether it is suspect, after what happens to it."""


def end(chosen: Picker[Any], member: Member[Any], since: float, how: str, now: float) -> None:
    member.load.calls -= 1
    if how == "abandon":
        chosen.dismiss(member, since)
    else:
        chosen.report(member, how == "succeed", since, now)


@given(
    events=EVENTS, strategy=st.sampled_from(["round-robin", "random", "least-outstanding"]), percent=st.integers(0, 9)
)
@example(events=[("pick", 0), ("fail", 0), ("clock", 0), ("clock", 0)], strategy="round-robin", percent=0)
def test_floors_shares_and_bounds_hold_whatever_happens(
    events: list[tuple[str, int]], strategy: str, percent: int
) -> None:
    remaining = percent / 9
    chosen = picker(IDS, strategy, ejection=Ejection(failures=1, remaining=remaining, pause=5, jitter=0))
    state = dict.fromkeys(IDS, (True, False))  # whether it is enabled, whether it is suspect
    calls: list[tuple[Member[Any], float]] = []
    admitted, now = set(IDS), 0.0
    for event, number in events:
        id = IDS[number]
        now += 3.0 if event == "clock" else 0.01
        if event == "pick":
            with contextlib.suppress(NoInstances):
                member = chosen.pick(None, now)
                member.load.calls += 1
                calls.append((member, now))
        elif event in {"succeed", "fail", "abandon"} and calls:
            end(chosen, *calls.pop(number % len(calls)), event, now)
        elif event in STANDINGS:
            state[id] = STANDINGS[event](*state[id])
            chosen.apply(Updated(entry(id, enabled=state[id][0], suspect=state[id][1]), entry(id), 2), now)
        admitted = {id for id, (enabled, _) in state.items() if enabled}
        for kind in (False, True):
            alike = {id for id in admitted if state[id][1] is kind}
            aside = chosen.out & alike
            assert len(alike) - len(aside) >= math.ceil(remaining * len(alike) - 1e-9)
        assert chosen.out <= admitted
        for outliers in chosen._outliers:
            assert len(outliers._due) <= 2 * len(outliers.out) + 16
            assert outliers.records.keys() <= admitted
        assert all(member.load.calls >= 0 for member in members_of(chosen).values())
    check_shares(chosen, strategy, now, {id for id in admitted if state[id][1]})
    for id in admitted:
        chosen.apply(Updated(entry(id, enabled=True), entry(id), 3), now)
    assert set(members_of(chosen)) == admitted
    check_shares(chosen, strategy, now, set())


def check_shares(chosen: Picker[Any], strategy: str, now: float, suspects: set[str]) -> None:
    """Instances that have their turn get an even share of the next calls, and the others get nothing."""
    with contextlib.suppress(NoInstances):
        chosen.pick(None, now)  # which returns those whose pause is over
    may = {id for id in members_of(chosen) if id not in chosen.out}
    confirmed = may - suspects
    turn = may if chosen.in_panic or not confirmed else confirmed
    if not turn or any(outliers.probation for outliers in chosen._outliers):  # those get one call each first
        return
    unanswered = {id for id in turn & suspects if not members_of(chosen)[id].answered}
    halved = unanswered if chosen.in_panic and members_of(chosen).keys() - suspects else set()
    counts = Counter(dict.fromkeys(turn, 0) | Counter(chosen.pick(None, now).id for _ in range(10 * len(turn))))
    assert counts.keys() == turn
    if strategy == "round-robin" and turn - halved:
        whole = [counts[id] for id in turn - halved]
        assert max(whole) - min(whole) <= 1
        assert all(counts[id] <= max(whole) for id in halved)


def test_who_is_set_aside_stays_so_when_its_weight_changes() -> None:
    payloads = {id: {"weight": 1} for id in "abcdef"}
    chosen = picker(payloads, Weighted("weight"), ejection=Ejection(failures=1, pause=5.0))
    member = next(each for each in (chosen.pick(None, 0.0) for _ in range(1000)) if each.id == "a")
    seconds = chosen.report(member, False, 0.0, 0.0)
    assert seconds is not None
    update(chosen, "a", {"weight": 2})
    assert "a" not in picked(chosen, 200)
    update(chosen, "b", {"weight": 3})
    assert "b" in picked(chosen, 200)
    assert "a" in [chosen.pick(None, seconds + 0.001).id for _ in range(200)]


def test_those_that_are_failing_are_not_confirmed_when_they_are_picked_too() -> None:
    chosen = picker({id: {"v": 1} for id in "ab"}, RoundRobin(), where={"v": 1})
    chosen.report(chosen.pick(None, 0.0), True, 0.0, 0.0)
    for id in "cde":
        add(chosen, id, {"v": 1}, enabled=False, status="failing")
    assert set(picked(chosen, 20)) == set("abcde")
    assert chosen.subsets()[0].confirmed() == 2


@pytest.mark.parametrize("strategy", [RoundRobin(), OwnZone("a", RoundRobin()), Weighted("weight")])
def test_one_that_goes_while_it_is_set_aside_is_forgotten_whole(strategy: Any) -> None:
    payloads = {"a": {"zone": "a", "weight": 1}, "b": {"zone": "a", "weight": 1}, "c": {"zone": "c", "weight": 1}}
    chosen = picker(payloads, strategy, ejection=Ejection(failures=2, pause=5.0, remaining=0.0))
    first = members_of(chosen)["a"]
    pauses = [chosen.report(first, False, 0.0, 0.0) for _ in range(2)]
    assert pauses[0] is None
    assert pauses[1] is not None
    remove(chosen, "a")
    assert (chosen.out, chosen.next_return()) == (frozenset(), None)
    assert "b" in [chosen.pick(None, pauses[1] + 1.0).id for _ in range(10)]
    add(chosen, "a", payloads["a"])
    assert chosen.report(members_of(chosen)["a"], False, 0.0, 0.0) is None
    assert {"a", "b"} <= set(picked(chosen, 10))


def test_a_suspect_that_is_set_aside_stays_so_when_a_panic_moves_it() -> None:
    chosen = picker("abcd", RoundRobin(), ejection=Ejection(failures=1, pause=5.0, remaining=0.0), panic=0.5)
    assert chosen.report(members_of(chosen)["d"], True, 0.0, 0.0) is None
    lose(chosen, "ab")
    assert chosen.report(members_of(chosen)["a"], False, 0.0, 0.0) is not None
    assert set(picked(chosen, 20)) == {"c", "d"}
    lose(chosen, "c")
    assert chosen.in_panic
    assert set(picked(chosen, 20)) == {"b", "c", "d"}
    for id in "bc":
        update(chosen, id)
    assert not chosen.in_panic
    assert set(picked(chosen, 20)) == {"b", "c", "d"}
    for id in "bcd":
        remove(chosen, id)
    with pytest.raises(NoInstances):
        chosen.pick(None, 0.0)


@pytest.mark.parametrize("around", [lambda leaf: leaf, WarmUp, lambda leaf: OwnZone("a", leaf)])
def test_an_operator_s_weight_counts_once_beside_suspects(around: Any) -> None:
    chosen = picker("abcde", around(Random()), panic=0.75)
    assert chosen.report(members_of(chosen)["a"], True, 0.0, 0.0) is None
    update(chosen, "b", weight=0.5)
    lose(chosen, "cde")
    assert chosen.in_panic
    check_proportions(Counter(picked(chosen, 8000)), {"a": 1.0, "b": 0.5} | dict.fromkeys("cde", 0.5))


def test_without_a_warm_up_no_instance_is_warming_up() -> None:
    chosen = picker("ab", RoundRobin())
    add(chosen, "c")
    assert chosen.warming_up(1.0) == {}
