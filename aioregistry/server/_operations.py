"""A client's operations on a tree, and the changes that come of them (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple, TypeAlias

from aioregistry.server._acl import ACL, Identity, Rule

# ---------------------------------------------------------------- requests


class Create(NamedTuple):
    """Any kind of creation; *ttl_ms* is -1 unless it is a CreateTTL."""

    opcode: int
    path: str | None
    data: bytes | None
    acl: tuple[Rule, ...] | None
    flags: int
    ttl_ms: int = -1


class Delete(NamedTuple):
    """The removal of a node of this version."""

    path: str | None
    version: int


class DeleteContainer(NamedTuple):
    """The removal of an empty container or of a node whose time is over; refused for any other."""

    path: str


class SetData(NamedTuple):
    """New data for a node of this version."""

    path: str | None
    data: bytes | None
    version: int


class SetACL(NamedTuple):
    """A new ACL for a node of this aversion."""

    path: str | None
    acl: tuple[Rule, ...] | None
    version: int


class Check(NamedTuple):
    """In a transaction: a node has this version."""

    path: str | None
    version: int


class Contradiction(NamedTuple):
    """An operation that says two things at once: the real server stumbles, but only once it comes to it."""

    path: str


Operation: TypeAlias = Create | Delete | DeleteContainer | SetData | SetACL | Check | Contradiction


class Caller(NamedTuple):
    """The client that asks."""

    session: int
    identities: Sequence[Identity] = ()


class Moment(NamedTuple):
    """When a transaction happens; the time in milliseconds since the epoch."""

    zxid: int
    time_ms: int


class Result(NamedTuple):
    """The answer to a write, as far as it applies; the Stat is packed."""

    path: str | None = None
    stat: bytes | None = None


# ---------------------------------------------------------------- transactions


class Kind(Enum):
    """How long a node stays."""

    PERSISTENT = auto()
    EPHEMERAL = auto()
    CONTAINER = auto()
    TTL = auto()


class Created(NamedTuple):
    """*cversion* is the parent's."""

    path: str
    data: bytes | None
    acl: ACL
    parent_acl: ACL
    kind: Kind
    owner: int
    ttl_ms: int
    cversion: int
    moment: Moment


class Deleted(NamedTuple):
    """*acl* was the node's, *parent_acl* is its parent's."""

    path: str
    acl: ACL
    parent_acl: ACL
    moment: Moment


class DataChanged(NamedTuple):
    """*version* is the new one."""

    path: str
    data: bytes | None
    acl: ACL
    version: int
    moment: Moment


class ACLChanged(NamedTuple):
    """*version* is the new aversion."""

    path: str
    acl: ACL
    version: int


Change: TypeAlias = Created | Deleted | DataChanged | ACLChanged
