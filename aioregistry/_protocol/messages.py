"""The requests that the library sends, and what their replies decode to.

Each is an aiozk ``Request``: ``parts`` documents its layout, and it renders, compares and prints like aiozk's own. On
top of that it encodes itself without the detour over ``parts``, and decodes its reply to plain tuples and lists.

The ``Response`` classes at the end are for the opcodes that aiozk lacks. aiozk keeps one table of responses by opcode
for the whole process, so an opcode that aiozk has is never defined again here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeAlias, TypeVar

from aiozk.protocol.acl import ACL
from aiozk.protocol.create import Create2Response
from aiozk.protocol.primitives import Bool, Buffer, Int, Long, Primitive, UString, Vector
from aiozk.protocol.response import Response
from aiozk.protocol.transaction import TransactionResponse

from aioregistry._aiozk_types import Part, Request
from aioregistry._errors import ProtocolError, ServerError, TransactionAborted, server_error, session_name
from aioregistry._protocol.jute import (
    BOOL,
    HEADER,
    INT,
    LONG,
    malformation,
    read_buffer,
    read_count,
    read_int,
    read_string,
    read_strings,
    write_buffer,
    write_string,
    write_strings,
)
from aioregistry._protocol.records import (
    OPEN_ACL,
    OPEN_ACL_BYTES,
    STAT,
    AclEntry,
    AddWatchMode,
    ClientInfo,
    ConnectReply,
    CreateFlag,
    Stat,
    WatcherType,
    read_stat,
    write_acl,
)

Layout: TypeAlias = tuple[tuple[str, type], ...]
T_co = TypeVar("T_co", covariant=True)

NOTIFICATION_XID: Final = -1
PING_XID: Final = -2
AUTH_XID: Final = -4
SET_WATCHES_XID: Final = -8

_HEAD = struct.Struct(">ii")
_BOOL = (b"\x00", b"\x01")

ANY_VERSION: Final = -1
"""As ``version`` of a write: whatever the node's is."""


class Message(Request, Generic[T_co]):
    """A request whose reply decodes to ``T_co``."""

    opcode: ClassVar[int]
    special_xid: ClassVar[int | None] = None
    """The xid to send it under, where the protocol fixes it."""
    writes: ClassVar[bool] = False
    """It changes the tree or the session by a transaction of the quorum's."""
    parts: ClassVar[Layout] = ()

    path: str | None = None
    """The node it is about, for error reports."""

    def __init__(self) -> None:
        """Without ``Part``'s: it walks ``parts`` for what every subclass assigns itself."""

    def serialize(self, xid: int | None = None) -> bytes:
        """The request as it is sent, but for the length of its frame."""
        head = INT.pack(self.opcode) if xid is None else _HEAD.pack(xid, self.opcode)
        return head + self.encode()

    def encode(self) -> bytes:
        """What follows the header; also the operation's part of a transaction."""
        return b""

    def decode(self, body: bytes, at: int = 0) -> T_co:
        """The value of a reply whose header said that all is well.

        Args:
            body: what was received.
            at: where in it the reply's own part begins, behind the header.

        Raises:
            ProtocolError: it is cut short, goes on behind its end, or is malformed.
        """
        try:
            value, end = self.read_reply(body, at)
        except (struct.error, UnicodeDecodeError) as error:
            raise ProtocolError(f"malformed reply to {self.subject}: {malformation(error)}") from error
        if end != len(body):
            raise ProtocolError(f"the reply to {self.subject} has {len(body) - at} bytes, its content takes {end - at}")
        return value

    def read_reply(self, body: bytes, at: int) -> tuple[T_co, int]:
        """The value at an offset and the offset behind it, checked no further than ``jute`` does."""
        raise NotImplementedError

    @property
    def subject(self) -> str:
        """Its name and path: what an error report calls it."""
        name = type(self).__name__
        return name if self.path is None else f"{name} {self.path}"

    def __eq__(self, other: object) -> bool:
        # Part compares the parts alone: an Exists would equal a GetData, and an AttributeError meet whatever has none.
        # Never NotImplemented: Part's __ne__ negates the answer.
        return type(other) is type(self) and bool(Part.__eq__(self, other))

    __hash__: ClassVar[None]  # type: ignore[assignment]  # mutable, like aiozk's

    def __repr__(self) -> str:
        return str(self)


