"""An operator's orders for an instance that is not theirs."""

from __future__ import annotations

from typing import Any

import msgspec

from .instance import ServiceInstance

__all__ = ["Override"]


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's setting for an instance."""

    service: str
    id: str
    enabled: bool | None = None
    """False: it is in maintenance, listed and not picked. None: nothing is said about that. Never True."""
    weight: float | None = None
    """The part of its share of calls that it gets, from 0 to 1. None: nothing is said about that."""
    reason: str
    by: str
    since: float
    """Seconds since the epoch, by the server's clock."""
    until: float | None
    """Seconds since the epoch, by the server's clock; None is for ever."""
    registration_time_ms: int | None
    """Of the incarnation that is meant, milliseconds since the epoch; None is any."""
    version: int
    """Of its node."""

    def applies_to(self, instance: ServiceInstance[Any]) -> bool:
        """Return whether *instance* is ruled; a later process with its id is ruled only with ``any_incarnation``."""
        return self.registration_time_ms is None or self.registration_time_ms == instance.registration_time_ms
