"""What clients connect to: an address, its connections, the replica that their reads see, the controls of tests."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import weakref
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from aioregistry._errors import InvalidArgument
from aioregistry._reasons import reason_of
from aioregistry.server import _acl as access
from aioregistry.server import _fourletter as fourletter
from aioregistry.server import _requests as requests
from aioregistry.server._acl import Identity
from aioregistry.server._codes import Code, Malformed, Opcode, Refused
from aioregistry.server._connection import Connection
from aioregistry.server._history import History, OperationFailed, Transaction
from aioregistry.server._profiles import Profile
from aioregistry.server._reads import BODY, READS, Incomplete
from aioregistry.server._requests import ConnectRequest, Reader
from aioregistry.server._sessions import Session, password_of
from aioregistry.server._settings import Settings
from aioregistry.server._tree import Caller, Tree
from aioregistry.server._watches import Watches

BACKLOG: Final = 1024
"""Connections that may wait to be accepted: thousands may come at once."""

THROTTLED: Final = -127
"""The answer of a server that has too much to do: not executed."""

_NEVER_THROTTLED = frozenset({Opcode.PING, Opcode.CLOSE_SESSION})

_HEAD = struct.Struct(">ii")

Decide: TypeAlias = Callable[[History], Transaction]
"""What a write does where transactions are made."""


@dataclass(frozen=True)
class _Fault:
    """What a test wants to happen to the next request of a kind."""

    delay: float = 0.0
    code: int = Code.OK
    lose_reply: bool = False


class Endpoint:
    """A server as clients see it; what it serves is decided by its subclasses.

    It is bound to the event loop that it is started on. Its controls are plain methods, to be called on that loop.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.profile: Profile = settings.profile
        self.max_buffer: int = settings.max_buffer
        self.tree: Tree = Tree()
        self.zxid: int = 0
        self.watches: Watches[Connection] = Watches(self.profile)
        self.connections: dict[Connection, None] = {}
        self._port = settings.port
        self._listener: asyncio.Server | None = None
        self._give_port_back: Callable[[], object] = lambda: None
        self._clients: Counter[str | None] = Counter()  # connections by IP address
        self._by_session: dict[int, Connection] = {}
        self._faults: dict[int, deque[_Fault]] = {}
        self._refusing = False
        self._disowned: set[int] = set()
        self._replacing = False
        self._throttling = False
        self._granted_ms: int | None = None
        self._running = False
        self._received_before = 0  # by connections that have ended
        self._sent_before = 0

    # ------------------------------------------------------------ its address

    @property
    def host(self) -> str:
        return self.settings.host

    @property
    def port(self) -> int:
        """The port, 0 before the first start unless one was given; it stays the same over restarts."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it takes connections."""
        return self._running

    @property
    def received(self) -> int:
        """How many requests it got so far."""
        return self._received_before + sum(connection.received for connection in self.connections)

    @property
    def sent(self) -> int:
        """How many replies and events it sent so far."""
        return self._sent_before + sum(connection.sent for connection in self.connections)

    @staticmethod
    def time() -> float:
        """The time that sessions are measured by: the running loop's."""
        return asyncio.get_running_loop().time()

    def protocol_factory(self) -> Connection:
        """The protocol of one new connection, for transports that are not this server's own: those of a simulation."""
        return Connection(self)

    async def come_up(self, *, listen: bool) -> None:
        """Take connections: of sockets, or only of who calls ``protocol_factory``."""
        if listen:
            loop = asyncio.get_running_loop()
            try:
                self._listener = await loop.create_server(
                    self.protocol_factory, self.host, self._port, ssl=self.settings.ssl, backlog=BACKLOG
                )
            except OSError as error:
                reason = f"{self.host}:{self._port} cannot be listened on: {reason_of(error)}"
                raise OSError(error.errno, reason) from error
            self._port = self._listener.sockets[0].getsockname()[1]
            self._give_port_back()
        self._running = True

    def hang_up(self, *, keep_port: bool) -> None:
        """Take connections no more, and drop those that are there; nobody else gets the port if it is kept."""
        self._running = False
        if self._listener is not None:
            family = self._listener.sockets[0].family
            self._listener.close()
            self._listener = None
            if keep_port:
                self._give_port_back = weakref.finalize(self, os.close, _reserved(family, self.host, self._port))
        if not keep_port:
            self._give_port_back()
        self.drop()
        self.thaw()

    # ------------------------------------------------------------ controls

    def drop(self, session_id: int | None = None) -> None:
        """End connections without a word: that of a session, or all. The sessions live on."""
        for connection in self._chosen(session_id):
            connection.abort()

    def freeze(self, session_id: int | None = None) -> None:
        """Let connections stand still, that of a session or all that are there: nothing is read, sent or closed."""
        for connection in self._chosen(session_id):
            connection.freeze()

    def thaw(self) -> None:
        """Let every frozen connection go on; what came meanwhile is read now."""
        for connection in list(self.connections):
            connection.thaw()

    def refuse_connections(self, refuse: bool = True) -> None:
        """Drop new connections as soon as they are made, or do so no longer. Those that are there stay."""
        self._refusing = refuse

    def disown(self, session_id: int) -> None:
        """Call a session expired and commit nothing, as a leader does by its own clock when it has lost its quorum.

        Its connection ends, and whoever offers it here is told that it is no more; it lives on with its nodes.
        """
        self._disowned.add(session_id)
        self.drop(session_id)

    def replace_sessions(self, replace: bool = True) -> None:
        """Grant a fresh session to whoever offers one, as ClickHouse Keeper does, or do so no longer.

        The one that was offered lives on with its nodes until its timeout.
        """
        self._replacing = replace

    def throttle(self, throttle: bool = True) -> None:
        """Answer every request with -127 and do nothing else about it, or do so no longer.

        As with Apache's, heartbeats and the closing of sessions are never throttled.
        """
        self._throttling = throttle

    def grant(self, seconds: float | None) -> None:
        """Tell clients this session timeout in the place of what they get; None for the truth.

        Raises:
            InvalidArgument: no server can say so in 32 bits of milliseconds, or it would say that there is no session.
        """
        if seconds is not None and not 1 <= round(seconds * 1000) < 2**31:
            raise InvalidArgument("seconds", seconds, "must be within 0.001..2147483.647")
        self._granted_ms = None if seconds is None else round(seconds * 1000)

    def delay(self, opcode: int, seconds: float) -> None:
        """Hold the next request of this kind, and those behind it on its connection, before it is looked at."""
        self._faults.setdefault(opcode, deque()).append(_Fault(delay=seconds))

    def fail(self, opcode: int, code: int) -> None:
        """Answer the next request of this kind with an error code, and do nothing else about it."""
        self._faults.setdefault(opcode, deque()).append(_Fault(code=code))

    def lose_reply(self, opcode: int) -> None:
        """Do what the next request of this kind asks for, and drop its connection in place of answering."""
        self._faults.setdefault(opcode, deque()).append(_Fault(lose_reply=True))

    def _chosen(self, session_id: int | None) -> list[Connection]:
        return [item for item in self.connections if session_id is None or item.session_id == session_id]

    # ------------------------------------------------------------ connections

    def accept(self, connection: Connection) -> bool:
        """Whether a new connection may stay."""
        if self._refusing or not self._running or not self._has_room(connection):
            return False
        self.connections[connection] = None
        self._clients[connection.client] += 1
        return True

    def _has_room(self, connection: Connection) -> bool:
        limit = self.settings.max_connections_per_client
        return not limit or connection.client is None or self._clients[connection.client] < limit

    def release(self, connection: Connection) -> None:
        """A connection serves its session no more."""
        self.watches.forget(connection)
        if self._by_session.get(connection.session_id) is connection:
            del self._by_session[connection.session_id]

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self.release(connection)
        if connection in self.connections:
            del self.connections[connection]
            self._clients[connection.client] -= 1
            if not self._clients[connection.client]:
                del self._clients[connection.client]
            self._received_before += connection.received
            self._sent_before += connection.sent

    def answer_word(self, connection: Connection, word: bytes) -> bool:
        """Answer what may be a four-letter word, and return whether it was one."""
        text = fourletter.answer(self, word)
        if text is None:
            return False
        connection.send(text.encode())
        connection.close()
        return True

    def open(self, connection: Connection, request: ConnectRequest) -> None:
        """Give a connection a session, or refuse it; without a word where this server is behind its client."""
        if not self.serving or request.last_zxid > self.zxid:
            connection.abort()
            return
        connection.timeout_ms = self.settings.negotiate(request.timeout_ms)
        connection.established_ms = int(self.settings.clock() * 1000)
        connection.wait()
        if request.session_id == 0 or self._replacing:
            decide = partial(History.create_session, timeout_ms=connection.timeout_ms, owner=self)
            self.propose(decide, partial(self._created, connection))
            return
        # Whoever comes with the id of a session ends its connection here, before anybody looks at the password.
        earlier = self._by_session.get(request.session_id)
        if earlier is not None:
            earlier.abort()
        if request.password != password_of(request.session_id) or request.session_id in self._disowned:
            self._refuse_session(connection, request)
            return
        self.revalidate(request.session_id, connection.timeout_ms, partial(self._revalidated, connection, request))

    def _created(self, connection: Connection, transaction: Transaction) -> None:
        assert transaction.created is not None
        self._welcome(connection, transaction.created.id)

    def _revalidated(self, connection: Connection, request: ConnectRequest, valid: bool) -> None:
        if valid:
            self._welcome(connection, request.session_id)
        else:
            self._refuse_session(connection, request)

    def _welcome(self, connection: Connection, session_id: int) -> None:
        if connection.closed:
            return
        assert connection.connect_request is not None
        earlier = self._by_session.get(session_id)
        if earlier is not None:  # it came meanwhile, and was answered faster
            earlier.abort()
        connection.session_id = session_id
        self._by_session[session_id] = connection
        connection.send(
            requests.connected(
                connection.connect_request,
                timeout_ms=self._granted_ms or connection.timeout_ms,
                session_id=session_id,
                password=password_of(session_id),
            )
        )
        connection.done()

    def _refuse_session(self, connection: Connection, request: ConnectRequest) -> None:
        if not connection.closed:
            connection.send(requests.connected(request, timeout_ms=0, session_id=0, password=bytes(16)))
            connection.close()

    # ------------------------------------------------------------ requests

    def handle(self, connection: Connection, frame: bytes) -> None:
        """Take a connection's next request."""
        if len(frame) < BODY:
            connection.abort()
            return
        xid, opcode = _HEAD.unpack_from(frame)
        connection.last_xid, connection.last_opcode = xid, opcode
        if self._throttling and opcode not in _NEVER_THROTTLED:
            connection.reply(requests.reply(xid, self.zxid, THROTTLED))
            return
        if self._faults and self._faults.get(opcode):
            self._disturb(self._faults[opcode].popleft(), connection, xid, opcode, frame)
        else:
            self._answer(connection, xid, opcode, frame)

    def _disturb(self, fault: _Fault, connection: Connection, xid: int, opcode: int, frame: bytes) -> None:
        if fault.code:
            connection.reply(requests.reply(xid, self.zxid, fault.code))
        elif fault.delay:
            connection.wait()
            loop = asyncio.get_running_loop()
            answer = partial(self._answer, connection, xid, opcode, frame)
            loop.call_later(fault.delay, connection.take_late, answer)
        else:
            connection.lose_next_reply()
            self._answer(connection, xid, opcode, frame)

    def _answer(self, connection: Connection, xid: int, opcode: int, frame: bytes) -> None:
        read = READS.get(opcode)
        if opcode in self.profile.unknown or (read is None and opcode not in _OTHERS):
            connection.reply(requests.reply(xid, -1, Code.UNIMPLEMENTED))
            connection.finish()
        elif opcode in self.profile.forbidden:
            connection.close()
        elif read is not None:
            self._read(read, connection, xid, frame)
        else:
            _OTHERS[opcode](self, connection, xid, opcode, frame)

    def _read(
        self, read: Callable[[Endpoint, Connection, bytes], bytes], connection: Connection, xid: int, frame: bytes
    ) -> None:
        code, body = Code.OK, b""
        try:
            body = read(self, connection, frame)
        except Refused as refusal:
            code = Code(refusal.code)
        except Incomplete as failure:
            code, body = Code.MARSHALLING_ERROR, failure.body
        except (Malformed, struct.error):
            code = Code.MARSHALLING_ERROR
        connection.reply(requests.reply(xid, self.zxid, code, body))

    # ------------------------------------------------------------ requests that are neither reads nor writes

    def _ping(self, connection: Connection, _: int, __: int, ___: bytes) -> None:
        connection.reply(requests.reply(requests.PING_XID, self.zxid, Code.OK))

    def _auth(self, connection: Connection, xid: int, _: int, frame: bytes) -> None:
        reader = Reader(frame, BODY)
        try:
            reader.number()
            scheme, credentials = reader.string(), reader.buffer()
        except (Malformed, struct.error):
            connection.abort()
            return
        known = self._authenticate(connection, scheme, credentials)
        connection.reply(requests.reply(xid, 0, Code.OK if known else Code.AUTH_FAILED))
        if not known:
            connection.close()

    def _authenticate(self, connection: Connection, scheme: str | None, credentials: bytes | None) -> bool:
        if scheme == "digest" and credentials is not None:
            identity = Identity("digest", access.digest(credentials))
            above = [Identity("super", "")] if identity.id == self.settings.super_digest else []
            connection.identities = tuple(dict.fromkeys((*connection.identities, *above, identity)))
            return True
        # The others tell nothing that is not known since the connection was made.
        return any(identity.scheme == scheme for identity in connection.identities if scheme != "digest")

    def _sasl(self, connection: Connection, xid: int, _: int, frame: bytes) -> None:
        try:
            token = Reader(frame, BODY).buffer()
        except (Malformed, struct.error):
            token = None
        if token is None:
            connection.abort()
            return
        # As a server that is not configured for SASL: no token, which no mechanism can go on with.
        connection.reply(requests.reply(xid, 0, Code.OK, requests.buffer(None)))

    def _sync(self, connection: Connection, xid: int, _: int, frame: bytes) -> None:
        connection.wait()
        self.catch_up(partial(self._synced, connection, xid, frame))

    def _synced(self, connection: Connection, xid: int, frame: bytes) -> None:
        self._read(_sync_reply, connection, xid, frame)
        connection.done()

    # ------------------------------------------------------------ writes

    def _write(self, connection: Connection, xid: int, opcode: int, frame: bytes) -> None:
        caller = Caller(connection.session_id, connection.identities)
        try:
            operation = requests.read_write(frame, BODY, opcode, self.profile)
        except (Malformed, struct.error):
            if self.profile.reads_first:
                self._unreadable(connection, xid)
                return
            decide: Decide = partial(History.fail, code=Code.MARSHALLING_ERROR)
        else:
            decide = partial(History.write, caller=caller, operation=operation, via=self)
        self._propose(connection, xid, decide, partial(_written, opcode))

    def _write_all(self, connection: Connection, xid: int, _: int, frame: bytes) -> None:
        caller = Caller(connection.session_id, connection.identities)
        try:
            parsed = requests.read_operations(frame, BODY, self.profile)
            operations = [requests.as_in_transactions(operation, self.profile) for operation in parsed]
        except (Malformed, struct.error):
            decide: Decide = partial(History.fail, code=Code.MARSHALLING_ERROR)
            operations = []
        else:
            decide = partial(History.write_all, caller=caller, operations=operations, via=self)
        self._propose(connection, xid, decide, partial(requests.several, operations))

    def _reconfigure(self, connection: Connection, xid: int, __: int, frame: bytes) -> None:
        reader = Reader(frame, BODY)
        try:
            _ = reader.string(), reader.string(), reader.string(), reader.long()
        except (Malformed, struct.error):
            self._unreadable(connection, xid)  # in any release
            return
        decide = partial(History.fail, code=Code.RECONFIG_DISABLED)
        self._propose(connection, xid, decide, _nothing)

    def _unreadable(self, connection: Connection, xid: int) -> None:
        """Answer a write that was read before it got a zxid."""
        connection.reply(requests.reply(xid, self.zxid, Code.MARSHALLING_ERROR))

    def _propose(
        self, connection: Connection, xid: int, decide: Decide, body: Callable[[Transaction], bytes | None]
    ) -> None:
        connection.wait()
        self.propose(decide, partial(self._decided, connection, xid, body))

    def _decided(
        self, connection: Connection, xid: int, body: Callable[[Transaction], bytes | None], transaction: Transaction
    ) -> None:
        if transaction.code == Code.SESSION_MOVED:
            connection.close()
            return
        content = body(transaction) if transaction.code == Code.OK else b""
        if content is not None:
            connection.reply(requests.reply(xid, self.zxid, transaction.code, content))
        connection.done()

    def _close_session(self, connection: Connection, xid: int, _: int, __: bytes) -> None:
        connection.wait()
        connection.leaving = True
        decide = partial(History.end_session, session_id=connection.session_id)
        self.propose(decide, partial(self._left, connection, xid))

    def _left(self, connection: Connection, xid: int, transaction: Transaction) -> None:
        if not connection.closed:
            connection.reply(requests.reply(xid, transaction.zxid, Code.OK))
            connection.close()

    # ------------------------------------------------------------ the replica

    def deliver(self, transaction: Transaction) -> None:
        """A transaction has reached this server: tell of it who watches."""
        self.zxid = transaction.zxid
        if transaction.ended is not None:
            connection = self._by_session.get(transaction.ended)
            if connection is not None and not connection.leaving:
                connection.abort()
        zxid = transaction.zxid if self.profile.events_have_zxid else -1
        for change in transaction.changes:
            for connection, kind, path, acl in self.watches.trigger(change):
                if not self.profile.events_need_read or access.permits(acl, access.READ, connection.identities):
                    connection.send(requests.event(zxid, kind, path))

    # ------------------------------------------------------------ what the subclasses decide

    @property
    @abstractmethod
    def serving(self) -> bool:
        """Whether it takes sessions."""

    @property
    @abstractmethod
    def mode(self) -> str:
        """As the four-letter words tell it."""

    @abstractmethod
    def live_sessions(self) -> list[Session]:
        """The sessions that are alive, wherever they are connected."""

    @abstractmethod
    def propose(self, decide: Decide, done: Callable[[Transaction], None]) -> None:
        """Have a transaction made; *done* is called when it has been applied here."""

    @abstractmethod
    def catch_up(self, done: Callable[[], None]) -> None:
        """Call *done* when all that is committed now has been applied here."""

    @abstractmethod
    def touch(self, connection: Connection) -> None:
        """A connection's session was heard of."""

    @abstractmethod
    def revalidate(self, session_id: int, timeout_ms: int, done: Callable[[bool], None]) -> None:
        """Take a session over from wherever it was connected; *done* is told whether it is alive."""


