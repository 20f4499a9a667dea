"""A process that is registered and follows its own service, and writes down all the time what its handles claim.

Started as `python -m tests.integration.monitored SERVERS SESSION_TIMEOUT`. It prints the id of its session
whenever it became LIVE and that was written down, and on SIGTERM what was claimed, as a JSON array.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from typing import Any

import aioregistry
from aioregistry import Registration, ServiceInstance, Status, View

INTERVAL = 0.001


@dataclass
class Claim:
    """Something that was claimed from `first` to `last` at least, by the clock that counts sleep (one for all
    processes of a machine)."""

    of: str
    claimed: Any
    first: float
    last: float


@dataclass
class Record:
    """The claims of one handle, in order."""

    of: str
    claims: list[Claim] = field(default_factory=list)

    def write(self, now: float, claimed: Hashable) -> None:
        """At `now`, a moment before it was asked, the handle claimed this."""
        if self.claims and self.claims[-1].claimed == claimed:
            self.claims[-1].last = now
        else:
            self.claims.append(Claim(self.of, claimed, now, now))


def boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def ask_status(registration: Registration[Any], record: Record, over: threading.Event) -> None:
    """On a thread of its own, so that it also asks while the event loop is blocked or has not come to itself yet."""
    while not over.is_set():
        now = boot()
        status, owner = registration.status, registration.owner
        record.write(now, (status.name, owner))
        time.sleep(INTERVAL)


async def ask_freshness(view: View[Any], record: Record) -> None:
    while True:
        record.write(boot(), view.fresh)
        await asyncio.sleep(INTERVAL)


async def tell_sessions(registration: Registration[Any], record: Record) -> None:
    async for status in registration.statuses():
        if status is Status.LIVE:
            owner = registration.owner
            while (Status.LIVE.name, owner) not in [claim.claimed for claim in record.claims[-2:]]:
                await asyncio.sleep(INTERVAL)
            print(owner, flush=True)


async def main(servers: str, session_timeout: float) -> None:
    terminated, over = asyncio.Event(), threading.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    instance: ServiceInstance[None] = ServiceInstance("chat", id="a", address="127.0.0.1", port=7000)
    statuses, freshness = Record("registration"), Record("view")
    async with (
        aioregistry.connect(servers, session_timeout=session_timeout) as registry,
        registry.register(instance) as registration,
        registry.discover("chat") as view,
    ):
        thread = threading.Thread(target=ask_status, args=(registration, statuses, over))
        thread.start()
        tasks = [
            asyncio.create_task(ask_freshness(view, freshness)),
            asyncio.create_task(tell_sessions(registration, statuses)),
        ]
        await terminated.wait()
        over.set()
        thread.join()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    print(json.dumps([asdict(claim) for claim in (*statuses.claims, *freshness.claims)]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
