"""Embedded servers in a thread with a loop of its own, for tests that block theirs or have none."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from aioregistry.server import ZooKeeperServer
from aioregistry.server._profiles import PROFILES

S = TypeVar("S")
T = TypeVar("T")

PATIENCE = 100.0


def profile_of(version: str) -> str:
    """The name by which ours behaves like a real *version*: that of the first patch that is not older, or of the
    release."""
    numbers, release = _numbers(version), ".".join(version.split(".")[:2])
    patches = {_numbers(name): name for name in PROFILES if name.startswith(f"{release}.")}
    return next((patches[patch] for patch in sorted(patches) if patch >= numbers), release)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


class Served(Generic[S]):
    """The server in the thread, to be used from others."""

    def __init__(self, subject: S, loop: asyncio.AbstractEventLoop) -> None:
        self._subject = subject
        self._loop = loop

    def call(self, use: Callable[[S], T]) -> T:
        """The result of *use* on it."""

        async def used(subject: S) -> T:
            return use(subject)

        return self.run(used)

    def run(self, use: Callable[[S], Awaitable[T]]) -> T:
        """The result of awaiting *use* on it."""

        async def used() -> T:
            return await use(self._subject)

        return asyncio.run_coroutine_threadsafe(used(), self._loop).result(PATIENCE)


class EmbeddedServer(Served[ZooKeeperServer]):
    """A running server."""

    def __init__(self, server: ZooKeeperServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop)
        self.host = server.host
        self.port = server.port
        self.address = server.address


@contextlib.contextmanager
def in_thread(
    subject: AbstractAsyncContextManager[S], kind: Callable[[S, asyncio.AbstractEventLoop], T]
) -> Iterator[T]:
    """Enter *subject* in a thread of its own, and leave it at the end of the context."""
    started, stopped = threading.Event(), asyncio.Event()
    running: list[tuple[T, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        async with subject as entered:
            loop = asyncio.get_running_loop()
            running.append((kind(entered, loop), loop))
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
        yield running[0][0]
    finally:
        if running:
            running[0][1].call_soon_threadsafe(stopped.set)
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the embedded server does not stop"


@contextlib.contextmanager
def embedded_server(**options: Any) -> Iterator[EmbeddedServer]:
    """Run a server until the end of the context. Takes the options of ZooKeeperServer."""
    with in_thread(ZooKeeperServer(**options), EmbeddedServer) as server:
        yield server
