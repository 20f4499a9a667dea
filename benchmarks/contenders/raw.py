"""No library at all: a blocking socket and what the job needs of the protocol. The mark that cannot be beaten by much.

It has no error handling, reconnects once after the end of a connection, and has nothing between the bytes and the
result. A blocking socket: asyncio's is as fast for much and slower for little.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from benchmarks.contender import ADDED, REMOVED, SESSION_TIMEOUT, UPDATED, Tell
from benchmarks.workload import BASE_PATH, Sample

CREATE, GET_DATA, PING, GET_CHILDREN, MULTI_READ, ADD_WATCH, CLOSE = 1, 4, 11, 12, 22, 106, -11
EVENT_XID, PING_XID = -1, -2
RECURSIVE, EPHEMERAL = 1, 1
NODE_CREATED, NODE_DELETED, NODE_CHANGED = 1, 2, 3
BATCH = 500

INT = struct.Struct(">i")
REQUEST = struct.Struct(">ii")
REPLY = struct.Struct(">iqi")
RESULT = struct.Struct(">i?ii")  # of a MultiRead: opcode, whether it was the last, error, and the length of the data
IDENTITY = struct.Struct(">qq")  # czxid and mzxid, the first two fields of a Stat
STAT_SIZE = 68
CONNECT = struct.Struct(">iqiqi16s?")
CONNECTED = struct.Struct(">iiqi16s")
OPEN_ACL = b"\0\0\0\1\0\0\0\x1f\0\0\0\5world\0\0\0\6anyone"


class Instance(msgspec.Struct, rename="camel", gc=False):
    name: str
    id: str
    address: str
    port: int | None
    ssl_port: int | None
    payload: Any
    service_type: str
    uri_spec: Any
    registration_time: int = msgspec.field(name="registrationTimeUTC")
    enabled: bool = True


class Entry(NamedTuple):
    instance: Instance
    czxid: int
    mzxid: int


decode = msgspec.json.Decoder(Instance).decode


def string(value: str) -> bytes:
    raw = value.encode()
    return INT.pack(len(raw)) + raw


class Connection:
    """One session on one blocking socket."""

    def __init__(self, address: str, *, session_id: int = 0, password: bytes = bytes(16)) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb", buffering=1 << 20)
        self._xids = itertools.count(1)
        self._write(CONNECT.pack(0, 0, int(SESSION_TIMEOUT * 1000), session_id, 16, password, False))
        _, _, self.session_id, _, self.password = CONNECTED.unpack_from(self.frame())

    def send(self, *requests: tuple[int, bytes]) -> None:
        """All in one write."""
        self._write(*(REQUEST.pack(next(self._xids), opcode) + body for opcode, body in requests))

    def ping(self) -> None:
        self._write(REQUEST.pack(PING_XID, PING))

    def frame(self) -> bytes:
        """The next frame, whatever it is; EOFError at the end of the stream."""
        header = self._file.read(4)
        if len(header) < 4:
            raise EOFError
        frame: bytes = self._file.read(int.from_bytes(header))
        return frame

    def _write(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(INT.pack(len(frame)) + frame for frame in frames))


def add_watch(path: str) -> tuple[int, bytes]:
    return ADD_WATCH, string(path) + INT.pack(RECURSIVE)


def get_children(path: str) -> tuple[int, bytes]:
    return GET_CHILDREN, string(path) + b"\0"


def get_data(path: str) -> tuple[int, bytes]:
    return GET_DATA, string(path) + b"\0"


def multi_read(path: str, names: Sequence[str]) -> tuple[int, bytes]:
    header, end = b"\0\0\0\4\0\xff\xff\xff\xff", b"\xff\xff\xff\xff\1\xff\xff\xff\xff"
    return MULTI_READ, b"".join([header + string(f"{path}/{name}") + b"\0" for name in names]) + end


def create(sample: Sample) -> tuple[int, bytes]:
    document = sample.document
    return CREATE, string(sample.path) + INT.pack(len(document)) + document + OPEN_ACL + INT.pack(EPHEMERAL)


def strings(frame: bytes, at: int) -> list[str]:
    (count,) = INT.unpack_from(frame, at)
    at += 4
    values = []
    for _ in range(count):
        end = at + 4 + INT.unpack_from(frame, at)[0]
        values.append(str(frame[at + 4 : end], "utf-8"))
        at = end
    return values


def entries(names: Sequence[str], frame: bytes) -> dict[str, Entry]:
    """The nodes that a MultiRead of these names found; a node that is gone is left out."""
    found, at = {}, REPLY.size
    for name in names:
        opcode, _, _, length = RESULT.unpack_from(frame, at)
        at += RESULT.size
        if opcode == GET_DATA:
            end = at + length
            found[name] = Entry(decode(frame[at:end]), *IDENTITY.unpack_from(frame, end))
            at = end + STAT_SIZE
    return found


class Raw:
    def __init__(self) -> None:
        self.address = ""
        self.connection: Connection
        self.mirror: dict[str, Entry] = {}
        self.closing = threading.Event()
        self.threads: list[threading.Thread] = []

    async def open(self, address: str) -> None:
        self.address = address
        self.connection = Connection(address)

    async def cold_sync(self, service: str) -> list[Any]:
        connection, path = self.connection, f"{BASE_PATH}/{service}"
        connection.send(add_watch(path), get_children(path))
        connection.frame()
        names = strings(connection.frame(), REPLY.size)
        batches = [names[at : at + BATCH] for at in range(0, len(names), BATCH)]
        connection.send(*(multi_read(path, batch) for batch in batches))
        for batch in batches:
            self.mirror |= entries(batch, connection.frame())
        return [entry.instance.payload for entry in self.mirror.values()]

    async def follow(self, service: str, tell: Tell) -> None:
        await self.cold_sync(service)
        self._run(self._follow, f"{BASE_PATH}/{service}/", tell)
        self._run(self._beat)

    async def register(self, samples: Sequence[Sample]) -> None:
        self._create(samples)
        self._run(self._keep, samples)
        self._run(self._beat)

    async def close(self) -> None:
        self.closing.set()
        self.connection.send((CLOSE, b""))
        for thread in self.threads:
            thread.join()
        self.connection.socket.close()

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        self.threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self.threads[-1].start()

    def _beat(self) -> None:
        while not self.closing.wait(SESSION_TIMEOUT / 3):
            with contextlib.suppress(OSError):
                self.connection.ping()

    def _follow(self, below: str, tell: Tell) -> None:
        asked: deque[str] = deque()
        with contextlib.suppress(EOFError):
            while True:
                frame = self.connection.frame()
                xid, _, error = REPLY.unpack_from(frame)
                if xid == EVENT_XID:
                    self._event(frame, below, asked, tell)
                elif xid != PING_XID and asked:
                    name = asked.popleft()
                    if not error:
                        self._read(name, frame, tell)

    def _event(self, frame: bytes, below: str, asked: deque[str], tell: Tell) -> None:
        kind, _, length = struct.unpack_from(">iii", frame, REPLY.size)
        at = REPLY.size + 12
        path = frame[at : at + length].decode()
        name = path.removeprefix(below)
        if kind == NODE_DELETED:
            self.mirror.pop(name, None)
            tell(REMOVED, name)
        elif kind in {NODE_CREATED, NODE_CHANGED}:
            asked.append(name)
            self.connection.send(get_data(path))

    def _read(self, name: str, frame: bytes, tell: Tell) -> None:
        at = REPLY.size + 4
        end = at + INT.unpack_from(frame, REPLY.size)[0]
        kind = UPDATED if name in self.mirror else ADDED
        self.mirror[name] = Entry(decode(frame[at:end]), *IDENTITY.unpack_from(frame, end))
        tell(kind, name)

    def _create(self, samples: Sequence[Sample]) -> None:
        self.connection.send(*map(create, samples))
        for _ in samples:
            self.connection.frame()

    def _keep(self, samples: Sequence[Sample]) -> None:
        while True:
            try:
                self.connection.frame()
            except (EOFError, OSError):
                if self.closing.is_set():
                    return
                self._begin_anew(samples)

    def _begin_anew(self, samples: Sequence[Sample]) -> None:
        old = self.connection
        again = Connection(self.address, session_id=old.session_id, password=old.password)
        lost = again.session_id == 0
        self.connection = Connection(self.address) if lost else again
        if lost:
            self._create(samples)


def contender() -> Raw:
    return Raw()
