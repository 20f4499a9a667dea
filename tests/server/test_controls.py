from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from aioregistry._errors import InvalidArgument, UsageError
from aioregistry.server import ZooKeeperServer
from tests.server.conftest import Connect
from tests.support import wire
from tests.support.reasons import by_code
from tests.support.wire import CREATED, DELETED, EPHEMERAL, Wire

CONNECTION_LOSS = -4
THROTTLED = -127


class TestRestarting:
    async def test_the_port_stays(self, server: ZooKeeperServer, client: Wire, connect: Connect) -> None:
        address = server.address
        await server.stop()
        await client.closed()
        with pytest.raises(ConnectionRefusedError):
            await wire.connect(address)
        with socket.socket() as somebody, pytest.raises(OSError, check=by_code(errno.EADDRINUSE)):
            somebody.bind((server.host, server.port))
        await server.start()
        assert server.address == address
        await connect(address)

    async def test_with_data_kept(self, server: ZooKeeperServer, client: Wire, connect: Connect) -> None:
        await client.create("/a")
        zxid = server.zxid
        await server.stop()
        await server.start()
        again = await connect(server.address, last_zxid=zxid)
        assert (await again.exists("/a")) is not None
        assert server.zxid == zxid + 1  # the session's

    async def test_with_data_lost(self, server: ZooKeeperServer, client: Wire, connect: Connect) -> None:
        await client.create("/a")
        await server.stop()
        await server.start("lost")
        assert await (await connect(server.address)).exists("/a") is None
        with pytest.raises(wire.SessionRefused):
            await wire.connect(server.address, session_id=client.session_id, password=client.password)

    async def test_with_older_data(self, server: ZooKeeperServer, client: Wire, connect: Connect) -> None:
        await client.create("/a", b"old")
        backup = server.backup()
        await client.set_data("/a", b"new")
        await client.create("/b")
        for _ in range(2):  # a backup is as it was, whatever was done with it
            await server.stop()
            await server.start(backup)
            again = await connect(server.address)
            assert (await again.get_data("/a")).data == b"old"
            assert await again.exists("/b") is None
            await again.create("/b")

    async def test_sessions_have_their_whole_timeout_again(self, connect: Connect) -> None:
        async with ZooKeeperServer(tick_time=0.1) as server:
            client = await connect(server.address, timeout_ms=200)
            await client.create("/mine", flags=EPHEMERAL)
            await server.stop()
            await asyncio.sleep(0.5)  # longer than the session may be silent
            await server.start()
            again = await connect(server.address, session_id=client.session_id, password=client.password)
            assert await again.exists("/mine") is not None

    async def test_twice_is_once_too_often(self, server: ZooKeeperServer) -> None:
        with pytest.raises(UsageError):
            await server.start()
        await server.stop()
        await server.stop()
        with pytest.raises(UsageError):
            server.expire(1)

    async def test_a_port_that_is_taken(self, server: ZooKeeperServer) -> None:
        second = ZooKeeperServer(port=server.port)
        with pytest.raises(OSError, match=f"{server.address} cannot be listened on: .* already in use"):
            await second.start()
        assert not second.serving


class TestSessions:
    async def test_expiring_one(self, server: ZooKeeperServer, client: Wire, other: Wire) -> None:
        await other.add_watch("/")
        await client.create("/mine", flags=EPHEMERAL)
        server.expire(client.session_id)
        server.expire(client.session_id)  # it is over
        assert [(await other.event()).type, (await other.event()).type] == [CREATED, DELETED]
        await client.closed()
        with pytest.raises(wire.SessionRefused):
            await wire.connect(server.address, session_id=client.session_id, password=client.password)


