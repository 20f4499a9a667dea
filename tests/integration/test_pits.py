"""The pits that this library exists for, each by its number, on a real ZooKeeper.

Number 12 is in `test_guard.py`. Number 13, a caller that blocks its loop, is in `tests/threads`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import aioregistry
from aioregistry import Added, ConnectTimeout, Removed, Resynced, SessionState, Status, View
from aioregistry._discovery import Changes
from aioregistry._runtime import Endpoint, SystemRuntime
from aioregistry.testing._proxy import Direction, ZooKeeperProxy
from tests.cli.command import Command
from tests.conftest import StartZooKeeper
from tests.integration.monitored import Claim, boot
from tests.integration.scene import PARTITIONS, Scene, instance_of, meanwhile
from tests.support import wire
from tests.support.checkers import (
    OrderedConsumer,
    check_bounded,
    check_converged,
    check_honest,
    check_legal,
    check_owned,
    check_published,
    check_single,
    check_withdrawn,
)
from tests.support.inside import password_of, session_of
from tests.support.judge import NO_NODE, Chronicle, Judge
from tests.support.leftovers import nothing_left
from tests.support.waiting import DEADLINE, until
from tests.support.wire import CREATED, DELETED, Node, Wire
from tests.support.zookeeper import RELEASE, ZooKeeperServer

SHORT = 1.0
"""Seconds: the timeout of a session that is to end by itself."""
LONG = 60.0
"""Seconds: the timeout of a session that must not, however slow the machine."""
SLACK = 5.0
"""Seconds that a busy machine may add to a bound; whoever keeps none takes LONG."""
SERVICE = "/services/chat"
NODE = f"{SERVICE}/a"
REGISTER = ("register", "chat", "--id", "a", "--address", "127.0.0.1", "--port", "7000")

Away = Callable[[ZooKeeperProxy], None]
away_in_any_way = pytest.mark.parametrize(
    "away", [PARTITIONS["refused"].begin, PARTITIONS["silent"].begin], ids=["refused", "silent"]
)


def document(id: str, *, name: str = "chat", payload: object = None) -> bytes:
    """An instance as another program may write it."""
    return json.dumps({"name": name, "id": id, "address": "127.0.0.1", "port": 7000, "payload": payload}).encode()


WANTED = [document("a")]


def essence(node: Node | None) -> bytes | None:
    """The contents of a node, as `document` writes it."""
    if node is None:
        return None
    fields = json.loads(node.data)
    return document(fields["id"], name=fields["name"], payload=fields["payload"])


async def sessions(server: ZooKeeperServer) -> set[int]:
    """The sessions that the server keeps, with a connection or without."""
    # It keeps them by the tick that they end at. One that is moved to a later tick while it reads that list out may be
    # in neither (ExpiryQueue.update, dump): what one reading misses the next one has.
    return await _sessions_read_out(server) | await _sessions_read_out(server)


async def _sessions_read_out(server: ZooKeeperServer) -> set[int]:
    lines = (await server.four_letter("dump")).partition("ephemeral nodes dump")[0].splitlines()
    return {int(line, 16) for line in lines if line.startswith("\t0x")}


async def ended(server: ZooKeeperServer, session_id: int) -> None:
    """Return when the server has ended the session."""
    async with asyncio.timeout(DEADLINE):
        while session_id in await sessions(server):
            await asyncio.sleep(0.01)


async def check_view(view: View[Any], judge: Judge, service: str) -> None:
    """The view shows what there is."""
    snapshot = await view.sync(DEADLINE)
    nodes = {name: await judge.node(f"{service}/{name}") for name in await judge.children(service)}
    check_converged(
        seen={id: (entry.czxid, entry.mzxid) for id, entry in snapshot.entries.items()},
        held={id: (node.stat.czxid, node.stat.mzxid) for id, node in nodes.items() if node is not None},
    )


class Reader:
    """A client of another library: reads one node over and over on one connection, and has a watch on it, of the kind
    that misses nothing, where there is such a kind.
    """

    def __init__(self, connection: Wire, path: str) -> None:
        self.owners: list[int | None] = []
        self.events: list[int] = []
        self._connection, self._path = connection, path
        self._reads = 0

    async def read_on(self) -> None:
        if RELEASE >= (3, 6):
            await self._connection.add_watch(self._path)
        while True:
            reply = await self._connection.reply(self._connection.send(wire.get_data(self._path)))
            assert reply.error in (0, NO_NODE)
            owner = None if reply.error else Node(reply.body.buffer(), reply.body.stat()).stat.owner
            if self.owners[-1:] != [owner]:
                self.owners.append(owner)
            while self._connection.events:
                self.events.append(self._connection.events.popleft().type)
            self._reads += 1
            await asyncio.sleep(0.001)

    async def look(self) -> None:
        """Return when what happened until now has been seen."""
        enough = self._reads + 2
        await until(lambda: self._reads >= enough)

    def check_no_gap(self) -> None:
        """Every reader found the node, and every watcher that heard of its end heard at once of its return."""
        assert None not in self.owners
        for event, following in itertools.pairwise((*self.events, None)):
            assert event != DELETED or following == CREATED


@contextlib.asynccontextmanager
async def reading(server: ZooKeeperServer, path: str) -> AsyncIterator[Reader]:
    async with await wire.connect(server.address) as connection:
        reader = Reader(connection, path)
        async with meanwhile(reader.read_on()):
            await reader.look()
            yield reader


@pytest.fixture
async def short_scene(proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer) -> AsyncIterator[Scene]:
    """A registration and a view behind the proxy, in sessions that soon end when nobody hears of them."""
    async with Scene(proxy.address, judged_at=zookeeper.address, session_timeout=SHORT) as scene:
        yield scene


@pytest.fixture
async def scene(proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer) -> AsyncIterator[Scene]:
    """A registration and a view behind the proxy, in sessions that end only when they are ended."""
    async with Scene(proxy.address, judged_at=zookeeper.address, session_timeout=LONG) as scene:
        yield scene


# ---------------------------------------------------------------- 1: nobody handles the session's end


@away_in_any_way
async def test_pit_01_after_a_long_disconnect_all_is_as_before(
    short_scene: Scene, zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, judge: Judge, away: Away
) -> None:
    scene = short_scene
    service = scene.path.rpartition("/")[0]
    for id in ("stays", "goes"):
        await judge.make(f"{service}/{id}", document(id, name=scene.name))
    await scene.view.wait_for(lambda snapshot: len(snapshot) == 3, DEADLINE)
    changes = scene.view.changes()
    away(proxy)
    with scene.silence():
        for peer in (scene.publisher, scene.consumer):
            await ended(zookeeper, peer.registry.session.id)
        assert await judge.node(scene.path) is None
        await judge.delete(f"{service}/goes")
        await judge.make(f"{service}/comes", document("comes", name=scene.name))
    assert not scene.view.fresh
    assert set(scene.view.snapshot) == {"a", "stays", "goes"}  # the last that is known
    reads = proxy.requests[wire.GET_DATA]
    proxy.restore()

    listed = await judge.node_until(scene.path, lambda node: node is not None)
    check_published(
        listed=essence(listed),
        wanted=[document("a", name=scene.name, payload={"update": 0})],
        # Every write of a registration goes with a read of its node; a view reads many at once, or each of its three.
        round_trips=proxy.requests[wire.GET_DATA] - reads - (3 if RELEASE < (3, 6) else 0),
    )
    resynced = await anext(changes)
    assert isinstance(resynced, Resynced)
    assert "comes" in {each.id for each in resynced.added}
    assert "goes" in {each.id for each in resynced.removed}
    assert "stays" not in {each.id for each in resynced.changes}
    await scene.view.wait_for(lambda snapshot: set(snapshot) == {"a", "stays", "comes"}, DEADLINE)
    await check_view(scene.view, judge, service)
    for peer in (scene.publisher, scene.consumer):
        assert peer.states == ["connected", "suspended", "expired", "connected"]
        check_legal(peer.states)
    assert scene.statuses[0] is scene.statuses[-1] is Status.LIVE
    owner = await judge.owner(scene.path)
    check_owned(live=scene.registration.status is Status.LIVE, session_id=scene.session_id, owner=owner)


# ---------------------------------------------------------------- 2: a restart within the session timeout


def register_command(servers: str, chroot: str, *more: str, session_timeout: float = LONG) -> Command:
    return Command(*REGISTER, "--zookeeper", f"{servers}{chroot}", "--session-timeout", str(session_timeout), *more)


@contextlib.asynccontextmanager
async def successor_waiting(proxy: ZooKeeperProxy, chroot: str) -> AsyncIterator[Command]:
    """A process that is to take the place of another, started as far as it gets without a server."""
    proxy.silence()
    async with register_command(proxy.address, chroot) as successor:
        await until(lambda: proxy.connections > 0)
        yield successor


def let_go(proxy: ZooKeeperProxy) -> None:
    proxy.cut()  # what it asked for until now: nobody is to hear of it late
    proxy.heal()


async def test_pit_02_killed_and_restarted_within_the_timeout(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    path = chroot + NODE
    async with (
        register_command(zookeeper.address, chroot, session_timeout=2.0) as killed,
        successor_waiting(proxy, chroot) as successor,
    ):
        await killed.error_lines_until("LIVE")
        async with reading(zookeeper, path) as reader:
            killed.send(signal.SIGKILL)
            await killed.exit_code()
            let_go(proxy)
            await successor.error_lines_until("LIVE")
            await reader.look()
            ghost, owner = reader.owners
            assert owner
            assert ghost in await sessions(zookeeper)
            await ended(zookeeper, ghost)
            await reader.look()
        reader.check_no_gap()
        check_single(reader.owners, {ghost: 1, owner: 1}, told={ghost})
        check_published(listed=essence(await judge.node(path)), wanted=WANTED)
        successor.send(signal.SIGTERM)
        assert await successor.exit_code() == 0
    check_withdrawn(withdrawn=True, sessions={owner}, owner=await judge.owner(path))


async def test_pit_02_replaced_while_it_runs(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    path = chroot + NODE
    async with register_command(zookeeper.address, chroot, "--on-displaced", "stop") as replaced:
        await replaced.error_lines_until("LIVE")
        async with reading(zookeeper, path) as reader, register_command(zookeeper.address, chroot) as successor:
            await successor.error_lines_until("LIVE")
            assert await replaced.exit_code() == 3  # it was told, and has closed its session
            await reader.look()
            before, owner = reader.owners
            assert before not in await sessions(zookeeper)
            reader.check_no_gap()
            check_single(reader.owners, {before: 1, owner: 1}, told={before})
            check_published(listed=essence(await judge.node(path)), wanted=WANTED)


async def test_pit_02_a_withdrawal_that_comes_late_spares_the_successor(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    path = chroot + NODE
    await judge.make(f"{chroot}/services-withdrawn")  # so that one transaction withdraws
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG) as registry,
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=LONG) as before,
        before.register(instance_of("chat")) as ending,
        reading(zookeeper, path) as reader,
    ):
        gone, transactions = before.session.id, proxy.requests[wire.MULTI]
        proxy.silence(Direction.TO_SERVER)
        closing = asyncio.create_task(ending.aclose())
        async with registry.register(instance_of("chat")) as successor:
            proxy.heal()
            await closing
            assert proxy.requests[wire.MULTI] > transactions
            await before.aclose()
            await reader.look()
            reader.check_no_gap()
            check_single(reader.owners, dict.fromkeys(reader.owners, 1), told={gone})
            owner = await judge.owner(path)
            check_withdrawn(withdrawn=ending.withdrawn, sessions={gone}, owner=owner)
            check_owned(live=successor.status is Status.LIVE, session_id=registry.session.id, owner=owner)


# ---------------------------------------------------------------- 3: not closing the client on shutdown


async def test_pit_03_sigterm_withdraws_at_once(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    async with register_command(zookeeper.address, chroot) as command:
        await command.error_lines_until("LIVE")
        owner = await judge.owner(chroot + NODE)
        assert owner
        command.send(signal.SIGTERM)
        code, _, _ = await command.end()
    check_withdrawn(withdrawn=code == 0, sessions={owner}, owner=await judge.owner(chroot + NODE))
    assert code == 0
    assert owner not in await sessions(zookeeper)


async def test_pit_03_leaving_withdraws_at_once(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    async with aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG) as registry:
        async with registry.register(instance_of("chat")) as left:
            owner = registry.session.id
            assert await judge.owner(left.path) == owner
        check_withdrawn(withdrawn=left.withdrawn, sessions={owner}, owner=await judge.owner(left.path))
        forgotten = await registry.register(instance_of("chat"))
    check_withdrawn(withdrawn=forgotten.withdrawn, sessions={owner}, owner=await judge.owner(forgotten.path))
    assert left.withdrawn
    assert forgotten.withdrawn
    assert owner not in await sessions(zookeeper)


async def test_pit_03_the_end_of_a_lifespan_withdraws_at_once(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    """Application servers may start in one task and shut down in another."""

    async def start_up() -> tuple[aioregistry.Registry, aioregistry.Registration[Any]]:
        registry = await aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG)
        return registry, await registry.register(instance_of("chat"))

    registry, registration = await asyncio.create_task(start_up())
    owner = registry.session.id
    await asyncio.create_task(registry.aclose())
    check_withdrawn(withdrawn=registration.withdrawn, sessions={owner}, owner=await judge.owner(registration.path))
    assert registration.withdrawn


@away_in_any_way
async def test_pit_03_closing_is_bounded_while_zookeeper_is_away(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, judge: Judge, chroot: str, away: Away
) -> None:
    close_timeout = 0.5
    clock = asyncio.get_running_loop().time
    async with nothing_left(proxy):
        registry = await aioregistry.connect(
            f"{proxy.address}{chroot}", session_timeout=LONG, close_timeout=close_timeout
        )
        registration = await registry.register(instance_of("chat"))
        owner, password = registry.session.id, password_of(session_of(registry))
        away(proxy)
        began = clock()
        await registry.aclose()
        check_withdrawn(
            withdrawn=registration.withdrawn,
            sessions={owner},
            owner=await judge.owner(registration.path),
            took=clock() - began,
            bound=close_timeout + SLACK,
        )
        assert registration.withdrawn is False
        assert await judge.owner(registration.path) == owner
    await wire.force_expiry(zookeeper.address, owner, password)
    assert await judge.node(registration.path) is None


async def test_pit_03_who_was_killed_is_gone_with_the_session(start_zookeeper: StartZooKeeper) -> None:
    tick, timeout = 1.0, 2.0
    zookeeper = await start_zookeeper(tick_time_ms=round(tick * 1000))
    clock = asyncio.get_running_loop().time
    async with (
        Judge(zookeeper.address) as judge,
        register_command(zookeeper.address, "", session_timeout=timeout) as one,
    ):
        await one.error_lines_until("LIVE")
        owner = await judge.owner(NODE)
        assert owner
        one.send(signal.SIGKILL)
        await one.exit_code()
        killed = clock()
        await judge.node_until(NODE, lambda node: node is None)
        check_withdrawn(withdrawn=True, sessions={owner}, owner=None, took=clock() - killed, bound=timeout + 1.5 * tick)


# ---------------------------------------------------------------- 4: used before it is connected


async def test_pit_04_connect_returns_connected(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    registry = await aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG)
    assert registry.session.state is SessionState.CONNECTED
    assert registry.session.id in await sessions(zookeeper)
    async with registry, registry.register(instance_of("chat")):
        assert await judge.children(chroot + SERVICE) == ["a"]
        assert await registry.services() == ["chat"]


@away_in_any_way
async def test_pit_04_connect_says_why_it_cannot(proxy: ZooKeeperProxy, away: Away) -> None:
    async with nothing_left(proxy):
        away(proxy)
        with pytest.raises(ConnectTimeout) as caught:
            _ = await aioregistry.connect(proxy.address, session_timeout=LONG, connect_timeout=0.3)
    assert caught.value.servers == proxy.address
    assert list(caught.value.attempts) == [proxy.address]
    assert proxy.address in str(caught.value)
    assert "0.3 s" in str(caught.value)


async def test_pit_04_without_waiting_all_is_to_come(proxy: ZooKeeperProxy, judge: Judge, chroot: str) -> None:
    proxy.refuse()
    async with aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=LONG, wait=False) as registry:
        assert registry.session.state is SessionState.DISCONNECTED
        states = registry.session.states()
        async with registry.register(instance_of("chat"), wait=False) as registration:
            status = registration.status
            assert status is Status.REGISTERING
            waiting = {
                asyncio.create_task(registration.update(payload="later")),
                asyncio.create_task(registration.wait_live()),
                asyncio.create_task(registry.services()),
                asyncio.create_task(registry.discover("chat").__aenter__()),
            }
            done, _ = await asyncio.wait(waiting, timeout=0.1)
            assert not done
            proxy.accept()
            done, _ = await asyncio.wait(waiting, timeout=DEADLINE)
            assert done == waiting
            for each in done:
                each.result()
            node = await judge.node(registration.path)
            check_published(listed=essence(node), wanted=[document("a", payload="later")])
            check_owned(
                live=registration.status is Status.LIVE,
                session_id=registry.session.id,
                owner=node.stat.owner if node else None,
            )
    check_legal([state.value async for state in states])


# ---------------------------------------------------------------- 5: long work in a callback


async def test_pit_05_who_works_long_on_a_change_holds_up_nobody(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    ids = [f"{number:04}" for number in range(1500)]
    done = asyncio.Event()
    taken: list[Any] = []
    seen: list[str] = []

    async def work(changes: Changes[Any]) -> None:
        async for change in changes:
            taken.append(change)
            await done.wait()

    async def see(changes: Changes[Any]) -> None:
        ordered = OrderedConsumer(changes.start.entries)
        async for change in changes:
            ordered.apply(change)
            seen.extend(each.id for each in (change.changes if isinstance(change, Resynced) else [change]))

    async with (
        await wire.connect(zookeeper.address) as other,
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=SHORT) as registry,
        registry.register(instance_of("chat")) as registration,
        registry.discover("chat") as view,
    ):
        slow, quick, snapshots = view.changes(), view.changes(), view.snapshots()
        beats = proxy.requests[wire.SYNC]
        async with meanwhile(work(slow)), meanwhile(see(quick)):
            for first in range(0, len(ids), 100):
                batch = ids[first : first + 100]
                await other.multi(*(wire.create(f"{chroot}{SERVICE}/{id}", document(id)) for id in batch))
            await until(lambda: len(seen) == len(ids))
            await until(lambda: proxy.requests[wire.SYNC] > beats + 6)  # two session timeouts
            assert len(taken) == 1
            assert session_of(registry).generation == 1
            assert registration.status is Status.LIVE
            done.set()
            await until(lambda: len(taken) > 1)
            check_bounded(given=len(taken) - 1, bound=1024, delayed=set(ids) - set(seen))
            ordered = OrderedConsumer(slow.start.entries)
            for change in taken:
                ordered.apply(change)
            ordered.check(view.snapshot.entries)
        latest = await anext(snapshots)
        assert latest.entries == view.snapshot.entries
        await check_view(view, judge, chroot + SERVICE)


# ---------------------------------------------------------------- 6: retries that end


class Dialing(SystemRuntime):
    """The real outside; counts how often somebody tried to connect."""

    dialed = 0

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint, tls: ssl.SSLContext | None
    ) -> asyncio.Transport:
        self.dialed += 1
        return await super().connect(factory, endpoint, tls)


def closed_at_once(proxy: ZooKeeperProxy) -> None:
    """Connections are accepted and come to nothing, as at a server that is starting or overloaded."""
    proxy.target = ("127.0.0.1", 1)  # nobody is there
    proxy.cut()


@pytest.mark.parametrize("away", [PARTITIONS["refused"].begin, closed_at_once], ids=["refused", "closed-at-once"])
async def test_pit_06_retries_never_end(proxy: ZooKeeperProxy, judge: Judge, chroot: str, away: Away) -> None:
    runtime, server = Dialing(), proxy.target
    async with (
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=SHORT, runtime=runtime) as registry,
        registry.register(instance_of("chat")) as registration,
    ):
        away(proxy)
        before = runtime.dialed
        await until(lambda: runtime.dialed >= before + 60)  # Curator 2 gives up after 29
        await judge.node_until(registration.path, lambda node: node is None)
        proxy.target = server
        proxy.restore()
        await registration.wait_live(DEADLINE)
        node = await judge.node(registration.path)
        assert node is not None
        check_published(listed=essence(node), wanted=WANTED)
        check_owned(live=True, session_id=registry.session.id, owner=node.stat.owner)


# ---------------------------------------------------------------- 7: the same session or a new one


async def test_pit_07_the_same_session_still_has_its_nodes_and_watches(scene: Scene, proxy: ZooKeeperProxy) -> None:
    proxy.cut()
    await scene.settled()
    scene.check_session_kept()
    for peer in (scene.publisher, scene.consumer):
        assert peer.states == ["connected", "suspended", "reconnected"]
        check_legal(peer.states)
    await scene.judge.delete(scene.path)  # the registration's own watch still tells
    await scene.judge.node_until(scene.path, lambda node: node is not None and node.stat.owner == scene.session_id)
    await scene.settled()


async def test_pit_07_a_new_session_makes_its_nodes_and_watches_anew(scene: Scene, zookeeper: ZooKeeperServer) -> None:
    lost = [peer.registry.session.id for peer in (scene.publisher, scene.consumer)]
    for peer in (scene.publisher, scene.consumer):
        session = session_of(peer.registry)
        await wire.force_expiry(zookeeper.address, session.id, password_of(session))
    await scene.settled()
    for peer in (scene.publisher, scene.consumer):
        assert peer.states == ["connected", "suspended", "expired", "connected"]
        check_legal(peer.states)
    assert not await sessions(zookeeper) & set(lost)
    await scene.judge.delete(scene.path)
    await scene.judge.node_until(scene.path, lambda node: node is not None and node.stat.owner == scene.session_id)
    await scene.settled()


# ---------------------------------------------------------------- 8: asleep, and the own node removed while alive


async def test_pit_08_the_own_node_is_put_back_at_once(scene: Scene) -> None:
    for _ in range(3):
        await scene.judge.delete(scene.path)
        listed = await scene.judge.node_until(scene.path, lambda node: node is not None)
        check_published(listed=essence(listed), wanted=[document("a", name=scene.name, payload={"update": 0})])
        await scene.registration.wait_live(DEADLINE)
    await scene.settled()
    assert scene.publisher.states == ["connected"]
    await until(lambda: scene.statuses == [Status.LIVE, *[Status.REGISTERING, Status.LIVE] * 3])


class Monitored(Command):
    """A process that writes down what its handles claim."""

    module = "tests.integration.monitored"


async def test_pit_08_a_sleeper_claims_nothing_and_is_listed_when_it_wakes(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    path = chroot + NODE
    async with Monitored(f"{zookeeper.address}{chroot}", str(SHORT)) as process:
        before = int(await process.line())
        await process.stop()
        asleep = boot()
        await judge.node_until(path, lambda node: node is None)
        await asyncio.sleep(asleep + 2.5 * SHORT - boot())
        process.send(signal.SIGCONT)
        after = int(await process.line())
        node = await judge.node(path)
        check_published(listed=essence(node), wanted=WANTED)
        check_owned(live=True, session_id=after, owner=node.stat.owner if node else None)
        process.send(signal.SIGTERM)
        claims = [Claim(**fields) for fields in json.loads(await process.line())]
        assert await process.exit_code() == 0

    first, *_, last = [claim for claim in claims if claim.of == "registration" and claim.claimed[0] == "LIVE"]
    assert first.claimed[1] == before
    assert last.claimed[1] == after
    for claim in claims:
        of_the_session_before = claim.claimed[1] == before if claim.of == "registration" else claim.first < asleep
        if of_the_session_before:
            claimed = claim.claimed is True or claim.claimed[0] == "LIVE"
            check_honest(claimed=claimed, contact_age=claim.last - asleep, timeout=SHORT)


# ---------------------------------------------------------------- 9: only the server decides that a session is over


@contextlib.asynccontextmanager
async def census(server: ZooKeeperServer, of: int) -> AsyncIterator[list[set[int]]]:
    """The sessions at every moment: this one, and those that came since."""
    others = await sessions(server) - {of}
    taken: list[set[int]] = []

    async def take() -> None:
        while True:
            present = await sessions(server) - others
            if taken[-1:] != [present]:
                taken.append(present)

    async with meanwhile(take()):
        yield taken


async def test_pit_09_a_session_is_offered_again_for_as_long_as_it_takes(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, chroot: str
) -> None:
    async with (
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=2) as registry,
        registry.register(instance_of("chat")) as registration,
    ):
        session = registry.session.id
        async with census(zookeeper, session) as taken:
            tried = proxy.connections
            proxy.silence(Direction.TO_CLIENT)  # each attempt reaches the server, and no answer the client
            await until(lambda: proxy.connections >= tried + 4 and registry.session.presumed_expired)
            assert registry.session.id == session
            proxy.heal()
            await registration.wait_live(DEADLINE)
        assert registry.session.id == session
        assert registry.session.state is SessionState.RECONNECTED
        assert taken == [{session}]


async def test_pit_09_a_new_session_is_made_when_the_server_has_refused_the_old_one(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    runtime = Dialing()
    async with (
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=SHORT, runtime=runtime) as registry,
        registry.register(instance_of("chat")) as registration,
        Chronicle(zookeeper.address, registration.path) as chronicle,
    ):
        session, states = registry.session.id, registry.session.states()
        async with census(zookeeper, session) as taken:
            PARTITIONS["refused"].begin(proxy)
            await ended(zookeeper, session)
            dialed = runtime.dialed
            await until(lambda: runtime.dialed > dialed + 10)
            assert registry.session.presumed_expired
            assert registry.session.id == session  # nothing is done on a presumption
            assert registry.session.state is SessionState.SUSPENDED
            proxy.accept()
            await registration.wait_live(DEADLINE)
            owner = await judge.owner(registration.path)
            check_owned(live=True, session_id=registry.session.id, owner=owner)
            await until(lambda: taken[-1] == {owner})
        assert taken == [{session}, set(), {owner}]
    assert chronicle.owners == [session, None, owner]
    check_legal([state.value async for state in states], before="connected")


# ---------------------------------------------------------------- 10: a connection that drops without a close


async def test_pit_10_the_node_of_a_dropped_connection_is_taken_over(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    path = chroot + NODE
    await judge.make(chroot + SERVICE)
    async with await wire.connect(zookeeper.address, timeout_ms=round(LONG * 1000)) as ghost:
        await ghost.create(path, document("a"), flags=wire.EPHEMERAL)
        ghost.abandon()
    async with (
        reading(zookeeper, path) as reader,
        aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG) as registry,
        registry.register(instance_of("chat")) as registration,
    ):
        assert ghost.session_id in await sessions(zookeeper)
        await wire.force_expiry(zookeeper.address, ghost.session_id, ghost.password)
        await reader.look()
        reader.check_no_gap()
        check_single(reader.owners, {registry.session.id: 1}, told={ghost.session_id})
        check_owned(
            live=registration.status is Status.LIVE, session_id=registry.session.id, owner=await judge.owner(path)
        )


@away_in_any_way
async def test_pit_10_what_could_not_be_withdrawn_is_taken_over(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, judge: Judge, chroot: str, away: Away
) -> None:
    path = chroot + NODE
    async with (
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=LONG, close_timeout=0.1) as before,
        before.register(instance_of("chat")) as dropped,
    ):
        session, password = before.session.id, password_of(session_of(before))
        away(proxy)
    check_withdrawn(withdrawn=dropped.withdrawn, sessions={session}, owner=await judge.owner(path))
    assert dropped.withdrawn is False
    async with (
        reading(zookeeper, path) as reader,
        aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG) as registry,
        registry.register(instance_of("chat")) as registration,
    ):
        proxy.restore()  # what was held arrives late
        await wire.force_expiry(zookeeper.address, session, password)
        await reader.look()
        reader.check_no_gap()
        check_single(reader.owners, {registry.session.id: 1}, told={session})
        check_owned(
            live=registration.status is Status.LIVE, session_id=registry.session.id, owner=await judge.owner(path)
        )


# ---------------------------------------------------------------- 11: watches are dead after a new session


@pytest.mark.parametrize("watches", [pytest.param("recursive", marks=pytest.mark.since(3, 6)), "one-shot"])
async def test_pit_11_views_watch_relist_and_tell_the_true_differences(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, judge: Judge, chroot: str, watches: Any
) -> None:
    service = chroot + SERVICE
    for id in ("same", "changed", "replaced", "gone"):
        await judge.make(f"{service}/{id}", document(id))
    async with (
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=LONG, watches=watches) as registry,
        registry.discover("chat", guard=None) as view,
    ):
        changes = view.changes()
        ordered = OrderedConsumer(changes.start.entries)
        PARTITIONS["refused"].begin(proxy)
        await wire.force_expiry(zookeeper.address, registry.session.id, password_of(session_of(registry)))
        await judge.set_data(f"{service}/changed", document("changed", payload=1))
        for id in ("replaced", "gone"):
            await judge.delete(f"{service}/{id}")
        for id in ("replaced", "new"):
            await judge.make(f"{service}/{id}", document(id))
        await judge.make(f"{service}/brief", document("brief"))
        await judge.delete(f"{service}/brief")
        proxy.accept()

        async with asyncio.timeout(DEADLINE):
            resynced = await anext(changes)
            ordered.apply(resynced)
            assert isinstance(resynced, Resynced)
            assert registry.session.state is SessionState.CONNECTED
            assert [each.id for each in resynced.added] == ["new"]
            assert sorted(each.id for each in resynced.updated) == ["changed", "replaced"]
            assert [each.id for each in resynced.removed] == ["gone"]
            await check_view(view, judge, service)

            await judge.make(f"{service}/later", document("later"))
            ordered.apply(added := await anext(changes))
            await judge.delete(f"{service}/same")
            ordered.apply(removed := await anext(changes))
        assert isinstance(added, Added)
        assert added.id == "later"
        assert isinstance(removed, Removed)
        assert removed.id == "same"
        await check_view(view, judge, service)
        ordered.check(view.snapshot.entries)
