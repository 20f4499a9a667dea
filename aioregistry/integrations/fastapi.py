"""FastAPI: an application that is registered for as long as it lives, and finds others by typed dependencies.

One call in the lifespan, ``FastAPI(lifespan=lifespan(membership))``; then dependencies such as
``Annotated[View[User], Depends(view("users"))]``, and :func:`readiness` as a route.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from aioregistry import Registry, View

from ._extras import extra

with extra("fastapi"):
    from fastapi import HTTPException
    from fastapi.requests import HTTPConnection

    from . import starlette

from .starlette import Membership, NotYet, Readiness, lifespan, readiness

__all__ = ["Membership", "NotYet", "Readiness", "lifespan", "membership", "readiness", "registry", "view"]

_SOON = "1"
"""Seconds, as Retry-After says them."""


# Asynchronous, though nothing is awaited: FastAPI calls other functions on threads, where handles are not to be used.
async def membership(connection: HTTPConnection) -> Membership:
    """Depend on the application's membership: ``Annotated[Membership, Depends(membership)]``."""
    return starlette.membership(connection)


async def registry(connection: HTTPConnection) -> Registry:
    """Depend on the application's registry: ``Annotated[Registry, Depends(registry)]``."""
    return starlette.registry(connection)


def view(name: str) -> Callable[[HTTPConnection], Coroutine[Any, Any, View[Any]]]:
    """Return a dependency on the view of the service *name*: ``Annotated[View[User], Depends(view("users"))]``.

    Until the view has read the service for the first time, the request is answered with 503.
    """

    async def dependency(connection: HTTPConnection) -> View[Any]:
        try:
            return starlette.view(connection, name)
        except NotYet as error:
            raise HTTPException(503, str(error), {"Retry-After": _SOON}) from error

    return dependency
