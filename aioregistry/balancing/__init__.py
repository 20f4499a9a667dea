"""Choosing an instance: strategies, and the picker that they work in."""

from __future__ import annotations

from .ejection import Ejection
from .members import Filter, Member, Weight
from .picker import STRATEGIES, OfSuspects, Picker, rank_of, strategy_of
from .rings import Ring
from .sticky import Sticky
from .strategies import LeastOutstanding, Random, RoundRobin, Strategy
from .weighted import Weighted
from .zones import OwnZone

__all__ = [
    "STRATEGIES",
    "Ejection",
    "Filter",
    "LeastOutstanding",
    "Member",
    "OfSuspects",
    "OwnZone",
    "Picker",
    "Random",
    "Ring",
    "RoundRobin",
    "Sticky",
    "Strategy",
    "Weight",
    "Weighted",
    "rank_of",
    "strategy_of",
]
