"""One connection on a network in memory: order, bounds, and what is known when it ends."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from aioregistry._bounds import MOST_EPOCHS
from aioregistry._errors import (
    ConnectionLost,
    NoNode,
    ProtocolError,
    RegistryError,
    RequestTooLarge,
    SessionFailed,
    Throttled,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._protocol import (
    Auth,
    Connect,
    ConnectReply,
    Create,
    Delete,
    EventKind,
    Exists,
    GetData,
    Reply,
    Sync,
    WatchedEvent,
)
from aioregistry._runtime import Endpoint
from aioregistry._session.connection import Connection
from tests.session.simulation import LATENCY, Pipe, World, connect_pipes, simulated

ENDPOINT = Endpoint("zk", 2181, "10.0.0.1")
MAX_REQUEST = 1000


def framed(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


def reply(xid: int, zxid: int = 5, error: int = 0, body: bytes = b"") -> bytes:
    return framed(struct.pack(">iqi", xid, zxid, error) + body)


def text(value: str) -> bytes:
    return struct.pack(">i", len(value)) + value.encode()


def event(kind: int, path: str, zxid: int = -1) -> bytes:
    return reply(-1, zxid, 0, struct.pack(">ii", kind, 3) + text(path))


GREETING = framed(struct.pack(">iiqi", 0, 4000, 7, 16) + b"p" * 16 + b"\x00")


@dataclass
class Peer(asyncio.Protocol):
    """The server's end: what came, and when; the test speaks."""

    received: list[bytes] = field(default_factory=list)
    transport: Pipe | None = None
    left: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Pipe)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.left = True

    def say(self, *data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(data))

    def hang_up(self) -> None:
        assert self.transport is not None
        self.transport.close()


class Line:
    """A connection, its peer, and everything that its callbacks reported."""

    def __init__(self, world: World, *, greeted: bool = True) -> None:
        self.world = world
        self.greetings: list[tuple[ConnectReply, float]] = []
        self.events: list[WatchedEvent] = []
        self.answers: list[tuple[Any, RegistryError | None]] = []
        self.lost = 0
        self.order: list[str] = []
        self.when_fired: Callable[[], None] = lambda: None
        self.when_lost: Callable[[], None] = lambda: None
        self.peer = Peer()
        self.connection = Connection(
            1,
            ENDPOINT,
            world,
            max_request=MAX_REQUEST,
            repeated=IncidentLog(logging.getLogger("aioregistry.session")),
            on_greeting=lambda _, greeting, sent: self.greetings.append((greeting, sent)),
            on_event=self._fired,
            on_answer=lambda _, pending, error: self.answers.append((pending.request, error)),
            on_lost=self._lost,
        )
        self.pipe, _ = connect_pipes(world.loop, self.connection, self.peer)
        world.pipes.append(self.pipe)
        if greeted:
            self.connection.greet(Connect(0, 4000))
            self.connection.data_received(GREETING)

    def _fired(self, fired: WatchedEvent) -> None:
        self.events.append(fired)
        self.order.append(f"event {fired.path}")
        self.when_fired()

    def _lost(self, _: Connection) -> None:
        self.lost += 1
        self.order.append("lost")
        self.when_lost()

    async def settle(self) -> None:
        """Let everything under way arrive."""
        await asyncio.sleep(10 * LATENCY)

    async def end(self) -> None:
        self.connection.drop("the test is over")
        await self.settle()


async def outcome(future: asyncio.Future[Reply[Any]]) -> Any:
    """The outcome of a future, an exception included."""
    assert future.done()
    return future.exception() or future.result()


# ---------------------------------------------------------------- the handshake


@simulated
async def test_the_handshake(world: World) -> None:
    line = Line(world, greeted=False)
    world.block(3)
    line.connection.greet(Connect(9, 4000, 7, b"p" * 16, True))
    await line.settle()
    assert line.peer.received == [framed(struct.pack(">iqiqi", 0, 9, 4000, 7, 16) + b"p" * 16 + b"\x01")]
    line.peer.say(GREETING)
    await line.settle()
    ((answer, sent),) = line.greetings
    assert answer == ConnectReply(0, 4000, 7, b"p" * 16, False)
    assert sent == pytest.approx(3.0)
    await line.end()
    assert line.lost == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH"),
        (b"\x15\x03\x01\x00\x02\x02\x0a", "speaks TLS"),
        (b"220 mail.example.com ESMTP\r\n", "not a ZooKeeper"),
        (b"\xff\xff\xff\xff", "frame length -1"),
        (framed(b""), "malformed reply to Connect"),
        (framed(bytes(5)), "malformed reply to Connect"),
        (framed(bytes(200)), "200 bytes"),
        (framed(bytes(5000)), "frame length 5000"),
        (bytes(1 << 20), "malformed reply to Connect"),
        (reply(1, error=-6), "answered Connect with an error"),
    ],
)
@simulated
async def test_what_is_no_answer_to_it(said: bytes, reason: str, world: World) -> None:
    line = Line(world, greeted=False)
    line.connection.greet(Connect(0, 4000))
    line.peer.say(said)
    await line.settle()
    assert reason in line.connection.reason
    assert (line.greetings, line.lost, line.peer.left) == ([], 1, True)


