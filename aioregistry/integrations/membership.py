"""A server process's part in the registry, whatever the server is: connected, discovering, listed, drained, withdrawn.

The frameworks' modules, and whoever runs a server on plain asyncio, enter one :class:`Membership`. What has to come in
which order is here and nowhere else::

    connect ─▶ views ─▶ announce: listed ─▶ … ─▶ drain: disable, wait, withdraw ─▶ disconnect

A server is to accept connections from before it is announced until after it is drained. :class:`Hosting` is how a
server that knows when its sockets open and close tells the memberships that were entered under it. Other servers tell
nothing; what the system knows of their sockets is in ``_listening.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import multiprocessing
import os
import signal
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import anyio

from aioregistry import (
    Guard,
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
from ._listening import Decision, Judgement, Phase, Socket, judged, listening, opened, own_sockets, serves, tcp

__all__ = ["Hosting", "Membership", "NoAddress", "NotYet", "Readiness", "advertised_address", "hosting"]

DEFAULT_DRAIN: Final = 2.0
"""Seconds; an event takes milliseconds to a consumer, and a consumer in need of a new connection about a second."""

_LONGEST_PAUSE: Final = 10.0
"""Seconds between two attempts to find the address to advertise."""

_FIRST_PAUSE: Final = 0.05
_LONGEST_SOCKET_PAUSE: Final = 2.0
"""Seconds between two looks at this process's sockets, at first and in the end."""

_LISTENS_WITHIN: Final = 30.0
"""Seconds that a process has to open its sockets: imports and models that are loaded at startup may take as long. An
instance whose port another process has is listed after it all the same: that process may serve on behalf of this."""

_COMPARED_WITHIN: Final = 10.0
"""Seconds after which an instance is compared with the sockets of a process that has opened none since."""

_ALL_OPEN_WITHIN: Final = 2.0
"""Seconds from a process's first socket to its last."""

_TOLD_WITHIN: Final = 0.1
"""Seconds after which it is noticed that uvicorn is to end; uvicorn looks as often."""

_WAITING: Final = "ZooKeeper has not answered yet"

_GUARD: Final = Guard()

_OUTAGE: Final = frozenset({Status.REGISTERING, Status.UNCERTAIN, Status.PRESUMED_GONE})
"""What an instance that was listed can be because of ZooKeeper alone. REGISTERING: its session has expired."""

_REASONS: Final[Mapping[Status, str | None]] = MappingProxyType(
    {
        Status.REGISTERING: "not listed",
        Status.LIVE: None,
        Status.UNCERTAIN: "ZooKeeper does not answer",
        Status.PRESUMED_GONE: "ZooKeeper has not answered for a session timeout",
        Status.DISPLACED: "another process has claimed the id; this one stands by until that goes",
        Status.FAILED: "the registration failed",
        Status.CLOSED: "the registration was closed",
    }
)

_log = logging.getLogger("aioregistry.integrations")

T = TypeVar("T")

KeptAt: TypeAlias = str | os.PathLike[str]


