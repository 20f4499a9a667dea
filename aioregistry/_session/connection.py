"""One connection to one server: requests out in one write a tick, replies matched in order."""

# Longer than 450 lines: every method touches the same queues, and what ends a connection must find them all as one.

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import chain, islice
from typing import Any, TypeVar, cast

from aiozk.protocol.request import Request

from aioregistry import _foreign as foreign
from aioregistry._bounds import zxid_doubt
from aioregistry._errors import ConnectionLost, PoisonRequest, ProtocolError, RegistryError, RequestTooLarge
from aioregistry._incident_log import IncidentLog
from aioregistry._protocol import (
    AUTH_XID,
    NOTIFICATION_XID,
    PING_XID,
    WRITE_OPCODES,
    Connect,
    ConnectReply,
    Exists,
    FrameDecoder,
    Header,
    Reply,
    Sync,
    WatchedEvent,
    decode_event,
    decode_header,
    decode_reply,
    join_frames,
)
from aioregistry._reasons import reason_of
from aioregistry._runtime import Endpoint, Runtime
from aioregistry._secrets import Secret

from .attempts import AttemptOutcome
from .isolation import Isolation, Sent
from .pending import BARRIER, Answered, HeldRequest, Pending, fail, is_evidence, passing

__all__ = ["Connection"]

log = logging.getLogger("aioregistry.session")

T = TypeVar("T")

# A ConnectReply takes 41 bytes: a server that answers with more before that is not a ZooKeeper.
_MAX_HANDSHAKE_FRAME = 4096
# Replies are bounded by the size of the tree, not by jute.maxbuffer: the children of one node may be many. Beyond
# this it is garbage.
_MAX_FRAME = 256 * 1024 * 1024
_MAX_XID = 0x7FFF_FFFF
# The lower half of a zxid counts the transactions of an epoch, from one on.
_COUNTER = 0xFFFF_FFFF


