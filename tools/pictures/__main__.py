"""`python -m tools.pictures` writes docs/pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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
SPEED: Final = {
    "an instance added to 100": ("change in 100", "added_p50_ms"),
    "an instance added to 10,000": ("change in 10,000", "added_p50_ms"),
    "an instance added to 100,000": ("change in 100,000", "added_p50_ms"),
}


def pictures() -> Iterator[tuple[str, str]]:
    """Yield the file name of each picture, and its text."""
    yield "states.svg", states.draw()
    yield "rooms.svg", rooms.draw()
    for run in sorted(FOLDER.glob("*.json")):
        yield f"{run.stem}.svg", timelines.draw(json.loads(run.read_text(encoding="utf-8")))
    yield "faults.svg", faults()
    yield "speed.svg", speed()


def faults() -> str:
    measured = json.loads((ROOT / "benchmarks/results/faults.json").read_text(encoding="utf-8"))["faults"]
    rows = {
        fault: [None if found[name] == "missing" else float(found[name]) for name in CONTENDERS]
        for fault, found in measured.items()
        if "owner changes" not in fault
    }
    rows = {fault: row for fault, row in rows.items() if any(value is None or value > 0.3 for value in row)}
    return figures.bars("A live instance is not listed", "seconds", 6.0, rows, [*CONTENDERS.values()])


def speed() -> str:
    medians = json.loads((ROOT / "benchmarks/results/latest.json").read_text(encoding="utf-8"))["medians"]
    names = ("aioregistry", "raw", "kazoo")
    rows = {
        row: [medians[job][name][field] for name in names if name in medians[job]]
        for row, (job, field) in SPEED.items()
    }
    return figures.bars(
        "From publishing to the event, median", "ms", 18.0, rows, ("aioregistry", "a raw socket", "kazoo")
    )


def main() -> int:
    """Write every picture; return 0."""
    for name, text in pictures():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
