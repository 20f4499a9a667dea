"""TLS for tests: a certificate for the name localhost, and a relay that ends TLS before a server that speaks none.

``certificates/`` holds an authority of the tests' own and what it signed for localhost, key included: good until 2126,
trusted by nobody else, and for no other name or address.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Self, cast

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
KEY_AND_CERTIFICATE = CERTIFICATES / "localhost.pem"
CONNECT_TIMEOUT = 50.0


def trusting() -> ssl.SSLContext:
    """The context of a client that trusts the tests' authority, and checks certificates and names as usual."""
    return ssl.create_default_context(cafile=AUTHORITY)


def serving() -> ssl.SSLContext:
    """The context of a server that shows the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(KEY_AND_CERTIFICATE)
    return context


class TlsRelay:
    """Takes TLS connections on loopback and hands their bytes to *target*, as a load balancer does; open inside
    ``async with``."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.connecting: dict[asyncio.Task[None], None] = {}
        self.sides: dict[_Side, None] = {}
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Outer(self), "127.0.0.1", 0, ssl=serving())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self.connecting:
            task.cancel()
        for side in self.sides:
            side.transport.abort()
        while self.sides or self.connecting:
            await asyncio.sleep(0)  # a transport is closed in the turn after it was told to


class _Side(asyncio.Protocol):
    """One of the two connections; what it reads is written to the other."""

    def __init__(self, relay: TlsRelay, other: _Side | None = None) -> None:
        self.relay, self.other = relay, other
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.relay.sides[self] = None

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del self.relay.sides[self]
        if self.other in self.relay.sides:
            self.other.transport.close()


class _Outer(_Side):
    """The client's, which waits until there is an inner one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._connect())
        self.relay.connecting[task] = None
        task.add_done_callback(self.relay.connecting.pop)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, self.other = await loop.create_connection(lambda: _Side(self.relay, self), *self.relay.target)
        except OSError:  # TimeoutError is one
            self.transport.abort()
            return
        if self in self.relay.sides:
            self.transport.resume_reading()
        else:  # lost meanwhile
            self.other.transport.close()
