"""The streams of a view: its snapshots, and its changes.

The path of a change (`docs/internals.md`) ends here: `Fanout.take`, `ChangeStreams.take`, `Source.offer`, then
`Changes._offer`, which makes the change an item. `Stream.__anext__` hands it to the ``async for``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from aioregistry._model import Added, Change, Difference, Entry, Invalidated, Removed, Resynced, Snapshot, Updated
from aioregistry._streams import Stream

__all__ = ["CHANGES_KEPT", "Changes", "SnapshotStream"]

P = TypeVar("P")

CHANGES_KEPT: Final = 1024
"""How far a consumer of changes may lag before it gets a :class:`Resynced` instead of them."""


class SnapshotStream(Stream[Snapshot[P]]):
    """Latest wins: a snapshot is made when it is taken, the first at once.

    Args:
        snapshot: returns the present one.
    """

    def __init__(self, snapshot: Callable[[], Snapshot[P]]) -> None:
        super().__init__(1, None)  # type: ignore[arg-type]  # an offered item only says that there is another snapshot
        self._snapshot = snapshot

    def _take(self) -> Snapshot[P]:
        super()._take()
        return self._snapshot()


class Changes(Stream[Change[P]]):
    """The changes of a view after ``start``.

    The stream keeps 1024 changes for a consumer that is slow. Beyond that it remembers only which entries changed; when
    the consumer comes back, it gets one :class:`Resynced` with the differences.
    """

    def __init__(self, snapshot: Callable[[], Snapshot[P]], *, invalid: bool = False) -> None:
        super().__init__(CHANGES_KEPT)
        self._invalid = invalid
        self.start: Snapshot[P] = snapshot()
        self._snapshot = snapshot
        self._believed: dict[str, Entry[P] | None] | None = None

    async def aclose(self) -> None:
        """End the stream now; a task that waits on it sees its end. Never blocks."""
        self._believed = None
        await super().aclose()

    def _ready(self) -> bool:
        return self._believed is not None or super()._ready()

    def _offer(self, item: Change[P] | Invalidated) -> None:
        if self._ended or (isinstance(item, Invalidated) and not self._invalid):
            return
        if self._believed is None and len(self._items) == CHANGES_KEPT:
            self._believed = {}
            for missed in self._items:
                self._miss(missed)
            self._items.clear()
        if self._believed is None:
            super()._offer(item)  # type: ignore[arg-type]  # by its type an Invalidated is only in a stream that asks
        else:
            self._miss(item)

    def _miss(self, change: Change[P] | Invalidated) -> None:
        if isinstance(change, Invalidated):
            return  # the snapshot that is given in its stead has it
        for each in change.changes if isinstance(change, Resynced) else (change,):
            believed = self._believed
            assert believed is not None
            if each.id not in believed:
                believed[each.id] = None if isinstance(each, Added) else _before(each)
            elif isinstance(each, Removed) and believed[each.id] is None:
                del believed[each.id]  # came and went unseen: remembering it would know no bound

    def _take(self) -> Change[P]:
        if self._believed is None:
            return super()._take()
        believed, self._believed = self._believed, None
        snapshot = self._snapshot()
        differences = (_difference(before, snapshot.entries.get(id), snapshot.as_of) for id, before in believed.items())
        return Resynced(tuple(change for change in differences if change is not None), snapshot)


def _before(change: Updated[P] | Removed[P]) -> Entry[P]:
    return change.previous_entry if isinstance(change, Updated) else change.entry


def _difference(before: Entry[P] | None, after: Entry[P] | None, zxid: int) -> Difference[P] | None:
    if after is before:
        return None
    if after is None:
        assert before is not None
        return Removed(before, zxid)
    return Added(after, zxid) if before is None else Updated(after, before, zxid)
