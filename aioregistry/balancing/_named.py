"""The strategies that have names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from aioregistry._errors import InvalidArgument

from ._strategies import LeastOutstanding, Random, RoundRobin, Strategy, check_strategy

__all__ = ["STRATEGIES", "strategy_of"]

P = TypeVar("P")

STRATEGIES: Final[Mapping[str, Callable[[], Strategy[Any]]]] = {
    "least-outstanding": LeastOutstanding,
    "random": Random,
    "round-robin": RoundRobin,
}
"""The strategies that need no argument, by name."""


def strategy_of(strategy: Strategy[P] | str) -> Strategy[P]:
    """Return *strategy*, which may be given by name (see :data:`STRATEGIES`).

    Raises:
        InvalidArgument: it is not a strategy, or not the name of one.
    """
    if not isinstance(strategy, str):
        check_strategy("strategy", strategy)
        return strategy
    if strategy not in STRATEGIES:
        known = ", ".join(map(repr, STRATEGIES))
        raise InvalidArgument("strategy", strategy, f"must be one of {known}, or a strategy such as Ring()")
    return STRATEGIES[strategy]()
