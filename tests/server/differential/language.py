"""The language of histories: what clients do to a server, as plain data.

A history is a list of steps. Every step means something in every state, so that a history with any of its steps left
out is a history too: who is not connected connects first. That, and values that are few and plain, is what Hypothesis
needs to shrink. A step prints as the expression that makes it.

Requests are encoded here by a description of their layouts, which shares no code with the package.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar, dataclass_transform

T = TypeVar("T")

AUTH_XID, PING_XID, SET_WATCHES_XID = -4, -2, -8

Path: TypeAlias = str | bytes | None
"""Absolute, below the history's own root: "/" is that root. "@/zookeeper" is outside of it; what has no leading slash
is sent as it is, bytes (that may be no UTF-8) go below the root as they are, and None has the length -1."""


class Place(NamedTuple):
    """Where a history plays: the node below which its paths are, and the zxid from which its zxids are counted."""

    root: str
    base: int

    def path(self, path: str) -> str:
        if path.startswith("@"):
            return path[1:]
        if path == "/":
            return self.root
        return self.root + path if path.startswith("/") else path


class Acl(NamedTuple):
    perms: int
    scheme: str | None
    id: str | None


OPEN = (Acl(31, "world", "anyone"),)
Acls: TypeAlias = tuple[Acl, ...] | None

# ---------------------------------------------------------------- layouts


def _buffer(value: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if value is None else struct.pack(">i", len(value)) + value


def _string(value: str | None) -> bytes:
    return _buffer(value if value is None else value.encode())


def _path(value: Path, place: Place) -> bytes:
    if isinstance(value, bytes):
        return _buffer(place.root.encode() + value)
    return _string(value if value is None else place.path(value))


def _vector(parts: Iterable[bytes] | None) -> bytes:
    encoded = None if parts is None else list(parts)
    return b"\xff\xff\xff\xff" if encoded is None else struct.pack(">i", len(encoded)) + b"".join(encoded)


def _acls(value: Acls, place: Place) -> bytes:
    if value is None:
        return _vector(None)
    return _vector(struct.pack(">i", acl.perms) + _string(acl.scheme) + _string(acl.id) for acl in value)


LAYOUTS: dict[str, Callable[[Any, Place], bytes]] = {
    "int": lambda value, place: struct.pack(">i", value),
    "long": lambda value, place: struct.pack(">q", value),
    "bool": lambda value, place: struct.pack(">?", value),
    "zxid": lambda value, place: struct.pack(">q", place.base + value),
    "buffer": lambda value, place: _buffer(value),
    "string": lambda value, place: _string(value),
    "path": _path,
    "paths": lambda value, place: _vector(_path(path, place) for path in value),
    "acls": _acls,
}

# ---------------------------------------------------------------- plain data


@dataclass(frozen=True)
class Plain:
    """Prints without what it has by default."""

    def __repr__(self) -> str:
        told = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is MISSING:
                told.append(repr(value))
            elif value != field.default:
                told.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass_transform(frozen_default=True)
def plain(cls: type[T]) -> type[T]:
    return dataclass(frozen=True, repr=False)(cls)


class Request(Plain):
    layout: ClassVar[str] = ""
    """How each of its fields is written, in their order."""

    @property
    def opcode(self) -> int:
        raise NotImplementedError

    @property
    def answer(self) -> str:
        """The reply's part behind its header."""
        return ""

    @property
    def xid(self) -> int | None:
        """The one that clients use for it; None for the next."""
        return None

    @property
    def alone(self) -> bool:
        """Its reply may overtake others, or the connection may end: nothing is sent before it was answered."""
        return False

    def encode(self, place: Place) -> bytes:
        values = (getattr(self, field.name) for field in fields(self))
        return b"".join(
            LAYOUTS[layout](value, place) for layout, value in zip(self.layout.split(), values, strict=False)
        )


# ---------------------------------------------------------------- requests


@plain
class Create(Request):
    """With opcode 1 (create), 15 (create2) or 19 (createContainer)."""

    path: Path
    data: bytes | None = b""
    acl: Acls = OPEN
    flags: int = 0
    opcode: int = 1
    layout = "path buffer acls int"

    @property
    def answer(self) -> str:
        return "path" if self.opcode == 1 else "path stat"


