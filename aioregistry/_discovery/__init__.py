"""Discovery: mirrors of services, and views of them."""

from __future__ import annotations

from .follower import Strategy
from .guard import Guard
from .view import Changes, Discovery, KeptAt, View

__all__ = ["Changes", "Discovery", "Guard", "KeptAt", "Strategy", "View"]
