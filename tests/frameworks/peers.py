"""Instances that answer, or fail in one way each, and a registry that lists them."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple, Self

import pytest

import aioregistry
from aioregistry import Ejection, Registry, ServiceInstance, View
from aioregistry._handles import is_closed
from aioregistry.testing._ports import ReservedPort
from tests.support.zookeeper import ZooKeeperServer

TIMEOUT = 100.0


class Manner(enum.Enum):
    """A peer's answer to a request."""

    ANSWERS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    ANSWERS_ONCE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nonce\n"
    OVERLOADED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
    REDIRECTS = b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n"
    REDIRECTS_BY_HOST = b"HTTP/1.1 302 Found\r\nLocation: http://%b/there\r\nContent-Length: 0\r\n\r\n"
    REDIRECTS_TO_PAY = b"HTTP/1.1 302 Found\r\nLocation: https://pay.registry/\r\nContent-Length: 0\r\n\r\n"
    SPEAKS_SOMETHING_ELSE = b"220 mail.example.org ESMTP\r\n\r\n"
    CUTS_ITS_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    ANSWERS_AT_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"0123456789" * 100_000
    CUTS_BEHIND_ITS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    BEGINS_A_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    BEGINS_ITS_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nmore to come"
    HANGS_UP = b""
    HANGS = None


_CLOSING = (
    Manner.SPEAKS_SOMETHING_ELSE,
    Manner.CUTS_ITS_ANSWER,
    Manner.CUTS_BEHIND_ITS_HEAD,
    Manner.HANGS_UP,
)


class Asked(NamedTuple):
    method: str
    target: str
    host: str
    body: bytes


class Peer:
    """An HTTP server of one manner on a port of its own, or nobody who listens."""

    def __init__(self, manner: Manner | None) -> None:
        self.manner = manner
        self.asked: list[Asked] = []
        self.connections = 0
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], None] = {}

    async def __aenter__(self) -> Self:
        if self.manner is not None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, reuse_address=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        if self._serving:
            await asyncio.wait(list(self._serving))
        self._reserved.release()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = None
        task.add_done_callback(self._serving.pop)
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            answered = False
            while True:
                self.asked.append(await _read(reader))
                if answered and self.manner is Manner.ANSWERS_ONCE:  # as one that closes idle connections does
                    break
                answered = True
                assert self.manner is not None
                if self.manner.value is None:
                    await asyncio.Event().wait()
                head, end, body = self._answer(self.asked[-1]).partition(b"\r\n\r\n")
                writer.write(head + end + (b"" if self.asked[-1].method == "HEAD" else body))
                await writer.drain()
                if self.manner in _CLOSING:
                    break
        writer.close()

    def _answer(self, asked: Asked) -> bytes:
        if self.manner is not Manner.REDIRECTS_BY_HOST:
            assert self.manner is not None
            assert isinstance(self.manner.value, bytes)
            return self.manner.value
        if asked.target == "/there":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        head: bytes = self.manner.value
        return head % asked.host.encode()


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue of connections is full: what is sent to it is dropped, and nobody hears of it."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, target, headers["host"], body)


class Scene:
    """A service of peers, and what balances among them."""

    def __init__(self, registry: Registry, view: View[Any], peers: list[Peer]) -> None:
        self.registry = registry
        self.view = view
        self.peers = peers

    def asked(self) -> list[int]:
        """How many requests each peer got."""
        return [len(peer.asked) for peer in self.peers]

    def balancer(self, strategy: Any = "round-robin") -> aioregistry.Balancer[Any]:
        """One that sets aside at the first failure."""
        return self.view.balancer(strategy, ejection=Ejection(failures=1, remaining=0))


@contextlib.asynccontextmanager
async def service(zookeeper: ZooKeeperServer, chroot: str, *manners: Manner | None) -> AsyncIterator[Scene]:
    """The service `chat` with a peer of each manner; None: nobody listens. In the order of their ids, a, b, c …"""
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(aioregistry.connect(f"{zookeeper.address}{chroot}"))
        view = await stack.enter_async_context(registry.discover("chat"))
        peers = [await stack.enter_async_context(Peer(manner)) for manner in manners]
        registrations = []
        for id, peer in zip("abcdefgh", peers, strict=False):
            instance = ServiceInstance("chat", id=id, address="127.0.0.1", port=peer.port)
            registrations.append(await stack.enter_async_context(registry.register(instance, wait=False)))
        await view.wait_for(lambda snapshot: len(snapshot) == len(peers), TIMEOUT)
        yield Scene(registry, view, peers)


def views_made(monkeypatch: pytest.MonkeyPatch) -> list[View[Any]]:
    """Every view that a registry makes from now on, the newest last."""
    made, discover = list[View[Any]](), Registry.discover

    def noted(registry: Registry, *args: Any, **options: Any) -> View[Any]:
        made.append(view := discover(registry, *args, **options))
        return view

    monkeypatch.setattr(Registry, "discover", noted)
    return made


def followed(made: list[View[Any]]) -> set[str]:
    """The services whose views are not closed."""
    return {view.name for view in made if not is_closed(view)}
