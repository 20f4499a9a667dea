"""Starts it all: a ZooKeeper in memory, chat servers, the service that says where rooms are, and the gateway.

python -m docs.examples.chat
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator

from aiohttp import web

from aioregistry import RegistryError
from aioregistry.server import ZooKeeperServer

from .gateway import GATEWAY, gateway_app

ENDING = 10.0  # seconds that a process gets to end when it is told to
STARTING = 30.0  # seconds that the first servers get to be listed
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """In a child: be told to stop when the launcher dies, however it does. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Stage:
    """The processes that were started, and what the page may do to them."""

    def __init__(self, zookeeper: str, session_timeout: float) -> None:
        self.servers: dict[str, Process] = {}
        self._common = ("--zookeeper", zookeeper)
        self._session_timeout = session_timeout
        self._processes: list[Process] = []

    async def start(self, program: str, *arguments: str) -> Process:
        """Start one of the programs of this example."""
        command = (sys.executable, "-m", f"{__package__}.{program}", *self._common, *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, preexec_fn=end_with_parent)
        self._processes.append(process)
        return process

    async def start_server(self) -> str:
        """Start another chat server; return its name."""
        name = f"chat-{len(self.servers) + 1}"
        options = ("--name", name, "--session-timeout", str(self._session_timeout))
        self.servers[name] = await self.start("server", *options)
        return name

    async def end(self) -> None:
        """End what still runs: in order, so that servers withdraw."""
        running = [process for process in self._processes if process.returncode is None]
        for process in running:
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                await asyncio.gather(*(process.wait() for process in running))
        for process in running:
            if process.returncode is None:
                process.kill()

    # ------------------------------------------------------------------ for the page

    def routes(self) -> list[web.RouteDef]:
        """Return what the page may ask for; a gateway that runs alone has nothing of it."""
        return [
            web.get("/stage", self.show),
            web.post("/stage/servers", self.add),
            web.post("/stage/servers/{name}/{signal:kill|stop}", self.strike),
        ]

    async def show(self, _: web.Request) -> web.Response:
        """List the servers that run, and their processes."""
        running = {name: process.pid for name, process in self.servers.items() if process.returncode is None}
        return web.json_response(running)

    async def add(self, _: web.Request) -> web.Response:
        """Start another server."""
        return web.json_response({"started": await self.start_server()})

    async def strike(self, request: web.Request) -> web.Response:
        """Kill a server, which then says no goodbye, or tell it to stop, so that it leaves in order."""
        process = self.servers.get(request.match_info["name"])
        if process is None or process.returncode is not None:
            raise web.HTTPNotFound(text="no such server runs")
        process.send_signal(signal.SIGKILL if request.match_info["signal"] == "kill" else signal.SIGTERM)
        return web.json_response({})


@contextlib.asynccontextmanager
async def zookeeper(given: str | None) -> AsyncIterator[str]:
    """Provide the ZooKeeper that was given, or one in memory."""
    if given is not None:
        yield given
        return
    async with ZooKeeperServer(tick_time=0.5, max_session_timeout=60) as server:
        yield server.address


@contextlib.asynccontextmanager
async def everything(arguments: argparse.Namespace) -> AsyncIterator[str]:
    """Run it all; yield the address of the page."""
    async with contextlib.AsyncExitStack() as stack:
        hosts = await stack.enter_async_context(zookeeper(arguments.zookeeper))
        stage = Stage(hosts, arguments.session_timeout)
        stack.push_async_callback(stage.end)
        app = gateway_app(hosts)
        app.add_routes(stage.routes())
        runner = web.AppRunner(app, shutdown_timeout=1)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()  # connected to ZooKeeper
        await web.TCPSite(runner, "127.0.0.1", arguments.port).start()

        names = [await stage.start_server() for _ in range(arguments.servers)]
        await stage.start("where", "--port", str(arguments.where_port))
        await app[GATEWAY].view.wait_for(lambda snapshot: snapshot.keys() >= set(names), timeout=STARTING)
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def main(arguments: argparse.Namespace) -> None:
    """Run it all until SIGINT or SIGTERM, which also end the starting."""
    running = asyncio.ensure_future(run(arguments))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end_once, running)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def end_once(running: asyncio.Future[None]) -> None:
    """End *running*, whose ending no second signal disturbs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    running.cancel()


async def run(arguments: argparse.Namespace) -> None:
    """Run it all for ever."""
    async with everything(arguments) as page:
        print(f"Open this twice:  {page}  (Ctrl-C ends it all)", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m docs.examples.chat", description="A chat that survives its servers."
    )
    parser.add_argument("--zookeeper", metavar="HOSTS", help="one in memory unless given")
    parser.add_argument("--port", type=int, default=0, help="of the page and the gateway; a free one unless given")
    parser.add_argument("--where-port", type=int, default=0, help="of the service that says where a room is")
    parser.add_argument("--servers", type=int, default=3, help="chat servers at first")
    parser.add_argument("--session-timeout", metavar="SECONDS", type=float, default=4)
    try:
        asyncio.run(main(parser.parse_args()))
    except (RegistryError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
