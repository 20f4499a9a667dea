"""The options that are numbers: their bounds are taken, and what is just outside is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from aioregistry._errors import InvalidArgument
from aioregistry.balancing import Ejection, OwnZone, RoundRobin, Sticky, WarmUp
from tests.balancing.service import picker


def own_zone(**options: Any) -> OwnZone[Any]:
    return OwnZone("eu", RoundRobin(), **options)


def sticky(**options: Any) -> Sticky[Any]:
    return Sticky(RoundRobin(), **options)


def picking(**options: Any) -> object:
    return picker("a", "round-robin", **options)


BOUNDS: list[tuple[Callable[..., object], str, float, float, dict[str, float]]] = [
    (Ejection, "pause", 0.001, 86_400, {"longest": 86_400}),
    (Ejection, "longest", 0.001, 86_400, {"pause": 0.001}),
    (Ejection, "jitter", 0, 1, {}),
    (Ejection, "remaining", 0, 1, {}),
    (own_zone, "healthy", 0, 1, {}),
    (WarmUp, "seconds", 0.001, 3600, {}),
    (WarmUp, "least", 0.000_001, 1, {}),
    (WarmUp, "aggression", 0.01, 100, {}),
    (picking, "panic", 0, 1, {}),
]


@pytest.mark.parametrize(("taker", "field", "least", "most", "others"), BOUNDS)
def test_the_bounds_of_a_number_are_taken_and_nothing_outside(
    taker: Callable[..., object], field: str, least: float, most: float, others: dict[str, float]
) -> None:
    for value in (least, most):
        taker(**{field: value, **others})
    for value in (math.nextafter(least, -math.inf), math.nextafter(most, math.inf)):
        with pytest.raises(InvalidArgument) as refused:
            taker(**{field: value, **others})
        assert (refused.value.field, refused.value.value) == (field, value)


@pytest.mark.parametrize(("taker", "field"), [(Ejection, "failures"), (own_zone, "at_least"), (sticky, "keys")])
def test_a_count_begins_with_one(taker: Callable[..., object], field: str) -> None:
    taker(**{field: 1})
    with pytest.raises(InvalidArgument) as refused:
        taker(**{field: 0})
    assert (refused.value.field, refused.value.value) == (field, 0)


def test_the_longest_pause_is_not_shorter_than_the_first() -> None:
    assert Ejection(pause=7, longest=7).longest == 7
    with pytest.raises(InvalidArgument) as refused:
        Ejection(pause=7, longest=6.9)
    assert (refused.value.field, refused.value.value) == ("longest", 6.9)
