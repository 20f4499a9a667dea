"""`aioregistry drain`, `enable` and `maintenance`, as operators meet them."""

from __future__ import annotations

import getpass
import json
import signal
import socket
from pathlib import Path

import pytest
from aiozk import ACL

import aioregistry
from aioregistry import ServiceInstance
from aioregistry._cli import main
from tests.cli.command import Command, outcome
from tests.cli.harmless import is_harmless
from tests.support.judge import Judge
from tests.support.wire import WireError, create
from tests.support.zookeeper import ZooKeeperServer

NO_AUTH = -102
DOCUMENT = {"name": "chat", "id": "a", "address": "10.0.0.7", "port": 7000, "registrationTimeUTC": 1}


@pytest.fixture
async def servers(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> tuple[str, ...]:
    await judge.make(f"{chroot}/services/chat/a", json.dumps(DOCUMENT).encode())
    return ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")


async def test_drained_listed_and_enabled(servers: tuple[str, ...], judge: Judge, chroot: str) -> None:
    async with Command("watch", "chat", "--json", *servers) as watch:
        assert json.loads(await watch.line())["kind"] == "snapshot"
        code, stdout, stderr = await outcome("drain", "chat", "a", "--reason", "new disk", "--for", "15m", *servers)
        assert (code, stderr) == (0, "")
        assert stdout.startswith("chat/a is in maintenance until ")
        assert stdout.endswith(": new disk\n")
        told = json.loads(await watch.line())
        assert (told["kind"], told["instance"]["enabled"], told["instance"]["status"]) == (
            "updated",
            False,
            "maintenance",
        )

        code, stdout, stderr = await outcome("maintenance", "--json", *servers)
        assert (code, stderr) == (0, "")
        [override] = json.loads(stdout)
        assert (override["service"], override["id"], override["reason"]) == ("chat", "a", "new disk")
        assert (override["by"], override["enabled"]) == (f"{getpass.getuser()}@{socket.gethostname()}", False)
        assert override["registration_time_ms"] == 1
        code, stdout, stderr = await outcome("maintenance", "chat", *servers)
        head, row = stdout.splitlines()
        assert head.split() == ["SERVICE", "ID", "WEIGHT", "UNTIL", "BY", "REASON"]
        assert row.split()[:2] == ["chat", "a"]
        assert row.endswith("new disk")

        assert await outcome("enable", "chat", "a", *servers) == (0, "chat/a is no longer overridden\n", "")
        assert json.loads(await watch.line())["instance"]["enabled"] is True
    assert await outcome("maintenance", "--json", *servers) == (0, "[]\n", "")


async def test_for_ever_and_any_incarnation(servers: tuple[str, ...]) -> None:
    drain = ("drain", "chat", "a", "--reason", "gone", "--for", "ever", "--any-incarnation")
    assert await outcome(*drain, *servers) == (0, "chat/a is in maintenance for ever: gone\n", "")
    _, stdout, _ = await outcome("maintenance", "--json", *servers)
    [override] = json.loads(stdout)
    assert (override["until"], override["registration_time_ms"]) == (None, None)


async def test_an_instance_that_only_its_owner_may_read(zookeeper: ZooKeeperServer, chroot: str) -> None:
    address = f"{zookeeper.address}{chroot}"
    servers = ("--zookeeper", address, "--session-timeout", "60")
    acl = [ACL.make("auth", "", read=True, write=True, create=True, delete=True, admin=True)]
    async with (
        aioregistry.connect(address, auth=[("digest", "ada:x")], acl=acl, session_timeout=60) as owner,
        owner.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)),
    ):
        drain = ("drain", "chat", "a", "--reason", "gone", "--for", "ever")
        code, stdout, stderr = await outcome(*drain, *servers)
        assert (code, stdout) == (2, "")
        assert "--any-incarnation" in stderr
        assert len(stderr.splitlines()) == 1
        said = (0, "chat/a is in maintenance for ever: gone\n", "")
        assert await outcome(*drain, "--any-incarnation", *servers) == said


