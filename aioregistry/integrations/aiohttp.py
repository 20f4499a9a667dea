"""aiohttp: a server that is registered for as long as it lives, and a client that finds instances by host name.

For the server ``app.cleanup_ctx.append(member(membership))``; then :func:`membership`, :func:`registry` and
:func:`view` of a request, :func:`readiness` as a route, and :func:`run_app` in the place of aiohttp's. For the client
``async with RegistryMiddleware(registry) as middleware, ClientSession(middlewares=[middleware]) as session``.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from aioregistry import Balancer, Ejection, InvalidArgument, Registry, RegistryError, RequestTimeout, UsageError, View

from ._extras import extra
from ._hosts import Endpoint, is_registry_host
from ._routing import (
    EJECTION,
    IDEMPOTENT,
    SAFE,
    Authority,
    Call,
    Router,
    Strategy,
    Verdict,
    check_authority,
    check_flag,
)
from .membership import Hosting, Membership, NotYet, Readiness, hosting

with extra("aiohttp"):
    import aiohttp
    from aiohttp import hdrs, web

__all__ = [
    "IDEMPOTENT",
    "MEMBERSHIP",
    "REGISTRY",
    "SAFE",
    "AppRunner",
    "Membership",
    "NotYet",
    "Readiness",
    "RegistryMiddleware",
    "member",
    "membership",
    "readiness",
    "registry",
    "run_app",
    "view",
]

# ---------------------------------------------------------------- the server

MEMBERSHIP: Final = web.AppKey("aioregistry.membership", Membership)
"""Where the application keeps its membership."""

REGISTRY: Final = web.AppKey("aioregistry.registry", Registry)
"""Where the application keeps the membership's registry."""


def member(membership: Membership) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a cleanup context in which the application is a member of its service.

    What stands before it in ``app.cleanup_ctx`` is there when the server is listed, and until it is drained. aiohttp
    stops to listen before it tells the application to end: under :func:`run_app`, or an :class:`AppRunner` of this
    module, the server is drained before that. Under others it is drained while the requests that came in are finished,
    and who connects meanwhile is refused.

    Args:
        membership: entered on startup, left on cleanup.

    Raises:
        InvalidArgument: it is no Membership; at once.
    """
    if not isinstance(membership, Membership):
        raise InvalidArgument("membership", membership, "give a Membership")

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
        UsageError: there is none.
    """
    found: Membership | None = request.config_dict.get(MEMBERSHIP)
    if found is None:
        raise UsageError("the application is no member: app.cleanup_ctx.append(member(membership)) comes first")
    return found


def registry(request: web.Request) -> Registry:
    """Return the registry of the application; raises as :func:`membership` does."""
    return membership(request).registry


def view(request: web.Request, name: str) -> View[Any]:
    """Return the application's view of the service *name*.

    Raises:
        NotYet: ZooKeeper has not told who is there yet.
        InvalidArgument: the membership does not discover *name*.
        UsageError: as :func:`membership` does.
    """
    return membership(request).view(name)


async def readiness(request: web.Request) -> web.Response:
    """Answer whether the server is to be sent requests: 200 or 503, and why, as :meth:`Membership.readiness` says."""
    state = membership(request).readiness()
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    return web.json_response(state._asdict(), status=200 if state.ready else 503, headers=headers)


class AppRunner(web.AppRunner):
    """An :class:`aiohttp.web.AppRunner` for applications that are members of a service.

    What the application enters is listed from :meth:`announce` on, to be called when the sites have started, and
    drained by ``cleanup()`` before these are stopped.
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
        """The sites accept connections: the application is listed from now on.

        Raises InvalidArgument where nobody listens on the port of a membership.
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
    print: Callable[..., None] | None = builtins.print,
    handle_signals: bool = True,
    loop: asyncio.AbstractEventLoop | None = None,
    **options: Any,
) -> None:
    """Serve *app* as :func:`aiohttp.web.run_app` does; memberships are listed while it listens, and drained before.

    On SIGTERM and SIGINT it serves on until they are drained, and ends as aiohttp does then. The second of these
    signals withdraws them without the wait for consumers.

    Args:
        app: the application, or a coroutine that returns it.
        print: told what it listens on.
        handle_signals: whether the signals are heeded.
        loop: the event loop to run on, and to close; a new one unless given.
        **options: the others of aiohttp's.

    Raises:
        InvalidArgument: a membership says a port that nobody listens on once the server does.
    """
    loop = asyncio.new_event_loop() if loop is None else loop
    host = Hosting()

    def listening(*text: Any, **how: Any) -> None:
        host.listen()
        if print is not None:
            print(*text, **how)

    if handle_signals:
        ending = _Ending(loop, host)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.asked)
    token = hosting.set(host)
    try:
        web.run_app(app, print=listening, handle_signals=False, loop=loop, **options)
    finally:
        hosting.reset(token)


