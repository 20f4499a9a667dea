"""Records the runs that the timelines show: `python -m tools.pictures.record`.

Each run takes some seconds, on the embedded server, with sessions of four seconds. It records what the handles
and the views said, and when.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aioregistry
from aioregistry import Guard, Registration, Registry, ServiceInstance, Status, View
from aioregistry.server import ZooKeeperServer
from aioregistry.testing import TcpProxy

from .__main__ import FOLDER

__all__ = ["main"]

TIMEOUT: Final = 4.0
KINDS: Final = {
    Status.LIVE: "good",
    Status.REGISTERING: "quiet",
    Status.UNCERTAIN: "doubt",
    Status.PRESUMED_GONE: "doubt",
    Status.DISPLACED: "bad",
    Status.FAILED: "bad",
    Status.CLOSED: "quiet",
}


class Recorder:
    """The states in each lane, from its beginning on."""

    def __init__(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._lanes: dict[str, list[tuple[float, str, str]]] = {}
        self._marks: list[dict[str, Any]] = []

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    def say(self, lane: str, text: str, kind: str) -> None:
        said = self._lanes.setdefault(lane, [])
        if not said or said[-1][1:] != (text, kind):
            said.append((self.now(), text, kind))

    def mark(self, text: str) -> None:
        self._marks.append({"at": round(self.now(), 2), "text": text, "row": len(self._marks) % 2})

    async def until(self, moment: float) -> None:
        await asyncio.sleep(moment - self.now())

    def run(self, title: str) -> dict[str, Any]:
        seconds = round(self.now(), 1)
        lanes = []
        for name, said in self._lanes.items():
            ends = [*(begin for begin, _, _ in said[1:]), seconds]
            lanes.append(
                {
                    "name": name,
                    "segments": [
                        {"from": round(begin, 2), "to": round(end, 2), "text": text, "kind": kind}
                        for (begin, text, kind), end in zip(said, ends, strict=True)
                    ],
                }
            )
        return {"title": title, "seconds": seconds, "marks": self._marks, "lanes": lanes}


@asynccontextmanager
async def watching(*jobs: Awaitable[None]) -> AsyncIterator[None]:
    """Run *jobs* beside the block, and cancel them at its end."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def tell_status(recorder: Recorder, lane: str, registration: Registration[Any]) -> None:
    recorder.say(lane, registration.status.name, KINDS[registration.status])
    async for status in registration.statuses():
        recorder.say(lane, status.name, KINDS[status])


async def tell_view(
    recorder: Recorder, lane: str, view: View[Any], words: Callable[[View[Any]], tuple[str, str]]
) -> None:
    async for _ in view.snapshots():
        recorder.say(lane, *words(view))


async def takeover() -> dict[str, Any]:
    """Record a process that stands still, and another one that takes its id."""
    async with ZooKeeperServer() as server, AsyncExitStack() as stack:
        network = stack.enter_context(TcpProxy((server.host, server.port)))

        async def connect(address: str) -> Registry:
            return await stack.enter_async_context(aioregistry.connect(address, session_timeout=TIMEOUT))

        first, second, third = (
            await connect(network.address),
            await connect(server.address),
            await connect(server.address),
        )
        me = ServiceInstance("chat", address="10.0.0.7", port=7000)
        view = await stack.enter_async_context(third.discover("chat"))
        recorder = Recorder()
        owners: dict[int, str] = {}

        def owner(view: View[Any]) -> tuple[str, str]:
            entry = view.snapshot.entries.get(me.id)
            return (
                (f"owned by {owners.setdefault(entry.owner, 'AB'[len(owners) % 2])}", "good") if entry else ("-", "bad")
            )

        old = await stack.enter_async_context(first.register(me))
        async with watching(
            tell_status(recorder, "process A", old), tell_view(recorder, "the node in ZooKeeper", view, owner)
        ):
            await recorder.until(2)
            recorder.mark("A is cut off from ZooKeeper")
            network.silence()
            await recorder.until(4)
            recorder.mark("B registers the id")
            new = await second.register(me, wait=False)
            async with watching(tell_status(recorder, "process B", new)):
                await recorder.until(9)
                recorder.mark("the network is back")
                network.heal()
                await recorder.until(11)
                recorder.mark("B ends")
                await new.aclose()
                await recorder.until(13)
        return recorder.run("A takeover: process B gets the id of process A, which is cut off, and A stands by")


async def outage() -> dict[str, Any]:
    """Record consumers with and without a guard while all instances are cut off from ZooKeeper."""
    async with ZooKeeperServer() as server, AsyncExitStack() as stack:
        network = stack.enter_context(TcpProxy((server.host, server.port)))
        owners = [
            await stack.enter_async_context(aioregistry.connect(network.address, session_timeout=TIMEOUT))
            for _ in range(5)
        ]
        for number, registry in enumerate(owners):
            me = ServiceInstance("chat", address=f"10.0.0.{number}", port=7000)
            registration = await registry.register(me)
            stack.push_async_callback(registration.aclose)
        consumer = await stack.enter_async_context(aioregistry.connect(server.address))
        guarded = await stack.enter_async_context(consumer.discover("chat", guard=Guard(hold=30)))
        believing = await stack.enter_async_context(consumer.discover("chat", guard=None))
        recorder = Recorder()

        def counted(view: View[Any]) -> tuple[str, str]:
            suspects = len(view.snapshot.suspects)
            text = f"{len(view.snapshot)} instances" + (f", {suspects} suspect" if suspects else "")
            return text, "doubt" if suspects else "good" if view.snapshot else "bad"

        async with watching(
            tell_view(recorder, "without a guard", believing, counted),
            tell_view(recorder, "with the guard", guarded, counted),
        ):
            recorder.say("the instances", "connected", "good")
            await recorder.until(2)
            recorder.mark("all are cut off from ZooKeeper")
            recorder.say("the instances", "alive, and cut off", "doubt")
            network.silence()
            await recorder.until(12)
            recorder.mark("the network is back")
            recorder.say("the instances", "connected", "good")
            network.heal()
            await recorder.until(16)
        return recorder.run("An outage: five live instances lose ZooKeeper, and what two consumers see")


async def record() -> None:
    for name, run in (("takeover", takeover), ("outage", outage)):
        text = json.dumps(await run(), indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def main() -> int:
    """Record every run; return 0."""
    asyncio.run(record())
    return 0


if __name__ == "__main__":
    sys.exit(main())
