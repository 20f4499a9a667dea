from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from aioregistry.server import ZooKeeperServer
from tests.server.test_controls import Memory
from tests.support import tls, wire
from tests.support.wire import Operation, Wire

SET_ACL, WHO_AM_I = 7, 107
INVALID_ACL = -114


class Tls:
    """The TLS end of a client with a certificate."""

    def getpeercert(self) -> dict[str, Any]:
        names = ("countryName", "UK"), ("organizationName", "Engines, analytical"), ("commonName", "ada")
        return {"subject": tuple((name,) for name in names)}


async def connect(server: ZooKeeperServer) -> Wire:
    reader, writer = await asyncio.open_connection(
        server.host, server.port, ssl=tls.trusting(), server_hostname="localhost"
    )
    client = Wire(reader, writer)
    client.send_frame(wire.connect_request(0, bytes(16), timeout_ms=10_000, last_zxid=0, read_only=False))
    async with asyncio.timeout(wire.TIMEOUT):
        await client.read_frame()
    return client


async def identities(client: Wire) -> dict[str, str]:
    body = (await client.ask(Operation(WHO_AM_I, b""))).body
    return {body.string(): body.string() for _ in range(body.number())}


def set_acl(path: str, scheme: str, identity: str) -> Operation:
    texts = [text.encode() for text in (path, scheme, identity)]
    path_bytes, *rule = [struct.pack(">i", len(text)) + text for text in texts]
    return Operation(SET_ACL, path_bytes + struct.pack(">ii", 1, 31) + b"".join(rule) + struct.pack(">i", -1))


async def test_all_is_the_same_by_tls() -> None:
    async with ZooKeeperServer(ssl=tls.serving()) as server:
        client = await connect(server)
        assert await identities(client) == {"ip": "127.0.0.1"}
        await client.create("/big", bytes(500_000))
        assert len((await client.get_data("/big")).data) == 500_000
        await client.ask(set_acl("/big", "x509", "CN=somebody"))
        with pytest.raises(wire.WireError):
            await client.get_data("/big")
        await client.close()


async def test_a_certificates_subject_is_an_identity() -> None:
    server = ZooKeeperServer()
    await server.start(listen=False)
    transport, connection = Memory(), server.protocol_factory()
    transport._extra["ssl_object"] = Tls()  # type: ignore[attr-defined]
    connection.connection_made(transport)
    assert [tuple(identity) for identity in connection.identities] == [
        ("ip", "10.0.0.1"), ("x509", "CN=ada,O=Engines\\, analytical,C=UK"),
    ]  # fmt: skip
    await server.stop()


async def test_without_tls_there_are_no_such_acls(client: Wire) -> None:
    reply = await client.reply(client.send(set_acl("/", "x509", "CN=somebody")))
    assert reply.error == INVALID_ACL


async def test_who_does_not_speak_tls_is_dropped() -> None:
    async with ZooKeeperServer(ssl=tls.serving()) as server:
        with pytest.raises((wire.WireClosed, ConnectionError)):
            await wire.connect(server.address)
