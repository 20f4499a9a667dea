"""A membership from entering to leaving."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, TypeAlias
from weakref import WeakValueDictionary

import anyio

from aioregistry import InvalidArgument, Registration, RegistryError, ServiceInstance, Status, View
from aioregistry import _foreign as foreign
from aioregistry._incident_log import IncidentLog
from aioregistry._session import SessionInfo

from ._advertised import NoAddress, advertised_address, configured_address
from ._hosting import Hosting
from ._listening import Decision, Judgement, ServerStatus, Socket, judged, listening, opened, own_sockets, serves
from ._ports import OCCUPIED, ON_BEHALF, at, check_has_port, pauses, ports_of, refused, warning
from ._readiness import OUTAGE, REASONS, WAITING, NotYet, Readiness, detailed, failing_checks
from ._settings import Settings
from ._tasks import awaited, outcome, spawn
from ._worker import worker_id

__all__ = ["Jobs", "Term"]

Jobs: TypeAlias = Callable[[], Awaitable[object]]
"""Ends the work that a program has, before it is withdrawn."""

_LONGEST_PAUSE: Final = 10.0
"""Seconds between two attempts to find the address to advertise."""

_LISTENS_WITHIN: Final = 30.0
"""Seconds that a process has to open its sockets: imports and models that are loaded at startup may take as long. An
instance whose port another process has is listed after it all the same: that process may serve on behalf of this."""

_COMPARED_WITHIN: Final = 10.0
"""Seconds after which an instance is compared with the sockets of a process that has not opened one since."""

_ALL_OPEN_WITHIN: Final = 2.0
"""Seconds from a process's first socket to its last."""


_log = logging.getLogger("aioregistry.integrations")


