"""The blocking face under the servers that fork and thread: gunicorn, Celery and Flask, as real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aioregistry import ServiceInstance, blocking
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 100.0
ASK = "from docs.examples.celery_app import price; print(price.delay().get(timeout=30))"


@pytest.fixture
def servers(zookeeper: ZooKeeperServer) -> str:
    return f"{zookeeper.address}/{uuid.uuid4().hex}"


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own group, that ends with the test whatever becomes of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(what: Callable[[], Any]) -> Any:
    """Return what *what* returns once that is true; it may fail with OSError before."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            if answer := what():
                return answer
        except OSError:
            pass
        assert time.monotonic() < end, "never came true"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn_with_a_preloaded_flask_application(servers: str, worker: str) -> None:
    port = free_port()
    threads = "4" if worker == "gthread" else "1"
    options = ["--preload", "--workers", "2", "--worker-class", worker, "--threads", threads]
    options += ["--config", "docs/examples/gunicorn_conf.py"]
    command = ["gunicorn", *options, "--bind", f"127.0.0.1:{port}", "docs.examples.flask_app:app"]
    with blocking.connect(servers) as registry, registry.discover("shop") as shop:
        with (
            registry.register(ServiceInstance("prices", id="p1", address="10.0.0.7", port=7000)),
            running(command, AIOREGISTRY_ZOOKEEPER=servers, PORT=str(port)) as gunicorn,
        ):
            assert until(lambda: get(port, "/price")) == {"from": "10.0.0.7:7000"}
            workers = {get(port, "/whoami")["pid"] for _ in range(50)}
            assert gunicorn.pid not in workers
            listed = shop.wait_for(lambda snapshot: len(snapshot.entries) >= 1, DEADLINE)
            assert {instance.port for instance in listed.values()} == {port}
            gunicorn.send_signal(signal.SIGTERM)
            assert gunicorn.wait(DEADLINE) == 0
        assert shop.wait_for(lambda snapshot: not snapshot.entries, DEADLINE).suspects == {}


def test_the_server_of_flask_itself(servers: str) -> None:
    port = free_port()
    command = ["flask", "--app", "docs.examples.flask_app", "run", "--port", str(port)]
    with blocking.connect(servers) as registry, registry.discover("shop") as shop:
        with (
            registry.register(ServiceInstance("prices", id="p1", address="10.0.0.7", port=7000)),
            running(command, AIOREGISTRY_ZOOKEEPER=servers, PORT=str(port)) as flask,
        ):
            assert until(lambda: get(port, "/price")) == {"from": "10.0.0.7:7000"}
            assert get(port, "/whoami")["pid"] == flask.pid
            shop.wait_for(lambda snapshot: len(snapshot.entries) == 1, DEADLINE)
            flask.send_signal(signal.SIGINT)
            flask.wait(DEADLINE)
        assert shop.wait_for(lambda snapshot: not snapshot.entries, DEADLINE).suspects == {}


def test_celery_with_forked_workers(servers: str, tmp_path: Path) -> None:
    environment = {"AIOREGISTRY_ZOOKEEPER": servers, "BROKER_FOLDER": str(tmp_path)}
    command = ["celery", "-A", "docs.examples.celery_app", "worker", "--pool", "prefork", "--concurrency", "2"]
    with blocking.connect(servers) as registry, registry.discover("workers") as workers:
        with (
            registry.register(ServiceInstance("prices", id="p1", address="10.0.0.7", port=7000)),
            running([*command, "--loglevel", "warning"], **environment) as celery,
        ):
            workers.wait_for(lambda snapshot: len(snapshot.entries) == 2, DEADLINE)
            asked = subprocess.run(
                [sys.executable, "-c", ASK],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=True,
            )
            assert asked.stdout.split() == ["10.0.0.7:7000"]
            celery.send_signal(signal.SIGTERM)
            assert celery.wait(DEADLINE) == 0
        assert workers.wait_for(lambda snapshot: not snapshot.entries, DEADLINE).suspects == {}
