from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from aioregistry.testing._proxy import ZooKeeperProxy
from tests.cli.command import TIMEOUT, Command, outcome
from tests.support import wire
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

FIELDS = {
    "name", "id", "address", "port", "sslPort", "payload", "registrationTimeUTC", "serviceType", "uriSpec", "enabled",
}  # fmt: skip
CAUGHT_UP = "caught up after a lost connection or a slow reader"


def instance(id: str, payload: Any = None, *, address: str = "10.0.0.7") -> bytes:
    fields = {
        "name": "chat", "id": id, "address": address, "port": 7000, "sslPort": None, "payload": payload,
        "registrationTimeUTC": 1763680000000, "serviceType": "DYNAMIC", "uriSpec": None,
    }  # fmt: skip
    return json.dumps(fields).encode()


async def objects(command: Command, count: int) -> list[dict[str, Any]]:
    return [json.loads(await command.line()) for _ in range(count)]


async def test_json_is_the_present_state_and_then_an_object_per_change(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    service = f"{chroot}/services/chat"
    await judge.make(f"{service}/a", instance("a"))
    async with Command("watch", "chat", "--json", "--zookeeper", f"{zookeeper.address}{chroot}") as command:
        (snapshot,) = await objects(command, 1)
        assert list(snapshot) == ["kind", "zxid", "instances"]
        assert snapshot["kind"] == "snapshot"
        assert [set(listed) for listed in snapshot["instances"]] == [FIELDS]
        await judge.make(f"{service}/b", instance("b"))
        (added,) = await objects(command, 1)
        await judge.set_data(f"{service}/b", instance("b", {"load": 12}))
        (updated,) = await objects(command, 1)
        await judge.delete(f"{service}/b")
        (removed,) = await objects(command, 1)
        assert [list(change) for change in (added, updated, removed)] == [["kind", "zxid", "instance"]] * 3
        assert [change["kind"] for change in (added, updated, removed)] == ["added", "updated", "removed"]
        assert [change["instance"]["payload"] for change in (added, updated, removed)] == [None, *[{"load": 12}] * 2]
        zxids = [change["zxid"] for change in (snapshot, added, updated, removed)]
        assert zxids == sorted(zxids)
        command.send(signal.SIGTERM)
        assert await command.end() == (0, "", "")


async def test_a_lost_connection_is_a_resync(proxy: ZooKeeperProxy, judge: Judge, chroot: str) -> None:
    service = f"{chroot}/services/chat"
    await judge.make(f"{service}/a", instance("a"))
    async with Command("watch", "chat", "--json", "--zookeeper", f"{proxy.address}{chroot}") as command:
        await objects(command, 1)
        proxy.refuse()
        proxy.cut()
        await judge.make(f"{service}/b", instance("b"))
        proxy.accept()
        (resynced,) = await objects(command, 1)
        assert resynced["kind"] == "resynced"
        assert [listed["id"] for listed in resynced["instances"]] == ["a", "b"]


async def test_what_consumers_see_is_shown_on_demand(
    zookeeper: ZooKeeperServer, judge: Judge, proxy: ZooKeeperProxy, chroot: str
) -> None:
    service = f"{chroot}/services/chat"
    for id in "abc":
        await judge.make(f"{service}/{id}", instance(id))
    servers = ("--zookeeper", f"{proxy.address}{chroot}")
    async with (
        Command("watch", "chat", "--json", "--guard", *servers) as guarded,
        Command("watch", "chat", "--json", *servers) as plain,
        Command("watch", "chat", "--guard", *servers) as lines,
    ):
        for each in (guarded, plain):
            await objects(each, 1)
        assert await lines.line() == "chat: 3 listed"
        for _ in "abc":
            await lines.line()
        proxy.refuse()
        proxy.cut()
        for id in "ab":
            await judge.delete(f"{service}/{id}")
        proxy.accept()
        (seen,), (listed,) = await objects(guarded, 1), await objects(plain, 1)
        assert {each["id"]: each.get("suspect", False) for each in seen["instances"]} == {
            "a": True,
            "b": True,
            "c": False,
        }
        assert [each["id"] for each in listed["instances"]] == ["c"]
        assert await lines.line() == f"resynced  1 listed; {CAUGHT_UP}, with these changes:"
        assert {await lines.line() for _ in "ab"} == {
            f"updated   {id}  10.0.0.7:7000  suspect: disruption" for id in "ab"
        }


async def test_a_lost_connection_is_a_line_for_people_too(proxy: ZooKeeperProxy, judge: Judge, chroot: str) -> None:
    service = f"{chroot}/services/chat"
    await judge.make(f"{service}/a", instance("a"))
    async with Command("watch", "chat", "--zookeeper", f"{proxy.address}{chroot}") as command:
        for expected in ("chat: 1 listed", "          a  10.0.0.7:7000"):
            assert await command.line() == expected
        proxy.cut()
        assert await command.line() == f"resynced  1 listed; {CAUGHT_UP}, without a change"
        proxy.refuse()
        proxy.cut()
        await judge.make(f"{service}/b", instance("b"))
        proxy.accept()
        assert await command.line() == f"resynced  2 listed; {CAUGHT_UP}, with these changes:"
        assert await command.line() == "added     b  10.0.0.7:7000"


async def test_lines_for_people(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    service = f"{chroot}/services/chat"
    await judge.make(f"{service}/a", instance("a", {"zone": "é"}))
    async with Command("watch", "chat", "--zookeeper", f"{zookeeper.address}{chroot}") as command:
        assert await command.line() == "chat: 1 listed"
        assert await command.line() == '          a  10.0.0.7:7000  {"zone": "é"}'
        await judge.make(f"{service}/b", instance("b", address="\x1b[2J10.0.0.8"))
        assert await command.line() == "added     b  \\x1b[2J10.0.0.8:7000"
        await judge.delete(f"{service}/a")
        assert await command.line() == 'removed   a  10.0.0.7:7000  {"zone": "é"}'


async def test_nodes_that_show_no_instance_are_told_with_the_reason(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    service = f"{chroot}/services/chat"
    await judge.make(f"{service}/a", instance("a"))
    await judge.make(f"{service}/bad", b"oops")
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    async with Command("watch", "chat", *servers) as lines, Command("watch", "chat", "--json", *servers) as command:
        snapshot, invalid = await objects(command, 2)
        assert [each["id"] for each in snapshot["instances"]] == ["a"]
        assert list(invalid) == ["kind", "zxid", "instance", "reason"]
        assert (invalid["kind"], invalid["instance"]) == ("invalid", {"name": "chat", "id": "bad"})
        assert invalid["reason"]
        for expected in ("chat: 1 listed", "          a  10.0.0.7:7000", "invalid   bad  "):
            assert (await lines.line()).startswith(expected)

        await judge.make(f"{service}/worse", b"oops")
        await judge.set_data(f"{service}/a", b"spoiled")
        assert [(each["kind"], each["instance"]["id"]) for each in await objects(command, 2)] == [
            ("invalid", "worse"),
            ("invalid", "a"),
        ]
        assert (await lines.line()).startswith("invalid   worse  ")
        assert (await lines.line()).startswith("invalid   a  ")
        await judge.set_data(f"{service}/a", instance("a"))
        (added,) = await objects(command, 1)
        assert (added["kind"], added["instance"]["id"]) == ("added", "a")


async def test_a_service_that_is_not_there_is_waited_for_aloud(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    await judge.make(f"{chroot}/services/empty")
    async with Command("watch", "chat", *servers) as command, Command("watch", "empty", *servers) as of_empty:
        assert await command.line() == "chat: 0 listed"
        told = "there is no service 'chat' below /services: `aioregistry list` shows the services; waiting for it"
        assert await command.error_line() == f"aioregistry: warning: {told}"
        await judge.make(f"{chroot}/services/chat/a", instance("a"))
        assert await command.line() == "added     a  10.0.0.7:7000"
        assert await of_empty.line() == "empty: 0 listed"
        await judge.make(f"{chroot}/services/empty/a", instance("a").replace(b"chat", b"empty"))
        assert await of_empty.line() == "added     a  10.0.0.7:7000"
        of_empty.send(signal.SIGTERM)
        assert await of_empty.end() == (0, "", "")


async def test_a_part_of_the_instances_is_followed(proxy: ZooKeeperProxy, judge: Judge, chroot: str) -> None:
    service = f"{chroot}/services/chat"
    for id, zone in (("a", "eu-1"), ("b", "eu-1"), ("c", "eu-2")):
        await judge.make(f"{service}/{id}", instance(id, {"zone": zone}))
    await judge.make(f"{service}/bad", b"oops")
    options = ("--where", "zone=eu-1", "--sort", "id", "--reverse", "--zookeeper", f"{proxy.address}{chroot}")
    async with Command("watch", "chat", *options) as lines, Command("watch", "chat", "--json", *options) as command:
        (snapshot,) = await objects(command, 1)
        assert [each["id"] for each in snapshot["instances"]] == ["b", "a"]
        place, eu1, eu2 = "10.0.0.7:7000", '{"zone": "eu-1"}', '{"zone": "eu-2"}'
        for expected in (
            "chat: 3 listed, 2 of them match",
            f"          b  {place}  {eu1}",
            f"          a  {place}  {eu1}",
        ):
            assert await lines.line() == expected

        # Changes of different nodes may be seen in any order: each is waited for.
        await judge.set_data(f"{service}/c", instance("c", {"zone": "eu-3"}))  # of no concern
        await judge.set_data(f"{service}/a", instance("a", {"zone": "eu-2"}))
        (found,) = await objects(command, 1)
        assert (found["kind"], found["instance"]["id"]) == ("unmatched", "a")
        assert found["instance"]["payload"] == {"zone": "eu-2"}
        assert await lines.line() == f"unmatched a  {place}  {eu2}  (still listed)"
        await judge.set_data(f"{service}/c", instance("c", {"zone": "eu-1"}))
        (found,) = await objects(command, 1)
        assert (found["kind"], found["instance"]["id"]) == ("matched", "c")
        assert await lines.line() == f"matched   c  {place}  {eu1}"
        await judge.set_data(f"{service}/b", b"spoiled")
        (found,) = await objects(command, 1)
        assert (found["kind"], found["instance"]["id"]) == ("invalid", "b")
        assert (await lines.line()).startswith("invalid   b  ")

        proxy.cut()
        assert await lines.line() == (
            f"resynced  2 listed, 1 of them matches; {CAUGHT_UP}, without a change to those that match"
        )
        (resynced,) = await objects(command, 1)
        assert [each["id"] for each in resynced["instances"]] == ["c"]
        await judge.delete(f"{service}/a")  # of no concern
        await judge.delete(f"{service}/c")
        (removed,) = await objects(command, 1)
        assert (removed["kind"], removed["instance"]["id"]) == ("removed", "c")
        assert await lines.line() == f"removed   c  {place}  {eu1}"


async def test_a_reader_that_has_enough_ends_it(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async with Command("watch", "chat", "--zookeeper", f"{zookeeper.address}{chroot}") as command:
        await command.line()
        command.stop_reading()
        assert await command.exit_code() == 0


async def test_a_reader_that_stands_still_does_not_cost_the_session(
    proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    service = f"{chroot}/services/chat"
    await judge.make(service)
    arguments = ("watch", "chat", "--json", "--zookeeper", f"{proxy.address}{chroot}", "--session-timeout", "3")
    async with Command(*arguments) as command:
        await command.line()
        connections = proxy.connections
        command.hold()
        for number in range(40):  # far more than a pipe holds
            await judge.make(f"{service}/{number:02}", instance(f"{number:02}", "x" * 20_000))
        beats = proxy.requests[wire.SYNC]
        async with asyncio.timeout(TIMEOUT):
            while proxy.requests[wire.SYNC] < beats + 4:  # more than a session timeout
                await asyncio.sleep(0.01)
        command.go_on()
        seen: set[str] = set()
        while len(seen) < 40:
            change = json.loads(await command.line())
            seen |= {listed["id"] for listed in change.get("instances", [change.get("instance")])}
        assert proxy.connections == connections


async def test_no_zookeeper() -> None:
    code, stdout, stderr = await outcome("watch", "chat", "--zookeeper", "127.0.0.1:1", "--session-timeout", "0.5")
    assert (code, stdout) == (1, "")
    assert len(stderr.splitlines()) == 1
