"""The plugin as users have it: what they write runs in a pytest of its own, by every plugin for asynchronous tests."""

from __future__ import annotations

import pytest

from tests.support.zookeeper import ZooKeeperServer

pytest_plugins = ["pytester"]

FIRST_TEST = """
import pytest
from aioregistry import ServiceInstance

{mark}
async def test_my_service_is_listed(registry):
    async with registry.register(ServiceInstance("chat", address="10.0.0.7", port=7000)):
        async with registry.discover("chat") as chat:
            assert list(chat.snapshot) == ["10.0.0.7:7000"]
"""

# How asynchronous tests run: what pytest is told, and how a test is marked.
RUNNERS = {
    "asyncio-auto": (["-o", "asyncio_mode=auto"], ""),
    "asyncio-strict": (["-o", "asyncio_mode=strict"], "@pytest.mark.asyncio"),
    "anyio": (["-o", "asyncio_mode=strict"], "@pytest.mark.anyio"),
    "anyio-alone": (["-p", "no:asyncio", "-W", "ignore:Unknown config option"], "@pytest.mark.anyio"),
}
ANYIO_BACKEND = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function", *arguments)


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> tuple[list[str], str]:
    pytester.makeconftest(ANYIO_BACKEND)
    return RUNNERS[request.param]


FAULTS_AT_A_CALL = """
{mark}
async def test_registered_again(zookeeper, registry):
    me = ServiceInstance("chat", address="10.0.0.7", port=7000)
    async with registry.register(me) as registration, registration.statuses() as statuses:
        first = registration.owner
        zookeeper.expire(registry.session.id)
        async for status in statuses:
            if status.value == "live" and registration.owner != first:
                break
        zookeeper.stop()
        zookeeper.start()
        await registration.wait_live(10)
"""


def test_a_users_first_tests(pytester: pytest.Pytester, runner: tuple[list[str], str]) -> None:
    arguments, mark = runner
    pytester.makepyfile((FIRST_TEST + FAULTS_AT_A_CALL).format(mark=mark))
    run(pytester, *arguments).assert_outcomes(passed=2)


LISTED_ALONE = """
async def listed_alone(registry):
    assert await registry.services() == []  # nothing of another test's
    async with registry.register(ServiceInstance("chat", address="10.0.0.7", port=7000)):
        async with registry.discover("chat") as chat:
            assert list(chat.snapshot) == ["10.0.0.7:7000"]
"""

LOOPS = """
import asyncio
import pytest
import pytest_asyncio
from aioregistry import ServiceInstance

loops = {{}}  # by the name of what shares one, for they are compared by identity
{listed_alone}

async def on_loop_of(shared, registry):
    loop = asyncio.get_running_loop()
    assert loops.setdefault(shared, loop) is loop
    await listed_alone(registry)


@pytest_asyncio.fixture(loop_scope="session")
async def users(registry):
    async with registry.discover("users") as view:
        yield view


@pytest.mark.asyncio(loop_scope="session")
class TestOnTheSessions:
    async def test_one(self, registry, users):
        await on_loop_of("session", registry)
        assert len(await users.sync()) == 0

    async def test_two(self, registry, session_registry, module_registry):
        for each in (registry, session_registry, module_registry):
            await on_loop_of("session", each)


@pytest.mark.asyncio(loop_scope="package")
async def test_on_the_packages(registry):
    await on_loop_of("package", registry)


@pytest.mark.asyncio(loop_scope="module")
async def test_on_the_modules(registry, module_registry):
    await on_loop_of("module", registry)
    await on_loop_of("module", module_registry)


@pytest.mark.asyncio(loop_scope="class")
class TestOnTheClasss:
    async def test_one(self, registry):
        await on_loop_of("class", registry)

    @pytest.mark.parametrize("n", [1, 2])
    async def test_two(self, registry, session_registry, n):
        await on_loop_of("class", registry)
        await on_loop_of("class", session_registry)

    @pytest.mark.asyncio(loop_scope="function")
    async def test_on_its_own(self, registry):
        assert asyncio.get_running_loop() not in loops.values()
        await listed_alone(registry)


@pytest.mark.asyncio
async def test_on_the_default(registry, module_registry):
    await on_loop_of({default!r}, registry)
    await on_loop_of({default!r}, module_registry)


@pytest.mark.anyio
{marked_for_both}async def test_by_whoever_runs_it(registry, session_registry):
    await listed_alone(registry)
    await listed_alone(session_registry)
"""


