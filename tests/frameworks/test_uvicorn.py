"""The real server, as real processes, on a real ZooKeeper: SIGTERM under load loses no request."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

import aioregistry
from aioregistry import InvalidArgument, Snapshot, View
from aioregistry.integrations.membership import Membership, NotYet
from aioregistry.integrations.starlette import lifespan
from aioregistry.integrations.uvicorn import Server, run
from aioregistry.testing._ports import ReservedPort
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.frameworks.load import TIMEOUT, Load, ServerProcess
from tests.frameworks.serving import SERVICE


@pytest.fixture
async def view(servers: str) -> AsyncIterator[View[Any]]:
    async with aioregistry.connect(servers) as registry, registry.discover(SERVICE) as view:
        yield view


def serving(servers: str, framework: str, *arguments: str, **environment: str) -> ServerProcess:
    return ServerProcess(
        *("-W", "error", "-m", "tests.frameworks.serving", *arguments),
        ZOOKEEPER=servers, FRAMEWORK=framework, **environment,
    )  # fmt: skip


def with_ports(snapshot: Snapshot[Any], *servers: ServerProcess) -> bool:
    return {instance.port for instance in snapshot.values() if instance.enabled} == {server.port for server in servers}


async def test_sigterm_under_load_loses_no_request(servers: str, view: View[Any]) -> None:
    async with (
        serving(servers, "fastapi", "drained", "uvloop") as first,
        serving(servers, "starlette", "drained", "asyncio") as second,
    ):
        await view.wait_for(lambda snapshot: with_ports(snapshot, first, second), TIMEOUT)
        async with Load(view.balancer()) as load, serving(servers, "starlette", "drained", "uvloop") as third:
            await load.until(lambda: all(load.answered[each.port] > 20 for each in (first, second, third)))
            ending = [instance for instance in view.snapshot.values() if instance.port != third.port]
            slow = [asyncio.create_task(load.ask(instance, "?slow=true")) for instance in ending]
            first.send(signal.SIGTERM)
            second.send(signal.SIGTERM)
            exit_codes = [await first.exit_code(), await second.exit_code()]
            await asyncio.wait(slow)
            before = load.answered[third.port]
            await load.until(lambda: load.answered[third.port] > before + 50)
            assert with_ports(view.snapshot, third)
            assert load.lost == []
            assert exit_codes == [-signal.SIGTERM] * 2  # uvicorn's own way to end


async def test_without_the_server_that_drains_requests_are_lost(servers: str, view: View[Any]) -> None:
    """The test above would find this."""
    async with (
        serving(servers, "starlette", "plain", "asyncio") as first,
        serving(servers, "starlette", "plain", "asyncio") as second,
    ):
        await view.wait_for(lambda snapshot: with_ports(snapshot, first, second), TIMEOUT)
        async with Load(view.balancer()) as load:
            await load.until(lambda: load.answered[first.port] > 20 and load.answered[second.port] > 20)
            before = len(load.lost)  # a server that is listed before it listens may have lost some already
            first.send(signal.SIGTERM)
            await load.until(lambda: len(load.lost) > before)


async def test_a_second_interrupt_hurries_and_withdraws_all_the_same(servers: str, view: View[Any]) -> None:
    async with serving(servers, "starlette", "drained", "asyncio", DRAIN="60") as server:
        await view.wait_for(lambda snapshot: with_ports(snapshot, server), TIMEOUT)
        server.send(signal.SIGINT)
        await view.wait_for(lambda snapshot: with_ports(snapshot) and len(snapshot) == 1, TIMEOUT)
        server.send(signal.SIGINT)
        assert await server.exit_code() == 0
        await view.wait_for(lambda snapshot: len(snapshot) == 0, TIMEOUT)  # the session would last longer than that


async def test_each_worker_is_listed(servers: str, view: View[Any]) -> None:
    async with workers(servers, "each") as server:
        snapshot = await view.wait_for(lambda snapshot: len(snapshot) == 2, TIMEOUT)
        expected = {f"127.0.0.1:{server.port}#{instance.payload['pid']}" for instance in snapshot.values()}
        assert set(snapshot) == expected
        server.send(signal.SIGTERM)
        assert await server.exit_code() == 0
        await view.wait_for(lambda snapshot: len(snapshot) == 0, TIMEOUT)


async def test_one_worker_is_listed_for_all(servers: str, view: View[Any]) -> None:
    async with workers(servers, "one") as server:
        snapshot = await view.wait_for(lambda snapshot: len(snapshot) == 1, TIMEOUT)
        (listed,) = snapshot.values()
        assert listed.id == f"127.0.0.1:{server.port}"
        os.kill(listed.payload["pid"], signal.SIGTERM)
        await view.wait_for(lambda snapshot: any(each.payload != listed.payload for each in snapshot.values()), TIMEOUT)
        server.send(signal.SIGTERM)
        assert await server.exit_code() == 0
        await view.wait_for(lambda snapshot: len(snapshot) == 0, TIMEOUT)


def workers(servers: str, mode: str) -> ServerProcess:
    return ServerProcess(
        *("-m", "uvicorn", "--factory", "tests.frameworks.serving:app", "--host", "127.0.0.1", "--port", "PORT"),
        *("--workers", "2"),
        ZOOKEEPER=servers, FRAMEWORK="starlette", WORKERS=mode, DRAIN="0.2",
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [("--workers", "2"), ()])
async def test_told_to_end_while_it_waits_for_zookeeper(proxy: ZooKeeperProxy, arguments: tuple[str, ...]) -> None:
    proxy.silence()
    async with ServerProcess(
        *("-m", "uvicorn", "--factory", "tests.frameworks.serving:app", "--host", "127.0.0.1", "--port", "PORT"),
        *arguments,
        ZOOKEEPER=proxy.address, FRAMEWORK="starlette", WAIT="yes", CONNECT_TIMEOUT="3600",
    ) as server:  # fmt: skip
        async with asyncio.timeout(TIMEOUT):
            while proxy.open_connections < (2 if arguments else 1):
                await asyncio.sleep(0.01)
        server.send(signal.SIGTERM)
        await server.exit_code()  # or nobody would be there to wait for it


async def test_it_is_listed_when_it_listens_and_listens_until_it_is_withdrawn(servers: str, view: View[Any]) -> None:
    with ReservedPort() as port:
        # Not started with multiprocessing, so that the id is the server's; wait does not hold up what listens.
        membership = Membership(servers, SERVICE, port=port.number, drain=0.5, wait=True)
        app = Starlette(lifespan=lifespan(membership, within=not_listed_yet(membership)))
        server = Server(uvicorn.Config(app, port=port.number, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        await view.wait_for(lambda snapshot: len(snapshot) == 1, TIMEOUT)
        await connected(port.number)
        server.should_exit = True
        snapshot = await view.wait_for(lambda snapshot: not snapshot[f"127.0.0.1:{port.number}"].enabled, TIMEOUT)
        await connected(port.number)
        await view.wait_for(lambda snapshot: len(snapshot) == 0, TIMEOUT)
        await serving
        assert len(snapshot) == 1
        with pytest.raises(ConnectionRefusedError):
            await connected(port.number)


def not_listed_yet(membership: Membership) -> Any:
    @asynccontextmanager
    async def within(app: Starlette) -> AsyncIterator[None]:
        assert membership.registry.session.connected
        with pytest.raises(NotYet):
            print(membership.registration)
        yield

    return within


async def connected(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


def test_a_startup_that_fails_is_an_exit_code() -> None:
    @asynccontextmanager
    async def fails(app: Starlette) -> AsyncIterator[None]:
        raise OSError("no disk")
        yield

    with pytest.raises(SystemExit) as exited:
        run(Starlette(lifespan=fails), port=1, log_level="critical")
    assert exited.value.code == 3


def test_a_server_that_says_nothing_and_never_started_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "run", lambda self: None)  # as uvicorn was before it left by itself
    with pytest.raises(SystemExit) as exited:
        run(Starlette(), port=1)
    assert exited.value.code == 3


@pytest.mark.parametrize(("option", "value"), [("workers", 2), ("reload", True)])
def test_processes_of_uvicorns_own_are_refused(option: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=f"{option}={value}"):
        run("tests.frameworks.serving:app", **{option: value})