class Connection(asyncio.Protocol):
    """Speaks the protocol on one transport; knows nothing of sessions.

    ``last_zxid`` is the highest transaction in any reply's header, ``reached`` the highest number, be it a transaction
    or the beginning of an epoch; ``evidence`` (boot clock) is the sending of the last request that the quorum answered.
    The callbacks are called synchronously from the transport, and never after :meth:`drop`.
    """

    def __init__(
        self,
        number: int,
        endpoint: Endpoint,
        runtime: Runtime,
        *,
        max_request: int,
        repeated: IncidentLog,
        on_greeting: Callable[[Connection, ConnectReply, float], None],
        on_event: Callable[[WatchedEvent], None],
        on_answer: Callable[[Connection, Pending[Any], RegistryError | None], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.endpoint = endpoint
        self._server = str(endpoint)
        self.last_zxid = self.reached = 0
        self.contradicted = False
        """An answer took back the zxid of an earlier one. ``last_zxid`` is then the certain one, and may be lower."""
        self._replied = 0
        """The highest zxid of an answer in the requests' order. One that passes them may be ahead of the next."""
        self.evidence = float("-inf")
        self.took = 0.0
        """Seconds that TCP and TLS took, for the caller, which gives the attempt a deadline."""
        self.authenticated = False
        """Credentials were presented, and accepted."""
        self.closed = False
        self.reason = ""
        """Why it ended, in words, for error reports."""
        self.outcome = AttemptOutcome.CLOSED
        """How it ended, where it did."""
        self._runtime = runtime
        self._max_request, self._repeated = max_request, repeated
        self._on_greeting, self._on_event, self._on_answer, self._on_lost = on_greeting, on_event, on_answer, on_lost
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(_MAX_HANDSHAKE_FRAME)
        self._connect: tuple[Connect, float] | None = None
        self._greeted = False
        self._xid = 0
        self._pending: deque[Pending[Any]] = deque()
        # The server answers these under xids of their own, and credentials past the requests in its pipeline.
        self._aside: dict[int, deque[Pending[Any]]] = {AUTH_XID: deque(), PING_XID: deque()}
        self._outgoing: list[bytes] = []
        self._sends_secret = False
        """There is a secret among the requests to send."""
        self._unsent = 0
        """How many of the last in _pending are still in _outgoing."""
        self._receiving = False
        # Suspects are sent apart from all others, in the order of submission; see isolation.py.
        self._isolation: Isolation | None = None
        self._largest = 0
        """Bytes of the largest request that was answered while nothing was suspected."""
        self._on_poison: Callable[[PoisonRequest], None] | None = None
        self._held: deque[HeldRequest] = deque()
        self._apart = 0
        """How many were sent apart, since nothing was in flight."""
        self._proven = self._proven_by_quorum = False
        """Something was answered; something that the quorum was asked for."""
        self._judged = False
        self._convicted: dict[int, PoisonRequest] = {}
        """By their place in _pending, those to blame for the end."""

    # ------------------------------------------------------------------ sending

    def greet(self, message: Connect) -> None:
        """Send the handshake; the answer goes to ``on_greeting``."""
        self._connect = (message, self._runtime.boot())
        self._send(message.serialize())

    def isolate(self, isolation: Isolation, on_poison: Callable[[PoisonRequest], None]) -> None:
        """From now on send suspects apart, and let *isolation* learn from the end; convicted requests fail."""
        self._isolation, self._on_poison = isolation, on_poison

    def submit(self, request: Request, answered: Answered | None = None) -> asyncio.Future[Reply[Any]]:
        """Send *request* with this tick's others, and return its answer's future.

        *answered* is called with it: by the callback that brings the answer, which saves a turn of the loop, or by the
        loop soon after the connection was lost, when its owner knows of that.
        """
        future: asyncio.Future[Reply[Any]] = asyncio.get_running_loop().create_future()
        if self.closed:
            fail(future, self._lost(maybe_applied=False), answered)
            return future
        xid = self._next_xid(request)
        try:
            payload = foreign.call(request.serialize, xid)
        except foreign.ForeignError as failure:
            refused = ProtocolError(f"{type(request).__name__} cannot be sent: its content cannot be written as bytes")
            refused.__cause__ = failure.error
            fail(future, refused, answered)
            return future
        if len(payload) > self._max_request:
            subject = getattr(request, "subject", type(request).__name__)
            fail(future, RequestTooLarge(subject, len(payload), self._max_request), answered)
            return future
        pending = Pending(request, xid, future, self._runtime.boot(), answered, len(payload))
        if xid in self._aside:
            self._aside[xid].append(pending)
            self._send(payload)
            return future
        apart = False
        if self._isolation is not None and self._isolation.suspects:
            if isinstance(request, Sync) and self._isolation.excludes(
                Sync.opcode, self._server, self._runtime.monotonic()
            ):
                _ = self.submit(BARRIER, passing(future, request, answered))
                return future
            try:
                apart = self._isolation.apart(Sent(request, len(payload)), self._server, self._runtime.monotonic())
            except PoisonRequest as error:
                fail(future, error, answered)
                return future
        if apart or self._held or self._apart:
            self._held.append(HeldRequest(pending, payload, apart))
            self._release_held()
        else:
            self._queue(pending, payload)
        return future

    def _queue(self, pending: Pending[Any], payload: bytes) -> None:
        self._pending.append(pending)
        self._unsent += 1
        self._send(payload)

    def _release_held(self) -> None:
        """Send the held requests that need not wait any more."""
        isolation = self._isolation
        assert isolation is not None, "requests are held only by it"
        if self._apart and not self._pending:
            self._apart = 0
            isolation.survived()
        while self._held and not self.closed:
            pending, payload, apart = self._held[0]
            if self._pending and apart != bool(self._apart):
                return
            if apart:
                if self._apart >= isolation.window:
                    return
                if not self._pending and not self._is_proven(pending.request):
                    self._ask_for_proof(pending.request)
                    return
                self._apart += 1
            self._held.popleft()
            self._queue(pending._replace(sent=self._runtime.boot()), payload)

    def _is_proven(self, request: Any) -> bool:
        """Whether the connection has answered a request that needed the quorum if *request* does, else any request."""
        return self._proven_by_quorum if self._asks_quorum(request) else self._proven

    def _asks_quorum(self, request: Any) -> bool:
        assert self._isolation is not None
        return request.opcode in WRITE_OPCODES and not self._isolation.has_convicted(Sync.opcode, self._server)

    def _ask_for_proof(self, request: Any) -> None:
        """Ask what any server answers: a connection that ends with this tells nothing of what would have come next."""
        proof = Sync("/") if self._asks_quorum(request) else Exists("/")
        xid = self._next_xid(proof)
        payload = proof.serialize(xid)
        future: asyncio.Future[Reply[Any]] = asyncio.get_running_loop().create_future()
        self._queue(Pending(proof, xid, future, self._runtime.boot(), None, len(payload)), payload)

    def _next_xid(self, request: Any) -> int:
        if request.special_xid in self._aside:
            return int(request.special_xid)
        self._xid = self._xid % _MAX_XID + 1
        return self._xid

    def _send(self, payload: bytes) -> None:
        if not self._outgoing and not self._receiving:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(payload)
        self._sends_secret = self._sends_secret or type(payload) is Secret

    def _flush(self) -> None:
        outgoing, self._outgoing, self._unsent = self._outgoing, [], 0
        secret, self._sends_secret = self._sends_secret, False
        if outgoing and self._transport is not None and not self.closed:
            joined = join_frames(outgoing)
            self._transport.write(Secret(joined) if secret else joined)

    # ------------------------------------------------------------------ the transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not have this type

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        if not self._greeted:  # the answer has the session's password in it
            data = Secret(data)
        self._receiving = True  # what the answers lead to leaves in one write behind them, without a turn of the loop
        try:
            for frame in self._decoder.feed(data) if self._greeted else map(Secret, self._decoder.feed(data)):
                self._received(frame)
                if self.closed:
                    return
        except ProtocolError as error:
            self.outcome = AttemptOutcome.FOREIGN
            self._abandon(str(error))
        except Exception as defect:
            log.exception("a message of %s could not be processed: leaving it", self.endpoint)
            self._abandon(f"a defect of aioregistry: {type(defect).__name__}")
        finally:
            self._receiving = False
            self._flush()

    def eof_received(self) -> None:
        # Not left to the transport, which first waits until everything is written, to a peer that may have stopped
        # reading.
        self._abandon("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._abandon(f"the connection broke: {reason_of(exc)}" if exc else "the server closed the connection")

    # ------------------------------------------------------------------ receiving

    def _received(self, frame: bytes) -> None:
        if not self._greeted:
            self._greeting_received(frame)
            return
        header = decode_header(frame)
        if header.zxid != self.reached:
            self._judge_zxid(header)
        if header.zxid > self.reached:
            self.reached = header.zxid
            # A leader that has begun an epoch counts from nothing and says so; its followers tell the last transaction.
            # A client that offered them the epoch's beginning as seen would be refused as ahead of them, or take them
            # for put back, until somebody writes.
            if header.zxid & _COUNTER:
                self.last_zxid = header.zxid
        if header.xid == NOTIFICATION_XID:
            self._on_event(decode_event(frame))
        else:
            if header.xid > 0:
                self._replied = max(self._replied, header.zxid)
            self._reply_received(frame, header.xid)

    def _judge_zxid(self, header: Header) -> None:
        """Raise ProtocolError where no server can mean the zxid, or one of two that came was not meant."""
        zxid, event = header.zxid, header.xid == NOTIFICATION_XID
        doubt = zxid_doubt(zxid, self.reached, failed=event or header.error != 0)
        # Credentials are accepted with zxid 0.
        if not doubt and header.error == 0 and header.xid > 0 and 0 < zxid < self._replied:
            doubt = f"zxid {zxid:#x} comes after {self._replied:#x}, and servers do not go back"
            # Either may be false. With the higher one offered, no server would take the session, and it would look as
            # if the ensemble had lost its history.
            assert self._connect is not None, "it was greeted"
            self.contradicted = True
            self.last_zxid = max(self._connect[0].last_zxid, zxid if zxid & _COUNTER else 0)
        if doubt:
            self._judged = True  # no request is to blame for that
            raise ProtocolError(f"the server cannot be believed: {doubt}")

    def _greeting_received(self, frame: bytes) -> None:
        if self._connect is None:
            raise ProtocolError("the server spoke first, which ZooKeeper never does")
        message, sent = self._connect
        reply = message.decode(frame)
        self._greeted = True
        self._decoder.max_frame = _MAX_FRAME
        self._on_greeting(self, reply, sent)

    def _reply_received(self, frame: bytes, xid: int) -> None:
        queue = self._aside.get(xid, self._pending)
        if not queue or queue[0].xid != xid:
            raise ProtocolError(f"a reply with xid {xid}, which is not the next one awaited")
        # It stays in the queue until its answer is known, so that an earlier error reaches its sender.
        pending = queue[0]
        reply: Reply[Any] | None = None
        error: RegistryError | None = None
        try:
            # The code that reads it is a caller's where the request is.
            reply = foreign.call(decode_reply, pending.request, frame)
        except foreign.ForeignError as failure:
            if isinstance(failure.error, RegistryError) and not isinstance(failure.error, ProtocolError):
                error = failure.error
            else:
                # Later data on this connection cannot be trusted either; the waiters hear that it was lost.
                raise self._unreadable(pending, failure.error, first=queue is self._pending) from failure.error
        queue.popleft()
        self._resolve(pending, reply, error)
        if self._held or self._apart:
            self._release_held()

    def _unreadable(self, pending: Pending[Any], failure: BaseException, *, first: bool) -> ProtocolError:
        if isinstance(failure, ProtocolError):
            why = failure
        else:
            kind = type(pending.request)
            why = ProtocolError(f"the reply to {kind.__name__} could not be decoded: {foreign.shown(failure)}")
            self._repeated.tell(kind.__name__, logging.ERROR, "%s\n%s", why, foreign.traced(failure))
        self._judge(str(why), unreadable=first)
        return why

    def _resolve(self, pending: Pending[Any], reply: Reply[Any] | None, error: RegistryError | None) -> None:
        """Take note of an answer, and tell the waiter, whatever taking note raises."""
        if is_evidence(pending.request, error):
            self.evidence = max(self.evidence, pending.sent)
            self._proven_by_quorum = True
        self._proven = self._proven or pending.xid not in self._aside  # a server answers those before it reads others
        if self._isolation is not None:
            if self._isolation.suspects:
                self._isolation.answered(Sent(pending.request, pending.size), self._server)
            elif pending.size > self._largest:
                self._largest = pending.size
                self._isolation.fits(pending.size, self._server)
        try:
            foreign.call(self._on_answer, self, pending, error)
        except foreign.ForeignError:
            log.exception("processing the answer to %s failed", type(pending.request).__name__)
        if pending.future.done():  # the waiter was cancelled
            return
        if error is None:
            assert reply is not None
            pending.future.set_result(reply)
        else:
            fail(pending.future, error)
        if pending.answered is not None:
            try:
                foreign.call(pending.answered, pending.future)
            except foreign.ForeignError:
                log.exception("%r raised", pending.answered)

    # ------------------------------------------------------------------ ending

    def drop(self, reason: str, error: RegistryError | None = None) -> None:
        """Close the socket after the submitted requests; read nothing from it, and call no callback.

        Unanswered requests fail with *error*, if given, instead of ConnectionLost.
        """
        if not self.closed:
            self._flush()
            self._end(reason, error)

    def silent(self, reason: str) -> None:
        """It is about to be dropped because nothing was answered, perhaps because of a request in flight."""
        if not self.closed:
            self._judge(reason, silent=True)

    def _abandon(self, reason: str) -> None:
        """It ended by itself, or has to be ended because of bytes that came from it."""
        if not self.closed:
            if not self._judged:
                self._judge(reason)
            self._end(reason)
            self._on_lost(self)

    def _judge(self, reason: str, *, unreadable: bool = False, silent: bool = False) -> None:
        """Find out whether something in flight is to blame; *unreadable*: it is known to be the first."""
        self._judged = True
        if self._isolation is None:
            return
        in_flight = [Sent(each.request, each.size) for each in islice(self._pending, len(self._pending) - self._unsent)]
        self._convicted = self._isolation.died(
            in_flight,
            self._runtime.monotonic(),
            server=self._server,
            reason=reason,
            # A leader that does not answer leaves a sync unanswered, whatever the server does about reads.
            proven=bool(in_flight)
            and self._is_proven(in_flight[0].request)
            and not (silent and in_flight[0].request.opcode == Sync.opcode),
            unreadable=0 if unreadable else None,
        )
        if self._on_poison is not None:
            for error in self._convicted.values():
                self._on_poison(error)

    def _end(self, reason: str, error: RegistryError | None = None) -> None:
        self.closed, self.reason = True, reason
        if self._transport is not None:
            self._release(self._transport)
        sent = len(self._pending) - self._unsent
        for number, pending in enumerate(chain(self._pending, *self._aside.values())):
            maybe_applied = number < sent and pending.request.opcode in WRITE_OPCODES
            if not pending.future.done():
                convicted = self._convicted.get(number)
                if isinstance(pending.request, Sync):
                    convicted = None  # asked again it is answered, by a barrier
                cause = error or convicted or self._lost(maybe_applied=maybe_applied)
                fail(pending.future, cause, pending.answered)
        held, self._held = self._held, deque()
        for pending, _, _ in held:
            if not pending.future.done():
                fail(pending.future, error or self._lost(maybe_applied=False), pending.answered)
        for queue in self._aside.values():
            queue.clear()
        self._pending.clear()

    @staticmethod
    def _release(transport: asyncio.Transport) -> None:
        # close() waits for the peer to read the rest, and under TLS for its good-bye: a peer that hangs would
        # keep the socket.
        if transport.get_write_buffer_size() or transport.get_extra_info("ssl_object") is not None:
            transport.abort()
        else:
            transport.close()

    def _lost(self, *, maybe_applied: bool) -> ConnectionLost:
        return ConnectionLost(f"connection to {self.endpoint} lost ({self.reason})", maybe_applied=maybe_applied)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._pending)} pending"
        return f"<Connection {self.number} to {self.endpoint}, {state}>"