@pytest.mark.parametrize(
    ("mode", "default", "shared"),
    [("auto", "function", "nothing"), ("strict", "class", "nothing"), ("auto", "session", "session")],
)
def test_it_is_on_the_loop_that_the_test_runs_on(
    pytester: pytest.Pytester, mode: str, default: str, shared: str
) -> None:
    pytester.makeconftest(ANYIO_BACKEND)
    pytester.makepyfile(LOOPS.format(listed_alone=LISTED_ALONE, default=shared, marked_for_both=""))
    modes = ("-o", f"asyncio_mode={mode}", "-o", f"asyncio_default_test_loop_scope={default}")
    run(pytester, *modes).assert_outcomes(passed=10)


def test_a_test_that_is_marked_for_both_plugins(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(ANYIO_BACKEND)
    both = '@pytest.mark.asyncio(loop_scope="module")\n'
    pytester.makepyfile(LOOPS.format(listed_alone=LISTED_ALONE, default="nothing", marked_for_both=both))
    run(pytester, "-o", "asyncio_mode=strict", "-k", "whoever").assert_outcomes(passed=1, deselected=9)


SHARED = """
import aioregistry
import pytest
from aioregistry import ServiceInstance

pytestmark = [{mark}, pytest.mark.zookeeper(version="3.5")]
seen = []
{listed_alone}

async def test_one(module_registry, module_zookeeper, session_registry):
    seen.append(module_zookeeper)
    await listed_alone(module_registry)
    await listed_alone(session_registry)
    await session_registry.client.create("/left behind")
    await module_registry.register(ServiceInstance("chat", id="left behind"))


async def test_two(module_registry, module_zookeeper, session_registry, session_zookeeper, zookeeper):
    assert seen == [module_zookeeper]
    assert len({{module_zookeeper.port, session_zookeeper.port, zookeeper.port}}) == 3
    await listed_alone(module_registry)
    assert await session_registry.client.get_children("/") == []
    # Everybody's parts are there for who looks at the whole server.
    async with aioregistry.connect(session_zookeeper.connect_string) as whole:
        assert len([each for each in await whole.client.get_children("/") if each.startswith("part-")]) == 2
"""


@pytest.mark.parametrize("by", ["asyncio-strict", "anyio"])
def test_servers_that_tests_share(pytester: pytest.Pytester, by: str) -> None:
    arguments, mark = RUNNERS[by]
    pytester.makeconftest(ANYIO_BACKEND)
    pytester.makepyfile(SHARED.format(mark=mark.removeprefix("@"), listed_alone=LISTED_ALONE))
    run(pytester, *arguments).assert_outcomes(passed=2)


def test_a_real_server_that_tests_share(pytester: pytest.Pytester, zookeeper: ZooKeeperServer) -> None:
    pytester.makepyfile(SHARED.format(mark="pytest.mark.asyncio", listed_alone=LISTED_ALONE))
    run(pytester, *AUTO, f"--aioregistry-zookeeper={zookeeper.address}").assert_outcomes(passed=2)


def test_synchronous_tests_have_it_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest
from kazoo.client import KazooClient

@pytest.mark.zookeeper(tick_time=0.1, version="3.5")
def test_another_client(zookeeper):
    client = KazooClient(zookeeper.connect_string)
    client.start(5)
    assert client.create("/x", b"1", ephemeral=True) == "/x"
    zookeeper.expire(client.client_id[0])
    client.stop()
    client.close()
"""
    )
    run(pytester).assert_outcomes(passed=1)


def test_an_ensemble(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import aioregistry, asyncio
from aioregistry import ServiceInstance, Status

async def test_the_leader_goes(zookeeper_ensemble):
    async with aioregistry.connect(zookeeper_ensemble.connect_string) as registry:
        async with registry.register(ServiceInstance("chat", address="10.0.0.7", port=7000)) as registration:
            owner = registration.owner
            zookeeper_ensemble.leader.stop()
            assert len(zookeeper_ensemble.followers) == 1
            async with asyncio.timeout(100):
                while registration.status is not Status.LIVE:
                    await asyncio.sleep(0.01)
            assert registration.owner == owner
"""
    )
    run(pytester, "-o", "asyncio_mode=auto").assert_outcomes(passed=1)