@plain
class CreateTTL(Request):
    path: Path
    data: bytes | None = b""
    acl: Acls = OPEN
    flags: int = 5
    ttl: int = 10_000_000
    opcode: ClassVar[int] = 21
    layout = "path buffer acls int long"
    answer: ClassVar[str] = "path stat"


@plain
class Delete(Request):
    path: Path
    version: int = -1
    opcode: ClassVar[int] = 2
    layout = "path int"


@plain
class Exists(Request):
    path: Path
    watch: bool = False
    opcode: ClassVar[int] = 3
    layout = "path bool"
    answer: ClassVar[str] = "stat"


@plain
class GetData(Request):
    path: Path
    watch: bool = False
    opcode: ClassVar[int] = 4
    layout = "path bool"
    answer: ClassVar[str] = "data stat"


@plain
class SetData(Request):
    path: Path
    data: bytes | None = b""
    version: int = -1
    opcode: ClassVar[int] = 5
    layout = "path buffer int"
    answer: ClassVar[str] = "stat"


@plain
class GetACL(Request):
    path: Path
    opcode: ClassVar[int] = 6
    layout = "path"
    answer: ClassVar[str] = "acls stat"


@plain
class SetACL(Request):
    path: Path
    acl: Acls = OPEN
    version: int = -1
    opcode: ClassVar[int] = 7
    layout = "path acls int"
    answer: ClassVar[str] = "stat"
    # A write that is prepared before this one is applied is still held against the old ACL: ZooKeeper's record of the
    # change under way (PrepRequestProcessor) has the new version only.
    alone: ClassVar[bool] = True


@plain
class GetChildren(Request):
    """With opcode 8, or 12 for getChildren2."""

    path: Path
    watch: bool = False
    opcode: int = 8
    layout = "path bool"

    @property
    def answer(self) -> str:
        return "names" if self.opcode == 8 else "names stat"


@plain
class Sync(Request):
    path: Path
    opcode: ClassVar[int] = 9
    layout = "path"
    answer: ClassVar[str] = "path"


@plain
class Ping(Request):
    opcode: ClassVar[int] = 11
    xid: ClassVar[int] = PING_XID


@plain
class Check(Request):
    path: Path
    version: int = -1
    opcode: ClassVar[int] = 13
    layout = "path int"
    answer: ClassVar[str] = "stat"


@plain
class Multi(Request):
    """With opcode 14, or 22 for multiRead."""

    operations: tuple[Request, ...]
    opcode: int = 14
    answer: ClassVar[str] = "results"

    def encode(self, place: Place) -> bytes:
        parts = [
            struct.pack(">i?i", operation.opcode, False, -1) + operation.encode(place) for operation in self.operations
        ]
        return b"".join(parts) + struct.pack(">i?i", -1, True, -1)


@plain
class CheckWatches(Request):
    """Kinds: 1 children, 2 data, 3 any; from 3.9 also 4 persistent, 5 recursive."""

    path: Path
    kind: int = 3
    opcode: ClassVar[int] = 17
    layout = "path int"


@plain
class RemoveWatches(Request):
    path: Path
    kind: int = 3
    opcode: ClassVar[int] = 18
    layout = "path int"


@plain
class SetWatches(Request):
    since: int = 0
    data: tuple[Path, ...] = ()
    exist: tuple[Path, ...] = ()
    child: tuple[Path, ...] = ()
    opcode: ClassVar[int] = 101
    xid: ClassVar[int] = SET_WATCHES_XID
    layout = "zxid paths paths paths"


@plain
class SetWatches2(Request):
    since: int = 0
    data: tuple[Path, ...] = ()
    exist: tuple[Path, ...] = ()
    child: tuple[Path, ...] = ()
    persistent: tuple[Path, ...] = ()
    recursive: tuple[Path, ...] = ()
    opcode: ClassVar[int] = 105
    xid: ClassVar[int] = SET_WATCHES_XID
    layout = "zxid paths paths paths paths paths"


