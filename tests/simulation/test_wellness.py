"""The notebook of one process' wellness, by which the judge of Truthful judges."""

from __future__ import annotations

import asyncio
import random

from tests.simulation.engine import Engine, Machine
from tests.simulation.wellness import Condition, Wellness


def test_one_check_that_fails_after_another_is_no_single_sickness() -> None:
    """Both passed in between if the second began to fail just before the first had to pass."""
    engine = Engine(most_turns=1_000)
    registry = Machine("registry", engine, lambda machine, context: None)  # type: ignore[abstract]
    caller = Machine("caller", engine, lambda machine, context: None)  # type: ignore[abstract]
    wellness = Wellness(registry, caller, random.Random(1))
    seen: list[tuple[bool, int]] = []

    async def live() -> None:
        wellness.becomes(Condition.HANGING)
        await asyncio.sleep(18.0)
        wellness.block()
        seen.append((wellness.is_sick, round(wellness.sick_for())))
        wellness.becomes(Condition.WELL)
        seen.append((wellness.is_sick, round(wellness.sick_for())))
        await asyncio.sleep(2.0)
        seen.append((wellness.is_sick, round(wellness.sick_for())))
        wellness.unblock()
        seen.append((wellness.is_sick, round(wellness.sick_for())))

    engine.run(registry, live())

    assert seen == [(True, 18), (True, 0), (True, 2), (False, 0)]
