"""The console's answers to browsers: a Starlette application."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aioregistry._errors import InvalidArgument, NoAuth, RegistryError
from aioregistry._words import printable, to_json

from .access import HEADERS, Attempts, Login, Logins, is_host_known, is_same_origin, is_token
from .console import Console
from .hub import TooManyBrowsers
from .passwords import DUMMY, is_password
from .recorder import HistoryUnavailable
from .states import KINDS, State
from .store import Query, Reading
from .timeline import Difference, Span, compare, gaps, segments

__all__ = ["console_app"]

log = logging.getLogger("aioregistry.console")

T = TypeVar("T")

COOKIE: Final = "aioregistry_console"
_COOKIE_SECONDS: Final = 12 * 3600

_LONGEST_BODY: Final = 16_384
_SENT_WITHIN: Final = 30.0
"""Seconds after which a browser that reads nothing is let go."""

_COMPRESSED_FROM: Final = 1000
_BINS: Final = 120
_EVENTS: Final = 1000
_LANES: Final = 300
_SPANS: Final = 20_000
_COUNTS: Final = 50_000
_DIFFERENCES: Final = 2000
_EARLIEST, _LATEST = 0.0, 4e9
_HOUR: Final = 3600.0
_SAID_WITHIN: Final = 10.0
_HASHED_AT_ONCE: Final = 2
_WAIT_TO_BE_HASHED: Final = 16

_MEDIA: Final = {"console.js": "text/javascript", "console.css": "text/css", "icon.svg": "image/svg+xml"}


class _Refused(Exception):
    """A request is not granted: with *status*, and the reason as *text*."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


def console_app(console: Console) -> ASGIApp:
    """Return the application for *console*."""
    return _Access(_Pages(console), console)


# ---------------------------------------------------------------- who may


class _Access:
    """Lets in whom the settings let in, and says how browsers are to treat every answer."""

    def __init__(self, pages: _Pages, console: Console) -> None:
        self._pages = pages
        self._settings = console.settings
        self._application = pages.application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        try:
            scope["state"] = {**scope.get("state", {}), "login": self._admitted(request)}
        except _Refused as refused:
            await _refusal(request, refused)(scope, receive, guarded)
            return
        if scope["state"]["login"] is None and not _is_for_all(request):
            await self._to_login(request)(scope, receive, guarded)
            return
        await self._application(scope, receive, guarded)

    def _admitted(self, request: Request) -> Login | None:
        """Return who asks; None for somebody who has to log in. Raises _Refused."""
        headers = request.headers
        host = headers.get("host", "")
        if not is_host_known(host, self._settings.hosts):
            raise _Refused(400, f"host {printable(host)!r} is not known here: start the console with --allow-host NAME")
        login = self._login(request)
        site = headers.get("sec-fetch-site")
        if request.url.path.startswith("/api/") and site in ("cross-site", "same-site"):
            raise _Refused(403, "this is for the console's own pages")
        if request.method not in ("GET", "HEAD"):
            if not is_same_origin(headers.get("origin"), site, host):
                raise _Refused(403, "this is for the console's own pages")
            if login is not None and not _is_for_all(request) and not is_token(headers.get("x-csrf-token"), login.csrf):
                raise _Refused(403, "the page is out of date: load it again")
        return login

    def _login(self, request: Request) -> Login | None:
        settings = self._settings
        if settings.user_header is not None:
            peer = "" if request.client is None else request.client.host
            if peer not in settings.proxies:
                raise _Refused(403, "only the reverse proxy may ask: --proxy ADDRESS names it")
            named = request.headers.getlist(settings.user_header)
            if len(named) != 1 or not named[0].strip():
                raise _Refused(401, f"the reverse proxy has not named one user in {settings.user_header}")
            return Login(printable(named[0].strip())[:100], self._pages.csrf, 0.0, 0.0)
        if settings.passwords is None:
            return Login("", self._pages.csrf, 0.0, 0.0)
        return self._pages.logins.find(request.cookies.get(COOKIE, ""), time.monotonic())

    def _to_login(self, request: Request) -> Response:
        if request.url.path.startswith("/api/") or request.method not in ("GET", "HEAD"):
            return _refusal(request, _Refused(401, "log in first"))
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?{urlencode({'next': wanted})}", 303, {"cache-control": "no-store"})


