"""The first stage of a view with a type of payloads: converts them. One that does not fit counts as absent. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from aioregistry._errors import InvalidInstance
from aioregistry._model import Added, Difference, Entry, Invalid, Removed, Updated

from .mirror import News
from .stages import Differences, Misfit, Opened, Options, Stage, State

__all__ = ["Conversion", "fitting"]

P = TypeVar("P")


def fitting(entry: Entry[Any], payload_type: Any, state: State[Any]) -> Entry[Any] | None:
    """Return *entry* with its payload converted; None, after a notice, where it does not fit."""
    if payload_type is Any:
        return entry
    try:
        return entry.with_payload_type(payload_type)
    except InvalidInstance as error:
        id = entry.instance.id
        state.notices.append(Misfit(id, error.reason))
        state.misfits[id] = Invalid(id, error.reason, entry.owner, entry.czxid, entry.mzxid)
        return None


class Conversion(Stage[P]):
    """Keeps the listed instances with their payloads converted to *payload_type*."""

    def __init__(self, options: Options, state: State[P]) -> None:
        super().__init__(state)
        self._payload_type = options.payload_type
        self._adopted = False
        state.listed = {}

    @classmethod
    def asked_for(cls, options: Options, state: State[P]) -> Conversion[P] | None:
        """Return the stage, where payloads have a type."""
        return None if options.payload_type is Any else cls(options, state)

    def opened(self, event: Opened, changes: Differences[P]) -> Differences[P]:
        if event.listed:
            self._adopt()
        return changes

    def news(self, event: News, changes: Differences[P]) -> Differences[P]:
        if self._adopted:
            return self._converted(changes)
        # The mirror's first news has no changes: there is nothing to compare with.
        self._adopt()
        return ()

    def _adopt(self) -> None:
        self._adopted = True
        state = self.state
        state.misfits.clear()
        for id, entry in state.listing.entries.items():
            converted = fitting(entry, self._payload_type, state)
            if converted is not None:
                state.listed[id] = converted

    def _converted(self, changes: Iterable[Difference[Any]]) -> Differences[P]:
        state = self.state
        listed, misfits = state.listed, state.misfits
        converted: list[Difference[P]] = []
        for change in changes:
            before = listed.pop(change.id, None)
            misfits.pop(change.id, None)
            after = None if isinstance(change, Removed) else fitting(change.entry, self._payload_type, state)
            if after is not None:
                listed[change.id] = after
                converted.append(Added(after, change.zxid) if before is None else Updated(after, before, change.zxid))
            elif before is not None:
                node = change.invalid if isinstance(change, Removed) else misfits.get(change.id)
                converted.append(Removed(before, change.zxid, node))
        return tuple(converted)
