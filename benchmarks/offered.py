"""Changes that come at a fixed rate, and how late a consumer has them: `python -m benchmarks.offered`. Only prints.

A writer that waits for the consumer measures the slowest of server, writer and consumer. Here nothing waits: changes
are due at a fixed rate, whatever has become of those before. Lateness is counted from when a change is due. If it does
not grow until the end of a round, the consumer keeps up with the rate.

First, another process has a real ZooKeeper add instances. Its requests are made before they are due, so that it takes
as little as possible of the processors that the others need. A transaction every 20 ms has what came up since the one
before, and all of it is due then. The rows differ in where the consumer is: on the registry's own loop, where nothing
crosses, on another loop (`connect(thread=True)`), and in a thread without a loop (`aioregistry.blocking`). The first
row is what the machine, the server and the view can do. The difference to the other rows is the crossing.

Then as many changes are offered to a stream on a thread's loop, every 2 ms, without a server and a view. The stream
keeps as many as that of a view does. That is the crossing alone, at a rate instead of all at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import time
from collections.abc import AsyncIterable, Callable, Iterator
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

import aioregistry
from aioregistry import Resynced, blocking
from aioregistry._discovery.subscriptions import CHANGES_KEPT
from aioregistry._streams import Source, Stream
from aioregistry._threads.loop import LoopThread
from aioregistry._threads.streams import BlockingStream, ThreadStream
from benchmarks.lab import server
from benchmarks.workload import BASE_PATH, samples
from tests.support import wire

TRANSACTION: Final = 0.02
"""Seconds of changes in one transaction."""
TURN: Final = 0.002
"""Seconds between two turns of what offers changes without a server."""
LEAD: Final = 0.5
"""Seconds from when all is ready until the beginning."""
PATIENCE: Final = 60.0
"""Seconds after which what has not come is missing."""
SESSION_TIMEOUT: Final = 60.0
SPAWNED: Final = multiprocessing.get_context("spawn")
"""A fork would have the threads of this process, and not their work."""


class Load(NamedTuple):
    """The changes of a round.

    Args:
        rate: changes a second.
        seconds: of the round.
    """

    rate: int
    seconds: float

    @property
    def changes(self) -> int:
        return int(self.rate * self.seconds)

    @property
    def together(self) -> int:
        """Changes in one transaction."""
        return max(1, round(self.rate * TRANSACTION))

    def due(self, number: int) -> float:
        """Seconds after the beginning at which the transaction with change *number* is due."""
        return (number // self.together + 1) * self.together / self.rate


class Figures(NamedTuple):
    """The figures of one round."""

    late: list[float]
    """Seconds from when each change was due until the consumer had it, in the order of their arrival."""
    resyncs: int
    """Times that several changes came as one, because the consumer lagged."""
    cpu: float
    """Seconds of the processor that this process took, all threads together, from the first change to the last."""
    kept: int | None = None
    """The most changes that waited in the stream; None where that is not looked at."""


class Arrivals:
    """Notes when which change came, and works the figures out afterwards.

    Args:
        load: what is to come.
        due: seconds after the beginning at which each change is due, by id; None for changes that are their numbers.
    """

    def __init__(self, load: Load, due: dict[str, float] | None) -> None:
        self._load, self._due = load, due
        self._came: list[tuple[float, float]] = []
        """When it came, and how long after the beginning it was due."""
        self._resyncs = 0
        self._cpu = 0.0

    def take(self, change: Any) -> bool:
        """Note it; return whether it was the last."""
        now = time.monotonic()
        if not self._came:
            self._cpu = time.process_time()
        if self._due is None:
            self._came.append((now, change / self._load.rate))
        else:
            each = [change]
            if isinstance(change, Resynced):
                self._resyncs += 1
                each = list(change.changes)
            self._came += [(now, self._due[one.id]) for one in each]
        return len(self._came) >= self._load.changes

    def figures(self, began: float, kept: int | None = None) -> Figures:
        """Return the figures of a round that began at *began*."""
        late = [at - began - due for at, due in self._came]
        return Figures(late, self._resyncs, time.process_time() - self._cpu, kept)


async def _took(changes: AsyncIterable[object], arrivals: Arrivals, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE + seconds):
            async for change in changes:
                if arrivals.take(change):
                    break


# ---------------------------------------------------------------- from a server


def write(address: str, service: str, load: Load, began: Any) -> None:
    """Add instances at the rate of *load*; the work of another process. *began* gets when that began."""

    async def add() -> None:
        creates = (wire.create(sample.path, sample.document) for sample in samples(service, load.changes))
        batches = iter(lambda: list(itertools.islice(creates, load.together)), [])
        requests = [wire.multi(operations) for operations in batches]
        sent: asyncio.Queue[int] = asyncio.Queue()

        async def confirmed(connection: wire.Wire) -> None:
            for _ in requests:
                reply = await connection.reply(await sent.get())
                assert not reply.error
                assert reply.body.unpack(">i")[0] == wire.CREATE, "the transaction was refused"

        async with await wire.connect(address, timeout_ms=120_000) as connection:
            reading = asyncio.create_task(confirmed(connection))
            began.value = first = time.monotonic() + LEAD
            for number, request in enumerate(requests):
                await asyncio.sleep(max(0.0, first + load.due(number * load.together) - time.monotonic()))
                sent.put_nowait(connection.send(request))
            await reading

    asyncio.run(add())


@contextlib.contextmanager
def written(address: str, service: str, load: Load) -> Iterator[tuple[Arrivals, Any]]:
    """Have another process add instances meanwhile; gives what notes them, and where it says when they began."""
    began = SPAWNED.Value("d", 0.0)
    due = {sample.id: load.due(number) for number, sample in enumerate(samples(service, load.changes))}
    writer = SPAWNED.Process(target=write, args=(address, service, load, began))
    writer.start()
    try:
        yield Arrivals(load, due), began
        writer.join(PATIENCE)
    finally:
        writer.kill()
        writer.join()


async def _on_a_loop(address: str, service: str, load: Load, *, thread: bool) -> Figures:
    connect: Any = aioregistry.connect
    async with (
        connect(address, session_timeout=SESSION_TIMEOUT, thread=thread) as registry,
        registry.discover(service) as view,
        view.changes() as stream,
    ):
        with written(address, service, load) as (arrivals, began):
            await _took(stream, arrivals, load.seconds)
            return arrivals.figures(began.value)


def on_its_loop(address: str, service: str, load: Load) -> Figures:
    """On the loop that the registry is on: nothing crosses."""
    return asyncio.run(_on_a_loop(address, service, load, thread=False))


def on_another_loop(address: str, service: str, load: Load) -> Figures:
    """On a loop beside that of the registry."""
    return asyncio.run(_on_a_loop(address, service, load, thread=True))


def without_a_loop(address: str, service: str, load: Load) -> Figures:
    """In this thread, which waits for each change."""
    with (
        blocking.connect(address, session_timeout=SESSION_TIMEOUT) as registry,
        registry.discover(service) as view,
        view.changes(timeout=PATIENCE) as stream,
        written(address, service, load) as (arrivals, began),
    ):
        for change in stream:
            if arrivals.take(change):
                break
        return arrivals.figures(began.value)


# ---------------------------------------------------------------- without a server


class _Numbers(Stream[int]):
    """Changes that are their numbers; keeps as many as the stream of a view, and loses the oldest beyond them."""

    def __init__(self) -> None:
        super().__init__(CHANGES_KEPT)
        self.kept = 0

    def _offer(self, item: int) -> None:
        super()._offer(item)
        self.kept = max(self.kept, len(self._items))


@contextlib.contextmanager
def offered(load: Load) -> Iterator[tuple[LoopThread, _Numbers, float]]:
    """A thread with a stream on its loop that is offered changes at the rate of *load*; gives when that begins."""
    thread, source = LoopThread("benchmark", dict[str, str]), Source[int]()
    began = time.monotonic() + LEAD

    def made() -> _Numbers:
        stream = _Numbers()
        source.attach(stream)
        return stream

    async def offer() -> None:
        given = 0
        while given < load.changes:
            await asyncio.sleep(max(TURN, began - time.monotonic()))
            due = min(load.changes, int((time.monotonic() - began) * load.rate))
            for number in range(given, due):
                source.offer(number)
            given = max(given, due)
        source.close()

    try:
        stream = thread.call(made)
        assert thread.begin(offer)
        yield thread, stream, began
    finally:
        thread.stop()
        thread.join()


def across_to_a_loop(load: Load) -> Figures:
    """The crossing to another loop, and nothing else."""

    async def across() -> Figures:
        arrivals = Arrivals(load, None)
        with offered(load) as (thread, stream, began):
            crossed = ThreadStream(thread, stream)
            await _took(crossed, arrivals, load.seconds)
            return arrivals.figures(began, stream.kept)

    return asyncio.run(across())


def across_to_a_thread(load: Load) -> Figures:
    """The crossing to a thread without a loop, and nothing else."""
    arrivals = Arrivals(load, None)
    with offered(load) as (thread, stream, began):
        for number in BlockingStream(thread, stream, PATIENCE):
            if arrivals.take(number):
                break
        return arrivals.figures(began, stream.kept)


# ---------------------------------------------------------------- the table

FROM_A_SERVER: Final[dict[str, Callable[[str, str, Load], Figures]]] = {
    "on the registry's own loop": on_its_loop,
    "`connect(thread=True)`": on_another_loop,
    "`aioregistry.blocking`": without_a_loop,
}
ALONE: Final[dict[str, Callable[[Load], Figures]]] = {
    "the crossing alone, to a loop": across_to_a_loop,
    "the crossing alone, to a thread": across_to_a_thread,
}


def main(rounds: int, load: Load) -> None:
    """Measure, and print a table."""
    found: dict[str, list[Figures]] = {name: [] for name in (*FROM_A_SERVER, *ALONE)}
    with server() as zookeeper:
        asyncio.run(zookeeper.start())
        for number in range(rounds + 1):
            for place, (name, measured) in enumerate(FROM_A_SERVER.items()):
                service = f"offered-{number}-{place}"
                asyncio.run(_prepared(zookeeper.address, f"{BASE_PATH}/{service}"))
                gc.collect()
                figures = measured(zookeeper.address, service, load)
                if number:  # the first round warms the server up
                    found[name].append(figures)
    for _ in range(rounds):
        for name, alone in ALONE.items():
            gc.collect()
            found[name].append(alone(load))
    print(f"{load.rate:,} changes a second for {load.seconds:g} s, {rounds} rounds\n")
    print("| | came | resyncs | late, ms: median | 99 % | most | the last | CPU of a change, µs | kept at most |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, taken in found.items():
        print(row(name, taken, load))


def row(name: str, rounds: list[Figures], load: Load) -> str:
    """Return a row of the table: sums and largest figures of all rounds, medians of their other figures."""
    came = sum(len(each.late) for each in rounds)
    share = f"{came / (load.changes * len(rounds)):.2%}"
    resyncs = sum(each.resyncs for each in rounds)
    if not all(len(each.late) > 1 for each in rounds):
        return f"| {name} | {share} | {resyncs} | | | | | | |"
    hundredths = [quantiles(each.late, n=100, method="inclusive") for each in rounds]
    times = [
        median(each[49] for each in hundredths),
        median(each[98] for each in hundredths),
        max(max(each.late) for each in rounds),
        max(each.late[-1] for each in rounds),
    ]
    cpu = median(each.cpu / len(each.late) for each in rounds) * 1e6
    kept = max((each.kept for each in rounds if each.kept is not None), default=None)
    shown = " | ".join(f"{seconds * 1e3:.1f}" for seconds in times)
    return f"| {name} | {share} | {resyncs} | {shown} | {cpu:.1f} | {'' if kept is None else kept} |"


async def _prepared(address: str, path: str) -> None:
    async with await wire.connect(address) as connection:
        for each in (BASE_PATH, path):
            if await connection.exists(each) is None:
                await connection.create(each)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offered", description="Measure how late changes come.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds that count (default 5)")
    parser.add_argument("--rate", type=int, default=10_000, metavar="N", help="changes a second (default 10000)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of a round (default 3)")
    options = parser.parse_args()
    main(options.rounds, Load(options.rate, options.seconds))