class _Silent(Message[None]):
    """A request whose reply is a header alone."""

    def read_reply(self, body: bytes, at: int) -> tuple[None, int]:  # noqa: ARG002  # there is none
        return None, at


# ---------------------------------------------------------------- the session


class Connect(Message[ConnectReply]):
    """The first message of a connection: asks for a session, or for the one it had. Header and opcode it has none.

    Args:
        last_zxid: the highest zxid seen; a server behind it closes the connection.
        timeout_ms: the session timeout asked for, in milliseconds.
        session_id: 0 for a new session.
        password: of the session asked for; 16 zero bytes for a new one.
        read_only: a server cut off from its quorum will do.
        protocol_version: always 0 so far.
    """

    opcode = None  # type: ignore[assignment]  # as in aiozk
    parts: ClassVar[Layout] = (
        ("protocol_version", Int),
        ("last_zxid", Long),
        ("timeout_ms", Int),
        ("session_id", Long),
        ("password", Buffer),
        ("read_only", Bool),
    )

    _FIXED = struct.Struct(">iqiq")

    def __init__(
        self,
        last_zxid: int,
        timeout_ms: int,
        session_id: int = 0,
        password: bytes = bytes(16),
        read_only: bool = False,
        protocol_version: int = 0,
    ) -> None:
        self.protocol_version = protocol_version
        self.last_zxid = last_zxid
        self.timeout_ms = timeout_ms
        self.session_id = session_id
        self.password = password
        self.read_only = read_only

    def serialize(self, xid: int | None = None) -> bytes:  # noqa: ARG002  # it has no header to carry one
        return self.encode()

    def encode(self) -> bytes:
        fixed = self._FIXED.pack(self.protocol_version, self.last_zxid, self.timeout_ms, self.session_id)
        return fixed + write_buffer(self.password) + _BOOL[self.read_only]

    def read_reply(self, body: bytes, at: int) -> tuple[ConnectReply, int]:
        if len(body) - at == HEADER.size:
            # So does a read-only server without local sessions (ReadOnlyRequestProcessor), and is silent from then on.
            _, zxid, code = HEADER.unpack_from(body, at)
            raise ProtocolError(f"the server answered Connect with an error: {server_error(code, zxid=zxid)}")
        version, at = read_int(body, at)
        timeout_ms, at = read_int(body, at)
        (session_id,) = LONG.unpack_from(body, at)
        password, at = read_buffer(body, at + 8)
        read_only = False
        if at != len(body):  # servers before 3.4 say nothing of read-only mode
            (read_only,) = BOOL.unpack_from(body, at)
            at += 1
        return ConnectReply(version, timeout_ms, session_id, password, read_only), at

    def __str__(self) -> str:
        # Without the password: whoever has it can take the session over.
        known = f"session_id={session_name(self.session_id)}, last_zxid={self.last_zxid:#x}"
        return f"Connect({known}, timeout_ms={self.timeout_ms})"


class Auth(_Silent):
    """Credentials for the connection; a refusal is answered with AuthFailed and the end of the connection.

    Args:
        scheme: as in ``digest``.
        auth: as in ``b"user:password"``.
    """

    opcode = 100
    special_xid = AUTH_XID
    parts = (("type", Int), ("scheme", UString), ("auth", Buffer))

    def __init__(self, scheme: str, auth: bytes, type: int = 0) -> None:
        self.type = type
        self.scheme = scheme
        self.auth = auth

    def encode(self) -> bytes:
        return INT.pack(self.type) + write_string(self.scheme) + write_buffer(self.auth)

    def __str__(self) -> str:
        return f"Auth(scheme={self.scheme})"


