"""A model of ZooKeeper's tree, with the rules that registrations and views depend on.

Written from ``PrepRequestProcessor`` and ``DataTree`` of ZooKeeper 3.8.0: every new node has version 0, a deletion
checks the version and nothing else, a transaction is applied as a whole or not at all, and every write, a failing one
too, takes a zxid of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from aioregistry._errors import (
    BadVersion,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    RolledBack,
    RuntimeInconsistency,
    ServerError,
)
from aioregistry._protocol import (
    ANY_VERSION,
    Create,
    Create2,
    CreateContainer,
    CreateFlag,
    Delete,
    EventKind,
    Exists,
    GetChildren,
    GetChildren2,
    GetData,
    Message,
    Multi,
    MultiReply,
    SetData,
    Stat,
    Sync,
)
from tests.support.messages import Check

CONTAINER_OWNER = -(2**63)
_INT = 2**32


@dataclass(frozen=True)
class ModelNode:
    data: bytes
    owner: int
    czxid: int
    mzxid: int
    version: int = 0
    cversion: int = 0

    def stat(self, children: int) -> Stat:
        return Stat(
            self.czxid, self.mzxid, 0, 0, self.version, self.cversion, 0, self.owner, len(self.data), children, 0
        )


@dataclass(frozen=True)
class Change:
    """One thing that happened to one node, in the order of happening: what watches fire for."""

    kind: EventKind
    path: str
    zxid: int
    by: int
    """The session that did it; the owner's own where the session's end did it."""
    before: ModelNode | None
    after: ModelNode | None


class ModelTree:
    """The tree, and what sessions do to it."""

    def __init__(self) -> None:
        self.zxid = 0x1_0000_0000
        self.nodes: dict[str, ModelNode] = {"/": ModelNode(b"", 0, 0, 0)}
        self.sessions: dict[int, None] = {}
        """Those that live, in the order of their coming."""
        self.on_change: list[Callable[[Change], None]] = []
        self._next_session = 0x1000_0000

    # ------------------------------------------------------------------ sessions

    def open_session(self) -> int:
        self.zxid += 1
        self._next_session += 1
        self.sessions[self._next_session] = None
        return self._next_session

    def end_session(self, session_id: int) -> None:
        """Expire or close it: one transaction that deletes what it owns."""
        self.zxid += 1
        self.sessions.pop(session_id, None)
        for path in [path for path, node in self.nodes.items() if node.owner == session_id]:
            node = self.nodes.pop(path)
            self._count_below(path.rpartition("/")[0] or "/", self.nodes)
            self._tell([Change(EventKind.DELETED, path, self.zxid, session_id, node, None)])

    # ------------------------------------------------------------------ requests

    def apply(self, session_id: int, message: Message[Any]) -> Any:
        """Return the value of the reply; raises the ServerError that the header would carry."""
        if isinstance(message, Sync):
            return message.path
        if not message.writes:
            return self._read(message)
        self.zxid += 1
        draft = dict(self.nodes)
        if isinstance(message, Multi):
            return self._transaction(session_id, message, draft)
        changes: list[Change] = []
        try:
            result = self._write(session_id, message, draft, changes)
        except ServerError as error:
            error.zxid = self.zxid
            raise
        self._commit(draft, changes)
        return result

    def node(self, path: str) -> ModelNode | None:
        return self.nodes.get(path)

    def children(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        names = (other.removeprefix(prefix) for other in self.nodes if other.startswith(prefix) and other != path)
        return sorted(name for name in names if name and "/" not in name)

    def _read(self, message: Message[Any]) -> Any:
        path = str(message.path)
        node = self.nodes.get(path)
        if node is None:
            raise NoNode(path, self.zxid)
        match message:
            case GetData():
                return node.data, node.stat(len(self.children(path)))
            case Exists():
                return node.stat(len(self.children(path)))
            case GetChildren():
                return self.children(path)
            case GetChildren2():
                children = self.children(path)
                return children, node.stat(len(children))
        raise NotImplementedError(message.subject)

    def _transaction(self, session_id: int, message: Multi, draft: dict[str, ModelNode]) -> MultiReply:
        results: list[Any] = []
        changes: list[Change] = []
        for index, operation in enumerate(message.ops):
            try:
                results.append(self._write(session_id, operation, draft, changes))
            except ServerError as error:
                before: list[Any] = [RolledBack(earlier.path) for earlier in message.ops[:index]]
                behind = [RuntimeInconsistency(later.path) for later in message.ops[index + 1 :]]
                return MultiReply([*before, error, *behind])
        self._commit(draft, changes)
        return MultiReply(results)

    def _write(self, session_id: int, message: Message[Any], draft: dict[str, ModelNode], changes: list[Change]) -> Any:
        match message:
            case Create() | Create2():
                return self._create(session_id, message, draft, changes)
            case Check():
                self._of_version(message, draft)
                return None
            case Delete():
                return self._delete(session_id, message, draft, changes)
            case SetData():
                return self._set_data(session_id, message, draft, changes)
        raise NotImplementedError(message.subject)

    def _create(
        self, session_id: int, message: Create | Create2, draft: dict[str, ModelNode], changes: list[Change]
    ) -> Any:
        path = message.path
        parent_path = path.rpartition("/")[0] or "/"
        parent = draft.get(parent_path)
        if parent is None:
            raise NoNode(path)
        if path in draft:
            raise NodeExists(path)
        if parent.owner not in (0, CONTAINER_OWNER):
            raise NoChildrenForEphemerals(path)
        owners = {CreateFlag.EPHEMERAL: session_id, CreateFlag.CONTAINER: CONTAINER_OWNER}
        node = ModelNode(message.data, owners.get(CreateFlag(message.flags), 0), self.zxid, self.zxid)
        draft[path] = node
        self._count_below(parent_path, draft)
        changes.append(Change(EventKind.CREATED, path, self.zxid, session_id, None, node))
        if isinstance(message, Create2 | CreateContainer):
            return path, node.stat(0)
        return path

    def _count_below(self, parent_path: str, draft: dict[str, ModelNode]) -> None:
        """A node came or went below: as clients see it, ``cversion`` counts both (``DataNode.copyStat``)."""
        parent = draft[parent_path]
        draft[parent_path] = replace(parent, cversion=parent.cversion + 1)

    def _delete(self, session_id: int, message: Delete, draft: dict[str, ModelNode], changes: list[Change]) -> None:
        node = self._of_version(message, draft)
        prefix = f"{message.path}/"
        if any(path.startswith(prefix) for path in draft):
            raise NotEmpty(message.path)
        del draft[message.path]
        self._count_below(message.path.rpartition("/")[0] or "/", draft)
        changes.append(Change(EventKind.DELETED, message.path, self.zxid, session_id, node, None))

    def _set_data(self, session_id: int, message: SetData, draft: dict[str, ModelNode], changes: list[Change]) -> Stat:
        node = self._of_version(message, draft)
        version = (node.version + 1 + _INT // 2) % _INT - _INT // 2
        changed = replace(node, data=message.data, mzxid=self.zxid, version=version)
        draft[message.path] = changed
        changes.append(Change(EventKind.DATA_CHANGED, message.path, self.zxid, session_id, node, changed))
        return changed.stat(0)

    def _of_version(self, message: Delete | SetData, draft: dict[str, ModelNode]) -> ModelNode:
        node = draft.get(message.path)
        if node is None:
            raise NoNode(message.path)
        if message.version not in (ANY_VERSION, node.version):
            raise BadVersion(message.path)
        return node

    def _commit(self, draft: dict[str, ModelNode], changes: list[Change]) -> None:
        self.nodes = draft
        self._tell(changes)

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            for callback in list(self.on_change):
                callback(change)

    # ------------------------------------------------------------------ what people do

    def make(self, path: str, data: bytes = b"") -> None:
        """Make a persistent node and the parents it lacks."""
        for depth in range(1, len(path.split("/"))):
            parent = "/".join(path.split("/")[: depth + 1])
            if parent not in self.nodes:
                self.apply(0, Create(parent, data if parent == path else b""))

    def delete(self, path: str) -> None:
        """Delete a node, whoever owns it and whatever its version."""
        self.apply(0, Delete(path))

    def set_data(self, path: str, data: bytes) -> None:
        """Overwrite a node's data, whoever owns it and whatever its version."""
        self.apply(0, SetData(path, data))

    def age(self, path: str, version: int) -> None:
        """Give a node the version that so many changes would have."""
        self.nodes[path] = replace(self.nodes[path], version=version)
