"""`aioregistry console` as a process: what it refuses, and how it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sqlite3
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import httpx
import pytest

from aioregistry import InvalidArgument
from aioregistry._cli import _parser, options
from aioregistry._cli.console import console
from aioregistry._console.passwords import Argon2, Scrypt, read_passwords
from aioregistry.server import ZooKeeperServer
from tests.cli.command import Command, outcome

AWAY = ("--zookeeper", "127.0.0.1:1")


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text(f"ann:$scrypt$ln=15,r=8,p=1${'A' * 22}${'A' * 43}\n")
    return file


async def test_what_makes_no_sense_is_refused(tmp_path: Path, users: Path) -> None:
    other = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE accounts (name TEXT)")
    not_text = tmp_path / "not-text"
    not_text.write_bytes(b"ann:\xff\n")
    missing = str(tmp_path / "missing")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = f"127.0.0.1:{listening.getsockname()[1]}"
        cases = {
            ("--listen", "0.0.0.0:0"): "listen='0.0.0.0:0': can be reached from other machines: give --password-file",
            ("--listen", "[::]:0"): "listen='[::]:0': can be reached from other machines",
            ("--listen", ":0"): "listen=':0': can be reached from other machines",
            ("--listen", "here"): "listen='here': is not an address to listen on",
            ("--listen", "127.0.0.1:99999"): "listen='127.0.0.1:99999': is not an address to listen on",
            ("--listen", "127.0.0.1:" + "9" * 5000): "is not an address to listen on",
            ("--listen", "::1:80"): "listen='::1:80': is not an address to listen on",
            ("--listen", "[::1]x:80"): "listen='[::1]x:80': is not an address to listen on",
            ("--listen", "[::1:80"): "listen='[::1:80': is not an address to listen on",
            ("--listen", taken): f"listen={taken!r}: cannot be listened on: ",
            ("--password-file", missing): f"password-file={missing!r}: cannot be read",
            ("--password-file", str(not_text)): f"password-file={str(not_text)!r}: is not UTF-8",
            ("--password-file", str(tmp_path)): f"password-file={str(tmp_path)!r}: cannot be read",
            ("--password-file", str(users), "--user-header", "X-User"): "user-header='X-User': excludes",
            ("--user-header", "X User"): "user-header='X User': is not the name of a header",
            ("--user-header", "X-User", "--proxy", "proxy.example"): "proxy='proxy.example': is not an IP address",
            ("--proxy", "10.0.0.1"): "proxy='10.0.0.1': names users in a header",
            ("--history", missing + "/x"): f"history='{missing}/x': cannot be written",
            ("--history", str(other)): f"history={str(other)!r}: is the database of another program",
            ("--history", str(not_text)): f"history={str(not_text)!r}: is not an SQLite database",
            ("--warm-up", "-1"): "warm-up=-1.0: is not a number of seconds up to 3600",
            ("--history-days", "0"): "history-days=0.0: is not a number of days up to 3650",
            ("--history-size", "0"): "history-size=0: is not a number of MiB",
            ("--https-cert", missing): f"https-cert={missing!r}: cannot be read",
            ("--https-cert", str(users)): "is not a certificate in PEM with its key",
            ("--https-key", str(users)): "is the key of a certificate",
        }
        for given, expected in cases.items():
            listen = () if "--listen" in given else ("--listen", "127.0.0.1:0")
            arguments = _parser().parse_args(["console", *AWAY, *given, *listen])
            options.apply(arguments)
            with pytest.raises(InvalidArgument) as refused:
                await console(arguments)
            assert expected in str(refused.value)
    assert other.stat().st_size > 0
    assert not_text.read_bytes() == b"ann:\xff\n"


async def test_a_password_is_hashed_for_the_file(tmp_path: Path) -> None:
    async def made(user: str, password: str, *options: str) -> tuple[int | None, str, str]:
        command = ("-m", "aioregistry", "console", "--hash-password", user, *options)
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        stdout, stderr = await process.communicate(f"{password}\n".encode())
        return process.returncode, stdout.decode(), stderr.decode()

    code, line, stderr = await made("ann", "correct horse")
    assert (code, stderr) == (0, "")
    assert list(read_passwords("users", [line])) == ["ann"]
    code, other, stderr = await made("bob", "correct horse", "--hash", "argon2")
    assert (code, stderr) == (0, "")
    known = read_passwords("users", [line, other])
    assert {name: type(hash) for name, hash in known.items()} == {"ann": Scrypt, "bob": Argon2}
    code, _, stderr = await made("ann", "short")  # as all errors: one line
    assert (code, stderr.count("\n")) == (2, 1)
    assert "short" not in stderr.replace("shorter", "")


async def test_it_ends_at_once_with_browsers_that_follow_and_without_a_server(tmp_path: Path) -> None:
    history = tmp_path / "history.sqlite"
    options = ("--listen", "127.0.0.1:0", "--history", str(history))
    async with ZooKeeperServer() as server, Command("console", "--zookeeper", server.address, *options) as command:
        url = await command.line()
        async with httpx.AsyncClient(base_url=url, timeout=100) as http, http.stream("GET", "/api/follow") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "retry: 2000"
            second = await outcome("console", "--zookeeper", server.address, *options)
            assert second[0] == 2
            assert "is used by another console" in second[2]
            command.send(signal.SIGTERM)
            with contextlib.suppress(httpx.TransportError):
                async for _ in lines:
                    pass
            assert await command.end() == (0, "", "")
    async with Command("console", *AWAY, *options) as command:
        url = await command.line()
        async with httpx.AsyncClient(base_url=url, timeout=100) as http:
            assert (await http.get("/")).status_code == 200
        command.send(signal.SIGINT)
        assert await command.end() == (0, "", "")
