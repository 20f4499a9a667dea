"""The gateway: pages connect to it; it leads each room to the chat server that has it, whatever becomes of servers.

python -m docs.examples.chat.gateway --zookeeper 127.0.0.1:2181 --port 8080
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import aiohttp
from aiohttp import web

import aioregistry
from aioregistry import Ejection, Guard, NoInstances, Ring, View

from .line import Line, accepted
from .news import news, state
from .page import only_our_pages, page_routes
from .route import Route
from .wire import ROOM, SERVICE, UP, Server, Up

PAUSE: Final = 15.0
"""Seconds that a server which does not answer is set aside. That is longer than its session lasts without it: who is
still listed at the end lives, and gets its rooms back."""


class Gateway:
    """Routes rooms to chat servers.

    Two parts of the library do the work. ``view.balancer(Ring())`` says which server has a room: the same in every
    gateway, and when a server comes or goes only its share of the rooms moves. ``async for change in view.changes()``
    says when to ask again.
    """

    def __init__(self, view: View[Any], http: aiohttp.ClientSession) -> None:
        self.view = view
        self.http = http
        self.routes: dict[str, Route] = {}
        # A killed server answers nothing, which shows here long before its session ends.
        self.balancer = view.balancer(Ring(), ejection=Ejection(failures=2, pause=PAUSE, jitter=0))
        self._aside: set[str] = set()
        self._returned: set[str] = set()  # tried by one room until it answers
        self._tasks: set[asyncio.Task[None]] = set()
        self._follower = self.start(self._follow())

    async def _follow(self) -> None:
        """Tell every room what changes, and move those that now belong elsewhere."""
        async for change in self.view.changes():
            for what, text in news(change):
                self._tell(what, text)
            self._rebalance()

    def _rebalance(self) -> None:
        """Move the rooms that are not where they belong: of n servers that stay, one that comes takes 1/(n+1)."""
        for route in self.routes.values():
            with contextlib.suppress(NoInstances):  # better where it is than nowhere
                # The pick itself, not its id: the one pick that probes a server has to tell how that went.
                route.move(self.balancer.pick(route.room.name))

    def failed(self, server: str) -> None:
        """Note that *server* does not answer, which its pick has reported: it may be set aside for that."""
        pause = self.balancer.set_aside.get(server)
        if pause is not None and server not in self._aside:
            self._aside.add(server)
            self._returned.discard(server)
            self._tell("aside", f"{server} is set aside.")
            _ = self.start(self._take_back(server, pause + 0.1))

    def answered(self, server: str) -> None:
        """Note that *server* answers: where it was set aside, all its rooms go back to it."""
        if server in self._returned:
            self._returned.remove(server)
            self._rebalance()

    async def _take_back(self, server: str, pause: float) -> None:
        """Ask whose the rooms are, once a pause is over: of that no change tells."""
        await asyncio.sleep(pause)
        self._aside.remove(server)
        self._returned &= self.view.snapshot.keys()
        if server in self.view.snapshot:
            self._returned.add(server)
            self._tell("back", f"{server} is tried again.")
            self._rebalance()

    def _tell(self, what: str, text: str) -> None:
        for route in self.routes.values():
            route.happened(what, text)
            route.tell_servers()

    def servers(self) -> tuple[Server, ...]:
        """Return what is known of the servers."""
        aside, entries = self.balancer.set_aside, self.view.snapshot.entries
        return tuple(Server(id, "set aside" if id in aside else state(entry)) for id, entry in entries.items())

    async def serve(self, line: Line[Up], room: str) -> None:
        """Do what a page says, until its *line* ends; a room's route lasts as long as there is one."""
        route = self.routes.get(room)
        if route is None:
            route = self.routes[room] = Route(room, self)
        route.enter(line)
        try:
            async for said in line.received():
                route.hear(line, said)
        finally:
            route.leave(line)
            if not route.room.people:
                del self.routes[room]
                route.end()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* in a task that lasts no longer than the gateway."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End all tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


# ---------------------------------------------------------------- as an application

ZOOKEEPER = web.AppKey("zookeeper", str)
GATEWAY = web.AppKey("gateway", Gateway)


async def routing(app: web.Application) -> AsyncIterator[None]:
    """Run the gateway for as long as the application runs."""
    async with (
        aioregistry.connect(app[ZOOKEEPER]) as registry,
        # Servers that crashed are held for as long as their sessions lasted, so that pages soon hear that all are gone.
        registry.discover(SERVICE, guard=Guard(hold=1.0)) as view,
        aiohttp.ClientSession() as http,
    ):
        app[GATEWAY] = gateway = Gateway(view, http)
        yield
        await gateway.close()


async def enter(request: web.Request) -> web.WebSocketResponse:
    """Serve one page's line into a room."""
    websocket = await accepted(request)
    async with Line(websocket, UP) as line:
        await request.app[GATEWAY].serve(line, request.match_info["room"])
    return websocket


async def say_goodbye(app: web.Application) -> None:
    """Close all lines; pages come back at once, to another gateway if there is one."""
    for route in app[GATEWAY].routes.values():
        route.close()


def gateway_app(zookeeper: str) -> web.Application:
    """Return the gateway as an application."""
    app = web.Application(middlewares=[only_our_pages])
    app[ZOOKEEPER] = zookeeper
    app.cleanup_ctx.append(routing)
    app.on_shutdown.append(say_goodbye)
    app.router.add_get(ROOM, enter)
    app.add_routes(page_routes())
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The gateway of the chat.")
    parser.add_argument("--zookeeper", metavar="HOSTS", default="127.0.0.1:2181")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", arguments.port)) as listening:
        at_once = functools.partial(print, flush=True)  # into a pipe, too, where Python keeps lines back
        web.run_app(gateway_app(arguments.zookeeper), sock=listening, shutdown_timeout=1, print=at_once)
