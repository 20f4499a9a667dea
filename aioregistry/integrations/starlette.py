"""Starlette: an application that is registered for as long as it lives, and finds others.

One call in the lifespan, ``Starlette(lifespan=lifespan(membership))``; then :func:`membership`, :func:`registry` and
:func:`view` of a request or a WebSocket, and :func:`readiness` as a route.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final

from aioregistry import Registry, UsageError, View
from aioregistry._errors import InvalidType

from ._extras import extra
from .membership import Membership, NotYet, Readiness

with extra("starlette"):
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import JSONResponse

__all__ = [
    "STATE",
    "Lifespan",
    "Membership",
    "NotYet",
    "Readiness",
    "lifespan",
    "membership",
    "readiness",
    "registry",
    "view",
]

STATE: Final = "aioregistry"
"""The name in the lifespan's state under which the membership is kept: ``request.state.aioregistry``."""

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]
"""A function of the application, as Starlette and FastAPI take it; it gives the state of requests."""


def lifespan(
    membership: Membership, within: Lifespan | None = None
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return a lifespan in which the application is a member of its service.

    On startup: connect, *within*'s startup (which may use the membership), be listed. On shutdown: drain, *within*'s
    shutdown, disconnect. A startup that fails leaves nothing behind. The server handles signals.

    Args:
        membership: entered on startup; another startup may follow a shutdown.
        within: the application's own lifespan; its state is kept.

    Raises:
        InvalidArgument: an argument is of the wrong type; at once.
    """
    if not isinstance(membership, Membership):
        raise InvalidType("membership", membership, "give a Membership")
    membership.check_has_port()
    if within is not None and not callable(within):
        raise InvalidType("within", within, "give a lifespan, a function of the application")

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with membership.connected(), nullcontext() if within is None else within(app) as state:
            await membership.announce()
            try:
                yield {**(state or {}), STATE: membership}
            finally:
                await membership.drain()

    return run


def membership(connection: HTTPConnection) -> Membership:
    """Return the membership of the application that *connection*, a request or a WebSocket, came to.

    Raises:
        UsageError: the application has no membership, or its lifespan does not run.
    """
    found = connection.scope.get("state", {}).get(STATE)
    if not isinstance(found, Membership):
        raise UsageError(
            "the application is not a member: make it with lifespan=lifespan(membership), and run its lifespan"
        )
    return found


def registry(connection: HTTPConnection) -> Registry:
    """Return the registry of the application that *connection* came to; raises as :func:`membership` does."""
    return membership(connection).registry


def view(connection: HTTPConnection, name: str) -> View[Any]:
    """Return the view of the service *name*, for the application that *connection* came to.

    Raises:
        NotYet: the view has not read the service yet.
        InvalidArgument: the membership does not discover *name*.
        UsageError: as :func:`membership` does.
    """
    return membership(connection).view(name)


async def readiness(request: Request) -> JSONResponse:
    """Answer whether the server is to be sent requests: 200 or 503, and why, as :meth:`Membership.readiness` says."""
    state = membership(request).readiness()
    return JSONResponse(state.document(), 200 if state.ready else 503, {"Cache-Control": "no-store"})
