"""The common part of the transports for httpx and for httpx2: the two packages differ by their names only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, Unpack

from aioregistry import Registry, RequestTimeout
from aioregistry import _foreign as foreign
from aioregistry._errors import InvalidArgument, InvalidType, RegistryError

from ._arguments import RoutingOptions, check_known
from ._errand import ErrorClass
from ._hosts import Upstream, default_port, led_back
from ._lanes import Lane, Lanes, another_like, name_of
from ._patience import Patience
from ._routing import Router
from ._trail import Reused, Trail, Unproved, judged

__all__ = ["INSTANCE", "KEY", "Sender", "Transport"]

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)

KEY: Final = "registry_key"
"""The extension of a request that holds the key, for strategies that choose by one."""

INSTANCE: Final = "registry_instance"
"""The extension of a response that holds the instance which answered."""

_MOST_IDLE: Final = 100  # connections to one instance that may all have been closed by it; httpx keeps 20


class Sender(Protocol[RequestT_contra, ResponseT_co]):
    """A transport of either package, as far as it is used."""

    async def handle_async_request(self, request: RequestT_contra, /) -> ResponseT_co:
        """Send *request*."""

    async def aclose(self) -> None:
        """Close the connections."""


class Transport(Generic[RequestT, ResponseT]):
    """Sends requests to ``<service>.registry`` to an instance of the service, by another transport.

    Args:
        registry: in which services are looked up when a request first names them; their views are closed with this
            transport. None leaves those that *services* gives.
        transport: the transport that sends; closed with this one. The package's ``AsyncHTTPTransport()`` unless given.
            Each name that TLS has to prove has a transport of its own, made like yours; if yours is not an
            ``AsyncHTTPTransport``, give a function that makes them.
        **options: as :class:`RoutingOptions` says.

    Raises:
        InvalidArgument: an argument is wrong; at once, naming it.
    """

    _http: ClassVar[ModuleType]
    _body: ClassVar[type[_Body]]
    _begun: ClassVar[type[_Begun]]
    _answer: ClassVar[type[_Answer]]

    def __init_subclass__(cls, *, http: ModuleType | None = None) -> None:
        super().__init_subclass__()
        if http is None:  # of one that has it
            return
        cls._http = http
        # The packages accept streams of their own only.
        cls._body = type("Body", (_Body, http.AsyncByteStream), {})
        cls._begun = type("Begun", (_Begun, http.AsyncByteStream), {})
        cls._answer = type("Answer", (_Answer, http.AsyncByteStream), {})

    def __init__(
        self,
        registry: Registry | None = None,
        *,
        transport: Sender[RequestT, ResponseT] | Callable[[], Sender[RequestT, ResponseT]] | None = None,
        **options: Unpack[RoutingOptions],
    ) -> None:
        check_known(self, options)
        _check_transport(transport, self._http)
        self._router: Router[Any] = Router(registry, **options)
        self._lanes = _lanes(transport, self._http)

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        """Send *request* and return the response, as the package's own transports do.

        Raises what *transport* raises, and in the same words, with this library's error as the cause:
        ``UnsupportedProtocol`` for a host that names no service, ``ConnectError`` where there is no instance,
        ``ConnectTimeout`` if no instance came within *wait* or the client's time to connect. A key that the balancer
        does not take raises :class:`InvalidArgument`. Cancelling says nothing about the instance.
        """
        asked: Any = request
        if self._router.passes(asked.url.host):
            return await self._pass(asked)
        errand = _Errand(self, asked)
        answered, pick = await self._router.send(errand)
        assert errand.lane is not None, "it answered"
        finish = partial(self._router.finish, pick)
        answered.stream = self._answer(answered.stream, self._http, errand.lane, finish)
        if self._router.authority == "instance" and (location := answered.headers.get("Location")) is not None:
            led = led_back(location, pick.instance, errand.scheme, errand.host)
            if led is not None:
                answered.headers["Location"] = led
        answered.extensions = {**answered.extensions, INSTANCE: pick.instance}
        response: ResponseT = answered
        return response

    async def _pass(self, request: Any) -> ResponseT:
        try:
            lane = _entered(self._lanes, request, self._http)
        except InvalidArgument as error:
            raise self._http.ConnectError(str(error)) from error
        try:
            passed: Any = await lane.transport.handle_async_request(request)
        except BaseException:
            lane.leave()
            raise
        passed.stream = self._answer(passed.stream, self._http, lane)
        response: ResponseT = passed
        return response

    async def __aenter__(self) -> Self:
        await self._lanes.own.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            await self._lanes.own.__aexit__(exc_type, exc_value, traceback)
        finally:
            await self._close_others()

    async def aclose(self) -> None:
        """Close *transport* and all like it, and the views that were opened for requests."""
        try:
            await self._lanes.own.aclose()
        finally:
            await self._close_others()

    async def _close_others(self) -> None:
        try:
            await self._lanes.aclose()
        finally:
            await self._router.aclose()


class _Errand:
    """A request."""

    def __init__(self, sender: Transport[Any, Any], request: Any) -> None:
        url = request.url
        self.method, self.scheme, self.host, self.port = request.method, url.scheme, url.host, url.port
        self.key: str | bytes | None = request.extensions.get(KEY)
        self.lane: Lane | None = None  # of the attempt that answered
        self._http, self._lanes, self._authority = sender._http, sender._lanes, sender._router.authority
        self._per_try = sender._router.per_try_timeout
        self._repeatable = sender._router.repeats(request.method)
        self._request = request
        self._body = sender._body(request.stream)
        self._begun = sender._begun
        # A body that can be read over and over is left as it is, for transports that look.
        self._bytes = isinstance(request.stream, self._http.ByteStream)
        self._patience = Patience(request.extensions.get("timeout") or {})
        self._trail = Trail()
        self._late = False  # whether the last attempt had its connection, and no response within its own time
        self._answered = False  # whether the head of its response came

    async def attempt(self, upstream: Upstream, attempts_left: int) -> Any:
        self._patience.spent("connect")  # finding the instance
        only_fresh = False
        for _ in range(_MOST_IDLE):
            try:
                return await self._attempt(upstream, attempts_left, only_fresh=only_fresh)
            except Reused:
                continue  # one idle connection fewer
            except Exception as error:
                # The peer closed a connection that was idle: as likely as not it is well (RFC 9112, section 9.3.1).
                harmless = self._trail.unsent or self._repeatable
                if not self._is_stale(error) or only_fresh or not harmless or not self.replayable():
                    raise
                only_fresh = True
        return await self._attempt(upstream, attempts_left, only_fresh=False)

    async def _attempt(self, upstream: Upstream, attempts_left: int, *, only_fresh: bool) -> Any:
        request = self._addressed(upstream, self._patience.share(attempts_left))
        lane = _entered(self._lanes, request, self._http)
        self._late = self._answered = False
        limit = asyncio.timeout(None)
        begins = None if self._per_try is None else partial(_end_after, limit, self._per_try)
        url = request.url
        to = url.raw_host.decode("ascii"), url.port or default_port(url.scheme)
        self._trail = Trail(self._request, name_of(request), to=to, only_fresh=only_fresh, begins=begins)
        request.extensions["trace"] = self._trail
        phase = "read"
        try:
            async with limit:
                # The package's own waits for its pool first, which says nothing about the instance, and tells the end
                # of that. Others tell nothing.
                if begins is not None and not isinstance(lane.transport, self._http.AsyncHTTPTransport):
                    begins()
                response = await lane.transport.handle_async_request(request)
            self._answered = True
            if self._repeatable and _announces_body(self.method, response):
                await self._begin(response)
        except BaseException as error:
            lane.leave()
            if isinstance(error, TimeoutError) and limit.expired():
                self._late = not self._trail.connecting
                phase = "read" if self._late else "connect"
                raise self._overrun(request) from error
            if isinstance(error, Unproved):
                raise self._http.ProxyError(str(error)) from error
            if isinstance(error, Exception) and self.judge(error) in {ErrorClass.UNSENT, ErrorClass.UNASKED}:
                phase = "connect"
            raise
        finally:
            self._patience.spent(phase)
        self.lane = lane
        return response

    async def _begin(self, response: Any) -> None:
        """Wait for the first part of the body of *response*: servers send the head by itself, and may die behind it.

        Nothing was read until then, so that the request can be repeated.
        """
        parts: AsyncIterator[bytes] = aiter(response.stream)
        try:
            first = await anext(parts, b"")
        except BaseException:
            await response.aclose()
            raise
        response.stream = self._begun(first, parts, response.stream)

    def _addressed(self, upstream: Upstream, timeouts: dict[str, float | None]) -> Any:
        try:
            return self._built(upstream, timeouts)
        except (self._http.InvalidURL, ValueError) as error:  # UnicodeError is one
            raise InvalidArgument("address", upstream.address, f"no URL can have it: {error}") from error

    def _built(self, upstream: Upstream, timeouts: dict[str, float | None]) -> Any:
        request = self._request
        url = request.url.copy_with(host=upstream.address, port=upstream.port)
        headers, extensions = request.headers.copy(), {**request.extensions, "timeout": timeouts}
        if self._authority == "service":
            extensions.setdefault("sni_hostname", self.host.removesuffix("."))
        elif headers.get("Host") == request.url.netloc.decode("ascii"):  # else the caller chose it
            headers["Host"] = url.netloc.decode("ascii")
        stream = request.stream if self._bytes else self._body
        return self._http.Request(self.method, url, headers=headers, stream=stream, extensions=extensions)

    def _overrun(self, request: Any) -> Exception:
        kind, what = (
            (self._http.ReadTimeout, "response from") if self._late else (self._http.ConnectTimeout, "connection to")
        )
        netloc = request.url.netloc.decode("ascii")
        overrun: Exception = kind(f"no {what} {netloc} within per_try_timeout={self._per_try:g} s")
        return overrun

    def judge(self, error: Exception) -> ErrorClass:
        if self._is_stale(error):
            return ErrorClass.INNOCENT
        if self._trail.at_proxy:
            return ErrorClass.UNASKED
        if self._late:
            return ErrorClass.BROKEN  # the request has time left for another attempt
        if self._trail.connecting and isinstance(error, OSError | ValueError | OverflowError):
            return ErrorClass.UNSENT  # an unfit address or port, or TLS's own error
        return judged(self._http, error)

    def _is_stale(self, error: Exception) -> bool:
        """Whether *error* means only that a connection was closed while it was idle."""
        return self._trail.reused and not self._answered and judged(self._http, error) is ErrorClass.BROKEN

    def overdue(self) -> bool:
        return False  # both packages raise a timeout of theirs

    def status(self, response: Any) -> int:
        status: int = response.status_code
        return status

    async def discard(self, response: Any) -> None:
        lane, self.lane = self.lane, None
        try:
            await response.aclose()
        finally:
            if lane is not None:
                lane.leave()

    def replayable(self) -> bool:
        return (self._bytes or not self._body.begun) and not self._patience.used_up

    def patience(self) -> float | None:
        return self._patience.left("connect")

    def refused(self, error: InvalidArgument) -> Exception:
        refused: Exception = self._http.UnsupportedProtocol(str(error))
        return refused

    def unreachable(self, error: RegistryError) -> Exception:
        kind = self._http.ConnectTimeout if isinstance(error, RequestTimeout) else self._http.ConnectError
        unreachable: Exception = kind(str(error))
        return unreachable


class _Body:
    """The body of a request: whether its reading has begun."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        parts: AsyncIterator[bytes] = aiter(self._stream)
        return parts


