"""The default seeds: nothing is violated, and the same seed is the same world."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aioregistry._session.names import Names
from tests.simulation.faults import FAULTS
from tests.simulation.profiles import PROFILES
from tests.simulation.world import APART, World
from tests.support.processes import outcome_of

ROOT = Path(__file__).parents[2]
SEEDS = 8
DEADLINE = 200.0


async def digests(profile: str, hash_seed: int) -> list[str]:
    """The report of a process of its own on the default seeds."""
    code, told, _ = await outcome_of(
        *(sys.executable, "-m", "tests.simulation", "--digests", "--profile", profile, "--seeds", str(SEEDS)),
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)},
        stderr=None,
        seconds=DEADLINE,
    )
    assert code == 0
    return told.decode().splitlines()


@pytest.mark.parametrize("profile", ["short", "short twins", "names", "outside", "wellness", "callers"])
async def test_nothing_is_violated_and_the_same_seed_replays_the_same_trace(profile: str) -> None:
    one, other = await asyncio.gather(digests(profile, 1), digests(profile, 2))

    assert [line for line in one if "VIOLATED" in line] == [], "\n".join(one)
    assert len(one) == SEEDS
    assert one == other


def test_who_came_while_another_looked_is_no_ghost_to_him() -> None:
    """The first sight of a claimant came in one piece with the event of another's takeover, and did not count."""
    outcome = World(2013, PROFILES["twins"]).run()

    assert outcome.violation is None, outcome.told()


@pytest.mark.parametrize("seed", range(5))
def test_a_name_server_that_is_away_ends_no_session(seed: int) -> None:
    """Connections are lost while look-ups fail, hang or are empty for longer than a session lives."""
    world = World(seed, replace(PROFILES["names"], weights={"names away": 1}))
    outcome = world.run()

    assert outcome.violation is None, outcome.told()
    assert any("names away" in fault.kind and fault.duration > 10.0 for fault in world.faults)
    assert [line for line in outcome.lines if "expired" in line] == []


def test_a_session_ends_where_the_addresses_known_before_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake that the worlds without a name server would find."""

    def forgotten(self: Names, server: tuple[str, int], why: str) -> None:
        self._names[server].known = ()

    monkeypatch.setattr(Names, "_failed", forgotten)
    profile = replace(PROFILES["names"], weights={"names away": 1})
    outcomes = (World(seed, profile, judged="").run() for seed in range(5))

    assert any("expired" in line for outcome in outcomes for line in outcome.lines)


def test_different_seeds_are_different_worlds() -> None:
    assert World(1, PROFILES["short"]).faults != World(2, PROFILES["short"]).faults


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {fault.kind for seed in range(40) for fault in World(seed, PROFILES["short"]).faults}

    assert drawn == set(FAULTS) - APART.keys()
