"""Every client may write nodes and name services: what commands print of them does a terminal no harm."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cli.command import Command, outcome
from tests.cli.harmless import HARMFUL, is_harmless
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

NAME, ID, TEXT = f"s {' '.join(HARMFUL)}", f"i {' '.join(HARMFUL)}", f"\x1b[2J\x07\x9b {' '.join(HARMFUL)}"
DOCUMENT = {"name": NAME, "id": ID, "address": TEXT, "port": 7000, "payload": {TEXT: TEXT}, "registrationTimeUTC": 1}
OVERRIDE = {"enabled": False, "reason": TEXT, "by": TEXT, "seconds": None}


@pytest.fixture
async def servers(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> tuple[str, ...]:
    await judge.make(f"{chroot}/services/{NAME}/{ID}", json.dumps(DOCUMENT).encode())
    await judge.make(f"{chroot}/services/{NAME}/bad {ID}", TEXT.encode())
    await judge.make(f"{chroot}/services-overrides/{NAME}/{ID}", json.dumps(OVERRIDE).encode())
    await judge.make(f"{chroot}/services-overrides/{NAME}/bad {ID}", TEXT.encode())
    return ("--zookeeper", f"{zookeeper.address}{chroot}", "--session-timeout", "60")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("doctor",), 1),
        (("doctor", "--json"), 1),
        (("maintenance",), 0),
        (("maintenance", "--json"), 0),
        (("maintenance", f"{NAME}x"), 1),
        (("drain", NAME, ID, "--reason", f"r {' '.join(HARMFUL)}", "--any-incarnation"), 0),
        (("drain", NAME, f"{ID}x", "--reason", "r"), 2),
        (("enable", NAME, ID), 0),
        (("enable", NAME, f"{ID}x"), 2),
    ],
)
async def test_what_commands_print_of_others(
    servers: tuple[str, ...], arguments: tuple[str, ...], expected: int
) -> None:
    code, stdout, stderr = await outcome(*arguments, *servers)
    assert code == expected
    assert stdout + stderr
    assert is_harmless(stdout + stderr)


async def test_what_watch_prints_of_others(servers: tuple[str, ...]) -> None:
    async with Command("watch", NAME, *servers) as lines, Command("watch", NAME, "--json", *servers) as objects:
        for told in [*[await lines.line() for _ in range(3)], *[await objects.line() for _ in range(2)]]:
            assert is_harmless(told)


@pytest.mark.parametrize("options", [(), ("-v", "--log-format", "json")])
async def test_what_register_prints_of_its_own(servers: tuple[str, ...], options: tuple[str, ...]) -> None:
    command = ("register", NAME, "--id", f"own {ID}", "--address", "10.0.0.7", "--port", "7000", *options)
    async with Command(*command, *servers) as registered:
        lines = await registered.error_lines_until("LIVE")
        registered.send(signal.SIGTERM)
        code, stdout, stderr = await registered.end()
    assert (code, stdout) == (0, "")
    assert is_harmless("\n".join([*lines, stderr]))


def test_the_check_of_the_checks() -> None:
    assert all(not is_harmless(text) for text in (*HARMFUL, "\x1b", "\x7f", "\x9b", "\ud800"))
    assert is_harmless("ümläut\n\\u202e")
