"""Views on a real ZooKeeper, by both watch strategies: lost histories, closed nodes, freshness, and who shares what."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import aioregistry
from aioregistry import HandleClosed, InvalidArgument, Registry, RequestTimeout, Resynced, Snapshot, Status, View
from aioregistry._discovery import WatchMode, follower
from aioregistry._errors import NoAuth
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.conftest import StartZooKeeper
from tests.integration.scene import Peer, instance_of, meanwhile
from tests.support import wire
from tests.support.checkers import OrderedConsumer, check_converged, check_honest
from tests.support.inside import session_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer

LONG = 60.0
"""Seconds: the timeout of a session that must not end, however slow the machine."""
SHORT = 1.0
"""Seconds: the timeout of a session that soon knows nothing any more."""
SERVICE = "/services/chat"

_READ, _ALL = 1, 31
_SET_ACL = 7


@pytest.fixture(params=[pytest.param("recursive", marks=pytest.mark.since(3, 6)), "one-shot"])
def watches(request: pytest.FixtureRequest) -> WatchMode:
    strategy: WatchMode = request.param
    return strategy


@pytest.fixture
async def registry(proxy: ZooKeeperProxy, chroot: str, watches: WatchMode) -> AsyncIterator[Registry]:
    """A process behind the proxy, in a session that lasts."""
    async with aioregistry.connect(
        f"{proxy.address}{chroot}", session_timeout=LONG, watches=watches, guard=None
    ) as registry:
        yield registry


@pytest.fixture
def service(chroot: str) -> str:
    """The path of the service `chat`, which is not there yet."""
    return chroot + SERVICE


def document(id: str, *, payload: object = None) -> bytes:
    """An instance as another program may write it."""
    return json.dumps({"name": "chat", "id": id, "address": "a", "port": 1, "payload": payload}).encode()


def acl(permissions: int) -> bytes:
    """Everybody has these permissions."""
    return wire.OPEN_ACL.replace(struct.pack(">i", _ALL), struct.pack(">i", permissions), 1)


def set_acl(path: str, permissions: int) -> wire.Operation:
    return wire.Operation(_SET_ACL, struct.pack(">i", len(path)) + path.encode() + acl(permissions) + b"\xff" * 4)


def create_closed(path: str, data: bytes) -> wire.Operation:
    """Make a node that nobody may read."""
    operation = wire.create(path, data)
    return operation._replace(body=operation.body.replace(wire.OPEN_ACL, acl(_ALL - _READ)))


async def check_view(view: View[Any], judge: Judge, service: str) -> None:
    """The view shows what there is, each node by its identity and what it says; nothing there is missing from it."""
    snapshot = await view.sync(DEADLINE)
    nodes = {name: await judge.node(f"{service}/{name}") for name in await judge.children(service)}
    present = {id: node for id, node in nodes.items() if node is not None}
    check_converged(
        seen={id: (entry.czxid, entry.mzxid, entry.owner) for id, entry in snapshot.entries.items()},
        held={id: (node.stat.czxid, node.stat.mzxid, node.stat.owner) for id, node in present.items()},
    )
    check_converged(
        seen={id: snapshot[id].payload for id in snapshot},
        held={id: json.loads(node.data)["payload"] for id, node in present.items()},
    )


class Follower:
    """A consumer that takes every change as it comes, and checks it."""

    def __init__(self, view: View[Any]) -> None:
        self.told: list[Any] = []
        self.view = view
        self.changes = view.changes()
        self.ordered = OrderedConsumer(self.changes.start.entries)

    async def run(self) -> None:
        async for change in self.changes:
            self.ordered.apply(change)
            self.told.append(change)

    async def caught_up(self) -> None:
        """Wait until what the view shows was told, and check that the changes give it."""
        await until(lambda: self.ordered.entries == self.view.snapshot.entries)
        self.ordered.check(self.view.snapshot.entries)


@contextlib.asynccontextmanager
async def following(view: View[Any]) -> AsyncIterator[Follower]:
    consumer = Follower(view)
    async with meanwhile(consumer.run()):
        yield consumer


async def seen(view: View[Any], accepted: Callable[[Snapshot[Any]], bool]) -> Snapshot[Any]:
    return await view.wait_for(accepted, timeout=DEADLINE)


# ---------------------------------------------------------------- another history


async def write_history(server: ZooKeeperServer, nodes: dict[str, object]) -> dict[str, tuple[int, int]]:
    """Be the first to write; return the nodes' czxid and mzxid."""
    identities = {}
    async with await wire.connect(server.address) as writer:
        for path in ("/services", SERVICE):
            await writer.create(path)
        for id, payload in nodes.items():
            _, stat = await writer.create2(f"{SERVICE}/{id}", document(id, payload=payload))
            identities[id] = (stat.czxid, stat.mzxid)
    return identities


