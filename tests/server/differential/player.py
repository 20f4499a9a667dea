"""Plays a history on a server, over plain sockets, and writes down what the server says.

Everything the player waits for comes in an order that ZooKeeper promises, so that what it writes down does not depend
on who is faster:

- requests to one connection are sent in one piece, and answered in their order; those whose answer may overtake others
  (``alone``) are sent when all before them were answered;
- before another connection is used, everything before is answered: events that this caused on other connections are on
  their way by then, before any later answer there;
- before a connection is cut or a session ended, a ping on every connection fetches the events that are on their way.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.server.differential.language import (
    Ask,
    Close,
    Create,
    Cut,
    Exists,
    Expire,
    Frame,
    History,
    Open,
    Ping,
    Place,
    Request,
    Resume,
    Silence,
    Step,
    Swept,
)
from tests.server.differential.transcript import (
    Connected,
    Ended,
    Entry,
    Event,
    Names,
    Refused,
    Reply,
    Said,
    Silent,
    read_event,
    read_value,
)

EVENT_XID = -1
NO_NODE, UNIMPLEMENTED, AUTH_FAILED = -101, -6, -115
PATIENCE = 100.0
"""Seconds after which a server that says nothing is taken to stay silent, and is not just slow."""
BETWEEN_LOOKS = 0.02


@dataclass
class Session:
    name: str
    id: int = 0
    password: bytes = bytes(16)
    seen: int = 0
    """The last zxid that its client knows."""
    alive: bool = False


class Link:
    """One connection."""

    def __init__(self, address: tuple[str, int], name: str) -> None:
        self.name = name
        self.open = True
        self.pending: deque[tuple[int, Request]] = deque()
        """The requests without an answer."""
        self._socket = socket.create_connection(address, PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._xids = itertools.count(1)

    def send(self, raw: bytes) -> None:
        # The server may have closed already: that shows when its answer is read.
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(raw)

    def ask(self, requests: Sequence[Request], place: Place) -> None:
        frames = []
        for request in requests:
            xid = next(self._xids) if request.xid is None else request.xid
            self.pending.append((xid, request))
            frames.append(framed(struct.pack(">ii", xid, request.opcode) + request.encode(place)))
        self.send(b"".join(frames))

    def receive(self) -> bytes | None:
        """The next frame, None at the end. Raises TimeoutError."""
        while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4]):
            try:
                chunk = self._socket.recv(65536)
            except ConnectionError:
                chunk = b""
            if not chunk:
                return None
            self._buffer += chunk
        end = 4 + int.from_bytes(self._buffer[:4])
        frame = bytes(self._buffer[4:end])
        del self._buffer[:end]
        return frame

    def end(self) -> None:
        """Close, and wait until the server did: from then on it has forgotten the connection's watches."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        while self.receive() is not None:
            pass
        self.close()

    def close(self) -> None:
        self.open = False
        self._socket.close()


