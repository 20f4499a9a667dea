"""The session's face for the rooms above, and the one task that does what takes time, by the machine's phase."""

from __future__ import annotations

import asyncio
import copy
import logging
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from aiozk.protocol.request import Request

from aioregistry import _foreign as foreign
from aioregistry._concurrency import Supervised
from aioregistry._errors import (
    TRANSIENT,
    ConnectionLost,
    ConnectTimeout,
    RegistryError,
    SessionFailed,
    Throttled,
    UsageError,
    session_name,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._protocol import AddWatch, Message, Reply
from aioregistry._runtime import Endpoint, Runtime, running_loop
from aioregistry._streams import Stream

from .attempts import Attempt, AttemptOutcome
from .backoff import throttled_patience
from .connect_string import ConnectString
from .connector import Connector
from .credentials import Credentials
from .driver import Driver
from .features import Features
from .incoming import Incoming
from .isolation import Isolation
from .keepalive import Keepalive
from .observers import Hook, Observers, Timer
from .pending import Answered, fail
from .priming import Priming
from .retrying import persist
from .states import ENDED, SessionState
from .vocabulary import CloseRequested, Failed, Machine, Overdue, Phase
from .watches import SessionWatches

__all__ = ["Session"]

log = logging.getLogger("aioregistry.session")

T = TypeVar("T")


class Session:
    """A ZooKeeper session that lives for as long as the ensemble lets it, and is followed by another.

    Args:
        connect_string: the servers, and the path above everything.
        timeout: the session timeout to ask for, in seconds; the server decides within its bounds.
        runtime: clocks, randomness, names and sockets.
        auth: credentials as (scheme, secret) pairs, presented first on every connection; ``sasl`` is a login.
        tls: speak TLS with this context.
        allow_read_only: accept a server without quorum for reading, as long as there was no session before.
        max_request: the servers' jute.maxbuffer in bytes; a larger request is refused here.
        hooks: each called with a name and fields for every event worth a metric.
    """

    def __init__(
        self,
        connect_string: ConnectString,
        *,
        timeout: float,
        runtime: Runtime,
        auth: Sequence[tuple[str, bytes]] = (),
        tls: ssl.SSLContext | None = None,
        allow_read_only: bool = False,
        max_request: int,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self.runtime = runtime
        self.connect_string = connect_string
        self.max_request = max_request
        repeated = self._repeated = IncidentLog(log)
        self._observers = Observers(hooks, repeated)
        self._driver = Driver(Machine(timeout, allow_read_only), connect_string, runtime, self._observers, repeated)
        self._features = Features()
        incoming = Incoming(self._driver, self._features)
        credentials = Credentials(self._driver, auth)
        self._connector = Connector(self._driver, incoming, credentials, tls=tls, max_request=max_request)
        self._isolation = Isolation()
        self._priming = Priming(
            self._driver, self._features, credentials=credentials, max_request=max_request, isolation=self._isolation
        )
        self._keepalive = Keepalive(self._driver)
        self.watches: SessionWatches = SessionWatches(self, self._driver.watched)
        self._task = Supervised(self._died)
        self._procedures: dict[Phase, Callable[[], Coroutine[Any, Any, object]]] = {
            Phase.OFFLINE: self._connector.run,
            Phase.PRIMING: self._priming.run,
            Phase.SERVING: self._keepalive.run,
            Phase.CLOSING: self._driver.phase_changes.wait,
        }

    # ------------------------------------------------------------------ facts

    @property
    def state(self) -> SessionState:
        """The public state."""
        return self._driver.machine.state

    @property
    def connected(self) -> bool:
        """A server has accepted the session on this connection, and requests can be sent."""
        return self._driver.machine.connected

    @property
    def read_only(self) -> bool:
        """The connected server has no quorum: it answers reads, which may be of any age."""
        return self.connected and self._driver.machine.read_only

    @property
    def id(self) -> int:
        """The session's id, 0 before the first and between two; compare by equality only."""
        return self._driver.machine.session_id

    @property
    def earlier_ids(self) -> tuple[int, ...]:
        """Ids of sessions that this process had before in the present history."""
        return self._driver.machine.earlier_ids

    @property
    def timeout(self) -> float:
        """The session timeout in seconds, as negotiated; before that, as it will be asked for."""
        return self._driver.machine.lifetime

    @property
    def generation(self) -> int:
        """How many connections were accepted so far."""
        return self._driver.machine.generation

    @property
    def history(self) -> int:
        """How often the ensemble was found to have lost its history; zxids compare within one only."""
        return self._driver.machine.history

    @property
    def last_zxid(self) -> int:
        """The highest zxid that the quorum is known to have reached in the present history."""
        return self._driver.learned().last_zxid

    @property
    def server(self) -> Endpoint | None:
        """The server connected to."""
        return self._driver.server

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        """Each address's last answer: how that ended, in words, since when, when last, and how often in a row.

        By ``host:port``, or ``name(address):port`` where there is a name; a name that was not resolved is
        ``name:port``. It tells of the present outage, or of the last one while there is a connection.
        """
        return self._driver.attempts

    @property
    def attempts_ended(self) -> Mapping[AttemptOutcome, int]:
        """How many attempts to connect have ended so far, by outcome; a name without an address counts as one, too."""
        return self._driver.attempts.ended

    @property
    def failure(self) -> RegistryError | None:
        """The error that ended a session that failed."""
        return self._driver.failure

    @property
    def closed_id(self) -> int:
        """The session that a server has said to have closed as it was asked to, with all that it owned, or 0."""
        return self._driver.closed_id

    def evidence_age(self) -> float:
        """Return the seconds since the sending of the last request that the quorum answered; infinite before the first.

        Measured on a clock that counts system sleep. A follower that was cut off from its leader still answers
        pings and reads; only a sync or a write passes through the leader.
        """
        return self._driver.evidence_age()

    @property
    def presumed_expired(self) -> bool:
        """Whether the evidence is older than the session timeout: the server may have ended the session.

        A presumption, nothing is done because of it: only a server's word ends a session.
        """
        return self.evidence_age() >= self.timeout

    def supports(self, opcode: int) -> bool | None:
        """Return whether the connected server knows an operation; None until it was asked."""
        server = self._driver.server
        return None if server is None else self._features.supports(server, opcode)

    # ------------------------------------------------------------------ requests

    @overload
    def submit(self, message: Message[T], answered: Answered | None = None) -> asyncio.Future[Reply[T]]: ...
    @overload
    def submit(self, message: Request, answered: Answered | None = None) -> asyncio.Future[Reply[Any]]: ...
    def submit(self, message: Any, answered: Answered | None = None) -> asyncio.Future[Reply[Any]]:
        """Send a request with this tick's others; its future gives the reply.

        The future fails with :class:`ConnectionLost` when there is no connection or it ends before the answer, with
        a :class:`ServerError` that the server answered, :class:`RequestTooLarge`, :class:`SessionClosed` or
        :class:`SessionFailed`. Cancelling the future forgets the answer, not the request.

        *answered*, which must not raise, is called with the future: at once by the callback that brings the answer,
        soon after where there is no connection, or it is lost.
        """
        connection = self._driver.connection
        if connection is None or not self._driver.machine.connected:
            future: asyncio.Future[Reply[Any]] = asyncio.get_running_loop().create_future()
            fail(future, self._driver.unavailable(), answered)
            return future
        if isinstance(message, AddWatch):
            self._driver.watched.tree_asked(message.path)
        elif getattr(message, "watch", False) and not self._driver.watched.one_shot_asked(message.opcode, message.path):
            message = copy.copy(message)
            message.watch = False
        return connection.submit(message, answered)

    @overload
    async def request(self, message: Message[T]) -> Reply[T]: ...
    @overload
    async def request(self, message: Request) -> Reply[Any]: ...
    async def request(self, message: Any) -> Reply[Any]:
        """Send a request and wait for its reply; raises what :meth:`submit`'s future fails with.

        One that an overloaded server dropped unprocessed is sent again, for two thirds of the session timeout; so is a
        read that the server could not answer just then.
        """
        # A request of aiozk's does not tell whether it writes.
        errors = (Throttled,) if getattr(message, "writes", True) else TRANSIENT
        return await self.persist(lambda: self.submit(message), errors)

    async def read(self, message: Message[T]) -> Reply[T]:
        """Send a read, again on every next connection, until it is answered; the caller sets the deadline.

        It is also sent again where the server could not answer just then, for two thirds of the session timeout.
        """
        while True:
            await self.wait_connected()
            try:
                return await self.persist(lambda: self.submit(message), TRANSIENT)
            except ConnectionLost:
                continue

    async def persist(
        self, send: Callable[[], asyncio.Future[Reply[T]]], errors: tuple[type[RegistryError], ...]
    ) -> Reply[T]:
        """Send again after *errors*, which prove nothing, for two thirds of the session timeout.

        Raises the last of them then, and whatever else what *send* returns fails with.
        """
        timeout = self.timeout
        return await persist(send, errors, patience=throttled_patience(timeout), timeout=timeout, runtime=self.runtime)

    def executed(self, message: Message[Any]) -> None:
        """The effect of *message* was found done, though its answer was lost: it does not cost connections.

        A caller that repeats such requests declares them, since only it can know.
        """
        self._isolation.executed(message)

    # ------------------------------------------------------------------ observers

    def states(self) -> Stream[SessionState]:
        """Return a stream of the states from the next one on; a slow consumer misses the oldest of more than 64.

        It ends when the session is closed, and raises the error that ended the session; UsageError in another loop.
        """
        if self._task.loop not in (None, running_loop()):
            raise UsageError("the session belongs to another event loop or thread")
        return self._observers.states()

    def observe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* after each change of state; it must not block. Returns what removes it."""
        return self._observers.observe(callback)

    def emit(self, name: str, **fields: object) -> None:
        """Tell the hooks, each with a dict of its own; what one raises is logged, and nothing else suffers."""
        self._observers.emit(name, **fields)

    def listen(self, hook: Hook) -> Callable[[], None]:
        """Tell *hook* of every event from now on, too. Returns what removes it."""
        return self._observers.listen(hook)

    def time_answers(self, timer: Timer) -> None:
        """Call *timer* with the opcode of each request that is answered from now on, and the seconds that it took."""
        self._observers.timers += (timer,)

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until requests can be sent.

        Raises :class:`ConnectTimeout` after *timeout* seconds, :class:`SessionFailed` or :class:`SessionClosed`
        when there will be no connection. Cancelling stops the waiting only.
        """
        driver = self._driver
        if not await driver.phase_changes.until(lambda: self.connected or self.state in ENDED, timeout):
            assert timeout is not None
            raise ConnectTimeout(str(self.connect_string), timeout, driver.attempts.words())
        if not self.connected:
            raise driver.unavailable()

    # ------------------------------------------------------------------ beginning and ending

    def start(self) -> None:
        """Begin to connect, in a task of this session's own."""
        self._driver.reports.outage_begins(self.timeout)
        self._task.start(self._supervise(), name="aioregistry session")

    async def close(self, timeout: float) -> None:
        """End the session: the server deletes its ephemeral nodes before it answers.

        Waits at most *timeout* seconds for that answer; without a connection it returns at once, and the session
        lives until it times out. Always leaves no task and no socket behind. Cancelling cuts the waiting short, the
        rest is still done.
        """
        driver = self._driver
        driver.step(CloseRequested())
        try:
            await driver.phase_changes.until(lambda: driver.machine.phase is not Phase.CLOSING, timeout)
        finally:
            if driver.machine.phase is Phase.CLOSING:
                driver.step(Overdue(driver.machine.connection))
            lookups = self._connector.cancel()
            try:
                await self._task.aclose()
                if lookups:
                    await asyncio.wait(lookups)
            finally:
                driver.reports.close()
                self._repeated.close()

    async def _supervise(self) -> None:
        try:
            while self._driver.machine.phase is not Phase.ENDED:
                await self._procedures[self._driver.machine.phase]()
        finally:
            self._driver.reports.close()
            self._connector.cancel()

    def _died(self, error: BaseException) -> None:
        """Let a defect reach every handle, instead of a task that is not awaited."""
        if isinstance(error, asyncio.CancelledError):
            self._fail(SessionFailed("the supervisor's task was cancelled from outside"))
            return
        log.critical("the session's supervisor died", exc_info=error)
        failure = SessionFailed(f"the supervisor died: {foreign.shown(error)}")
        failure.__cause__ = error
        self._fail(failure)

    def _fail(self, error: RegistryError) -> None:
        if self._driver.machine.state not in ENDED:
            self._driver.failure = error
        self._driver.step(Failed())

    def __repr__(self) -> str:
        age = self.evidence_age()
        evidence = f"evidence {age:.1f}s old" if age != float("inf") else "no evidence"
        where = self.server or self.connect_string
        return f"<Session {session_name(self.id)} {self.state.name} {where} timeout={self.timeout:g}s {evidence}>"
