"""A ZooKeeper server's table of one connection's watches, by the rules of 3.8 and of 3.9.

From ``WatchManager.triggerWatch``, ``DataTree.setWatches``, ``DataTree.addWatch`` and ``DataTree.removeWatch``. In 3.8
data and exists watches live in one table with recursive ones, where a path has one mode: the last one set. Since 3.9
(ZOOKEEPER-4466) both are kept.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

CREATED, DELETED, CHANGED, CHILDREN_CHANGED = 1, 2, 3, 4


class Mode(enum.Enum):
    ONE_SHOT = enum.auto()
    RECURSIVE = enum.auto()


class Node:
    def __init__(self, zxid: int) -> None:
        self.mzxid = self.pzxid = zxid


class WatchTables:
    """The two tables of a connection; methods return the events that are due, as (kind, path)."""

    def __init__(self, *, one_mode_per_path: bool) -> None:
        self._data: dict[str, set[Mode]] = {}
        self._child: set[str] = set()
        self._one_mode_per_path = one_mode_per_path

    def add(self, path: str, mode: Mode) -> None:
        modes = self._data.setdefault(path, set())
        if self._one_mode_per_path:
            modes.clear()
        modes.add(mode)

    def add_child(self, path: str) -> None:
        self._child.add(path)

    def remove(self, path: str) -> bool:
        """All of a path's; whether there were any."""
        had = path in self._child or bool(self._data.get(path))
        self._child.discard(path)
        self._data.pop(path, None)
        return had

    def created(self, path: str) -> list[tuple[int, str]]:
        return self._data_event(CREATED, path) + self._child_event(CHILDREN_CHANGED, parent_of(path))

    def changed(self, path: str) -> list[tuple[int, str]]:
        return self._data_event(CHANGED, path)

    def deleted(self, path: str) -> list[tuple[int, str]]:
        told = self._data_event(DELETED, path)
        told_twice = self._child_event(DELETED, path)
        return (told or told_twice) + self._child_event(CHILDREN_CHANGED, parent_of(path))

    def set_again(
        self,
        nodes: dict[str, Node],
        relative_zxid: int,
        data: Sequence[str],
        exist: Sequence[str],
        child: Sequence[str],
        recursive: Sequence[str],
    ) -> list[tuple[int, str]]:
        events = []
        for path in data:
            if path not in nodes:
                events.append((DELETED, path))
            elif nodes[path].mzxid > relative_zxid:
                events.append((CHANGED, path))
            else:
                self.add(path, Mode.ONE_SHOT)
        for path in exist:
            if path in nodes:
                events.append((CREATED, path))
            else:
                self.add(path, Mode.ONE_SHOT)
        for path in child:
            if path not in nodes:
                events.append((DELETED, path))
            elif nodes[path].pzxid > relative_zxid:
                events.append((CHILDREN_CHANGED, path))
            else:
                self.add_child(path)
        for path in recursive:
            self.add(path, Mode.RECURSIVE)
        return events

    def _data_event(self, kind: int, path: str) -> list[tuple[int, str]]:
        at_path = self._data.get(path, set())
        told = bool(at_path) or any(Mode.RECURSIVE in self._data.get(above, ()) for above in lineage(path))
        at_path.discard(Mode.ONE_SHOT)
        return [(kind, path)] if told else []

    def _child_event(self, kind: int, path: str) -> list[tuple[int, str]]:
        if path not in self._child:
            return []
        self._child.discard(path)
        return [(kind, path)]


def parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def lineage(path: str) -> Iterator[str]:
    """The path and what is above it."""
    while path != "/":
        yield path
        path = parent_of(path)
    yield "/"
