from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiozk import ACL

import aioregistry
from aioregistry import ServiceInstance
from aioregistry._doctor import gather as gathering
from aioregistry._doctor import server_checks, words
from aioregistry._doctor.checks import CHECKS, unknown
from aioregistry._doctor.findings import SEVERITIES
from aioregistry._doctor.picture import Picture, Server
from aioregistry._doctor.words import number
from aioregistry.server import ZooKeeperServer as EmbeddedServer
from tests.cli.command import outcome
from tests.conftest import StartZooKeeper
from tests.doctor.scene import ALL, FAULTS, READ, Scene
from tests.support import wire
from tests.support.zookeeper import Settings, ZooKeeperEnsemble, ZooKeeperServer

DOCS = Path(__file__).parents[2] / "docs" / "doctor.md"
NOBODY = "127.0.0.1:1"


@contextlib.asynccontextmanager
async def begun(scene: Scene, *, healthy: bool = True) -> AsyncIterator[Scene]:
    async with scene.stack:
        await scene.begin(healthy=healthy)
        yield scene


@pytest.fixture
async def scene(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[Scene]:
    async with begun(Scene(zookeeper.address, chroot)) as scene:
        yield scene


async def anchors(scene: Scene) -> set[str]:
    findings, _ = await scene.diagnosis()
    return {each.anchor for each in findings if each.severity != "notice"}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_is_found_and_nothing_else(scene: Scene, fault: str) -> None:
    anchor, plant = FAULTS[fault]
    await plant(scene)
    findings, unknowns = await scene.diagnosis()
    wrong = [each for each in findings if each.severity != "notice"]
    assert {each.anchor for each in wrong} == {anchor}
    assert all(each.place.startswith(scene.chroot) for each in wrong)
    assert unknowns == []


@pytest.fixture
async def scene_of_three(ensemble: ZooKeeperEnsemble, chroot: str) -> AsyncIterator[Scene]:
    first, *others = (member.address for member in ensemble.members)
    async with begun(Scene(first, chroot, others=tuple(others))) as scene:
        yield scene


async def test_all_of_them_at_once_in_an_ensemble(scene_of_three: Scene) -> None:
    scene = scene_of_three
    for _, plant in FAULTS.values():
        await plant(scene)
    code, stdout, stderr = await outcome("doctor", "--json", "--zookeeper", scene.servers)
    assert (code, stderr) == (1, "")
    told = json.loads(stdout)
    assert not told["healthy"]
    assert told["unknown"] == []
    found = [each["anchor"] for each in told["findings"]]
    assert {anchor for anchor, _ in FAULTS.values()} <= set(found)
    order = [SEVERITIES.index(each["severity"]) for each in told["findings"]]
    assert order == sorted(order)
    assert all(each["page"] == f"docs/doctor.md#{each['anchor']}" for each in told["findings"])

    code, stdout, stderr = await outcome("doctor", "--zookeeper", scene.servers)
    assert (code, stderr) == (1, "")
    assert all(f"docs/doctor.md#{anchor}" in stdout for anchor in found)


@pytest.mark.since(3, 8)  # the servers of an older release have a finding of their own
async def test_nothing_is_found_where_nothing_is_wrong(ensemble: ZooKeeperEnsemble, chroot: str) -> None:
    servers = f"{ensemble.connect_string}{chroot}"
    async with (
        aioregistry.connect(servers) as registry,
        registry.register(ServiceInstance("chat", address="10.0.0.7", port=7000)),
        registry.register(ServiceInstance("chat", address="10.0.0.8", port=7000, payload={"zone": "eu-1"})),
        registry.register(ServiceInstance("a/nested", address="10.0.0.8", port=7001)),
    ):
        code, stdout, stderr = await outcome("doctor", "--json", "--zookeeper", servers)
        told = json.loads(stdout)
        assert (stderr, told["unknown"]) == ("", [])
        assert [each["anchor"] for each in told["findings"]] == ["unprotected"]
        assert told["healthy"]
        assert code == 0
        code, stdout, _ = await outcome("doctor", "--zookeeper", servers)
        assert code == 0
        assert stdout.endswith("2 services, 3 instances, 3 servers: nothing is wrong\n")


async def test_the_byte_at_which_a_document_cannot_be_read(scene: Scene) -> None:
    await scene.enlist("u", "a", data=b'{"name": "u", oops}')
    (finding,) = [each for each in (await scene.diagnosis())[0] if each.anchor == "unreadable"]
    assert re.search(r"\bbyte 1[45]\b", finding.text)


async def test_addresses_of_the_machine_itself_on_an_ensemble_elsewhere(
    zookeeper: ZooKeeperServer, chroot: str
) -> None:
    async with begun(Scene(zookeeper.address, chroot, others=("zk9.invalid:2181",))) as scene:
        for id, address in (
            ("a", "127.0.0.1"),
            ("b", "localhost"),
            ("c", "fe80::1"),
            ("d", "169.254.3.4"),
            ("e", "::1"),
        ):
            await scene.enlist("m", id, address=address)
        findings, unknowns = await scene.diagnosis()
        local = [each for each in findings if each.anchor == "local-address"]
        assert len(local) == 5
        assert {each.anchor for each in findings if each.severity != "notice"} == {"local-address", "server-refusing"}
        assert [each.anchor for each in unknowns] == ["ghost"]


async def test_a_registry_that_is_not_there_beside_one_that_is(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async with begun(Scene(zookeeper.address, chroot)):
        for misspelled in (Scene(zookeeper.address, f"{chroot}x"), Scene(zookeeper.address, f"{chroot}/typo")):
            findings, _ = await misspelled.diagnosis()
            (finding,) = [each for each in findings if each.severity != "notice"]
            if misspelled.chroot.endswith("x"):
                assert finding.anchor == "chroot-typo"
                assert f"{chroot}/services has 1" in finding.text
            else:
                assert finding.anchor in ("chroot-typo", "base-missing")


@pytest.mark.parametrize(
    ("chroot_inside", "base_path"),
    [
        *(("/prd/eu", "/services"), ("/prod/er", "/services"), ("/prod", "/services"), ("/prod/eu/x", "/services")),
        *(("/eu", "/services"), ("/prod/eu", "/servces"), ("/prod/eu", "/Services")),
    ],
)
async def test_one_part_of_the_path_is_wrong_or_missing_or_one_too_many(
    zookeeper: ZooKeeperServer, chroot: str, chroot_inside: str, base_path: str
) -> None:
    async with begun(Scene(zookeeper.address, chroot), healthy=False) as scene:
        for path in ("/prod", "/prod/eu", "/prod/eu/services", "/prod/eu/services/chat"):
            await scene.make(path)
        asked = Scene(zookeeper.address, f"{chroot}{chroot_inside}")
        findings, _ = await asked.diagnosis(base_path=base_path)
        (finding,) = [each for each in findings if each.severity == "critical"]
        assert finding.anchor == "chroot-typo"
        assert f"{chroot}/prod/eu/services has 1" in finding.text


async def test_a_base_path_that_is_missing(start_zookeeper: StartZooKeeper) -> None:
    server = await start_zookeeper()
    assert await anchors(Scene(server.address, "")) == {"base-missing"}


async def test_roots_that_may_not_be_read(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async with begun(Scene(zookeeper.address, chroot), healthy=False) as scene:
        await scene.make("/services", entries=((31, "digest", "ada:x"),))
        assert await anchors(scene) == {"root-strange"}


async def test_roots_of_strangers(scene: Scene) -> None:
    await scene.make("/services-withdrawn", entries=((31, "digest", "eve:x"),))
    findings, _ = await scene.diagnosis()
    assert [each.anchor for each in findings if each.anchor == "root-strange"] == []  # who may write there is anybody


async def test_roots_of_strangers_beside_protected_services(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async with begun(Scene(zookeeper.address, chroot), healthy=False) as scene:
        await scene.make("/services", entries=((ALL, "digest", "ada:x"), READ))
        await scene.make("/services-withdrawn", entries=((ALL, "digest", "eve:x"), READ))
        findings, _ = await scene.diagnosis()
        (finding,) = [each for each in findings if each.anchor == "root-strange"]
        assert finding.place == f"{chroot}/services-withdrawn"
        assert "digest:eve:x" in finding.text


PLACES = [
    *("/services", "/services-withdrawn", "/services-overrides", "/services/deep", "/services/deep/er"),
    *("/services-overrides/deep", "/services-overrides/deep/er", "/services-overrides/deep/er/a"),
]


@pytest.mark.parametrize("place", PLACES)
async def test_a_place_that_every_client_may_write_while_others_are_protected(
    zookeeper: ZooKeeperServer, chroot: str, place: str
) -> None:
    everybody = [ACL.make("world", "anyone", read=True, write=True, create=True, delete=True, admin=True)]
    owner = [ACL.make("auth", "", read=True, write=True, create=True, delete=True, admin=True)]
    async with (
        begun(Scene(zookeeper.address, chroot), healthy=False) as scene,
        aioregistry.connect(scene.servers, auth=[("digest", "ada:x")]) as registry,
    ):
        for each in PLACES:
            data = b'{"enabled": false, "seconds": 3600}' if each.endswith("/a") else b""
            reading = [ACL.make("world", "anyone", read=True)]
            await registry.client.create(each, data=data, acl=everybody if each == place else owner + reading)
        findings, _ = await scene.diagnosis()
        (finding,) = [each for each in findings if each.anchor == "acl-open"]
        assert finding.place == f"{chroot}{place}"
        assert "create below" in finding.text


async def test_a_list_of_nodes_that_is_near_jute_maxbuffer(scene: Scene) -> None:
    for each in range(10):
        await scene.enlist("many", f"{each}-{'x' * 100}")
    findings, _ = await scene.diagnosis(max_request=2000)
    found = [finding for finding in findings if finding.anchor == "near-maxbuffer"]
    assert [finding.place for finding in found] == [f"{scene.chroot}/services/many"]


async def test_nobody_answers() -> None:
    scene = Scene(NOBODY, "/prod")
    findings, unknowns = await scene.diagnosis(session_timeout=1.0)
    assert [each.anchor for each in findings] == ["no-session", "server-refusing"]
    assert findings[1].text == "does not answer: the connection was refused: nothing listens there"
    assert [each.anchor for each in unknowns] == ["no-session"]
    code, _, stderr = await outcome("doctor", "--zookeeper", NOBODY, "--session-timeout", "1")
    assert (code, stderr) == (1, "")


async def test_a_server_that_answers_nothing(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        async with begun(Scene(zookeeper.address, chroot, others=(f"127.0.0.1:{port}",))) as scene:
            findings, _ = await scene.diagnosis(session_timeout=2.0)
    assert "server-refusing" in {each.anchor for each in findings}


@pytest.mark.since(3, 8)  # the servers of an older release have a finding of their own
async def test_servers_that_differ(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async with (
        EmbeddedServer(version="3.5") as old,
        begun(Scene(zookeeper.address, chroot)),
        begun(Scene(old.address, ""), healthy=False) as other,
    ):
        await other.make(chroot)
        for each in range(1100):  # more than a moment's
            await other.make(f"{chroot}/{each}")
        found = await anchors(Scene(old.address, chroot, others=(zookeeper.address,)))
        assert {"mixed-versions", "end-of-life", "session-timeout"} <= found


async def test_limits_of_a_server(start_zookeeper: StartZooKeeper) -> None:
    server = await start_zookeeper(max_client_connections=10, max_session_timeout_ms=8_000)
    async with begun(Scene(server.address, "")) as scene:
        for _ in range(7):
            await scene.connect()
        findings, _ = await scene.diagnosis()
    found = {each.anchor: each.text for each in findings if each.severity != "notice"}
    assert set(found) == {"near-limits", "session-timeout"}
    assert "maxClientCnxns" in found["near-limits"]
    assert "10 s of session timeout were asked for, and 8 s granted" in {each.text for each in findings}


async def test_open_files_of_a_server(start_zookeeper: StartZooKeeper) -> None:
    server = await start_zookeeper()
    async with begun(Scene(server.address, "")) as scene:
        used = int(number(words.pairs(await server.four_letter("mntr"), "\t"), "zk_open_file_descriptor_count"))
        server.limit_open_files(used + 10)
        found = {each.anchor: each.text for each in (await scene.diagnosis())[0] if each.severity != "notice"}
    assert set(found) == {"near-limits"}
    assert "open files" in found["near-limits"]


async def test_watches_of_a_server(start_zookeeper: StartZooKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_checks, "MOST_WATCHES", 100)
    server = await start_zookeeper()
    async with begun(Scene(server.address, "")) as scene:
        for each in range(90):
            await scene.session.exists(f"/{each}", watch=True)
        found = {each.anchor: each.text for each in (await scene.diagnosis())[0] if each.severity != "notice"}
    assert found == {"near-limits": "has 90 watches, near 100"}


async def test_a_clock_that_is_wrong(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "time", type("Clock", (), {"time": staticmethod(lambda: time.time() - 100)}))
    assert await anchors(scene) == {"clock-skew"}


@pytest.mark.since(3, 8)  # the servers of an older release have a finding of their own
async def test_what_servers_do_not_tell_is_said(start_zookeeper: StartZooKeeper) -> None:
    server = await start_zookeeper(words="srvr")
    async with begun(Scene(server.address, "")) as scene:
        await FAULTS["ghost"][1](scene)
        findings, unknowns = await scene.diagnosis()
        assert [each.anchor for each in findings if each.severity != "notice"] == []
        assert {each.anchor for each in unknowns} == {"ghost", "clock-skew", "near-limits", "session-timeout"}
        code, stdout, _ = await outcome("doctor", "--zookeeper", scene.servers)
        assert code == 0
        assert "unknown   ghost: " in stdout


@pytest.mark.parametrize(
    ("allowed", "untold"),
    [("mntr", {"ghost", "clock-skew", "session-timeout"}), ("conf", {"ghost", "clock-skew", "near-limits"})],
)
async def test_servers_that_allow_few_words(start_zookeeper: StartZooKeeper, allowed: str, untold: set[str]) -> None:
    server = await start_zookeeper(words=allowed)
    async with begun(Scene(server.address, "")) as scene:
        _, unknowns = await scene.diagnosis()
    assert {each.anchor for each in unknowns} == untold
    assert all(server.address in each.reason for each in unknowns if each.anchor in ("near-limits", "session-timeout"))


def test_a_server_that_does_not_say_in_which_state_it_is() -> None:
    silent = Server("zk1:2181", monitor={"zk_version": "3.8.0"}, settings={"tickTime": "2000"}, connections=[])
    told = {each.anchor: each.reason for each in unknown(Picture([silent], members=1))}
    assert "zk1:2181 does not allow srvr" in told["no-quorum"]
    assert "session-timeout-short" in told
    without_quorum = Server("zk1:2181", summary={"mode": "none"}, connections=[])
    assert {"no-quorum", "near-limits", "session-timeout"}.isdisjoint(
        each.anchor for each in unknown(Picture([without_quorum], members=1))
    )


async def test_session_timeouts_that_are_not_above_the_sync_limit(ensemble: ZooKeeperEnsemble, chroot: str) -> None:
    limit = ensemble.members[0].settings.sync_limit_ticks * ensemble.members[0].settings.tick_time_ms
    first, *others = (member.address for member in ensemble.members)
    async with begun(Scene(first, chroot, others=tuple(others))) as scene:
        await scene.enlist("s", "fits", by=await scene.connect(limit + 500))
        assert await anchors(scene) == set()
        for id in "abcdefg":
            await scene.enlist("s", id, by=await scene.connect(limit))
        findings, unknowns = await scene.diagnosis()
        (finding,) = [each for each in findings if each.severity != "notice"]
        assert (finding.anchor, finding.place) == ("session-timeout-short", f"{chroot}/services/s")
        assert "a, b, c, d, e and 2 more" in finding.text
        assert unknowns == []


async def test_a_member_without_its_quorum(ensemble: ZooKeeperEnsemble) -> None:
    alone, *others = ensemble.members
    for member in others:
        member.kill()
    async with asyncio.timeout(60):
        while True:
            findings, _ = await Scene(alone.address, "", others=(others[0].address,)).diagnosis(session_timeout=2.0)
            if "no-quorum" in {each.anchor for each in findings}:
                break
    assert {"no-session", "server-refusing", "no-quorum"} == {each.anchor for each in findings}


async def test_members_that_are_behind_and_one_that_only_reads() -> None:
    # So patient that who is cut off goes on serving, until the others die.
    with ZooKeeperEnsemble(Settings(read_only_mode=True, sync_limit_ticks=600)) as ensemble:
        await ensemble.start()
        left, leader = ensemble.followers()[0], ensemble.leader()
        addresses = [member.address for member in ensemble.members if member is not leader]
        async with begun(Scene(leader.address, "", others=tuple(addresses))) as scene:
            # Of these servers no session is patient enough.
            assert await anchors(scene) == {"session-timeout-short"}
            ensemble.cut_off(left)
            # All at once, and a ping behind them: a busy ensemble may keep a write's answer until something else comes.
            await asyncio.gather(*(scene.make(f"/{each}") for each in range(1100)), scene.session.ping())
            findings, _ = await scene.diagnosis()
            wrong = [each for each in findings if each.severity != "notice" and each.anchor != "session-timeout-short"]
            assert [(each.anchor, each.place) for each in wrong] == [("behind", left.address)]
        ensemble.heal(left)
        for member in ensemble.members:
            if member is not left:
                member.kill()
        async with asyncio.timeout(60):
            while left.mode != "read-only":
                await asyncio.sleep(0.05)
        findings, _ = await Scene(left.address, "").diagnosis(session_timeout=2.0)
        texts = {each.anchor: each.text for each in findings if each.severity != "notice"}
        assert set(texts) == {"no-session", "no-quorum", "session-timeout-short"}
        assert texts["no-quorum"].startswith("serves reads only")


@pytest.mark.parametrize("value", ["many", "1.5"])
async def test_usage(value: str) -> None:
    code, stdout, stderr = await outcome("doctor", "--max-request", value)
    assert (code, stdout) == (2, "")
    assert value in stderr


def test_every_finding_has_a_paragraph_with_its_title() -> None:
    text = DOCS.read_text(encoding="utf-8")
    anchors = re.findall(r'<a id="([a-z-]+)"></a>', text)
    assert anchors == [check.anchor for check in sorted(CHECKS, key=lambda check: SEVERITIES.index(check.severity))]
    assert all(f"### {check.title}\n" in text for check in CHECKS)


async def test_the_doctor_writes_nothing(start_zookeeper: StartZooKeeper) -> None:
    """On a server of its own, because elsewhere sessions of other tests expire meanwhile, each with a transaction."""
    server = await start_zookeeper()
    async with begun(Scene(server.address, "/registry")) as scene:
        before = (await scene.session.ask(wire.exists("/"))).zxid
        await scene.diagnosis()
        made = (await scene.session.ask(wire.exists("/"))).zxid - before
    assert made == 2  # its session, which begins and ends