class TestConnections:
    async def test_dropping_that_of_a_session(self, server: ZooKeeperServer, client: Wire, other: Wire) -> None:
        server.drop(client.session_id)
        await client.closed()
        await other.ping()
        async with await wire.connect(server.address, session_id=client.session_id, password=client.password):
            pass

    async def test_dropping_all(self, server: ZooKeeperServer, client: Wire, other: Wire) -> None:
        server.drop()
        await client.closed()
        await other.closed()

    async def test_refusing_new_ones(self, server: ZooKeeperServer, client: Wire, connect: Connect) -> None:
        server.refuse_connections()
        with pytest.raises((wire.WireClosed, ConnectionError)):
            await wire.connect(server.address)
        await client.ping()
        server.refuse_connections(False)
        await connect(server.address)

    async def test_a_frozen_one_stands_still_and_goes_on(
        self, server: ZooKeeperServer, client: Wire, other: Wire
    ) -> None:
        await client.add_watch("/")
        server.freeze(client.session_id)
        xid = client.send(wire.create("/late"))
        await other.create("/meanwhile")
        await other.sync()
        assert await other.exists("/late") is None
        server.thaw()
        assert (await client.reply(xid)).error == 0
        assert [event.path for event in client.events] == ["/meanwhile", "/late"]

    async def test_what_ended_while_frozen_is_known_when_it_thaws(
        self, server: ZooKeeperServer, client: Wire, other: Wire
    ) -> None:
        server.freeze(client.session_id)
        server.expire(client.session_id)
        xid = client.send(wire.create("/never"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.closed()
        server.thaw()
        with pytest.raises(wire.WireClosed):
            await client.reply(xid)
        assert await other.exists("/never") is None
        assert len(server.connections) == 1

    async def test_a_frozen_session_expires(self, connect: Connect) -> None:
        async with ZooKeeperServer(tick_time=0.05) as server:
            client = await connect(server.address, timeout_ms=100)
            watcher = await connect(server.address, timeout_ms=1000)
            await client.create("/mine", flags=EPHEMERAL)
            await watcher.ask(wire.exists("/mine", watch=True))
            server.freeze(client.session_id)
            assert (await watcher.event()).type == DELETED


class TestRequests:
    async def test_failing_the_next(self, server: ZooKeeperServer, client: Wire) -> None:
        server.fail(wire.CREATE, CONNECTION_LOSS)
        server.fail(wire.CREATE, -101)
        codes = [(await client.reply(client.send(wire.create("/a")))).error for _ in range(3)]
        assert codes == [CONNECTION_LOSS, -101, 0]

    @pytest.mark.parametrize("operation", [wire.create("/a"), wire.get_data("/"), wire.sync("/"), wire.multi([])])
    async def test_delaying_the_next_and_those_behind_it(
        self, server: ZooKeeperServer, client: Wire, operation: wire.Operation
    ) -> None:
        server.delay(operation.opcode, 0.05)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        delayed, behind = client.send(operation), client.send(wire.exists("/"))
        assert (await client.reply(behind)).error == 0
        assert loop.time() - begun > 0.045
        assert (await client.reply(delayed)).error == 0

    async def test_a_delay_holds_up_no_other_client(self, server: ZooKeeperServer, client: Wire, other: Wire) -> None:
        server.delay(wire.CREATE, 3600)
        client.send(wire.create("/a"))
        await other.ping()  # the server read the create no later than this
        await other.create("/b")
        assert await other.exists("/a") is None

    async def test_who_waits_for_a_delayed_answer_is_heard_of(self, connect: Connect) -> None:
        async with ZooKeeperServer(tick_time=0.05) as server:
            client = await connect(server.address, timeout_ms=150)
            server.delay(wire.CREATE, 0.5)
            xid = client.send(wire.create("/a"))
            pings = 0
            created = asyncio.create_task(client.reply(xid))
            while not created.done():
                client.send(wire.Operation(wire.PING, b""), xid=wire.PING_XID)
                pings += 1
                await asyncio.sleep(0.01)
            assert (await created).error == 0
            assert pings > 10

    async def test_delaying_what_it_does_not_know(self, server: ZooKeeperServer, client: Wire) -> None:
        server.delay(12345, 0.01)
        assert (await client.reply(client.send(wire.Operation(12345, b"")))).error == -6
        await client.closed()

    @pytest.mark.parametrize(
        ("operation", "applied"),
        [(wire.create("/a"), True), (wire.multi([wire.create("/a")]), True), (wire.get_data("/"), False)],
    )
    async def test_losing_the_reply(
        self, server: ZooKeeperServer, client: Wire, other: Wire, operation: wire.Operation, applied: bool
    ) -> None:
        server.lose_reply(operation.opcode)
        xid = client.send(operation)
        with pytest.raises(wire.WireClosed):
            await client.reply(xid)
        assert (await other.exists("/a") is not None) == applied

    async def test_losing_the_answer_to_the_end_of_a_session(
        self, server: ZooKeeperServer, client: Wire, other: Wire
    ) -> None:
        await client.create("/mine", flags=EPHEMERAL)
        server.lose_reply(wire.CLOSE_SESSION)
        with pytest.raises(wire.WireClosed):
            await client.close()
        assert await other.exists("/mine") is None


@pytest.mark.parametrize(
    "options",
    [
        {"version": "3.4"},
        {"tick_time": 0},
        {"container_check_interval": -1},
        {"max_buffer": 0},
        {"server_id": 255},
        {"min_session_timeout": 50},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        ZooKeeperServer(**options)


# ---------------------------------------------------------------- without sockets


class Memory(asyncio.Transport):
    """A transport of a simulation: what is written is kept."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.1", 1)})
        self.written = b""
        self.ended = False
        self.paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.ended = True

    abort = close


async def test_connections_of_a_simulation() -> None:
    server = ZooKeeperServer()
    await server.start(listen=False)
    protocol, transport = server.protocol_factory(), Memory()
    protocol.connection_made(transport)
    request = wire.connect_request(0, bytes(16), timeout_ms=10_000, last_zxid=0, read_only=False)
    protocol.data_received(len(request).to_bytes(4) + request)
    assert len(transport.written) == 4 + 37
    await server.stop()
    assert transport.ended
    late = Memory()
    server.protocol_factory().connection_made(late)
    assert late.ended


def test_it_shows_what_it_is() -> None:
    assert repr(ZooKeeperServer(port=2181)) == "<ZooKeeperServer 127.0.0.1:2181 down>"
    assert ZooKeeperServer("::1", 2181).address == "[::1]:2181"


class TestOtherServersWays:
    async def test_an_offered_session_is_replaced_and_lives_on(
        self, server: ZooKeeperServer, client: Wire, connect: Connect
    ) -> None:
        await client.create("/a", flags=EPHEMERAL)
        server.replace_sessions()
        fresh = await connect(server.address, session_id=client.session_id, password=client.password)
        assert fresh.session_id not in (0, client.session_id)
        assert await fresh.exists("/a") is not None
        server.replace_sessions(False)
        again = await connect(server.address, session_id=client.session_id, password=client.password)
        assert again.session_id == client.session_id

    async def test_everything_but_heartbeats_and_goodbyes_is_throttled(
        self, server: ZooKeeperServer, client: Wire, other: Wire
    ) -> None:
        server.throttle()
        for operation in (wire.create("/a"), wire.get_data("/"), wire.sync("/"), wire.multi([])):
            assert (await client.reply(client.send(operation))).error == THROTTLED
        await client.ping()
        await other.close()
        server.throttle(False)
        assert await client.exists("/a") is None  # it was not applied
        assert [session.id for session in server.live_sessions()] == [client.session_id]

    @pytest.mark.parametrize("seconds", [0.001, 86400.0, (2**31 - 1) / 1000])
    async def test_an_absurd_timeout_is_told_and_not_meant(
        self, server: ZooKeeperServer, client: Wire, connect: Connect, seconds: float
    ) -> None:
        server.grant(seconds)
        told = await connect(server.address)
        assert told.timeout_ms == round(seconds * 1000)
        assert {session.timeout_ms for session in server.live_sessions()} == {client.timeout_ms}
        server.grant(None)
        assert (await connect(server.address)).timeout_ms == client.timeout_ms

    @pytest.mark.parametrize("seconds", [0.0, -1.0, 0.0001, 2**31 / 1000])
    async def test_a_timeout_that_no_server_can_tell(self, server: ZooKeeperServer, seconds: float) -> None:
        with pytest.raises(InvalidArgument, check=lambda error: error.field == "seconds"):
            server.grant(seconds)

    async def test_the_longest_request_may_change(self, server: ZooKeeperServer, client: Wire) -> None:
        await client.create("/a", bytes(9000))
        server.max_buffer = 8192
        client.send(wire.create("/b", bytes(9000)))
        await client.closed()
