"""The cost of a pick, and of a change: `python -m benchmarks.picking [--size N]`. Needs no server.

It writes benchmarks/results/picking.json, which the table of docs/balancing.md is made from: `python -m tools.tables`.
"""

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
from benchmarks import report

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
SIZE = 10_000
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


def record(size: int) -> dict[str, Any]:
    """Measure every strategy, with *size* instances; return the figures, the machine, the versions and the date."""
    snapshot = service(size)
    figures = {}
    for strategy in STRATEGIES:
        made, pick, change = measure(snapshot, strategy)
        figures[repr(strategy)] = {"pick_us": pick * 1e6, "change_us": change * 1e6, "made_ms": made * 1e3}
    return {**report.circumstances(), "instances": size, "strategies": figures}


def table(found: dict[str, Any]) -> str:
    """Return what a record says, for docs/balancing.md: where it comes from, and a row for each strategy."""
    python, day = found["versions"]["python"], found["date"].partition("T")[0]
    rows = [
        f"Measured on {day} with CPython {python} on {found['machine']['cpu']}, for {found['instances']:,} instances:",
        "",
        "| | pick, µs | change, µs | made, ms |",
        "| --- | --- | --- | --- |",
    ]
    for strategy, figures in found["strategies"].items():
        shown = strategy.replace("'", '"')
        rows.append(f"| `{shown}` | {figures['pick_us']:.1f} | {figures['change_us']:.1f} | {figures['made_ms']:.0f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picking", description="Measure picks and changes.")
    parser.add_argument("--size", type=int, default=SIZE, metavar="N", help=f"instances (default {SIZE})")
    size = parser.parse_args().size
    found = record(size)
    path = report.write("picking", found, whole=size == SIZE)
    print(table(found), f"Written to {path}", sep="\n\n")


if __name__ == "__main__":
    main()
