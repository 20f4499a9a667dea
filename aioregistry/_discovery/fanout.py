"""The consumers that a view informs of its changes, and their order."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from aioregistry import _foreign as foreign
from aioregistry._errors import RegistryError
from aioregistry._model import Resynced, Snapshot
from aioregistry._streams import Source, Stream
from aioregistry.balancing import Arrivals

from .core import Effects
from .subscriptions import Changes, SnapshotStream

if TYPE_CHECKING:
    from aioregistry.balancing import Subset

    from .balancer_driver import BalancerDriver
    from .keeper import Keeper

__all__ = ["Balancers", "ChangeStreams", "Fanout", "SnapshotFile", "SnapshotStreams", "Subscriber"]

log = logging.getLogger("aioregistry.discovery")

P = TypeVar("P")


class Subscriber(Protocol[P]):
    """Is told, synchronously, of what a view shows; must not raise."""

    def take(self, effects: Effects[P], snapshot: Callable[[], Snapshot[P]]) -> None:
        """The shown instances have changed, or were behind and are not any more; *snapshot* returns all of it."""

    def freshness_changed(self, fresh: bool) -> None:
        """The snapshot has become true, or is not any more."""

    def end(self, error: RegistryError | None) -> None:
        """Nothing more comes: the view was closed, or *error* ended it."""


class Fanout(Generic[P]):
    """Tells one subscriber after the other, in the order given.

    Balancers come first: a task that a stream wakes may pick at once, and must not get a removed instance. The file is
    last: it keeps the state that all others have.
    """

    def __init__(self, *subscribers: Subscriber[P]) -> None:
        self._subscribers = subscribers

    def take(self, effects: Effects[P], snapshot: Callable[[], Snapshot[P]]) -> None:
        """The shown instances have changed, or were behind and are not any more."""
        for subscriber in self._subscribers:
            subscriber.take(effects, snapshot)

    def freshness_changed(self, fresh: bool) -> None:
        """The snapshot has become true, or is not any more."""
        for subscriber in self._subscribers:
            subscriber.freshness_changed(fresh)

    def end(self, error: RegistryError | None) -> None:
        """Nothing more comes."""
        for subscriber in self._subscribers:
            subscriber.end(error)


class Balancers(Generic[P]):
    """The balancers of the service *name*; held weakly, so that one that was dropped costs nothing.

    It remembers which instances are new, so that a balancer that is made later knows too.

    Args:
        name: of the service.
        now: a clock that never steps back.
    """

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        self._name = name
        self._now = now
        self._arrivals = Arrivals()
        self.arrivals: Mapping[str, float] = self._arrivals.since
        self._balancers: weakref.WeakValueDictionary[int, BalancerDriver[P]] = weakref.WeakValueDictionary()

    def add(self, balancer: BalancerDriver[P]) -> None:
        """Tell *balancer* from now on."""
        self._balancers[id(balancer)] = balancer

    def __len__(self) -> int:
        return len(self._balancers)

    def subsets(self) -> Iterator[Subset[P]]:
        """The instances that they pick from, where that is less than all."""
        for balancer in list(self._balancers.values()):
            yield from balancer.subsets()

    def take(self, effects: Effects[P], snapshot: Callable[[], Snapshot[P]]) -> None:
        """Tell each. One that fails, in a pool of the caller's own, stops picking: its contents are unknown."""
        self._arrivals.take(effects.changes, self._now(), first=effects.first)
        for balancer in list(self._balancers.values()):
            try:
                foreign.call(balancer.take, effects.changes)
            except foreign.ForeignError as failure:
                log.exception(
                    "%s: a balancer has failed, and no longer picks", self._name, extra={"service": self._name}
                )
                ended = RegistryError(f"the balancer of {self._name!r} has failed: {failure}")
                ended.__cause__ = failure.error
                balancer.end(ended)

    def freshness_changed(self, fresh: bool) -> None:
        """Balancers go on with the last known instances."""

    def end(self, error: RegistryError | None) -> None:
        """The balancers stop picking."""
        for balancer in list(self._balancers.values()):
            balancer.end(error)


class ChangeStreams(Generic[P]):
    """The streams of changes."""

    def __init__(self) -> None:
        self._source: Source[Any] = Source()

    def open(self, snapshot: Callable[[], Snapshot[P]], *, invalid: bool) -> Changes[P]:
        """Return one more; *snapshot* returns the present snapshot."""
        stream = Changes(snapshot, invalid=invalid)
        self._source.attach(stream)
        return stream

    def take(self, effects: Effects[P], snapshot: Callable[[], Snapshot[P]]) -> None:
        """One after the other, or all that was missed as one."""
        if effects.resynced:
            self._source.offer(Resynced(effects.changes, snapshot()))
            return
        for change in effects.changes:
            self._source.offer(change)
        for node in effects.invalid:
            self._source.offer(node)

    def freshness_changed(self, fresh: bool) -> None:
        """That is not a change of an instance."""

    def end(self, error: RegistryError | None) -> None:
        """They end, with *error* if given."""
        self._source.close(error)


class SnapshotStreams(Generic[P]):
    """The streams of snapshots."""

    def __init__(self) -> None:
        self._source: Source[Any] = Source()

    def open(self, snapshot: Callable[[], Snapshot[P]]) -> Stream[Snapshot[P]]:
        """Return one more; *snapshot* returns the present snapshot."""
        stream = SnapshotStream(snapshot)
        self.attach(stream)
        return stream

    def attach(self, stream: Stream[Any]) -> None:
        """Offer *stream* a None whenever there is another snapshot."""
        self._source.attach(stream)

    def take(self, effects: Effects[P], snapshot: Callable[[], Snapshot[P]]) -> None:
        """There is another snapshot."""
        self._source.offer(None)

    def freshness_changed(self, fresh: bool) -> None:
        """There is another snapshot: this one says whether it is stale."""
        self._source.offer(None)

    def end(self, error: RegistryError | None) -> None:
        """They end, with *error* if given."""
        self._source.close(error)


class SnapshotFile:
    """The file of a view, if it has one; *keeper* writes it."""

    def __init__(self, keeper: Keeper | None) -> None:
        self._keeper = keeper

    def take(self, effects: Effects[Any], snapshot: Callable[[], Snapshot[Any]]) -> None:
        """There is another state to keep."""
        self._changed()

    def freshness_changed(self, fresh: bool) -> None:
        """Since when it is stale: the file of a process that is killed meanwhile tells how old it is."""
        if not fresh:
            self._changed()

    def end(self, error: RegistryError | None) -> None:
        """The last state is written when the view closes."""

    def _changed(self) -> None:
        if self._keeper is not None:
            self._keeper.changed()
