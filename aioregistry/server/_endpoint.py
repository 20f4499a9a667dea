"""A server as its clients see it: its connections, who of them has which session, and the controls of tests.

Its parts: a `Listener` (its address), a `Replica` (the state that reads see), a `Dispatcher` (requests), and a `Store`
(the data), which the members of an ensemble share.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import partial

from aioregistry._errors import InvalidArgument
from aioregistry.server import _fourletter as fourletter
from aioregistry.server import _requests as requests
from aioregistry.server._connection import Connection
from aioregistry.server._dispatcher import Decide, Dispatcher
from aioregistry.server._history import History, Transaction
from aioregistry.server._listener import Listener
from aioregistry.server._replica import Replica
from aioregistry.server._requests import ConnectRequest
from aioregistry.server._sessions import Session, password_of
from aioregistry.server._settings import Settings
from aioregistry.server._store import Store
from aioregistry.server._tree import Tree


class Endpoint:
    """A server as clients see it; its subclasses decide what it serves.

    It is bound to the event loop that it is started on. Its controls are plain methods, to be called on that loop.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self._store = store
        self.max_buffer: int = settings.max_buffer
        self.replica: Replica = Replica(settings.profile)
        self.connections: dict[Connection, None] = {}
        self._listener = Listener(settings)
        self._dispatcher = Dispatcher(settings, self.replica, self)
        self._clients: Counter[str | None] = Counter()  # connections by IP address
        self._by_session: dict[int, Connection] = {}
        self._refusing = False
        self._disowned: set[int] = set()
        self._replacing = False
        self._granted_ms: int | None = None
        self._running = False
        self._received_before = 0  # by connections that have ended
        self._sent_before = 0

    # ------------------------------------------------------------ its address

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self.settings.host

    @property
    def port(self) -> int:
        """The port, 0 before the first start unless one was given; it stays the same over restarts."""
        return self._listener.port

    @property
    def address(self) -> str:
        """``host:port``."""
        return self._listener.address

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
            await self._listener.open(self.protocol_factory)
        self._running = True

    def hang_up(self, *, keep_port: bool) -> None:
        """Stop taking connections, and drop those that are there; no other process gets the port if it is kept."""
        self._running = False
        self._listener.close(keep_port=keep_port)
        self.drop()
        self.thaw()

    # ------------------------------------------------------------ controls

    def drop(self, session_id: int | None = None) -> None:
        """End connections without a word: that of a session, or all. The sessions live on.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        for connection in self._chosen(session_id):
            connection.abort()

    def freeze(self, session_id: int | None = None) -> None:
        """Let connections stand still, that of a session or all that are there: nothing is read, sent or closed.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        for connection in self._chosen(session_id):
            connection.freeze()

    def thaw(self) -> None:
        """Let every frozen connection go on, and read the bytes that came meanwhile."""
        for connection in list(self.connections):
            connection.thaw()

    def refuse_connections(self, refuse: bool = True) -> None:
        """Drop new connections as soon as they are made, or do so no longer. Those that are there stay."""
        self._refusing = refuse

    def disown(self, session_id: int) -> None:
        """Call a session expired and commit nothing, as a leader does by its own clock when it has lost its quorum.

        Its connection ends, and a client that offers it here learns that it is gone; it lives on with its nodes.
        """
        self._disowned.add(session_id)
        self.drop(session_id)

    def replace_sessions(self, replace: bool = True) -> None:
        """Grant a fresh session to a client that offers one, as ClickHouse Keeper does, or do so no longer.

        The one that was offered lives on with its nodes until its timeout.
        """
        self._replacing = replace

    def throttle(self, throttle: bool = True) -> None:
        """Answer every request with -127 and do nothing else about it, or do so no longer.

        As with Apache's, heartbeats and the closing of sessions are never throttled.
        """
        self._dispatcher.throttling = throttle

    def grant(self, seconds: float | None) -> None:
        """Report this session timeout to clients in place of the real one.

        Args:
            seconds: the timeout to tell, in seconds; None for the truth.

        Raises:
            InvalidArgument: no server can say so in 32 bits of milliseconds, or it would say that there is no session.
        """
        if seconds is not None and not 1 <= round(seconds * 1000) < 2**31:
            raise InvalidArgument("seconds", seconds, "must be within 0.001..2147483.647")
        self._granted_ms = None if seconds is None else round(seconds * 1000)

    def delay(self, opcode: int, seconds: float) -> None:
        """Hold the next request of this kind, and those behind it on its connection, before it is looked at.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.
            seconds: how long, in seconds.
        """
        self._dispatcher.delay(opcode, seconds)

    def fail(self, opcode: int, code: int) -> None:
        """Answer the next request of this kind with an error code, and do nothing else about it.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.
            code: the error, by its number in ZooKeeper's protocol, such as -101 for NoNode.
        """
        self._dispatcher.fail(opcode, code)

    def lose_reply(self, opcode: int) -> None:
        """Carry out the next request of this kind, and drop its connection in place of answering.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.
        """
        self._dispatcher.lose_reply(opcode)

    def forget_faults(self) -> None:
        """Let nothing happen to requests to come that `delay`, `fail` or `lose_reply` asked for."""
        self._dispatcher.forget_faults()

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
        """A connection stops serving its session."""
        self.replica.watches.forget(connection)
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
        # A client that comes with the id of a session ends its connection here, before the password is checked.
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

    def handle(self, connection: Connection, frame: bytes) -> None:
        """Take a connection's next request."""
        self._dispatcher.handle(connection, frame)

    # ------------------------------------------------------------ the replica

    @property
    def tree(self) -> Tree:
        """The state that reads see here."""
        return self.replica.tree

    @property
    def zxid(self) -> int:
        """Of the last transaction that has reached this server."""
        return self.replica.zxid

    def deliver(self, transaction: Transaction) -> None:
        """A transaction has been applied to the replica."""
        if transaction.ended is not None:
            connection = self._by_session.get(transaction.ended)
            if connection is not None and not connection.leaving:
                connection.abort()
        self.replica.tell(transaction)

    # ------------------------------------------------------------ the data

    def live_sessions(self) -> list[Session]:
        """The sessions that are alive, wherever they are connected: their ids and timeouts."""
        return self._store.running().sessions.all()

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
