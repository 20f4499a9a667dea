"""A server that is overloaded drops requests unprocessed (-127): they are sent again, and nothing else comes of it."""

from __future__ import annotations

import asyncio
import itertools
import struct

import pytest

import aioregistry
from aioregistry import Status
from tests.integration.scene import instance_of
from tests.support.frames import Frame, FrameProxy, failed
from tests.support.inside import session_of
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer

T = 6.0
THROTTLED = -127
NOTHING_PROVEN = (THROTTLED, -7, -4)
"""Answers that say nothing but that the server could not do it just then: OperationTimeout and ConnectionLoss, too."""
OPERATIONS = {
    "Create2": 15, "CreateContainer": 19, "Multi": 14, "SetData": 5, "Sync": 9, "GetData": 4, "MultiRead": 22,
    "GetChildren": 12, "AddWatch": 106, "Exists": 3, "SetWatches2": 105, "Delete": 2,
}  # fmt: skip


class Throttle:
    """Drops the first of some operation, on each connection anew: the server gets an exists in their stead."""

    def __init__(self, opcode: int, times: int = 2, code: int = THROTTLED) -> None:
        self.opcode, self.left, self.code = opcode, times, code
        self.dropped: set[tuple[int, int]] = set()

    def __call__(self, frame: Frame) -> bytes:
        place = frame.connection, frame.xid
        if frame.up and frame.opcode == self.opcode and self.left > 0:
            self.left -= 1
            self.dropped.add(place)
            return frame.body[:4] + struct.pack(">ii", 3, 1) + b"/\0"
        if not frame.up and place in self.dropped:
            self.dropped.discard(place)
            return failed(frame, self.code)
        return frame.body


@pytest.mark.parametrize(
    ("operation", "code"),
    [(operation, THROTTLED) for operation in OPERATIONS]
    + list(zip(OPERATIONS, itertools.cycle(NOTHING_PROVEN[1:]), strict=False)),
)
async def test_one_connection_does(operation: str, code: int, own_zookeeper: ZooKeeperServer) -> None:
    throttle = Throttle(OPERATIONS[operation], code=code)
    async with (
        FrameProxy((own_zookeeper.host, own_zookeeper.port), throttle) as frames,
        asyncio.timeout(2 * DEADLINE),
        aioregistry.connect(frames.address + "/app", session_timeout=T) as registry,
        registry.register(instance_of("chat")) as registration,
        registry.discover("chat", guard=None) as view,
    ):
        await registration.update(payload="news")
        await view.wait_for(lambda snapshot: snapshot["a"].payload == "news")
        assert await registry.services() == ["chat"]
        await view.sync()
        assert len(frames.used) == 1
        throttle.left = 2
        frames.cut()
        await until(lambda: not registry.session.connected)
        await until(lambda: registration.status is Status.LIVE and view.fresh)
        assert len(frames.used) == 2
    assert registration.withdrawn


async def test_a_view_stays_fresh_while_a_read_is_sent_again(
    own_zookeeper: ZooKeeperServer, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = Throttle(OPERATIONS["GetData"], times=0)
    async with (
        FrameProxy((own_zookeeper.host, own_zookeeper.port), throttle) as frames,
        aioregistry.connect(own_zookeeper.address) as publisher,
        publisher.register(instance_of("chat")) as registration,
        aioregistry.connect(frames.address, session_timeout=T) as registry,
        registry.discover("chat", guard=None) as view,
    ):
        throttle.left = 3
        news = asyncio.ensure_future(view.wait_for(lambda snapshot: snapshot["a"].payload == "news", DEADLINE))
        await registration.update(payload="news")
        async with asyncio.timeout(DEADLINE):
            while not news.done():
                assert view.fresh
                await asyncio.sleep(0.005)
        await news
        assert throttle.left == 0
        assert len(frames.used) == 1
    told = [record for record in caplog.records if "overloaded" in record.getMessage()]
    assert 1 <= len(told) <= 3


@pytest.mark.parametrize("code", NOTHING_PROVEN)
async def test_a_heartbeat_is_sent_again(code: int, own_zookeeper: ZooKeeperServer) -> None:
    throttle = Throttle(OPERATIONS["Sync"], times=0, code=code)
    async with (
        FrameProxy((own_zookeeper.host, own_zookeeper.port), throttle) as frames,
        aioregistry.connect(frames.address, session_timeout=T) as registry,
        registry.register(instance_of("chat")) as registration,
        registry.discover("chat", guard=None) as view,
    ):
        throttle.left = 3
        async with asyncio.timeout(DEADLINE):
            while throttle.left or throttle.dropped:
                assert registration.status is Status.LIVE
                assert view.fresh
                await asyncio.sleep(0.01)
        await until(lambda: session_of(registry).evidence_age() < T / 3)
        assert len(frames.used) == 1


async def test_a_server_that_throttles_for_good_is_left_and_that_is_said(
    own_zookeeper: ZooKeeperServer, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = Throttle(OPERATIONS["Sync"], times=0)
    async with (
        FrameProxy((own_zookeeper.host, own_zookeeper.port), throttle) as frames,
        aioregistry.connect(frames.address, session_timeout=2.0) as registry,
    ):
        throttle.left = 1_000_000
        await until(lambda: len(frames.used) == 2)
        assert any("within 0.667 s with an error" in record.getMessage() for record in caplog.records)
        throttle.left = 0
        await until(lambda: registry.session.connected)
