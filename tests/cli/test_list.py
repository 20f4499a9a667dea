from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest

from aioregistry import Entry, Snapshot
from aioregistry._cli.list_ import _age, _objects, _rows
from aioregistry._cli.text import document, payload_of, to_json
from aioregistry._document import decode
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


async def test_nobody_there(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    assert await outcome("list", *servers) == (0, "", "")
    assert await outcome("list", "--json", *servers) == (0, "[]\n", "")
    advice = "there is no service 'chat' below /services: aioregistry list shows those there are"
    assert await outcome("list", "chat", "--json", *servers) == (1, "", f"aioregistry: {advice}\n")
    assert await outcome("list", "chat", *servers) == (1, "", f"aioregistry: {advice}\n")
    await judge.make(f"{chroot}/services/chat")
    assert await outcome("list", "chat", "--json", *servers) == (0, "[]\n", "")
    assert await outcome("list", "chat", *servers) == (0, "ID  ADDRESS  OWNER  AGE  STATE  PAYLOAD\n", "")


async def test_a_server_that_never_answers(proxy: ZooKeeperProxy, chroot: str) -> None:
    for _ in range(100):  # more often than it is asked
        proxy.lose_next_reply(GET_CHILDREN)
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "1")
    code, stdout, stderr = await outcome("list", *servers)
    assert (code, stdout) == (1, "")
    assert "GetChildren" in stderr or "no answer within --session-timeout 1 s" in stderr
    assert stderr.count("\n") == 1


async def test_what_is_listed_does_not_move_the_cursor(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    await judge.make(f"{chroot}/services/chat/a", instance("a", "\x1b[2J\x07", address="\x1b[2J"))
    code, stdout, _ = await outcome("list", "chat", "--zookeeper", f"{zookeeper.address}{chroot}")
    assert code == 0
    assert all(line.isprintable() for line in stdout.splitlines())


# Turns the line around, hides a part of it, breaks it, is not seen; a name that is fine is shown as it is.
HARMFUL = ["pay\u202etset", "a\u200bb", "c\u2066d", "e\u2028f", "g\u3164h", "i\u00a0j", "k\u00adl", "m\ufe0fn"]


def is_harmless(text: str) -> bool:
    kinds = {unicodedata.category(character) for character in text if character != "\n"}
    return not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} and not set(text) & set("\u3164\u00a0\ufe0f")


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_what_is_printed_does_a_terminal_no_harm(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, options: tuple[str, ...]
) -> None:
    for name in (*HARMFUL, "ümläut"):
        await judge.make(f"{chroot}/services/{name}")
        await judge.make(f"{chroot}/services/chat/{name}", instance(name, {name: name}, address=name))
        await judge.make(f"{chroot}/services/chat/bad {name}", name.encode())
    await judge.make(f"{chroot}/services/chat/del", instance("del", "\x7f"))
    await judge.make(
        f"{chroot}/services/chat/half", instance("half", None).replace(b'"payload": null', b'"payload": "\\ud800"')
    )
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    for arguments in (("list",), ("list", "chat"), ("list", HARMFUL[0]), ("list", "no\u202esuch")):
        _, stdout, stderr = await outcome(*arguments, *options, *servers)
        assert is_harmless(stdout + stderr)
        assert "Traceback" not in stderr
    code, stdout, _ = await outcome("list", *options, *servers)
    names = [each["name"] for each in json.loads(stdout)] if options else stdout.splitlines()
    assert code == 0
    assert len(names) == len(HARMFUL) + 2
    assert {"chat", "ümläut"} <= set(names)


@pytest.mark.parametrize("arguments", [("no\u202esuch",), ("list", "a\u2028b\x1b/.."), ("watch", "\u202e\x1b")])
async def test_what_is_refused_is_told_without_harm(arguments: tuple[str, ...]) -> None:
    code, stdout, stderr = await outcome(*arguments)
    assert (code, stdout) == (2, "")
    assert is_harmless(stderr)


@pytest.mark.parametrize("ctime", [-(2**63), -1, 0, 2**53, 2**63 - 1])
def test_a_time_of_the_servers_may_be_any(ctime: int) -> None:
    made = Entry(decode(instance("a", None)), 7, 1, 1, 0, ctime / 1000, ctime / 1000)
    snapshot = Snapshot("chat", {"a": made}, {}, as_of=1)
    (shown,) = _objects(snapshot)
    assert shown["created"] is None or datetime.fromisoformat(shown["created"]).timestamp() == ctime / 1000
    assert len(list(_rows(snapshot))) == 2


def test_numbers_beyond_a_floats_range_are_text() -> None:
    beyond = decode(instance("a", None).replace(b'"payload": null', b'"payload": [1e999, -1e999, {"a": 1e999}]'))
    expected = ["Infinity", "-Infinity", {"a": "Infinity"}]
    assert json.loads(to_json(document(beyond)))["payload"] == expected
    assert json.loads(payload_of(beyond)) == expected


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0s"), (0.9, "0s"), (59, "59s"), (60, "1m0s"), (3723, "1h2m"), (86400, "1d0h"), (200_000, "2d7h")],
)
def test_age(seconds: float, shown: str) -> None:
    assert _age(seconds) == shown
