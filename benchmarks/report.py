"""The results: medians, the ratios that the project promises, a table to read and JSON to keep."""

from __future__ import annotations

import datetime as dt
import gc
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aioregistry

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("aiozk", "anyio", "kazoo", "msgspec")

Rounds = dict[str, dict[str, list[dict[str, float]]]]
"""By measure and contender: the figures of each round."""

Medians = dict[str, dict[str, dict[str, float]]]


def medians(rounds: Rounds) -> Medians:
    return {
        measure: {
            contender: {figure: statistics.median(round_[figure] for round_ in taken) for figure in taken[0]}
            for contender, taken in by_contender.items()
        }
        for measure, by_contender in rounds.items()
    }


class Goal(NamedTuple):
    """A promise of the project: a ratio of two medians, or one median, and the bound it keeps."""

    says: str
    value: Callable[[Medians], float]
    bound: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


def ours(measure: str, figure: str) -> Callable[[Medians], float]:
    return lambda found: found[measure]["aioregistry"][figure]


def against(measure: str, figure: str, other: str) -> Callable[[Medians], float]:
    """Ours as a multiple of the other's."""
    return lambda found: found[measure]["aioregistry"][figure] / found[measure][other][figure]


def times_faster(measure: str, figure: str, other: str) -> Callable[[Medians], float]:
    return lambda found: found[measure][other][figure] / found[measure]["aioregistry"][figure]


def growth(figure: str, small: str, large: str) -> Callable[[Medians], float]:
    return lambda found: found[large]["aioregistry"][figure] / found[small]["aioregistry"][figure]


SYNC, SMALL, MIDDLE, LARGE = "cold sync of 10,000", "change in 100", "change in 10,000", "change in 100,000"
GOALS = (
    Goal("cold sync of 10,000: times faster than kazoo", times_faster(SYNC, "seconds", "kazoo"), 12, at_least=True),
    Goal("cold sync of 10,000: times faster than aiozk", times_faster(SYNC, "seconds", "aiozk"), 12, at_least=True),
    Goal("cold sync of 10,000: times the raw program's", against(SYNC, "seconds", "raw"), 1.8),
    Goal("instance added to 10,000, p50: times the raw program's", against(MIDDLE, "added_p50_ms", "raw"), 1.3),
    Goal("instance added, p50: in 100,000 as a multiple of in 100", growth("added_p50_ms", SMALL, LARGE), 4 / 3),
    Goal("CPU of a change: in 100,000 as a multiple of in 100", growth("cpu_ms", SMALL, LARGE), 4 / 3),
    Goal("missing after a forced expiry, seconds", ours("expiry of 1", "missing_seconds"), 0.1),
    Goal("1,000 instances missing after an expiry, seconds", ours("expiry of 1,000", "missing_seconds"), 1.0),
    Goal("memory of a followed instance, bytes", ours("memory of 10,000", "held_bytes"), 1.5 * 1024),
    Goal("most memory during a cold sync, bytes an instance", ours("memory of 10,000", "peak_bytes"), 3 * 1024),
    Goal("import above the dependencies', ms", ours("starting", "import_ms"), 30),
    Goal("aioregistry --help, ms", ours("starting", "help_ms"), 150),
)


def judged(found: Medians) -> Iterator[tuple[Goal, float]]:
    """The goals for which there are figures."""
    for goal in GOALS:
        try:
            yield goal, goal.value(found)
        except KeyError:
            continue  # that measure or contender was not asked for


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def show_figures(found: Medians) -> str:
    contenders = list(dict.fromkeys(name for by_contender in found.values() for name in by_contender))
    rows = [["", *contenders]]
    for measure, by_contender in found.items():
        for figure in next(iter(by_contender.values())):
            cells = [f"{by_contender[name][figure]:.4g}" if name in by_contender else "" for name in contenders]
            rows.append([f"{measure}: {figure.replace('_', ' ')}", *cells])
    return table(rows)


def show_goals(found: Medians) -> str:
    rows = [["goal", "bound", "found", ""]]
    for goal, value in judged(found):
        bound = f"{'≥' if goal.at_least else '≤'} {goal.bound:.4g}"
        rows.append([goal.says, bound, f"{value:.4g}", "met" if goal.met(value) else "MISSED"])
    return table(rows)


def circumstances(zookeeper: str | None = None) -> dict[str, Any]:
    """Machine, versions and date."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "load": os.getloadavg()[0],
        },
        "versions": {
            "python": platform.python_version(),
            **({} if zookeeper is None else {"zookeeper": zookeeper}),
            "aioregistry": aioregistry.__version__,
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
        "garbage_collection": {"thresholds": gc.get_threshold()},
    }


def cpu_model() -> str:
    with Path("/proc/cpuinfo").open() as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def write(name: str, content: dict[str, Any], *, whole: bool) -> Path:
    """Keep the results; those of a run that left something out apart from what the repository keeps."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (f"{name}.json" if whole else f"{name}.local.json")
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