class _Begun:
    """The body of a response of which the *first* part has been read, and *parts* are the rest."""

    def __init__(self, first: bytes, parts: AsyncIterator[bytes], stream: Any) -> None:
        self._first, self._parts, self._stream = first, parts, stream

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        yield self._first
        async for part in self._parts:
            yield part

    async def aclose(self) -> None:
        try:
            if isinstance(self._parts, AsyncGenerator):
                await self._parts.aclose()
        finally:
            await self._stream.aclose()


Finish = Callable[[BaseException | None, ErrorClass], None]


class _Answer:
    """The body of a response; *finish* is told how that ends."""

    def __init__(self, stream: Any, http: ModuleType, lane: Lane, finish: Finish | None = None) -> None:
        self._stream = stream
        self._http = http
        self._lane: Lane | None = lane
        self._finish = finish
        self._parts: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._parts = parts = aiter(self._stream)
        return self._watched(parts)

    async def _watched(self, parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        try:
            async for part in parts:
                yield part
        except Exception as error:
            self._ended(error, judged(self._http, error))
            raise
        except asyncio.CancelledError as error:
            self._ended(error, ErrorClass.INNOCENT)
            raise
        else:
            self._ended()

    def _ended(self, error: BaseException | None = None, error_class: ErrorClass = ErrorClass.FAILED) -> None:
        if self._finish is not None:
            self._finish(error, error_class)

    async def aclose(self) -> None:
        try:
            if isinstance(self._parts, AsyncGenerator):
                await self._parts.aclose()
            await self._stream.aclose()
        finally:
            lane, self._lane = self._lane, None
            if lane is not None:
                lane.leave()
            self._ended()  # it answered; the caller has had enough


def _end_after(limit: asyncio.Timeout, seconds: float) -> None:
    limit.reschedule(asyncio.get_running_loop().time() + seconds)


def _announces_body(method: str, response: Any) -> bool:
    """Whether the head gives the length of a body. A stream of events has no length, and may be silent for long."""
    length: str = response.headers.get("Content-Length", "")
    return method != "HEAD" and response.status_code != 304 and length.isdecimal() and length.strip("0") != ""


def _entered(lanes: Lanes, request: Any, http: ModuleType) -> Lane:
    try:
        return lanes.enter(request)
    except foreign.ForeignError as failure:  # no instance is to blame
        error: Exception = http.LocalProtocolError(f"there is no transport for this request: {failure}")
        raise error from failure.error


def _check_transport(transport: object, http: ModuleType) -> None:
    kind = http.AsyncBaseTransport
    if transport is not None and not isinstance(transport, kind) and not callable(transport):
        must = f"must be a {http.__name__}.AsyncBaseTransport, or a function that makes them"
        raise InvalidType("transport", transport, must)


def _lanes(transport: Any, http: ModuleType) -> Lanes:
    if isinstance(transport, http.AsyncBaseTransport):
        return Lanes(transport, another_like(transport, http.AsyncHTTPTransport))
    make = transport
    if make is None:
        context = http.create_ssl_context()  # it takes time to make one, and each of them is alike
        make = partial(http.AsyncHTTPTransport, verify=context)

    def another() -> Any:
        made = make()
        if not isinstance(made, http.AsyncBaseTransport):
            raise InvalidType("transport", make, f"must make a {http.__name__}.AsyncBaseTransport, not {made!r}")
        return made

    return Lanes(another(), another)
