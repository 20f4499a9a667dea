"""Who failed, and what is known.

Every exception of aioregistry is a :class:`RegistryError`. Three questions decide the class: did the *caller* err
(:class:`InvalidArgument`, :class:`UsageError`), did the *server* answer with an error code (:class:`ServerError`
and one subclass per code of ZooKeeper's ``KeeperException.Code``), or did something happen to the *connection,
session or registration* in between.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import ClassVar, Final

from . import _foreign as foreign

__all__ = [
    "TRANSIENT",
    "APIError",
    "AuthFailed",
    "AuthenticationFailed",
    "BadArguments",
    "BadVersion",
    "ChrootMissing",
    "ConnectTimeout",
    "ConnectionLost",
    "DataInconsistency",
    "EphemeralOnLocalSession",
    "HandleClosed",
    "InvalidACL",
    "InvalidArgument",
    "InvalidCallback",
    "InvalidInstance",
    "InvalidType",
    "MarshallingError",
    "NewConfigNoQuorum",
    "NoAuth",
    "NoChildrenForEphemerals",
    "NoInstances",
    "NoNode",
    "NoWatcher",
    "NodeExists",
    "NodeNotEphemeral",
    "NotEmpty",
    "NotReadOnly",
    "OperationTimeout",
    "PoisonRequest",
    "ProtocolError",
    "QuotaExceeded",
    "ReconfigDisabled",
    "ReconfigInProgress",
    "RegistrationConflict",
    "RegistrationDisplaced",
    "RegistrationError",
    "RegistryError",
    "RequestTimeout",
    "RequestTooLarge",
    "RolledBack",
    "RuntimeInconsistency",
    "ServerConnectionLoss",
    "ServerError",
    "ServerSessionExpired",
    "SessionClosed",
    "SessionClosedRequireSASL",
    "SessionError",
    "SessionFailed",
    "SessionMoved",
    "SystemFault",
    "Throttled",
    "TransactionAborted",
    "Unimplemented",
    "UnknownServerError",
    "UnknownSession",
    "UnsupportedServer",
    "UsageError",
    "server_error",
    "session_name",
    "wrong_argument",
]


class RegistryError(Exception):
    """Base of every exception that aioregistry raises on purpose."""


# ---------------------------------------------------------------- the caller

# What was given may be a megabyte, nested without end, or an object whose repr fails: an error stays a line in a log.
_REPR = reprlib.Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 200


def _shown(value: object) -> str:
    try:
        return foreign.call(_REPR.repr, value)
    except foreign.ForeignError:
        return f"<{type(value).__name__}>"


class InvalidArgument(RegistryError, ValueError):
    """An argument is wrong; nothing was done.

    ``field`` names the argument and ``value`` is what was given (a credential is never shown).
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(field, value, reason)
        self.field = field
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}={_shown(self.value)}: {self.reason}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class InvalidType(InvalidArgument, TypeError):
    """An argument is of a type that it cannot have."""


def wrong_argument(field: str, value: object, reason: str, *types: type) -> InvalidArgument:
    """Return the error for a *value* that is wrong: an :class:`InvalidType` unless it is one of *types*.

    A bool is no number here, though Python counts it as one.
    """
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    return (InvalidArgument if fits else InvalidType)(field, value, reason)


class RequestTooLarge(InvalidArgument):
    """The request would exceed the server's ``jute.maxbuffer``, which closes the connection of whoever sends it."""

    def __init__(self, field: str, size: int, limit: int) -> None:
        super().__init__(field, f"<{size} bytes>", f"the request would take {size} bytes, jute.maxbuffer is {limit}")
        self.size = size
        self.limit = limit


class UsageError(RegistryError, RuntimeError):
    """A handle was used before it was entered, twice, from another event loop or thread, or after a fork."""


class HandleClosed(UsageError):
    """The handle was used after it was closed."""


# ---------------------------------------------------------------- the session and its connections


class SessionError(RegistryError):
    """Something happened to the session or its connection."""


class ConnectTimeout(SessionError, TimeoutError):
    """No server accepted a session in time.

    ``attempts`` maps each address that was tried to the last thing that went wrong there, in words, with how often that
    happened in a row; ``session.attempts`` has the same as fields.
    """

    def __init__(self, servers: str, timeout: float, attempts: dict[str, str]) -> None:
        super().__init__(servers, timeout, attempts)
        self.servers = servers
        self.timeout = timeout
        self.attempts = attempts

    def __str__(self) -> str:
        tried = "; ".join(f"{address}: {why}" for address, why in self.attempts.items()) or "no attempt was finished"
        return f"no ZooKeeper session on servers={self.servers!r} within timeout={self.timeout:g} s ({tried})"


