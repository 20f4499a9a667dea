"""Consistent hashing: balance, minimal movement, agreement."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._errors import InvalidArgument
from aioregistry.balancing import Member, Picker, Ring
from aioregistry.balancing._keys import points, probes, share
from aioregistry.balancing._members import Census, Load, Traits
from aioregistry.balancing._rings import _Circle
from aioregistry.balancing._strategies import Pool
from tests.balancing.service import add, instance, members_of, only_pool, picker, placed, remove, update

KEYS = [f"room-{number}" for number in range(200)]
ids = st.text(min_size=1, max_size=6)
weights = st.sampled_from([0.3, 1.0, 1.0, 1.7, 2.0, 40.0, 1e-6, 1e6])
services = st.dictionaries(ids, weights, min_size=1, max_size=12)
thorough = settings(deadline=None, max_examples=60)


def members(service: dict[str, float]) -> dict[str, Member[Any]]:
    """Ids as they may come, which an instance's may not."""
    made = {id: Member(instance("n"), Traits(weight), Load()) for id, weight in service.items()}
    for id, member in made.items():
        member.id = id
    return made


def at(pool: Pool[Any], key: str, exclude: frozenset[str] = frozenset()) -> str:
    member = pool.choose(key.encode(), exclude)
    assert member is not None
    return member.id


def owners(service: dict[str, float]) -> dict[str, str]:
    pool = Ring().pool(random.random, Census())
    for member in members(service).values():
        pool.add(member)
    return {key: at(pool, key) for key in KEYS}


def nearest(service: dict[str, float], key: str) -> str:
    """The definition, without any structure."""

    def distance(id: str) -> tuple[float, str]:
        return min((place - start) % 1.0 for start in probes(key.encode()) for place in points(id)) / service[id], id

    return min(service, key=distance)


@thorough
@given(services)
def test_a_key_goes_to_the_nearest(service: dict[str, float]) -> None:
    found = owners(service)
    for key in KEYS[:20]:
        assert found[key] == nearest(service, key)


@thorough
@given(services, st.frozensets(st.integers(0, 11), max_size=3))
def test_a_key_whose_instance_is_excluded_goes_where_it_would_if_that_were_gone(
    service: dict[str, float], tried: frozenset[int]
) -> None:
    pool = Ring().pool(random.random, Census())
    for member in members(service).values():
        pool.add(member)
    excluded = frozenset(id for number, id in enumerate(service) if number in tried)
    left = {id: weight for id, weight in service.items() if id not in excluded}
    for key in KEYS[:20]:
        if left:
            assert at(pool, key, excluded) == nearest(left, key)
        else:
            assert pool.choose(key.encode(), excluded) is None


@thorough
@given(services, ids, weights)
def test_only_keys_of_who_comes_or_goes_move(service: dict[str, float], id: str, weight: float) -> None:
    without = {each: its for each, its in service.items() if each != id} or {f"not {id}": 1.0}
    before, after = owners(without), owners({**without, id: weight})
    assert {after[key] for key in KEYS if after[key] != before[key]} <= {id}


@thorough
@given(services, st.data())
def test_a_weight_that_grows_only_attracts(service: dict[str, float], data: st.DataObject) -> None:
    id = data.draw(st.sampled_from(sorted(service)))
    before, after = owners(service), owners({**service, id: service[id] * 3})
    assert {after[key] for key in KEYS if after[key] != before[key]} <= {id}


@thorough
@given(services, st.randoms(use_true_random=False))
def test_it_depends_on_who_is_there_and_on_nothing_else(service: dict[str, float], order: random.Random) -> None:
    pool = Ring().pool(random.random, Census())
    passing = members({**{f"passing-{number}": 2.0 ** (number % 3) for number in range(40)}, **service})
    coming = [*passing.values()]
    order.shuffle(coming)
    for member in coming:
        pool.add(member)
    leaving = [member for id, member in passing.items() if id not in service]
    order.shuffle(leaving)
    for member in leaving:
        pool.discard(member)
    assert len(pool) == len(service)
    assert {key: at(pool, key) for key in KEYS} == owners(service)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_only_proportions_of_weights_count(scale: float) -> None:
    service = {f"n{number}": 1.0 + number % 5 for number in range(20)}
    assert owners({id: scale * weight for id, weight in service.items()}) == owners(service)


def test_arcs_follow_the_number_of_places() -> None:
    """A look-up takes constant time because an arc holds eight on average at most, and a quarter of that at least."""
    chosen = picker([], Ring())
    for number in range(500):
        add(chosen, f"n{number}")
        assert_arcs_are_filled(chosen)
    for number in range(499):
        remove(chosen, f"n{number}")
        assert_arcs_are_filled(chosen)