@simulated
async def test_a_server_that_speaks_first(world: World) -> None:
    line = Line(world, greeted=False)
    line.peer.say(framed(b"welcome"))
    await line.settle()
    assert "spoke first" in line.connection.reason
    assert (line.lost, line.peer.left) == (1, True)


@simulated
async def test_a_server_that_hangs_up(world: World) -> None:
    line = Line(world, greeted=False)
    line.connection.greet(Connect(0, 4000))
    line.peer.hang_up()
    await line.settle()
    assert (line.connection.reason, line.lost) == ("the server closed the connection", 1)


@simulated
async def test_a_connection_that_breaks(world: World) -> None:
    line = Line(world)
    line.pipe.reset()
    await line.settle()
    assert "Connection reset by peer" in line.connection.reason
    assert line.lost == 1


# ---------------------------------------------------------------- requests and replies


@simulated
async def test_what_one_turn_produces_leaves_in_one_write(world: World) -> None:
    line = Line(world)
    await line.settle()
    before = len(line.pipe.written)
    futures = [line.connection.submit(Sync(f"/{number}")) for number in range(3)]
    await line.settle()
    assert line.pipe.written[before:] == [
        b"".join(framed(struct.pack(">ii", number + 1, 9) + text(f"/{number}")) for number in range(3))
    ]
    _ = line.connection.submit(Sync("/3"))
    await line.settle()
    assert len(line.pipe.written) == before + 2
    assert not any(future.done() for future in futures)
    await line.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@simulated
async def test_replies_are_matched_in_order_however_they_are_cut(size: int, world: World) -> None:
    line = Line(world)
    futures = [line.connection.submit(each) for each in (Sync("/a"), Delete("/b"), Exists("/c"), Sync("/d"))]
    said = reply(1, body=text("/a")) + event(2, "/b") + reply(2) + reply(3, error=-101) + reply(4, body=text("/d"))
    for at in range(0, len(said), size):
        line.connection.data_received(said[at : at + size])
    first, second, third, fourth = [await outcome(future) for future in futures]
    assert (first, second, fourth) == (Reply(5, "/a"), Reply(5, None), Reply(5, "/d"))
    assert isinstance(third, NoNode)
    assert third.path == "/c"
    assert line.events == [WatchedEvent(EventKind.DELETED, 3, "/b", -1)]
    assert [type(error) for _, error in line.answers] == [type(None), type(None), NoNode, type(None)]
    await line.end()


@simulated
async def test_credentials_are_answered_past_the_others(world: World) -> None:
    line = Line(world)
    sync, auth = line.connection.submit(Sync("/")), line.connection.submit(Auth("digest", b"a:b"))
    line.connection.data_received(reply(-4, zxid=0))
    assert (sync.done(), await outcome(auth)) == (False, Reply(0, None))
    line.connection.data_received(reply(1, body=text("/")))
    assert await outcome(sync) == Reply(5, "/")
    await line.end()


@pytest.mark.parametrize("xid", [2, 7, 0, -8])
@simulated
async def test_an_xid_that_is_not_the_next_ends_it(xid: int, world: World) -> None:
    line = Line(world)
    first, second = line.connection.submit(Delete("/a")), line.connection.submit(Sync("/b"))
    await line.settle()
    line.connection.data_received(reply(xid, body=text("/b")))
    assert f"xid {xid}" in line.connection.reason
    assert line.lost == 1
    assert (await outcome(first)).maybe_applied
    assert not (await outcome(second)).maybe_applied
    await line.settle()


@simulated
async def test_a_reply_that_nobody_awaits_ends_it(world: World) -> None:
    line = Line(world)
    line.connection.data_received(reply(1))
    assert "xid 1, which is not the next one awaited" in line.connection.reason
    await line.settle()


