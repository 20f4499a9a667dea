from __future__ import annotations

import asyncio
import os
import signal
import sys
from argparse import Namespace
from typing import Any, NoReturn

import pytest

import aioregistry
from aioregistry._cli import main
from aioregistry._cli.process import FAILED, run
from tests.cli.command import outcome
from tests.support.processes import outcome_of
from tests.support.waiting import DEADLINE
from tests.support.zookeeper import ZooKeeperServer

HEAVY = {"aiozk", "anyio", "asyncio", "kazoo", "msgspec", "ssl"}
COMMANDS = ("register", "watch", "list", "export", "demo")
REGISTER = ("register", "chat", "--address", "127.0.0.1", "--port", "7000")


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)], ids=str)
async def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys\n"
        "from aioregistry._cli import main\n"
        "try:\n"
        f"    main([*{arguments!r}, '--help'])\n"
        "except SystemExit as exit:\n"
        f"    assert exit.code == 0, exit\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    _, stdout, stderr = await outcome_of(sys.executable, "-c", program, seconds=DEADLINE)
    assert stdout.startswith(b"usage: aioregistry")
    assert stderr == b"[]\n"


def test_ctrl_c_while_a_command_is_imported_ends_it(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    def interrupted(_: Namespace) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("aioregistry._cli._export", interrupted)
    assert main(["export", "--format", "json", "--out", "x"]) == 128 + signal.SIGINT
    assert capfd.readouterr() == ("", "")


async def test_help_names_every_command() -> None:
    code, stdout, stderr = await outcome("--help")
    assert (code, stderr) == (0, "")
    assert all(f"    {command}" in stdout for command in COMMANDS)


async def test_the_version_is_the_librarys() -> None:
    assert await outcome("--version") == (0, f"aioregistry {aioregistry.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "COMMAND"),
        (("regster",), "regster"),
        (("watch",), "NAME"),
        (("register", "--port", "7000"), "NAME"),
        ((*REGISTER[:-1], "http"), "http"),
        ((*REGISTER, "--payload", "{zone"), "{zone"),
        ((*REGISTER, "--session-timeout", "soon"), "soon"),
    ],
    ids=str,
)
async def test_what_argparse_refuses(arguments: tuple[str, ...], named: str) -> None:
    code, stdout, stderr = await outcome(*arguments)
    assert (code, stdout) == (2, "")
    assert named in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((*REGISTER[:-1], "70000"), "--port=70000"),
        ((*REGISTER, "--id", "a/b"), "--id='a/b'"),
        (("register", "a//b", *REGISTER[2:]), "name='a//b'"),
        (("watch", "chat", "--zookeeper", "zk1:2181,,zk2:2181"), "zk1:2181,,zk2:2181"),
        (("watch", "chat", "--zookeeper", "zk1:99999"), "--zookeeper='zk1:99999'"),
        (("list", "--zookeeper", ""), "--zookeeper=''"),
        (("list", "--base-path", "services"), "--base-path='services'"),
        (("list", "chat", "--session-timeout", "0"), "--session-timeout=0"),
        (("demo", "--session-timeout", "-1"), "--session-timeout=-1"),
    ],
    ids=str,
)
async def test_what_the_library_refuses(arguments: tuple[str, ...], named: str) -> None:
    code, stdout, stderr = await outcome(*arguments)
    assert (code, stdout) == (2, "")
    (line,) = stderr.splitlines()
    assert line.startswith("aioregistry: ")
    assert named in line


async def test_servers_come_from_the_environment_unless_given() -> None:
    code, _, stderr = await outcome("list", AIOREGISTRY_ZOOKEEPER="zk1:99999")
    assert code == 2
    assert "zk1:99999" in stderr
    code, _, stderr = await outcome("list", "--zookeeper", "zk2:99999", AIOREGISTRY_ZOOKEEPER="zk1:99999")
    assert code == 2
    assert "zk2:99999" in stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["list --json", "list nosuch", "--help", "server --port 99999"])
async def test_a_command_works_without_a_standard_stream(zookeeper: ZooKeeperServer, closed: str, command: str) -> None:
    expected = {"list nosuch": 1, "server --port 99999": 2}.get(command, 0)
    shell = f"exec {sys.executable} -W error -m aioregistry {command} {closed}"
    code, stdout, stderr = await outcome_of(
        "sh", "-c", shell, env={**os.environ, "AIOREGISTRY_ZOOKEEPER": zookeeper.address}, seconds=DEADLINE
    )
    assert b"Traceback" not in stderr
    assert (code, not stdout) == (expected, ">&-" in closed.split() or expected > 0)


async def test_no_connection_gets_the_number_of_a_stream_that_is_closed() -> None:
    program = (
        "import os, sys; from aioregistry._cli.streams import open_closed_streams; open_closed_streams(); "
        "sys.exit(10 + os.open(os.devnull, os.O_RDONLY))"
    )
    code, _, _ = await outcome_of("sh", "-c", f"exec {sys.executable} -c '{program}' <&- >&- 2>&-", seconds=DEADLINE)
    assert code - 10 > 2


@pytest.mark.parametrize("path", ["\0", "a\0b"])
def test_a_path_that_no_file_can_have_is_refused(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--config", path]) == 2
    assert capfd.readouterr().err == f"aioregistry: --config={path!r}: give the path of a file\n"


def test_a_command_that_is_cancelled_by_nobody_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    async def command(_: Namespace) -> int:
        raise asyncio.CancelledError

    assert run(command, Namespace()) == FAILED
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert stderr.startswith("aioregistry: the command was cancelled from within")