def _is_for_all(request: Request) -> bool:
    return request.url.path == "/login" or request.url.path.startswith("/static/")


def _refusal(request: Request, refused: _Refused) -> Response:
    if request.url.path.startswith("/api/"):
        return _json(request, {"error": refused.text}, refused.status, refused.headers)
    headers = {"cache-control": "no-store", **refused.headers}
    return Response(f"{refused.text}\n", refused.status, headers, "text/plain")


# ---------------------------------------------------------------- pages


class _Pages:
    """The routes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.csrf = secrets.token_urlsafe(32)
        self.logins = Logins()
        self._by_address, self._by_user = Attempts(20, 300.0), Attempts(10, 300.0)
        self._hashing = asyncio.Semaphore(_HASHED_AT_ONCE)
        self._to_be_hashed = 0
        self._files = {name: (files(__package__) / "static" / name).read_bytes() for name in _MEDIA}
        self._version = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:16]
        self._templates = Environment(
            loader=PackageLoader("aioregistry._console"), autoescape=True, undefined=StrictUndefined
        )
        self.application = Starlette(
            routes=[
                *(Route(path, self._page) for path in ("/", "/timeline", "/compare")),
                Route("/login", self._login_page),
                Route("/login", self._log_in, methods=["POST"]),
                Route("/logout", self._log_out, methods=["POST"]),
                Route("/static/{name}", self._static),
                Route("/api/follow", self._follow),
                Route("/api/instance", self._instance),
                Route("/api/search", self._search),
                Route("/api/timeline", self._timeline),
                Route("/api/compare", self._compare),
                Route("/api/drain", self._drain, methods=["POST"]),
                Route("/api/enable", self._enable, methods=["POST"]),
            ],
            exception_handlers={_Refused: _as_refusal, HistoryUnavailable: _without_history},
        )

    def _rendered(self, template: str, status: int = 200, /, **values: Any) -> Response:
        text = self._templates.get_template(template).render(version=self._version, **values)
        return Response(text, status, {"cache-control": "no-store"}, "text/html")

    async def _page(self, request: Request) -> Response:
        settings, login = self._console.settings, request.state.login
        return self._rendered(
            "page.html",
            csrf=login.csrf,
            user=login.user,
            logout=settings.passwords is not None,
            drain=settings.allow_drain,
            kinds=KINDS,
        )

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise _Refused(404, "there is no such file")
        fresh = request.query_params.get("v") == self._version
        caching = "public, max-age=31536000, immutable" if fresh else "no-cache"
        return _compressed(request, self._files[name], 200, {"cache-control": caching}, _MEDIA[name])

    # ------------------------------------------------------------------ logging in

    async def _login_page(self, request: Request) -> Response:
        return self._rendered("login.html", next=_own(request.query_params.get("next", "/")), error="")

    async def _log_in(self, request: Request) -> Response:
        passwords = self._console.settings.passwords
        if passwords is None:
            raise _Refused(404, "nobody has to log in")
        fields = dict(parse_qsl((await _body(request)).decode("utf-8", "replace"), max_num_fields=10))
        user, password, wanted = (fields.get(name, "") for name in ("user", "password", "next"))
        address = "" if request.client is None else request.client.host
        now = time.monotonic()
        wait = max(self._by_address.wait(address, now), self._by_user.wait(user, now))
        if wait > 0:
            text = f"Too many failed logins: try again in {math.ceil(wait)} s."
            page = self._rendered("login.html", 429, next=_own(wanted), error=text)
            page.headers["retry-after"] = str(math.ceil(wait))
            return page
        # What is tried counts as failed until it is known: many at once are no more than one after the other.
        self._by_address.failed(address, now)
        self._by_user.failed(user, now)
        if not (await self._is_right(password, user) and user in passwords):
            log.warning("a login as %r from %s failed", user[:100], address)
            return self._rendered("login.html", 401, next=_own(wanted), error="User or password is wrong.")
        self._by_address.succeeded(address)
        self._by_user.succeeded(user)
        token = secrets.token_urlsafe(32)
        self.logins.add(token, user, secrets.token_urlsafe(32), time.monotonic())
        log.info("%r logged in from %s", user, address)
        answer = RedirectResponse(_own(wanted), 303, {"cache-control": "no-store"})
        secure = self._console.settings.secure or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(COOKIE, token, max_age=_COOKIE_SECONDS, httponly=True, samesite="lax", secure=secure)
        return answer

    async def _is_right(self, password: str, user: str) -> bool:
        passwords = self._console.settings.passwords or {}
        if self._to_be_hashed >= _WAIT_TO_BE_HASHED:
            raise _Refused(503, "too many are logging in: try again", **{"retry-after": "5"})
        self._to_be_hashed += 1
        try:
            async with self._hashing:
                return await asyncio.to_thread(is_password, password, passwords.get(user, DUMMY))
        finally:
            self._to_be_hashed -= 1

    async def _log_out(self, request: Request) -> Response:
        self.logins.remove(request.cookies.get(COOKIE, ""))
        answer = _json(request, {})
        answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return answer

    # ------------------------------------------------------------------ what is there now

    async def _follow(self, request: Request) -> Response:
        token, asks_for_login = request.cookies.get(COOKIE, ""), self._console.settings.passwords is not None

        def allowed() -> bool:
            return not asks_for_login or self.logins.find(token, time.monotonic()) is not None

        try:
            return _Stream(self._console.hub.follow(self._console, request.query_params.get("service"), allowed))
        except TooManyBrowsers:
            raise _Refused(503, "too many browsers follow already", **{"retry-after": "30"}) from None

    async def _instance(self, request: Request) -> Response:
        service, id = _text(request, "service"), _text(request, "id")
        now = time.time()
        query = Query(_EARLIEST, now, service, id)
        found = {"now": now, "instance": self._console.detail(service, id)}
        try:
            rows = await self._asked(lambda reading: (reading.events(query, 200), reading.spans(query, 200)))
        except HistoryUnavailable as unavailable:
            return _json(request, {**found, "events": [], "unavailable": str(unavailable)})
        events, spans = rows
        return _json(request, {**found, "events": [_event(event) for event in events], "known": bool(spans)})

    async def _search(self, request: Request) -> Response:
        rows = []
        for found in self._console.found(_text(request, "q")):
            if found is None:
                await asyncio.sleep(0)
            else:
                rows.append(found)
        return _json(request, {"found": rows})

    # ------------------------------------------------------------------ what was

    async def _timeline(self, request: Request) -> Response:
        query = _query(request)
        now = time.time()

        def asked(reading: Reading) -> dict[str, Any]:
            periods = reading.periods(query.since, query.until)
            events = reading.events(query, _EVENTS + 1)
            return {
                "now": now,
                "bounds": reading.bounds(),
                "since": query.since,
                "until": query.until,
                "periods": [_period(each, now) for each in periods if each[0] != "recording"],
                "gaps": self._gaps(periods, query.since, min(query.until, now), now),
                "events": [_event(each) for each in events[:_EVENTS]],
                "more": len(events) > _EVENTS,
                **(_service_lanes(reading, query) if query.service is None else _instance_lanes(reading, query, now)),
            }

        return _json(request, await self._asked(asked))

    async def _compare(self, request: Request) -> Response:
        earlier, later = sorted((_moment(request, "a"), _moment(request, "b")))
        service = request.query_params.get("service") or None

        def asked(reading: Reading) -> dict[str, Any]:
            spans = reading.changed(earlier, later, service, _SPANS)
            found = list(compare(spans, earlier, later))
            periods = reading.periods(earlier, later)
            now = time.time()
            return {
                "a": earlier,
                "b": later,
                "bounds": reading.bounds(),
                "totals": [reading.totals(earlier, service), reading.totals(later, service)],
                "gaps": self._gaps(periods, earlier, min(later, now), now),
                "differences": [_difference(each) for each in found[:_DIFFERENCES]],
                "more": len(found) > _DIFFERENCES or len(spans) >= _SPANS,
            }

        return _json(request, await self._asked(asked))

    def _gaps(self, periods: Sequence[tuple[Any, ...]], since: float, until: float, now: float) -> list[Any]:
        recordings = [(began, ended) for kind, began, ended, _ in periods if kind == "recording"]
        if recordings and self._console.recorder.failure is None:
            began, ended = recordings[-1]
            # The one that goes on says so every few seconds.
            recordings[-1] = (began, now if now - ended < _SAID_WITHIN else ended)
        return gaps(recordings, since, until)

    async def _asked(self, question: Callable[[Reading], T]) -> T:
        return await asyncio.to_thread(self._console.recorder.ask, question)

    # ------------------------------------------------------------------ maintenance

    async def _drain(self, request: Request) -> Response:
        fields = await self._writing(request)
        overrides = self._console.registry.overrides
        done = overrides.drain(
            fields.get("service", ""),
            fields.get("id", ""),
            reason=fields.get("reason", ""),
            seconds=fields.get("seconds", _HOUR),
            any_incarnation=fields.get("any_incarnation", False),
            by=request.state.login.user or None,
        )
        override = await self._done(done)
        log.info("%s took %s/%s into maintenance: %s", override.by, override.service, override.id, override.reason)
        return _json(request, {"until": override.until})

    async def _enable(self, request: Request) -> Response:
        fields = await self._writing(request)
        service, id = fields.get("service", ""), fields.get("id", "")
        await self._done(self._console.registry.overrides.enable(service, id))
        log.info("%s ended the maintenance of %s/%s", request.state.login.user or "somebody", service, id)
        return _json(request, {})

    async def _writing(self, request: Request) -> dict[str, Any]:
        if not self._console.settings.allow_drain:
            raise _Refused(403, "this console is read-only: start it with --allow-drain")
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise _Refused(415, "send JSON")
        try:
            fields = json.loads(await _body(request))
        except (ValueError, RecursionError):
            raise _Refused(400, "the request is no JSON") from None
        if not isinstance(fields, dict):
            raise _Refused(400, "the request is no JSON object")
        return fields

    async def _done(self, change: Awaitable[T]) -> T:
        timeout = self._console.registry.session.timeout
        try:
            async with asyncio.timeout(timeout):
                return await change
        except InvalidArgument as error:
            raise _Refused(400, printable(str(error))) from None
        except NoAuth:
            raise _Refused(403, "the console's credentials may not write there: the ACL does not let it in") from None
        except TimeoutError:
            raise _Refused(504, f"ZooKeeper did not answer within {timeout:g} s; it may still be done") from None
        except RegistryError as error:
            raise _Refused(502, printable(str(error))) from None


async def _as_refusal(request: Request, refused: Exception) -> Response:
    assert isinstance(refused, _Refused)
    return _refusal(request, refused)


async def _without_history(request: Request, error: Exception) -> Response:
    return _json(request, {"error": str(error)}, 503)


# ---------------------------------------------------------------- what was asked for


def _text(request: Request, name: str) -> str:
    value = request.query_params.get(name, "")
    if not value:
        raise _Refused(400, f"{name} is missing")
    return value


def _moment(request: Request, name: str) -> float:
    text = _text(request, name)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _EARLIEST <= seconds <= _LATEST:
        raise _Refused(400, f"{name}={printable(text)[:100]!r} is no time: give seconds since 1970")
    return seconds


def _query(request: Request) -> Query:
    since, until = _moment(request, "since"), _moment(request, "until")
    if until <= since:
        raise _Refused(400, f"until={until} is not after since={since}")
    asked = request.query_params
    kinds = frozenset(asked["kinds"].split(",")) & KINDS.keys() if "kinds" in asked else None
    return Query(since, until, asked.get("service") or None, asked.get("id") or None, kinds, asked.get("q", "")[:200])


def _own(path: str) -> str:
    """Return *path* where it is one of this console's, and the first page else: a login leads nowhere else."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or any(ord(c) < 33 for c in path):
        return "/"
    return quote(path, safe="/?&=%+:,@!~*'();$-._")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_BODY:
            raise _Refused(413, f"the request is longer than {_LONGEST_BODY} bytes")
    return bytes(body)


