"""One connection to one server: requests out in one write a tick, replies matched in order."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, cast

from aiozk.protocol.request import Request

from aioregistry._errors import (
    ConnectionLost,
    ProtocolError,
    RegistryError,
    RequestTooLarge,
    ServerError,
)
from aioregistry._protocol import (
    AUTH_XID,
    NOTIFICATION_XID,
    PING_XID,
    WRITE_OPCODES,
    Connect,
    ConnectReply,
    FrameDecoder,
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

from .attempts import AttemptOutcome

__all__ = ["Answered", "Connection", "fail"]

Answered: TypeAlias = Callable[["asyncio.Future[Reply[Any]]"], None]

T = TypeVar("T")

# A ConnectReply takes 41 bytes; who answers with more before that is no ZooKeeper.
_MAX_HANDSHAKE_FRAME = 4096
# Replies are bounded by the size of the tree, not by jute.maxbuffer: the children of one node may be many. Beyond
# this it is garbage.
_MAX_FRAME = 256 * 1024 * 1024
_MAX_XID = 0x7FFF_FFFF

# What the quorum decides: an answer to one of these was agreed on after it was sent.
_EVIDENT = WRITE_OPCODES | {Sync.opcode}
# Errors that a server gives by itself, without asking its leader: unimplemented, marshalling, bad arguments,
# throttled, session expired or moved, not read-only.
_LOCAL_ERRORS = frozenset({-5, -6, -8, -112, -118, -119, -127})


class _Pending(NamedTuple, Generic[T]):
    request: Any
    xid: int
    future: asyncio.Future[Reply[T]]
    sent: float
    answered: Answered | None


class Connection(asyncio.Protocol):
    """Speaks the protocol on one transport; knows nothing of sessions.

    ``last_zxid`` is the highest in any reply's header, ``evidence`` (boot clock) the sending of the last request
    that the quorum answered. The callbacks are called synchronously from the transport; none after :meth:`drop`.
    """

    def __init__(
        self,
        number: int,
        endpoint: Endpoint,
        runtime: Runtime,
        *,
        max_request: int,
        on_greeting: Callable[[Connection, ConnectReply, float], None],
        on_event: Callable[[WatchedEvent], None],
        on_answer: Callable[[Connection, Any, RegistryError | None], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.endpoint = endpoint
        self.last_zxid = 0
        self.evidence = float("-inf")
        self.took = 0.0
        """Seconds that TCP and TLS took, for whoever gives the attempt a deadline."""
        self.closed = False
        self.reason = ""
        """Why it ended, in words, for error reports."""
        self.outcome = AttemptOutcome.CLOSED
        """How it ended, where it did."""
        self._runtime = runtime
        self._max_request = max_request
        self._on_greeting, self._on_event, self._on_answer, self._on_lost = on_greeting, on_event, on_answer, on_lost
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(_MAX_HANDSHAKE_FRAME)
        self._connect: tuple[Connect, float] | None = None
        self._greeted = False
        self._xid = 0
        self._pending: deque[_Pending[Any]] = deque()
        # The server answers these under xids of their own, and credentials past the requests in its pipeline.
        self._aside: dict[int, deque[_Pending[Any]]] = {AUTH_XID: deque(), PING_XID: deque()}
        self._outgoing: list[bytes] = []
        self._unsent = 0
        """How many of the last in _pending are still in _outgoing."""
        self._receiving = False

    # ------------------------------------------------------------------ sending

    def greet(self, message: Connect) -> None:
        """Send the handshake; the answer goes to ``on_greeting``."""
        self._connect = (message, self._runtime.boot())
        self._send(message.serialize())

    def submit(self, request: Request, answered: Answered | None = None) -> asyncio.Future[Reply[Any]]:
        """Send *request* with this tick's others, and return its answer's future.

        *answered* is called with it: by the callback that brings the answer, which saves a turn of the loop, or by the
        loop soon after the connection was lost, when whoever has to know of that knows.
        """
        future: asyncio.Future[Reply[Any]] = asyncio.get_running_loop().create_future()
        if self.closed:
            fail(future, self._lost(maybe_applied=False), answered)
            return future
        xid = self._next_xid(request)
        try:
            payload = request.serialize(xid)
        except (TypeError, ValueError, AttributeError, struct.error) as error:
            fail(future, ProtocolError(f"{type(request).__name__} cannot be sent: {error}"), answered)
            return future
        if len(payload) > self._max_request:
            subject = getattr(request, "subject", type(request).__name__)
            fail(future, RequestTooLarge(subject, len(payload), self._max_request), answered)
            return future
        pending = _Pending(request, xid, future, self._runtime.boot(), answered)
        if xid in self._aside:
            self._aside[xid].append(pending)
        else:
            self._pending.append(pending)
            self._unsent += 1
        self._send(payload)
        return future

    def _next_xid(self, request: Any) -> int:
        if request.special_xid in self._aside:
            return int(request.special_xid)
        self._xid = self._xid % _MAX_XID + 1
        return self._xid

    def _send(self, payload: bytes) -> None:
        if not self._outgoing and not self._receiving:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(payload)

    def _flush(self) -> None:
        outgoing, self._outgoing, self._unsent = self._outgoing, [], 0
        if outgoing and self._transport is not None and not self.closed:
            self._transport.write(join_frames(outgoing))

    # ------------------------------------------------------------------ the transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._receiving = True  # what the answers lead to leaves in one write behind them, without a turn of the loop
        try:
            for frame in self._decoder.feed(data):
                self._received(frame)
                if self.closed:
                    return
        except ProtocolError as error:
            self.outcome = AttemptOutcome.FOREIGN
            self._abandon(str(error))
        finally:
            self._receiving = False
            self._flush()

    def eof_received(self) -> None:
        # Not left to the transport, which first waits until everything is written, to a peer that may read no more.
        self._abandon("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._abandon(f"the connection broke: {reason_of(exc)}" if exc else "the server closed the connection")

    # ------------------------------------------------------------------ receiving

    def _received(self, frame: bytes) -> None:
        if not self._greeted:
            self._greeting_received(frame)
            return
        header = decode_header(frame)
        if header.zxid > self.last_zxid:
            self.last_zxid = header.zxid
        if header.xid == NOTIFICATION_XID:
            self._on_event(decode_event(frame))
        else:
            self._reply_received(frame, header.xid)

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
        pending = queue.popleft()
        reply: Reply[Any] | None = None
        error: RegistryError | None = None
        try:
            reply = decode_reply(pending.request, frame)
        except ProtocolError:
            # What else comes on this connection cannot be trusted either; whoever waits hears that it was lost.
            queue.appendleft(pending)
            raise
        except RegistryError as failure:
            error = failure
        if pending.request.opcode in _EVIDENT and (
            error is None or (isinstance(error, ServerError) and error.code not in _LOCAL_ERRORS)
        ):
            self.evidence = max(self.evidence, pending.sent)
        self._on_answer(self, pending.request, error)
        if pending.future.done():  # whoever waited was cancelled
            return
        if error is None:
            assert reply is not None
            pending.future.set_result(reply)
        else:
            fail(pending.future, error)
        if pending.answered is not None:
            pending.answered(pending.future)

    # ------------------------------------------------------------------ ending

    def drop(self, reason: str, error: RegistryError | None = None) -> None:
        """Close the socket after what was submitted; nothing that comes from it is read, and no callback called.

        What is unanswered fails with *error*, if given, instead of ConnectionLost.
        """
        if not self.closed:
            self._flush()
            self._end(reason, error)

    def _abandon(self, reason: str) -> None:
        """It ended by itself, or has to be ended for what came from it."""
        if not self.closed:
            self._end(reason)
            self._on_lost(self)

    def _end(self, reason: str, error: RegistryError | None = None) -> None:
        self.closed, self.reason = True, reason
        if self._transport is not None:
            self._release(self._transport)
        sent = len(self._pending) - self._unsent
        for number, pending in enumerate(chain(self._pending, *self._aside.values())):
            maybe_applied = number < sent and pending.request.opcode in WRITE_OPCODES
            if not pending.future.done():
                fail(pending.future, error or self._lost(maybe_applied=maybe_applied), pending.answered)
        for queue in self._aside.values():
            queue.clear()
        self._pending.clear()

    @staticmethod
    def _release(transport: asyncio.Transport) -> None:
        # close() waits for the peer to read what is left, and under TLS for its good-bye: a peer that hangs would
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


def fail(future: asyncio.Future[Any], error: RegistryError, answered: Answered | None = None) -> None:
    """Let *future* fail, and *answered* be called soon."""
    future.set_exception(error)
    # Counts as retrieved: whoever dropped the future does not want to know, and the loop would log it as a defect.
    future.exception()
    if answered is not None:
        asyncio.get_running_loop().call_soon(answered, future)
