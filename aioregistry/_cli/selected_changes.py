"""The changes of a service that concern a selection of its instances (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry import Added, Entry, Invalid, Invalidated, Removed, Resynced, Snapshot, Updated
from aioregistry._model import Difference

from .rows import row_of
from .selection import Selection

__all__ = ["Present", "SelectedChanges", "Told"]

_KINDS: Final[Mapping[tuple[type, bool, bool], str | None]] = MappingProxyType(
    {
        (Added, False, False): None,
        (Added, False, True): "added",
        (Added, True, False): "unmatched",
        (Added, True, True): "added",
        (Updated, False, False): None,
        (Updated, False, True): "matched",
        (Updated, True, False): "unmatched",
        (Updated, True, True): "updated",
    }
)
"""The kind of line, by whether the node as it was, and as it is, belongs to the selection."""

_MOST_INVALID: Final = 10_000


class Present(NamedTuple):
    """The selected part of a snapshot, in its order."""

    entries: list[Entry[Any]]
    invalid: list[Invalid]


class Told(NamedTuple):
    """A change to tell: its kind, the node that it is about, and the zxid of the observation."""

    kind: str
    node: Entry[Any] | Invalid
    zxid: int


class SelectedChanges:
    """Tells which nodes and changes belong to a *selection*: give it the state first, then each change in order."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        # As a dict, whose first key is the oldest. A node that goes without having shown an instance is not told of, so
        # its id stays here: therefore the bound. Beyond it an instance may leave the selection without a line.
        self._invalid: dict[str, None] = {}

    def present(self, snapshot: Snapshot[Any]) -> Present:
        """Return the selected nodes of a state; changes are told from there on."""
        entries = self._selection.of(row_of(snapshot.entries[id]) for id in snapshot)
        invalid = self._selection.of(map(row_of, snapshot.invalid.values()))
        self._invalid = dict.fromkeys(row.node.id for row in invalid[:_MOST_INVALID] if isinstance(row.node, Invalid))
        return Present(
            [row.node for row in entries if isinstance(row.node, Entry)],
            [row.node for row in invalid if isinstance(row.node, Invalid)],
        )

    def of(self, change: Difference[Any] | Invalidated) -> Iterator[Told]:
        """Give the line for *change*, if it concerns the selection."""
        match change:
            case Removed():
                # If the node belongs to the selection as it is now, an Invalidated says so next.
                if change.invalid is None or not self._has(change.invalid):
                    yield from self._removed(change)
            case Invalidated():
                _ = self._invalid.pop(change.id, None)
                if self._has(change.invalid):
                    self._remember(change.id)
                    yield Told("invalid", change.invalid, change.zxid)
            case _:
                # An instance that comes may replace a node that showed no instance.
                was = self._has(change.previous_entry) if isinstance(change, Updated) else change.id in self._invalid
                _ = self._invalid.pop(change.id, None)
                kind = _KINDS[type(change), was, self._has(change.entry)]
                if kind is not None:
                    yield Told(kind, change.entry, change.zxid)

    def caught_up(self, news: Resynced[Any]) -> tuple[list[Told], Present]:
        """Return the lines for the differences of *news*, and the rest of the selected state after them.

        If the node of a selected instance became invalid, that is a difference, and not in the rest.
        """
        # No Invalidated comes after a Removed here.
        differences = [
            told
            for change in news.changes
            for told in (self._removed(change) if isinstance(change, Removed) else self.of(change))
        ]
        present = self.present(news.snapshot)
        told = {line.node.id for line in differences if isinstance(line.node, Invalid)}
        return differences, present._replace(invalid=[each for each in present.invalid if each.id not in told])

    def _removed(self, change: Removed[Any]) -> Iterator[Told]:
        if not self._has(change.entry):
            return
        if change.invalid is None:
            yield Told("removed", change.entry, change.zxid)
        else:
            yield Told("invalid", change.invalid, change.zxid)

    def _has(self, node: Entry[Any] | Invalid) -> bool:
        return self._selection.has(row_of(node))

    def _remember(self, id: str) -> None:
        if len(self._invalid) >= _MOST_INVALID:
            del self._invalid[next(iter(self._invalid))]
        self._invalid[id] = None
