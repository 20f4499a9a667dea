"""The processor that the console takes: `python -m benchmarks.console`. Starts a ZooKeeper, and only prints.

`aioregistry console` follows 1,000 services of 100 instances each, with a history in a temporary folder. Instances
change at a rate, drawn among all of them; browsers follow the page of all services, and of one service too. The
processor's time is that of the console's process, all threads together. An instance that changes four times a second
beside the others has the time in its payload: so the delay is from before the write to the browser's reading.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
import msgspec

from benchmarks.lab import JVM_OPTIONS, PER_TRANSACTION
from benchmarks.workload import BASE_PATH, Sample, samples
from tests.support import wire
from tests.support.wire import Wire
from tests.support.zookeeper import Settings, ZooKeeperServer

ROOT: Final = Path(__file__).parent.parent
WATCHED: Final = "service-0000"
MARKED: Final = Sample(WATCHED, "10.255.255.255", 7000, {})
MARKED_EVERY: Final = 0.23
"""Seconds. The console's pause between two messages is not a multiple of it, so the delays differ."""
TURN: Final = 0.05
"""Seconds between two transactions of the writer."""
SETTLING: Final = 5.0
READ_WITHIN: Final = 600.0
STOPPED_WITHIN: Final = 60.0


@dataclass
class Seen:
    """The messages that browsers got."""

    messages: int = 0
    octets: int = 0
    delays: list[float] = field(default_factory=list)


# ---------------------------------------------------------------- the service


def _instances(services: int, instances: int) -> list[Sample]:
    return [sample for number in range(services) for sample in samples(f"service-{number:04}", instances)]


async def _filled(connection: Wire, found: list[Sample]) -> None:
    await connection.create(BASE_PATH)
    names = dict.fromkeys(sample.service for sample in found)
    creates: Iterator[wire.Operation] = itertools.chain(
        (wire.create(f"{BASE_PATH}/{name}") for name in names),
        (wire.create(sample.path, sample.document) for sample in [*found, MARKED]),
    )
    while wave := list(itertools.islice(creates, PER_TRANSACTION)):
        for result in await connection.multi(*wave):
            assert not result.error


async def _change(connection: Wire, found: list[Sample], rate: float, seconds: float) -> int:
    """Change instances at *rate*, and return how many were changed; the server may be slower than that."""
    draw, began, done = random.Random(1), time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        due = min(round(rate * elapsed) - done, PER_TRANSACTION)
        if due > 0:
            changed = [_with(draw.choice(found), "load", draw.randrange(10**6)) for _ in range(due)]
            await connection.multi(*(wire.set_data(sample.path, sample.document) for sample in changed))
            done += due
        await asyncio.sleep(TURN if due < PER_TRANSACTION else 0)
    return done


async def _mark(connection: Wire) -> None:
    while True:
        await connection.set_data(MARKED.path, _with(MARKED, "at", time.monotonic()).document)
        await asyncio.sleep(MARKED_EVERY)


def _with(sample: Sample, name: str, value: object) -> Sample:
    return Sample(sample.service, sample.address, sample.port, {**sample.payload, name: value})


# ---------------------------------------------------------------- the console


@contextlib.asynccontextmanager
async def _console(address: str, history: Path) -> AsyncIterator[tuple[int, str]]:
    """A console in a process of its own; its id and its URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aioregistry", "console", "--zookeeper", address),
        *("--listen", "127.0.0.1:0", "--history", str(history)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.pid, (await process.stdout.readline()).decode().strip()
        process.terminate()
        await asyncio.wait_for(process.wait(), STOPPED_WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _cpu(pid: int) -> float:
    """Seconds of the processor that a process took until now."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """MiB of memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


async def _events(http: httpx.AsyncClient, **parameters: str) -> AsyncGenerator[tuple[str, str], None]:
    """The messages to a browser: the event, and its content as JSON."""
    event = ""
    async with http.stream("GET", "/api/follow", params=parameters) as response:
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                yield event, value


async def _read_all(http: httpx.AsyncClient) -> None:
    async with contextlib.aclosing(_events(http)) as events:
        async for event, content in events:
            if event == "status" and json.loads(content)["unread"] == 0:
                return


