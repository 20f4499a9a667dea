"""The library on the embedded server: each release's fallbacks, and what controls do to a registration and a view."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

import aioregistry
from aioregistry import Registration, Registry, ServiceInstance, Status, View
from aioregistry._registration.exchanges import SESSIONS_KEPT
from aioregistry.server import Ensemble, ZooKeeperServer
from tests.support.inside import session_of
from tests.support.waiting import until

TIMEOUT = 100.0
ME: ServiceInstance[object] = ServiceInstance("chat", address="10.0.0.7", port=7000)


@pytest.fixture(params=["3.5", "3.8", "3.9"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ZooKeeperServer]:
    async with ZooKeeperServer(version=request.param, tick_time=0.5) as server:
        yield server


KEPT = 10.0
"""A session timeout, in seconds, of sessions that outlive the machine's pauses too."""


class Scene:
    """An instance that is registered by one registry and seen by another."""

    def __init__(self, owner: Registry, registration: Registration[object], view: View[object]) -> None:
        self.owner, self.registration, self.view = owner, registration, view

    async def put_right(self, *, session_id: int | None = None) -> None:
        """Wait until the instance is listed by a living session: another one than *session_id*."""
        await self.view.wait_for(
            lambda snapshot: (
                [entry.owner for entry in snapshot.entries.values()] == [self.owner.session.id]
                and self.owner.session.id != session_id
            ),
            timeout=TIMEOUT,
        )
        await until(lambda: self.registration.status is Status.LIVE)


async def play(servers: str, act: Callable[[Scene], object], *, session_timeout: float = 2) -> None:
    async with (
        aioregistry.connect(servers, session_timeout=session_timeout) as owner,
        aioregistry.connect(servers, session_timeout=session_timeout) as observer,
        observer.discover("chat") as view,
        owner.register(ME) as registration,
    ):
        scene = Scene(owner, registration, view)
        await scene.put_right()
        await asyncio.wait_for(act(scene), TIMEOUT)  # type: ignore[arg-type]


async def test_coming_changing_and_going(server: ZooKeeperServer) -> None:
    async def act(scene: Scene) -> None:
        await scene.registration.update(payload={"load": 1})
        await scene.view.wait_for(lambda snapshot: [item.payload for item in snapshot.values()] == [{"load": 1}])
        await scene.registration.aclose()
        assert scene.registration.withdrawn
        await scene.view.wait_for(lambda snapshot: not snapshot)

    await play(server.address, act)


async def test_a_session_that_expires(server: ZooKeeperServer) -> None:
    async def act(scene: Scene) -> None:
        before = scene.owner.session.id
        server.expire(before)
        await scene.put_right(session_id=before)

    await play(server.address, act)


async def test_a_connection_that_is_lost_costs_nothing(server: ZooKeeperServer) -> None:
    async def act(scene: Scene) -> None:
        session = session_of(scene.owner)
        generation = session.generation
        before = session.id
        server.drop()
        await until(lambda: session.generation > generation)
        await scene.put_right()
        assert session.id == before

    await play(server.address, act, session_timeout=KEPT)


async def test_a_create_whose_reply_is_lost(server: ZooKeeperServer) -> None:
    async with aioregistry.connect(server.address, session_timeout=2) as registry:
        for opcode in (1, 15, 14):
            server.lose_reply(opcode)
        async with registry.register(ME), registry.discover("chat") as view:
            assert list(view.snapshot) == ["10.0.0.7:7000"]


async def test_a_restart_with_everything_kept(server: ZooKeeperServer) -> None:
    async def act(scene: Scene) -> None:
        before = scene.owner.session.id
        await server.stop()
        await until(lambda: not scene.owner.session.connected)
        await server.start()
        await until(lambda: scene.owner.session.connected)
        await scene.put_right()
        assert scene.owner.session.id == before

    await play(server.address, act, session_timeout=KEPT)


async def test_a_restart_with_everything_lost(server: ZooKeeperServer) -> None:
    async def act(scene: Scene) -> None:
        # The old history is longer than the new one will be, and both registries know how long it was: the loss is
        # proven to both. A node of the new one could have the zxids of one of the old otherwise.
        for load in range(50):
            await scene.registration.update(payload={"load": load})
        await scene.view.sync()
        before = scene.owner.session.id
        await server.stop()
        await server.start("lost")
        await scene.put_right(session_id=before)

    await play(server.address, act)


