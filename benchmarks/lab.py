"""Where the contenders are measured: a real ZooKeeper, instances that others hold, and a process for each of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aioregistry.testing._proxy import Direction, Link, TcpProxy
from benchmarks.workload import BASE_PATH, Sample, samples
from tests.support import wire
from tests.support.wire import Wire
from tests.support.zookeeper import Settings, ZooKeeperServer

ROOT = Path(__file__).parent.parent
ANSWER_TIMEOUT = 180.0
END_TIMEOUT = 30.0
HOLDER_TIMEOUT_MS = 120_000
HOLDER_BEAT = 20.0
PER_HOLDER = 5_000  # a session's end is one transaction, which has to stay well below jute.maxbuffer
PER_TRANSACTION = 500

# Settings as an operator would give them; the tests' servers are made to start fast instead.
JVM_OPTIONS = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC")


def server() -> ZooKeeperServer:
    return ZooKeeperServer(Settings(tick_time_ms=1000, min_session_timeout_ms=1000, jvm_options=JVM_OPTIONS))


class Worker:
    """The process of a contender."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, do: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        answer = await asyncio.wait_for(self.process.stdout.readline(), ANSWER_TIMEOUT)
        if not answer:
            raise RuntimeError(f"{do} {arguments}: the contender died")
        return json.loads(answer)

    async def end(self) -> None:
        """SIGTERM, and wait."""
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.wait(), END_TIMEOUT)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def split(contender: str) -> tuple[str, Path]:
    """Return the name of a contender and the tree that it runs in: "aioregistry@PATH" is that of another checkout."""
    name, _, tree = contender.partition("@")
    return name, Path(tree) if tree else ROOT


async def start(contender: str) -> Worker:
    """A fresh process for *contender*."""
    name, tree = split(contender)
    return Worker(
        await asyncio.create_subprocess_exec(
            # It imports from the folder that it is started in before installed packages.
            *(sys.executable, "-m", "benchmarks.worker", name),
            cwd=tree,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,  # thousands of sightings are one line
        )
    )


@contextlib.asynccontextmanager
async def working(name: str, address: str) -> AsyncIterator[Worker]:
    """A fresh process for the contender *name*, connected to *address*."""
    worker = await start(name)
    try:
        await worker.ask("open", address=address)
        yield worker
        await worker.end()
    finally:
        await worker.kill()


class SessionProxy(TcpProxy):
    """A proxy that remembers the session of the last ConnectResponse, so that it can be ended from outside."""

    session_id = 0
    password = b""

    def new_link(self) -> Link:
        return _HandshakeLink(self)

    async def expire(self) -> None:
        """End that session. A client that reconnects meanwhile would move it once more, and keep it: let it wait."""
        self.silence(Direction.TO_SERVER)
        try:
            await wire.force_expiry(f"{self.target[0]}:{self.target[1]}", self.session_id, self.password)
        finally:
            self.heal(Direction.TO_SERVER)


class _HandshakeLink(Link):
    proxy: SessionProxy
    _accepted = False

    def filter(self, direction: Direction, data: bytes) -> bytes:
        if direction is Direction.TO_CLIENT and not self._accepted:
            self._accepted = True
            self.proxy.session_id = int.from_bytes(data[12:20], signed=True)
            self.proxy.password = data[24:40]
        return data


class Holder:
    """Holds instances in sessions of its own, as the processes would that they belong to."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._wires: list[Wire] = []
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._beating is not None
        self._beating.cancel()
        for session in self._wires:
            await session.__aexit__()

    async def hold(self, instances: Iterable[Sample]) -> None:
        """Make the instances' nodes, and hold them until the end."""
        nodes = [wire.create(sample.path, sample.document, flags=wire.EPHEMERAL) for sample in instances]
        for first in range(0, len(nodes), PER_HOLDER):
            session = await wire.connect(self.address, timeout_ms=HOLDER_TIMEOUT_MS)
            self._wires.append(session)
            for at in range(first, min(first + PER_HOLDER, len(nodes)), PER_TRANSACTION):
                await session.multi(*nodes[at : min(at + PER_TRANSACTION, first + PER_HOLDER)])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HOLDER_BEAT)
            for session in self._wires:
                await session.ping()


class Lab:
    """One server with everything around it."""

    def __init__(self, zookeeper: ZooKeeperServer) -> None:
        self.server = zookeeper
        self.holder = Holder(zookeeper.address)
        self._sizes: set[int] = set()

    async def service_of(self, size: int) -> str:
        """The name of a service with as many instances."""
        name = f"service-{size}"
        if size not in self._sizes:
            self._sizes.add(size)
            await self.make_service(name)
            await self.holder.hold(samples(name, size))
        return name

    async def make_service(self, name: str) -> None:
        """The service's node, without which kazoo and aiozk cannot watch."""
        async with await wire.connect(self.server.address) as session:
            for path in (BASE_PATH, f"{BASE_PATH}/{name}"):
                if await session.exists(path) is None:
                    await session.create(path)

    def proxy(self) -> SessionProxy:
        return SessionProxy((self.server.host, self.server.port))


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    with server() as zookeeper:
        await zookeeper.start()
        laboratory = Lab(zookeeper)
        async with laboratory.holder:
            yield laboratory


@contextlib.asynccontextmanager
async def watching(address: str, path: str) -> AsyncIterator[Wire]:
    """A wire with a recursive watch on *path*; its `event` gives what happens."""
    async with await wire.connect(address) as session:
        await session.add_watch(path)
        yield session


def now_ns() -> int:
    """The clock that all processes share."""
    return time.monotonic_ns()