async def _follow(http: httpx.AsyncClient, seen: Seen, *, decodes: bool) -> None:
    """Be a browser; one that *decodes* looks for the instance that tells the time."""
    last = 0.0
    async with contextlib.aclosing(_events(http, service=WATCHED)) as events:
        async for event, content in events:
            seen.messages += 1
            seen.octets += len(content)
            if decodes and event == "instances":
                at = _marked_at(msgspec.json.decode(content))
                if at is not None and at > last:
                    last = at
                    seen.delays.append(time.monotonic() - at)


def _marked_at(content: Any) -> float | None:
    for row in content["changed"]:
        if row[0] == MARKED.id:
            found = re.search(r'"at": ?([\d.]+)', " ".join(cell for cell in row if isinstance(cell, str)))
            return None if found is None else float(found[1])
    return None


# ---------------------------------------------------------------- the table


async def _measured(
    address: str, url: str, pid: int, found: list[Sample], *, rate: float, browsers: int, seconds: float
) -> str:
    seen = Seen()
    limits = httpx.Limits(max_connections=None)
    async with (
        await wire.connect(address, timeout_ms=120_000) as writer,
        await wire.connect(address, timeout_ms=120_000) as marker,
        httpx.AsyncClient(base_url=url, timeout=READ_WITHIN, limits=limits) as http,
    ):
        following = [asyncio.create_task(_follow(http, seen, decodes=not number)) for number in range(browsers)]
        marking = asyncio.create_task(_mark(marker))
        try:
            await _change(writer, found, rate, SETTLING)
            seen.messages = seen.octets = 0
            seen.delays.clear()
            began, before = time.monotonic(), _cpu(pid)
            done = await _change(writer, found, rate, seconds)
            lasted, taken = time.monotonic() - began, _cpu(pid) - before
        finally:
            for task in (*following, marking):
                task.cancel()
            ended = await asyncio.gather(*following, marking, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error
    each = max(browsers, 1)
    delays = f"{median(seen.delays):.2f} / {max(seen.delays):.2f}" if seen.delays else "–"
    sent = f"{seen.messages / lasted / each:.1f} | {seen.octets / lasted / each / 1024:.0f}"
    return (
        f"| {done / lasted:,.0f} | {browsers} | {100 * taken / lasted:.0f} % | {sent} | {delays} | {_memory(pid):.0f} |"
    )


async def main(options: argparse.Namespace) -> None:
    """Measure, and print a table."""
    settings = Settings(tick_time_ms=1000, min_session_timeout_ms=1000, jvm_options=JVM_OPTIONS)
    found = _instances(options.services, options.instances)
    with ZooKeeperServer(settings) as zookeeper, tempfile.TemporaryDirectory() as folder:
        await zookeeper.start()
        async with await wire.connect(zookeeper.address, timeout_ms=120_000) as connection:
            await _filled(connection, found)
        async with _console(zookeeper.address, Path(folder, "history.sqlite")) as (pid, url):
            async with httpx.AsyncClient(base_url=url, timeout=READ_WITHIN) as http:
                await asyncio.wait_for(_read_all(http), READ_WITHIN)
            print(f"{len(found):,} instances of {options.services:,} services; read with {_cpu(pid):.1f} s of CPU\n")
            heads = "changes/s", "browsers", "CPU", "messages/s of each", "KiB/s of each", "delay, s", "MiB"
            print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
            for browsers, rate in itertools.product(options.browsers, options.rates):
                measured = _measured(
                    zookeeper.address, url, pid, found, rate=rate, browsers=browsers, seconds=options.seconds
                )
                print(await measured, flush=True)
            print("\nThe delay is the median / the longest.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description="Measure the console's CPU.")
    parser.add_argument("--services", type=int, default=1000, metavar="N", help="default 1000")
    parser.add_argument("--instances", type=int, default=100, metavar="N", help="of each service (default 100)")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0, 10, 100, 1000, 3000], metavar="N", help="a second"
    )
    parser.add_argument("--browsers", type=int, nargs="+", default=[0, 1, 10], metavar="N", help="default 0 1 10")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of each row (default 20)")
    asyncio.run(main(parser.parse_args()))
