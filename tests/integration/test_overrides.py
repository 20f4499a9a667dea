"""Maintenance by operators, on a real ZooKeeper: what views show, what owners publish, and when it is over."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from aiozk import ACL

import aioregistry
from aioregistry import (
    InvalidArgument,
    NoInstances,
    Override,
    Registry,
    Removed,
    ServiceInstance,
    Status,
    Updated,
    View,
    events,
)
from aioregistry._runtime import SystemRuntime
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.integration.scene import instance_of
from tests.support import wire
from tests.support.checkers import check_obeyed
from tests.support.inside import password_of, session_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.wire import Node
from tests.support.zookeeper import ZooKeeperServer

pytestmark = pytest.mark.parametrize("watches", ["recursive", "one-shot"])
CHAT = "/services/chat"
OVERRIDES = "/services-overrides"
OWNER_ONLY = [ACL.make("auth", "", read=True, write=True, create=True, delete=True, admin=True)]


def registry_at(zookeeper: ZooKeeperServer, chroot: str, watches: Any = "auto") -> Registry:
    return aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=30.0, watches=watches)


def document(id: str, registered: int = 1) -> bytes:
    """As another program writes it, who publishes no override."""
    fields = {"name": "chat", "id": id, "address": "10.0.0.7", "port": 7000, "registrationTimeUTC": registered}
    return json.dumps(fields).encode()


def picked(view: View[Any]) -> set[str]:
    """The instances that are picked now; not one in maintenance."""
    balancer = view.balancer()
    try:
        ids = {balancer.pick().id for _ in range(20)}
    except NoInstances:
        return set()
    meant = [id for id, each in view.snapshot.overrides.items() if id in ids and each.applies_to(view.snapshot[id])]
    check_obeyed(seen=meant, picked=ids)
    return ids


async def test_a_sync_shows_what_operators_had_said_before(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    async with (
        registry_at(zookeeper, chroot, watches) as consumer,
        registry_at(zookeeper, chroot) as operator,
        consumer.discover("chat") as view,
    ):
        for _ in range(10):
            await operator.overrides.drain("chat", "a", reason="new disk")
            assert (await view.sync())["a"].status == "maintenance"
            await operator.overrides.enable("chat", "a")
            assert (await view.sync())["a"].status is None


async def test_what_is_drained_is_shown_and_not_picked_until_it_is_enabled(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    await judge.make(f"{chroot}{CHAT}/b", document("b"))
    async with (
        registry_at(zookeeper, chroot, watches) as consumer,
        registry_at(zookeeper, chroot) as operator,
        consumer.discover("chat") as view,
        view.changes() as changes,
    ):
        assert picked(view) == {"a", "b"}
        override = await operator.overrides.drain("chat", "a", reason="new disk", by="ann@ops1")
        assert override.until is not None
        assert (override.until - override.since, override.by, override.reason) == (3600.0, "ann@ops1", "new disk")
        assert await operator.overrides.list() == await operator.overrides.list("chat") == [override]

        change = await asyncio.wait_for(anext(changes), DEADLINE)
        assert isinstance(change, Updated)
        assert (change.previous.enabled, change.instance.enabled) == (True, False)
        assert change.instance.status == "maintenance"
        assert sorted(view.snapshot) == ["a", "b"]
        assert dict(view.snapshot.overrides) == {"a": override}
        assert picked(view) == {"b"}
        async with consumer.discover("chat") as later:
            assert picked(later) == {"b"}

        await judge.set_data(f"{chroot}{CHAT}/a", document("a"))  # the owner knows of nothing
        change = await asyncio.wait_for(anext(changes), DEADLINE)
        assert isinstance(change, Updated)
        assert (change.previous.enabled, change.instance.enabled) == (False, False)

        await operator.overrides.enable("chat", "a")
        change = await asyncio.wait_for(anext(changes), DEADLINE)
        assert isinstance(change, Updated)
        assert (change.previous.enabled, change.instance.enabled, change.instance.status) == (False, True, None)
        assert picked(view) == {"a", "b"}
        assert await operator.overrides.list() == []


async def test_one_drain_is_one_override(zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str) -> None:
    """Followers that read between two writes of it would be told of two."""
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    async with registry_at(zookeeper, chroot, watches) as operator:
        for _ in range(2):
            for version in range(2):
                override = await operator.overrides.drain("chat", "a", reason="new disk")
                assert override.version == version
                assert await operator.overrides.list() == [override]
            await operator.overrides.enable("chat", "a")
        both = await asyncio.gather(*(operator.overrides.drain("chat", "a", reason=reason) for reason in "xy"))
        assert await operator.overrides.list() == [max(both, key=lambda each: each.version)]


async def test_the_owner_publishes_it_and_takes_it_back(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    async with (
        registry_at(zookeeper, chroot, watches) as owner,
        registry_at(zookeeper, chroot) as operator,
        owner.register(instance_of("chat")) as registration,
    ):
        _ = await operator.overrides.drain("chat", "a", reason="new disk")

        async def published() -> tuple[Any, Any]:
            node = await judge.node(f"{chroot}{CHAT}/a")
            assert node is not None
            fields = json.loads(node.data)
            return fields.get("enabled", True), fields.get("status")

        async with asyncio.timeout(DEADLINE):
            while await published() != (False, "maintenance"):
                await asyncio.sleep(0.01)
        await registration.update(enabled=True, payload="news")
        assert await published() == (False, "maintenance")
        await operator.overrides.enable("chat", "a")
        async with asyncio.timeout(DEADLINE):
            while await published() != (True, None):
                await asyncio.sleep(0.01)


async def test_no_registration_again_ends_it_where_a_flag_by_hand_is_overwritten_at_once(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    path = f"{chroot}{CHAT}/a"

    async def published(owner: int, *, enabled: bool, status: str | None) -> None:
        def as_expected(node: Node | None) -> bool:
            if node is None or node.stat.owner != owner:
                return False
            fields = json.loads(node.data)
            return (fields.get("enabled", True), fields.get("status")) == (enabled, status)

        await judge.node_until(path, as_expected)

    async with (
        registry_at(zookeeper, chroot, watches) as owner,
        owner.register(instance_of("chat")) as registration,
        registry_at(zookeeper, chroot) as operator,
        operator.discover("chat") as view,
    ):
        node = await judge.node(path)
        assert node is not None
        await judge.set_data(path, json.dumps(json.loads(node.data) | {"enabled": False}).encode())
        await published(owner.session.id, enabled=True, status=None)

        await operator.overrides.drain("chat", "a", reason="new disk")
        await published(owner.session.id, enabled=False, status="maintenance")
        session = session_of(owner)
        former = session.id
        await wire.force_expiry(zookeeper.address, former, password_of(session))
        await until(lambda: session.connected and session.id != former)
        await published(session.id, enabled=False, status="maintenance")
        seen = await view.wait_for(lambda seen: "a" in seen and seen.entries["a"].owner == session.id, DEADLINE)
        assert (seen["a"].enabled, seen["a"].status) == (False, "maintenance")
        assert picked(view) == set()
        await until(lambda: registration.status is Status.LIVE)
        await operator.overrides.enable("chat", "a")
        await published(session.id, enabled=True, status=None)


async def test_another_incarnation_is_spared_unless_any_is_meant(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a", 1))
    await judge.make(f"{chroot}{CHAT}/b", document("b", 1))
    async with registry_at(zookeeper, chroot, watches) as registry, registry.discover("chat") as view:
        _ = await registry.overrides.drain("chat", "a", reason="it is sick")
        _ = await registry.overrides.drain("chat", "b", reason="its rack", any_incarnation=True)
        _ = await view.wait_for(lambda seen: not any(each.enabled for each in seen.values()), DEADLINE)
        for id in ("a", "b"):
            await judge.set_data(f"{chroot}{CHAT}/{id}", document(id, 2))
        _ = await view.wait_for(lambda seen: seen["b"].registration_time_ms == 2, DEADLINE)
        assert (view.snapshot["a"].enabled, view.snapshot["b"].enabled) == (True, False)
        assert picked(view) == {"a"}


async def test_it_ends_by_its_time_and_is_removed_by_whoever_notices(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    async with registry_at(zookeeper, chroot, watches) as registry, registry.discover("chat") as view:
        _ = await registry.overrides.drain("chat", "a", reason="new disk", seconds=0.5)
        _ = await view.wait_for(lambda seen: not seen["a"].enabled, DEADLINE)
        _ = await view.wait_for(lambda seen: seen["a"].enabled, DEADLINE)
        async with asyncio.timeout(DEADLINE):
            while await judge.node(f"{chroot}{OVERRIDES}/chat/a") is not None:
                await asyncio.sleep(0.05)
        assert await registry.overrides.list() == []


async def test_an_owner_that_follows_nothing_notices_its_end_too(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    async with registry_at(zookeeper, chroot, watches) as owner, owner.register(instance_of("chat")):
        _ = await owner.overrides.drain("chat", "a", reason="new disk")

        async def published(status: str | None) -> None:
            await judge.node_until(
                f"{chroot}{CHAT}/a",
                lambda node: node is not None and json.loads(node.data).get("status") == status,
            )

        await published("maintenance")
        _ = await owner.overrides.drain("chat", "a", reason="new disk", seconds=0.5)
        await published(None)
        await judge.node_until(f"{chroot}{OVERRIDES}/chat/a", lambda node: node is None)


class Ahead(SystemRuntime):
    """A host whose wall clock is two hours ahead, and which asks the server at once."""

    def wall(self) -> float:
        return super().wall() + 7200.0

    def uniform(self, low: float, high: float) -> float:
        return low


async def test_a_clock_that_is_ahead_ends_no_maintenance(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: Any
) -> None:
    servers = f"{zookeeper.address}{chroot}"
    told: list[events.Event] = []

    async def written() -> int:
        node = await judge.node(f"{chroot}{OVERRIDES}/chat")
        assert node is not None
        return node.stat.version

    await judge.make(f"{chroot}{CHAT}/b", document("b"))
    async with registry_at(zookeeper, chroot) as operator:
        async with operator.register(instance_of("chat")):
            await operator.overrides.drain("chat", "a", reason="new disk", seconds=3600.0, any_incarnation=True)
        await operator.overrides.drain("chat", "b", reason="new disk", seconds=7190.0)
        before = await written()
        async with (
            aioregistry.connect(
                servers, session_timeout=30.0, watches=watches, runtime=Ahead(), on_event=events.typed(told.append)
            ) as host,
            host.discover("chat") as view,
        ):
            assert picked(view) == set()
            async with host.register(instance_of("chat")) as registration:
                async with asyncio.timeout(DEADLINE):
                    while await written() == before:
                        await asyncio.sleep(0.01)
                seen = await view.wait_for(lambda seen: len(seen) == 2, DEADLINE)
                assert {id: each.status for id, each in seen.items()} == {"a": "maintenance", "b": "maintenance"}
                assert set((await view.sync()).overrides) == {"a", "b"}
                await until(lambda: registration.override is not None)
                assert picked(view) == set()
                await until(lambda: registration.instance.status == "maintenance")
                assert not [event for event in told if isinstance(event, events.OverrideEnded)]
        assert len(await operator.overrides.list()) == 2


async def test_what_ended_before_it_was_seen_is_removed_and_shown_as_over(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: Any
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    await judge.make(f"{chroot}{OVERRIDES}/chat/a", b'{"enabled":false,"seconds":0.001}')
    async with (
        registry_at(zookeeper, chroot, watches) as registry,
        registry.discover("chat") as view,
    ):
        _ = await view.wait_for(lambda seen: seen["a"].enabled, DEADLINE)
        async with asyncio.timeout(DEADLINE):
            while await judge.node(f"{chroot}{OVERRIDES}/chat/a") is not None:
                await asyncio.sleep(0.05)


async def test_a_host_that_is_ahead_and_may_not_ask_keeps_it_and_says_so(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    async with (
        registry_at(zookeeper, chroot) as operator,
        aioregistry.connect(
            f"{zookeeper.address}{chroot}", session_timeout=30.0, watches=watches, runtime=Ahead()
        ) as host,
    ):
        await operator.overrides.drain("chat", "a", reason="new disk", seconds=3600.0)
        await operator.client.set_acl(f"{OVERRIDES}/chat", [ACL.make("world", "anyone", read=True)], force=True)

        def warned() -> list[logging.LogRecord]:
            records = [each for each in caplog.records if each.name == "aioregistry.discovery"]
            return [each for each in records if each.levelno == logging.WARNING and getattr(each, "id", None) == "a"]

        async with host.discover("chat") as view:
            await until(lambda: bool(warned()))
            assert picked(view) == set()
            assert len(warned()) == 1


async def test_a_list_removes_what_has_ended_by_the_servers_clock(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: Any
) -> None:
    over, lasting = b'{"enabled":false,"seconds":0.001}', b'{"enabled":false,"seconds":7190}'
    for name in ("chat/a", "chat/b", "api/a", "team/chat/a"):
        await judge.make(f"{chroot}{OVERRIDES}/{name}", over)
    await judge.make(f"{chroot}{OVERRIDES}/chat/c", lasting)
    servers = f"{zookeeper.address}{chroot}"
    async with aioregistry.connect(servers, session_timeout=30.0, watches=watches, runtime=Ahead()) as host:
        await host.client.set_acl(f"{OVERRIDES}/api", [ACL.make("world", "anyone", read=True)], force=True)
        assert [(each.service, each.id) for each in await host.overrides.list("chat")] == [("chat", "c")]
        assert await judge.children(f"{chroot}{OVERRIDES}/chat") == ["c"]
        assert [(each.service, each.id) for each in await host.overrides.list()] == [("api", "a"), ("chat", "c")]
        assert await judge.children(f"{chroot}{OVERRIDES}/team/chat") == []
        assert await judge.children(f"{chroot}{OVERRIDES}/api") == ["a"]


async def test_a_list_does_not_end_an_override_whose_node_is_also_a_part_of_a_longer_name(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    await judge.make(f"{chroot}{OVERRIDES}/team/chat", b'{"enabled":false,"seconds":null}')
    await judge.make(f"{chroot}{OVERRIDES}/team/chat/a", b'{"enabled":false,"seconds":0.001}')
    async with registry_at(zookeeper, chroot, watches) as registry:
        for _ in range(2):
            listed = await registry.overrides.list()
            assert [(each.service, each.id, each.version) for each in listed] == [("team", "chat", 0)]


async def test_an_override_ends_whose_node_is_also_a_part_of_a_longer_name(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    lasting = b'{"enabled":false,"seconds":null}'
    await judge.make(f"{chroot}{OVERRIDES}/team/chat", lasting)
    await judge.make(f"{chroot}{OVERRIDES}/team/chat/a", lasting)
    async with registry_at(zookeeper, chroot, watches) as registry:
        await registry.overrides.enable("team", "chat")
        assert [(each.service, each.id) for each in await registry.overrides.list()] == [("team/chat", "a")]
        for _ in range(2):  # it has the children of others, and then it has not
            with pytest.raises(InvalidArgument) as raised:
                await registry.overrides.enable("team", "chat")
            assert raised.value.field == "id"
            if await registry.overrides.list():
                await registry.overrides.enable("team/chat", "a")


async def test_a_view_does_not_end_an_override_whose_node_is_also_a_part_of_a_longer_name(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    lasting = b'{"enabled":false,"seconds":null}'
    await judge.make(f"{chroot}{OVERRIDES}/team/chat", lasting)
    await judge.make(f"{chroot}{OVERRIDES}/team/chat/a", b'{"enabled":false,"seconds":0.001}')
    async with registry_at(zookeeper, chroot, watches) as registry, registry.discover("team/chat"):
        await judge.node_until(f"{chroot}{OVERRIDES}/team/chat/a", lambda node: node is None)
        node = await judge.node(f"{chroot}{OVERRIDES}/team/chat")
        assert node is not None
        assert (node.data, node.stat.version) == (lasting, 0)  # a write would also change when it ends


async def test_what_comes_and_goes_meanwhile_is_told_as_it_was_shown(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    async with (
        registry_at(zookeeper, chroot, watches) as registry,
        registry.discover("chat") as view,
        view.changes() as changes,
    ):
        _ = await registry.overrides.drain("chat", "a", reason="new disk", seconds=None)
        _ = await asyncio.wait_for(anext(changes), DEADLINE)
        await judge.delete(f"{chroot}{CHAT}/a")
        change = await asyncio.wait_for(anext(changes), DEADLINE)
        assert isinstance(change, Removed)
        assert change.instance.status == "maintenance"
        await judge.make(f"{chroot}{CHAT}/a", document("a"))
        change = await asyncio.wait_for(anext(changes), DEADLINE)
        assert change.instance.status == "maintenance"  # type: ignore[union-attr]  # one change, no resync
        assert "a" in view.snapshot.overrides


async def test_an_instance_that_only_its_owner_may_read(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: Any
) -> None:
    options: dict[str, Any] = {"session_timeout": 30.0, "watches": watches}
    async with (
        aioregistry.connect(
            f"{zookeeper.address}{chroot}", auth=[("digest", "ada:x")], acl=OWNER_ONLY, **options
        ) as owner,
        registry_at(zookeeper, chroot, watches) as operator,
        owner.register(instance_of("chat")) as registration,
    ):
        with pytest.raises(InvalidArgument) as raised:
            _ = await operator.overrides.drain("chat", "a", reason="new disk")
        assert (raised.value.field, raised.value.value) == ("any_incarnation", False)
        assert await judge.node(f"{chroot}{OVERRIDES}") is None
        with pytest.raises(InvalidArgument) as raised:
            _ = await operator.overrides.drain("chat", "absent", reason="new disk", any_incarnation=True)
        assert raised.value.field == "id"

        override = await operator.overrides.drain("chat", "a", reason="new disk", any_incarnation=True)
        assert (override.enabled, override.registration_time_ms) == (False, None)
        await until(lambda: registration.instance.status == "maintenance")
        await operator.overrides.enable("chat", "a")
        await until(lambda: registration.instance.enabled)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"id": "absent"}, "id"),
        ({"id": "a/b"}, "id"),
        ({"name": ""}, "name"),
        ({"name": "absent"}, "id"),
        ({"reason": " "}, "reason"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": -1.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": 1e12}, "seconds"),
        ({"seconds": "1h"}, "seconds"),
        ({"any_incarnation": 1}, "any_incarnation"),
        ({"by": 7}, "by"),
        ({"weight": -0.1}, "weight"),
        ({"weight": 1.5}, "weight"),
        ({"weight": "0.5"}, "weight"),
        ({"weight": True}, "weight"),
        ({"reason": "x" * 1001}, "reason"),
        ({"by": "x" * 1001}, "by"),
    ],
)
async def test_what_cannot_be_meant_is_refused_at_once(
    arguments: dict[str, Any], field: str, zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    async with registry_at(zookeeper, chroot, watches) as registry:
        with pytest.raises(InvalidArgument) as raised:
            _ = await registry.overrides.drain(**{"name": "chat", "id": "a", "reason": "new disk", **arguments})
        assert (raised.value.field, raised.value.value) == (field, arguments.get(field, "a"))
        with pytest.raises(InvalidArgument) as raised:
            await registry.overrides.enable("chat", "a")
        assert raised.value.field == "id"
        assert await registry.overrides.list() == []
        assert await judge.node(f"{chroot}{OVERRIDES}") is None


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"enabled":true}', b'{"enabled":false,"seconds":"1h"}', b'{"enabled":false,"seconds":NaN}'],
)
async def test_what_others_write_is_read_with_care(
    data: bytes, zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    await judge.make(f"{chroot}{CHAT}/a", document("a"))
    await judge.make(f"{chroot}{OVERRIDES}/chat/a", data)
    await judge.make(f"{chroot}{OVERRIDES}/chat/b", b'{"enabled":false,"seconds":1e300,"reason":["x"],"more":1}')
    async with registry_at(zookeeper, chroot, watches) as registry, registry.discover("chat") as view:
        assert picked(view) == {"a"}
        [override] = await registry.overrides.list()
        assert isinstance(override, Override)
        assert (override.id, override.by) == ("b", "")
        assert list(view.snapshot.overrides) == ["b"]


async def test_an_unfit_override_is_told_once_however_often_overrides_are_listed(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str, caplog: pytest.LogCaptureFixture
) -> None:
    await judge.make(f"{chroot}{OVERRIDES}/chat/a", b"{")
    async with registry_at(zookeeper, chroot, watches) as registry:
        for _ in range(100):
            assert await registry.overrides.list() == []
    first, *counts = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "chat/a is ignored" in first
    assert 1 <= len(counts) < 20  # at most one a second, and the last
    assert "100 in all" in counts[-1]


async def test_an_outage_ends_no_maintenance(own_zookeeper: ZooKeeperServer, watches: Any) -> None:
    me = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)
    with ZooKeeperProxy((own_zookeeper.host, own_zookeeper.port)) as proxy:
        async with (
            aioregistry.connect(own_zookeeper.address, session_timeout=30.0) as owner,
            owner.register(me),
            aioregistry.connect(proxy.address, session_timeout=30.0, watches=watches) as consumer,
            consumer.discover("chat") as view,
        ):
            _ = await owner.overrides.drain("chat", "a", reason="new disk")
            _ = await view.wait_for(lambda seen: not seen["a"].enabled, DEADLINE)
            proxy.refuse()
            proxy.cut()
            await until(lambda: not view.fresh)
            assert picked(view) == set()
            await owner.overrides.enable("chat", "a")
            proxy.accept()
            _ = await view.wait_for(lambda seen: seen["a"].enabled, DEADLINE)
            assert picked(view) == {"a"}


async def test_a_weight_is_obeyed_by_every_balancer_and_leaves_the_instance_enabled(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: str
) -> None:
    for id in "ab":
        await judge.make(f"{chroot}{CHAT}/{id}", document(id))
    async with (
        registry_at(zookeeper, chroot, watches) as consumer,
        registry_at(zookeeper, chroot) as operator,
        consumer.discover("chat") as view,
        view.changes() as changes,
        operator.register(instance_of("chat", id="c")) as registration,
    ):
        assert (await asyncio.wait_for(anext(changes), DEADLINE)).entry.weight == 1.0  # type: ignore[union-attr]
        balancers = [view.balancer(), view.balancer(aioregistry.WarmUp("random"))]
        override = await operator.overrides.drain("chat", "c", reason="canary", weight=0)
        assert (override.enabled, override.weight) == (None, 0.0)
        change = await asyncio.wait_for(anext(changes), DEADLINE)
        assert isinstance(change, Updated)
        assert (change.entry.weight, change.previous_entry.weight, change.instance.enabled) == (0.0, 1.0, True)
        assert {balancer.pick().id for balancer in balancers for _ in range(50)} == {"a", "b"}
        assert registration.instance.enabled
        assert registration.status is Status.LIVE

        await operator.overrides.drain("chat", "c", reason="canary", weight=0.5, seconds=None)
        change = await asyncio.wait_for(anext(changes), DEADLINE)
        assert isinstance(change, Updated)
        assert change.entry.weight == 0.5
        assert {balancers[0].pick().id for _ in range(200)} == {"a", "b", "c"}
        await operator.overrides.enable("chat", "c")
        change = await asyncio.wait_for(anext(changes), DEADLINE)
        assert isinstance(change, Updated)
        assert (change.entry.weight, change.previous_entry.weight) == (1.0, 0.5)


async def test_a_registry_is_told_of_overrides_that_come_and_go(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, watches: Any
) -> None:
    for id in "ab":
        await judge.make(f"{chroot}{CHAT}/{id}", document(id))
    told: list[events.Event] = []

    def overridden() -> list[events.Event]:
        return [event for event in told if isinstance(event, events.OverrideSet | events.OverrideEnded)]

    servers = f"{zookeeper.address}{chroot}"
    async with (
        aioregistry.connect(servers, watches=watches, on_event=events.typed(told.append)) as consumer,
        registry_at(zookeeper, chroot) as operator,
        consumer.discover("chat"),
        consumer.discover("chat"),
    ):
        one = await operator.overrides.drain("chat", "a", reason="new disk", by="ann")
        other = await operator.overrides.drain("chat", "b", reason="canary", by="bob", weight=0.5, seconds=None)
        await until(lambda: len(overridden()) == 2)
        await operator.overrides.enable("chat", "a")
        await until(lambda: len(overridden()) == 3)
        assert overridden() == [
            events.OverrideSet("chat", "a", False, None, "new disk", "ann", one.until),
            events.OverrideSet("chat", "b", None, 0.5, "canary", "bob", other.until),
            events.OverrideEnded("chat", "a"),
        ]
