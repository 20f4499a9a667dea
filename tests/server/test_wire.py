"""The server as its clients meet it: bytes over a socket. Its words are compared with a real one's in
tests/server/differential; here is what no history shows."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from aioregistry.server import ZooKeeperServer
from aioregistry.server import _connection as connection
from tests.server.conftest import Connect
from tests.support import wire
from tests.support.wire import CHANGED, CREATED, DELETED, EPHEMERAL, Operation, Wire

MARSHALLING_ERROR, UNIMPLEMENTED, NO_NODE, NO_WATCHER = -5, -6, -101, -121
PING = struct.pack(">iii", 8, wire.PING_XID, wire.PING)


async def told(watcher: Wire) -> list[tuple[int, str]]:
    await watcher.sync()
    events = [(event.type, event.path) for event in watcher.events]
    watcher.events.clear()
    return events


@pytest.fixture(params=["3.5", "3.8", "3.9"])
async def any_version(request: pytest.FixtureRequest) -> AsyncIterator[ZooKeeperServer]:
    async with ZooKeeperServer(version=request.param) as server:
        yield server


class TestFrames:
    async def test_however_they_are_split(self, server: ZooKeeperServer) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        connect = wire.connect_request(0, bytes(16), timeout_ms=10_000, last_zxid=0, read_only=False)
        for byte in struct.pack(">i", len(connect)) + connect + PING * 2:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        async with asyncio.timeout(wire.TIMEOUT):
            assert len(await reader.readexactly(4 + 37 + 2 * 20)) == 81
        writer.close()

    async def test_many_at_once_are_answered_in_order(self, client: Wire) -> None:
        xids = [client.send(wire.create(f"/{number}")) for number in range(500)]
        xids += [client.send(wire.get_data(f"/{number}")) for number in range(500)]
        replies = [await client.reply(xid) for xid in xids]
        assert [reply.error for reply in replies] == [0] * 1000
        assert [reply.zxid for reply in replies] == sorted(reply.zxid for reply in replies)

    @pytest.mark.parametrize("length", [-1, 0x100000, 2**31 - 1])
    async def test_a_length_out_of_bounds_ends_the_connection(
        self, server: ZooKeeperServer, connect: Connect, length: int
    ) -> None:
        for session in (await connect(server.address), None):
            if session is None:
                reader, writer = await asyncio.open_connection(server.host, server.port)
                writer.write(struct.pack(">i", length))
                async with asyncio.timeout(wire.TIMEOUT):
                    assert await reader.read() == b""
                writer.close()
            else:
                session._writer.write(struct.pack(">i", length))
                await session.closed()

    async def test_the_longest_request_is_an_option(self, connect: Connect) -> None:
        async with ZooKeeperServer(max_buffer=100) as server:
            session = await connect(server.address)
            overhead = 8 + len(wire.create("/a").body)
            await session.create("/a", bytes(100 - overhead))
            session.send(wire.create("/b", bytes(101 - overhead)))
            await session.closed()

    async def test_a_frame_without_a_header_ends_the_connection(self, client: Wire) -> None:
        client.send_frame(b"1234567")
        await client.closed()

    async def test_bytes_behind_a_request_are_not_looked_at(self, client: Wire) -> None:
        assert (await client.ask(Operation(wire.EXISTS, wire.exists("/").body + b"more"))).error == 0

    @pytest.mark.parametrize("opcode", [*range(1, 10), 12, 14, *range(17, 20), 21, 22, 101, 103, 104, 105, 106])
    async def test_a_request_cut_short_is_an_error_and_no_more(self, client: Wire, opcode: int) -> None:
        reply = await client.reply(client.send(Operation(opcode, b"\0\0\0\1")))
        assert reply.error == MARSHALLING_ERROR
        await client.ping()

    async def test_who_does_not_read_is_not_read(self, server: ZooKeeperServer, connect: Connect) -> None:
        client, other = await connect(server.address), await connect(server.address)
        await client.create("/big", bytes(500_000))
        xids = [client.send(wire.get_data("/big")) for _ in range(200)]
        client.send(wire.create("/last"))
        await other.sync()
        assert await other.exists("/last") is None
        for xid in xids:
            await client.reply(xid)
        await client.sync()
        assert await other.exists("/last") is not None


class TestHandshake:
    async def test_a_session_and_its_bounds(self, server: ZooKeeperServer, connect: Connect) -> None:
        timeouts = [(await connect(server.address, timeout_ms=asked)).timeout_ms for asked in (1, 10_000, 10**6)]
        assert timeouts == [4000, 10_000, 40_000]
        assert [session.timeout_ms for session in server.live_sessions()] == timeouts

    async def test_clients_before_3_4_know_of_no_read_only_mode(self, server: ZooKeeperServer) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        request = wire.connect_request(0, bytes(16), timeout_ms=10_000, last_zxid=0, read_only=False)[:-1]
        writer.write(struct.pack(">i", len(request)) + request)
        async with asyncio.timeout(wire.TIMEOUT):
            assert await reader.readexactly(4) == struct.pack(">i", 36)
        writer.close()

    async def test_a_client_ahead_is_left_without_a_word(self, server: ZooKeeperServer, client: Wire) -> None:
        for known in ({}, {"session_id": client.session_id, "password": client.password}):
            with pytest.raises(wire.WireClosed):
                await wire.connect(server.address, last_zxid=server.zxid + 1, **known)  # type: ignore[arg-type]
        await client.ping()

    async def test_a_session_moves_to_its_new_connection(self, server: ZooKeeperServer, client: Wire) -> None:
        async with await wire.connect(server.address, session_id=client.session_id, password=client.password) as moved:
            await client.closed()
            assert moved.session_id == client.session_id
            await moved.create("/mine", flags=EPHEMERAL)

    async def test_a_wrong_password_is_refused_and_ends_the_true_connection(
        self, server: ZooKeeperServer, client: Wire
    ) -> None:
        with pytest.raises(wire.SessionRefused):
            await wire.connect(server.address, session_id=client.session_id, password=b"wrong".ljust(16))
        await client.closed()

    async def test_who_asks_for_no_session_is_not_kept(
        self, server: ZooKeeperServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "SESSIONLESS_TIMEOUT", 0.01)
        reader, writer = await asyncio.open_connection(server.host, server.port)
        async with asyncio.timeout(wire.TIMEOUT):
            assert await reader.read() == b""
        writer.close()
        assert not server.connections

    async def test_malformed(self, server: ZooKeeperServer) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(struct.pack(">i", 10) + bytes(10))
        async with asyncio.timeout(wire.TIMEOUT):
            assert await reader.read() == b""
        writer.close()

    async def test_connections_of_one_client_are_limited(self, connect: Connect) -> None:
        async with ZooKeeperServer(max_connections_per_client=2) as server:
            first, _ = await connect(server.address), await connect(server.address)
            with pytest.raises((wire.WireClosed, ConnectionError)):
                await wire.connect(server.address)
            await first.close()
            await connect(server.address)


class TestSessions:
    async def test_it_ends_by_itself(self, connect: Connect) -> None:
        async with ZooKeeperServer(tick_time=0.05) as server:
            watcher = await connect(server.address, timeout_ms=1000)
            await watcher.add_watch("/")
            silent = await connect(server.address, timeout_ms=100)
            await silent.create("/mine", flags=EPHEMERAL)
            assert [(await watcher.event()).type, (await watcher.event()).type] == [CREATED, DELETED]
            await silent.closed()
            with pytest.raises(wire.SessionRefused):
                await wire.connect(server.address, session_id=silent.session_id, password=silent.password)

    async def test_requests_keep_it(self, connect: Connect) -> None:
        async with ZooKeeperServer(tick_time=0.05) as server:
            client = await connect(server.address, timeout_ms=1000)
            for _ in range(60):
                await asyncio.sleep(0.02)
                await client.ping()
            assert await client.create("/alive") == "/alive"

    async def test_closing_tells_watchers_and_answers(self, client: Wire, other: Wire) -> None:
        await client.create("/mine", flags=EPHEMERAL)
        await client.ask(wire.exists("/mine", watch=True))
        await other.ask(wire.exists("/mine", watch=True))
        await client.close()
        assert [event.type for event in client.events] == [DELETED]
        assert await told(other) == [(DELETED, "/mine")]

    async def test_they_outlive_a_restart(self, server: ZooKeeperServer, client: Wire) -> None:
        await client.create("/mine", flags=EPHEMERAL)
        await server.stop()
        await client.closed()
        await server.start()
        async with await wire.connect(
            server.address, session_id=client.session_id, password=client.password, last_zxid=client.zxid
        ) as again:
            assert (await again.get_data("/mine")).stat.owner == client.session_id


class TestOrder:
    async def test_events_come_before_any_reply_with_a_zxid_as_high(self, client: Wire, other: Wire) -> None:
        await other.add_watch("/")
        xids = []
        for number in range(100):
            client.send(wire.create(f"/{number}"))
            xids.append(other.send(wire.exists("/")))
        await client.sync()
        frames: list[tuple[int, int]] = []
        while len(frames) < 200:
            xid, zxid, _ = struct.unpack_from(">iqi", await other.read_frame())
            frames.append((xid, zxid))
        events = 0
        for xid, zxid in frames:
            events += xid == wire.EVENT_XID
            if xid != wire.EVENT_XID:
                assert zxid <= 2 + events + 1  # two sessions, and a creation for every event

    async def test_failed_writes_use_up_zxids(self, client: Wire) -> None:
        zxids = []
        for _ in range(2):
            reply = await client.reply(client.send(wire.delete("/missing")))
            assert reply.error == NO_NODE
            zxids.append(reply.zxid)
        assert zxids[1] == zxids[0] + 1

    async def test_an_unknown_opcode_ends_the_connection_and_not_the_session(
        self, server: ZooKeeperServer, client: Wire, other: Wire
    ) -> None:
        xid = client.send(Operation(12345, b""))
        client.send(wire.create("/behind"))
        reply = await client.reply(xid)
        assert (reply.error, reply.zxid) == (UNIMPLEMENTED, -1)
        await client.closed()
        assert await other.exists("/behind") is not None  # it was there when the connection was closed
        assert client.session_id in [session.id for session in server.live_sessions()]

    async def test_a_check_alone_that_holds_is_not_answered(self, client: Wire) -> None:
        """As by the real server, which has no Stat to put into the reply."""
        client.send(Operation(13, wire.delete("/", -1).body))
        await client.ping()
        assert (await client.reply(client.send(Operation(13, wire.delete("/no", -1).body)))).error == NO_NODE


class TestVersions:
    async def test_what_came_with_3_6_ends_the_connection_before(
        self, any_version: ZooKeeperServer, connect: Connect
    ) -> None:
        for operation in (
            wire.add_watch("/"),
            wire.multi([wire.get_data("/")], opcode=wire.MULTI_READ),
            Operation(107, b""),
        ):
            client = await connect(any_version.address)
            reply = await client.reply(client.send(operation))
            if any_version.settings.profile.release.startswith("3.5"):
                assert reply.error == UNIMPLEMENTED
                await client.closed()
            else:
                assert reply.error == 0

    @pytest.mark.parametrize(("version", "has_zxid"), [("3.8", False), ("3.9", True)])
    async def test_events_have_zxids_from_3_9(self, connect: Connect, version: str, has_zxid: bool) -> None:
        async with ZooKeeperServer(version=version) as server:
            client = await connect(server.address)
            await client.add_watch("/")
            reply = await client.ask(wire.create("/a"))
            assert (await client.event()).zxid == (reply.zxid if has_zxid else -1)

    @pytest.mark.parametrize(("version", "survives"), [("3.8", False), ("3.9", True)])
    async def test_both_kinds_of_watch_on_one_path_from_3_9(
        self, connect: Connect, version: str, survives: bool
    ) -> None:
        async with ZooKeeperServer(version=version) as server:
            client = await connect(server.address)
            await client.add_watch("/")
            await client.ask(wire.exists("/", watch=True))
            await client.create("/a")
            await client.set_data("/a", b"")
            await client.delete("/a")
            expected = [(CREATED, "/a"), (CHANGED, "/a")] if survives else []
            assert await told(client) == [*expected, (DELETED, "/a")]

    @pytest.mark.parametrize(("version", "error"), [("3.8", MARSHALLING_ERROR), ("3.9", 0)])
    async def test_persistent_watches_are_removed_by_name_from_3_9(
        self, connect: Connect, version: str, error: int
    ) -> None:
        async with ZooKeeperServer(version=version) as server:
            client = await connect(server.address)
            await client.add_watch("/")
            assert (await client.reply(client.send(wire.remove_watches("/", 5)))).error == error

    @pytest.mark.parametrize(
        ("version", "path", "is_done"),
        [("3.5", b"/c", True), ("3.8", b"/c", True), ("3.9.5", b"\0\0\0\2/c", True), ("3.9", b"\0\0\0\2/c", False)],
    )
    async def test_a_client_that_deletes_a_container_loses_its_connection_from_3_9_6(
        self, connect: Connect, version: str, path: bytes, is_done: bool
    ) -> None:
        async with ZooKeeperServer(version=version) as server:
            client, another = await connect(server.address), await connect(server.address)
            await client.ask(wire.create("/c", flags=wire.CONTAINER, opcode=wire.CREATE_CONTAINER))
            xid = client.send(Operation(20, path))
            if is_done:
                assert (await client.reply(xid)).error == 0
            else:
                await client.closed()
            assert (await another.exists("/c") is None) == is_done


class TestContainers:
    async def test_they_are_swept(self, connect: Connect) -> None:
        async with ZooKeeperServer(container_check_interval=0.02) as server:
            client = await connect(server.address)
            await client.ask(wire.create("/c", flags=wire.CONTAINER, opcode=wire.CREATE_CONTAINER))
            await client.add_watch("/c")
            await client.create("/c/a")
            await client.delete("/c/a")
            told = [(event.type, event.path) for event in [await client.event() for _ in range(3)]]
            assert told == [(CREATED, "/c/a"), (DELETED, "/c/a"), (DELETED, "/c")]

    async def test_time_is_the_given_clocks(self, connect: Connect) -> None:
        now = 1000.0
        async with ZooKeeperServer(clock=lambda: now) as server:
            client = await connect(server.address)
            await client.ask(wire.create("/t", flags=wire.TTL, opcode=wire.CREATE_TTL, ttl_ms=500))
            assert (await client.get_data("/t")).stat.ctime == 1_000_000
            server.sweep_containers()
            assert await client.exists("/t") is not None
            now = 1000.501
            server.sweep_containers()
            assert await client.exists("/t") is None
