"""The facts of ZooKeeper that the design relies on, shown on the server itself.

A test that fails here says that ZooKeeper is not what the library was built on. Where releases differ the test says
how.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from aioregistry.testing._proxy import ZooKeeperProxy
from tests.conftest import StartZooKeeper
from tests.support import wire
from tests.support.judge import Chronicle, Judge
from tests.support.wire import CHANGED, CHILDREN_CHANGED, CREATED, DELETED, EPHEMERAL, Wire
from tests.support.zookeeper import Settings, ZooKeeperEnsemble, ZooKeeperServer

RUNTIME_INCONSISTENCY, MARSHALLING_ERROR, UNIMPLEMENTED = -2, -5, -6
NO_NODE, BAD_VERSION, NODE_EXISTS, SESSION_MOVED, NOT_READ_ONLY = -101, -103, -110, -118, -119
ANY_WATCH = 3

OneShot = Callable[..., wire.Operation]


@pytest.fixture
async def session(zookeeper: ZooKeeperServer) -> AsyncIterator[Wire]:
    async with await wire.connect(zookeeper.address) as session:
        yield session


@pytest.fixture
async def other(zookeeper: ZooKeeperServer) -> AsyncIterator[Wire]:
    """A second session, of another process."""
    async with await wire.connect(zookeeper.address) as session:
        yield session


def release(server: ZooKeeperServer) -> tuple[int, ...]:
    return tuple(map(int, server.version.split(".")))


async def events(watcher: Wire) -> list[tuple[int, str]]:
    """The events of `watcher` by now: events precede the reply to any later request."""
    await watcher.sync()
    told = [(event.type, event.path) for event in watcher.events]
    watcher.events.clear()
    return told


def take_over(path: str, data: bytes) -> list[wire.Operation]:
    """The takeover of a node at version 0 that leaves another version behind."""
    return [wire.delete(path, 0), wire.create2(path, data, flags=EPHEMERAL), wire.set_data(path, data, 0)]


class TestOwnership:
    async def test_delete_of_version_0_deletes_a_successors_node(self, session: Wire, other: Wire, chroot: str) -> None:
        """A version is no identity: the successor's node has version 0 as the old one had."""
        path = f"{chroot}/node"
        await session.create(path, flags=EPHEMERAL)
        await other.multi(wire.delete(path), wire.create(path, flags=EPHEMERAL))
        await session.delete(path, 0)
        assert await other.exists(path) is None

    async def test_two_claimants_by_delete_and_create_both_succeed(
        self, session: Wire, other: Wire, judge: Judge, chroot: str
    ) -> None:
        path = f"{chroot}/ghost"
        await judge.make(path)
        for claimant in (session, other):
            results = await claimant.multi(wire.delete(path, 0), wire.create(path, flags=EPHEMERAL))
            assert [result.error for result in results] == [0, 0]
        assert await judge.owner(path) == other.session_id

    async def test_fence_stops_the_second_claimant_and_the_one_that_leaves(
        self, zookeeper: ZooKeeperServer, session: Wire, other: Wire, judge: Judge, chroot: str
    ) -> None:
        path = f"{chroot}/ghost"
        ghost = await wire.connect(zookeeper.address)
        await ghost.create(path, flags=EPHEMERAL)

        assert [result.error for result in await session.multi(*take_over(path, b"first"))] == [0, 0, 0]
        second = await other.multi(*take_over(path, b"second"))
        assert second[0].error == BAD_VERSION
        with pytest.raises(wire.WireError) as leaving:
            await ghost.delete(path, 0)
        assert leaving.value.code == BAD_VERSION

        await ghost.close()
        node = await judge.node(path)
        assert node is not None
        assert (node.data, node.stat.owner, node.stat.version) == (b"first", session.session_id, 1)

    async def test_closing_a_session_deletes_by_owner(
        self, session: Wire, other: Wire, judge: Judge, chroot: str
    ) -> None:
        await session.create(f"{chroot}/lost", flags=EPHEMERAL)
        await session.create(f"{chroot}/kept", flags=EPHEMERAL)
        await other.multi(wire.delete(f"{chroot}/kept"), wire.create(f"{chroot}/kept", flags=EPHEMERAL))
        await session.close()
        assert await judge.children(chroot) == ["kept"]

    async def test_closing_a_session_catches_what_was_in_flight(
        self, zookeeper: ZooKeeperServer, judge: Judge, chroot: str
    ) -> None:
        session = await wire.connect(zookeeper.address)
        for number in range(100):
            session.send(wire.create(f"{chroot}/{number}", flags=EPHEMERAL))
        await session.close()
        assert await judge.children(chroot) == []

    async def test_wiped_server_gives_the_same_identities_to_other_nodes(self, own_zookeeper: ZooKeeperServer) -> None:
        identities = []
        for data in (b"before", b"after"):
            async with await wire.connect(own_zookeeper.address) as session:
                await session.create("/node", data)
                stat = (await session.get_data("/node")).stat
                identities.append((stat.czxid, stat.mzxid, stat.version))
            own_zookeeper.kill()
            own_zookeeper.wipe()
            await own_zookeeper.start()
        assert identities[0] == identities[1]

    async def test_containers_and_nodes_with_a_lifetime_show_no_owner(self, session: Wire, chroot: str) -> None:
        """The server's mark there for them (Long.MIN_VALUE, 0xff and the lifetime) does not come out in a Stat."""
        await session.ask(wire.create(f"{chroot}/c", flags=wire.CONTAINER, opcode=wire.CREATE_CONTAINER))
        await session.ask(wire.create(f"{chroot}/t", flags=wire.TTL, opcode=wire.CREATE_TTL, ttl_ms=60_000))
        assert [(await session.get_data(f"{chroot}/{name}")).stat.owner for name in "ct"] == [0, 0]