# ---------------------------------------------------------------- what is answered


def _service_lanes(reading: Reading, query: Query) -> dict[str, Any]:
    lanes: dict[str, list[list[Any]]] = {}
    for service, bin, kind, count in reading.counts(query, _BINS, _COUNTS):
        lanes.setdefault(service, []).append([bin, kind, count])
    busiest = sorted(lanes, key=lambda name: (-sum(count for _, _, count in lanes[name]), name))[:_LANES]
    shown = [[name, printable(name), lanes[name]] for name in sorted(busiest) if name]
    return {"bins": _BINS, "services": shown, "lanes_more": max(len(lanes) - _LANES, 0)}


def _instance_lanes(reading: Reading, query: Query, now: float) -> dict[str, Any]:
    spans = reading.spans(query, _SPANS)
    own: dict[str, list[Span]] = {}
    for span in spans:
        if query.text.casefold() in span.id.casefold():
            own.setdefault(span.id, []).append(span)
    resolution = (query.until - query.since) / 500
    end = min(query.until, now)
    chosen = sorted(own, key=lambda id: (-len(own[id]), id))[:_LANES]
    shown = [[id, printable(id), segments(own[id], query.since, end, resolution)] for id in sorted(chosen)]
    more = max(len(own) - _LANES, 0)
    return {"instances": shown, "lanes_more": more, "spans_more": len(spans) >= _SPANS}


