"""Which removals are of which subset of a service. Pure.

A balancer that filters, or prefers its own zone, sees a service of its own. To ask a filter takes microseconds, and
removals come one by one, so each counted one is asked about once for each subset: a service of which thousands go would
keep the event loop for minutes otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Protocol

from aioregistry._model import Entry, ServiceInstance

__all__ = ["Part", "Subset", "Subsets"]


class Subset(Protocol):
    """Some instances of the service, which their users see as a service of its own."""

    def admits(self, instance: ServiceInstance[Any]) -> bool:
        """Return whether *instance* is one of them; raises nothing."""

    def confirmed(self) -> int:
        """Return how many of them are listed, as of the last changes that were shown."""


class Part:
    """Of the counted removals those of one subset.

    Attributes:
        asked: those that it was asked about.
        inside: those of them that are of the subset.
        removed: those of these that are shown as removed, oldest first.
    """

    __slots__ = ("asked", "inside", "removed")

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.inside: set[str] = set()
        self.removed: dict[str, None] = {}


class Subsets:
    """The subsets of one service; told which removals are counted, and which no longer are.

    Args:
        current: returns them as they are now. Two are the same one if their ``admits`` are equal.
    """

    __slots__ = ("_current", "_new", "_parts")

    def __init__(self, current: Callable[[], Iterable[Subset]]) -> None:
        self._current = current
        self._parts: dict[Callable[[ServiceInstance[Any]], bool], Part] = {}
        self._new: dict[str, None] = {}  # counted since the subsets were asked

    def count(self, id: str) -> None:
        """The removal of *id* is counted."""
        self.uncount(id)
        self._new[id] = None

    def uncount(self, id: str) -> None:
        """Stop counting the removal of *id*."""
        self._new.pop(id, None)
        for part in self._parts.values():
            part.asked.discard(id)
            part.inside.discard(id)
            part.removed.pop(id, None)

    def forget(self) -> None:
        """Nothing is counted: no filter of a balancer that is gone is to be kept."""
        self._parts.clear()
        self._new.clear()

    def hold(self, id: str) -> None:
        """*id* is not shown as removed any more."""
        for part in self._parts.values():
            part.removed.pop(id, None)

    def parts(self, counted: Mapping[str, Entry[Any]], removed: Container[str]) -> list[tuple[Subset, Part]]:
        """Return the subsets, each with its part of the *counted* removals; *removed* are shown as such."""
        before, new, self._parts, self._new = self._parts, self._new, {}, {}
        found: list[tuple[Subset, Part]] = []
        for subset in self._current():
            part = before.get(subset.admits)
            if part is None:
                part, ids = Part(), list(counted)
            else:
                ids = [id for id in new if id not in part.asked]  # balancers may have subsets that are equal
            for id in ids:
                part.asked.add(id)
                if subset.admits(counted[id].instance):
                    part.inside.add(id)
                    if id in removed:
                        part.removed[id] = None
            self._parts[subset.admits] = before[subset.admits] = part
            found.append((subset, part))
        return found
