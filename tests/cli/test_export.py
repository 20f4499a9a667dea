from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiozk import ACL

import aioregistry
from aioregistry import InvalidArgument, Registry, ServiceInstance
from aioregistry._cli.export import _check_place, _former, _replace
from aioregistry.testing._ports import ReservedPort
from tests.cli.command import TIMEOUT, Command, outcome
from tests.support.judge import Judge

NOBODY = 65534


@pytest.fixture
async def registry(servers: str) -> AsyncIterator[Registry]:
    async with aioregistry.connect(servers, session_timeout=60) as registry:
        yield registry


def instance(number: int, name: str = "chat") -> ServiceInstance[Any]:
    return ServiceInstance(name, address=f"10.0.0.{number}", port=7000)


def targets(out: Path) -> list[str]:
    return [target for group in json.loads(out.read_text()) for target in group["targets"]]


async def becomes(out: Path, expected: list[str]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not out.exists() or targets(out) != expected:
            await asyncio.sleep(0.02)


async def test_the_file_follows_what_is_enabled(registry: Registry, servers: str, tmp_path: Path) -> None:
    out, used = tmp_path / "chat.json", tmp_path / "used"
    run = f"sh -c {shlex.quote(f'echo x >> {shlex.quote(str(used))}')}"
    options = ("--format", "prometheus", "--out", str(out), "--wait", "0.05:1", "--exec", run)
    async with Command("export", *options, "--zookeeper", servers, "chat") as command:
        await becomes(out, [])
        inode = out.stat().st_ino
        async with registry.register(instance(1)) as first, registry.register(instance(2)):
            await becomes(out, ["10.0.0.1:7000", "10.0.0.2:7000"])
            assert out.stat().st_ino != inode, "it was written in place"
            await first.update(enabled=False)
            await becomes(out, ["10.0.0.2:7000"])
        await becomes(out, [])
        async with asyncio.timeout(TIMEOUT):
            while used.read_text().count("x") < 4:
                await asyncio.sleep(0.02)
        command.send(signal.SIGTERM)
        code, stdout, stderr = await command.end()
        assert (code, stdout) == (0, "")
        assert "Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


async def test_a_service_that_may_not_be_read_ends_no_others_export(
    registry: Registry, servers: str, tmp_path: Path
) -> None:
    out = tmp_path / "all.json"
    options = ("--format", "prometheus", "--out", str(out), "--wait", "0.05:1", "--zookeeper", servers)
    async with registry.register(instance(1)), registry.register(instance(2, "secret")):
        acl = [ACL.make("world", "anyone", create=True, delete=True, admin=True)]
        await registry.client.set_acl("/services/secret", acl, force=True)
        async with Command("export", *options) as command:
            await command.error_lines_until("not exported: secret: ")
            await becomes(out, ["10.0.0.1:7000"])
            async with registry.register(instance(3)):
                await becomes(out, ["10.0.0.1:7000", "10.0.0.3:7000"])
        code, stdout, stderr = await outcome("export", *options, "chat", "secret")
        assert (code, stdout) == (1, "")
        assert "/services/secret: " in stderr


async def test_too_few_are_not_believed(registry: Registry, servers: str, tmp_path: Path) -> None:
    out = tmp_path / "chat.json"
    out.write_text('[{"targets": ["of the last run"]}]')
    options = ("--format", "prometheus", "--out", str(out), "--wait", "0.05:1", "--minimum", "2")
    async with Command("export", *options, "--zookeeper", servers, "chat") as command:
        async with registry.register(instance(1)):
            await command.error_lines_until("1 of chat so far, fewer than --minimum 2")
            assert targets(out) == ["of the last run"]
            async with registry.register(instance(2)):
                await becomes(out, ["10.0.0.1:7000", "10.0.0.2:7000"])
            await command.error_lines_until("fewer than --minimum 2")
        assert targets(out) == ["10.0.0.1:7000", "10.0.0.2:7000"]
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_a_service_that_goes_as_a_whole_is_not_believed_either(
    registry: Registry, servers: str, judge: Judge, chroot: str, tmp_path: Path
) -> None:
    out = tmp_path / "all.json"
    options = ("--format", "json", "--out", str(out), "--wait", "0.05:1", "--minimum", "1")

    def listed() -> dict[str, list[tuple[str, float | None]]]:
        services = json.loads(out.read_text()) if out.exists() else {}
        return {name: [(each["id"], each.get("weight")) for each in found] for name, found in services.items()}

    async def lists(expected: dict[str, list[tuple[str, float | None]]]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while listed() != expected:
                await asyncio.sleep(0.02)

    def node(name: str, id: str) -> str:
        return f"{chroot}/services/{name}/{id}"

    for name in ("api", "chat"):
        document = {"name": name, "id": "a", "address": "10.0.0.7", "port": 7000, "registrationTimeUTC": 1}
        await judge.make(node(name, "a"), json.dumps(document).encode())
    await registry.overrides.drain("chat", "a", reason="canary", weight=0.5)
    async with Command("export", *options, "--zookeeper", servers) as command:
        await lists({"api": [("a", None)], "chat": [("a", 0.5)]})
        await judge.delete(node("chat", "a"))
        await judge.delete(f"{chroot}/services/chat")
        line = (await command.error_lines_until("fewer than --minimum 1"))[-1]
        assert "0 of chat left" in line
        assert "former instances are kept" in line
        async with registry.register(instance(3, "news")):  # the file is written again
            await lists({"api": [("a", None)], "chat": [("a", 0.5)], "news": [("10.0.0.3:7000", None)]})
        command.send(signal.SIGTERM)
        code, _, stderr = await command.end()
        assert code == 0
        assert "of chat left" not in stderr, "it was said again"


async def test_a_new_service_that_is_too_small_holds_up_no_other(
    registry: Registry, servers: str, tmp_path: Path
) -> None:
    out = tmp_path / "all.json"
    options = ("--format", "json", "--out", str(out), "--wait", "0.05:1", "--minimum", "2", "--zookeeper", servers)

    async def written(**expected: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while (
                not out.exists() or {name: len(each) for name, each in json.loads(out.read_text()).items()} != expected
            ):
                await asyncio.sleep(0.02)

    async with registry.register(instance(1)), registry.register(instance(2)), Command("export", *options) as command:
        await written(chat=2)
        async with registry.register(instance(3, "api")):
            told = await command.error_lines_until("1 of api so far, fewer than --minimum 2")
            assert "not exported yet: " in told[-1]
            assert not any("former" in line for line in told)
            async with registry.register(instance(4)):
                await written(chat=3)
                async with registry.register(instance(5, "api")):
                    await written(chat=3, api=2)
                    await command.error_lines_until("api: there are enough now")


async def test_a_registry_without_services_is_not_believed_at_the_start(
    registry: Registry, servers: str, tmp_path: Path
) -> None:
    out = tmp_path / "all.json"
    out.write_text('[{"targets": ["of the last run"]}]')
    options = ("--format", "prometheus", "--out", str(out), "--wait", "0.05:1", "--minimum", "1")
    async with Command("export", *options, "--zookeeper", servers) as command:
        await command.error_lines_until("there is no service")
        assert targets(out) == ["of the last run"]
        async with registry.register(instance(1)):
            await becomes(out, ["10.0.0.1:7000"])
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_all_services_that_there_are(registry: Registry, servers: str, tmp_path: Path) -> None:
    out = tmp_path / "all.json"
    options = ("--format", "prometheus", "--out", str(out), "--wait", "0.05:1")
    async with Command("export", *options, "--zookeeper", servers) as command:
        await becomes(out, [])
        async with registry.register(instance(1)), registry.register(instance(2, "api")):
            await becomes(out, ["10.0.0.2:7000", "10.0.0.1:7000"])
        await becomes(out, [])
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_a_configuration_that_is_refused_changes_nothing(
    registry: Registry, servers: str, tmp_path: Path
) -> None:
    """By a program called nginx that refuses, until it is told otherwise."""
    out, programs, accepts = tmp_path / "upstreams", tmp_path / "programs", tmp_path / "accepts"
    out.write_text("former")
    programs.mkdir()
    nginx = programs / "nginx"
    nginx.write_text(f"#!/bin/sh\n[ -e {shlex.quote(str(accepts))} ] || {{ echo 'no such directive'; exit 1; }}\n")
    nginx.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    options = ("--format", "nginx", "--out", str(out), "--wait", "0.05:1")
    async with Command("export", *options, "--zookeeper", servers, "chat", PATH=path) as command:
        line = (await command.error_lines_until("is kept as it was"))[-1]
        assert "no such directive" in line
        assert out.read_text() == "former"
        accepts.touch()
        async with registry.register(instance(1)):
            async with asyncio.timeout(TIMEOUT):
                while "10.0.0.1:7000" not in out.read_text():
                    await asyncio.sleep(0.02)
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


class CommandWithPlaces(Command):
    module = "tests.cli.with_places"


@pytest.mark.parametrize("format", ["haproxy", "nginx"])
async def test_a_program_that_is_not_on_the_path(registry: Registry, servers: str, tmp_path: Path, format: str) -> None:
    out, empty, places = tmp_path / "written", tmp_path / "empty", tmp_path / "sbin"
    for folder in (empty, places):
        folder.mkdir()
    options = ("--format", format, "--out", str(out), "--wait", "0.05:1")
    paths = {"PATH": str(empty), "PLACES": str(places)}
    async with CommandWithPlaces("export", *options, "--zookeeper", servers, "chat", **paths) as command:
        line = (await command.error_lines_until("without a check"))[-1]
        assert f"there is no program {format} on PATH or in {places}" in line
        await command.error_lines_until("written, with 0 instances")
        former = out.read_text()
        program = places / format
        program.write_text("#!/bin/sh\necho 'no such directive'\nexit 1\n")
        program.chmod(0o755)
        async with registry.register(instance(1)):
            assert "no such directive" in (await command.error_lines_until("is kept as it was"))[-1]
            assert out.read_text() == former
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_nothing_is_written_while_zookeeper_is_away(tmp_path: Path) -> None:
    out = tmp_path / "chat.json"
    with ReservedPort() as port:
        options = ("--format", "json", "--out", str(out), "--wait", "0:0", "--session-timeout", "1")
        async with Command("export", *options, "--zookeeper", f"127.0.0.1:{port.number}") as command:
            await command.error_lines_until("no connection to ZooKeeper")
            command.send(signal.SIGTERM)
            assert await command.exit_code() == 0
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), "--format"),
        (("--format", "consul", "--out", "x"), "consul"),
        (("--format", "json"), "--out"),
        (("--format", "json", "--out", ""), "out=''"),
        (("--format", "json", "--out", "/nosuch/folder/x"), "/nosuch/folder/x"),
        (("--format", "json", "--out", "/tmp"), "out='/tmp'"),
        (("--format", "json", "--out", "/dev/stdout"), "out='/dev/stdout'"),
        (("--format", "json", "--out", "/dev/fd/1"), "out='/dev/fd/1'"),
        (("--format", "json", "--out", "/proc/self/fd/1"), "out='/proc/self/fd/1'"),
        (("--format", "json", "--out", "x", "--minimum", "-1"), "minimum=-1"),
        (("--format", "json", "--out", "x", "--minimum", "few"), "few"),
        (("--format", "json", "--out", "x", "--wait", "5:1"), "wait='5:1'"),
        (("--format", "json", "--out", "x", "--wait", "soon"), "wait='soon'"),
        (("--format", "json", "--out", "x", "--wait", "nan:1"), "wait='nan:1'"),
        (("--format", "json", "--out", "x", "--exec", "nosuchprogram"), "exec='nosuchprogram'"),
        (("--format", "json", "--out", "x", "--exec", "true | cat"), "exec='true | cat'"),
        (("--format", "json", "--out", "x", "a//b"), "a//b"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_refused(options: tuple[str, ...], named: str) -> None:
    code, stdout, stderr = await outcome("export", *options)
    assert (code, stdout) == (2, "")
    assert named in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant another user's file")


@root_only
@pytest.mark.parametrize(
    ("is_link", "mode"),
    [(True, 0o666), (True, 0o4755), (False, 0o666), (False, 0o664)],
    ids=["link, for all to write", "link, acts as its owner", "for all to write", "of another user"],
)
def test_nobody_else_decides_who_may_write_the_file(tmp_path: Path, is_link: bool, mode: int) -> None:
    """In a directory for everybody another user may have put something in its place."""
    out, theirs = tmp_path / "haproxy.cfg", tmp_path / "theirs"
    planted = theirs if is_link else out
    planted.write_bytes(b"data")
    os.chown(planted, NOBODY, NOBODY)
    planted.chmod(mode)
    if is_link:
        out.symlink_to(theirs)
        os.chown(out, NOBODY, NOBODY, follow_symlinks=False)
    assert _former(out) is None  # so that it is written, though it holds what it should
    _replace(out, b"data")
    found = out.lstat()
    assert (found.st_mode, found.st_uid) == (stat.S_IFREG | 0o644, 0)
    if is_link:
        assert theirs.stat().st_mode == stat.S_IFREG | mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_owner_decides_who_may_read_it(tmp_path: Path, mode: int) -> None:
    out = tmp_path / "haproxy.cfg"
    out.write_bytes(b"former")
    out.chmod(mode)
    _replace(out, b"data")
    assert stat.S_IMODE(out.stat().st_mode) == mode
    assert _former(out) is not None


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "pipe":
            os.mkfifo(out)
        else:
            listening.bind(str(out))
        with pytest.raises(InvalidArgument) as raised:
            _check_place(str(out))
    assert raised.value.field == "out"
    out.unlink()
    _check_place(str(out))


@root_only
def test_a_folder_behind_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "theirs")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(InvalidArgument) as raised:
        _check_place(str(link / "haproxy.cfg"))
    assert raised.value.field == "out"