class ConnectionLost(SessionError, ConnectionError):
    """The connection ended before the answer came, or there is no connection.

    ``maybe_applied`` is False where the request certainly changed nothing, because it was a read or never left this
    process; otherwise whoever wrote has to look again.
    """

    def __init__(self, message: str, *, maybe_applied: bool) -> None:
        super().__init__(message, maybe_applied)
        self.message = message
        self.maybe_applied = maybe_applied

    def __str__(self) -> str:
        known = "the request may have been applied" if self.maybe_applied else "the request changed nothing"
        return f"{self.message}; {known}"


class PoisonRequest(SessionError):
    """A request costs the connection whenever it is sent, so it is not sent again for a while.

    The server closes the connection on it, or answers what cannot be read. ``request`` names it and ``size`` is its
    length in bytes. What is known of it is from the request ``seen`` to do that: ``server`` closed ``connections``
    connections in a row on it, ``reason`` is how the last one ended. ``limit`` is the fewest bytes that seem to be too
    many for the server's ``jute.maxbuffer``, None where its length does not seem to be the cause. ``retry_in`` is the
    number of seconds until the request is sent again if somebody asks for it; a shorter one is sent at once.
    """

    def __init__(
        self,
        request: str,
        size: int,
        server: str,
        *,
        connections: int,
        reason: str,
        largest_answered: int,
        limit: int | None,
        retry_in: float,
    ) -> None:
        super().__init__(request, size, server)
        self.request = request
        self.size = size
        self.server = server
        self.connections = connections
        self.reason = reason
        self.largest_answered = largest_answered
        self.limit = limit
        self.retry_in = retry_in
        self.seen = request

    def unsent(self, request: str, size: int, retry_in: float) -> PoisonRequest:
        """Return the error of a *request* that is not sent because of what is known from this one."""
        error = PoisonRequest(
            request,
            size,
            self.server,
            connections=self.connections,
            reason=self.reason,
            largest_answered=self.largest_answered,
            limit=self.limit,
            retry_in=retry_in,
        )
        error.seen = self.seen
        return error

    def __str__(self) -> str:
        sent = "it" if self.seen == self.request else f"a request like it ({self.seen})"
        times = "time" if self.connections == 1 else "times in a row"
        told = f"{self.request} of {self.size} bytes: {sent} cost the connection to {self.server}"
        told += f" {self.connections} {times} ({self.reason})"
        if self.limit is not None:
            told += (
                f"; the server's jute.maxbuffer seems to be below {self.limit} bytes, it answered requests of up to"
                f" {self.largest_answered}"
            )
        return f"{told}; the request is not sent for the next {self.retry_in:.3g} s"


class RequestTimeout(SessionError, TimeoutError):
    """No answer within the caller's own deadline; the session goes on."""


class SessionClosed(SessionError):
    """The session was closed by this process; it takes no further requests."""


class SessionFailed(SessionError):
    """The session cannot go on (wrong credentials, a defect of the supervisor); ``__cause__`` says why."""


class AuthenticationFailed(SessionError):
    """The server refused the credentials; trying again with the same ones is of no use."""

    def __init__(self, scheme: str, server: str) -> None:
        super().__init__(scheme, server)
        self.scheme = scheme
        self.server = server

    def __str__(self) -> str:
        return f"server {self.server} refused the credentials of scheme={self.scheme!r}"


class ProtocolError(SessionError):
    """What came is no ZooKeeper protocol: another service, garbage, or a defect."""


class UnsupportedServer(SessionError):
    """The server does not know an operation that was asked for explicitly."""


class ChrootMissing(SessionError):
    """The chroot does not exist, and ``create_chroot=False`` was given."""

    def __init__(self, chroot: str) -> None:
        super().__init__(chroot)
        self.chroot = chroot

    def __str__(self) -> str:
        return f"chroot={self.chroot!r} does not exist and create_chroot=False"


# ---------------------------------------------------------------- registrations and instances


class RegistrationError(RegistryError):
    """A registration ended for good; ``path`` is its node."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class RegistrationDisplaced(RegistrationError):
    """A newer claimant took the id; ``owner`` is its session."""

    def __init__(self, path: str, owner: int) -> None:
        super().__init__(path, f"displaced by session {session_name(owner)}, which claimed this id later")
        self.owner = owner


class RegistrationConflict(RegistrationError):
    """``on_conflict="fail"`` and the id is taken by another session: a live owner, or a ghost within its timeout."""

    def __init__(self, path: str, owner: int) -> None:
        super().__init__(
            path,
            f"already held by session {session_name(owner)} (a live owner, or a ghost until its session times out)",
        )
        self.owner = owner


class NodeNotEphemeral(RegistrationError):
    """A node that no session owns is in the way; it is left alone, because a person or another program made it."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "a node that is not ephemeral is in the way; remove it, or register another id")


