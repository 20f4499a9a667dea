"""A session in memory, on a :class:`ModelTree`: everything that ``docs/internals.md`` says a session offers.

Requests of one tick reach the server together, and its replies and events come back together, in the order of what
happened. Nothing takes time; what disturbs is done by calling the methods under "disturbances".
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from aioregistry._errors import (
    ConnectionLost,
    RegistryError,
    RequestTooLarge,
    ServerError,
    SessionClosed,
    SessionFailed,
)
from aioregistry._protocol import EventKind, Exists, GetData, Message, Reply, Sync, WatchedEvent
from aioregistry._runtime import Endpoint, Runtime
from aioregistry._session import Attempt, ConnectString, SessionPort, SessionState, parse_connect_string
from tests.support.model_tree import Change, ModelTree
from tests.support.waiting import DEADLINE

T = TypeVar("T")


class Fate(enum.Enum):
    """The fate of a request."""

    REQUEST_LOST = enum.auto()
    REPLY_LOST = enum.auto()
    ARRIVES_LATE = enum.auto()
    """The connection is lost, and the request is on its way still: see :meth:`FakeSession.arrive`."""
    UNANSWERED = enum.auto()
    """Nothing is heard of it, and of nothing behind it, until the connection ends."""


class FakeRuntime(Runtime):
    """The real clock, which the test may set forward, and random numbers that are always the lowest."""

    def __init__(self) -> None:
        self.asleep = 0.0
        """Seconds that the system slept: only the clock that counts them shows it."""

    def monotonic(self) -> float:
        return time.monotonic()

    def boot(self) -> float:
        return self.monotonic() + self.asleep

    def wall(self) -> float:
        return 1_763_680_000.0

    def uniform(self, low: float, high: float) -> float:
        return low


class RandomRuntime(FakeRuntime):
    """With random numbers, from a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class FakeWatch:
    def __init__(self, listeners: list[Callable[[WatchedEvent], None]], callback: Callable[[WatchedEvent], None]):
        self._listeners, self._callback = listeners, callback

    def close(self) -> None:
        if self._callback in self._listeners:
            self._listeners.remove(self._callback)


class FakeWatches:
    def __init__(self) -> None:
        self.listeners: dict[str, list[Callable[[WatchedEvent], None]]] = {}

    def listen(self, path: str, callback: Callable[[WatchedEvent], None]) -> FakeWatch:
        listeners = self.listeners.setdefault(path, [])
        listeners.append(callback)
        return FakeWatch(listeners, callback)


Delivery = tuple[asyncio.Future[Reply[Any]], Reply[Any] | RegistryError] | WatchedEvent


