"""HTTP/2 by httpx and httpx2: one connection carries many requests, and never another name than it proved."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import httpx
import httpx2
import pytest

from aioregistry import Ejection, ServiceInstance
from aioregistry.integrations.httpx import RegistryTransport as Transport1
from aioregistry.integrations.httpx2 import RegistryTransport as Transport2
from tests.frameworks.peers import Scene, service
from tests.support.tls import serving, trusting
from tests.support.zookeeper import ZooKeeperServer

PACKAGES: dict[ModuleType, Any] = {httpx: Transport1, httpx2: Transport2}
PROVED = {"sni_hostname": "localhost"}
"""The extension by which the certificate of the tests is the one that is asked for: it is for localhost only."""
DEADLINE = 100.0


@pytest.fixture(params=PACKAGES, ids=lambda http: http.__name__)
def http(request: pytest.FixtureRequest) -> ModuleType:
    package: ModuleType = request.param
    return package


class Peer:
    """A server that speaks HTTP/2 over TLS, with a certificate for localhost, and answers all with 200.

    Attributes:
        asked: the authorities of all requests.
        connections: that were opened and spoke HTTP/2.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.port = 0
        self._server: asyncio.Server
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        context = serving()
        context.set_alpn_protocols(["h2"])
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.hang_up()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    def hang_up(self) -> None:
        """Close all connections without a word."""
        for writer in self.connections:
            if not writer.is_closing():  # some Pythons raise at what was closed twice
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with contextlib.suppress(ConnectionError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            self._serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        self.connections.append(writer)
        while data := await reader.read(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    headers = {bytes(name): bytes(value) for name, value in event.headers or ()}
                    self.asked.append(headers[b":authority"].decode())
                elif isinstance(event, h2.events.StreamEnded):
                    assert event.stream_id is not None
                    connection.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            writer.write(connection.data_to_send())


@contextlib.asynccontextmanager
async def two_names_of_one_peer(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[tuple[Scene, Peer]]:
    async with service(zookeeper, chroot) as chat, Peer() as peer, contextlib.AsyncExitStack() as stack:
        for name in ("chat", "pay"):
            instance = ServiceInstance(name, address="127.0.0.1", ssl_port=peer.port)
            _ = await stack.enter_async_context(chat.registry.register(instance))
        await chat.view.wait_for(lambda snapshot: len(snapshot) == 1, DEADLINE)
        yield chat, peer


def client_of(http: ModuleType, registry: Any, **options: Any) -> Any:
    sends = http.AsyncHTTPTransport(verify=trusting(), http1=False, http2=True, trust_env=False)
    return http.AsyncClient(transport=PACKAGES[http](registry, transport=sends, **options), timeout=DEADLINE)


async def test_a_connection_is_not_shared_by_names(zookeeper: ZooKeeperServer, chroot: str, http: ModuleType) -> None:
    """RFC 9113, section 9.1.1: a connection serves another name only if its certificate is good for that too."""
    async with two_names_of_one_peer(zookeeper, chroot) as (chat, peer):
        async with client_of(http, chat.registry, pass_others=True, ejection=None) as client:
            answer = await client.get("https://chat.registry/", extensions=PROVED)
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
            for url in ("https://pay.registry/", "https://chat.registry/", f"https://127.0.0.1:{peer.port}/"):
                with pytest.raises(http.ConnectError):
                    await client.get(url)
            other = await client.get("https://pay.registry/", extensions={"sni_hostname": "localhost"})
            assert other.status_code == 200  # proved as what was asked for
        assert peer.asked == ["chat.registry", "pay.registry"]
        assert len(peer.connections) == 1


async def test_requests_at_once_share_a_connection_of_their_name_only(
    zookeeper: ZooKeeperServer, chroot: str, http: ModuleType
) -> None:
    async with two_names_of_one_peer(zookeeper, chroot) as (chat, peer):
        async with client_of(http, chat.registry, ejection=None) as client:
            await client.get("https://chat.registry/", extensions=PROVED)
            good = [client.get("https://chat.registry/", extensions=PROVED) for _ in range(20)]
            bad = [client.get("https://pay.registry/") for _ in range(5)]
            answers = await asyncio.gather(*good, *bad, return_exceptions=True)
        assert [type(each) for each in answers[20:]] == [http.ConnectError] * 5
        assert {getattr(each, "status_code", each) for each in answers[:20]} == {200}
        assert peer.asked == ["chat.registry"] * 21
        assert len(peer.connections) == 1


async def test_a_connection_that_was_closed_while_it_was_idle_blames_nobody(
    zookeeper: ZooKeeperServer, chroot: str, http: ModuleType
) -> None:
    async with two_names_of_one_peer(zookeeper, chroot) as (chat, peer):
        balancer = chat.view.balancer(ejection=Ejection(failures=1, remaining=0))
        async with client_of(http, None, services={"chat": balancer}) as client:
            for _ in range(3):
                answer = await client.get("https://chat.registry/", extensions=PROVED)
                assert answer.status_code == 200
                peer.hang_up()
        assert balancer.set_aside == {}
        assert len(peer.asked) == 3
