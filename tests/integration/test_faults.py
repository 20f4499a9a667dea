"""Everything that happens to connections, servers and ensembles, to a registration and to a view at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from aioregistry import NodeNotEphemeral, RegistrationDisplaced, Status
from aioregistry._errors import ConnectionLost, SessionMoved, TransactionAborted
from aioregistry._protocol import OPEN_ACL, Create2, Multi
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.integration.scene import PARTITIONS, Peer, Scene, instance_of, meanwhile
from tests.support import wire
from tests.support.checkers import check_owned, check_single
from tests.support.frames import Frame, FrameProxy
from tests.support.inside import password_of, session_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import RELEASE, Settings, ZooKeeperEnsemble, ZooKeeperServer

TIMEOUT = 2.0
"""Seconds: the session timeout where a test waits for the session's end."""

LONG = 6.0
AGES = 60.0
"""Seconds: the session timeout where a test waits for no such thing, and a slow machine should not bring it about."""


@pytest.fixture
async def scene(proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer) -> AsyncIterator[Scene]:
    """On the shared server, behind the proxy."""
    async with Scene(proxy.address, judged_at=zookeeper.address, session_timeout=TIMEOUT) as scene:
        yield scene


# ---------------------------------------------------------------- servers


async def test_server_killed_and_restarted(own_zookeeper: ZooKeeperServer) -> None:
    async with Scene(own_zookeeper.address, judged_at=own_zookeeper.address, session_timeout=LONG) as scene:
        await own_zookeeper.restart()
        await scene.settled()
        scene.check_session_kept()


async def test_server_down_for_longer_than_the_session_could_live(own_zookeeper: ZooKeeperServer) -> None:
    async with Scene(own_zookeeper.address, judged_at=own_zookeeper.address, session_timeout=TIMEOUT) as scene:
        own_zookeeper.kill()
        with scene.silence():
            await until(lambda: scene.registration.status is Status.PRESUMED_GONE)
            assert not scene.view.fresh
            assert scene.id in scene.view.snapshot  # the last that is known
        await own_zookeeper.start()
        await scene.settled()
        # A server that comes back restarts the timers of all sessions: whoever is there in time keeps his.
        scene.check_session_kept()


async def test_server_that_takes_connections_before_it_can_answer(
    proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer
) -> None:
    """As ZooKeeper does while it starts; some of those connections it never answers and never closes."""
    async with Scene(proxy.address, judged_at=zookeeper.address, session_timeout=60.0) as scene:
        taken: list[asyncio.StreamWriter] = []
        starting = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1")
        async with starting:
            proxy.target = starting.sockets[0].getsockname()
            proxy.cut()
            await until(lambda: len(taken) == 2)
            proxy.target = (zookeeper.host, zookeeper.port)
            async with asyncio.timeout(8.0):  # a fraction of what is left of the session
                await scene.settled()
            scene.check_session_kept()
            for writer in taken:
                writer.close()


async def test_leader_of_three_killed(ensemble: ZooKeeperEnsemble) -> None:
    async with Scene(ensemble.connect_string, judged_at=ensemble.connect_string, session_timeout=LONG) as scene:
        ensemble.leader().kill()
        await scene.settled()
        scene.check_session_kept()


async def test_rolling_restart_of_all_three(ensemble: ZooKeeperEnsemble) -> None:
    async with Scene(ensemble.connect_string, judged_at=ensemble.connect_string, session_timeout=LONG) as scene:
        await ensemble.rolling_restart()
        await scene.settled()
        scene.check_session_kept()


async def test_a_session_that_was_moved_to_another_member_comes_back(ensemble: ZooKeeperEnsemble) -> None:
    """As by a ConnectRequest of one's own that arrives late. The connection that is left behind answers heartbeats and
    reads; a write is what shows it, and on 3.5 it does not end the connection if it is a transaction."""
    here, there = ensemble.followers()
    path = f"/{uuid.uuid4().hex}"
    async with Peer(here.address, session_timeout=LONG) as peer, Judge(there.address) as judge:
        session = session_of(peer.registry)
        thief = await wire.connect(there.address, session_id=session.id, password=password_of(session))
        thief.abandon()

        async def make() -> None:
            with contextlib.suppress(ConnectionLost, SessionMoved, TransactionAborted):
                reply = await session.request(Multi([Create2(path, b"", OPEN_ACL)]))
                reply.value.raise_for_error()

        async with asyncio.timeout(DEADLINE):
            while await judge.node(path) is None:
                await make()
                await session.wait_connected()
        assert peer.states == ["connected", "suspended", "reconnected"]


