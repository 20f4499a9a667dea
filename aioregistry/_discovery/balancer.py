"""Balancers: pickers fed by a view, with its clock and its chance.

How an instance is chosen, and where a new way to choose goes, is the room `aioregistry/balancing/`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

import anyio

from aioregistry import _foreign as foreign
from aioregistry._arguments import key_and_timeout
from aioregistry._concurrency import SHORTEST_WAIT
from aioregistry._errors import (
    HandleClosed,
    InvalidArgument,
    InvalidType,
    NoInstances,
    RegistryError,
    RequestTimeout,
    UsageError,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._model import Difference, ServiceInstance, Snapshot
from aioregistry._reprs import shown_half_made
from aioregistry._session import ReadingSessionPort
from aioregistry._streams import Stream
from aioregistry.balancing import NOBODY, Ejection, Filter, Load, Member, OfSuspects, Picker, Strategy, Subset

from .tallies import Tally

__all__ = ["Balancer", "Feed", "Pick", "tally_of"]

log = logging.getLogger("aioregistry.discovery")

P = TypeVar("P")
A = ParamSpec("A")
R = TypeVar("R")


class Feed(Protocol[P]):
    """The part of a view that its balancer needs."""

    name: str

    @property
    def arrivals(self) -> Mapping[str, float]:
        """Since when instances are new, by id; kept up before changes are told."""

    @property
    def snapshot(self) -> Snapshot[P]:
        """The present snapshot."""

    def snapshots(self) -> Stream[Snapshot[P]]:
        """Return a stream that wakes after whatever changes."""

    def note_failure(self, id: str, error: BaseException | None, since: float) -> bool:
        """A call to *id* that began at *since* ended with *error*."""

    def note_answer(self, id: str) -> None:
        """A call to *id* was good."""


class Balancer(Generic[P]):
    """Chooses among the instances of a view, which feeds it; made by :meth:`View.balancer`.

    It needs no closing: it ends with its view, and one that is dropped costs nothing. While the registry is away it
    goes on with the last known instances, as the view does.

    An instance with a weight that cannot be one (negative, no number), an address that leads nowhere (10.0.0.07,
    ``a b``), or for which a function of the caller's fails is refused: it is never picked, is logged, and is reported
    to the hook as ``discovery.refused``, and nothing else suffers from it. One that publishes no address at all is
    picked.
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
        self._tally = Tally()
        self._repeated = IncidentLog(log, service=feed.name)
        self._naps: dict[anyio.CancelScope, None] = {}  # of those that wait for an instance
        try:
            self._picker = foreign.call(
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
        self._errors = (Exception,) if ejection is None else ejection.errors
        for id, error in self._picker.refused.items():
            self._refused(id, error)
        if self._picker.in_panic:
            self._tell_of_panic()

    # ------------------------------------------------------------------ what it offers

    @property
    def refused(self) -> Mapping[str, InvalidArgument]:
        """The instances that are never picked because of what they publish, and why, by id."""
        return MappingProxyType(self._picker.refused)

    @property
    def set_aside(self) -> Mapping[str, float]:
        """The instances that are set aside for having failed, and for how many seconds more, by id."""
        now = self._now()
        return {id: max(until - now, 0.0) for id, until in self._picker.aside.items()}

    @property
    def in_panic(self) -> bool:
        """Whether failing instances and suspects are picked like all others now, because too few instances are well."""
        return self._picker.in_panic

    @property
    def warming_up(self) -> Mapping[str, float]:
        """The present weights of new instances, by id, from the least weight to 1; empty without WarmUp."""
        return MappingProxyType(dict(self._picker.warming_up(self._now())))

    def pick(self, key: str | bytes | None = None, *, exclude: Collection[str] = ()) -> Pick[P]:
        """Return an instance, now: nothing is awaited.

        Args:
            key: what the choice depends on, for the strategies that take one (:class:`Ring`, :class:`Sticky`), and only
                for them. A string is the same key as its UTF-8.
            exclude: the ids of instances that are not to be picked, because they were tried for the same call, say.
                Where they are all of a zone, another zone's are picked, and where they are all that are confirmed,
                those that are suspect; a key goes to its next. The cost of a pick grows with their number.

        Raises:
            NoInstances: no instance can be picked; says whether the service is empty, or why.
            InvalidArgument: *key* is of the wrong type, is missing, or is given to a strategy without keys; or
                *exclude* is not a collection of ids.
            RegistryError: the strategy is the caller's own, and raised.
            HandleClosed: the view was closed.
        """
        self._check()
        if self._ended is not None:
            raise self._ended
        now = self._now()
        try:
            member = self._picker.pick(key, now, _checked_ids(exclude) if exclude else NOBODY)
        except (RegistryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a strategy of the caller's may raise anything
            raised = f"the strategy {self._picker.strategy!r} of {self._feed.name!r} raised {foreign.shown(error)}"
            raise RegistryError(raised) from error
        self._tally.picks += 1
        return Pick(self, member, now)

    async def pick_when_available(
        self,
        first: str | bytes | float | None = None,
        /,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Pick[P]:
        """Return an instance as soon as there is one to pick, at once if there is. Cancelling leaves nothing behind.

        Args:
            first: the key, or the timeout, without its name.
            key: as :meth:`pick` takes it.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: no instance came in time; its ``__cause__`` is the :class:`NoInstances` that says why.
            InvalidArgument: as :meth:`pick` does.
            HandleClosed: the view was closed meanwhile.
        """
        key, timeout = key_and_timeout(first, key, timeout)
        nothing: NoInstances | None = None
        with anyio.move_on_after(timeout):
            # The view's own stream: it wakes after whatever changes, and holds on to the task that waits.
            async with self._feed.snapshots() as snapshots:
                while True:
                    try:
                        return self.pick(key)
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
        raise RequestTimeout(f"nothing to pick within timeout={timeout:g} s: {nothing}") from nothing

    # ------------------------------------------------------------------ being told

    def take(self, changes: Iterable[Difference[P]]) -> None:
        """The view's news."""
        now, before = self._now(), self._picker.in_panic
        for change in changes:
            for error in self._picker.apply(change, now):
                self._refused(change.id, error)
        if self._picker.in_panic != before:
            self._tell_of_panic()

    def subsets(self) -> tuple[Subset[P], ...]:
        """The instances that it picks from, if they are only a part of the service."""
        return self._picker.subsets()

    def end(self, error: RegistryError | None) -> None:
        """Nothing more comes: the view was closed, or *error* ended its session."""
        self._ended = HandleClosed(f"View of {self._feed.name!r} was closed") if error is None else error
        self._repeated.close()

    def _tell_of_panic(self) -> None:
        name, panic = self._feed.name, self._picker.in_panic
        well, known = self._picker.healthy
        part, whole = self._picker.healthy_weight
        percent = 100 * part / whole if whole else 100.0
        if panic:
            self._tally.panics += 1
            text = (
                "%s: only %d of %d instances are well, with %.0f %% of the weight: "
                "failing ones and suspects are picked like the others"
            )
            self._repeated.tell("panic", logging.WARNING, text, name, well, known, percent)
        else:
            text = "%s: %d of %d instances are well: failing ones are no longer picked, and suspects are picked last"
            self._repeated.tell("panic", logging.INFO, text, name, well, known)
        self._session.emit("discovery.panic", service=name, panic=panic)

    def _refused(self, id: str, error: InvalidArgument) -> None:
        self._repeated.tell("refused", logging.WARNING, "%s/%s is never picked: %s", self._feed.name, id, error, id=id)
        self._session.emit("discovery.refused", service=self._feed.name, id=id, reason=str(error))

    def _dismiss(self, member: Member[P], since: float) -> None:
        self._told(self._picker.dismiss, member, since)
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
                "strategy", logging.ERROR, text, self._feed.name, type(self._picker.strategy).__name__, failure
            )
            return None

    def _wake(self) -> None:
        """One that was probed may be picked again."""
        for nap in self._naps:
            nap.cancel()

    def _report(self, member: Member[P], good: bool, since: float, error: BaseException | None) -> None:
        before = self._picker.in_panic
        seconds = self._told(self._picker.report, member, good, since, self._now())
        if self._picker.in_panic != before:  # the first report of all
            self._tell_of_panic()
        if seconds is not None:
            self._tell_of_ejection(member.id, seconds)
        if good:
            self._wake()
            self._feed.note_answer(member.id)
        else:
            self._tally.failures += 1
            self._feed.note_failure(member.id, error, since)

    def _tell_of_ejection(self, id: str, seconds: float) -> None:
        self._tally.ejections += 1
        text = "%s/%s failed and is set aside for %.1f s"
        self._repeated.tell("set aside", logging.INFO, text, self._feed.name, id, seconds, id=id)
        self._session.emit("discovery.set_aside", service=self._feed.name, id=id, seconds=seconds)

    def _count(self, load: Load, calls: int) -> None:
        load.calls += calls

    def __repr__(self) -> str:
        picker = getattr(self, "_picker", None)  # missing if an argument was refused
        return "<Balancer, not made>" if picker is None else f"<Balancer of {picker!r}>"


def tally_of(balancer: Balancer[Any]) -> Tally:
    """Return what *balancer* counts."""
    return balancer._tally


def _checked_ids(ids: object) -> frozenset[str]:
    # A string is a collection of strings too, of which each would be taken for an id.
    if isinstance(ids, str) or not isinstance(ids, Collection) or not all(isinstance(id, str) for id in ids):
        raise InvalidType("exclude", ids, "give ids of instances, such as {pick.id}")
    return frozenset(ids)


@shown_half_made
class Pick(Generic[P]):
    """An instance that was picked, for one call to it.

    As a context manager around the call it counts the call as outstanding and reports how it went: good where the block
    ends, failed where one of the ejection's ``errors`` leaves it; any other exception, and cancellation, says nothing
    about the instance. The first report counts, so that the block can say itself what it knows better (an answer that
    is an error, say).

    Attributes:
        instance: as it was known when it was picked.
    """

    __slots__ = ("_balancer", "_entered", "_load", "_member", "_since", "_told", "instance")

    def __init__(self, balancer: Balancer[P], member: Member[P], since: float) -> None:
        self.instance: ServiceInstance[P] = member.instance
        self._balancer = balancer
        self._member = member
        self._load = member.load  # the address that serves the call, wherever the instance moves meanwhile
        self._since = since
        self._told = False
        self._entered = False

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.instance.id

    def succeeded(self) -> None:
        """Report that the call was good."""
        self._tell(True)

    def failed(self, error: BaseException | None = None) -> None:
        """Report that the instance failed, with *error* if there is one.

        Where the instance is a suspect, a refused connection among the causes of *error* counts against it.
        """
        self._tell(False, error)

    def abandoned(self) -> None:
        """Report that the call is over, and that how it went says nothing about the instance."""
        if not self._told:
            self._told = True
            self._balancer._dismiss(self._member, self._since)

    def _tell(self, good: bool, error: BaseException | None = None) -> None:
        if not self._told:
            self._told = True
            self._balancer._report(self._member, good, self._since, error)

    def __enter__(self) -> Self:
        if self._entered:
            raise UsageError(f"{self!r} is entered once: pick again for another call")
        self._entered = True
        self._balancer._count(self._load, 1)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._balancer._count(self._load, -1)
        if error is None:
            self.succeeded()
        elif isinstance(error, self._balancer._errors):
            self.failed(error)
        else:
            self.abandoned()

    def __repr__(self) -> str:
        return f"<Pick {self.instance.name}/{self.id}>"
