"""The requests that the library sends, and what their replies decode to; ``transactions`` has those of several parts.

Each is an aiozk ``Request``: ``parts`` documents its layout, and it renders, compares and prints like aiozk's own. On
top of that it encodes itself without the detour over ``parts``, and decodes its reply to plain tuples and lists.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar, Final

from aiozk.protocol.acl import ACL
from aiozk.protocol.primitives import Bool, Buffer, Int, Long, UString, Vector

from aioregistry._errors import ProtocolError, server_error, session_name
from aioregistry._protocol.jute import (
    BOOL,
    HEADER,
    INT,
    LONG,
    read_buffer,
    read_count,
    read_int,
    read_string,
    read_strings,
    write_buffer,
    write_string,
    write_strings,
)
from aioregistry._protocol.message import Layout, Message, OnPath, Silent, T_co
from aioregistry._protocol.records import (
    OPEN_ACL,
    OPEN_ACL_BYTES,
    AclEntry,
    AddWatchMode,
    ConnectReply,
    CreateFlag,
    Stat,
    WatcherType,
    read_stat,
    write_acl,
)
from aioregistry._secrets import Secret

NOTIFICATION_XID: Final = -1
PING_XID: Final = -2
AUTH_XID: Final = -4
SET_WATCHES_XID: Final = -8

_BOOL = (b"\x00", b"\x01")

ANY_VERSION: Final = -1
"""As ``version`` of a write: whatever the node's is."""


# ---------------------------------------------------------------- the session


class Connect(Message[ConnectReply]):
    """The first message of a connection: asks for a session, or for the one it had. It has no header and no opcode.

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
        return Secret(fixed + write_buffer(self.password) + _BOOL[self.read_only])

    def read_reply(self, body: bytes, at: int) -> tuple[ConnectReply, int]:
        if len(body) - at == HEADER.size:
            # So does a read-only server without local sessions (ReadOnlyRequestProcessor), and is silent from then on.
            _, zxid, code = HEADER.unpack_from(body, at)
            raise ProtocolError(f"the server answered Connect with an error: {server_error(code, zxid=zxid)}")
        version, at = read_int(body, at)
        timeout_ms, at = read_int(body, at)
        (session_id,) = LONG.unpack_from(body, at)
        password, at = read_buffer(body, at + 8)
        password = Secret(password)  # its holder can take the session over
        read_only = False
        if at != len(body):  # servers before 3.4 say nothing of read-only mode
            (read_only,) = BOOL.unpack_from(body, at)
            at += 1
        return ConnectReply(version, timeout_ms, session_id, password, read_only), at

    def __str__(self) -> str:
        # Without the password.
        known = f"session_id={session_name(self.session_id)}, last_zxid={self.last_zxid:#x}"
        return f"Connect({known}, timeout_ms={self.timeout_ms})"


class Auth(Silent):
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

    def serialize(self, xid: int | None = None) -> bytes:
        return Secret(super().serialize(xid))

    def encode(self) -> bytes:
        return Secret(INT.pack(self.type) + write_string(self.scheme) + write_buffer(self.auth))

    def __str__(self) -> str:
        return f"Auth(scheme={self.scheme})"


class SASLToken(Message[bytes]):
    """A step of SASL (``GetSASLRequest``), answered by the server's next token; a missing one reads as empty.

    Args:
        token: the client's; empty to begin.
    """

    opcode = 102
    parts = (("token", Buffer),)

    def __init__(self, token: bytes = b"") -> None:
        self.token = token

    def serialize(self, xid: int | None = None) -> bytes:
        return Secret(super().serialize(xid))

    def encode(self) -> bytes:
        return Secret(write_buffer(self.token))

    def read_reply(self, body: bytes, at: int) -> tuple[bytes, int]:
        token, at = read_buffer(body, at)
        return Secret(token), at

    def __str__(self) -> str:
        return "SASLToken()"


class CloseSession(Silent):
    """Ends the session and deletes the nodes that it owns."""

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
    """A node's Stat, or NoNode; the watch is set in both cases."""

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


class Sync(OnPath[str]):
    """Brings the server up to its leader: a later read is as new as the quorum was. Answers with the path."""

    opcode = 9

    def read_reply(self, body: bytes, at: int) -> tuple[str, int]:
        return read_string(body, at)


class GetAcl(OnPath[tuple[list[AclEntry], Stat]]):
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


# ---------------------------------------------------------------- writes


class _CreateNode(Message[T_co]):
    """The common part of the ways of creating a node."""

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


class Delete(Silent):
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


class RemoveWatches(Silent):
    """Remove this connection's watches of this kind on the path; NoWatcher if there is no such watch."""

    opcode = 18
    parts: ClassVar[Layout] = (("path", UString), ("kind", Int))
    path: str

    def __init__(self, path: str, kind: int = WatcherType.ANY) -> None:
        self.path = path
        self.kind = kind

    def encode(self) -> bytes:
        return write_string(self.path) + INT.pack(self.kind)


class SetWatches(Silent):
    """After a reconnect, set one-shot watches again: what changed after ``relative_zxid`` is reported at once."""

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


WRITE_OPCODES: Final = frozenset({1, 2, 5, 7, 13, 14, 15, 16, 19, 20, 21, CloseSession.opcode})
"""The requests that are transactions of the quorum's, aiozk's included: without a reply they may have been applied."""
