"""The cost of metrics for a request: `python -m benchmarks.metering [--rounds N]`. Starts a ZooKeeper, and only prints.

Two registries of one process ask the same server the same, in turns: one has a reader of metrics, the other has not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from statistics import median
from typing import Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

import aioregistry
from aioregistry import Registry
from aioregistry._protocol import Exists
from aioregistry._registry import parts_of
from aioregistry.metrics import opentelemetry, prometheus
from tests.support.zookeeper import ZooKeeperServer

BATCH, BATCHES = 100, 40
REQUESTS: Final = BATCH * BATCHES


async def asked(registry: Registry) -> float:
    """Seconds of this process's CPU for the requests, and their answers."""
    session = parts_of(registry).session
    gc.collect()
    began = time.process_time()
    for _ in range(BATCHES):
        await asyncio.gather(*(session.submit(Exists("/")) for _ in range(BATCH)))
    return time.process_time() - began


async def measure(servers: str, rounds: int) -> None:
    """Print the figures."""
    collectors, exported = CollectorRegistry(), InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[exported])
    async with aioregistry.connect(servers) as plain, aioregistry.connect(servers) as metered:
        prometheus(metered, to=collectors)
        without: list[float] = []
        with_reader: list[float] = []
        await asked(plain)
        await asked(metered)
        for number in range(rounds):
            turns = [(plain, without), (metered, with_reader)]
            for registry, taken in turns if number % 2 else reversed(turns):
                taken.append(await asked(registry))
        ratios = sorted(one / other for one, other in zip(with_reader, without, strict=True))
        one, other = (min(taken) / REQUESTS * 1e6 for taken in (without, with_reader))
        print(f"a request: {one:.1f} µs of CPU, with a reader {other:.1f} µs")
        print(
            f"with to without: {min(with_reader) / min(without):.3f} of the fastest rounds, median {median(ratios):.3f}"
        )
        opentelemetry(metered, meter=provider.get_meter("benchmark"))
        await asked(metered)
        began = time.process_time()
        exported.get_metrics_data()
        print(f"a request when OpenTelemetry exports: {(time.process_time() - began) / REQUESTS * 1e6:.1f} µs")
        began = time.process_time()
        generate_latest(collectors)
        print(f"a scrape: {(time.process_time() - began) * 1e3:.1f} ms")


async def main(rounds: int) -> None:
    """Measure."""
    with ZooKeeperServer() as server:
        await server.start()
        await measure(server.address, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    asyncio.run(main(parser.parse_args().rounds))
