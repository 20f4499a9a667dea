"""The server's answers with an error code: a class for each code."""

from __future__ import annotations

from typing import ClassVar, Final

from .calls import RegistryError
from .sessions import SessionError

__all__ = [
    "TRANSIENT",
    "APIError",
    "AuthFailed",
    "BadArguments",
    "BadVersion",
    "DataInconsistency",
    "EphemeralOnLocalSession",
    "InvalidACL",
    "InvalidCallback",
    "MarshallingError",
    "NewConfigNoQuorum",
    "NoAuth",
    "NoChildrenForEphemerals",
    "NoNode",
    "NoWatcher",
    "NodeExists",
    "NotEmpty",
    "NotReadOnly",
    "OperationTimeout",
    "QuotaExceeded",
    "ReconfigDisabled",
    "ReconfigInProgress",
    "RolledBack",
    "RuntimeInconsistency",
    "ServerConnectionLoss",
    "ServerError",
    "ServerSessionExpired",
    "SessionClosedRequireSASL",
    "SessionMoved",
    "SystemFault",
    "Throttled",
    "TransactionAborted",
    "Unimplemented",
    "UnknownServerError",
    "UnknownSession",
    "server_error",
]


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
    """The node's ACL does not allow the request."""

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
        "(give them as auth=[(scheme, secret)], or by --auth-file; digest or SASL, as it is configured)"
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
