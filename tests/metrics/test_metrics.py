from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import aioregistry
from aioregistry import (
    Ejection,
    InvalidArgument,
    Registry,
    ServiceInstance,
    SessionState,
    Status,
    blocking,
    events,
)
from aioregistry._discovery import Tallies, Tally
from aioregistry._metrics import table
from aioregistry._metrics.durations import BOUNDS, OPERATIONS, Durations, Growth
from aioregistry._metrics.reader import RegistryReader
from aioregistry._metrics.table import METRICS, Bucket, Counters, Kind
from aioregistry.metrics import opentelemetry, prometheus
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support import wire
from tests.support.inside import driver_of, password_of, session_of
from tests.support.judge import Judge
from tests.support.waiting import until
from tests.support.zookeeper import ZooKeeperServer

WORDS = {Kind.GAUGE: "", Kind.COUNTER: ", counter", Kind.HISTOGRAM: ", histogram"}
DOCS = Path(__file__).parents[2] / "docs" / "operations" / "metrics.md"


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(collectors: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """As prometheus_client's server does it, from a thread of its own."""
    return values((await asyncio.to_thread(generate_latest, collectors)).decode())


async def test_prometheus_reads_the_registry_when_it_scrapes(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    collectors = CollectorRegistry()
    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        prometheus(registry, to=collectors)
        async with (
            registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)),
            registry.register(ServiceInstance("chat", id="b", address="10.0.0.8", port=7000, enabled=False)),
            registry.discover("chat") as view,
        ):
            await judge.make(f"{chroot}/services/chat/bad", b"{")
            await view.wait_for(lambda snapshot: len(snapshot) == 2 and len(snapshot.invalid) == 1, 20)
            seen = await scraped(collectors)
            expected = {
                ("aioregistry_up",): 1,
                ("aioregistry_session_state", "connected"): 1,
                ("aioregistry_session_state", "suspended"): 0,
                ("aioregistry_session_timeout_seconds",): registry.session.timeout,
                ("aioregistry_session_connections_total",): 1,
                ("aioregistry_session_attempts_total", "accepted"): 1,
                ("aioregistry_session_attempts_total", "refused"): 0,
                ("aioregistry_session_expirations_total",): 0,
                ("aioregistry_registrations", "chat", "live"): 2,
                ("aioregistry_instances", "confirmed", "chat"): 2,
                ("aioregistry_instances", "invalid", "chat"): 1,
                ("aioregistry_instances_enabled", "chat"): 1,
                ("aioregistry_view_fresh", "chat"): 1,
            }
            assert {name: seen[name] for name in expected} == expected
            assert 0 <= seen[("aioregistry_session_evidence_age_seconds",)] < 60
            assert ("aioregistry_view_syncs_total", "chat") in seen
            # From the loop itself, as an ASGI route does it.
            assert values(generate_latest(collectors).decode()).keys() == seen.keys()
    assert await scraped(collectors) == {("aioregistry_up",): 0}


async def test_what_happens_to_sessions_and_registrations_is_counted(
    proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer, chroot: str
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    me = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)
    async with (
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=60) as registry,
        aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=60) as other,
    ):
        prometheus(registry, to=ours)
        prometheus(other, to=theirs)
        former, states = registry.session.id, registry.session.states()
        async with registry.register(me) as registration:
            proxy.cut()
            async for state in states:
                if state is SessionState.RECONNECTED:
                    break
            await registration.wait_live(60)
            await wire.force_expiry(zookeeper.address, former, password_of(session_of(registry)))
            async for state in states:
                if state is SessionState.CONNECTED and registry.session.id != former:
                    break
            await registration.wait_live(60)
            seen = await scraped(ours)
            assert seen[("aioregistry_session_expirations_total",)] == 1
            assert seen[("aioregistry_session_connections_total",)] >= 3
            assert seen[("aioregistry_registration_displacements_total",)] == 0
            async with other.register(me):
                await until(lambda: registration.status is Status.DISPLACED)
                assert (await scraped(ours))[("aioregistry_registration_displacements_total",)] == 1
                assert (await scraped(theirs))[("aioregistry_registration_takeovers_total",)] == 1


