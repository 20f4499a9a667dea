"""The dashboard, the alert rules and the runbook agree with the metrics, and with Prometheus itself."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import socket
import urllib.parse
import urllib.request
from asyncio.subprocess import DEVNULL
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server

import aioregistry
from aioregistry import ServiceInstance
from aioregistry._metrics.table import METRICS, Kind
from aioregistry.metrics import _prometheus_name, prometheus
from tests.support.processes import outcome_of
from tests.support.zookeeper import ZooKeeperServer

FOLDER = Path(__file__).parents[2] / "docs" / "operations"
SUFFIXES = {Kind.GAUGE: ("",), Kind.COUNTER: ("_total",), Kind.HISTOGRAM: ("_bucket", "_count", "_sum")}
NAMES = {_prometheus_name(name) + suffix for name, metric in METRICS.items() for suffix in SUFFIXES[metric.kind]}


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["alerts.yml", "alerts_test.yml", "grafana.json"])
def test_only_metrics_that_there_are_stand_in(page: str) -> None:
    used = set(re.findall(r"\baioregistry_[a-z_]+", text_of(page)))
    assert used
    assert used <= NAMES


def test_every_alert_is_tested_and_has_a_paragraph() -> None:
    alerts = re.findall(r"- alert: (\w+)", text_of("alerts.yml"))
    assert re.findall(r"^## (\w+)$", text_of("runbook.md"), re.MULTILINE) == alerts
    assert set(re.findall(r"alertname: (\w+)", text_of("alerts_test.yml"))) == set(alerts)
    assert [each.lower() for each in alerts] == re.findall(r"runbook\.md#(\w+)", text_of("alerts.yml"))


PANELS: list[dict[str, Any]] = json.loads(text_of("grafana.json"))["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
UNITS = {"none", "s", "reqps"}
"""Those of Grafana's units that the dashboard uses."""


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    source = {"type": "prometheus", "uid": "${datasource}"}
    taken = set()
    for panel in PANELS:
        assert panel["type"] == "timeseries"
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        at = panel["gridPos"]
        assert 0 <= at["x"] <= 24 - at["w"]
        taken |= (places := {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])})
        assert places
        targets = panel["targets"]
        assert [target["refId"] for target in targets] == list("ABC"[: len(targets)])
        assert all(each["datasource"] == source for each in (panel, *targets))
        # A legend without a value is an empty one.
        legends = [target["legendFormat"] for target in targets]
        assert len(set(legends)) == len(legends)
        for target in targets:
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            labels = re.findall(r"{{(\w+)}}", target["legendFormat"])
            assert labels
            assert set(labels) <= (set(", ".join(grouped).split(", ")) if grouped else {"instance", *labels_of(target)})
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in PANELS)


@pytest.mark.operations
def test_the_dashboard_is_one_of_grafanas_own_schema() -> None:
    """Grafana's classes take what they know, and leave out what they do not: all comes out again as it went in."""
    dashboard = importlib.import_module("grafana_foundation_sdk.models.dashboard").Dashboard
    encoder = importlib.import_module("grafana_foundation_sdk.cog.encoder").JSONEncoder
    importlib.import_module("grafana_foundation_sdk.cog.plugins").register_default_plugins()

    def read(given: dict[str, Any]) -> Any:
        return json.loads(encoder().encode(dashboard.from_json(given)))

    given = json.loads(text_of("grafana.json"))
    assert missing(given, read(given)) == []
    for spoiled in (given["panels"][0], given["panels"][0]["targets"][0], given["templating"]["list"][1]):
        spoiled["unknwon"] = 1
    assert missing(given, read(given)) == [
        ".templating.list.1.unknwon",
        ".panels.0.targets.0.unknwon",
        ".panels.0.unknwon",
    ]


def missing(given: Any, read: Any, path: str = "") -> list[str]:
    """The paths of the values of *given* that *read*, which may have more, has not."""
    if isinstance(given, dict) and isinstance(read, dict):
        parts: list[tuple[object, Any, Any]] = [(key, value, read.get(key)) for key, value in given.items()]
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        parts = [(index, *pair) for index, pair in enumerate(zip(given, read, strict=True))]
    else:
        return [] if given == read else [path]
    return [found for key, mine, theirs in parts for found in missing(mine, theirs, f"{path}.{key}")]


def labels_of(target: dict[str, Any]) -> set[str]:
    return {
        label
        for name, metric in METRICS.items()
        if re.search(rf"\b{_prometheus_name(name)}", target["expr"])
        for label in metric.labels
    }


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for name in METRICS if any(_prometheus_name(name) in expression for expression in EXPRESSIONS)}
    assert METRICS.keys() - shown == {
        "aioregistry.session.timeout",  # for an alert
        "aioregistry.session.addresses",  # the attempts themselves are shown
        "aioregistry.session.connections",
        "aioregistry.session.stalls",  # how long they took is shown
        "aioregistry.session.poison",
        "aioregistry.view.syncs",
    }


@pytest.mark.operations
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
async def test_promtool(arguments: tuple[str, ...]) -> None:
    code, stdout, stderr = await outcome_of("promtool", *arguments, cwd=FOLDER, seconds=60)
    assert code == 0, (stdout + stderr).decode()


@pytest.mark.operations
async def test_prometheus_itself_scrapes_and_every_panel_and_alert_finds_data(
    zookeeper: ZooKeeperServer, chroot: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = listener.getsockname()[1]
    collectors = CollectorRegistry()
    server, thread = start_http_server(0, "127.0.0.1", collectors)
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: tests, static_configs: [{{targets: ['127.0.0.1:{server.server_port}']}}]}}]\n"
    )
    command = ("prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{own}")
    process = await asyncio.create_subprocess_exec(
        *command, "--storage.tsdb.path=data", cwd=tmp_path, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )
    instance = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)
    try:
        async with (
            aioregistry.connect(f"{zookeeper.address}{chroot}") as registry,
            registry.register(instance, checks={"database": passes}),
            registry.discover("chat") as view,
        ):
            prometheus(registry, to=collectors)
            await view.wait_for(lambda snapshot: bool(snapshot) and all(each.enabled for each in snapshot.values()), 20)
            balancer = view.balancer()
            balancer.pick().failed()
            queries = [
                expression.replace("$__rate_interval", "1m").replace("$service", ".*") for expression in EXPRESSIONS
            ]
            # The operand of an alert's comparison is there as well.
            queries += [
                re.sub(r"{(kind|status)[^}]*}", "", side)
                for rule in re.findall(r'expr: (".*")', text_of("alerts.yml"))
                for side in re.split(r" (?:[<>]=?|==) (?:[0-9.]+ \* )?", json.loads(rule))
                if "aioregistry" in side
            ]
            async with asyncio.timeout(100):
                while missing := [query for query in queries if not await asyncio.to_thread(_asked, own, query)]:
                    await registry.services()
                    await asyncio.sleep(0.2)
            assert missing == []
            query = 'aioregistry_registrations{service="chat",status="live"}'
            assert await asyncio.to_thread(_asked, own, query) == ["1"]
    finally:
        process.terminate()
        await process.wait()
        server.shutdown()
        server.server_close()
        thread.join()


async def passes() -> None:
    """A check that passes."""


def _asked(port: int, query: str) -> list[str]:
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return [each["value"][1] for each in json.load(answer)["data"]["result"]]
    except OSError:  # it is starting
        return []
