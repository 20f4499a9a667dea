"""A view of a service: what a consumer holds, with an alarm clock and those it tells.

Its core (:mod:`.core`) decides what it shows and what follows from an event; :mod:`.fanout` decides whom it tells, and
in which order. The view carries events to the core and effects to them.
"""

# Longer than 450 lines: more than half of it says what the arguments of the public handle mean, and what it raises.

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar, overload

import anyio

from aioregistry import _foreign as foreign
from aioregistry._arguments import check_callable, check_flag, check_optional, check_seconds
from aioregistry._concurrency import SHORTEST_WAIT, Alarm
from aioregistry._errors import HandleClosed, InvalidType, RegistryError, RequestTimeout, UsageError
from aioregistry._handles import Handle, finished
from aioregistry._model import Change, Invalidated, Override, Snapshot, check_payload_type
from aioregistry._paths import check_name
from aioregistry._session import ReadingSessionPort, SessionState
from aioregistry._spans import begin
from aioregistry._streams import Stream

from .balancer import Balancer, tally_of
from .core import Effects, ViewCore
from .departures import Departures
from .evidence import is_refusal
from .fanout import Balancers, ChangeStreams, Fanout, SnapshotFile, SnapshotStreams
from .follower import Follower
from .guard import Moment
from .guard_options import Guard
from .mirror import News
from .overrides import OverrideReader, Told
from .stages import Called, Due, Event, FreshnessChanged, Held, Opened, Options, Overridden, Withdrawn
from .subscriptions import Changes
from .tallies import Tallies
from .telling import Telling

if TYPE_CHECKING:
    from aioregistry.balancing import Ejection, Filter, OfSuspects
    from aioregistry.balancing import Strategy as Balancing

    from .keeper import Keeper
    from .kept import Kept

__all__ = ["KeptAt", "Mirrors", "View", "accepted"]

P = TypeVar("P")

KeptAt: TypeAlias = str | os.PathLike[str]
"""Where a file is."""

PANIC: Final = 0.5
"""The default of :meth:`View.balancer`'s ``panic``: that of Envoy's ``healthy_panic_threshold``."""


class Mirrors(Protocol):
    """The part of a discovery that its views need."""

    session: ReadingSessionPort
    base_path: str
    departures: Departures
    overrides: OverrideReader | None
    tallies: Tallies

    def acquire(self, name: str) -> Follower:
        """Return the follower of a service; each is to be released."""

    async def release(self, follower: Follower) -> None:
        """*follower* is needed no more."""

    def keeper(self, keep: KeptAt, view: View[Any], state: weakref.WeakMethod[Callable[[], Kept | None]]) -> Keeper:
        """Return who keeps the states of *view* in a file."""

    def patience(self) -> float:
        """Return how many seconds closing may take now."""