async def test_an_ensemble_that_changes_its_leader() -> None:
    async with Ensemble(tick_time=0.5) as ensemble:

        async def act(scene: Scene) -> None:
            before = scene.owner.session.id
            generation = session_of(scene.owner).generation
            ensemble.change_leader()
            await until(lambda: session_of(scene.owner).generation > generation)
            await scene.put_right()
            assert scene.owner.session.id == before

        await play(ensemble.connect_string, act, session_timeout=KEPT)


async def test_a_member_that_is_cut_off_is_left() -> None:
    async with Ensemble(tick_time=0.5, sync_limit=1000) as ensemble:

        async def act(scene: Scene) -> None:
            address = str(scene.owner.session.server)
            (member,) = [member for member in ensemble.members if member.address == address]
            member.cut_off()
            # It answers pings on: only the missing answers to a sync tell that nobody else hears of us.
            await until(lambda: scene.owner.session.server is not None and str(scene.owner.session.server) != address)
            await scene.put_right()

        await play(",".join(follower.address for follower in ensemble.followers), act)


@pytest.mark.parametrize("lag", [0.0, 0.3], ids=["up to date", "a leader that applies late"])
async def test_a_leader_that_calls_a_session_expired_and_never_commits_it(lag: float) -> None:
    """Told of an expiry, a registration does not say that it was withdrawn before a session of a quorum has looked."""
    async with (
        Ensemble(tick_time=2.0) as ensemble,
        aioregistry.connect(ensemble.connect_string) as consumer,
        consumer.discover("chat", guard=None) as view,
        aioregistry.connect(ensemble.connect_string, close_timeout=TIMEOUT) as owner,
    ):
        registration = await owner.register(ME, close_timeout=0.05)
        await view.wait_for(lambda snapshot: len(snapshot) == 1, timeout=TIMEOUT)
        former = owner.session.id

        def nobody_answers() -> None:
            if former in session_of(owner).earlier_ids:
                for member in ensemble.members:
                    member.refuse_connections(not closed)

        closed = False
        forget = session_of(owner).observe(nobody_answers)
        ensemble.leader.lag(lag)
        for member in ensemble.members:
            member.disown(former)
        await until(lambda: former in session_of(owner).earlier_ids)
        await registration.aclose()
        assert registration.withdrawn is False
        assert await view.sync(TIMEOUT)  # it is listed, and its session lives
        closed = True
        forget()
        for member in ensemble.members:
            member.refuse_connections(False)
        await until(lambda: registration.withdrawn is True)
        await view.sync(TIMEOUT)
        assert len(view.snapshot) == 0


async def test_many_sessions_that_wrote_nothing_do_not_hide_the_one_that_did() -> None:
    """A server that is overloaded, and replaces sessions, grants one after the other and lets the first live on."""
    async with ZooKeeperServer() as server, aioregistry.connect(server.address) as owner:
        registration = await owner.register(ME)
        first = owner.session.id
        server.replace_sessions()
        server.grant(0.2)  # so that it connects again soon
        server.throttle()
        server.drop()
        await until(lambda: len(server.live_sessions()) > 2 * SESSIONS_KEPT)
        server.throttle(False)
        await until(lambda: registration.status in (Status.LIVE, Status.DISPLACED))
        assert registration.status is Status.LIVE
        assert owner.session.id != first
        (owned,) = (node.owner for path, node in server.tree.nodes.items() if path.endswith(ME.id))
        assert owned == owner.session.id


async def test_a_history_restored_after_another_was_begun_shows_a_registration_its_own_node() -> None:
    """The wiped servers' history is left without a word of a loss, as the restored one is ahead of it."""
    async with ZooKeeperServer() as server, aioregistry.connect(server.address) as owner:
        registration = await owner.register(ME)
        for number in range(100):
            await registration.update(payload=number)
        first, backup = owner.session.id, server.backup()
        await server.stop()
        await server.start("lost")
        await until(lambda: registration.status is Status.LIVE and owner.session.id != first)
        assert server.zxid < backup.zxid
        second = owner.session.id
        await server.stop()
        await server.start(backup)
        await until(lambda: registration.status is Status.DISPLACED or owner.session.id not in (0, second))
        await until(lambda: registration.status in (Status.LIVE, Status.DISPLACED))
        assert registration.status is Status.LIVE
        (owned,) = (node.owner for path, node in server.tree.nodes.items() if path.endswith(ME.id))
        assert owned == owner.session.id
