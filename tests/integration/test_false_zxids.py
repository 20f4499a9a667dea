"""Answers whose zxid is false: nothing is believed for long that the servers did not say."""

from __future__ import annotations

import asyncio
import logging
import struct

import pytest

import aioregistry
from aioregistry import Status
from tests.integration.scene import instance_of
from tests.support.frames import Frame, FrameProxy
from tests.support.inside import session_of
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer

T = 6.0

LIST, READ, WRITE, HEARTBEAT = (8, 12), (4, 22), (5, 14), (9,)


class Forger:
    """Puts another zxid into the answer to the first request of some kinds that is sent once it is told to."""

    def __init__(self) -> None:
        self.opcodes: tuple[int, ...] = ()
        self.more = 0
        self.forged = asyncio.Event()
        self._request: tuple[int, int] | None = None

    def begin(self, opcodes: tuple[int, ...], more: int) -> None:
        self.opcodes, self.more = opcodes, more

    def __call__(self, frame: Frame) -> bytes:
        request = frame.connection, frame.xid
        if frame.up and frame.xid > 0 and frame.opcode in self.opcodes and self._request is None:
            self._request = request
        if not frame.up and request == self._request and not self.forged.is_set():
            self.forged.set()
            (zxid,) = struct.unpack_from(">q", frame.body, 4)
            false = max(-(2**63), min(zxid + self.more, 2**63 - 1))
            return frame.body[:4] + struct.pack(">q", false) + frame.body[12:]
        return frame.body


@pytest.mark.parametrize("more", [2**63 - 1, -(2**63), 1000], ids=["largest", "smallest", "ahead"])
@pytest.mark.parametrize("opcodes", [LIST, READ, WRITE, HEARTBEAT], ids=["list", "read", "write", "heartbeat"])
async def test_one_false_zxid_costs_the_connection_and_nothing_else(
    zookeeper: ZooKeeperServer, chroot: str, opcodes: tuple[int, ...], more: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aioregistry")
    forger = Forger()
    async with (
        FrameProxy((zookeeper.host, zookeeper.port), forger) as frames,
        aioregistry.connect(zookeeper.address + chroot, session_timeout=T) as other,
        aioregistry.connect(frames.address + chroot, session_timeout=T) as registry,
        registry.register(instance_of("chat")) as registration,
        asyncio.timeout(4 * DEADLINE),
    ):
        id = registry.session.id
        if opcodes == LIST:
            forger.begin(opcodes, more)
        async with registry.discover("chat") as view:
            forger.begin(opcodes, more)
            async with other.register(instance_of("chat", id="b")) as theirs:
                await registration.update(payload=1)
                await forger.forged.wait()
                await theirs.update(payload=2)
                await until(lambda: "b" in view.snapshot and view.snapshot["b"].payload == 2)
                await until(lambda: len(frames.used) > 1)
                await until(lambda: registration.status is Status.LIVE and view.fresh)
                assert (await view.sync(DEADLINE))["b"].payload == 2
            await until(lambda: set(view.snapshot) == {"a"})
            assert view.fresh
            assert registry.session.id == id
            assert session_of(registry).history == 0
    assert registration.withdrawn
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
