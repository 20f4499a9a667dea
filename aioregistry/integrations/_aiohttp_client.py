"""aiohttp's client: requests to `<service>.registry` find an instance."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, Unpack
from weakref import WeakSet

from aioregistry import (
    InvalidArgument,
    Pick,
    Registry,
    RegistryError,
    RequestTimeout,
    ServiceInstance,
    UsageError,
)

from ._arguments import RoutingOptions, check_known
from ._errand import ErrorClass
from ._extras import extra
from ._hosts import Upstream, led_back
from ._routing import Router

with extra("aiohttp"):
    import aiohttp
    from aiohttp import hdrs
    from multidict import CIMultiDict, CIMultiDictProxy

from aioregistry._concurrency import SHORTEST_WAIT

__all__ = ["RegistryMiddleware", "check_pools"]

_MOST_IDLE: Final = 100  # connections to one instance that may all have been closed by it; aiohttp keeps as many in all

# The first that applies: subclasses come before.
_ERROR_CLASSES: Final[Mapping[type[Exception], ErrorClass]] = {
    aiohttp.ClientProxyConnectionError: ErrorClass.UNASKED,
    aiohttp.ClientHttpProxyError: ErrorClass.INNOCENT,
    aiohttp.ClientConnectorError: ErrorClass.UNSENT,
    aiohttp.ServerFingerprintMismatch: ErrorClass.UNSENT,
    aiohttp.ConnectionTimeoutError: ErrorClass.UNSENT,
    TimeoutError: ErrorClass.FAILED,  # the time to answer is used up
    aiohttp.ClientResponseError: ErrorClass.BROKEN,  # the answer is not HTTP
    aiohttp.ClientPayloadError: ErrorClass.BROKEN,
    aiohttp.ServerConnectionError: ErrorClass.BROKEN,
    OSError: ErrorClass.BROKEN,
}


class RegistryMiddleware:
    """A client middleware that takes ``http://chat.registry/…`` to an instance of the service ``chat``.

    For ``ClientSession(middlewares=[…])``, which does not close it: ``async with``, or :meth:`aclose`, does. Each
    request is balanced and its outcome reported, and connections are pooled, limited and kept alive by instance. A
    resolver could do neither: aiohttp asks it for new connections only, pools by host name, and does not report
    outcomes to it. The response's ``url`` is the one that you asked for; its ``request_info.url`` is that of the
    instance.

    Args:
        registry: in which services are looked up when a request first names them; their views are closed with this.
            None leaves those that *services* gives.
        **options: as :class:`RoutingOptions` says.

    Raises:
        InvalidArgument: an argument is wrong; at once, naming it.
        UsageError: aiohttp is older than 3.14, and does not pool connections by the name that TLS proved.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        **options: Unpack[RoutingOptions],
    ) -> None:
        check_known(self, options)
        check_pools(aiohttp.client_reqrep.ConnectionKey)
        self._used: WeakSet[Any] = WeakSet()  # connections over which a request went
        self._router: Router[aiohttp.ClientResponse] = Router(registry, **options)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send *request* by *handler* to an instance.

        Raises what *handler* raises, and in the same words, with this library's error as the cause:
        ``InvalidUrlClientError`` for a host that names no service, ``ClientConnectorDNSError`` where there is no
        instance, ``ConnectionTimeoutError`` if no instance came within *wait*.
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
        if self._router.passes(request.host):
            return await handler(request)
        repeatable = self._router.repeats(request.method)
        errand = _Errand(request, handler, key, self._router, self._used, repeatable=repeatable)
        response, pick = await self._router.send(errand)
        if self._router.authority == "instance":
            _lead_back(response, pick.instance, request)
        if response.connection is None:
            self._router.finish(pick)  # all of it came with the headers
        else:
            response.connection.add_callback(partial(self._ended, response.content, pick, request))
        return response

    def _ended(self, content: aiohttp.StreamReader, pick: Pick[Any], request: aiohttp.ClientRequest) -> None:
        """The response's connection is let go of."""
        error = content.exception()
        if not content.is_eof() and _is_overdue(request):
            error = TimeoutError("the response took too long")
        if isinstance(error, Exception) and _judged(error) is not ErrorClass.INNOCENT:
            self._router.finish(pick, error)
        else:
            self._router.finish(pick)

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
        router: Router[aiohttp.ClientResponse],
        used: WeakSet[Any],
        *,
        repeatable: bool,
    ) -> None:
        url = request.url
        self.method, self.scheme, self.host, self.key = request.method, url.scheme, request.host, key
        self.port = None if url.is_default_port() else url.explicit_port
        self._request = request
        self._handler = handler
        self._authority, self._per_try = router.authority, router.per_try_timeout
        self._used = used
        self._repeatable = repeatable
        self._since = asyncio.get_running_loop().time()
        # Seconds for all attempts; of the session, until the connector is told those of the request.
        self._total: float | None = request.session.timeout.total
        self._sent = False
        self._only_fresh = False  # whether only a new connection will do
        self._starved = False  # whether the last attempt ended while it waited for the session's own pool
        self._limit: asyncio.Timeout | None = None
        # Of the last attempt: whether it looked for a connection, had one that was there before, handed over nothing.
        self._connecting = self._reused = self._unsent = False
        self._late = False  # whether the last attempt was sent, and had no response within its own time

    async def attempt(self, upstream: Upstream, attempts_left: int) -> aiohttp.ClientResponse:
        self._only_fresh = False
        for _ in range(_MOST_IDLE):
            try:
                return await self._attempt(upstream, attempts_left)
            except _Reused:
                continue  # one idle connection fewer
            except Exception as error:
                # The peer closed a connection that was idle: as likely as not it is well (RFC 9112, section 9.3.1).
                harmless = self._unsent or self._repeatable
                if not self._is_stale(error) or self._only_fresh or not harmless or not self.replayable():
                    raise
                self._only_fresh = True
        self._only_fresh = False
        return await self._attempt(upstream, attempts_left)

    async def _attempt(self, upstream: Upstream, attempts_left: int) -> aiohttp.ClientResponse:
        request: Any = self._request
        before = request.url, request.headers[hdrs.HOST], request.server_hostname
        self._reused = self._unsent = self._late = self._starved = False
        self._connecting = True
        connect = _Connect.of(request.session.connector)
        try:
            self._address(upstream)
            waits = self._pool_is_full()  # the session's own limit is reached: no instance is to blame for the wait
            begun = asyncio.get_running_loop().time()
            until = None if waits or self._per_try is None else begun + self._per_try
            async with asyncio.timeout_at(None if waits else self._connected_by(begun, attempts_left)) as self._limit:
                if connect is not None and not waits:
                    connect.listeners[request] = partial(self._hear, begun, attempts_left)
                # It is called with the connection, once there is one.
                request.send = partial(self._send, request.send, until)
                return await self._handler(request)
        except TimeoutError as error:
            if self._limit is None or not self._limit.expired():
                self._starved = self._connecting and self._pool_is_full()  # by `ClientTimeout(connect=…)`
                self._note_sent(error)
                raise
            if self._connecting:
                raise aiohttp.ConnectionTimeoutError(f"no connection to {request.url.authority} in time") from error
            self._late = self._sent = True
            within = f"no response from {request.url.authority} within per_try_timeout={self._per_try:g} s"
            raise aiohttp.SocketTimeoutError(within) from error
        except Exception as error:
            self._note_sent(error)
            raise
        except asyncio.CancelledError:
            # One that was making a connection has given its place back by now.
            self._starved = self._connecting and self._pool_is_full()
            raise
        finally:
            self._limit = None
            request.__dict__.pop("send", None)
            if connect is not None:
                connect.listeners.pop(request, None)
            # The session goes on with it, and so do middlewares around this one.
            request.url, request.headers[hdrs.HOST], request.server_hostname = before

    async def _send(
        self, send: Callable[[Any], Awaitable[aiohttp.ClientResponse]], until: float | None, connection: Any
    ) -> aiohttp.ClientResponse:
        """Send the request over *connection*: it is there. Its response has to begin by *until*, if that is given."""
        self._connecting = False
        assert self._limit is not None, "an attempt is under way"
        if until is None and self._per_try is not None:
            until = asyncio.get_running_loop().time() + self._per_try
        self._limit.reschedule(until)
        protocol = connection.protocol
        self._reused = protocol in self._used
        self._used.add(protocol)
        if self._reused and (self._only_fresh or not protocol.is_connected()):
            self._only_fresh = self._unsent = True
            raise _Reused
        try:
            return await send(connection)
        except ConnectionResetError:
            self._unsent = self._reused  # its head was not handed over
            raise

    def _hear(self, begun: float, attempts_left: int, timeout: aiohttp.ClientTimeout) -> None:
        """The connector looks for a connection: *timeout* holds for the request, be it its own or the session's."""
        assert self._limit is not None, "an attempt is under way"
        self._total = timeout.total
        self._limit.reschedule(self._connected_by(begun, attempts_left))

    def _connected_by(self, begun: float, attempts_left: int) -> float | None:
        """The time by which the attempt that was *begun* needs a connection; None has no end but the request's.

        The time that is left is shared by the attempts that are, so that an instance which swallows packets leaves some
        to the others.
        """
        own = None if self._per_try is None else begun + self._per_try
        if attempts_left == 1 or self._total is None or self._total <= 0:
            return own
        share = begun + max(self._since + self._total - begun, SHORTEST_WAIT) / attempts_left
        return share if own is None else min(share, own)

    def _pool_is_full(self) -> bool:
        """Whether the session's own limit is reached: then it is not an instance that the request waits for."""
        available = getattr(self._request.session.connector, "_available_connections", None)
        return available is not None and available(self._request.connection_key) <= 0

    def _at_proxy(self) -> bool:
        """Whether it looks for a connection to a proxy. A tunnel for TLS is one to the instance as well."""
        return self._connecting and self._request.proxy is not None and not self._request.is_ssl()

    def _note_sent(self, error: Exception) -> None:
        self._sent |= self.judge(error) not in {ErrorClass.UNSENT, ErrorClass.UNASKED} and not self._unsent

    def _address(self, upstream: Upstream) -> None:
        request, asked = self._request, self._request.url
        try:
            request.url = asked.with_host(upstream.address).with_port(upstream.port)
        except ValueError as error:  # UnicodeError is one
            raise InvalidArgument("address", upstream.address, f"no URL can have it: {error}") from error
        if self._authority == "service":
            if request.is_ssl():
                request.server_hostname = request.server_hostname or self.host.removesuffix(".")
        elif request.headers[hdrs.HOST] == asked.host_port_subcomponent:  # else the caller chose it
            request.headers[hdrs.HOST] = request.url.host_port_subcomponent or upstream.address

    def judge(self, error: Exception) -> ErrorClass:
        if self._is_stale(error) or self._starved:
            return ErrorClass.INNOCENT
        if self._at_proxy():
            return ErrorClass.UNASKED
        if self._late:
            return ErrorClass.BROKEN  # the request has time left for another attempt
        if self._connecting and isinstance(error, ValueError | OverflowError):
            return ErrorClass.UNSENT  # an address that cannot be looked up, an unfit port
        return _judged(error)

    def _is_stale(self, error: Exception) -> bool:
        """Whether *error* means only that a connection was closed while it was idle."""
        return self._reused and _judged(error) is ErrorClass.BROKEN

    def overdue(self) -> bool:
        return not self._starved and not self._at_proxy() and _is_overdue(self._request)

    def status(self, response: aiohttp.ClientResponse) -> int:
        self._sent = True
        return response.status

    async def discard(self, response: aiohttp.ClientResponse) -> None:
        response.release()

    def replayable(self) -> bool:
        return not self._sent or not self._request.body or isinstance(self._request.body, aiohttp.BytesPayload)

    def patience(self) -> float | None:
        return None  # the session's total timeout cancels whatever goes on

    def refused(self, error: InvalidArgument) -> Exception:
        return aiohttp.InvalidUrlClientError(self._request.url, str(error))

    def unreachable(self, error: RegistryError) -> Exception:
        if isinstance(error, RequestTimeout):
            return aiohttp.ConnectionTimeoutError(str(error))
        return aiohttp.ClientConnectorDNSError(self._request.connection_key, OSError(errno.EHOSTUNREACH, str(error)))