async def test_a_loop_that_stands_still_shows(
    zookeeper: ZooKeeperServer, chroot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioregistry._metrics.reader.PATIENCE", 0.05)
    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        reader = RegistryReader(registry)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(reader.read()))
        thread.start()
        thread.join(20)  # the loop does nothing meanwhile
        assert [(each.metric, each.value) for each in found[0]] == [("aioregistry.up", 0.0)]


async def test_opentelemetry_observes_the_registry_when_it_exports(zookeeper: ZooKeeperServer, chroot: str) -> None:
    exported = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[exported])
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}") as registry,
        registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)),
    ):
        opentelemetry(registry, meter=provider.get_meter("tests"))
        data = await asyncio.to_thread(exported.get_metrics_data)
        assert data is not None
        found: dict[str, tuple[str | None, list[Any]]] = {
            metric.name: (metric.unit, list(metric.data.data_points))
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
    assert found.keys() <= METRICS.keys()
    assert found["aioregistry.up"][1][0].value == 1
    unit, (point,) = found["aioregistry.registrations"]
    assert (unit, point.value, dict(point.attributes)) == ("{registration}", 1, {"service": "chat", "status": "live"})
    await asyncio.to_thread(provider.shutdown)


async def test_a_registry_on_a_thread_of_its_own(zookeeper: ZooKeeperServer, chroot: str) -> None:
    collectors = CollectorRegistry()
    async with aioregistry.connect(f"{zookeeper.address}{chroot}", thread=True) as registry:
        prometheus(registry, to=collectors)
        async with (
            registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)),
            registry.discover("chat") as view,
        ):
            await view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
            balancer = view.balancer()
            balancer.pick().failed()
            seen = await scraped(collectors)
    assert seen[("aioregistry_up",)] == 1
    assert seen[("aioregistry_balancer_picks_total", "chat")] == 1
    assert seen[("aioregistry_balancer_failures_total", "chat")] == 1
    assert seen[("aioregistry_request_duration_seconds_count", "create2")] >= 1


def test_a_blocking_registry(zookeeper: ZooKeeperServer, chroot: str) -> None:
    collectors = CollectorRegistry()
    registry = blocking.connect(f"{zookeeper.address}{chroot}")
    prometheus(registry, to=collectors)  # before it is opened
    assert values(generate_latest(collectors).decode()) == {("aioregistry_up",): 0}
    with (
        registry,
        registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)),
        registry.discover("chat") as view,
    ):
        view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
        balancer = view.balancer()
        balancer.pick().failed()
        seen = values(generate_latest(collectors).decode())
    assert seen[("aioregistry_up",)] == 1
    assert seen[("aioregistry_registrations", "chat", "live")] == 1
    assert seen[("aioregistry_balancer_picks_total", "chat")] == 1
    assert seen[("aioregistry_balancer_failures_total", "chat")] == 1
    assert seen[("aioregistry_request_duration_seconds_count", "create2")] >= 1