async def test_after_a_wipe_the_differences_are_those_of_the_content(
    own_zookeeper: ZooKeeperServer, watches: WatchMode
) -> None:
    """The new history numbers its first nodes as the old one did: what they hold tells them apart."""
    async with Judge(own_zookeeper.address) as judge:
        before = await write_history(own_zookeeper, {"same": 1, "other": 1, "gone": 1, "moved": 1})
        for number in range(50):  # for an older history than the new one will be
            await judge.set_data("/services", b"%d" % number)
    with ZooKeeperProxy((own_zookeeper.host, own_zookeeper.port)) as proxy:
        async with (
            Peer(proxy.address, session_timeout=LONG, watches=watches) as peer,
            peer.registry.discover("chat") as view,
            following(view) as consumer,
        ):
            proxy.refuse()
            own_zookeeper.kill()
            own_zookeeper.wipe()
            await own_zookeeper.start()
            after = await write_history(own_zookeeper, {"same": 1, "other": 2, "moved": 1, "new": 1})
            assert {id for id in after if before.get(id) == after[id]} == {"same", "other"}
            consumer.ordered.rolled_back()
            told = len(consumer.told)
            proxy.accept()
            await seen(view, lambda snapshot: "new" in snapshot)
            assert len(peer.rollbacks) == 1
            await consumer.caught_up()
            resynced = consumer.told[told]
            assert isinstance(resynced, Resynced)
            assert [each.id for each in resynced.added] == ["new"]
            # Each of them is another node than before, made later; one of them with the same data.
            assert sorted(each.id for each in resynced.updated) == ["moved", "other", "same"]
            assert [each.id for each in resynced.removed] == ["gone"]
            async with Judge(own_zookeeper.address) as judge:
                await check_view(view, judge, SERVICE)
                await judge.set_data(f"{SERVICE}/same", document("same", payload=3))
                await seen(view, lambda snapshot: snapshot["same"].payload == 3)
                await consumer.caught_up()


# ---------------------------------------------------------------- nodes that may not be read


