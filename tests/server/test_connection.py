from __future__ import annotations

import asyncio
import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from aioregistry.server import ZooKeeperServer
from aioregistry.server import _connection as connection
from aioregistry.server._connection import Connection
from tests.server.test_controls import Memory
from tests.support import wire
from tests.support.wire import Operation

OPERATIONS = [
    wire.create("/a", b"data"),
    wire.add_watch("/"),
    wire.set_data("/a", bytes(300)),
    wire.multi([wire.create("/a/b"), wire.delete("/missing")]),
    wire.get_data("/a"),
    Operation(wire.SYNC, b"\0"),
    Operation(12345, b""),
    wire.create("/last"),
]


def framed(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


CONVERSATION = framed(wire.connect_request(0, bytes(16), timeout_ms=10_000, last_zxid=0, read_only=False)) + b"".join(
    framed(struct.pack(">ii", xid, operation.opcode) + operation.body) for xid, operation in enumerate(OPERATIONS, 1)
)


async def started() -> ZooKeeperServer:
    server = ZooKeeperServer(clock=lambda: 1000.0)
    await server.start(listen=False)
    return server


def connected(server: ZooKeeperServer) -> tuple[Connection, Memory]:
    protocol, transport = server.protocol_factory(), Memory()
    protocol.connection_made(transport)
    return protocol, transport


async def said(pieces: list[bytes]) -> tuple[bytes, bool]:
    """The server's answers to bytes that arrive in these pieces, and whether it closed then."""
    server = await started()
    protocol, transport = connected(server)
    for piece in pieces:
        protocol.data_received(piece)
    closed = transport.ended
    await server.stop()
    return transport.written, closed


@given(st.lists(st.integers(1, len(CONVERSATION) - 1), unique=True).map(sorted))
def test_however_it_is_split_the_answers_are_the_same(cuts: list[int]) -> None:
    # Requests that have arrived with the unknown one are taken, later ones are not: the last create is left out.
    whole = CONVERSATION[: -len(framed(struct.pack(">ii", 0, 0) + OPERATIONS[-1].body))]
    edges = [0, *(cut for cut in cuts if cut < len(whole)), len(whole)]
    pieces = [whole[begin:end] for begin, end in itertools.pairwise(edges)]
    assert asyncio.run(said(pieces)) == asyncio.run(said([whole]))


async def test_the_whole_conversation() -> None:
    answers, closed = await said([CONVERSATION])
    xids, at = [], 4 + 37
    while at < len(answers):
        (length, xid) = struct.unpack_from(">ii", answers, at)
        xids.append(xid)
        at += 4 + length
    assert xids == [1, 2, -1, 3, 4, 5, 6, 7, -1, 8]
    assert closed


async def test_connections_leave_nothing_behind() -> None:
    server = await started()
    for _ in range(100):
        protocol, _ = connected(server)
        protocol.data_received(CONVERSATION)
    assert not server.connections
    assert server.replica.watches.count == 0
    for session in server.live_sessions():
        server.expire(session.id)
    await server.stop()


async def test_a_client_that_reads_slowly_waits_for_itself() -> None:
    server = await started()
    protocol, transport = connected(server)
    other, _ = connected(server)
    request = framed(wire.connect_request(0, bytes(16), timeout_ms=10_000, last_zxid=0, read_only=False))
    for each in (protocol, other):
        each.data_received(request)
    read = framed(struct.pack(">ii", 1, wire.GET_DATA) + wire.get_data("/").body)
    protocol.pause_writing()
    assert transport.paused
    before = len(transport.written)
    protocol.data_received(read * 3)
    assert len(transport.written) == before
    other.data_received(framed(struct.pack(">ii", 1, wire.CREATE) + wire.create("/a").body))
    protocol.resume_writing()
    assert not transport.paused
    assert len(transport.written) == before + 3 * (4 + 16 + 4 + 68)
    await server.stop()


async def test_a_backlog_is_bounded() -> None:
    server = await started()
    protocol, transport = connected(server)
    protocol.data_received(framed(wire.connect_request(0, bytes(16), timeout_ms=10_000, last_zxid=0, read_only=False)))
    server.delay(wire.CREATE, 60)
    create = framed(struct.pack(">ii", 1, wire.CREATE) + wire.create("/a").body)
    while not transport.paused:
        protocol.data_received(create * 100)
    assert len(protocol._buffer) < 2 * connection.BACKLOG_LIMIT
    await server.stop()
