"""A leader that slept for longer than a session's timeout calls that expired, and commits that later, or never.

Of three real servers the leader is stopped (SIGSTOP), and the process that is registered knows no other server. Its
word about its withdrawal is held against the nodes of the others.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator

import pytest

from aioregistry.testing._proxy import TcpProxy
from tests.integration.scene import Peer, instance_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import Settings, ZooKeeperEnsemble, ZooKeeperServer

T = 2.0
BEYOND = 1.7
"""Seconds that the leader sleeps for beyond the session's timeout."""
LONG = 60.0
SETTINGS = Settings(tick_time_ms=500, sync_limit_ticks=120)
"""Nobody else is elected for a minute: who slept goes on as the leader."""


async def called_expired(leader: ZooKeeperServer, session: int) -> None:
    """Wait until the leader has given up the session by its clock, whether it can commit that or not."""
    name = f"0x{session & 0xFFFF_FFFF_FFFF_FFFF:x}"
    async with asyncio.timeout(DEADLINE):
        while name in re.findall(
            "0x[0-9a-f]+", (await leader.four_letter("dump")).partition("ephemeral nodes dump")[0]
        ):
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def slow_to_notice() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble(SETTINGS) as ensemble:
        ensemble.start_blocking()
        yield ensemble


@pytest.mark.parametrize("cut_off", [False, True], ids=["slept", "slept, then cut off"])
async def test_an_expiry_that_only_the_leader_tells_of_is_no_withdrawal(
    slow_to_notice: ZooKeeperEnsemble, cut_off: bool
) -> None:
    ensemble, name = slow_to_notice, f"chat-{uuid.uuid4().hex}"
    ensemble.repair()
    leader, others = ensemble.leader(), ",".join(each.address for each in ensemble.followers())
    with TcpProxy((leader.host, leader.port)) as proxy:
        async with (
            Judge(others) as judge,
            Peer(others, session_timeout=LONG, connect_timeout=LONG) as reader,
            Peer(proxy.address, session_timeout=T, connect_timeout=LONG, close_timeout=1.0) as peer,
            reader.registry.discover(name) as view,
        ):
            registration = await peer.registry.register(instance_of(name))
            await view.wait_for(lambda snapshot: "a" in snapshot, timeout=DEADLINE)
            session = peer.registry.session.id
            leader.pause()
            proxy.refuse()
            proxy.cut()
            await asyncio.sleep(T + BEYOND)
            if cut_off:
                ensemble.cut_off(leader)
            leader.resume()
            await called_expired(leader, session)
            proxy.accept()
            await until(lambda: "expired" in peer.states)
            await registration.aclose()
            if cut_off:
                assert registration.withdrawn is False
                assert "a" in view.snapshot
                ensemble.heal(leader)
            elif registration.withdrawn:
                assert await judge.owner(registration.path) is None
            await until(lambda: registration.withdrawn is True)
            assert await judge.owner(registration.path) is None
