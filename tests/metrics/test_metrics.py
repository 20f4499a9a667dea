from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import aioregistry
from aioregistry import InvalidArgument, Registry, ServiceInstance, events
from aioregistry._metrics import table
from aioregistry._metrics.reader import RegistryReader
from aioregistry._metrics.table import METRICS, Counters
from aioregistry.metrics import opentelemetry, prometheus
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

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
        assert (await scraped(collectors))[("aioregistry_up",)] == 1


@pytest.mark.parametrize("registry", [None, "zk1", aioregistry])
def test_what_is_no_registry_is_refused(registry: Any) -> None:
    for make in (prometheus, opentelemetry):
        with pytest.raises(InvalidArgument, match="registry="):
            make(registry)


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
        "health.check": {"path": "/a", "check": "db", "state": "failing", "reason": ""},
        "discovery.synced": {"service": "chat", "instances": 1},
        "discovery.held": {"service": "chat", "id": "a", "reason": ""},
        "discovery.missed": {"service": "chat", "ids": ("a", "b")},
        "discovery.set_aside": {"service": "chat", "id": "a", "seconds": 1.0},
        "discovery.panic": {"service": "chat", "panic": True},
        "discovery.invalid": {"service": "chat", "id": "a", "reason": ""},
    }
    for name, fields in told.items():
        counters.told(name, fields)
    samples = counters.samples()
    assert all(METRICS[each.metric].counts for each in samples)
    assert all(len(METRICS[each.metric].labels) == len(each.labels) for each in samples)
    counted = {each.metric for each in samples if each.value}
    assert counted == {name for name, metric in METRICS.items() if metric.counts} - {"aioregistry.session.connections"}
    assert {each.value for each in samples if each.metric.endswith((".missed", "stall.time"))} == {2.0, 2.5}


def test_names_and_labels_are_few_and_as_the_conventions_have_them() -> None:
    assert all(re.fullmatch(r"aioregistry(\.[a-z]+)+", name) for name in METRICS)
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert labels <= {"state", "outcome", "service", "status", "kind", "check"}
    assert all(metric.unit == "s" or re.fullmatch(r"1|\{[a-z]+\}", metric.unit) for metric in METRICS.values())


def test_every_metric_is_in_the_documentation() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("| metric |")[2]
    rows = re.findall(r"^\| `(aioregistry\.[a-z.]+)` \| ([^|]*) \| ([^|]*) \|", table, re.MULTILINE)
    assert rows == [
        (name, f"`{each.unit}`{', counter' if each.counts else ''}", ", ".join(f"`{label}`" for label in each.labels))
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
        assert not registry._session._observers._hooks
        prometheus(registry)
        assert len(registry._session._observers._hooks) == 1
