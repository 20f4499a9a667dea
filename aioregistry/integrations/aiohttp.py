"""aiohttp: a server that is registered for as long as it lives, and a client that finds instances by host name.

For the server ``app.cleanup_ctx.append(member(membership))``; then :func:`membership`, :func:`registry` and
:func:`view` of a request, :func:`readiness` as a route, and :func:`run_app` in place of aiohttp's. For the client
``async with RegistryMiddleware(registry) as middleware, ClientSession(middlewares=[middleware]) as session``.
"""

from __future__ import annotations

from ._aiohttp_client import RegistryMiddleware
from ._aiohttp_cookies import RegistryCookieJar
from ._aiohttp_server import (
    MEMBERSHIP,
    REGISTRY,
    AppRunner,
    member,
    membership,
    readiness,
    registry,
    run_app,
    view,
)
from ._arguments import IDEMPOTENT, SAFE, RoutingOptions
from .membership import Membership, NotYet, Readiness

__all__ = [
    "IDEMPOTENT",
    "MEMBERSHIP",
    "REGISTRY",
    "SAFE",
    "AppRunner",
    "Membership",
    "NotYet",
    "Readiness",
    "RegistryCookieJar",
    "RegistryMiddleware",
    "RoutingOptions",
    "member",
    "membership",
    "readiness",
    "registry",
    "run_app",
    "view",
]
