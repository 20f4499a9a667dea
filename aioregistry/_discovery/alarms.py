"""Moments at which something is due, each for an id. Pure."""

from __future__ import annotations

from heapq import heappop, heappush

__all__ = ["Alarms"]


class Alarms:
    """The earliest of many moments, each for an id; an id has one. Many share a moment: what goes together does."""

    __slots__ = ("_at", "_ids", "_moments")

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._ids: dict[float, dict[str, None]] = {}
        self._moments: list[float] = []  # a heap of those of which there may be ids

    def set(self, id: str, moment: float) -> None:
        """*id* is due at *moment*, and not when it was due before."""
        self.drop(id)
        self._at[id] = moment
        ids = self._ids.get(moment)
        if ids is None:
            ids = self._ids[moment] = {}
            heappush(self._moments, moment)
        ids[id] = None

    def drop(self, id: str) -> None:
        """*id* is not due any more."""
        moment = self._at.pop(id, None)
        if moment is not None:
            del self._ids[moment][id]

    def first(self) -> float | None:
        """Return the earliest moment, or None if no alarm is set."""
        while self._moments and not self._ids[self._moments[0]]:
            del self._ids[heappop(self._moments)]
        return self._moments[0] if self._moments else None

    def take(self, now: float) -> list[str]:
        """Return the ids whose moment is not after *now*, and forget them."""
        due: list[str] = []
        while (moment := self.first()) is not None and moment <= now:
            heappop(self._moments)
            for id in self._ids.pop(moment):
                del self._at[id]
                due.append(id)
        return due
