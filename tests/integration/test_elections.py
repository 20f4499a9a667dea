"""The cost of a leader change for the ensemble: clients that were closed on without a word take up their sessions.

Transactions are counted by the servers' own zxid: its lower half begins at nothing with each leader. A client that
asked whether the history is lost would make three: a session, a write that must fail, and the session's end. So if all
clients asked at each leader change, that would be 60 times the bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

import aioregistry
from aioregistry import Registry, SessionState
from tests.support.inside import session_of
from tests.support.zookeeper import ZooKeeperEnsemble

SESSIONS = 100
MORE_SESSIONS = 300
CHANGES = 3
SHARE = 0.05
"""Transactions for each client and leader change: a client that is refused for long looks for news."""
LONG = 30.0
LONGER = 120.0
"""On busy processors: an election that takes longer than half of it is none that a client waits for."""


@contextlib.asynccontextmanager
async def sessions(ensemble: ZooKeeperEnsemble, number: int, timeout: float = LONG) -> AsyncIterator[list[Registry]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                aioregistry.connect(ensemble.connect_string, session_timeout=timeout, connect_timeout=timeout)
            )
            for _ in range(number)
        ]


async def zxid(ensemble: ZooKeeperEnsemble) -> int:
    found = re.search(r"^Zxid: 0x([0-9a-f]+)$", await ensemble.leader().four_letter("srvr"), re.MULTILINE)
    assert found is not None
    return int(found[1], 16)


async def alone(ensemble: ZooKeeperEnsemble, registries: list[Registry]) -> None:
    """Wait until no session of another test is left on the ensemble: its end would be a transaction."""
    own = {f"0x{registry.session.id & 0xFFFF_FFFF_FFFF_FFFF:x}" for registry in registries}
    async with asyncio.timeout(4 * LONGER):
        while not own >= await tracked(ensemble):
            await asyncio.sleep(0.1)


async def tracked(ensemble: ZooKeeperEnsemble) -> set[str]:
    """Read twice: a session that moves between ticks while it is read may be in neither (ExpiryQueue.dump)."""
    found: set[str] = set()
    for _ in range(2):
        sessions, _, _ = (await ensemble.leader().four_letter("dump")).partition("ephemeral nodes dump")
        found.update(re.findall(r"^\s*(0x[0-9a-f]+)", sessions, re.MULTILINE))
    return found


async def all_back(registries: list[Registry], generations: list[int]) -> None:
    async with asyncio.timeout(4 * LONGER):
        for registry, generation in zip(registries, generations, strict=True):
            while not (registry.session.connected and session_of(registry).generation > generation):
                await asyncio.sleep(0.01)


@contextlib.contextmanager
def busy_processors() -> Iterator[None]:
    """Something to do for every processor, which ends with this process, however that ends."""
    program = f"import os\nwhile os.getppid() == {os.getpid()}:\n    sum(range(100_000))"
    busy = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("number", "timeout", "meanwhile"),
    [
        pytest.param(SESSIONS, LONG, contextlib.nullcontext, id="100"),
        # An election takes longer then, and the clients are closed on more often until it is over.
        pytest.param(MORE_SESSIONS, LONGER, busy_processors, id="300, busy", marks=pytest.mark.soak),
    ],
)
async def test_a_leader_change_makes_no_client_write(
    ensemble: ZooKeeperEnsemble,
    number: int,
    timeout: float,
    meanwhile: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    async with sessions(ensemble, number, timeout) as registries:
        ids = [registry.session.id for registry in registries]
        await alone(ensemble, registries)
        assert await tracked(ensemble)
        whole = []
        with meanwhile():
            for _ in range(CHANGES):
                generations = [session_of(registry).generation for registry in registries]
                epoch = await zxid(ensemble) >> 32
                ensemble.leader().kill()
                await all_back(registries, generations)
                await ensemble.start()
                now = await zxid(ensemble)
                assert now >> 32 > epoch
                assert now & 0xFFFF_FFFF <= SHARE * number
                assert [registry.session.id for registry in registries] == ids
                whole.append(now >> 32 == epoch + 1)
        assert any(whole)  # after two elections in a row, what was written between them cannot be seen


async def test_a_restart_of_all_servers_makes_no_client_write(ensemble: ZooKeeperEnsemble) -> None:
    async with sessions(ensemble, SESSIONS) as registries:
        ids = [registry.session.id for registry in registries]
        await alone(ensemble, registries)
        generations = [session_of(registry).generation for registry in registries]
        epoch = await zxid(ensemble) >> 32
        ensemble.kill()
        await ensemble.start()
        await all_back(registries, generations)
        now = await zxid(ensemble)
        assert now >> 32 > epoch
        assert now & 0xFFFF_FFFF <= SHARE * SESSIONS
        assert [registry.session.id for registry in registries] == ids
        assert {registry.session.state for registry in registries} == {SessionState.RECONNECTED}