@simulated
async def test_a_malformed_reply_ends_it_for_what_else_comes_cannot_be_trusted(world: World) -> None:
    line = Line(world)
    first, second = line.connection.submit(Sync("/a")), line.connection.submit(Sync("/b"))
    line.connection.data_received(reply(1, body=b"\x00\x00\x00\xff/") + reply(2, body=text("/b")))
    assert isinstance(await outcome(first), ConnectionLost)
    assert isinstance(await outcome(second), ConnectionLost)
    assert line.lost == 1
    await line.end()


@pytest.mark.parametrize(
    "said", [framed(b"short"), reply(-1, body=b"short"), event(77, "/a"), struct.pack(">i", 1 << 30), b"\xff" * 4]
)
@simulated
async def test_what_is_no_frame_ends_it(said: bytes, world: World) -> None:
    line = Line(world)
    waiting = line.connection.submit(Sync("/"))
    line.connection.data_received(said + reply(1, body=text("/")))
    assert line.lost == 1
    assert isinstance(await outcome(waiting), ConnectionLost)
    await line.settle()


@simulated
async def test_xids_begin_anew_before_they_overflow(world: World) -> None:
    line = Line(world)
    line.connection._xid = 0x7FFF_FFFE
    futures = [line.connection.submit(Sync("/")) for _ in range(2)]
    line.connection.data_received(reply(0x7FFF_FFFF, body=text("/")) + reply(1, body=text("/")))
    assert all([await outcome(future) for future in futures])
    await line.end()


@simulated
async def test_a_cancelled_request_is_answered_all_the_same(world: World) -> None:
    line = Line(world)
    first, second = line.connection.submit(Sync("/a")), line.connection.submit(Sync("/b"))
    first.cancel()
    line.connection.data_received(reply(1, body=text("/a")) + reply(2, body=text("/b")))
    assert await outcome(second) == Reply(5, "/b")
    assert [request.path for request, _ in line.answers] == ["/a", "/b"]
    assert line.connection.evidence > float("-inf")
    await line.end()


@simulated
async def test_a_cancelled_request_does_not_disturb_the_end(world: World) -> None:
    line = Line(world)
    line.connection.submit(Sync("/a")).cancel()
    line.peer.hang_up()
    await line.settle()
    assert line.lost == 1


# ---------------------------------------------------------------- what cannot be sent


@simulated
async def test_a_request_is_measured_before_it_is_sent(world: World) -> None:
    line = Line(world)
    await line.settle()
    before = len(line.pipe.written)
    room = MAX_REQUEST - len(Create("/a", b"").serialize(1))
    refused = line.connection.submit(Create("/a", bytes(room + 1)))
    error = await outcome(refused)
    assert isinstance(error, RequestTooLarge)
    assert (error.field, error.size, error.limit) == ("Create /a", MAX_REQUEST + 1, MAX_REQUEST)
    await line.settle()
    assert line.pipe.written[before:] == []
    accepted = line.connection.submit(Create("/a", bytes(room)))
    await line.settle()
    line.connection.data_received(reply(struct.unpack_from(">i", line.pipe.written[before], 4)[0], body=text("/a")))
    assert await outcome(accepted) == Reply(5, "/a")
    await line.end()


@pytest.mark.parametrize(
    "message",
    [Delete("/a", version=1 << 40), Sync(None), GetData("/\ud800"), Auth("digest", "text")],  # type: ignore[arg-type]
    ids=repr,
)
@simulated
async def test_what_does_not_fit_its_field(message: Any, world: World) -> None:
    line = Line(world)
    error = await outcome(line.connection.submit(message))
    assert isinstance(error, ProtocolError)
    assert f"{type(message).__name__} cannot be sent" in str(error)
    await line.end()


# ---------------------------------------------------------------- what is learned


@simulated
async def test_the_beginning_of_an_epoch_is_no_transaction(world: World) -> None:
    line = Line(world)
    seen_after = ((0x1_0000_0007, 0x1_0000_0007), (0x2_0000_0000, 0x1_0000_0007), (0x2_0000_0001, 0x2_0000_0001))
    for xid, (zxid, seen) in enumerate(seen_after, 1):
        _ = line.connection.submit(Sync("/"))
        line.connection.data_received(reply(xid, zxid, body=text("/")))
        assert (line.connection.last_zxid, line.connection.reached) == (seen, zxid)
    await line.end()


@pytest.mark.parametrize("make", [partial(reply, body=text("/")), lambda xid, zxid: event(1, "/a", zxid)])
@pytest.mark.parametrize("zxid", [2**63 - 1, -(2**63), -2, (MOST_EPOCHS + 1) << 32])
@simulated
async def test_a_zxid_that_no_server_can_mean_costs_the_connection(
    world: World, make: Callable[[int, int], bytes], zxid: int
) -> None:
    line = Line(world)
    answer = line.connection.submit(Sync("/"))
    line.connection.data_received(make(1, zxid))
    assert (line.connection.last_zxid, line.connection.reached, line.lost) == (0, 0, 1)
    assert isinstance(await outcome(answer), ConnectionLost)
    assert "zxid" in line.connection.reason


