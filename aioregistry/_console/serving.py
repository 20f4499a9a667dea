"""The console from its first line to its last: history, registry, browsers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, cast

import uvicorn

import aioregistry

from .app import console_app
from .connections import Connections
from .console import Console, Settings
from .following import Following
from .hub import Hub
from .recorder import Recorder
from .store import History

__all__ = ["Place", "Unread", "serve", "settle"]

_ENDED_WITHIN: Final = 5
_SETTLED_EVERY: Final = 0.25


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the console listens, and where its history is.

    Attributes:
        sockets: which listen.
        certificate: path of a certificate in PEM, to speak HTTPS; None for HTTP.
        key: path of its key; None where it is in the same file.
        history: path of the file; None for one that goes with the console.
        days: how long past events are kept.
        limit: bytes that the history may have.
    """

    sockets: Sequence[socket.socket]
    certificate: str | None
    key: str | None
    history: Path | None
    days: float
    limit: int


class Unread(Protocol):
    """A reader of services."""

    @property
    def unread(self) -> int | None:
        """How much has not been read yet; None before that is known."""


async def serve(connection: Mapping[str, Any], settings: Settings, place: Place, ready: Callable[[], object]) -> None:
    """Serve until cancelled.

    Args:
        connection: what :func:`aioregistry.connect` takes.
        settings: how browsers may use it.
        place: where.
        ready: called when browsers are answered.

    Raises:
        InvalidArgument: the history cannot be used.
        RegistryError: nothing can be followed any more.
    """
    async with contextlib.AsyncExitStack() as stack:
        path = stack.enter_context(_history_file(place))
        history = await asyncio.to_thread(partial(History, path, days=place.days, limit=place.limit))
        recorder = stack.enter_context(Recorder(history))
        hub = Hub()
        following = Following(recorder, hub)
        connecting = aioregistry.connect(**connection, wait=False, on_event=following.on_event)
        registry = await stack.enter_async_context(connecting)
        console = Console(settings, registry, following, recorder, hub)
        stack.callback(console.repeated.close)
        followed = asyncio.create_task(following.run(registry))
        stack.push_async_callback(_ended, followed)
        settling = asyncio.create_task(settle(following))
        stack.push_async_callback(_ended, settling)
        serving = await stack.enter_async_context(_answering(console, place))
        ready()
        await asyncio.wait((followed, serving), return_when=asyncio.FIRST_COMPLETED)
        for task in (serving, followed):
            if task.done():
                task.result()


async def settle(following: Unread) -> None:
    """Keep the first list from the garbage collector, which would walk through all of it again and again.

    It grows by a million objects and stays; each full collection on the way holds up every answer. Later objects
    are freed by their counts of references. Runs until it is cancelled.
    """
    try:
        while following.unread != 0:
            await asyncio.sleep(_SETTLED_EVERY)
            if following.unread is not None:
                gc.collect(1)
                gc.freeze()
        await asyncio.get_running_loop().create_future()
    finally:
        gc.unfreeze()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def _history_file(place: Place) -> Iterator[Path]:
    if place.history is not None:
        yield place.history
        return
    with tempfile.TemporaryDirectory(prefix="aioregistry-console-", ignore_cleanup_errors=True) as folder:
        yield Path(folder, "history.sqlite")


@contextlib.asynccontextmanager
async def _answering(console: Console, place: Place) -> AsyncIterator[asyncio.Task[None]]:
    connections = Connections(console_app(console))
    config = uvicorn.Config(
        connections,
        http=cast("type[asyncio.Protocol]", connections.protocol),  # it is called, and need not be a class
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom a proxy names is read by the console itself, from proxies that are given
        timeout_graceful_shutdown=_ENDED_WITHIN,
        ssl_certfile=place.certificate,
        ssl_keyfile=place.key,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[*place.sockets]))
    try:
        started = asyncio.create_task(server.up.wait())
        await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        yield serving
    finally:
        console.hub.close()
        server.should_exit = True
        await asyncio.wait((serving,))


class _Server(uvicorn.Server):
    """A server that leaves signals to the command, and says when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not capture signals."""
        yield
