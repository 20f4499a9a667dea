"""An HTTP service for apps that connect to chat servers themselves: GET /where?room=… says which one has a room.

python -m docs.examples.chat.where --zookeeper 127.0.0.1:2181 --port 8081
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI, HTTPException, Query
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from aioregistry import NoInstances, Ring
from aioregistry.integrations.fastapi import Membership, lifespan, readiness
from aioregistry.integrations.uvicorn import Server

from .page import NAMES
from .wire import SERVICE


def where_app(zookeeper: str, port: int) -> FastAPI:
    """Return the service, to listen on *port* of this machine. It is in the registry too, for apps to find it."""
    member = Membership(
        zookeeper, "where", id="where", address="127.0.0.1", port=port, drain=0, discover=[SERVICE], wait=True
    )

    @asynccontextmanager
    async def balanced(app: FastAPI) -> AsyncIterator[None]:
        # Rings are all the same: they send a room where the gateway's does.
        app.state.balancer = member.view(SERVICE).balancer(Ring())
        yield

    app = FastAPI(title="Where is my chat room?", lifespan=lifespan(member, balanced))
    # A page of another site may have a name of its own lead here, and would read the answers then.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*NAMES, "where.registry"])
    app.add_api_route("/ready", readiness)

    @app.get("/where")
    async def where(room: Annotated[str, Query(pattern=r"^[\w-]{1,40}$")]) -> dict[str, str]:
        """Say which server has *room*, and what to connect to; if no server answers there, ask again in a moment."""
        try:
            server = app.state.balancer.pick(room).instance
        except NoInstances as nothing:
            raise HTTPException(503, str(nothing)) from None
        return {"server": server.id, "url": f"ws://{server.address}:{server.port}/rooms/{quote(room)}"}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Says which chat server has a room.")
    parser.add_argument("--zookeeper", metavar="HOSTS", default="127.0.0.1:2181")
    parser.add_argument("--port", type=int, default=8081)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", arguments.port)) as listening:
        host, port = listening.getsockname()
        print(f"Ask where a room is:  http://{host}:{port}/where?room=lobby", flush=True)
        Server(uvicorn.Config(where_app(arguments.zookeeper, port), log_level="warning")).run(sockets=[listening])
