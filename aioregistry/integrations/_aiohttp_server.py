"""aiohttp's server: an application that is registered for as long as it lives."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from aioregistry import Registry, UsageError, View
from aioregistry._errors import InvalidType

from ._extras import extra
from ._hosting import Hosting, hosting
from .membership import Membership

with extra("aiohttp"):
    from aiohttp import hdrs, web

__all__ = [
    "MEMBERSHIP",
    "REGISTRY",
    "AppRunner",
    "Ending",
    "member",
    "membership",
    "readiness",
    "registry",
    "run_app",
    "view",
]

Path: TypeAlias = str | os.PathLike[str]

MEMBERSHIP: Final = web.AppKey("aioregistry.membership", Membership)
"""The key of an application's :class:`Membership`: ``app[MEMBERSHIP]``."""

REGISTRY: Final = web.AppKey("aioregistry.registry", Registry)
"""The key of an application's :class:`~aioregistry.Registry`: ``app[REGISTRY]``."""

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
"""The signals by which aiohttp's servers end."""


def member(membership: Membership) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a cleanup context in which the application is a member of its service.

    Contexts before it in ``app.cleanup_ctx`` are open while the server is listed, and until it is drained. aiohttp
    stops to listen before it tells the application to end: under :func:`run_app`, or an :class:`AppRunner` of this
    module, the server is drained before that. Under others it is drained while the requests that came in are finished,
    and a client that connects meanwhile is refused.

    Args:
        membership: entered on startup, left on cleanup.

    Raises:
        InvalidArgument: it is not a Membership; at once.
    """
    if not isinstance(membership, Membership):
        raise InvalidType("membership", membership, "give a Membership")
    membership.check_has_port()

    async def drain(_: web.Application) -> None:
        await membership.drain()

    async def run(app: web.Application) -> AsyncIterator[None]:
        async with membership.connected():
            app[MEMBERSHIP], app[REGISTRY] = membership, membership.registry
            if not app.on_shutdown.frozen:  # that of a subapplication is
                app.on_shutdown.append(drain)
            await membership.announce()
            yield

    return run


def membership(request: web.Request) -> Membership:
    """Return the membership of the application, or of one that contains it.

    Raises:
        UsageError: the application has no membership.
    """
    found: Membership | None = request.config_dict.get(MEMBERSHIP)
    if found is None:
        raise UsageError("the application is not a member: app.cleanup_ctx.append(member(membership)) comes first")
    return found


def registry(request: web.Request) -> Registry:
    """Return the registry of the application; raises as :func:`membership` does."""
    return membership(request).registry


def view(request: web.Request, name: str) -> View[Any]:
    """Return the application's view of the service *name*.

    Raises:
        NotYet: the view has not read the service yet.
        InvalidArgument: the membership does not discover *name*.
        UsageError: as :func:`membership` does.
    """
    return membership(request).view(name)


async def readiness(request: web.Request) -> web.Response:
    """Answer whether the server is to be sent requests: 200 or 503, and why, as :meth:`Membership.readiness` says."""
    state = membership(request).readiness()
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    return web.json_response(state.document(), status=200 if state.ready else 503, headers=headers)


class AppRunner(web.AppRunner):
    """An :class:`aiohttp.web.AppRunner` for applications that are members of a service.

    Call :meth:`announce` when the sites have started: it lists the application's memberships. ``cleanup()`` drains them
    before it stops the sites.
    """

    __slots__ = ("_hosting",)

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **options)
        self._hosting = Hosting()

    async def setup(self) -> None:
        """Start the application, which is not listed yet."""
        token = hosting.set(self._hosting)
        try:
            await super().setup()
        finally:
            hosting.reset(token)

    def announce(self) -> None:
        """List the application, whose sites accept connections now.

        Raises InvalidArgument if the port of a membership is not open.
        """
        self._hosting.listen()

    async def cleanup(self) -> None:
        """Drain the memberships while requests are served, then stop the sites and end the application."""
        try:
            await self._hosting.drain()
        finally:
            await super().cleanup()


def run_app(
    app: web.Application | Awaitable[web.Application],
    *,
    host: str | Iterable[str] | None = None,
    port: int | None = None,
    path: Path | Iterable[Path] | None = None,
    sock: socket.socket | Iterable[socket.socket] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    backlog: int = 128,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    print: Callable[..., None] | None = builtins.print,
    handle_signals: bool = True,
    loop: asyncio.AbstractEventLoop | None = None,
    **options: Any,
) -> None:
    """Serve *app* as :func:`aiohttp.web.run_app` does; list memberships once it listens, drain them before it stops.

    On SIGTERM and SIGINT it serves on until they are drained, and ends as aiohttp does then. The second of these
    signals withdraws them without the wait for consumers.

    Args:
        app: the application, or a coroutine that returns it.
        host: addresses to listen on; all of this machine unless there is a *path* or a *sock*.
        port: 8080, or 8443 with *ssl_context*, unless given.
        path: of Unix sockets.
        sock: sockets that are bound.
        ssl_context: speak TLS with it.
        backlog: connections that wait to be accepted, at most.
        reuse_address: as of :meth:`asyncio.loop.create_server`.
        reuse_port: as of :meth:`asyncio.loop.create_server`.
        print: called with a text that has the addresses, once the server listens.
        handle_signals: whether SIGTERM and SIGINT are handled.
        loop: the event loop to run on, and to close; a new one unless given.
        **options: those of :class:`aiohttp.web.AppRunner`.

    Raises:
        InvalidArgument: the port of a membership is not open once the server listens.
    """
    hosts: Iterable[str | None] = (host,) if isinstance(host, str) else host or ()
    if host is None and (port is not None or (path is None and sock is None)):
        hosts = (None,)
    paths = (path,) if isinstance(path, str | os.PathLike) else path or ()
    socks = (sock,) if isinstance(sock, socket.socket) else sock or ()

    def sites(runner: web.AppRunner) -> Iterator[web.BaseSite]:
        how: Any = {"ssl_context": ssl_context, "backlog": backlog}
        for each in hosts:
            yield web.TCPSite(runner, each, port, reuse_address=reuse_address, reuse_port=reuse_port, **how)
        yield from (web.UnixSite(runner, each, **how) for each in paths)
        yield from (web.SockSite(runner, each, **how) for each in socks)

    server = Hosting()
    with (
        _handlers_restored() if handle_signals else contextlib.nullcontext(),
        asyncio.Runner(loop_factory=lambda: asyncio.new_event_loop() if loop is None else loop) as last,
    ):
        loop = last.get_loop()
        asyncio.set_event_loop(loop)
        if handle_signals:
            ending = Ending(loop, server)
            for number in _ENDING:
                loop.add_signal_handler(number, ending.asked)
        token = hosting.set(server)
        try:
            serving = loop.create_task(_serve(app, sites, server, print, options), name="serve")
        finally:
            hosting.reset(token)
        try:
            loop.run_until_complete(serving)
        except (web.GracefulExit, KeyboardInterrupt):
            pass
        finally:
            # Alone, so that requests that came in are answered: the rest is cancelled after it.
            if not serving.done():
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(serving)


@contextlib.contextmanager
def _handlers_restored() -> Iterator[None]:
    """Signals are handled as before afterwards: uvloop leaves its handlers when it is closed, and they do nothing."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # as it is where Python did not set it
                signal.signal(number, handler)