@simulated
async def test_an_answer_that_goes_back_takes_back_what_came_before(world: World) -> None:
    line = Line(world)
    for xid, zxid in enumerate((0x1_0000_0007, 0x1_0000_0009), 1):
        _ = line.connection.submit(Sync("/"))
        line.connection.data_received(reply(xid, zxid, body=text("/")))
    line.connection.data_received(event(1, "/a", 0x1_0000_0008))  # events pass answers
    line.connection.data_received(event(1, "/a", 0x1_0000_000A))
    _ = line.connection.submit(Sync("/"))
    line.connection.data_received(reply(3, 0x1_0000_0009, body=text("/")))
    assert not line.lost
    answer = line.connection.submit(Sync("/"))
    line.connection.data_received(reply(4, 0x1_0000_0008, body=text("/")))
    assert line.lost
    assert isinstance(await outcome(answer), ConnectionLost)
    assert (line.connection.contradicted, line.connection.last_zxid) == (True, 0x1_0000_0008)


@simulated
async def test_the_highest_zxid_of_any_header(world: World) -> None:
    line = Line(world)
    for xid, (zxid, code) in enumerate(((7, 0), (3, Throttled.code), (-1, Throttled.code)), 1):
        _ = line.connection.submit(Sync("/"))
        line.connection.data_received(reply(xid, zxid, code, body=text("/")))
        assert line.connection.last_zxid == 7
    line.connection.data_received(event(1, "/a", zxid=9))
    assert line.connection.last_zxid == 9
    await line.end()


@pytest.mark.parametrize(
    ("message", "error", "evident"),
    [
        (Sync("/"), 0, True),
        (Delete("/"), 0, True),
        (Delete("/"), -101, True),
        (Delete("/"), -103, True),
        (Exists("/"), -101, False),
        (Sync("/"), -6, False),
        (Sync("/"), -112, False),
        (Sync("/"), -118, False),
        (Delete("/"), -119, False),
        (Delete("/"), -127, False),
        (Auth("digest", b""), 0, False),
    ],
)
@simulated
async def test_what_proves_that_the_quorum_heard_us(message: Any, error: int, evident: bool, world: World) -> None:
    line = Line(world)
    world.block(3)
    _ = line.connection.submit(message)
    world.block(50)  # the answer lies in the buffer
    body = text("/") if isinstance(message, Sync) and not error else b""
    line.connection.data_received(reply(-4 if isinstance(message, Auth) else 1, error=error, body=body))
    assert line.connection.evidence == pytest.approx(3.0 if evident else float("-inf"))
    await line.end()


@simulated
async def test_evidence_never_gets_older(world: World) -> None:
    line = Line(world)
    world.block(5)
    late = line.connection.submit(Sync("/"))
    line.connection.evidence = 9.0
    line.connection.data_received(reply(1, body=text("/")))
    assert late.done()
    assert line.connection.evidence == 9.0
    await line.end()


@simulated
async def test_throttled_is_no_answer_of_the_quorum(world: World) -> None:
    line = Line(world)
    throttled = line.connection.submit(Delete("/a"))
    line.connection.data_received(reply(1, -1, -127))
    assert isinstance(await outcome(throttled), Throttled)
    assert (line.connection.evidence, line.connection.last_zxid) == (float("-inf"), 0)
    await line.end()


# ---------------------------------------------------------------- the end


SAID = [GREETING, reply(1, body=text("/a")), event(3, "/a"), reply(2), reply(3, error=-101)]


@pytest.mark.parametrize("length", range(len(b"".join(SAID)) + 1))
@simulated
async def test_lost_at_every_byte(length: int, world: World) -> None:
    line = Line(world, greeted=False)
    line.connection.greet(Connect(0, 4000))
    futures = [line.connection.submit(each) for each in (Sync("/a"), Delete("/b"), Exists("/c"), Create("/d", b""))]
    await line.settle()
    line.peer.say(b"".join(SAID)[:length])
    line.peer.hang_up()
    await line.settle()
    ends = [len(b"".join(SAID[: count + 1])) for count in range(len(SAID))]
    assert len(line.greetings) == (length >= ends[0])
    assert len(line.events) == (length >= ends[2])
    answered = [length >= ends[1], length >= ends[3], length >= ends[4], False]
    for future, was_answered, writes in zip(futures, answered, (False, True, False, True), strict=True):
        result = await outcome(future)
        if was_answered:
            assert not isinstance(result, ConnectionLost)
        else:
            assert isinstance(result, ConnectionLost)
            assert result.maybe_applied == writes
    assert line.lost == 1