def assert_arcs_are_filled(chosen: Picker[Any]) -> None:
    pool = only_pool(chosen)
    [circle] = pool._circles.values()
    held = [len(places) for places, _ in circle._arcs]
    assert sum(held) == circle.number == 16 * len(members_of(chosen))
    assert circle.number <= 8 * len(held)
    assert len(held) == 1 or circle.number >= 2 * len(held)


def test_shares_are_even() -> None:
    """The most that one of 100 instances gets is little above its share: 8/7 of it, and what chance adds."""
    service = dict.fromkeys((f"10.0.0.{number}:7000" for number in range(100)), 1.0)
    pool = Ring().pool(random.random, Census())
    for member in members(service).values():
        pool.add(member)
    shares = Counter(at(pool, str(number)) for number in range(50_000))
    assert max(shares.values()) < 1.3 * 500
    assert min(shares.values()) > 0.7 * 500


def test_shares_follow_weights() -> None:
    chosen = picker({f"n{number}": {"weight": 1 + number % 4} for number in range(100)}, Ring("weight"))
    shares: Counter[int] = Counter()
    for number in range(20_000):
        shares[chosen.pick(str(number), 0.0).instance.payload["weight"]] += 1
    for weight, found in shares.items():
        assert found / 20_000 == pytest.approx(weight / 10, rel=0.1)


def test_one_of_n_moves_one_nth() -> None:
    keys = [str(number) for number in range(5000)]
    chosen = picker([f"n{number}" for number in range(20)], Ring())
    before = placed(chosen, keys)
    remove(chosen, "n7")
    after = placed(chosen, keys)
    moved = [key for key in keys if before[key] != after[key]]
    assert {before[key] for key in moved} == {"n7"}
    assert len(moved) / len(keys) == pytest.approx(1 / 20, rel=0.3)
    assert len({after[key] for key in moved}) > 12  # spread over the others, not poured on a neighbour
    add(chosen, "n7")
    assert placed(chosen, keys) == before


def test_a_weight_may_change() -> None:
    chosen = picker({"a": {"weight": 1}, "b": {"weight": 1}}, Ring("weight"))
    update(chosen, "a", {"weight": 64})
    update(chosen, "b", {"weight": 0})
    assert set(placed(chosen, KEYS).values()) == {"a"}


def test_every_process_and_version_hashes_alike() -> None:
    """Pinned: instances of different versions of a gateway must agree."""
    assert placed(picker("abc", Ring()), ["room-1", "room-2", "room-3", "room-4"]) == PINNED
    chosen = picker("abc", Ring())
    assert chosen.pick("é", 0.0) is chosen.pick("é".encode(), 0.0)


def test_the_places_and_the_share_of_a_key_are_these_for_ever() -> None:
    """The share decides which keys leave a zone, or go to an instance that is new, in all processes alike."""
    assert [round(share(key), 6) for key in (b"", b"room-1", b"room-2")] == SHARES
    assert (len(probes(b"room-1")), len(points("a"))) == (8, 16)
    assert [round(place, 6) for place in probes(b"room-1")[:3]] == PROBES
    assert [round(points("a")[number], 6) for number in (0, 1, 8, 15)] == POINTS
    assert all(0 <= place < 1 for place in (*probes(b"room-1"), *points("a")))


SHARES = [0.580774, 0.403819, 0.161111]
PROBES = [0.568211, 0.421357, 0.27784]
POINTS = [0.533766, 0.137152, 0.531205, 0.884033]
PINNED = {"room-1": "a", "room-2": "a", "room-3": "c", "room-4": "b"}


@pytest.mark.parametrize("key", [1, 1.5, None, True, ["a"], bytearray(b"a"), object()])
def test_keys_of_other_types_are_refused(key: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^key="):
        picker("abc", Ring()).pick(key, 0.0)


@pytest.mark.parametrize("weight", [3, "", b"weight"])
def test_what_is_no_weight_is_refused(weight: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^weight="):
        Ring(weight)


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_of_two_that_are_as_near_the_smaller_id_is_chosen(ids: str) -> None:
    circle = _Circle(2.0)
    for place, weight, id in ((0.25, 1.0, ids[0]), (0.5, 2.0, ids[1])):
        circle.add(place, members({id: weight})[id])
    for starts in ([0.0], [0.0, 0.0]):
        _, found = circle.nearest(starts, 2.0, None, frozenset())
        assert found is not None
        assert found.id == "a"
