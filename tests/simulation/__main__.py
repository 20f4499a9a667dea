"""`python -m tests.simulation`: many worlds in several processes, until one is found where something is wrong."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tests.simulation.profiles import PROFILES
from tests.simulation.world import World

AHEAD = 4
"""Worlds that wait for each process."""


class Told(NamedTuple):
    """A process's report of a world."""

    profile: str
    seed: int
    violation: str
    digest: str
    story: str
    seconds: float
    limits: int


def simulated(profile: str, seed: int, lines: int) -> Told:
    outcome = World(seed, PROFILES[profile]).run()
    violation = "" if outcome.violation is None else str(outcome.violation)
    story = outcome.told(lines) if violation or lines == sys.maxsize else ""
    return Told(profile, seed, violation, outcome.digest, story, outcome.seconds, outcome.limits)


def main() -> int:
    options = parsed()
    todo = [
        (profile, seed)
        for seed in range(options.first, options.first + options.seeds)
        for profile in options.profile or ["default"]
    ]
    if options.trace:
        for profile, seed in todo:
            print(simulated(profile, seed, sys.maxsize).story)
        return 0
    if options.digests:
        for profile, seed in todo:
            told = simulated(profile, seed, 40)
            print(profile, seed, told.digest, told.story, flush=True)
        return 0
    return judged(todo, options.jobs, options.lines, keep_going=options.keep_going)


def judged(todo: list[tuple[str, int]], jobs: int, lines: int, *, keep_going: bool) -> int:
    began, virtual, failed, limits = time.monotonic(), 0.0, 0, 0
    for done, told in enumerate(outcomes(todo, jobs, lines), start=1):
        virtual += told.seconds
        limits += told.limits
        if told.violation:
            failed += 1
            print(f"\n{told.story}\nprofile {told.profile}, seed {told.seed}: VIOLATED {told.violation}")
            print(f"again: python -m tests.simulation --profile {told.profile} --first {told.seed} --seeds 1 --trace")
            if not keep_going:
                return 1
        took = time.monotonic() - began
        print(f"\r{done}/{len(todo)} worlds, {virtual / took:.0f} s a second, {failed} violated", end="", flush=True)
    print(f"\n{virtual / 3600:.1f} hours of theirs in {time.monotonic() - began:.0f} s of ours")
    print(f"known limit of the fence (docs/guarantees.md) seen {limits} times")
    return 1 if failed else 0


def outcomes(todo: list[tuple[str, int]], jobs: int, lines: int) -> Iterator[Told]:
    """As they come."""
    with ProcessPoolExecutor(jobs) as pool:
        waiting = iter(todo)
        running = {pool.submit(simulated, *each, lines) for each in itertools.islice(waiting, jobs * AHEAD)}
        try:
            while running:
                future = next(as_completed(running))
                running.remove(future)
                for each in waiting:
                    running.add(pool.submit(simulated, *each, lines))
                    break
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds of each profile")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--profile", action="append", choices=sorted(PROFILES), help="kind of world; again for more")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--lines", type=int, default=80, help="how much of the timeline to show of a failure")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    parser.add_argument("--trace", action="store_true", help="print whole timelines")
    parser.add_argument("--digests", action="store_true", help="print a digest of each timeline, and what went wrong")
    return parser.parse_args()


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