class NotYet(RegistryError):
    """What was asked for comes with ZooKeeper's first answer, or with this server's sockets; they have not come yet."""


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

    A server that runs the startup before it opens its sockets (the ``uvicorn`` command, aiohttp's own runner) may find
    then that another process has its port. So the system is asked first whether this process, nobody or another process
    has *address* and *port*. In the last case the instance is not listed before this process listens, and readiness
    says so; entering does not wait for that, for the server opens its sockets after it.

    Args:
        servers: the connect string, as :func:`aioregistry.connect` takes it.
        service: the service that this server is an instance of.
        port: the port that consumers are to connect to, 1 to 65535; None where the server speaks only TLS.
        ssl_port: the port on which it speaks TLS, 1 to 65535.
        address: the address that consumers are to connect to; found as :func:`advertised_address` does
            unless given.
        id: the server within the service; ``address:port`` unless given.
        payload: what is published with the instance.
        payload_class: the Java class that Jackson is to read the payload as.
        uri_spec: Curator's UriSpec as JSON, or None.
        extra: further fields of the document.
        enabled: False lists the server as one that gets no new work, until ``registration.update(enabled=True)``.
        workers: where several processes serve one port, "each" is listed under an id of its own (``#`` and the process
            id behind the server's), or "one" is listed for all while its siblings stand by and take over when it goes.
            A process is taken for one of several where multiprocessing started it (as uvicorn and hypercorn do) or
            gunicorn did.
        on_conflict: as of :meth:`aioregistry.Registry.register`; "takeover" unless given, "wait" where *workers* is
            "one".
        on_displaced: as of :meth:`aioregistry.Registry.register`. With "standby" a server whose id was claimed by a
            newer process is listed again when that goes.
        discover: names of the services to view; or a mapping of names to the types that payloads are decoded to.
        keep: the file in which the last snapshot of the service to view is kept, as of
            :meth:`aioregistry.Registry.discover`; for several services a mapping of names to files.
        drain: seconds between telling consumers to send nothing new and the withdrawal.
        ready_in_outage: whether a server that was listed once stays ready while ZooKeeper does not answer. With False a
            gateway that asks for readiness loses all servers at once when ZooKeeper fails.
        wait: True enters when the server is listed and the views are synced, that of its own service with the server in
            it, and raises where there is no ZooKeeper, or where uvicorn is told to end meanwhile.
        check_port: False asks nothing of the system about *address* and *port*: for a process that is listed on behalf
            of another, or whose port something else leads to (a proxy, a published port).
        session_timeout: seconds; this and what follows as of :func:`aioregistry.connect`.
        connect_timeout: seconds, with *wait*.
        close_timeout: seconds.
        base_path: the path under which services are kept.
        create_chroot: False refuses a chroot that is not there.
        auth: credentials as pairs of scheme and secret.
        acl: the ACL of every node that is created; everybody may do everything unless given.
        tls: speak TLS to ZooKeeper with this context.
        allow_read_only: accept a server that lost its quorum, for the views.
        max_request: the servers' jute.maxbuffer in bytes.
        watches: "recursive" or "one-shot" forces how views watch; "auto" asks the server.
        guard: which removals views hold back.
        on_event: called with a name and fields for every event worth a log line or a metric.

    Raises:
        InvalidArgument: an argument, or an environment variable that is used, is wrong; at once, naming it.
    """

    _service: object = None
    _term: _Term | None = None

    def __init__(
        self,
        servers: str,
        service: str,
        *,
        port: int | None = None,
        ssl_port: int | None = None,
        address: str | None = None,
        id: str | None = None,
        payload: Any = None,
        payload_class: str | None = None,
        uri_spec: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        enabled: bool = True,
        workers: Literal["each", "one"] = "each",
        on_conflict: Literal["takeover", "wait", "fail"] | None = None,
        on_displaced: Literal["stop", "standby"] = "standby",
        discover: Iterable[str] | Mapping[str, Any] = (),
        keep: KeptAt | Mapping[str, KeptAt] | None = None,
        drain: float = DEFAULT_DRAIN,
        ready_in_outage: bool = True,
        wait: bool = False,
        check_port: bool = True,
        session_timeout: float = 10.0,
        connect_timeout: float | None = None,
        close_timeout: float | None = None,
        base_path: str = "/services",
        create_chroot: bool = True,
        auth: Sequence[tuple[str, str | bytes]] = (),
        acl: Sequence[Any] | None = None,
        tls: ssl.SSLContext | None = None,
        allow_read_only: bool = False,
        max_request: int = 0xFFFFF,
        watches: Literal["auto", "recursive", "one-shot"] = "auto",
        guard: Guard | None = _GUARD,
        on_event: Callable[[str, dict[str, object]], None] | None = None,
    ) -> None:
        self._service = service
        secrets = _Hidden(auth)
        del auth

        def registry() -> Registry:
            connecting = connect if acl is None else partial(connect, acl=acl)
            return connecting(
                servers,
                wait=wait,
                session_timeout=session_timeout,
                connect_timeout=connect_timeout,
                close_timeout=close_timeout,
                base_path=base_path,
                create_chroot=create_chroot,
                auth=secrets.value,
                tls=tls,
                allow_read_only=allow_read_only,
                max_request=max_request,
                watches=watches,
                guard=guard,
                on_event=on_event,
            )

        shared = _choice("workers", workers, ("each", "one")) == "one"
        _check_ports(port, ssl_port)
        # Whatever the address will be, the rest is right or wrong now.
        instance = ServiceInstance(
            service,
            id="unknown yet" if id is None else id,
            address=address,
            port=port,
            ssl_port=ssl_port,
            payload=payload,
            payload_class=payload_class,
            uri_spec=uri_spec,
            extra=extra,
            enabled=enabled,
        )
        for field, flag in (("wait", wait), ("ready_in_outage", ready_in_outage), ("check_port", check_port)):
            _check_flag(field, flag)
        _check_connect(registry)
        configured_address(address)
        _check_drain(drain)
        services = _checked_services(discover)
        self._settings = _Settings(
            servers=servers,
            place=(servers, base_path, service),
            registry=registry,
            instance=instance,
            address=address,
            id=id,
            shared=shared,
            on_conflict=_checked_conflict(on_conflict, shared),
            on_displaced=_checked_displaced(on_displaced, shared),
            discover=services,
            keep=_checked_kept(keep, services),
            drain=drain,
            ready_in_outage=ready_in_outage,
            wait=wait,
            check_port=check_port,
        )

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
            raise NotYet(f"{self._service!r} is not registered yet: {term.failure or _WAITING}")
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
        await self._begin()
        try:
            await self.announce()
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
            NotYet: with ``wait``, uvicorn was told to end meanwhile.
        """
        await self._unless_told_to_end(self._entered().announce())

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
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError("Membership runs on asyncio: no asyncio event loop is running in this thread") from None
        term = self._term = _Term(self._settings, hosting.get())
        try:
            await self._unless_told_to_end(term.begin())
        except BaseException:
            await self._end()
            raise
        return term

    async def _unless_told_to_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await *work*, which may wait for ZooKeeper; raises NotYet where uvicorn is told to end meanwhile.

        On a signal uvicorn only notes that it is to end: it looks again when the startup is over.
        """
        with anyio.CancelScope() as scope:
            watching = _task(_cancelled_when_told_to_end(scope), "watch uvicorn")
            try:
                await work
            finally:
                watching.cancel()
        if scope.cancelled_caught:
            raise NotYet(f"uvicorn was told to end before {self._service!r} was listed: {_WAITING}")

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
        if not hasattr(self, "_settings"):
            return "<Membership, not made>"  # an argument was refused
        if self._term is None:
            return f"<Membership {self._service} not entered>"
        readiness = self._term.readiness()
        return f"<Membership {self._service} {readiness.status}{'' if readiness.ready else ', not ready'}>"


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
        """The server accepts connections from now on: who waits to be announced is.

        Raises:
            InvalidArgument: a membership's port, or the address that was configured, is none that this process listens
                on, and nobody else does; nobody is announced.
        """
        sockets = own_sockets()
        for term in self._terms:
            term.check_ports(sockets)
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


class _Hidden:
    """A secret that whoever shows variables, as error reporters do, does not show."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<hidden>"


class _Settings(NamedTuple):
    servers: str
    place: tuple[str, str, str]
    registry: Callable[[], Registry]
    instance: ServiceInstance[Any]
    address: str | None
    id: str | None
    shared: bool
    on_conflict: Literal["takeover", "wait", "fail"]
    on_displaced: Literal["stop", "standby"]
    discover: Mapping[str, Any]
    keep: Mapping[str, KeptAt]
    drain: float
    ready_in_outage: bool
    wait: bool
    check_port: bool


class _Term:
    """A membership from entering to leaving."""

    # Of the process, because its sockets are: by place and id, which membership was listed last.
    listed: ClassVar[WeakValueDictionary[tuple[str, ...], _Term]] = WeakValueDictionary()

    def __init__(self, settings: _Settings, host: Hosting | None) -> None:
        self.registry = settings.registry()
        self.registration: Registration[Any] | None = None
        self.failure: RegistryError | None = None
        """Why it is not registered, or no longer, as far as that is known."""
        self._settings = settings
        self._service = settings.instance.name
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
        self._was_listed = False
        self._shown = False
        """Whether the view of the own service, where there is one, has shown the server."""

    # ------------------------------------------------------------------ beginning

    async def begin(self) -> None:
        if self._host is not None:
            self._host._enter(self)
        self.registry = await self.registry
        settings = self._settings
        # Who stands by has to know whether a sibling is listed.
        services = {self._service: Any, **settings.discover} if settings.shared else settings.discover
        for name, payload_type in services.items():
            keep = settings.keep.get(name)
            self._views[name] = view = self.registry.discover(name, payload_type=payload_type, keep=keep)
            self._openings[name] = _task(_done(view), f"view {name}")
        if settings.wait:
            for opening in self._openings.values():
                await _outcome(opening)

    async def announce(self) -> None:
        self._wanted = True
        if self.draining or (self._host is not None and not self._host.listening):
            return
        self.register_if_wanted()
        # A server that says when it listens serves meanwhile, and must not be held up.
        if self._settings.wait and self._host is None and self._registering is not None:
            await _outcome(self._registering)
            if self.registration is not None:  # else it waits until this process listens, which it can do only now
                await self._until_listed()

    def register_if_wanted(self) -> None:
        """Begin to register the server; once, and not after the draining began."""
        if self._wanted and self._registering is None and not self.draining:
            self._registering = _task(self._register(), f"register {self._service}")

    async def _register(self) -> None:
        try:
            for opening in self._openings.values():  # who is listed can be asked for what it takes the views for
                await _outcome(opening)
            address = await self._address()
        except RegistryError as error:
            self.failure = error
            raise
        instance = self._settings.instance.replace(address=address, id=_worker_id(self._settings, address))
        await self._list_in_turn(instance)

    async def _list_in_turn(self, instance: ServiceInstance[Any]) -> None:
        """List *instance* now, later or not at all, as this process's sockets have it."""
        sockets = own_sockets()
        decision, port = self._judged(instance, sockets)
        if decision is Decision.REFUSE:
            self.failure = _refused(instance.address, port, sockets)
            raise self.failure
        if decision is Decision.WAIT:
            self.failure = NotYet(_OCCUPIED.format(_at(instance.address, port)))
            _log.warning("%s is not listed yet: %s; %s", self._service, self.failure, _ON_BEHALF)
            self._looking = _task(self._list_later(instance), f"register {self._service}")
            return
        if decision is Decision.WARN:
            _warn(instance, port, sockets)
        await self._list(instance)
        if self._settings.check_port and self._host is None:
            self._looking = _task(self._compare(instance), f"look at the sockets of {self._service}")

    async def _list(self, instance: ServiceInstance[Any]) -> None:
        settings = self._settings
        _Term.listed[self._key(instance)] = self
        try:
            self.registration = await self.registry.register(
                instance, wait=False, on_conflict=settings.on_conflict, on_displaced=settings.on_displaced
            )
        except RegistryError as error:
            self.failure = error
            raise
        self._following = _task(self._follow(self.registration), f"follow {self._service}")

    async def _address(self) -> str:
        settings, pause = self._settings, 0.5
        while True:
            try:
                return await advertised_address(settings.servers, settings.address)
            except NoAddress as error:
                if settings.wait:
                    raise
                if str(error) != str(self.failure):  # once for each reason
                    _log.warning("%s is not registered yet: %s", self._service, error)
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

    # ------------------------------------------------------------------ sockets

    def check_ports(self, sockets: list[Socket]) -> None:
        """Raise InvalidArgument where nobody listens on the port, now that the server does."""
        settings = self._settings
        if settings.check_port:
            address = configured_address(settings.address)
            judgement = judged(sockets, address, _ports(settings.instance), Phase.LISTENING)
            if judgement.decision is Decision.REFUSE:
                raise _refused(address, judgement.port, sockets)

    def _judged(self, instance: ServiceInstance[Any], sockets: list[Socket]) -> Judgement:
        if not self._settings.check_port:
            return Judgement(Decision.LIST, 0)
        phase = Phase.STARTING if self._host is None else Phase.LISTENING
        if phase is Phase.STARTING and self._is_served_by_another(instance, sockets):
            return Judgement(Decision.WAIT, _ports(instance)[0])
        return judged(sockets, instance.address, _ports(instance), phase)

    def _is_served_by_another(self, instance: ServiceInstance[Any], sockets: list[Socket]) -> bool:
        """Whether the socket with our port is that of another server in this process, which has our id."""
        other = _Term.listed.get(self._key(instance))
        displaces = other is not None and self._settings.on_conflict == "takeover"
        return displaces and serves(listening(sockets), instance.address, _ports(instance)[0])

    def _key(self, instance: ServiceInstance[Any]) -> tuple[str, ...]:
        return (*self._settings.place, instance.id)

    async def _list_later(self, instance: ServiceInstance[Any]) -> None:
        """List *instance* when this process has the port, or has opened a socket that something else may lead to."""
        for pause in _pauses(_LISTENS_WITHIN):
            await asyncio.sleep(pause)
            sockets = own_sockets()
            if self._judged(instance, sockets).decision is not Decision.WAIT or opened(self._before, sockets):
                break
        await self._list(instance)
        await self._compare(instance)

    async def _compare(self, instance: ServiceInstance[Any]) -> None:
        """Warn where this process opens its sockets elsewhere than *instance*, which is listed, says."""
        for pause in _pauses(_COMPARED_WITHIN):
            if opened(self._before, own_sockets()):
                await asyncio.sleep(_ALL_OPEN_WITHIN)
                break
            await asyncio.sleep(pause)
        sockets = own_sockets()
        judgement = judged(sockets, instance.address, _ports(instance), Phase.LISTENING)
        if judgement.decision is not Decision.LIST:
            _warn(instance, judgement.port, sockets)

    async def _until_listed(self) -> None:
        """Wait until we are listed, or the sibling that we stand by for; raises why we never will be."""
        assert self.registration is not None, "it was registered"
        waits = [_task(self.registration.wait_live(), "wait until listed")]
        if self._settings.shared:
            id = self.registration.instance.id
            seen = self._views[self._service].wait_for(lambda snapshot: id in snapshot)
            waits.append(_task(_done(seen), "wait for a sibling"))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in waits:
                each.cancel()
        if (view := self._views.get(self._service)) is not None:
            await view.sync()  # so that it shows this server

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
        if registration.status is Status.LIVE and not self._is_shown(registration.instance.id):
            return Readiness(False, status, f"the view of {self._service!r} does not show this server yet")
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

    def _is_shown(self, id: str) -> bool:
        """Whether the view of the own service, where there is one, has shown the server since it was listed."""
        if not self._shown:
            view = self._views.get(self._service)
            self._shown = view is None or id in view.snapshot or id in view.snapshot.invalid
        return self._shown

    def _has_sibling(self) -> bool:
        """Whether another worker was listed for all of us, as far as the last answer told."""
        if not self._settings.shared or self.registration is None or self.registration.owner is not None:
            return False
        view = self._views[self._service]
        known = view.fresh or self._settings.ready_in_outage
        return known and self.registration.instance.id in view.snapshot

    # ------------------------------------------------------------------ ending

    async def drain(self) -> None:
        if self._draining is None:
            self._draining = _task(self._drain(), f"drain {self._service}")
        # Who leaves because an anyio scope was cancelled is cancelled again at every await.
        with anyio.CancelScope(shield=True):
            await _outcome(self._draining)

    async def hurry(self) -> None:
        """Drain without waiting for consumers, any longer or at all."""
        self._patience.cancel()
        await self.drain()

    async def _drain(self) -> None:
        under_way = [each for each in (self._registering, self._looking) if each is not None and not each.done()]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
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
                    for key in [key for key, term in _Term.listed.items() if term is self]:
                        del _Term.listed[key]
                    if self._host is not None:
                        self._host._leave(self)
                    await self.hurry()
                    if tasks:
                        await asyncio.wait(tasks)


def _worker_id(settings: _Settings, address: str) -> str:
    """The id to register: the server's, and where it has several worker processes that are listed, the worker's."""
    instance = settings.instance
    server = settings.id
    if server is None:
        server = ServiceInstance(instance.name, address=address, port=instance.port, ssl_port=instance.ssl_port).id
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


def _check_connect(registry: Callable[[], Registry]) -> None:
    # One that is never entered is closed without an await, and then does not warn of having been forgotten.
    with contextlib.suppress(StopIteration):
        registry().aclose().send(None)


def _choice(field: str, value: Any, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise InvalidArgument(field, value, f"is none of {', '.join(map(repr, choices))}")
    return value


def _check_ports(port: object, ssl_port: object) -> None:
    for field, number in (("port", port), ("ssl_port", ssl_port)):
        if number == 0 and number is not False:
            raise InvalidArgument(field, number, "give the port that consumers connect to")
    if port is None and ssl_port is None:
        raise InvalidArgument("port", port, "give the port that consumers connect to")


def _checked_conflict(on_conflict: Any, shared: bool) -> Literal["takeover", "wait", "fail"]:
    if on_conflict is None:
        return "wait" if shared else "takeover"
    if shared and on_conflict != "wait":
        raise InvalidArgument("on_conflict", on_conflict, 'siblings with workers="one" stand by: give "wait"')
    return _choice("on_conflict", on_conflict, ("takeover", "wait", "fail"))  # type: ignore[no-any-return]


def _checked_displaced(on_displaced: Any, shared: bool) -> Literal["stop", "standby"]:
    if shared and on_displaced == "stop":
        raise InvalidArgument("on_displaced", on_displaced, 'siblings with workers="one" stand by: give "standby"')
    return _choice("on_displaced", on_displaced, ("stop", "standby"))  # type: ignore[no-any-return]


def _checked_kept(keep: object, services: Mapping[str, Any]) -> Mapping[str, KeptAt]:
    if keep is None:
        return {}
    if not isinstance(keep, Mapping):
        if len(services) != 1:
            raise InvalidArgument("keep", keep, "give a mapping of the services that discover= names to files")
        keep = dict.fromkeys(services, keep)
    for name, path in keep.items():
        if name not in services:
            raise InvalidArgument("keep", name, "is none of the services that discover= names")
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidArgument("keep", path, "give the path of a file")
    return MappingProxyType(dict(keep))


def _check_drain(seconds: object) -> None:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise InvalidArgument("drain", seconds, "give a number of seconds, 0 or more")


def _check_flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidArgument(field, value, "give True or False")


# ---------------------------------------------------------------- sockets


def _pauses(seconds: float) -> Iterator[float]:
    """Yield pauses, each half as long again as the one before, that are *seconds* together."""
    pause = _FIRST_PAUSE
    while seconds > 0:
        yield min(pause, seconds)
        seconds -= pause
        pause = min(1.5 * pause, _LONGEST_SOCKET_PAUSE)


def _ports(instance: ServiceInstance[Any]) -> list[int]:
    return [port for port in (instance.port, instance.ssl_port) if port is not None]


def _refused(address: str | None, port: int, sockets: list[Socket]) -> InvalidArgument:
    reason = f"nobody listens at {_at(address, port)}: {_listens(sockets)}; {_WAY_OUT}"
    by_address = serves(listening(sockets), None, port)
    return InvalidArgument("address", address, reason) if by_address else InvalidArgument("port", port, reason)


def _warn(instance: ServiceInstance[Any], port: int, sockets: list[Socket]) -> None:
    where = _at(instance.address, port)
    _log.warning("%s is listed at %s, but %s; %s", instance.name, where, _listens(sockets), _WAY_OUT)


def _at(address: str | None, port: int) -> str:
    return f"port {port}" if address is None else str(Socket(0, address, port, listening=True))


def _listens(sockets: list[Socket]) -> str:
    return f"this process listens on {', '.join(map(str, sorted(tcp(listening(sockets)))))} only"


_OCCUPIED: Final = "another server has {}, and this process does not listen yet"
_ON_BEHALF: Final = "give check_port=False where that server is listed by this process, or leads to it"
_WAY_OUT: Final = (
    "give the address and the port that the server listens on, or check_port=False where something leads there"
)


def _task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task whose failure is also asked for where nobody waits for it."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_noted)
    return task


def _noted(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s: %s", task.get_name(), error)


async def _outcome(task: asyncio.Task[T]) -> T:
    """What *task* returns or raises; cancelling the wait leaves it alone."""
    # Not asyncio.shield: since Python 3.14 it reports what fails after whoever waited was cancelled.
    await asyncio.wait([task])
    return task.result()


async def _done(work: Awaitable[object]) -> None:
    await work


async def _cancelled_when_told_to_end(scope: anyio.CancelScope) -> None:
    while not _told_to_end():  # noqa: ASYNC110 - uvicorn sets a flag and tells nobody
        await asyncio.sleep(_TOLD_WITHIN)
    scope.cancel()


def _told_to_end() -> bool:
    """Whether the uvicorn server of this process, which handles SIGTERM by a method of its own, was told to end."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
