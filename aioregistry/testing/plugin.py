"""The pytest plugin: ``zookeeper``, ``zookeeper_ensemble``, ``registry``, and variants for a module or a session.

Loaded in every pytest run where aioregistry is installed, so nothing is imported before a fixture is asked for. The
servers are synchronous fixtures, on a thread of their own; the registries live on the test's event loop, whichever
plugin runs it and whatever its scope: pytest-asyncio in either mode, or anyio's plugin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from aioregistry import Registry

    from ._ensemble import ZooKeeperEnsemble
    from ._servers import AnyZooKeeper

__all__ = [
    "module_registry",
    "module_zookeeper",
    "pytest_addoption",
    "pytest_configure",
    "registry",
    "session_registry",
    "session_zookeeper",
    "zookeeper",
    "zookeeper_ensemble",
]

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


def _server(request: pytest.FixtureRequest) -> AnyZooKeeper:
    from ._servers import RealZooKeeper, ZooKeeper

    real = request.config.getoption(OPTION)
    return RealZooKeeper(real) if real else ZooKeeper(**_options(request))


@pytest.fixture
def zookeeper(request: pytest.FixtureRequest) -> Iterator[AnyZooKeeper]:
    """A ZooKeeper of the test's own: the embedded server, or a part of the one given by the option."""
    with _server(request) as server:
        yield server


@pytest.fixture(scope="module")
def module_zookeeper(request: pytest.FixtureRequest) -> Iterator[AnyZooKeeper]:
    """A ZooKeeper that the tests of a module share; the module's marker gives its options."""
    with _server(request) as server:
        yield server


@pytest.fixture(scope="session")
def session_zookeeper(request: pytest.FixtureRequest) -> Iterator[AnyZooKeeper]:
    """A ZooKeeper that all tests share."""
    with _server(request) as server:
        yield server


@pytest.fixture
def zookeeper_ensemble(request: pytest.FixtureRequest) -> Iterator[ZooKeeperEnsemble]:
    """An embedded ensemble of the test's own, of three members unless the marker gives another size."""
    from ._ensemble import ZooKeeperEnsemble

    with ZooKeeperEnsemble(**_options(request)) as ensemble:
        yield ensemble


@pytest.fixture
def registry(request: pytest.FixtureRequest, zookeeper: AnyZooKeeper) -> Registry:
    """A registry on the test's ZooKeeper, connected on the test's event loop."""
    return _connected(request, "registry", zookeeper.connect_string)


@pytest.fixture
def module_registry(request: pytest.FixtureRequest, module_zookeeper: AnyZooKeeper) -> Registry:
    """A registry on an empty part of the module's ZooKeeper, the test's own, connected on the test's event loop."""
    return _connected(request, "module_registry", module_zookeeper.new_part())


@pytest.fixture
def session_registry(request: pytest.FixtureRequest, session_zookeeper: AnyZooKeeper) -> Registry:
    """A registry on an empty part of the session's ZooKeeper, the test's own, connected on the test's event loop."""
    return _connected(request, "session_registry", session_zookeeper.new_part())


# ---------------------------------------------------------------- on whose loop

_REGISTRIES: Final = ("registry", "module_registry", "session_registry")
_SERVERS: Final = pytest.StashKey[dict[str, str]]()
"""Of a test: what its registries connect to."""

_ASYNCIO_LOOPS: Final = ("function", "class", "module", "package", "session")


def _connected(request: pytest.FixtureRequest, name: str, servers: str) -> Registry:
    """Return the registry *name*, connected by a fixture on the loop that the test runs on."""
    request.node.stash.setdefault(_SERVERS, {})[name] = servers
    try:
        connected: Registry = request.getfixturevalue(f"_{name}_{_loop_of(request.node)}")
    except pytest.FixtureLookupError:
        pytest.fail(f"`{name}` needs a plugin for asynchronous tests: install pytest-asyncio, or mark the test `anyio`")
    return connected


def _loop_of(test: pytest.Item) -> str:
    """Return the name of the loop that *test* runs on.

    pytest-asyncio runs tests that are marked `asyncio`, and marks every asynchronous test in its mode `auto`, those
    that are marked `anyio` too.
    """
    marker = test.get_closest_marker("asyncio")
    for_anyio = "anyio_backend" in getattr(test, "fixturenames", ())
    if marker is None and for_anyio:
        return "by_anyio"
    scope = None if marker is None else marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
    return f"by_{'both' if for_anyio else 'asyncio'}_{scope or _default_scope(test.config)}"


def _default_scope(config: pytest.Config) -> str:
    try:
        return str(config.getini("asyncio_default_test_loop_scope") or "function")
    except (KeyError, ValueError):  # no pytest-asyncio
        return "function"


def _by_anyio(name: str) -> Any:
    @pytest.fixture(name=f"_{name}_by_anyio")
    async def fixture(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
        import aioregistry

        async with aioregistry.connect(request.node.stash[_SERVERS][name]) as connected:
            yield connected

    return fixture


for _name in _REGISTRIES:
    globals()[f"_{_name}_by_anyio"] = _by_anyio(_name)

try:
    import pytest_asyncio
except ImportError:
    pass
else:

    def _by_asyncio(name: str, scope: Any) -> Any:
        @pytest_asyncio.fixture(name=f"_{name}_by_asyncio_{scope}", loop_scope=scope)
        async def fixture(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
            import aioregistry

            async with aioregistry.connect(request.node.stash[_SERVERS][name]) as connected:
                yield connected

        return fixture

    def _by_both(name: str, scope: Any) -> Any:
        # Not asynchronous itself: anyio's plugin would run it on a loop of its own. pytest-asyncio sets the test's.
        @pytest_asyncio.fixture(name=f"_{name}_by_both_{scope}", loop_scope=scope)  # type: ignore[type-var]
        def fixture(request: pytest.FixtureRequest) -> Iterator[Registry]:
            import asyncio

            import aioregistry

            loop = asyncio.get_event_loop()
            connected = loop.run_until_complete(aioregistry.connect(request.node.stash[_SERVERS][name]).__aenter__())
            yield connected
            loop.run_until_complete(connected.aclose())

        return fixture

    if "loop_scope" in signature(pytest_asyncio.fixture).parameters:  # from 0.24 on
        for _name in _REGISTRIES:
            for _scope in _ASYNCIO_LOOPS:
                globals()[f"_{_name}_by_asyncio_{_scope}"] = _by_asyncio(_name, _scope)
                globals()[f"_{_name}_by_both_{_scope}"] = _by_both(_name, _scope)
