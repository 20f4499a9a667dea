"""The benefit and the cost of a guard: `python -m benchmarks.outages [--seeds N]`. Needs no server.

Simulated worlds (docs/simulation.md): one service of many instances, and a consumer that picks ten times a second from
three views of it, one without guard, one with it, one with it and with reports of how each call went. Every pick is
held against the truth: whether the process that was picked lives at that moment. How uneven the picks are is told by
the instance that had most of them in any ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import Any, Final

from aioregistry import Ejection, Guard, NoInstances
from tests.simulation.process import Claim, Part, Process, Stage
from tests.simulation.world import Profile, World

SERVICE: Final = "s1"
CALM: Final = 30.0
"""Seconds before the trouble begins."""

MEASURED: Final = 90.0
"""Seconds from the beginning of the trouble."""

TICK: Final = 0.1
"""Seconds from pick to pick."""

WINDOW: Final = 10.0
"""Seconds of picks that are looked at together: how many of them the busiest instance got."""

CALM_SERVERS: Final = Profile(
    length=0.0, weights={"cut": 1}, processes=(1, 1), services=1, sizes=(3,), timeouts=(10.0,), versions=("3.8",)
)


@dataclass(frozen=True)
class Consumer:
    """How a consumer picks.

    Args:
        guard: of its view.
        reports: whether it tells how each call went, with ejection.
    """

    guard: Guard | None
    reports: bool = False


CONSUMERS: Final[Mapping[str, Consumer]] = MappingProxyType(
    {
        "without guard": Consumer(None),
        "guard": Consumer(Guard()),
        "guard and reports": Consumer(Guard(), reports=True),
    }
)


@dataclass
class Tally:
    """Picks, by what became of them: of an instance that was there, of one that was not, of nothing."""

    reached: int = 0
    dead: int = 0
    nothing: int = 0
    by_window: dict[int, Counter[str]] = field(default_factory=dict)
    """How often each instance was picked, of each ten seconds."""

    def note(self, id: str, now: float) -> None:
        self.by_window.setdefault(int(now // WINDOW), Counter())[id] += 1

    def busiest(self, instances: int) -> float:
        """The picks of the busiest instance in any ten seconds, as a multiple of its fair share of these."""
        fair = WINDOW / TICK / instances
        return max((max(counts.values()) for counts in self.by_window.values()), default=0) / fair

    @property
    def share(self) -> float:
        """Of the picks, those that reached an instance."""
        return self.reached / (self.reached + self.dead + self.nothing)

    @property
    def seconds_on_dead(self) -> float:
        return self.dead * TICK

    @property
    def seconds_of_nothing(self) -> float:
        return self.nothing * TICK


class Outage(World):
    """A world with one trouble in it.

    Args:
        seed: decides about everything.
        trouble: what happens; it may take its time.
        instances: how many there are.
    """

    def __init__(self, seed: int, trouble: Trouble, *, instances: int = 20) -> None:
        super().__init__(seed, CALM_SERVERS, faults=[])
        self.tallies = {name: Tally() for name in CONSUMERS}
        self.consumer: Process
        self.parts = [part_of(number) for number in range(1, instances + 1)]
        self._trouble = trouble
        self._measuring = False
        self._since = 0.0

    async def _whole(self) -> None:
        await self._begin()
        self.consumer = self.launch(Part("consumer"))
        for name in CONSUMERS:
            self.consumer.go(self._consume(CONSUMERS[name], self.tallies[name]))
        await asyncio.sleep(CALM)
        self._measuring, self._since = True, asyncio.get_running_loop().time()
        trouble = asyncio.ensure_future(self._trouble(self))
        await asyncio.sleep(MEASURED)
        self._measuring = False
        await trouble
        await self._end()

    async def _consume(self, consumer: Consumer, tally: Tally) -> None:
        view = await self.consumer.registry.discover(SERVICE, guard=consumer.guard)
        balancer = view.balancer("random", ejection=Ejection() if consumer.reports else None)
        while True:
            await asyncio.sleep(TICK)
            if self._measuring:
                self._pick(balancer, consumer, tally)

    def _pick(self, balancer: Any, consumer: Consumer, tally: Tally) -> None:
        try:
            pick = balancer.pick()
        except NoInstances:
            tally.nothing += 1
            return
        tally.note(pick.id, asyncio.get_running_loop().time() - self._since)
        there = any(process.part.claims[0].id == pick.id for process in self.serving())
        if there:
            tally.reached += 1
        else:
            tally.dead += 1
        if consumer.reports:
            if there:
                pick.succeeded()
            else:
                pick.failed(ConnectionRefusedError())  # its host is up, and nothing listens

    # ------------------------------------------------------------ what troubles ask for

    def serving(self) -> list[Process]:
        """The instances that a consumer would reach: one that leaves serves until it has left."""
        return [
            process
            for process in self.judges.processes
            if process.part.claims and process.stage in (Stage.UP, Stage.LEAVING)
        ]


def part_of(number: int) -> Part:
    return Part(f"p{number}", (Claim(SERVICE, f"a{number}"),), session_timeout=10.0)


Trouble = Callable[[Outage], Awaitable[None]]

# ---------------------------------------------------------------- troubles


async def all_sessions_expire(world: Outage) -> None:
    """Pit 12: the servers were away for four session timeouts, and when they are back no session is left."""
    ensemble = world.servers.ensemble
    await world.restart_servers(40.0, "kept")
    for session in list(ensemble.running_history().sessions.all()):
        ensemble.expire(session.id)


async def all_sessions_expire_and_the_consumer_is_first(world: Outage) -> None:
    """The same, where the instances reach the servers 5 to 15 seconds after the consumer does."""
    trouble = asyncio.ensure_future(all_sessions_expire(world))
    late = [_cut_off(world, process, 40.0 + 5.0 + 10.0 * world.network.draw.random()) for process in world.serving()]
    await asyncio.gather(trouble, *late)


async def the_instances_are_cut_off(world: Outage) -> None:
    """From the servers alone: clients that can reach an instance are told that it is gone."""
    await asyncio.gather(*(_cut_off(world, process, 30.0) for process in world.serving()))


async def two_thirds_are_cut_off(world: Outage) -> None:
    """The same for two of three, as when one of several networks fails: who is left gets all calls."""
    processes = world.serving()
    some = processes[: round(len(processes) * 2 / 3)]
    await asyncio.gather(*(_cut_off(world, process, 30.0) for process in some))


async def _cut_off(world: Outage, process: Process, seconds: float) -> None:
    ways = [way for server in world.servers.names for way in ((process.name, server), (server, process.name))]
    for way in ways:
        world.network.block(*way)
    await asyncio.sleep(seconds)
    for way in ways:
        world.network.unblock(*way)


async def the_data_are_lost(world: Outage) -> None:
    await world.restart_servers(15.0, "lost")


async def rolling_restart(world: Outage) -> None:
    """One after the other leaves, as on SIGTERM, and is back two seconds later."""
    for process in world.serving():
        await world.leave(process)
        await asyncio.sleep(2.0)
        world.launch(process.part)
        await asyncio.sleep(1.0)


async def all_restart_at_once(world: Outage) -> None:
    """All are killed, and back three seconds later under the same ids."""
    parts = [process.part for process in world.serving()]
    for process in world.serving():
        world.kill(process, crashed=False)
    await asyncio.sleep(3.0)
    for part in parts:
        world.launch(part)


async def a_third_dies(world: Outage) -> None:
    await _die(world, 0.3)


async def most_die(world: Outage) -> None:
    await _die(world, 0.8)


async def all_die(world: Outage) -> None:
    """For good: what a guard must get wrong."""
    await _die(world, 1.0)


async def _die(world: Outage, share: float) -> None:
    processes = world.serving()
    for process in processes[: round(share * len(processes))]:
        world.kill(process, crashed=False)


async def the_consumer_is_cut_off(world: Outage) -> None:
    """From the servers alone, while every instance is replaced by another under a new id, over 40 seconds."""
    cut_off = asyncio.ensure_future(_cut_off(world, world.consumer, 40.0))
    old = world.serving()
    for number, process in enumerate(old, start=len(old) + 1):
        world.launch(part_of(number))
        await asyncio.sleep(1.0)
        await world.leave(process)
        await asyncio.sleep(max(0.0, 38.0 / len(old) - 1.0))
    await cut_off


TROUBLES: Final[Mapping[str, Trouble]] = MappingProxyType(
    {
        "ZooKeeper away for 40 s, then all sessions expired": all_sessions_expire,
        "the same, and the consumer is the first to be back": all_sessions_expire_and_the_consumer_is_first,
        "ZooKeeper away for 15 s, then its data lost": the_data_are_lost,
        "all instances cut off from ZooKeeper for 30 s": the_instances_are_cut_off,
        "two thirds of the instances cut off for 30 s": two_thirds_are_cut_off,
        "rolling restart of all instances, each withdrawn": rolling_restart,
        "all instances killed, back after 3 s": all_restart_at_once,
        "30 % of the instances killed": a_third_dies,
        "80 % of the instances killed": most_die,
        "all instances killed, for good": all_die,
        "consumer cut off for 40 s, all instances replaced": the_consumer_is_cut_off,
    }
)

# ---------------------------------------------------------------- the table


def measured(trouble: Trouble, seeds: Iterable[int], *, instances: int = 20) -> dict[str, list[Tally]]:
    """Return what each consumer got, in the worlds of these seeds.

    Raises:
        Violated: something was wrong with a world itself.
    """
    found: dict[str, list[Tally]] = {name: [] for name in CONSUMERS}
    for seed in seeds:
        world = Outage(seed, trouble, instances=instances)
        outcome = world.run()
        if outcome.violation is not None:
            raise outcome.violation
        for name, tally in world.tallies.items():
            found[name].append(tally)
    return found


def row(name: str, found: Mapping[str, list[Tally]], *, instances: int = 20) -> str:
    cells = [
        f"{100 * fmean(tally.share for tally in tallies):.1f} % / "
        f"{fmean(tally.seconds_on_dead for tally in tallies):.1f} s / "
        f"{fmean(tally.seconds_of_nothing for tally in tallies):.1f} s / "
        f"{fmean(tally.busiest(instances) for tally in tallies):.1f}"
        for tallies in found.values()
    ]
    return f"| {' | '.join([name, *cells])} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outages", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="worlds for each trouble")
    parser.add_argument("--instances", type=int, default=20, help="of the service")
    options = parser.parse_args()
    print(f"| trouble | {' | '.join(CONSUMERS)} |\n|{' --- |' * (1 + len(CONSUMERS))}")
    for name, trouble in TROUBLES.items():
        found = measured(trouble, range(options.seeds), instances=options.instances)
        print(row(name, found, instances=options.instances), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
