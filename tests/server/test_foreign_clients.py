"""Clients that were made for a real ZooKeeper cannot tell: kazoo and aiozk by their own tests, and Apache's own Java
command line by what it prints.

Curator, which needs a JDK, has its tests in `tests/interop`, which run on both servers.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import aiozk
import kazoo
import pytest
from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState

from aioregistry.server import ZooKeeperServer
from tests.conftest import StartZooKeeper
from tests.server.foreign_suites import run_suite
from tests.support.embedded import EmbeddedServer, embedded_server, profile_of
from tests.support.zookeeper import DEBIANS_JARS, JVM_OPTIONS, VERSION

PATIENCE = 100.0
SUITE_DEADLINE = 800.0

# ---------------------------------------------------------------- kazoo

KAZOO = Path(kazoo.__file__).parent / "tests"
RECIPES = ("barrier", "cache", "counter", "election", "lease", "lock", "party", "queue")
UNLIKE_KAZOO = {
    "test_client.py::TestSSLClient": "kazoo's harness makes the certificates for Java",
    "test_client.py::TestReconfig": "reconfig is refused, as by a server that it is not enabled on",
    "test_connection.py::TestReadOnlyMode": "there is no read-only mode",
    "test_connection.py::TestConnectionDrop::test_connection_dropped": "expects a slower server",
}
# Each waits ten seconds.
LONG = {
    "test_watchers.py::KazooChildrenWatcherTests::test_child_watcher_remove_session_watcher",
    "test_partitioner.py::KazooPartitionerTests::test_race_condition_new_partitioner_during_the_lock",
}


async def run_kazoos_tests(*names: str) -> Counter[str]:
    """On an embedded ensemble of three."""
    return await run_suite(
        *(str(KAZOO / f"test_{name}.py") for name in names),
        *("-p", "tests.server.kazoo_on_embedded", f"--rootdir={KAZOO}"),
        *(f"--deselect={name}" for name in (*UNLIKE_KAZOO, *LONG)),
        environment={"CI": "1", "ZOOKEEPER_VERSION": "3.8.0"},
        deadline=SUITE_DEADLINE,
    )


async def test_kazoos_own_tests_pass() -> None:
    outcomes = await asyncio.gather(
        run_kazoos_tests(*RECIPES),
        run_kazoos_tests("watchers"),
        run_kazoos_tests("client", "connection", "partitioner"),
    )
    assert sum(outcomes, Counter()) == {"passed": 234, "deselected": 9}


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with embedded_server(tick_time=0.2, max_session_timeout=40.0) as server:
        yield server


class Watched:
    """A kazoo client whose states are waited for."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.client = KazooClient(server.address, timeout=10.0)
        self._states: list[str] = []
        self._changed = threading.Condition()
        self.client.add_listener(self._note)
        self.client.start(PATIENCE)

    def _note(self, state: str) -> None:
        with self._changed:
            self._states.append(state)
            self._changed.notify_all()

    def wait_for(self, *states: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._states == list(states), PATIENCE), self._states


@pytest.fixture
def kazoo_client(server: EmbeddedServer) -> Iterator[Watched]:
    watched = Watched(server)
    yield watched
    watched.client.stop()
    watched.client.close()


def session_of(client: KazooClient) -> int:
    session_id, _ = client.client_id
    assert isinstance(session_id, int)
    return session_id


def test_kazoo_keeps_its_session_when_its_connection_drops(server: EmbeddedServer, kazoo_client: Watched) -> None:
    client = kazoo_client.client
    client.create("/mine", ephemeral=True)
    session = session_of(client)
    server.call(lambda server: server.drop(session))
    kazoo_client.wait_for(KazooState.CONNECTED, KazooState.SUSPENDED, KazooState.CONNECTED)
    assert (session_of(client), client.exists("/mine").ephemeralOwner) == (session, session)


