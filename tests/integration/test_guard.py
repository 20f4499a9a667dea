"""The guard on servers: sessions that expire together, an ensemble that lost its data, and who leaves deliberately."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Self

import pytest
from aiozk import ACL

import aioregistry
from aioregistry import Guard, Registration, Registry, Resynced, ServiceInstance, Status, View
from aioregistry._errors import NoAuth
from aioregistry._markers import marker_name, marker_prefix
from aioregistry._protocol import OPEN_ACL, Create, Delete, Multi, SetData
from aioregistry.server import Ensemble, ZooKeeperServer
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support import wire
from tests.support.checkers import OrderedConsumer, check_converged, check_guarded
from tests.support.inside import driver_of, session_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer as RealZooKeeper

IDS = ["a", "b", "c", "d", "e"]
HELD = Guard(hold=300)  # for as long as the test takes
TIMEOUT = 20.0

BELIEVED_IN_QUIET, BELIEVED_AROUND_DISRUPTIONS = 2, 1
"""How many may be missing for a moment, where their removals are read one by one."""


def instance(id: str) -> ServiceInstance[Any]:
    return ServiceInstance("chat", id=id, address="10.0.0.7", port=7000)


class Crowd:
    """Five processes with an instance each, and a consumer that writes down who was ever missing."""

    def __init__(self, servers: str, *, seen_by: str | None = None, guard: Guard = HELD, **options: Any) -> None:
        self._servers, self._seen_by, self._guard = servers, seen_by or servers, guard
        self._options: dict[str, Any] = {"session_timeout": TIMEOUT} | options
        self._stack = contextlib.AsyncExitStack()
        self.registries: list[Registry] = []
        self.registrations: list[Registration[Any]] = []
        self.view: View[Any]
        self.fewest = len(IDS)
        self.loses_data = False
        """Zxids of before and after cannot be compared, also where the new ones have overtaken the old."""

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            for id in IDS:
                registry = await stack.enter_async_context(aioregistry.connect(self._servers, **self._options))
                self.registries.append(registry)
                self.registrations.append(await stack.enter_async_context(registry.register(instance(id))))
            self.observer: Registry = await stack.enter_async_context(
                aioregistry.connect(self._seen_by, guard=self._guard, **self._options)
            )
            self.view = await stack.enter_async_context(self.observer.discover("chat"))
            await self.view.wait_for(lambda snapshot: len(snapshot) == len(IDS), timeout=DEADLINE)
            self._following = asyncio.create_task(self._follow())
            stack.push_async_callback(self._stop)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _follow(self) -> None:
        async with self.view.changes() as changes:
            self.consumer = OrderedConsumer(changes.start.entries)
            async for change in changes:
                if self.loses_data and isinstance(change, Resynced):
                    self.consumer.rolled_back()
                self.consumer.apply(change)
                self.fewest = min(self.fewest, len(self.consumer.entries))

    async def _stop(self) -> None:
        if not self._following.done():
            self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following

    @property
    def view_generation(self) -> int:
        """Of the consumer's connection."""
        return session_of(self.observer).generation

    @property
    def sessions(self) -> list[int]:
        return [registry.session.id for registry in self.registries]

    async def all_confirmed(self) -> None:
        """Wait until everybody is listed again, by the session that it has now."""

        def owners() -> Sequence[int]:
            return [entry.owner for _, entry in sorted(self.view.snapshot.confirmed.entries.items())]

        await until(lambda: self.view.fresh and owners() == self.sessions)
        await until(lambda: all(each.status is Status.LIVE for each in self.registrations))
        check_guarded(suspects=dict.fromkeys(self.view.snapshot.suspects, 0.0), holds={}, listed=self.view.snapshot)


