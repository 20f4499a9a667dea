"""A server process's part in the registry, whatever the server is: connected, discovering, listed, drained, withdrawn.

The frameworks' modules, and whoever runs a server on plain asyncio, enter one :class:`Membership`. What has to come in
which order is here and nowhere else::

    connect ─▶ views ─▶ announce: listed ─▶ … ─▶ drain: disable, wait, withdraw ─▶ disconnect

A server is to accept connections from before it is announced until after it is drained. :class:`Hosting` is how a
server that knows when its sockets open and close tells the memberships that were entered under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import multiprocessing
import os
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

import anyio

from aioregistry import (
    InvalidArgument,
    Registration,
    Registry,
    RegistryError,
    ServiceInstance,
    Status,
    UsageError,
    View,
    connect,
)
from aioregistry._model import check_payload_type

from ._advertised import NoAddress, advertised_address, configured_address

__all__ = ["Hosting", "Membership", "NotYet", "Readiness", "hosting"]

DEFAULT_DRAIN: Final = 2.0
"""Seconds; an event takes milliseconds to a consumer, and a consumer in need of a new connection about a second."""

_LONGEST_PAUSE: Final = 10.0
"""Seconds between two attempts to find the address to advertise."""

_WAITING: Final = "ZooKeeper has not answered yet"

_OUTAGE: Final = frozenset({Status.REGISTERING, Status.UNCERTAIN, Status.PRESUMED_GONE})
"""What an instance that was listed can be because of ZooKeeper alone. REGISTERING: its session has expired."""

_REASONS: Final[Mapping[Status, str | None]] = MappingProxyType(
    {
        Status.REGISTERING: "not listed",
        Status.LIVE: None,
        Status.UNCERTAIN: "ZooKeeper does not answer",
        Status.PRESUMED_GONE: "ZooKeeper has not answered for a session timeout",
        Status.DISPLACED: "another process has the id",
        Status.FAILED: "the registration failed",
        Status.CLOSED: "the registration was closed",
    }
)

_log = logging.getLogger("aioregistry.integrations")

T = TypeVar("T")


class NotYet(RegistryError):
    """What was asked for comes with ZooKeeper's first answer, which has not come yet."""


class Readiness(NamedTuple):
    """Whether a server is to be sent requests, and why not.

    ``status`` is that of the registration, "starting" before there is one, or "draining"; ``reason`` is None where
    there is nothing to say.
    """

    ready: bool
    status: str
    reason: str | None