@plain
class GetEphemerals(Request):
    prefix: Path
    opcode: ClassVar[int] = 103
    layout = "path"
    answer: ClassVar[str] = "paths"


@plain
class CountChildren(Request):
    path: Path
    opcode: ClassVar[int] = 104
    layout = "path"
    answer: ClassVar[str] = "int"


@plain
class AddWatch(Request):
    """Mode 0 is persistent, 1 recursive."""

    path: Path
    mode: int = 1
    opcode: ClassVar[int] = 106
    layout = "path int"
    answer: ClassVar[str] = "int"


@plain
class WhoAmI(Request):
    opcode: ClassVar[int] = 107
    answer: ClassVar[str] = "ids"


@plain
class Reconfig(Request):
    joining: str | None = None
    leaving: str | None = None
    members: str | None = None
    version: int = -1
    opcode: ClassVar[int] = 16
    layout = "string string string long"


@plain
class Auth(Request):
    scheme: str | None
    auth: bytes | None
    type: int = 0
    opcode: ClassVar[int] = 100
    xid: ClassVar[int] = AUTH_XID
    alone: ClassVar[bool] = True

    def encode(self, place: Place) -> bytes:
        return struct.pack(">i", self.type) + _string(self.scheme) + _buffer(self.auth)


@plain
class Close(Request):
    opcode: ClassVar[int] = -11
    alone: ClassVar[bool] = True


@plain
class Raw(Request):
    """Any opcode with any content: what no client sends."""

    opcode: int = 0
    body: bytes = b""
    alone: ClassVar[bool] = True

    def encode(self, place: Place) -> bytes:
        return self.body


@plain
class Mangled(Request):
    """A request whose end is missing (*cut* bytes) or followed by *more*."""

    request: Request
    cut: int = 0
    more: bytes = b""

    @property
    def opcode(self) -> int:
        return self.request.opcode

    @property
    def answer(self) -> str:
        return self.request.answer

    @property
    def xid(self) -> int | None:
        return self.request.xid

    @property
    def alone(self) -> bool:
        return self.request.alone

    def encode(self, place: Place) -> bytes:
        whole = self.request.encode(place)
        return whole[: max(len(whole) - self.cut, 0)] + self.more


UNKNOWN = {
    "3.5": frozenset(
        kind.opcode for kind in (SetWatches2, GetEphemerals, CountChildren, AddWatch, WhoAmI, Multi((), opcode=22))
    ),
    "3.8": frozenset[int](),
    "3.9": frozenset({Check.opcode}),
}
"""The opcodes above that a release answers as it answers those that nobody knows; a Check in a transaction is another
matter."""


def without_patch(release: str) -> str:
    return ".".join(release.split(".")[:2])


# ---------------------------------------------------------------- steps


class Step(Plain):
    who: int


@plain
class Ask(Step):
    who: int
    request: Request


@plain
class Open(Step):
    """Start a session; one that was alive is left behind without a connection.

    A client *before_3_4* says nothing of read-only servers, and is told nothing of them.
    """

    who: int
    timeout_ms: int = 30_000
    read_only: bool = False
    before_3_4: bool = False
    since: int | None = None


@plain
class Cut(Step):
    """Close the connection, not the session."""

    who: int


@plain
class Resume(Step):
    """Connect with the session that there is or was; a connection that there is still gets no warning.

    *since* is the zxid that is said to have been seen last; None tells the truth.
    """

    who: int
    since: int | None = None
    wrong_password: bool = False
    timeout_ms: int = 30_000


@plain
class Expire(Step):
    """End the session from another connection, which to its owner and to watchers is what an expiry is."""

    who: int


@plain
class Frame(Step):
    """Send what is no request: a length, and what it should be the length of."""

    who: int
    length: int
    content: bytes = b""


@plain
class Silence(Step):
    """Start a session with the shortest timeout, have it do *requests*, and wait until the server ended it."""

    who: int
    requests: tuple[Request, ...] = ()


@plain
class Swept(Step):
    """Wait until the server took a node away that is empty, or whose time is over."""

    who: int
    path: str


History: TypeAlias = tuple[Step, ...]
