from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.interop.curator import SOURCES, SPRING, CuratorPeer, JavaPrograms, curator_peer
from tests.support.embedded import embedded_server
from tests.support.zookeeper import ZooKeeperServer


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> JavaPrograms:
    return JavaPrograms.compile(SOURCES, tmp_path_factory.mktemp("classes"))


@pytest.fixture
def real_place(zookeeper: ZooKeeperServer, chroot: str) -> str:
    """The shared server, and a chroot of the test's own."""
    return zookeeper.address + chroot


@pytest.fixture
def embedded_place() -> Iterator[str]:
    """An embedded server of the test's own."""
    with embedded_server() as server:
        yield server.address


@pytest.fixture(params=["real", "embedded"])
def place(request: pytest.FixtureRequest) -> str:
    """The connect string that both sides use."""
    place: str = request.getfixturevalue(f"{request.param}_place")
    return place


@pytest.fixture
async def curator(programs: JavaPrograms, place: str) -> AsyncIterator[CuratorPeer]:
    """Curator as most use it: any payload, `enabled` not written."""
    async with curator_peer(programs, place) as peer:
        yield peer


@pytest.fixture
async def full_curator(programs: JavaPrograms, place: str) -> AsyncIterator[CuratorPeer]:
    """Curator with a serializer that writes `enabled`."""
    async with curator_peer(programs, place, writes_enabled=True) as peer:
        yield peer


@pytest.fixture
async def spring(programs: JavaPrograms, place: str) -> AsyncIterator[CuratorPeer]:
    """Curator as Spring Cloud Zookeeper uses it."""
    async with curator_peer(programs, place, payload_class=SPRING) as peer:
        yield peer
