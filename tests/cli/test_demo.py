from __future__ import annotations

import asyncio
import json
import re
import signal
from argparse import Namespace
from typing import Any

import pytest

from aioregistry import Added, Entry, Removed, ServiceInstance, Updated
from aioregistry._cli import demo
from aioregistry._cli.demo import Stage, of_cut, of_kill
from aioregistry._cli.stage import DemoResult, seen
from tests.cli.command import TIMEOUT, Command, outcome
from tests.support.judge import Judge
from tests.support.processes import is_running
from tests.support.zookeeper import ZooKeeperServer

FAULTS = ["connection cut", "session expired", "killed and restarted", "node deleted by hand", "asked to stop"]


async def test_every_promise_is_kept(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "5")
    async with Command("demo", "--json", *servers) as command:
        happenings: list[dict[str, Any]] = []
        while not happenings or happenings[-1]["event"] != "summary":
            happenings.append(json.loads(await command.line()))
        code, stdout, stderr = await command.end()
        assert (code, stdout) == (0, ""), stderr
    summary = happenings[-1]
    assert summary["promised"] is True
    assert [verdict["fault"] for verdict in summary["faults"]] == FAULTS
    saw = {verdict["fault"]: verdict["saw"] for verdict in summary["faults"]}
    assert saw["session expired"] == ["removed", "added"]
    assert saw["killed and restarted"][-1] == "kept"
    assert saw["asked to stop"] == ["removed"]
    assert all(list(happening) == ["at", "who", "event", "server", "text"] for happening in happenings[:-1])
    assert [happening["at"] for happening in happenings] == sorted(happening["at"] for happening in happenings)
    assert await judge.children(chroot) == []  # nothing is left behind


# (what the gateway saw, seconds until the server was live again) with a session timeout of four
CUT = {
    ((), 0.1): True,
    ((), 30.0): True,
    (("removed", "added"), 0.1): False,
    (("removed", "added"), 1.9): False,
    (("removed", "added"), 2.0): True,  # ZooKeeper had last heard of it up to a third of the timeout before
    (("replaced",), 5.0): True,
    (("replaced",), 1.0): False,
    (("removed",), 5.0): False,
    (("removed", "added", "removed"), 5.0): False,
}


@pytest.mark.parametrize(("saw", "took"), CUT)
def test_a_cut_costs_the_session_only_where_the_server_was_away_for_its_timeout(
    saw: tuple[str, ...], took: float
) -> None:
    verdict = of_cut(saw, took, session_timeout=4.0)
    assert (verdict.promised, verdict.saw, verdict.took) == (CUT[saw, took], saw, took)
    assert ("too late" in verdict.until) is (verdict.promised and saw != ())


# (what the gateway saw, how often the new process came to be live)
KILL = {
    (("replaced", "kept"), 1): True,
    (("replaced", "kept"), 2): True,  # its connection was lost meanwhile
    (("removed", "added", "kept"), 1): True,  # the new process came when the ghost had gone
    (("removed", "added", "kept"), 2): False,  # the ghost took the node of the new process with it
    (("replaced", "removed"), 1): False,
    (("replaced", "removed", "added", "kept"), 2): False,
    (("removed", "added"), 1): False,
    ((), 1): False,
}


@pytest.mark.parametrize(("saw", "listings"), KILL)
def test_a_ghost_may_go_before_the_new_process_comes_and_never_with_its_node(
    saw: tuple[str, ...], listings: int
) -> None:
    verdict = of_kill(saw, 1.5, listings)
    assert (verdict.promised, verdict.saw) == (KILL[saw, listings], saw)


# session and czxid of the node, before and after
SEEN = {
    ((7, 1), (8, 2)): "replaced",
    ((7, 1), (7, 2)): "replaced",  # deleted and put back by the same session, faster than the gateway looked
    ((7, 1), (7, 1)): "updated",
    (None, (7, 1)): "added",
    ((7, 1), None): "removed",
}


