"""Discovery: mirrors of services, and views of them."""

from __future__ import annotations

from .balancer import Balancer, Pick
from .follower import Strategy
from .view import Changes, Discovery, View

__all__ = ["Balancer", "Changes", "Discovery", "Pick", "Strategy", "View"]
