"""Messages and responses that the library does not send or get, to compare the protocol with aiozk and real servers.

aiozk keeps one table of responses by opcode for the whole process, so an opcode that aiozk has is never defined again
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aiozk.protocol.acl import ACL
from aiozk.protocol.create import Create2Response
from aiozk.protocol.primitives import Int, Long, UString, Vector
from aiozk.protocol.response import Response
from aiozk.protocol.transaction import TransactionResponse

from aioregistry._aiozk_types import Part
from aioregistry._protocol import OPEN_ACL, PING_XID, Create2, CreateFlag, Delete, Message, RemoveWatches
from aioregistry._protocol.jute import LONG, read_count, read_int, read_string, read_strings, write_string
from aioregistry._protocol.message import OnPath, Silent


class ClientInfo(NamedTuple):
    """One identity of a connection, as ``WhoAmI`` tells it."""

    auth_scheme: str
    user: str


class Ping(Silent):
    """Keeps the connection from being closed. Proves nothing of the quorum: a server cut off from it answers too."""

    opcode = 11
    special_xid = PING_XID


class GetAllChildrenNumber(OnPath[int]):
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


class CreateTTL(Create2):
    """Create a node that the server removes when it was not modified for ``ttl_ms`` milliseconds and has no children.

    Unimplemented where the server's ``extendedTypesEnabled`` is not set.
    """

    opcode = 21
    parts = (*Create2.parts, ("ttl_ms", Long))

    def __init__(
        self, path: str, data: bytes, ttl_ms: int, acl: Sequence[ACL] = OPEN_ACL, flags: int = CreateFlag.TTL
    ) -> None:
        super().__init__(path, data, acl, flags)
        self.ttl_ms = ttl_ms

    def encode(self) -> bytes:
        return super().encode() + LONG.pack(self.ttl_ms)


class Check(Delete):
    """In a transaction: the node must have this version."""

    opcode = 13


class CheckWatches(RemoveWatches):
    """NoWatcher unless the connection has a watch of this kind on the path."""

    opcode = 17


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
