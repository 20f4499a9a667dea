"""Follows all services of a registry, for the history and for browsers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from aioregistry import (
    Change,
    Invalidated,
    Override,
    Registry,
    RegistryError,
    Removed,
    Resynced,
    SessionState,
    Snapshot,
    Stream,
)
from aioregistry._incident_log import IncidentLog
from aioregistry.balancing import Arrivals

from . import store
from .states import State, invalid_state, of_entry, of_snapshot

__all__ = ["CurrentOutage", "FollowedService", "Following", "Recording", "Told"]

log = logging.getLogger("aioregistry.console")

MAX_SERVICES: Final = 5000
"""A view each; of more services the first by name are followed, and the page says so."""

_PAUSE: Final = 0.1
"""Seconds between two looks at a service: one that changes all the time costs no more than this allows."""

_TOLD_AGAIN_EVERY: Final = 1.0
_READ_AT_ONCE: Final = 16
"""Services: of a thousand at once, those that are read last would hold up the heartbeats."""

_TRIED_AGAIN_AFTER: Final = 1.0
_TRIED_AGAIN_AFTER_AT_MOST: Final = 300.0
"""Seconds between two tries to follow a service that was refused, the first and the longest."""

_MOST_CHANGES: Final = 1024
_AWAY: Final = frozenset({SessionState.DISCONNECTED, SessionState.SUSPENDED, SessionState.EXPIRED})


class Recording(Protocol):
    """Where a history is written to."""

    def put(self, operation: store.Operation) -> bool:
        """Have it written; False where it is lost."""

    def has_lost_all(self) -> bool:
        """Return whether items put since the last call are lost, so that everything must be told again."""


class Told(Protocol):
    """The changes that browsers are told of."""

    def service_changed(self, name: str) -> None:
        """Something of a service is otherwise, or it came or went."""

    def status_changed(self) -> None:
        """Something of the session or of the whole is otherwise."""


class CurrentOutage(NamedTuple):
    """There is no connection to ZooKeeper.

    Args:
        since: seconds since the epoch.
        reason: the answers of the servers; empty while they are not known.
    """

    since: float
    reason: str


class FollowedService:
    """A service that is followed.

    Attributes:
        name: its name.
        snapshot: the state that was recorded last, so that a page and its history say the same; None before it was
            read, and while it cannot be.
        refusal: why it cannot be followed; None while it is.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.snapshot: Snapshot[Any] | None = None
        self._arrivals = Arrivals()
        self._changes: Stream[Change[Any]] | None = None
        self.refusal: str | None = None

    def new(self, seconds: float) -> dict[str, float]:
        """Return since when instances are new, by id, in seconds since the epoch; of those of the last *seconds*."""
        now, wall = time.monotonic(), time.time()
        ages = {id: now - since for id, since in self._arrivals.since.items()}
        return {id: float(round(wall - age)) for id, age in ages.items() if age < seconds}

    def begin(self, snapshot: Snapshot[Any], changes: Stream[Change[Any]]) -> None:
        """It was read as *snapshot*; *changes* from then on tell which instances are new, and nothing else."""
        self.snapshot, self._arrivals, self._changes = snapshot, Arrivals(), changes

    def end(self) -> None:
        """It is not followed any more, or not now."""
        self.snapshot, self._arrivals, self._changes = None, Arrivals(), None

    def note_arrivals(self) -> None:
        """Take note of the instances that have come since the last time."""
        if self._changes is None:
            return
        now = time.monotonic()
        for change in self._changes.take_ready(_MOST_CHANGES):
            self._arrivals.take(change.changes if isinstance(change, Resynced) else (change,), now)