class Ping(_Silent):
    """Keeps the connection from being closed. Proves nothing of the quorum: a server cut off from it answers too."""

    opcode = 11
    special_xid = PING_XID


class CloseSession(_Silent):
    """Ends the session and deletes what it owns."""

    opcode = -11
    writes = True


# ---------------------------------------------------------------- reads


class _ReadPath(Message[T_co]):
    """A read of one node that may leave a one-shot watch."""

    parts = (("path", UString), ("watch", Bool))
    path: str

    def __init__(self, path: str, watch: bool = False) -> None:
        self.path = path
        self.watch = watch

    def encode(self) -> bytes:
        return write_string(self.path) + _BOOL[self.watch]


class GetData(_ReadPath[tuple[bytes, Stat]]):
    """A node's data and Stat; null data reads as empty."""

    opcode = 4

    def read_reply(self, body: bytes, at: int) -> tuple[tuple[bytes, Stat], int]:
        data, at = read_buffer(body, at)
        stat, at = read_stat(body, at)
        return (data, stat), at


class Exists(_ReadPath[Stat]):
    """A node's Stat; NoNode where there is none, and the watch is set nevertheless."""

    opcode = 3

    def read_reply(self, body: bytes, at: int) -> tuple[Stat, int]:
        return read_stat(body, at)


class GetChildren(_ReadPath[list[str]]):
    """The names of a node's children, in no order."""

    opcode = 8

    def read_reply(self, body: bytes, at: int) -> tuple[list[str], int]:
        return read_strings(body, at)


class GetChildren2(_ReadPath[tuple[list[str], Stat]]):
    """The names of a node's children, in no order, and its Stat."""

    opcode = 12

    def read_reply(self, body: bytes, at: int) -> tuple[tuple[list[str], Stat], int]:
        names, at = read_strings(body, at)
        stat, at = read_stat(body, at)
        return (names, stat), at


class _OnPath(Message[T_co]):
    """A request that says nothing but a path."""

    parts = (("path", UString),)
    path: str

    def __init__(self, path: str) -> None:
        self.path = path

    def encode(self) -> bytes:
        return write_string(self.path)


class Sync(_OnPath[str]):
    """Brings the server up to its leader: what is read after it is as new as the quorum was. Answers with the path."""

    opcode = 9

    def read_reply(self, body: bytes, at: int) -> tuple[str, int]:
        return read_string(body, at)


class GetAcl(_OnPath[tuple[list[AclEntry], Stat]]):
    """A node's ACL and Stat. Digests are hidden (``user:x``) from who may not change it."""

    opcode = 6

    def read_reply(self, body: bytes, at: int) -> tuple[tuple[list[AclEntry], Stat], int]:
        count, at = read_count(body, at, smallest=12)
        entries = []
        for _ in range(count):
            permissions, at = read_int(body, at)
            scheme, at = read_string(body, at)
            id, at = read_string(body, at)
            entries.append(AclEntry(permissions, scheme, id))
        stat, at = read_stat(body, at)
        return (entries, stat), at


class GetAllChildrenNumber(_OnPath[int]):
    """How many nodes there are below a path (ZooKeeper 3.6)."""

    opcode = 104

    def read_reply(self, body: bytes, at: int) -> tuple[int, int]:
        return read_int(body, at)


class GetEphemerals(Message[list[str]]):
    """The paths of this session's ephemeral nodes under a prefix (ZooKeeper 3.6)."""

    opcode = 103
    parts = (("prefix", UString),)

    def __init__(self, prefix: str = "/") -> None:
        self.prefix = prefix
        self.path = prefix

    def encode(self) -> bytes:
        return write_string(self.prefix)

    def read_reply(self, body: bytes, at: int) -> tuple[list[str], int]:
        return read_strings(body, at)


class WhoAmI(Message[list[ClientInfo]]):
    """The identities of this connection (ZooKeeper 3.7)."""

    opcode = 107

    def read_reply(self, body: bytes, at: int) -> tuple[list[ClientInfo], int]:
        count, at = read_count(body, at, smallest=8)
        identities = []
        for _ in range(count):
            scheme, at = read_string(body, at)
            user, at = read_string(body, at)
            identities.append(ClientInfo(scheme, user))
        return identities, at