class TestTransactions:
    async def test_failed_multi_has_its_code_inside(self, session: Wire, chroot: str) -> None:
        reply = await session.ask(wire.multi([wire.create(f"{chroot}/a"), wire.delete(f"{chroot}/absent")]))
        assert reply.error == 0
        assert [result.error for result in reply.body.results()] == [0, NO_NODE]

        results = await session.multi(wire.create(chroot), wire.create(f"{chroot}/a"))
        assert [result.error for result in results] == [NODE_EXISTS, RUNTIME_INCONSISTENCY]
        assert await session.exists(f"{chroot}/a") is None

    async def test_create2_inside_a_multi_comes_back_without_its_stat(
        self, zookeeper: ZooKeeperServer, session: Wire, chroot: str
    ) -> None:
        """Before 3.9 it is read as a plain create; a setData behind it tells the czxid, a createContainer has its own
        Stat."""
        path = f"{chroot}/node"
        created, changed, container = await session.multi(
            wire.create2(path),
            wire.set_data(path, b"data", 0),
            wire.create(f"{chroot}/c", flags=wire.CONTAINER, opcode=wire.CREATE_CONTAINER),
        )
        assert (created.stat is None) == (release(zookeeper) < (3, 9))
        assert changed.stat == (await session.get_data(path)).stat
        assert container.stat == (await session.get_data(f"{chroot}/c")).stat

    async def test_multi_is_atomic_for_who_reads(
        self, zookeeper: ZooKeeperServer, session: Wire, judge: Judge, chroot: str
    ) -> None:
        path = f"{chroot}/node"
        await judge.make(path)
        async with Chronicle(zookeeper.address, path) as chronicle:
            for number in range(300):
                await session.multi(wire.delete(path), wire.create(path, b"%d" % number))
        assert len(chronicle.sights) > 2
        assert None not in chronicle.owners

    @pytest.mark.since(3, 6)
    async def test_multi_shows_deleted_then_created_to_who_watches(
        self, session: Wire, other: Wire, chroot: str
    ) -> None:
        path = f"{chroot}/node"
        await session.create(path)
        await other.add_watch(chroot)
        await session.multi(wire.delete(path), wire.create(path))
        assert await events(other) == [(DELETED, path), (CREATED, path)]

    @pytest.mark.since(3, 6)
    async def test_trace_of_a_deliberate_leave(self, session: Wire, other: Wire, judge: Judge, chroot: str) -> None:
        """Created and deleted in the transaction that deletes the node, under a root of its own: seen, and gone."""
        node, mark = f"{chroot}/services/node", f"{chroot}/left/node"
        for parent in ("services", "left"):
            await judge.make(f"{chroot}/{parent}")
            await other.add_watch(f"{chroot}/{parent}")
        await session.create(node, flags=EPHEMERAL)
        assert await events(other) == [(CREATED, node)]
        await session.multi(wire.create(mark), wire.delete(mark), wire.delete(node, 0))
        assert await events(other) == [(CREATED, mark), (DELETED, mark), (DELETED, node)]
        assert await judge.children(f"{chroot}/left") == []

    async def test_failing_write_moves_the_zxid_of_the_header(self, session: Wire, chroot: str) -> None:
        zxids = []
        for _ in range(2):
            reply = await session.reply(session.send(wire.delete(f"{chroot}/absent")))
            assert reply.error == NO_NODE
            zxids.append(reply.zxid)
        assert zxids[0] < zxids[1]

    async def test_request_over_jute_maxbuffer_loses_the_connection(
        self, zookeeper: ZooKeeperServer, session: Wire, chroot: str
    ) -> None:
        """The whole request counts: less than 1 MiB of data is too much already."""
        header = 8
        overhead = header + len(wire.create(f"{chroot}/node").body)
        await session.create(f"{chroot}/node", bytes(0xFFFFF - overhead))
        session.send(wire.create(f"{chroot}/more", bytes(0xFFFFF - overhead + 1)))
        await session.closed()


