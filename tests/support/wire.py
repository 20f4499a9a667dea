"""ZooKeeper's protocol on a bare socket: the outside observer of the tests.

Deliberately tiny and without any opinion: no retries, no heartbeats, no background task. Written from the protocol's
description in zookeeper.jute; shares nothing with the library or with aiozk.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import struct
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Self

TIMEOUT = 50.0

CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, SYNC, PING = 1, 2, 3, 4, 5, 9, 11
GET_CHILDREN, MULTI, CREATE2, REMOVE_WATCHES = 12, 14, 15, 18
CREATE_CONTAINER, CREATE_TTL, MULTI_READ = 19, 21, 22
ADD_WATCH, CLOSE_SESSION = 106, -11

PERSISTENT, EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL, CONTAINER, TTL = range(6)
RECURSIVE_WATCH = 1

CREATED, DELETED, CHANGED, CHILDREN_CHANGED = 1, 2, 3, 4
EVENT_XID, PING_XID = -1, -2
NO_PASSWORD = bytes(16)
HEADER_SIZE = 16


class Stat(NamedTuple):
    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    owner: int
    data_length: int
    children: int
    pzxid: int


class Node(NamedTuple):
    data: bytes
    stat: Stat


class Event(NamedTuple):
    """Something happened to a node; `state` is the connection's, the zxid (-1: not told) comes from the header."""

    type: int
    path: str
    state: int
    zxid: int


class Operation(NamedTuple):
    """A request without its header, as it also stands inside a multi."""

    opcode: int
    body: bytes


class Result(NamedTuple):
    """One operation's outcome inside a multi or a multi-read; what does not apply is None."""

    error: int
    path: str | None = None
    stat: Stat | None = None
    data: bytes | None = None
    children: list[str] | None = None


class WireError(Exception):
    """The server answered with an error code."""

    def __init__(self, code: int, zxid: int) -> None:
        super().__init__(f"ZooKeeper answered {code}")
        self.code = code
        self.zxid = zxid


class WireClosed(ConnectionError):
    """The server closed the connection."""


class SessionRefused(Exception):
    """The server says that the offered session has expired."""


def _buffer(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">i", len(raw)) + raw


OPEN_ACL = struct.pack(">ii", 1, 31) + _buffer("world") + _buffer("anyone")


def create(
    path: str, data: bytes = b"", *, flags: int = PERSISTENT, opcode: int = CREATE, ttl_ms: int | None = None
) -> Operation:
    tail = b"" if ttl_ms is None else struct.pack(">q", ttl_ms)
    return Operation(opcode, _buffer(path) + _buffer(data) + OPEN_ACL + struct.pack(">i", flags) + tail)


def create2(path: str, data: bytes = b"", *, flags: int = PERSISTENT) -> Operation:
    return create(path, data, flags=flags, opcode=CREATE2)


def delete(path: str, version: int = -1) -> Operation:
    return Operation(DELETE, _buffer(path) + struct.pack(">i", version))


def set_data(path: str, data: bytes, version: int = -1) -> Operation:
    return Operation(SET_DATA, _buffer(path) + _buffer(data) + struct.pack(">i", version))


def exists(path: str, *, watch: bool = False) -> Operation:
    return Operation(EXISTS, _buffer(path) + struct.pack(">?", watch))


def get_data(path: str, *, watch: bool = False) -> Operation:
    return Operation(GET_DATA, _buffer(path) + struct.pack(">?", watch))


def get_children(path: str, *, watch: bool = False, opcode: int = GET_CHILDREN) -> Operation:
    """With `opcode` 8 it is the older form without a Stat, the one that a multi-read knows."""
    return Operation(opcode, _buffer(path) + struct.pack(">?", watch))


def sync(path: str) -> Operation:
    return Operation(SYNC, _buffer(path))


def add_watch(path: str, mode: int = RECURSIVE_WATCH) -> Operation:
    return Operation(ADD_WATCH, _buffer(path) + struct.pack(">i", mode))


def remove_watches(path: str, kind: int) -> Operation:
    """Kinds: 1 children, 2 data, 3 any; from 3.9 also 4 persistent, 5 recursive."""
    return Operation(REMOVE_WATCHES, _buffer(path) + struct.pack(">i", kind))


def multi(operations: Sequence[Operation], *, opcode: int = MULTI) -> Operation:
    parts = b"".join(struct.pack(">i?i", operation.opcode, False, -1) + operation.body for operation in operations)
    return Operation(opcode, parts + struct.pack(">i?i", -1, True, -1))