def test_a_blocking_registry_that_a_child_process_opens(zookeeper: ZooKeeperServer, chroot: str) -> None:
    program = (
        "import os, sys\n"
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from aioregistry import blocking\n"
        "from aioregistry.metrics import prometheus\n"
        f"registry = blocking.connect('{zookeeper.address}{chroot}')\n"
        "collectors = CollectorRegistry()\n"
        "prometheus(registry, to=collectors)\n"
        "child = os.fork()\n"
        "if child:\n"
        "    registry.close()\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "with registry:\n"
        "    generate_latest(collectors)\n"
        "    registry.services()\n"
        "    print(generate_latest(collectors).decode())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seen = values(done.stdout)
    assert seen[("aioregistry_up",)] == 1
    assert sum(value for name, value in seen.items() if name[0] == "aioregistry_request_duration_seconds_count") >= 1


@pytest.mark.parametrize("registry", [None, "zk1", aioregistry])
def test_what_is_no_registry_is_refused(registry: Any) -> None:
    for make in (prometheus, opentelemetry):
        with pytest.raises(InvalidArgument, match="registry="):
            make(registry)


async def test_requests_are_timed_by_their_kind(zookeeper: ZooKeeperServer, chroot: str) -> None:
    collectors, exported = CollectorRegistry(), InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[exported])
    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        prometheus(registry, to=collectors)
        opentelemetry(registry, meter=provider.get_meter("tests"))
        for number in range(3):
            await registry.client.exists(f"/{number}")
        seen = await scraped(collectors)
        point = (await points(exported, "aioregistry.request.duration"))["exists"]
        # Exported values are not exported again.
        await registry.client.exists("/once more")
        async with asyncio.timeout(20):
            while point.count == (later := (await points(exported, "aioregistry.request.duration"))["exists"]).count:
                await asyncio.sleep(0.1)  # one reading stands for all within half a second
    count = seen[("aioregistry_request_duration_seconds_count", "exists")]
    assert count == 3
    assert seen[("aioregistry_request_duration_seconds_bucket", "+Inf", "exists")] == count
    bounds = [str(bound) for bound in BOUNDS]
    counts = [seen[("aioregistry_request_duration_seconds_bucket", bound, "exists")] for bound in bounds]
    assert counts == sorted(counts)
    assert 0 < seen[("aioregistry_request_duration_seconds_sum", "exists")] < 60
    assert (tuple(point.explicit_bounds), point.count) == (BOUNDS, count)
    assert point.sum == pytest.approx(seen[("aioregistry_request_duration_seconds_sum", "exists")])
    assert later.count == count + 1
    await asyncio.to_thread(provider.shutdown)


async def points(exported: InMemoryMetricReader, name: str) -> dict[str, Any]:
    data = await asyncio.to_thread(exported.get_metrics_data)
    assert data is not None
    return {
        str(next(iter((point.attributes or {}).values()))): point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    }


async def test_balancers_of_a_service_are_added_up_and_never_fall(zookeeper: ZooKeeperServer, chroot: str) -> None:
    collectors, exported = CollectorRegistry(), InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[exported])
    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        prometheus(registry, to=collectors)
        opentelemetry(registry, meter=provider.get_meter("tests"))
        async with registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)):
            async with registry.discover("chat") as view, registry.discover("chat") as other:
                await view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
                await other.wait_for(lambda snapshot: len(snapshot) == 1, 20)
                balancers = [view.balancer(), view.balancer(), other.balancer(ejection=Ejection(failures=1))]
                for balancer in balancers:
                    balancer.pick().failed()
                balancers[0].pick().succeeded()
                assert (await scraped(collectors))[("aioregistry_balancer_picks_total", "chat")] == 4
            del view, other, balancer, balancers
            gc.collect()
            async with registry.discover("chat") as view:
                view.balancer().pick().succeeded()  # this one is gone at once
                gc.collect()
                seen = await scraped(collectors)
                point = (await points(exported, "aioregistry.balancer.picks"))["chat"]
    assert seen[("aioregistry_balancer_picks_total", "chat")] == point.value == 5
    assert seen[("aioregistry_balancer_failures_total", "chat")] == 3
    assert seen[("aioregistry_balancer_ejections_total", "chat")] == 0
    assert seen[("aioregistry_balancer_panics_total", "chat")] == 0
    await asyncio.to_thread(provider.shutdown)


