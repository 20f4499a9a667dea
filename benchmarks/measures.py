"""The measures. Each measure takes the lab and a contender's name and returns figures named with their units."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.contender import ADDED, REMOVED, UPDATED
from benchmarks.lab import Lab, Worker, now_ns, split, watching, working
from benchmarks.workload import BASE_PATH, Sample, samples
from tests.support import wire

Figures = dict[str, float]

CHANGES = 50  # of each kind in one round
INTERVAL = 1 / 40
STRANGERS = 172  # the network of instances that come and go while others are there
DEADLINE = 60.0
CREATED, DELETED = 1, 2


async def cold_sync(lab: Lab, name: str, *, size: int) -> Figures:
    """One client's first sight of a service: what tells of changes is set, every payload is decoded."""
    service = await lab.service_of(size)
    async with working(name, lab.server.address) as worker:
        return {"seconds": await worker.ask("cold_sync", service=service, count=size)}


async def memory(lab: Lab, name: str, *, size: int) -> Figures:
    """The memory of a followed instance, by tracemalloc."""
    service = await lab.service_of(size)
    async with working(name, lab.server.address) as worker:
        taken = await worker.ask("memory", service=service, count=size)
        return {"held_bytes": taken["held"], "peak_bytes": taken["peak"]}


async def change(lab: Lab, name: str, *, size: int) -> Figures:
    """Instances are added, changed and removed; how long until the consumer has them, and what it costs it."""
    service = await lab.service_of(size)
    async with working(name, lab.server.address) as worker:
        await worker.ask("follow", service=service)
        before = (await worker.ask("sightings"))["cpu"]
        published = await publish(lab, list(samples(service, CHANGES, network=STRANGERS)))
        seen, cpu = await sightings(worker, until=len(published))
    delays = {kind: sorted(delay_ms(published, seen, kind)) for kind in (ADDED, UPDATED, REMOVED)}
    figures = {f"{kind}_p50_ms": statistics.median(delays[kind]) for kind in delays}
    figures[f"{ADDED}_p99_ms"] = statistics.quantiles(delays[ADDED], n=100, method="inclusive")[-1]
    return figures | {"cpu_ms": (cpu - before) * 1e3 / len(published)}


Moments = dict[tuple[str, str], int]


async def publish(lab: Lab, instances: list[Sample]) -> Moments:
    """Add, change and remove each instance, at a steady pace; return when each was sent."""
    sent: Moments = {}
    async with await wire.connect(lab.server.address) as session:
        start = time.monotonic()
        for number, sample in enumerate(instances):
            steps = (
                (ADDED, wire.create(sample.path, sample.document, flags=wire.EPHEMERAL)),
                (UPDATED, wire.set_data(sample.path, sample.document)),
                (REMOVED, wire.delete(sample.path)),
            )
            for step, (kind, operation) in enumerate(steps):
                await asyncio.sleep(start + (3 * number + step) * INTERVAL - time.monotonic())
                sent[kind, sample.id] = now_ns()
                await session.ask(operation)
    return sent


async def sightings(worker: Worker, *, until: int) -> tuple[Moments, float]:
    """The changes that the consumer got, and its CPU time, once it has all of them or gets nothing more."""
    seen: Moments = {}
    quiet_since = time.monotonic()
    while True:
        answer = await worker.ask("sightings")
        for kind, id, when in answer["seen"]:
            seen.setdefault((kind, id), when)
        if answer["seen"]:
            quiet_since = time.monotonic()
        # A consumer that reads late sees two changes as one.
        if len(seen) >= until or time.monotonic() - quiet_since > 1:
            return seen, answer["cpu"]
        await asyncio.sleep(0.1)


def delay_ms(published: Moments, seen: Moments, kind: str) -> list[float]:
    return [(seen[key] - sent) / 1e6 for key, sent in published.items() if key[0] == kind and key in seen]


async def expiry(lab: Lab, name: str, *, count: int) -> Figures:
    """Instances are registered by one process, then its session is ended; how long an outside observer misses them."""
    service = f"expiring-{count}"
    await lab.make_service(service)
    with lab.proxy() as proxy:
        async with working(name, proxy.address) as worker:
            registering = await worker.ask("register", service=service, count=count)
            path = f"{BASE_PATH}/{service}"
            async with watching(lab.server.address, path) as outside:
                await proxy.expire()
                missing = await missing_seconds(outside, count)
    return {"registering_seconds": registering, "missing_seconds": missing}


async def missing_seconds(outside: wire.Wire, count: int) -> float:
    """From the first that is gone until all are back."""
    gone: set[str] = set()
    back: set[str] = set()
    since = 0.0
    async with asyncio.timeout(DEADLINE):
        while len(back) < count:
            with contextlib.suppress(TimeoutError):
                event = await outside.event()
                if event.type == DELETED:
                    since = since or time.monotonic()
                    gone.add(event.path)
                    back.discard(event.path)
                elif event.type == CREATED and event.path in gone:
                    back.add(event.path)
    return time.monotonic() - since


IMPORTS = """
import time
import aiozk, aiozk.protocol, anyio, anyio._backends._asyncio, asyncio, msgspec
start = time.perf_counter()
from aioregistry import ServiceInstance, connect
print(time.perf_counter() - start)
"""
HELP = "import sys; from aioregistry._cli import main; sys.exit(main(['--help']))"


async def starting(_lab: Lab, contender: str) -> Figures:
    """The cost of starting: the import above that of the dependencies, and the command line's help."""
    _, tree = split(contender)
    imported = float(await run_python(IMPORTS, tree))
    start = time.perf_counter()
    await run_python(HELP, tree)
    return {"import_ms": imported * 1e3, "help_ms": (time.perf_counter() - start) * 1e3}


async def run_python(program: str, tree: Path) -> str:
    command = [sys.executable, "-c", program]
    # Installed packages are compiled: so is what is imported from here, in the round that does not count.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = await asyncio.to_thread(
        subprocess.run, command, cwd=tree, env=environment, check=True, capture_output=True, text=True
    )
    return run.stdout


class Measure(NamedTuple):
    take: Callable[..., Awaitable[Figures]]
    arguments: dict[str, int]
    contenders: tuple[str, ...]


ALL = ("aioregistry", "raw", "kazoo", "aiozk")

MEASURES: dict[str, Measure] = {
    "cold sync of 10,000": Measure(cold_sync, {"size": 10_000}, ALL),
    "change in 100": Measure(change, {"size": 100}, ("aioregistry", "raw", "kazoo")),
    "change in 10,000": Measure(change, {"size": 10_000}, ("aioregistry", "raw", "kazoo")),
    "change in 100,000": Measure(change, {"size": 100_000}, ("aioregistry", "raw")),  # kazoo cannot keep up
    "expiry of 1": Measure(expiry, {"count": 1}, ALL),
    "expiry of 1,000": Measure(expiry, {"count": 1_000}, ALL),
    "memory of 10,000": Measure(memory, {"size": 10_000}, ALL),
    "starting": Measure(starting, {}, ("aioregistry",)),
}
