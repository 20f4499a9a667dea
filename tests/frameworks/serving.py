"""A server of a service, as its own process: `python -m tests.frameworks.serving SERVER LOOP`, or
`uvicorn --factory tests.frameworks.serving:app`; what it is a member of comes by the environment.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from aioregistry import View
from aioregistry.integrations.membership import Membership
from aioregistry.integrations.starlette import STATE, lifespan, readiness, view

SERVICE = "work"
SLOW = 1.5


def app() -> Any:
    return {"starlette": starlette_app, "fastapi": fastapi_app}[os.environ["FRAMEWORK"]](member())


def member() -> Membership:
    return Membership(
        os.environ["ZOOKEEPER"],
        SERVICE,
        port=int(os.environ.get("PUBLISHED", os.environ["PORT"])),
        payload={"pid": os.getpid()},
        workers=os.environ.get("WORKERS", "each"),  # type: ignore[arg-type]
        discover=[SERVICE],
        drain=float(os.environ.get("DRAIN", "2")),
        wait=os.environ.get("WAIT") == "yes",
        session_timeout=60,
        connect_timeout=float(os.environ.get("CONNECT_TIMEOUT", "60")),
    )


def starlette_app(membership: Membership) -> Any:
    async def work(request: Request) -> JSONResponse:
        return JSONResponse(await worked("slow" in request.query_params, view(request, SERVICE)))

    routes = [Route("/work", work), Route("/ready", readiness)]
    return Starlette(routes=routes, lifespan=by_hand(membership) if "STARTUP" in os.environ else lifespan(membership))


def by_hand(membership: Membership) -> Any:
    """A lifespan in which the membership comes first, and the rest of the startup takes its time."""

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[dict[str, Membership]]:
        async with membership:
            await asyncio.sleep(float(os.environ["STARTUP"]))
            yield {STATE: membership}

    return run


def fastapi_app(membership: Membership) -> Any:
    import fastapi  # takes half a second, which not every server has to

    from aioregistry.integrations import fastapi as integration

    async def work(found: Any = fastapi.Depends(integration.view(SERVICE)), slow: bool = False) -> Any:  # noqa: B008
        return await worked(slow, found)

    application = fastapi.FastAPI(lifespan=integration.lifespan(membership))
    application.add_api_route("/work", work)
    application.add_api_route("/ready", readiness)
    return application


async def worked(slow: bool, view: View[Any]) -> dict[str, int]:
    await asyncio.sleep(SLOW if slow else random.uniform(0, 0.03))
    return {"pid": os.getpid(), "known": len(view.snapshot)}


if __name__ == "__main__":
    import uvicorn

    from aioregistry.integrations.uvicorn import run

    server, loop = sys.argv[1:]
    serve: Callable[..., None] = {"drained": run, "plain": uvicorn.run}[server]
    serve(app(), host="127.0.0.1", port=int(os.environ["PORT"]), loop=loop, access_log=False)
