"""Choosing an instance: strategies, and the picker that they work in. Pure.

A new strategy is a file here with a `Strategy` and its `Pool`; `_strategies.py` says what these are. `Random` there is
the shortest example; `Sticky` in `_sticky.py` is the shortest that contains another strategy. The balancer that a view
feeds, with its clock and log, is `aioregistry/_discovery/balancer_driver.py`: it is the same for all strategies.
"""

from __future__ import annotations

from ._admission import Subset
from ._arrivals import Arrivals
from ._ejection import Ejection
from ._members import Census, Filter, Load, Member, Traits, Weight, serves
from ._named import STRATEGIES, strategy_of
from ._picker import OfSuspects, Picker
from ._rings import Ring
from ._sticky import Sticky
from ._strategies import NOBODY, Draw, LeastOutstanding, Pool, Random, RoundRobin, Strategy
from ._warm_up import WarmUp
from ._weighted import Weighted
from ._zones import OwnZone

__all__ = [
    "NOBODY",
    "STRATEGIES",
    "Arrivals",
    "Census",
    "Draw",
    "Ejection",
    "Filter",
    "LeastOutstanding",
    "Load",
    "Member",
    "OfSuspects",
    "OwnZone",
    "Picker",
    "Pool",
    "Random",
    "Ring",
    "RoundRobin",
    "Sticky",
    "Strategy",
    "Subset",
    "Traits",
    "WarmUp",
    "Weight",
    "Weighted",
    "serves",
    "strategy_of",
]
