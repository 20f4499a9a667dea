"""Answers that cannot be meant: an error that the request cannot have, absurd numbers of a node; nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Iterator

import pytest

import aioregistry
from aioregistry import Status
from tests.integration.scene import instance_of
from tests.support.frames import Frame, FrameProxy, failed
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer

STAT = struct.Struct(">qqqqiiiqiiq")
NUMBERS = {
    "czxid": 63, "mzxid": 63, "ctime": 63, "mtime": 63, "version": 31, "cversion": 31, "aversion": 31,
    "ephemeralOwner": 63, "dataLength": 31, "numChildren": 31, "pzxid": 63,
}  # fmt: skip
"""The fields of a Stat in their order, with their bits but for the sign."""
AUTH_FAILED = -115
T = 6.0
OPERATIONS = {
    "Create2": 15, "CreateContainer": 19, "Multi": 14, "SetData": 5, "Sync": 9, "GetData": 4, "MultiRead": 22,
    "GetChildren": 12, "AddWatch": 106, "Exists": 3, "SetWatches2": 105, "Delete": 2,
}  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_request_that_authenticates_nothing_is_answered_by_auth_failed(
    operation: str, own_zookeeper: ZooKeeperServer
) -> None:
    left, faults = 0, list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    def lie(frame: Frame) -> bytes:
        nonlocal left
        if not frame.up and frame.xid > 0 and frame.opcode == OPERATIONS[operation] and left:
            left -= 1
            return failed(frame, AUTH_FAILED)
        return frame.body

    async with (
        asyncio.timeout(2 * DEADLINE),
        FrameProxy((own_zookeeper.host, own_zookeeper.port), lie) as frames,
        aioregistry.connect(frames.address + "/app", session_timeout=T) as registry,
        registry.discover("chat", guard=None) as view,
    ):
        left = 1
        try:
            registration = await registry.register(instance_of("chat"))
        except aioregistry.RegistryError:  # this request was refused, in so many words; the next is not
            registration = await registry.register(instance_of("chat"))
        await view.wait_for(lambda snapshot: "a" in snapshot)
        frames.cut()
        await until(lambda: not registry.session.connected)
        await until(lambda: registration.status is Status.LIVE and view.fresh)
        with contextlib.suppress(aioregistry.RegistryError):  # as above; it is published all the same
            await registration.update(payload="news")
        await view.wait_for(lambda snapshot: snapshot["a"].payload == "news")
        await registration.aclose()
        await until(lambda: registration.withdrawn is True)
    assert faults == []


@pytest.mark.parametrize("field", [field for field in NUMBERS if field != "ephemeralOwner"])
async def test_one_absurd_number_of_a_node_is_not_used_for_long(
    field: str, zookeeper: ZooKeeperServer, chroot: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The smallest, -1 and the largest, one after another, in the answers to each kind of request that has a Stat."""
    caplog.set_level(logging.WARNING, "aioregistry")
    at, bits = list(NUMBERS).index(field), NUMBERS[field]
    told: dict[int, Iterator[int]] = {}
    forged = set[int]()

    def lie(frame: Frame) -> bytes:
        if frame.up or frame.xid <= 0 or frame.opcode not in told or len(frame.body) < 16 + STAT.size:
            return frame.body
        number = next(told[frame.opcode], None)
        if number is None:
            return frame.body
        forged.add(frame.opcode)
        fields = [*STAT.unpack(frame.body[-STAT.size :])]
        fields[at] = number
        return frame.body[: -STAT.size] + STAT.pack(*fields)

    async with (
        asyncio.timeout(4 * DEADLINE),
        FrameProxy((zookeeper.host, zookeeper.port), lie) as frames,
        aioregistry.connect(zookeeper.address + chroot, session_timeout=T) as other,
        aioregistry.connect(frames.address + chroot, session_timeout=T, watches="one-shot") as registry,
    ):
        id = registry.session.id
        for operation in ("Exists", "GetData", "SetData", "GetChildren", "Create2"):
            told[OPERATIONS[operation]] = iter((-(2**bits), -1, 2**bits - 1))
        async with registry.register(instance_of("chat")) as registration, registry.discover("chat") as view:
            async with other.register(instance_of("chat", id="b")) as theirs:
                for number in range(4):
                    await registration.update(payload=number)
                    await theirs.update(payload=number)
                    await view.sync(DEADLINE)
                await until(lambda: [each.payload for each in view.snapshot.values()] == [3, 3])
            await until(lambda: set(view.snapshot) == {"a"})
            await until(lambda: registration.status is Status.LIVE and view.fresh)
            assert registry.session.id == id
        assert registration.withdrawn
    assert {OPERATIONS[operation] for operation in ("GetData", "SetData", "GetChildren")} <= forged
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
