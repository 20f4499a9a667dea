"""`python -m tests.simulation.explore_core`: every order of what can happen to the core of a view, for two instances.

A world is a server's truth, what the mirror knows of it, the core, and a consumer that applies its changes. Each way
through the moves is walked from the beginning, so that nothing of one is left in another; a move that cannot be made in
its world ends its way. The invariants are looked at after every step:

- **Ordered**: the changes applied to what was shown before give what is shown now.
- **Converged**: the confirmed part of what is shown is what is listed.
- **Guarded**: nothing that is listed is suspect; nobody is held longer than the hold of a view that was fresh; what was
  withdrawn before the view's eyes is not held.
- **Obeyed**: what an override in force means is shown as not enabled, and nothing else is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry import Entry, Override, ServiceInstance
from aioregistry._discovery.core import Effects, ViewCore
from aioregistry._discovery.guard import Moment
from aioregistry._discovery.guard_options import Guard
from aioregistry._discovery.kept import Kept
from aioregistry._discovery.mirror import News
from aioregistry._discovery.stages import (
    Called,
    Due,
    Event,
    FreshnessChanged,
    Opened,
    Options,
    Overridden,
    Withdrawn,
)
from aioregistry._model import Added, Difference, Invalid, Removed, Updated
from tests.support.checkers import Violated, check_obeyed

IDS: Final = ("a", "b")
GUARD: Final = Guard(hold=30.0, within=10.0)
EPOCH: Final = 2**32
WALL: Final = 1_000_000.0


class World:
    """One view.

    Args:
        listed: who is there when it begins.
        kept: whom its file keeps; None where it has none.
        away: whether there is no connection when it begins.
    """

    def __init__(self, listed: Iterable[str], kept: Iterable[str] | None, *, away: bool) -> None:
        self.entries: dict[str, Entry[Any]] = {}
        self.invalid: dict[str, Invalid] = {}
        self.as_of = 0
        self.now = 1000.0
        self.zxid = EPOCH
        self.truth: dict[str, Entry[Any]] = {}
        for id in listed:
            self._create(id)
        file = None
        if kept is not None:
            file = Kept("chat", "/services", WALL, EPOCH, {id: self._entry(id) for id in kept})
        self.fresh = self.synced = not away
        if self.synced:
            self.entries.update(self.truth)
            self.as_of = self.zxid
        self.overrides: dict[str, Override] = {}
        self.withdrawn: set[str] = set()
        self.fresh_seconds: dict[str, float] = {}  # for which somebody was held by a view that was fresh
        self.wake: float | None = None
        self.core: ViewCore[Any] = ViewCore(self, Options(Any, GUARD, kept is not None, tuple, overridden=True))
        self.shown: dict[str, Entry[Any]] = {}
        first = self._effects(Opened(file, self.synced, self.synced))
        self.wake, self.shown = first.wake_at, self.core.entries
        self.check()

    # ------------------------------------------------------------ the server

    def _entry(self, id: str) -> Entry[Any]:
        self.zxid += 1
        instance = ServiceInstance("chat", id=id, address="10.0.0.7", port=7000, registration_time_ms=self.zxid)
        return Entry(instance, 1, self.zxid, self.zxid, 0, WALL, WALL)

    def _create(self, id: str) -> None:
        self.truth[id] = self._entry(id)

    def _learn(self, *, resynced: bool = False) -> None:
        """The mirror learns what is true, and tells."""
        changes: list[Difference[Any]] = []
        first = not self.synced
        for id in IDS:
            before, after = self.entries.get(id), self.truth.get(id)
            if after is None and before is not None:
                del self.entries[id]
                changes.append(Removed(before, self.zxid))
            elif after is not None and after is not before:
                self.entries[id] = after
                changes.append(Added(after, self.zxid) if before is None else Updated(after, before, self.zxid))
        self.as_of, self.synced = self.zxid, True
        self.tell(News(() if first else tuple(changes), (), resynced))

    # ------------------------------------------------------------ the view

    def _effects(self, event: Event) -> Effects[Any]:
        return self.core.step(event, Moment(self.now, WALL + self.now))

    def tell(self, event: Event) -> None:
        effects = self._effects(event)
        self.wake = effects.wake_at
        for change in effects.changes:
            before = self.shown.get(change.id)
            if isinstance(change, Added):
                expected = before is None
            else:
                expected = before == (change.previous_entry if isinstance(change, Updated) else change.entry)
            if not expected:
                raise Violated("Ordered", f"{change!r} after {before!r}")
            if isinstance(change, Removed):
                del self.shown[change.id]
            else:
                self.shown[change.id] = change.entry
        self.check()

    def check(self) -> None:
        entries = self.core.entries
        if entries != self.shown:
            raise Violated("Ordered", f"the changes give {self.shown}, and {entries} is shown")
        confirmed = {id: entry.czxid for id, entry in entries.items() if entry.suspicion is None}
        if confirmed != {id: entry.czxid for id, entry in self.entries.items()}:
            raise Violated("Converged", f"{confirmed} is confirmed, and {list(self.entries)} is listed")
        for id, entry in entries.items():
            if entry.suspicion is None or entry.suspicion.reason == "file":
                self.fresh_seconds.pop(id, None)
                continue
            if id in self.entries:
                raise Violated("Guarded", f"{id} is listed and suspect")
            if id in self.withdrawn:
                raise Violated("Guarded", f"{id} was withdrawn and is suspect")
            if self.fresh_seconds.setdefault(id, 0.0) > GUARD.hold:
                raise Violated("Guarded", f"{id} is held for {self.fresh_seconds[id]} s")
        meant = {id for id, each in self.overrides.items() if id in entries and each.applies_to(entries[id].instance)}
        check_obeyed(seen=meant, picked=[id for id, entry in entries.items() if entry.instance.enabled])
        if held := {id for id, entry in entries.items() if not entry.instance.enabled} - meant:
            raise Violated("Obeyed", f"{held} in maintenance, and no override says so")


# ---------------------------------------------------------------- what can happen

Move = Callable[[World], bool]
"""Returns False where it cannot happen."""


def comes(world: World, id: str) -> bool:
    if id in world.truth:
        return False
    world._create(id)
    world.withdrawn.discard(id)
    if world.fresh:
        world._learn()
    return True


def expires(world: World, id: str) -> bool:
    if world.truth.pop(id, None) is None:
        return False
    world.zxid += 1
    if world.fresh:
        world._learn()
    return True


def is_withdrawn(world: World, id: str) -> bool:
    """Before the view's eyes, or while it is away, when no marker is seen."""
    entry = world.truth.pop(id, None)
    if entry is None:
        return False
    world.zxid += 1
    if world.fresh:
        world.withdrawn.add(id)
        world.tell(Withdrawn(id, entry.czxid))
        world._learn()
    return True


