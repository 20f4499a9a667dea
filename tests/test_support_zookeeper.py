"""The servers that the other tests stand on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import StartZooKeeper
from tests.support import wire
from tests.support.judge import Chronicle, Judge
from tests.support.processes import is_running
from tests.support.zookeeper import Settings, ZooKeeperEnsemble, ZooKeeperFailed, ZooKeeperMissing, ZooKeeperServer


async def test_serves_what_was_written(judge: Judge, chroot: str) -> None:
    await judge.make(f"{chroot}/a/b", b"data")
    node = await judge.node(f"{chroot}/a/b")
    assert node is not None
    assert node.data == b"data"
    assert await judge.children(chroot) == ["a"]


async def test_version_and_four_letter_words(zookeeper: ZooKeeperServer) -> None:
    assert zookeeper.mode == "standalone"
    assert zookeeper.version.startswith("3.")
    assert await zookeeper.four_letter("ruok") == "imok"


async def test_listens_on_loopback_only(zookeeper: ZooKeeperServer) -> None:
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    assert f"0100007F:{zookeeper.port:04X}" in listening
    assert f"00000000:{zookeeper.port:04X}" not in listening


async def test_killed_server_keeps_port_data_and_sessions(own_zookeeper: ZooKeeperServer) -> None:
    session = await wire.connect(own_zookeeper.address, timeout_ms=20_000)
    await session.create("/mine", flags=wire.EPHEMERAL)
    address = own_zookeeper.address

    own_zookeeper.kill()
    with pytest.raises(ConnectionRefusedError):
        await wire.connect(address)
    await own_zookeeper.start()

    assert own_zookeeper.address == address
    async with await wire.connect(address, session_id=session.session_id, password=session.password) as again:
        assert again.session_id == session.session_id
        assert (await again.get_data("/mine")).stat.owner == session.session_id
    session.abandon()


async def test_wiped_server_knows_nothing(own_zookeeper: ZooKeeperServer) -> None:
    async with Judge(own_zookeeper.address) as judge:
        await judge.make("/node")
        await own_zookeeper.stop()
        own_zookeeper.wipe()
        await own_zookeeper.start()
        assert await judge.node("/node") is None


async def test_restored_server_knows_what_the_copy_knew(own_zookeeper: ZooKeeperServer) -> None:
    async with Judge(own_zookeeper.address) as judge:
        await judge.make("/before")
        copy = own_zookeeper.snapshot_data()
        await judge.make("/after")
        own_zookeeper.kill()
        own_zookeeper.restore_data(copy)
        await own_zookeeper.start()
        assert await judge.node("/before") is not None
        assert await judge.node("/after") is None


async def test_paused_server_answers_late(own_zookeeper: ZooKeeperServer) -> None:
    async with await wire.connect(own_zookeeper.address) as session:
        own_zookeeper.pause()
        assert own_zookeeper.paused
        xid = session.send(wire.exists("/"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await session.reply(xid)
        own_zookeeper.resume()
        assert (await session.reply(xid)).error == 0


async def test_data_of_a_running_server_are_not_touched(zookeeper: ZooKeeperServer) -> None:
    with pytest.raises(ZooKeeperFailed, match="is running"):
        zookeeper.wipe()


async def test_settings_reach_the_server(start_zookeeper: StartZooKeeper) -> None:
    server = await start_zookeeper(tick_time_ms=1234, min_session_timeout_ms=3000, max_session_timeout_ms=4000)
    conf = await server.four_letter("conf")
    assert "tickTime=1234" in conf
    for asked, negotiated in [(1, 3000), (3500, 3500), (100_000, 4000)]:
        async with await wire.connect(server.address, timeout_ms=asked) as session:
            assert session.timeout_ms == negotiated


async def test_failed_start_shows_the_log(start_zookeeper: StartZooKeeper) -> None:
    with pytest.raises(ZooKeeperFailed, match=r"(?s)is not running:.*NumberFormatException"):
        await start_zookeeper(tick_time_ms="soon")


def test_missing_packages_are_named() -> None:
    with (
        ZooKeeperServer(Settings(jars=(Path("/nonexistent/zookeeper.jar"),))) as server,
        pytest.raises(ZooKeeperMissing, match=r"zookeeper\.jar: .*apt-get install .*libzookeeper-java"),
    ):
        server.launch()


def test_servers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    """Even when it is killed and cleans nothing up."""
    script = """
