"""The session: one task that owns the machine, and the face that the rooms above use.

Whatever happens comes in through :meth:`Session._step`, synchronously, from the transport's callback that reports
it: a closed socket is SUSPENDED in that callback. The task does what takes time, by the machine's phase: waiting,
resolving, dialing, priming, heartbeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import logging
import ssl
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar, overload

from aiozk.protocol.request import Request

from aioregistry import _foreign as foreign
from aioregistry._bounds import doubts, granted, paced
from aioregistry._concurrency import Alarm, Notifier, Supervised
from aioregistry._errors import (
    TRANSIENT,
    AuthenticationFailed,
    AuthFailed,
    ConnectionLost,
    ConnectTimeout,
    MarshallingError,
    NoNode,
    PoisonRequest,
    RegistryError,
    SessionClosed,
    SessionClosedRequireSASL,
    SessionFailed,
    SessionMoved,
    Throttled,
    Unimplemented,
    UsageError,
    session_name,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._protocol import (
    AddWatch,
    Auth,
    Connect,
    ConnectReply,
    CreateContainer,
    Delete,
    Exists,
    GetChildren,
    GetChildren2,
    GetData,
    Message,
    MultiRead,
    RemoveWatches,
    Reply,
    SetWatches2,
    Sync,
    WatchedEvent,
    WatcherType,
)
from aioregistry._protocol import CloseSession as CloseSessionMessage
from aioregistry._runtime import Endpoint, Runtime, running_loop
from aioregistry._streams import Source, Stream

from .attempts import Attempt, AttemptOutcome, Attempts, told
from .backoff import attempt_deadline, handshake_deadline, retry_delay, throttled_patience, throttled_pause
from .connection import Answered, Connection, fail
from .dialer import Dialer
from .hosts import Hosts
from .isolation import Isolation
from .machine import (
    Accepted,
    Announce,
    CloseRequested,
    CloseSession,
    Command,
    CredentialsRefused,
    Dialed,
    Drop,
    Event,
    Failed,
    Handshake,
    Lost,
    Machine,
    Overdue,
    Phase,
    Prime,
    Primed,
    Probe,
    Probed,
    Question,
    Refused,
    RollBack,
    RoundFailed,
    step,
)
from .names import Names
from .outage import Outage
from .patience import TURNS, patience
from .states import ENDED, SERVING, SessionState
from .watch_table import WatchTable
from .watches import SessionWatches

__all__ = ["Session"]

log = logging.getLogger("aioregistry.session")

T = TypeVar("T")
Hook = Callable[[str, dict[str, object]], None]

HEARTBEATS_PER_TIMEOUT = 3
"""As Java's client: one may be lost, and the last third is left for another server."""

_STATES_KEPT = 64
# Operations that not every supported server knows; what one answered is remembered for it.
_LEARNED = frozenset({MultiRead.opcode, AddWatch.opcode, CreateContainer.opcode})
# Absent or of another version: it fails either way, and any failure of a write tells the quorum's zxid.
_MUST_FAIL = Delete("/aioregistry-probe", version=0x7FFF_FFFF)