class TestSessions:
    async def test_expires_within_the_timeout_and_one_and_a_half_ticks(self, start_zookeeper: StartZooKeeper) -> None:
        tick, timeout = 1.0, 2.0
        server = await start_zookeeper(tick_time_ms=1000)
        async with Judge(server.address) as judge:
            session = await wire.connect(server.address, timeout_ms=2000)
            await session.create("/node", flags=EPHEMERAL)
            sent = time.monotonic()
            await session.ping()
            answered = time.monotonic()
            await judge.node_until("/node", lambda node: node is None)
            assert time.monotonic() - sent > timeout
            assert time.monotonic() - answered < timeout + 1.5 * tick
            await session.closed()

    async def test_server_that_comes_back_restarts_all_timers(self, own_zookeeper: ZooKeeperServer) -> None:
        session = await wire.connect(own_zookeeper.address, timeout_ms=2500)
        await session.create("/node", flags=EPHEMERAL)
        own_zookeeper.kill()
        await asyncio.sleep(3.0)  # longer than the session may be silent
        await own_zookeeper.start()
        async with await wire.connect(
            own_zookeeper.address, session_id=session.session_id, password=session.password
        ) as again:
            assert (await again.get_data("/node")).stat.owner == session.session_id
        session.abandon()

    @pytest.mark.since(3, 6)
    async def test_expiry_looks_like_closing_to_who_watches(
        self, zookeeper: ZooKeeperServer, other: Wire, chroot: str
    ) -> None:
        path = f"{chroot}/node"
        await other.add_watch(chroot)
        told = []
        for timeout_ms in (500, 30_000):
            session = await wire.connect(zookeeper.address, timeout_ms=timeout_ms)
            await session.create(path, flags=EPHEMERAL)
            if timeout_ms > 500:
                await session.close()
            told.append([(event.type, event.path) for event in [await other.event(), await other.event()]])
            session.abandon()
        assert told == [[(CREATED, path), (DELETED, path)]] * 2

    async def test_server_behind_the_clients_zxid_closes_without_a_word(
        self, zookeeper: ZooKeeperServer, session: Wire
    ) -> None:
        with pytest.raises(wire.WireClosed):
            await wire.connect(zookeeper.address, last_zxid=session.zxid + 1_000_000)
        with pytest.raises(wire.WireClosed):
            await wire.connect(
                zookeeper.address,
                session_id=session.session_id,
                password=session.password,
                last_zxid=session.zxid + 1_000_000,
            )
        await session.ping()  # nothing happened to it

    async def test_late_connect_request_steals_the_session(self, zookeeper: ZooKeeperServer, chroot: str) -> None:
        """A socket given up before its ConnectRequest was answered can still take the session away."""
        first = await wire.connect(zookeeper.address)
        with_old_socket = {"session_id": first.session_id, "password": first.password}
        with ZooKeeperProxy((zookeeper.host, zookeeper.port)) as slow:
            slow.silence()
            late = asyncio.create_task(wire.connect(slow.address, **with_old_socket))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            second = await wire.connect(zookeeper.address, **with_old_socket)  # type: ignore[arg-type]
            await first.closed()
            await second.ping()
            slow.heal()
            async with await late as thief:
                assert thief.session_id == first.session_id
                await second.closed()

    async def test_refused_session_is_said_to_have_expired(self, zookeeper: ZooKeeperServer, session: Wire) -> None:
        with pytest.raises(wire.SessionRefused):
            await wire.connect(zookeeper.address, session_id=session.session_id, password=b"wrong".ljust(16))
        with pytest.raises(wire.SessionRefused):
            await wire.connect(zookeeper.address, session_id=0x1234, password=session.password)