async def _serve(
    app: web.Application | Awaitable[web.Application],
    sites: Callable[[web.AppRunner], Iterable[web.BaseSite]],
    server: Hosting,
    print: Callable[..., None] | None,
    options: Mapping[str, Any],
) -> None:
    runner = web.AppRunner(app if isinstance(app, web.Application) else await app, **options)
    await runner.setup()
    try:
        for site in list(sites(runner)):
            await site.start()
        server.listen()
        if print is not None:
            names = ", ".join(sorted(site.name for site in runner.sites))
            print(f"======== Running on {names} ========\n(Press CTRL+C to quit)")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


class Ending:
    """The effect of signals: aiohttp's own, once the memberships are drained."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: Hosting) -> None:
        self._loop = loop
        self._host = host
        self._draining: asyncio.Task[None] | None = None
        self._hurrying: asyncio.Task[None] | None = None

    def asked(self) -> None:
        if self._draining is None:
            self._draining = self._loop.create_task(self._host.drain(), name="drain")
            self._draining.add_done_callback(self._drained)
        elif self._draining.done():
            raise web.GracefulExit
        elif self._hurrying is None:
            self._hurrying = self._loop.create_task(self._host.withdraw(), name="withdraw")

    def _drained(self, draining: asyncio.Task[None]) -> None:
        if draining.cancelled():  # by aiohttp, which cancels its tasks when the application fails
            return
        if (error := draining.exception()) is not None:
            self._loop.call_exception_handler({"message": "draining failed", "exception": error, "task": draining})
        raise web.GracefulExit