def is_disrupted(world: World) -> bool:
    if not world.fresh:
        return False
    world.fresh = False
    world.tell(FreshnessChanged(False))
    return True


def is_listed_anew(world: World) -> bool:
    if world.fresh:
        return False
    world.fresh = True
    world._learn(resynced=True)
    world.tell(FreshnessChanged(True))
    return True


def is_elected(world: World) -> bool:
    world.zxid = (world.zxid // EPOCH + 1) * EPOCH
    if world.fresh:
        world._learn()
    return True


def refuses(world: World, id: str) -> bool:
    if id not in world.shown:
        return False
    world.tell(Called(id, True, world.now - 0.1))
    return True


def answers(world: World, id: str) -> bool:
    if id not in world.shown:
        return False
    world.tell(Called(id, False, world.now))
    return True


def the_clock_goes_on(world: World) -> bool:
    """To when the core wants to be woken, or by a while."""
    seconds = 7.0 if world.wake is None or world.wake <= world.now else world.wake - world.now
    world.now += seconds
    if world.fresh:
        for id in world.fresh_seconds:
            world.fresh_seconds[id] += seconds
    if world.wake is not None:
        world.tell(Due())
    return True


def is_overridden(world: World, id: str) -> bool:
    """Or is no more."""
    if world.overrides.pop(id, None) is None:
        shown = world.shown.get(id)
        meant = None if shown is None else shown.instance.registration_time_ms
        world.overrides[id] = Override(
            service="chat",
            id=id,
            enabled=False,
            reason="",
            by="",
            since=WALL,
            until=None,
            registration_time_ms=meant,
            version=0,
        )
    world.tell(Overridden(MappingProxyType(dict(world.overrides))))
    return True


def moves() -> dict[str, Move]:
    found: dict[str, Move] = {}
    for kind in (comes, expires, is_withdrawn, refuses, answers, is_overridden):
        for id in IDS:
            found[f"{id} {kind.__name__}"] = lambda world, kind=kind, id=id: kind(world, id)  # type: ignore[misc]
    for each in (is_disrupted, is_listed_anew, is_elected, the_clock_goes_on):
        found[each.__name__] = each
    return found


MOVES: Final[Mapping[str, Move]] = MappingProxyType(moves())

BEGINNINGS: Final[Mapping[str, Callable[[], World]]] = MappingProxyType(
    {
        "nobody is there": lambda: World((), None, away=False),
        "both are there": lambda: World(IDS, None, away=False),
        "a file keeps both, and there is no connection": lambda: World(IDS, IDS, away=True),
        "a file keeps both, and nobody is there": lambda: World((), IDS, away=False),
        "a file keeps one, and the other is there": lambda: World(("b",), ("a",), away=False),
    }
)


class Walked(NamedTuple):
    """The findings.

    Args:
        ways: how many were walked to their end.
        depth: of which all were walked; 0 where the time was over before.
        violation: the first, if any, and how it came to it.
    """

    ways: int
    depth: int
    violation: AssertionError | None = None
    story: tuple[str, ...] = ()


def walk(deepest: int, *, seconds: float, among: Sequence[str] = tuple(MOVES)) -> Walked:
    """Walk all ways of 1, 2, … *deepest* moves, of all or *among* some, in at most *seconds* of the processor."""
    until, ways, depth = time.process_time() + seconds, 0, 0
    for depth in range(1, deepest + 1):
        for beginning, begin in BEGINNINGS.items():
            for way in _ways(depth, among):
                try:
                    way.ended = _walked(begin(), way.names)
                except AssertionError as violation:
                    return Walked(ways, depth, violation, (beginning, *way.names))
                ways += 1
                if time.process_time() > until:
                    return Walked(ways, depth - 1)
    return Walked(ways, depth)


class _Way:
    """A way, and which of its moves could not be made."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.ended: int | None = None


def _ways(depth: int, among: Sequence[str], prefix: tuple[str, ...] = ()) -> Iterator[_Way]:
    """All sequences of so many moves; of those that share an end that came early, one."""
    for name in among:
        names = (*prefix, name)
        if len(names) < depth:
            yield from _ways(depth, among, names)
            continue
        way = _Way(names)
        yield way
        if way.ended is not None and way.ended < depth - 1:
            return


def _walked(world: World, names: tuple[str, ...]) -> int | None:
    for number, name in enumerate(names):
        if not MOVES[name](world):
            return number
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.explore_core", description=__doc__)
    parser.add_argument("--depth", type=int, default=9, help="moves at most (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of the processor (default %(default)s)")
    options = parser.parse_args()
    found = walk(options.depth, seconds=options.seconds)
    if found.violation is not None:
        print(*found.story, found.violation, sep="\n")
        return 1
    print(f"{found.ways} ways, all of {found.depth} moves")
    return 0


if __name__ == "__main__":
    sys.exit(main())
