from __future__ import annotations

import signal
import socket

import pytest

from tests.cli.command import Command, outcome
from tests.support import wire


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    async with Command("server", "--port", "0") as command:
        address = await command.line()
        assert "development" in await command.error_line()
        session = await wire.connect(address)
        await session.create("/a")
        command.send(number)
        await session.closed()
        assert await command.end() == (0, "", "")


async def test_a_release() -> None:
    async with Command("server", "--port", "0", "--version", "3.5") as command:
        session = await wire.connect(await command.line())
        assert (await session.reply(session.send(wire.add_watch("/")))).error == -6
        session.abandon()
        command.send(signal.SIGTERM)
        assert await command.exit_code() == 0


async def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, stdout, stderr = await outcome("server", "--port", str(port))
    assert (code, stdout) == (1, "")
    assert f"127.0.0.1:{port} cannot be listened on: " in stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [("--version", "3.4"), ("--port", "x"), ("--port", "99999"), ("--port=-1",)])
async def test_usage(arguments: tuple[str, ...]) -> None:
    code, stdout, stderr = await outcome("server", *arguments)
    assert (code, stdout) == (2, "")
    assert arguments[-1].removeprefix("--port=") in stderr.splitlines()[-1]
