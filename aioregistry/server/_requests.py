"""Requests out of bytes, replies into bytes: the server's own codec, which shares no code with the client's.

Reading follows Java's jute: null strings, buffers and vectors are told from empty ones, what follows a request's end is
not looked at, bytes that are not UTF-8 become replacement characters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from aioregistry.server._acl import ACL, Identity, Rule, user_of
from aioregistry.server._codes import Malformed, Opcode
from aioregistry.server._history import OperationFailed, Transaction
from aioregistry.server._nodes import Node
from aioregistry.server._operations import (
    Check,
    Contradiction,
    Create,
    Delete,
    DeleteContainer,
    Operation,
    Result,
    SetACL,
    SetData,
)
from aioregistry.server._profiles import Profile
from aioregistry.server._tree import FLAGS

INT: Final = struct.Struct(">i")
LONG: Final = struct.Struct(">q")
HEADER: Final = struct.Struct(">iiqi")
"""The length of the frame, then a reply's xid, zxid and error."""
HEADER_SIZE: Final = 16

_CONNECT = struct.Struct(">iqiq")
_CONNECTED = struct.Struct(">iiqi")
_EVENT = struct.Struct(">iiqiiii")
_OPERATION = struct.Struct(">i?i")
_END = _OPERATION.pack(-1, True, -1)

EVENT_XID: Final = -1
PING_XID: Final = -2
SYNC_CONNECTED: Final = 3
_FAILED: Final = -1


class Reader:
    """A cursor over a frame.

    Its methods raise Malformed, or struct.error, at bytes that the real server cannot read either.
    """

    __slots__ = ("at", "frame")

    def __init__(self, frame: bytes, at: int = 0) -> None:
        self.frame = frame
        self.at = at

    def number(self) -> int:
        (value,) = INT.unpack_from(self.frame, self.at)
        self.at += 4
        return value  # type: ignore[no-any-return]

    def long(self) -> int:
        (value,) = LONG.unpack_from(self.frame, self.at)
        self.at += 8
        return value  # type: ignore[no-any-return]

    def flag(self) -> bool:
        if self.at >= len(self.frame):
            raise Malformed
        self.at += 1
        return self.frame[self.at - 1] != 0

    def buffer(self) -> bytes | None:
        length = self.number()
        if length == -1:
            return None
        begin, self.at = self.at, self.at + length
        if length < 0 or self.at > len(self.frame):
            raise Malformed
        return self.frame[begin : self.at]

    def string(self) -> str | None:
        raw = self.buffer()
        return None if raw is None else raw.decode(errors="replace")

    def strings(self) -> list[str | None]:
        """A vector of strings; a null one the real server could not walk."""
        count = self.number()
        if count == -1:
            raise Malformed
        return [self.string() for _ in range(count)]

    def acl(self) -> tuple[Rule, ...] | None:
        count = self.number()
        if count == -1:
            return None
        return tuple([Rule(self.number(), self.string(), self.string()) for _ in range(count)])


def path_of(frame: bytes, at: int) -> str:
    """A path that must be there, which is what most requests begin with."""
    path = Reader(frame, at).string()
    if path is None:
        raise Malformed
    return path


# ---------------------------------------------------------------- the session


class ConnectRequest(NamedTuple):
    """A connection's first request. *read_only* is None from clients before 3.4, which do not know of it."""

    last_zxid: int
    timeout_ms: int
    session_id: int
    password: bytes | None
    read_only: bool | None


def read_connect(frame: bytes) -> ConnectRequest:
    reader = Reader(frame)
    _, last_zxid, timeout_ms, session_id = _CONNECT.unpack_from(frame)
    reader.at = _CONNECT.size
    password = reader.buffer()
    read_only = reader.flag() if reader.at < len(frame) else None
    return ConnectRequest(last_zxid, timeout_ms, session_id, password, read_only)


def connected(request: ConnectRequest, *, timeout_ms: int, session_id: int, password: bytes) -> bytes:
    """The answer, framed; a timeout of 0 says that the session has ended."""
    body = _CONNECTED.pack(0, timeout_ms, session_id, len(password)) + password
    if request.read_only is not None:
        body += b"\0"
    return INT.pack(len(body)) + body


# ---------------------------------------------------------------- writes


