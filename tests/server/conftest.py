from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from aioregistry.server import ZooKeeperServer
from tests.support import wire
from tests.support.wire import Wire

Connect = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def server() -> AsyncIterator[ZooKeeperServer]:
    """An embedded server with sessions that last as long as any test."""
    async with ZooKeeperServer() as server:
        yield server


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`await connect(address, …)` as `wire.connect`; what is still open at the end is dropped."""
    opened: list[Wire] = []

    async def connected(address: str, **options: object) -> Wire:
        opened.append(await wire.connect(address, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield connected
    for connection in opened:
        connection.abandon()


@pytest.fixture
async def client(server: ZooKeeperServer, connect: Connect) -> Wire:
    return await connect(server.address)


@pytest.fixture
async def other(server: ZooKeeperServer, connect: Connect) -> Wire:
    """A second session."""
    return await connect(server.address)
