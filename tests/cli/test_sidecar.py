"""`aioregistry register … -- COMMAND`: real programs beside a real ZooKeeper, real signals, real exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aioregistry.testing._ports import ReservedPort
from tests.cli.command import TIMEOUT, Command, outcome
from tests.support.judge import Judge
from tests.support.wire import Node
from tests.support.zookeeper import ZooKeeperServer

NODE = "/services/chat/a"
REGISTER = ("register", "chat", "--id", "a", "--address", "127.0.0.1", "--port", "7000", "--session-timeout", "60")


@pytest.fixture
def servers(zookeeper: ZooKeeperServer, chroot: str) -> tuple[str, str]:
    return "--zookeeper", f"{zookeeper.address}{chroot}"


def server(notes: Path, *, code: int = 3) -> tuple[str, ...]:
    """A program that notes the signals it gets, and ends by SIGTERM, SIGINT and SIGQUIT."""
    note = shlex.quote(str(notes))
    traps = [f'trap "echo {name} >> {note}" {name}' for name in ("HUP", "USR1")]
    traps += [f'trap "echo {name} >> {note}; exit {code}" {name}' for name in ("TERM", "INT", "QUIT")]
    return "--", "sh", "-c", f"{'; '.join(traps)}; echo up >> {note}; while :; do sleep 0.05; done"


async def noted(notes: Path, *expected: str) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not notes.exists() or notes.read_text().split() != [*expected]:
            await asyncio.sleep(0.01)


def document(node: Node | None) -> Mapping[str, Any] | None:
    return None if node is None else {key: json.loads(node.data).get(key) for key in ("enabled", "status")}


ENABLED = {"enabled": None, "status": None}
DRAINING = {"enabled": False, "status": "draining"}
FAILING = {"enabled": False, "status": "failing"}

OFTEN = ("--check-interval", "0.1", "--check-fall", "1", "--check-timeout", "10")
"""Options of a check that only a refusal fails, however busy the machine is."""


async def published(judge: Judge, path: str, expected: Mapping[str, Any]) -> None:
    await judge.node_until(path, lambda node: document(node) == expected)


async def test_it_is_registered_while_it_lives_and_exits_as_it_did(
    servers: tuple[str, str], judge: Judge, chroot: str, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    waits = f"until [ -e {shlex.quote(str(go_on))} ]; do sleep 0.05; done; echo done; exit 7"
    async with Command(*REGISTER, *servers, "--", "sh", "-c", waits) as command:
        await published(judge, chroot + NODE, ENABLED)
        go_on.touch()
        code, stdout, stderr = await command.end()
        assert (code, stdout) == (7, "done\n")
        assert "Traceback" not in stderr
    assert await judge.node(chroot + NODE) is None  # at once, not a minute later


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_signal_that_ended_it_is_in_the_exit_code(servers: tuple[str, str], number: signal.Signals) -> None:
    code, _, stderr = await outcome(*REGISTER, *servers, "--", "sh", "-c", f"kill -{number.value} $$")
    assert code == 128 + number
    assert "Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
async def test_it_is_drained_before_it_is_told_to_end(
    servers: tuple[str, str], judge: Judge, chroot: str, tmp_path: Path, number: signal.Signals
) -> None:
    notes = tmp_path / "notes"
    async with Command(*REGISTER, *servers, "--drain", "1", *server(notes)) as command:
        await published(judge, chroot + NODE, ENABLED)
        await noted(notes, "up")
        command.send(number)
        await published(judge, chroot + NODE, DRAINING)
        assert notes.read_text().split() == ["up"], "it was told before consumers were"
        await noted(notes, "up", number.name.removeprefix("SIG"))
        code, _, stderr = await command.end()
        assert code == 3
        assert "Traceback" not in stderr
    assert await judge.node(chroot + NODE) is None


async def test_a_second_signal_is_passed_on_at_once(
    servers: tuple[str, str], judge: Judge, chroot: str, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    async with Command(*REGISTER, *servers, "--drain", "100000", *server(notes)) as command:
        await published(judge, chroot + NODE, ENABLED)
        await noted(notes, "up")
        command.send(signal.SIGTERM)
        await published(judge, chroot + NODE, DRAINING)
        command.send(signal.SIGINT)
        assert await command.exit_code() == 3
    assert notes.read_text().split() == ["up", "INT"]


async def test_without_a_drain_it_is_told_at_once(servers: tuple[str, str], judge: Judge, chroot: str) -> None:
    async with Command(*REGISTER, *servers, "--drain", "0", "--", "sleep", "100000") as command:
        await published(judge, chroot + NODE, ENABLED)
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 128 + signal.SIGTERM
    assert await judge.node(chroot + NODE) is None


async def test_other_signals_are_passed_on_and_end_nothing(
    servers: tuple[str, str], judge: Judge, chroot: str, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    async with Command(*REGISTER, *servers, "--drain", "0", *server(notes)) as command:
        await published(judge, chroot + NODE, ENABLED)
        await noted(notes, "up")
        owner = await judge.owner(chroot + NODE)
        command.send(signal.SIGHUP)
        await noted(notes, "up", "HUP")
        command.send(signal.SIGUSR1)
        await noted(notes, "up", "HUP", "USR1")
        assert await judge.owner(chroot + NODE) == owner
        assert document(await judge.node(chroot + NODE)) == ENABLED
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 3


async def test_it_is_enabled_when_its_checks_pass(
    servers: tuple[str, str], judge: Judge, chroot: str, tmp_path: Path
) -> None:
    well = tmp_path / "well"
    check = ("--check-command", f"test -e {shlex.quote(str(well))}", "--check-interval", "0.1", "--check-fall", "1")
    async with Command(*REGISTER, *servers, *check, "--check-timeout", "10", "--", "sleep", "100000") as command:
        await published(judge, chroot + NODE, FAILING)
        assert "exit code 1" in (await command.error_lines_until(f"check 'command' ({check[1]}) fails"))[-1]
        well.touch()
        await published(judge, chroot + NODE, ENABLED)
        await command.error_lines_until(f"check 'command' ({check[1]}) passes")
        well.unlink()
        await published(judge, chroot + NODE, FAILING)
        command.send(signal.SIGTERM)
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 128 + signal.SIGTERM


async def test_it_is_enabled_when_its_port_takes_connections(
    servers: tuple[str, str], judge: Judge, chroot: str
) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    with ReservedPort() as port:
        check = ("--check-tcp", f"127.0.0.1:{port.number}", *OFTEN)
        async with Command(*REGISTER, *servers, *check, "--drain", "0", "--", "sleep", "100000") as command:
            await published(judge, chroot + NODE, FAILING)
            await command.error_lines_until(f"check 'tcp' ({check[1]}) fails")
            async with await asyncio.start_server(close, "127.0.0.1", port.number):
                await published(judge, chroot + NODE, ENABLED)
                await command.error_lines_until(f"check 'tcp' ({check[1]}) passes")
            await published(judge, chroot + NODE, FAILING)
            command.send(signal.SIGTERM)
            assert await command.exit_code() == 128 + signal.SIGTERM


async def test_it_is_enabled_when_it_answers_http_well(servers: tuple[str, str], judge: Judge, chroot: str) -> None:
    status = 503

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as http:
        check = ("--check-http", f"http://127.0.0.1:{http.sockets[0].getsockname()[1]}/health", *OFTEN)
        async with Command(*REGISTER, *servers, *check, "--drain", "0", "--", "sleep", "100000") as command:
            await published(judge, chroot + NODE, FAILING)
            assert "503" in (await command.error_lines_until(f"check 'http' ({check[1]}) fails"))[-1]
            status = 200
            await published(judge, chroot + NODE, ENABLED)
            await command.error_lines_until(f"check 'http' ({check[1]}) passes")
            status = 500
            await published(judge, chroot + NODE, FAILING)
            assert "500" in (await command.error_lines_until(f"check 'http' ({check[1]}) fails"))[-1]
            command.send(signal.SIGTERM)
            assert await command.exit_code() == 128 + signal.SIGTERM


async def test_it_runs_while_zookeeper_is_away(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with ReservedPort() as port:
        away = ("--zookeeper", f"127.0.0.1:{port.number}", "--session-timeout", "60")
        async with Command(*REGISTER, *away, "--drain", "100000", *server(notes)) as command:
            await noted(notes, "up")
            command.send(signal.SIGTERM)  # nobody could have found it: there is nobody to drain it for
            code, _, stderr = await command.end()
            assert code == 3
            assert "Traceback" not in stderr


async def test_given_up_by_the_command_line_it_is_told_to_end(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with ReservedPort() as port:
        away = ("--zookeeper", f"127.0.0.1:{port.number}", "--connect-timeout", "0.5")
        code, _, stderr = await outcome(*REGISTER, *away, *server(notes))
    assert code == 1
    assert stderr.splitlines()[-1].startswith("aioregistry: ")
    assert notes.read_text().split()[-1:] == ["TERM"]


async def test_displaced_for_good_it_is_told_to_end(
    servers: tuple[str, str], judge: Judge, chroot: str, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    async with Command(*REGISTER, *servers, "--on-displaced", "stop", *server(notes)) as command:
        await published(judge, chroot + NODE, ENABLED)
        await noted(notes, "up")
        async with Command(*REGISTER, *servers) as newer:
            await newer.error_lines_until("LIVE")
            assert (await command.end())[0] == 3
            assert notes.read_text().split() == ["up", "TERM"]
            newer.send(signal.SIGTERM)
            assert await newer.exit_code() == 0


async def test_standard_error_that_is_gone_ends_nothing(servers: tuple[str, str], judge: Judge, chroot: str) -> None:
    async with Command(*REGISTER, *servers, "--drain", "0.1", "--", "sleep", "100000") as command:
        await published(judge, chroot + NODE, ENABLED)
        command.stop_reading()
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 128 + signal.SIGTERM
    assert await judge.node(chroot + NODE) is None


@pytest.mark.parametrize(
    ("options", "program", "code", "named"),
    [
        ((), ("nosuchprogram",), 127, "nosuchprogram"),
        ((), ("/nosuch/program",), 127, "/nosuch/program"),
        ((), ("/etc/passwd",), 126, "/etc/passwd"),
        ((), (), 2, "--"),
        (("--drain", "-1"), ("true",), 2, "drain=-1"),
        (("--drain", "nan"), ("true",), 2, "drain=nan"),
        (("--check-http", "ftp://localhost"), ("true",), 2, "--check-http='ftp://localhost'"),
        (("--check-tcp", "localhost"), ("true",), 2, "--check-tcp='localhost'"),
        (("--check-command", "nosuchprogram"), ("true",), 2, "--check-command='nosuchprogram'"),
        (("--check-tcp", "h:1", "--check-interval", "0"), ("true",), 2, "--check-interval=0"),
        (("--check-tcp", "h:1", "--check-timeout", "-1"), ("true",), 2, "--check-timeout=-1"),
        (("--check-tcp", "h:1", "--check-rise", "0"), ("true",), 2, "--check-rise=0"),
        (("--check-fall", "2"), ("true",), 2, "--check-fall=2"),
        (("--port", "0"), ("true",), 2, "port=0"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_told_in_a_line(
    options: tuple[str, ...], program: tuple[str, ...], code: int, named: str
) -> None:
    ended, stdout, stderr = await outcome(*REGISTER, *options, "--", *program)
    assert (ended, stdout) == (code, "")
    assert named in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


async def test_a_drain_without_a_command_is_refused() -> None:
    code, _, stderr = await outcome(*REGISTER, "--drain", "1")
    assert code == 2
    assert "drain=1" in stderr.splitlines()[-1]


AS_PROCESS_1 = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come to us
os.getpid = lambda: 1
from aioregistry._cli import main
sys.exit(main(sys.argv[1:]))
"""
IMITATED = (sys.executable, "-c", AS_PROCESS_1)
"""A process that the kernel gives orphans to as it does to process 1; for hosts that allow no namespaces."""

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


