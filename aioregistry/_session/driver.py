"""The machine at work: whatever happens comes in through :meth:`Driver.step`, and is carried out there and then.

The transport's callback that reports something calls it, synchronously: a closed socket is SUSPENDED in that callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Container
from typing import Any, ClassVar

from aioregistry._concurrency import Notifier
from aioregistry._errors import (
    AuthenticationFailed,
    ConnectionLost,
    RegistryError,
    ServerError,
    SessionClosed,
    SessionClosedRequireSASL,
    SessionFailed,
    session_name,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._protocol import CloseSession as CloseSessionMessage
from aioregistry._protocol import Connect, Delete, Reply, Sync
from aioregistry._runtime import Endpoint, Runtime

from .attempts import AttemptOutcome, Attempts
from .connect_string import ConnectString
from .connection import Connection
from .machine import step
from .observers import Observers
from .patience import patience
from .pending import AGREED
from .reports import Reports
from .states import SERVING, SessionState
from .vocabulary import (
    Announce,
    CloseSession,
    Command,
    CredentialsRefused,
    Drop,
    Event,
    Handshake,
    Machine,
    Overdue,
    Phase,
    Prime,
    Probe,
    Probed,
    RollBack,
)
from .watch_table import WatchTable

__all__ = ["Driver"]

log = logging.getLogger("aioregistry.session")

# Absent or of another version: it fails either way, and any failure of a write tells the quorum's zxid.
_MUST_FAIL = Delete("/aioregistry-probe", version=0x7FFF_FFFF)


class Driver:
    """Has the machine, the connections that it speaks of, and its observers.

    Args:
        machine: how it begins.
        connect_string: the servers, and the path above everything.
        runtime: clocks, randomness, names and sockets.
        observers: the observers of the session's states.
        repeated: takes what can repeat.
    """

    def __init__(
        self,
        machine: Machine,
        connect_string: ConnectString,
        runtime: Runtime,
        observers: Observers,
        repeated: IncidentLog,
    ) -> None:
        self.machine = machine
        self.connect_string = connect_string
        self.runtime = runtime
        self.observers = observers
        self.repeated = repeated
        self.watched = WatchTable()
        self.attempts = Attempts()
        self.reports = Reports(
            self.attempts, observers.emit, repeated, lambda: self.name, self._remaining, self.runtime.wall
        )
        self.phase_changes = Notifier()
        self.connection: Connection | None = None
        """The one in use."""
        self.dialed: dict[int, Connection] = {}
        self.failure: RegistryError | None = None
        self.closed_id = 0
        self.news_since = 0
        """The zxid that watches are restored with."""
        self._probes_by_writing = False
        self._left = ("", "")
        """The server that the connection was lost to last, and why."""

    # ------------------------------------------------------------------ facts

    @property
    def timeout(self) -> float:
        """The session timeout in seconds, as negotiated; before that, as it will be asked for."""
        return self.machine.lifetime

    @property
    def name(self) -> str:
        """The session's id, as it is shown."""
        return session_name(self.machine.session_id)

    @property
    def server(self) -> Endpoint | None:
        """The server connected to."""
        return self.connection.endpoint if self.connection is not None else None

    def serves(self, connection: Connection) -> bool:
        """Whether requests can be sent on *connection*."""
        return self.connection is connection and self.machine.phase is Phase.SERVING

    def evidence_age(self) -> float:
        """Return the seconds since the sending of the last request that the quorum answered; infinite before the first.

        Measured on a clock that counts system sleep. A follower that was cut off from its leader still answers
        pings and reads; only a sync or a write passes through the leader.
        """
        evidence, connection = self.machine.evidence, self._teacher()
        if connection is not None and connection.evidence > evidence:
            evidence = connection.evidence
        return self.runtime.boot() - evidence

    def _remaining(self) -> float | None:
        """For how many seconds more the session lasts, if the quorum hears nothing of it; None without a session."""
        return self.timeout - self.evidence_age() if self.machine.session_id else None

    def learned(self) -> Machine:
        """Return the machine with the facts of the connection's replies so far."""
        machine, connection = self.machine, self._teacher()
        if connection is None:
            return machine
        known = 0 if connection.contradicted else machine.last_zxid  # it may have come from there
        return machine._replace(
            last_zxid=max(known, connection.last_zxid),
            evidence=max(machine.evidence, connection.evidence),
        )

    def _teacher(self) -> Connection | None:
        """The connection, if its zxids count."""
        # A probe's zxids are compared with ours, so they must not become ours before. A server without quorum has in
        # its log transactions that were never committed and may be undone.
        phase = self.machine.phase
        if phase is Phase.ASKING or phase is Phase.PROBING or self.machine.read_only:
            return None
        return self.connection

    def unavailable(self) -> RegistryError:
        """Return why no request can be sent."""
        if self.machine.state is SessionState.FAILED:
            failed = SessionFailed(f"the session failed: {self.failure}")
            failed.__cause__ = self.failure
            return failed
        if self.machine.state is SessionState.CLOSED:
            return SessionClosed("the session is closed")
        return ConnectionLost(f"no connection to {self.connect_string}", maybe_applied=False)

    # ------------------------------------------------------------------ events

    def step(self, event: Event) -> None:
        """Let *event* happen: move the machine, and carry out its commands at once."""
        before = self.machine.phase
        self.machine, commands = step(self.learned(), event)
        for command in commands:
            self._carry_out[type(command)](self, command)
        if self.machine.phase is not before:
            self.phase_changes.notify()

    def leave(self, connection: Connection, why: str, outcome: AttemptOutcome = AttemptOutcome.SILENT) -> None:
        """Give up a connection in use, for *why*."""
        self.note(connection.endpoint, outcome, why)
        self.step(Overdue(connection.number))

    def credentials_refused(self, connection: Connection, scheme: str, reason: str = "") -> bool:
        """End the session, because the server did not accept our credentials; return whether that was waited for."""
        if connection is not self.connection or self.machine.phase not in (Phase.PRIMING, Phase.PROBING):
            return False
        self.failure = AuthenticationFailed(scheme, str(connection.endpoint), reason)
        self.step(CredentialsRefused(connection.number))
        return True

    def note(self, endpoint: Endpoint, outcome: AttemptOutcome, reason: str) -> None:
        """Take note of how an attempt to connect to *endpoint* ended."""
        self.attempts.note(str(endpoint), outcome, reason, self.runtime.wall())

    async def outlasts(self, phases: Container[Phase], seconds: float) -> bool:
        """Wait for another phase than these; return whether *seconds* were over first."""
        with contextlib.suppress(TimeoutError):
            async with patience(max(seconds, 0.0)):
                while self.machine.phase in phases:
                    await self.phase_changes.wait()
        return self.machine.phase in phases

    async def probe(self, connection: Connection) -> None:
        """Ask a connection in PROBING the machine's question, and give it the answer; raises ConnectionLost."""
        write, sent = self._probes_by_writing, self.runtime.boot()
        agreed = True
        try:
            await connection.submit(_MUST_FAIL if write else Sync("/"))
        except ServerError as error:
            # A server that is overloaded, or wants credentials, answers by itself, with its own zxid or without one.
            agreed = write and isinstance(error, AGREED)
            if not agreed:
                wants = isinstance(error, SessionClosedRequireSASL)
                outcome = AttemptOutcome.UNAUTHENTICATED if wants else AttemptOutcome.FAILED
                self.note(connection.endpoint, outcome, f"accepted the session, then failed: {error}")
        zxid = connection.reached if agreed else -1
        self.step(Probed(connection.number, zxid, sent, self.runtime.boot(), write))

    # ------------------------------------------------------------------ commands

    def _handshake(self, command: Handshake) -> None:
        connection = self.connection = self.dialed[command.connection]
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
        connection = self.dialed.pop(command.connection)
        failed = self.unavailable() if self.machine.state is SessionState.FAILED else None
        attempt = self.attempts.get(str(connection.endpoint))
        if attempt is None or attempt.outcome in (AttemptOutcome.PENDING, AttemptOutcome.ACCEPTED):
            reason = "the session left it"  # nothing went wrong there
        else:
            reason = attempt.reason
        self._left = (str(connection.endpoint), reason)
        connection.drop(reason, failed)
        if connection is self.connection:
            self.connection = None
            self.watched.disconnected()

    def _close_session(self, command: CloseSession) -> None:
        closed = self.machine.session_id if self.machine.phase is Phase.CLOSING else 0  # else it is a probe's

        def answered(answer: asyncio.Future[Reply[Any]]) -> None:
            if closed and not answer.cancelled() and answer.exception() is None:
                self.closed_id = closed

        _ = self.dialed[command.connection].submit(CloseSessionMessage(), answered)

    def _prime_later(self, command: Prime) -> None:
        self.news_since = command.relative_zxid  # the task does it, by the machine's phase

    def _probe_later(self, command: Probe) -> None:
        self._probes_by_writing = command.write  # the task does it, by the machine's phase

    def _announce(self, command: Announce) -> None:
        state, session = command.state, session_name(command.session_id)
        if state is SessionState.SUSPENDED:
            self.reports.outage_begins(self.timeout)
            self.reports.suspended(session, *self._left)
        elif state in SERVING:
            servers = str(self.connect_string)
            self.reports.outage_is_over(state, session, self.server, timeout=self.timeout, servers=servers)
        elif state is SessionState.EXPIRED:
            self.reports.expired(session if command.session_id else "")  # a server without quorum grants no session
        else:
            self.reports.over(state, session, self.failure)
        self.observers.emit(
            "session.state",
            state=state.value,
            session=command.session_id,
            generation=self.machine.generation,
            attempts=self.attempts.words(),
        )
        self.observers.announce(state, self.failure)

    def _roll_back(self, command: RollBack) -> None:
        how = (
            "proven by a write to the quorum"
            if command.proven
            else "presumed, no server took the session for longer than it could live"
        )
        self.repeated.tell(
            "rollback",
            logging.ERROR,
            "the ensemble lost its history (%s): this process has seen transaction %#x, and the ensemble is at %#x; "
            "every instance is registered again, and every service read again; what to do: look into "
            "the servers' data directories",
            how,
            command.ours,
            command.theirs,
            session=self.name,
        )
        self.observers.emit("session.rollback", ours=command.ours, theirs=command.theirs, proven=command.proven)

    _carry_out: ClassVar[dict[type[Command], Callable[[Driver, Any], None]]] = {
        Handshake: _handshake,
        Drop: _drop,
        Prime: _prime_later,
        Probe: _probe_later,
        CloseSession: _close_session,
        RollBack: _roll_back,
        Announce: _announce,
    }
