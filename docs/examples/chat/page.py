"""Serves the page, to nobody but itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

HERE = Path(__file__).parent
FILES = {"/": "page.html", "/page.js": "page.js", "/style.css": "style.css"}
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
    """Refuse what pages of other sites ask for: browsers let them open WebSockets to anywhere, but say who they are."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise web.HTTPForbidden(text=f"not for {origin}")
    return await handler(request)