class _Ending:
    """What signals do: what they do by aiohttp, once the memberships are drained."""

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
        if draining.cancelled():  # as what is left is, where the application failed meanwhile
            return
        if (error := draining.exception()) is not None:
            self._loop.call_exception_handler({"message": "draining failed", "exception": error, "task": draining})
        raise web.GracefulExit


# ---------------------------------------------------------------- the client

# The first that applies: subclasses come before.
_VERDICTS: Final[Mapping[type[Exception], Verdict]] = {
    aiohttp.ClientProxyConnectionError: Verdict.INNOCENT,
    aiohttp.ClientHttpProxyError: Verdict.INNOCENT,
    aiohttp.ClientConnectorError: Verdict.UNSENT,
    aiohttp.ServerFingerprintMismatch: Verdict.UNSENT,
    aiohttp.ConnectionTimeoutError: Verdict.UNSENT,
    TimeoutError: Verdict.FAILED,  # the time to answer is used up
    aiohttp.ClientResponseError: Verdict.BROKEN,  # what came is no HTTP
    aiohttp.ClientPayloadError: Verdict.BROKEN,
    aiohttp.ServerConnectionError: Verdict.BROKEN,
    OSError: Verdict.BROKEN,
}


class RegistryMiddleware:
    """A client middleware that takes ``http://chat.registry/…`` to an instance of the service ``chat``.

    For ``ClientSession(middlewares=[…])``, which does not close it: ``async with``, or :meth:`aclose`, does. Each
    request is balanced and its outcome reported, and connections are pooled, limited and kept alive by instance. A
    resolver could do neither: aiohttp asks it for new connections only, pools by host name, and tells it nothing. The
    response's ``url`` is the one asked for, ``request_info.url`` that of the instance.

    Args:
        registry: in which services are looked up when a request first names them; their views are closed with this.
            None leaves those that *services* gives.
        services: by what precedes ``.registry``, the balancer to ask (it stays its owner's), or the name of the service
            where that is no part of a host name (``{"chat": "Chat.v2"}``).
        strategy: how balancers made for services of the registry choose.
        ejection: when these set instances aside that fail; None never does.
        attempts: how often a request is sent at most, each time to another instance.
        repeat: the methods of which a request is repeated though the failed instance may have done it. A request that
            certainly never arrived is repeated whatever its method.
        statuses: of responses that count as a failure of the instance, as ``{502, 503, 504}``.
        wait: seconds to wait for an instance where there is none; None does not wait.
        authority: which name the instance is told in the Host header, and has to prove by TLS: "service" is the
            request's, ``<service>.registry``; "instance" is the address that it publishes.
        pass_others: whether requests to other hosts are sent as they are, or are refused.

    Raises:
        InvalidArgument: an argument is wrong; at once, naming it.
        UsageError: aiohttp is older than 3.14, whose connections are not pooled by the name that TLS proved.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        *,
        services: Mapping[str, Balancer[Any] | str] | None = None,
        strategy: Strategy = "round-robin",
        ejection: Ejection | None = EJECTION,
        attempts: int = 3,
        repeat: Collection[str] = SAFE,
        statuses: Collection[int] = (),
        wait: float | None = None,
        authority: Authority = "service",
        pass_others: bool = False,
    ) -> None:
        _check_pools(aiohttp.client_reqrep.ConnectionKey)
        self._authority = check_authority(authority)
        self._pass_others = check_flag("pass_others", pass_others)
        self._router: Router[aiohttp.ClientResponse] = Router(
            registry,
            services=services,
            strategy=strategy,
            ejection=ejection,
            attempts=attempts,
            repeat=repeat,
            statuses=statuses,
            wait=wait,
        )

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send *request* by *handler* to an instance.

        Raises what *handler* raises, and in the same words, with this library's error as the cause:
        ``InvalidUrlClientError`` for a host that names no service, ``ClientConnectorDNSError`` where there is no
        instance, ``ConnectionTimeoutError`` where there was none within *wait*.
        """
        return await self._send(None, request, handler)

    def keyed(self, key: str | bytes) -> aiohttp.ClientMiddlewareType:
        """Return this middleware for requests whose balancer chooses by *key*: ``get(url, middlewares=[m.keyed(k)])``.

        A key that the balancer does not take makes the request raise :class:`InvalidArgument`.
        """
        return partial(self._send, key)

    async def _send(
        self, key: str | bytes | None, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._pass_others and not is_registry_host(request.host):
            return await handler(request)
        response, call = await self._router.send(_Errand(request, handler, key, self._authority))
        if response.connection is None:
            call.good()  # all of it came with the headers
        else:
            response.connection.add_callback(partial(_ended, response.content, call))
        return response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the views that were opened for requests."""
        await self._router.aclose()


class _Errand:
    """A request."""

    def __init__(
        self,
        request: aiohttp.ClientRequest,
        handler: aiohttp.ClientHandlerType,
        key: str | bytes | None,
        authority: Authority,
    ) -> None:
        url = request.url
        self.method, self.scheme, self.host, self.key = request.method, url.scheme, request.host, key
        self.port = None if url.is_default_port() else url.explicit_port
        self._request = request
        self._handler = handler
        self._authority = authority
        self._sent = False

    async def attempt(self, endpoint: Endpoint, _: int) -> aiohttp.ClientResponse:
        request = self._request
        before = request.url, request.headers[hdrs.HOST], request.server_hostname
        self._address(endpoint)
        try:
            return await self._handler(request)
        except Exception as error:
            self._sent |= self.judge(error) is not Verdict.UNSENT
            raise
        finally:
            # The session goes on with it, and so do middlewares around this one.
            request.url, request.headers[hdrs.HOST], request.server_hostname = before

    def _address(self, endpoint: Endpoint) -> None:
        request, asked = self._request, self._request.url
        request.url = asked.with_host(endpoint.address).with_port(endpoint.port)
        if self._authority == "service":
            if request.is_ssl():
                request.server_hostname = request.server_hostname or self.host.removesuffix(".")
        elif request.headers[hdrs.HOST] == asked.host_port_subcomponent:  # else the caller chose it
            request.headers[hdrs.HOST] = request.url.host_port_subcomponent or endpoint.address

    def judge(self, error: Exception) -> Verdict:
        return _judged(error)

    def status(self, response: aiohttp.ClientResponse) -> int:
        self._sent = True
        return response.status

    async def discard(self, response: aiohttp.ClientResponse) -> None:
        response.release()

    def replayable(self) -> bool:
        return not self._sent or not self._request.body or isinstance(self._request.body, aiohttp.BytesPayload)

    def patience(self) -> float | None:
        return None  # the session's total timeout cancels whatever it finds

    def refused(self, error: InvalidArgument) -> Exception:
        return aiohttp.InvalidUrlClientError(self._request.url, str(error))

    def unreachable(self, error: RegistryError) -> Exception:
        if isinstance(error, RequestTimeout):
            return aiohttp.ConnectionTimeoutError(str(error))
        return aiohttp.ClientConnectorDNSError(self._request.connection_key, OSError(errno.EHOSTUNREACH, str(error)))


def _check_pools(key: type[object]) -> None:
    # Up to 3.13 one service's request could go over a connection whose certificate was checked for another.
    if not hasattr(key, "server_hostname"):
        raise UsageError(f"aiohttp {aiohttp.__version__} pools connections by address only: 3.14 or newer is needed")


def _judged(error: BaseException) -> Verdict:
    return next((verdict for kind, verdict in _VERDICTS.items() if isinstance(error, kind)), Verdict.INNOCENT)


def _ended(content: aiohttp.StreamReader, call: Call) -> None:
    """The response's connection is let go of."""
    error = content.exception()
    if isinstance(error, Exception) and _judged(error) is not Verdict.INNOCENT:
        call.bad(error)
    else:
        call.good()
