"""The pytest plugin: ``zookeeper``, ``zookeeper_ensemble`` and ``registry``.

Loaded in every pytest run where aioregistry is installed, so nothing is imported before a fixture is asked for. The
servers are synchronous fixtures, on a thread of their own; ``registry`` lives on the test's event loop, whoever runs
it: pytest-asyncio in either mode, or anyio's plugin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aioregistry import Registry

    from ._servers import ZooKeeper, ZooKeeperEnsemble

__all__ = ["pytest_addoption", "pytest_configure", "registry", "zookeeper", "zookeeper_ensemble"]

OPTION = "--aioregistry-zookeeper"
MARKER = "zookeeper"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs the tests against a real ZooKeeper."""
    parser.getgroup("aioregistry").addoption(
        OPTION, metavar="HOST:PORT", help="run tests with the `zookeeper` fixture against this ZooKeeper"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", f"{MARKER}(**options): options of the embedded server of this test, as version='3.5'"
    )


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        return {}
    if marker.args:
        pytest.fail(f"@pytest.mark.{MARKER} takes keyword arguments only, not {marker.args!r}")
    return dict(marker.kwargs)


@pytest.fixture
def zookeeper(request: pytest.FixtureRequest) -> Iterator[ZooKeeper]:
    """A ZooKeeper of the test's own: the embedded server, or a part of the one given by the option."""
    from ._servers import RealZooKeeper, ZooKeeper

    real = request.config.getoption(OPTION)
    with RealZooKeeper(real) if real else ZooKeeper(**_options(request)) as server:
        yield server


@pytest.fixture
def zookeeper_ensemble(request: pytest.FixtureRequest) -> Iterator[ZooKeeperEnsemble]:
    """An embedded ensemble of the test's own, of three members unless the marker gives another size."""
    from ._servers import ZooKeeperEnsemble

    with ZooKeeperEnsemble(**_options(request)) as ensemble:
        yield ensemble


@pytest.fixture
def registry(request: pytest.FixtureRequest) -> Registry:
    """A registry on the test's ZooKeeper, connected on the test's event loop."""
    # Each of the two plugins leaves the other's fixtures alone; a synchronous fixture can ask for either.
    by = "anyio" if "anyio_backend" in request.fixturenames else "asyncio"
    try:
        connected: Registry = request.getfixturevalue(f"_registry_by_{by}")
    except pytest.FixtureLookupError:
        pytest.fail(
            "`registry` needs a plugin for asynchronous tests: install pytest-asyncio, or mark the test `anyio`"
        )
    return connected


@pytest.fixture
async def _registry_by_anyio(zookeeper: ZooKeeper) -> AsyncIterator[Registry]:
    import aioregistry

    async with aioregistry.connect(zookeeper.connect_string) as connected:
        yield connected


try:
    import pytest_asyncio
except ImportError:
    pass
else:

    @pytest_asyncio.fixture
    async def _registry_by_asyncio(zookeeper: ZooKeeper) -> AsyncIterator[Registry]:
        import aioregistry

        async with aioregistry.connect(zookeeper.connect_string) as connected:
            yield connected