class Session:
    """A ZooKeeper session that lives for as long as the ensemble lets it, and is followed by another.

    Args:
        hosts: the servers, parsed.
        timeout: the session timeout to ask for, in seconds; the server decides within its bounds.
        runtime: clocks, randomness, names and sockets.
        auth: credentials as (scheme, secret) pairs, sent first on every connection.
        tls: speak TLS with this context.
        allow_read_only: accept a server without quorum for reading, as long as there was no session before.
        max_request: the servers' jute.maxbuffer in bytes; a larger request is refused here.
        hooks: each called with a name and fields for every event worth a metric.
    """

    def __init__(
        self,
        hosts: Hosts,
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
        self.hosts = hosts
        self.max_request = max_request
        self.failure: RegistryError | None = None
        self.closed_id = 0
        """The session that a server has said to have closed as it was asked to, with all that it owned; 0: none."""
        self._auth, self._tls, self._hooks = tuple(auth), tls, dict(enumerate(hooks))
        self._machine = Machine(timeout, allow_read_only)
        self._connection: Connection | None = None
        self._dialed: dict[int, Connection] = {}
        self._connections = 0
        self._attempts = Attempts()
        self._outage: Outage | None = None
        """The present one, or the last."""
        self._outage_alarm = Alarm()
        self._left = ""
        """What connection was lost last, and why."""
        self._dialer: Dialer | None = None
        self._names = Names(hosts.servers, runtime, self._attempts, self._offer)
        self._round_began = float("-inf")
        self._doubted = False
        """It was told what is to be known of the session timeout."""
        self._unanswered = 0
        """Handshakes in a row that were not answered in time."""
        self._repeated = IncidentLog(log)
        self._knows: dict[str, dict[int, bool]] = {}
        self._presumed_unknown: set[str] = set()
        """Servers that are taken to know no MultiRead because that cost the connection, which may have other causes."""
        self._isolation = Isolation()
        self._watched = WatchTable()
        self.watches: SessionWatches = SessionWatches(self, self._watched)
        self._news_since = 0
        """The zxid that watches are restored with."""
        self._states: Source[SessionState] = Source()
        self._observers: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._phase_changes = Notifier()
        self._task = Supervised(self._died)

    # ------------------------------------------------------------------ facts

    @property
    def state(self) -> SessionState:
        """The public state."""
        return self._machine.state

    @property
    def connected(self) -> bool:
        """A server has accepted the session on this connection, and requests can be sent."""
        return self._machine.connected

    @property
    def read_only(self) -> bool:
        """The connected server has no quorum: it answers reads, of which nobody knows how old they are."""
        return self._machine.connected and self._machine.read_only

    @property
    def id(self) -> int:
        """The session's id, 0 before the first and between two; compare by equality only."""
        return self._machine.session_id

    @property
    def earlier_ids(self) -> tuple[int, ...]:
        """Ids of sessions that this process had before in the present history."""
        return self._machine.earlier_ids

    @property
    def timeout(self) -> float:
        """The session timeout in seconds, as negotiated; before that, as it will be asked for."""
        return self._machine.lifetime

    @property
    def generation(self) -> int:
        """How many connections were accepted so far."""
        return self._machine.generation

    @property
    def history(self) -> int:
        """How often the ensemble was found to have lost its history; zxids compare within one only."""
        return self._machine.history

    @property
    def last_zxid(self) -> int:
        """The highest zxid that the quorum is known to have reached in the present history."""
        return self._learned().last_zxid

    @property
    def server(self) -> Endpoint | None:
        """The server connected to."""
        return self._connection.endpoint if self._connection is not None else None

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        """What each address answered last: how that ended, in words, since when, when last, and how often in a row.

        By ``host:port``, or ``name(address):port`` where there is a name; a name that was not resolved is
        ``name:port``. It tells of the present outage, or of the last one while there is a connection.
        """
        return self._attempts

    def evidence_age(self) -> float:
        """Return the seconds since the sending of the last request that the quorum answered; infinite before the first.

        Measured on a clock that counts system sleep. A follower that was cut off from its leader still answers
        pings and reads; only a sync or a write passes through the leader.
        """
        evidence, connection = self._machine.evidence, self._teacher()
        if connection is not None and connection.evidence > evidence:
            evidence = connection.evidence
        return self.runtime.boot() - evidence

    @property
    def presumed_expired(self) -> bool:
        """Whether the evidence is older than the session timeout: the server may have ended the session.

        A presumption, nothing is done because of it: only a server's word ends a session.
        """
        return self.evidence_age() >= self.timeout

    def _learned(self) -> Machine:
        """Return the machine with what the connection's replies tell so far."""
        machine, connection = self._machine, self._teacher()
        if connection is None:
            return machine
        return machine._replace(
            last_zxid=max(machine.last_zxid, connection.last_zxid),
            evidence=max(machine.evidence, connection.evidence),
        )

    def _teacher(self) -> Connection | None:
        """The connection, if what it tells counts."""
        # A probe's zxids are compared with ours, so they must not become ours before. A server without quorum has in
        # its log what was never committed and may be undone.
        phase = self._machine.phase
        if phase is Phase.ASKING or phase is Phase.PROBING or self._machine.read_only:
            return None
        return self._connection

    def supports(self, opcode: int) -> bool | None:
        """Return whether the connected server knows an operation; None until it was asked."""
        if self._connection is None:
            return None
        return self._knows.get(str(self._connection.endpoint), {}).get(opcode)

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
        if self._connection is None or not self._machine.connected:
            future: asyncio.Future[Reply[Any]] = asyncio.get_running_loop().create_future()
            fail(future, self._unavailable(), answered)
            return future
        if isinstance(message, AddWatch):
            self._watched.tree_asked(message.path)
        elif getattr(message, "watch", False) and not self._watched.one_shot_asked(message.opcode, message.path):
            message = copy.copy(message)
            message.watch = False
        return self._connection.submit(message, answered)

    @overload
    async def request(self, message: Message[T]) -> Reply[T]: ...
    @overload
    async def request(self, message: Request) -> Reply[Any]: ...
    async def request(self, message: Any) -> Reply[Any]:
        """Send a request and wait for its reply; raises what :meth:`submit`'s future fails with.

        One that an overloaded server dropped unprocessed is sent again, for two thirds of the session timeout.
        """
        return await self.persist(lambda: self.submit(message), (Throttled,))

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
        self,
        send: Callable[[], asyncio.Future[Reply[T]]],
        errors: tuple[type[RegistryError], ...],
        patience: float | None = None,
    ) -> Reply[T]:
        """Send again after *errors*, which prove nothing, until the *patience* is over; raises the last one then."""
        loop = asyncio.get_running_loop()
        until, attempts = loop.time() + (throttled_patience(self.timeout) if patience is None else patience), 0
        while True:
            try:
                return await send()
            except errors:
                if loop.time() >= until:
                    raise
            attempts += 1
            await asyncio.sleep(throttled_pause(attempts, self.timeout, self.runtime.uniform))

    def _unavailable(self) -> RegistryError:
        if self._machine.state is SessionState.FAILED:
            failed = SessionFailed(f"the session failed: {self.failure}")
            failed.__cause__ = self.failure
            return failed
        if self._machine.state is SessionState.CLOSED:
            return SessionClosed("the session is closed")
        return ConnectionLost(f"no connection to {self.hosts}", maybe_applied=False)

    # ------------------------------------------------------------------ observers

    def states(self) -> Stream[SessionState]:
        """Return a stream of the states from the next one on; a slow consumer misses the oldest of more than 64.

        It ends when the session is closed and raises what the session failed with; UsageError in another loop.
        """
        if self._task.loop not in (None, running_loop()):
            raise UsageError("the session belongs to another event loop or thread")
        stream: Stream[SessionState] = Stream(_STATES_KEPT)
        self._states.attach(stream)
        return stream

    def observe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* after each change of state; it must not block. Returns what removes it."""
        number = next(self._numbers)
        self._observers[number] = callback

        def remove() -> None:
            self._observers.pop(number, None)

        return remove

    def emit(self, name: str, **fields: object) -> None:
        """Tell the hooks, each with a dict of its own; what one raises is logged, and nothing else suffers."""
        for hook in tuple(self._hooks.values()):
            try:
                foreign.call(hook, name, dict(fields))
            except foreign.ForeignError as failure:
                self._repeated.tell(
                    "hook", logging.WARNING, "on_event raised on %s\n%s", name, foreign.traced(failure.error)
                )

    def listen(self, hook: Hook) -> Callable[[], None]:
        """Tell *hook* of every event from now on, too. Returns what removes it."""
        number = next(self._numbers)
        self._hooks[number] = hook

        def remove() -> None:
            self._hooks.pop(number, None)

        return remove

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until requests can be sent.

        Raises :class:`ConnectTimeout` after *timeout* seconds, :class:`SessionFailed` or :class:`SessionClosed`
        when there will be no connection. Cancelling stops the waiting only.
        """
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while not self._machine.connected:
            if self._machine.state in ENDED:
                raise self._unavailable()
            left = None if deadline is None else deadline - asyncio.get_running_loop().time()
            if left is not None and left <= 0:
                assert timeout is not None
                raise ConnectTimeout(str(self.hosts), timeout, self._attempts.words())
            await self._phase_changes.wait(left)

    # ------------------------------------------------------------------ beginning and ending

    def start(self) -> None:
        """Begin to connect, in a task of this session's own."""
        self._outage_begins()
        self._task.start(self._supervise(), name="aioregistry session")

    async def close(self, timeout: float) -> None:
        """End the session: the server deletes its ephemeral nodes before it answers.

        Waits at most *timeout* seconds for that answer; without a connection it returns at once, and the session
        lives until it times out. Always leaves no task and no socket behind. Cancelling cuts the waiting short, the
        rest is still done.
        """
        self._step(CloseRequested())
        try:
            deadline = asyncio.get_running_loop().time() + timeout
            while self._machine.phase is Phase.CLOSING and (left := deadline - asyncio.get_running_loop().time()) > 0:
                await self._phase_changes.wait(left)
        finally:
            if self._machine.phase is Phase.CLOSING:
                self._step(Overdue(self._machine.connection))
            lookups = self._names.cancel()
            await self._task.aclose()
            if lookups:
                await asyncio.wait(lookups)
            self._outage_alarm.cancel()
            self._repeated.close()

    async def _supervise(self) -> None:
        try:
            while self._machine.phase is not Phase.ENDED:
                await self._procedures[self._machine.phase](self)
        finally:
            self._outage_alarm.cancel()
            self._names.cancel()

    def _died(self, error: BaseException) -> None:
        """Let a defect reach every handle, instead of a task that nobody awaits."""
        if isinstance(error, asyncio.CancelledError):
            self._fail(SessionFailed("the supervisor's task was cancelled from outside"))
            return
        log.critical("the session's supervisor died", exc_info=error)
        failure = SessionFailed(f"the supervisor died: {foreign.shown(error)}")
        failure.__cause__ = error
        self._fail(failure)

    def _fail(self, error: RegistryError) -> None:
        if self._machine.state not in ENDED:
            self.failure = error
        self._step(Failed())

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call back into a room above: a defect there must not end the connection for all others."""
        try:
            foreign.call(callback, *arguments)
        except foreign.ForeignError as failure:
            self._repeated.tell(
                *("callback", logging.ERROR, "%r raised\n%s"),
                *(callback, foreign.traced(failure.error)),
            )

    # ------------------------------------------------------------------ the machine

    def _step(self, event: Event) -> None:
        before = self._machine.phase
        self._machine, commands = step(self._learned(), event)
        for command in commands:
            self._carry_out[type(command)](self, command)
        if self._machine.phase is not before:
            self._phase_changes.notify()

    # ------------------------------------------------------------------ commands

    def _handshake(self, command: Handshake) -> None:
        connection = self._connection = self._dialed[command.connection]
        connection.greet(
            Connect(
                last_zxid=command.last_zxid,
                timeout_ms=round(command.timeout * 1000),
                session_id=command.session_id,
                password=command.password,
                read_only=command.read_only,
            )
        )

    def _drop(self, command: Drop) -> None:
        connection = self._dialed.pop(command.connection)
        failed = self._unavailable() if self._machine.state is SessionState.FAILED else None
        attempt = self._attempts.get(str(connection.endpoint))
        reason = "the session left it" if attempt is None else attempt.reason
        self._left = f"{connection.endpoint}: {reason}"
        connection.drop(reason, failed)
        if connection is self._connection:
            self._connection = None
            self._watched.disconnected()

    def _close_session(self, command: CloseSession) -> None:
        closed = self._machine.session_id if self._machine.phase is Phase.CLOSING else 0  # else it is a probe's

        def answered(answer: asyncio.Future[Reply[Any]]) -> None:
            if closed and not answer.cancelled() and answer.exception() is None:
                self.closed_id = closed

        _ = self._dialed[command.connection].submit(CloseSessionMessage(), answered)

    def _prime_later(self, command: Prime) -> None:
        self._news_since = command.relative_zxid  # the task does it, by the machine's phase

    def _probe(self, command: Probe) -> None:
        connection, sent = self._dialed[command.connection], self.runtime.boot()

        def answered(future: asyncio.Future[Reply[Any]]) -> None:
            if future.cancelled() or isinstance(future.exception(), ConnectionLost):
                return
            # A server that is overloaded answers by itself, with its own zxid.
            zxid = connection.reached if connection.evidence >= sent else -1
            self._step(Probed(connection.number, zxid, sent, self.runtime.boot(), command.write))

        connection.submit(_MUST_FAIL if command.write else Sync("/")).add_done_callback(answered)

    def _announce(self, command: Announce) -> None:
        state = command.state
        self._log_state(state, session_name(command.session_id))
        self.emit(
            "session.state",
            state=state.value,
            session=command.session_id,
            generation=self.generation,
            attempts=self._attempts.words(),
        )
        self._states.offer(state)
        for callback in list(self._observers.values()):
            self._call(callback)
        if state in ENDED:
            self._states.close(self.failure if state is SessionState.FAILED else None)

    def _roll_back(self, command: RollBack) -> None:
        how = (
            "proven by a write to the quorum"
            if command.proven
            else "presumed, no server took the session for longer than it could live"
        )
        log.error(
            "the ensemble lost its history (%s): we saw zxid %#x, it is at %#x; all claims and mirrors are void",
            how,
            command.ours,
            command.theirs,
        )
        self.emit("session.rollback", ours=command.ours, theirs=command.theirs, proven=command.proven)

    _carry_out: ClassVar[dict[type[Command], Callable[[Session, Any], None]]] = {
        Handshake: _handshake,
        Drop: _drop,
        Prime: _prime_later,
        Probe: _probe,
        CloseSession: _close_session,
        RollBack: _roll_back,
        Announce: _announce,
    }

    # ------------------------------------------------------------------ what the log says of connections

    def _log_state(self, state: SessionState, session: str) -> None:
        if state is SessionState.SUSPENDED:
            self._outage_begins()
            self._repeated.tell(state, logging.INFO, "session %s is suspended: %s", session, self._left)
        elif state in SERVING:
            self._outage_is_over(state, session)
        else:
            level = logging.WARNING if state in (SessionState.EXPIRED, SessionState.FAILED) else logging.INFO
            where = self.server or self.hosts
            self._repeated.tell(state, level, "session %s is %s (%s)", session, state.value, where)

    def _outage_begins(self) -> None:
        # A connection that did not last was no end of the outage before.
        if self._outage is None or self._machine.failures == 0:
            self._outage = Outage(asyncio.get_running_loop().time(), self.timeout)
        self._outage_alarm.set_at(self._outage.due, self._tell_of_outage)

    def _tell_of_outage(self) -> None:
        outage = self._outage
        assert outage is not None
        first = not outage.told
        lasted = outage.tell(asyncio.get_running_loop().time())
        self._outage_alarm.set_at(outage.due, self._tell_of_outage)
        reason = told(self._attempts.words())
        log.warning("no connection to ZooKeeper for %.1f s: %s", lasted, reason)
        if first:
            self.emit("session.outage", seconds=lasted, reason=reason)

    def _outage_is_over(self, state: SessionState, session: str) -> None:
        self._outage_alarm.cancel()
        self._attempts.over = True
        outage = self._outage
        assert outage is not None
        lasted = asyncio.get_running_loop().time() - outage.began
        line = "session %s is %s (%s) after %.1f s without a connection"
        words = session, state.value, self.server, lasted
        if outage.told:
            outage.told = False
            log.info(line, *words)
            self.emit("session.outage_over", seconds=lasted, server=str(self.server))
        else:
            self._repeated.tell(state, logging.INFO, line, *words)

    # ------------------------------------------------------------------ the connection's callbacks

    def _greeted(self, connection: Connection, reply: ConnectReply, sent: float) -> None:
        self._unanswered = 0
        if reply.session_id == 0 or reply.timeout_ms <= 0:
            self._note(connection.endpoint, AttemptOutcome.ENDED, "said that the session has ended")
            self._step(Refused(connection.number, reply.read_only))
        else:
            what = "accepted the session, and has not answered since"
            self._attempts.begin(str(connection.endpoint), what, self.runtime.wall())
            told, asked = reply.timeout_ms / 1000, self._machine.requested_timeout
            timeout = granted(told, asked)
            if timeout == told and self._machine.phase is Phase.HANDSHAKING:
                self._doubt(connection, timeout)
            if timeout != told:
                self._repeated.tell(
                    *("granted", logging.WARNING, "%s granted a session timeout of %g s: %g s is reckoned with"),
                    *(connection.endpoint, told, timeout),
                )
            offered = self._machine.session_id
            if offered and self._machine.phase is Phase.HANDSHAKING and reply.session_id != offered:
                log.warning(
                    "%s granted session %s instead of refusing or resuming ours, %s, which may own nodes until it ends",
                    connection.endpoint, session_name(reply.session_id), session_name(offered),
                )  # fmt: skip
            self._step(Accepted(connection.number, reply.session_id, reply.password, timeout, reply.read_only, sent))

    def _doubt(self, connection: Connection, timeout: float) -> None:
        """Tell once what is to be known of the session timeout."""
        if not self._doubted:
            self._doubted = True
            for doubt in doubts(timeout, self._machine.requested_timeout):
                log.warning("%s: %s", connection.endpoint, doubt)

    def _answered(self, connection: Connection, request: Any, error: RegistryError | None) -> None:
        """Take note of an answer, before whoever waits for it is told: by its error, else by the operation."""
        note = self._errors.get(type(error))
        if note is not None and note(self, connection, request):
            return
        if request.opcode in _LEARNED and (error is None or isinstance(error, (Unimplemented, MarshallingError))):
            self._knows.setdefault(str(connection.endpoint), {})[request.opcode] = error is None
        take = self._answers.get(request.opcode)
        if take is not None and (error is None or isinstance(error, NoNode)):
            take(self, connection, request, error is None)

    def _refused_credentials(self, connection: Connection, request: Any) -> bool:
        if not isinstance(request, Auth) or self._machine.phase is not Phase.PRIMING:
            return False
        # Here, not where the answer is awaited: the server closes the connection behind it, and the end may come in
        # the same callback.
        self.failure = AuthenticationFailed(request.scheme, str(connection.endpoint))
        self._step(CredentialsRefused(connection.number))
        return True

    def _throttled(self, connection: Connection, _request: Any) -> bool:
        why = "%s is overloaded and drops requests; they are sent again in a while"
        self._repeated.tell("throttled", logging.WARNING, why, connection.endpoint)
        return False

    def _moved(self, connection: Connection, _request: Any) -> bool:
        self._leave(connection, "said that the session has moved to another server", AttemptOutcome.FAILED)
        return True

    def _read_answered(self, _connection: Connection, request: Any, found: bool) -> None:
        self._watched.read_answered(request.opcode, request.path, watch=request.watch, found=found)

    def _tree_watched(self, connection: Connection, request: Any, found: bool) -> None:
        self._trees_armed(connection, [request.path] if found else [])

    def _watches_restored(self, connection: Connection, request: Any, found: bool) -> None:
        self._trees_armed(connection, request.persistent_recursive if found else [])

    def _trees_armed(self, connection: Connection, paths: Sequence[str]) -> None:
        for path in self._watched.trees_armed(paths):
            _ = connection.submit(RemoveWatches(path, WatcherType.ANY))

    _errors: ClassVar[dict[type[RegistryError | None], Callable[[Session, Connection, Any], bool]]] = {
        AuthFailed: _refused_credentials,
        Throttled: _throttled,
        SessionMoved: _moved,
    }
    """What an error says of the session; True: nothing else follows from the answer."""

    _answers: ClassVar[dict[int, Callable[[Session, Connection, Any, bool], None]]] = {
        # By opcode: aiozk's requests come this way, too.
        **dict.fromkeys((GetData.opcode, Exists.opcode, GetChildren.opcode, GetChildren2.opcode), _read_answered),
        AddWatch.opcode: _tree_watched,
        SetWatches2.opcode: _watches_restored,
    }
    """What an answer says of watches, where there was a result, or there is no such node."""

    def _lost(self, connection: Connection) -> None:
        if connection.number in self._dialed:
            self._note(connection.endpoint, connection.outcome, connection.reason)
            self._step(Lost(connection.number))

    def _fired(self, event: WatchedEvent) -> None:
        for callback in self._watched.fire(event):
            self._call(callback, event)

    # ------------------------------------------------------------------ offline: rounds of connecting

    async def _connect_round(self) -> None:
        loop = asyncio.get_running_loop()
        if self._machine.silent_rounds != 1:  # else it is one more question of the round before
            # From when the round before began: who waited for an answer in vain has waited, and a handshake that is
            # under way when the network comes back is answered at once.
            pacing = paced(self.timeout, self._machine.requested_timeout)
            pause = retry_delay(self._machine.failures, pacing, self.runtime.uniform)
            await self._phase_changes.wait(max(pause - (loop.time() - self._round_began), 0.0))
            self._round_began = loop.time()
        question = self._question()
        if question is None:
            return
        self._names.ask(self.timeout)
        await self._names.first_answers()
        endpoints = self._shuffled_endpoints()
        candidates = max(len(endpoints), len(self.hosts.servers))
        deadline = attempt_deadline(self.timeout, self.timeout - self.evidence_age(), candidates)
        dialer = self._dialer = Dialer(endpoints, self._dial, deadline, self._note)
        try:
            # An answer that changes the question ends the round: everybody is asked anew.
            while self._question() == question:
                connection = await dialer.next()
                if connection is None:
                    if await self._names.another():
                        continue
                    self._step(RoundFailed(self.runtime.boot(), self.runtime.uniform(0, 1)))
                    return
                if connection.closed:
                    self._note(connection.endpoint, connection.outcome, connection.reason)
                else:
                    await self._converse(connection, deadline - connection.took)
        finally:
            self._dialer = None
            await dialer.aclose()

    def _question(self) -> tuple[int, Question] | None:
        """Return what servers are to be asked, and about which session; None when they are to be asked nothing."""
        machine = self._machine
        return (machine.session_id, machine.question) if machine.phase is Phase.OFFLINE else None

    async def _converse(self, connection: Connection, seconds: float) -> None:
        """Shake hands, and probe where that is what the connection is for, until it is taken or given up."""
        self._dialed[connection.number] = connection
        self._step(Dialed(connection.number))
        longest = handshake_deadline(self._unanswered, connection.took, seconds)
        if await self._outlasts({Phase.HANDSHAKING, Phase.ASKING}, longest):
            self._unanswered += 1
            self._leave(connection, f"did not answer the handshake within {longest:.3g} s")
        elif await self._outlasts({Phase.PROBING}, seconds):
            self._leave(connection, f"did not answer the probe within {seconds:.3g} s")

    async def _outlasts(self, phases: Container[Phase], seconds: float) -> bool:
        """Wait for another phase than these; return whether *seconds* were over first."""
        with contextlib.suppress(TimeoutError):
            async with patience(max(seconds, 0.0)):
                while self._machine.phase in phases:
                    await self._phase_changes.wait()
        return self._machine.phase in phases

    def _leave(self, connection: Connection, why: str, outcome: AttemptOutcome = AttemptOutcome.SILENT) -> None:
        self._note(connection.endpoint, outcome, why)
        self._step(Overdue(connection.number))

    def _shuffled_endpoints(self) -> list[Endpoint]:
        shuffled = self._names.endpoints()
        self.runtime.shuffle(shuffled)
        return shuffled

    def _offer(self) -> None:
        """Let the round under way know of addresses that were answered late."""
        if self._dialer is not None:
            self._dialer.offer(self._shuffled_endpoints())

    def _note(self, endpoint: Endpoint, outcome: AttemptOutcome, reason: str) -> None:
        self._attempts.note(str(endpoint), outcome, reason, self.runtime.wall())

    async def _dial(self, endpoint: Endpoint) -> Connection:
        self._connections += 1
        connection = Connection(
            self._connections,
            endpoint,
            self.runtime,
            max_request=self.max_request,
            on_greeting=self._greeted,
            on_event=self._fired,
            on_answer=self._answered,
            on_lost=self._lost,
        )
        self._attempts.begin(str(endpoint), "no connection yet", self.runtime.wall())
        began = asyncio.get_running_loop().time()
        await self.runtime.connect(lambda: connection, endpoint, self._tls)
        connection.took = asyncio.get_running_loop().time() - began
        self._attempts.begin(str(endpoint), "has not answered the handshake yet", self.runtime.wall())
        return connection

    # ------------------------------------------------------------------ priming: credentials, watches

    async def _prime(self) -> None:
        connection = self._connection
        assert connection is not None
        connection.isolate(self._isolation, self._poison_found)
        deadline = self.timeout / HEARTBEATS_PER_TIMEOUT
        try:
            async with patience(deadline):
                await self._authenticate(connection)
                await self._learn(connection)
                await self._restore_watches(connection)
        except TimeoutError:
            connection.silent("nothing was answered")
            self._leave(connection, f"accepted the session, then did not answer within {deadline:.3g} s")
            return
        except ConnectionLost:
            return  # reported already
        except RegistryError as error:
            # An expiry between the acceptance and this, a server that is overloaded, or is no longer of the version
            # that was found at its address.
            if not isinstance(error, PoisonRequest):
                self._knows.pop(str(connection.endpoint), None)
            if connection.closed:
                return  # reported already
            wants = isinstance(error, SessionClosedRequireSASL)
            outcome = AttemptOutcome.UNAUTHENTICATED if wants else AttemptOutcome.FAILED
            self._leave(connection, f"accepted the session, then failed: {error}", outcome)
            return
        self._note(connection.endpoint, AttemptOutcome.ACCEPTED, "accepted the session")
        self._step(Primed(connection.number))

    @property
    def _priming_patience(self) -> float:
        # Over before that with the connection is, so that what the server said is told.
        return self.timeout / HEARTBEATS_PER_TIMEOUT / 2

    async def _authenticate(self, connection: Connection) -> None:
        for answer in [connection.submit(Auth(scheme, secret)) for scheme, secret in self._auth]:
            await answer

    async def _learn(self, connection: Connection) -> None:
        # An unknown opcode costs the connection and whatever is pipelined behind it, so it is asked alone, before
        # anybody else may speak, and once per server. MultiRead came with the recursive watches (3.6).
        server = str(connection.endpoint)
        if server in self._presumed_unknown:
            self._presumed_unknown.discard(server)
            self._knows.pop(server, None)
        if self.supports(MultiRead.opcode) is None:
            try:
                asking = partial(connection.submit, MultiRead([GetData("/")]))
                await self.persist(asking, TRANSIENT, self._priming_patience)
            except PoisonRequest as error:
                if connection.closed:
                    raise
                log.info("%s is taken to know no MultiRead: %s", connection.endpoint, error)
                self._knows.setdefault(server, {})[MultiRead.opcode] = False
                self._presumed_unknown.add(server)
            except (Unimplemented, MarshallingError):
                log.info("%s knows no MultiRead: one-shot watches and single reads are used", connection.endpoint)
                # Most versions close the connection with that answer: nobody is told that it serves before it has.
                await connection.submit(Exists("/"))

    async def _restore_watches(self, connection: Connection) -> None:
        recursive = self.supports(AddWatch.opcode) is True
        # Whoever knows that a request was too long does not know by how much; half of it is found fitting soon.
        limit = self._isolation.limit(str(connection.endpoint))
        most = self.max_request if limit is None else min(self.max_request, limit // 2)
        requests = self._watched.restore(self._news_since, recursive=recursive, max_request=most)
        for request, answer in [(request, connection.submit(request)) for request in requests]:
            try:
                try:
                    await answer
                except TRANSIENT:
                    await self.persist(partial(connection.submit, request), TRANSIENT, self._priming_patience)
            except PoisonRequest as error:
                if connection.closed:
                    raise
                # Registrations and views look anew after each connect, and leave new watches with that.
                log.warning("watches are not restored: %s", error)

    def _poison_found(self, error: PoisonRequest) -> None:
        log.warning("%s", error)
        self.emit("session.poison", request=error.request, size=error.size, server=error.server, limit=error.limit)

    # ------------------------------------------------------------------ serving: heartbeats

    async def _keep_alive(self) -> None:
        connection = self._connection
        assert connection is not None
        interval = self.timeout / HEARTBEATS_PER_TIMEOUT
        if self._machine.read_only:
            await self._endure_read_only(connection, interval)
            return
        while self._serves(connection):
            idle = interval - self.evidence_age()
            if idle > 0:
                await self._measured(self._phase_changes.wait(idle), idle)
            else:
                await self._beat(connection, interval)

    def _serves(self, connection: Connection) -> bool:
        return self._connection is connection and self._machine.phase is Phase.SERVING

    async def _beat(self, connection: Connection, interval: float) -> None:
        """Ask the quorum for a sign of life, and leave the server when none has come for two intervals."""
        sent = self.runtime.boot()
        beat: asyncio.Future[Any] = connection.submit(Sync("/"))
        heard, turn, refusals, error = 0.0, interval / TURNS, 0, ""
        # An answer may be an error that proves nothing, and a write's may come first. What the loop was late does not
        # count: silence is what was listened to.
        while heard < interval - turn / 2 and self._serves(connection) and self.evidence_age() >= interval:
            before = self.runtime.monotonic()
            if beat.done():
                refusals, error = refusals + 1, str(beat.exception())
                await self._measured(self._phase_changes.wait(turn), turn)
                if self._serves(connection):
                    beat = connection.submit(Sync("/"))
            else:
                await self._measured(self._phase_changes.wait(turn, answer=beat), turn)
            heard += min(self.runtime.monotonic() - before, turn)
            if connection.evidence >= sent:  # though it may be old by now: then it is asked again
                return
        if self._serves(connection) and self.evidence_age() >= interval:
            if refusals:
                why = f"answered no sync within {interval:.3g} s but with an error, the last: {error}"
            else:
                why = f"did not answer a sync within {interval:.3g} s"
                connection.silent("nothing was answered any more")
            self._repeated.tell("no answer", logging.WARNING, "%s %s: leaving it", connection.endpoint, why)
            self._leave(connection, why)

    async def _measured(self, waiting: Any, planned: float) -> None:
        """Await something that takes *planned* seconds at most; tell where the loop was blocked for long meanwhile."""
        before = self.runtime.boot()
        await waiting
        late = self.runtime.boot() - before - planned
        if late < self.timeout / 10:
            return
        why = "the event loop was blocked, or the system slept, for %.3g s; heartbeats stopped meanwhile"
        self._repeated.tell("stall", logging.WARNING, why, late)
        self.emit("session.stall", seconds=late, timeout=self.timeout)

    async def _endure_read_only(self, connection: Connection, interval: float) -> None:
        """Read from a server without quorum for one timeout, then look for a better one."""
        for _ in range(HEARTBEATS_PER_TIMEOUT):
            await self._phase_changes.wait(interval)
            if not self._serves(connection):
                return
            _ = connection.submit(Exists("/"))  # any request keeps the connection
        self._leave(connection, "has no quorum", AttemptOutcome.NO_QUORUM)

    async def _wait(self) -> None:
        await self._phase_changes.wait()

    _procedures: ClassVar[dict[Phase, Callable[[Session], Any]]] = {
        Phase.OFFLINE: _connect_round,
        Phase.PRIMING: _prime,
        Phase.SERVING: _keep_alive,
        Phase.CLOSING: _wait,
    }

    def __repr__(self) -> str:
        age = self.evidence_age()
        evidence = f"evidence {age:.1f}s old" if age != float("inf") else "no evidence"
        where = self.server or self.hosts
        return f"<Session {session_name(self.id)} {self.state.name} {where} timeout={self.timeout:g}s {evidence}>"
