"""Debian's Prometheus, HAProxy and nginx read what is exported, and send requests where it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

import aioregistry
from aioregistry import Registry, ServiceInstance
from aioregistry._exports import render
from aioregistry.integrations.exports import Exports
from aioregistry.integrations.membership import Membership
from aioregistry.testing._ports import ReservedPort
from tests.cli.command import Command

pytestmark = pytest.mark.exports

DEADLINE = 100.0


@pytest.fixture
async def registry(servers: str) -> AsyncIterator[Registry]:
    async with aioregistry.connect(servers, session_timeout=60) as registry:
        yield registry


@contextlib.asynccontextmanager
async def running(*words: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*words)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(DEADLINE):
            await process.wait()


@contextlib.asynccontextmanager
async def web() -> AsyncIterator[int]:
    """A server that answers every request; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nchat")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def exists(path: Path, text: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while not path.exists() or text not in path.read_text():
            await asyncio.sleep(0.05)


async def answered(url: str) -> str:
    async with asyncio.timeout(DEADLINE), httpx.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.get(url)
                if answer.status_code == 200:
                    return answer.text
            await asyncio.sleep(0.1)


HOSTILE = ["a\n    server evil 6.6.6.6:1", 'b"; } server { listen 1; }', "c d", "$(touch x)", "ü", "#", "e/f"]
HOSTILE_IDS = [name.replace("/", "").replace("\n", " ") for name in HOSTILE]  # neither can be in a path's segment


async def test_haproxy_sends_requests_there(registry: Registry, servers: str, tmp_path: Path) -> None:
    out, base = tmp_path / "services.cfg", tmp_path / "base.cfg"
    options = ("--format", "haproxy", "--out", str(out), "--wait", "0.1:1", "--zookeeper", servers)
    async with (
        web() as port,
        Command("export", *options),
        registry.register(ServiceInstance("chat", id="a b", address="127.0.0.1", port=port)),
    ):
        await exists(out, f":{port}")
        with ReservedPort() as front:
            base.write_text(
                "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
                f"frontend all\n    bind 127.0.0.1:{front.number}\n    default_backend chat\n"
            )
            number = front.number
        async with running("haproxy", "-db", "-f", str(base), "-f", str(out)):
            assert await answered(f"http://127.0.0.1:{number}/") == "chat"


async def test_nginx_sends_requests_there(registry: Registry, servers: str, tmp_path: Path) -> None:
    out, base = tmp_path / "upstreams.conf", tmp_path / "nginx.conf"
    options = ("--format", "nginx", "--out", str(out), "--wait", "0.1:1", "--zookeeper", servers)
    async with (
        web() as port,
        Command("export", *options, "chat", "nobody"),
        registry.register(ServiceInstance("chat", id="a b", address="127.0.0.1", port=port)),
    ):
        await exists(out, f":{port};")
        with ReservedPort() as front:
            base.write_text(
                f"daemon off; pid {tmp_path}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n"
                f"include {out};\nserver {{ listen 127.0.0.1:{front.number};\n"
                "location / { proxy_pass http://chat; } location /nobody { proxy_pass http://nobody; } } }\n"
            )
            number = front.number
        async with running("nginx", "-c", str(base), "-p", str(tmp_path), "-e", "stderr"):
            assert await answered(f"http://127.0.0.1:{number}/") == "chat"
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"http://127.0.0.1:{number}/nobody")).status_code == 502


async def test_hostile_names_are_accepted_as_names(tmp_path: Path) -> None:
    services: dict[str, tuple[ServiceInstance[Any], ...]] = {
        name: tuple(ServiceInstance("chat", id=id, address="10.0.0.7", port=7000) for id in HOSTILE_IDS)
        for name in HOSTILE
    }
    haproxy, nginx, around = tmp_path / "haproxy", tmp_path / "nginx", tmp_path / "around"
    weights = {name: {HOSTILE_IDS[0]: 0.2} for name in HOSTILE}
    haproxy.write_text(render("haproxy", services, weights).text)
    nginx.write_text(render("nginx", services, weights).text)
    assert haproxy.read_text().count(" weight 20\n") == len(HOSTILE)
    assert nginx.read_text().count(" weight=100;\n") == len(HOSTILE)
    base = tmp_path / "base"
    base.write_text("defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
                    "frontend f\n    bind 127.0.0.1:1\n")  # fmt: skip
    around.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include {nginx}; }}")
    for words in (
        ["haproxy", "-c", "-f", str(base), "-f", str(haproxy)],
        ["nginx", "-t", "-c", str(around), "-p", str(tmp_path), "-e", "stderr"],
    ):
        process = await asyncio.create_subprocess_exec(*words)
        assert await process.wait() == 0
    assert "6.6.6.6:1" not in haproxy.read_text()


class CommandWithBrokenText(Command):
    module = "tests.exports.with_broken_text"


