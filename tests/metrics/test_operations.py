"""The dashboard, the alert rules and the runbook agree with the metrics, and with Prometheus itself."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.parse
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server

import aioregistry
from aioregistry import ServiceInstance
from aioregistry._metrics.table import METRICS, Kind
from aioregistry.metrics import _prometheus_name, prometheus
from tests.support.zookeeper import ZooKeeperServer

FOLDER = Path(__file__).parents[2] / "docs" / "operations"
NAMES = {_prometheus_name(name) + ("_total" if metric.kind is Kind.COUNTER else "") for name, metric in METRICS.items()}


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


def test_the_dashboard_has_panels_that_ask() -> None:
    panels = json.loads(text_of("grafana.json"))["panels"]
    assert all(target["expr"] and target["legendFormat"] for panel in panels for target in panel["targets"])
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.operations
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
async def test_promtool(arguments: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec("promtool", *arguments, cwd=FOLDER, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(60):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, (stdout + stderr).decode()


@pytest.mark.operations
async def test_prometheus_itself_scrapes(zookeeper: ZooKeeperServer, chroot: str, tmp_path: Path) -> None:
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
    try:
        async with (
            aioregistry.connect(f"{zookeeper.address}{chroot}") as registry,
            registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)),
        ):
            prometheus(registry, to=collectors)
            query = 'aioregistry_registrations{service="chat",status="live"}'
            async with asyncio.timeout(60):
                while await asyncio.to_thread(_asked, own, query) != ["1"]:
                    await asyncio.sleep(0.2)
    finally:
        process.terminate()
        await process.wait()
        server.shutdown()
        server.server_close()
        thread.join()


def _asked(port: int, query: str) -> list[str]:
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return [each["value"][1] for each in json.load(answer)["data"]["result"]]
    except OSError:  # it is starting
        return []
