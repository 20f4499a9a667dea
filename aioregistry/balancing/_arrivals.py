"""Which instances of a service are new, and since when. Pure.

An instance is new from the moment when the view first sees a ``registrationTimeUTC`` that its id did not have before.
It is new again when it is enabled after it was not: its checks pass, or its maintenance is over. The nodes themselves
prove nothing: after an outage all sessions may have expired, and processes that never stopped create their nodes again.
The first list of a service proves nothing either: its instances may have run for a year.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry._model import Added, Difference, Removed, ServiceInstance

from ._members import serves

__all__ = ["HOUR", "Arrivals"]

HOUR: Final = 3600.0
"""Seconds for which it is remembered that an instance was new."""

_MOST_GONE: Final = 10_000
"""Instances that went and are remembered, so that they are not new when they come back. If more go at once, more than
half of them count as new when they come back, and then newness is ignored."""


class _Gone(NamedTuple):
    """The memory of an instance that went.

    Args:
        registered: its ``registrationTimeUTC``.
        since: when it was new, if it was.
        served: whether it was to be called.
    """

    registered: int | None
    since: float | None
    served: bool


class Arrivals:
    """The instances that are new; told of all changes of one service.

    Attributes:
        since: when each instance that is new was seen first, or again, by id; on the caller's clock.
    """

    __slots__ = ("_gone", "_since", "since")

    def __init__(self) -> None:
        self._since: OrderedDict[str, float] = OrderedDict()
        self._gone: OrderedDict[str, _Gone] = OrderedDict()
        self.since: Mapping[str, float] = MappingProxyType(self._since)

    def take(self, changes: Iterable[Difference[Any]], now: float, *, first: bool = False) -> None:
        """Take note of *changes*, at *now*; *first* says that they are of the first list."""
        for change in changes:
            id, instance = change.id, change.instance
            if isinstance(change, Removed):
                self._gone[id] = _Gone(instance.registration_time_ms, self._since.pop(id, None), serves(instance))
                if len(self._gone) > _MOST_GONE:
                    self._gone.popitem(last=False)
                continue
            is_new = self._is_new(instance, now) if isinstance(change, Added) else _replaces(instance, change.previous)
            if is_new and not first:
                self._since[id] = now
                self._since.move_to_end(id)
        self._trim(now)

    def _is_new(self, instance: ServiceInstance[Any], now: float) -> bool:
        known = self._gone.pop(instance.id, None)
        if known is None or known.registered != instance.registration_time_ms:
            return True
        if serves(instance) and not known.served:  # it became well while it was gone
            return True
        if known.since is not None and known.since > now - HOUR:
            self._since[instance.id] = known.since  # it was new when it went, and goes on
        return False

    def _trim(self, now: float) -> None:
        while self._since:
            id, since = next(iter(self._since.items()))
            if since > now - HOUR:
                break
            del self._since[id]


def _replaces(instance: ServiceInstance[Any], before: ServiceInstance[Any]) -> bool:
    """Return whether *instance* is another incarnation, or may be picked again."""
    if instance.registration_time_ms != before.registration_time_ms:
        return True
    return serves(instance) and not serves(before)
