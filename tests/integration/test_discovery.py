"""Views on a real ZooKeeper, by both ways of watching: what comes, goes and breaks is seen as it is, and in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any, get_args

import msgspec
import pytest

import aioregistry
from aioregistry import Entry, Invalid, Registry, Resynced, Status, Updated, View
from aioregistry._discovery import Changes, WatchMode, subscriptions
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.integration.scene import instance_of
from tests.support import wire
from tests.support.checkers import OrderedConsumer, check_converged, check_honest
from tests.support.inside import session_of
from tests.support.judge import Judge
from tests.support.leftovers import nothing_left
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperEnsemble, ZooKeeperServer

TIMEOUT = 4.0
STRATEGIES = [
    pytest.param(strategy, marks=[pytest.mark.since(3, 6)] if strategy == "recursive" else [])
    for strategy in get_args(WatchMode)
    if strategy != "auto"
]


@pytest.fixture(params=STRATEGIES)
async def registry(request: pytest.FixtureRequest, proxy: ZooKeeperProxy, chroot: str) -> AsyncIterator[Registry]:
    """A consumer behind the proxy, by each strategy; it leaves nothing behind."""
    servers = f"{proxy.address}{chroot}"
    async with (
        nothing_left(proxy),
        aioregistry.connect(servers, session_timeout=TIMEOUT, watches=request.param, guard=None) as registry,
    ):
        yield registry


@pytest.fixture
async def publisher(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[Registry]:
    """Whose registrations are to be seen."""
    async with aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=TIMEOUT, guard=None) as registry:
        yield registry


@pytest.fixture
async def service(judge: Judge, chroot: str) -> str:
    """The path of the service "chat", there and empty."""
    path = f"{chroot}/services/chat"
    await judge.make(path)
    return path


def document(id: str, payload: Any = None) -> bytes:
    fields = {"name": "chat", "id": id, "address": "10.0.0.7", "port": 7000, "payload": payload}
    return json.dumps(fields).encode()


async def check_view(view: View[Any], judge: Judge, service: str) -> None:
    """All is quiet: the view shows what the server holds."""
    snapshot = await view.sync(DEADLINE)
    known: dict[str, Entry[Any] | Invalid] = {**snapshot.entries, **snapshot.invalid}
    held = {}
    for id in await judge.children(service):
        node = await judge.node(f"{service}/{id}")
        assert node is not None
        held[id] = (node.stat.czxid, node.stat.mzxid)
    check_converged(seen={id: (node.czxid, node.mzxid) for id, node in known.items()}, held=held)


async def following(changes: Changes[Any]) -> Any:
    async with asyncio.timeout(DEADLINE):
        return await anext(changes)


@contextlib.asynccontextmanager
async def believing(view: View[Any]) -> AsyncIterator[OrderedConsumer]:
    """One who applies the changes as they come; at the end, when all is quiet, they must have given the snapshot."""
    async with view.changes() as changes:
        consumer = OrderedConsumer(changes.start.entries)

        async def believe() -> None:
            async for change in changes:
                consumer.apply(change)

        task = asyncio.create_task(believe())
        try:
            yield consumer
            await until(lambda: task.done() or consumer.entries == view.snapshot.entries)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


# ---------------------------------------------------------------- the service's own node


async def test_a_service_that_is_missing_comes_is_reaped_and_comes_back(
    registry: Registry, publisher: Registry, judge: Judge, chroot: str
) -> None:
    """Its node is a container, which the server removes when it was empty for a while."""
    service = f"{chroot}/services/chat"
    async with registry.discover("chat") as chat, believing(chat):
        assert chat.fresh
        assert chat.snapshot == {}
        for _ in range(2):
            async with publisher.register(instance_of("chat")):
                await chat.wait_for(lambda snapshot: "a" in snapshot, DEADLINE)
            await chat.wait_for(lambda snapshot: not snapshot, DEADLINE)
            await judge.node_until(service, lambda node: node is None)
            assert await chat.sync(DEADLINE) == {}
        async with publisher.register(instance_of("chat")):
            await chat.wait_for(lambda snapshot: "a" in snapshot, DEADLINE)


async def test_a_service_that_is_reaped_while_nobody_is_connected(
    registry: Registry, judge: Judge, proxy: ZooKeeperProxy, service: str
) -> None:
    await judge.make(f"{service}/a", document("a"))
    async with registry.discover("chat") as chat, believing(chat):
        proxy.refuse()
        proxy.cut()
        await judge.delete(f"{service}/a")
        await judge.delete(service)
        proxy.accept()
        await chat.wait_for(lambda snapshot: not snapshot, DEADLINE)
        await judge.make(f"{service}/b", document("b"))
        await chat.wait_for(lambda snapshot: list(snapshot) == ["b"], DEADLINE)


async def test_the_names_of_services_come_and_go(
    registry: Registry, publisher: Registry, judge: Judge, proxy: ZooKeeperProxy, chroot: str
) -> None:
    assert await registry.services() == []
    async with registry.watch_services() as names, asyncio.timeout(DEADLINE):
        assert await anext(names) == ()  # there is not even a base path
        async with publisher.register(instance_of("chat")):
            assert await anext(names) == ("chat",)
            proxy.refuse()
            proxy.cut()
            await judge.make(f"{chroot}/services/mail")
            proxy.accept()
            assert await anext(names) == ("chat", "mail")
        assert await anext(names) == ("mail",)  # reaped
        assert await registry.services() == ["mail"]


# ---------------------------------------------------------------- what is told


async def test_a_takeover_is_one_update(
    registry: Registry, publisher: Registry, zookeeper: ZooKeeperServer, chroot: str
) -> None:
    """Deleted and created in one transaction: watchers are told of both, no reader sees a gap."""
    servers = f"{zookeeper.address}{chroot}"
    async with (
        publisher.register(instance_of("chat")) as first,
        registry.discover("chat") as chat,
        chat.changes() as changes,
        aioregistry.connect(servers, session_timeout=TIMEOUT, guard=None) as other,
        other.register(instance_of("chat")) as second,
    ):
        await chat.sync(DEADLINE)
        update = await following(changes)
        assert isinstance(update, Updated)
        assert (update.previous_entry.owner, update.entry.owner) == (publisher.session.id, second.owner)
        await until(lambda: first.status is Status.DISPLACED)
        assert changes.take_ready(1) == []


async def test_nodes_that_are_no_instances_are_listed_apart(registry: Registry, judge: Judge, service: str) -> None:
    bad = {"json": b"{", "empty": b"", "fields": b"{}", "id": document("other"), "bytes": b"\xff\xfe"}
    await judge.make(f"{service}/good", document("good"))
    for id, data in bad.items():
        await judge.make(f"{service}/{id}", data)
    async with registry.discover("chat") as chat, believing(chat):
        assert list(chat.snapshot) == ["good"]
        assert chat.snapshot.invalid.keys() == bad.keys()
        assert all(invalid.reason for invalid in chat.snapshot.invalid.values())
        await judge.set_data(f"{service}/good", b"not any more")
        await judge.set_data(f"{service}/json", document("json"))
        await judge.delete(f"{service}/empty")
        await judge.make(f"{service}/later", b"[]")
        await check_view(chat, judge, service)
        assert list(chat.snapshot) == ["json"]
        assert chat.snapshot.invalid.keys() == (bad.keys() - {"json", "empty"}) | {"good", "later"}


class Meta(msgspec.Struct, frozen=True):
    zone: str


async def test_payloads_of_a_type(registry: Registry, publisher: Registry, judge: Judge, service: str) -> None:
    await judge.make(f"{service}/misfit", document("misfit", {"zone": 7}))
    async with (
        publisher.register(instance_of("chat", payload=Meta("eu-1"))) as registration,
        registry.discover("chat", payload_type=Meta) as chat,
        believing(chat),
    ):
        assert chat.snapshot["a"].payload == Meta("eu-1")
        assert list(chat.snapshot.invalid) == ["misfit"]
        await registration.update(payload=Meta("eu-2"))
        await chat.wait_for(lambda snapshot: snapshot["a"].payload == Meta("eu-2"), DEADLINE)
        await judge.set_data(f"{service}/misfit", document("misfit", {"zone": "eu-3"}))
        await chat.wait_for(lambda snapshot: "misfit" in snapshot, DEADLINE)


async def test_who_is_slow_gets_one_resync_and_delays_nobody(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, judge: Judge, service: str
) -> None:
    monkeypatch.setattr(subscriptions, "CHANGES_KEPT", 10)
    async with registry.discover("chat") as chat, believing(chat) as quick, chat.changes() as changes:
        slow = OrderedConsumer(changes.start.entries)
        await judge.make(f"{service}/a", document("a"))
        slow.apply(await following(changes))
        for number in range(30):
            await judge.make(f"{service}/n{number}", document(f"n{number}"))
            if number % 2:
                await judge.delete(f"{service}/n{number}")
        await check_view(chat, judge, service)
        await until(lambda: quick.entries == chat.snapshot.entries)
        resynced = await following(changes)
        assert isinstance(resynced, Resynced)
        # Two that one look at the children found are told in the server's order, which is not that of their numbers.
        assert sorted(each.id for each in resynced.added) == sorted(f"n{number}" for number in range(0, 30, 2))
        assert resynced.removed == ()  # it never heard of those that came and went
        slow.apply(resynced)
        slow.check(chat.snapshot.entries)


async def test_a_large_service_is_read_in_many_answers(registry: Registry, judge: Judge, service: str) -> None:
    ids = [f"n{number}" for number in range(3000)]
    for at in range(0, len(ids), 500):
        some = ids[at : at + 500]
        await judge.ask(wire.multi([wire.create(f"{service}/{id}", document(id, "x" * 600)) for id in some]))
    async with registry.discover("chat") as chat:
        assert chat.snapshot.keys() == set(ids)
        assert chat.snapshot["n7"].payload == "x" * 600
        assert chat.snapshot.as_of == session_of(registry).last_zxid


# ---------------------------------------------------------------- how fresh it is


@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_what_was_known_stays_and_says_that_it_is_stale(
    registry: Registry, judge: Judge, proxy: ZooKeeperProxy, service: str, how: str
) -> None:
    await judge.make(f"{service}/a", document("a"))
    async with registry.discover("chat") as chat, chat.snapshots() as snapshots, asyncio.timeout(DEADLINE):
        assert (await anext(snapshots)).stale_since is None
        if how == "cut":
            proxy.refuse()
            proxy.cut()
        else:
            proxy.silence()
        stale = await anext(snapshots)
        assert stale.keys() == {"a"}
        assert stale.stale_since is not None
        assert 0 <= session_of(registry).runtime.wall() - stale.stale_since <= TIMEOUT
        check_honest(claimed=chat.fresh, contact_age=TIMEOUT, timeout=TIMEOUT)
        await judge.set_data(f"{service}/a", document("a", 1))
        proxy.restore()
        async for snapshot in snapshots:
            if snapshot.stale_since is None:
                break
        assert snapshot["a"].payload == 1


@pytest.mark.parametrize("viewed_at", ["follower", "leader"])
async def test_syncing_shows_what_any_server_has_acknowledged(ensemble: ZooKeeperEnsemble, viewed_at: str) -> None:
    """A follower may be behind its leader, and a leader may apply later what a follower acknowledged already."""
    leader, follower = ensemble.leader(), ensemble.followers()[0]
    written_at, read_at = (leader, follower) if viewed_at == "follower" else (follower, leader)
    base = f"/{uuid.uuid4().hex}"
    path = f"{base}/chat/a"
    async with (
        Judge(written_at.address) as judge,
        aioregistry.connect(read_at.address, session_timeout=TIMEOUT, base_path=base, guard=None) as registry,
        registry.discover("chat") as chat,
    ):
        await judge.make(path, document("a", 0))
        assert (await chat.sync(DEADLINE))["a"].payload == 0
        for number in range(1, 200):
            await judge.set_data(path, document("a", number))
            assert (await chat.sync(DEADLINE))["a"].payload == number


# ---------------------------------------------------------------- whatever happens


@pytest.mark.parametrize("seed", range(3))
async def test_writes_and_cuts_at_random(
    registry: Registry, judge: Judge, proxy: ZooKeeperProxy, service: str, seed: int
) -> None:
    """The reference is the server: whatever happened, the view is the same in the end, and was told in order."""
    chance = random.Random(seed)
    nodes: set[str] = set()
    async with registry.discover("chat") as chat, believing(chat):
        for number in range(120):
            id = chance.choice("abcdefgh")
            path, data = f"{service}/{id}", chance.choice([document(id, number)] * 5 + [b"{"])
            match chance.choice(["make", "make", "set", "set", "delete", "replace", "cut", "wait"]):
                case "make" if id not in nodes:
                    await judge.make(path, data)
                    nodes.add(id)
                case "set" if id in nodes:
                    await judge.set_data(path, data)
                case "delete" if id in nodes:
                    await judge.delete(path)
                    nodes.discard(id)
                case "replace" if id in nodes:
                    await judge.ask(wire.multi([wire.delete(path), wire.create(path, data)]))
                case "cut":
                    proxy.cut()
                case "wait":
                    await chat.sync(DEADLINE)
        await check_view(chat, judge, service)
