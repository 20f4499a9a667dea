"""Consumers of a service that never stop asking, and the servers' processes that they ask."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import uvicorn

from aioregistry import Balancer, ServiceInstance
from aioregistry.integrations.uvicorn import Server
from aioregistry.testing._ports import ReservedPort

ROOT = Path(__file__).parents[2]
TIMEOUT = 100.0
CONSUMERS = 12


class ServerProcess:
    """`python ARGUMENTS`, which serves on a port of its own; killed at the end of its context if it has not ended."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._arguments = arguments
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._environment = os.environ | {"PORT": str(self.port)} | environment
        self._process: Process

    async def __aenter__(self) -> Self:
        arguments = [argument.replace("PORT", str(self.port)) for argument in self._arguments]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments), stdin=DEVNULL, cwd=ROOT, env=self._environment, start_new_session=True
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # the workers too
        await self._process.wait()
        self._reserved.release()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def exit_code(self) -> int:
        async with asyncio.timeout(TIMEOUT):
            return await self._process.wait()


def shown_checks(document: Mapping[str, Any]) -> dict[str, str]:
    """A readiness route's view of each check: its state, and the reason where that is not passing."""
    return {
        name: check["state"] if check["state"] == "passing" else f"{check['state']}: {check['reason']}"
        for name, check in document.get("checks", {}).items()
    }


@asynccontextmanager
async def served(app: Any, port: int) -> AsyncIterator[str]:
    """Serve *app* in this process by uvicorn, as aioregistry runs it; gives the URL."""
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(TIMEOUT):
        while not server.started:
            assert not serving.done(), "the startup failed"
            await asyncio.sleep(0.005)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


class Consumers:
    """Tasks that send requests over and over, and what became of the requests."""

    def __init__(self) -> None:
        self.answered: Counter[int | None] = Counter()
        """Requests answered, by the port that was asked."""
        self.lost: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False
        self._news = asyncio.Event()

    def _begin(self, sends: Iterable[Callable[[], Awaitable[None]]]) -> None:
        self._tasks = [asyncio.create_task(self._consume(send)) for send in sends]

    async def _consume(self, send: Callable[[], Awaitable[None]]) -> None:
        while not self._over:
            await send()
            await asyncio.sleep(0)  # where nobody is left to ask, that is told without a wait

    def _note(self, port: int | None) -> None:
        self.answered[port] += 1
        self._news.set()

    def _note_lost(self, error: Exception) -> None:
        self.lost.append(repr(error))
        self._news.set()

    async def _end(self) -> None:
        # They end by themselves: a client that is cancelled while it connects may leave its socket to nobody.
        self._over = True
        unfinished = (await asyncio.wait(self._tasks, timeout=TIMEOUT))[1]
        for task in unfinished:
            task.cancel()
        assert not unfinished

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds, which is looked at after each request."""
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                self._news.clear()
                await self._news.wait()


class Load(Consumers):
    """Consumers that pick an instance and send it a request, over and over, and never repeat one."""

    def __init__(self, balancer: Balancer[Any]) -> None:
        super().__init__()
        self._balancer = balancer
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT))
        self._begin([self._ask_one] * CONSUMERS)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self._end()
        await self._session.close()

    async def _ask_one(self) -> None:
        await self.ask(self._balancer.pick().instance)

    async def ask(self, instance: ServiceInstance[Any], query: str = "") -> None:
        try:
            async with self._session.get(f"http://{instance.address}:{instance.port}/work{query}") as response:
                response.raise_for_status()
                await response.json()
        except (aiohttp.ClientError, OSError) as error:
            self._note_lost(error)
        else:
            self._note(instance.port)
