"""The tree of nodes (pure): the writes that change it, and those that it refuses.

A write is *executed* where transactions are made: it is checked, and becomes changes, which are applied at once.
Replicas *replay* the same changes unchecked. Time and zxids come in as arguments. The source of the rules and of their
order is ``PrepRequestProcessor`` and ``DataTree`` of ZooKeeper 3.8.0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from aioregistry.server import _acl as access
from aioregistry.server._acl import ACL, Rule
from aioregistry.server._codes import Code, Malformed, Opcode, Refused
from aioregistry.server._nodes import SPECIAL, Node, int32, parent_of, require_valid, split_path
from aioregistry.server._operations import (
    ACLChanged,
    Caller,
    Change,
    Check,
    Contradiction,
    Create,
    Created,
    DataChanged,
    Delete,
    DeleteContainer,
    Deleted,
    Kind,
    Moment,
    Operation,
    Result,
    SetACL,
    SetData,
)
from aioregistry.server._profiles import PROFILES, Profile

Undo: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class _Mode:
    kind: Kind = Kind.PERSISTENT
    sequential: bool = False


_MODES: Final = {
    0: _Mode(),
    1: _Mode(Kind.EPHEMERAL),
    2: _Mode(sequential=True),
    3: _Mode(Kind.EPHEMERAL, sequential=True),
    4: _Mode(Kind.CONTAINER),
    5: _Mode(Kind.TTL),
    6: _Mode(Kind.TTL, sequential=True),
}
"""By flag (``CreateMode``)."""

FLAGS: Final = frozenset(_MODES)

MAX_TTL_MS: Final = 2**40 - 1


class Tree:
    """The nodes, and who owns which.

    Args:
        extended_types: whether nodes with a TTL can be made.
        x509: whether ACLs may name certificates' subjects.
        profile: the ways of a release.
        config: the data of ``/zookeeper/config``.
    """

    def __init__(
        self,
        *,
        extended_types: bool = True,
        x509: bool = False,
        profile: Profile = PROFILES["3.8"],
        config: bytes = b"",
    ) -> None:
        self._extended_types = extended_types
        self._x509 = x509
        self._profile = profile
        beginning = Moment(0, 0)

        def node(data: bytes, acl: ACL) -> Node:
            return Node(data, acl, Kind.PERSISTENT, 0, 0, beginning)

        root = node(b"", access.OPEN)
        # The root has two names, so that whatever stands before the first slash of a path is a node.
        self.nodes: dict[str, Node] = {"": root, "/": root}
        for path in ("/zookeeper", "/zookeeper/quota"):
            self._insert(path, node(b"", access.OPEN))
        config_node = node(config, access.READ_ONLY)
        config_node.aversion = -1
        self._insert("/zookeeper/config", config_node)
        self.ephemerals: dict[int, dict[str, None]] = {}
        self._short_lived: dict[str, None] = {}  # containers and nodes with a TTL

    def copy(self) -> Tree:
        """An independent copy."""
        duplicate = copy.copy(self)
        duplicate.nodes = {}
        for path, node in self.nodes.items():
            if path != "/":
                twin = copy.copy(node)
                twin.children = dict(node.children)
                duplicate.nodes[path] = twin
        duplicate.nodes["/"] = duplicate.nodes[""]
        duplicate.ephemerals = {session: dict(paths) for session, paths in self.ephemerals.items()}
        duplicate._short_lived = dict(self._short_lived)
        return duplicate

    def read(self, path: str | None) -> Node:
        """The node of a path, unchecked as the real server's reads: the empty path is the root.

        Raises:
            Refused: it does not exist.
        """
        if path is None:
            raise Malformed
        node = self.nodes.get(path)
        if node is None:
            raise Refused(Code.NO_NODE)
        return node

    def count_below(self, path: str) -> int:
        """How many nodes there are below a path."""
        if path == "/":
            return len(self.nodes) - 2
        prefix = f"{path}/"
        return sum(name.startswith(prefix) for name in self.nodes)

    def expendable(self, now_ms: int) -> list[str]:
        """Containers that lost their last child, and childless nodes whose time is over (``ContainerManager``)."""
        return [path for path in self._short_lived if _is_expendable(self.nodes[path], now_ms)]

    # ------------------------------------------------------------ writes

    def execute(self, operation: Operation, caller: Caller, moment: Moment) -> tuple[Result, list[Change]]:
        """Check one operation, apply it, and return its result and its changes.

        Raises:
            Refused: it may not be; nothing is changed.
            Malformed: it is of a form that the real server stumbles over.
        """
        result, changes, _ = self._execute(operation, caller, moment)
        return result, changes

    def execute_all(
        self, operations: Iterable[Operation], caller: Caller, moment: Moment
    ) -> tuple[list[Result], list[Change]]:
        """All operations, each seeing what those before it did, or nothing.

        Raises:
            Aborted: one was refused, and nothing is changed.
        """
        results: list[Result] = []
        changes: list[Change] = []
        undos: list[Undo] = []
        try:
            for operation in operations:
                result, changed, undo = self._execute(operation, caller, moment)
                results.append(result)
                changes += changed
                undos += undo
        except (Refused, Malformed) as error:
            for revert in reversed(undos):
                revert()
            if isinstance(error, Malformed):
                raise
            raise Aborted(len(results), error.code) from error
        return results, changes

    def end_session(self, session: int, moment: Moment) -> list[Change]:
        """Delete the nodes that a session owns."""
        changes: list[Change] = []
        for path in list(self.ephemerals.get(session, ())):
            changes.append(deleted := self._deleted(path, moment))
            self._apply(deleted)
        return changes

    def replay(self, changes: Iterable[Change]) -> None:
        """Apply a transaction that was executed elsewhere on the same tree."""
        for change in changes:
            self._apply(change)

    # ------------------------------------------------------------ checks, in the real server's order

    def _execute(self, operation: Operation, caller: Caller, moment: Moment) -> tuple[Result, list[Change], list[Undo]]:
        change = self._check(operation, caller, moment)
        if change is None:
            return Result(), [], []
        undo = self._apply(change)
        path = operation.path
        if isinstance(change, Deleted):
            return Result(path), [change], [undo]
        return Result(change.path, self.nodes[change.path].stat()), [change], [undo]

    def _check(self, operation: Operation, caller: Caller, moment: Moment) -> Change | None:
        match operation:
            case Create():
                return self._check_create(operation, caller, moment)
            case Delete():
                return self._check_delete(operation, caller, moment)
            case SetData():
                return self._check_set_data(operation, caller, moment)
            case SetACL():
                return self._check_set_acl(operation, caller)
            case DeleteContainer():
                return self._check_delete_container(operation, moment)
            case Check():
                self._check_version(operation, caller)
                return None
            case Contradiction():
                raise Malformed

    def _check_create(self, operation: Create, caller: Caller, moment: Moment) -> Created:
        mode = _MODES.get(operation.flags)
        if mode is None:
            raise Refused(Code.BAD_ARGUMENTS)
        self._check_ttl(mode, operation)
        parent_path = split_path(operation.path)
        path = operation.path or ""
        acl = self._resolve(operation.acl, caller)
        parent = self.read(parent_path)
        _require(parent, access.CREATE, caller)
        if mode.sequential:
            path += f"{parent.cversion:010d}"
        require_valid(path)
        if path in self.nodes:
            raise Refused(Code.NODE_EXISTS)
        if parent.kind is Kind.EPHEMERAL:
            raise Refused(Code.NO_CHILDREN_FOR_EPHEMERALS)
        kind = _kind(operation.opcode, mode)
        owner = caller.session if kind is Kind.EPHEMERAL else 0
        return Created(
            path, operation.data, acl, parent.acl, kind, owner, operation.ttl_ms, int32(parent.cversion + 1), moment
        )

    def _check_ttl(self, mode: _Mode, operation: Create) -> None:
        has_ttl = mode.kind is Kind.TTL
        if has_ttl and not self._extended_types:
            raise Refused(Code.UNIMPLEMENTED)
        # A CreateTTL with other flags and a negative time passes the real server's checks, and ends it when applied.
        proper = 0 < operation.ttl_ms <= MAX_TTL_MS if has_ttl else operation.ttl_ms < 0
        if not proper or (operation.opcode == Opcode.CREATE_TTL and not has_ttl):
            raise Refused(Code.BAD_ARGUMENTS)

    def _check_delete(self, operation: Delete, caller: Caller, moment: Moment) -> Deleted:
        parent_path = split_path(operation.path)
        path = operation.path or ""
        if path in SPECIAL:
            raise Refused(Code.BAD_ARGUMENTS)
        parent = self.read(parent_path)
        if self._profile.absence_before_acl:
            self.read(path)
        _require(parent, access.DELETE, caller)
        node = self.read(path)
        _require_version(node.version, operation.version)
        if node.children:
            raise Refused(Code.NOT_EMPTY)
        return self._deleted(path, moment)

    def _check_delete_container(self, operation: DeleteContainer, moment: Moment) -> Deleted:
        parent_path = split_path(operation.path)
        if operation.path in SPECIAL:
            raise Refused(Code.BAD_ARGUMENTS)
        node = self.read(operation.path)
        if node.children:
            raise Refused(Code.NOT_EMPTY)
        if node.kind is Kind.EPHEMERAL:
            raise Refused(Code.BAD_VERSION)
        self.read(parent_path)
        return self._deleted(operation.path, moment)

    def _resolve(self, acl: Iterable[Rule] | None, caller: Caller) -> ACL:
        if acl is None and not self._profile.null_acls:
            raise Malformed
        return access.resolve(acl, caller.identities, x509=self._x509)

    def _check_set_data(self, operation: SetData, caller: Caller, moment: Moment) -> DataChanged:
        path = require_valid(operation.path)
        node = self.read(path)
        _require(node, access.WRITE, caller)
        _require_version(node.version, operation.version)
        return DataChanged(path, operation.data, node.acl, int32(node.version + 1), moment)

    def _check_set_acl(self, operation: SetACL, caller: Caller) -> ACLChanged:
        path = require_valid(operation.path)
        acl = self._resolve(operation.acl, caller)
        node = self.read(path)
        _require(node, access.ADMIN, caller)
        _require_version(node.aversion, operation.version)
        return ACLChanged(path, acl, int32(node.aversion + 1))

    def _check_version(self, operation: Check, caller: Caller) -> None:
        node = self.read(require_valid(operation.path))
        _require(node, access.READ, caller)
        _require_version(node.version, operation.version)

    # ------------------------------------------------------------ changes

    def _deleted(self, path: str, moment: Moment) -> Deleted:
        return Deleted(path, self.nodes[path].acl, self.nodes[parent_of(path)].acl, moment)

    def _apply(self, change: Change) -> Undo:
        match change:
            case Created():
                return self._create(change)
            case Deleted():
                return self._delete(change)
            case DataChanged():
                return self._set_data(change)
            case ACLChanged():
                return self._set_acl(change)

    def _create(self, change: Created) -> Undo:
        parent = self.nodes[parent_of(change.path)]
        before = parent.cversion, parent.pzxid
        node = Node(change.data, change.acl, change.kind, change.owner, change.ttl_ms, change.moment)
        if change.cversion > parent.cversion:
            parent.cversion, parent.pzxid = change.cversion, change.moment.zxid
        self._insert(change.path, node)
        self._own(change.path, node)

        def undo() -> None:
            self._remove(change.path)
            parent.cversion, parent.pzxid = before

        return undo

    def _delete(self, change: Deleted) -> Undo:
        parent = self.nodes[parent_of(change.path)]
        before = parent.pzxid
        parent.pzxid = max(before, change.moment.zxid)
        node = self._remove(change.path)

        def undo() -> None:
            self._insert(change.path, node)
            self._own(change.path, node)
            parent.pzxid = before

        return undo

    def _set_data(self, change: DataChanged) -> Undo:
        node = self.nodes[change.path]
        before = node.data, node.version, node.mzxid, node.mtime
        node.data, node.version = change.data, change.version
        node.mzxid, node.mtime = change.moment
        node.packed = None

        def undo() -> None:
            node.data, node.version, node.mzxid, node.mtime = before
            node.packed = None

        return undo

    def _set_acl(self, change: ACLChanged) -> Undo:
        node = self.nodes[change.path]
        before = node.acl, node.aversion
        node.acl, node.aversion = change.acl, change.version
        node.packed = None

        def undo() -> None:
            node.acl, node.aversion = before
            node.packed = None

        return undo

    def _insert(self, path: str, node: Node) -> None:
        parent = self.nodes[parent_of(path)]
        parent.children[path[path.rindex("/") + 1 :]] = None
        parent.packed = None
        self.nodes[path] = node

    def _own(self, path: str, node: Node) -> None:
        if node.kind is Kind.EPHEMERAL:
            self.ephemerals.setdefault(node.owner, {})[path] = None
        elif node.kind is not Kind.PERSISTENT:
            self._short_lived[path] = None

    def _remove(self, path: str) -> Node:
        node = self.nodes.pop(path)
        parent = self.nodes[parent_of(path)]
        del parent.children[path[path.rindex("/") + 1 :]]
        parent.packed = None
        if node.kind is Kind.EPHEMERAL:
            owned = self.ephemerals[node.owner]
            del owned[path]
            if not owned:
                del self.ephemerals[node.owner]
        elif node.kind is not Kind.PERSISTENT:
            del self._short_lived[path]
        return node


class Aborted(Exception):
    """A transaction failed by the operation with this index."""

    def __init__(self, index: int, code: int) -> None:
        super().__init__(index, code)
        self.index = index
        self.code = code


def _kind(opcode: int, mode: _Mode) -> Kind:
    """The opcode decides about containers and TTLs, the flags about ephemerals (``DataTree.processTxn``)."""
    if opcode == Opcode.CREATE_CONTAINER:
        return Kind.CONTAINER
    if opcode == Opcode.CREATE_TTL:
        return Kind.TTL
    return Kind.EPHEMERAL if mode.kind is Kind.EPHEMERAL else Kind.PERSISTENT


def _require(node: Node, permission: int, caller: Caller) -> None:
    if not access.permits(node.acl, permission, caller.identities):
        raise Refused(Code.NO_AUTH)


def _require_version(actual: int, expected: int) -> None:
    if expected not in (-1, actual):
        raise Refused(Code.BAD_VERSION)


def _is_expendable(node: Node, now_ms: int) -> bool:
    if node.children:
        return False
    if node.kind is Kind.CONTAINER:
        return node.cversion > 0  # a container that never had a child may be about to get its first
    return now_ms - node.mtime > node.ttl_ms
