"""Who watches what: one registry for all users of a session. Pure: it is told what was sent, answered and fired.

Two rules make sharing necessary. Before ZooKeeper 3.9 a one-shot data or exists watch silently replaces a recursive
one on the same path of the same connection (ZOOKEEPER-4466): so a read that asks for one where a recursive watch is
armed is sent without, since the recursive one fires for the same changes. And ``RemoveWatches(Any)`` drops both
kinds: so a recursive watch goes only with its last user, and stays if a one-shot watch shares its path.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Any

from aioregistry.protocol import (
    EventKind,
    Exists,
    GetChildren,
    GetChildren2,
    GetData,
    Message,
    SetWatches,
    SetWatches2,
    WatchedEvent,
)

__all__ = ["OneShot", "Watches"]

Callback = Callable[[WatchedEvent], None]


class OneShot(enum.Enum):
    """The kinds of one-shot watches that a server keeps apart when they are restored."""

    DATA = "data"
    EXIST = "exist"
    CHILD = "child"


# By opcode, because aiozk's requests come this way too: what a successful read with watch=True armed.
_ARMED_BY_SUCCESS = {
    GetData.opcode: OneShot.DATA,
    Exists.opcode: OneShot.DATA,
    GetChildren.opcode: OneShot.CHILD,
    GetChildren2.opcode: OneShot.CHILD,
}
_COVERED_BY_RECURSIVE = {GetData.opcode, Exists.opcode}

_FIRED: dict[EventKind, tuple[OneShot, ...]] = {
    EventKind.CREATED: (OneShot.DATA, OneShot.EXIST),
    EventKind.DATA_CHANGED: (OneShot.DATA, OneShot.EXIST),
    EventKind.DELETED: (OneShot.DATA, OneShot.EXIST, OneShot.CHILD),
    EventKind.CHILDREN_CHANGED: (OneShot.CHILD,),
    EventKind.DATA_WATCH_REMOVED: (OneShot.DATA, OneShot.EXIST),
    EventKind.CHILD_WATCH_REMOVED: (OneShot.CHILD,),
    EventKind.PERSISTENT_WATCH_REMOVED: (),
    EventKind.NONE: (),
}

# The Java client's SET_WATCHES_MAX_LENGTH: a request with everything could exceed jute.maxbuffer.
_RESTORE_BYTES = 128 * 1024


class Watches:
    """The listeners, and what is armed on the server for them."""

    def __init__(self) -> None:
        self._exact: dict[str, list[Callback]] = {}
        self._trees: dict[str, list[Callback]] = {}
        self._one_shot: dict[OneShot, dict[str, None]] = {kind: {} for kind in OneShot}
        self._covered: dict[str, None] = {}
        """Paths whose one-shot watch was left to a recursive one."""
        self._armed_trees: dict[str, None] = {}

    # ------------------------------------------------------------------ listeners

    def listen(self, path: str, callback: Callback) -> None:
        self._exact.setdefault(path, []).append(callback)

    def unlisten(self, path: str, callback: Callback) -> None:
        _discard(self._exact, path, callback)
        if path not in self._exact:
            self._covered.pop(path, None)

    def listen_tree(self, path: str, callback: Callback) -> None:
        self._trees.setdefault(path, []).append(callback)

    def unlisten_tree(self, path: str, callback: Callback) -> bool:
        """Return whether the server's recursive watch on *path* is to be removed now."""
        _discard(self._trees, path, callback)
        if path in self._trees or path not in self._armed_trees:
            return False
        shared = path in self._covered or any(path in armed for armed in self._one_shot.values())
        if not shared:
            del self._armed_trees[path]
        return not shared

    # ------------------------------------------------------------------ what is armed

    def armed_tree(self, path: str) -> None:
        """The recursive watch on *path* is set on the present connection."""
        self._armed_trees[path] = None

    def is_tree_armed(self, path: str) -> bool:
        return path in self._armed_trees

    def watch_is_covered(self, opcode: int, path: str) -> bool:
        """Return whether a read's one-shot watch must be left to a recursive one, and take note of it."""
        if opcode not in _COVERED_BY_RECURSIVE or path not in self._armed_trees:
            return False
        self._covered[path] = None
        return True

    def read_answered(self, opcode: int, path: str, *, found: bool) -> None:
        """A read with watch=True was answered: with a result, or with NoNode."""
        if found:
            self._one_shot[_ARMED_BY_SUCCESS[opcode]][path] = None
        elif opcode == Exists.opcode:
            self._one_shot[OneShot.EXIST][path] = None

    def disconnected(self) -> None:
        """The connection ended: recursive watches are set anew by :meth:`restore` or by their users."""
        self._armed_trees.clear()
        for path in self._covered:
            # What was left to a recursive watch is a data watch when restored: fires for every change since.
            self._one_shot[OneShot.DATA][path] = None
        self._covered.clear()

    # ------------------------------------------------------------------ events

    def fire(self, event: WatchedEvent) -> list[Callback]:
        """Take note of *event* and return who is to be called, in the order of their coming."""
        for kind in _FIRED[event.kind]:
            self._one_shot[kind].pop(event.path, None)
        self._covered.pop(event.path, None)
        called = list(self._exact.get(event.path, ()))
        for path in _lineage(event.path):
            called += self._trees.get(path, ())
        return called

    # ------------------------------------------------------------------ after a reconnect

    def restore(self, relative_zxid: int, *, recursive: bool) -> list[Message[Any]]:
        """Return the requests that set what somebody still listens to.

        *recursive* where the server is known to have recursive watches. One-shot watches are compared by the server with *relative_zxid*: what changed since fires at once.
        """
        entries: list[tuple[OneShot | None, str]] = []
        for kind, paths in self._one_shot.items():
            for path in [path for path in paths if path not in self._exact]:
                del paths[path]
            # Where a recursive watch comes back on the same path, a data watch would replace it.
            entries += [
                (kind, path) for path in paths if kind is OneShot.CHILD or not (recursive and path in self._trees)
            ]
        if recursive:
            entries += [(None, path) for path in self._trees]
        return [self._restoring(chunk, relative_zxid, recursive=recursive) for chunk in _chunks(entries)]

    def restored(self, *, recursive: bool) -> None:
        """The requests of :meth:`restore` were answered."""
        if recursive:
            self._armed_trees.update(dict.fromkeys(self._trees))

    def _restoring(self, entries: list[tuple[OneShot | None, str]], zxid: int, *, recursive: bool) -> Message[Any]:
        data, exist, child, trees = (
            [path for entry, path in entries if entry is kind]
            for kind in (OneShot.DATA, OneShot.EXIST, OneShot.CHILD, None)
        )
        if recursive:
            return SetWatches2(zxid, data, exist, child, (), trees)
        return SetWatches(zxid, data, exist, child)


def _discard(listeners: dict[str, list[Callback]], path: str, callback: Callback) -> None:
    remaining = listeners.get(path, [])
    if callback in remaining:
        remaining.remove(callback)
    if not remaining:
        listeners.pop(path, None)


def _lineage(path: str) -> Iterator[str]:
    """The path itself and its ancestors."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield "/"


def _chunks(entries: list[tuple[OneShot | None, str]]) -> Iterator[list[tuple[OneShot | None, str]]]:
    chunk: list[tuple[OneShot | None, str]] = []
    size = 0
    for entry in entries:
        length = 4 + len(entry[1].encode())
        if chunk and size + length > _RESTORE_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += length
    if chunk:
        yield chunk