async def test_ejections_and_panics_are_counted(zookeeper: ZooKeeperServer, chroot: str) -> None:
    collectors = CollectorRegistry()

    async def fails() -> None:
        raise RuntimeError("the database is gone")

    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        prometheus(registry, to=collectors)
        well, ill = (
            registry.register(ServiceInstance(name, id=name, address="10.0.0.7", port=7000), checks=checks)
            for name, checks in (("well", None), ("ill", {"database": fails}))
        )
        async with well, ill, registry.discover("well") as view, registry.discover("ill") as other:
            await view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
            await other.wait_for(lambda snapshot: len(snapshot) == 1, 20)
            balancer = view.balancer(ejection=Ejection(failures=1, remaining=0))
            balancer.pick().failed()
            assert balancer.set_aside
            panicking = other.balancer()
            assert panicking.in_panic
            seen = await scraped(collectors)
    assert seen[("aioregistry_balancer_ejections_total", "well")] == 1
    assert seen[("aioregistry_balancer_panics_total", "well")] == 0
    assert seen[("aioregistry_balancer_panics_total", "ill")] == 1


class Balancing:
    """Stands for a balancer."""


def parts_of(tallies: Any) -> int:
    """How many balancers it keeps apart: from outside only their sum is seen."""
    return len(tallies._present)


def test_tallies_forget_without_a_reader_and_keep_with_one() -> None:
    tallies, balancer = Tallies(), Balancing()
    tallies.add("chat", balancer, Tally(picks=1))
    for _ in range(1000):
        tallies.add("chat", Balancing(), Tally(picks=1))
    assert tallies.by_service() == {"chat": Tally(picks=1)}
    tallies.keep()
    for _ in range(1000):
        tallies.add("chat", Balancing(), Tally(picks=1, failures=2, ejections=3, panics=4))
        tallies.add("mail", Balancing(), Tally(panics=1))
    assert parts_of(tallies) <= 64
    expected = {"chat": Tally(1001, 2000, 3000, 4000), "mail": Tally(panics=1000)}
    assert tallies.by_service() == expected
    assert parts_of(tallies) == 1
    del balancer
    gc.collect()
    assert tallies.by_service() == expected


@given(st.lists(st.tuples(st.integers(-20, 120), st.floats(0, 100))))
def test_durations_are_distributed_as_prometheus_and_opentelemetry_do_it(noted: list[tuple[int, float]]) -> None:
    durations = Durations()
    for opcode, seconds in noted:
        durations.note(opcode, seconds)
    samples = {sample.labels[0]: sample for sample in durations.samples()}
    assert len(samples) == len({OPERATIONS.get(opcode, "other") for opcode, _ in noted})
    for kind, sample in samples.items():
        mine = [seconds for opcode, seconds in noted if OPERATIONS.get(opcode, "other") == kind]
        assert sample.value == pytest.approx(sum(mine))
        for place, bound in enumerate(BOUNDS):
            assert sum(each.values for each in sample.buckets[: place + 1]) == sum(each <= bound for each in mine)
        assert sum(each.values for each in sample.buckets) == len(mine)


def test_growth_is_what_is_new() -> None:
    durations, growth = Durations(), Growth()
    durations.note(3, 0.002)
    durations.note(3, 20)
    assert [list(growth.of(each)) for each in durations.samples()] == [[Bucket(1, 0.002), Bucket(1, 20.0)]]
    assert [list(growth.of(each)) for each in durations.samples()] == [[]]
    durations.note(3, 0.003)
    durations.note(4, 0.5)
    (first,), (second,) = [list(growth.of(each)) for each in durations.samples()]
    assert first.values == 1
    assert first.total == pytest.approx(0.003)
    assert second == Bucket(1, 0.5)


