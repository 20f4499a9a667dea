"""Admission: names of hosts, origins, logins, proxies; and the headers by which every answer protects the browser."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aioregistry._incident_log import IncidentLog
from aioregistry._words import printable

from .access import HEADERS, AttemptLimit, Login, Logins, is_host_known, is_same_origin, is_token
from .answers import Refused, as_json, body_of, refusal
from .console import Settings
from .passwords import LONGEST_NAME, is_password, stand_in

__all__ = ["COOKIE", "Door", "Gate"]

log = logging.getLogger("aioregistry.console")

COOKIE: Final = "aioregistry_console"
_COOKIE_SECONDS: Final = 12 * 3600
_HASHED_AT_ONCE: Final = 2
_WAIT_TO_BE_HASHED: Final = 16
_MOST_FIELDS: Final = 10

Rendered: TypeAlias = Callable[..., Response]
"""Makes a page of a template, a status and values."""


class Door:
    """Where users log in and out.

    Args:
        settings: who may.
        rendered: makes the page.
        repeated: takes logins that failed.

    Attributes:
        csrf: the token for pages of users who did not log in here.
    """

    def __init__(self, settings: Settings, rendered: Rendered, repeated: IncidentLog) -> None:
        self._settings, self._rendered, self._repeated = settings, rendered, repeated
        self.csrf = secrets.token_urlsafe(32)
        self._logins = Logins()
        self._by_address, self._by_user = AttemptLimit(20, 300.0), AttemptLimit(10, 300.0)
        self._hashing = asyncio.Semaphore(_HASHED_AT_ONCE)
        self._to_be_hashed = 0

    def login(self, request: Request) -> Login | None:
        """Return the user who has logged in, or None."""
        return self._logins.find(request.cookies.get(COOKIE, ""), time.monotonic())

    def watch(self, request: Request) -> Callable[[], bool]:
        """Return what tells whether who asks now is still let in."""
        return lambda: self._settings.passwords is None or self.login(request) is not None

    async def page(self, request: Request) -> Response:
        """Return the page with the form."""
        return self._rendered("login.html", next=_own(request.query_params.get("next", "/")), error="")

    async def log_in(self, request: Request) -> Response:
        """Log a user in, or say why not. Raises Refused."""
        passwords = self._settings.passwords
        if passwords is None:
            raise Refused(404, "this console has no login")
        user, password, wanted = await _form(request)
        address = "" if request.client is None else request.client.host
        now = time.monotonic()
        wait = max(self._by_address.wait(address, now), self._by_user.wait(user, now))
        if wait > 0:
            text = f"Too many failed logins: try again in {math.ceil(wait)} s."
            page = self._rendered("login.html", 429, next=_own(wanted), error=text)
            page.headers["retry-after"] = str(math.ceil(wait))
            return page
        # An attempt counts as failed until its outcome is known: many at once are no more than one after the other.
        self._by_address.failed(address, now)
        self._by_user.failed(user, now)
        if not (await self._is_right(password, user) and user in passwords):
            # One incident, wherever they come from: a stranger has more addresses than there can be kinds.
            text = "a login as %r from %s failed"
            self._repeated.tell("login", logging.WARNING, text, user[:100], address, user=user[:100], address=address)
            return self._rendered("login.html", 401, next=_own(wanted), error="User or password is wrong.")
        self._by_address.succeeded(address)
        self._by_user.succeeded(user)
        token = secrets.token_urlsafe(32)
        self._logins.add(token, user, secrets.token_urlsafe(32), time.monotonic())
        log.info("%r logged in from %s", user, address, extra={"user": user, "address": address})
        answer = RedirectResponse(_own(wanted), 303, {"cache-control": "no-store"})
        secure = self._settings.secure or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(COOKIE, token, max_age=_COOKIE_SECONDS, httponly=True, samesite="lax", secure=secure)
        return answer

    async def _is_right(self, password: str, user: str) -> bool:
        passwords = self._settings.passwords or {}
        if self._to_be_hashed >= _WAIT_TO_BE_HASHED:
            raise Refused(503, "too many are logging in: try again", **{"retry-after": "5"})
        self._to_be_hashed += 1
        try:
            async with self._hashing:
                return await asyncio.to_thread(is_password, password, passwords.get(user) or stand_in(passwords, user))
        finally:
            self._to_be_hashed -= 1

    async def log_out(self, request: Request) -> Response:
        """Log a user out."""
        self._logins.remove(request.cookies.get(COOKIE, ""))
        answer = as_json(request, {})
        answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return answer


class Gate:
    """Lets in whom the settings let in, and says how browsers are to treat every answer.

    Args:
        settings: who may.
        door: where users log in.
        application: behind it; finds the :class:`Login` in the request's state.
    """

    def __init__(self, settings: Settings, door: Door, application: ASGIApp) -> None:
        self._settings, self._door, self._application = settings, door, application

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
        except Refused as refused:
            await refusal(request, refused)(scope, receive, guarded)
            return
        if scope["state"]["login"] is None and not _is_for_all(request):
            await self._to_login(request)(scope, receive, guarded)
            return
        try:
            await self._application(scope, receive, guarded)
        except ClientDisconnect:
            pass  # before all of the request was here
        except Exception:
            # The server above does not log it, so it would go unnoticed.
            log.exception("the console failed to answer a request for %s", printable(request.url.path))
            raise

    def _admitted(self, request: Request) -> Login | None:
        """Return the user who asks; None for a browser that has to log in. Raises Refused."""
        headers = request.headers
        host = headers.get("host", "")
        if not is_host_known(host, self._settings.hosts):
            raise Refused(400, f"host {printable(host)!r} is not known here: start the console with --allow-host NAME")
        login = self._login(request)
        site = headers.get("sec-fetch-site")
        if request.url.path.startswith("/api/") and site in ("cross-site", "same-site"):
            raise Refused(403, "this is for the console's own pages")
        if request.method not in ("GET", "HEAD"):
            if not is_same_origin(headers.get("origin"), site, host):
                raise Refused(403, "this is for the console's own pages")
            if login is not None and not _is_for_all(request) and not is_token(headers.get("x-csrf-token"), login.csrf):
                raise Refused(403, "the page is out of date: load it again")
        return login

    def _login(self, request: Request) -> Login | None:
        settings = self._settings
        if settings.user_header is not None:
            peer = "" if request.client is None else request.client.host
            if peer not in settings.proxies:
                raise Refused(403, "only the reverse proxy may ask: --proxy ADDRESS names it")
            named = request.headers.getlist(settings.user_header)
            if len(named) != 1 or not named[0].strip():
                raise Refused(401, f"the reverse proxy has not named one user in {settings.user_header}")
            return Login(printable(named[0].strip())[:100], self._door.csrf, 0.0, 0.0)
        if settings.passwords is None:
            return Login("", self._door.csrf, 0.0, 0.0)
        return self._door.login(request)

    def _to_login(self, request: Request) -> Response:
        if request.url.path.startswith("/api/") or request.method not in ("GET", "HEAD"):
            return refusal(request, Refused(401, "log in first"))
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?{urlencode({'next': wanted})}", 303, {"cache-control": "no-store"})


async def _form(request: Request) -> tuple[str, str, str]:
    """Return user, password and the page that is wanted. Raises Refused."""
    try:
        fields = dict(parse_qsl((await body_of(request)).decode("utf-8", "replace"), max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise Refused(400, f"the form has more than {_MOST_FIELDS} fields") from None
    # No user has so long a name, and failed logins are remembered by name.
    return fields.get("user", "")[: LONGEST_NAME + 1], fields.get("password", ""), fields.get("next", "")


def _is_for_all(request: Request) -> bool:
    return request.url.path == "/login" or request.url.path.startswith("/static/")


def _own(path: str) -> str:
    """Return *path* where it is one of this console's, and the first page else: a login leads nowhere else."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or any(ord(c) < 33 for c in path):
        return "/"
    return quote(path, safe="/?&=%+:,@!~*'();$-._")