def _reserved(family: int, host: str, port: int) -> int:
    # Bound and not listening: whoever connects is refused, no client's own connection gets the port meanwhile, and
    # servers that set SO_REUSEADDR, as asyncio's do, can share it.
    holder = socket.socket(family)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
    except OSError:
        holder.close()
        raise
    return holder.detach()


def _sync_reply(_: Endpoint, __: Connection, frame: bytes) -> bytes:
    return requests.string(Reader(frame, BODY).string())


def _written(opcode: int, transaction: Transaction) -> bytes | None:
    if opcode == Opcode.CHECK:
        return None  # the real server fails to write the reply, for there is no Stat to put in
    (result,) = transaction.results
    assert not isinstance(result, OperationFailed)
    return requests.written(opcode, result)


def _nothing(_: Transaction) -> bytes:
    return b""


_OTHERS: dict[int, Callable[[Endpoint, Connection, int, int, bytes], None]] = {
    Opcode.PING: Endpoint._ping,
    Opcode.AUTH: Endpoint._auth,
    Opcode.SASL: Endpoint._sasl,
    Opcode.SYNC: Endpoint._sync,
    Opcode.MULTI: Endpoint._write_all,
    Opcode.RECONFIG: Endpoint._reconfigure,
    Opcode.CLOSE_SESSION: Endpoint._close_session,
    **dict.fromkeys(requests.WRITES, Endpoint._write),
}