class FakeSession:
    """A session's methods, and its possible events."""

    def __init__(self, tree: ModelTree, *, timeout: float = 30.0, runtime: Runtime | None = None) -> None:
        self.tree = tree
        self.timeout = timeout
        self.runtime: Runtime = FakeRuntime() if runtime is None else runtime
        self.connect_string: ConnectString = parse_connect_string("zk")
        self.state = SessionState.DISCONNECTED
        self.connected = False
        self.read_only = False
        self.id = 0
        self.earlier_ids: list[int] = []
        self.generation = 0
        self.history = 0
        self.max_request = 0xFFFFF
        self.server = Endpoint("zk", 2181, "127.0.0.1")
        self.attempts: dict[str, Attempt] = {}
        self.failure: RegistryError | None = None
        self.closed_id = 0
        self.watches = FakeWatches()
        self.observers: list[Callable[[], None]] = []
        self.known: dict[int, bool] = {}
        """The answer of ``supports``."""
        self.emitted: list[tuple[str, dict[str, object]]] = []

        self.fate: Callable[[Message[Any]], Fate | ServerError | None] = lambda message: None
        """Asked about every request that reaches the server; None serves it."""
        self.served: list[Message[Any]] = []
        self.late: list[Message[Any]] = []
        """Requests on their way from a connection that is lost."""
        self.found_executed: list[Message[Any]] = []
        """The requests that were found done, though their answers were lost."""
        self.round_trips = 0
        self.silent = False

        self._evidence = float("-inf")
        self._last_zxid = 0
        self._armed: dict[str, None] = {}
        self._outgoing: list[tuple[Message[Any], asyncio.Future[Reply[Any]], float]] = []
        self._pending: list[asyncio.Future[Reply[Any]]] = []
        self._incoming: list[Delivery] = []
        tree.on_change.append(self._on_change)

    # ------------------------------------------------------------------ what a session offers

    @property
    def as_session(self) -> SessionPort:
        return self

    def evidence_age(self) -> float:
        return self.runtime.boot() - self._evidence

    @property
    def last_zxid(self) -> int:
        return self._last_zxid

    @property
    def presumed_expired(self) -> bool:
        return self.evidence_age() >= self.timeout

    def supports(self, opcode: int) -> bool | None:
        return self.known.get(opcode)

    def observe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.observers.append(callback)
        return lambda: self.observers.remove(callback)

    def emit(self, name: str, **fields: object) -> None:
        self.emitted.append((name, fields))

    def submit(
        self, message: Message[T], answered: Callable[[asyncio.Future[Reply[Any]]], None] | None = None
    ) -> asyncio.Future[Reply[T]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply[T]] = loop.create_future()
        if answered is not None:
            future.add_done_callback(answered)
        if not self.connected:
            future.set_exception(self._unavailable())
            future.exception()
            return future
        if (size := len(message.serialize(1))) > self.max_request:
            future.set_exception(RequestTooLarge(message.subject, size, self.max_request))
            return future
        if not self._outgoing:
            loop.call_soon(self._flush)
        self._outgoing.append((message, future, self.runtime.boot()))
        return future

    async def request(self, message: Message[T]) -> Reply[T]:
        return await self.submit(message)

    def executed(self, message: Message[Any]) -> None:
        self.found_executed.append(message)

    def _unavailable(self) -> RegistryError:
        if self.state is SessionState.CLOSED:
            return SessionClosed("closed")
        if self.state is SessionState.FAILED:
            return SessionFailed("failed")
        return ConnectionLost("no connection", maybe_applied=False)

    # ------------------------------------------------------------------ disturbances

    def connect(self, *, read_only: bool = False) -> None:
        """Get a connection: to the session there is, or with a new one."""
        new = self.id == 0
        self.late.clear()  # the session is elsewhere now: SessionMoved
        self.connected, self.read_only = True, read_only
        if not read_only:
            if new:
                self.id = self.tree.open_session()
            self._last_zxid = self.tree.zxid
            self._evidence = self.runtime.boot()
        self.generation += 1
        self._move(SessionState.CONNECTED if new else SessionState.RECONNECTED)

    def disconnect(self) -> None:
        """Lose the connection; what the server had not yet received is lost with it."""
        self.connected, self.read_only, self.silent = False, False, False
        lost = [future for _, future, _ in self._outgoing] + self._pending
        self._outgoing, self._pending, self._incoming = [], [], []
        self._armed.clear()
        for future in lost:
            if not future.done():
                future.set_exception(ConnectionLost("cut", maybe_applied=True))
        self._move(SessionState.SUSPENDED)

    def forget_watches(self) -> None:
        """Have the server forget whom it was to tell."""
        self._armed.clear()

    @property
    def unanswered(self) -> int:
        """How many requests are on their way, or wait for their answers."""
        return len(self._outgoing) + len(self._pending)

    def arrive(self) -> None:
        """Let the server have what is on its way from a connection that is lost; the session may have ended."""
        late, self.late = self.late, []
        for message in late:
            if self.id in self.tree.sessions:
                with contextlib.suppress(ServerError):
                    self.tree.apply(self.id, message)

    def reconnect(self) -> None:
        """Lose the connection, and get another."""
        self.disconnect()
        self.connect()

    def expire(self, *, at_server: bool = True) -> None:
        """Lose the session; the server may take a while longer to delete what it owned."""
        if self.connected:
            self.disconnect()
        if at_server:
            self.tree.end_session(self.id)
        self.earlier_ids.append(self.id)
        self.id, self._evidence = 0, float("-inf")
        self._move(SessionState.EXPIRED)

    def roll_back(self) -> None:
        """The ensemble lost its history, and with it all that was known of sessions."""
        if self.connected:
            self.disconnect()
        self.history += 1
        self.earlier_ids.clear()
        self.id, self._evidence = 0, float("-inf")
        self._move(SessionState.EXPIRED)

    def close(self) -> None:
        """End the session, as its owner does; only who is connected hears that it was done."""
        connected = self.connected
        if connected:
            self.disconnect()
        self.tree.end_session(self.id)
        self._move(SessionState.CLOSED)
        self.closed_id = self.id if connected else 0

    def fail(self, failure: RegistryError) -> None:
        """End the session by an error."""
        if self.connected:
            self.disconnect()
        self.failure = failure
        self._move(SessionState.FAILED)

    def _move(self, state: SessionState) -> None:
        self.state = state
        for callback in list(self.observers):
            callback()

    # ------------------------------------------------------------------ the way there and back

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing:
            self.round_trips += 1
        self._pending += [future for _, future, _ in outgoing]
        for message, future, sent in outgoing:
            if future in self._pending:  # the connection was not lost meanwhile
                self._serve(message, future, sent)

    def _serve(self, message: Message[Any], future: asyncio.Future[Reply[Any]], sent: float) -> None:
        fate = self.fate(message)
        if self.silent or fate is Fate.UNANSWERED:
            self.silent = True
            return
        if fate in (Fate.REQUEST_LOST, Fate.ARRIVES_LATE):
            self.late += [message] if fate is Fate.ARRIVES_LATE else []
            self.disconnect()
            return
        self.served.append(message)
        outcome = fate if isinstance(fate, ServerError) else self._outcome(message)
        if fate is Fate.REPLY_LOST:
            self.disconnect()
            return
        if message.writes or isinstance(message, Sync):
            self._evidence = max(self._evidence, sent)
        self._deliver((future, outcome))

    def _outcome(self, message: Message[Any]) -> Reply[Any] | RegistryError:
        try:
            value = self.tree.apply(self.id, message)
        except ServerError as error:
            return error
        if isinstance(message, GetData | Exists) and message.watch:
            self._armed[message.path] = None
        return Reply(self.tree.zxid, value)

    def _on_change(self, change: Change) -> None:
        if self.connected and not self.silent and change.path in self._armed:
            del self._armed[change.path]
            self._deliver(WatchedEvent(EventKind(change.kind), 3, change.path, -1))

    def _deliver(self, delivery: Delivery) -> None:
        if not self._incoming:
            asyncio.get_running_loop().call_soon(self._receive)
        self._incoming.append(delivery)

    def _receive(self) -> None:
        incoming, self._incoming = self._incoming, []
        for delivery in incoming:
            if isinstance(delivery, WatchedEvent):
                for callback in list(self.watches.listeners.get(delivery.path, ())):
                    callback(delivery)
            else:
                future, outcome = delivery
                self._pending.remove(future)
                self._last_zxid = max(self._last_zxid, outcome.zxid if isinstance(outcome, Reply | ServerError) else 0)
                settle(future, outcome)


def settle(future: asyncio.Future[Reply[Any]], outcome: Reply[Any] | RegistryError) -> None:
    if future.done():
        return
    if isinstance(outcome, RegistryError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


async def until(condition: Callable[[], object], *, seconds: float = DEADLINE) -> None:
    """Let the loop run until *condition* holds; raises TimeoutError when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            raise TimeoutError("what was waited for did not happen")
        await asyncio.sleep(0)


async def quiet() -> None:
    """Let the loop run until everybody who could do something without time passing has done it."""
    for _ in range(100):
        await asyncio.sleep(0)