@simulated
async def test_what_never_left_was_never_applied(world: World) -> None:
    line = Line(world)
    sent = line.connection.submit(Delete("/sent"))
    await line.settle()
    unsent = [line.connection.submit(Delete("/unsent")), line.connection.submit(Delete("/unsent too"))]
    line.connection.connection_lost(None)
    assert (await outcome(sent)).maybe_applied
    for future in unsent:
        assert not (await outcome(future)).maybe_applied
    await line.settle()
    assert b"unsent" not in b"".join(line.peer.received)


@simulated
async def test_afterwards_nothing_can_be_sent(world: World) -> None:
    line = Line(world)
    line.peer.hang_up()
    await line.settle()
    error = await outcome(line.connection.submit(Delete("/a")))
    assert isinstance(error, ConnectionLost)
    assert not error.maybe_applied
    assert str(error) == (
        "connection to zk(10.0.0.1):2181 lost (the server closed the connection); the request changed nothing"
    )


@simulated
async def test_the_end_of_the_file_is_not_held_up_by_what_is_unwritten(world: World) -> None:
    """asyncio's transports report the loss only when everything is written; this peer reads no more."""
    line = Line(world)
    line.pipe.stuck = 100
    line.connection.eof_received()
    assert line.order == ["lost"]
    await line.settle()
    assert line.lost == 1


@simulated
async def test_futures_fail_before_the_loss_is_reported(world: World) -> None:
    line = Line(world)
    waiting = line.connection.submit(Sync("/"))
    line.when_lost = lambda: line.order.append(f"done: {waiting.done()}")
    line.connection.connection_lost(None)
    assert line.order == ["lost", "done: True"]
    line.connection.drop("over")
    await line.end()


class TestDropping:
    @simulated
    async def test_writes_what_was_submitted_and_hears_no_more(self, world: World) -> None:
        line = Line(world)
        waiting = line.connection.submit(Delete("/a"))
        line.connection.drop("superseded")
        error = await outcome(waiting)
        assert isinstance(error, ConnectionLost)
        assert error.maybe_applied
        line.peer.say(reply(1), event(1, "/a"))
        line.connection.data_received(reply(1))
        await line.settle()
        assert b"/a" in b"".join(line.peer.received)
        assert (line.events, line.answers, line.lost, line.peer.left) == ([], [], 0, True)
        assert line.connection.reason == "superseded"

    @simulated
    async def test_can_give_a_reason_of_its_own(self, world: World) -> None:
        line = Line(world)
        waiting = line.connection.submit(Delete("/a"))
        failure = SessionFailed("defect")
        line.connection.drop("the session failed", failure)
        assert await outcome(waiting) is failure
        await line.settle()

    @simulated
    async def test_in_the_middle_of_what_is_received(self, world: World) -> None:
        line = Line(world)
        line.when_fired = lambda: line.connection.drop("enough")
        waiting = line.connection.submit(Sync("/"))
        line.connection.data_received(event(1, "/a") + reply(1, body=text("/")))
        assert isinstance(await outcome(waiting), ConnectionLost)
        await line.settle()

    @simulated
    async def test_twice(self, world: World) -> None:
        line = Line(world)
        line.connection.drop("first")
        line.connection.drop("second")
        assert line.connection.reason == "first"
        await line.settle()

    @simulated
    async def test_before_it_was_made(self, world: World) -> None:
        """A connection that comes up when nobody wants it any more."""
        line = Line(world, greeted=False)
        line.connection.drop("not needed")
        await line.settle()
        assert (line.peer.left, line.peer.received) == (True, [])

    @pytest.mark.parametrize(("stuck", "tls", "aborts"), [(0, None, False), (9, None, True), (0, object(), True)])
    @simulated
    async def test_waits_for_nobody(self, stuck: int, tls: object, aborts: bool, world: World) -> None:
        line = Line(world)
        line.pipe.stuck, line.pipe.tls = stuck, tls
        line.connection.drop("over")
        assert line.pipe.ended_by == ("abort" if aborts else "close")
        await line.settle()


@simulated
async def test_it_says_what_it_is(world: World) -> None:
    line = Line(world)
    _ = line.connection.submit(Sync("/"))
    assert repr(line.connection) == "<Connection 1 to zk(10.0.0.1):2181, 1 pending>"
    line.connection.drop("over")
    assert repr(line.connection) == "<Connection 1 to zk(10.0.0.1):2181, closed>"
    await line.settle()
