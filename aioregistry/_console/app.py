"""The console's answers to browsers: a Starlette application."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Final, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from aioregistry._errors import InvalidArgument, NoAuth, RegistryError
from aioregistry._words import printable

from .answers import EventStream, Refused, as_json, body_of, compressed, refusal, text_of
from .console import Console
from .gate import Door, Gate
from .hub import TooManyBrowsers
from .past import Comparison, Timeline, event_row
from .reading import Query, Reading
from .recorder import HistoryUnavailable
from .states import KINDS
from .store import Event

__all__ = ["console_app"]

log = logging.getLogger("aioregistry.console")

T = TypeVar("T")

_HOUR: Final = 3600.0
_EVENTS_OF_ONE: Final = 200
_LONGEST_REASON: Final = 300

_MEDIA: Final = {"console.js": "text/javascript", "console.css": "text/css", "icon.svg": "image/svg+xml"}


def console_app(console: Console) -> ASGIApp:
    """Return the application for *console*."""
    return _Pages(console).gate


# ---------------------------------------------------------------- pages


class _Pages:
    """The routes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._door = Door(console.settings, self._rendered, console.repeated)
        self._files = {name: (files(__package__) / "static" / name).read_bytes() for name in _MEDIA}
        self._version = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:16]
        self._templates = Environment(
            loader=PackageLoader("aioregistry._console"), autoescape=True, undefined=StrictUndefined
        )
        application = Starlette(
            routes=[
                *(Route(path, self._page) for path in ("/", "/timeline", "/compare")),
                Route("/login", self._door.page),
                Route("/login", self._door.log_in, methods=["POST"]),
                Route("/logout", self._door.log_out, methods=["POST"]),
                Route("/static/{name}", self._static),
                Route("/api/follow", self._follow),
                Route("/api/instance", self._instance),
                Route("/api/search", self._search),
                Route("/api/timeline", self._timeline),
                Route("/api/compare", self._compare),
                Route("/api/drain", self._drain, methods=["POST"]),
                Route("/api/enable", self._enable, methods=["POST"]),
            ],
            exception_handlers={Refused: _as_refusal, HistoryUnavailable: _without_history},
        )
        self.gate = Gate(console.settings, self._door, application)

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
            warm_up=settings.warm_up,
        )

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise Refused(404, "there is no such file")
        fresh = request.query_params.get("v") == self._version
        caching = "public, max-age=31536000, immutable" if fresh else "no-cache"
        return compressed(request, self._files[name], 200, {"cache-control": caching}, _MEDIA[name])

    # ------------------------------------------------------------------ the present

    async def _follow(self, request: Request) -> Response:
        try:
            watched, allowed = request.query_params.get("service"), self._door.watch(request)
            return EventStream(self._console.hub.follow(self._console, watched, allowed, request.state.login.user))
        except TooManyBrowsers:
            raise Refused(503, "too many browsers follow already", **{"retry-after": "30"}) from None

    async def _instance(self, request: Request) -> Response:
        service, id = text_of(request, "service"), text_of(request, "id")
        now = time.time()
        query = Query(0.0, now, service, id)
        found = {"now": now, "instance": self._console.detail(service, id)}
        try:
            events = await self._asked(lambda reading: reading.events(query, _EVENTS_OF_ONE))
        except HistoryUnavailable as unavailable:
            return as_json(request, {**found, "events": [], "unavailable": str(unavailable)})
        return as_json(request, {**found, "events": [event_row(event) for event in events]})

    async def _search(self, request: Request) -> Response:
        rows = []
        for found in self._console.found(text_of(request, "q")):
            if found is None:
                await asyncio.sleep(0)
            else:
                rows.append(found)
        return as_json(request, {"found": rows})

    # ------------------------------------------------------------------ the past

    async def _timeline(self, request: Request) -> Response:
        return await self._answered(request, Timeline(request, time.time(), recording=self._is_recording))

    async def _compare(self, request: Request) -> Response:
        return await self._answered(request, Comparison(request, time.time(), recording=self._is_recording))

    @property
    def _is_recording(self) -> bool:
        return self._console.recorder.failure is None

    async def _answered(self, request: Request, question: Callable[[Reading], Any]) -> Response:
        # In the thread too: a long answer takes time to write and compress.
        return await self._asked(lambda reading: as_json(request, question(reading)))

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
        said = map(printable, (override.by, override.service, override.id, override.reason))
        about = {"service": override.service, "id": override.id, "user": override.by}
        log.info("%s took %s/%s into maintenance: %s", *said, extra=about)
        return as_json(request, {"until": override.until})

    async def _enable(self, request: Request) -> Response:
        fields = await self._writing(request)
        service, id, reason = fields.get("service", ""), fields.get("id", ""), fields.get("reason", "")
        if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
            raise Refused(400, f"the reason is not a text of at most {_LONGEST_REASON} characters")
        await self._done(self._console.registry.overrides.enable(service, id))
        by, why = request.state.login.user or "somebody", printable(reason.strip()) or "no reason given"
        self._console.recorder.put(Event(time.time(), "override-over", service, id, f"{why} (by {by})"))
        said = map(printable, (by, service, id))
        about = {"service": service, "id": id, "user": by}
        log.info("%s ended the maintenance of %s/%s: %s", *said, why, extra=about)
        return as_json(request, {})

    async def _writing(self, request: Request) -> dict[str, Any]:
        if not self._console.settings.allow_drain:
            raise Refused(403, "this console is read-only: start it with --allow-drain")
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused(415, "send JSON")
        try:
            fields = json.loads(await body_of(request))
        except (ValueError, RecursionError):
            raise Refused(400, "the request is not JSON") from None
        if not isinstance(fields, dict):
            raise Refused(400, "the request is not a JSON object")
        return fields

    async def _done(self, change: Awaitable[T]) -> T:
        timeout = self._console.registry.session.timeout
        try:
            async with asyncio.timeout(timeout):
                return await change
        except InvalidArgument as error:
            raise Refused(400, printable(str(error))) from None
        except NoAuth:
            raise Refused(403, "the console's credentials may not write there: the ACL does not let it in") from None
        except TimeoutError:
            raise Refused(504, f"ZooKeeper did not answer within {timeout:g} s; it may still be done") from None
        except RegistryError as error:
            raise Refused(502, printable(str(error))) from None


async def _as_refusal(request: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return refusal(request, refused)


async def _without_history(request: Request, error: Exception) -> Response:
    return as_json(request, {"error": str(error)}, 503)
