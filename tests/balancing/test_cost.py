"""Features that are not in use cost a pick nothing. Counted in calls of functions: these do not depend on the load."""

from __future__ import annotations

import gc
import random
import sys
from types import FrameType
from typing import Any

import pytest

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
from tests.balancing.service import snapshot

PICKS = 50

# At most so many calls for a pick, and for one that leaves or comes: those of the picker itself among them. Each step
# that a strategy takes for a feature that is not in use would add one at least.
MOST: list[tuple[Strategy[Any], int, int]] = [
    (RoundRobin(), 3, 16),
    (Random(), 3, 16),
    (LeastOutstanding(), 3, 16),
    (Weighted("weight"), 3, 22),
    (Ring(), 9, 44),
    (Ring("weight"), 11, 48),
    (Sticky(RoundRobin()), 7, 18),
    (OwnZone("z1", RoundRobin()), 7, 20),
    (WarmUp(RoundRobin()), 6, 19),
]


class Calls:
    """Counts the calls of the library's functions in its block."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> Calls:
        gc.collect()
        gc.disable()  # it might call what other tests left
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)
        gc.enable()

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        self.number += event == "call" and str(frame.f_globals.get("__name__")).startswith("aioregistry.")


def service(size: int) -> Snapshot[Any]:
    """Without addresses: what it takes to look at one is Python's."""
    payloads = ({"zone": f"z{number % 3}", "weight": 1 + number % 8} for number in range(size))
    listed = [ServiceInstance("chat", id=f"n{number}", payload=each) for number, each in enumerate(payloads)]
    return Snapshot("chat", {each.id: Entry(each, 1, 1, 1, 0, 0.0, 0.0) for each in listed}, {}, as_of=1)


@pytest.mark.parametrize("size", [10, 2000])
@pytest.mark.parametrize("ejection", [None, Ejection()], ids=["without ejection", "with ejection"])
@pytest.mark.parametrize(("strategy", "a_pick", "a_change"), MOST, ids=[repr(each[0]) for each in MOST])
def test_what_is_not_in_use_costs_nothing(
    strategy: Strategy[Any], a_pick: int, a_change: int, ejection: Ejection | None, size: int
) -> None:
    known = service(size)
    chosen: Picker[Any] = Picker(known, strategy, ejection=ejection, draw=random.Random(5).random)
    with Calls() as picks:
        for number in range(PICKS):
            chosen.pick(f"room-{number}" if strategy.keyed else None, 0.0)
    changes = [(Removed(each, 2), Added(each, 3)) for each in known.entries.values()][:PICKS]
    with Calls() as told:
        for removed, added in changes:
            chosen.apply(removed, 0.0)
            chosen.apply(added, 0.0)
    assert picks.number <= a_pick * PICKS
    assert told.number <= 2 * a_change * len(changes)


def test_who_failed_costs_until_a_call_is_good() -> None:
    chosen: Picker[Any] = Picker(snapshot("abc"), "round-robin", ejection=Ejection(), draw=random.Random(5).random)
    member = chosen.pick(None, 0.0)
    chosen.report(member, False, 0.0, 0.0)
    with Calls() as dearer:
        chosen.pick(None, 0.0)
    chosen.report(member, True, 0.0, 0.0)
    with Calls() as cheap:
        chosen.pick(None, 0.0)
    assert cheap.number <= 3 < dearer.number
