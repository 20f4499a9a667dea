"""Answers by an error that the request cannot have: each costs that request or the connection, and nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import aioregistry
from aioregistry import Status
from tests.integration.scene import DEADLINE, instance_of, until
from tests.support.frames import Frame, FrameProxy, failed
from tests.support.zookeeper import ZooKeeperServer

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
