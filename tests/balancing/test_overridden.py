"""Weights that operators give, whatever the strategy."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from aioregistry import Ejection, LeastOutstanding, NoInstances, OwnZone, Random, Ring, RoundRobin, Sticky, WarmUp
from aioregistry import Weighted as ByWeight
from aioregistry._model import Snapshot
from aioregistry.balancing import Picker
from tests.balancing.service import add, check_proportions, entry, members_of, picked, placed, update

LEAVES = [RoundRobin(), Random(), LeastOutstanding(), ByWeight(lambda _: 2.0), Ring()]
ZONES = {"a": "x", "b": "x", "c": "x", "d": "y", "e": "y"}


def overridden(strategy: Any, weights: dict[str, float], **options: Any) -> Picker[Any]:
    """Return a picker of some in two zones, of which operators have given some a weight."""
    entries = {id: entry(id, {"zone": zone}, weight=weights.get(id, 1.0)) for id, zone in ZONES.items()}
    return Picker(Snapshot("chat", entries, {}, as_of=1), strategy, draw=random.Random(7).random, **options)


def counts(chosen: Picker[Any], number: int = 20_000) -> Counter[Any]:
    keys = (f"key-{each}" if chosen.strategy.keyed else None for each in range(number))
    return Counter(chosen.pick(key, 0.0).id for key in keys)


def sticky_zone(leaf: Any) -> Any:
    return Sticky(OwnZone("elsewhere", leaf))


AROUND: list[Callable[[Any], Any]] = [
    lambda leaf: leaf,
    WarmUp,
    lambda leaf: WarmUp(Sticky(leaf)),
    Sticky,
    sticky_zone,
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("leaf", LEAVES[:-1])
def test_every_strategy_obeys_a_weight(leaf: Any, around: Any) -> None:
    chosen = overridden(around(leaf), {"a": 0.2, "b": 0.5})
    check_proportions(counts(chosen), {"a": 0.2, "b": 0.5, "c": 1.0, "d": 1.0, "e": 1.0})


def test_keys_leave_and_every_process_agrees() -> None:
    keys = [f"key-{number}" for number in range(3000)]
    before = placed(overridden(Ring(), {}), keys)
    after = placed(overridden(Ring(), {"a": 0.2}), keys)
    assert after == placed(overridden(WarmUp(Ring()), {"a": 0.2}), keys)
    assert {key for key in keys if after[key] != before[key]} <= {key for key in keys if before[key] == "a"}
    assert Counter(after.values())["a"] == pytest.approx(0.2 * Counter(before.values())["a"], rel=0.3)


def test_a_weight_of_0_is_never_picked_and_may_be_all_there_is() -> None:
    chosen = overridden("random", {"a": 0.0})
    assert set(picked(chosen, 200)) == set("bcde")
    with pytest.raises(NoInstances) as raised:
        overridden("random", dict.fromkeys(ZONES, 0.0)).pick(None, 0.0)
    assert raised.value.counts == {"of weight 0": 5}


def test_where_all_weigh_the_same_all_are_picked_alike() -> None:
    for strategy in LEAVES[:-1]:
        chosen = overridden(strategy, dict.fromkeys(ZONES, 0.1))
        check_proportions(counts(chosen), dict.fromkeys(ZONES, 1.0))
    lonely = Picker(Snapshot("chat", {"a": entry("a", weight=0.1)}, {}, as_of=1), Ring(), draw=random.random)
    assert lonely.pick("key", 0.0).id == "a"


def test_a_weight_comes_changes_and_goes() -> None:
    chosen = overridden("random", {})
    for weight in (0.5, 0.1, 0.0, 1.0):
        update(chosen, "a", {"zone": "x"}, weight=weight)
        check_proportions(counts(chosen), {"a": weight} | dict.fromkeys("bcde", 1.0))
    assert not chosen._census.reduced


def test_a_zone_carries_what_its_weights_add_up_to() -> None:
    chosen = overridden(OwnZone("x", RoundRobin(), healthy=1.0), {"a": 0.5, "b": 0.1})
    carried = 1.6 / 3
    local = {"a": 0.5 / 1.6, "b": 0.1 / 1.6, "c": 1 / 1.6}
    weights = {id: carried * share for id, share in local.items()} | dict.fromkeys("de", (1 - carried) / 2)
    check_proportions(counts(chosen), weights)


def test_the_only_one_of_a_zone_gets_its_part() -> None:
    chosen = overridden(OwnZone("z", Random()), {})
    add(chosen, "alone", {"zone": "z"}, weight=0.2)
    check_proportions(counts(chosen), {"alone": 0.2} | dict.fromkeys(ZONES, 0.16))


def test_what_sticks_stays() -> None:
    chosen = overridden(Sticky(RoundRobin()), {})
    keys = [str(number) for number in range(100)]
    before = placed(chosen, keys)
    update(chosen, "a", {"zone": "x"}, weight=0.1)
    assert placed(chosen, keys) == before


def test_with_ejection_those_set_aside_stay_so_and_a_retry_finds_what_is_left() -> None:
    chosen = overridden("random", {"a": 0.1}, ejection=Ejection(failures=1, jitter=0.0))
    assert chosen.report(members_of(chosen)["b"], False, 0.0, 0.0) == 5.0
    assert set(picked(chosen, 300)) == set("acde")
    assert chosen.pick(None, 0.0, frozenset("cde")).id == "a"
