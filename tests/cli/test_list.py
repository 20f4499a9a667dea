from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aioregistry import Entry, Invalid, Snapshot
from aioregistry._cli import main
from aioregistry._cli.list_ import _age, _cells, _rows
from aioregistry._cli.rows import Row
from aioregistry._cli.selection import Selection, condition
from aioregistry._document import decode
from aioregistry._words import described, document, payload_of, state_of, to_json
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.cli.command import Command, outcome
from tests.cli.harmless import HARMFUL, is_harmless
from tests.cli.test_watch import FIELDS, instance
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

SPRING = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance"
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
    advice = "there is no service 'chat' below /services: `aioregistry list` shows the services"
    assert await outcome("list", "chat", "--json", *servers) == (1, "", f"aioregistry: {advice}\n")
    assert await outcome("list", "chat", *servers) == (1, "", f"aioregistry: {advice}\n")
    await judge.make(f"{chroot}/services/chat")
    assert await outcome("list", "chat", "--json", *servers) == (0, "[]\n", "")
    assert await outcome("list", "chat", *servers) == (0, "ID  ADDRESS  OWNER  AGE  STATE  PAYLOAD\n", "")


async def test_a_server_that_hangs_up_on_what_is_asked(proxy: ZooKeeperProxy, chroot: str) -> None:
    """It answers whatever else the session asks in between: what costs the connections is known, and named."""
    for _ in range(100):  # more often than it is asked
        proxy.lose_next_reply(GET_CHILDREN)
    servers = ("--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "20")
    code, stdout, stderr = await outcome("list", *servers)
    assert (code, stdout) == (1, "")
    *outages, last = stderr.splitlines()  # on a slow machine an outage lasts long enough to be told of
    assert "GetChildren" in last
    assert all("connect" in line for line in outages)


async def test_what_is_listed_does_not_move_the_cursor(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    await judge.make(f"{chroot}/services/chat/a", instance("a", "\x1b[2J\x07", address="\x1b[2J"))
    code, stdout, _ = await outcome("list", "chat", "--zookeeper", f"{zookeeper.address}{chroot}")
    assert code == 0
    assert all(line.isprintable() for line in stdout.splitlines())


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
    (row,) = _rows(snapshot)
    created = row.get("created")
    assert created is None or datetime.fromisoformat(created).timestamp() == ctime / 1000
    assert len(_cells(row)) == 6


@pytest.mark.parametrize(
    ("status", "listed", "counted"),
    [
        ("UP", "listed", "enabled"),
        ("OUT_OF_SERVICE", "out of service", "draining"),
        ("down", "out of service", "draining"),
    ],
)
def test_a_server_of_springs_is_shown_as_it_is_picked(status: str, listed: str, counted: str) -> None:
    payload = {"@class": SPRING, "id": "application-1", "name": "chat", "metadata": {"instance_status": status}}
    made = Entry(decode(instance("a", payload)), 7, 1, 1, 0, 0.0, 0.0)
    (row,) = _rows(Snapshot("chat", {"a": made}, {}, as_of=1))
    assert (row.get("state"), _cells(row)[4], state_of(made)) == (listed, listed, counted)
    assert (listed in described(made.instance)) is (listed != "listed")


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


NODES = {
    "a": instance("a", {"zone": "eu-1", "load": 9}),
    "b": instance("b", {"zone": "eu-2", "load": 10}),
    "c": instance("c", {"load": 1.5}),
    "d": b"oops",
}


def rows() -> list[Row]:
    entries = {id: Entry(decode(data), 7, 1, 1, 0, 0.0, 0.0) for id, data in NODES.items() if id != "d"}
    return list(_rows(Snapshot("chat", entries, {"d": Invalid("d", "oops", 1, 0)}, as_of=1)))


@pytest.mark.parametrize(
    ("where", "sort", "expected"),
    [
        (["zone=eu-1"], None, "a"),
        (["zone!=eu-1"], None, "bcd"),
        (["payload.zone=eu-2"], None, "b"),
        (["load=9"], None, "a"),
        (["load = 1.5"], None, "c"),
        (["state=invalid"], None, "d"),
        (["state=listed", "zone!=eu-2"], None, "ac"),
        (["port=7000"], None, "abc"),
        (["enabled=true"], None, "abc"),
        (["invalid=oops"], None, "d"),
        (["zone=eu-3"], None, ""),
        ([], "load", "cabd"),
        ([], "-load", "bacd"),
        ([], "-id", "dcba"),
        ([], "-", "dcba"),
        ([], "zone", "abcd"),
        (["id!=a"], "-state", "bcd"),
    ],
    ids=str,
)
def test_selection(where: list[str], sort: str | None, expected: str) -> None:
    key, reverse = (sort or "").removeprefix("-") or None, (sort or "").startswith("-")
    found = Selection([*map(condition, where)], key, reverse).of(rows())
    assert "".join(row.fields["id"] for row in found) == expected


async def made(judge: Judge, chroot: str) -> tuple[str, ...]:
    for id, data in NODES.items():
        await judge.make(f"{chroot}/services/chat/{id}", data)
    return "--zookeeper", f"{judge.addresses[0]}{chroot}"


async def test_what_is_shown_is_selected_and_sorted(judge: Judge, chroot: str) -> None:
    servers = await made(judge, chroot)
    options = ("--where", "zone!=eu-1", "--sort", "id", "--reverse", *servers)
    code, stdout, _ = await outcome("list", "chat", *options)
    assert code == 0
    assert [line.split()[0] for line in stdout.splitlines()] == ["ID", "d", "c", "b"]
    code, stdout, _ = await outcome("list", "chat", "--json", *options)
    assert [each["id"] for each in json.loads(stdout)] == ["d", "c", "b"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("list", "chat", "--where", "zone"), "--where='zone'"),
        (("list", "chat", "--where", "=eu-1"), "--where='=eu-1'"),
        (("list", "chat", "--where", "!=eu-1"), "--where='!=eu-1'"),
        (("watch", "chat", "--where", "zone"), "--where='zone'"),
        (("list", "--where", "zone=eu-1"), "--where='zone=eu-1'"),
        (("list", "--sort", "zone"), "--sort='zone'"),
    ],
    ids=str,
)
def test_selections_that_make_no_sense(
    arguments: tuple[str, ...], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert named in line


class Columns(dict[str, Any]):
    """A row that is its columns."""


def test_values_of_all_kinds_have_an_order() -> None:
    values = [None, True, "b", 10, "a", 9.5, float("nan"), [1], {"x": 1}, -1]
    rows = [Columns(payload={"key": value}) for value in values]
    found = [row["payload"]["key"] for row in Selection(sort="key").of(rows)]
    assert found[:3] == [-1, 9.5, 10]
    assert found[-1] is None
    assert len(found) == len(values)
    assert [row["payload"]["key"] for row in Selection([condition("key=true")]).of(rows)] == [True]


@pytest.mark.parametrize("payload", [None, "text", [1], {"zone": None}, {"zone": {"a": 1}}])
def test_a_path_that_leads_nowhere(payload: Any) -> None:
    rows = [Columns(payload=payload)]
    assert Selection([condition("zone.a.b=1")]).of(rows) == []
    assert Selection([condition("zone.a.b!=1")], "zone.a.b").of(rows) == rows


async def test_it_is_shown_again_after_each_change(judge: Judge, chroot: str) -> None:
    servers = await made(judge, chroot)
    async with (
        Command("list", "chat", "--watch", "--json", "--where", "zone=eu-1", *servers) as selected,
        Command("list", "chat", "--watch", *servers) as table,
        Command("list", "--watch", *servers) as services,
    ):
        assert [each["id"] for each in json.loads(await selected.line())] == ["a"]
        assert [(await table.line()).split()[0] for _ in range(5)] == ["ID", "a", "b", "c", "d"]
        assert await services.line() == "chat"
        await judge.set_data(f"{chroot}/services/chat/d", instance("d", {"zone": "eu-1"}))
        assert [each["id"] for each in json.loads(await selected.line())] == ["a", "d"]
        assert await table.line() == ""
        assert [(await table.line()).split()[0] for _ in range(5)] == ["ID", "a", "b", "c", "d"]
        await judge.make(f"{chroot}/services/auth")
        assert [await services.line() for _ in range(3)] == ["", "auth", "chat"]
        for command in (selected, table, services):
            command.send(signal.SIGTERM)
            assert await command.end() == (0, "", "")


async def test_a_service_that_is_not_there_is_not_waited_for(zookeeper: ZooKeeperServer, chroot: str) -> None:
    code, stdout, stderr = await outcome("list", "chat", "--watch", "--zookeeper", f"{zookeeper.address}{chroot}")
    assert (code, stdout) == (1, "")
    assert "there is no service 'chat'" in stderr
