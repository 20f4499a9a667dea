"""The servers of tests: every control works from the test's thread, and has happened when it returns."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

import aioregistry
from aioregistry import ServiceInstance
from aioregistry._errors import ConnectTimeout, InvalidArgument, NoNode, ServerError, UsageError
from aioregistry._protocol import Delete, Exists
from aioregistry.testing import RealZooKeeper, ZooKeeper, ZooKeeperEnsemble
from tests.support.inside import session_of
from tests.support.judge import Judge
from tests.support.reasons import by_code
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 100.0
ME = ServiceInstance("chat", address="10.0.0.7", port=7000)


@pytest.fixture
def server() -> Iterator[ZooKeeper]:
    with ZooKeeper() as server:
        yield server


async def exists(server: ZooKeeper, path: str) -> bool:
    async with aioregistry.connect(server.connect_string) as registry:
        try:
            await session_of(registry).request(Exists(path))
        except NoNode:
            return False
        return True


async def test_data_is_kept_lost_and_restored(server: ZooKeeper) -> None:
    async with aioregistry.connect(server.address) as registry:
        await registry.client.create("/kept")
        before = server.backup()
        await registry.client.create("/later")
        address = server.address
        server.stop()
        server.start()
        assert server.address == address
    assert await exists(server, "/later")
    server.stop()
    server.start(before)
    assert (await exists(server, "/kept"), await exists(server, "/later")) == (True, False)
    server.stop()
    server.start("lost")
    assert not await exists(server, "/kept")


async def test_a_stopped_server_lets_nobody_connect(server: ZooKeeper) -> None:
    server.stop()
    with pytest.raises(ConnectTimeout, match="the connection was refused"):
        _ = await aioregistry.connect(server.connect_string, connect_timeout=0.2)
    server.close()  # for good, though it is down
    server.start()
    with pytest.raises(UsageError, match="runs already"):
        server.start()


async def test_requests_are_delayed_and_fail(server: ZooKeeper) -> None:
    async with aioregistry.connect(server.connect_string) as registry:
        server.fail(Delete.opcode, -101)
        with pytest.raises(NoNode):
            await session_of(registry).request(Delete("/zookeeper"))
        server.delay(Exists.opcode, 0.2)
        began = asyncio.get_running_loop().time()
        await session_of(registry).request(Exists("/"))
        assert asyncio.get_running_loop().time() - began >= 0.19
        with pytest.raises(ServerError):
            await session_of(registry).request(Delete("/zookeeper"))


async def test_containers_are_swept_now(server: ZooKeeper) -> None:
    async with aioregistry.connect(server.connect_string) as registry:
        async with registry.register(ME):
            pass
        assert await registry.services() == ["chat"]
        server.sweep_containers()
        async with asyncio.timeout(DEADLINE):
            while await registry.services():
                await asyncio.sleep(0.01)


async def test_an_ensemble_and_its_members() -> None:
    with ZooKeeperEnsemble(3) as ensemble:
        leader, (one, other) = ensemble.leader, ensemble.followers
        assert leader.leads
        assert not one.leads
        async with aioregistry.connect(ensemble.connect_string) as registry, registry.register(ME) as registration:
            await registration.wait_live(DEADLINE)
            ensemble.change_leader(one)
            assert ensemble.leader is one
            await registration.wait_live(DEADLINE)
            one.stop()
            await registration.wait_live(DEADLINE)
            one.start()
            first = registry.session.id
            ensemble.expire(first)
            async with asyncio.timeout(DEADLINE):
                while registry.session.id in (0, first):
                    await asyncio.sleep(0.01)
            await registration.wait_live(DEADLINE)
            ensemble.stop()
            ensemble.start()
            await registration.wait_live(DEADLINE)
        async with aioregistry.connect(other.address) as registry, registry.discover("chat") as chat:
            other.lag(0.3)
            async with aioregistry.connect(leader.address) as publisher, publisher.register(ME):
                assert list(await chat.sync()) == [ME.id]
                for control in (other.drop, other.freeze, other.thaw, other.refuse_connections):
                    control()
                other.refuse_connections(False)
                other.lag(0)
                other.cut_off()
                other.heal()
                await chat.wait_for(lambda snapshot: list(snapshot) == [ME.id], timeout=DEADLINE)
    ensemble.close()


def test_options_that_are_wrong() -> None:
    with pytest.raises(InvalidArgument, match="version"):
        ZooKeeper(version="2.0")


async def test_a_part_of_a_real_one_ends_sessions_and_leaves_nothing(zookeeper: ZooKeeperServer, judge: Judge) -> None:
    with await asyncio.to_thread(RealZooKeeper, zookeeper.address) as part:
        assert await judge.children(part.chroot) == []
        async with aioregistry.connect(part.connect_string) as registry, registry.register(ME) as registration:
            for _ in range(5):  # each time it is connected, and takes back what it can
                owner = registry.session.id
                await asyncio.to_thread(part.expire, owner)
                async with asyncio.timeout(DEADLINE):
                    while registration.owner in (None, owner):
                        await asyncio.sleep(0.01)
                assert await judge.owner(registration.path) == registration.owner != owner
        assert await judge.children(part.chroot) != []
    assert part.chroot.strip("/") not in await judge.children("/")


def test_a_closed_server_gives_its_port_back(server: ZooKeeper) -> None:
    def take_the_port() -> None:
        with socket.socket() as other:
            other.bind((server.host, server.port))

    server.stop()
    with pytest.raises(OSError, check=by_code(errno.EADDRINUSE)):
        take_the_port()
    server.close()
    take_the_port()
