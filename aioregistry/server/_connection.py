"""One client's connection: frames out of bytes, in order, and bytes back.

While a request waits (for a slow member of an ensemble, or because a test wants it late) those behind it stay in the
buffer, as replies leave in order.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aioregistry.server import _requests as requests
from aioregistry.server._acl import Identity
from aioregistry.server._codes import Malformed
from aioregistry.server._requests import ConnectRequest

_LENGTH = struct.Struct(">i")

SESSIONLESS_TIMEOUT: Final = 10.0
"""Seconds that a connection may stay without asking for a session (``sessionlessCnxnTimeout``)."""

CLOSING_TIMEOUT: Final = 5.0
"""Seconds for sending the rest when the server closes."""

BACKLOG_LIMIT: Final = 1 << 18
"""Bytes that may wait unread behind a waiting request before the client is made to wait."""

OUT_LIMIT: Final = 1 << 18
"""Bytes of answers that are gathered for one write."""


class Server(Protocol):
    """The part of a server that its connections need."""

    max_buffer: int
    """Bytes of the longest request."""

    def accept(self, connection: Connection) -> bool:
        """Whether a new connection may stay."""

    def release(self, connection: Connection) -> None:
        """A connection stops serving its session."""

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""

    def answer_word(self, connection: Connection, word: bytes) -> bool:
        """Answer what may be a four-letter word, and return whether it was one."""

    def open(self, connection: Connection, request: ConnectRequest) -> None:
        """Give a connection a session, or refuse it."""

    def handle(self, connection: Connection, frame: bytes) -> None:
        """Take a connection's next request."""

    def touch(self, connection: Connection) -> None:
        """A connection's session was heard of."""


