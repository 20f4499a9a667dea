"""The doctor asks AdminServers what four-letter words do not tell, and believes nothing that has another form."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from aioregistry import InvalidArgument
from aioregistry._doctor import asking
from aioregistry._doctor.admin_words import DEFAULT, AdminPlace, Unusable, admin_place, answer, connections
from aioregistry._doctor.asking import ask
from aioregistry._doctor.picture import Server
from aioregistry._words import printable
from aioregistry.testing._ports import ReservedPort
from tests.cli.command import outcome
from tests.conftest import StartZooKeeper
from tests.doctor.scene import FAULTS, Scene
from tests.support.zookeeper import ADMIN_JARS, ELSEWHERE, JARS

DEADLINE = 100.0
WORD_REFUSED = b"%s is not executed because it is not in the whitelist.\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[int]:
    talking: set[asyncio.Event] = set()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = asyncio.Event()
        talking.add(over)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            over.set()

    async with await asyncio.start_server(once, "127.0.0.1", 0) as server:
        yield int(server.sockets[0].getsockname()[1])
        for over in talking:
            await over.wait()


async def refuse_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(WORD_REFUSED % await reader.readexactly(4))
    await writer.drain()


def saying(raw: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return talk


async def asked(talk: Talk) -> Server:
    """The facts that the AdminServer gives of a server that allows no word."""
    async with listening(refuse_words) as port, listening(talk) as admin:
        return await ask("127.0.0.1", port, None, AdminPlace("http", admin, "/commands"), 30.0)


@pytest.mark.skipif(ELSEWHERE is not None, reason="Jetty is among Debian's jars alone")
async def test_ghosts_are_found_by_a_real_admin_server(start_zookeeper: StartZooKeeper) -> None:
    with ReservedPort() as port:
        server = await start_zookeeper(words="srvr", admin_port=port.number, jars=(*JARS, *ADMIN_JARS))
        admin = f"http://:{port.number}/commands"
        scene = Scene(server.address, "")
        async with scene.stack:
            await scene.begin()
            async with asyncio.timeout(DEADLINE):
                # A JVM takes its time for its first answer by HTTP.
                while (found := await scene.diagnosis(admin=admin_place(admin)))[1]:
                    pass
            assert [each for each in found[0] if each.severity != "notice"] == []
            await FAULTS["ghost"][1](scene)
            code, stdout, stderr = await outcome(
                "doctor", "--json", "--zookeeper", scene.servers, "--admin-server", admin
            )
            assert (code, stderr) == (1, "")
            told = json.loads(stdout)
            assert [each["anchor"] for each in told["findings"] if each["severity"] != "notice"] == ["ghost"]
            assert told["unknown"] == []
            code, stdout, _ = await outcome("doctor", "--zookeeper", scene.servers, "--admin-server", "off")
            assert code == 0
            assert "unknown   ghost: " in stdout


async def test_what_an_admin_server_says_counts_as_the_words_would() -> None:
    commands: dict[str, dict[str, Any]] = {
        "connections": {
            "connections": [
                {
                    "remote_socket_address": "10.0.0.7:4711",
                    "session_id": -5,
                    "session_timeout": 9000,
                    "established": 7000,
                }
            ],
            "secure_connections": [{"remote_socket_address": "[::1]:4712", "session_id": 6}],
        },
        "monitor": {"open_file_descriptor_count": 90, "max_file_descriptor_count": 100},
        "configuration": {"min_session_timeout": 1000, "max_session_timeout": 8000, "max_client_cnxns": 60},
    }

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
        writer.write(OK + json.dumps({**commands[line.split()[1].removeprefix("/commands/")], "error": None}).encode())
        await writer.drain()

    server = await asked(talk)
    assert server.connections is not None
    assert [(each.host, each.session, each.timeout, each.established) for each in server.connections] == [
        ("10.0.0.7", -5, 9.0, 7.0),
        ("[::1]", 6, 0.0, 0.0),
    ]
    assert server.monitor["zk_open_file_descriptor_count"] == "90"
    assert server.settings == {"minSessionTimeout": "1000", "maxSessionTimeout": "8000", "maxClientCnxns": "60"}
    assert server.admin_silence == ""


HOSTILE = {
    "nothing": b"",
    "no HTTP": b"220 ESMTP\r\n",
    "binary": bytes(range(256)),
    "not allowed": b"HTTP/1.1 403 Forbidden\r\n\r\n{}",
    "led elsewhere": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n{}",
    "no JSON": OK + b"<html>",
    "a list": OK + b"[]",
    "an error": OK + b'{"command": "connections", "error": "Unknown command: connections"}',
    "without end": OK + b"[" * 100_000,
    "a long number": OK + b"1" * 100_000,
    "another form": OK + b'{"connections": {"a": 1}}',
    "another form of the secure ones": OK + b'{"connections": [], "secure_connections": 7}',
    "not UTF-8": OK + b'{"connections": "\xff"}',
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
async def test_an_answer_of_another_form_leaves_it_unknown(raw: bytes) -> None:
    server = await asked(saying(raw))
    assert server.connections is None
    assert server.refusal is None
    assert "/commands: " in server.admin_silence
    assert printable(server.admin_silence) == server.admin_silence
    assert len(server.admin_silence) < 200


@pytest.mark.parametrize(
    "fields",
    [
        {"session_id": "0x1"},
        {"session_id": True},
        {"session_id": 2**64},
        {"session_id": None, "session_timeout": "NaN", "established": 10**400, "remote_socket_address": 7},
        {"remote_socket_address": "x" * 1000 + ":1", "session_timeout": {}, "established": float("inf")},
    ],
)
def test_values_of_another_form_are_none(fields: dict[str, Any]) -> None:
    (found,) = connections({"connections": [7, fields], "secure_connections": []})
    assert (found.session, found.timeout, found.established) == (0, 0.0, 0.0)
    assert len(found.host) <= 100


async def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_OF_AN_ANSWER", 100_000)
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65536)
                await writer.drain()
        except ConnectionError:
            ended.set()

    server = await asked(talk)
    assert server.connections is None
    async with asyncio.timeout(30):
        await ended.wait()


async def test_silence_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ADMIN_PATIENCE", 0.1)

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asked(talk)
    assert server.connections is None
    assert server.admin_silence.endswith("no answer within 0.1 s")


async def test_an_admin_server_that_is_not_there_is_said_with_its_address() -> None:
    async with listening(refuse_words) as port:
        server = await ask("127.0.0.1", port, None, AdminPlace("http", 1, "/commands"), 30.0)
    assert server.admin_silence == "http://127.0.0.1:1/commands: the connection was refused: nothing listens there"


async def test_nobody_asks_where_the_words_are_allowed_or_the_option_says_off() -> None:
    met: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        met.append(await reader.read(1))

    async def allow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        # To each word: what it says counts for the word that it belongs to.
        writer.write(b"zk_version\t3.8.0\ntickTime=2000\n /127.0.0.1:4711[0](queued=0,recved=1,sent=0)\n\n")
        await writer.drain()

    async with listening(talk) as admin, listening(allow) as allowing, listening(refuse_words) as refusing:
        await ask("127.0.0.1", allowing, None, AdminPlace("http", admin, ""), 30.0)
        server = await ask("127.0.0.1", refusing, None, None, 30.0)
    assert (server.connections, server.admin_silence, met) == (None, "", [])


def test_places() -> None:
    assert admin_place(DEFAULT) == AdminPlace("http", 8080, "/commands")
    assert admin_place("https://:9443/") == AdminPlace("https", 9443, "")
    assert admin_place("https:///commands") == AdminPlace("https", 443, "/commands")
    assert admin_place("off") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        "http://zk1:8080/commands",
        "http://user@:8080/",
        "ftp://:21/",
        "http://:99999/",
        "http://:x/",
        "http://[]:8080/",
        "http://x[::1]/",
        "http://[::1]x:8080/",
        "http://@:8080/",
        "http://:8080/a b",
        "http://:8080/a\r\nHost: evil",
        "http://:8080/?a=b",
        "http://:8080/\u202e",
        "http://[::1",
    ],
)
async def test_a_place_that_is_none_is_refused_before_anybody_is_asked(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        admin_place(text)
    assert (refused.value.field, refused.value.value) == ("admin-server", text)


async def test_a_place_that_is_none_is_a_usage_error() -> None:
    code, stdout, stderr = await outcome("doctor", "--admin-server", "http://elsewhere:80/")
    assert (code, stdout) == (2, "")
    assert "admin-server" in stderr


def test_an_answer_is_read_whatever_its_headers_are() -> None:
    assert answer(b"HTTP/1.0 200\r\nA: b\r\n\r\n" + b'{"error": null}') == {"error": None}
    with pytest.raises(Unusable):
        answer(b"HTTP/1.1 200 OK\r\n")