def _read_create(reader: Reader, opcode: int) -> Create:
    path, data, acl, flags = reader.string(), reader.buffer(), reader.acl(), reader.number()
    return Create(opcode, path, data, acl, flags, reader.long() if opcode == Opcode.CREATE_TTL else -1)


def _read_delete(reader: Reader, _: int) -> Delete:
    return Delete(reader.string(), reader.number())


def _read_set_data(reader: Reader, _: int) -> SetData:
    return SetData(reader.string(), reader.buffer(), reader.number())


def _read_set_acl(reader: Reader, _: int) -> SetACL:
    return SetACL(reader.string(), reader.acl(), reader.number())


def _read_check(reader: Reader, _: int) -> Check:
    return Check(reader.string(), reader.number())


def _read_delete_container(reader: Reader, _: int) -> DeleteContainer:
    path = reader.string()
    if path is None:
        raise Malformed
    return DeleteContainer(path)


WRITES: Final[dict[int, Callable[[Reader, int], Operation]]] = {
    Opcode.CREATE: _read_create,
    Opcode.CREATE2: _read_create,
    Opcode.CREATE_CONTAINER: _read_create,
    Opcode.CREATE_TTL: _read_create,
    Opcode.DELETE: _read_delete,
    Opcode.SET_DATA: _read_set_data,
    Opcode.SET_ACL: _read_set_acl,
    Opcode.CHECK: _read_check,
    Opcode.DELETE_CONTAINER: _read_delete_container,
}


def read_write(frame: bytes, at: int, opcode: int, profile: Profile) -> Operation:
    """A write that stands alone."""
    if opcode == Opcode.DELETE_CONTAINER and not profile.reads_first:
        # It is not a client's request: the server's own ones were a bare path.
        return DeleteContainer(frame[at:].decode(errors="replace"))
    return WRITES[opcode](Reader(frame, at), opcode)


_IN_TRANSACTIONS: dict[int, Callable[[Reader, int], Operation]] = {
    opcode: WRITES[opcode]
    for opcode in (
        Opcode.CREATE,
        Opcode.CREATE2,
        Opcode.CREATE_CONTAINER,
        Opcode.CREATE_TTL,
        Opcode.DELETE,
        Opcode.SET_DATA,
        Opcode.CHECK,
    )
}


class Read(NamedTuple):
    """A GetData or GetChildren among several operations; whether it wants a watch is not heeded."""

    opcode: int
    path: str | None


def read_operations(frame: bytes, at: int, profile: Profile) -> list[Operation | Read]:
    """The operations of a Multi or MultiRead.

    Raises:
        Malformed: reads and writes are mixed, one is neither, or is a contradiction that is seen as soon as it is read.
    """
    reader = Reader(frame, at)
    operations: list[Operation | Read] = []
    while True:
        opcode = reader.number()
        done = reader.flag()
        reader.number()
        if done:
            break
        if opcode in (Opcode.GET_DATA, Opcode.GET_CHILDREN):
            operations.append(Read(opcode, reader.string()))
            reader.flag()
        elif opcode in _IN_TRANSACTIONS:
            operations.append(_IN_TRANSACTIONS[opcode](reader, opcode))
        else:
            raise Malformed
    if len({isinstance(operation, Read) for operation in operations}) > 1:
        raise Malformed
    if profile.reads_first and any(map(_is_contradiction, operations)):
        raise Malformed
    return operations


_BY_FLAGS = {4: Opcode.CREATE_CONTAINER, 5: Opcode.CREATE_TTL, 6: Opcode.CREATE_TTL}


def _is_contradiction(operation: Operation | Read) -> bool:
    """Whether the flags of a creation are those of a TTL without one given, or unknown."""
    if not isinstance(operation, Create) or operation.opcode == Opcode.CREATE_TTL:
        return False
    return _BY_FLAGS.get(operation.flags) == Opcode.CREATE_TTL or operation.flags not in FLAGS


