"""The network that the other tests stand on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from aioregistry.testing._proxy import Direction, TcpProxy, ZooKeeperProxy
from tests.support import wire
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE
from tests.support.zookeeper import ZooKeeperServer

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Peer:
    """A server that keeps its connections for the test to use."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[Stream] = asyncio.Queue()
        self._streams: list[Stream] = []

    async def accept(self) -> Stream:
        async with asyncio.timeout(DEADLINE):
            stream = await self.accepted.get()
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        for _, writer in self._streams:
            writer.transport.abort()


@pytest.fixture
async def peer() -> AsyncIterator[tuple[Peer, int]]:
    peer = Peer()
    server = await asyncio.start_server(lambda *stream: peer.accepted.put_nowait(stream), "127.0.0.1", 0)
    yield peer, server.sockets[0].getsockname()[1]
    peer.close()
    server.close()


@pytest.fixture
def tcp(peer: tuple[Peer, int]) -> Iterator[TcpProxy]:
    with TcpProxy(("127.0.0.1", peer[1])) as proxy:
        yield proxy


class Pair:
    """Both ends of one connection through the proxy."""

    def __init__(self, client: Stream, server: Stream) -> None:
        self.client_reader, self.client_writer = client
        self.server_reader, self.server_writer = server


@contextlib.asynccontextmanager
async def connected(tcp: TcpProxy, peer: Peer) -> AsyncIterator[Pair]:
    client = await asyncio.open_connection(tcp.host, tcp.port)
    try:
        yield Pair(client, await peer.accept())
    finally:
        client[1].transport.abort()


async def read(reader: asyncio.StreamReader, size: int) -> bytes:
    async with asyncio.timeout(DEADLINE):
        return await reader.readexactly(size)