@pytest.fixture(params=["3.5", "3.8", "3.9"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ZooKeeperServer]:
    async with ZooKeeperServer(version=request.param, tick_time=1) as server:
        yield server


async def test_all_sessions_expire_at_once_and_nobody_is_missed(server: ZooKeeperServer) -> None:
    """Pit 12, before a consumer's eyes: its own session may live or expire too."""
    async with Crowd(server.address) as crowd:
        before = crowd.sessions
        for session_id in before:
            server.drop(session_id)
            server.expire(session_id)
        await until(lambda: not set(before) & set(crowd.sessions))
        await crowd.all_confirmed()
        for session in list(server.live_sessions()):
            server.expire(session.id)
        await crowd.all_confirmed()
        assert crowd.fewest >= len(IDS) - BELIEVED_IN_QUIET


async def test_an_ensemble_that_lost_its_data_takes_nobody_away() -> None:
    async with ZooKeeperServer(tick_time=1) as server, Crowd(server.address) as crowd:
        crowd.loses_data = True
        await server.stop()
        await server.start("lost")
        await crowd.all_confirmed()
        assert crowd.fewest >= len(IDS) - BELIEVED_AROUND_DISRUPTIONS


async def test_sessions_that_expire_under_a_new_leader_are_missed_by_nobody() -> None:
    """The epoch of what the consumer reads tells, before its own disruption does."""
    async with Ensemble(tick_time=1) as ensemble, Crowd(ensemble.connect_string) as crowd:
        before, generation = crowd.sessions, crowd.view_generation
        ensemble.change_leader()
        await until(lambda: crowd.view_generation > generation and crowd.view.fresh)
        for member in ensemble.members:
            member.refuse_connections()
        for session_id in before:
            for member in ensemble.members:
                member.drop(session_id)
            ensemble.expire(session_id)
        snapshot = await crowd.view.wait_for(lambda snapshot: len(snapshot.suspects) == 5, timeout=DEADLINE)
        assert {suspicion.reason for suspicion in snapshot.suspects.values()} == {"new leader"}
        for member in ensemble.members:
            member.refuse_connections(False)
        await until(lambda: not set(before) & set(crowd.sessions))
        await crowd.all_confirmed()
        assert crowd.fewest >= len(IDS) - BELIEVED_AROUND_DISRUPTIONS


async def test_instances_that_do_not_come_back_are_shown_until_the_hold_is_over() -> None:
    guard = Guard(hold=0.5, longest=0.5)
    async with ZooKeeperServer(tick_time=1) as server, Crowd(server.address, guard=guard) as crowd:
        server.refuse_connections()
        for session_id in crowd.sessions:
            server.drop(session_id)
            server.expire(session_id)
        snapshot = await crowd.view.wait_for(lambda snapshot: len(snapshot.suspects) == 5, timeout=DEADLINE)
        assert snapshot.confirmed == {}
        await crowd.view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
        assert crowd.view.held_total == 5
        server.refuse_connections(False)


async def test_a_mass_withdrawal_is_not_held(server: ZooKeeperServer) -> None:
    async with Crowd(server.address) as crowd:
        for registration in crowd.registrations:
            await registration.aclose()
        if server.settings.version == "3.5":  # which has no recursive watches, and so no markers
            await crowd.view.wait_for(lambda snapshot: len(snapshot.suspects) == 5, timeout=DEADLINE)
        else:
            await crowd.view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
            assert crowd.view.held_total == 0


async def test_rolling_back_to_older_servers_still_drains_without_doubt() -> None:
    """Disabled first: known without markers."""
    async with ZooKeeperServer(version="3.5", tick_time=1) as server, Crowd(server.address) as crowd:
        for registration in crowd.registrations:
            await registration.update(enabled=False)
            await registration.aclose()
        await crowd.view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
        assert crowd.view.held_total == 0


async def test_who_was_cut_off_while_instances_withdrew_holds_them(server: ZooKeeperServer) -> None:
    with ZooKeeperProxy((server.host, server.port)) as proxy:
        async with Crowd(server.address, seen_by=proxy.address) as crowd:
            proxy.refuse()
            proxy.cut()
            for registration in crowd.registrations[:2]:
                await registration.aclose()
            proxy.accept()
            snapshot = await crowd.view.wait_for(lambda snapshot: bool(snapshot.suspects), timeout=DEADLINE)
            assert list(snapshot.suspects) == ["a", "b"]
            assert list(snapshot.confirmed) == ["c", "d", "e"]


async def test_the_watch_on_the_markers_goes_with_the_last_view() -> None:
    async with (
        ZooKeeperServer(tick_time=1) as server,
        aioregistry.connect(server.address, session_timeout=TIMEOUT) as registry,
    ):
        first = await registry.discover("chat")
        second = await registry.discover("mail")
        unguarded = await registry.discover("chat", guard=None)
        watched = driver_of(session_of(registry)).watched
        assert watched.is_tree_armed("/services-withdrawn")
        await first.aclose()
        await second.aclose()
        assert not watched.is_tree_armed("/services-withdrawn")
        assert watched.is_tree_armed("/services/chat")
        await unguarded.aclose()
        await until(lambda: not any(watched._trees.values()))


CREDENTIALS = [("digest", "chat:secret")]
OURS = ACL.make("auth", "", read=True, write=True, create=True, delete=True, admin=True)
READABLE = ACL.make("world", "anyone", read=True)
PROTECTED: dict[str, Any] = {"auth": CREDENTIALS, "acl": [OURS, READABLE]}


async def withdraw_all(crowd: Crowd) -> None:
    for registration in crowd.registrations:
        await registration.aclose()
        assert registration.withdrawn


@pytest.mark.since(3, 6)
async def test_withdrawals_from_a_protected_service_are_believed(
    zookeeper: RealZooKeeper, judge: Judge, chroot: str
) -> None:
    root = f"{chroot}/services-withdrawn"
    async with Crowd(f"{zookeeper.address}{chroot}", **PROTECTED) as crowd:
        assert await judge.children(root) == []  # made before there was anything to withdraw
        with pytest.raises(wire.WireError) as raised:
            await judge.ask(wire.create(f"{root}/chat:a:1"))
        assert raised.value.code == -102
        await withdraw_all(crowd)
        await crowd.view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
        assert crowd.view.held_total == 0
        assert await judge.node(root) is not None


@pytest.mark.since(3, 6)
@pytest.mark.parametrize("whose", ["a stranger's root", "a stranger's view"])
async def test_markers_that_anybody_may_have_made_leave_the_guard_as_it_is(
    zookeeper: RealZooKeeper, judge: Judge, chroot: str, whose: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server hides digests from a view that may only read, and a digest of the same name may be a stranger's."""
    servers = f"{zookeeper.address}{chroot}"
    if whose == "a stranger's root":
        await judge.make(f"{chroot}/services-withdrawn")
    async with (
        Crowd(servers, **PROTECTED) as crowd,
        aioregistry.connect(servers, session_timeout=TIMEOUT, guard=HELD) as stranger,
        stranger.discover("chat") as seen_by_a_stranger,
    ):
        view = crowd.view if whose == "a stranger's root" else seen_by_a_stranger
        await view.wait_for(lambda snapshot: len(snapshot) == len(IDS), timeout=DEADLINE)
        await withdraw_all(crowd)
        await view.wait_for(lambda snapshot: len(snapshot.suspects) == len(IDS), timeout=DEADLINE)
    assert [record for record in caplog.records if "not proven by its marker" in record.getMessage()]


@pytest.mark.since(3, 6)
async def test_copied_markers_do_not_disarm_the_guard(
    zookeeper: RealZooKeeper, proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    """Everybody may write, and somebody writes exactly what a withdrawal does, but for the withdrawal."""
    servers = f"{proxy.address}{chroot}"
    async with Crowd(servers, seen_by=f"{zookeeper.address}{chroot}", session_timeout=1.0) as crowd:
        markers = [
            f"{chroot}/services-withdrawn/{marker_name(marker_prefix('chat', id), entry.czxid)}"
            for id, entry in crowd.view.snapshot.entries.items()
        ]
        proxy.silence()
        for marker in [*markers, *reversed(markers)]:
            await judge.ask(wire.multi([wire.create(marker), wire.delete(marker)]))
        for marker in markers:
            await judge.make(marker)
        await crowd.view.wait_for(lambda snapshot: len(snapshot.suspects) == len(IDS), timeout=DEADLINE)
        for marker in markers:
            await judge.delete(marker)
            await judge.ask(wire.multi([wire.create(marker), wire.delete(marker)]))
        await crowd.view.sync(DEADLINE)
        assert len(crowd.view.snapshot.suspects) == len(IDS)
        proxy.restore()
        await crowd.all_confirmed()


class Stranger(NamedTuple):
    """A writer to foreign nodes, their ACL, and whether that ACL allows the write."""

    acl: list[ACL]
    auth: list[tuple[str, str]]
    may_write: bool


EVERYBODY_HERE = ACL.make("ip", "127.0.0.1", read=True, write=True, create=True, delete=True, admin=True)
SOMEBODY_ELSEWHERE = ACL.make("ip", "192.0.2.7", read=True, write=True, create=True, delete=True, admin=True)
EVERYBODY_BUT_TO_WRITE = ACL.make("world", "anyone", read=True, create=True, delete=True)
STRANGERS = {
    "without credentials": Stranger([OURS, READABLE], [], False),
    "with credentials of his own": Stranger([OURS, READABLE], [("digest", "chat:guessed")], False),
    "from another address": Stranger([OURS, READABLE, SOMEBODY_ELSEWHERE], [], False),
    "with every right but to write": Stranger([OURS, EVERYBODY_BUT_TO_WRITE], [], False),
    "who has our credentials": Stranger([OURS, READABLE], CREDENTIALS, True),
    "from an address that may": Stranger([OURS, EVERYBODY_HERE], [], True),
}


@pytest.mark.since(3, 6)
@pytest.mark.parametrize("who", STRANGERS)
async def test_a_withdrawal_counts_if_its_writer_may_write_the_instance_itself(
    zookeeper: RealZooKeeper,
    proxy: ZooKeeperProxy,
    judge: Judge,
    chroot: str,
    who: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The service's node and the root of the markers are open: everybody may delete instances, and make markers."""
    servers, stranger = f"{zookeeper.address}{chroot}", STRANGERS[who]
    for path in ("/services", "/services/chat", "/services-withdrawn"):
        await judge.make(f"{chroot}{path}")
    async with (
        Crowd(f"{proxy.address}{chroot}", seen_by=servers, auth=CREDENTIALS, acl=stranger.acl) as crowd,
        aioregistry.connect(servers, session_timeout=TIMEOUT, auth=stranger.auth) as other,
    ):
        nodes = {
            f"{chroot}/services/chat/{id}": f"{chroot}/services-withdrawn/{marker_name(f'chat:{id}', entry.czxid)}"
            for id, entry in crowd.view.snapshot.entries.items()
        }
        session = session_of(other)
        as_we_do: list[Any] = []
        without_the_write: list[Any] = []
        for node, marker in nodes.items():
            without_the_write += [Create(marker, b"", OPEN_ACL), Delete(marker), Delete(node)]
            as_we_do += [Create(marker, b"", OPEN_ACL), Delete(marker), SetData(node, b""), Delete(node)]
        proxy.silence()  # nobody lists them anew before the view has shown what it makes of it
        reply = (await session.request(Multi(as_we_do))).value
        if stranger.may_write:
            reply.raise_for_error()
            await crowd.view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
            assert crowd.view.held_total == 0
        else:
            assert reply.failed is not None
            assert isinstance(reply.failed.error, NoAuth)
            (await session.request(Multi(without_the_write))).value.raise_for_error()
            await crowd.view.wait_for(lambda snapshot: len(snapshot.suspects) == len(IDS), timeout=DEADLINE)
            assert [record for record in caplog.records if "not proven by its marker" in record.getMessage()]
        proxy.restore()
        await crowd.all_confirmed()


@pytest.mark.since(3, 6)
async def test_who_may_write_his_instance_only_is_believed_when_he_withdraws_it(
    zookeeper: RealZooKeeper, judge: Judge, chroot: str
) -> None:
    for path in ("/services", "/services/chat", "/services-withdrawn"):
        await judge.make(f"{chroot}{path}")
    async with Crowd(f"{zookeeper.address}{chroot}", **PROTECTED) as crowd:
        await withdraw_all(crowd)
        await crowd.view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
        assert crowd.view.held_total == 0


@pytest.mark.since(3, 6)
async def test_who_may_not_write_his_own_instance_withdraws_it_without_a_marker(
    zookeeper: RealZooKeeper, judge: Judge, chroot: str
) -> None:
    acl = [ACL.make("world", "anyone", read=True, create=True, delete=True)]
    async with Crowd(f"{zookeeper.address}{chroot}", acl=acl) as crowd:
        await withdraw_all(crowd)
        await crowd.view.wait_for(lambda snapshot: len(snapshot.suspects) == len(IDS), timeout=DEADLINE)
    assert await judge.children(f"{chroot}/services/chat") == []


@pytest.mark.parametrize("base_path", ["/", "/deep/below"])
async def test_any_base_path(base_path: str) -> None:
    async with ZooKeeperServer(tick_time=1) as server, Crowd(server.address, base_path=base_path) as crowd:
        for registration in crowd.registrations:
            await registration.aclose()
        if base_path == "/":  # has no place for markers
            await crowd.view.wait_for(lambda snapshot: len(snapshot.suspects) == 5, timeout=DEADLINE)
        else:
            await crowd.view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)


async def test_pit_12_a_real_ensemble_that_lost_its_data(own_zookeeper: RealZooKeeper) -> None:
    async with Judge(own_zookeeper.address) as judge, Crowd(own_zookeeper.address) as crowd:
        crowd.loses_data = True
        await asyncio.to_thread(own_zookeeper.kill)
        await asyncio.to_thread(own_zookeeper.wipe)
        await own_zookeeper.start()
        await crowd.all_confirmed()
        assert crowd.fewest >= len(IDS) - BELIEVED_AROUND_DISRUPTIONS
        listed = dict.fromkeys(await judge.children("/services/chat"))
        check_converged(seen=dict.fromkeys(crowd.view.snapshot.confirmed), held=listed)
        for registration in crowd.registrations:
            await registration.aclose()
        await crowd.view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)


async def test_instances_publish_what_the_servers_granted() -> None:
    async with (
        ZooKeeperServer(tick_time=1, max_session_timeout=8) as server,
        aioregistry.connect(server.address, session_timeout=60, wait=False) as registry,
        registry.register(instance("a")) as registration,
        registry.discover("chat") as view,
    ):
        await view.wait_for(lambda snapshot: "a" in snapshot, timeout=DEADLINE)
        assert registration.instance.session_timeout_ms == 8000
        await view.wait_for(lambda snapshot: snapshot["a"].session_timeout_ms == 8000, timeout=DEADLINE)
        assert view.snapshot["a"] == instance("a")
