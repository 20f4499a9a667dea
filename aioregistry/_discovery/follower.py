"""Keeps a mirror true to the server, for its readers.

The path of a change is short, and no task lies on it: the event's callback makes the node due and, if nothing is under
way, asks for it; the bytes of the question leave at the end of that tick; the answer's callback shows the news. The one
task does what takes time: it waits for connections, sets the recursive watch, and looks at the clock.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, Protocol, TypeAlias

from aioregistry import _foreign as foreign
from aioregistry._concurrency import SHORTEST_WAIT, Alarm, Notifier, Supervised
from aioregistry._errors import (
    ConnectionLost,
    NoAuth,
    PoisonRequest,
    ProtocolError,
    RegistryError,
    ServerError,
    SessionClosed,
    UnsupportedServer,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._model import Invalid
from aioregistry._protocol import EventKind, WatchedEvent
from aioregistry._session import ReadingSessionPort, TreeWatchPort

from .barrier import Barrier
from .mirror import SERVICE, Mirror, News
from .pace import RETRY
from .reader import Reader
from .syncs import Syncs

__all__ = ["Consumer", "Follower", "WatchMode"]

log = logging.getLogger("aioregistry.discovery")

WatchMode: TypeAlias = Literal["auto", "recursive", "one-shot"]
"""How nodes are watched: by one recursive watch where the server has them, by one-shot watches, or as it turns out."""

AUDIT: Final = 30.0
"""Seconds between two audits, at most; at least half of it. Events can be lost: from 3.8.4 on a server hides those of
nodes that it thinks this client may not read, also what happened while it may not."""

SAMPLE: Final = 64
"""Nodes that an audit reads of a service, so that a small service is read whole by each."""

AUDITS: Final = 32
"""In how many audits all nodes of a large service are read: some twelve minutes."""

NAMED_IN_LOG: Final = 10
"""Nodes that one line names; all are in the snapshot and told to the hook."""

_STALE_POLLS_PER_TIMEOUT = 10


class Consumer(Protocol):
    """Receives the news, synchronously; must not raise."""

    def take(self, news: News) -> None:
        """Something became visible in the mirror."""

    def departed(self, id: str, czxid: int) -> None:
        """The node of *id* that was created by *czxid* is withdrawn; its removal comes next."""

    def freshness_changed(self) -> None:
        """The view ceased to be fresh, or is fresh again."""

    def end(self, error: RegistryError | None) -> None:
        """Nothing more comes: the session was closed, or *error* ended it."""


class Follower:
    """Follows one service for all its consumers; started once, closed once.

    Args:
        session: read and watched through.
        path: of the service's node.
        name: the service.
        strategy: how nodes are watched.
        prepare: awaited on each connection before anything is read or watched; must not raise.
        barrier: of the session.
        saw: called with every event of the service and its nodes, before anything follows from it; returns whether that
            node's deletion comes next.

    Attributes:
        mirror: the nodes as last read.
        users: how many need this follower; for its owner.
        refusal: why the service could not be listed when that was tried last.
        ended: why nothing more comes.
        generation: of the connection that the mirror is kept on.
        news: of whatever happens here.
    """

    def __init__(
        self,
        session: ReadingSessionPort,
        path: str,
        name: str,
        strategy: WatchMode,
        prepare: Callable[[], Awaitable[None]],
        barrier: Barrier,
        *,
        saw: Callable[[WatchedEvent], bool],
    ) -> None:
        self.name = name
        self.path = path
        self._about = {"service": name, "path": path}
        self.mirror: Mirror = Mirror(name)
        self.users = 0
        self.refusal: NoAuth | PoisonRequest | None = None
        self.ended: RegistryError | None = None
        self.generation: int = -1
        self.news: Notifier = Notifier()
        self._session = session
        self._strategy = strategy
        self._prepare = prepare
        self._saw = saw
        self._repeated = IncidentLog(log, **self._about)
        self._reader = Reader(session, path, self.mirror, fired=self._fired, answered=self.pump, look_in=self._look_in)
        self._consumers: dict[int, weakref.ref[Consumer]] = {}
        self._syncs = Syncs(session, self, barrier)
        self._tree: TreeWatchPort | None = None
        self._pump_scheduled = False
        self._was_fresh = False
        self._stale_since: float | None = None
        # The task, and the facts that it needs when it wakes.
        self._task = Supervised(self._died)
        self._stop_observing: Callable[[], None] | None = None
        self._wake = asyncio.Event()
        self._clock = Alarm()
        self._rest = 0.0
        self._audit_at = 0.0
        self._defect: Exception | None = None

    # ------------------------------------------------------------------ beginning and ending

    def start(self) -> None:
        """Begin to follow."""
        self._stop_observing = self._session.observe(self._session_changed)
        self._task.start(self._run(), name=f"aioregistry follows {self.path}")

    async def aclose(self) -> None:
        """Stop following; no task and no watch is left when it returns."""
        self._end(SessionClosed(f"{self.path} is no longer followed"), None)
        await self._task.aclose()
        await self._syncs.ended()

    async def _run(self) -> None:
        try:
            while True:
                await self._session.wait_connected()
                await self._begin()
                await self._attend()
                await self._rest_a_while()
        except SessionClosed as closed:
            self._end(closed, None)
        except RegistryError as error:
            self._fail(error)

    def _died(self, error: BaseException) -> None:
        """Let a defect reach every view, instead of a task that is not awaited."""
        if isinstance(error, asyncio.CancelledError):
            self._fail(RegistryError(f"the task that follows {self.path} was cancelled from outside"))
            return
        log.critical("following %s failed", self.path, exc_info=error, extra=self._about)
        failure = RegistryError(f"following {self.path} failed: {foreign.shown(error)}")
        failure.__cause__ = error
        self._fail(failure)

    def _fail(self, failure: RegistryError) -> None:
        self._end(failure, failure)

    def _end(self, ended: RegistryError, error: RegistryError | None) -> None:
        """Nothing more comes: calls raise *ended*, streams end, with *error* if given."""
        if self.ended is not None:
            return
        self.ended = ended
        if self._stop_observing is not None:
            self._stop_observing()
        self._let_go()
        if self._tree is not None:
            self._tree.close()
        for consumer in self._present_consumers():
            consumer.end(error)
        self._repeated.close()
        self.news.notify()

    # ------------------------------------------------------------------ consumers

    def attach(self, consumer: Consumer) -> None:
        """Tell *consumer* from now on; it is held weakly, so that one that was dropped can say so."""
        self._consumers[id(consumer)] = weakref.ref(consumer)

    def detach(self, consumer: Consumer) -> None:
        """Stop telling *consumer*."""
        self._consumers.pop(id(consumer), None)

    def _present_consumers(self) -> list[Consumer]:
        return [consumer for reference in self._consumers.values() if (consumer := reference()) is not None]

    @property
    def fresh(self) -> bool:
        """All was read on this connection, and the quorum has answered within the session timeout."""
        return self.mirror.synced and self._session.connected and not self._session.presumed_expired

    def stale_since(self) -> float | None:
        """Return None while fresh, else when the quorum is known to have answered last, in seconds since the epoch."""
        if self.fresh:
            self._stale_since = None
        elif self._stale_since is None:
            age, now = self._session.evidence_age(), self._session.runtime.wall()
            self._stale_since = now if age == float("inf") else now - age
        return self._stale_since

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition*, which is asked after whatever happens here; raises what ended the following."""
        while not condition():
            if self.ended is not None:
                raise self.ended
            await self.news.wait()

    async def sync(self) -> None:
        """Wait until the mirror is as new as the quorum was when this was called: :meth:`Syncs.sync`."""
        await self._syncs.sync()

    # ------------------------------------------------------------------ connections

    def _session_changed(self) -> None:
        if not self._session.connected or self._session.generation != self.generation:
            self._let_go()
        self.note_freshness()
        self._wake.set()
        self.news.notify()

    def _let_go(self) -> None:
        self._reader.let_go()
        self.mirror.disconnected()

    async def _begin(self) -> None:
        """Set the watch on this connection, and ask for everything."""
        generation = self._session.generation
        await self._prepare()
        try:
            recursive = await self._arm()
        except (ConnectionLost, ServerError) as error:
            self._start_over(error)
            return
        if self._session.connected and self._session.generation == generation:
            self.generation = generation
            self.mirror.connected(one_shot=not recursive, history=self._session.history)
            self._reader.begin()

    async def _arm(self) -> bool:
        """Set the recursive watch; return False where one-shot watches have to do."""
        if self._strategy == "one-shot":
            return False
        if self._tree is None:
            self._tree = self._session.watches.listen_tree(self.path, self._fired)
        try:
            await self._tree.arm()
        except UnsupportedServer:
            self._tree.close()
            self._tree = None
            if self._strategy == "recursive":
                raise
            return False
        return True

    def _start_over(self, error: BaseException, level: int = logging.INFO) -> None:
        """Ask for everything again after a rest, unless there is a new connection before."""
        self._repeated.tell(("again", level), level, "%s is read again: %s", self.path, error)
        self._let_go()
        self.note_freshness()
        self._rest = self._session.runtime.uniform(RETRY / 2, RETRY)
        self._wake.set()

    async def _rest_a_while(self) -> None:
        rest, self._rest = self._rest, 0.0
        if rest and self._session.connected:
            await asyncio.sleep(rest)

    # ------------------------------------------------------------------ the clock

    async def _attend(self) -> None:
        """Look at the clock for as long as the mirror is kept on this connection."""
        self._audit_at = self._next_audit()
        while not self._rest and self._session.connected and self._session.generation == self.generation:
            self._audit_if_due()
            self.note_freshness()
            await self._woken(self._until_the_clock_matters())
            if self._defect is not None:
                raise self._defect

    async def _woken(self, at_latest: float) -> None:
        """Wait to be woken, at most so many seconds."""
        self._clock.set_in(at_latest, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            self._clock.cancel()
        self._wake.clear()

    def _until_the_clock_matters(self) -> float:
        session = self._session
        waits = [self._audit_at - session.runtime.monotonic()]
        if self.mirror.synced:
            left = session.timeout - session.evidence_age()
            waits.append(left if left > 0 else session.timeout / _STALE_POLLS_PER_TIMEOUT)
        return max(min(waits), SHORTEST_WAIT)

    def _audit_if_due(self) -> None:
        if self._session.runtime.monotonic() < self._audit_at:
            return
        self._audit_at = self._next_audit()
        mirror = self.mirror
        if mirror.synced:
            mirror.audit(max(SAMPLE, len(mirror.entries) // AUDITS))
            self.pump()

    def _look_in(self, seconds: float) -> None:
        """Bring the next audit forward: it reads what could not be read."""
        due = self._session.runtime.monotonic() + seconds
        if due < self._audit_at:
            self._audit_at = due
            self._wake.set()

    def _next_audit(self) -> float:
        # Jittered: views that reconnect together must not ask together for ever.
        runtime = self._session.runtime
        return runtime.monotonic() + runtime.uniform(AUDIT / 2, AUDIT)

    def note_freshness(self) -> None:
        """Tell the consumers if freshness ended or returned; they do not see it do both between two calls."""
        fresh = self.fresh
        if fresh is not self._was_fresh:
            self._was_fresh = fresh
            for consumer in self._present_consumers():
                consumer.freshness_changed()

    # ------------------------------------------------------------------ events, questions, answers, news

    def departed(self, id: str, czxid: int) -> None:
        """The node of *id* that was created by *czxid* is withdrawn."""
        for consumer in self._present_consumers():
            consumer.departed(id, czxid)

    def _fired(self, event: WatchedEvent) -> None:
        deletion_next = self._saw(event)
        if event.path == self.path:
            self.mirror.event(event.kind, SERVICE)
        else:
            parent, _, name = event.path.rpartition("/")
            if parent != self.path:
                return
            self.mirror.event(event.kind, name)
        if self._reader.idle and event.kind is not EventKind.DELETED and not deletion_next:
            self.pump()
        elif not self._pump_scheduled:
            # Nodes whose events come together are read together, and once: a takeover is a deletion and a creation.
            self._pump_scheduled = True
            asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        """Take in the answers that are there, ask the next questions, and show the changes."""
        self._pump_scheduled = False
        if self.ended is not None:
            return
        try:
            refusal = self._reader.take_answers()
            if refusal is not None:
                self._refused(refusal)
            if self.mirror.misled:
                self._misled()
            self._reader.ask()
            self._show(self.mirror.take_news())
        except Exception as defect:  # noqa: BLE001 - raised by the task, which ends everything
            self._defect = defect
            self._wake.set()
        self.news.notify()

    def _misled(self) -> None:
        """Read everything again: no answer is as new as one that came before."""
        self.mirror.forget_order()
        why = f"{self._session.server} answers with older data than an answer before it, and one of the two is false"
        self._start_over(ProtocolError(why), logging.WARNING)

    def _refused(self, error: BaseException) -> None:
        if isinstance(error, NoAuth | PoisonRequest):
            if self.refusal is None:
                self._repeated.tell("refused", logging.WARNING, "%s cannot be listed: %s", self.path, error)
            self.refusal = error
        if self._session.connected:
            self._start_over(error)

    def _tell_of_invalid(self, nodes: Sequence[Invalid]) -> None:
        if len(nodes) == 1:
            what = f"{self.path}/{nodes[0].id} is not an instance: {nodes[0].reason}"
        else:
            named = "; ".join(f"{node.id}: {node.reason}" for node in nodes[:NAMED_IN_LOG])
            more = f"; and {len(nodes) - NAMED_IN_LOG} more" if len(nodes) > NAMED_IN_LOG else ""
            what = f"{self.path} has {len(nodes)} nodes that are not instances: {named}{more}"
        self._repeated.tell("invalid", logging.WARNING, "%s", what)

    def _show(self, news: News | None) -> None:
        if news is None:
            return
        if news.resynced:
            self.refusal = None
            self._reader.completed()
            self._session.emit("discovery.synced", service=self.name, instances=len(self.mirror.entries))
        if news.invalid:
            self._tell_of_invalid(news.invalid)
        for invalid in news.invalid:
            self._session.emit("discovery.invalid", service=self.name, id=invalid.id, reason=invalid.reason)
        if news.missed:
            self._repeated.tell(
                "missed", logging.WARNING,
                "%s: %d nodes changed without an event, %s first: an ACL on %s may hide them",
                self.path, len(news.missed), news.missed[0], self._session.server,
            )  # fmt: skip
            self._session.emit("discovery.missed", service=self.name, ids=news.missed)
        for consumer in self._present_consumers():
            try:
                foreign.call(consumer.take, news)
            except foreign.ForeignError as failure:  # what one makes of it is not a reason for the others to go without
                log.critical("%s: %r failed", self.path, consumer, exc_info=True, extra=self._about)
                ended = RegistryError(f"following {self.path} failed: {failure}")
                ended.__cause__ = failure.error
                self.detach(consumer)
                consumer.end(ended)
        if news.resynced or news.invalid:
            self.note_freshness()
            self._wake.set()  # the clock matters from now on
