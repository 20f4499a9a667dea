"""The stage of a view that has a guard: holds back the removals that the guard does not believe. Pure."""

from __future__ import annotations

from itertools import chain
from typing import TypeVar

from .guard import Suspects, Verdict
from .guard_options import Guard
from .mirror import News
from .stages import (
    Called,
    Differences,
    Due,
    FreshnessChanged,
    Held,
    Opened,
    Options,
    Released,
    Stage,
    State,
    Withdrawn,
)

__all__ = ["Suspecting"]

P = TypeVar("P")


class Suspecting(Stage[P]):
    """Shows the instances that the guard holds as suspects; :mod:`.guard` says which it holds, and how long."""

    def __init__(self, guard: Guard, options: Options, state: State[P]) -> None:
        super().__init__(state)
        self._suspects: Suspects[P] = Suspects(guard, state.as_of, options.subsets)

    @classmethod
    def asked_for(cls, options: Options, state: State[P]) -> Suspecting[P] | None:
        """Return the stage, where the view has a guard."""
        return None if options.guard is None else cls(options.guard, options, state)

    def opened(self, event: Opened, changes: Differences[P]) -> Differences[P]:
        suspects, zxid, at = self._suspects, self.state.as_of, self.state.at
        suspects.begin(zxid)
        if not event.synced:
            suspects.interrupted(at.now)
        elif changes:  # known before anything was shown, and not listed: they went around a disruption
            suspects.interrupted(at.now)
            verdict = suspects.take(changes, listed=len(self.state.listed), zxid=zxid, at=at, gone=lambda _: True)
            return self._noted(verdict, suspects.resumed(zxid, at))
        return changes

    def news(self, event: News, changes: Differences[P]) -> Differences[P]:
        state, suspects = self.state, self._suspects
        zxid, at = state.as_of, state.at
        if not event.resynced and not suspects.concerned(changes, zxid):
            return changes
        invalid, misfits = state.listing.invalid, state.misfits
        verdict = suspects.take(
            changes,
            listed=len(state.listed),
            zxid=zxid,
            at=at,
            gone=lambda id: id not in invalid and id not in misfits,
        )
        shapeless = [node.id for node in event.invalid]
        shapeless += [change.id for change in event.changes if change.id in misfits]
        replaced = suspects.invalid(shapeless, zxid)
        if not event.resynced:
            return self._noted(verdict, replaced)
        return self._noted(verdict, replaced, suspects.resumed(zxid, at))

    def freshness_changed(self, event: FreshnessChanged, changes: Differences[P]) -> Differences[P]:
        if event.fresh:
            return self._noted(self._suspects.resumed(self.state.as_of, self.state.at))
        self._suspects.interrupted(self.state.at.now)
        return self._noted()

    def withdrawn(self, event: Withdrawn, changes: Differences[P]) -> Differences[P]:
        id, state = event.id, self.state
        listed = id in state.listed or (id in state.overlay and id not in self._suspects)
        return self._noted(self._suspects.withdrawn(id, event.czxid, state.as_of, listed=listed))

    def called(self, event: Called, changes: Differences[P]) -> Differences[P]:
        now = self.state.at.now
        if event.refused:
            changes = self._noted(self._suspects.refused(event.id, self.state.as_of, since=event.since, now=now))
        else:
            self._suspects.answered(event.id, now)
        self.state.refusing = self._suspects.refusing
        return changes

    def due(self, event: Due, changes: Differences[P]) -> Differences[P]:
        return self._noted(self._suspects.due(self.state.as_of, self.state.at.now))

    def _noted(self, *verdicts: Verdict[P]) -> Differences[P]:
        for verdict in verdicts:
            if verdict.held:
                self.state.notices.append(Held(verdict.held))
            if verdict.released:
                self.state.notices.append(Released(verdict.released))
        self.wake = self._suspects.wake
        return tuple(chain.from_iterable(verdict.changes for verdict in verdicts))