def test_every_event_that_counts_is_one_and_counts_what_is_a_counter() -> None:
    assert table._COUNTED.keys() <= events.EVENTS.keys()
    counters = Counters()
    told: dict[str, dict[str, object]] = {
        "session.state": {"state": "expired", "session": 1, "generation": 1, "attempts": {}},
        "session.stall": {"seconds": 2.5, "timeout": 10.0},
        "session.outage": {"seconds": 3.0, "reason": ""},
        "session.rollback": {"ours": 2, "theirs": 1, "proven": True},
        "session.poison": {"request": "", "size": 1, "server": "", "limit": None},
        "registration.status": {"path": "/a", "status": "displaced", "owner": 1},
        "registration.takeover": {"path": "/a", "owner": 1},
        "health.check": {"path": "/a", "check": "db", "probe": "", "state": "failing", "reason": ""},
        "discovery.synced": {"service": "chat", "instances": 1},
        "discovery.held": {"service": "chat", "id": "a", "reason": ""},
        "discovery.missed": {"service": "chat", "ids": ("a", "b")},
        "discovery.invalid": {"service": "chat", "id": "a", "reason": ""},
    }
    for name, fields in told.items():
        counters.told(name, fields)
    samples = counters.samples()
    assert all(METRICS[each.metric].kind is Kind.COUNTER for each in samples)
    assert all(len(METRICS[each.metric].labels) == len(each.labels) for each in samples)
    counted = {each.metric for each in samples if each.value}
    assert counted == {name for name, metric in METRICS.items() if metric.kind is Kind.COUNTER} - {
        "aioregistry.session.connections",
        "aioregistry.session.attempts",
        *(f"aioregistry.balancer.{each}" for each in ("picks", "failures", "ejections", "panics")),
    }
    assert {each.value for each in samples if each.metric.endswith((".missed", "stall.time"))} == {2.0, 2.5}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("session.state", {"state": "connected", "session": 1, "generation": 1, "attempts": {}}),
        ("registration.status", {"path": "/a", "status": "live", "owner": 1}),
        ("health.check", {"path": "/a", "check": "db", "probe": "", "state": "passing", "reason": ""}),
        ("discovery.invalid", {"service": "chat", "id": "a", "reason": ""}),
    ],
)
def test_what_is_well_and_what_has_no_metric_counts_nothing(name: str, fields: dict[str, object]) -> None:
    counters = Counters()
    counters.told(name, fields)
    assert counters.values == {}


def test_counts_add_up_and_what_has_begun_is_0_before_the_first_time() -> None:
    counters = Counters()
    for ids in (("a", "b"), ("c",)):
        counters.told("discovery.missed", {"service": "chat", "ids": ids})
    mine, other = ("aioregistry.view.missed", ("chat",)), ("aioregistry.view.syncs", ("mail",))
    counted = {(each.metric, each.labels): each.value for each in counters.samples([mine, other])}
    assert (counted[mine], counted[other]) == (3.0, 0.0)
    assert other not in {(each.metric, each.labels) for each in counters.samples()}
    assert counted["aioregistry.session.expirations", ()] == 0.0


def test_names_and_labels_are_few_and_as_the_conventions_have_them() -> None:
    assert all(re.fullmatch(r"aioregistry(\.[a-z]+)+", name) for name in METRICS)
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert labels <= {"state", "outcome", "service", "status", "kind", "check", "operation"}
    assert all(metric.unit == "s" or re.fullmatch(r"1|\{[a-z]+\}", metric.unit) for metric in METRICS.values())


def test_every_metric_is_in_the_documentation() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("| metric |")[2]
    rows = re.findall(r"^\| `(aioregistry\.[a-z.]+)` \| ([^|]*) \| ([^|]*) \|", table, re.MULTILINE)
    assert rows == [
        (name, f"`{each.unit}`{WORDS[each.kind]}", ", ".join(f"`{label}`" for label in each.labels))
        for name, each in METRICS.items()
    ]


@pytest.mark.parametrize(("name", "hidden"), [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry")])
def test_a_missing_extra_is_named(name: str, hidden: str) -> None:
    program = (
        f"import sys; sys.modules[{hidden!r}] = None\n"
        "import aioregistry\n"
        f"from aioregistry.metrics import {name}\n"
        f"try:\n    {name}(aioregistry.connect('zk1'))\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"aioregistry-zookeeper[{name}]" in done.stdout


async def test_without_a_reader_nobody_listens(zookeeper: ZooKeeperServer, chroot: str) -> None:
    registry: Registry
    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        observers = driver_of(session_of(registry)).observers
        assert not observers._hooks
        assert not observers.timers
        prometheus(registry)
        assert len(observers._hooks) == len(observers.timers) == 1
