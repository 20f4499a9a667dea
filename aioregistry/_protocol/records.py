"""The values that replies and events consist of, and the constants that requests are made with."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Final, Generic, NamedTuple, TypeVar

from aiozk.protocol.acl import ACL, UNRESTRICTED_ACCESS
from aiozk.protocol.primitives import Vector

T = TypeVar("T")


class Stat(NamedTuple):
    """A node's metadata, in the order of the wire (``zookeeper.jute``, ``class Stat``).

    ``ctime`` and ``mtime`` are the server's clock in milliseconds since the epoch. Within one history of the ensemble
    ``(czxid, mzxid)`` identifies a state of a node; the versions do not, for every new node starts at 0.
    ``ephemeral_owner`` is the owner's session id, to be compared by equality only, and 0 for every node that no session
    owns; containers and nodes with a TTL show no other sign of what they are (``DataNode.getClientEphemeralOwner``).
    """

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int
    pzxid: int


STAT: Final = struct.Struct(">qqqqiiiqiiq")

_unpack_stat = STAT.unpack_from
_new_tuple = tuple.__new__


def read_stat(body: bytes, at: int) -> tuple[Stat, int]:
    """A Stat. ``tuple.__new__`` because ``Stat._make`` takes twice as long."""
    return _new_tuple(Stat, _unpack_stat(body, at)), at + 68


class EventKind(IntEnum):
    """The type of an event (``Watcher.Event.EventType``)."""

    NONE = -1
    CREATED = 1
    DELETED = 2
    DATA_CHANGED = 3
    CHILDREN_CHANGED = 4
    DATA_WATCH_REMOVED = 5
    CHILD_WATCH_REMOVED = 6
    PERSISTENT_WATCH_REMOVED = 7


class WatchedEvent(NamedTuple):
    """A notification: ``zxid`` is -1 before ZooKeeper 3.9 (ZOOKEEPER-4655), ``state`` one of Java's ``KeeperState``."""

    kind: EventKind
    state: int
    path: str
    zxid: int


class Reply(NamedTuple, Generic[T]):
    """A successful answer: the zxid of its header, and what the request's ``decode`` made of the rest."""

    zxid: int
    value: T


class ConnectReply(NamedTuple):
    """The answer to a ``Connect``: ``timeout_ms`` is the negotiated one, 0 when the session has ended."""

    protocol_version: int
    timeout_ms: int
    session_id: int
    password: bytes
    read_only: bool


class AddWatchMode(IntEnum):
    """The modes of AddWatch (``AddWatchMode``)."""

    PERSISTENT = 0
    PERSISTENT_RECURSIVE = 1


class WatcherType(IntEnum):
    """Which watches of a path to check or remove (``Watcher.WatcherType``); the last two are known from 3.9 on."""

    CHILDREN = 1
    DATA = 2
    ANY = 3
    PERSISTENT = 4
    PERSISTENT_RECURSIVE = 5


class Permission(IntFlag):
    """The permissions of an ACL's entry (``ZooDefs.Perms``): of a node, and CREATE and DELETE of its children."""

    READ = 1
    WRITE = 2
    CREATE = 4
    DELETE = 8
    ADMIN = 16


class AclEntry(NamedTuple):
    """An entry of an ACL as it is read: the permissions that an identity has, as a mask of :class:`Permission`."""

    permissions: int
    scheme: str
    id: str


class CreateFlag(IntEnum):
    """The kinds of nodes (``CreateMode``)."""

    PERSISTENT = 0
    EPHEMERAL = 1
    PERSISTENT_SEQUENTIAL = 2
    EPHEMERAL_SEQUENTIAL = 3
    CONTAINER = 4
    TTL = 5


def write_acl(acl: Sequence[ACL]) -> bytes:
    """An ACL as aiozk renders it."""
    layout, values = Vector.of(ACL)(acl).render()
    return struct.pack("!" + layout, *values)


SASL: Final = "sasl"
"""The scheme of credentials that are a login instead of a packet of ZooKeeper's; and of identities in ACLs."""

OPEN_ACL: Final[tuple[ACL, ...]] = (UNRESTRICTED_ACCESS,)
"""world:anyone may do everything."""

OPEN_ACL_BYTES: Final = write_acl(OPEN_ACL)
