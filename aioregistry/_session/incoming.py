"""The input from a connection: its greeting, its answers by kind, events, and its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from aioregistry._bounds import doubts, granted
from aioregistry._errors import (
    AuthFailed,
    MarshallingError,
    NoNode,
    RegistryError,
    SessionClosedRequireSASL,
    SessionMoved,
    Throttled,
    Unimplemented,
    session_name,
)
from aioregistry._protocol import (
    SASL,
    AddWatch,
    Auth,
    ConnectReply,
    Exists,
    GetChildren,
    GetChildren2,
    GetData,
    RemoveWatches,
    SASLToken,
    SetWatches2,
    WatchedEvent,
    WatcherType,
)

from .attempts import AttemptOutcome
from .connection import Connection
from .driver import Driver
from .features import Features
from .pending import Pending
from .vocabulary import Accepted, Lost, Phase, Refused

__all__ = ["Incoming"]

log = logging.getLogger("aioregistry.session")


class Incoming:
    """The callbacks of every connection."""

    def __init__(self, driver: Driver, features: Features) -> None:
        self._driver, self._features = driver, features
        self._doubted = False
        """The doubts about the session timeout are in the log."""

    def greeted(self, connection: Connection, reply: ConnectReply, sent: float) -> None:
        """The server has answered the handshake, which was sent at *sent*."""
        driver, refused = self._driver, reply.session_id == 0 or reply.timeout_ms <= 0
        if reply.read_only:  # whatever else it says is its own invention
            driver.note(connection.endpoint, AttemptOutcome.NO_QUORUM, "has no quorum")
        elif refused:
            driver.note(connection.endpoint, AttemptOutcome.ENDED, "said that the session has ended")
        else:
            what = "accepted the session, and has not answered since"
            driver.attempts.begin(str(connection.endpoint), what, driver.runtime.wall())
        if refused:
            driver.step(Refused(connection.number, reply.read_only))
        else:
            told, asked = reply.timeout_ms / 1000, driver.machine.requested_timeout
            timeout = granted(told, asked)
            if timeout == told and driver.machine.phase is Phase.HANDSHAKING:
                self._doubt(connection, timeout)
            if timeout != told:
                driver.repeated.tell(
                    *("granted", logging.WARNING, "%s granted a session timeout of %g s: using %g s"),
                    *(connection.endpoint, told, timeout),
                    session=session_name(reply.session_id),
                )
            offered = driver.machine.session_id
            if offered and driver.machine.phase is Phase.HANDSHAKING and reply.session_id != offered:
                driver.repeated.tell(
                    "replaced", logging.WARNING,
                    "%s granted session %s instead of refusing or resuming ours, %s, which may own nodes until it ends",
                    connection.endpoint, session_name(reply.session_id), session_name(offered),
                    session=session_name(offered),
                )  # fmt: skip
            driver.step(Accepted(connection.number, reply.session_id, reply.password, timeout, reply.read_only, sent))

    def answered(self, connection: Connection, pending: Pending[Any], error: RegistryError | None) -> None:
        """Take note of an answer, before the waiter gets it: by its error, else by the operation."""
        request, observers = pending.request, self._driver.observers
        if observers.timers:
            observers.time(request.opcode, self._driver.runtime.boot() - pending.sent)
        note = self._errors.get(type(error))
        if note is not None and note(self, connection, request):
            return
        if error is None or isinstance(error, (Unimplemented, MarshallingError)):
            self._features.learned(connection.endpoint, request.opcode, known=error is None)
        take = self._answers.get(request.opcode)
        if take is not None and (error is None or isinstance(error, NoNode)):
            take(self, connection, request, error is None)

    def fired(self, event: WatchedEvent) -> None:
        """A node has changed."""
        for callback in self._driver.watched.fire(event):
            self._driver.observers.call(callback, event)

    def lost(self, connection: Connection) -> None:
        """A connection has ended by itself."""
        if connection.number in self._driver.dialed:
            self._driver.note(connection.endpoint, connection.outcome, connection.reason)
            self._driver.step(Lost(connection.number))

    def _doubt(self, connection: Connection, timeout: float) -> None:
        """Log the doubts about the session timeout, once."""
        if not self._doubted:
            self._doubted = True
            for doubt in doubts(timeout, self._driver.machine.requested_timeout):
                log.warning("%s: %s", connection.endpoint, doubt)

    def _refused_credentials(self, connection: Connection, request: Any) -> bool:
        # Here, not where the answer is awaited: the server closes the connection behind it, and the end may come in
        # the same callback.
        if isinstance(request, Auth):
            return self._driver.credentials_refused(connection, request.scheme)
        # A server that demands SASL answers a wrong password with -124, others with -115.
        return isinstance(request, SASLToken) and self._driver.credentials_refused(connection, SASL)

    def _throttled(self, connection: Connection, _request: Any) -> bool:
        why = "%s is overloaded and drops requests; they are sent again in a while"
        self._driver.repeated.tell("throttled", logging.WARNING, why, connection.endpoint, session=self._driver.name)
        return False

    def _moved(self, connection: Connection, _request: Any) -> bool:
        self._driver.leave(connection, "said that the session has moved to another server", AttemptOutcome.FAILED)
        return True

    def _read_answered(self, _connection: Connection, request: Any, found: bool) -> None:
        self._driver.watched.read_answered(request.opcode, request.path, watch=request.watch, found=found)

    def _tree_watched(self, connection: Connection, request: Any, found: bool) -> None:
        self._trees_armed(connection, [request.path] if found else [])

    def _watches_restored(self, connection: Connection, request: Any, found: bool) -> None:
        self._trees_armed(connection, request.persistent_recursive if found else [])

    def _trees_armed(self, connection: Connection, paths: Sequence[str]) -> None:
        for path in self._driver.watched.trees_armed(paths):
            _ = connection.submit(RemoveWatches(path, WatcherType.ANY))

    _errors: ClassVar[dict[type[RegistryError | None], Callable[[Incoming, Connection, Any], bool]]] = {
        AuthFailed: _refused_credentials,
        SessionClosedRequireSASL: _refused_credentials,
        Throttled: _throttled,
        SessionMoved: _moved,
    }
    """The handlers of errors about the session; True: nothing else follows from the answer."""

    _answers: ClassVar[dict[int, Callable[[Incoming, Connection, Any, bool], None]]] = {
        # By opcode: aiozk's requests come this way, too.
        **dict.fromkeys((GetData.opcode, Exists.opcode, GetChildren.opcode, GetChildren2.opcode), _read_answered),
        AddWatch.opcode: _tree_watched,
        SetWatches2.opcode: _watches_restored,
    }
    """The handlers of answers that concern watches: with a result, or without such a node."""
