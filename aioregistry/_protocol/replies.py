"""The parts of a received frame: its header, then an event or the reply to a request."""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple, TypeVar, overload

from aiozk.protocol.request import Request
from aiozk.protocol.response import response_xref

from aioregistry._errors import ProtocolError, SessionMoved, server_error
from aioregistry._protocol.jute import HEADER, malformation, read_string
from aioregistry._protocol.message import Message
from aioregistry._protocol.records import EventKind, Reply, WatchedEvent
from aioregistry._protocol.transactions import Multi

T = TypeVar("T")

HEADER_SIZE: Final = HEADER.size

_EVENT = struct.Struct(">iqiii")  # the header, type and state; the path follows (jute's WatcherEvent)
_FIRST_FAILURE = struct.Struct(">i?ii")  # jute's MultiHeader, and an ErrorResponse
_KINDS = {kind.value: kind for kind in EventKind}


class Header(NamedTuple):
    """The header of every reply but the ConnectReply; ``zxid`` is -1 in events before 3.9 and in some errors."""

    xid: int
    zxid: int
    error: int


def decode_header(frame: bytes) -> Header:
    """The header of a frame.

    Raises:
        ProtocolError: the frame is too short.
    """
    if len(frame) < HEADER_SIZE:
        raise ProtocolError(f"a reply of {len(frame)} bytes has no header")
    return Header(*HEADER.unpack_from(frame))


def decode_event(frame: bytes) -> WatchedEvent:
    """The event of a frame whose header has ``NOTIFICATION_XID``.

    Raises:
        ProtocolError: the event is malformed or of a kind unknown.
    """
    try:
        _, zxid, _, kind, state = _EVENT.unpack_from(frame)
        path, at = read_string(frame, _EVENT.size)
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"malformed event: {malformation(error)}") from error
    if at != len(frame):
        raise ProtocolError(f"an event of {len(frame)} bytes has content for {at}")
    if kind not in _KINDS:
        raise ProtocolError(f"an event of unknown kind {kind} for {path!r}")
    return WatchedEvent(_KINDS[kind], state, path, zxid)


@overload
def decode_reply(request: Message[T], frame: bytes) -> Reply[T]: ...
@overload
def decode_reply(request: Request, frame: bytes) -> Reply[Any]: ...
def decode_reply(request: Any, frame: bytes) -> Reply[Any]:
    """The reply to a request: what its ``decode`` makes of it, or aiozk's response where the request is one of aiozk's.

    Raises:
        ServerError: the header has an error code; what may follow it is not read, as Java's client does not. Also that
            the session has moved, where that is told inside a transaction: it concerns more than the transaction.
        ProtocolError: the reply is malformed.
    """
    _, zxid, error = decode_header(frame)
    if error:
        raise server_error(error, getattr(request, "path", None), zxid)
    if request.opcode == Multi.opcode and _has_moved(frame):
        raise server_error(SessionMoved.code, None, zxid)
    if isinstance(request, Message):
        return Reply(zxid, request.decode(frame, HEADER_SIZE))
    return Reply(zxid, _decode_with_aiozk(request, frame[HEADER_SIZE:]))


def _has_moved(frame: bytes) -> bool:
    """Followers of 3.5 say so, and keep the connection, which goes on answering heartbeats; 3.8 and 3.9 close it."""
    if len(frame) < HEADER_SIZE + _FIRST_FAILURE.size:
        return False
    opcode, _, _, code = _FIRST_FAILURE.unpack_from(frame, HEADER_SIZE)
    return (opcode, code) == (-1, SessionMoved.code)


def _decode_with_aiozk(request: Any, body: bytes) -> Any:
    name = type(request).__name__
    if request.opcode not in response_xref:
        raise ProtocolError(f"there is no response class for {name}, opcode {request.opcode}")
    try:
        return response_xref[request.opcode].deserialize(body)
    except (struct.error, ValueError, LookupError) as error:
        raise ProtocolError(f"malformed reply to {name}: {malformation(error)}") from error
