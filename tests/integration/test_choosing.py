"""Which instances are picked, with the library at both ends of a real ZooKeeper: panic, Spring's states, warm-up."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import aioregistry
from aioregistry import (
    Balancer,
    Check,
    Guard,
    NoInstances,
    OwnZone,
    Random,
    Registration,
    Registry,
    Snapshot,
    View,
    WarmUp,
    events,
)
from aioregistry.metrics import prometheus
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.balancing.service import check_proportions
from tests.integration.scene import instance_of
from tests.support import wire
from tests.support.inside import password_of, session_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer

LONG = 60.0
"""Seconds: the timeout of a session that must not end, however slow the machine."""
PICKS = 400
"""Enough that an instance with half a share of a dozen instances is among them."""
HELD = Guard(hold=300)


class Owner:
    """A process with instances whose health the test sets."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.sick: set[str] = set()
        self.registrations: dict[str, Registration[Any]] = {}

    async def register(self, *ids: str) -> None:
        for id in ids:

            async def well(id: str = id) -> bool:
                return id not in self.sick

            # On a slow machine a result that is not there yet is not one that failed.
            checks = {"health": Check(well, interval=0.1, timeout=DEADLINE, fall=1, initial="passing")}
            self.registrations[id] = await self.registry.register(instance_of("chat", id=id), checks=checks)

    async def expire(self, zookeeper: ZooKeeperServer) -> None:
        """End the session from outside; the library registers again in another one."""
        session = session_of(self.registry)
        before = session.id
        await wire.force_expiry(zookeeper.address, before, password_of(session))
        await until(lambda: session.connected and session.id != before)


@pytest.fixture
async def owner(servers: str) -> AsyncIterator[Owner]:
    async with aioregistry.connect(servers, session_timeout=LONG) as registry:
        yield Owner(registry)


@pytest.fixture
async def consumer(servers: str) -> AsyncIterator[Registry]:
    async with aioregistry.connect(servers, session_timeout=LONG, guard=HELD) as registry:
        yield registry


def picked(balancer: Balancer[Any]) -> set[str]:
    """The instances that calls go to now; every call is good."""
    ids = set()
    for _ in range(PICKS):
        with balancer.pick() as pick:
            ids.add(pick.id)
    return ids


async def enabled(view: View[Any], ids: str) -> None:
    """Wait until exactly these are shown as enabled."""
    wanted = set(ids)
    await view.wait_for(lambda seen: {id for id, each in seen.items() if each.enabled} == wanted, DEADLINE)


# ---------------------------------------------------------------- panic


