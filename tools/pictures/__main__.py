"""`python -m tools.pictures` writes docs/pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from . import figures, rooms, states, timelines

__all__ = ["FOLDER", "main", "pictures"]

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs" / "pictures"
CONTENDERS: Final = {
    "aioregistry": "aioregistry",
    "kazoo_naive": "kazoo",
    "kazoo": "kazoo at its best",
    "aiozk": "aiozk",
    "curator": "Curator's ServiceDiscovery",
    "curator_node": "Curator's PersistentNode",
}
FAULTS: Final = {
    "forced expiry": "session expired",
    "node deleted by hand": "node deleted by hand",
    "killed, restarted within T (whole span)": "process killed, restarted within T",
    "stopped 2.5 T, continued (after)": "process stopped for 2.5 T",
    "server wiped (after it is back)": "server wiped",
    "server comes 2 T late: listed after": "server comes 2 T late",
    "a new process takes over, the old one then ends (whole span)": "a new process takes over, the old one then ends",
}
"""The faults that are drawn, in the words of docs/benchmarks.md."""
PROGRAMS: Final = {"aioregistry": "aioregistry", "raw": "a raw socket", "kazoo": "kazoo", "aiozk": "aiozk"}
SIZES: Final = ("100", "10,000", "100,000")


class Measure(NamedTuple):
    """A picture of medians: its title, their unit, the longest bar, and for each row the job and its field."""

    title: str
    unit: str
    most: float
    rows: Mapping[str, tuple[str, str]]


SPEED: Final = {
    "speed.svg": Measure(
        "From publishing to the event, median", "ms", 18.0,
        {f"an instance added to {size}": (f"change in {size}", "added_p50_ms") for size in SIZES},
    ),
    "cpu.svg": Measure(
        "CPU of a consumer for a change, median", "ms", 10.0,
        {f"a change in {size}": (f"change in {size}", "cpu_ms") for size in SIZES},
    ),
    "first-sight.svg": Measure(
        "First sight of a service, watched and decoded", "seconds", 3.0,
        {"10,000 instances": ("cold sync of 10,000", "seconds")},
    ),
    "expiry.svg": Measure(
        "Not listed after a forced expiry", "seconds", 3.5,
        {
            "one instance": ("expiry of 1", "missing_seconds"),
            "1,000 instances of one process, until all are back": ("expiry of 1,000", "missing_seconds"),
        },
    ),
    "memory.svg": Measure(
        "Memory of a followed instance, among 10,000", "bytes", 4500.0,
        {
            "held": ("memory of 10,000", "held_bytes"),
            "at the peak of the first sight": ("memory of 10,000", "peak_bytes"),
        },
    ),
}  # fmt: skip


def pictures() -> Iterator[tuple[str, str]]:
    """Yield the file name of each picture, and its text."""
    yield "states.svg", states.draw()
    yield "rooms.svg", rooms.draw()
    for run in sorted(FOLDER.glob("*.json")):
        yield f"{run.stem}.svg", timelines.draw(json.loads(run.read_text(encoding="utf-8")))
    yield "faults.svg", faults()
    yield from speed()


def faults() -> str:
    measured = json.loads((ROOT / "benchmarks/results/faults.json").read_text(encoding="utf-8"))["faults"]
    rows = {
        fault: [None if found[name] == "missing" else float(found[name]) for name in CONTENDERS]
        for fault, found in measured.items()
        if "owner changes" not in fault
    }
    rows = {FAULTS[fault]: row for fault, row in rows.items() if any(value is None or value > 0.3 for value in row)}
    return figures.bars("A live instance is not listed", "seconds", 6.0, rows, [*CONTENDERS.values()])


def speed() -> Iterator[tuple[str, str]]:
    medians = json.loads((ROOT / "benchmarks/results/latest.json").read_text(encoding="utf-8"))["medians"]
    for file, measure in SPEED.items():
        names = [name for name in PROGRAMS if any(name in medians[job] for job, _ in measure.rows.values())]
        rows = {
            row: [medians[job][name][field] for name in names if name in medians[job]]
            for row, (job, field) in measure.rows.items()
        }
        yield file, figures.bars(measure.title, measure.unit, measure.most, rows, [PROGRAMS[name] for name in names])


def main() -> int:
    """Write every picture; return 0."""
    for name, text in pictures():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