# ---------------------------------------------------------------- writes


class _CreateNode(Message[T_co]):
    """What the ways of creating a node have in common."""

    writes = True
    parts: ClassVar[Layout] = (("path", UString), ("data", Buffer), ("acl", Vector.of(ACL)), ("flags", Int))
    path: str

    def __init__(
        self, path: str, data: bytes, acl: Sequence[ACL] = OPEN_ACL, flags: int = CreateFlag.PERSISTENT
    ) -> None:
        self.path = path
        self.data = data
        self.acl = acl
        self.flags = flags

    def encode(self) -> bytes:
        acl = OPEN_ACL_BYTES if self.acl is OPEN_ACL else write_acl(self.acl)
        return b"".join((write_string(self.path), write_buffer(self.data), acl, INT.pack(self.flags)))


class Create(_CreateNode[str]):
    """Create a node; answers with its path, which a sequential one learns from it."""

    opcode = 1

    def read_reply(self, body: bytes, at: int) -> tuple[str, int]:
        return read_string(body, at)


class Create2(_CreateNode[tuple[str, Stat]]):
    """Create a node; answers with its path and Stat."""

    opcode = 15

    def read_reply(self, body: bytes, at: int) -> tuple[tuple[str, Stat], int]:
        path, at = read_string(body, at)
        stat, at = read_stat(body, at)
        return (path, stat), at


class CreateContainer(Create2):
    """Create a node that the server removes some time after its last child (ZooKeeper 3.5)."""

    opcode = 19

    def __init__(
        self, path: str, data: bytes = b"", acl: Sequence[ACL] = OPEN_ACL, flags: int = CreateFlag.CONTAINER
    ) -> None:
        super().__init__(path, data, acl, flags)


class CreateTTL(Create2):
    """Create a node that the server removes when it was not modified for ``ttl_ms`` milliseconds and has no children.

    Unimplemented where the server's ``extendedTypesEnabled`` is not set.
    """

    opcode = 21
    parts = (*_CreateNode.parts, ("ttl_ms", Long))

    def __init__(
        self, path: str, data: bytes, ttl_ms: int, acl: Sequence[ACL] = OPEN_ACL, flags: int = CreateFlag.TTL
    ) -> None:
        super().__init__(path, data, acl, flags)
        self.ttl_ms = ttl_ms

    def encode(self) -> bytes:
        return super().encode() + LONG.pack(self.ttl_ms)


class Delete(_Silent):
    """Delete a node of this version."""

    opcode = 2
    writes = True
    parts: ClassVar[Layout] = (("path", UString), ("version", Int))
    path: str

    def __init__(self, path: str, version: int = ANY_VERSION) -> None:
        self.path = path
        self.version = version

    def encode(self) -> bytes:
        return write_string(self.path) + INT.pack(self.version)


class Check(Delete):
    """In a transaction: the node must have this version."""

    opcode = 13


class SetData(Message[Stat]):
    """Replace the data of a node of this version; answers with the new Stat."""

    opcode = 5
    writes = True
    parts = (("path", UString), ("data", Buffer), ("version", Int))
    path: str

    def __init__(self, path: str, data: bytes, version: int = ANY_VERSION) -> None:
        self.path = path
        self.data = data
        self.version = version

    def encode(self) -> bytes:
        return write_string(self.path) + write_buffer(self.data) + INT.pack(self.version)

    def read_reply(self, body: bytes, at: int) -> tuple[Stat, int]:
        return read_stat(body, at)


# ---------------------------------------------------------------- several at once

_OPERATION = struct.Struct(">i?i")  # jute's MultiHeader: type, done, err
_END_OPERATION = (-1, True, -1)
_END = _OPERATION.pack(*_END_OPERATION)

_FAILED = -1
"""The type under which a failed operation is answered, with its error code."""

