"""Keys that stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._errors import InvalidArgument
from aioregistry._model import Suspicion, Updated
from aioregistry.balancing import Ejection, OwnZone, RoundRobin, Sticky, Strategy, WarmUp
from tests.balancing.service import add, entry, only_pool, picker, placed, remove, update

KEYS = "pqrstuvw"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "pick"]), st.sampled_from("abcde"), st.sampled_from(KEYS))))
def test_a_key_moves_only_from_who_is_gone(steps: list[tuple[str, str, str]]) -> None:
    chosen = picker("z", Sticky(RoundRobin()))
    present, last = {"z"}, dict[str, str]()
    for step, id, key in steps:
        if step == "add":
            add(chosen, id)
            present.add(id)
        elif step == "remove":
            remove(chosen, id)
            present.discard(id)
        else:
            now = chosen.pick(key, 0.0).id
            assert now in present
            assert last.get(key) not in present or now == last[key]
            last[key] = now


def test_new_keys_go_where_the_other_strategy_says() -> None:
    chosen = picker("abcd", Sticky(RoundRobin()))
    first = placed(chosen, KEYS)
    assert sorted(first.values()) == sorted("abcd" * 2)
    assert placed(chosen, reversed(KEYS)) == dict(reversed(first.items()))
    assert chosen.pick("p", 0.0) is chosen.pick(b"p", 0.0)


def test_a_key_stays_in_a_zone_that_has_recovered() -> None:
    payloads = {"a": {"zone": "ours"}, "b": {"zone": "theirs"}}
    chosen = picker(
        payloads, Sticky(OwnZone("ours", RoundRobin())), ejection=Ejection(failures=1, remaining=0, jitter=0)
    )
    assert chosen.pick("k", 0.0).id == "a"
    assert chosen.report(chosen.pick("k", 0.0), False, 0.0, 0.0) == 5.0
    assert chosen.pick("k", 1.0).id == "b"
    assert chosen.pick("k", 6.0).id == "b"
    assert chosen.pick("new", 6.0).id == "a"


@pytest.mark.parametrize(
    "strategy",
    [
        Sticky(RoundRobin()),
        OwnZone("ours", Sticky(RoundRobin()), at_least=12),  # keys spill over
        Sticky(OwnZone("ours", Sticky(RoundRobin()))),
        WarmUp(Sticky(RoundRobin())),
    ],
)
def test_a_key_stays_when_everybody_is_suspect(strategy: Strategy[Any]) -> None:
    """An outage of the registry is none of the servers': nobody loses his session."""
    payloads = {id: {"zone": "ours" if id < "d" else "theirs"} for id in "abcdef"}
    chosen = picker(payloads, strategy)
    first = placed(chosen, KEYS)
    assert len(set(first.values())) > 1
    for id, payload in payloads.items():
        doubted = entry(id, payload).with_suspicion(Suspicion("disruption", 0.0, 30.0))
        chosen.apply(Updated(doubted, entry(id, payload), 2), 0.0)
    assert placed(chosen, reversed(KEYS)) == first
    for id, payload in payloads.items():
        update(chosen, id, payload)
    assert placed(chosen, KEYS) == first


def test_one_that_drains_gives_its_keys_away() -> None:
    chosen = picker("ab", Sticky(RoundRobin()))
    id = chosen.pick("k", 0.0).id
    update(chosen, id, enabled=False)
    assert chosen.pick("k", 0.0).id != id


def test_what_is_remembered_is_bounded() -> None:
    chosen = picker("ab", Sticky(RoundRobin(), keys=2))
    first = chosen.pick("p", 0.0).id
    chosen.pick("q", 0.0)
    assert chosen.pick("p", 0.0).id == first  # asked for again: q goes first
    chosen.pick("r", 0.0)
    pool = only_pool(chosen)
    assert list(pool._remembered) == [b"p", b"r"]


def test_long_keys_are_remembered_by_a_digest() -> None:
    chosen = picker([f"n{number}" for number in range(50)], Sticky(RoundRobin()))
    keys = ["x" * length + end for length in (0, 31, 32, 33, 5000) for end in "ab"]
    first = placed(chosen, keys)
    assert len(set(first.values())) == len(keys)
    assert placed(chosen, keys) == first
    pool = only_pool(chosen)
    remembered: dict[bytes, str] = pool._remembered
    assert max(map(len, remembered)) <= 33
    assert len(remembered) == len(keys)


def test_a_key_whose_instance_is_excluded_stays_with_the_next() -> None:
    chosen = picker("abcd", Sticky(RoundRobin()))
    first = chosen.pick("k", 0.0).id
    second = chosen.pick("k", 0.0, frozenset({first})).id
    assert second != first
    assert {chosen.pick("k", 0.0).id for _ in range(9)} == {second}


@pytest.mark.parametrize(
    ("field", "arguments", "options"),
    [
        ("strategy", (None,), {}),
        ("strategy", (RoundRobin,), {}),
        ("keys", (RoundRobin(),), {"keys": 0}),
        ("keys", (RoundRobin(),), {"keys": True}),
    ],
)
def test_bad_arguments_are_named(field: str, arguments: Any, options: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Sticky(*arguments, **options)
    assert caught.value.field == field
