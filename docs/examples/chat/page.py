"""Serves the page, and refuses every other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

HERE = Path(__file__).parent
FILES = {"/": "page.html", "/page.js": "page.js", "/style.css": "style.css"}
NAMES = {"127.0.0.1", "localhost"}  # this machine's: no other machine can have them lead to it
POLICY = {"Content-Security-Policy": "default-src 'self'; img-src data:", "Cache-Control": "no-cache"}


def page_routes() -> list[web.RouteDef]:
    """Return what the page consists of."""
    return [web.get(path, show) for path in FILES]


async def show(request: web.Request) -> web.FileResponse:
    """Serve one of its files."""
    return web.FileResponse(HERE / FILES[request.path], headers=POLICY)


@web.middleware
async def only_our_pages(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what pages of other sites ask for: browsers let them open WebSockets to anywhere, but say who they are.

    The owner of a name can have it lead to this machine (DNS rebinding): a page from there names the same host twice.
    So the host that was asked for has to be one of ours.
    """
    host, origin = request.host, request.headers.get("Origin")
    if name_of(host) not in NAMES:
        raise web.HTTPForbidden(text=f"{host} is not served here")
    if origin is not None and origin.partition("://")[2] != host:
        raise web.HTTPForbidden(text=f"not for {origin}")
    return await handler(request)


def name_of(host: str) -> str | None:
    """Return the name in a Host header, or None: ``localhost:8080`` asks for localhost."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