class View(Handle, Generic[P]):
    """The instances of one service, followed from entering until closing.

    Entering (``async with``, or ``await``) waits until everything was read once. While the session is away the last
    known instances stay, ``fresh`` is False and ``snapshot.stale_since`` set; after a reconnect everything is read
    again and what differs shows at once.

    Nodes that are not instances, or whose payload does not fit *payload_type*, are listed in ``snapshot.invalid`` with
    the reason, and logged. Nothing else suffers from them. A service whose node is missing is an empty one.

    With a guard, instances that go together unexplained stay for a while as suspects (``snapshot.suspects``).

    With a file, the last snapshot is kept there. Without a connection, entering does not wait for one if the file has
    instances: they are shown as suspects, for the reason ``"file"``, until everything was read. The guard
    judges those that the file has and the first list lacks, as removals around a disruption.

    Args:
        mirrors: of the session that is used.
        name: the service; a path segment, or several with slashes between.
        payload_type: what payloads are converted to, any type that msgspec converts JSON to; frozen JSON unless given.
        guard: which removals are held back; None to believe each at once.
        keep: path of the file; its directory is there and may be written to. Nothing is kept unless given.

    Raises:
        InvalidArgument: an argument is wrong; names it and its value.

    Entering raises :class:`InvalidArgument` for a file that is whole and of another service, base path or version,
    :class:`NoAuth` where the service may not be listed, :class:`UnsupportedServer` where recursive
    watches are demanded of a server without them, and what the session failed with. Cancelling it leaves nothing
    behind.
    """

    def __init__(
        self,
        mirrors: Mirrors,
        name: str,
        *,
        payload_type: Any = Any,
        guard: Guard | None = None,
        keep: KeptAt | None = None,
    ) -> None:
        self.name: str = check_name("name", name)
        check_optional("guard", guard, Guard)
        self._guard = guard
        self._payload_type = check_payload_type(payload_type)
        self._mirrors = mirrors
        self._follower: Follower | None = None
        self._core: ViewCore[P] | None = None
        self._latest: Snapshot[P] | None = None
        self._overrides: Mapping[str, Override] = {}
        self._unfollow: Callable[[], None] = _nothing
        self._held_total = 0
        self._alarm = Alarm()
        self._alarm_at: float | None = None
        self._telling = Telling(name, mirrors.session)
        self._keeper = None if keep is None else mirrors.keeper(keep, self, weakref.WeakMethod(self._to_keep))
        self._balancers: Balancers[P] = Balancers(name, mirrors.session.runtime.monotonic)
        self._changes: ChangeStreams[P] = ChangeStreams()
        self._snapshots: SnapshotStreams[P] = SnapshotStreams()
        file = SnapshotFile(self._keeper)
        self._fanout: Fanout[P] = Fanout(self._balancers, self._changes, self._snapshots, file)
        super().__init__()

    # ------------------------------------------------------------------ what it offers

    @property
    def snapshot(self) -> Snapshot[P]:
        """The present snapshot; a new one is made when you ask for it after a change, in time linear in the service."""
        self._check()
        return self._current()

    @property
    def fresh(self) -> bool:
        """Whether the snapshot is true now, as far as a client can know.

        True if everything was read on the present connection and the quorum has answered within the session timeout.
        Computed when read, on a clock that counts system sleep.
        """
        self._check()
        return self._following().fresh

    @property
    def held_total(self) -> int:
        """How many removals this view's guard has held back so far."""
        return self._held_total

    @property
    def arrivals(self) -> Mapping[str, float]:
        """Since when instances are new, by id, on the registry's clock; :class:`WarmUp` goes by it."""
        return self._balancers.arrivals

    def report_failed(self, id: str, error: BaseException | None = None) -> bool:
        """Report that a call to the instance *id* failed; return whether that dropped it.

        A suspect is dropped when it refused the connections of two calls, one after the other, while another instance
        answered (as the picks of a balancer report): nothing listens there then. All are dropped when every suspect
        refused and no instance answered for five seconds. No other failure drops one: it may be the caller's own.
        The picks of a balancer report by themselves.

        Args:
            id: of the instance that was called.
            error: what the call ended with; a refused connection is looked for in it and in its causes.

        Raises:
            InvalidArgument: an argument is of the wrong type.
        """
        self._check()
        if not isinstance(id, str):
            raise InvalidType("id", id, f"must be str, not {type(id).__name__}")
        if error is not None and not isinstance(error, BaseException):
            raise InvalidType("error", error, "must be an exception, or None")
        return self.note_failure(id, error, since=self._moment().now)

    def snapshots(self) -> Stream[Snapshot[P]]:
        """Return a stream of snapshots: the present one first, then one after each change and each flip of ``fresh``.

        Latest wins: a slow consumer skips what it missed. Ends when the view is closed; raises what ended the session.
        """
        self._check()
        return self._snapshots.open(self._current)

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
        check_flag("invalid", invalid)
        return self._changes.open(self._current, invalid=invalid)

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
            where: which instances may be picked, of the enabled ones and, in a panic, of the failing ones: a mapping of
                payload fields to what they must be (a value, or a set of values), or a function of the instance that
                returns a bool.
            ejection: when instances that fail are set aside; never unless given.
            suspects: whether those that the guard holds are picked: ``"last"``, when no other is left or too few
                are confirmed, ``"never"``, or ``"equal"`` to all others.
            panic: share of the instances, and of their weight; while fewer are well, or those that are weigh less,
                those whose own checks fail (status ``"failing"``) are picked like all others, and so are suspects, so
                that the few do not get every call. An instance that is in maintenance, draining or disabled by its
                owner is never picked. From 0 (never) to 1; Envoy's panic threshold, and its default. Suspects take part
                once a caller reports how calls go, as ``with`` blocks of picks do.

        Raises:
            InvalidArgument: an argument is wrong, or does not fit any of the instances that are there (no payload has
                the field of the weight, say).
        """
        balancer = Balancer(
            self,
            self._mirrors.session,
            strategy,
            check=self._check,
            where=where,
            ejection=ejection,
            suspects=suspects,
            panic=panic,
        )
        self.add_balancer(balancer)
        return balancer

    def add_balancer(self, balancer: Balancer[P]) -> None:
        """Feed *balancer* from now on, for as long as it is referenced: one that is picked from on another thread."""
        self._balancers.add(balancer)
        self._mirrors.tallies.add(self.name, balancer, tally_of(balancer))

    def attach(self, stream: Stream[Any]) -> None:
        """Offer *stream* a None whenever there is another snapshot: to a face on another thread."""
        self._snapshots.attach(stream)

    async def wait_for(self, predicate: Callable[[Snapshot[P]], bool], timeout: float | None = None) -> Snapshot[P]:
        """Return the first snapshot that *predicate* accepts, the present one included, fresh or not.

        Args:
            predicate: called with the present snapshot and after changes; what it raises is raised here, but what would
                be taken for something else (CancelledError, StopIteration) as UsageError, chained to it.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            InvalidArgument: *predicate* cannot be called (InvalidType), or *timeout* is not a time to wait for.
            RequestTimeout: no snapshot was accepted in time.
            HandleClosed: the view was closed meanwhile.
        """
        self._check()
        check_callable("predicate", predicate)
        if timeout is not None:
            check_seconds("timeout", timeout)
        with anyio.move_on_after(timeout):
            async with self.snapshots() as snapshots:
                async for snapshot in snapshots:
                    if accepted(predicate, snapshot):
                        return snapshot
            raise HandleClosed(f"{self._title()} was closed")
        raise RequestTimeout(f"no snapshot of {self.name!r} was accepted within timeout={timeout:g} s")

    async def sync(self, timeout: float | None = None) -> Snapshot[P]:
        """Return a snapshot as new as the quorum was when this was called.

        A write that must fail is agreed on by the quorum (it changes nothing and needs no rights), then all is read
        again: a server may hide what happened to nodes that this client may not read. So it takes two round trips, one
        transaction of the quorum, and time linear in the service; callers that wait at the same time share that.
        So are the overrides of operators, which are read again where they changed. Without a connection it waits for
        one. A server without quorum (``allow_read_only``) passes no write: then the
        snapshot is what that server holds, ``fresh`` is False, and a warning says so.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: the quorum has not answered in time.
            NoAuth: you may no longer list the service.
        """
        self._check()
        if timeout is not None:
            check_seconds("timeout", timeout)
        with anyio.move_on_after(timeout):
            overrides = self._mirrors.overrides
            await self._following().sync()
            while overrides is not None and not await overrides.settled(self.name):
                await self._following().sync()  # the connection was lost meanwhile
            return self._current()
        raise RequestTimeout(f"the quorum did not answer for {self.name!r} within timeout={timeout:g} s")

    # ------------------------------------------------------------------ opening and closing

    async def _open(self) -> None:
        span, session = begin("sync", service=self.name), self._mirrors.session
        try:
            await self._open_core()
        except BaseException as error:
            span.end(error, server=session.server)
            raise
        span.end(server=session.server, instances=len(self._shown))

    async def _open_core(self) -> None:
        mirrors = self._mirrors
        kept = None if self._keeper is None else await self._keeper.load()
        if self._guard is not None:
            mirrors.departures.acquire()
        follower = mirrors.acquire(self.name)
        mirror = follower.mirror
        if mirrors.overrides is not None:
            self._unfollow = mirrors.overrides.follow(self.name, _told(weakref.WeakMethod(self._overridden)))
        try:
            if self._guard is not None:
                await mirrors.departures.arm()  # of others the follower may have begun without
            await follower.until(lambda: mirror.synced or follower.refusal is not None or self._can_do_without(kept))
            if follower.refusal is not None:
                raise follower.refusal
            if mirrors.overrides is not None:
                await mirrors.overrides.settled(self.name)
        except BaseException:
            await self._released(follower)
            raise
        self._follower = follower
        overridden = mirrors.overrides is not None
        options = Options(
            self._payload_type, self._guard, self._keeper is not None, self._balancers.subsets, overridden
        )
        self._core = ViewCore(mirror, options)
        self._step(Opened(kept, listed=mirror.synced or bool(mirror.as_of), synced=mirror.synced))
        if self._overrides:
            self._step(Overridden(self._overrides))
        if self._keeper is not None:
            self._keeper.changed()
        follower.attach(self)

    def _can_do_without(self, kept: Kept | None) -> bool:
        """Whether there is something to show, and no server to confirm it now."""
        session = self._mirrors.session
        away = not session.connected and session.state not in (SessionState.CLOSED, SessionState.FAILED)
        return away and kept is not None and bool(kept.entries)

    async def _close(self) -> None:
        follower = self._following()
        follower.detach(self)
        self.end(None)
        if self._keeper is not None:
            await self._keeper.aclose(self._mirrors.patience())
        await self._released(follower)

    async def _released(self, follower: Follower) -> None:
        self._unfollow()
        if self._guard is not None:
            self._mirrors.departures.release()
        await finished(asyncio.get_running_loop().create_task(self._mirrors.release(follower)))

    def _following(self) -> Follower:
        assert self._follower is not None
        return self._follower

    # ------------------------------------------------------------------ being told

    def take(self, news: News) -> None:
        """The follower's news."""
        self._show(self._step(news))

    def departed(self, id: str, czxid: int) -> None:
        """The node of *id* that was created by *czxid* is withdrawn."""
        self._show_if_any(self._step(Withdrawn(id, czxid)))

    def freshness_changed(self) -> None:
        """The view ceased to be fresh, or is fresh again."""
        fresh = self._following().fresh
        self._show_if_any(self._step(FreshnessChanged(fresh)))
        self._fanout.freshness_changed(fresh)

    def _overridden(self, overrides: Mapping[str, Override]) -> None:
        self._overrides = overrides
        if self._core is not None and self._is_open:
            self._show(self._step(Overridden(overrides)))

    def note_failure(self, id: str, error: BaseException | None, since: float) -> bool:
        """A call to *id* that began at *since* ended with *error*; return whether that dropped the instance."""
        if not is_refusal(error):
            return False
        return self._show_if_any(self._step(Called(id, True, since)))

    def note_answer(self, id: str) -> None:
        """A call to *id* was good."""
        if self._shown.heeds_answers:
            self._show_if_any(self._step(Called(id, False, self._moment().now)))

    def end(self, error: RegistryError | None) -> None:
        """Nothing more comes."""
        self._set_alarm(None)
        self._telling.close()
        self._fanout.end(error)

    def _step(self, event: Event) -> Effects[P]:
        effects = self._shown.step(event, self._moment())
        if effects.notices:
            self._held_total += sum(len(each.entries) for each in effects.notices if isinstance(each, Held))
            self._telling.tell(effects.notices)
        if effects.wake_at != self._alarm_at:
            self._set_alarm(effects.wake_at)
        return effects

    def _show_if_any(self, effects: Effects[P]) -> bool:
        if effects.changes:
            self._show(effects)
        return bool(effects.changes)

    def _show(self, effects: Effects[P]) -> None:
        self._latest = None
        self._fanout.take(effects, self._current)

    # ------------------------------------------------------------------ the clock

    def _moment(self) -> Moment:
        runtime = self._mirrors.session.runtime
        return Moment(runtime.monotonic(), runtime.wall())

    def _set_alarm(self, moment: float | None) -> None:
        self._alarm.cancel()
        self._alarm_at = moment
        if moment is not None:
            # Weakly: a timer is not a reason for a view to stay.
            ring = partial(_wake, weakref.ref(self))
            self._alarm.set_in(max(moment - self._mirrors.session.runtime.monotonic(), SHORTEST_WAIT), ring)

    def _due(self) -> None:
        self._alarm_at = None
        # After the process was stopped for a while this timer may run before what tells that the view is not fresh.
        self._following().note_freshness()
        self._show_if_any(self._step(Due()))

    # ------------------------------------------------------------------ what is known

    @property
    def _shown(self) -> ViewCore[P]:
        assert self._core is not None
        return self._core

    def _current(self) -> Snapshot[P]:
        stale_since, latest = self._stale_since(), self._latest
        if latest is None:
            core = self._shown
            latest = Snapshot(
                self.name,
                core.entries,
                core.invalid,
                as_of=core.as_of,
                stale_since=stale_since,
                overrides=core.overrides,
            )
        elif latest.stale_since != stale_since:
            latest = latest.with_stale_since(stale_since)
        self._latest = latest
        return latest

    def _stale_since(self) -> float | None:
        recalled = self._shown.recalled
        return self._following().stale_since() if recalled is None else recalled.known_at

    def _to_keep(self) -> Kept | None:
        """The contents for the file; None while the snapshot comes from there."""
        from .kept import Kept

        core, since = self._shown, self._following().stale_since()
        if core.recalled is not None:
            return None
        known_at = self._mirrors.session.runtime.wall() if since is None else since
        return Kept(self.name, self._mirrors.base_path, known_at, core.as_of, core.to_keep)

    def _title(self) -> str:
        return f"View of {self.name!r}"

    def __repr__(self) -> str:
        if self._core is None:
            return f"<View {self.name}, not entered>"
        stale_since, core = self._stale_since(), self._core
        state = "fresh" if stale_since is None else f"stale since {stale_since:.3f}"
        suspects = len(core.suspects)
        instances = f"{len(core)} instances" + (f" ({suspects} suspect)" if suspects else "")
        held = f", {self.held_total} held so far" if self.held_total else ""
        return f"<View {self.name}: {instances}, {state}, as of zxid {core.as_of:#x}{held}>"


def _nothing() -> None:
    """Nothing is followed."""


def _told(told: weakref.WeakMethod[Told]) -> Told:
    """Return *told*, held weakly: being told of overrides is not a reason for a view to stay."""

    def tell(overrides: Mapping[str, Override]) -> None:
        method = told()
        if method is not None:
            method(overrides)

    return tell


def _wake(reference: weakref.ref[View[Any]]) -> None:
    view = reference()
    if view is not None:
        view._due()


def accepted(predicate: Callable[[Snapshot[P]], bool], snapshot: Snapshot[P]) -> bool:
    """Return whether *predicate* accepts *snapshot*; raises what it raises, or UsageError in place of what misleads."""
    try:
        return foreign.call(predicate, snapshot)
    except foreign.ForeignError as failure:
        error = failure.error
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
            raise error from error.__cause__
        raise UsageError(f"the predicate raised {failure}") from error