class TestOpcodes:
    async def test_unknown_opcode_is_refused_and_the_connection_closed(self, zookeeper: ZooKeeperServer) -> None:
        session = await wire.connect(zookeeper.address)
        reply = await session.reply(session.send(wire.Operation(12345, b"")))
        assert (reply.error, reply.zxid) == (UNIMPLEMENTED, -1)
        await session.closed()
        async with await wire.connect(
            zookeeper.address, session_id=session.session_id, password=session.password
        ) as again:
            assert again.session_id == session.session_id

    async def test_what_is_sent_behind_an_unknown_opcode_may_be_applied(
        self, zookeeper: ZooKeeperServer, judge: Judge, chroot: str
    ) -> None:
        """The server goes on with what it has read, until the connection is closed: mostly, not always."""
        for number in range(20):
            session = await wire.connect(zookeeper.address)
            session.send(wire.Operation(12345, b""))
            session.send(wire.create(f"{chroot}/{number}"))
            await session.closed()
        assert await judge.children(chroot) != []

    @pytest.mark.parametrize(
        "operation",
        [
            wire.multi([wire.get_data("/")], opcode=wire.MULTI_READ),
            wire.add_watch("/"),
            wire.Operation(103, wire.exists("/").body),
            wire.Operation(104, wire.exists("/").body),
            wire.Operation(107, b""),
        ],
        ids=["MultiRead", "AddWatch", "GetEphemerals", "GetAllChildrenNumber", "WhoAmI"],
    )
    async def test_what_came_with_3_6_is_unknown_before(
        self, zookeeper: ZooKeeperServer, operation: wire.Operation
    ) -> None:
        session = await wire.connect(zookeeper.address)
        reply = await session.reply(session.send(operation))
        if release(zookeeper) >= (3, 6):
            assert reply.error == 0
            await session.close()
        else:
            assert (reply.error, reply.zxid) == (UNIMPLEMENTED, -1)
            await session.closed()

    async def test_create_with_lifetime_is_refused_where_it_is_off_and_the_connection_kept(
        self, start_zookeeper: StartZooKeeper
    ) -> None:
        server = await start_zookeeper(extended_types=False)
        async with await wire.connect(server.address) as session:
            with pytest.raises(wire.WireError) as refused:
                await session.ask(wire.create("/node", flags=wire.TTL, opcode=wire.CREATE_TTL, ttl_ms=1000))
            assert refused.value.code == UNIMPLEMENTED
            await session.ping()

    @pytest.mark.since(3, 6)
    async def test_multi_read_gives_data_with_stat_and_children_without(
        self, session: Wire, judge: Judge, chroot: str
    ) -> None:
        await judge.make(f"{chroot}/a", b"data")
        reply = await session.ask(
            wire.multi(
                [wire.get_data(f"{chroot}/a"), wire.get_data(f"{chroot}/no"), wire.get_children(chroot, opcode=8)],
                opcode=wire.MULTI_READ,
            )
        )
        there, missing, children = reply.body.results()
        assert (there.data, there.stat) == await session.get_data(f"{chroot}/a")
        assert missing.error == NO_NODE
        assert children.children == ["a"]

    @pytest.mark.since(3, 6)
    @pytest.mark.parametrize("operation", [wire.exists("/"), wire.get_children("/"), wire.create("/never")])
    async def test_multi_read_with_anything_else_fails_whole(self, session: Wire, operation: wire.Operation) -> None:
        with pytest.raises(wire.WireError) as failed:
            await session.ask(wire.multi([wire.get_data("/"), operation], opcode=wire.MULTI_READ))
        assert failed.value.code == MARSHALLING_ERROR
        await session.ping()

    @pytest.mark.since(3, 6)
    async def test_multi_read_sets_no_watch(self, session: Wire, other: Wire, chroot: str) -> None:
        await session.ask(wire.multi([wire.get_data(chroot, watch=True)], opcode=wire.MULTI_READ))
        await other.set_data(chroot, b"changed")
        assert await events(session) == []