_CREATED = (Create.opcode, Create2.opcode)
"""The types that creations are answered as: containers and nodes with a TTL as the second, a Create2 as the first and
without its Stat before ZOOKEEPER-4026."""


def _encode_operations(operations: Iterable[Message[Any]]) -> bytes:
    parts: list[bytes] = []
    for operation in operations:
        parts += (_OPERATION.pack(operation.opcode, False, -1), operation.encode())
    parts.append(_END)
    return b"".join(parts)


def _read_created(operation: _CreateNode[Any], opcode: int, body: bytes, at: int) -> tuple[Any, int]:
    path, at = read_string(body, at)
    stat = None
    if opcode == Create2.opcode:
        stat, at = read_stat(body, at)
    return path if isinstance(operation, Create) else (path, stat), at


def _read_end(body: bytes, at: int) -> int:
    end = _OPERATION.unpack_from(body, at)
    if end != _END_OPERATION:
        raise ProtocolError(f"a reply to several operations goes on with {end} behind the last")
    return at + _OPERATION.size


class _Operations(Primitive):
    """The part that a transaction or MultiRead consists of, for aiozk's way of rendering and printing."""

    def render(self) -> tuple[str, list[Any]]:
        layout: list[str] = []
        values: list[Any] = []
        for operation in self.value:
            inner_layout, inner_values = operation.render()
            layout += ("i?i", inner_layout)
            values += (operation.opcode, False, -1, *inner_values)
        return "".join((*layout, "i?i")), [*values, *_END_OPERATION]

    @classmethod
    def parse(cls, body: bytes, at: int) -> tuple[list[Message[Any]], int]:
        operations: list[Message[Any]] = []
        while True:
            opcode, done, _ = _OPERATION.unpack_from(body, at)
            at += _OPERATION.size
            if done:
                return operations, at
            if opcode not in _BY_OPCODE:
                raise ProtocolError(f"operation {opcode} inside a transaction")
            operation, at = _BY_OPCODE[opcode].parse(body, at)
            operations.append(operation)


@dataclass(frozen=True, slots=True)
class Failure:
    """The operation that made a transaction fail."""

    index: int
    error: ServerError


class MultiReply(NamedTuple):
    """What became of a transaction: a result for every operation, or an error for every operation.

    A result is what the operation decodes to alone, but for ``Create2`` and its kin: ``(path, None)`` where the server
    keeps the Stat to itself, as for Create2 before ZOOKEEPER-4026 (not in 3.8). In a failed transaction the operations
    before the culprit are ``RolledBack``, those behind it ``RuntimeInconsistency``.
    """

    results: list[Any]

    @property
    def failed(self) -> Failure | None:
        """The culprit, or None when the transaction was applied."""
        errors = [Failure(index, error) for index, error in enumerate(self.results) if isinstance(error, ServerError)]
        culprits = (failure for failure in errors if failure.error.code not in _NOT_THE_CULPRIT)
        return next(culprits, errors[0] if errors else None)

    def raise_for_error(self) -> None:
        """Return when the transaction was applied.

        Raises:
            TransactionAborted: it was not; names the culprit.
        """
        if failure := self.failed:
            raise TransactionAborted(failure.index, failure.error, failure.error.zxid) from failure.error


_NOT_THE_CULPRIT = {0, -2}  # RolledBack, RuntimeInconsistency


class Multi(Message[MultiReply]):
    """A transaction of creates, deletes, setData and checks: all of them or none."""

    opcode = 14
    writes = True
    parts: ClassVar[Layout] = (("ops", _Operations),)

    def __init__(self, ops: Sequence[Message[Any]]) -> None:
        self.ops = ops

    def encode(self) -> bytes:
        return _encode_operations(self.ops)

    def read_reply(self, body: bytes, at: int) -> tuple[MultiReply, int]:
        results: list[Any] = []
        for operation in self.ops:
            opcode, done, code = _OPERATION.unpack_from(body, at)
            at += _OPERATION.size
            if opcode == _FAILED and not done:
                code, at = read_int(body, at)
                results.append(server_error(code, operation.path))
            elif isinstance(operation, _CreateNode) and opcode in _CREATED:
                result, at = _read_created(operation, opcode, body, at)
                results.append(result)
            elif opcode == operation.opcode:
                result, at = operation.read_reply(body, at)
                results.append(result)
            else:
                raise ProtocolError(f"operation {len(results)}, {operation.subject}, was answered as type {opcode}")
        return MultiReply(results), _read_end(body, at)


