"""Notifications (pure): one-shot, persistent and recursive watches, as ``WatchManager`` keeps them.

There are two tables, as there. A data watch is in one and a child watch in the other; a persistent watch is in both,
and so is a recursive one before 3.9. A watcher in both gets one notification of a deletion.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from aioregistry.server._acl import ACL
from aioregistry.server._codes import EventKind
from aioregistry.server._nodes import parent_of
from aioregistry.server._operations import Change, Created, DataChanged, Deleted
from aioregistry.server._profiles import Profile

W = TypeVar("W", bound=Hashable)

Modes: TypeAlias = int
ONE_SHOT, PERSISTENT, RECURSIVE = 1, 2, 4

MODES: Final = {0: PERSISTENT, 1: RECURSIVE}
"""By the number that AddWatch gives them."""

CHILDREN, DATA, ANY, PERSISTENT_ONLY, RECURSIVE_ONLY = 1, 2, 3, 4, 5


class Notification(NamedTuple, Generic[W]):
    """An event for a watcher; *acl* is that of the node it tells of."""

    watcher: W
    kind: EventKind
    path: str
    acl: ACL


class Watches(Generic[W]):
    """All watches of one server. A watcher gets the notifications; here it is a connection."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._data: _Table[W] = _Table(combine=profile.watches_combine)
        self._children: _Table[W] = _Table(combine=profile.watches_combine)

    @property
    def count(self) -> int:
        return self._data.count + self._children.count

    def watch_data(self, path: str, watcher: W) -> None:
        self._data.add(path, watcher, ONE_SHOT)

    def watch_children(self, path: str, watcher: W) -> None:
        self._children.add(path, watcher, ONE_SHOT)

    def watch_always(self, path: str, watcher: W, mode: Modes) -> None:
        """Add a persistent or recursive watch."""
        self._data.add(path, watcher, mode)
        if not (self._profile.watches_combine and mode == RECURSIVE):
            self._children.add(path, watcher, mode)

    def forget(self, watcher: W) -> None:
        """Drop all watches of a watcher."""
        self._data.forget(watcher)
        self._children.forget(watcher)

    def check(self, path: str, watcher: W, kind: int) -> bool:
        """Whether there is a watch of this kind. Up to 3.8 a watch of any client on the very path counts."""
        contains = _Table.concerns if self._profile.foreign_watch_counts else _Table.contains
        return any(contains(table, path, watcher, modes) for table, modes in self._chosen(kind))

    def remove(self, path: str, watcher: W, kind: int) -> bool:
        """Remove watches of this kind, and return whether there were any."""
        removed = [table.remove(path, watcher, modes) for table, modes in self._chosen(kind)]
        return any(removed)

    def trigger(self, change: Change) -> Iterator[Notification[W]]:
        """The notifications of a change, in order; one-shot watches are gone then."""
        path = change.path
        match change:
            case Created():
                yield from self._tell(self._data, EventKind.CREATED, path, change.acl)
                yield from self._tell(self._children, EventKind.CHILDREN_CHANGED, parent_of(path), change.parent_acl)
            case Deleted():
                told = list(self._tell(self._data, EventKind.DELETED, path, change.acl))
                yield from told
                known = {notification.watcher for notification in told}
                for notification in self._tell(self._children, EventKind.DELETED, path, change.acl):
                    if notification.watcher not in known:
                        yield notification
                yield from self._tell(self._children, EventKind.CHILDREN_CHANGED, parent_of(path), change.parent_acl)
            case DataChanged():
                yield from self._tell(self._data, EventKind.DATA_CHANGED, path, change.acl)

    @staticmethod
    def _tell(table: _Table[W], kind: EventKind, path: str, acl: ACL) -> Iterator[Notification[W]]:
        for watcher in table.trigger(path, kind):
            yield Notification(watcher, kind, path, acl)

    def _chosen(self, kind: int) -> list[tuple[_Table[W], Modes]]:
        """The tables, and the modes in them, that a kind of watch means; all modes before kinds were told apart."""
        everything = ONE_SHOT | PERSISTENT | RECURSIVE
        standard = ONE_SHOT if self._profile.watches_combine else everything
        return {
            CHILDREN: [(self._children, standard)],
            DATA: [(self._data, standard)],
            ANY: [(self._children, everything), (self._data, everything)],
            PERSISTENT_ONLY: [(self._children, PERSISTENT), (self._data, PERSISTENT)],
            RECURSIVE_ONLY: [(self._data, RECURSIVE)],
        }[kind]


class _Table(Generic[W]):
    def __init__(self, *, combine: bool) -> None:
        self._combine = combine
        self._by_path: dict[str, dict[W, Modes]] = {}
        self._by_watcher: dict[W, dict[str, None]] = {}
        self._recursive = 0

    @property
    def count(self) -> int:
        return sum(map(len, self._by_path.values()))

    def add(self, path: str, watcher: W, mode: Modes) -> None:
        before = self._by_path.setdefault(path, {}).get(watcher, 0)
        self._set(path, watcher, before, before | mode if self._combine else mode)

    def remove(self, path: str, watcher: W, modes: Modes) -> bool:
        before = self._by_path.get(path, {}).get(watcher, 0)
        if before & modes:
            self._set(path, watcher, before, before & ~modes)
        return bool(before & modes)

    def contains(self, path: str, watcher: W, modes: Modes) -> bool:
        return bool(self._by_path.get(path, {}).get(watcher, 0) & modes)

    def concerns(self, path: str, watcher: W, modes: Modes) -> bool:  # noqa: ARG002  # as `contains`
        return path in self._by_path

    def forget(self, watcher: W) -> None:
        for path in list(self._by_watcher.get(watcher, ())):
            self.remove(path, watcher, ~0)

    def trigger(self, path: str, kind: EventKind) -> list[W]:
        told: dict[W, None] = {}
        for watcher, modes in list(self._by_path.get(path, {}).items()):
            if modes != RECURSIVE or kind is not EventKind.CHILDREN_CHANGED:
                told[watcher] = None
            if modes & ONE_SHOT:
                self._set(path, watcher, modes, modes & ~ONE_SHOT)
        if self._recursive and kind is not EventKind.CHILDREN_CHANGED:
            for above in _above(path):
                for watcher, modes in self._by_path.get(above, {}).items():
                    if modes & RECURSIVE:
                        told[watcher] = None
        return list(told)

    def _set(self, path: str, watcher: W, before: Modes, after: Modes) -> None:
        self._recursive += bool(after & RECURSIVE) - bool(before & RECURSIVE)
        if after:
            self._by_path[path][watcher] = after
            self._by_watcher.setdefault(watcher, {})[path] = None
            return
        watchers, paths = self._by_path[path], self._by_watcher[watcher]
        del watchers[watcher], paths[path]
        if not watchers:
            del self._by_path[path]
        if not paths:
            del self._by_watcher[watcher]


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = parent_of(path)
        yield path
