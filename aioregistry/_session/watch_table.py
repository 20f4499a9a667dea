"""The watches: one registry for all users of a session. Pure: it takes requests, answers and fired events.

Two rules make sharing necessary. Before ZooKeeper 3.9 a one-shot data or exists watch silently replaces a recursive
one on the same path of the same connection (ZOOKEEPER-4466): so a read that asks for one where a recursive watch is
armed is sent without, since the recursive one fires for the same changes. And ``RemoveWatches(Any)`` drops both
kinds: so a recursive watch goes only with its last user, and stays if a one-shot watch shares its path.

A persistent watch reports nothing of the past. So a one-shot watch that was left to a recursive one is restored as
both: the one-shot reports the changes in between, and the recursive one, set after it, replaces it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aioregistry._protocol import (
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

__all__ = ["OneShot", "WatchTable"]

Callback = Callable[[WatchedEvent], None]


class OneShot(enum.Enum):
    """The kinds of one-shot watches that a server keeps apart when they are restored."""

    DATA = "data"
    EXIST = "exist"
    CHILD = "child"


# By opcode, because aiozk's requests come this way too: the watch that a successful read with watch=True armed.
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
_RESTORE_HEAD = 64
"""Covers the parts of a request beside its paths: header, zxid and the counts of five lists."""


class WatchTable:
    """The listeners, and the watches that are armed on the server for them."""

    def __init__(self) -> None:
        self._exact: dict[str, list[Callback]] = {}
        self._trees: dict[str, list[Callback]] = {}
        self._longest_tree = 0
        """Characters of the longest path in it."""
        self._one_shot: dict[OneShot, dict[str, None]] = {kind: {} for kind in OneShot}
        self._covered: dict[str, OneShot] = {}
        """Paths whose one-shot watch was left to a recursive one, and the kind of that watch."""
        self._asked_trees: dict[str, None] = {}
        """Recursive watches that were asked for, and not replaced since."""
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
        self._longest_tree = max(self._longest_tree, len(path))

    def unlisten_tree(self, path: str, callback: Callback) -> bool:
        """Return whether the server's recursive watch on *path* is to be removed now."""
        _discard(self._trees, path, callback)
        if path in self._trees:
            return False
        if len(path) == self._longest_tree:
            self._longest_tree = max(map(len, self._trees), default=0)
        return self._spare(path)

    def _spare(self, path: str) -> bool:
        """Forget the recursive watch on *path* if it exists, unless a one-shot watch would go with it."""
        shared = path in self._covered or any(path in asked for asked in self._one_shot.values())
        if shared or path not in self._armed_trees:
            return False
        del self._armed_trees[path]
        return True

    # ------------------------------------------------------------------ armed watches

    def is_tree_armed(self, path: str) -> bool:
        return path in self._armed_trees

    def tree_asked(self, path: str) -> None:
        """A recursive watch on *path* is about to be asked for."""
        self._asked_trees[path] = None

    def trees_armed(self, paths: Sequence[str]) -> list[str]:
        """The server has set these recursive watches; return those that are no longer used."""
        for path in paths:
            if path in self._asked_trees:
                del self._asked_trees[path]
                self._armed_trees[path] = None
        return [path for path in paths if path not in self._trees and self._spare(path)]

    def one_shot_asked(self, opcode: int, path: str) -> bool:
        """A read with watch=True is about to be sent; return False where it must leave that to a recursive watch."""
        if opcode in _COVERED_BY_RECURSIVE:
            if path in self._armed_trees:
                self._covered[path] = OneShot.DATA
                return False
            self._asked_trees.pop(path, None)
        # Noted before the answer, so that it is not removed meanwhile.
        self._one_shot[_ARMED_BY_SUCCESS[opcode]][path] = None
        return True

    def read_answered(self, opcode: int, path: str, *, watch: bool, found: bool) -> None:
        """A read, sent with watch=True or not, was answered: with a result, or with NoNode."""
        armed = _ARMED_BY_SUCCESS[opcode] if found else OneShot.EXIST
        if not watch:
            if path in self._covered and opcode in _COVERED_BY_RECURSIVE:
                self._covered[path] = armed
        elif found or opcode == Exists.opcode:
            self._one_shot[armed][path] = None
        if not found:
            self._one_shot[OneShot.DATA].pop(path, None)
            self._one_shot[OneShot.CHILD].pop(path, None)

    def disconnected(self) -> None:
        """The connection ended: recursive watches are set again by :meth:`restore` or by their users."""
        self._asked_trees.clear()
        self._armed_trees.clear()
        for path, kind in self._covered.items():
            self._one_shot[kind][path] = None
        self._covered.clear()

    # ------------------------------------------------------------------ events

    def fire(self, event: WatchedEvent) -> list[Callback]:
        """Take note of *event* and return the listeners to call, in the order in which they came."""
        for kind in _FIRED[event.kind]:
            self._one_shot[kind].pop(event.path, None)
        called = list(self._exact.get(event.path, ()))
        for path in _lineage(event.path, self._longest_tree):
            called += self._trees.get(path, ())
        return called

    # ------------------------------------------------------------------ after a reconnect

    def restore(self, relative_zxid: int, *, recursive: bool, max_request: int) -> list[Message[Any]]:
        """Return the requests that set the watches still in use, each of at most *max_request* bytes.

        *recursive* where the server is known to have recursive watches. One-shot watches are compared by the server
        with *relative_zxid*: what changed since fires at once.
        """
        entries: list[tuple[OneShot | None, str]] = []
        for kind, paths in self._one_shot.items():
            for path in [path for path in paths if path not in self._exact]:
                del paths[path]
            entries += [(kind, path) for path in paths]
        if recursive:
            # Last: the server works off a request in this order too (DataTree.setWatches), and the later one replaces.
            self._asked_trees.update(dict.fromkeys(self._trees))
            entries += [(None, path) for path in self._trees]
        limit = min(_RESTORE_BYTES, max_request - _RESTORE_HEAD)
        return [self._restoring(chunk, relative_zxid, recursive=recursive) for chunk in _chunks(entries, limit)]

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


def _lineage(path: str, longest: int) -> Iterator[str]:
    """The path itself and its ancestors, as far as they have *longest* characters at most, and the root.

    A client that may write below a watched path makes nodes as deep as it likes, and all ancestors of a path of 100 kB
    have 2.5 GB together.
    """
    if len(path) > longest:
        path = path[: path.rfind("/", 0, longest + 1)]
    while len(path) > 1:
        yield path
        path = path.rpartition("/")[0]
    yield "/"


def _chunks(entries: list[tuple[OneShot | None, str]], limit: int) -> Iterator[list[tuple[OneShot | None, str]]]:
    chunk: list[tuple[OneShot | None, str]] = []
    size = 0
    for entry in entries:
        length = 4 + len(entry[1].encode())
        if chunk and size + length > limit:
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += length
    if chunk:
        yield chunk
