"""The handling of a client's requests, once its connection has a session."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeAlias

from aioregistry.server import _acl as access
from aioregistry.server import _requests as requests
from aioregistry.server._acl import Identity
from aioregistry.server._codes import Code, Malformed, Opcode, Refused
from aioregistry.server._connection import Connection
from aioregistry.server._history import History, OperationFailed, Transaction
from aioregistry.server._operations import Caller
from aioregistry.server._reads import BODY, READS, Incomplete
from aioregistry.server._replica import Replica
from aioregistry.server._requests import Reader
from aioregistry.server._settings import Settings

THROTTLED: Final = -127
"""The answer of a server that has too much to do: not executed."""

_NEVER_THROTTLED = frozenset({Opcode.PING, Opcode.CLOSE_SESSION})

_HEAD = struct.Struct(">ii")

Decide: TypeAlias = Callable[[History], Transaction]
"""The effect of a write where transactions are made."""


class Server(Hashable, Protocol):
    """Where transactions are made; sessions are connected to it."""

    def propose(self, decide: Decide, done: Callable[[Transaction], None]) -> None:
        """Have a transaction made; *done* is called when it has been applied here."""

    def catch_up(self, done: Callable[[], None]) -> None:
        """Call *done* when all that is committed now has been applied here."""


@dataclass(frozen=True)
class _Fault:
    """A test's order for the next request of a kind."""

    delay: float = 0.0
    code: int = Code.OK
    lose_reply: bool = False


