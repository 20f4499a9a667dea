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

import aioregistry
from aioregistry import NoInstances, Ring

from .wire import SERVICE


def where_app(zookeeper: str) -> FastAPI:
    """Return the service as an application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aioregistry.connect(zookeeper) as registry, registry.discover(SERVICE) as view:
            app.state.balancer = view.balancer(
                Ring()
            )  # of the same rooms and servers it makes the same as the gateway's
            yield

    app = FastAPI(title="Where is my chat room?", lifespan=lifespan)

    @app.get("/where")
    async def where(room: Annotated[str, Query(min_length=1, max_length=64)]) -> dict[str, str]:
        """Say which server has *room*, and what to connect to. If it does not answer there, ask again in a moment."""
        try:
            server = app.state.balancer.pick(room).instance
        except NoInstances as nothing:
            raise HTTPException(503, str(nothing)) from None
        return {"server": server.id, "url": f"ws://{server.address}:{server.port}/rooms/{quote(room, safe='')}"}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Says which chat server has a room.")
    parser.add_argument("--zookeeper", metavar="HOSTS", default="127.0.0.1:2181")
    parser.add_argument("--port", type=int, default=8081)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", arguments.port)) as listening:
        host, port = listening.getsockname()
        print(f"Ask where a room is:  http://{host}:{port}/where?room=lobby", flush=True)
        config = uvicorn.Config(where_app(arguments.zookeeper), log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])
