"""A consumer that keeps what it sees: `python -m tests.integration.keeping SERVERS PATH`; says what, and waits."""

from __future__ import annotations

import asyncio
import sys

import aioregistry


async def main(servers: str, path: str) -> None:
    async with aioregistry.connect(servers) as registry, registry.discover("chat", keep=path) as chat:
        async for snapshot in chat.snapshots():
            print(*snapshot, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
