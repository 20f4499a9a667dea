"""A server on aiohttp, as its own process: `python -m tests.frameworks.aiohttp_serving SERVER LOOP`."""

from __future__ import annotations

import asyncio
import os
import random
import sys

import uvloop
from aiohttp import web

from aioregistry.integrations.aiohttp import Membership, member, readiness, run_app, view

SERVICE = "work"
SLOW = 1.5


async def work(request: web.Request) -> web.Response:
    await request.read()
    await asyncio.sleep(SLOW if "slow" in request.query else random.uniform(0, 0.03))
    return web.json_response({"known": len(view(request, SERVICE).snapshot)})


def application(servers: str, port: int, drain: float) -> web.Application:
    port = int(os.environ.get("PUBLISHED", port))
    membership = Membership(servers, SERVICE, port=port, discover=[SERVICE], drain=drain, session_timeout=60)
    app = web.Application()
    app.cleanup_ctx.append(member(membership))
    app.add_routes([web.route("*", "/work", work), web.get("/ready", readiness)])
    return app


def main(server: str, loop: str) -> None:
    port = int(os.environ["PORT"])
    app = application(os.environ["ZOOKEEPER"], port, float(os.environ.get("DRAIN", "2")))
    new_loop = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[loop]
    serve = {"drained": run_app, "plain": web.run_app}[server]
    serve(app, host="127.0.0.1", port=port, loop=new_loop(), access_log=None, print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