class InvalidInstance(RegistryError, ValueError):
    """A node's data is no service instance; ``reason`` says what is wrong with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoInstances(RegistryError, LookupError):
    """There is no instance to pick, and why.

    ``counts`` tells how many there are of each kind that is not picked: ``"disabled"``, ``"failing"`` (its own checks
    say so, and there is no panic), ``"out of service"`` (Spring Cloud's ``instance_status`` says so),
    ``"filtered out"``, ``"refused"`` (its weight is no number, say), ``"of weight 0"``, ``"suspect"`` (not listed any
    more, and suspects are not wanted), ``"set aside"`` (it failed; or it is back, and a call finds out whether it is
    well), ``"excluded"`` (from this pick, by its caller). ``reason`` is the single cause if all instances share one,
    ``"empty"`` if the service has no instance, otherwise ``"mixed"``. ``returns_in`` is the seconds until the first
    of those that are set aside may be picked again, None where no instance is set aside.
    """

    def __init__(self, service: str, counts: Mapping[str, int], returns_in: float | None = None) -> None:
        super().__init__(service, dict(counts), returns_in)
        self.service = service
        self.counts: dict[str, int] = dict(counts)
        self.returns_in = returns_in

    @property
    def reason(self) -> str:
        """Why, in a word or two."""
        return "mixed" if len(self.counts) > 1 else next(iter(self.counts), "empty")

    def __str__(self) -> str:
        total = sum(self.counts.values())
        everybody = f"all {total} are" if total > 1 else "the only one is"
        kinds = ", ".join(f"{number} are {kind}" for kind, number in self.counts.items())
        why = {"empty": "the service is empty", "mixed": f"of {total} instances {kinds}"}
        shown = why.get(self.reason, f"{everybody} {self.reason}")
        first = "" if self.returns_in is None else f", the first for {max(self.returns_in, 0):.1f} s"
        return f"no instance of {self.service!r} can be picked: {shown}{first}"


# ---------------------------------------------------------------- the server's answers


class ServerError(RegistryError):
    """The server answered with an error code.

    ``code`` is ZooKeeper's (``KeeperException.Code``), ``path`` the node asked about, ``zxid`` the one in the
    reply's header (-1: there is no zxid).
    """

    code: ClassVar[int]
    meaning: ClassVar[str]

    def __init__(self, path: str | None = None, zxid: int = -1) -> None:
        super().__init__(path, zxid)
        self.path = path
        self.zxid = zxid

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.meaning} ({self.code})"


class UnknownServerError(ServerError):
    """An error code that this version does not know."""

    code = -2147483648
    meaning = "unknown error code"

    def __init__(self, path: str | None = None, zxid: int = -1, number: int = 0) -> None:
        super().__init__(path, zxid)
        self.number = number

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}unknown error code ({self.number})"


class RolledBack(ServerError):
    """This operation of a transaction would have succeeded, but another one failed."""

    code = 0
    meaning = "rolled back with its transaction"


class SystemFault(ServerError):
    """The server failed inside."""

    code = -1
    meaning = "system error"


class RuntimeInconsistency(ServerError):
    """An operation of a transaction behind the one that failed."""

    code = -2
    meaning = "not executed, an earlier operation of the transaction failed"


class DataInconsistency(ServerError):
    """The server found its data inconsistent."""

    code = -3
    meaning = "data inconsistency"


class ServerConnectionLoss(ServerError):
    """The server itself lost a connection while answering."""

    code = -4
    meaning = "connection loss inside the server"


class MarshallingError(ServerError):
    """The server could not read the request, or refuses an operation in this place."""

    code = -5
    meaning = "marshalling error"


class Unimplemented(ServerError):
    """The server does not know the operation; most versions close the connection with it."""

    code = -6
    meaning = "operation unimplemented"


class OperationTimeout(ServerError):
    """The operation timed out inside the server."""

    code = -7
    meaning = "operation timed out inside the server"


class BadArguments(ServerError):
    """The server found an argument invalid."""

    code = -8
    meaning = "bad arguments"


class UnknownSession(ServerError):
    """The server does not know the session."""

    code = -12
    meaning = "unknown session"


class NewConfigNoQuorum(ServerError):
    """No quorum of the new configuration is connected."""

    code = -13
    meaning = "no quorum of the new configuration is connected"


class ReconfigInProgress(ServerError):
    """Another reconfiguration is in progress."""

    code = -14
    meaning = "another reconfiguration is in progress"


class APIError(ServerError):
    """An API error of the server's."""

    code = -100
    meaning = "API error"


class NoNode(ServerError):
    """There is no such node: the only proof of absence."""

    code = -101
    meaning = "no node"


class NoAuth(ServerError):
    """The node's ACL does not allow it."""

    code = -102
    meaning = "not authorised by the node's ACL"


class BadVersion(ServerError):
    """The node has another version."""

    code = -103
    meaning = "version conflict"


class NoChildrenForEphemerals(ServerError):
    """The parent is an ephemeral node, which can have no children."""

    code = -108
    meaning = "ephemeral nodes have no children"


class NodeExists(ServerError):
    """The node exists already."""

    code = -110
    meaning = "node exists"


class NotEmpty(ServerError):
    """The node has children."""

    code = -111
    meaning = "node has children"


class ServerSessionExpired(ServerError, SessionError):
    """The server says so inside a reply; the session machine hears of it by the connection's end."""

    code = -112
    meaning = "session expired"


class InvalidCallback(ServerError):
    """An invalid callback."""

    code = -113
    meaning = "invalid callback"


class InvalidACL(ServerError):
    """The ACL is not valid."""

    code = -114
    meaning = "invalid ACL"


class AuthFailed(ServerError):
    """The server refused credentials; the session fails with :class:`AuthenticationFailed`."""

    code = -115
    meaning = "authentication failed"


class SessionMoved(ServerError):
    """The session moved to another connection."""

    code = -118
    meaning = "session moved to another server"


class NotReadOnly(ServerError):
    """A write was sent to a read-only server."""

    code = -119
    meaning = "state-changing request on a read-only server"


class EphemeralOnLocalSession(ServerError):
    """Local sessions cannot own ephemeral nodes until upgraded."""

    code = -120
    meaning = "ephemeral node on a local session"


class NoWatcher(ServerError):
    """No such watch is set."""

    code = -121
    meaning = "no such watch"


class ReconfigDisabled(ServerError):
    """Reconfiguration is disabled."""

    code = -123
    meaning = "reconfiguration is disabled"


class SessionClosedRequireSASL(ServerError):
    """The server demands authentication: by SASL, or by one of the schemes that it enforces, digest among them."""

    code = -124
    meaning = (
        "session closed: the server enforces authentication, and got no credentials of a scheme that it accepts "
        "(give them as auth=[(scheme, secret)]; digest or SASL, as it is configured)"
    )


class QuotaExceeded(ServerError):
    """A quota is exhausted."""

    code = -125
    meaning = "quota exceeded"


class Throttled(ServerError):
    """The server is overloaded and dropped the request unprocessed."""

    code = -127
    meaning = "operation throttled: the server is overloaded"


class TransactionAborted(ServerError):
    """A transaction failed; ``index`` is the operation that failed and ``cause`` its error."""

    code = -2
    meaning = "transaction aborted"

    def __init__(self, index: int, cause: ServerError, zxid: int = -1) -> None:
        super().__init__(cause.path, zxid)
        self.index = index
        self.cause = cause

    def __str__(self) -> str:
        return f"transaction aborted by operation {self.index}: {self.cause}"


TRANSIENT: Final = (Throttled, OperationTimeout, ServerConnectionLoss)
"""Errors that say nothing but that the server could not do it just then. Of these only Throttled says of a write that
it was not executed (ZOOKEEPER-3683: ask again)."""

_NOT_BY_CODE = {UnknownServerError, TransactionAborted}
_BY_CODE: dict[int, type[ServerError]] = {
    error.code: error for error in ServerError.__subclasses__() if error not in _NOT_BY_CODE
}


def server_error(code: int, path: str | None = None, zxid: int = -1) -> ServerError:
    """Return the exception for an error *code* of ZooKeeper's; an unknown code gives :class:`UnknownServerError`."""
    known = _BY_CODE.get(code)
    if known is None:
        return UnknownServerError(path, zxid, code)
    return known(path, zxid)


def session_name(session_id: int) -> str:
    """Return a session id as ZooKeeper's own tools show it: the ids of servers numbered from 128 are negative."""
    return f"{session_id & 0xFFFF_FFFF_FFFF_FFFF:#x}"
