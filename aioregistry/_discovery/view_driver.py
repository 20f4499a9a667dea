"""The core of a view at work: events go in, and their effects are carried out.

The core (:mod:`.core`) decides which instances are shown and what follows from an event; :mod:`.fanout` decides whom it
tells, and in which order. The driver carries events to the core and effects to the fan-out, and has the alarm clock.
The view (:mod:`.view`) is its handle for users; follower, balancers and files talk to the driver.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from aioregistry._concurrency import SHORTEST_WAIT, Alarm
from aioregistry._errors import RegistryError
from aioregistry._handles import finished
from aioregistry._model import Override, Snapshot
from aioregistry._session import ReadingSessionPort, SessionState
from aioregistry._streams import Stream

from .balancer_driver import BalancerDriver
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
from .tallies import Tallies
from .telling import Telling

if TYPE_CHECKING:
    from .keeper import Keeper
    from .kept import Kept

__all__ = ["Followers", "Keeping", "ViewDriver"]

P = TypeVar("P")

Keeping: TypeAlias = "Callable[[weakref.WeakMethod[Callable[[], Kept | None]]], Keeper]"
"""Makes the keeper of a file, which writes the states that the method returns."""


class Followers(Protocol):
    """The part of a discovery that its views' drivers need."""

    session: ReadingSessionPort
    base_path: str
    departures: Departures
    overrides: OverrideReader | None
    tallies: Tallies

    def acquire(self, name: str) -> Follower:
        """Return the follower of a service; each is to be released."""

    async def release(self, follower: Follower) -> None:
        """Stop using *follower*."""

    def patience(self) -> float:
        """Return how many seconds closing may take now."""