class Membership:
    """A server process's part in the registry: registered under *service*, with views of the services it uses.

    To be entered (``async with``) by the server's process, before it serves; it may be entered again once it was left.
    Entering connects, opens the views and announces the server; leaving drains it and disconnects. Nothing touches an
    event loop or a socket before, so that it may be made where a module is imported, and before a fork.

    Without ``wait`` entering is done at once, also while ZooKeeper is away. When that answers, the views are synced,
    and then the server is listed; until then :attr:`ready` is False.

    Leaving is bounded: at most twice *drain* and ``close_timeout`` seconds, once for withdrawing and once for closing.
    It is shielded from anyio's cancellation; a task that is cancelled while it leaves waits no longer for consumers,
    and withdraws all the same.

    Args:
        servers: the connect string, as :func:`aioregistry.connect` takes it.
        service: the service that this server is an instance of.
        port: the port that consumers are to connect to, 1 to 65535.
        address: the address that consumers are to connect to; found as :func:`.advertised.advertised_address` does
            unless given.
        id: the server within the service; ``address:port`` unless given.
        payload: what is published with the instance.
        workers: where several processes serve one port, "each" is listed under an id of its own (``#`` and the process
            id behind the server's), or "one" is listed for all while its siblings stand by and take over when it goes.
            A process is taken for one of several where multiprocessing started it (as uvicorn and hypercorn do) or
            gunicorn did.
        discover: names of the services to view; or a mapping of names to the types that payloads are decoded to.
        drain: seconds between telling consumers to send nothing new and the withdrawal.
        ready_in_outage: whether a server that was listed once stays ready while ZooKeeper does not answer. With False a
            gateway that asks for readiness loses all servers at once when ZooKeeper fails.
        wait: True enters when the server is listed and the views are synced, and raises where there is no ZooKeeper.
        **options: further arguments of :func:`aioregistry.connect`.

    Raises:
        InvalidArgument: an argument, or an environment variable that is used, is wrong; at once, naming it.
    """

    def __init__(
        self,
        servers: str,
        service: str,
        *,
        port: int,
        address: str | None = None,
        id: str | None = None,
        payload: Any = None,
        workers: Literal["each", "one"] = "each",
        discover: Iterable[str] | Mapping[str, Any] = (),
        drain: float = DEFAULT_DRAIN,
        ready_in_outage: bool = True,
        wait: bool = False,
        **options: Any,
    ) -> None:
        if workers not in ("each", "one"):
            raise InvalidArgument("workers", workers, 'is neither "each" nor "one"')
        if not port:
            raise InvalidArgument("port", port, "give the port that consumers connect to")
        # Whatever the address will be, the rest is right or wrong now.
        ServiceInstance(service, address=address, port=port, id="unknown yet" if id is None else id, payload=payload)
        _check_connect(servers, options)
        configured_address(address)
        _check_flag("wait", wait)
        _check_flag("ready_in_outage", ready_in_outage)
        _check_drain(drain)
        self._settings = _Settings(
            servers=servers,
            service=service,
            port=port,
            address=address,
            id=id,
            payload=payload,
            shared=workers == "one",
            discover=_checked_services(discover),
            drain=drain,
            ready_in_outage=ready_in_outage,
            wait=wait,
            options=options,
        )
        self._term: _Term | None = None

    # ------------------------------------------------------------------ what it offers

    @property
    def registry(self) -> Registry:
        """The registry, connected or not; raises UsageError when the membership is not entered."""
        return self._entered().registry

    @property
    def registration(self) -> Registration[Any]:
        """The registration, to be updated and followed; closed once it was drained.

        Raises:
            NotYet: the server was not announced yet, the views are not synced yet, or no address was found yet.
            UsageError: the membership is not entered.
        """
        term = self._entered()
        if term.registration is None:
            raise NotYet(f"{self._settings.service!r} is not registered yet: {term.failure or _WAITING}")
        return term.registration

    def view(self, name: str) -> View[Any]:
        """Return the view of the service *name*, one of those to discover; the membership opens and closes it.

        Raises:
            InvalidArgument: it is none of them.
            NotYet: ZooKeeper has not told who is there yet.
            UsageError: the membership is not entered.
            RegistryError: why the service cannot be viewed.
        """
        return self._entered().view(name)

    @property
    def ready(self) -> bool:
        """Whether the server is to be sent requests now; see :meth:`readiness`."""
        return self.readiness().ready

    def readiness(self) -> Readiness:
        """Return whether the server is to be sent requests now, and why not.

        It is when it is listed and every view was synced once. It stays so while ZooKeeper does not answer, unless
        ``ready_in_outage`` is False. It is not while it drains, when another process has its id, or when the
        registration failed. A worker that stands by is ready when a sibling is listed.

        Raises UsageError when the membership is not entered.
        """
        return self._entered().readiness()

    # ------------------------------------------------------------------ entering and leaving

    async def __aenter__(self) -> Self:
        term = await self._begin()
        try:
            await term.announce()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    def connected(self) -> AbstractAsyncContextManager[Membership]:
        """Enter without being listed: that begins with :meth:`announce`, for who has to start to listen first."""
        return _Connected(self)

    async def announce(self) -> None:
        """Be listed from now on; with ``wait``, return when that is so.

        Under a server that tells when it listens (:class:`Hosting`) it is put off until then. May be called again.

        Raises:
            UsageError: the membership is not entered.
            RegistrationError: with ``wait``, why the server will not be listed.
            NoAddress: with ``wait``, there is no address to advertise.
        """
        await self._entered().announce()

    async def drain(self) -> None:
        """Tell consumers to send nothing new (``enabled=False``), give them the time, and withdraw.

        To be called before the server's sockets are closed; leaving does it otherwise. Whoever calls again waits for
        the same; cancelling stops the waiting only. Takes at most twice ``drain`` and ``close_timeout``. Raises
        UsageError when the membership is not entered.
        """
        await self._entered().drain()

    async def _begin(self) -> _Term:
        if self._term is not None:
            raise UsageError(f"{self!r} is entered already")
        term = self._term = _Term(self._settings, hosting.get())
        try:
            await term.begin()
        except BaseException:
            await self._end()
            raise
        return term

    async def _end(self) -> None:
        term = self._entered()
        try:
            await term.end()
        finally:
            self._term = None

    def _entered(self) -> _Term:
        if self._term is None:
            raise UsageError(f"{self!r}: `async with membership` comes first")
        return self._term

    def __repr__(self) -> str:
        if self._term is None:
            return f"<Membership {self._settings.service} not entered>"
        readiness = self._term.readiness()
        return f"<Membership {self._settings.service} {readiness.status}{'' if readiness.ready else ', not ready'}>"


