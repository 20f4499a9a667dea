"""Panic: too few instances are well to carry all calls; the others are suspects, and those whose checks fail. Pure.

Few is a matter of heads and of weight: five of ten instances are half of them, but not half of the service if the other
five weigh a hundred times as much. A weight is the strategy's, 1 where that does not weigh, times the operator's.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

__all__ = ["UNANSWERED", "UNIT", "panics", "units_of"]

UNANSWERED: Final = 0.5
"""The part of its share that a suspect gets in a panic, beside instances that are confirmed, until it answers a call.

Enough that each is called soon, and that no confirmed one gets more than twice its share for it.
"""

UNIT: Final = 1 << 60
"""The weight 1. Weights are whole numbers of such parts, so that their sums stay exact, whatever comes and goes."""

_HEAVIEST: Final = 1e9  # of a strategy's weight; a strategy of the caller's own may say anything


def panics(well: int, known: int, panic: Fraction, *, already: bool) -> bool:
    """Return whether too few of the *known* instances, or too little of their weight, are *well*.

    Well are those that are neither suspect nor failing. It begins a sixteenth of them later than it ends, so that one
    that comes and goes does not move all the others.
    """
    missing = panic.numerator * known - panic.denominator * well
    return missing > (0 if already else panic.denominator * (known // 16))


def units_of(weight: object, operators: float) -> int:
    """Return *weight*, the strategy's, times that of the operators; a value that is not a weight is taken for 1."""
    if not (isinstance(weight, int | float) and 0 < weight <= _HEAVIEST):
        return int(operators * UNIT)
    return int(weight * operators * UNIT)
