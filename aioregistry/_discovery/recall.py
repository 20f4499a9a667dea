"""The stage of a view that has a file: shows what that kept while nothing was read, and compares both then. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aioregistry._errors import InvalidInstance
from aioregistry._model import Added, Difference, Entry, Removed, Suspicion, Updated

from .conversion import fitting
from .mirror import News
from .stages import Differences, Opened, Options, Recalled, Stage, State

if TYPE_CHECKING:
    from .kept import Kept

__all__ = ["Recall"]

P = TypeVar("P")

RECENT: Final = 3600.0
"""Seconds for which a kept snapshot tells who may be about to register again: longer than outages take."""


class Recall(Stage[P]):
    """Shows kept instances as suspects until all was read; then how they differ from the list."""

    def __init__(self, options: Options, state: State[P]) -> None:
        super().__init__(state)
        self._payload_type = options.payload_type
        self._shown: dict[str, Entry[P]] = {}

    @classmethod
    def asked_for(cls, options: Options, state: State[P]) -> Recall[P] | None:
        """Return the stage, where the view has a file."""
        return cls(options, state) if options.kept else None

    def opened(self, event: Opened, changes: Differences[P]) -> Differences[P]:
        if event.kept is None:
            return changes
        if not event.listed:
            return self._recalled(event.kept)
        return self._missing(event.kept) if event.synced else changes

    def _recalled(self, kept: Kept) -> Differences[P]:
        state = self.state
        suspicion = Suspicion("file", state.at.wall, math.inf)
        for id, entry in kept.entries.items():
            converted = fitting(entry.with_suspicion(suspicion), self._payload_type, state)
            if converted is not None:
                self._shown[id] = converted
        state.recalled = kept
        state.notices.append(Recalled(len(self._shown), kept.known_at))
        return tuple(Added(entry, kept.as_of) for entry in self._shown.values())

    def _missing(self, kept: Kept) -> Differences[P]:
        """A process that restarted was away for a moment: known instances that are not listed went meanwhile."""
        state = self.state
        if state.at.wall - kept.known_at > RECENT:
            return ()
        known = state.listed.keys() | state.listing.invalid.keys() | state.misfits.keys()
        missing = [self._quietly_fitting(entry) for id, entry in kept.entries.items() if id not in known]
        return tuple(Removed(entry, state.as_of) for entry in missing if entry is not None)

    def _quietly_fitting(self, entry: Entry[Any]) -> Entry[Any] | None:
        """If an instance has no node, it does not matter that its payload does not fit."""
        if self._payload_type is Any:
            return entry
        try:
            return entry.with_payload_type(self._payload_type)
        except InvalidInstance:
            return None

    def news(self, event: News, changes: Differences[P]) -> Differences[P]:
        state = self.state
        if state.recalled is None:
            return changes
        recalled, self._shown = self._shown, {}
        state.recalled = None
        zxid = state.as_of
        found: list[Difference[P]] = []
        for id, entry in state.listed.items():
            before = recalled.pop(id, None)
            found.append(Added(entry, zxid) if before is None else Updated(entry, before, zxid))
        return (*found, *(Removed(entry, zxid) for entry in recalled.values()))
