"""A server process's part in the registry, whatever the server is: connected, discovering, listed, drained, withdrawn.

The frameworks' modules, and programs that run a server on plain asyncio, enter one :class:`Membership`. The order of
the steps is here and nowhere else::

    connect ─▶ views ─▶ announce: listed ─▶ … ─▶ drain: disable, wait, withdraw ─▶ disconnect

A server must accept connections from before it is announced until after it is drained. :class:`Hosting` is how a
server that knows when its sockets open and close tells the memberships that were entered under it. Other servers do not
report that; ``_listening.py`` asks the system about their sockets.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, Literal, Self

import anyio

from aioregistry import Check, Guard, Registration, Registry, RegistryError, ServiceInstance, UsageError, View
from aioregistry._arguments import check_choice, check_flag
from aioregistry._health import checked_checks
from aioregistry._parameters import DEFAULT_ACL, checked_parameters
from aioregistry._secrets import Hidden, unshown
from aioregistry.events import EventCallback

from ._advertised import NoAddress, advertised_address, configured_address
from ._hosting import Hosting, hosting
from ._ports import check_has_port
from ._readiness import WAITING, NotYet, Readiness
from ._settings import (
    KeptAt,
    Settings,
    check_drain,
    check_ports,
    checked_conflict,
    checked_displaced,
    checked_drain,
    checked_kept,
    checked_services,
)
from ._signals import Asked, cancelled_when_told_to_end
from ._tasks import first_of, spawn
from ._term import Jobs, Term

__all__ = ["Hosting", "Membership", "NoAddress", "NotYet", "Readiness", "advertised_address", "hosting"]

DEFAULT_DRAIN: Final = 2.0
"""Seconds; an event takes milliseconds to a consumer, and a consumer in need of a new connection about a second."""

_GUARD: Final = Guard()


class Membership:
    """A server process's part in the registry: registered under *service*, with views of the services it uses.

    Enter it (``async with``) in the server's process, before that serves; you may enter it again after you left it.
    Entering connects, opens the views and announces the server; leaving drains it and disconnects. Making one touches
    neither an event loop nor a socket, so a module may make it when it is imported, and before a fork.

    Without ``wait``, entering takes no time, even while ZooKeeper is away. When ZooKeeper answers, the views are
    synced, and then the server is listed; until then :attr:`ready` is False.

    Leaving is bounded: at most twice *drain* and ``close_timeout`` seconds, once for withdrawing and once for closing.
    It is shielded from anyio's cancellation; a task that is cancelled while it leaves does not wait for consumers any
    longer, and still withdraws.

    A server that runs the startup before it opens its sockets (the ``uvicorn`` command, aiohttp's own runner) may find
    then that another process has its port. So the membership first asks the system which process listens at *address*
    and *port*. If it is another one, the instance is not listed until this process listens, and readiness says so;
    entering does not wait for that, because the server opens its sockets later.

    Args:
        servers: the connect string, as :func:`aioregistry.connect` takes it.
        service: the service that this server is an instance of.
        port: the port that consumers are to connect to, 1 to 65535; None if the server speaks only TLS, and for a
            worker to which no client connects.
        ssl_port: the port on which it speaks TLS, 1 to 65535.
        address: the address that consumers are to connect to; found as :func:`advertised_address` does
            unless given.
        id: the server within the service; ``address:port`` unless given. Without a port it is ``address#`` and eight
            random hexadecimal digits, as of :class:`aioregistry.ServiceInstance`: another one each time.
        payload: the payload that is published with the instance.
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
        checks: as of :meth:`aioregistry.Registry.register`; :meth:`readiness` shows the state of each.
        discover: names of the services to view; or a mapping of names to the types that payloads are decoded to.
        keep: the file in which the last snapshot of the service to view is kept, as of
            :meth:`aioregistry.Registry.discover`; for several services a mapping of names to files.
        drain: seconds between telling consumers to send nothing new and the withdrawal.
        ready_in_outage: whether a server that was listed once stays ready while ZooKeeper does not answer. With False a
            gateway that asks for readiness loses all servers at once when ZooKeeper fails.
        wait: True enters when the server is listed and the views are synced, that of its own service with the server in
            it, and raises where there is no ZooKeeper, or if uvicorn is asked to stop meanwhile.
        check_port: False does not ask the system which process listens at *address* and *port*: for a process that is
            listed on behalf of another, or that clients reach through something else (a proxy, a published port).
        session_timeout: seconds; this and the following as of :func:`aioregistry.connect`.
        connect_timeout: seconds, with *wait*.
        close_timeout: seconds.
        base_path: the path under which services are kept.
        create_chroot: False refuses a chroot that is not there.
        auth: credentials as pairs of scheme and secret.
        acl: the ACL of every node that is created; unless given, everybody may do everything.
        tls: speak TLS to ZooKeeper with this context.
        allow_read_only: accept a server that lost its quorum, for the views.
        max_request: the servers' jute.maxbuffer in bytes.
        watches: "recursive" or "one-shot" forces how views watch; "auto" asks the server.
        guard: decides which removals views hold back.
        on_event: called with a name and fields for every event worth a log line or a metric, or a sequence of such.

    Raises:
        InvalidArgument: an argument, or an environment variable that is used, is wrong; at once, naming it.
    """

    _service: object = None
    _term: Term | None = None

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
        checks: Mapping[str, Check | Callable[[], Awaitable[object]]] | None = None,
        discover: Iterable[str] | Mapping[str, Any] = (),
        keep: KeptAt | Mapping[str, KeptAt] | None = None,
        drain: float = DEFAULT_DRAIN,
        ready_in_outage: bool = True,
        wait: bool = False,
        check_port: bool = True,
        session_timeout: float = 15.0,
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
        on_event: EventCallback | Sequence[EventCallback] | None = None,
    ) -> None:
        self._service = service
        servers, secrets = unshown(servers), Hidden(auth)
        del auth
        shared = check_choice("workers", workers, ("each", "one")) == "one"
        check_ports(port, ssl_port, id, shared)
        # The address may be found later, but the rest is right or wrong now.
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
            check_flag(field, flag)
        parameters = checked_parameters(
            servers,
            wait=wait,
            session_timeout=session_timeout,
            connect_timeout=connect_timeout,
            close_timeout=close_timeout,
            base_path=base_path,
            create_chroot=create_chroot,
            auth=secrets.value,
            acl=DEFAULT_ACL if acl is None else acl,
            tls=tls,
            allow_read_only=allow_read_only,
            max_request=max_request,
            watches=watches,
            guard=guard,
            on_event=on_event,
            runtime=None,
        )
        configured_address(address)
        check_drain(drain)
        services = checked_services(discover)
        self._settings = Settings(
            servers=servers,
            place=(servers, base_path, service),
            registry=partial(Registry, parameters),
            instance=instance,
            address=address,
            id=id,
            shared=shared,
            on_conflict=checked_conflict(on_conflict, shared),
            on_displaced=checked_displaced(on_displaced, shared),
            checks=checked_checks({} if checks is None else checks),
            discover=services,
            keep=checked_kept(keep, services),
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
            raise NotYet(f"{self._service!r} is not registered yet: {term.failure or WAITING}")
        return term.registration

    def view(self, name: str) -> View[Any]:
        """Return the view of the service *name*, one of those to discover; the membership opens and closes it.

        Raises:
            InvalidArgument: ``discover=`` does not name it.
            NotYet: the view has not read the service yet.
            UsageError: the membership is not entered.
            RegistryError: the service cannot be viewed, and why.
        """
        return self._entered().view(name)

    @property
    def ready(self) -> bool:
        """Whether the server is to be sent requests now; see :meth:`readiness`."""
        return self.readiness().ready

    def readiness(self) -> Readiness:
        """Return whether the server is to be sent requests now, and why not.

        The server is ready when it is listed and every view was synced once. It stays ready while ZooKeeper does not
        answer, unless ``ready_in_outage`` is False. It is not ready while it drains, when another process has its id,
        or when the registration failed. A worker that stands by is ready when a sibling is listed.

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

    def check_has_port(self) -> None:
        """Raise InvalidArgument if it was made without a port: servers need one, workers do not."""
        check_has_port(self._settings.instance)

    def connected(self) -> AbstractAsyncContextManager[Membership]:
        """Enter without listing the server, which :meth:`announce` does: for a server that has to listen first."""
        return _Connected(self)

    async def announce(self) -> None:
        """List the server from now on; with ``wait``, return when it is listed.

        Under a server that reports when it listens (:class:`Hosting`), it is listed only then. You may call this again.

        Raises:
            UsageError: the membership is not entered.
            RegistrationError: with ``wait``, the server will not be listed, and why.
            NoAddress: with ``wait``, there is no address to advertise.
            NotYet: with ``wait``, uvicorn was asked to stop meanwhile.
        """
        await self._unless_told_to_end(self._entered().announce())

    async def drain(self) -> None:
        """Tell consumers to send nothing new (``enabled=False``), give them the time, and withdraw.

        Call it before the server's sockets are closed; otherwise leaving does it. A second call waits for the first;
        cancelling stops only the waiting. Takes at most twice ``drain`` and ``close_timeout``. Raises UsageError when
        the membership is not entered.
        """
        await self._entered().drain()

    async def serve_until_signal(self, drain: float | Jobs | None = None) -> signal.Signals:
        """Stay listed until a signal asks this process to end, then drain and withdraw; for programs without a server.

        On SIGTERM, SIGINT or SIGHUP it tells consumers to send nothing new (``enabled=False``), gives them the time,
        lets the program finish its jobs, and withdraws. A second signal ends the waiting for both at once. It enters
        the membership and leaves it, unless it is entered already. Signals are handled meanwhile, and as before
        afterwards; SIGHUP stays ignored under nohup.

        Args:
            drain: seconds that consumers have, the membership's unless given; or an async function that ends the
                program's work, called after the membership's seconds. It may take until the second signal.

        Returns:
            The signal that came first.

        Raises:
            RegistryError: the process will not be listed, or is no longer listed: its id was claimed with
                ``on_displaced="stop"``, say.
            InvalidArgument: *drain* is neither.
            UsageError: this is not the main thread, and only that can handle signals.
            Exception: the exception that *drain* raised, once the instance is withdrawn.

        Cancelling leaves the program's jobs alone, and the membership, where this entered it.
        """
        seconds, jobs = checked_drain(drain)
        asked = Asked()
        with asked.by_signals():
            if self._term is not None:
                await self._serve(self._term, seconds, jobs, asked)
                return asked.came[0]
            await first_of(self.__aenter__(), asked.once.wait())
            term = self._term
            if term is None:  # it was asked to end while it entered
                return asked.came[0]
            try:
                await self._serve(term, seconds, jobs, asked)
            finally:
                await self._end()
            return asked.came[0]

    async def _serve(self, term: Term, seconds: float | None, jobs: Jobs | None, asked: Asked) -> None:
        await first_of(term.until_lost(), asked.once.wait())
        if not asked.came:
            raise await term.until_lost()
        term.before_draining(seconds, jobs)
        try:
            await first_of(term.drain(), asked.twice.wait())
        finally:
            # Where a second signal came, or the waiter was cancelled, nothing is waited for any longer.
            await term.hurry()
        if (failure := term.jobs_failure) is not None:
            error = failure.error
            raise error if isinstance(error, Exception) else RegistryError(f"drain raised {failure}") from error

    async def _begin(self) -> Term:
        if self._term is not None:
            raise UsageError(f"{self!r} is entered already")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError("Membership runs on asyncio: no asyncio event loop is running in this thread") from None
        term = self._term = Term(self._settings, hosting.get())
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
            watching = spawn(cancelled_when_told_to_end(scope), "watch uvicorn")
            try:
                await work
            finally:
                watching.cancel()
        if scope.cancelled_caught:
            raise NotYet(f"uvicorn was asked to stop before {self._service!r} was listed: {WAITING}")

    async def _end(self) -> None:
        term = self._entered()
        try:
            await term.end()
        finally:
            self._term = None

    def _entered(self) -> Term:
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