import os, signal
from tests.support.zookeeper import ZooKeeperServer
server = ZooKeeperServer()
server.launch()
server.wait_until_serving()
print(server._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        timeout=60,
        check=False,
    )
    assert done.returncode == -9
    deadline = time.monotonic() + 10
    while is_running(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_judge_outlives_the_server(own_zookeeper: ZooKeeperServer) -> None:
    async with Judge(own_zookeeper.address) as judge:
        await judge.make("/node")
        await own_zookeeper.restart()
        assert await judge.owner("/node") == 0
        with pytest.raises(TimeoutError, match="/node still is Node"):
            await judge.node_until("/node", lambda node: node is None, timeout=0.05)
        await judge.delete("/node")
        assert await judge.node_until("/node", lambda node: node is None) is None


async def test_chronicle_tells_owners_and_gaps(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    path = f"{chroot}/node"
    async with Chronicle(zookeeper.address, path) as chronicle, await wire.connect(zookeeper.address) as session:
        await judge.make(path)
        await judge.node_until(path, lambda node: chronicle.owners == [None, 0])
        await session.multi(wire.delete(path), wire.create2(path, flags=wire.EPHEMERAL))
        await judge.node_until(path, lambda node: chronicle.owners == [None, 0, session.session_id])
    assert chronicle.owners == [None, 0, session.session_id, None]


async def test_forced_expiry(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    session = await wire.connect(zookeeper.address)
    await session.create(f"{chroot}/mine", flags=wire.EPHEMERAL)
    await wire.force_expiry(zookeeper.address, session.session_id, session.password)
    assert await judge.children(chroot) == []
    await session.closed()
    with pytest.raises(wire.SessionRefused):
        await wire.connect(zookeeper.address, session_id=session.session_id, password=session.password)


class TestEnsemble:
    async def test_has_one_leader(self, ensemble: ZooKeeperEnsemble) -> None:
        assert sorted(member.mode or "" for member in ensemble.members) == ["follower", "follower", "leader"]
        assert ensemble.leader() not in ensemble.followers()

    async def test_another_leads_when_the_leader_is_killed(self, ensemble: ZooKeeperEnsemble) -> None:
        killed = ensemble.leader()
        killed.kill()
        async with Judge(ensemble.connect_string) as judge:
            await judge.make(f"/written-without-{killed.server_id}")
        assert ensemble.leader() is not killed

    async def test_rolling_restart_keeps_sessions(self, ensemble: ZooKeeperEnsemble) -> None:
        session = await wire.connect(ensemble.members[0].address, timeout_ms=60_000)
        await ensemble.rolling_restart()
        address = ensemble.members[1].address
        async with await wire.connect(address, session_id=session.session_id, password=session.password) as again:
            assert again.session_id == session.session_id
        session.abandon()

    async def test_member_cut_off_comes_back(self, ensemble: ZooKeeperEnsemble) -> None:
        follower = ensemble.followers()[0]
        ensemble.cut_off(follower)
        async with await wire.connect(ensemble.leader().address) as session:
            await session.create("/written-meanwhile")
        async with asyncio.timeout(20):
            while follower.mode is not None:
                await asyncio.sleep(0.05)
        ensemble.heal(follower)
        async with Judge(follower.address) as judge:
            assert await judge.node("/written-meanwhile") is not None

    async def test_leader_cut_off_is_replaced(self, ensemble: ZooKeeperEnsemble) -> None:
        leader = ensemble.leader()
        others = [member for member in ensemble.members if member is not leader]
        ensemble.cut_off(leader)
        async with asyncio.timeout(30):
            while leader.mode is not None or sorted(str(member.mode) for member in others) != ["follower", "leader"]:
                await asyncio.sleep(0.05)

    async def test_wiped_and_restored(self, ensemble: ZooKeeperEnsemble) -> None:
        async with Judge(ensemble.connect_string) as judge:
            await judge.make("/before")
            copies = ensemble.snapshot_data()
            await judge.make("/after")
            ensemble.kill()
            ensemble.wipe()
            await ensemble.start()
            assert await judge.node("/before") is None
            ensemble.kill()
            ensemble.restore_data(copies)
            await ensemble.start()
            assert await judge.node("/before") is not None
            assert await judge.node("/after") is None