@pytest.mark.since(3, 6)
class TestWatches:
    async def test_recursive_watch_tells_of_what_is_below_and_needs_no_node(
        self, session: Wire, other: Wire, chroot: str
    ) -> None:
        root, path = f"{chroot}/root", f"{chroot}/root/a/b"
        await other.add_watch(root)
        for operation in (
            *(wire.create(node) for node in (root, f"{root}/a", path)),
            wire.set_data(path, b"data"),
            *(wire.delete(node) for node in (path, f"{root}/a", root)),
        ):
            await session.ask(operation)
        assert await events(other) == [
            (CREATED, root), (CREATED, f"{root}/a"), (CREATED, path), (CHANGED, path),
            (DELETED, path), (DELETED, f"{root}/a"), (DELETED, root),
        ]  # fmt: skip

    async def test_recursive_watch_replays_nothing(
        self, zookeeper: ZooKeeperServer, session: Wire, chroot: str
    ) -> None:
        watcher = await wire.connect(zookeeper.address)
        await watcher.add_watch(chroot)
        watcher.abandon()
        await session.create(f"{chroot}/missed")
        async with await wire.connect(
            zookeeper.address, session_id=watcher.session_id, password=watcher.password, last_zxid=watcher.zxid
        ) as again:
            assert await events(again) == []
            await again.add_watch(chroot)
            assert await events(again) == []
            await session.create(f"{chroot}/seen")
            assert await events(again) == [(CREATED, f"{chroot}/seen")]

    @pytest.mark.parametrize("one_shot", [wire.exists, wire.get_data])
    async def test_one_shot_watch_replaces_the_recursive_one(
        self, zookeeper: ZooKeeperServer, session: Wire, other: Wire, chroot: str, one_shot: OneShot
    ) -> None:
        """ZOOKEEPER-4466, mended in 3.9: what is created and changed below falls silent, only what is deleted is
        told."""
        path = f"{chroot}/node"
        await other.add_watch(chroot)
        await other.ask(one_shot(chroot, watch=True))
        await session.create(path)
        await session.set_data(path, b"data")
        await session.delete(path)
        mended = release(zookeeper) >= (3, 9)
        assert await events(other) == [*([(CREATED, path), (CHANGED, path)] if mended else []), (DELETED, path)]

    async def test_child_watch_spares_the_recursive_one(self, session: Wire, other: Wire, chroot: str) -> None:
        path = f"{chroot}/node"
        await other.add_watch(chroot)
        await other.get_children(chroot, watch=True)
        await session.create(path)
        await session.set_data(path, b"data")
        await session.delete(path)
        assert sorted(await events(other)) == sorted(
            [(CREATED, path), (CHILDREN_CHANGED, chroot), (CHANGED, path), (DELETED, path)]
        )

    async def test_removing_any_watch_removes_both_kinds(self, session: Wire, other: Wire, chroot: str) -> None:
        await other.add_watch(chroot)
        await other.get_children(chroot, watch=True)
        await other.ask(wire.remove_watches(chroot, ANY_WATCH))
        await session.create(f"{chroot}/node")
        assert await events(other) == []

    @pytest.mark.parametrize("kind", [4, 5])
    async def test_removing_a_persistent_watch_alone_came_with_3_9(
        self, zookeeper: ZooKeeperServer, session: Wire, chroot: str, kind: int
    ) -> None:
        await session.add_watch(chroot, kind - 4)
        reply = await session.reply(session.send(wire.remove_watches(chroot, kind)))
        assert reply.error == (0 if release(zookeeper) >= (3, 9) else MARSHALLING_ERROR)

    async def test_events_tell_no_zxid_before_3_9(
        self, zookeeper: ZooKeeperServer, session: Wire, other: Wire, chroot: str
    ) -> None:
        await other.add_watch(chroot)
        await session.create(f"{chroot}/node")
        event = await other.event()
        assert (event.zxid > 0) == (release(zookeeper) >= (3, 9))

    async def test_recursive_watch_outlives_a_reaped_container(self, session: Wire, other: Wire, chroot: str) -> None:
        """The shared server sweeps twice a second; by default it is once a minute."""
        container, path = f"{chroot}/container", f"{chroot}/container/node"
        await session.ask(wire.create(container, flags=wire.CONTAINER, opcode=wire.CREATE_CONTAINER))
        await other.add_watch(container)
        await session.create(path)
        await session.delete(path)
        told = [(event.type, event.path) for event in [await other.event() for _ in range(3)]]
        assert told == [(CREATED, path), (DELETED, path), (DELETED, container)]
        await session.create(container)
        assert await events(other) == [(CREATED, container)]

    async def test_optimized_watch_manager_has_no_recursive_watches(self, start_zookeeper: StartZooKeeper) -> None:
        name = "org.apache.zookeeper.server.watch.WatchManagerOptimized"
        server = await start_zookeeper(properties={"zookeeper.watchManagerName": name})
        async with await wire.connect(server.address) as session:
            with pytest.raises(wire.WireError) as refused:
                await session.add_watch("/")
            assert refused.value.code == MARSHALLING_ERROR


