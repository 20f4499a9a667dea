"""The guard of one view: which removals are believed at once, and which are held back for a while. Pure.

When ZooKeeper comes back from an outage, every session may have expired, and every instance is about to register again:
who believes the empty list that is read first drops a whole service that is alive. To a watcher an expiry is all there
is to see of it. So it is judged by three facts: how many went together, whether that was around a disruption, and who
left a marker (see :mod:`.departures`).

**The period.** An unexplained removal is counted for ``within`` seconds, or for as long as the instance's published
session timeout where that is longer: instances that are cut off together expire within one timeout of each other. A
disruption (the view is not fresh) and a new leader (a higher epoch, the upper half of a zxid) keep the period open for
the instance's hold after they are over, because that is when sessions expire together: a new leader gives every
session one timeout from its election on.

**The threshold.** When more than ``share`` of the instances, those listed and those counted, went within the period,
all that are counted become *suspect*, also those that were shown as removed before the threshold was passed. One that
comes back does not count any longer.

**The fewest.** In quiet times three are needed, or two where they were all there was: an empty list helps no caller,
and two replicas are the commonest service. One that goes alone in quiet times is believed at once.

**Subsets.** A balancer that filters, or prefers its own zone, sees a service of its own: four of twenty that go are a
fifth of the service and may be all of a zone. Each such subset is judged by the same rule, among its own instances.

**Explained removals** are shown at once and not counted: a marker with a czxid not below the entry's (within one
history a later one means that the id was taken again, and then left deliberately), or an instance that was disabled
before, which announces that it will leave.

**The hold** of a suspect ends when it comes back, when the time is up, or when callers found that nothing listens there
(see :mod:`.evidence`). While the view is not fresh it cannot see instances come back, so that time does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from aioregistry._arguments import as_written
from aioregistry._model import Added, Difference, Entry, Removed, ServiceInstance, Suspicion, Updated

from .alarms import Alarms
from .evidence import Refusals
from .guard_options import Guard
from .subsets import Subset, Subsets

__all__ = ["Moment", "Release", "Subset", "Suspects", "Verdict"]

P = TypeVar("P")

FEWEST_IN_QUIET: Final = 3
"""Unexplained removals below which nothing is held in quiet times: two crashes together are nothing special."""

FEWEST_OF_ALL: Final = 2
"""The same where they were all the instances there were."""

FEWEST_AROUND_DISRUPTIONS: Final = 2
"""The same around a disruption or a new leader, where one is held too if it was the only instance."""


def _at_least(seconds: float, entry: Entry[Any], longest: float) -> float:
    """Return *seconds*, or the session timeout that *entry* publishes, up to *longest*."""
    published = min((entry.instance.session_timeout_ms or 0) / 1000, longest)
    return max(seconds, published)


class Moment(NamedTuple):
    """Now, by both clocks: the one that never steps back, and seconds since the epoch."""

    now: float
    wall: float


class Release(NamedTuple):
    """A suspect that ceased to be one.

    ``why`` is ``"came back"``, ``"time is up"``, ``"failed"``, ``"withdrawn"`` or ``"invalid"`` (its node is back and
    shows no instance).
    """

    id: str
    why: str


class Verdict(NamedTuple, Generic[P]):
    """The instances to show, and the notes about them."""

    changes: tuple[Difference[P], ...]
    held: tuple[Entry[P], ...] = ()
    released: tuple[Release, ...] = ()


_NOTHING: Final[Verdict[Any]] = Verdict(())

_MASS_REMOVAL: Final = "mass removal"
_DISRUPTION: Final = "disruption"
_NEW_LEADER: Final = "new leader"


class _Held(NamedTuple, Generic[P]):
    """A suspect, by the clock that never steps back."""

    entry: Entry[P]
    since: float
    until: float


class Suspects(Generic[P]):
    """The removals counted and the instances held of one view.

    Args:
        guard: the options.
        zxid: that of the view's first state.
        subsets: returns those that are judged beside the whole service.

    Attributes:
        wake: when :meth:`due` is to be called, at the latest; None while nothing depends on the clock.
    """

    def __init__(self, guard: Guard, zxid: int, subsets: Callable[[], Iterable[Subset]] = tuple) -> None:
        self.wake: float | None = None
        self._guard = guard
        self._share = as_written(guard.share)
        self._zxid = zxid
        self._subsets = Subsets(subsets)
        self._held: dict[str, _Held[P]] = {}
        self._ends = Alarms()  # of holds
        self._refusals = Refusals()
        # Unexplained removals of the period; the ids of those not held, oldest first.
        self._counted: dict[str, Entry[P]] = {}
        self._forgotten = Alarms()  # when each stops counting, at the earliest
        self._shown_removed: dict[str, None] = {}
        self._markers: dict[str, int] = {}
        self._interrupted: float | None = None
        self._resumed = -math.inf
        self._elected = -math.inf

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, id: object) -> bool:
        return id in self._held

    @property
    def refusing(self) -> int:
        """How many have refused a connection and not answered since."""
        return len(self._refusals)

    @property
    def entries(self) -> Mapping[str, Entry[P]]:
        """The suspects."""
        return {id: held.entry for id, held in self._held.items()}

    def begin(self, zxid: int) -> None:
        """The view's first snapshot is as of *zxid*."""
        self._zxid = zxid

    # ------------------------------------------------------------------ the mirror's news

    def concerned(self, changes: Iterable[Difference[P]], zxid: int) -> bool:
        """Return whether *changes* need :meth:`take`; they are shown as they are where not, as almost always."""
        before = self._zxid
        if self._held or self._counted or self._refusals or zxid < before or zxid >> 32 != before >> 32:
            return True
        self._zxid = zxid
        for change in changes:  # noqa: SIM110 - on the way of every change: a generator costs three times as much
            if type(change) is Removed:
                return True
        return False

    def take(
        self,
        changes: Iterable[Difference[P]],
        *,
        listed: int,
        zxid: int,
        at: Moment,
        gone: Callable[[str], bool],
    ) -> Verdict[P]:
        """Return the part of *changes* to show.

        Args:
            changes: the mirror's.
            listed: how many instances there are after them.
            zxid: that the mirror is as of.
            at: now.
            gone: of an id, whether it has no node any more; one that shows no instance is not a removal to hold back.
        """
        self._forget(at.now)
        self._observe(zxid, at.now)
        shown: list[Difference[P]] = []
        lost: dict[str, int] = {}  # where in shown
        came: list[ServiceInstance[P]] = []
        released: list[Release] = []
        for change in changes:
            id = change.id
            if not isinstance(change, Removed):
                self._uncount(id)
                self._refusals.forget(id)
                lost.pop(id, None)
                if id in self._held or isinstance(change, Added):
                    came.append(change.entry.instance)
                shown.append(self._come_back(change, released) if id in self._held else change)
                continue
            if not self._explained(change.entry) and gone(id):
                self._count(id, change.entry, at.now)
                lost[id] = len(shown)
            shown.append(change)
        held = self._judge(shown, lost, came, listed, zxid, at) if lost else []
        return Verdict(tuple(shown), tuple(held), tuple(released))

    def _come_back(self, change: Added[P] | Updated[P], released: list[Release]) -> Updated[P]:
        released.append(Release(change.id, "came back"))
        self._ends.drop(change.id)
        self._refusals.forget(change.id)
        return Updated(change.entry, self._held.pop(change.id).entry, change.zxid)

    def _observe(self, zxid: int, now: float) -> None:
        if zxid < self._zxid:
            self._markers.clear()  # the history was rolled back
        elif zxid >> 32 != self._zxid >> 32:
            self._elected = now
        self._zxid = zxid

    def _explained(self, entry: Entry[P]) -> bool:
        instance = entry.instance
        announced = not instance.enabled and instance.status != "failing"  # which says nothing of leaving
        return self._markers.pop(instance.id, -1) >= entry.czxid or announced

    # ------------------------------------------------------------------ how many are too many

    def _judge(
        self,
        shown: list[Difference[P]],
        lost: Mapping[str, int],
        came: list[ServiceInstance[P]],
        listed: int,
        zxid: int,
        at: Moment,
    ) -> list[Entry[P]]:
        """Hold back the counted removals, if they are too many; return the entries that are suspect from now on."""
        self._shown_removed.update(dict.fromkeys(lost))
        reason = self._reason((self._counted[id] for id in lost), at.now)
        if self._is_too_much(len(self._counted), listed + len(self._counted), reason):
            return self._hold(list(self._shown_removed), reason, shown, lost, zxid, at)
        held: list[Entry[P]] = []
        for subset, part in self._subsets.parts(self._counted, self._shown_removed):
            now_lost = sum(id in part.inside for id in lost)
            if not now_lost:
                continue
            listed = subset.confirmed() - now_lost + sum(map(subset.admits, came))
            gone = len(part.inside)
            if self._is_too_much(gone, max(listed, 0) + gone, reason):
                held += self._hold(list(part.removed), reason, shown, lost, zxid, at)
        self._wake_at(self._forgotten.first())
        return held

    def _hold(
        self,
        ids: Collection[str],
        reason: str,
        shown: list[Difference[P]],
        lost: Mapping[str, int],
        zxid: int,
        at: Moment,
    ) -> list[Entry[P]]:
        held: list[Entry[P]] = []
        dead = self._refusals.condemn(ids, at.now) if self._refusals else ()
        for id in ids:
            if id in dead:
                continue  # calls have told: it stays removed
            entry = self._counted[id]
            seconds = _at_least(self._guard.hold, entry, self._guard.longest)
            suspect = entry.with_suspicion(Suspicion(reason, at.wall, at.wall + seconds))
            self._held[id] = _Held(suspect, at.now, at.now + seconds)
            self._ends.set(id, at.now + seconds)
            held.append(suspect)
            del self._shown_removed[id]
            self._subsets.hold(id)
            if id in lost:
                place = lost[id]
                shown[place] = Updated(suspect, entry, shown[place].zxid)
            else:
                shown.append(Added(suspect, zxid))
        self._wake_at(self._ends.first())
        return held

    def _is_too_much(self, gone: int, known: int, reason: str) -> bool:
        if reason != _MASS_REMOVAL:
            fewest = min(FEWEST_AROUND_DISRUPTIONS, known)
        else:
            fewest = FEWEST_OF_ALL if gone == known else FEWEST_IN_QUIET
        return gone >= fewest and gone * self._share.denominator > self._share.numerator * known

    def _reason(self, entries: Iterable[Entry[P]], now: float) -> str:
        hold = max(_at_least(self._guard.hold, entry, self._guard.longest) for entry in entries)
        if now < self._elected + hold:
            return _NEW_LEADER
        return _DISRUPTION if self._interrupted is not None or now < self._resumed + hold else _MASS_REMOVAL

    # ------------------------------------------------------------------ disruptions

    def interrupted(self, now: float) -> None:
        """The view is not fresh any more: holds stand still."""
        if self._interrupted is None:
            self._forget(now)
            self._interrupted = now
            self.wake = None

    def resumed(self, zxid: int, at: Moment) -> Verdict[P]:
        """The view is fresh again, or about to be: holds go on, later by as long as that took."""
        if self._interrupted is None:
            return _NOTHING
        interrupted, self._interrupted = self._interrupted, None
        self._resumed = at.now
        changes: list[Difference[P]] = []
        for id, held in self._held.items():
            until = held.until + at.now - max(interrupted, held.since)
            if until == held.until or held.entry.suspicion is None:
                continue
            suspicion = Suspicion(held.entry.suspicion.reason, held.entry.suspicion.since, at.wall + until - at.now)
            moved = _Held(held.entry.with_suspicion(suspicion), held.since, until)
            changes.append(Updated(moved.entry, held.entry, zxid))
            self._held[id] = moved  # in the place of another: the iteration does not mind
            self._ends.set(id, until)
        self._look_at_the_clock()
        return Verdict(tuple(changes))

    # ------------------------------------------------------------------ single instances

    def withdrawn(self, id: str, czxid: int, zxid: int, *, listed: bool) -> Verdict[P]:
        """A marker came: the node of *id* that was created by *czxid* is withdrawn.

        The removal of one that is *listed* comes right after; it is remembered until then.
        """
        held = self._held.get(id)
        if held is not None and czxid >= held.entry.czxid:
            return self._let_go([id], "withdrawn", zxid)
        if id in self._shown_removed and czxid >= self._counted[id].czxid:
            self._uncount(id)
        if listed:
            self._markers[id] = max(czxid, self._markers.get(id, 0))
        return _NOTHING

    def refused(self, id: str, zxid: int, *, since: float, now: float) -> Verdict[P]:
        """*id* refused the connection of a call that began at *since*; see :mod:`.evidence` for the consequences."""
        self._refusals.refused(id, since, now)
        if id not in self._held:
            return _NOTHING
        dead = self._refusals.condemn(self._held.keys(), now)
        return self._let_go([id for id in self._held if id in dead], "failed", zxid) if dead else _NOTHING

    def answered(self, id: str, now: float) -> None:
        """A call to *id* was good."""
        if self._held or self._refusals:
            self._refusals.answered(id, now)

    def invalid(self, ids: Iterable[str], zxid: int) -> Verdict[P]:
        """These have a node that shows no instance."""
        return self._let_go([id for id in ids if id in self._held], "invalid", zxid)

    def _let_go(self, ids: Iterable[str], why: str, zxid: int) -> Verdict[P]:
        changes: list[Difference[P]] = []
        released: list[Release] = []
        for id in ids:
            suspect = self._held.pop(id).entry
            self._ends.drop(id)
            self._refusals.forget(id)
            self._uncount(id)
            changes.append(Removed(suspect, zxid))
            released.append(Release(id, why))
        return Verdict(tuple(changes), (), tuple(released))

    # ------------------------------------------------------------------ the clock

    def due(self, zxid: int, now: float) -> Verdict[P]:
        """Return whose hold is over; to be called when :attr:`wake` has come."""
        if self._interrupted is not None:
            return _NOTHING
        verdict = self._let_go(self._ends.take(now), "time is up", zxid)
        self._forget(now)
        self._look_at_the_clock()
        return verdict

    def _look_at_the_clock(self) -> None:
        self.wake = None
        self._wake_at(self._ends.first())
        self._wake_at(self._forgotten.first())

    def _wake_at(self, moment: float | None) -> None:
        if self._interrupted is None and moment is not None:  # resuming looks at the clock
            self.wake = moment if self.wake is None else min(self.wake, moment)

    def _count(self, id: str, entry: Entry[P], now: float) -> None:
        self._counted[id] = entry
        self._subsets.count(id)
        self._forgotten.set(id, now + _at_least(self._guard.within, entry, self._guard.longest))

    def _forget(self, now: float) -> None:
        """Stop counting the removals from before the period."""
        if self._interrupted is not None:
            return
        loud = max(self._elected, self._resumed)
        for id in self._forgotten.take(now):
            hold = 0.0 if loud == -math.inf else _at_least(self._guard.hold, self._counted[id], self._guard.longest)
            if loud + hold > now:
                self._forgotten.set(id, loud + hold)
            else:
                self._uncount(id)

    def _uncount(self, id: str) -> None:
        if self._counted.pop(id, None) is not None:
            self._forgotten.drop(id)
            self._subsets.uncount(id)
            if not self._counted:
                self._subsets.forget()
        self._shown_removed.pop(id, None)
