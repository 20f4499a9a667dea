"""Views of services: what a consumer holds, and the discovery that makes them over shared mirrors."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, overload

import anyio

from aioregistry import _foreign as foreign
from aioregistry._errors import (
    HandleClosed,
    InvalidArgument,
    InvalidInstance,
    RegistryError,
    RequestTimeout,
    UsageError,
)
from aioregistry._handles import Handle, check_seconds, finished
from aioregistry._incident_log import IncidentLog
from aioregistry._markers import root_of
from aioregistry._model import (
    Added,
    Change,
    Difference,
    Entry,
    Invalid,
    Invalidated,
    Removed,
    Resynced,
    Snapshot,
    Suspicion,
    Updated,
    check_payload_type,
)
from aioregistry._paths import check_name, place_of
from aioregistry._session import Session, SessionState
from aioregistry._streams import Source, Stream

from .barrier import Barrier
from .custody import Custody
from .departures import Departures
from .evidence import is_refusal
from .follower import Follower, Strategy
from .guard import Guard
from .mirror import News
from .names import ServiceNames

if TYPE_CHECKING:
    from aioregistry.balancing import Ejection, Filter, OfSuspects, Subset
    from aioregistry.balancing import Strategy as Balancing

    from .balancer import Balancer
    from .keeper import Keeper
    from .kept import Kept

__all__ = ["Changes", "Discovery", "View"]

log = logging.getLogger("aioregistry.discovery")

P = TypeVar("P")

KeptAt: TypeAlias = str | os.PathLike[str]
"""Where a file is."""

CHANGES_KEPT: Final = 1024
"""How far a consumer of changes may lag before it gets a :class:`Resynced` in their stead."""

PANIC: Final = 0.5
"""The default of :meth:`View.balancer`'s ``panic``: that of Envoy's ``healthy_panic_threshold``."""

RECENT: Final = 3600.0
"""Seconds for which a kept snapshot tells who may be about to register anew: longer than outages take."""


class Discovery:
    """The mirrors of one session: one for each service that somebody looks at, shared by all its views.

    Args:
        session: read and watched through; need not be connected.
        base_path: absolute path of the services; empty for the root.
        strategy: how nodes are watched, see :data:`Strategy`.
        marked: whether there are markers of withdrawals beside the base path.

    Attributes:
        departures: whoever withdraws from one of the services.
    """

    def __init__(self, session: Session, base_path: str, strategy: Strategy = "auto", *, marked: bool = True) -> None:
        self.session = session
        self._base_path = base_path.rstrip("/")
        root = root_of(self._base_path) if marked and strategy != "one-shot" else None
        self.departures: Departures = Departures(session, self._base_path, root, self._departed)
        self._strategy = strategy
        self._barrier = Barrier(session)
        self._names: ServiceNames | None = None
        self._closes_by = math.inf
        self._followers: dict[str, Follower] = {}
        self._kept_at: weakref.WeakValueDictionary[os.PathLike[str], View[Any]] = weakref.WeakValueDictionary()

    @overload
    def view(self, name: str, *, guard: Guard | None = None, keep: KeptAt | None = None) -> View[Any]: ...
    @overload
    def view(
        self, name: str, *, payload_type: type[P], guard: Guard | None = None, keep: KeptAt | None = None
    ) -> View[P]: ...
    @overload
    def view(
        self, name: str, *, payload_type: Any, guard: Guard | None = None, keep: KeptAt | None = None
    ) -> View[Any]: ...
    def view(
        self, name: str, *, payload_type: Any = Any, guard: Guard | None = None, keep: KeptAt | None = None
    ) -> View[Any]:
        """Return a view of the service *name*, to be entered or awaited; see :class:`View`."""
        return View(self, name, payload_type=payload_type, guard=guard, keep=keep)

    async def services(self) -> list[str]:
        """Return the names of all services, sorted; waits for a connection. Cancelling is harmless.

        Raises:
            ServerError: the base path cannot be read.
            SessionFailed: there will be no connection.
        """
        return await self._service_names().read()

    def watch_services(self) -> Stream[tuple[str, ...]]:
        """Return a stream of the sorted names of all services: the present ones first, latest wins."""
        return self._service_names().stream()

    def close_by(self, deadline: float) -> None:
        """Let views that are closed from now on take no longer than until *deadline*, by the loop's clock."""
        self._closes_by = deadline

    def patience(self) -> float:
        """Return how many seconds a view that is closed now may take."""
        return self._closes_by - asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        """End every view's streams, and follow nothing any more."""
        if self._names is not None:
            await self._names.aclose()
        for follower in list(self._followers.values()):
            await follower.aclose()
        self._followers.clear()

    def acquire(self, name: str) -> Follower:
        """Return the follower of a service, for a view; each is to be released."""
        name = place_of(name)
        follower = self._followers.get(name)
        if follower is None or follower.ended is not None:
            path = f"{self._base_path}/{name}"
            departures = self.departures
            follower = Follower(
                self.session, path, name, self._strategy, departures.arm, self._barrier, saw=departures.saw
            )
            follower.start()
            self._followers[name] = follower
        follower.users += 1
        return follower

    async def release(self, follower: Follower) -> None:
        """A view needs *follower* no more; it is closed with its last."""
        follower.users -= 1
        if follower.users == 0:
            if self._followers.get(follower.name) is follower:
                del self._followers[follower.name]
            await follower.aclose()

    def _departed(self, name: str, id: str, czxid: int) -> None:
        follower = self._followers.get(name)
        if follower is not None:
            follower.departed(id, czxid)

    def _service_names(self) -> ServiceNames:
        if self._names is None:
            self._names = ServiceNames(self.session, self._base_path or "/")
        return self._names