class TestEnsemble:
    async def test_follower_cut_off_answers_on_after_the_session_expired(self, ensemble: ZooKeeperEnsemble) -> None:
        """Contact is not life: pings and reads are answered, a sync is not."""
        path = "/contact-is-not-life"
        follower, leader = ensemble.followers()[0], ensemble.leader()
        session = await wire.connect(follower.address, timeout_ms=1000)
        await session.create(path, flags=EPHEMERAL)
        ensemble.cut_off(follower)

        async with Judge(leader.address) as judge, asyncio.TaskGroup() as tasks:
            expired = tasks.create_task(judge.node_until(path, lambda node: node is None))
            while not expired.done():
                await session.ping()
                await asyncio.sleep(0.05)
        await session.ping()
        assert (await session.get_data(path)).stat.owner == session.session_id

        synced = session.send(wire.sync("/"))
        with pytest.raises(wire.WireClosed):
            await session.reply(synced)

    @pytest.mark.parametrize("write", [wire.set_data("/left", b"left"), wire.multi([wire.delete("/left")])])
    async def test_connection_left_behind_by_its_session_reads_and_cannot_write(
        self, ensemble: ZooKeeperEnsemble, write: wire.Operation
    ) -> None:
        path = "/left"
        here, there = ensemble.followers()
        async with Judge(here.address) as judge:
            await judge.make(path)
            left = await wire.connect(here.address)
            moved = await wire.connect(there.address, session_id=left.session_id, password=left.password)
            try:
                await left.ask(wire.get_data(path, watch=True))
                await moved.set_data(path, b"moved")
                event = await left.event()
                assert (event.type, event.path) == (CHANGED, path)
                assert (await left.get_data(path)).data == b"moved"
                await left.ping()
                written = left.send(write)
                if release(here) < (3, 6) and write.opcode == wire.MULTI:
                    (result,) = (await left.reply(written)).body.results()
                    assert result.error == SESSION_MOVED
                    await left.sync()  # it answers even that
                else:
                    with pytest.raises(wire.WireClosed):
                        await left.reply(written)
                assert (await moved.get_data(path)).data == b"moved"
            finally:
                left.abandon()
                moved.abandon()

    async def test_fresh_session_has_seen_all_that_was_committed(self, ensemble: ZooKeeperEnsemble) -> None:
        """createSession goes through the quorum and is applied before its answer, on whatever member."""
        async with await wire.connect(ensemble.leader().address) as writer:
            for number in range(20):
                path = await writer.create(f"/committed-{number}-", flags=wire.SEQUENTIAL)
                for member in ensemble.followers():
                    async with await wire.connect(member.address) as fresh:
                        assert await fresh.exists(path) is not None

    @pytest.mark.parametrize("local_sessions", [True, False])
    async def test_read_only_member_refuses_known_sessions_and_invents_local_ones(
        self, *, local_sessions: bool
    ) -> None:
        """Strangers get a local session where the ensemble has such; elsewhere a refusal without a ConnectResponse.
        Before 3.6 whoever wants to read is taken."""
        with ZooKeeperEnsemble(Settings(read_only_mode=True, local_sessions=local_sessions)) as ensemble:
            await ensemble.start()
            left = ensemble.members[0]
            known = await wire.connect(left.address)
            await known.create("/node", flags=EPHEMERAL)
            for member in ensemble.members[1:]:
                member.kill()
            await known.closed()
            async with asyncio.timeout(30):
                while left.mode != "read-only":
                    await asyncio.sleep(0.05)

            mine = {"session_id": known.session_id, "password": known.password}
            for identity in (mine, {}):
                with pytest.raises(wire.WireClosed):
                    await wire.connect(left.address, read_only=False, **identity)  # type: ignore[arg-type]
            before_3_6 = release(left) < (3, 6)
            if before_3_6:
                again = await wire.connect(left.address, read_only=True, **mine)  # type: ignore[arg-type]
                assert (again.read_only, again.session_id) == (True, known.session_id)
                again.abandon()
            else:
                with pytest.raises(wire.WireClosed):
                    await wire.connect(left.address, read_only=True, **mine)  # type: ignore[arg-type]
            if local_sessions or before_3_6:
                async with await wire.connect(left.address, read_only=True) as stranger:
                    assert stranger.read_only
                    assert await stranger.exists("/node") is not None
                    assert (await stranger.reply(stranger.send(wire.create("/other")))).error == NOT_READ_ONLY
            else:
                with pytest.raises(wire.WireError) as refused:
                    await wire.connect(left.address, read_only=True)
                assert refused.value.code == NOT_READ_ONLY