async def test_failing_instances_are_picked_while_too_few_are_well(
    servers: str, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step is the smallest that begins the panic, leaves it as it is, or ends it."""
    told: list[events.Event] = []
    async with (
        aioregistry.connect(servers, session_timeout=LONG, on_event=events.typed(told.append)) as consumer,
        consumer.discover("chat") as view,
    ):
        collectors = CollectorRegistry()
        prometheus(consumer, to=collectors)
        balancer, never = view.balancer(), view.balancer(panic=0)
        await owner.register(*"abcdefgh")
        await enabled(view, "abcdefgh")
        assert (picked(balancer), balancer.in_panic) == (set("abcdefgh"), False)

        owner.sick |= set("abcd")
        await enabled(view, "efgh")
        assert (picked(balancer), balancer.in_panic) == (set("efgh"), False)

        owner.sick |= set("ef")
        await enabled(view, "gh")
        assert (picked(balancer), balancer.in_panic) == (set("abcdefgh"), True)
        assert (picked(never), never.in_panic) == (set("gh"), False)
        assert {id for id, each in view.snapshot.items() if each.status == "failing"} == set("abcdef")

        await owner.registry.overrides.drain("chat", "a", reason="new disk")
        await view.wait_for(lambda seen: seen["a"].status == "maintenance", DEADLINE)
        assert (picked(balancer), balancer.in_panic) == (set("bcdefgh"), True)
        await owner.registrations["b"].drain()
        await view.wait_for(lambda seen: seen["b"].status == "draining", DEADLINE)
        assert (picked(balancer), balancer.in_panic) == (set("cdefgh"), True)

        owner.sick -= {"c"}  # three of six are half of them
        await enabled(view, "cgh")
        assert (picked(balancer), balancer.in_panic) == (set("cgh"), False)

        panics = [event for event in told if isinstance(event, events.PanicChanged)]
        assert panics == [events.PanicChanged("chat", True), events.PanicChanged("chat", False)]
        name, labels = "aioregistry_balancer_panics_total", {"service": "chat"}
        counted = await asyncio.to_thread(collectors.get_sample_value, name, labels)
        assert counted == 1.0
    # Two fail, and a view may see one of them first.
    began = re.compile("chat: only [23] of 8 instances are well")
    [warning] = [record for record in caplog.records if began.match(record.message)]
    assert warning.levelno == logging.WARNING


async def test_of_sixteen_a_panic_begins_one_later_than_it_ends(consumer: Registry, owner: Owner) -> None:
    async with consumer.discover("chat") as view:
        balancer = view.balancer()
        ids = "abcdefghijklmnop"
        await owner.register(*ids)
        await enabled(view, ids)
        for well, panic in (("abcdefgh", False), ("abcdefg", False), ("abcdef", True), ("abcdefg", True)):
            owner.sick = set(ids) - set(well)
            await enabled(view, well)
            assert (picked(balancer), balancer.in_panic) == (set(ids if panic else well), panic)
        owner.sick = set(ids) - set("abcdefgh")
        await enabled(view, "abcdefgh")
        assert (picked(balancer), balancer.in_panic) == (set("abcdefgh"), False)


async def test_suspects_and_failing_instances_are_counted_together(
    consumer: Registry, owner: Owner, proxy: ZooKeeperProxy, chroot: str
) -> None:
    """Five of eight are confirmed, and six of eight do not fail: neither is a panic by itself."""
    async with (
        consumer.discover("chat") as view,
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=4.0) as away,
    ):
        balancer = view.balancer()
        for id in "fgh":
            _ = await away.register(instance_of("chat", id=id))
        await owner.register(*"abcde")
        await view.wait_for(lambda seen: set(seen.confirmed) == set("abcdefgh"), DEADLINE)
        assert (picked(balancer), balancer.in_panic) == (set("abcdefgh"), False)

        proxy.silence()
        await view.wait_for(lambda seen: set(seen.suspects) == set("fgh"), DEADLINE)
        assert (picked(balancer), balancer.in_panic) == (set("abcde"), False)
        owner.sick |= set("de")
        await enabled(view, "abcfgh")
        assert (picked(balancer), balancer.in_panic) == (set("abcdefgh"), True)
        assert set(view.snapshot.suspects) == set("fgh")
        assert {id for id, each in view.snapshot.items() if each.status == "failing"} == set("de")

        proxy.restore()
        await view.wait_for(lambda seen: set(seen.confirmed) == set("abcdefgh"), DEADLINE)
        assert (picked(balancer), balancer.in_panic) == (set("abcfgh"), False)


# ---------------------------------------------------------------- Spring's states

SPRING = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance"
SERVICE = "/services/chat"


def written(id: str, metadata: Mapping[str, Any]) -> bytes:
    """As a server of Spring Cloud's writes it."""
    payload = {"@class": SPRING, "id": "application-1", "name": "chat", "metadata": metadata}
    fields = {"name": "chat", "id": id, "address": "10.0.0.7", "port": 7000, "sslPort": None, "payload": payload}
    return json.dumps({**fields, "registrationTimeUTC": 1, "serviceType": "DYNAMIC"}).encode()


async def test_a_server_of_springs_is_picked_only_while_it_is_up(consumer: Registry, judge: Judge, chroot: str) -> None:
    statuses = {"a": "UP", "b": "up", "c": "", "d": "OUT_OF_SERVICE", "e": "Down", "f": "STARTING", "g": "whatever"}
    for id, status in statuses.items():
        metadata = {"instance_status": status, "zone": "z1" if id in "ad" else "z2"}
        await judge.make(f"{chroot}{SERVICE}/{id}", written(id, metadata))
    await judge.make(f"{chroot}{SERVICE}/h", written("h", {}))
    async with consumer.discover("chat") as view:
        assert set(view.snapshot) == set("abcdefgh")
        assert all(each.enabled for each in view.snapshot.values()), "what the document says stays visible"
        assert view.snapshot["d"].payload["metadata"]["instance_status"] == "OUT_OF_SERVICE"
        balancer, warming = view.balancer(), view.balancer(WarmUp(seconds=3600))
        assert picked(balancer) == set("abch")
        assert not balancer.in_panic, "an instance that is out of service is not one that fails"
        everywhere = view.balancer(where={"metadata.instance_status": {"UP", "OUT_OF_SERVICE"}})
        assert picked(everywhere) == set("ad")
        assert picked(view.balancer(OwnZone("z1", Random(), field="metadata.zone"))) == {"a"}

        await judge.set_data(f"{chroot}{SERVICE}/d", written("d", {"instance_status": "UP"}))
        await view.wait_for(lambda seen: seen["d"].payload["metadata"]["instance_status"] == "UP", DEADLINE)
        assert picked(balancer) == set("abcdh")
        assert set(warming.warming_up) == {"d"}, "it is well again, and so it is new"
        for id in "abcdh":
            await judge.set_data(f"{chroot}{SERVICE}/{id}", written(id, {"instance_status": "OUT_OF_SERVICE"}))
        await view.sync(DEADLINE)
        with pytest.raises(NoInstances) as raised:
            balancer.pick()
        assert (raised.value.reason, raised.value.counts) == ("out of service", {"out of service": 8})


async def test_an_instance_of_this_library_may_say_what_springs_servers_say(consumer: Registry, owner: Owner) -> None:
    def payload(status: str) -> dict[str, Any]:
        return {"id": "application-1", "name": "chat", "metadata": {"instance_status": status}}

    async with consumer.discover("chat") as view:
        balancer = view.balancer()
        for id in "ab":
            instance = instance_of("chat", id=id, payload=payload("UP")).replace(payload_class=SPRING)
            owner.registrations[id] = await owner.registry.register(instance)
        await enabled(view, "ab")
        assert picked(balancer) == {"a", "b"}
        await owner.registrations["a"].update(payload=payload("OUT_OF_SERVICE"))
        await view.sync(DEADLINE)
        assert picked(balancer) == {"b"}


# ---------------------------------------------------------------- warm-up


def check_shares(balancer: Balancer[Any], weights: Mapping[str, float]) -> None:
    counts: Counter[Any] = Counter(balancer.pick().id for _ in range(4000))
    check_proportions(counts, weights)


def warming(view: View[Any]) -> Balancer[Any]:
    """A balancer of which no instance becomes warm while a test runs: its weight is *least* for six minutes."""
    return view.balancer(WarmUp("random", seconds=3600, least=0.1))


async def test_an_instance_that_comes_is_new_until_it_is_warm(consumer: Registry, owner: Owner) -> None:
    await owner.register(*"abc")
    async with consumer.discover("chat") as view:
        balancer, soon = warming(view), view.balancer(WarmUp("random", seconds=0.5))
        assert balancer.warming_up == {}, "what the first list has may have run for a year"
        check_shares(balancer, dict.fromkeys("abc", 1.0))
        await owner.register("d")
        await enabled(view, "abcd")
        assert balancer.warming_up == {"d": 0.1}
        check_shares(balancer, dict.fromkeys("abc", 1.0) | {"d": 0.1})
        assert warming(view).warming_up == {"d": 0.1}, "a balancer that is made later knows it as well"
        await until(lambda: not soon.warming_up)
        check_shares(soon, dict.fromkeys("abcd", 1.0))


@pytest.mark.parametrize("guard", [HELD, None], ids=["held", "believed"])
async def test_an_instance_that_registers_again_is_not_new_and_another_incarnation_is(
    servers: str, zookeeper: ZooKeeperServer, owner: Owner, guard: Guard | None
) -> None:
    await owner.register(*"abcd")
    async with (
        aioregistry.connect(servers, session_timeout=LONG, guard=guard) as consumer,
        consumer.discover("chat") as view,
    ):
        balancer, before = warming(view), view.snapshot
        await owner.expire(zookeeper)

        def registered(seen: Snapshot[Any]) -> bool:
            owners = [each.owner for each in seen.confirmed.entries.values()]
            return owners == [owner.registry.session.id] * 4

        seen = await view.wait_for(registered, DEADLINE)
        assert all(seen.entries[id].czxid > before.entries[id].czxid for id in "abcd"), "no node was made again"
        assert balancer.warming_up == {}
        async with aioregistry.connect(servers, session_timeout=LONG) as successor:
            _ = await successor.register(instance_of("chat", id="a"))
            former = before["a"].registration_time_ms
            await view.wait_for(lambda seen: "a" in seen and seen["a"].registration_time_ms != former, DEADLINE)
            assert balancer.warming_up == {"a": 0.1}


async def test_an_instance_is_new_again_when_it_is_well_again_or_its_maintenance_is_over(
    consumer: Registry, owner: Owner
) -> None:
    await owner.register(*"abcdef")
    async with consumer.discover("chat") as view:
        balancer, overrides = warming(view), owner.registry.overrides
        owner.sick = {"a"}
        await enabled(view, "bcdef")
        owner.sick = set()
        await enabled(view, "abcdef")
        assert balancer.warming_up == {"a": 0.1}
        await overrides.drain("chat", "b", reason="new disk")
        await enabled(view, "acdef")
        await overrides.enable("chat", "b")
        await enabled(view, "abcdef")
        assert balancer.warming_up == {"a": 0.1, "b": 0.1}
        await overrides.drain("chat", "c", reason="canary", weight=0.5)
        await view.wait_for(lambda seen: seen.entries["c"].weight == 0.5, DEADLINE)
        assert set(balancer.warming_up) == {"a", "b"}
        check_shares(balancer, {"a": 0.1, "b": 0.1, "c": 0.5, "d": 1.0, "e": 1.0, "f": 1.0})


async def test_where_more_than_half_are_new_all_are_picked_alike(consumer: Registry, owner: Owner) -> None:
    await owner.register(*"ab")
    async with consumer.discover("chat") as view:
        balancer = warming(view)
        await owner.register(*"cd")
        await enabled(view, "abcd")
        check_shares(balancer, {"a": 1.0, "b": 1.0, "c": 0.1, "d": 0.1})
        await owner.register("e")
        await enabled(view, "abcde")
        assert balancer.warming_up == {}
        check_shares(balancer, dict.fromkeys("abcde", 1.0))
