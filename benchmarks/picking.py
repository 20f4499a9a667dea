"""The cost of a pick, and of a change: `python -m benchmarks.picking [--size N]`. Needs no server."""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable
from typing import Any

from aioregistry._model import Added, Entry, Removed, ServiceInstance, Snapshot
from aioregistry.balancing import (
    Ejection,
    LeastOutstanding,
    OwnZone,
    Picker,
    Random,
    Ring,
    RoundRobin,
    Sticky,
    Strategy,
    WarmUp,
    Weighted,
)

STRATEGIES: list[Strategy[Any]] = [
    RoundRobin(),
    Random(),
    LeastOutstanding(),
    Weighted("weight"),
    Ring(),
    Ring("weight"),
    Sticky(RoundRobin()),
    OwnZone("z1", RoundRobin()),
    WarmUp(RoundRobin()),
]
PICKS, CHANGES, ROUNDS = 2000, 500, 7


def service(size: int) -> Snapshot[Any]:
    payloads = ({"zone": f"z{number % 3}", "weight": 1 + number % 8} for number in range(size))
    instances = [ServiceInstance("chat", id=f"n{number}", payload=each) for number, each in enumerate(payloads)]
    return Snapshot("chat", {each.id: Entry(each, 1, 1, 1, 0, 0.0, 0.0) for each in instances}, {}, as_of=1)


def fastest(measured: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of CPU of the fastest round: what others do on the machine only adds to it."""
    taken = []
    for _ in range(rounds):
        gc.collect()
        start = time.process_time()
        measured()
        taken.append(time.process_time() - start)
    return min(taken)


def measure(snapshot: Snapshot[Any], strategy: Strategy[Any]) -> tuple[float, float, float]:
    """Seconds to build, of a pick (with keys that are new each time, where it takes one), and of a change."""
    draw = random.Random(1).random
    numbers = iter(range(PICKS * ROUNDS))

    def built() -> Picker[Any]:
        return Picker(snapshot, strategy, ejection=Ejection(), draw=draw)

    def picks() -> None:
        for _ in range(PICKS):
            picker.pick(f"room-{next(numbers)}" if strategy.keyed else None, 0.0)

    def changes() -> None:
        for entry in entries:
            picker.apply(Removed(entry, 2), 0.0)
            picker.apply(Added(entry, 2), 0.0)

    picker = built()
    entries = list(snapshot.entries.values())[:CHANGES]
    return fastest(built, 2), fastest(picks) / PICKS, fastest(changes) / (2 * len(entries))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picking", description="Measure picks and changes.")
    parser.add_argument("--size", type=int, default=10_000, metavar="N", help="instances (default 10000)")
    snapshot = service(parser.parse_args().size)
    print("| strategy | pick, µs | change, µs | made, ms |", "| --- | --- | --- | --- |", sep="\n")
    for strategy in STRATEGIES:
        made, pick, change = measure(snapshot, strategy)
        print(f"| `{strategy!r}` | {pick * 1e6:.1f} | {change * 1e6:.1f} | {made * 1e3:.0f} |")


if __name__ == "__main__":
    main()
