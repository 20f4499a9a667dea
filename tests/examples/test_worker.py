"""The worker of docs/examples/worker.py: it finishes the job that it has before it is withdrawn."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import aioregistry
from aioregistry import Snapshot, View
from tests.support.zookeeper import ZooKeeperServer

ROOT = Path(__file__).parents[2]
DEADLINE = 100.0


@pytest.fixture
async def workers(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[tuple[View[Any], str]]:
    servers = f"{zookeeper.address}{chroot}"
    async with aioregistry.connect(servers) as registry, registry.discover("workers") as view:
        yield view, servers


@asynccontextmanager
async def worker(servers: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "docs/examples/worker.py", servers), stdin=PIPE, stdout=PIPE, cwd=ROOT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE):
        return (await process.stdout.readline()).decode().strip()


def give(process: Process, seconds: float) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{seconds}\n".encode())


def draining(snapshot: Snapshot[Any]) -> bool:
    return [each.status for each in snapshot.values()] == ["draining"]


async def ended(process: Process) -> int:
    async with asyncio.timeout(DEADLINE):
        return await process.wait()


async def test_it_finishes_its_job_before_it_is_withdrawn(workers: tuple[View[Any], str]) -> None:
    view, servers = workers
    async with worker(servers) as process:
        listed = await view.wait_for(lambda snapshot: len(snapshot) == 1, DEADLINE)
        [instance] = listed.values()
        assert (instance.port, instance.ssl_port) == (None, None)
        assert re.fullmatch(r"127\.0\.0\.1#[0-9a-f]{8}", instance.id)
        give(process, 1.5)
        give(process, 2.5)  # it has come too, and is not begun
        assert await said(process) == "begun 1.5"
        process.send_signal(signal.SIGTERM)
        await view.wait_for(draining, DEADLINE)
        assert await said(process) == "done 1.5"
        assert await said(process) == "ended by SIGTERM"
        await view.wait_for(lambda snapshot: not snapshot, DEADLINE)
        assert await ended(process) == 0


async def test_it_ends_at_once_while_it_waits_for_a_job(workers: tuple[View[Any], str]) -> None:
    view, servers = workers
    async with worker(servers) as process:
        await view.wait_for(lambda snapshot: len(snapshot) == 1, DEADLINE)
        process.send_signal(signal.SIGTERM)
        assert await said(process) == "ended by SIGTERM"
        assert await ended(process) == 0


async def test_who_insists_does_not_wait_for_the_job(workers: tuple[View[Any], str]) -> None:
    view, servers = workers
    async with worker(servers) as process:
        await view.wait_for(lambda snapshot: len(snapshot) == 1, DEADLINE)
        give(process, 3600)
        assert await said(process) == "begun 3600"
        process.send_signal(signal.SIGHUP)
        await view.wait_for(draining, DEADLINE)
        process.send_signal(signal.SIGTERM)
        assert await said(process) == "ended by SIGHUP"
        await view.wait_for(lambda snapshot: not snapshot, DEADLINE)
        assert await ended(process) == 0
