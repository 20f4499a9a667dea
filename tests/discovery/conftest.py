"""A service in memory, a session that reads it, and a discovery that leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aioregistry._discovery import Discovery
from tests.discovery.scene import DiscoverySession, Service, check_nothing_is_left, discovery
from tests.support.model_tree import ModelTree


@pytest.fixture
def tree() -> ModelTree:
    return ModelTree()


@pytest.fixture
def service(tree: ModelTree) -> Service:
    return Service(tree)


@pytest.fixture
def session(tree: ModelTree) -> DiscoverySession:
    session = DiscoverySession(tree)
    session.connect()
    return session


@pytest.fixture
async def found(session: DiscoverySession) -> AsyncIterator[Discovery]:
    found = discovery(session)
    yield found
    await found.aclose()
    check_nothing_is_left(session)