class MultiRead(Message[list[Any]]):
    """Several GetData and GetChildren without watches, in one round trip (ZooKeeper 3.6).

    Each is answered as it would be alone, or with a :class:`~aioregistry._errors.ServerError`.
    """

    opcode = 22
    parts: ClassVar[Layout] = (("ops", _Operations),)

    def __init__(self, ops: Sequence[GetData | GetChildren]) -> None:
        self.ops = ops

    def encode(self) -> bytes:
        return _encode_operations(self.ops)

    def read_reply(self, body: bytes, at: int) -> tuple[list[Any], int]:
        return _read_reads(body, at, (op.opcode for op in self.ops), lambda index: self.ops[index].path)


class MultiReadData(Message[list[tuple[bytes, Stat] | ServerError]]):
    """GetData of many children of one node, in one round trip: the way a service's instances are read."""

    opcode = MultiRead.opcode
    parts = MultiRead.parts

    def __init__(self, parent: str, names: Sequence[str]) -> None:
        self.path = parent
        self.names = names
        self._prefix = parent if parent.endswith("/") else parent + "/"

    @property
    def ops(self) -> list[GetData]:
        """The same as operations of a :class:`MultiRead`."""
        return [GetData(self._prefix + name) for name in self.names]

    def encode(self) -> bytes:
        prefix = self._prefix.encode()
        pack, size = _GET_DATA_OPERATION.pack, len(prefix)
        parts: list[bytes] = []
        for name in self.names:
            raw = name.encode()
            parts += (pack(4, False, -1, size + len(raw)), prefix, raw, b"\x00")
        parts.append(_END)
        return b"".join(parts)

    def read_reply(self, body: bytes, at: int) -> tuple[list[tuple[bytes, Stat] | ServerError], int]:
        return _read_reads(body, at, repeat(4, len(self.names)), lambda index: self._prefix + self.names[index])


_GET_DATA_OPERATION = struct.Struct(">i?ii")  # MultiHeader and the length of the path
_READ_RESULT = struct.Struct(">i?ii")  # MultiHeader and the first of what follows: a length, a count or the error again


def _read_reads(body: bytes, at: int, opcodes: Iterable[int], path_of: Callable[[int], str]) -> tuple[list[Any], int]:
    """The results of a MultiRead: one loop without calls into Python, for it reads every instance of a service."""
    read_head, read_fields, new, stat_class = _READ_RESULT.unpack_from, STAT.unpack_from, tuple.__new__, Stat
    results: list[Any] = []
    append = results.append
    for expected in opcodes:
        opcode, done, code, length = read_head(body, at)
        if opcode == 4 == expected and length >= 0:
            at += 13
            end = at + length
            append((body[at:end], new(stat_class, read_fields(body, end))))
            at = end + 68
        elif opcode == _FAILED and not done:
            append(server_error(code, path_of(len(results))))
            at += 13
        elif opcode == expected:
            result, at = _READ_ALONE[opcode](body, at + 9)
            append(result)
        else:
            raise ProtocolError(f"the read of {path_of(len(results))} was answered as type {opcode}")
    return results, _read_end(body, at)


_READ_ALONE: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    GetData.opcode: GetData("").read_reply,  # with null data
    GetChildren.opcode: read_strings,
}


# ---------------------------------------------------------------- watches


