from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime

import pytest

from aioregistry._errors import session_name
from aioregistry.testing._ports import ReservedPort
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.cli.command import TIMEOUT, Command, outcome
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

INSTANCE = ("register", "chat", "--id", "a", "--address", "127.0.0.1", "--port", "7000")
NODE = "/services/chat/a"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
async def test_a_signal_withdraws(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, number: signal.Signals
) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")
    async with Command(*INSTANCE, "--payload", '{"zone": "eu-1"}', *servers) as command:
        assert await command.error_lines_until("LIVE") == ["chat/a REGISTERING", "chat/a LIVE"]
        node = await judge.node(chroot + NODE)
        assert node is not None
        document = json.loads(node.data)
        assert {field: document[field] for field in ("name", "id", "address", "port", "payload")} == {
            "name": "chat", "id": "a", "address": "127.0.0.1", "port": 7000, "payload": {"zone": "eu-1"},
        }  # fmt: skip
        command.send(number)
        code, stdout, stderr = await command.end()
        assert (code, stdout, stderr) == (0, "", "")
    assert await judge.node(chroot + NODE) is None  # at once, not a minute later


async def test_a_worker_without_a_port_has_an_id_of_its_own(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")
    async with Command("register", "jobs", *servers) as first, Command("register", "jobs", *servers) as second:
        for command in (first, second):
            await command.error_lines_until("LIVE")
        nodes = await judge.children(f"{chroot}/services/jobs")
        assert len(nodes) == 2
        for id in nodes:
            node = await judge.node(f"{chroot}/services/jobs/{id}")
            assert node is not None
            document = json.loads(node.data)
            assert (document["id"], document["port"]) == (id, None)
            assert id.startswith(f"{document['address']}#")
        for command in (first, second):
            command.send(signal.SIGTERM)
            assert await command.exit_code() == 0
    assert [await judge.node(f"{chroot}/services/jobs/{id}") for id in nodes] == [None, None]


@pytest.mark.parametrize("initial", [None, "failing", "passing"])
async def test_a_check_counts_before_its_first_result_as_it_is_told_to(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, initial: str | None
) -> None:
    hangs = ("--check-command", "sleep 100000", "--check-timeout", "100000")
    options = () if initial is None else ("--check-initial", initial)
    async with Command(*INSTANCE, *hangs, *options, "--zookeeper", f"{zookeeper.address}{chroot}") as command:
        await command.error_lines_until("LIVE")
        node = await judge.node(chroot + NODE)
        assert node is not None
        assert node.stat.version == 0
        assert json.loads(node.data).get("enabled", True) is (initial == "passing")
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_the_newer_of_two_stays(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    async with Command(*INSTANCE, *servers, "--on-displaced", "stop") as first:
        await first.error_lines_until("LIVE")
        async with Command(*INSTANCE, *servers) as second:
            await second.error_lines_until("LIVE")
            code, stdout, stderr = await first.end()
            assert (code, stdout) == (3, "")
            assert stderr.splitlines()[-1].startswith(f"aioregistry: {chroot}{NODE}: displaced by session 0x")
            assert await judge.owner(chroot + NODE)
            second.send(signal.SIGTERM)
            assert await second.exit_code() == 0


async def test_the_older_of_two_is_listed_again_when_the_newer_stops(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")
    async with Command(*INSTANCE, *servers) as first:
        await first.error_lines_until("LIVE")
        former = await judge.owner(chroot + NODE)
        async with Command(*INSTANCE, *servers) as second:
            await second.error_lines_until("LIVE")
            told = (await first.error_lines_until("DISPLACED"))[-1]
            present = await judge.owner(chroot + NODE)
            assert told == f"chat/a DISPLACED by session {session_name(present or 0)}"
            second.send(signal.SIGTERM)
            assert await second.exit_code() == 0
        await first.error_lines_until("LIVE")
        assert await judge.owner(chroot + NODE) == former
        first.send(signal.SIGTERM)
        assert await first.exit_code() == 0
    assert await judge.node(chroot + NODE) is None


async def test_told_to_stop_while_it_stands_by(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    async with Command(*INSTANCE, *servers) as first:
        await first.error_lines_until("LIVE")
        async with Command(*INSTANCE, *servers) as second:
            await second.error_lines_until("LIVE")
            await first.error_lines_until("DISPLACED")
            first.send(signal.SIGTERM)
            assert await first.end() == (0, "", "")
            assert await judge.owner(chroot + NODE)
            second.send(signal.SIGTERM)
            assert await second.exit_code() == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "0"),
        ("--port", "-1"),
        ("--port", "65536"),
        ("--port", "99999999999999999999"),
        ("--port", "80.0"),
        ("--address", "0.0.0.0"),
        ("--address", "::"),
        ("--address", "::ffff:0.0.0.0"),
        ("--address", "224.0.0.1"),
        ("--address", "ff02::1"),
        ("--address", "255.255.255.255"),
    ],
)
async def test_what_nobody_can_connect_to(zookeeper: ZooKeeperServer, chroot: str, option: str, value: str) -> None:
    given = {"--address": "10.0.0.7", "--port": "7000"} | {option: value}
    words = [word for pair in given.items() for word in pair]
    code, stdout, stderr = await outcome("register", "chat", *words, "--zookeeper", f"{zookeeper.address}{chroot}")
    assert (code, stdout) == (2, "")
    assert option.removeprefix("--") in stderr.splitlines()[-1]
    assert value in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


async def test_nohup(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    """A process that ignores SIGHUP from the start outlives its terminal."""
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command = Command(*INSTANCE, *servers)
        await command.__aenter__()
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        await command.error_lines_until("LIVE")
        assert not command.catches(signal.SIGHUP)
        command.send(signal.SIGHUP)
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0
    finally:
        await command.__aexit__()
    assert await judge.node(chroot + NODE) is None


async def test_a_persistent_node_in_the_way(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    await judge.make(chroot + NODE, b"mine")
    code, stdout, stderr = await outcome(*INSTANCE, "--zookeeper", f"{zookeeper.address}{chroot}")
    assert (code, stdout) == (1, "")
    assert stderr.splitlines()[-1].startswith(f"aioregistry: {chroot}{NODE}: ")
    assert "Traceback" not in stderr
    node = await judge.node(chroot + NODE)
    assert node is not None
    assert node.data == b"mine"


async def test_no_zookeeper_in_time() -> None:
    with ReservedPort() as port:
        servers = ("--zookeeper", f"127.0.0.1:{port.number}", "--session-timeout", "0.3")
        code, stdout, stderr = await outcome(*INSTANCE, *servers, "--connect-timeout", "0.5")
    assert (code, stdout) == (1, "")
    (line,) = stderr.splitlines()
    assert f"127.0.0.1:{port.number}" in line
    assert "--zookeeper" in line


@pytest.mark.parametrize("seconds", ["-1", "nan", "soon"])
async def test_a_connect_timeout_that_is_none(seconds: str) -> None:
    code, stdout, stderr = await outcome(*INSTANCE, f"--connect-timeout={seconds}")
    assert (code, stdout) == (2, "")
    assert seconds in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


async def test_zookeeper_comes_later(proxy: ZooKeeperProxy, judge: Judge, chroot: str) -> None:
    """It waits for longer than the session timeout, says why, and is listed when there is a server."""
    proxy.refuse()
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "0.9")
    async with Command(*INSTANCE, *servers) as command:
        assert await command.error_line() == "chat/a REGISTERING"
        why = await command.error_line()
        assert why.startswith("aioregistry: warning: no connection to ZooKeeper for ")
        # On a slow machine even a refusal may take longer than an attempt may.
        assert any(f"{proxy.address}: {what}" in why for what in ("the connection was refused", "no connection within"))
        with pytest.raises(TimeoutError):  # no deadline ends it, and it says that once
            async with asyncio.timeout(3.0):
                await command.error_line()
        proxy.accept()
        told = await command.error_lines_until("LIVE")
        assert told[0].startswith(f"aioregistry: connected to ZooKeeper at {proxy.address} after ")
        assert told[-1] == "chat/a LIVE"
        assert len(told) == 2
        assert await judge.owner(chroot + NODE)
        command.send(signal.SIGTERM)
        assert await command.end() == (0, "", "")


@pytest.mark.parametrize("fault", ["refuse", "silence"])
async def test_told_to_stop_while_it_waits_for_zookeeper(proxy: ZooKeeperProxy, chroot: str, fault: str) -> None:
    getattr(proxy, fault)()
    async with Command(*INSTANCE, "--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "90") as command:
        assert await command.error_line() == "chat/a REGISTERING"
        command.send(signal.SIGTERM)
        assert await command.end() == (0, "", "")  # by a deadline that is shorter than a third of the session timeout


async def test_an_outage_is_told_when_it_begins_and_when_it_is_over(proxy: ZooKeeperProxy, chroot: str) -> None:
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "4")
    async with Command(*INSTANCE, *servers) as command:
        await command.error_lines_until("LIVE")
        proxy.refuse()
        proxy.cut()
        assert (await command.error_lines_until("no connection"))[-1].startswith("aioregistry: warning: ")
        proxy.accept()
        assert (await command.error_lines_until("connected to"))[-1].startswith("aioregistry: connected to ZooKeeper")
        await command.error_lines_until("LIVE")
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_in_an_outage_each_status_says_what_it_means(proxy: ZooKeeperProxy, chroot: str) -> None:
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "4")
    async with Command(*INSTANCE, *servers) as command:
        await command.error_lines_until("LIVE")
        proxy.refuse()
        proxy.cut()
        assert (await command.error_lines_until("UNCERTAIN"))[-1] == (
            "chat/a UNCERTAIN: the connection to ZooKeeper was lost, and it is not known yet whether the instance is "
            "listed"
        )
        assert (await command.error_lines_until("PRESUMED_GONE"))[-1] == (
            "chat/a PRESUMED_GONE: ZooKeeper has not answered for a session timeout, so the instance is probably not "
            "listed; it will be listed again as soon as there is a connection"
        )
        proxy.accept()
        assert (await command.error_lines_until("LIVE"))[-1] == "chat/a LIVE"
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_an_instance_that_somebody_deletes_is_told_and_listed_again(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    async with Command(*INSTANCE, "--zookeeper", f"{zookeeper.address}{chroot}") as command:
        assert "chat/a REGISTERING" in await command.error_lines_until("LIVE")
        await judge.delete(f"{chroot}{NODE}")
        assert await command.error_lines_until("LIVE") == [
            "chat/a REGISTERING: the instance is not listed at the moment, and will be as soon as possible",
            "chat/a LIVE",
        ]
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_told_to_stop_while_zookeeper_is_away(proxy: ZooKeeperProxy, chroot: str) -> None:
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "6")
    async with Command(*INSTANCE, *servers) as command:
        await command.error_lines_until("LIVE")
        proxy.silence()
        command.send(signal.SIGTERM)
        code, _, stderr = await command.end()
        assert code == 1
        assert stderr.splitlines()[-1].startswith(f"aioregistry: {chroot}{NODE}: not withdrawn in time")


async def test_told_to_stop_in_silence_it_takes_one_bound(proxy: ZooKeeperProxy, chroot: str) -> None:
    """The withdrawal and the end of the session share a third of the session timeout; two bounds would be two of it."""
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "12", "--log-format", "json")
    async with Command(*INSTANCE, *servers) as command:
        await command.error_lines_until("LIVE")
        proxy.silence()
        told = datetime.now(UTC)
        command.send(signal.SIGTERM)
        code, _, stderr = await command.end()
    assert code == 1
    last = json.loads(stderr.splitlines()[-1])
    assert "not withdrawn in time" in last["message"]
    assert (datetime.fromisoformat(last["time"]) - told).total_seconds() < 2 * 4


async def test_a_second_signal_does_not_wait(proxy: ZooKeeperProxy, chroot: str) -> None:
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "60")
    async with Command(*INSTANCE, *servers) as command:
        await command.error_lines_until("LIVE")
        proxy.silence()
        command.send(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT):
            while command.catches(signal.SIGTERM):
                await asyncio.sleep(0.01)
        command.send(signal.SIGTERM)
        assert await command.exit_code() == -signal.SIGTERM


async def test_whoever_is_not_heard_any_more_leaves(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")
    async with Command(*INSTANCE, *servers) as command:
        await command.error_lines_until("LIVE")
        command.stop_reading()
        assert await command.exit_code() == 0
    assert await judge.node(chroot + NODE) is None