def test_kazoo_is_told_that_its_session_expired(server: EmbeddedServer, kazoo_client: Watched) -> None:
    client = kazoo_client.client
    client.create("/mine", ephemeral=True)
    session = session_of(client)
    server.call(lambda server: server.expire(session))
    kazoo_client.wait_for(KazooState.CONNECTED, KazooState.SUSPENDED, KazooState.LOST, KazooState.CONNECTED)
    assert session_of(client) != session
    assert client.exists("/mine") is None


# ---------------------------------------------------------------- aiozk

AIOZK = Path(aiozk.__file__).parent / "test"


async def run_aiozks_tests(*selection: str) -> Counter[str]:
    """On a server of their own: they clean up `/test_aiozk`."""
    async with ZooKeeperServer(tick_time=0.2, max_session_timeout=40.0, container_check_interval=3600.0) as server:
        return await run_suite(
            *selection,
            f"--rootdir={AIOZK}",
            *("-W", "error"),
            environment={"ZK_HOST": server.host, "ZK_PORT": str(server.port)},
            deadline=SUITE_DEADLINE,
        )


async def test_aiozks_own_tests_pass() -> None:
    watchers = str(AIOZK / "test_watchers.py")
    outcomes = await asyncio.gather(
        run_aiozks_tests(watchers), run_aiozks_tests("--pyargs", "aiozk.test", f"--ignore={watchers}")
    )
    assert sum(outcomes, Counter()) == {"passed": 85}


# ---------------------------------------------------------------- Apache's command line

COMMANDS = """
ls /
create /a data
create -e /a/e mine
create -s /a/s- x
create -c /a/c
create -t 1000000 /a/t lasting
create /a again
stat /a
get -s /a
set -s /a x
set -v 7 /a x
ls -R /
ls -s /a
create /b/absent
addWatch -m PERSISTENT /a
addWatch /a
set /a y
create /a/watched
delete /a/watched
removewatches /a
addauth digest user:secret
whoami
setAcl /a auth::cdrwa
getAcl -s /a
getAllChildrenNumber /a
getEphemerals
getEphemerals /a
sync /a
delete /absent
delete /a
delete -v 5 /a/t
deleteall /a
ls /
get /zookeeper/config
getAcl /zookeeper
close
quit
"""
# The parts that cannot be the same: the time, a session's id.
UNLIKE = re.compile(r"(?<=time = ).*|(?<=ephemeralOwner = )0x[1-9a-f].*|(?<=Connecting to ).*")


async def command_line(address: str) -> tuple[list[str], list[str], list[str]]:
    """The answers of Apache's ZooKeeperMain, its watch events, and its complaints."""
    java = shutil.which("java")
    assert java is not None
    process = await asyncio.create_subprocess_exec(
        java,
        *JVM_OPTIONS,
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
        *("-cp", ":".join(map(str, DEBIANS_JARS)), "org.apache.zookeeper.ZooKeeperMain", "-server", address),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            told, complained = (text.decode() for text in await process.communicate(COMMANDS.encode()))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [line for line in UNLIKE.sub("…", told).splitlines() if line and line != "WATCHER::"]
    # A thread of their own prints events.
    is_event: Callable[[str], bool] = lambda line: line.startswith("WatchedEvent")  # noqa: E731
    # The client makes this event for itself when it closes, and may exit before that thread prints it.
    lines = [line for line in lines if "state:Closed" not in line]
    answers = [line for line in lines if not is_event(line)]
    return answers, list(filter(is_event, lines)), complained.splitlines()


@pytest.mark.since(3, 6)  # it asks for recursive watches
async def test_apaches_command_line_prints_the_same(start_zookeeper: StartZooKeeper) -> None:
    """Down to the zxids: both servers are new."""
    real = await start_zookeeper(tick_time_ms=2000)
    expected = await command_line(real.address)
    async with ZooKeeperServer(version=profile_of(VERSION)) as server:
        assert await command_line(server.address) == expected
    answers, events, complaints = expected
    assert len(answers) > 70, answers
    assert len(events) == 5, events
    assert "Node already exists: /a" in complaints
