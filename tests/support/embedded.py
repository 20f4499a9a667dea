"""The embedded server in a thread with a loop of its own, for tests that block theirs or have none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from aioregistry.server import ZooKeeperServer

T = TypeVar("T")

PATIENCE = 20.0


class EmbeddedServer:
    """A running server; `call` is how to use it from outside of its thread."""

    def __init__(self, server: ZooKeeperServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self.host = server.host
        self.port = server.port
        self.address = server.address

    def call(self, use: Callable[[ZooKeeperServer], T]) -> T:
        """What *use* returns of the server, in the server's thread."""

        async def used() -> T:
            return use(self._server)

        return asyncio.run_coroutine_threadsafe(used(), self._loop).result(PATIENCE)


@contextlib.contextmanager
def embedded_server(**options: Any) -> Iterator[EmbeddedServer]:
    """Run a server until the end of the context. Takes the options of ZooKeeperServer."""
    started, stopped = threading.Event(), asyncio.Event()
    running: list[EmbeddedServer] = []

    async def serve() -> None:
        async with ZooKeeperServer(**options) as server:
            running.append(EmbeddedServer(server, asyncio.get_running_loop()))
            started.set()
            await stopped.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            started.set()

    thread = threading.Thread(target=run, name="embedded server")
    thread.start()
    try:
        started.wait(PATIENCE)
        assert running, "the embedded server did not start"
        yield running[0]
    finally:
        if running:
            running[0]._loop.call_soon_threadsafe(stopped.set)
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the embedded server does not stop"