async def test_a_weight_is_set_listed_and_shown(servers: tuple[str, ...]) -> None:
    drain = ("drain", "chat", "a", "--reason", "canary", "--for", "ever", "--weight", "0.2")
    assert await outcome(*drain, *servers) == (0, "chat/a gets 0.2 of its share for ever: canary\n", "")
    _, stdout, _ = await outcome("maintenance", "--json", *servers)
    [override] = json.loads(stdout)
    assert (override["enabled"], override["weight"]) == (None, 0.2)
    _, stdout, _ = await outcome("maintenance", *servers)
    assert stdout.splitlines()[1].split()[:3] == ["chat", "a", "0.2"]
    _, stdout, _ = await outcome("list", "chat", *servers)
    assert "listed, weight 0.2" in stdout
    _, stdout, _ = await outcome("list", "chat", "--json", "--where", "state=listed", *servers)
    [instance] = json.loads(stdout)
    assert (instance["enabled"], instance["override_weight"]) == (True, 0.2)
    assert await outcome("enable", "chat", "a", *servers) == (0, "chat/a is no longer overridden\n", "")


async def test_readers_make_nothing(servers: tuple[str, ...], judge: Judge, chroot: str) -> None:
    assert await outcome("maintenance", "--json", *servers) == (0, "[]\n", "")
    assert await judge.children(chroot) == ["services"]


@pytest.mark.parametrize("duration", ["", "0", "-1h", "1y", "h", "1e9", "nan", "inf", "99999d", "1h30m", "١h"])
async def test_what_is_no_duration_is_refused_before_any_wait(duration: str) -> None:
    """Nobody is there: what is asked for is looked at first."""
    drain = ("drain", "chat", "a", "--reason", "x", f"--for={duration}", "--zookeeper", "127.0.0.1:1")
    code, stdout, stderr = await outcome(*drain)
    assert (code, stdout) == (2, "")
    assert "for=" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize("weight", ["", "-0.1", "1.01", "nan", "inf", "half", "20%"])
async def test_what_is_no_part_of_a_share_is_refused_before_any_wait(weight: str) -> None:
    drain = ("drain", "chat", "a", "--reason", "x", f"--weight={weight}", "--zookeeper", "127.0.0.1:1")
    code, stdout, stderr = await outcome(*drain)
    assert (code, stdout) == (2, "")
    assert "weight=" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("drain", "chat", "absent", "--reason", "x"), "id="),
        (("drain", "absent", "a", "--reason", "x"), "id="),
        (("drain", "chat", "a/b", "--reason", "x"), "id="),
        (("drain", "chat", "a", "--reason", " "), "reason="),
        (("enable", "chat", "a"), "id="),
        (("enable", "chat", "a/b"), "id="),
        (("maintenance", "a//b"), "name="),
    ],
)
async def test_what_is_not_there_or_wrong_is_one_line(
    arguments: tuple[str, ...], field: str, servers: tuple[str, ...]
) -> None:
    code, stdout, stderr = await outcome(*arguments, *servers)
    assert (code, stdout) == (2, "")
    assert field in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("drain", "services", "chat", "--reason", "x"),
        ("enable", "services", "chat"),
        ("maintenance",),
        ("maintenance", "services"),
        ("maintenance", "--json"),
    ],
)
async def test_a_base_path_that_has_no_place_for_overrides_is_refused(
    arguments: tuple[str, ...], zookeeper: ZooKeeperServer
) -> None:
    """With a chroot there is a place: beside it."""
    code, stdout, stderr = await outcome(*arguments, "--base-path", "/", "--zookeeper", zookeeper.address)
    assert (code, stdout) == (2, "")
    assert "--base-path='/'" in stderr
    assert len(stderr.splitlines()) == 1


async def test_a_service_that_is_not_there_has_no_maintenance(
    servers: tuple[str, ...], judge: Judge, chroot: str
) -> None:
    """A mistyped name is told; a service without overrides, or with overrides alone, is none."""
    code, stdout, stderr = await outcome("maintenance", "chatt", *servers)
    assert (code, stdout) == (1, "")
    assert "'chatt'" in stderr
    assert len(stderr.splitlines()) == 1
    assert (await outcome("maintenance", "chatt", "--json", *servers))[:2] == (1, "")
    assert await outcome("maintenance", "chat", "--json", *servers) == (0, "[]\n", "")
    drain = ("drain", "chat", "a", "--reason", "x", "--for", "ever", "--any-incarnation")
    assert (await outcome(*drain, *servers))[0] == 0
    for path in (f"{chroot}/services/chat/a", f"{chroot}/services/chat"):
        await judge.delete(path)
    code, stdout, _ = await outcome("maintenance", "chat", "--json", *servers)
    assert code == 0
    assert [override["id"] for override in json.loads(stdout)] == ["a"]