class Following:
    """All services of a registry, from :meth:`run` until that is cancelled.

    Args:
        recording: gets every change.
        told: hears of what changed.

    Attributes:
        services: those that are followed, by name.
        beyond: how many services there are besides.
        outage: the present one; None while there is a connection.
        epoch: of the ensemble's leader, as far as it is known; 0 before.
        failure: what ended the whole; None while it goes on.
    """

    def __init__(self, recording: Recording, told: Told) -> None:
        self._recording, self._told = recording, told
        self._repeated = IncidentLog(log)
        self.services: dict[str, FollowedService] = {}
        self.beyond = 0
        self.outage: CurrentOutage | None = CurrentOutage(time.time(), "")
        self.epoch = 0
        self.failure: RegistryError | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._first: frozenset[str] | None = None
        self._unread: set[str] = set()
        self._behind: dict[str, bool] = {}
        self._session = 0
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._put(partial(store.Period, kind="outage", text="the console starts"))

    # ------------------------------------------------------------------ the session

    def on_event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Take note of an event of the registry; for ``connect(on_event=…)``."""
        if name == "session.outage" and self.outage is not None:
            self.outage = CurrentOutage(self.outage.since, str(fields["reason"]))
            self._put(partial(store.Event, kind="outage", service="", id="", text=self.outage.reason))
        elif name == "session.state":
            self._moved(SessionState(fields["state"]), fields["session"])
        else:
            return
        self._told.status_changed()

    def _moved(self, state: SessionState, session: int) -> None:
        if state in _AWAY:
            if self.outage is None:
                self.outage = CurrentOutage(time.time(), "")
                self._put(partial(store.Period, kind="outage", text=""))
                self._put(partial(store.Event, kind="outage", service="", id="", text="the connection is lost"))
            return
        if state in (SessionState.CONNECTED, SessionState.RECONNECTED):
            if self.outage is not None:
                seconds = time.time() - self.outage.since
                self.outage = None
                self._put(partial(store.PeriodOver, kind="outage"))
                self._put(partial(store.Event, kind="connected", service="", id="", text=f"after {seconds:.1f} s"))
            if self._session not in (0, session):
                self._put(partial(store.Event, kind="session", service="", id="", text=f"{session:#x}"))
            self._session = session

    # ------------------------------------------------------------------ following

    async def run(self, registry: Registry) -> None:
        """Follow until cancelled, or until the session ends, whose error this raises.

        Raises:
            RegistryError: the session failed, or the services may not be listed.
        """
        telling = asyncio.create_task(self._tell_again())
        try:
            async with registry.watch_services() as names:
                async for present in names:
                    self.beyond = max(len(present) - MAX_SERVICES, 0)
                    self._follow(registry, present[:MAX_SERVICES])
                    self._told.status_changed()
        except RegistryError as error:
            self.failure = error
            self._told.status_changed()
            raise
        finally:
            tasks = [telling, *self._tasks.values(), *self._ending]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._repeated.close()

    def _follow(self, registry: Registry, names: Iterable[str]) -> None:
        wanted = frozenset(names)
        begins = self._first is None
        if self._first is None:
            self._first = wanted
            self._unread = set(wanted)
            self._put(partial(store.ServiceNames, names=wanted))
        for name in sorted(wanted - set(self._tasks)):
            self.services[name] = FollowedService(name)
            self._tasks[name] = asyncio.create_task(self._follow_one(registry, self.services[name], begins=begins))
            if not begins:
                self._put(partial(store.Event, kind="service", service=name, id="", text="began"))
        for name in set(self._tasks) - wanted:
            task = self._tasks.pop(name)
            del self.services[name]
            self._behind.pop(name, None)
            self._unread.discard(name)
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()
            self._put_whole(name, {}, begins=False)
            self._put(partial(store.Event, kind="service", service=name, id="", text="ended"))
            self._told.service_changed(name)

    async def _follow_one(self, registry: Registry, service: FollowedService, *, begins: bool) -> None:
        about = {"service": service.name, "path": f"{registry.base_path.rstrip('/')}/{service.name}"}
        told, pause = "", _TRIED_AGAIN_AFTER
        while True:
            try:
                await self._follow_view(registry, service, about, begins=begins)
            except RegistryError as error:
                if not self._is_current(service):
                    return
                if service.refusal is None:
                    pause = _TRIED_AGAIN_AFTER  # it was followed meanwhile
                self._refused(service, str(error))
                if registry.session.state in (SessionState.CLOSED, SessionState.FAILED):
                    return
                if told != service.refusal:
                    told = str(service.refusal)
                    text = "the service %r cannot be followed, which is tried again: %s"
                    self._repeated.tell("refused", logging.WARNING, text, service.name, told, **about)
            except Exception:
                if self._is_current(service):
                    self._refused(service, "following it failed; the console's log says how")
                log.exception("the service %r is no longer followed", service.name, extra=about)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _TRIED_AGAIN_AFTER_AT_MOST)
            begins = True  # when something changes meanwhile is unknown

    async def _follow_view(
        self, registry: Registry, service: FollowedService, about: Mapping[str, str], *, begins: bool
    ) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with self._reading:
                    view = await stack.enter_async_context(registry.discover(service.name))
                    snapshots = await stack.enter_async_context(view.snapshots())
                    changes = await stack.enter_async_context(view.changes(invalid=True))
                    arrivals = await stack.enter_async_context(view.changes())
                    service.begin(first := view.snapshot, arrivals)
                    if service.refusal is not None:
                        service.refusal = None
                        text = "the service %r is followed again"
                        self._repeated.tell("followed again", logging.WARNING, text, service.name, **about)
                    self._is_read(service.name)
                    self._put_whole(service.name, of_snapshot(first), begins=begins)
                    await asyncio.sleep(0)
                async for snapshot in snapshots:
                    self._take(service, changes, snapshot)
                    await asyncio.sleep(_PAUSE)
        finally:
            service.end()
            if self._is_current(service):
                self._told.service_changed(service.name)

    def _refused(self, service: FollowedService, reason: str) -> None:
        service.refusal = reason
        self._is_read(service.name)
        self._told.service_changed(service.name)

    def _is_read(self, name: str) -> None:
        if name in self._unread:
            self._unread.discard(name)
            self._told.status_changed()

    def _is_current(self, service: FollowedService) -> bool:
        return self.services.get(service.name) is service

    def _take(self, service: FollowedService, changes: Stream[Any], snapshot: Snapshot[Any]) -> None:
        service.note_arrivals()
        for change in changes.take_ready(_MOST_CHANGES):
            self._record(service.name, change, snapshot.overrides)
        self._record_silent(service, snapshot)
        service.snapshot = snapshot
        epoch = snapshot.as_of >> 32
        if epoch > self.epoch:
            self._led(epoch)
        self._told.service_changed(service.name)

    def _record(self, name: str, change: Change[Any] | Invalidated, overrides: Mapping[str, Override]) -> None:
        match change:
            case Resynced():
                self._put_whole(name, of_snapshot(change.snapshot), begins=False)
            case Removed() if change.invalid is not None:
                return  # what the node is now comes next
            case Removed():
                self._put_change(name, change.id, None)
            case Invalidated():
                self._put_change(name, change.id, invalid_state(change.invalid))
            case _:
                self._put_change(name, change.id, of_entry(change.entry, overrides.get(change.id)))

    def _record_silent(self, service: FollowedService, snapshot: Snapshot[Any]) -> None:
        """Record what changes of instances do not show: nodes that went and could not be read, and overrides."""
        before = service.snapshot
        if before is None:
            return
        for id in before.invalid:
            if id not in snapshot.invalid and id not in snapshot.entries:
                self._put_change(service.name, id, None)
        if before.overrides is snapshot.overrides:
            return
        for id in {*before.overrides, *snapshot.overrides}:
            if before.overrides.get(id) != snapshot.overrides.get(id) and id in snapshot.entries:
                self._put_change(service.name, id, of_entry(snapshot.entries[id], snapshot.overrides.get(id)))

    def _led(self, epoch: int) -> None:
        known, self.epoch = self.epoch, epoch
        self._put(partial(store.Period, kind="leader", text=f"epoch {epoch}"))
        if known:
            self._put(partial(store.Event, kind="leader", service="", id="", text=f"epoch {known} → {epoch}"))
        self._told.status_changed()

    # ------------------------------------------------------------------ the history

    def _begin_again(self) -> None:
        self._behind |= dict.fromkeys(self.services, True)
        self._put(partial(store.ServiceNames, names=frozenset(self.services)))
        if self.outage is not None:
            self._put(partial(store.Period, kind="outage", text=self.outage.reason))

    def _put(self, operation: Callable[[float], store.Operation]) -> None:
        _ = self._recording.put(operation(time.time()))

    def _put_change(self, name: str, id: str, state: State | None) -> None:
        if name not in self._behind and not self._recording.put(store.StateChange(time.time(), name, id, state)):
            self._behind[name] = False

    def _put_whole(self, name: str, states: Mapping[str, State], *, begins: bool) -> None:
        if not self._recording.put(store.Reconcile(time.time(), name, states, begins)):
            self._behind.setdefault(name, begins)

    async def _tell_again(self) -> None:
        while True:
            await asyncio.sleep(_TOLD_AGAIN_EVERY)
            if self._recording.has_lost_all():
                self._begin_again()
                self._told.status_changed()
            for name, begins in [*self._behind.items()]:
                service = self.services.get(name)
                snapshot = None if service is None else service.snapshot
                if service is not None and snapshot is None:
                    continue  # it is recorded as it was until it is read
                states = {} if snapshot is None else of_snapshot(snapshot)
                if self._recording.put(store.Reconcile(time.time(), name, states, begins)):
                    self._behind.pop(name, None)
                await asyncio.sleep(0)

    # ------------------------------------------------------------------ facts

    @property
    def unread(self) -> int | None:
        """How many of the services that were there at first have not been read yet; None before these are known."""
        return None if self._first is None else len(self._unread)