def _event(row: tuple[Any, ...]) -> list[Any]:
    at, kind, service, id, text = row
    return [at, kind, service, printable(service), id, printable(id), printable(text)]


def _period(row: tuple[Any, ...], now: float) -> list[Any]:
    kind, since, until, text = row
    return [kind, since, now if until is None else until, printable(text)]


def _difference(found: Difference) -> list[Any]:
    named = [found.service, printable(found.service), found.id, printable(found.id)]
    return [*named, found.kind, _state(found.before), _state(found.after), found.steps]


def _state(state: State | None) -> dict[str, str] | None:
    if state is None:
        return None
    fields = ("state", "owner", "place", "payload", "reason")
    return {field: printable(str(getattr(state, field))) for field in fields}


def _json(request: Request, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return _compressed(
        request, to_json(content).encode(), status, {"cache-control": "no-store", **(headers or {})}, "application/json"
    )


def _compressed(request: Request, body: bytes, status: int, headers: Mapping[str, str], media: str) -> Response:
    own = {**headers, "vary": "accept-encoding"}
    if len(body) >= _COMPRESSED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 5)
        own["content-encoding"] = "gzip"
    return Response(body, status, own, media)


class _Stream(Response):
    """Server-sent events until the browser goes, or reads nothing for too long."""

    def __init__(self, messages: AsyncGenerator[bytes, None]) -> None:
        super().__init__(media_type="text/event-stream")
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI says so
        """Answer."""
        sending = asyncio.create_task(self._send_all(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        headers.append((b"x-accel-buffering", b"no"))
        await _sent(send, {"type": "http.response.start", "status": 200, "headers": headers})
        async with contextlib.aclosing(self._messages) as messages:
            async for message in messages:
                await _sent(send, {"type": "http.response.body", "body": message, "more_body": True})
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _sent(send: Send, message: Message) -> None:
    async with asyncio.timeout(_SENT_WITHIN):
        await send(message)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