async def test_a_drain_without_a_reason_is_a_wrong_usage(servers: tuple[str, ...]) -> None:
    code, _, stderr = await outcome("drain", "chat", "a", *servers)
    assert code == 2
    assert "--reason" in stderr


async def test_what_has_ended_is_removed_when_it_is_listed(servers: tuple[str, ...], judge: Judge, chroot: str) -> None:
    await judge.make(f"{chroot}/services-overrides/chat/a", b'{"enabled":false,"seconds":0.001}')
    assert await outcome("maintenance", "--json", *servers) == (0, "[]\n", "")
    assert await judge.node(f"{chroot}/services-overrides/chat/a") is None


async def test_what_it_makes_has_the_acl_that_it_is_told(
    servers: tuple[str, ...], zookeeper: ZooKeeperServer, judge: Judge, chroot: str, tmp_path: Path
) -> None:
    """An instance and an override of a protected registry, by the command line alone."""
    secret = tmp_path / "auth"
    secret.write_text("digest:ada:lovelace\n")
    known = (*servers, "--auth-file", str(secret))
    ours = (*known, "--acl", "auth::cdrwa,world:anyone:r")
    register = ("register", "mail", "--id", "b", "--address", "10.0.0.8", "--port", "7000")
    async with Command(*register, *ours) as command:
        await command.error_lines_until("LIVE")
        code, _, stderr = await outcome("drain", "mail", "b", "--reason", "new disk", "--for", "ever", *ours)
        assert (code, stderr) == (0, "")
        root = f"{chroot}/services-overrides"
        for path in (f"{chroot}/services/mail/b", root, f"{root}/mail", f"{root}/mail/b"):
            assert await judge.node(path) is not None, "it may not be read"
            with pytest.raises(WireError) as raised:
                await judge.set_data(path, b"{}")
            assert raised.value.code == NO_AUTH, path
        for path in (root, f"{root}/mail"):
            with pytest.raises(WireError) as raised:
                await judge.ask(create(f"{path}/mine"))
            assert raised.value.code == NO_AUTH, path
        code, stdout, stderr = await outcome("enable", "mail", "b", *servers)
        assert (code, stdout) == (1, "")
        assert len(stderr.splitlines()) == 1
        assert (await outcome("enable", "mail", "b", *known))[0] == 0
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


def test_what_is_no_acl_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["drain", "chat", "a", "--reason", "x", "--acl", "everybody"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("aioregistry: --acl='everybody'")


async def test_what_others_wrote_does_a_terminal_no_harm(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, tmp_path: Path
) -> None:
    """Names, ids, addresses and reasons, in what every command for operators prints."""
    service, id, other, bad = "pay\u202etset", "a\u2066b", "b\u200bc", "c\u2028d"
    base = f"{chroot}/services/{service}"
    for each in (id, other):
        document = DOCUMENT | {"name": service, "id": each, "address": "my host\x1b[2J"}
        await judge.make(f"{base}/{each}", json.dumps(document).encode())
    await judge.make(f"{base}/{bad}", bad.encode())
    override = {"enabled": False, "reason": "disk\nforged \x1b[2J", "by": "ann\u200b"}
    await judge.make(f"{chroot}/services-overrides/{service}/{other}", json.dumps(override).encode())
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")
    out = str(tmp_path / "haproxy.cfg")
    async with Command("export", service, "--format", "haproxy", "--out", out, *servers) as export:
        told = await export.error_lines_until("written, ")
    assert any("not exported" in line for line in told)
    assert all(map(is_harmless, told))
    for command, words in {
        "maintenance": ("forged",),
        "doctor": ("a\\u2066b", "never ends"),
        f"drain {service} {id} --reason \x1b[2Jnews": ("news",),
        f"enable {service} {id}": ("no longer overridden",),
        f"enable {service} {bad}": ("is not overridden",),
    }.items():
        _, stdout, stderr = await outcome(*command.split(" "), *servers)
        assert is_harmless(stdout + stderr)
        assert "Traceback" not in stderr
        assert all(word in stdout + stderr for word in words)
