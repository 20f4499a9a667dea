"""A picker at work: changes and reports go in, with the clock and the chance; log and events come out.

How an instance is chosen, and where a new way to choose goes, is the room `aioregistry/balancing/`. The balancer
(:mod:`.balancer`) is the driver's handle for users; views and picks talk to the driver.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, ParamSpec, Protocol, TypeVar

import anyio

from aioregistry import _foreign as foreign
from aioregistry._concurrency import SHORTEST_WAIT
from aioregistry._errors import (
    HandleClosed,
    InvalidArgument,
    InvalidType,
    NoInstances,
    RegistryError,
    RequestTimeout,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._model import Difference, Snapshot
from aioregistry._session import ReadingSessionPort, outage_attempts
from aioregistry._streams import Stream
from aioregistry.balancing import NOBODY, Ejection, Filter, Load, Member, OfSuspects, Picker, Strategy, Subset

from .pick import Pick
from .tallies import Tally

__all__ = ["BalancerDriver", "Feed"]

log = logging.getLogger("aioregistry.discovery")

P = TypeVar("P")
A = ParamSpec("A")
R = TypeVar("R")


class Feed(Protocol[P]):
    """The part of a view that its balancer needs."""

    name: str

    @property
    def arrivals(self) -> Mapping[str, float]:
        """Since when instances are new, by id; kept up before changes are reported."""

    @property
    def snapshot(self) -> Snapshot[P]:
        """The present snapshot."""

    def snapshots(self) -> Stream[Snapshot[P]]:
        """Return a stream that wakes after whatever changes."""

    def note_failure(self, id: str, error: BaseException | None, since: float) -> bool:
        """A call to *id* that began at *since* ended with *error*."""

    def note_answer(self, id: str) -> None:
        """A call to *id* was good."""


class BalancerDriver(Generic[P]):
    """The instances that one balancer picks from. Its view tells it of changes, and its picks report how calls went.

    Args:
        feed: its view.
        session: of the registry: for its clock, its chance and its hook.
        strategy: how to choose.
        check: raises where the view cannot be used.
        where: which instances may be picked.
        ejection: when instances that fail are set aside.
        suspects: when suspects are picked.
        panic: share of the instances, and of their weight, below which all are picked.

    Attributes:
        picker: chooses.
        tally: its counts.
        errors: those that count against the instance where they leave the block of a pick.
    """

    def __init__(
        self,
        feed: Feed[P],
        session: ReadingSessionPort,
        strategy: Strategy[P] | str,
        *,
        check: Callable[[], None],
        where: Filter[P] | None,
        ejection: Ejection | None,
        suspects: OfSuspects,
        panic: float,
    ) -> None:
        runtime = session.runtime
        self._feed = feed
        self._check = check  # raises where the view cannot be used
        self._session = session
        self._now = runtime.monotonic
        self._ended: RegistryError | None = None
        self.tally: Tally = Tally()
        self._repeated = IncidentLog(log, service=feed.name)
        self._naps: dict[anyio.CancelScope, None] = {}  # of those that wait for an instance
        try:
            self.picker: Picker[P] = foreign.call(
                Picker,
                feed.snapshot,
                strategy,
                where=where,
                ejection=ejection,
                suspects=suspects,
                panic=panic,
                arrivals=feed.arrivals,
                draw=lambda: runtime.uniform(0.0, 1.0),
            )
        except foreign.ForeignError as failure:
            if isinstance(failure.error, RegistryError):
                raise failure.error from failure.error.__cause__
            raise InvalidArgument("strategy", strategy, f"it raised {failure}") from failure.error
        self.errors: type[Exception] | tuple[type[Exception], ...] = (
            (Exception,) if ejection is None else ejection.errors
        )
        for id, error in self.picker.refused.items():
            self._refused(id, error)
        if self.picker.in_panic:
            self._tell_of_panic()

    # ------------------------------------------------------------------ facts

    @property
    def refused(self) -> Mapping[str, InvalidArgument]:
        """Why instances are never picked, by id."""
        return MappingProxyType(self.picker.refused)

    @property
    def set_aside(self) -> Mapping[str, float]:
        """For how many seconds more instances are set aside, by id."""
        now = self._now()
        return {id: max(until - now, 0.0) for id, until in self.picker.aside.items()}

    @property
    def warming_up(self) -> Mapping[str, float]:
        """The present weights of new instances, by id."""
        return MappingProxyType(dict(self.picker.warming_up(self._now())))

    # ------------------------------------------------------------------ picking

    def pick(self, key: str | bytes | None, exclude: Collection[str]) -> Pick[P]:
        """Return an instance, now; raises what :meth:`aioregistry.Balancer.pick` does."""
        self._check()
        if self._ended is not None:
            raise self._ended
        now = self._now()
        try:
            member = self.picker.pick(key, now, _checked_ids(exclude) if exclude else NOBODY)
        except (RegistryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a strategy of the caller's may raise anything
            raised = f"the strategy {self.picker.strategy!r} of {self._feed.name!r} raised {foreign.shown(error)}"
            raise RegistryError(raised) from error
        self.tally.picks += 1
        return Pick(self, member, now)

    async def pick_when_available(self, key: str | bytes | None, timeout: float | None) -> Pick[P]:
        """Return an instance as soon as there is one; raises what :meth:`Balancer.pick_when_available` does."""
        nothing: NoInstances | None = None
        with anyio.move_on_after(timeout):
            # The view's own stream: it wakes after whatever changes, and holds on to the task that waits.
            async with self._feed.snapshots() as snapshots:
                while True:
                    try:
                        return self.pick(key, ())
                    except NoInstances as error:
                        nothing = error
                    back = nothing.returns_in
                    with anyio.move_on_after(None if back is None else max(back, SHORTEST_WAIT)) as nap:
                        self._naps[nap] = None
                        try:
                            await anext(snapshots)
                        except StopAsyncIteration:
                            raise HandleClosed(f"View of {self._feed.name!r} was closed") from None
                        finally:
                            del self._naps[nap]
        message = f"nothing to pick within timeout={timeout:g} s: {nothing}"
        raise RequestTimeout(message, outage_attempts(self._session)) from nothing

    # ------------------------------------------------------------------ being told

    def take(self, changes: Iterable[Difference[P]]) -> None:
        """The view's news."""
        now, before = self._now(), self.picker.in_panic
        for change in changes:
            for error in self.picker.apply(change, now):
                self._refused(change.id, error)
        if self.picker.in_panic != before:
            self._tell_of_panic()

    def subsets(self) -> tuple[Subset[P], ...]:
        """The instances that it picks from, if they are only a part of the service."""
        return self.picker.subsets()

    def end(self, error: RegistryError | None) -> None:
        """Nothing more comes: the view was closed, or *error* ended its session."""
        self._ended = HandleClosed(f"View of {self._feed.name!r} was closed") if error is None else error
        self._repeated.close()

    def _tell_of_panic(self) -> None:
        name, panic = self._feed.name, self.picker.in_panic
        well, known = self.picker.healthy
        part, whole = self.picker.healthy_weight
        percent = 100 * part / whole if whole else 100.0
        if panic:
            self.tally.panics += 1
            text = (
                "%s: only %d of %d instances are well, with %.0f %% of the weight: "
                "failing ones and suspects are picked like the others"
            )
            self._repeated.tell("panic begins", logging.WARNING, text, name, well, known, percent)
        else:
            text = "%s: %d of %d instances are well: failing ones are no longer picked, and suspects are picked last"
            self._repeated.tell("panic ends", logging.INFO, text, name, well, known)
        self._session.emit("discovery.panic", service=name, panic=panic)

    def _refused(self, id: str, error: InvalidArgument) -> None:
        self._repeated.tell("refused", logging.WARNING, "%s/%s is never picked: %s", self._feed.name, id, error, id=id)
        self._session.emit("discovery.refused", service=self._feed.name, id=id, reason=str(error))

    def dismiss(self, member: Member[P], since: float) -> None:
        """A call to *member* that began at *since* is over, and says nothing of it."""
        self._told(self.picker.dismiss, member, since)
        self._wake()

    def _told(self, report: Callable[A, R], *args: A.args, **kwargs: A.kwargs) -> R | None:
        """Return what *report* returns; None where a strategy of the caller's raised, which is logged.

        The block of a pick may end with an exception of its own, which is the one that its caller is to see.
        """
        try:
            return foreign.call(report, *args, **kwargs)
        except foreign.ForeignError as failure:
            text = "%s: an instance may not be picked any longer: the strategy %s raised %s"
            self._repeated.tell(
                "strategy", logging.ERROR, text, self._feed.name, type(self.picker.strategy).__name__, failure
            )
            return None

    def _wake(self) -> None:
        """One that was probed may be picked again."""
        for nap in self._naps:
            nap.cancel()

    def report(self, member: Member[P], good: bool, since: float, error: BaseException | None) -> None:
        """A call to *member* that began at *since* was good, or failed with *error*."""
        before = self.picker.in_panic
        seconds = self._told(self.picker.report, member, good, since, self._now())
        if self.picker.in_panic != before:  # the first report of all
            self._tell_of_panic()
        if seconds is not None:
            self._tell_of_ejection(member.id, seconds)
        if good:
            self._wake()
            self._feed.note_answer(member.id)
        else:
            self.tally.failures += 1
            self._feed.note_failure(member.id, error, since)

    def _tell_of_ejection(self, id: str, seconds: float) -> None:
        self.tally.ejections += 1
        text = "%s/%s failed and is set aside for %.1f s"
        self._repeated.tell("set aside", logging.INFO, text, self._feed.name, id, seconds, id=id)
        self._session.emit("discovery.set_aside", service=self._feed.name, id=id, seconds=seconds)

    def count(self, load: Load, calls: int) -> None:
        """So many *calls* more are under way at *load*."""
        load.count(calls)


def _checked_ids(ids: object) -> frozenset[str]:
    # A string is a collection of strings too, of which each would be taken for an id.
    if isinstance(ids, str) or not isinstance(ids, Collection) or not all(isinstance(id, str) for id in ids):
        raise InvalidType("exclude", ids, "give ids of instances, such as {pick.id}")
    return frozenset(ids)
