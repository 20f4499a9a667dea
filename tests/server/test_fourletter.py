from __future__ import annotations

import asyncio
import re

import pytest

from aioregistry.server import Ensemble, ZooKeeperServer
from tests.support.wire import EPHEMERAL, Wire
from tests.support.zookeeper import four_letter_word


async def ask(server: ZooKeeperServer, word: str) -> str:
    return await asyncio.to_thread(four_letter_word, (server.host, server.port), word)


@pytest.mark.parametrize(("word", "answer"), [("ruok", "imok"), ("isro", "rw")])
async def test_how_it_is(server: ZooKeeperServer, word: str, answer: str) -> None:
    assert await ask(server, word) == answer


@pytest.mark.parametrize(
    ("version", "release"), [("3.5", "3.5.9"), ("3.8", "3.8.0"), ("3.9.5", "3.9.5"), ("3.9", "3.9.6")]
)
async def test_srvr_tells_the_release(version: str, release: str) -> None:
    async with ZooKeeperServer(version=version) as server:
        assert re.match(rf"Zookeeper version: {re.escape(release)}-.*\n", await ask(server, "srvr"))


async def test_srvr_and_stat(server: ZooKeeperServer, client: Wire) -> None:
    await client.create("/a")
    answer = await ask(server, "srvr")
    assert "\nConnections: 2\n" in answer  # the one that asks too
    assert "\nZxid: 0x2\nMode: standalone\nNode count: 6\n" in answer
    clients = re.findall(
        r"^ /127\.0\.0\.1:\d+\[\w\]\(queued=0,recved=(\d+),sent=\d+\)$", await ask(server, "stat"), re.MULTILINE
    )
    assert clients == ["2", "1"]


async def test_mntr(server: ZooKeeperServer, client: Wire) -> None:
    await client.create("/mine", b"12345", flags=EPHEMERAL)
    await client.add_watch("/")
    metrics = dict(line.split("\t") for line in (await ask(server, "mntr")).splitlines())
    assert metrics["zk_server_state"] == "standalone"
    assert (metrics["zk_znode_count"], metrics["zk_ephemerals_count"], metrics["zk_watch_count"]) == ("6", "1", "2")
    assert metrics["zk_global_sessions"] == "1"


async def test_conf_and_envi(server: ZooKeeperServer) -> None:
    configuration = dict(line.split("=") for line in (await ask(server, "conf")).splitlines())
    assert configuration["clientPort"] == str(server.port)
    assert configuration["minSessionTimeout"] == "4000"
    assert "\nzookeeper.version=3.8.0-" in await ask(server, "envi")


async def test_cons_and_dump(server: ZooKeeperServer, client: Wire) -> None:
    await client.create("/mine", flags=EPHEMERAL)
    session = f"{client.session_id:#x}"
    assert f",sid={session}," in await ask(server, "cons")
    dump = await ask(server, "dump")
    assert re.search(rf"^1 expire at .*:\n\t{session}$", dump, re.MULTILINE)
    assert f"Sessions with Ephemerals (1):\n{session}:\n\t/mine\n" in dump


async def test_what_it_has_no_answer_to(server: ZooKeeperServer) -> None:
    assert await ask(server, "wchs") == "wchs is not executed because it is not in the whitelist.\n"


async def test_a_word_is_one_only_before_a_session(client: Wire) -> None:
    client._writer.write(b"ruok")  # a length of 1.9 GB
    await client.closed()


async def test_members_that_do_not_serve() -> None:
    async with Ensemble(3) as ensemble:
        modes = []
        for member in ensemble.members:
            answer = await asyncio.to_thread(four_letter_word, (member.host, member.port), "srvr")
            modes.append(re.findall(r"^Mode: (\w+)$", answer, re.MULTILINE)[0])
        assert sorted(modes) == ["follower", "follower", "leader"]
        for member in ensemble.followers:
            await member.stop()
        (left,) = [member for member in ensemble.members if member.running]
        address = (left.host, left.port)
        assert await asyncio.to_thread(four_letter_word, address, "isro") == "null"
        assert "not currently serving" in await asyncio.to_thread(four_letter_word, address, "mntr")