# ---------------------------------------------------------------- a follower without its leader


async def test_follower_cut_off_from_its_leader(ensemble: ZooKeeperEnsemble) -> None:
    leader, follower = ensemble.leader(), ensemble.followers()[0]
    async with (
        Scene(follower.address, judged_at=leader.address, session_timeout=TIMEOUT) as scene,
        await wire.connect(follower.address) as beside,
        meanwhile(reading(scene.publisher)),
        meanwhile(reading(scene.consumer)),
    ):
        owner: int | None = scene.session_id
        ensemble.cut_off(follower)
        with scene.silence():
            while owner is not None:
                owner = await scene.judge.owner(scene.path)
                live = scene.registration.status is Status.LIVE
                check_owned(live=live, session_id=scene.session_id, owner=owner)
            # A client that takes reads and pings for life is misled: the follower still answers, and has the node.
            # A busy leader of 3.5 shows that it ended the session when it gives the follower up, and that one its
            # clients.
            if RELEASE >= (3, 6):
                await beside.ping()
                assert (await beside.get_data(scene.path)).stat.owner == scene.session_id
            assert scene.registration.status is Status.PRESUMED_GONE
            assert not scene.view.fresh
        ensemble.heal(follower)
        await scene.settled()
        assert scene.publisher.states == ["connected", "suspended", "expired", "connected"]


async def reading(peer: Peer) -> None:
    """The acts of an application, and the answers that do not count as a sign of the quorum's life."""
    while True:
        await peer.registry.services()
        await asyncio.sleep(0.02)


async def test_follower_cut_off_where_there_is_another(ensemble: ZooKeeperEnsemble) -> None:
    followers = {follower.port: follower for follower in ensemble.followers()}
    servers = ",".join(follower.address for follower in followers.values())
    async with Scene(servers, judged_at=ensemble.leader().address, session_timeout=LONG) as scene:
        left = scene.publisher.registry.session.server
        assert left is not None
        ensemble.cut_off(followers[left.port])
        await scene.settled()
        scene.check_session_kept()
        assert scene.publisher.registry.session.server != left


# ---------------------------------------------------------------- partitions


partitions = pytest.mark.parametrize("how", PARTITIONS)


@partitions
async def test_partition_that_is_hardly_noticed(proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer, how: str) -> None:
    async with Scene(proxy.address, judged_at=zookeeper.address, session_timeout=LONG) as scene:
        PARTITIONS[how].begin(proxy)
        with scene.silence():
            await asyncio.sleep(LONG / 20)
        PARTITIONS[how].end(proxy)
        await scene.settled()
        scene.check_session_kept()


@partitions
async def test_partition_that_is_noticed(proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer, how: str) -> None:
    async with Scene(proxy.address, judged_at=zookeeper.address, session_timeout=3.0) as scene:
        connections = proxy.connections
        PARTITIONS[how].begin(proxy)
        with scene.silence():
            await until(lambda: scene.registration.status is Status.UNCERTAIN and not scene.view.fresh)
            if how != "refused":
                # The held packets arrive late: handshakes of connections that were given up among it.
                await until(lambda: proxy.connections > connections)
        PARTITIONS[how].end(proxy)
        await scene.settled()
        scene.check_session_kept()


@partitions
async def test_partition_that_outlasts_the_session(scene: Scene, proxy: ZooKeeperProxy, how: str) -> None:
    PARTITIONS[how].begin(proxy)
    with scene.silence():
        if how != "silent-to-client":
            await scene.judge.node_until(scene.path, lambda node: node is None)
        await until(lambda: scene.registration.status is Status.PRESUMED_GONE and not scene.view.fresh)
        assert scene.id in scene.view.snapshot  # the last that is known
    PARTITIONS[how].end(proxy)
    await scene.settled()
    if how == "silent-to-client":  # every attempt to reconnect arrived, and kept the session alive
        scene.check_session_kept()
    else:
        assert scene.publisher.states == ["connected", "suspended", "expired", "connected"]
        assert Status.PRESUMED_GONE in scene.statuses