def as_in_transactions(operation: Operation | Read, profile: Profile) -> Operation:
    """The kind of an operation of a Multi: of a creation the flags decide it, not the opcode (``Op``).

    Raises:
        Malformed: it is a read, has no path, or from 3.9 no ACL.
    """
    if isinstance(operation, Read) or operation.path is None:
        raise Malformed
    if not isinstance(operation, Create):
        return operation
    has_ttl = operation.opcode == Opcode.CREATE_TTL
    plain = operation.opcode if profile.multi_create2_has_stat and not has_ttl else Opcode.CREATE
    opcode = _BY_FLAGS.get(operation.flags, plain)
    if opcode == Opcode.CREATE_TTL and has_ttl:
        return operation
    if opcode == Opcode.CREATE_TTL:
        return Contradiction(operation.path)
    if profile.reads_first and not has_ttl and operation.acl is None:
        raise Malformed
    return operation._replace(opcode=opcode, ttl_ms=-1)


# ---------------------------------------------------------------- replies


def reply(xid: int, zxid: int, code: int, body: bytes = b"") -> bytes:
    """A reply, framed."""
    return HEADER.pack(HEADER_SIZE + len(body), xid, zxid, code) + body


def _encoded(text: str) -> bytes:
    """As Java's jute does: what lies beyond U+FFFF is the two surrogates of UTF-16, each for itself."""
    if text.isascii() or max(text) <= "\uffff":
        return text.encode(errors="replace")
    raw = text.encode("utf-16-le")
    return "".join(map(chr, struct.unpack(f"<{len(raw) // 2}H", raw))).encode(errors="surrogatepass")


def event(zxid: int, kind: int, path: str) -> bytes:
    """A notification, framed."""
    raw = _encoded(path)
    return _EVENT.pack(HEADER_SIZE + 12 + len(raw), EVENT_XID, zxid, 0, kind, SYNC_CONNECTED, len(raw)) + raw


def buffer(value: bytes | None) -> bytes:
    return INT.pack(-1) if value is None else INT.pack(len(value)) + value


def string(value: str | None) -> bytes:
    return buffer(None if value is None else _encoded(value))


def strings(values: Sequence[str]) -> bytes:
    return INT.pack(len(values)) + b"".join(map(string, values))


def acl(rules: ACL) -> bytes:
    parts = [INT.pack(len(rules))]
    for rule in rules:
        parts += (INT.pack(rule.permissions), string(rule.scheme), string(rule.id))
    return b"".join(parts)


def data(node: Node) -> bytes:
    """A node's data and Stat, made once for each of its states."""
    if node.packed is None:
        node.packed = buffer(node.data) + node.stat()
    return node.packed


def identities(known: Iterable[Identity]) -> bytes:
    """WhoAmI's answer: each once."""
    told = dict.fromkeys((identity.scheme, user_of(identity)) for identity in known)
    return INT.pack(len(told)) + b"".join(string(scheme) + string(user) for scheme, user in told)


def written(opcode: int, result: Result) -> bytes:
    """Encode a successful write's answer behind the header."""
    match opcode:
        case Opcode.CREATE:
            return string(result.path)
        case Opcode.CREATE2 | Opcode.CREATE_TTL | Opcode.CREATE_CONTAINER:
            return string(result.path) + (result.stat or b"")
        case Opcode.SET_DATA | Opcode.SET_ACL:
            return result.stat or b""
    return b""


def several(operations: Sequence[Operation], transaction: Transaction) -> bytes:
    """Encode a Multi's answer behind the header, applied or not."""
    parts: list[bytes] = []
    for operation, result in zip(operations, transaction.results, strict=True):
        if isinstance(result, OperationFailed):
            parts.append(failure(result.code))
        else:
            opcode = _answered_as(operation)
            parts += (_OPERATION.pack(opcode, False, 0), written(opcode, result))
    return b"".join(parts) + _END


def several_read(parts: Iterable[bytes]) -> bytes:
    """Encode a MultiRead's answer behind the header."""
    return b"".join(parts) + _END


def success(opcode: int, body: bytes) -> bytes:
    return _OPERATION.pack(opcode, False, 0) + body


def failure(code: int) -> bytes:
    return _OPERATION.pack(_FAILED, False, code) + INT.pack(code)


def _answered_as(operation: Operation) -> int:
    match operation:
        case Create():
            return Opcode.CREATE if operation.opcode == Opcode.CREATE else Opcode.CREATE2
        case Delete() | DeleteContainer():
            return Opcode.DELETE
        case SetData():
            return Opcode.SET_DATA
        case SetACL():
            return Opcode.SET_ACL
        case Check() | Contradiction():  # the latter is never applied
            return Opcode.CHECK
