"""When too few are well, in heads and in units of weight."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from aioregistry.balancing._panic import UNIT, panics, units_of

HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("well", "known", "panic", "begins", "goes_on"),
    [
        (5, 10, HALF, False, False),
        (4, 10, HALF, True, True),
        (8, 16, HALF, False, False),
        (7, 16, HALF, False, True),  # a sixteenth of all may come and go
        (6, 16, HALF, True, True),
        (7, 31, Fraction(1, 4), False, True),  # of 31 it is one, as of 16
        (0, 0, HALF, False, False),
        (0, 5, Fraction(0), False, False),
        (4, 5, Fraction(1), True, True),
        (7, 100, Fraction("0.07"), False, False),
        (6 * UNIT, 16 * UNIT, HALF, True, True),
        (7 * UNIT, 16 * UNIT, HALF, False, True),
    ],
)
def test_it_begins_a_sixteenth_later_than_it_ends(
    well: int, known: int, panic: Fraction, begins: bool, goes_on: bool
) -> None:
    assert panics(well, known, panic, already=False) is begins
    assert panics(well, known, panic, already=True) is goes_on


@pytest.mark.parametrize(
    ("weight", "operators", "parts"),
    [
        (1, 1.0, 1.0),
        (2.5, 0.5, 1.25),
        (1e9, 1.0, 1e9),
        (1e9 + 1, 0.5, 0.5),
        (0, 1.0, 1.0),
        (-3, 1.0, 1.0),
        (math.nan, 1.0, 1.0),
        ("3", 0.25, 0.25),
        (None, 1.0, 1.0),
        (0.5, 0.0, 0.0),
    ],
)
def test_what_is_no_weight_counts_as_one(weight: object, operators: float, parts: float) -> None:
    assert units_of(weight, operators) == int(parts * 2**60)
    assert UNIT == 2**60