def test_a_marker_that_is_wrong(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

@pytest.mark.zookeeper("3.5")
def test_positional(zookeeper): ...

@pytest.mark.zookeeper(version="2.0")
def test_no_such_version(zookeeper): ...
"""
    )
    result = run(pytester)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*takes keyword arguments only*", "*InvalidArgument*version*"])


def test_asynchronous_tests_without_a_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_sync(registry): ...")
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:anyio")
    result.assert_outcomes(errors=1)


CONTROLS = """
import asyncio
import pytest
import aioregistry
from aioregistry import ServiceInstance, SessionState, Status

ME = ServiceInstance("chat", address="10.0.0.7", port=7000)
WRITE = 14  # a withdrawal is a transaction


async def settled(registration):
    async with asyncio.timeout(20):
        while registration.status is not Status.LIVE:
            await asyncio.sleep(0.01)


async def test_controls(zookeeper, registry):
    session = registry.session
    async with registry.register(ME) as registration, session.states() as states:
        first = session.id
        zookeeper.drop(first)
        assert await anext(states) is SessionState.SUSPENDED
        await settled(registration)
        assert session.id == first
        zookeeper.refuse_connections()
        zookeeper.drop()
        while await anext(states) is not SessionState.SUSPENDED: pass
        zookeeper.refuse_connections(False)
        await settled(registration)
        assert session.id == first
        zookeeper.expire(first)
        while await anext(states) is not SessionState.EXPIRED: pass
        await settled(registration)
        assert session.id != first
        zookeeper.lose_reply(WRITE)
    assert registration.withdrawn


async def test_a_frozen_connection(zookeeper):
    async with aioregistry.connect(zookeeper.connect_string, session_timeout=2) as registry:
        async with registry.discover("chat") as chat, registry.session.states() as states:
            zookeeper.freeze(registry.session.id)
            async with asyncio.timeout(20):
                assert await anext(states) is SessionState.SUSPENDED
                assert await anext(states) is SessionState.RECONNECTED
                zookeeper.thaw()
                await chat.sync()


async def test_alone(registry):
    assert await registry.services() == []
"""
AUTO = ["-o", "asyncio_mode=auto"]


def test_the_same_tests_on_the_embedded_server_and_a_real_one(
    pytester: pytest.Pytester, zookeeper: ZooKeeperServer
) -> None:
    pytester.makepyfile(CONTROLS)
    run(pytester, *AUTO).assert_outcomes(passed=3)
    run(pytester, *AUTO, f"--aioregistry-zookeeper={zookeeper.address}").assert_outcomes(passed=3)


def test_what_a_real_one_cannot_be_told(pytester: pytest.Pytester, zookeeper: ZooKeeperServer) -> None:
    pytester.makepyfile(
        """
import pytest
from aioregistry import InvalidArgument, UsageError

@pytest.mark.parametrize("control", ["stop", "start", "backup", "sweep_containers"])
def test_not_here(zookeeper, control):
    with pytest.raises(UsageError, match=control):
        getattr(zookeeper, control)()

@pytest.mark.parametrize("control", ["delay", "fail"])
def test_not_here_either(zookeeper, control):
    with pytest.raises(UsageError, match=control):
        getattr(zookeeper, control)(1, 1)

def test_a_session_of_somebody_else(zookeeper):
    with pytest.raises(InvalidArgument, match="session_id"):
        zookeeper.expire(7)
"""
    )
    run(pytester, f"--aioregistry-zookeeper={zookeeper.address}").assert_outcomes(passed=7)


def test_a_real_one_that_is_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_sync(zookeeper): ...")
    result = run(pytester, "--aioregistry-zookeeper=localhost")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*InvalidArgument*address*localhost*"])
