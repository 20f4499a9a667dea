"""The stage that shows what operators say: an instance in maintenance is not picked, and a weight is its entry's. Pure.

It is the last one: whatever is shown of an instance, listed or suspect, is shown as in maintenance while an override
is in force. The guard before it judges what owners say, so what an operator drains is not an announced leave to it.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from aioregistry._model import Added, Difference, Entry, Removed, Updated

from .stages import Differences, Event, Options, Overridden, Stage, State

__all__ = ["Overriding"]

P = TypeVar("P")


class Overriding(Stage[P]):
    """Shows instances with the overrides that are in force."""

    def __init__(self, state: State[P]) -> None:
        super().__init__(state)
        self._shown: dict[str, Entry[P]] = {}  # in the place of those that are covered

    @classmethod
    def asked_for(cls, options: Options, state: State[P]) -> Overriding[P] | None:
        """Return the stage, where overrides are read."""
        return cls(state) if options.overridden else None

    def _passed(self, event: Event, changes: Differences[P]) -> Differences[P]:
        state = self.state
        if not state.overrides and not state.covered:
            return changes
        shown: list[Difference[P]] = []
        for change in changes:
            before = self._uncovered(change.id)
            if isinstance(change, Removed):
                shown.append(change if before is None else Removed(before, change.zxid, change.invalid))
                continue
            after = self._covered(change.entry)
            if isinstance(change, Added):
                shown.append(Added(after, change.zxid))
            else:
                shown.append(Updated(after, change.previous_entry if before is None else before, change.zxid))
        return tuple(shown)

    opened = news = freshness_changed = withdrawn = called = due = _passed

    def overridden(self, event: Overridden, changes: Differences[P]) -> Differences[P]:
        state = self.state
        former, state.overrides = state.overrides, event.overrides
        shown: list[Difference[P]] = []
        for id in dict.fromkeys((*former, *event.overrides)):
            if former.get(id) == event.overrides.get(id):
                continue
            before = state.overlay.get(id) or state.listed.get(id)
            if before is None:
                continue
            plain = state.covered.get(id, before)
            _ = self._uncovered(id)
            after = self._covered(plain)
            if _said(after) != _said(before):
                shown.append(Updated(after, before, state.as_of))
        return tuple(shown)

    def _covered(self, entry: Entry[P]) -> Entry[P]:
        """Return *entry* as it is shown."""
        instance = entry.instance
        override = self.state.overrides.get(instance.id)
        if override is None or not override.applies_to(instance):
            return entry
        weight = 1.0 if override.weight is None else override.weight
        if override.enabled is False:
            covered = msgspec.structs.replace(
                entry, instance=instance.replace(enabled=False, status="maintenance"), weight=weight
            )
        elif weight < 1:
            covered = msgspec.structs.replace(entry, weight=weight)
        else:
            return entry
        self.state.covered[instance.id] = entry
        self._shown[instance.id] = covered
        return covered

    def _uncovered(self, id: str) -> Entry[P] | None:
        """Forget that *id* was shown otherwise, and return as what; None where it was not."""
        self.state.covered.pop(id, None)
        return self._shown.pop(id, None)


def _said(entry: Entry[P]) -> tuple[object, ...]:
    """Return what an override changes of *entry*."""
    return entry.instance.enabled, entry.instance.status, entry.weight
