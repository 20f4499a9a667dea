"""No peer keeps a connection of the console for longer than it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Send

from aioregistry._console import answers, connections, passwords
from aioregistry._console import hub as hub_module
from aioregistry._console.console import Settings
from aioregistry._console.serving import Place, serve
from tests.console.served import served

DEADLINE = 60.0
AWAY = {"servers": "127.0.0.1:1", "session_timeout": 10.0}
GET = b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"


class Peer:
    """Speaks to the console byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> bytes:
        """The head of the next answer; its body is read too."""
        async with asyncio.timeout(DEADLINE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await self.reader.readexactly(length)
        return head

    async def ended(self) -> None:
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(2**16):
                    pass


Connect = Callable[[], contextlib.AbstractAsyncContextManager[Peer]]


@contextlib.asynccontextmanager
async def console(history: Path) -> AsyncIterator[Connect]:
    listening = socket.create_server(("127.0.0.1", 0))
    place = Place(sockets=[listening], certificate=None, key=None, history=history, days=1, limit=2**24)
    ready = asyncio.Event()
    settings = Settings(passwords={"ann": passwords.SCHEMES["scrypt"]})
    serving = asyncio.create_task(serve(AWAY, settings, place, ready.set))

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Peer]:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        try:
            yield Peer(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    try:
        async with asyncio.timeout(DEADLINE):
            await ready.wait()
        yield connect
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listening.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ASKED_WITHIN", 0.2)
    monkeypatch.setattr(connections, "SENT_WITHIN", 0.2)
    monkeypatch.setattr(answers, "_BODY_WITHIN", 0.2)


@pytest.mark.parametrize("begun", [b"", b"G", GET[:-2], b"POST /login HTTP/1.1\r\nContent-Le"])
@pytest.mark.usefixtures("hasty")
async def test_half_sent_requests_end(history: Path, begun: bytes) -> None:
    async with console(history) as connect, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connect()) for _ in range(50)]
        for peer in peers:
            peer.send(begun)
        for peer in peers:
            await peer.ended()


@pytest.mark.usefixtures("hasty")
async def test_one_byte_now_and_then_does_not_prolong_it(history: Path) -> None:
    async with console(history) as connect, connect() as peer:
        ended = asyncio.create_task(peer.ended())
        async with asyncio.timeout(DEADLINE):
            while not ended.done():
                peer.send(b"x")
                await asyncio.sleep(0.05)
        await ended


@pytest.mark.usefixtures("hasty")
async def test_a_second_request_has_a_deadline_too(history: Path) -> None:
    async with console(history) as connect, connect() as peer:
        peer.send(GET)
        assert (await peer.answer()).startswith(b"HTTP/1.1 200")
        peer.send(GET[:-2])
        await peer.ended()


@pytest.mark.usefixtures("hasty")
async def test_a_body_that_does_not_come_is_answered_and_ended(history: Path) -> None:
    async with console(history) as connect, connect() as peer:
        peer.send(POST + b"Content-Length: 100\r\n\r\nuser=ann")
        assert (await peer.answer()).startswith(b"HTTP/1.1 408")
        await peer.ended()


async def test_who_is_answered_may_take_its_time(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with console(history) as connect, connect() as peer:
        for _ in range(3):
            peer.send(GET)
            assert (await peer.answer()).startswith(b"HTTP/1.1 200")
        # The deadline of a request is not one of the connection.
        monkeypatch.setattr(connections, "ASKED_WITHIN", 0.2)
        peer.send(GET)
        assert (await peer.answer()).startswith(b"HTTP/1.1 200")


async def test_who_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SENT_WITHIN", 0.2)
    ended = asyncio.Event()

    async def application(scope: object, receive: object, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
        ended.set()

    bounded = connections.Connections(application)
    config = uvicorn.Config(bounded, http=bounded.protocol, lifespan="off", log_config=None)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    config.load()
    listening = socket.create_server(("127.0.0.1", 0))
    state = server.server_state
    loop = asyncio.get_running_loop()
    async with await loop.create_server(
        lambda: bounded.protocol(config=config, server_state=state, app_state={}), sock=listening
    ):
        reader, writer = await asyncio.open_connection(*listening.getsockname(), limit=2)
        writer.write(GET)
        async with asyncio.timeout(DEADLINE):
            await ended.wait()
            while len(bounded):
                await asyncio.sleep(0.02)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        del reader


async def test_more_connections_than_are_allowed_end_at_once_and_it_is_told_once(
    history: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "MOST", 4)
    async with console(history) as connect, contextlib.AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(connect()) for _ in range(4)]
        for peer in kept:
            peer.send(GET)
            assert (await peer.answer()).startswith(b"HTTP/1.1 200")
        for _ in range(3):
            async with connect() as one_more:
                await one_more.ended()
        # Those that were connected still get answers.
        kept[0].send(GET)
        assert (await kept[0].answer()).startswith(b"HTTP/1.1 200")
    told = [each for each in caplog.records if each.name == "aioregistry.console" and each.levelno == logging.WARNING]
    assert len(told) == 1


async def test_one_user_does_not_keep_the_others_out(
    servers: str, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MOST_OF_A_USER", 2)
    async with served(servers, history) as console:
        hub = hub_module.Hub()
        follow = [hub.follow(console.console, None, lambda: True, "ann") for _ in range(2)]
        for each in follow:
            await anext(each)
        with pytest.raises(hub_module.TooManyBrowsers):
            hub.follow(console.console, None, lambda: True, "ann")
        for user in ("bob", "", ""):
            follow.append(hub.follow(console.console, None, lambda: True, user))
            await anext(follow[-1])
        await follow[0].aclose()
        follow.append(hub.follow(console.console, None, lambda: True, "ann"))
        await anext(follow[-1])
        for each in follow:
            await each.aclose()