class Dispatcher:
    """Answers requests: reads from a replica, writes by transactions.

    Args:
        settings: of the server.
        replica: what reads see.
        server: makes transactions; sessions are connected to it.
    """

    def __init__(self, settings: Settings, replica: Replica, server: Server) -> None:
        self._settings = settings
        self._profile = settings.profile
        self._replica = replica
        self._server = server
        self._faults: dict[int, deque[_Fault]] = {}
        self.throttling = False

    # ------------------------------------------------------------ what tests want to happen

    def delay(self, opcode: int, seconds: float) -> None:
        self._faults.setdefault(opcode, deque()).append(_Fault(delay=seconds))

    def fail(self, opcode: int, code: int) -> None:
        self._faults.setdefault(opcode, deque()).append(_Fault(code=code))

    def lose_reply(self, opcode: int) -> None:
        self._faults.setdefault(opcode, deque()).append(_Fault(lose_reply=True))

    def forget_faults(self) -> None:
        """Let nothing happen to requests to come."""
        self._faults.clear()

    # ------------------------------------------------------------ requests

    def handle(self, connection: Connection, frame: bytes) -> None:
        """Take a connection's next request."""
        if len(frame) < BODY:
            connection.abort()
            return
        xid, opcode = _HEAD.unpack_from(frame)
        connection.last_xid, connection.last_opcode = xid, opcode
        if self.throttling and opcode not in _NEVER_THROTTLED:
            connection.reply(requests.reply(xid, self._replica.zxid, THROTTLED))
            return
        if self._faults and self._faults.get(opcode):
            self._disturb(self._faults[opcode].popleft(), connection, xid, opcode, frame)
        else:
            self._answer(connection, xid, opcode, frame)

    def _disturb(self, fault: _Fault, connection: Connection, xid: int, opcode: int, frame: bytes) -> None:
        if fault.code:
            connection.reply(requests.reply(xid, self._replica.zxid, fault.code))
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
        if opcode in self._profile.unknown or (read is None and opcode not in _OTHERS):
            connection.reply(requests.reply(xid, -1, Code.UNIMPLEMENTED))
            connection.finish()
        elif opcode in self._profile.forbidden:
            connection.close()
        elif read is not None:
            self._read(read, connection, xid, frame)
        else:
            _OTHERS[opcode](self, connection, xid, opcode, frame)

    def _read(
        self, read: Callable[[Replica, Connection, bytes], bytes], connection: Connection, xid: int, frame: bytes
    ) -> None:
        code, body = Code.OK, b""
        try:
            body = read(self._replica, connection, frame)
        except Refused as refusal:
            code = Code(refusal.code)
        except Incomplete as failure:
            code, body = Code.MARSHALLING_ERROR, failure.body
        except (Malformed, struct.error):
            code = Code.MARSHALLING_ERROR
        connection.reply(requests.reply(xid, self._replica.zxid, code, body))

    # ------------------------------------------------------------ requests that are neither reads nor writes

    def _ping(self, connection: Connection, _: int, __: int, ___: bytes) -> None:
        connection.reply(requests.reply(requests.PING_XID, self._replica.zxid, Code.OK))

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
            above = [Identity("super", "")] if identity.id == self._settings.super_digest else []
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
        self._server.catch_up(partial(self._synced, connection, xid, frame))

    def _synced(self, connection: Connection, xid: int, frame: bytes) -> None:
        self._read(_sync_reply, connection, xid, frame)
        connection.done()

    # ------------------------------------------------------------ writes

    def _write(self, connection: Connection, xid: int, opcode: int, frame: bytes) -> None:
        caller = Caller(connection.session_id, connection.identities)
        try:
            operation = requests.read_write(frame, BODY, opcode, self._profile)
        except (Malformed, struct.error):
            if self._profile.reads_first:
                self._unreadable(connection, xid)
                return
            decide: Decide = partial(History.fail, code=Code.MARSHALLING_ERROR)
        else:
            decide = partial(History.write, caller=caller, operation=operation, via=self._server)
        self._propose(connection, xid, decide, partial(_written, opcode))

    def _write_all(self, connection: Connection, xid: int, _: int, frame: bytes) -> None:
        caller = Caller(connection.session_id, connection.identities)
        try:
            parsed = requests.read_operations(frame, BODY, self._profile)
            operations = [requests.as_in_transactions(operation, self._profile) for operation in parsed]
        except (Malformed, struct.error):
            decide: Decide = partial(History.fail, code=Code.MARSHALLING_ERROR)
            operations = []
        else:
            decide = partial(History.write_all, caller=caller, operations=operations, via=self._server)
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
        connection.reply(requests.reply(xid, self._replica.zxid, Code.MARSHALLING_ERROR))

    def _propose(
        self, connection: Connection, xid: int, decide: Decide, body: Callable[[Transaction], bytes | None]
    ) -> None:
        connection.wait()
        self._server.propose(decide, partial(self._decided, connection, xid, body))

    def _decided(
        self, connection: Connection, xid: int, body: Callable[[Transaction], bytes | None], transaction: Transaction
    ) -> None:
        if transaction.code == Code.SESSION_MOVED:
            connection.close()
            return
        content = body(transaction) if transaction.code == Code.OK else b""
        if content is not None:
            connection.reply(requests.reply(xid, self._replica.zxid, transaction.code, content))
        connection.done()

    def _close_session(self, connection: Connection, xid: int, _: int, __: bytes) -> None:
        connection.wait()
        connection.leaving = True
        decide = partial(History.end_session, session_id=connection.session_id)
        self._server.propose(decide, partial(self._left, connection, xid))

    def _left(self, connection: Connection, xid: int, transaction: Transaction) -> None:
        if not connection.closed:
            connection.reply(requests.reply(xid, transaction.zxid, Code.OK))
            connection.close()


def _sync_reply(_: Replica, __: Connection, frame: bytes) -> bytes:
    return requests.string(Reader(frame, BODY).string())


def _written(opcode: int, transaction: Transaction) -> bytes | None:
    if opcode == Opcode.CHECK:
        return None  # the real server fails to write the reply, for there is no Stat to put in
    (result,) = transaction.results
    assert not isinstance(result, OperationFailed)
    return requests.written(opcode, result)


def _nothing(_: Transaction) -> bytes:
    return b""


_OTHERS: dict[int, Callable[[Dispatcher, Connection, int, int, bytes], None]] = {
    Opcode.PING: Dispatcher._ping,
    Opcode.AUTH: Dispatcher._auth,
    Opcode.SASL: Dispatcher._sasl,
    Opcode.SYNC: Dispatcher._sync,
    Opcode.MULTI: Dispatcher._write_all,
    Opcode.RECONFIG: Dispatcher._reconfigure,
    Opcode.CLOSE_SESSION: Dispatcher._close_session,
    **dict.fromkeys(requests.WRITES, Dispatcher._write),
}
