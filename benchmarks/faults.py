"""The effect of faults on a registered instance: `python -m benchmarks.faults [--contenders NAME …] [--only WORD …]`.

For every fault and contender: seconds for which a live instance is not listed, as an outside observer with a connection
of its own sees it, from the end of the fault on (or over the whole span, where the row says so); "missing" where it was
not listed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks import report
from benchmarks.claimants import Claimant, Claimants
from benchmarks.contender import SESSION_TIMEOUT as T
from benchmarks.lab import SessionProxy, server
from benchmarks.workload import Sample, samples
from tests.support.judge import POLL_INTERVAL, Chronicle, Judge, Sight
from tests.support.zookeeper import ZooKeeperServer

SETTLED = 2 * T  # how long to look on: what an old session takes with it goes within a timeout and the ticks around it
PATIENCE = 5 * T  # how much longer to wait for what is not listed
START_TIMEOUT = 60.0


class Scene:
    """One contender, its network, and who watches."""

    def __init__(self, contender: str, zookeeper: ZooKeeperServer, sample: Sample) -> None:
        self.contender = contender
        self.server = zookeeper
        self.sample = sample
        self.proxy = SessionProxy((zookeeper.host, zookeeper.port))
        self.judge = Judge(zookeeper.address)
        self.chronicle = Chronicle(zookeeper.address, sample.path)
        self._claimants = Claimants()

    async def claim(self, *, directly: bool = False) -> Claimant:
        """Start one more process that registers the instance; through the proxy, unless *directly*."""
        address = self.server.address if directly else self.proxy.address
        return await self._claimants.start(self.contender, address, self.sample)

    async def claimed(self, *, directly: bool = False) -> Claimant:
        """The same, and wait until it says that the instance is listed, and the observer has seen it."""
        claimant = await self.claim(directly=directly)
        async with asyncio.timeout(START_TIMEOUT):
            await claimant.registering
            while self.chronicle.sights[-1].node is None:
                await asyncio.sleep(POLL_INTERVAL)
        return claimant

    async def settle(self, seconds: float = SETTLED) -> None:
        """Look on for a while, and longer for what is not listed."""
        await asyncio.sleep(seconds)
        with contextlib.suppress(TimeoutError):
            await self.judge.node_until(self.sample.path, lambda node: node is not None, timeout=PATIENCE)

    async def __aenter__(self) -> Scene:
        for path in ("/services", f"/services/{self.sample.service}"):
            await self.judge.make(path)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._claimants.end()
        self.proxy.close()
        await self.judge.__aexit__()


class Outcome(NamedTuple):
    """The states that the observer saw from `start` on; `flips` are changes of owner."""

    missing: bool
    seconds: float
    flips: int

    def __str__(self) -> str:
        if self.missing:
            return "missing"
        return f"{self.seconds:.2f}" + (f" ({self.flips} flips)" if self.flips > 1 else "")


def outcome(sights: list[Sight], start: float, end: float) -> Outcome:
    """How long the node was gone between *start* and *end*."""
    spans = zip(sights, [*(sight.time for sight in sights[1:]), end], strict=True)
    gone = sum(max(0.0, until - max(sight.time, start)) for sight, until in spans if sight.node is None)
    return Outcome(sights[-1].node is None, gone, flips(sights))


def flips(sights: list[Sight]) -> int:
    owners = [sight.node.stat.owner for sight in sights if sight.node is not None]
    return sum(before != after for before, after in itertools.pairwise(owners))


# ---------------------------------------------------------------- faults
# Each returns when the fault is over and everything may be well again: what is missed from then on counts.


async def cut(scene: Scene) -> None:
    await scene.claimed()
    scene.proxy.cut()


async def cut_ten_times(scene: Scene) -> None:
    await scene.claimed()
    for _ in range(10):
        scene.proxy.cut()
        await asyncio.sleep(0.2)


async def refused(scene: Scene) -> None:
    await scene.claimed()
    scene.proxy.refuse()
    scene.proxy.cut()
    await asyncio.sleep(T / 2)
    scene.proxy.accept()


async def short_silence(scene: Scene) -> None:
    await scene.claimed()
    scene.proxy.silence()
    await asyncio.sleep(T / 2)
    scene.proxy.heal()


async def long_silence(scene: Scene) -> None:
    await scene.claimed()
    scene.proxy.silence()
    await asyncio.sleep(2.5 * T)
    scene.proxy.heal()


async def forced_expiry(scene: Scene) -> None:
    await scene.claimed()
    await scene.proxy.expire()


async def deleted_by_hand(scene: Scene) -> None:
    await scene.claimed()
    await scene.judge.delete(scene.sample.path)


async def killed_and_restarted(scene: Scene) -> None:
    await (await scene.claimed()).kill()
    await scene.claimed()


async def stopped(scene: Scene) -> None:
    claimant = await scene.claimed()
    claimant.signal(signal.SIGSTOP)
    await asyncio.sleep(2.5 * T)
    claimant.signal(signal.SIGCONT)


async def server_restarted(scene: Scene) -> None:
    await scene.claimed()
    await scene.server.restart()


async def server_down(scene: Scene) -> None:
    await scene.claimed()
    scene.server.kill()
    await asyncio.sleep(4 * T)
    await scene.server.start()


async def server_wiped(scene: Scene) -> None:
    await scene.claimed()
    scene.server.kill()
    scene.server.wipe()
    await scene.server.start()


async def server_late(scene: Scene) -> None:
    scene.server.kill()
    await scene.claim()
    await asyncio.sleep(2 * T)
    await scene.server.start()


async def replaced(scene: Scene) -> None:
    old = await scene.claimed()
    await scene.claimed(directly=True)
    old.signal(signal.SIGTERM)


async def ghost_of_three(scene: Scene) -> None:
    await (await scene.claimed()).kill()
    for claimant in [await scene.claim() for _ in range(3)]:
        await asyncio.wait({claimant.registering}, timeout=T)


async def two_claimants(scene: Scene) -> None:
    await scene.claimed()
    await scene.claim(directly=True)
    await asyncio.sleep(5 * T)


# ---------------------------------------------------------------- rows


async def missed_after(scene: Scene, fault: Callable[[Scene], Awaitable[None]]) -> str:
    await fault(scene)
    start = time.monotonic()
    await scene.settle()
    return str(outcome(scene.chronicle.sights, start, time.monotonic()))


async def missed_since_registered(scene: Scene, fault: Callable[[Scene], Awaitable[None]]) -> str:
    await fault(scene)
    await scene.settle()
    sights = list(itertools.dropwhile(lambda sight: sight.node is None, scene.chronicle.sights))
    return str(outcome(sights, sights[0].time, time.monotonic()))


async def owner_changes(scene: Scene, fault: Callable[[Scene], Awaitable[None]]) -> str:
    await fault(scene)
    await scene.settle()
    sights = scene.chronicle.sights
    return "missing" if sights[-1].node is None else str(flips(sights))


async def listed_after_sigterm(scene: Scene, _: Callable[[Scene], Awaitable[None]]) -> str:
    claimant = await scene.claimed()
    start = time.monotonic()
    claimant.signal(signal.SIGTERM)
    await scene.judge.node_until(scene.sample.path, lambda node: node is None, timeout=PATIENCE)
    return f"{time.monotonic() - start:.2f}"


async def nothing(_: Scene) -> None:
    """The fault is the end itself."""


Row = tuple[Callable[[Scene, Callable[[Scene], Awaitable[None]]], Awaitable[str]], Callable[[Scene], Awaitable[None]]]

ROWS: dict[str, Row] = {
    "cut once": (missed_after, cut),
    "cut ten times": (missed_since_registered, cut_ten_times),
    "refused for T/2": (missed_after, refused),
    "silence for T/2": (missed_after, short_silence),
    "silence for 2.5 T (after it ends)": (missed_after, long_silence),
    "forced expiry": (missed_after, forced_expiry),
    "node deleted by hand": (missed_after, deleted_by_hand),
    "killed, restarted within T (whole span)": (missed_since_registered, killed_and_restarted),
    "stopped 2.5 T, continued (after)": (missed_after, stopped),
    "server killed and restarted": (missed_after, server_restarted),
    "server down 4 T (after it is back)": (missed_after, server_down),
    "server wiped (after it is back)": (missed_after, server_wiped),
    "SIGTERM: still listed for": (listed_after_sigterm, nothing),
    "two claimants: owner changes in 5 T": (owner_changes, two_claimants),
    "server comes 2 T late: listed after": (missed_after, server_late),
    "a new process takes over, the old one then ends (whole span)": (missed_since_registered, replaced),
    "three processes find one ghost: owner changes": (owner_changes, ghost_of_three),
}

CONTENDERS = ("aioregistry", "kazoo_naive", "kazoo", "aiozk")


async def take(row: Row, contender: str, zookeeper: ZooKeeperServer, sample: Sample) -> str:
    measure, fault = row
    async with Scene(contender, zookeeper, sample) as scene, scene.chronicle:
        return await measure(scene, fault)


async def run(rows: list[str], contenders: list[str]) -> None:
    found: dict[str, dict[str, str]] = {}
    numbers = itertools.count()
    with server() as zookeeper:
        await zookeeper.start()
        for row in rows:
            found[row] = {}
            for contender in contenders:
                (sample,) = samples(f"fault-{next(numbers)}", 1)
                found[row][contender] = await take(ROWS[row], contender, zookeeper, sample)
                print(f"{row}: {contender}: {found[row][contender]}", file=sys.stderr)
        circumstances = report.circumstances(zookeeper.version)
    whole = rows == list(ROWS) and set(contenders) >= set(CONTENDERS) and not any("@" in each for each in contenders)
    path = report.write("faults", {**circumstances, "session_timeout": T, "faults": found}, whole=whole)
    table = [["fault", *contenders], *([row, *cells.values()] for row, cells in found.items())]
    print(report.table(table), f"T is {T:g} s; written to {path}", sep="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description="Seconds that a live service is missed."
    )
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="faults whose name has this in it")
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=list(CONTENDERS),
        metavar="NAME",
        help="also: curator, curator_node (need a JDK)",
    )
    options = parser.parse_args()
    asyncio.run(run([row for row in ROWS if any(word in row for word in options.only)], options.contenders))


if __name__ == "__main__":
    main()
