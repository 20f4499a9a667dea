"""The process of one contender: `python -m benchmarks.worker NAME`. A JSON command a line in, a JSON answer a line out.

SIGTERM closes the contender and ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks import contender
from benchmarks.workload import samples


class Worker:
    """Times what the contender does. Garbage collection is Python's default, and has just run when a clock starts."""

    def __init__(self, name: str, open_contenders: contextlib.AsyncExitStack) -> None:
        self.contender = contender.make(name)
        self.open_contenders = open_contenders
        self.seen: list[tuple[str, str, int]] = []

    async def open(self, address: str) -> None:
        await self.contender.open(address)
        self.open_contenders.push_async_callback(self.contender.close)

    async def cold_sync(self, service: str, count: int) -> float:
        """Seconds."""
        gc.collect()
        start = time.perf_counter()
        payloads = await self.contender.cold_sync(service)
        seconds = time.perf_counter() - start
        require(len(payloads) == count, f"{len(payloads)} of {count} instances")
        require(all(payload["version"] for payload in payloads), "payloads are not what was registered")
        return seconds

    async def memory(self, service: str, count: int) -> dict[str, float]:
        """Bytes per instance: what the contender still holds after a cold sync, and the most that there was."""
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await self.contender.cold_sync(service)
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return {"held": (held - before) / count, "peak": (peak - before) / count}

    async def follow(self, service: str) -> None:
        def tell(kind: str, id: str) -> None:
            self.seen.append((kind, id, time.monotonic_ns()))

        await self.contender.follow(service, tell)
        gc.collect()

    async def sightings(self) -> dict[str, Any]:
        """The changes since the last call, with their times (monotonic, ns), and this process's CPU time (seconds)."""
        seen, self.seen = self.seen, []
        return {"seen": seen, "cpu": time.process_time()}

    async def register(self, service: str, count: int, network: int = 10) -> float:
        """Seconds until all are listed."""
        registered = list(samples(service, count, network=network))
        gc.collect()
        start = time.perf_counter()
        await self.contender.register(registered)
        return time.perf_counter() - start


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise RuntimeError(otherwise)


async def lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def serve(name: str) -> None:
    async with contextlib.AsyncExitStack() as open_contenders:
        worker = Worker(name, open_contenders)
        async for line in await lines():
            command: dict[str, Any] = json.loads(line)
            method: Callable[..., Any] = getattr(worker, command.pop("do"))
            print(json.dumps(await method(**command)), flush=True)


async def main(name: str) -> None:
    serving = asyncio.create_task(serve(name))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    logging.disable()
    asyncio.run(main(sys.argv[1]))