@pytest.mark.parametrize("noticed", ["by syncing", "by looking again"])
async def test_an_unreadable_node_is_listed_with_the_reason_until_it_can_be_read(
    registry: Registry, judge: Judge, service: str, noticed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers with CVE-2024-23944 mended hide the events of such nodes, and no server tells of a changed ACL."""
    if noticed == "by looking again":
        monkeypatch.setattr(follower, "AUDIT", 0.05)
    await judge.make(f"{service}/a", document("a"))
    paths = {id: f"{service}/{id}" for id in ("closed", "closed later")}
    await judge.ask(create_closed(paths["closed"], document("closed")))
    async with registry.discover("chat") as view, following(view) as consumer:

        async def known(accepted: Callable[[Snapshot[Any]], bool]) -> None:
            if noticed == "by syncing":
                assert accepted(await view.sync(DEADLINE))
            else:
                await seen(view, accepted)

        assert list(view.snapshot.invalid) == ["closed"]
        await judge.ask(create_closed(paths["closed later"], document("closed later")))
        await known(lambda snapshot: snapshot.invalid.keys() == paths.keys())
        for id, path in paths.items():
            reason = view.snapshot.invalid[id].reason
            assert reason.startswith("cannot be read: ")
            assert path in reason
        assert list(view.snapshot) == ["a"]
        for path in paths.values():
            await judge.ask(set_acl(path, _ALL))
        await known(lambda snapshot: list(snapshot) == ["a", *paths] and not snapshot.invalid)
        await check_view(view, judge, service)
        await consumer.caught_up()


@pytest.mark.parametrize("noticed", ["by syncing", "by an audit"])
async def test_what_happens_to_nodes_that_may_not_be_read_is_seen_nevertheless(
    registry: Registry, judge: Judge, service: str, noticed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patched server says nothing of them: what happens while they are closed has to be looked for."""
    if noticed == "by an audit":
        monkeypatch.setattr(follower, "AUDIT", 0.05)
    ids = ("deleted", "replaced", "changed and closed", "changed and opened")
    for id in ("untouched", *ids):
        await judge.make(f"{service}/{id}", document(id))
    async with registry.discover("chat") as view, following(view) as consumer:
        for id in ids:
            await judge.ask(set_acl(f"{service}/{id}", _ALL - _READ))
        await judge.delete(f"{service}/deleted")
        await judge.delete(f"{service}/replaced")
        await judge.make(f"{service}/replaced", document("replaced", payload=2))
        for id in ids[2:]:
            await judge.set_data(f"{service}/{id}", document(id, payload=2))
        await judge.ask(set_acl(f"{service}/changed and opened", _ALL))
        await judge.ask(create_closed(f"{service}/made closed", document("made closed")))
        await judge.ask(set_acl(f"{service}/made closed", _ALL))

        def true(snapshot: Snapshot[Any]) -> bool:
            readable = ["changed and opened", "made closed", "replaced", "untouched"]
            return (
                list(snapshot) == readable
                and snapshot["replaced"].payload == snapshot["changed and opened"].payload == 2
                and list(snapshot.invalid) == ["changed and closed"]
            )

        if noticed == "by syncing":
            assert true(await view.sync(DEADLINE))
        else:
            await seen(view, true)
        await judge.ask(set_acl(f"{service}/changed and closed", _ALL))
        if noticed == "by syncing":
            await view.sync(DEADLINE)
        await seen(view, lambda snapshot: "changed and closed" in snapshot)
        await check_view(view, judge, service)
        await consumer.caught_up()


async def test_a_service_that_may_not_be_listed_cannot_be_entered(
    registry: Registry, judge: Judge, service: str
) -> None:
    await judge.make(f"{service}/a", document("a"))
    await judge.ask(set_acl(service, _ALL - _READ))
    with pytest.raises(NoAuth, match=service):
        _ = await registry.discover("chat")
    await judge.ask(set_acl(service, _ALL))
    async with registry.discover("chat") as view:
        assert list(view.snapshot) == ["a"]


async def test_a_document_without_bottom_is_one_invalid_entry(registry: Registry, judge: Judge, service: str) -> None:
    await judge.make(f"{service}/a", document("a"))
    async with registry.discover("chat") as view, following(view) as consumer:
        for depth in (150, 500, 900, 100_000):  # below, around and far beyond what Python's stack bears
            nested = b"[" * depth + b"]" * depth
            await judge.make(f"{service}/{depth}", document(str(depth)).replace(b"null", nested))
        await seen(view, lambda snapshot: len(snapshot.invalid) == 4)
        assert list(view.snapshot) == ["a"]
        await judge.set_data(f"{service}/500", document("500"))
        await seen(view, lambda snapshot: "500" in snapshot)
        await consumer.caught_up()


# ---------------------------------------------------------------- waiting


async def test_waiting_for_a_snapshot(registry: Registry, judge: Judge, service: str) -> None:
    await judge.make(f"{service}/a", document("a"))
    async with registry.discover("chat") as view:
        assert "a" in await view.wait_for(lambda snapshot: "a" in snapshot)  # the present one
        with pytest.raises(RequestTimeout, match=r"'chat'.*timeout=0\.05"):
            await view.wait_for(lambda snapshot: "b" in snapshot, timeout=0.05)
        with pytest.raises(ZeroDivisionError):
            await view.wait_for(lambda snapshot: 1 // 0 == 1)
        with pytest.raises(InvalidArgument, match="timeout"):
            await view.wait_for(lambda snapshot: True, timeout=0)
        waiting = asyncio.ensure_future(view.wait_for(lambda snapshot: len(snapshot) == 2, timeout=DEADLINE))
        never = asyncio.ensure_future(view.wait_for(lambda snapshot: False))
        await judge.make(f"{service}/b", document("b"))
        assert list(await waiting) == ["a", "b"]
    with pytest.raises(HandleClosed):
        await never
    with pytest.raises(HandleClosed):
        await view.wait_for(lambda snapshot: True)


async def test_sync_waits_for_a_connection_or_ends_in_time(
    registry: Registry, proxy: ZooKeeperProxy, judge: Judge, service: str
) -> None:
    await judge.make(service)
    async with registry.discover("chat") as view:
        proxy.refuse()
        proxy.cut()
        await judge.make(f"{service}/a", document("a"))
        with pytest.raises(RequestTimeout, match="'chat'"):
            await view.sync(timeout=0.05)
        waiting = asyncio.ensure_future(view.sync(DEADLINE))
        proxy.accept()
        assert "a" in await waiting


# ---------------------------------------------------------------- freshness


async def test_what_is_known_stays_and_is_stale_while_the_server_is_paused(
    own_zookeeper: ZooKeeperServer, watches: WatchMode
) -> None:
    async with Judge(own_zookeeper.address) as judge:
        await judge.make(f"{SERVICE}/a", document("a"))
    async with (
        aioregistry.connect(own_zookeeper.address, session_timeout=SHORT, watches=watches, guard=None) as registry,
        registry.discover("chat") as view,
    ):
        snapshots = view.snapshots()
        assert (await anext(snapshots)).stale_since is None
        own_zookeeper.pause()
        paused = time.monotonic()

        async def watch() -> None:
            while True:
                contact_age = time.monotonic() - paused
                check_honest(claimed=view.fresh, contact_age=contact_age, timeout=SHORT)
                check_honest(claimed=view.snapshot.stale_since is None, contact_age=contact_age, timeout=SHORT)
                await asyncio.sleep(0.002)

        async with asyncio.timeout(DEADLINE):
            async with meanwhile(watch()):
                stale = await anext(snapshots)
                assert stale.stale_since is not None
                await until(lambda: registry.session.presumed_expired)
                assert list(view.snapshot) == ["a"]
            own_zookeeper.resume()
            while (await anext(snapshots)).stale_since is not None:
                pass
        assert view.fresh
        assert list(view.snapshot) == ["a"]


async def test_time_alone_makes_stale(proxy: ZooKeeperProxy, judge: Judge, chroot: str, watches: WatchMode) -> None:
    """Nothing was heard and nothing could be: this process did not run meanwhile."""
    await judge.make(f"{chroot}{SERVICE}/a", document("a"))
    async with (
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=SHORT, watches=watches, guard=None) as registry,
        registry.discover("chat") as view,
    ):
        snapshots = view.snapshots()
        assert (await anext(snapshots)).stale_since is None
        proxy.silence()
        time.sleep(SHORT)
        check_honest(claimed=view.fresh, contact_age=SHORT, timeout=SHORT)
        assert view.snapshot.stale_since is not None
        assert list(view.snapshot) == ["a"]
        async with asyncio.timeout(DEADLINE):
            assert (await anext(snapshots)).stale_since is not None
            proxy.heal()
            while (await anext(snapshots)).stale_since is not None:
                pass
        assert view.fresh


# ---------------------------------------------------------------- sharing

_OLDER_GET_CHILDREN = 8
READS = (wire.GET_DATA, wire.GET_CHILDREN, _OLDER_GET_CHILDREN, wire.EXISTS, wire.MULTI_READ, wire.ADD_WATCH)


def reads(proxy: ZooKeeperProxy) -> int:
    return sum(proxy.requests[opcode] for opcode in READS)


async def test_views_of_a_service_share_one_mirror_and_its_watch(
    registry: Registry,
    proxy: ZooKeeperProxy,
    zookeeper: ZooKeeperServer,
    judge: Judge,
    service: str,
    watches: WatchMode,
) -> None:
    for number in range(20):
        await judge.make(f"{service}/{number}", document(str(number)))

    async def watched() -> set[str]:
        """Which paths have data watches or recursive ones: of child watches the server does not tell."""
        paths = (await zookeeper.four_letter("wchp")).splitlines()
        return {path for path in paths if path == service or path.startswith(f"{service}/")}

    first = await registry.discover("chat")
    asked = reads(proxy)
    assert await watched()
    others = [await registry.discover("chat", payload_type=type_) for type_ in (Any, Any, None, object)]
    assert reads(proxy) == asked  # everything was known already
    await judge.make(f"{service}/new", document("new"))
    for view in (first, *others):
        await seen(view, lambda snapshot: "new" in snapshot)
    alone = reads(proxy) - asked
    await first.aclose()
    for view in others[1:]:
        await view.aclose()
    assert await watched()
    asked = reads(proxy)
    await judge.make(f"{service}/newer", document("newer"))
    await seen(others[0], lambda snapshot: "newer" in snapshot)
    assert reads(proxy) - asked == alone  # one view or five, a change costs the same
    await others[0].aclose()
    if watches == "recursive":
        async with asyncio.timeout(DEADLINE):
            while await watched():
                await asyncio.sleep(0.01)
    asked = reads(proxy)
    await judge.set_data(f"{service}/new", document("new", payload=1))
    await judge.make(f"{service}/newest", document("newest"))
    await registry.services()  # what a watch would have told was told before its answer
    assert reads(proxy) == asked + 1
    async with registry.discover("chat") as view:
        await check_view(view, judge, service)


async def test_a_registration_a_view_and_an_aiozk_client_watch_the_same_nodes(
    registry: Registry, judge: Judge, chroot: str, service: str
) -> None:
    heard: list[int] = []
    client = registry.client
    own, other = f"{SERVICE}/a", f"{SERVICE}/b"
    await judge.make(f"{service}/b", document("b"))
    async with (
        registry.register(instance_of("chat", payload=1)) as registration,
        registry.discover("chat") as view,
        following(view) as consumer,
    ):
        for path in (own, other):
            for kind in (wire.CHANGED, wire.DELETED):
                hear = functools.partial(lambda kind, _: heard.append(kind), kind)
                client.session.add_watch_callback(kind, f"{chroot}{path}", hear)
        for round_ in range(2):  # watches are one-shot: all of it again
            for path in (own, other):
                await client.get_data(path, watch=True)
            heard.clear()
            await judge.set_data(f"{service}/a", document("a", payload="strange"))
            await until(lambda: wire.CHANGED in heard)
            await judge.node_until(f"{service}/a", lambda node: node is not None and b"strange" not in node.data)
            await check_view(view, judge, service)  # until all is quiet: what is heard next is of the other node
            heard.clear()
            await judge.set_data(f"{service}/b", document("b", payload=round_))
            await until(lambda: wire.CHANGED in heard)
            await check_view(view, judge, service)

            await client.get_data(own, watch=True)
            heard.clear()
            before = await judge.node(f"{service}/a")
            await judge.delete(f"{service}/a")
            await judge.node_until(f"{service}/a", lambda node, before=before: node not in (None, before))  # type: ignore[misc]
            await until(lambda: wire.DELETED in heard)
            await until(lambda: registration.status is Status.LIVE)
            await judge.make(f"{service}/c", document("c"))
            await seen(view, lambda snapshot: "c" in snapshot)
            await judge.delete(f"{service}/c")
            await seen(view, lambda snapshot: "c" not in snapshot)
            await check_view(view, judge, service)
            await consumer.caught_up()


# ---------------------------------------------------------------- large services


async def test_a_large_service_is_read_in_batches_that_fit(start_zookeeper: StartZooKeeper, watches: WatchMode) -> None:
    most = 32 * 1024
    server = await start_zookeeper(jute_max_buffer=most)
    ids = [f"{number:04}" for number in range(5000)]
    large = {ids[number]: "x" * (most // 3) for number in range(100, 5000, 700)}
    async with await wire.connect(server.address) as writer:
        for path in ("/services", SERVICE):
            await writer.create(path)
        for first in range(0, len(ids), 100):
            small = [id for id in ids[first : first + 100] if id not in large]
            await writer.multi(*(wire.create(f"{SERVICE}/{id}", document(id)) for id in small))
        for id, payload in large.items():
            await writer.create(f"{SERVICE}/{id}", document(id, payload=payload))
    with ZooKeeperProxy((server.host, server.port)) as proxy:
        async with (
            aioregistry.connect(
                proxy.address, session_timeout=LONG, max_request=most, watches=watches, guard=None
            ) as registry,
            registry.discover("chat") as view,
        ):
            assert list(view.snapshot) == ids
            assert {id: view.snapshot[id].payload for id in large} == large
            assert not view.snapshot.invalid
            assert session_of(registry).generation == 1  # nothing was refused
            if watches == "recursive":
                assert len(ids) * 100 // most < proxy.requests[wire.MULTI_READ] < len(ids) // 4
            else:
                assert proxy.requests[wire.GET_DATA] == len(ids)
            async with Judge(server.address) as judge, following(view) as consumer:
                for id in (ids[0], ids[-1]):
                    await judge.set_data(f"{SERVICE}/{id}", document(id, payload=1))
                await seen(view, lambda snapshot: snapshot[ids[0]].payload == snapshot[ids[-1]].payload == 1)
                proxy.cut()
                await judge.delete(f"{SERVICE}/{ids[7]}")
                await seen(view, lambda snapshot: ids[7] not in snapshot)
                await consumer.caught_up()
                assert len(view.snapshot) == len(ids) - 1