def framed(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def connect_request(session: Session, seen: int, timeout_ms: int, tail: bytes = b"\0") -> bytes:
    content = struct.pack(">iqiqi", 0, seen, timeout_ms, session.id, len(session.password)) + session.password + tail
    return framed(content)


def batches(history: History, alone: Callable[[Request], bool]) -> Iterator[tuple[int, list[Step]]]:
    """The steps with their numbers; requests that one client can send in one piece are together."""

    def pipelined(step: Step) -> bool:
        return isinstance(step, Ask) and not alone(step.request)

    batch: list[Step] = []
    start = 0
    for number, step in enumerate(history):
        if batch and not (pipelined(step) and pipelined(batch[0]) and step.who == batch[0].who):
            yield start, batch
            batch = []
        start = start if batch else number
        batch.append(step)
    if batch:
        yield start, batch


class Client:
    """The speakers of a history: at most one session, at most one connection."""

    def __init__(self, who: int) -> None:
        self._names = (f"{who}.{number}" for number in itertools.count(1))
        self.session = Session("none")
        self.link: Link | None = None

    def new_session(self) -> Session:
        self.session = Session(next(self._names))
        return self.session


class Player:
    """Plays one history on the server at *address*, below *root*: an absolute path of two names that are free.

    Opcodes that are *unknown* there are asked alone, as all that ends a connection.
    """

    def __init__(self, address: tuple[str, int], root: str, unknown: frozenset[int]) -> None:
        self._address = address
        self._unknown = unknown
        self._place = Place(root, 0)
        self._names = Names(self._place)
        self._clients: dict[int, Client] = {}
        self._left_behind: list[Session] = []
        self._entries: list[Entry] = []
        self._step = 0

    def play(self, history: History) -> list[Entry]:
        """The server's words."""
        try:
            self._make_root()
            for number, batch in batches(history, self._alone):
                self._step = number
                self._take(batch[0], [step.request for step in batch if isinstance(step, Ask)])
            self._step = len(history)
            self._end()
        finally:
            self._clean_up()
        return self._entries

    # ------------------------------------------------------------ steps

    def _take(self, step: Step, requests: list[Request]) -> None:
        client = self._client(step.who)
        match step:
            case Ask(_, Close()):
                self._close(client)
            case Ask():
                self._ask(client, requests)
            case Open():
                self._open(client, step)
            case Cut():
                self._cut(client)
            case Resume():
                self._resume(client, step)
            case Expire():
                self._expire(client)
            case Frame(_, length, content):
                self._frame(client, struct.pack(">i", length) + content)
            case Silence(_, silent):
                self._silence(client, silent)
            case Swept(_, path):
                self._swept(client, path)

    def _alone(self, request: Request) -> bool:
        return request.alone or request.opcode in self._unknown

    def _client(self, who: int) -> Client:
        return self._clients.setdefault(who, Client(who))

    def _make_root(self) -> None:
        client = self._client(0)
        link = self._linked(client)
        assert link is not None, "there is no connection"
        # In a node of its own, for what is numbered beside it.
        link.ask([Create("@" + path) for path in (self._place.root.rpartition("/")[0], self._place.root)], self._place)
        zxid = 0
        for _ in range(2):
            frame = link.receive()
            assert frame is not None, f"{self._place.root} cannot be made"
            _, zxid, error = struct.unpack_from(">iqi", frame)
            assert error == 0, f"{self._place.root} cannot be made: {error}"
        self._place = self._names.place = Place(self._place.root, zxid)
        client.session.seen = zxid
        link.pending.clear()
        self._entries.clear()

    def _ask(self, client: Client, requests: Sequence[Request]) -> None:
        link = self._linked(client)
        if link is None:
            return
        link.ask(requests, self._place)
        self._answers(client)
        if client.link is not None and self._alone(requests[0]):
            last = self._entries[-1].said
            if isinstance(last, Reply) and last.error in {UNIMPLEMENTED, AUTH_FAILED}:
                self._until_end(client)
            else:
                self._ping(client)

    def _open(self, client: Client, step: Open) -> None:
        self._cut(client)
        if client.session.alive:
            self._left_behind.append(client.session)
        session = client.new_session()
        if step.since is not None:
            session.seen = self._place.base + step.since
        tail = b"" if step.before_3_4 else struct.pack(">?", step.read_only)
        self._connect(client, connect_request(session, session.seen, step.timeout_ms, tail))

    def _cut(self, client: Client) -> None:
        self._ping(client)
        if client.link is not None:
            client.link.end()
            client.link = None

    def _resume(self, client: Client, step: Resume) -> None:
        session = client.session
        if not session.id:
            return self._open(client, Open(step.who))
        self._ping(client)
        alive, old, client.link = session.alive, client.link, None
        seen = session.seen if step.since is None else self._place.base + step.since
        offered = Session(session.name, session.id, bytes(16) if step.wrong_password else session.password)
        self._connect(client, connect_request(offered, seen, step.timeout_ms))
        session.alive = session.alive or (alive and step.wrong_password)
        if old is not None:
            self._supersede(client, old)
        return None

    def _supersede(self, client: Client, old: Link) -> None:
        """Whether the server closed the old connection tells how far it went with a new one that it refused."""
        new, client.link = client.link, old
        self._ping(client)
        if new is not None:
            old.close()
            client.link = new

    def _expire(self, client: Client) -> None:
        if client.session.alive:
            self._resume(client, Resume(0))
            self._close(client)

    def _close(self, client: Client) -> None:
        link = self._linked(client)
        self._settle()
        if link is None or not link.open:
            return
        start = len(self._entries)
        link.ask([Close()], self._place)
        self._answers(client)
        self._ping(client)
        client.session.alive = False
        self._settle()
        self._sort_events(start)

    def _frame(self, client: Client, raw: bytes) -> None:
        link = self._linked(client)
        if link is not None:
            link.send(raw)
            self._ping(client)

    def _silence(self, client: Client, requests: tuple[Request, ...]) -> None:
        observer = next(self._client(who) for who in range(3) if self._client(who) is not client)
        self._linked(observer)
        self._open(client, Open(0, timeout_ms=0))
        # A client that asks for an unknown operation has no connection to be silent on.
        self._ask(client, [request for request in requests if request.opcode not in self._unknown])
        self._settle()
        link = client.link
        if link is None:
            return
        start, seen = len(self._entries), self._names.zxid(observer.session.seen)
        # The news of its session's end on this connection races with the connection's end.
        with contextlib.suppress(TimeoutError):
            while link.receive() is not None:
                pass
            self._lost(client, Ended())
        # ZooKeeper ends connections and sessions by clocks of their own.
        self._look_until(observer, Ping(), lambda reply: reply.zxid > seen)
        client.session.alive = False
        self._settle()
        self._sort_events(start)

    def _swept(self, client: Client, path: str) -> None:
        self._linked(client)
        self._look_until(client, Exists(path), lambda reply: reply.error == NO_NODE)
        self._settle()

    def _look_until(self, client: Client, request: Request, enough: Callable[[Reply], bool]) -> None:
        """How often it was looked is nobody's business; what came meanwhile stays."""
        deadline = time.monotonic() + PATIENCE
        done = False
        while client.link is not None and not done and time.monotonic() < deadline:
            start = len(self._entries)
            client.link.ask([request], self._place)
            self._answers(client)
            answer = self._entries[-1].said
            done = isinstance(answer, Reply) and enough(answer)
            self._entries[start:] = [entry for entry in self._entries[start:] if isinstance(entry.said, Event)]
            time.sleep(0 if done else BETWEEN_LOOKS)

    def _end(self) -> None:
        """End every session: what its end does is part of the history."""
        self._settle()
        for _, client in sorted(self._clients.items()):
            if client.session.alive:
                self._close(client)

    def _clean_up(self) -> None:
        """End what is left, so that nothing expires in the middle of a later history."""
        for client in self._clients.values():
            if client.link is not None:
                client.link.close()
        for session in [*self._left_behind, *(client.session for client in self._clients.values())]:
            if session.alive:
                link = Link(self._address, session.name)
                link.send(connect_request(session, 0, 0))
                link.ask([Close()], self._place)
                with contextlib.suppress(TimeoutError):
                    while link.receive() is not None:
                        pass
                link.close()

    # ------------------------------------------------------------ connections

    def _linked(self, client: Client) -> Link | None:
        """Its connection, made if there is none, with a session if there is none; None if the server does not want."""
        if client.link is None:
            if client.session.alive:
                self._resume(client, Resume(0))
            else:
                self._open(client, Open(0))
        return client.link

    def _connect(self, client: Client, request: bytes) -> None:
        session = client.session
        client.link = link = Link(self._address, session.name)
        link.send(request)
        frame = self._receive(client)
        if frame is None:
            return
        version, timeout_ms, session_id, size = struct.unpack_from(">iiqi", frame)
        password, tail = frame[20 : 20 + size], frame[20 + size :]
        if session_id == 0:
            self._write(link, Refused(timeout_ms, password, version, tail))
            session.alive = False
            self._ping(client)
            return
        session.id, session.password, session.alive = session_id, password, True
        self._names.sessions[session_id] = session.name
        self._write(link, Connected(session.name, timeout_ms, len(password), version, tail))

    def _settle(self) -> None:
        """Fetch the events that are on their way."""
        for _, client in sorted(self._clients.items()):
            self._ping(client)

    def _ping(self, client: Client) -> None:
        """Answered, or the connection is at its end."""
        if client.link is not None:
            client.link.ask([Ping()], self._place)
            self._answers(client)

    def _answers(self, client: Client) -> None:
        """Read until everything is answered, or the connection is at its end."""
        link = client.link
        while link is not None and link.pending and (frame := self._receive(client)) is not None:
            xid, zxid, error = struct.unpack_from(">iqi", frame)
            if xid == EVENT_XID:
                self._write(link, read_event(frame[16:], zxid, self._names))
                continue
            asked, request = link.pending.popleft()
            client.session.seen = max(client.session.seen, zxid)
            # A MultiRead that fails has what it had read until then all the same.
            value = () if error and len(frame) == 16 else read_value(request.answer, frame[16:], self._names)
            told = type(request).__name__
            self._write(link, Reply(told, xid - asked, self._names.zxid(zxid), error, value))

    def _until_end(self, client: Client) -> None:
        """The server said what it closes the connection after; a request that is quick enough would be answered."""
        while client.link is not None:
            self._receive(client)

    def _receive(self, client: Client) -> bytes | None:
        """The next frame; None when there is none, which is written down."""
        assert client.link is not None
        try:
            frame = client.link.receive()
        except TimeoutError:
            self._lost(client, Silent())
            return None
        if frame is None:
            self._lost(client, Ended())
        return frame

    def _lost(self, client: Client, why: Ended | Silent) -> None:
        assert client.link is not None
        self._write(client.link, why)
        client.link.close()
        client.link = None

    # ------------------------------------------------------------ writing down

    def _write(self, link: Link, said: Said) -> None:
        self._entries.append(Entry(self._step, link.name, said))

    def _sort_events(self, start: int) -> None:
        """The nodes of a session go in the order of a hash set: see `transcript.py`."""
        ordered: list[Entry] = []
        for (_, is_event), run in itertools.groupby(
            self._entries[start:], key=lambda entry: (entry.connection, isinstance(entry.said, Event))
        ):
            together = list(run)
            ordered += sorted(together, key=repr) if is_event else together
        self._entries[start:] = ordered
