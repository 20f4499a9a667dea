"""The errors of a session and of its connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .calls import RegistryError

__all__ = [
    "AuthenticationFailed",
    "ChrootMissing",
    "ConnectTimeout",
    "ConnectionLost",
    "PoisonRequest",
    "ProtocolError",
    "RequestTimeout",
    "SessionClosed",
    "SessionError",
    "SessionFailed",
    "UnsupportedServer",
    "attempts_told",
    "session_name",
    "with_attempts",
]

_TOLD: Final = 10


class SessionError(RegistryError):
    """Something happened to the session or its connection."""


class ConnectTimeout(SessionError, TimeoutError):
    """No server accepted a session in time.

    ``attempts`` maps each address that was tried to its last failure, in words, with how often that happened in a row;
    ``session.attempts`` has the same as fields.
    """

    def __init__(self, servers: str, timeout: float, attempts: dict[str, str]) -> None:
        super().__init__(servers, timeout, attempts)
        self.servers = servers
        self.timeout = timeout
        self.attempts = attempts

    def __str__(self) -> str:
        tried = attempts_told(self.attempts)
        return f"no ZooKeeper session on servers={self.servers!r} within timeout={self.timeout:g} s ({tried})"


class ConnectionLost(SessionError, ConnectionError):
    """The connection ended before the answer came, or there is no connection.

    ``maybe_applied`` is False where the request certainly changed nothing, because it was a read or never left this
    process; otherwise read the node to find out.
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

    The server closes the connection on it, or sends an answer that cannot be read. ``request`` names it and ``size`` is
    its length in bytes. ``seen`` is the request that the session knows this from: ``server`` closed ``connections``
    connections in a row on it, and ``reason`` is how the last one ended. ``limit`` is the fewest bytes that seem to be
    too many for the server's ``jute.maxbuffer``, None if its length does not seem to be the cause. ``retry_in`` is the
    number of seconds until the session sends such a request again; it sends a shorter one at once.
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
        """Return the error of a *request* that is not sent because of this error."""
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
    """No answer within the caller's own deadline; the session goes on.

    ``attempts`` maps each address to its answer, in words, if there was no connection; else it is empty.
    """

    def __init__(self, message: str = "", attempts: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.attempts: Mapping[str, str] = dict(attempts or {})

    def __str__(self) -> str:
        return with_attempts(self.message, self.attempts)


class SessionClosed(SessionError):
    """The session was closed by this process; it takes no further requests."""


class SessionFailed(SessionError):
    """The session cannot go on (wrong credentials, a defect of the supervisor); ``__cause__`` says why."""


class AuthenticationFailed(SessionError):
    """The server refused the credentials; trying again with the same ones is of no use.

    ``reason`` has more in words, but is mostly empty, because servers do not say more.
    """

    def __init__(self, scheme: str, server: str, reason: str = "") -> None:
        super().__init__(scheme, server, reason)
        self.scheme = scheme
        self.server = server
        self.reason = reason

    def __str__(self) -> str:
        refused = f"server {self.server} refused the credentials of scheme={self.scheme!r}"
        return f"{refused}: {self.reason}" if self.reason else refused


class ProtocolError(SessionError):
    """The received bytes are not ZooKeeper's protocol: another service, garbage, or a defect."""


class UnsupportedServer(SessionError):
    """The server does not know an operation that was asked for explicitly."""


class ChrootMissing(SessionError):
    """The chroot does not exist, and ``create_chroot=False`` was given."""

    def __init__(self, chroot: str) -> None:
        super().__init__(chroot)
        self.chroot = chroot

    def __str__(self) -> str:
        return f"chroot={self.chroot!r} does not exist and create_chroot=False"


def attempts_told(attempts: Mapping[str, str]) -> str:
    """Return the answers of the addresses as one line, of a bounded number of them."""
    shown = [f"{address}: {why}" for address, why in attempts.items()]
    more = [f"and {len(shown) - _TOLD} more"] if len(shown) > _TOLD else []
    return "; ".join(shown[:_TOLD] + more) or "no attempt was finished"


def with_attempts(message: str, attempts: Mapping[str, str]) -> str:
    """Return *message* with what keeps us from ZooKeeper, if there is something."""
    return f"{message}; no connection to ZooKeeper: {attempts_told(attempts)}" if attempts else message


def session_name(session_id: int) -> str:
    """Return a session id as ZooKeeper's own tools show it: the ids of servers numbered from 128 are negative."""
    return f"{session_id & 0xFFFF_FFFF_FFFF_FFFF:#x}"
