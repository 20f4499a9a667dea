"""Discovery: mirrors of services, and views of them."""

from __future__ import annotations

from .discovery import Discovery
from .follower import WatchMode
from .guard_options import Guard
from .subscriptions import Changes
from .tallies import Tallies, Tally
from .view import KeptAt, View

__all__ = ["Changes", "Discovery", "Guard", "KeptAt", "Tallies", "Tally", "View", "WatchMode"]
