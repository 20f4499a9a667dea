"""A balancer that its view feeds on one thread, and that is picked from on others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack

from aioregistry._discovery.balancer import PANIC
from aioregistry._discovery.balancer_driver import BalancerDriver
from aioregistry._discovery.view import driver_of
from aioregistry._errors import UsageError

if TYPE_CHECKING:
    from aioregistry._discovery import View
    from aioregistry._discovery.pick import Pick
    from aioregistry._errors import InvalidArgument
    from aioregistry._model import Difference, Snapshot
    from aioregistry._options import BalancerOptions
    from aioregistry._session import ReadingSessionPort
    from aioregistry._streams import Stream
    from aioregistry.balancing import Load, Member, Strategy

    from .loop import LoopThread

__all__ = ["CrossFeed", "SharedBalancerDriver", "shared"]

P = TypeVar("P")


class CrossFeed(Generic[P]):
    """The part of a view that a balancer outside of its loop needs."""

    def __init__(self, thread: LoopThread, view: View[P], snapshots: Callable[[], Stream[Snapshot[P]]]) -> None:
        self.name: str = view.name
        self.snapshots: Callable[[], Stream[Snapshot[P]]] = snapshots
        self._thread, self._driver = thread, driver_of(view)

    @property
    def arrivals(self) -> Mapping[str, float]:
        """Since when instances are new, by id; read on the loop."""
        return self._driver.arrivals

    @property
    def snapshot(self) -> Snapshot[P]:
        """The present snapshot; read on the loop."""
        return self._driver.snapshot

    def note_failure(self, id: str, error: BaseException | None, since: float) -> bool:
        """A call to *id* that began at *since* ended with *error*; the loop acts on it later."""
        with contextlib.suppress(UsageError):
            self._thread.post(self._driver.note_failure, id, error, since)
        return False

    def note_answer(self, id: str) -> None:
        """A call to *id* was good."""
        with contextlib.suppress(UsageError):
            self._thread.post(self._driver.note_answer, id)


class SharedBalancerDriver(BalancerDriver[P]):
    """A balancer for other threads than the one on which its view feeds it; made on that one.

    A lock guards the instances that it picks from, which each side holds for as long as a pick or a change takes. Logs
    and events are told on the loop. A call that goes on in a forked process counts in the parent only.
    """

    def __init__(
        self,
        thread: LoopThread,
        feed: CrossFeed[P],
        session: ReadingSessionPort,
        strategy: Strategy[P] | str,
        *,
        check: Callable[[], None],
        **options: Unpack[BalancerOptions[P]],
    ) -> None:
        self._thread = thread
        self._lock = threading.RLock()  # an event's hook on the loop may ask it
        super().__init__(feed, session, strategy, check=check, **options)

    @property
    def refused(self) -> Mapping[str, InvalidArgument]:
        """Why instances are never picked, by id."""
        with self._locked():
            return MappingProxyType(dict(super().refused))

    @property
    def set_aside(self) -> Mapping[str, float]:
        """For how many seconds more instances are set aside, by id."""
        with self._locked():
            return super().set_aside

    @property
    def warming_up(self) -> Mapping[str, float]:
        """The present weights of new instances, by id."""
        with self._locked():
            return super().warming_up

    def pick(self, key: str | bytes | None, exclude: Collection[str]) -> Pick[P]:
        """Return an instance, now; raises what :meth:`aioregistry.Balancer.pick` does."""
        with self._locked():
            return super().pick(key, exclude)

    def take(self, changes: Iterable[Difference[P]]) -> None:
        """The view's news."""
        with self._lock:
            super().take(changes)

    def dismiss(self, member: Member[P], since: float) -> None:
        """A call to *member* that began at *since* is over, and says nothing of it."""
        if not self._thread.is_elsewhere():
            with self._lock:
                super().dismiss(member, since)

    def report(self, member: Member[P], good: bool, since: float, error: BaseException | None) -> None:
        """A call to *member* that began at *since* was good, or failed with *error*."""
        if not self._thread.is_elsewhere():
            with self._lock:
                super().report(member, good, since, error)

    def count(self, load: Load, calls: int) -> None:
        """So many *calls* more are under way at *load*."""
        if not self._thread.is_elsewhere():
            with self._lock:
                super().count(load, calls)

    def _locked(self) -> threading.RLock:
        """Return the lock; raises :class:`UsageError` in a forked process, where no thread may release it."""
        self._thread.check_process()
        return self._lock

    def _tell_of_panic(self) -> None:
        self._on_loop(super()._tell_of_panic)

    def _tell_of_ejection(self, id: str, seconds: float) -> None:
        self._on_loop(super()._tell_of_ejection, id, seconds)

    def _on_loop(self, tell: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(UsageError):
            self._thread.post(tell, *arguments)


def shared(
    thread: LoopThread,
    view: View[P],
    session: ReadingSessionPort,
    snapshots: Callable[[], Stream[Snapshot[P]]],
    check: Callable[[], None],
    strategy: Strategy[P] | str,
    options: BalancerOptions[P],
) -> SharedBalancerDriver[P]:
    """Return the driver of a balancer that *view* feeds; called on the loop.

    Args:
        thread: whose loop it is.
        view: of the service.
        session: of the registry.
        snapshots: returns a stream of the view's for the loop that waits for an instance.
        check: raises where the view cannot be used.
        strategy: how to choose.
        options: as :meth:`aioregistry.View.balancer` takes them.
    """
    every: BalancerOptions[P] = {"where": None, "ejection": None, "suspects": "last", "panic": PANIC, **options}
    driver = SharedBalancerDriver(thread, CrossFeed(thread, view, snapshots), session, strategy, check=check, **every)
    driver_of(view).feed(driver)
    return driver
