"""Draws what `nox -s outages` measures, as SVG files: `python -m benchmarks.plots [--seeds N] --out docs/plots`."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "aioregistry"  # the same figures give the same file

from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws

from .choosing import SCENARIOS, Calls, Outcome, comeback_of  # noqa: E402
from .choosing import measured as choosing_measured  # noqa: E402
from .outages import CONSUMERS, TROUBLES, Tally, measured  # noqa: E402

COLOURS: Final = ("#b3b3b3", "#4c78a8", "#54a24b")


def draw_comeback(seeds: Sequence[int], out: Path) -> None:
    """Failed calls by the second while a hundred suspects come back, with and without panic."""
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for label, with_rule, colour in (("suspects last", False, COLOURS[0]), ("panic=0.5", True, COLOURS[1])):
        runs = [by_second(comeback_of(random.Random(seed), with_rule, "round-robin")) for seed in seeds]
        means = [100 * fmean(values) for values in zip(*runs, strict=False)]  # the last second is not always whole
        axes.plot(means, label=label, color=colour, linewidth=2)
    axes.set(xlabel="seconds since the first came back", ylabel="failed calls, %", ylim=(-2, 100))
    axes.set_title("100 live instances are suspect and come back over 8 s")
    axes.legend(frameon=False)
    save(figure, out / "comeback.svg")


def draw_choosing(found: Mapping[str, Sequence[Outcome]], out: Path) -> None:
    """Of the calls those that failed, by scenario, without the rule and with it."""
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for place, (label, colour) in enumerate(zip(("without the rule", "with it"), COLOURS, strict=False)):
        failed = [100 * outcomes[place].failed for outcomes in found.values()]
        axes.barh([row - 0.18 * (1 - 2 * place) for row in range(len(failed))], failed, 0.34, label=label, color=colour)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set(xlabel="failed calls, %", xlim=(0, 100))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, out / "choosing.svg")


def by_second(calls: Calls) -> list[float]:
    size = round(calls.rate)
    return [fmean(calls.failed[start : start + size]) for start in range(0, len(calls.failed), size)]


def draw_outages(found: Mapping[str, Mapping[str, list[Tally]]], out: Path) -> None:
    """Of the picks those that reached an instance, by trouble and consumer."""
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for place, (name, colour) in enumerate(zip(CONSUMERS, COLOURS, strict=True)):
        shares = [100 * fmean(tally.share for tally in by_consumer[name]) for by_consumer in found.values()]
        axes.barh([row - 0.27 * (1 - place) for row in range(len(shares))], shares, 0.25, label=name, color=colour)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set(xlabel="picks that reached an instance, %", xlim=(0, 100))
    figure.legend(loc="outside lower center", ncols=len(CONSUMERS), frameon=False)
    save(figure, out / "outages.svg")


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # Lines of what it writes end with blanks.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each")
    parser.add_argument("--out", type=Path, default=Path("docs/plots"), help="the folder of the files")
    options = parser.parse_args()
    seeds = range(options.seeds)
    draw_comeback(seeds, options.out)
    # A scenario without failed calls in either case is about shares: the table shows those.
    both = {name: list(choosing_measured(scenario, seeds)) for name, scenario in SCENARIOS.items()}
    draw_choosing({name: each for name, each in both.items() if any(one.failed for one in each)}, options.out)
    draw_outages({name: measured(trouble, seeds) for name, trouble in TROUBLES.items()}, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