async def nothing_comes(reader: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read(1)


class TestTcpProxy:
    async def test_forwards_both_ways_and_counts(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        async with connected(tcp, peer[0]) as pair:
            pair.client_writer.write(b"question")
            assert await read(pair.server_reader, 8) == b"question"
            pair.server_writer.write(b"answer")
            assert await read(pair.client_reader, 6) == b"answer"
            assert (tcp.connections, tcp.open_connections, tcp.bytes_to_server, tcp.bytes_to_client) == (1, 1, 8, 6)

    async def test_forwards_the_end_of_one_direction(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        async with connected(tcp, peer[0]) as pair:
            pair.client_writer.write_eof()
            assert await pair.server_reader.read() == b""
            pair.server_writer.write(b"last words")
            pair.server_writer.close()
            assert await pair.client_reader.read() == b"last words"

    async def test_forwards_more_than_buffers_hold(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        data = bytes(range(256)) * 100_000
        async with connected(tcp, peer[0]) as pair:
            pair.client_writer.write(data)
            assert await read(pair.server_reader, len(data)) == data

    @pytest.mark.parametrize("reset", [True, False])
    async def test_cuts_both_ends(self, tcp: TcpProxy, peer: tuple[Peer, int], *, reset: bool) -> None:
        async with connected(tcp, peer[0]) as pair:
            tcp.cut(reset=reset)
            for reader in (pair.client_reader, pair.server_reader):
                with pytest.raises(ConnectionResetError) if reset else contextlib.nullcontext():
                    async with asyncio.timeout(DEADLINE):
                        assert await reader.read() == b""
            assert tcp.open_connections == 0
        async with connected(tcp, peer[0]):
            assert tcp.connections == 2

    async def test_refuses_and_accepts_again_on_the_same_port(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        async with connected(tcp, peer[0]) as pair:
            tcp.refuse()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(tcp.host, tcp.port)
            pair.client_writer.write(b"still there")
            assert await read(pair.server_reader, 11) == b"still there"
            tcp.accept()
            async with connected(tcp, peer[0]):
                assert tcp.open_connections == 2

    async def test_passes_on_that_the_server_refuses(self, tcp: TcpProxy) -> None:
        async def connect_and_read() -> None:
            reader, writer = await asyncio.open_connection(tcp.host, tcp.port)
            try:
                await reader.read()
            finally:
                writer.transport.abort()

        tcp.target = ("127.0.0.1", 1)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(connect_and_read(), 5)

    @pytest.mark.parametrize("silent", [Direction.TO_SERVER, Direction.TO_CLIENT, Direction.BOTH])
    async def test_holds_in_silence_and_delivers_late(
        self, tcp: TcpProxy, peer: tuple[Peer, int], silent: Direction
    ) -> None:
        async with connected(tcp, peer[0]) as pair:
            tcp.silence(silent)
            pair.client_writer.write(b"question")
            pair.server_writer.write(b"answer")
            for direction, reader, sent in [
                (Direction.TO_SERVER, pair.server_reader, b"question"),
                (Direction.TO_CLIENT, pair.client_reader, b"answer"),
            ]:
                if direction in silent:
                    await nothing_comes(reader)
                    tcp.heal(direction)
                assert await read(reader, len(sent)) == sent

    async def test_silence_hides_the_end_of_a_connection(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        async with connected(tcp, peer[0]) as pair:
            tcp.silence()
            pair.client_writer.transport.abort()
            await nothing_comes(pair.server_reader)
            tcp.heal()
            async with asyncio.timeout(DEADLINE):
                assert await pair.server_reader.read() == b""

    async def test_silence_loses_what_is_cut(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        async with connected(tcp, peer[0]) as pair:
            tcp.silence()
            pair.client_writer.write(b"lost")
            await pair.client_writer.drain()
            tcp.cut(reset=False)
            tcp.heal()
            async with asyncio.timeout(DEADLINE):
                assert await pair.server_reader.read() == b""

    async def test_connections_made_in_silence_are_silent(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        tcp.silence()
        async with connected(tcp, peer[0]) as pair:
            pair.client_writer.write(b"question")
            await nothing_comes(pair.server_reader)
            tcp.heal()
            assert await read(pair.server_reader, 8) == b"question"

    async def test_delays_without_narrowing(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        async with connected(tcp, peer[0]) as pair:
            tcp.delay(0.3, Direction.TO_SERVER)
            start = time.monotonic()
            for number in range(10):
                pair.client_writer.write(bytes([number]))
                await asyncio.sleep(0.02)
            assert await read(pair.server_reader, 10) == bytes(range(10))
            # The last was sent after 0.18 s at the earliest; one after another they would have taken 3 s.
            assert 0.48 <= time.monotonic() - start < 2
            tcp.delay(0.0)
            pair.client_writer.write(b"at once")
            assert await read(pair.server_reader, 7) == b"at once"

    async def test_runs_while_the_loop_of_the_test_is_blocked(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        async with connected(tcp, peer[0]) as pair:
            pair.client_writer.write(b"question")
            deadline = time.monotonic() + 5
            while tcp.bytes_to_server < 8 and time.monotonic() < deadline:
                time.sleep(0.001)
            assert tcp.bytes_to_server == 8

    async def test_restore_makes_it_honest(self, tcp: TcpProxy, peer: tuple[Peer, int]) -> None:
        tcp.silence()
        tcp.delay(60.0)
        tcp.refuse()
        tcp.restore()
        async with connected(tcp, peer[0]) as pair:
            pair.client_writer.write(b"question")
            assert await read(pair.server_reader, 8) == b"question"


class TestZooKeeperProxy:
    async def test_counts_requests(self, proxy: ZooKeeperProxy) -> None:
        async with await wire.connect(proxy.address) as session:
            await session.exists("/")
            await session.exists("/")
            await session.ping()
        assert proxy.requests == {wire.EXISTS: 2, wire.PING: 1, wire.CLOSE_SESSION: 1}

    async def test_passes_four_letter_words(self, proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer) -> None:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(b"ruok")
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == b"imok"
        writer.close()

    async def test_loses_the_reply_to_what_the_server_applied(
        self, proxy: ZooKeeperProxy, judge: Judge, chroot: str
    ) -> None:
        lost = proxy.lose_next_reply(wire.CREATE)
        session = await wire.connect(proxy.address)
        read_before = session.send(wire.exists(chroot))
        created = session.send(wire.create(f"{chroot}/node", flags=wire.EPHEMERAL))
        assert (await session.reply(read_before)).error == 0
        with pytest.raises(wire.WireClosed):
            await session.reply(created)
        await lost.wait()
        assert await judge.owner(f"{chroot}/node") == session.session_id
        session.abandon()

        async with await wire.connect(proxy.address, session_id=session.session_id, password=session.password) as again:
            await again.create(f"{chroot}/other")  # once only

    async def test_loses_the_reply_to_a_multi(self, proxy: ZooKeeperProxy, judge: Judge, chroot: str) -> None:
        lost = proxy.lose_next_reply(wire.MULTI)
        session = await wire.connect(proxy.address)
        with pytest.raises(wire.WireClosed):
            await session.multi(wire.create(f"{chroot}/a"), wire.create(f"{chroot}/b"))
        assert lost.happened
        assert await judge.children(chroot) == ["a", "b"]
        session.abandon()

    async def test_moment_can_be_waited_for_again(self, proxy: ZooKeeperProxy) -> None:
        lost = proxy.lose_next_reply(wire.EXISTS)
        with pytest.raises(TimeoutError):
            await lost.wait(timeout=0.01)
        session = await wire.connect(proxy.address)
        session.send(wire.exists("/"))
        await lost.wait()
        await session.closed()
