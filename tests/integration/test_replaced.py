"""Servers that grant a new session to whoever offers an old one, which lives on; as ClickHouse Keeper does."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

import aioregistry
from aioregistry import SessionState, Status
from tests.integration.scene import instance_of
from tests.support.frames import Frame, FrameProxy
from tests.support.inside import session_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer

T = 6.0


def forgetful(frame: Frame) -> bytes:
    """The handshake without its session and password."""
    if frame.up and frame.opcode == frame.xid == 0 and len(frame.body) >= 44:
        return frame.body[:16] + bytes(8) + frame.body[24:28] + bytes(16) + frame.body[44:]
    return frame.body


async def test_what_the_replaced_session_owns_is_taken_over(own_zookeeper: ZooKeeperServer) -> None:
    async with (
        Judge(own_zookeeper.address) as judge,
        FrameProxy((own_zookeeper.host, own_zookeeper.port), forgetful) as frames,
        aioregistry.connect(frames.address, session_timeout=T) as registry,
        registry.register(instance_of("chat")) as registration,
        registry.discover("chat") as view,
    ):
        session, mine = session_of(registry), [registry.session.id]
        for _ in range(3):
            states = session.states()
            frames.cut()
            async with asyncio.timeout(DEADLINE):
                seen = [await anext(states) for _ in range(3)]
            assert seen == [SessionState.SUSPENDED, SessionState.EXPIRED, SessionState.CONNECTED]
            await until(lambda: registration.status is Status.LIVE)
            assert session.id not in mine
            assert session.earlier_ids == tuple(mine)
            mine.append(session.id)
            assert await judge.owner(registration.path) == session.id
            assert set(await view.sync(DEADLINE)) == {"a"}
    assert registration.withdrawn


async def test_a_server_that_forgets_again_and_again_is_told_of_once(
    own_zookeeper: ZooKeeperServer, caplog: pytest.LogCaptureFixture
) -> None:
    granted: Counter[int] = Counter()
    async with (
        FrameProxy((own_zookeeper.host, own_zookeeper.port), forgetful) as frames,
        aioregistry.connect(frames.address, session_timeout=T) as registry,
    ):
        states = session_of(registry).states()
        for _ in range(10):
            frames.cut()
            async with asyncio.timeout(DEADLINE):
                while await anext(states) is not SessionState.EXPIRED:
                    pass
                while await anext(states) is not SessionState.CONNECTED:
                    pass
            granted[registry.session.id] += 1
    assert len(granted) == 10
    told = [record.getMessage() for record in caplog.records if "granted session" in record.getMessage()]
    whole = [line for line in told if "more like this" not in line and "this has stopped" not in line]
    # One more where the machine stood still for longer than an incident is quiet.
    assert 1 <= len(whole) < 10
    assert len(told) > len(whole)  # the others were counted