class View(Handle, Generic[P]):
    """Who is there: one service, followed from entering until closing.

    Entering (``async with``, or ``await``) waits until everything was read once. While the session is away the last
    known instances stay, ``fresh`` is False and ``snapshot.stale_since`` set; after a reconnect everything is read anew
    and what differs shows at once.

    Nodes that are no instances, or whose payload does not fit *payload_type*, are listed in ``snapshot.invalid`` with
    the reason, and logged. Nothing else suffers from them. A service whose node is missing is an empty one.

    With a guard, instances that go together unexplained stay for a while as suspects (``snapshot.suspects``).

    With a file, the last snapshot is kept there. Where there is no connection, entering waits for none if the file has
    instances: they are shown as suspects, for the reason ``"file"``, until everything was read. What a recent file has
    and the first list has not is for the guard to judge, as removals around a disruption.

    Args:
        discovery: whose session is used.
        name: the service; a path segment, or several with slashes between.
        payload_type: what payloads are converted to, any type that msgspec converts JSON to; frozen JSON unless given.
        guard: which removals are held back; none unless given.
        keep: path of the file; its directory is there and may be written to. Nothing is kept unless given.

    Raises:
        InvalidArgument: an argument is wrong; names it and its value.

    Entering raises :class:`InvalidArgument` for a file that is whole and of another service, base path or version,
    :class:`NoAuth` where the service may not be listed, :class:`UnsupportedServer` where recursive
    watches are demanded of a server that has none, and what the session failed with. Cancelling it leaves nothing
    behind.
    """

    def __init__(
        self,
        discovery: Discovery,
        name: str,
        *,
        payload_type: Any = Any,
        guard: Guard | None = None,
        keep: KeptAt | None = None,
    ) -> None:
        self.name: str = check_name("name", name)
        if guard is not None and not isinstance(guard, Guard):
            raise InvalidArgument("guard", guard, "give a Guard, or None")
        self._guard = guard
        self._custody: Custody[P] | None = None
        self._payload_type = check_payload_type(payload_type)
        self._typed = payload_type is not Any
        self._discovery = discovery
        self._follower: Follower | None = None
        # Of an untyped view the mirror's own; of a typed one converted, and what does not fit aside.
        self._entries: dict[str, Entry[P]] = {}
        self._misfits: dict[str, Invalid] = {}
        self._repeated = IncidentLog(log)
        self._latest: Snapshot[P] | None = None
        self._snapshots: Source[Any] = Source()
        self._changes: Source[Any] = Source()
        self._balancers: weakref.WeakValueDictionary[int, Balancer[P]] = weakref.WeakValueDictionary()
        self._keeper: Keeper | None = None if keep is None else self._keeper_at(keep)
        # What the process before kept, and its instances as suspects; until everything was read.
        self._kept: Kept | None = None
        self._recalled: dict[str, Entry[P]] = {}
        super().__init__()

    def _keeper_at(self, keep: KeptAt) -> Keeper:
        from .keeper import Keeper, checked_path  # hashing, threads and paths, for those who want them

        discovery, path = self._discovery, checked_path(keep)
        other = discovery._kept_at.get(path)
        if other is not None and other.name != self.name and not other._is_closed:
            raise InvalidArgument(
                "keep", keep, f"is where the view of {other.name!r} is kept: give each a file of its own"
            )
        discovery._kept_at[path] = self
        state = weakref.WeakMethod(self._to_keep)
        return Keeper(path, self.name, discovery._base_path or "/", discovery.session, state)

    # ------------------------------------------------------------------ what it offers

    @property
    def snapshot(self) -> Snapshot[P]:
        """What is known now; a new one is made when it is asked for after a change, in time linear in the service."""
        self._check()
        return self._current()

    @property
    def fresh(self) -> bool:
        """Whether the snapshot is true now, as far as anybody can know.

        True if everything was read on the present connection and the quorum has answered within the session timeout.
        Computed when read, on a clock that counts system sleep.
        """
        self._check()
        return self._following().fresh

    @property
    def held_total(self) -> int:
        """How many removals this view's guard has held back so far."""
        return 0 if self._custody is None else self._custody.total

    def report_failed(self, id: str, error: BaseException | None = None) -> bool:
        """Report that a call to the instance *id* failed; return whether that dropped it.

        A suspect is dropped when it refused the connections of two calls, one after the other, while another instance
        answered (as the picks of a balancer report): nothing listens there then. No other failure drops anybody, since
        it may be the caller's own. The picks of a balancer report by themselves.

        Args:
            id: of the instance that was called.
            error: what the call ended with; a refused connection is looked for in it and in its causes.

        Raises:
            InvalidArgument: an argument is of the wrong type.
        """
        self._check()
        if not isinstance(id, str):
            raise InvalidArgument("id", id, f"must be str, not {type(id).__name__}")
        if error is not None and not isinstance(error, BaseException):
            raise InvalidArgument("error", error, "must be an exception, or None")
        now = self._discovery.session.runtime.monotonic()
        return self._note_failure(id, error, since=now)

    def snapshots(self) -> Stream[Snapshot[P]]:
        """Return a stream of snapshots: the present one first, then one after each change and each flip of ``fresh``.

        Latest wins: a slow consumer skips what it missed. Ends when the view is closed; raises what ended the session.
        """
        self._check()
        stream: Stream[Any] = _Snapshots(self)
        stream._offer(None)
        self._snapshots.attach(stream)
        return stream

    @overload
    def changes(self) -> Changes[P]: ...
    @overload
    def changes(self, *, invalid: bool) -> Stream[Change[P] | Invalidated]: ...
    def changes(self, *, invalid: bool = False) -> Any:
        """Return a stream of the changes after its ``start``, a snapshot; applied to one snapshot they give the next.

        A takeover is at most one Updated. After a reconnect comes one :class:`Resynced` with the true differences; so
        it does for a consumer that lags by more than 1024 changes, in their stead. Ends when the view is closed; raises
        what ended the session.

        Args:
            invalid: whether an :class:`Invalidated` comes, too, for each node that shows no instance and did not
                before, or for another reason. After a :class:`Resynced` its snapshot has them.
        """
        self._check()
        if not isinstance(invalid, bool):
            raise InvalidArgument("invalid", invalid, "give True or False")
        stream = Changes(self, invalid=invalid)
        self._changes.attach(stream)
        return stream

    def balancer(
        self,
        strategy: Balancing[P] | str = "round-robin",
        *,
        where: Filter[P] | None = None,
        ejection: Ejection | None = None,
        suspects: OfSuspects = "last",
        panic: float = PANIC,
    ) -> Balancer[P]:
        """Return what picks among the instances of this view, from now on and as they change, until it is closed.

        Args:
            strategy: how to choose; one that needs no argument may be given by name: ``"round-robin"``, ``"random"``,
                ``"least-outstanding"``.
            where: which instances may be picked, of the enabled ones: a mapping of payload fields to what they must be
                (a value, or a set of values), or a function of the instance that returns a bool.
            ejection: when instances that fail are set aside; never unless given.
            suspects: whether those that the guard holds are picked: ``"last"``, when there is nobody else or too few
                are confirmed, ``"never"``, or ``"equal"`` to all others.
            panic: share of the instances that may be picked; while fewer are confirmed, suspects are picked like all
                others, so that the few do not get every call. From 0 (never) to 1; Envoy's panic threshold, and its
                default. It takes reports of how calls went, as ``with`` blocks of picks make them.

        Raises:
            InvalidArgument: an argument is wrong, or fits none of the instances that are there (no payload has the
                field of the weight, say).
        """
        from .balancer import Balancer  # a quarter of the import of aioregistry, for those who want it

        balancer = Balancer(
            self,
            self._discovery.session,
            strategy,
            where=where,
            ejection=ejection,
            suspects=suspects,
            panic=panic,
        )
        self._balancers[id(balancer)] = balancer
        return balancer

    async def wait_for(self, predicate: Callable[[Snapshot[P]], bool], timeout: float | None = None) -> Snapshot[P]:
        """Return the first snapshot that *predicate* accepts, the present one included, fresh or not.

        Args:
            predicate: called with the present snapshot and after changes; what it raises is raised here, but what would
                be taken for something else (CancelledError, StopIteration) as UsageError, chained to it.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: no snapshot was accepted in time.
            HandleClosed: the view was closed meanwhile.
        """
        self._check()
        if timeout is not None:
            check_seconds("timeout", timeout)
        with anyio.move_on_after(timeout):
            async with self.snapshots() as snapshots:
                async for snapshot in snapshots:
                    if _accepted(predicate, snapshot):
                        return snapshot
            raise HandleClosed(f"{self._title()} was closed")
        raise RequestTimeout(f"no snapshot of {self.name!r} was accepted within timeout={timeout:g} s")

    async def sync(self, timeout: float | None = None) -> Snapshot[P]:
        """Return a snapshot as new as the quorum was when this was called.

        A write that must fail is agreed on by the quorum (it changes nothing and needs no rights), then all is read
        again: a server may hide what happened to nodes that this client may not read. So it takes two round trips, one
        transaction of the quorum, and time linear in the service; callers that wait at the same time share that.
        Without a connection it waits for one. A server without quorum (``allow_read_only``) passes no write: then the
        snapshot is what that server holds, ``fresh`` is False, and a warning says so.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: the quorum has not answered in time.
            NoAuth: the service may not be listed any more.
        """
        self._check()
        if timeout is not None:
            check_seconds("timeout", timeout)
        with anyio.move_on_after(timeout):
            await self._following().sync()
            return self._current()
        raise RequestTimeout(f"the quorum did not answer for {self.name!r} within timeout={timeout:g} s")

    # ------------------------------------------------------------------ opening and closing

    async def _open(self) -> None:
        kept = None if self._keeper is None else await self._keeper.load()
        departures = self._discovery.departures
        if self._guard is not None:
            departures.acquire()
        follower = self._discovery.acquire(self.name)
        try:
            if self._guard is not None:
                await departures.arm()  # of others the follower may have begun without
            await follower.until(
                lambda: follower.mirror.synced or follower.refusal is not None or self._can_do_without(kept)
            )
            if follower.refusal is not None:
                raise follower.refusal
        except BaseException:
            await self._released(follower)
            raise
        self._follower = follower
        if kept is not None and not follower.mirror.synced and not follower.mirror.as_of:
            self._recall(kept)
        else:
            self._adopt()
        if self._guard is not None:
            as_of = self._as_of()
            self._custody = Custody(self, self._guard, self._discovery.session, follower.mirror, as_of)
            if not follower.mirror.synced:
                self._custody.freshness_changed(False)
            elif kept is not None:
                self._judge_what_is_missing(kept, self._custody)
        if self._kept is None:
            self._to_be_kept()
        follower.attach(self)

    def _can_do_without(self, kept: Kept | None) -> bool:
        """Whether there is something to show, and nobody to ask for now whether it is true."""
        session = self._discovery.session
        away = not session.connected and session.state not in (SessionState.CLOSED, SessionState.FAILED)
        return away and kept is not None and bool(kept.entries)

    def _recall(self, kept: Kept) -> None:
        """Show what the process before kept, for as long as nothing was read; until then the file stays as it is."""
        session = self._discovery.session
        suspicion = Suspicion("file", session.runtime.wall(), math.inf)
        entries = {id: entry.with_suspicion(suspicion) for id, entry in kept.entries.items()}
        if self._typed:
            self._converted(Added(entry, 0) for entry in entries.values())
            entries, self._entries = self._entries, {}
        self._kept, self._recalled = kept, entries
        log.warning("%s begins with %d instances from a file: there is no connection", self.name, len(entries))
        session.emit("discovery.recalled", service=self.name, instances=len(entries), known_at=kept.known_at)

    def _judge_what_is_missing(self, kept: Kept, custody: Custody[P]) -> None:
        """Who started anew was away for a moment: what the process before knew, and is not listed, went meanwhile."""
        if self._discovery.session.runtime.wall() - kept.known_at > RECENT:
            return
        known = self._entries.keys() | self._following().mirror.invalid.keys() | self._misfits.keys()
        missing = [entry for id, entry in kept.entries.items() if id not in known]
        if self._typed:
            missing = [entry for each in missing if (entry := self._fitting(each)) is not None]
        if missing:
            custody.missed(missing, listed=len(self._entries))

    def _fitting(self, entry: Entry[Any]) -> Entry[P] | None:
        try:
            return entry.with_payload_type(self._payload_type)
        except InvalidInstance:
            return None

    def _adopt(self) -> None:
        """Show what the mirror holds."""
        entries = self._following().mirror.entries
        if self._typed:
            self._converted(Added(entry, 0) for entry in entries.values())
        else:
            self._entries = entries

    async def _close(self) -> None:
        follower = self._following()
        follower.detach(self)
        self.end(None)
        if self._keeper is not None:
            await self._keeper.aclose(self._discovery.patience())
        await self._released(follower)

    async def _released(self, follower: Follower) -> None:
        if self._guard is not None:
            self._discovery.departures.release()
        await finished(asyncio.get_running_loop().create_task(self._discovery.release(follower)))

    def _following(self) -> Follower:
        assert self._follower is not None
        return self._follower

    # ------------------------------------------------------------------ being told

    def take(self, news: News) -> None:
        """The follower's news."""
        if self._kept is not None:
            changes = self._judged()
        else:
            changes = self._converted(news.changes) if self._typed else news.changes
        if self._custody is not None:
            changes = self._custody.take(changes, news, listed=len(self._entries), misfits=self._misfits)
        misfits = [self._misfits[change.id] for change in news.changes if change.id in self._misfits]
        self._show(changes, resynced=news.resynced, invalid=(*news.invalid, *misfits))

    def departed(self, id: str, czxid: int) -> None:
        """The node of *id* that was created by *czxid* is withdrawn."""
        if self._custody is not None:
            self._show_if_any(self._custody.departed(id, czxid, listed=id in self._entries or id in self._recalled))

    def freshness_changed(self) -> None:
        """What was fresh is not, or is again."""
        fresh = self._following().fresh
        if self._custody is not None:
            self._show_if_any(self._custody.freshness_changed(fresh))
        if not fresh and self._kept is None:
            self._to_be_kept()  # since when: the file of a process that is killed meanwhile tells how old it is
        self._snapshots.offer(None)

    def subsets(self) -> Iterator[Subset[P]]:
        """What the balancers of this view pick from, where that is less than all."""
        for balancer in list(self._balancers.values()):
            yield from balancer.subsets()

    def _holds_are_over(self) -> None:
        assert self._custody is not None, "its timer has fired"
        # After the process was stopped for a while this timer may run before what tells that the view is not fresh.
        self._following().note_freshness()
        self._show_if_any(self._custody.due())

    def _note_failure(self, id: str, error: BaseException | None, since: float) -> bool:
        if not self._custody or not is_refusal(error):  # there is none, or it holds nobody
            return False
        return self._show_if_any(self._custody.refused(id, since))

    def _note_answer(self, id: str) -> None:
        if self._custody:
            self._custody.answered(id)

    def _show_if_any(self, changes: tuple[Difference[P], ...]) -> bool:
        if changes:
            self._show(changes, resynced=False)
        return bool(changes)

    def _show(self, changes: tuple[Difference[P], ...], *, resynced: bool, invalid: Iterable[Invalid] = ()) -> None:
        self._latest = None
        for balancer in list(self._balancers.values()):
            self._tell(balancer, changes)
        if resynced:
            self._changes.offer(Resynced(changes, self._current()))
        else:
            for change in changes:
                self._changes.offer(change)
            for node in invalid:
                self._changes.offer(Invalidated(node, self._as_of()))
        self._snapshots.offer(None)
        self._to_be_kept()

    def _tell(self, balancer: Balancer[P], changes: tuple[Difference[P], ...]) -> None:
        try:
            foreign.call(balancer.take, changes)
        except foreign.ForeignError as failure:  # a pool of the caller's own: what it holds now, nobody knows
            log.exception("%s: a balancer has failed, and picks no more", self.name)
            ended = RegistryError(f"the balancer of {self.name!r} has failed: {failure}")
            ended.__cause__ = failure.error
            balancer.end(ended)

    def end(self, error: RegistryError | None) -> None:
        """Nothing more comes."""
        self._repeated.close()
        if self._custody is not None:
            self._custody.close()
        for balancer in list(self._balancers.values()):
            balancer.end(error)
        self._snapshots.close(error)
        self._changes.close(error)

    # ------------------------------------------------------------------ what is known

    def _current(self) -> Snapshot[P]:
        stale_since, latest = self._stale_since(), self._latest
        if latest is None:
            invalid = {**self._following().mirror.invalid, **self._misfits}
            entries = self._entries.copy()
            entries.update(self._recalled)
            if self._custody:  # is there, and holds somebody
                entries.update(self._custody.entries)
            latest = Snapshot(self.name, entries, invalid, as_of=self._as_of(), stale_since=stale_since)
        elif latest.stale_since != stale_since:
            latest = latest.with_stale_since(stale_since)
        self._latest = latest
        return latest

    def _as_of(self) -> int:
        return self._following().mirror.as_of if self._kept is None else self._kept.as_of

    def _stale_since(self) -> float | None:
        return self._following().stale_since() if self._kept is None else self._kept.known_at

    def _judged(self) -> tuple[Difference[P], ...]:
        """All was read for the first time: how that differs from what a file said."""
        recalled, zxid = self._recalled, self._following().mirror.as_of
        self._kept, self._recalled = None, {}
        self._misfits.clear()
        self._adopt()
        changes: list[Difference[P]] = []
        for id, entry in self._entries.items():
            before = recalled.pop(id, None)
            changes.append(Added(entry, zxid) if before is None else Updated(entry, before, zxid))
        return (*changes, *(Removed(entry, zxid) for entry in recalled.values()))

    def _to_be_kept(self) -> None:
        if self._keeper is not None:
            self._keeper.changed()

    def _to_keep(self) -> Kept:
        from .kept import Kept

        session, mirror = self._discovery.session, self._following().mirror
        since = self._following().stale_since()
        known_at = session.runtime.wall() if since is None else since
        entries = mirror.entries.copy()  # payloads as they were read, whatever this view's type leaves of them
        if self._custody:
            entries.update(self._custody.entries)
        return Kept(self.name, self._discovery._base_path or "/", known_at, mirror.as_of, entries)

    def _converted(self, changes: Iterable[Difference[Any]]) -> tuple[Difference[P], ...]:
        """Apply the mirror's *changes* to the converted entries; what does not fit counts as absent."""
        converted: list[Difference[P]] = []
        for change in changes:
            before = self._entries.pop(change.id, None)
            self._misfits.pop(change.id, None)
            after = None if isinstance(change, Removed) else self._convert(change.entry)
            if after is not None:
                self._entries[change.id] = after
                converted.append(Added(after, change.zxid) if before is None else Updated(after, before, change.zxid))
            elif before is not None:
                node = change.invalid if isinstance(change, Removed) else self._misfits.get(change.id)
                converted.append(Removed(before, change.zxid, node))
        return tuple(converted)

    def _convert(self, entry: Entry[Any]) -> Entry[P] | None:
        id = entry.instance.id
        try:
            return entry.with_payload_type(self._payload_type)
        except InvalidInstance as error:
            self._repeated.tell(
                "misfit", logging.WARNING, "the payload of %s/%s does not fit: %s", self.name, id, error.reason
            )
            self._misfits[id] = Invalid(id, error.reason, entry.owner, entry.czxid, entry.mzxid)
            return None

    def _title(self) -> str:
        return f"View of {self.name!r}"

    def __repr__(self) -> str:
        if self._follower is None:
            return f"<View {self.name}, not entered>"
        stale_since = self._stale_since()
        state = "fresh" if stale_since is None else f"stale since {stale_since:.3f}"
        number, suspects = len(self._entries), len(self._custody or ()) + len(self._recalled)
        instances = f"{number + suspects} instances" + (f" ({suspects} suspect)" if suspects else "")
        held = f", {self.held_total} held so far" if self.held_total else ""
        return f"<View {self.name}: {instances}, {state}, as of zxid {self._as_of():#x}{held}>"