@pytest.mark.parametrize(("before", "after"), SEEN)
def test_a_new_node_of_the_same_session_is_seen_as_a_new_node(
    before: tuple[int, int] | None, after: tuple[int, int] | None
) -> None:
    def entry(of: tuple[int, int] | None) -> Entry[Any] | None:
        return None if of is None else Entry(ServiceInstance("chat", id="chat-1"), of[0], of[1], 9, 0, 0.0, 0.0)

    old, new = entry(before), entry(after)
    change: Added[Any] | Removed[Any] | Updated[Any]
    if old is None:
        assert new is not None
        change = Added(new, 9)
    else:
        change = Removed(old, 9) if new is None else Updated(new, old, 9)
    event, text, server = seen(change)
    assert (event, server) == (SEEN[before, after], "chat-1")
    assert "chat-1" in text


async def test_it_brings_its_own_server() -> None:
    async with Command("demo", "--json", "--session-timeout", "2", PATH="/nowhere") as command:  # no Java to be found
        happenings = [json.loads(await command.line())]
        while happenings[-1]["event"] != "summary":
            happenings.append(json.loads(await command.line()))
        code, stdout, stderr = await command.end()
        assert (code, stdout) == (0, ""), stderr
    assert happenings[0]["text"].startswith("the embedded server 127.0.0.1:")
    assert happenings[-1]["promised"] is True


async def test_a_variable_names_zookeeper_too() -> None:
    code, _, stderr = await outcome("demo", "--session-timeout", "0.5", AIOREGISTRY_ZOOKEEPER="127.0.0.1:1")
    assert code == 1
    assert "AIOREGISTRY_ZOOKEEPER" in stderr


async def test_an_interrupt_ends_the_servers_too(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    async with Command("demo", "--json", "--zookeeper", f"{zookeeper.address}{chroot}") as command:
        servers = await _server_processes(command)
        command.send(signal.SIGINT)
        assert (await command.end())[::2] == (0, "")
    assert not [pid for pid in servers if is_running(pid)]
    assert await judge.children(chroot) == []


async def test_servers_do_not_outlive_a_demo_that_is_killed(zookeeper: ZooKeeperServer, chroot: str) -> None:
    arguments = ("demo", "--json", "--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "5")
    async with Command(*arguments) as command:
        servers = await _server_processes(command)
        command.send(signal.SIGKILL)
        await command.exit_code()
    async with asyncio.timeout(TIMEOUT):
        while any(map(is_running, servers)):
            await asyncio.sleep(0.01)


async def test_no_zookeeper() -> None:
    code, stdout, stderr = await outcome("demo", "--zookeeper", "127.0.0.1:1", "--session-timeout", "0.5")
    assert (code, stdout) == (1, "")
    (line,) = stderr.splitlines()
    assert "--zookeeper" in line


async def test_a_broken_promise_is_a_failure(
    zookeeper: ZooKeeperServer, chroot: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_a_promise(stage: Stage) -> DemoResult:
        assert len(stage.view.snapshot) == len(stage.servers) == 3
        return DemoResult("flood", ("removed",), None, 1.0, "it was dry again", promised=False)

    monkeypatch.setattr(demo, "ACTS", {"It rains.": break_a_promise})
    servers = f"{zookeeper.address}{chroot}"
    with pytest.raises(demo.BrokenPromise, match="flood"):
        await demo.demo(Namespace(zookeeper=servers, session_timeout=4, json=False))
    told = capfd.readouterr().out.splitlines()
    assert told[-1].endswith("Not everything went as promised.")
    assert any(line.endswith("demo     1. It rains.") for line in told)


async def _server_processes(command: Command) -> list[int]:
    """The processes of the chat servers, once all of them are live."""
    pids, live = [], 0
    while live < 3:
        happening = json.loads(await command.line())
        if found := re.fullmatch(r"starts as process (\d+)", happening["text"]):
            pids.append(int(found[1]))
        live += happening["event"] == "live"
    assert len(pids) == 3
    return pids
