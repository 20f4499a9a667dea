"""A worker without a port, `python docs/examples/worker.py HOST:PORT/CHROOT`: it takes a job a line from stdin.

It is listed in the service `workers` for as long as it takes jobs. On SIGTERM it is listed as draining, takes no
further job, finishes the one that it has, and withdraws. A second SIGTERM withdraws at once.
"""

from __future__ import annotations

import asyncio
import sys

from aioregistry.integrations.membership import Membership


async def work(lines: asyncio.StreamReader, stopping: asyncio.Event) -> None:
    """Do one job after the other, until there are no more or the worker is to stop."""
    while not stopping.is_set() and (line := await lines.readline()):
        seconds = float(line)
        print(f"begun {seconds:g}", flush=True)
        await asyncio.sleep(seconds)  # the job
        print(f"done {seconds:g}", flush=True)


async def main(servers: str) -> None:
    """Work until a signal comes, listed in the ZooKeeper of *servers*."""
    lines = asyncio.StreamReader()
    reader = asyncio.StreamReaderProtocol(lines)
    queue, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: reader, sys.stdin)
    stopping = asyncio.Event()
    working = asyncio.create_task(work(lines, stopping))

    async def finish() -> None:
        stopping.set()  # no more jobs, also of those that have come already
        queue.close()  # ends the wait for the next one
        await working

    membership = Membership(servers, "workers", payload={"kind": "sleeper"}, drain=0.2)
    came = await membership.serve_until_signal(drain=finish)
    print(f"ended by {came.name}", flush=True)
    working.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