class _Connected:
    """A membership that is entered, and not announced.

    No generator: one within a framework's would be closed beside it, not by it, where the loop ends before they do.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def __aenter__(self) -> Membership:
        await self._membership._begin()
        return self._membership

    async def __aexit__(self, *_: object) -> None:
        await self._membership._end()


class Hosting:
    """What a server does for the memberships that are entered while it starts: tell when it listens, and drain them.

    Made by the server, and set as :data:`hosting` while the application starts.
    """

    def __init__(self) -> None:
        self._listening = False
        self._terms: list[_Term] = []

    @property
    def listening(self) -> bool:
        """Whether the server accepts connections."""
        return self._listening

    def listen(self) -> None:
        """The server accepts connections from now on: who waits to be announced is."""
        self._listening = True
        for term in self._terms:
            term.register_if_wanted()

    async def drain(self) -> None:
        """Drain every membership, at the same time; see :meth:`Membership.drain`.

        Raises what the first one failed with, when all are done.
        """
        # The server closes its sockets then, whatever became of one.
        for failure in await asyncio.gather(*(term.drain() for term in self._terms), return_exceptions=True):
            if failure is not None:
                raise failure

    async def withdraw(self) -> None:
        """Wait no longer for consumers, and withdraw every membership, within ``close_timeout``."""
        await asyncio.gather(*(term.hurry() for term in self._terms))

    def _enter(self, term: _Term) -> None:
        self._terms.append(term)

    def _leave(self, term: _Term) -> None:
        self._terms.remove(term)


hosting: Final[ContextVar[Hosting | None]] = ContextVar("hosting", default=None)
"""The server under which this context runs, where it is one that says when it listens."""


class _Settings(NamedTuple):
    servers: str
    service: str
    port: int
    address: str | None
    id: str | None
    payload: Any
    shared: bool
    discover: Mapping[str, Any]
    drain: float
    ready_in_outage: bool
    wait: bool
    options: Mapping[str, Any]


class _Term:
    """A membership from entering to leaving."""

    def __init__(self, settings: _Settings, host: Hosting | None) -> None:
        self.registry = connect(settings.servers, wait=settings.wait, **settings.options)
        self.registration: Registration[Any] | None = None
        self.failure: RegistryError | None = None
        """Why it is not registered, or no longer, as far as that is known."""
        self._settings = settings
        self._host = host
        self._views: dict[str, View[Any]] = {}
        self._openings: dict[str, asyncio.Task[None]] = {}
        """Done when the view is synced, or with the reason why it will never be."""
        self._wanted = False
        self._registering: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._patience = anyio.CancelScope()
        """Around the waiting for consumers."""
        self._was_listed = False

    # ------------------------------------------------------------------ beginning

    async def begin(self) -> None:
        if self._host is not None:
            self._host._enter(self)
        self.registry = await self.registry
        settings = self._settings
        # Who stands by has to know whether a sibling is listed.
        services = {settings.service: Any, **settings.discover} if settings.shared else settings.discover
        for name, payload_type in services.items():
            self._views[name] = view = self.registry.discover(name, payload_type=payload_type)
            self._openings[name] = _task(_done(view), f"view {name}")
        if settings.wait:
            for opening in self._openings.values():
                await asyncio.shield(opening)

    async def announce(self) -> None:
        self._wanted = True
        if self.draining or (self._host is not None and not self._host.listening):
            return
        self.register_if_wanted()
        # A server that says when it listens serves meanwhile, and must not be held up.
        if self._settings.wait and self._host is None and self._registering is not None:
            await asyncio.shield(self._registering)
            await self._until_listed()

    def register_if_wanted(self) -> None:
        """Begin to register the server; once, and not after the draining began."""
        if self._wanted and self._registering is None and not self.draining:
            self._registering = _task(self._register(), f"register {self._settings.service}")

    async def _register(self) -> None:
        settings = self._settings
        try:
            for opening in self._openings.values():  # who is listed can be asked for what it takes the views for
                await asyncio.shield(opening)
            address = await self._address()
            self.registration = await self.registry.register(
                ServiceInstance(
                    settings.service,
                    id=_worker_id(settings, address),
                    address=address,
                    port=settings.port,
                    payload=settings.payload,
                ),
                wait=False,
                on_conflict="wait" if settings.shared else "takeover",
                on_displaced="standby" if settings.shared else "stop",
            )
        except RegistryError as error:
            self.failure = error
            raise
        self._following = _task(self._follow(self.registration), f"follow {settings.service}")

    async def _address(self) -> str:
        settings, pause = self._settings, 0.5
        while True:
            try:
                return await advertised_address(settings.servers, settings.address)
            except NoAddress as error:
                if settings.wait:
                    raise
                _log.warning("%s is not registered yet: %s", settings.service, error)
                self.failure = error
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _follow(self, registration: Registration[Any]) -> None:
        self.failure = None
        try:
            async with registration.statuses() as statuses:
                async for status in statuses:
                    self._was_listed |= status is Status.LIVE
        except RegistryError as error:
            self.failure = error

    async def _until_listed(self) -> None:
        """Wait until we are listed, or the sibling that we stand by for; raises why we never will be."""
        assert self.registration is not None, "it was registered"
        waits = [_task(self.registration.wait_live(), "wait until listed")]
        if self._settings.shared:
            id = self.registration.instance.id
            seen = self._views[self._settings.service].wait_for(lambda snapshot: id in snapshot)
            waits.append(_task(_done(seen), "wait for a sibling"))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in waits:
                each.cancel()

    # ------------------------------------------------------------------ what is known

    @property
    def draining(self) -> bool:
        return self._draining is not None

    def view(self, name: str) -> View[Any]:
        if name not in self._settings.discover:
            known = ", ".join(map(repr, self._settings.discover)) or "nothing"
            raise InvalidArgument("name", name, f"is not discovered here: discover= names {known}")
        opening = self._openings.get(name)
        if opening is None or not opening.done() or opening.cancelled():
            raise NotYet(f"the view of {name!r} is not synced yet: {_WAITING}")
        opening.result()
        return self._views[name]

    def readiness(self) -> Readiness:
        registration = self.registration
        if self.draining:
            return Readiness(False, "draining", "the server is about to end")
        status = "starting" if registration is None else registration.status.value
        if (obstacle := self._obstacle()) is not None:
            return Readiness(False, status, obstacle)
        if registration is None:
            return Readiness(False, status, str(self.failure or _WAITING))
        ready = self._serves(registration)
        # A sibling may have it, while ours stands by; or the failure that ended ours is known.
        reason = self.failure or _REASONS[registration.status]
        if self._has_sibling() and registration.status is not Status.LIVE:
            reason = "a sibling is listed"
        return Readiness(ready, status, None if reason is None else str(reason))

    def _obstacle(self) -> str | None:
        for name, opening in self._openings.items():
            if not opening.done():
                return f"the view of {name!r} is not synced yet: {_WAITING}"
            if (error := opening.exception()) is not None:  # they are cancelled only after the draining
                return f"{name!r} cannot be viewed: {error}"
        return None

    def _serves(self, registration: Registration[Any]) -> bool:
        status = registration.status
        self._was_listed |= status is Status.LIVE
        if status is Status.LIVE or self._has_sibling():
            return True
        return self._settings.ready_in_outage and self._was_listed and status in _OUTAGE

    def _has_sibling(self) -> bool:
        """Whether another worker was listed for all of us, as far as the last answer told."""
        if not self._settings.shared or self.registration is None or self.registration.owner is not None:
            return False
        view = self._views[self._settings.service]
        known = view.fresh or self._settings.ready_in_outage
        return known and self.registration.instance.id in view.snapshot

    # ------------------------------------------------------------------ ending

    async def drain(self) -> None:
        if self._draining is None:
            self._draining = _task(self._drain(), f"drain {self._settings.service}")
        # Who leaves because an anyio scope was cancelled is cancelled again at every await.
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._draining)

    async def hurry(self) -> None:
        """Drain without waiting for consumers, any longer or at all."""
        self._patience.cancel()
        await self.drain()

    async def _drain(self) -> None:
        if self._registering is not None and not self._registering.done():
            self._registering.cancel()
            await asyncio.wait([self._registering])
        if (registration := self.registration) is None:
            return
        has_sibling = self._has_sibling()
        # Without an owner it may be listed all the same: consumers can see that before the answer is here.
        if registration.owner is None and (has_sibling or not self.registry.session.connected):
            # First, or the id would be ours as soon as a sibling that is drained too has withdrawn it.
            await registration.aclose()
            with self._patience:
                await asyncio.sleep(self._settings.drain if has_sibling else 0)
            return
        with self._patience:
            if await self._disabled(registration):
                await asyncio.sleep(self._settings.drain)
        await registration.aclose()

    async def _disabled(self, registration: Registration[Any]) -> bool:
        """Return whether consumers could be told to send nothing new."""
        with anyio.move_on_after(self._settings.drain), contextlib.suppress(RegistryError):
            await registration.update(enabled=False)
            return True
        return False

    async def end(self) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self.drain()
            finally:
                tasks = [each for each in (*self._openings.values(), self._registering, self._following) if each]
                for task in tasks:
                    task.cancel()
                try:
                    await self.registry.aclose()
                finally:
                    if self._host is not None:
                        self._host._leave(self)
                    await self.hurry()
                    if tasks:
                        await asyncio.wait(tasks)


def _worker_id(settings: _Settings, address: str) -> str:
    """The id to register: the server's, and where it has several worker processes that are listed, the worker's."""
    server = f"{address}:{settings.port}" if settings.id is None else settings.id
    return f"{server}#{os.getpid()}" if not settings.shared and _is_worker() else server


def _is_worker() -> bool:
    """Whether a server started this process beside others like it.

    No worker is told its number. The process id will do: a worker that ends withdraws it, one that crashed leaves a
    ghost that still leads to the server, and expires.
    """
    # Gunicorn's arbiter forks and puts its name into the environment; uvicorn and hypercorn use multiprocessing.
    by_gunicorn = os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/")
    return by_gunicorn or multiprocessing.parent_process() is not None


def _checked_services(discover: object) -> Mapping[str, Any]:
    if isinstance(discover, (str, bytes)) or not isinstance(discover, Iterable):
        raise InvalidArgument("discover", discover, "give names of services, or a mapping of names to payload types")
    services = {}
    for name in discover:
        try:
            services[ServiceInstance(name, id="any").name] = Any
        except InvalidArgument as error:
            raise InvalidArgument("discover", name, error.reason) from None
    if isinstance(discover, Mapping):
        services = {name: _checked_type(f"discover[{name!r}]", discover[name]) for name in services}
    return MappingProxyType(services)


def _checked_type(field: str, payload_type: Any) -> Any:
    try:
        return check_payload_type(payload_type)
    except InvalidArgument as error:
        raise InvalidArgument(field, payload_type, error.reason) from None


def _check_connect(servers: str, options: Mapping[str, Any]) -> None:
    registry = connect(servers, **options)
    # One that is never entered is closed without an await, and then does not warn of having been forgotten.
    with contextlib.suppress(StopIteration):
        registry.aclose().send(None)


def _check_drain(seconds: object) -> None:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise InvalidArgument("drain", seconds, "give a number of seconds, 0 or more")


def _check_flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidArgument(field, value, "give True or False")


def _task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task whose failure is also asked for where nobody waits for it."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_noted)
    return task


def _noted(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s: %s", task.get_name(), error)


async def _done(work: Awaitable[object]) -> None:
    await work
