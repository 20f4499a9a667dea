"""The worth and the cost of `view.sync()` and of the audits of views: `python -m benchmarks.syncing [--rounds N]`.

On a real ensemble of three members on loopback. A client writes through a follower and waits for the answer; a view on
the leader is synced at once, and must show the write. For comparison ZooKeeper's own `sync`, followed by a read, is
asked the same. Then many views of one service rest, and what their audits ask of a server is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from statistics import quantiles
from typing import Final

import aioregistry
from aioregistry._discovery import follower
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support import wire
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperEnsemble

NODES: Final = 100
VIEWS: Final = 1000
AT_ONCE: Final = 50
"""Views that are opened side by side."""
PERIODS: Final = 3

Ask = Callable[[], Awaitable[object]]


async def missed(writer: wire.Wire, path: str, name: str, ask: Ask, rounds: int) -> None:
    """Print how often this way of asking did not show what had been acknowledged, and how long it took."""
    behind, took = 0, []
    for number in range(rounds):
        await writer.set_data(path, document("a", number))
        began = time.perf_counter()
        seen = await ask()
        took.append(time.perf_counter() - began)
        behind += seen != number
    cuts = quantiles(took, n=100)
    print(f"{name}: {behind} of {rounds} missed; median {cuts[49] * 1e3:.2f} ms, 99 % {cuts[98] * 1e3:.2f} ms")


async def audits(servers: str, base: str) -> None:
    """Print what the audits of many views, each in a session of its own, ask of a server."""
    host, _, port = servers.rpartition(":")
    with ZooKeeperProxy((host, int(port))) as proxy:
        async with contextlib.AsyncExitStack() as stack:

            async def view() -> None:
                connecting = aioregistry.connect(proxy.address, base_path=base, session_timeout=60)
                registry = await stack.enter_async_context(connecting)
                _ = await stack.enter_async_context(registry.discover("many"))

            for _ in range(VIEWS // AT_ONCE):
                await asyncio.gather(*(view() for _ in range(AT_ONCE)))
            before, began = Counter(proxy.requests), time.monotonic()
            await asyncio.sleep(PERIODS * follower.AUDIT)
            seconds = time.monotonic() - began
            asked = Counter(proxy.requests) - before
            for name, opcode in (("lists", 12), ("reads of nodes", 22), ("heartbeats", 9)):
                print(f"{VIEWS} views of {NODES} instances: {asked[opcode] / seconds:.1f} {name} a second")
            others = sum(asked.values()) - asked[12] - asked[22] - asked[9]
            print(f"{VIEWS} views of {NODES} instances: {others} other requests in {seconds:.0f} s")


def document(id: str, number: int = 0) -> bytes:
    """An instance as another program may write it."""
    fields = {"name": "many" if id.startswith("n") else "chat", "id": id, "address": "10.0.0.7", "port": 7000}
    return json.dumps({**fields, "payload": number}).encode()


async def main(rounds: int) -> None:
    """Measure."""
    base = f"/{uuid.uuid4().hex}"
    path = f"{base}/chat/a"
    with ZooKeeperEnsemble() as ensemble:
        await ensemble.start()
        leader, written_at = ensemble.leader(), ensemble.followers()[0]
        async with (
            Judge(written_at.address) as judge,
            aioregistry.connect(leader.address, base_path=base, guard=None) as registry,
        ):
            await judge.make(path, document("a"))
            async with (
                registry.discover("chat") as view,
                await wire.connect(leader.address) as plain,
                await wire.connect(written_at.address) as writer,
            ):

                async def synced() -> object:
                    return (await view.sync())["a"].payload

                async def zookeepers() -> object:
                    sync, read = plain.send(wire.sync(path)), plain.send(wire.get_data(path))
                    await plain.reply(sync)
                    return json.loads((await plain.reply(read)).body.buffer())["payload"]

                if rounds:
                    await missed(writer, path, "view.sync()", synced, rounds)
                    await missed(writer, path, "ZooKeeper's sync and a read", zookeepers, rounds)
            for number in range(NODES):
                await judge.make(f"{base}/many/n{number}", document(f"n{number}"))
        await audits(written_at.address, base)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3000, help="0: only what audits ask")
    asyncio.run(main(parser.parse_args().rounds))
