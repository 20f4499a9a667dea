"""The fixtures that tests of the console share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import aioregistry
from aioregistry import Registry
from tests.support.zookeeper import ZooKeeperServer


@pytest.fixture
async def registry(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[Registry]:
    async with aioregistry.connect(zookeeper.address + chroot) as registry:
        yield registry


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"
