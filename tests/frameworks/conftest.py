"""Fixtures for servers that are members of a service on the shared ZooKeeper."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

import aioregistry
from aioregistry import Registry
from aioregistry.testing._ports import ReservedPort


@pytest.fixture
async def registry(servers: str) -> AsyncIterator[Registry]:
    """The observer's registry."""
    async with aioregistry.connect(servers) as registry:
        yield registry


@pytest.fixture
def port() -> Iterator[int]:
    with ReservedPort() as reserved:
        yield reserved.number


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        yield session
