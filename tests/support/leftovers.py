"""The open tasks and sockets of a process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path

from aioregistry.testing._proxy import TcpProxy

DEADLINE = 100.0


def other_tasks() -> set[asyncio.Task[object]]:
    """The tasks of this loop, the one that asks excepted."""
    return asyncio.all_tasks() - {asyncio.current_task()}


def open_sockets() -> set[str]:
    """The sockets of this process, the kernel's names for them."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.add(str(descriptor.readlink()))
    return {name for name in found if name.startswith("socket:")}


@contextlib.asynccontextmanager
async def nothing_left(*proxies: TcpProxy) -> AsyncIterator[None]:
    """All that is opened inside is closed when it ends: no task at all, and no socket a moment later.

    Args:
        proxies: those in use, whose ends of the connections are in this process too. They get no help: a connection
            that only the client leaves open stays, and shows.
    """
    tasks, sockets = other_tasks(), len(open_sockets())
    yield
    assert other_tasks() <= tasks
    for proxy in proxies:
        proxy.restore()  # what is silent does not see the other end close
    async with asyncio.timeout(DEADLINE):
        while len(open_sockets()) > sockets:  # a transport closes its socket in the turn after it was told to
            await asyncio.sleep(0.001)
    gc.collect()  # what was dropped unclosed warns now, in the test that it belongs to