@pytest.mark.parametrize(
    ("cuts", "seconds"), [(20, 4.0), pytest.param(200, 60.0, marks=pytest.mark.soak)], ids=["20", "200"]
)
async def test_random_cuts(scene: Scene, proxy: ZooKeeperProxy, cuts: int, seconds: float) -> None:
    draw = random.Random(cuts)
    for _ in range(cuts):
        await asyncio.sleep(draw.uniform(0.0, 2 * seconds / cuts))
        proxy.cut(reset=draw.random() < 0.5)
    await scene.settled()
    scene.check_session_kept()


# ---------------------------------------------------------------- the session's end


async def test_expiry_forced_while_connected(scene: Scene, zookeeper: ZooKeeperServer) -> None:
    for peer in (scene.publisher, scene.consumer):
        session = session_of(peer.registry)
        await wire.force_expiry(zookeeper.address, session.id, password_of(session))
    await scene.settled()
    for peer in (scene.publisher, scene.consumer):
        assert len(peer.sessions) == 2
        assert peer.states[-3:] == ["suspended", "expired", "connected"]
    first, second = scene.publisher.sessions
    await until(lambda: [owner for owner in scene.chronicle.owners if owner is not None] == [first, second])


@contextlib.contextmanager
def tasks_made() -> Iterator[list[asyncio.Task[Any]]]:
    """The tasks that are made meanwhile."""
    loop = asyncio.get_running_loop()
    former, made = loop.get_task_factory(), list[asyncio.Task[Any]]()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        task = former(loop, coroutine, **options) if former else asyncio.Task(coroutine, loop=loop, **options)
        made.append(cast("asyncio.Task[Any]", task))
        return task

    loop.set_task_factory(make)
    try:
        yield made
    finally:
        loop.set_task_factory(former)


async def test_a_thousand_instances_through_an_expiry(zookeeper: ZooKeeperServer, judge: Judge) -> None:
    instances = [instance_of("crowd", id=f"{number:04}") for number in range(1000)]
    base = f"/{uuid.uuid4().hex}"
    async with (
        # A thousand withdrawals take half a second, and ten times that where they are traced on a busy machine.
        Peer(zookeeper.address, session_timeout=AGES, close_timeout=AGES, base_path=base) as publisher,
        Peer(zookeeper.address, session_timeout=AGES, base_path=base) as consumer,
    ):
        registrations = await asyncio.gather(*map(publisher.registry.register, instances))
        async with consumer.registry.discover("crowd") as view:
            await view.wait_for(lambda snapshot: len(snapshot) == 1000, timeout=DEADLINE)
            former = publisher.registry.session.id
            await wire.force_expiry(zookeeper.address, former, password_of(session_of(publisher.registry)))
            await view.wait_for(
                lambda snapshot: len(snapshot) == 1000 and all(e.owner != former for e in snapshot.entries.values()),
                timeout=DEADLINE,
            )
            owners = {entry.owner for entry in (await view.sync()).entries.values()}
            assert owners == {publisher.registry.session.id}
            assert all(registration.status is Status.LIVE for registration in registrations)
        with tasks_made() as made:
            await publisher.registry.aclose()
        assert Counter(registration.withdrawn for registration in registrations) == {True: 1000}
        assert len(made) < 20, "a task for each costs most of the bound, where there are ten thousand"
    assert await judge.children(f"{base}/crowd") == []


# ---------------------------------------------------------------- its node