class _Snapshots(Stream[Snapshot[P]]):
    """Latest wins: a snapshot is made when it is taken."""

    def __init__(self, view: View[P]) -> None:
        super().__init__(1)
        self._view = view

    def _take(self) -> Snapshot[P]:
        super()._take()
        return self._view._current()


class Changes(Stream[Change[P]]):
    """The changes of a view after ``start``.

    What a consumer has not taken yet is kept up to a bound. Beyond it only the entries that it believes in are
    remembered, as far as they changed; when it comes back it gets the differences between those and the present ones.
    """

    def __init__(self, view: View[P], *, invalid: bool = False) -> None:
        super().__init__(CHANGES_KEPT)
        self._invalid = invalid
        self.start: Snapshot[P] = view._current()
        self._view = view
        self._believed: dict[str, Entry[P] | None] | None = None

    async def aclose(self) -> None:
        """End the stream now; a task that waits on it sees its end. Never blocks."""
        self._believed = None
        await super().aclose()

    def _ready(self) -> bool:
        return self._believed is not None or super()._ready()

    def _offer(self, item: Change[P] | Invalidated) -> None:
        if self._ended or (isinstance(item, Invalidated) and not self._invalid):
            return
        if self._believed is None and len(self._items) == CHANGES_KEPT:
            self._believed = {}
            for missed in self._items:
                self._miss(missed)
            self._items.clear()
        if self._believed is None:
            super()._offer(item)  # type: ignore[arg-type]  # by its type an Invalidated is only in the stream of who asks
        else:
            self._miss(item)

    def _miss(self, change: Change[P] | Invalidated) -> None:
        if isinstance(change, Invalidated):
            return  # the snapshot that is given in its stead has it
        for each in change.changes if isinstance(change, Resynced) else (change,):
            believed = self._believed
            assert believed is not None
            if each.id not in believed:
                believed[each.id] = None if isinstance(each, Added) else _before(each)
            elif isinstance(each, Removed) and believed[each.id] is None:
                del believed[each.id]  # came and went unseen: remembering it would know no bound

    def _take(self) -> Change[P]:
        if self._believed is None:
            return super()._take()
        believed, self._believed = self._believed, None
        snapshot = self._view._current()
        differences = (_difference(before, snapshot.entries.get(id), snapshot.as_of) for id, before in believed.items())
        return Resynced(tuple(change for change in differences if change is not None), snapshot)


def _accepted(predicate: Callable[[Snapshot[P]], bool], snapshot: Snapshot[P]) -> bool:
    try:
        return foreign.call(predicate, snapshot)
    except foreign.ForeignError as failure:
        error = failure.error
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
            raise error from error.__cause__
        raise UsageError(f"the predicate raised {failure}") from error


def _before(change: Updated[P] | Removed[P]) -> Entry[P]:
    return change.previous_entry if isinstance(change, Updated) else change.entry


def _difference(before: Entry[P] | None, after: Entry[P] | None, zxid: int) -> Difference[P] | None:
    if after is before:
        return None
    if after is None:
        assert before is not None
        return Removed(before, zxid)
    return Added(after, zxid) if before is None else Updated(after, before, zxid)