class Body:
    """A cursor over a reply's bytes."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def unpack(self, layout: str) -> tuple[int, ...]:
        values: tuple[int, ...] = struct.unpack_from(layout, self._raw, self._at)
        self._at += struct.calcsize(layout)
        return values

    def number(self) -> int:
        return self.unpack(">i")[0]

    def buffer(self) -> bytes:
        size = max(self.number(), 0)
        self._at += size
        return self._raw[self._at - size : self._at]

    def string(self) -> str:
        return self.buffer().decode()

    def strings(self) -> list[str]:
        return [self.string() for _ in range(self.number())]

    def stat(self) -> Stat:
        return Stat(*self.unpack(">qqqqiiiqiiq"))

    def results(self) -> list[Result]:
        """The answers to a multi or a multi-read, in order."""
        results: list[Result] = []
        while True:
            opcode, done, error = self.unpack(">i?i")
            if done:
                return results
            results.append(self._result(opcode, error))

    def _result(self, opcode: int, error: int) -> Result:
        match opcode:
            case -1:
                return Result(self.number())
            case 1:
                return Result(error, path=self.string())
            case 15 | 19 | 21:
                return Result(error, path=self.string(), stat=self.stat())
            case 4:
                return Result(error, data=self.buffer(), stat=self.stat())
            case 5:
                return Result(error, stat=self.stat())
            case 8:
                return Result(error, children=self.strings())
            case _:
                return Result(error)


@dataclasses.dataclass(frozen=True)
class Reply:
    xid: int
    zxid: int
    error: int
    body: Body


class Wire:
    """One connection with one session. Made by `connect`.

    Every wait ends after `TIMEOUT` seconds with TimeoutError. A wait may be cancelled, and what it waited for asked
    for again.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frame_size: int | None = None
        self._xid = 0
        self._replies: dict[int, Reply] = {}
        self._reading = asyncio.Lock()
        self.events: deque[Event] = deque()
        self.zxid = 0
        self.session_id = 0
        self.password = NO_PASSWORD
        self.timeout_ms = 0
        self.read_only = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await self.close()
        finally:
            self.abandon()  # a server that does not answer leaves nothing open for the next test to stumble over

    def send(self, operation: Operation, *, xid: int | None = None) -> int:
        """Send a request and return its xid, for `reply`."""
        if xid is None:
            self._xid += 1
            xid = self._xid
        self.send_frame(struct.pack(">ii", xid, operation.opcode) + operation.body)
        return xid

    def send_frame(self, frame: bytes) -> None:
        self._writer.write(_buffer(frame))

    async def reply(self, xid: int) -> Reply:
        """The reply to the request with this xid, whatever error it carries. Raises WireClosed."""
        async with asyncio.timeout(TIMEOUT), self._reading:
            while xid not in self._replies:
                await self._read()
        return self._replies.pop(xid)

    async def event(self) -> Event:
        """The next event. Raises WireClosed."""
        async with asyncio.timeout(TIMEOUT), self._reading:
            while not self.events:
                await self._read()
        return self.events.popleft()

    async def closed(self) -> None:
        """Return when the server has closed the connection; what it still sends is dropped."""
        async with asyncio.timeout(TIMEOUT), self._reading:
            with contextlib.suppress(WireClosed):
                while True:
                    await self._read()

    async def ask(self, operation: Operation, *, xid: int | None = None) -> Reply:
        """Send a request and return its reply. Raises WireError with the code if that is not 0, and WireClosed."""
        reply = await self.reply(self.send(operation, xid=xid))
        if reply.error:
            raise WireError(reply.error, reply.zxid)
        return reply

    async def create(self, path: str, data: bytes = b"", *, flags: int = PERSISTENT) -> str:
        return (await self.ask(create(path, data, flags=flags))).body.string()

    async def create2(self, path: str, data: bytes = b"", *, flags: int = PERSISTENT) -> tuple[str, Stat]:
        body = (await self.ask(create2(path, data, flags=flags))).body
        return body.string(), body.stat()

    async def delete(self, path: str, version: int = -1) -> None:
        await self.ask(delete(path, version))

    async def set_data(self, path: str, data: bytes, version: int = -1) -> Stat:
        return (await self.ask(set_data(path, data, version))).body.stat()

    async def get_data(self, path: str, *, watch: bool = False) -> Node:
        body = (await self.ask(get_data(path, watch=watch))).body
        return Node(body.buffer(), body.stat())

    async def exists(self, path: str, *, watch: bool = False) -> Stat | None:
        reply = await self.reply(self.send(exists(path, watch=watch)))
        if reply.error not in {0, -101}:
            raise WireError(reply.error, reply.zxid)
        return None if reply.error else reply.body.stat()

    async def get_children(self, path: str, *, watch: bool = False) -> list[str]:
        return (await self.ask(get_children(path, watch=watch))).body.strings()

    async def multi(self, *operations: Operation) -> list[Result]:
        """The outcomes in order; one error there means that nothing was applied. The reply's own error is raised, if
        ever there is one."""
        return (await self.ask(multi(operations))).body.results()

    async def add_watch(self, path: str, mode: int = RECURSIVE_WATCH) -> None:
        await self.ask(add_watch(path, mode))

    async def sync(self, path: str = "/") -> None:
        await self.ask(sync(path))

    async def ping(self) -> None:
        await self.ask(Operation(PING, b""), xid=PING_XID)

    async def close(self) -> None:
        """Close the session and the connection. Raises WireClosed when the server was gone already."""
        if not self._writer.is_closing():
            await self.ask(Operation(CLOSE_SESSION, b""))
            await self.closed()

    def abandon(self) -> None:
        """Drop the connection and leave the session behind, as a process that dies."""
        self._writer.transport.abort()

    async def _read(self) -> None:
        xid, zxid, error = struct.unpack_from(">iqi", frame := await self.read_frame())
        body = Body(frame[16:])
        if xid == EVENT_XID:
            kind, state = body.unpack(">ii")
            self.events.append(Event(kind, body.string(), state, zxid))
        else:
            self._replies[xid] = Reply(xid, zxid, error, body)
            self.zxid = max(self.zxid, zxid)

    async def read_frame(self) -> bytes:
        """The next frame as it came, cancelled at no loss. Raises WireClosed."""
        try:
            if self._frame_size is None:
                self._frame_size = int.from_bytes(await self._reader.readexactly(4))
            frame = await self._reader.readexactly(self._frame_size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.abandon()
            raise WireClosed("the server closed the connection") from error
        self._frame_size = None
        return frame


def connect_request(session_id: int, password: bytes, *, timeout_ms: int, last_zxid: int, read_only: bool) -> bytes:
    """A ConnectRequest's frame without its length."""
    return struct.pack(">iqiq", 0, last_zxid, timeout_ms, session_id) + _buffer(password) + struct.pack(">?", read_only)


async def connect(
    address: str,
    *,
    session_id: int = 0,
    password: bytes = NO_PASSWORD,
    timeout_ms: int = 30_000,
    last_zxid: int = 0,
    read_only: bool = False,
) -> Wire:
    """Connect to "host:port" with a new session, or go on with the given one.

    Raises:
        SessionRefused: The offered session is not known, or is over.
        WireError: The server answered by a reply's header, as a read-only one does that makes no sessions.
        WireClosed: The server closed without an answer, as it does when it is behind `last_zxid`.
        OSError: Nobody listens.
    """
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(host, int(port))
        wire = Wire(reader, writer)
        wire.send_frame(
            connect_request(session_id, password, timeout_ms=timeout_ms, last_zxid=last_zxid, read_only=read_only)
        )
        try:
            frame = await wire.read_frame()
        except BaseException:
            wire.abandon()
            raise
    if len(frame) == HEADER_SIZE:
        wire.abandon()
        _, zxid, code = struct.unpack(">iqi", frame)
        raise WireError(code, zxid)
    answer = Body(frame)
    _, wire.timeout_ms, wire.session_id = answer.unpack(">iiq")
    wire.password = answer.buffer()
    wire.read_only = bool(answer.unpack(">?")[0])
    if wire.session_id == 0:
        wire.abandon()
        raise SessionRefused(f"session {session_id:#x} is over")
    return wire


async def force_expiry(address: str, session_id: int, password: bytes) -> None:
    """End somebody's session, now: to its owner and to watchers this is what an expiry is.

    Its owner may reconnect and so take the session back between our handshake and our closing it: only a
    refusal proves the end. Raises TimeoutError if that does not come within `TIMEOUT` seconds.
    """
    async with asyncio.timeout(TIMEOUT):
        while True:
            # The end closes every connection of the session, one that is shaking hands too.
            with contextlib.suppress(WireClosed):
                try:
                    wire = await connect(address, session_id=session_id, password=password)
                except SessionRefused:
                    return
                try:
                    # Where the owner ends it at the same moment, the server may forget to answer one of the two.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(TIMEOUT / 10):
                            await wire.close()
                finally:
                    wire.abandon()
