"""Changes a second that cross to another thread: `python -m benchmarks.crossing`. Starts a ZooKeeper, and only prints.

Another process adds instances to a service, 500 in a transaction, and has 1,000 under way at most: fewer than are kept
for a consumer, so that each change comes by itself. They are counted on the loop that the registry is on, on another
loop (`connect(thread=True)`), and in a thread without a loop (`aioregistry.blocking`), in turns. Then as many changes
cross that are there already, without a server: that is what the crossing alone can do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Iterator
from multiprocessing.synchronize import Semaphore
from statistics import median
from typing import Final, NamedTuple

import aioregistry
from aioregistry import Resynced, blocking
from aioregistry._streams import Source, Stream
from aioregistry._threads.loop import LoopThread
from aioregistry._threads.streams import BlockingStream, ThreadStream
from benchmarks.lab import server
from benchmarks.workload import BASE_PATH, samples
from tests.support import wire

WAVE: Final = 500
WAVES_AHEAD: Final = 2
SESSION_TIMEOUT: Final = 60.0
SPAWNED: Final = multiprocessing.get_context("spawn")
"""A fork would have the threads of this process, and not their work."""


class Figures(NamedTuple):
    """The figures of one round, from the first change to the last."""

    seconds: float
    cpu: float
    """Seconds of the processor that this process took, all threads together."""
    resyncs: int
    """Times that several changes came as one, because the consumer lagged."""


class Count:
    """Counts changes, and lets the writer go on.

    Args:
        changes: how many come.
        ahead: released once for each wave that has come.
    """

    def __init__(self, changes: int, ahead: Semaphore | None = None) -> None:
        self._changes, self._ahead = changes, ahead
        self._taken = self._resyncs = 0
        self._began = self._cpu = 0.0

    def take(self, change: object) -> bool:
        """Count it; return whether it was the last."""
        if not self._taken:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        before = self._taken // WAVE
        if isinstance(change, Resynced):
            self._resyncs += 1
            self._taken += len(change.changes)
        else:
            self._taken += 1
        if self._ahead is not None and self._taken // WAVE > before:
            self._ahead.release()
        return self._taken >= self._changes

    @property
    def figures(self) -> Figures:
        """Those from the first change until now."""
        return Figures(time.perf_counter() - self._began, time.process_time() - self._cpu, self._resyncs)


# ---------------------------------------------------------------- from a server


def write(address: str, service: str, changes: int, ahead: Semaphore) -> None:
    """Add instances; the work of another process."""

    async def add() -> None:
        async with await wire.connect(address, timeout_ms=120_000) as connection:
            creates = (wire.create(sample.path, sample.document) for sample in samples(service, changes))
            while wave := list(itertools.islice(creates, WAVE)):
                ahead.acquire()
                for result in await connection.multi(*wave):
                    assert not result.error

    asyncio.run(add())


@contextlib.contextmanager
def written(address: str, service: str, changes: int) -> Iterator[Count]:
    """Have another process add instances meanwhile."""
    ahead = SPAWNED.Semaphore(WAVES_AHEAD)
    writer = SPAWNED.Process(target=write, args=(address, service, changes, ahead))
    writer.start()
    try:
        yield Count(changes, ahead)
        writer.join()
    finally:
        writer.kill()
        writer.join()


async def _counted(changes: AsyncIterator[object], count: Count) -> Figures:
    async for change in changes:
        if count.take(change):
            break
    return count.figures


async def _on_its_loop(address: str, service: str, changes: int) -> Figures:
    async with (
        aioregistry.connect(address, session_timeout=SESSION_TIMEOUT) as registry,
        registry.discover(service) as view,
        view.changes() as stream,
    ):
        with written(address, service, changes) as count:
            return await _counted(stream, count)


async def _on_another_loop(address: str, service: str, changes: int) -> Figures:
    async with (
        aioregistry.connect(address, session_timeout=SESSION_TIMEOUT, thread=True) as registry,
        registry.discover(service) as view,
        view.changes() as stream,
    ):
        with written(address, service, changes) as count:
            return await _counted(stream, count)


def without_a_loop(address: str, service: str, changes: int) -> Figures:
    """In this thread, which waits for each change."""
    with (
        blocking.connect(address, session_timeout=SESSION_TIMEOUT) as registry,
        registry.discover(service) as view,
        view.changes() as stream,
        written(address, service, changes) as count,
    ):
        for change in stream:
            if count.take(change):
                break
        return count.figures


def on_its_loop(address: str, service: str, changes: int) -> Figures:
    """On the loop that the registry is on: nothing crosses."""
    return asyncio.run(_on_its_loop(address, service, changes))


def on_another_loop(address: str, service: str, changes: int) -> Figures:
    """On a loop beside that of the registry."""
    return asyncio.run(_on_another_loop(address, service, changes))


# ---------------------------------------------------------------- without a server


class _Numbers(Stream[int]):
    """As many changes as are to cross, there from the beginning."""


@contextlib.contextmanager
def there(changes: int) -> Iterator[tuple[LoopThread, Stream[int]]]:
    """A thread with a stream on its loop that has all *changes*."""
    thread, source = LoopThread("benchmark", dict[str, str]), Source[int]()

    def filled() -> Stream[int]:
        stream = _Numbers(changes)
        source.attach(stream)
        for number in range(changes):
            source.offer(number)
        return stream

    try:
        yield thread, thread.call(filled)
    finally:
        thread.stop()
        thread.join()


def across_to_a_loop(changes: int) -> Figures:
    """The crossing to another loop, and nothing else."""

    async def across() -> Figures:
        with there(changes) as (thread, stream):
            crossed = ThreadStream(thread, stream)
            return await _counted(crossed, Count(changes))

    return asyncio.run(across())


def across_to_a_thread(changes: int) -> Figures:
    """The crossing to a thread without a loop, and nothing else."""
    with there(changes) as (thread, stream):
        count = Count(changes)
        for number in BlockingStream(thread, stream, None):
            if count.take(number):
                break
        return count.figures


# ---------------------------------------------------------------- the table

FROM_A_SERVER: Final[dict[str, Callable[[str, str, int], Figures]]] = {
    "on the registry's own loop": on_its_loop,
    "`connect(thread=True)`": on_another_loop,
    "`aioregistry.blocking`": without_a_loop,
}
ALONE: Final[dict[str, Callable[[int], Figures]]] = {
    "the crossing alone, to a loop": across_to_a_loop,
    "the crossing alone, to a thread": across_to_a_thread,
}


def main(rounds: int, changes: int) -> None:
    """Measure, and print a table."""
    found: dict[str, list[Figures]] = {name: [] for name in (*FROM_A_SERVER, *ALONE)}
    with server() as zookeeper:
        asyncio.run(zookeeper.start())
        asyncio.run(_prepared(zookeeper.address, f"{BASE_PATH}/warming"))
        for number in range(rounds + 1):
            for place, (name, measured) in enumerate(FROM_A_SERVER.items()):
                service = f"crossing-{number}-{place}"
                asyncio.run(_prepared(zookeeper.address, f"{BASE_PATH}/{service}"))
                gc.collect()
                figures = measured(zookeeper.address, service, changes)
                if number:  # the first round warms the server up
                    found[name].append(figures)
    for _ in range(rounds):
        for name, alone in ALONE.items():
            gc.collect()
            found[name].append(alone(changes))
    print("| | changes a second | CPU of a change, µs | resyncs |", "| --- | --- | --- | --- |", sep="\n")
    for name, taken in found.items():
        rate = median(changes / each.seconds for each in taken)
        cpu = median(each.cpu / changes for each in taken) * 1e6
        print(f"| {name} | {rate:,.0f} | {cpu:.1f} | {sum(each.resyncs for each in taken)} |")


async def _prepared(address: str, path: str) -> None:
    async with await wire.connect(address) as connection:
        for each in (BASE_PATH, path):
            if await connection.exists(each) is None:
                await connection.create(each)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crossing", description="Measure changes that cross.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds that count (default 5)")
    parser.add_argument("--changes", type=int, default=20_000, metavar="N", help="changes of a round (default 20000)")
    options = parser.parse_args()
    main(options.rounds, options.changes)
