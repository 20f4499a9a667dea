"""The state of a check by its results: a table of state and result. Pure.

A check that was never passed is STARTING, and one success ends that: it need not wait for `rise` of them with an
instance that has only just started (Envoy, "health checking", does the same for a host that it sees first). After that
it takes `fall` failures in a row to fail and `rise` successes in a row to pass, HAProxy's rule.

Counting alone promises no time: results that are late are fewer. So a failure is OVERDUE when the last success is
longer ago than `fall` intervals and a timeout, and that is enough by itself.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["STARTING", "CheckHealth", "CheckState", "Result", "after", "patience", "pause"]


class CheckState(enum.Enum):
    """The verdict of a check on its instance."""

    STARTING = "starting"
    """Has not passed yet."""
    PASSING = "passing"
    """Passed, and has not failed `fall` times in a row since."""
    FAILING = "failing"
    """Failed, and has not passed `rise` times in a row since."""


class Result(enum.Enum):
    """How one run of a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    OVERDUE = "overdue"
    """Failed, and the last success is too long ago."""


class CheckHealth(NamedTuple):
    """The state of a check, and how many results in a row speak against it."""

    state: CheckState
    against: int = 0


STARTING: Final = CheckHealth(CheckState.STARTING)


class _Rule(NamedTuple):
    state: CheckState
    """Which the result speaks for."""
    needed: str | None = None
    """The option that says how many in a row it takes; None: this one is enough."""


_TABLE: Final[Mapping[tuple[CheckState, Result], _Rule]] = MappingProxyType(
    {
        (CheckState.STARTING, Result.PASSED): _Rule(CheckState.PASSING),
        (CheckState.STARTING, Result.FAILED): _Rule(CheckState.STARTING),
        (CheckState.STARTING, Result.OVERDUE): _Rule(CheckState.STARTING),
        (CheckState.PASSING, Result.PASSED): _Rule(CheckState.PASSING),
        (CheckState.PASSING, Result.FAILED): _Rule(CheckState.FAILING, "fall"),
        (CheckState.PASSING, Result.OVERDUE): _Rule(CheckState.FAILING),
        (CheckState.FAILING, Result.PASSED): _Rule(CheckState.PASSING, "rise"),
        (CheckState.FAILING, Result.FAILED): _Rule(CheckState.FAILING),
        (CheckState.FAILING, Result.OVERDUE): _Rule(CheckState.FAILING),
    }
)


def after(health: CheckHealth, result: Result, *, rise: int, fall: int) -> CheckHealth:
    """Return the health that *result* leads to.

    Args:
        health: before it.
        result: of the last run.
        rise: successes in a row that a failing check needs.
        fall: failures in a row that a passing check needs.
    """
    rule = _TABLE[health.state, result]
    if rule.state is health.state:
        return CheckHealth(health.state)
    against = health.against + 1
    if rule.needed is not None and against < {"rise": rise, "fall": fall}[rule.needed]:
        return CheckHealth(health.state, against)
    return CheckHealth(rule.state)


def patience(*, interval: float, timeout: float, fall: int) -> float:
    """Return the seconds after the start of its last success at which a check that only fails is failing."""
    return interval * fall + timeout


def pause(*, interval: float, took: float, draw: float) -> float:
    """Return the seconds from the end of a run to the start of the next.

    Intervals are counted from start to start. Up to a tenth of one is left out, so that the checks of many instances do
    not fall into step; it is never longer, so that :func:`patience` holds.

    Args:
        interval: seconds.
        took: seconds that the run took.
        draw: a random number from 0 to 1.
    """
    return max(0.0, interval * (1 - draw / 10) - took)