class AddWatch(Message[None]):
    """Set a persistent watch (ZooKeeper 3.6); a server that does not know it answers Unimplemented and closes."""

    opcode = 106
    parts = (("path", UString), ("mode", Int))
    path: str

    def __init__(self, path: str, mode: int = AddWatchMode.PERSISTENT_RECURSIVE) -> None:
        self.path = path
        self.mode = mode

    def encode(self) -> bytes:
        return write_string(self.path) + INT.pack(self.mode)

    def read_reply(self, body: bytes, at: int) -> tuple[None, int]:
        code, at = read_int(body, at)  # an ErrorResponse, with the code that the header has too
        if code:
            raise ProtocolError(f"AddWatch {self.path} was answered with error {code} behind a header without")
        return None, at


class CheckWatches(_Silent):
    """NoWatcher unless the connection has a watch of this kind on the path."""

    opcode = 17
    parts = (("path", UString), ("kind", Int))
    path: str

    def __init__(self, path: str, kind: int = WatcherType.ANY) -> None:
        self.path = path
        self.kind = kind

    def encode(self) -> bytes:
        return write_string(self.path) + INT.pack(self.kind)


class RemoveWatches(CheckWatches):
    """Remove this connection's watches of this kind on the path; NoWatcher where there are none."""

    opcode = 18


class SetWatches(_Silent):
    """After a reconnect, set one-shot watches anew: what changed after ``relative_zxid`` is reported at once."""

    opcode = 101
    special_xid = SET_WATCHES_XID
    parts: ClassVar[Layout] = (
        ("relative_zxid", Long),
        ("data", Vector.of(UString)),
        ("exist", Vector.of(UString)),
        ("child", Vector.of(UString)),
    )

    def __init__(
        self, relative_zxid: int, data: Sequence[str] = (), exist: Sequence[str] = (), child: Sequence[str] = ()
    ) -> None:
        self.relative_zxid = relative_zxid
        self.data = data
        self.exist = exist
        self.child = child

    def encode(self) -> bytes:
        vectors = (getattr(self, name) for name, _ in self.parts[1:])
        return LONG.pack(self.relative_zxid) + b"".join(map(write_strings, vectors))


class SetWatches2(SetWatches):
    """As :class:`SetWatches`, with the persistent ones, which report nothing of the past (ZooKeeper 3.6)."""

    opcode = 105
    parts = (*SetWatches.parts, ("persistent", Vector.of(UString)), ("persistent_recursive", Vector.of(UString)))

    def __init__(
        self,
        relative_zxid: int,
        data: Sequence[str] = (),
        exist: Sequence[str] = (),
        child: Sequence[str] = (),
        persistent: Sequence[str] = (),
        persistent_recursive: Sequence[str] = (),
    ) -> None:
        super().__init__(relative_zxid, data, exist, child)
        self.persistent = persistent
        self.persistent_recursive = persistent_recursive


_BY_OPCODE: dict[int, type[Message[Any]]] = {
    operation.opcode: operation
    for operation in (Create, Create2, CreateContainer, CreateTTL, Delete, SetData, Check, GetData, GetChildren)
}
"""What a transaction or a MultiRead may consist of."""

WRITE_OPCODES: Final = frozenset({1, 2, 5, 7, 13, 14, 15, 16, 19, 20, 21, CloseSession.opcode})
"""The requests that are transactions of the quorum's, aiozk's included: without a reply they may have been applied."""


# ---------------------------------------------------------------- responses for aiozk's machinery


class CreateContainerResponse(Create2Response):
    opcode = 19


class CreateTTLResponse(Create2Response):
    opcode = 21


class MultiReadResponse(TransactionResponse):
    opcode = 22


class GetEphemeralsResponse(Response):
    opcode = 103
    parts = (("ephemerals", Vector.of(UString)),)


class GetAllChildrenNumberResponse(Response):
    opcode = 104
    parts = (("total", Int),)


class SetWatches2Response(Response):
    opcode = 105
    parts = ()


class AddWatchResponse(Response):
    opcode = 106
    parts = (("error", Int),)


class ClientInfoPart(Part):
    parts = (("auth_scheme", UString), ("user", UString))


class WhoAmIResponse(Response):
    opcode = 107
    parts = (("client_info", Vector.of(ClientInfoPart)),)
