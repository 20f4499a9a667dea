"""Requests that are answered from the server's own tree: reads and watches.

Each answers with the reply's body, or raises Refused; what it raises otherwise (Malformed, struct.error) says that the
request cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Self

from aioregistry.server import _acl as access
from aioregistry.server import _requests as requests
from aioregistry.server._codes import Code, EventKind, Malformed, Opcode, Refused
from aioregistry.server._connection import Connection
from aioregistry.server._nodes import Node
from aioregistry.server._replica import Replica
from aioregistry.server._requests import Read, Reader
from aioregistry.server._watches import MODES, PERSISTENT, RECURSIVE

BODY: Final = 8
"""Where in a frame a request's body begins, behind xid and opcode."""


class Incomplete(Malformed):
    """A request fails whole after a part of its answer was made, which is sent all the same."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.body = body


def _readable(replica: Replica, connection: Connection, path: str | None, permission: int = access.READ) -> Node:
    node = replica.tree.read(path)
    if not access.permits(node.acl, permission, connection.identities):
        raise Refused(Code.NO_AUTH)
    return node


def _path_and_watch(frame: bytes) -> tuple[str, bool]:
    reader = Reader(frame, BODY)
    path = reader.string()
    if path is None:
        raise Malformed
    return path, reader.flag()


def get_data(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    path, watch = _path_and_watch(frame)
    node = _readable(replica, connection, path)
    if watch:
        replica.watches.watch_data(path, connection)
    return node.packed or requests.data(node)


def exists(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    path, watch = _path_and_watch(frame)
    if "\0" in path:
        raise Refused(Code.BAD_ARGUMENTS)
    if replica.profile.exists_needs_read and path in replica.tree.nodes:
        _readable(replica, connection, path)
    if watch:
        replica.watches.watch_data(path, connection)
    return replica.tree.read(path).stat()


def get_children(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    return requests.strings(list(_children(replica, connection, frame).children))


def get_children2(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    node = _children(replica, connection, frame)
    return requests.strings(list(node.children)) + node.stat()


def _children(replica: Replica, connection: Connection, frame: bytes) -> Node:
    path, watch = _path_and_watch(frame)
    node = _readable(replica, connection, path)
    if watch:
        replica.watches.watch_children(path, connection)
    return node


def get_acl(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    path = requests.path_of(frame, BODY)
    node = _readable(replica, connection, path, access.READ | access.ADMIN)
    may_see_digests = access.permits(node.acl, access.ADMIN, connection.identities)
    return requests.acl(node.acl if may_see_digests else access.masked(node.acl)) + node.stat()


def get_all_children_number(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    path = requests.path_of(frame, BODY)
    _readable(replica, connection, path)
    return requests.INT.pack(replica.tree.count_below(path))


def get_ephemerals(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    prefix = Reader(frame, BODY).string()
    paths = replica.tree.ephemerals.get(connection.session_id, {})
    if prefix is None or prefix.strip() in ("", "/"):
        return requests.strings(list(paths))
    return requests.strings([path for path in paths if path.startswith(prefix)])


def who_am_i(_: Replica, connection: Connection, __: bytes) -> bytes:
    return requests.identities(connection.identities)


def multi_read(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    parts: list[bytes] = []
    for operation in requests.read_operations(frame, BODY, replica.profile):
        if not isinstance(operation, Read) or operation.path is None:
            raise Incomplete(requests.several_read(parts))
        try:
            node = _readable(replica, connection, operation.path)
        except Refused as refusal:
            parts.append(requests.failure(refusal.code))
            continue
        is_data = operation.opcode == Opcode.GET_DATA
        body = requests.data(node) if is_data else requests.strings(list(node.children))
        parts.append(requests.success(operation.opcode, body))
    return requests.several_read(parts)


# ---------------------------------------------------------------- watches


def add_watch(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    reader = Reader(frame, BODY)
    path, mode = reader.string(), reader.number()
    if mode not in MODES:
        raise Malformed
    if path is not None:  # the real server keeps a watch on null, which nothing triggers
        replica.watches.watch_always(path, connection, MODES[mode])
    return requests.INT.pack(Code.OK)


def check_watches(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    path, kind = _path_and_kind(replica, frame)
    if not replica.watches.check(path, connection, kind):
        raise Refused(Code.NO_WATCHER)
    return b""


def remove_watches(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    path, kind = _path_and_kind(replica, frame)
    if not replica.watches.remove(path, connection, kind):
        raise Refused(Code.NO_WATCHER)
    return b""


def _path_and_kind(replica: Replica, frame: bytes) -> tuple[str, int]:
    reader = Reader(frame, BODY)
    path, kind = reader.string(), reader.number()
    if kind not in replica.profile.watcher_types:
        raise Malformed
    if path is None:
        raise Refused(Code.NO_WATCHER)
    return path, kind


class _OneShots(NamedTuple):
    since: int
    data: list[str | None]
    exist: list[str | None]
    children: list[str | None]

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.long(), reader.strings(), reader.strings(), reader.strings())


def set_watches(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    _set_one_shots(replica, connection, _OneShots.read(Reader(frame, BODY)))
    return b""


def set_watches2(replica: Replica, connection: Connection, frame: bytes) -> bytes:
    reader = Reader(frame, BODY)
    one_shots = _OneShots.read(reader)
    # Read whole before anything is sent: a request that is cut short does nothing.
    always = [(mode, reader.strings()) for mode in (PERSISTENT, RECURSIVE)]
    _set_one_shots(replica, connection, one_shots)
    for mode, paths in always:
        for path in paths:
            if path is not None:  # as AddWatch
                replica.watches.watch_always(path, connection, mode)
    return b""


def _set_one_shots(replica: Replica, connection: Connection, asked: _OneShots) -> None:
    """Watches after a reconnect: a missed event is sent at once, in place of the watch."""
    since, data, exist, children = asked
    nodes, watches = replica.tree.nodes, replica.watches

    def missed(kind: EventKind, path: str, node: Node | None) -> None:
        hidden = node is not None and not access.permits(node.acl, access.READ, connection.identities)
        if not (hidden and replica.profile.missed_need_read):
            connection.send(requests.event(-1, kind, path))  # no transaction is known to have made it

    for path in map(_some, data):
        node = nodes.get(path)
        if node is not None and node.mzxid <= since:
            watches.watch_data(path, connection)
        else:
            missed(EventKind.DATA_CHANGED if node else EventKind.DELETED, path, node)
    for path in map(_some, exist):
        if path in nodes:
            missed(EventKind.CREATED, path, nodes[path])
        else:
            watches.watch_data(path, connection)
    for path in map(_some, children):
        node = nodes.get(path)
        if node is not None and node.pzxid <= since:
            watches.watch_children(path, connection)
        else:
            missed(EventKind.CHILDREN_CHANGED if node else EventKind.DELETED, path, node)


def _some(path: str | None) -> str:
    if path is None:
        raise Malformed
    return path


READS: Final[dict[int, Callable[[Replica, Connection, bytes], bytes]]] = {
    Opcode.GET_DATA: get_data,
    Opcode.EXISTS: exists,
    Opcode.GET_CHILDREN: get_children,
    Opcode.GET_CHILDREN2: get_children2,
    Opcode.GET_ACL: get_acl,
    Opcode.GET_ALL_CHILDREN_NUMBER: get_all_children_number,
    Opcode.GET_EPHEMERALS: get_ephemerals,
    Opcode.WHO_AM_I: who_am_i,
    Opcode.MULTI_READ: multi_read,
    Opcode.ADD_WATCH: add_watch,
    Opcode.CHECK_WATCHES: check_watches,
    Opcode.REMOVE_WATCHES: remove_watches,
    Opcode.SET_WATCHES: set_watches,
    Opcode.SET_WATCHES2: set_watches2,
}