class Term:
    """A membership from entering to leaving."""

    # Of the process, because its sockets are: by place and id, which membership was listed last.
    listed: ClassVar[WeakValueDictionary[tuple[str, ...], Term]] = WeakValueDictionary()

    def __init__(self, settings: Settings, host: Hosting | None) -> None:
        self.registry = settings.registry()
        self.registration: Registration[Any] | None = None
        self._session: SessionInfo | None = None
        self.failure: RegistryError | None = None
        """Why it is not registered, or no longer, as far as that is known."""
        self._settings = settings
        self._service = settings.instance.name
        self._repeated = IncidentLog(_log, service=self._service)
        self._host = host
        self._views: dict[str, View[Any]] = {}
        self._openings: dict[str, asyncio.Task[None]] = {}
        """Done when the view is synced, or with the reason why it will never be."""
        self._wanted = False
        self._registering: asyncio.Task[None] | None = None
        self._before = own_sockets() if settings.check_port else []
        """This process's sockets when the membership was entered: a server opens its own later, as a rule."""
        self._looking: asyncio.Task[None] | None = None
        """At this process's sockets: those that the instance waits for, or those that it was listed before."""
        self._following: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._patience = anyio.CancelScope()
        """Around the waiting for consumers."""
        self._seconds = settings.drain
        self._jobs: Jobs | None = None
        self._finishing = anyio.CancelScope()
        """Around the program's work before the withdrawal."""
        self.jobs_failure: foreign.ForeignError | None = None
        self._lost: asyncio.Future[RegistryError] = asyncio.get_running_loop().create_future()
        self._was_listed = False
        self._shown = False
        """Whether the view of the own service, where there is one, has shown the server."""

    # ------------------------------------------------------------------ beginning

    async def begin(self) -> None:
        if self._host is not None:
            self._host.enter(self)
        self.registry = await self.registry
        self._session = self.registry.session
        settings = self._settings
        # A process that stands by has to know whether a sibling is listed.
        services = {self._service: Any, **settings.discover} if settings.shared else settings.discover
        for name, payload_type in services.items():
            keep = settings.keep.get(name)
            self._views[name] = view = self.registry.discover(name, payload_type=payload_type, keep=keep)
            self._openings[name] = spawn(awaited(view), f"view {name}")
        if settings.wait:
            for opening in self._openings.values():
                await outcome(opening)

    async def announce(self) -> None:
        self._wanted = True
        if self.draining or (self._host is not None and not self._host.listening):
            return
        self.register_if_wanted()
        # A server that says when it listens serves meanwhile, and must not be held up.
        if self._settings.wait and self._host is None and self._registering is not None:
            await outcome(self._registering)
            if self.registration is not None:  # else it waits until this process listens, which it can do only now
                await self._until_listed()

    def register_if_wanted(self) -> None:
        """Begin to register the server; once, and not after the draining began."""
        if self._wanted and self._registering is None and not self.draining:
            self._registering = spawn(self._register(), f"register {self._service}")

    async def _register(self) -> None:
        try:
            for opening in self._openings.values():  # a listed server may get requests that need the views
                await outcome(opening)
            address = await self._address()
        except RegistryError as error:
            self._lose(error)
            raise
        instance = self._settings.instance.replace(address=address, id=worker_id(self._settings, address))
        await self._list_in_turn(instance)

    async def _list_in_turn(self, instance: ServiceInstance[Any]) -> None:
        """List *instance* now, later or not at all, as this process's sockets have it."""
        sockets = own_sockets()
        decision, port = self._judged(instance, sockets)
        if decision is Decision.REFUSE:
            refusal = refused(instance.address, port, sockets)
            self._lose(refusal)
            raise refusal
        if decision is Decision.WAIT:
            self.failure = NotYet(OCCUPIED.format(at(instance.address, port)))
            self._warn("occupied", f"{self._service} is not listed yet: {self.failure}; {ON_BEHALF}")
            self._looking = spawn(self._list_later(instance), f"register {self._service}")
            return
        if decision is Decision.WARN:
            self._warn("port", warning(instance, port, sockets))
        await self._list(instance)
        if self._settings.check_port and self._host is None and ports_of(instance):
            self._looking = spawn(self._compare(instance), f"read the sockets of {self._service}")

    async def _list(self, instance: ServiceInstance[Any]) -> None:
        settings = self._settings
        Term.listed[self._key(instance)] = self
        try:
            self.registration = await self.registry.register(
                instance,
                wait=False,
                on_conflict=settings.on_conflict,
                on_displaced=settings.on_displaced,
                checks=settings.checks,
            )
        except RegistryError as error:
            self._lose(error)
            raise
        self._following = spawn(self._follow(self.registration), f"follow {self._service}")

    async def _address(self) -> str:
        settings, pause = self._settings, 0.5
        while True:
            try:
                return await advertised_address(settings.servers, settings.address)
            except NoAddress as error:
                if settings.wait:
                    raise
                if str(error) != str(self.failure):  # once for each reason
                    self._warn("address", f"{self._service} is not registered yet: {error}")
                self.failure = error
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _lose(self, error: RegistryError) -> None:
        self.failure = error
        if not self._lost.done():
            self._lost.set_result(error)

    async def _follow(self, registration: Registration[Any]) -> None:
        self.failure = None
        try:
            async with registration.statuses() as statuses:
                async for status in statuses:
                    self._was_listed |= status is Status.LIVE
        except RegistryError as error:
            self._lose(error)

    # ------------------------------------------------------------------ sockets

    def check_ports(self, sockets: list[Socket]) -> None:
        """Raise InvalidArgument if there is no port, or no process listens on it, although the server listens now."""
        settings = self._settings
        check_has_port(settings.instance)
        if settings.check_port:
            address = configured_address(settings.address)
            judgement = judged(sockets, address, ports_of(settings.instance), ServerStatus.LISTENING)
            if judgement.decision is Decision.REFUSE:
                raise refused(address, judgement.port, sockets)

    def _judged(self, instance: ServiceInstance[Any], sockets: list[Socket]) -> Judgement:
        if not self._settings.check_port or not ports_of(instance):
            return Judgement(Decision.LIST, 0)
        status = ServerStatus.STARTING if self._host is None else ServerStatus.LISTENING
        if status is ServerStatus.STARTING and self._is_served_by_another(instance, sockets):
            return Judgement(Decision.WAIT, ports_of(instance)[0])
        return judged(sockets, instance.address, ports_of(instance), status)

    def _is_served_by_another(self, instance: ServiceInstance[Any], sockets: list[Socket]) -> bool:
        """Whether the socket with our port is that of another server in this process, which has our id."""
        other = Term.listed.get(self._key(instance))
        displaces = other is not None and self._settings.on_conflict == "takeover"
        return displaces and serves(listening(sockets), instance.address, ports_of(instance)[0])

    def _key(self, instance: ServiceInstance[Any]) -> tuple[str, ...]:
        return (*self._settings.place, instance.id)

    async def _list_later(self, instance: ServiceInstance[Any]) -> None:
        """List *instance* when this process has the port, or has opened a socket that something else may lead to."""
        for pause in pauses(_LISTENS_WITHIN):
            await asyncio.sleep(pause)
            sockets = own_sockets()
            if self._judged(instance, sockets).decision is not Decision.WAIT or opened(self._before, sockets):
                break
        await self._list(instance)
        await self._compare(instance)

    async def _compare(self, instance: ServiceInstance[Any]) -> None:
        """Warn if this process opens its sockets at another address than that of *instance*, which is listed."""
        for pause in pauses(_COMPARED_WITHIN):
            if opened(self._before, own_sockets()):
                await asyncio.sleep(_ALL_OPEN_WITHIN)
                break
            await asyncio.sleep(pause)
        sockets = own_sockets()
        judgement = judged(sockets, instance.address, ports_of(instance), ServerStatus.LISTENING)
        if judgement.decision is not Decision.LIST:
            self._warn("port", warning(instance, judgement.port, sockets))

    async def _until_listed(self) -> None:
        """Wait until we are listed, or the sibling that we stand by for; raises why we never will be."""
        assert self.registration is not None, "it was registered"
        waits = [spawn(self.registration.wait_live(), "wait until listed")]
        if self._settings.shared:
            id = self.registration.instance.id
            seen = self._views[self._service].wait_for(lambda snapshot: id in snapshot)
            waits.append(spawn(awaited(seen), "wait for a sibling"))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in waits:
                each.cancel()
        if (view := self._views.get(self._service)) is not None:
            await view.sync()  # so that it shows this server

    # ------------------------------------------------------------------ facts

    @property
    def draining(self) -> bool:
        return self._draining is not None

    def view(self, name: str) -> View[Any]:
        if name not in self._settings.discover:
            known = ", ".join(map(repr, self._settings.discover)) or "nothing"
            raise InvalidArgument("name", name, f"is not discovered here: discover= names {known}")
        opening = self._openings.get(name)
        if opening is None or not opening.done() or opening.cancelled():
            raise NotYet(f"the view of {name!r} is not synced yet: {WAITING}")
        opening.result()
        return self._views[name]

    def readiness(self) -> Readiness:
        return detailed(self._readiness(), self.registration, self._session)

    def _readiness(self) -> Readiness:
        registration = self.registration
        if self.draining:
            return Readiness(False, "draining", "the server is about to end")
        status = "starting" if registration is None else registration.status.value
        if (obstacle := self._obstacle()) is not None:
            return Readiness(False, status, obstacle)
        if registration is None:
            return Readiness(False, status, str(self.failure or WAITING))
        if registration.status is Status.LIVE and not self._is_shown(registration.instance.id):
            return Readiness(False, status, f"the view of {self._service!r} does not show this server yet")
        if registration.instance.status == "failing":
            return Readiness(False, "failing", failing_checks(registration))
        ready = self._serves(registration)
        # A sibling may have it, while ours stands by; or the failure that ended ours is known.
        reason = self.failure or REASONS[registration.status]
        if self._has_sibling() and registration.status is not Status.LIVE:
            reason = "a sibling is listed"
        return Readiness(ready, status, None if reason is None else str(reason))

    def _obstacle(self) -> str | None:
        for name, opening in self._openings.items():
            if not opening.done():
                return f"the view of {name!r} is not synced yet: {WAITING}"
            if (error := opening.exception()) is not None:  # they are cancelled only after the draining
                return f"{name!r} cannot be viewed: {error}"
        return None

    def _serves(self, registration: Registration[Any]) -> bool:
        status = registration.status
        self._was_listed |= status is Status.LIVE
        if status is Status.LIVE or self._has_sibling():
            return True
        return self._settings.ready_in_outage and self._was_listed and status in OUTAGE

    def _is_shown(self, id: str) -> bool:
        """Whether the view of the own service, where there is one, has shown the server since it was listed."""
        if not self._shown:
            view = self._views.get(self._service)
            self._shown = view is None or id in view.snapshot or id in view.snapshot.invalid
        return self._shown

    def _has_sibling(self) -> bool:
        """Whether another worker was listed for all of us, by the last answer."""
        if not self._settings.shared or self.registration is None or self.registration.owner is not None:
            return False
        view = self._views[self._service]
        known = view.fresh or self._settings.ready_in_outage
        return known and self.registration.instance.id in view.snapshot

    # ------------------------------------------------------------------ ending

    def before_draining(self, seconds: float | None, jobs: Jobs | None) -> None:
        """Give consumers *seconds* and have *jobs* done when it is drained; nothing, where that has begun."""
        self._seconds = self._settings.drain if seconds is None else seconds
        self._jobs = jobs

    async def until_lost(self) -> RegistryError:
        """Return why it is not listed, or will not be any more, for good."""
        await asyncio.wait([self._lost])
        return self._lost.result()

    async def drain(self) -> None:
        if self._draining is None:
            self._draining = spawn(self._drain(), f"drain {self._service}")
        # A task that leaves because an anyio scope was cancelled is cancelled again at every await.
        with anyio.CancelScope(shield=True):
            await outcome(self._draining)

    async def hurry(self) -> None:
        """Drain without waiting for consumers and jobs, any longer or at all."""
        self._patience.cancel()
        self._finishing.cancel()
        await self.drain()

    async def _drain(self) -> None:
        under_way = [each for each in (self._registering, self._looking) if each is not None and not each.done()]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
        if (registration := self.registration) is None:
            await self._finish()
            return
        has_sibling = self._has_sibling()
        # Without an owner it may be listed all the same: consumers can see that before the answer is here.
        if registration.owner is None and (has_sibling or not self.registry.session.connected):
            # First, or the id would be ours as soon as a sibling that is drained too has withdrawn it.
            await registration.aclose()
            with self._patience:
                await asyncio.sleep(self._seconds if has_sibling else 0)
            await self._finish()
            return
        with self._patience:
            if await self._disabled(registration):
                await asyncio.sleep(self._seconds)
        try:
            await self._finish()
        finally:
            await registration.aclose()

    async def _finish(self) -> None:
        """Have the jobs done, whatever they raise: it is withdrawn after that in any case."""
        if self._jobs is None:
            return
        with self._finishing:
            try:
                await foreign.call(self._jobs)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                task = asyncio.current_task()
                if self._finishing.cancel_called or (task is not None and task.cancelling()):
                    raise
                failure = error if isinstance(error, foreign.ForeignError) else foreign.ForeignError(error)
                self.jobs_failure = failure
                text = "%s is withdrawn, though its jobs before that failed: %s"
                _log.error(text, self._service, failure, extra={"service": self._service})

    async def _disabled(self, registration: Registration[Any]) -> bool:
        """Return whether consumers could be told to send nothing new."""
        with anyio.move_on_after(self._seconds), contextlib.suppress(RegistryError):
            await registration.drain()
            return True
        return False

    async def end(self) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self.drain()
            finally:
                tasks = [
                    each
                    for each in (*self._openings.values(), self._registering, self._looking, self._following)
                    if each
                ]
                for task in tasks:
                    task.cancel()
                try:
                    await self.registry.aclose()
                finally:
                    for key in [key for key, term in Term.listed.items() if term is self]:
                        del Term.listed[key]
                    if self._host is not None:
                        self._host.leave(self)
                    await self.hurry()
                    if tasks:
                        await asyncio.wait(tasks)
                    self._repeated.close()

    def _warn(self, kind: str, text: str) -> None:
        self._repeated.tell(kind, logging.WARNING, "%s", text)