class _Connect:
    """The method `connect` of a session's connector, in its own place.

    aiohttp tells a request's own timeout to the connector, and not to middlewares. Each request that is listed here
    hears of its timeout before the connector looks for a connection.
    """

    __slots__ = ("_connect", "listeners")

    def __init__(self, connect: Callable[..., Awaitable[Any]]) -> None:
        self._connect = connect
        self.listeners: dict[aiohttp.ClientRequest, Callable[[aiohttp.ClientTimeout], None]] = {}

    async def __call__(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Any:
        hear = self.listeners.get(req)
        timeout = options.get("timeout")
        if hear is not None and isinstance(timeout, aiohttp.ClientTimeout):
            hear(timeout)
        return await self._connect(req, *args, **options)

    @classmethod
    def of(cls, connector: Any) -> _Connect | None:
        """The one of *connector*, which all middlewares share; None if its `connect` cannot be set."""
        there: Any = getattr(connector, "connect", None)
        if isinstance(there, cls):
            return there
        with contextlib.suppress(AttributeError):  # it is a property, or the session is closed
            connector.connect = ours = cls(there)
            return ours
        return None


def check_pools(key: type[object]) -> None:
    """Raise UsageError where connections are not pooled by the name that TLS proved, as *key* has no place for it."""
    # Up to 3.14.0 one service's request could go over a connection whose certificate was checked for another.
    if not hasattr(key, "server_hostname"):
        raise UsageError(f"aiohttp {aiohttp.__version__} pools connections by address only: 3.14.1 or newer is needed")


def _judged(error: BaseException) -> ErrorClass:
    return next(
        (error_class for kind, error_class in _ERROR_CLASSES.items() if isinstance(error, kind)), ErrorClass.INNOCENT
    )


def _is_overdue(request: aiohttp.ClientRequest) -> bool:
    """Whether the time that the session, or the request, has in total is over: aiohttp cancels the task then."""
    check = getattr(getattr(request, "_timer", None), "assert_timeout", None)
    try:
        if check is not None:
            check()
    except TimeoutError:
        return True
    return False


def _lead_back(
    response: aiohttp.ClientResponse, instance: ServiceInstance[Any], request: aiohttp.ClientRequest
) -> None:
    """If the instance redirects to itself, by the Host header that it got, redirect to the service."""
    location = response.headers.get(hdrs.LOCATION)
    led = None if location is None else led_back(location, instance, request.url.scheme, request.host)
    if led is not None:
        headers = CIMultiDict(response.headers)
        headers[hdrs.LOCATION] = led
        response._headers = CIMultiDictProxy(headers)
        response.__dict__.pop("headers", None)
        getattr(response, "_cache", {}).pop("headers", None)  # aiohttp keeps the headers that were read


class _Reused(Exception):
    """The connection is not a new one, as was asked for; or is closed already."""