class Connection(asyncio.Protocol):
    """The server's end of a connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()  # unread, or not yet whole
        self._wanted = 0  # bytes that the buffer must have before reading it is worth it
        self._out: list[bytes] = []
        self._out_size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._reading = False  # within `_read`
        self._waiting = False  # a request is under way, and those behind it wait
        self._frozen = False
        self._blocked = False  # the client does not read its replies
        self._held_back = False  # the transport was told to pause
        self._lost_while_frozen = False
        self.peer: Any = None
        self.identities: tuple[Identity, ...] = ()
        self.connect_request: ConnectRequest | None = None
        self.session_id = 0
        self.timeout_ms = 0
        self.established_ms = 0
        self.closed: bool = False
        self.leaving = False  # its client has asked for the session's end
        self._loses_reply = False
        self._finishing = False
        self.received: int = 0
        self.sent: int = 0
        self.last_xid = -1
        self.last_opcode = 0

    @property
    def client(self) -> str | None:
        """The IP address of the other side, or None if it has no address."""
        return self.peer[0] if isinstance(self.peer, tuple) else None

    # ------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio's
        self.peer = transport.get_extra_info("peername")
        if not self._server.accept(self):
            self.abort()
            return
        self.identities = _identities(transport)
        self._timer = self._loop.call_later(SESSIONLESS_TIMEOUT, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # whatever it is
        self._forget()

    def data_received(self, data: bytes) -> None:
        if self._waiting or self._frozen or self._blocked:
            self._buffer += data
            self._hold_back()
            if not self._frozen:
                self._touch()  # who waits for an answer is heard of all the same
            return
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._read(data)

    def pause_writing(self) -> None:
        self._blocked = True
        self._hold_back()

    def resume_writing(self) -> None:
        self._blocked = False
        self._go_on()

    # ------------------------------------------------------------ reading

    def _read(self, data: bytes) -> None:
        self._touch()
        at, size = 0, len(data)
        self._reading = True
        while not (self._waiting or self._frozen or self._blocked or self.closed):
            if size - at < 4:
                self._wanted = 4
                break
            if self.connect_request is None and self._server.answer_word(self, data[at : at + 4]):
                break
            (length,) = _LENGTH.unpack_from(data, at)
            if not 0 <= length <= self._server.max_buffer:
                self.abort()
                break
            begin = at + 4
            end = begin + length
            if end > size:
                self._wanted = end - at
                break
            at = end
            self.received += 1
            self._handle(data[begin:end])
            if self._out_size > OUT_LIMIT:
                # The transport tells when its client reads too slowly for more.
                self.flush()
        self._reading = False
        if self._finishing:
            self.close()
        elif not self.closed and at < size:
            self._buffer += data[at:]
        self.flush()

    def _touch(self) -> None:
        if self.session_id:
            self._server.touch(self)

    def _handle(self, frame: bytes) -> None:
        if self.connect_request is not None:
            self._server.handle(self, frame)
            return
        try:
            request = requests.read_connect(frame)
        except (Malformed, struct.error):
            self.abort()
            return
        self.connect_request = request
        if self._timer is not None:
            self._timer.cancel()
        self._server.open(self, request)

    def _go_on(self) -> None:
        if self.closed or self._reading or self._waiting or self._frozen or self._blocked:
            return
        if self._held_back:
            self._held_back = False
            assert self._transport is not None
            self._transport.resume_reading()
        self.flush()
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            self._read(data)

    def _hold_back(self) -> None:
        if (self._blocked or len(self._buffer) > BACKLOG_LIMIT) and not (self._held_back or self.closed):
            self._held_back = True
            assert self._transport is not None
            self._transport.pause_reading()

    # ------------------------------------------------------------ the server's side

    def wait(self) -> None:
        """Read no further until `done`."""
        self._waiting = True

    def done(self) -> None:
        """The awaited reply is here."""
        self._waiting = False
        self._go_on()

    def lose_next_reply(self) -> None:
        """End in place of sending what `reply` is called with next."""
        self._loses_reply = True

    def reply(self, framed: bytes) -> None:
        """Send the answer to a request."""
        if self._loses_reply:
            self.abort()
        else:
            self.send(framed)

    def take_late(self, answer: Callable[[], None]) -> None:
        """Have a request answered that was held back, then read those behind it."""
        if self.closed:
            return
        self._waiting = False
        self._reading = True
        answer()
        self._reading = False
        if self._finishing:
            self.close()
        self._go_on()

    def send(self, framed: bytes) -> None:
        """Send an answer or a notification, after all that was sent before."""
        if self.closed:
            return
        if not self._out and not self._reading:
            self._loop.call_soon(self.flush)
        self.sent += 1
        self._out.append(framed)
        self._out_size += len(framed)

    def flush(self) -> None:
        if self._out and not (self._frozen or self.closed):
            assert self._transport is not None
            data = b"".join(self._out)
            self._out.clear()
            self._out_size = 0
            self._transport.write(data)

    def freeze(self) -> None:
        """Neither read nor write nor end, as a half-open connection."""
        self._frozen = True

    def thaw(self) -> None:
        self._frozen = False
        if self._lost_while_frozen:
            self.abort()
        else:
            self._go_on()

    def finish(self) -> None:
        """Handle the bytes that have arrived already, then close, as the real server mostly does."""
        self._finishing = True

    def close(self) -> None:
        """Send the queued bytes, then end; read nothing more."""
        if self._frozen:
            self.abort()
            return
        self.flush()
        if self._transport is not None and not self.closed:
            self._forget()
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._timer = self._loop.call_later(CLOSING_TIMEOUT, self._transport.abort)

    def abort(self) -> None:
        """End at once; the peer of a frozen connection does not see that before it thaws."""
        if self._frozen:
            self._lost_while_frozen = True
            self._server.release(self)
            return
        if self._transport is not None and not self.closed:
            self._forget()
            self._transport.abort()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.closed:
            self.closed = True
            self._out.clear()
            self._buffer.clear()
            self._server.forget(self)

    def __repr__(self) -> str:
        return f"<Connection {self.peer} session={self.session_id:#x}>"


def _identities(transport: asyncio.Transport) -> tuple[Identity, ...]:
    peer = transport.get_extra_info("peername")
    known = [Identity("ip", peer[0])] if isinstance(peer, tuple) else []
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert() if tls is not None else None
    if certificate:
        known.append(Identity("x509", _name(certificate["subject"])))
    return tuple(known)


_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}


def _name(subject: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """A certificate's subject as RFC 2253 writes it, the last part first."""
    parts = ("+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part) for part in reversed(subject))
    return ",".join(parts)


def _escaped(value: str) -> str:
    return "".join(f"\\{character}" if character in ',+"\\<>;=' else character for character in value)
