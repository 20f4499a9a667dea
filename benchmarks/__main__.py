"""Run the benchmarks: `python -m benchmarks [--rounds N] [--only WORD …]`.

All contenders in one run against one server, in turns: a slow moment of the machine hits everybody. Every round of
every contender is a process of its own. The first round warms the server up and does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks import report
from benchmarks.lab import lab, split
from benchmarks.measures import ALL, MEASURES


async def run(measures: list[str], contenders: list[str], rounds: int) -> None:
    found: report.Rounds = {}
    async with lab() as laboratory:
        for name in measures:
            measure = MEASURES[name]
            taking_part = [contender for contender in contenders if split(contender)[0] in measure.contenders]
            if not taking_part:
                continue
            found[name] = {contender: [] for contender in taking_part}
            for number in range(rounds + 1):
                print(f"{name}: round {number} of {rounds}", file=sys.stderr)
                turns = taking_part[number % len(taking_part) :] + taking_part[: number % len(taking_part)]
                for contender in turns:
                    figures = await measure.take(laboratory, contender, **measure.arguments)
                    if number:
                        found[name][contender].append(figures)
        circumstances = report.circumstances(laboratory.server.version)
    show(
        found, {**circumstances, "rounds": rounds}, whole=len(measures) == len(MEASURES) and set(contenders) == set(ALL)
    )


def show(found: report.Rounds, circumstances: dict[str, object], *, whole: bool) -> None:
    middle = report.medians(found)
    goals = [
        {"goal": goal.says, "bound": goal.bound, "at_least": goal.at_least, "found": value, "met": goal.met(value)}
        for goal, value in report.judged(middle)
    ]
    content = {**circumstances, "medians": middle, "goals": goals, "all_rounds": found}
    path = report.write("latest", content, whole=whole)
    print(report.show_figures(middle), report.show_goals(middle), f"Written to {path}", sep="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure aioregistry against its peers.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds that count (default 5)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="measures whose name has this in it")
    parser.add_argument("--contenders", nargs="+", default=list(ALL), metavar="NAME")
    options = parser.parse_args()
    measures = [name for name in MEASURES if any(word in name for word in options.only)]
    asyncio.run(run(measures, options.contenders, options.rounds))


if __name__ == "__main__":
    main()
