"""Choosing an instance: strategies, and the picker that they work in. Pure.

A new strategy is a file here with a `Strategy` and its `Pool`; `_strategies.py` says what these are, and has the
shortest. The balancer that a view feeds, with its clock and log, is `aioregistry/_discovery/balancer.py`: it is the
same for all strategies.
"""

from __future__ import annotations

from ._admission import Subset
from ._arrivals import Arrivals
from ._ejection import Ejection
from ._members import Filter, Load, Member, Weight, serves
from ._named import STRATEGIES, strategy_of
from ._picker import OfSuspects, Picker
from ._rings import Ring
from ._sticky import Sticky
from ._strategies import NOBODY, LeastOutstanding, Random, RoundRobin, Strategy
from ._warm_up import WarmUp
from ._weighted import Weighted
from ._zones import OwnZone

__all__ = [
    "NOBODY",
    "STRATEGIES",
    "Arrivals",
    "Ejection",
    "Filter",
    "LeastOutstanding",
    "Load",
    "Member",
    "OfSuspects",
    "OwnZone",
    "Picker",
    "Random",
    "Ring",
    "RoundRobin",
    "Sticky",
    "Strategy",
    "Subset",
    "WarmUp",
    "Weight",
    "Weighted",
    "serves",
    "strategy_of",
]
