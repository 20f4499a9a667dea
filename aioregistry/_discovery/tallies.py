"""The counts of balancers, by service: each counts for itself, and they are added up when they are read."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Tallies", "Tally"]

_FIRST_LOOK: Final = 64
"""Balancers, until those that are gone are looked for; later twice as many as were there at the last look."""


@dataclass(slots=True)
class Tally:
    """The counts of one balancer.

    Args:
        picks: instances that it returned.
        failures: calls that were reported as failed.
        ejections: instances that it set aside.
        panics: times that it began to panic.
    """

    picks: int = 0
    failures: int = 0
    ejections: int = 0
    panics: int = 0

    def add(self, other: Tally) -> None:
        """Add what *other* has counted."""
        self.picks += other.picks
        self.failures += other.failures
        self.ejections += other.ejections
        self.panics += other.panics


class Tallies:
    """The tallies of all balancers of a registry. Used on its loop.

    Balancers are held weakly. The counts of one that is gone are forgotten, unless there is a reader (:meth:`keep`):
    then the sum of a service never falls.
    """

    def __init__(self) -> None:
        self._present: list[tuple[str, weakref.ref[Any], Tally]] = []
        self._gone: dict[str, Tally] = {}
        self._kept = False
        self._look_at = _FIRST_LOOK

    def add(self, service: str, balancer: object, tally: Tally) -> None:
        """Add *tally* to those of *service*; it is what *balancer* counts for as long as that is there."""
        if len(self._present) >= self._look_at:
            self._look()
            self._look_at = max(2 * len(self._present), _FIRST_LOOK)
        self._present.append((service, weakref.ref(balancer), tally))

    def keep(self) -> None:
        """From now on keep what balancers have counted that are gone."""
        self._kept = True

    def by_service(self) -> Mapping[str, Tally]:
        """Return the sums."""
        self._look()
        sums: dict[str, Tally] = {}
        for service, tally in (*self._gone.items(), *((service, tally) for service, _, tally in self._present)):
            sums.setdefault(service, Tally()).add(tally)
        return sums

    def _look(self) -> None:
        """Keep or forget what those have counted that are gone."""
        present = []
        for service, balancer, tally in self._present:
            if balancer() is not None:
                present.append((service, balancer, tally))
            elif self._kept:
                self._gone.setdefault(service, Tally()).add(tally)
        self._present = present
