"""Reads the overrides of operators, for views and for the owners of instances; see :mod:`aioregistry._overrides`.

One recursive watch on their root serves a session. Usually there is no root: then a connection costs one request, which
asks for it and watches for it. Only the services that somebody asks about are read. While there is no connection, the
known overrides stay in force.

An override that has ended is removed by a client that notices and may. Whether it has ended is the server's to say: so
a client that thinks so writes to the service's node beside it first, whose new time is the server's now. An override
that seems over by the host's clock alone stays in force until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from aioregistry import _foreign as foreign
from aioregistry._concurrency import SHORTEST_WAIT, Alarm, Notifier
from aioregistry._errors import (
    BadVersion,
    ConnectionLost,
    NoNode,
    RegistryError,
    ServerError,
    SessionClosed,
    UnsupportedServer,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._model import Override
from aioregistry._override_clock import server_time
from aioregistry._overrides import ServiceOverrides, UnfitOverride, read_override
from aioregistry._paths import place_of
from aioregistry._protocol import Delete, Exists, GetChildren, GetData, WatchedEvent
from aioregistry._session import ReadingSessionPort, TreeWatchPort, WatchPort

from .follower import WatchMode
from .pace import RETRY

__all__ = ["OverrideReader", "Told"]

log = logging.getLogger("aioregistry.discovery")

MOST: Final = 10_000
"""Overrides of one service that are read; an operator with more in maintenance has another trouble."""

SWEEP: Final = 5.0
"""Seconds after an override has ended until one of those that noticed removes it, at most: not all of them at once."""

ASKED_WITHIN: Final = 1.0
"""The same while it is in force for one that noticed, which cannot tell that it has ended before the server says so."""

Told: TypeAlias = Callable[[Mapping[str, Override]], object]
"""Called with the overrides in force, by id."""


class _Service:
    """The overrides of one service that are known, and their followers."""

    def __init__(self) -> None:
        self.overrides = ServiceOverrides()
        self.told: dict[int, Told] = {}
        self.in_force: Mapping[str, Override] = {}
        self.read = self.known = False  # on this connection; on this one or one before


class OverrideReader:
    """The overrides of the services below one base path, for as long as they have users.

    Args:
        session: read and watched through.
        root: the parent of the overrides; None where there is no place for it.
        strategy: how nodes are watched.
    """

    def __init__(self, session: ReadingSessionPort, root: str | None, strategy: WatchMode) -> None:
        self._session = session
        self._root = root
        self._strategy = strategy
        self._services: dict[str, _Service] = {}
        self._news = Notifier()
        self._wake = asyncio.Event()
        self._alarm = Alarm()
        self._sweep = Alarm()
        self._task: asyncio.Task[None] | None = None
        self._tree: TreeWatchPort | None = None
        self._watches: dict[str, WatchPort] = {}
        self._may_remove = True
        self._sweeps = False  # overrides whose time is over are to be removed now
        self._fires = self._fires_read = 0  # of watches; how many were told before the last reading began
        self._repeated = IncidentLog(log)

    def follow(self, name: str, told: Told) -> Callable[[], None]:
        """Call *told* with the overrides in force for the service *name*, now if they are known, and after each change.

        Return what ends that.
        """
        place = place_of(name)
        if self._root is None:
            return lambda: None
        service = self._services.setdefault(place, _Service())
        service.told[id(told)] = told
        if service.in_force:
            told(service.in_force)
        self._start()
        if not service.read:
            self._wake.set()

        def forget() -> None:
            service.told.pop(id(told), None)
            if not service.told and self._services.get(place) is service:
                del self._services[place]
            if not self._services:
                self._stop()

        return forget

    async def settled(self, name: str) -> bool:
        """Wait until the overrides of the service *name* were read, or cannot be for now; return whether they were.

        They were read after whatever watches have told of so far. So a caller whose session has just passed a barrier
        sees what the quorum knew before that.
        """
        place, fires = place_of(name), self._fires

        def is_read() -> bool:
            service = self._services.get(place)
            return service is None or self._task is None or (service.read and self._fires_read >= fires)

        await self._news.until(lambda: is_read() or not self._session.connected)
        return is_read()

    async def aclose(self) -> None:
        """Stop following."""
        task = self._task
        self._services.clear()
        self._stop()
        if task is not None:
            await asyncio.wait([task])

    # ------------------------------------------------------------------ the task

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"aioregistry reads {self._root}")

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._alarm.cancel()
        self._sweep.cancel()
        self._unwatch()
        self._repeated.close()
        self._news.notify()

    async def _run(self) -> None:
        stop_observing = self._session.observe(self._session_changed)
        try:
            while True:
                await self._session.wait_connected()
                with contextlib.suppress(ConnectionLost):
                    await self._on_one_connection(self._session.generation)
        except SessionClosed:
            pass
        except RegistryError as error:
            self._repeated.tell(
                "ended", logging.WARNING, "overrides in %s are no longer read: %s", self._root, error, path=self._root
            )
        except (Exception, BaseExceptionGroup) as defect:  # no view ends with it
            text, told = "reading the overrides in %s failed: %s", (self._root, foreign.shown(defect))
            log.critical(text, *told, exc_info=True, extra={"path": self._root})
        finally:
            stop_observing()
            for service in self._services.values():
                service.read = True  # let no task wait for what will not come
            self._news.notify()

    def _session_changed(self) -> None:
        if not self._session.connected:
            self._unwatch()
            for service in self._services.values():
                service.read = False
        self._wake.set()
        self._news.notify()

    async def _on_one_connection(self, generation: int) -> None:
        for service in self._services.values():
            service.read = False
        self._may_remove, self._sweeps = True, False
        one_shot: bool | None = None  # not known while there is no root
        while self._session.connected and self._session.generation == generation:
            self._wake.clear()
            fires = self._fires
            try:
                if one_shot is None and await self._has_root():
                    one_shot = not await self._arm()
                await self._read(one_shot=one_shot)
            except ServerError as error:  # the known overrides stay
                for service in self._services.values():
                    service.read = True
                self._fires_read = fires
                self._news.notify()
                text = "overrides in %s are not read: %s"
                self._repeated.tell("unread", logging.WARNING, text, self._root, error, path=self._root)
                await asyncio.sleep(self._session.runtime.uniform(RETRY / 2, RETRY))
                continue
            self._fires_read = fires
            self._news.notify()
            if self._sweeps:
                self._sweeps = False
                await self._remove_what_is_over()
            self._set_alarm()
            self._plan_sweep()
            await self._wake.wait()

    # ------------------------------------------------------------------ reading

    async def _has_root(self) -> bool:
        """Return whether there is a root, and watch it."""
        assert self._root is not None
        try:
            await self._submit(Exists(self._root, watch=True))
        except NoNode:
            return False
        return True

    async def _arm(self) -> bool:
        """Set the recursive watch; return False where one-shot watches have to do."""
        assert self._root is not None
        if self._strategy == "one-shot":
            return False
        if self._tree is None:
            self._tree = self._session.watches.listen_tree(self._root, self._fired)
        try:
            await self._tree.arm()
        except (UnsupportedServer, ServerError):
            self._unwatch()
            return False
        return True

    def _fired(self, _: WatchedEvent) -> None:
        self._fires += 1
        self._wake.set()

    async def _read(self, *, one_shot: bool | None) -> None:
        """Read the services; *one_shot* is how they are watched, None where there is no root."""
        assert self._root is not None
        present = None if one_shot is None else await self._children(self._root, one_shot=one_shot)
        for place, service in list(self._services.items()):
            found: list[Override] = []
            if one_shot is not None and present is not None and place.partition("/")[0] in present:
                found = await self._read_service(place, one_shot=one_shot)
            runtime = self._session.runtime
            service.overrides.read(found, runtime.monotonic(), runtime.wall(), seen_being_set=service.read)
            service.read = service.known = True
            self._tell(service)

    async def _read_service(self, place: str, *, one_shot: bool) -> list[Override]:
        path = f"{self._root}/{place}"
        ids = sorted(await self._children(path, one_shot=one_shot) or ())
        if len(ids) > MOST:
            text = "%s has %d overrides, of which %d are read"
            self._repeated.tell("many", logging.WARNING, text, path, len(ids), MOST, service=place, path=path)
        found = []
        for id, answer in [(id, self._submit(GetData(f"{path}/{id}", one_shot))) for id in ids[:MOST]]:
            try:
                data, stat = (await answer).value
            except NoNode:
                continue
            if not data:
                continue  # a part of a longer name
            try:
                found.append(read_override(data, place, id, stat.mtime, stat.version))
            except UnfitOverride as unfit:
                text = "the override of %s/%s is ignored: %s"
                about = {"service": place, "id": id, "path": f"{path}/{id}"}
                self._repeated.tell(("unfit", str(unfit)), logging.WARNING, text, place, id, unfit, **about)
        return found

    async def _children(self, path: str, *, one_shot: bool) -> list[str] | None:
        """Return the names of the nodes below *path*; None if *path* does not exist."""
        while True:
            try:
                names: list[str] = (await self._submit(GetChildren(path, one_shot))).value
            except NoNode:
                if not one_shot:
                    return None
            else:
                return names
            try:
                await self._submit(Exists(path, watch=True))
            except NoNode:
                return None

    def _submit(self, message: Any) -> asyncio.Future[Any]:
        if getattr(message, "watch", False) and message.path not in self._watches:
            self._watches[message.path] = self._session.watches.listen(message.path, self._fired)
        return self._session.submit(message)

    def _unwatch(self) -> None:
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    # ------------------------------------------------------------------ overrides in force

    def _tell(self, service: _Service) -> None:
        in_force = service.overrides.in_force(self._session.runtime.monotonic())
        if in_force != service.in_force:
            before, service.in_force = service.in_force, in_force
            self._emit(before, in_force)
            for told in list(service.told.values()):
                told(in_force)

    def _emit(self, before: Mapping[str, Override], after: Mapping[str, Override]) -> None:
        for override in after.values():
            if before.get(override.id) != override:
                what = "in maintenance" if override.enabled is False else f"of weight {override.weight}"
                text = "%s/%s is %s by an operator's override: %s, %s"
                said = foreign.printable(override.by), foreign.printable(override.reason)
                told = override.service, override.id, what, *said
                self._repeated.tell("set", logging.INFO, text, *told, service=override.service, id=override.id)
                self._session.emit(
                    "discovery.override_set",
                    service=override.service,
                    id=override.id,
                    enabled=override.enabled,
                    weight=override.weight,
                    reason=override.reason,
                    by=override.by,
                    until=override.until,
                )
        for id, override in before.items():
            if id not in after:
                text, about = "the override of %s/%s is over", {"service": override.service, "id": id}
                self._repeated.tell("over", logging.INFO, text, override.service, id, **about)
                self._session.emit("discovery.override_ended", service=override.service, id=id)

    def _set_alarm(self) -> None:
        now = self._session.runtime.monotonic()
        ends = [end for service in self._services.values() if (end := service.overrides.next_end(now)) is not None]
        if ends:
            self._alarm.set_in(max(min(ends) - now, SHORTEST_WAIT), self._due)
        else:
            self._alarm.cancel()

    def _due(self) -> None:
        for service in list(self._services.values()):
            self._tell(service)
        self._set_alarm()
        self._plan_sweep()

    def _plan_sweep(self) -> None:
        """Plan the removal, in a moment, of overrides whose time is over, unless it is planned.

        Never at once: all that follow the service notice at the same time, and each removal wakes all of them.
        """
        now = self._session.runtime.monotonic()
        if not self._may_remove or self._session.read_only or self._sweep.when is not None:
            return
        over = [(service, override) for service in self._services.values() for override in service.overrides.over(now)]
        if over:
            doubtful = any(override.id in service.in_force for service, override in over)
            within = ASKED_WITHIN if doubtful else SWEEP
            self._sweep.set_in(self._session.runtime.uniform(0.0, within), self._begin_sweep)

    def _begin_sweep(self) -> None:
        self._sweeps = True
        self._wake.set()

    async def _remove_what_is_over(self) -> None:
        now = self._session.runtime.monotonic()
        for place, service in list(self._services.items()):
            over = service.overrides.over(now)
            if not over or not self._may_remove or self._session.read_only:
                continue
            try:
                assert self._root is not None
                server = await server_time(self._submit, self._root, place)
                ended = self._learn(service, over, server)
                for override in ended:
                    path = f"{self._root}/{place}/{override.id}"
                    await self._submit(Delete(path, override.version))
                    about = {"service": place, "id": override.id, "path": path}
                    text = "the override of %s/%s has ended and is removed"
                    self._repeated.tell("removed", logging.INFO, text, place, override.id, **about)
            except ServerError as error:  # another client was quicker, or an ACL forbids it
                log.debug("overrides of %s that have ended are left: %s", place, error)
                if not isinstance(error, NoNode | BadVersion):
                    self._may_remove = False
                    self._tell_kept(service, over, error)

    def _tell_kept(self, service: _Service, overrides: list[Override], why: ServerError) -> None:
        for override in overrides:
            if override.id in service.in_force:
                text = "the override of %s/%s seems over by this host's clock and stays in force: %s"
                about = {"service": override.service, "id": override.id}
                kind, told = ("kept", override.service), (override.service, override.id, why)
                self._repeated.tell(kind, logging.WARNING, text, *told, **about)

    def _learn(self, service: _Service, overrides: list[Override], server: float) -> list[Override]:
        """By the *server*'s time, tell how long *overrides* are in force; return those that have ended."""
        now, ended = self._session.runtime.monotonic(), []
        for override in overrides:
            assert override.until is not None, "an override without an end never expires"
            service.overrides.learn(override.id, override.until - server, now)
            if override.until <= server:
                ended.append(override)
        self._tell(service)
        return ended