class ViewDriver(Generic[P]):
    """Keeps the snapshot of one view true, from :meth:`open` until :meth:`close`. Used on one loop.

    It is a consumer of the service's follower, which holds it weakly, and the feed of the view's balancers.

    Args:
        mirrors: the mirrors of the session.
        name: the service.
        payload_type: what payloads are converted to.
        guard: decides which removals are held back; with None every removal is believed at once.
        keeping: makes the keeper of the file, if there is a file.

    Attributes:
        name: the service.
        change_streams: the users' streams of changes.
        snapshot_streams: the users' streams of snapshots.
        held_total: how many removals the guard has held back so far.
    """

    def __init__(
        self, mirrors: Followers, name: str, payload_type: Any, guard: Guard | None, keeping: Keeping | None
    ) -> None:
        self.name = name
        self.change_streams: ChangeStreams[P] = ChangeStreams()
        self.snapshot_streams: SnapshotStreams[P] = SnapshotStreams()
        self.held_total = 0
        self._mirrors = mirrors
        self._payload_type = payload_type
        self._guard = guard
        self._follower: Follower | None = None
        self._core: ViewCore[P] | None = None
        self._latest: Snapshot[P] | None = None
        self._overrides: Mapping[str, Override] = {}
        self._unfollow: Callable[[], None] = _nothing
        self._ended = False
        self._alarm = Alarm()
        self._alarm_at: float | None = None
        self._telling = Telling(name, mirrors.session)
        self._keeper = None if keeping is None else keeping(weakref.WeakMethod(self._to_keep))
        self._balancers: Balancers[P] = Balancers(name, mirrors.session.runtime.monotonic)
        file = SnapshotFile(self._keeper)
        self._fanout: Fanout[P] = Fanout(self._balancers, self.change_streams, self.snapshot_streams, file)

    # ------------------------------------------------------------------ opening and closing

    async def open(self) -> int:
        """Follow the service, and return how many instances are shown; raises what entering a view does."""
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
        return len(self._shown)

    def _can_do_without(self, kept: Kept | None) -> bool:
        """Whether there is something to show, and no server to confirm it now."""
        session = self._mirrors.session
        away = not session.connected and session.state not in (SessionState.CLOSED, SessionState.FAILED)
        return away and kept is not None and bool(kept.entries)

    async def close(self) -> None:
        """Stop following: end all streams, and write the last state to the file."""
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

    async def sync(self) -> None:
        """Wait until the snapshot is as new as the quorum was when this was called."""
        overrides, follower = self._mirrors.overrides, self._following()
        await follower.sync()
        while overrides is not None and not await overrides.settled(self.name):
            await follower.sync()  # the connection was lost meanwhile

    # ------------------------------------------------------------------ told by the follower

    def take(self, news: News) -> None:
        """The follower's news."""
        self._show(self._step(news))

    def departed(self, id: str, czxid: int) -> None:
        """The node of *id* that was created by *czxid* is withdrawn."""
        self._show_if_any(self._step(Withdrawn(id, czxid)))

    def freshness_changed(self) -> None:
        """The view ceased to be fresh, or is fresh again."""
        fresh = self.fresh
        self._show_if_any(self._step(FreshnessChanged(fresh)))
        self._fanout.freshness_changed(fresh)

    def end(self, error: RegistryError | None) -> None:
        """Nothing more comes."""
        self._ended = True
        self._set_alarm(None)
        self._telling.close()
        self._fanout.end(error)

    def _overridden(self, overrides: Mapping[str, Override]) -> None:
        self._overrides = overrides
        if self._core is not None and not self._ended:
            self._show(self._step(Overridden(overrides)))

    # ------------------------------------------------------------------ told by callers of instances

    def note_failure(self, id: str, error: BaseException | None, since: float) -> bool:
        """A call to *id* that began at *since* ended with *error*; return whether that dropped the instance."""
        if not is_refusal(error):
            return False
        return self._show_if_any(self._step(Called(id, True, since)))

    def report_failed(self, id: str, error: BaseException | None) -> bool:
        """A call to *id* ended now with *error*; return whether that dropped the instance."""
        return self.note_failure(id, error, since=self._moment().now)

    def note_answer(self, id: str) -> None:
        """A call to *id* was good."""
        if self._shown.heeds_answers:
            self._show_if_any(self._step(Called(id, False, self._moment().now)))

    # ------------------------------------------------------------------ what follows

    def _step(self, event: Event) -> Effects[P]:
        effects = self._shown.step(event, self._moment())
        if effects.notices:
            self.held_total += sum(len(each.entries) for each in effects.notices if isinstance(each, Held))
            self._telling.tell(effects.notices)
        if effects.wake_at != self._alarm_at and not self._ended:  # callers report also when the view is closed
            self._set_alarm(effects.wake_at)
        return effects

    def _show_if_any(self, effects: Effects[P]) -> bool:
        if effects.changes:
            self._show(effects)
        return bool(effects.changes)

    def _show(self, effects: Effects[P]) -> None:
        self._latest = None
        self._fanout.take(effects, self._snapshot)

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

    # ------------------------------------------------------------------ facts, and for whom

    @property
    def session(self) -> ReadingSessionPort:
        """The session that is used."""
        return self._mirrors.session

    @property
    def fresh(self) -> bool:
        """Whether the snapshot is true now, as far as a client can know."""
        return self._following().fresh

    @property
    def arrivals(self) -> Mapping[str, float]:
        """Since when instances are new, by id, on the session's clock; kept up before changes are reported."""
        return self._balancers.arrivals

    @property
    def snapshot(self) -> Snapshot[P]:
        """The present snapshot; another is made after a change, in time linear in the service."""
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

    def snapshots(self) -> Stream[Snapshot[P]]:
        """Return a stream that wakes after whatever changes."""
        return self.snapshot_streams.open(self._snapshot)

    def feed(self, balancer: BalancerDriver[P]) -> None:
        """Tell *balancer* of what changes from now on, for as long as it is referenced."""
        self._balancers.add(balancer)
        self._mirrors.tallies.add(self.name, balancer, balancer.tally)

    def _snapshot(self) -> Snapshot[P]:
        return self.snapshot

    @property
    def _shown(self) -> ViewCore[P]:
        assert self._core is not None
        return self._core

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


def _wake(reference: weakref.ref[ViewDriver[Any]]) -> None:
    driver = reference()
    if driver is not None:
        driver._due()
