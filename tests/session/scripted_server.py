"""ZooKeeper servers that do what a test tells them to, and otherwise what ZooKeeper does.

Protocols of asyncio, for the simulated network and for loopback alike. Written from the protocol's description and
from the conversations recorded with 3.8.0; the library's codecs have no part in it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.session.watch_tables import Mode, Node, WatchTables, parent_of
from tests.support.wire import Body

CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_CHILDREN, SYNC, GET_CHILDREN2 = 1, 2, 3, 4, 5, 8, 9, 12
REMOVE_WATCHES, MULTI_READ, AUTH, SET_WATCHES, SET_WATCHES2, ADD_WATCH, CLOSE = 18, 22, 100, 101, 105, 106, -11
NO_NODE, BAD_VERSION, NODE_EXISTS, NO_WATCHER, UNIMPLEMENTED, AUTH_FAILED, THROTTLED, NOT_READ_ONLY = (
    -101,
    -103,
    -110,
    -121,
    -6,
    -115,
    -127,
    -119,
)
WRITES = {CREATE, DELETE, SET_DATA}


@dataclass
class Session:
    password: bytes
    timeout: float
    link: Link | None = None


class Ensemble:
    """The state that a quorum agrees on: one tree, one history of zxids, sessions that the test ends."""

    def __init__(self, *, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self.zxid = 0x100
        self.nodes = {"/": Node(0)}
        self.sessions: dict[int, Session] = {}
        self.servers: list[Server] = []
        self._last_id = 0x1000

    def server(self, name: str = "zk") -> Server:
        server = Server(self, name)
        self.servers.append(server)
        return server

    def commit(self) -> int:
        self.zxid += 1
        return self.zxid

    def grant(self, link: Link) -> int:
        self._last_id += 1
        self.commit()
        self.sessions[self._last_id] = Session(struct.pack(">qq", self._last_id, 7), self.timeout, link)
        return self._last_id

    def expire(self, session_id: int) -> None:
        """The session has ended; its connection is closed."""
        session = self.sessions.pop(session_id)
        self.commit()
        if session.link is not None:
            session.link.close()

    def wipe(self) -> None:
        """Begin a new history."""
        self.zxid = 0
        self.nodes = {"/": Node(0)}
        self.sessions.clear()
        for server in self.servers:
            server.close_all()

    def set(self, path: str) -> None:
        """Somebody creates or changes a node."""
        zxid = self.commit()
        if path in self.nodes:
            self.nodes[path].mzxid = zxid
            self._tell(lambda tables: tables.changed(path))
        else:
            self.nodes[path] = Node(zxid)
            self.nodes[parent_of(path)].pzxid = zxid
            self._tell(lambda tables: tables.created(path))

    def delete(self, path: str) -> None:
        """Somebody deletes a node."""
        del self.nodes[path]
        self.nodes[parent_of(path)].pzxid = self.commit()
        self._tell(lambda tables: tables.deleted(path))

    def _tell(self, due: Callable[[WatchTables], list[tuple[int, str]]]) -> None:
        for server in self.servers:
            for link in list(server.links):
                link.tell(due(link.tables))


@dataclass(eq=False)
class Server:
    """One member, and how it behaves; call it for a protocol that serves one connection."""

    ensemble: Ensemble
    name: str
    silent: bool = False
    """Reads, and answers nothing at all."""
    silent_to: set[int] = field(default_factory=set)
    """Does not answer these operations, and so nothing that comes behind them on the same connection."""
    closes: bool = False
    """Closes on a handshake without a word."""
    closes_on_known: bool = False
    """… that offers a session."""
    hears_nothing: bool = False
    """Takes the handshake and does not answer it."""
    behind: bool = False
    """Knows nothing of what was committed."""
    read_only: bool = False
    unknown: set[int] = field(default_factory=set)
    """Operations that are answered with Unimplemented, and the end of the connection."""
    unknown_but_kept: set[int] = field(default_factory=set)
    errors: dict[int, int] = field(default_factory=dict)
    """Errors by operation."""
    raw: bytes | None = None
    """Said instead of the answer to a handshake."""
    first_words: bytes | None = None
    """Said before anybody asked."""
    refused_schemes: set[str] = field(default_factory=set)
    timeout: float | None = None
    links: dict[Link, None] = field(default_factory=dict)
    handshakes: list[tuple[int, int, bool]] = field(default_factory=list)
    """Of each handshake: session id, last zxid, read-only."""
    on_handshake: Callable[[], None] = lambda: None
    asked: list[int] = field(default_factory=list)
    """The operations in the order they came."""

    def __call__(self) -> Link:
        return Link(self)

    def close_all(self) -> None:
        for link in list(self.links):
            link.close()


class Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ensemble = server.ensemble
        self.session_id = 0
        self.tables = WatchTables(one_mode_per_path=True)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._greeted = False
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.server.links[self] = None
        if self.server.first_words is not None:
            self.say(self.server.first_words)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.links.pop(self, None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4])
            if len(self._buffer) < end:
                return
            frame = bytes(self._buffer[4:end])
            del self._buffer[:end]
            if not self.server.silent:
                self._received(frame)

    def say(self, raw: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(raw)

    def reply(self, xid: int, zxid: int, error: int = 0, body: bytes = b"") -> None:
        payload = struct.pack(">iqi", xid, zxid, error) + body
        self.say(struct.pack(">i", len(payload)) + payload)

    def tell(self, events: list[tuple[int, str]]) -> None:
        if self.server.silent:
            return
        for kind, path in events:
            self.reply(-1, -1, 0, struct.pack(">ii", kind, 3) + _string(path))

    # ---- the handshake

    def _received(self, frame: bytes) -> None:
        if not self._greeted:
            self._greeted = True
            self._greet(frame)
            return
        xid, opcode = struct.unpack_from(">ii", frame)
        self.server.asked.append(opcode)
        self._waits = self._waits or opcode in self.server.silent_to
        if not self._waits:
            self._answer(xid, opcode, Cursor(frame, 8))

    def _greet(self, frame: bytes) -> None:
        server = self.server
        _, last_zxid, _timeout_ms, session_id, length = struct.unpack_from(">iqiqi", frame)
        password, read_only = frame[28 : 28 + length], bool(frame[28 + length])
        server.handshakes.append((session_id, last_zxid, read_only))
        server.on_handshake()
        if server.hears_nothing:
            return
        if server.raw is not None:
            self.say(server.raw)
        elif (
            server.closes
            or (session_id and server.closes_on_known)
            or last_zxid > (0 if server.behind else self.ensemble.zxid)
        ):
            self.close()
        elif server.read_only:
            self._greet_alone(session_id, read_only)
        elif session_id == 0:
            self._accept(self.ensemble.grant(self))
        else:
            self._greet_again(session_id, password)

    def _greet_alone(self, session_id: int, read_only: bool) -> None:
        if not read_only:
            self.close()
        elif session_id:
            self._refuse(read_only=True)
        else:
            self._welcome(0x7777, bytes(16), read_only=True)

    def _greet_again(self, session_id: int, password: bytes) -> None:
        session = self.ensemble.sessions.get(session_id)
        if session is None or session.password != password:
            self._refuse()
            return
        if session.link is not None and session.link is not self:
            session.link.close()
        session.link = self
        self._accept(session_id)

    def _accept(self, session_id: int) -> None:
        self.session_id = session_id
        self._welcome(session_id, self.ensemble.sessions[session_id].password)

    def _welcome(self, session_id: int, password: bytes, *, read_only: bool = False) -> None:
        timeout = self.server.timeout or self.ensemble.timeout
        payload = struct.pack(">iiqi", 0, int(timeout * 1000), session_id, len(password)) + password
        payload += bytes([read_only])
        self.say(struct.pack(">i", len(payload)) + payload)

    def _refuse(self, *, read_only: bool = False) -> None:
        payload = struct.pack(">iiqi", 0, 0, 0, 16) + bytes(16) + bytes([read_only])
        self.say(struct.pack(">i", len(payload)) + payload)

    # ---- requests

    def _answer(self, xid: int, opcode: int, body: Cursor) -> None:
        server, zxid = self.server, self.ensemble.zxid
        if opcode in server.unknown | server.unknown_but_kept:
            self.reply(xid, -1, UNIMPLEMENTED)
            if opcode in server.unknown:
                self.close()
        elif opcode in server.errors:
            self.reply(xid, zxid if server.errors[opcode] < -100 else -1, server.errors[opcode])
        elif server.read_only and opcode in {SYNC, *WRITES}:
            self.reply(xid, zxid, NOT_READ_ONLY)
        else:
            handler, watches = _HANDLERS[opcode]
            error, answer = handler(self, body)
            self.reply(xid, self.ensemble.zxid, error, answer)
            if watches:
                self._arm(opcode, body, error)
            if (opcode == AUTH and error) or opcode == CLOSE:
                self.close()

    def _arm(self, opcode: int, body: Cursor, error: int) -> None:
        path, watch = body.seen
        if not watch or (error and opcode != EXISTS):
            return
        if opcode in (GET_CHILDREN, GET_CHILDREN2):
            self.tables.add_child(path)
        else:
            self.tables.add(path, Mode.ONE_SHOT)

    def _auth(self, body: Cursor) -> tuple[int, bytes]:
        body.number()
        return (AUTH_FAILED if body.string() in self.server.refused_schemes else 0), b""

    def _sync(self, body: Cursor) -> tuple[int, bytes]:
        return 0, _string(body.string())

    def _read(self, body: Cursor) -> tuple[int, bytes]:
        path = body.path_and_watch()
        return (0, self._stat(path)) if path in self.ensemble.nodes else (NO_NODE, b"")

    def _get_data(self, body: Cursor) -> tuple[int, bytes]:
        error, stat = self._read(body)
        return error, b"" if error else _string("data") + stat

    def _get_children(self, body: Cursor) -> tuple[int, bytes]:
        path = body.path_and_watch()
        if path not in self.ensemble.nodes:
            return NO_NODE, b""
        names = [each.rpartition("/")[2] for each in self.ensemble.nodes if each != path and parent_of(each) == path]
        return 0, struct.pack(">i", len(names)) + b"".join(map(_string, names))

    def _multi_read(self, body: Cursor) -> tuple[int, bytes]:
        answer = b""
        while True:
            opcode, done, _ = body.unpack(">i?i")
            if done:
                return 0, answer + struct.pack(">i?i", -1, True, -1)
            error, part = self._get_data(body) if opcode == GET_DATA else self._get_children(body)
            answer += struct.pack(">i?ii", -1, False, error, error) if error else struct.pack(">i?i", opcode, False, 0)
            answer += part

    def _create(self, body: Cursor) -> tuple[int, bytes]:
        path = body.string()
        if path in self.ensemble.nodes:
            return NODE_EXISTS, b""
        self.ensemble.set(path)
        return 0, _string(path)

    def _set_data(self, body: Cursor) -> tuple[int, bytes]:
        path = body.string()
        if path not in self.ensemble.nodes:
            self.ensemble.commit()
            return NO_NODE, b""
        self.ensemble.set(path)
        return 0, self._stat(path)

    def _delete(self, body: Cursor) -> tuple[int, bytes]:
        path = body.string()
        if path not in self.ensemble.nodes:
            self.ensemble.commit()  # a failed write is a transaction too
            return NO_NODE, b""
        self.ensemble.delete(path)
        return 0, b""

    def _close_session(self, body: Cursor) -> tuple[int, bytes]:
        if self.ensemble.sessions.pop(self.session_id, None) is not None:
            self.ensemble.commit()
        return 0, b""

    def _add_watch(self, body: Cursor) -> tuple[int, bytes]:
        self.tables.add(body.string(), Mode.RECURSIVE)
        return 0, struct.pack(">i", 0)

    def _remove_watches(self, body: Cursor) -> tuple[int, bytes]:
        return (0 if self.tables.remove(body.string()) else NO_WATCHER), b""

    def _set_watches(self, body: Cursor) -> tuple[int, bytes]:
        (zxid,) = body.unpack(">q")
        self.tell(self.tables.set_again(self.ensemble.nodes, zxid, body.strings(), body.strings(), body.strings(), []))
        return 0, b""

    def _set_watches2(self, body: Cursor) -> tuple[int, bytes]:
        (zxid,) = body.unpack(">q")
        data, exist, child, _, recursive = (body.strings() for _ in range(5))
        self.tell(self.tables.set_again(self.ensemble.nodes, zxid, data, exist, child, recursive))
        return 0, b""

    def _stat(self, path: str) -> bytes:
        node = self.ensemble.nodes[path]
        return struct.pack(">qqqqiiiqiiq", node.mzxid, node.mzxid, 0, 0, 0, 0, 0, 0, 4, 0, node.pzxid)


_HANDLERS: dict[int, tuple[Callable[[Link, Cursor], tuple[int, bytes]], bool]] = {
    AUTH: (Link._auth, False),
    SYNC: (Link._sync, False),
    EXISTS: (Link._read, True),
    GET_DATA: (Link._get_data, True),
    GET_CHILDREN: (Link._get_children, True),
    MULTI_READ: (Link._multi_read, False),
    CREATE: (Link._create, False),
    SET_DATA: (Link._set_data, False),
    DELETE: (Link._delete, False),
    CLOSE: (Link._close_session, False),
    ADD_WATCH: (Link._add_watch, False),
    REMOVE_WATCHES: (Link._remove_watches, False),
    SET_WATCHES: (Link._set_watches, False),
    SET_WATCHES2: (Link._set_watches2, False),
}
"""The handler of an operation, and whether it may leave a one-shot watch."""


class Cursor(Body):
    """Reads a request's body."""

    def __init__(self, raw: bytes, at: int) -> None:
        super().__init__(raw)
        self._at = at
        self.seen = ("", False)

    def path_and_watch(self) -> str:
        path = self.string()
        (watch,) = self.unpack(">?")
        self.seen = (path, bool(watch))
        return path


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">i", len(raw)) + raw