async def test_own_node_deleted_by_hand(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        await scene.judge.delete(scene.path)
        await scene.settled()
    told = f"{scene.path} was deleted by somebody else; session {scene.session_id:#x} lasts"
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned[0].startswith(told)
    assert len(scene.publisher.sessions) == 1
    assert scene.publisher.states == ["connected"]


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
async def test_own_node_deleted_and_recreated_by_a_stranger(
    scene: Scene, proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer, seen: bool
) -> None:
    async with await wire.connect(zookeeper.address) as stranger:
        if not seen:
            proxy.silence()
        mine = await scene.judge.node(scene.path)
        assert mine is not None
        data = json.dumps(json.loads(mine.data) | {"payload": "stranger"}).encode()
        recreation = wire.delete(scene.path), wire.create2(scene.path, data, flags=wire.EPHEMERAL)
        assert [result.error for result in await stranger.multi(*recreation)] == [0, 0]
        if not seen:
            proxy.heal()
        async with asyncio.timeout(DEADLINE):
            cause = await scene.registration.wait_closed()
        assert isinstance(cause, RegistrationDisplaced)
        assert cause.owner == stranger.session_id
        assert scene.registration.status is Status.DISPLACED
        await scene.view.wait_for(lambda snapshot: snapshot["a"].payload == "stranger", timeout=DEADLINE)
        check_single(scene.chronicle.owners, {stranger.session_id: 1}, told=[scene.session_id])
        await scene.registration.aclose()
        assert scene.registration.withdrawn
        await scene.publisher.registry.aclose()
        assert await scene.judge.owner(scene.path) == stranger.session_id


async def test_persistent_node_in_the_way(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    path = f"{chroot}/services/chat/a"
    await judge.make(path, b"made by a person")
    before = await judge.node(path)
    async with Peer(f"{zookeeper.address}{chroot}", session_timeout=LONG) as peer:
        registration = peer.registry.register(instance_of("chat"))
        with pytest.raises(NodeNotEphemeral, match=path):
            _ = await registration
        assert registration.status is Status.FAILED
        async with peer.registry.register(instance_of("chat", id="b")) as other:
            assert other.status is Status.LIVE  # nothing else suffers
    assert await judge.node(path) == before


async def test_own_node_replaced_by_a_persistent_one(scene: Scene, zookeeper: ZooKeeperServer) -> None:
    async with await wire.connect(zookeeper.address) as person:
        await person.multi(wire.delete(scene.path), wire.create2(scene.path, b"made by a person"))
    before = await scene.judge.node(scene.path)
    async with asyncio.timeout(DEADLINE):
        cause = await scene.registration.wait_closed()
    assert isinstance(cause, NodeNotEphemeral)
    assert scene.path in str(cause)
    assert scene.registration.status is Status.FAILED
    await scene.view.wait_for(lambda snapshot: "a" in snapshot.invalid, timeout=DEADLINE)
    await scene.registration.aclose()
    assert await scene.judge.node(scene.path) == before


# ---------------------------------------------------------------- lost histories


async def live_on(scene: Scene) -> None:
    """Let the ensemble write so much that a new history does not soon come as far."""
    node = f"/{scene.name}"
    await scene.judge.make(node)
    for _ in range(200):
        await scene.judge.set_data(node, b"")


def check_roll_back_proven(scene: Scene) -> None:
    for peer in (scene.publisher, scene.consumer):
        assert [rollback["proven"] for rollback in peer.rollbacks] == [True]
        assert peer.states.count("expired") == 1


async def test_server_wiped(own_zookeeper: ZooKeeperServer) -> None:
    async with Scene(own_zookeeper.address, judged_at=own_zookeeper.address, session_timeout=LONG) as scene:
        await live_on(scene)
        await scene.settled()
        own_zookeeper.kill()
        own_zookeeper.wipe()
        await own_zookeeper.start()
        await scene.settled()
        check_roll_back_proven(scene)


async def test_a_lost_history_is_proven_by_the_first_few_handshakes(own_zookeeper: ZooKeeperServer) -> None:
    """An eighth of a second is between two of them: with four pauses it is listed again within half a second."""
    back, handshakes = True, 0

    def filter(frame: Frame) -> bytes | None:
        nonlocal handshakes
        handshakes += back and frame.up and frame.opcode == frame.xid == 0
        return frame.body if back else None

    async with (
        FrameProxy((own_zookeeper.host, own_zookeeper.port), filter) as proxy,
        Judge(own_zookeeper.address) as judge,
        Peer(proxy.address, session_timeout=AGES) as peer,
    ):
        registration = await peer.registry.register(instance_of("chat"))
        for _ in range(50):  # more than the new history will have
            await judge.set_data("/", b"")
        back = False
        proxy.cut()
        own_zookeeper.kill()
        own_zookeeper.wipe()
        await own_zookeeper.start()
        back, handshakes = True, 0
        node = await judge.node_until(registration.path, lambda node: node is not None, timeout=DEADLINE)
        assert node is not None
        assert handshakes <= 5
        await until(lambda: registration.status is Status.LIVE)
        assert node.stat.owner == peer.registry.session.id
        assert [rollback["proven"] for rollback in peer.rollbacks] == [True]


@pytest.mark.parametrize("knows_us", [True, False], ids=["with-our-session", "before-our-session"])
async def test_server_restored_from_an_older_copy(own_zookeeper: ZooKeeperServer, knows_us: bool) -> None:
    copy = own_zookeeper.snapshot_data()
    async with Scene(own_zookeeper.address, judged_at=own_zookeeper.address, session_timeout=LONG) as scene:
        if knows_us:
            copy = own_zookeeper.snapshot_data()
        await live_on(scene)
        await scene.settled()
        own_zookeeper.kill()
        own_zookeeper.restore_data(copy)
        await own_zookeeper.start()
        await scene.settled()
        check_roll_back_proven(scene)


async def test_ensemble_wiped(ensemble: ZooKeeperEnsemble) -> None:
    async with Scene(ensemble.connect_string, judged_at=ensemble.connect_string, session_timeout=LONG) as scene:
        await live_on(scene)
        await scene.settled()
        ensemble.kill()
        ensemble.wipe()
        await ensemble.start()
        await scene.settled()
        check_roll_back_proven(scene)


async def test_ensemble_restored_from_an_older_copy(ensemble: ZooKeeperEnsemble) -> None:
    async with Scene(ensemble.connect_string, judged_at=ensemble.connect_string, session_timeout=LONG) as scene:
        copies = ensemble.snapshot_data()
        for _ in range(2):  # each election begins an epoch; the one after the restoring begins one more
            ensemble.leader().kill()
            await ensemble.start()
        await scene.settled()
        ensemble.kill()
        ensemble.restore_data(copies)
        await ensemble.start()
        await scene.settled()
        check_roll_back_proven(scene)


async def test_ensemble_restored_into_the_epoch_it_was_in(ensemble: ZooKeeperEnsemble) -> None:
    copies = ensemble.snapshot_data()
    async with Scene(ensemble.connect_string, judged_at=ensemble.connect_string, session_timeout=LONG) as scene:
        await live_on(scene)
        await scene.settled()
        ensemble.kill()
        ensemble.restore_data(copies)
        await ensemble.start()
        # The election after the restoring began an epoch that nobody had seen: to clients this is a history that went
        # on, in which their sessions have ended.
        await scene.settled()
        assert scene.publisher.states == ["connected", "suspended", "expired", "connected"]


async def come_back_alone(peer: Peer) -> None:
    """Nobody else writes: what the servers tell of themselves is all that the client has to go by."""
    await until(lambda: bool(peer.rollbacks) and peer.registry.session.connected)
    assert [rollback["proven"] for rollback in peer.rollbacks] == [True]
    assert peer.states[-2:] == ["expired", "connected"]
    assert len(peer.sessions) == 2


async def test_a_lone_client_finds_its_server_restored_with_its_session(own_zookeeper: ZooKeeperServer) -> None:
    async with Peer(own_zookeeper.address, session_timeout=AGES) as peer:
        copy = own_zookeeper.snapshot_data()
        _ = await peer.registry.register(instance_of("chat"))  # so many transactions more
        own_zookeeper.kill()
        own_zookeeper.restore_data(copy)
        await own_zookeeper.start()
        await come_back_alone(peer)


@pytest.mark.soak
async def test_a_lone_client_finds_its_ensemble_restored_with_its_session(ensemble: ZooKeeperEnsemble) -> None:
    """The leader of a new epoch tells its beginning, which is no transaction, until somebody writes."""
    async with Peer(ensemble.connect_string, session_timeout=AGES) as peer:
        copies = ensemble.snapshot_data()
        ensemble.kill()
        await ensemble.start()
        await until(lambda: peer.registry.session.connected)
        _ = await peer.registry.register(instance_of("chat"))
        ensemble.kill()
        ensemble.restore_data(copies)
        await ensemble.start()  # into the epoch that the registration was in
        await come_back_alone(peer)


# ---------------------------------------------------------------- a server that comes late


async def test_server_comes_after_the_process() -> None:
    with (
        ZooKeeperServer(Settings(tick_time_ms=200)) as server,
        ZooKeeperProxy((server.host, server.port)) as proxy,
    ):
        async with Peer(proxy.address, session_timeout=TIMEOUT, wait=False) as peer:
            registration = await peer.registry.register(instance_of("chat"), wait=False)
            view = peer.registry.discover("chat")
            entering = asyncio.create_task(view.__aenter__())
            await until(lambda: proxy.connections > 12)  # each round waits longer, up to the cap
            assert registration.status is Status.REGISTERING
            await server.start()
            await registration.wait_live(timeout=DEADLINE)
            _ = await entering
            await view.wait_for(lambda snapshot: "a" in snapshot, timeout=DEADLINE)
            async with Judge(server.address) as judge:
                assert await judge.owner(registration.path) == peer.registry.session.id
                await registration.aclose()
                assert await judge.node(registration.path) is None
