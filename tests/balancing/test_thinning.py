"""One of a pool in proportion to weights that its strategy does not know."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from aioregistry.balancing import Member
from aioregistry.balancing._members import Load, Traits
from aioregistry.balancing._thinning import choose_reduced
from tests.balancing.service import instance


class InTurn:
    """A pool of which one after the other is chosen."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.members = [Member(instance(id), Traits(), Load(), weight=each) for id, each in weights.items()]
        self.chosen = 0
        self._turns = itertools.cycle(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def add(self, member: Member[object]) -> None:
        raise NotImplementedError

    discard = add

    def choose(self, key: bytes | None, exclude: frozenset[str] = frozenset()) -> Member[object] | None:
        self.chosen += 1
        if key is not None:
            return next((each for each in self.members if each.id not in exclude), None)
        return next(self._turns) if self.members else None


def choose(pool: InTurn, *draws: float, key: bytes | None = None) -> str | None:
    numbers: Iterator[float] = iter(draws)
    member = choose_reduced(pool, key, frozenset(), lambda: next(numbers))
    assert next(numbers, None) is None
    return None if member is None else member.id


@pytest.mark.parametrize(("drawn", "id", "asked"), [(0.0, "a", 1), (0.24, "a", 1), (0.25, "b", 2)])
def test_a_member_is_chosen_with_the_chance_of_its_weight(drawn: float, id: str, asked: int) -> None:
    pool = InTurn({"a": 0.25, "b": 1.0})
    assert (choose(pool, drawn), pool.chosen) == (id, asked)


def test_a_member_of_whole_weight_and_one_that_is_alone_are_chosen_without_a_draw() -> None:
    assert choose(InTurn({"b": 1.0, "a": 0.25})) == "b"
    assert choose(InTurn({"a": 0.25})) == "a"
    assert choose(InTurn({})) is None


@pytest.mark.parametrize(("last", "id"), [(0.0, "a"), (0.24, "a"), (0.26, "b"), (0.999, "b")])
def test_after_32_refusals_one_of_the_refused_is_chosen_by_its_weight(last: float, id: str) -> None:
    pool = InTurn({"a": 0.125, "b": 0.375})
    draws = [0.9] * 32
    found = choose(pool, *draws, last / 16)  # of 16 pairs the first
    assert (found, pool.chosen) == (id, 33)


def test_where_rounding_leaves_something_the_last_that_was_refused_is_chosen() -> None:
    pool = InTurn({"a": 0.26, "b": 0.54})  # the sum of 16 pairs is more than what they take away one by one
    assert choose(pool, *[0.9] * 32, 1 - 2**-53) == "b"


def test_a_key_keeps_to_one_and_asks_for_eight_others_at_most() -> None:
    pool = InTurn({f"n{number}": 1e-9 for number in range(20)})
    first = choose(pool, key=b"key")
    assert pool.chosen == 9
    assert choose(pool, key=b"key") == first
    few = InTurn({f"n{number}": 1e-9 for number in range(3)})
    assert choose(few, key=b"key") is not None
    assert few.chosen == 4


def test_as_many_keys_stay_as_the_weight_says_and_the_others_go_to_who_weighs_more() -> None:
    kept = sum(choose(InTurn({"a": 0.25, "b": 1.0}), key=b"%d" % number) == "a" for number in range(2000))
    assert kept == pytest.approx(500, abs=80)
