"""Fixtures on a real Apache ZooKeeper.

Tests that do not hurt the server share one and keep to a chroot of their own; tests that hurt it start their own, or
take the ensemble, which is put right again before the next one gets it.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import FrameType

import pytest
from hypothesis import settings

from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support.judge import Judge
from tests.support.zookeeper import RELEASE, Settings, ZooKeeperEnsemble, ZooKeeperServer

# A slow moment of the machine is no failure of what is tested.
settings.register_profile("without a stopwatch", deadline=None)
settings.load_profile("without a stopwatch")


# Files that take longest, the longest first: at the end of a run one of them would leave the other workers idle.
LONGEST = (
    "tests/testing/test_plugin.py",
    "tests/simulation/test_worlds.py",
    "tests/cli/test_demo.py",
    "tests/threads/test_thread_mode.py",
    "tests/server/test_foreign_clients.py",
    "tests/integration/test_faults.py",
    "tests/simulation/test_shrinking.py",
    "tests/cli/test_sidecar.py",
    "tests/cli/test_register.py",
    "tests/simulation/test_mutations.py",
    "tests/session/test_watch_table.py",
    "tests/server/test_hostile_bytes.py",
    "tests/integration/test_aiozk_suite.py",
    "tests/examples/test_chat.py",
)
_PLACE = {file: place for place, file in enumerate(LONGEST)}


def pytest_configure() -> None:
    """The programs that tests start heed every signal, whatever this run was told to ignore.

    A shell lets its background programs ignore SIGINT and SIGQUIT, and nohup SIGHUP. Ignored signals are inherited,
    handled ones are not: a handler that does nothing keeps this process as it was. Only interrupts are heard again.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python itself ignores
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _outlived)


def _outlived(number: int, frame: FrameType | None) -> None:
    pass


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files come first. On an older release leave out what is about newer ones; by default all runs."""
    items.sort(key=lambda item: _PLACE.get(item.nodeid.partition("::")[0], len(LONGEST)))
    early = {item: None for item in items if (mark := item.get_closest_marker("since")) and mark.args > RELEASE}
    config.hook.pytest_deselected(items=[*early])
    items[:] = [item for item in items if item not in early]
    nameless = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if nameless:  # pytest-xdist compares the names that its processes collect
        raise pytest.UsageError(f"names that differ from process to process: {nameless}")


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_FAILED] = report.failed or item.stash.get(_FAILED, False)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Objects that a failed test left open are dropped before the next one, which their warnings would blame."""
    result = yield
    if item.stash.get(_FAILED, False):
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):  # they hold what the test held
            vars(sys).pop(name, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


@pytest.fixture(autouse=True)
def handler_of_sigterm() -> Iterator[None]:
    """A test leaves no handler behind, which would hear the signal that a later test sends."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    left = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert left == before


StartZooKeeper = Callable[..., Awaitable[ZooKeeperServer]]


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeperServer]:
    """The shared standalone server. Never to be killed, paused or wiped."""
    with ZooKeeperServer(Settings(tick_time_ms=200, container_check_interval_ms=500)) as server:
        server.launch()
        server.wait_until_serving()
        yield server


@pytest.fixture
async def judge(zookeeper: ZooKeeperServer) -> AsyncIterator[Judge]:
    """The observer of the shared server."""
    async with Judge(zookeeper.address) as judge:
        yield judge


@pytest.fixture
async def chroot(judge: Judge) -> str:
    """A node of the test's own on the shared server, there and empty."""
    path = f"/{uuid.uuid4().hex}"
    await judge.make(path)
    return path


@pytest.fixture
def servers(zookeeper: ZooKeeperServer, chroot: str) -> str:
    """The connect string of a place of the test's own."""
    return f"{zookeeper.address}{chroot}"


@pytest.fixture
def proxy(zookeeper: ZooKeeperServer) -> Iterator[ZooKeeperProxy]:
    """A proxy before the shared server, the test's own."""
    with ZooKeeperProxy((zookeeper.host, zookeeper.port)) as proxy:
        yield proxy


@pytest.fixture
def start_zookeeper() -> Iterator[StartZooKeeper]:
    """A function that starts a server of the test's own: `await start_zookeeper(tick_time_ms=2000)`, with the fields
    of Settings."""
    with contextlib.ExitStack() as servers:  # each is closed, whatever becomes of another

        async def start(**settings: object) -> ZooKeeperServer:
            server = servers.enter_context(ZooKeeperServer(Settings(**settings)))  # type: ignore[arg-type]
            await server.start()
            return server

        yield start


@pytest.fixture
async def own_zookeeper(start_zookeeper: StartZooKeeper) -> ZooKeeperServer:
    """A running standalone server of the test's own, to kill, pause and wipe."""
    return await start_zookeeper(tick_time_ms=200)


@pytest.fixture(scope="session")
def _shared_ensemble() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble() as ensemble:
        yield ensemble


@pytest.fixture
def ensemble(_shared_ensemble: ZooKeeperEnsemble) -> Iterator[ZooKeeperEnsemble]:
    """Three members that serve as one quorum. They may be hurt in any way; their data outlive the test: take names of
    your own.
    """
    _shared_ensemble.repair()
    yield _shared_ensemble
    _shared_ensemble.repair()
