from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from aioregistry._cli.list_ import _age
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.cli.command import Command, outcome
from tests.cli.test_watch import FIELDS, instance
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

GET_CHILDREN = 8  # the older of two opcodes: no Stat comes with it


async def test_services(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    await judge.make(f"{chroot}/services/chat")
    await judge.make(f"{chroot}/services/auth")
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    assert await outcome("list", *servers) == (0, "auth\nchat\n", "")
    code, stdout, stderr = await outcome("list", "--json", *servers)
    assert (code, stderr) == (0, "")
    assert json.loads(stdout) == [{"name": "auth"}, {"name": "chat"}]


async def test_instances(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")
    register = ("register", "chat", "--id", "a", "--address", "10.0.0.7", "--port", "7000", "--payload", '{"n": 1}')
    async with Command(*register, *servers) as registered:
        await registered.error_lines_until("LIVE")
        await judge.make(f"{chroot}/services/chat/bad", b"{")
        owner = await judge.owner(f"{chroot}/services/chat/a")
        assert owner is not None
        shown = f"{owner & 0xFFFF_FFFF_FFFF_FFFF:#x}"

        code, stdout, stderr = await outcome("list", "chat", "--json", *servers)
        assert (code, stderr) == (0, "")
        good, bad = json.loads(stdout)
        assert set(good) == FIELDS | {"owner", "created", "invalid", "sessionTimeoutMs"}
        assert (good["id"], good["payload"], good["owner"], good["invalid"]) == ("a", {"n": 1}, shown, None)
        age = datetime.now(UTC) - datetime.fromisoformat(good["created"])
        assert timedelta(0) <= age < timedelta(minutes=5)
        assert (bad["id"], bad["owner"], bad["created"]) == ("bad", "0x0", None)
        assert bad["invalid"]

        code, stdout, stderr = await outcome("list", "chat", *servers)
        assert (code, stderr) == (0, "")
        head, first, second = stdout.splitlines()
        assert head.split() == ["ID", "ADDRESS", "OWNER", "AGE", "STATE", "PAYLOAD"]
        assert first.split()[:3] == ["a", "10.0.0.7:7000", shown]
        assert first.split()[4:] == ["listed", '{"n":', "1}"]
        assert second.split()[:5] == ["bad", "-", "0x0", "-", "invalid"]


async def test_a_typing_error_in_the_chroot_is_told_and_not_created(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    code, stdout, stderr = await outcome("list", "--zookeeper", f"{zookeeper.address}{chroot}/typo")
    assert (code, stdout) == (0, "")
    (line,) = stderr.splitlines()
    assert f"chroot='{chroot}/typo' does not exist" in line
    assert await judge.node(f"{chroot}/typo") is None


async def test_nobody_there(zookeeper: ZooKeeperServer, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    assert await outcome("list", *servers) == (0, "", "")
    assert await outcome("list", "--json", *servers) == (0, "[]\n", "")
    assert await outcome("list", "chat", "--json", *servers) == (0, "[]\n", "")
    assert await outcome("list", "chat", *servers) == (0, "ID  ADDRESS  OWNER  AGE  STATE  PAYLOAD\n", "")


async def test_a_server_that_never_answers(proxy: ZooKeeperProxy, chroot: str) -> None:
    for _ in range(100):  # more often than it is asked
        proxy.lose_next_reply(GET_CHILDREN)
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "1")
    assert await outcome("list", *servers) == (1, "", "aioregistry: no answer within --session-timeout 1 s\n")


async def test_what_is_listed_does_not_move_the_cursor(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    await judge.make(f"{chroot}/services/chat/a", instance("a", "\x1b[2J\x07", address="\x1b[2J"))
    code, stdout, _ = await outcome("list", "chat", "--zookeeper", f"{zookeeper.address}{chroot}")
    assert code == 0
    assert all(line.isprintable() for line in stdout.splitlines())


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0s"), (0.9, "0s"), (59, "59s"), (60, "1m0s"), (3723, "1h2m"), (86400, "1d0h"), (200_000, "2d7h")],
)
def test_age(seconds: float, shown: str) -> None:
    assert _age(seconds) == shown