@pytest.mark.parametrize("format", ["haproxy", "nginx"])
async def test_a_text_that_the_program_refuses_replaces_nothing(
    registry: Registry, servers: str, tmp_path: Path, format: str
) -> None:
    out, broken = tmp_path / "out", tmp_path / "broken"
    options = ("--format", format, "--out", str(out), "--wait", "0.05:1", "--zookeeper", servers, "chat")
    first, second = (ServiceInstance("chat", address=f"10.0.0.{number}", port=7000) for number in (1, 2))
    async with (
        registry.register(first),
        CommandWithBrokenText("export", *options, BROKEN=str(broken)) as command,
    ):
        await exists(out, "10.0.0.1:7000")
        before = out.read_text()
        broken.touch()
        async with registry.register(second):
            told = (await command.error_lines_until("is kept as it was"))[-1]
            assert format in told
            assert out.read_text() == before
            broken.unlink()
            async with registry.register(ServiceInstance("chat", address="10.0.0.3", port=7000)):
                await exists(out, "10.0.0.3:7000")
                assert "no_such_directive" not in out.read_text()


async def test_prometheus_finds_targets_both_ways(registry: Registry, servers: str, tmp_path: Path) -> None:
    out, config = tmp_path / "chat.json", tmp_path / "prometheus.yml"
    options = ("--format", "prometheus", "--out", str(out), "--wait", "0.1:1", "--zookeeper", servers)
    async with (
        registry.discover("chat") as chat,
        registry.register(ServiceInstance("chat", address="10.0.0.7", port=7000, payload={"zone": 'e"ü\n'})),
        Command("export", *options, "chat"),
    ):
        await exists(out, "10.0.0.7:7000")
        await chat.wait_for(bool, timeout=DEADLINE)
        server = uvicorn.Server(uvicorn.Config(Exports({"chat": chat}), port=0, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        async with asyncio.timeout(DEADLINE):
            while not server.started:
                await asyncio.sleep(0.05)
        try:
            where = server.servers[0].sockets[0].getsockname()[1]
            config.write_text(
                "scrape_configs:\n"
                f"  - {{job_name: file, file_sd_configs: [{{files: [{json.dumps(str(out))}]}}]}}\n"
                f"  - {{job_name: http, http_sd_configs: [{{url: 'http://127.0.0.1:{where}/prometheus'}}]}}\n"
            )
            with ReservedPort() as port:
                number = port.number
            words = ("prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data")
            async with running(*words, f"--web.listen-address=127.0.0.1:{number}", "--log.level=warn"):
                async with asyncio.timeout(DEADLINE):
                    while True:
                        text = await answered(f"http://127.0.0.1:{number}/api/v1/targets")
                        found = json.loads(text)["data"]["activeTargets"]
                        if len(found) == 2:
                            break
                        await asyncio.sleep(0.2)
        finally:
            server.should_exit = True
            await serving
    for target in found:
        labels = target["discoveredLabels"]
        assert labels["__address__"] == "10.0.0.7:7000"
        assert labels["__meta_aioregistry_payload_zone"] == 'e"ü\n'
        assert labels["__meta_aioregistry_service"] == "chat"


async def test_prometheus_keeps_its_targets_while_a_service_was_never_synced(
    registry: Registry, tmp_path: Path
) -> None:
    """The process that answers has restarted while ZooKeeper is away: an empty list would end all scraping."""
    config = tmp_path / "prometheus.yml"
    answers: list[int] = []
    with ReservedPort() as nowhere:
        restarted = Membership(
            f"127.0.0.1:{nowhere.number}", "api", address="127.0.0.1", port=7000, discover=["chat"], check_port=False,
            drain=0,
        )  # fmt: skip
        async with (
            restarted,
            registry.register(ServiceInstance("chat", address="10.0.0.7", port=7000)),
            registry.discover("chat") as chat,
        ):
            await chat.wait_for(bool, timeout=DEADLINE)
            routes = {"before": Exports({"chat": chat}), "restarted": Exports(restarted, "chat")}
            present = "before"

            async def app(scope: Any, receive: Any, send: Any) -> None:
                async def noted(message: Any) -> None:
                    if message["type"] == "http.response.start":
                        answers.append(message["status"])
                    await send(message)

                await routes[present](scope, receive, noted)

            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
            serving = asyncio.create_task(server.serve())
            try:
                async with asyncio.timeout(DEADLINE):
                    while not server.started:
                        await asyncio.sleep(0.05)
                where = server.servers[0].sockets[0].getsockname()[1]
                discovery = f"{{url: 'http://127.0.0.1:{where}/prometheus', refresh_interval: 1s}}"
                config.write_text(f"scrape_configs:\n  - {{job_name: http, http_sd_configs: [{discovery}]}}\n")
                with ReservedPort() as port:
                    number = port.number
                words = ("prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data")
                async with running(*words, f"--web.listen-address=127.0.0.1:{number}", "--log.level=error"):
                    asked = f"http://127.0.0.1:{number}/api/v1/targets"
                    async with asyncio.timeout(DEADLINE):
                        while not targets(await answered(asked)):
                            await asyncio.sleep(0.2)
                        present = "restarted"
                        while answers.count(503) < 3:
                            await asyncio.sleep(0.1)
                    assert targets(await answered(asked)) == ["10.0.0.7:7000"]
            finally:
                server.should_exit = True
                await serving
    assert set(answers) == {200, 503}


def targets(answer: str) -> list[str]:
    return [each["discoveredLabels"]["__address__"] for each in json.loads(answer)["data"]["activeTargets"]]