async def in_a_namespace() -> tuple[str, ...] | None:
    """The command of the real process 1 of a namespace of its own, as a container has; None if that is forbidden."""
    for words in (NAMESPACE, (*NAMESPACE, "--user", "--map-root-user")):
        with contextlib.suppress(FileNotFoundError):
            process = await asyncio.create_subprocess_exec(*words, "true", stderr=DEVNULL)
            if await process.wait() == 0:
                return (*words, sys.executable, "-m", "aioregistry")
    return None


def children(parent: int) -> list[int]:
    """The processes whose parent it is, those that nobody has waited for included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            pid, _, rest = stat.read_text().partition(" ")
            if rest.rpartition(")")[2].split()[1] == str(parent):
                found.append(int(pid))
    return found


@pytest.mark.parametrize("real", [True, False], ids=["in a namespace", "imitated"])
async def test_process_1_reaps_orphans_and_passes_signals_on(tmp_path: Path, real: bool) -> None:
    """Where the host forbids namespaces, the imitation is what can be had; it is tried on every host."""
    notes = tmp_path / "notes"
    program = server(notes)
    words = await in_a_namespace() if real else None
    with ReservedPort() as port:
        process = await asyncio.create_subprocess_exec(
            *(*(words or IMITATED), *REGISTER, "--zookeeper", f"127.0.0.1:{port.number}"),
            *("--", "sh", "-c", f"sh -c 'sleep 0.2 &'; {program[-1]}"),
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            await noted(notes, "up")  # by now process 1 has the orphan
            first = children(process.pid)[0] if words else process.pid
            async with asyncio.timeout(TIMEOUT):
                while len(children(first)) > 1:  # beside the sidecar itself; a zombie is there too
                    await asyncio.sleep(0.01)
            os.kill(first, signal.SIGUSR1)
            await noted(notes, "up", "USR1")
            os.kill(first, signal.SIGTERM)
            async with asyncio.timeout(TIMEOUT):
                _, stderr = await process.communicate()
            assert process.returncode == 3, stderr
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert notes.read_text().split() == ["up", "USR1", "TERM"]
