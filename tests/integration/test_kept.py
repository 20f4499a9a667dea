"""Consumers that are restarted while ZooKeeper is away, and begin with what the process before had kept."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import aioregistry
from aioregistry import Guard, InvalidArgument, NoInstances, Registration, Registry, Resynced, View
from aioregistry._discovery.kept import from_bytes
from aioregistry.testing import ZooKeeper
from tests.integration.scene import instance_of
from tests.support.checkers import OrderedConsumer
from tests.support.waiting import DEADLINE, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[ZooKeeper]:
    """An embedded one, to stop and start."""
    with ZooKeeper() as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.kept"


class Servers:
    """Processes that serve, each in a session of its own, with an instance each."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._closings: dict[str, contextlib.AsyncExitStack] = {}
        self.registrations: dict[str, Registration[Any]] = {}

    async def start(self, *ids: str) -> None:
        for id in ids:
            stack = self._closings[id] = contextlib.AsyncExitStack()
            registry = await stack.enter_async_context(aioregistry.connect(self._servers, close_timeout=0.2))
            registration = registry.register(instance_of("chat", id=id))
            self.registrations[id] = await stack.enter_async_context(registration)

    async def stop(self, *ids: str) -> None:
        await asyncio.gather(*[self._closings.pop(id).aclose() for id in ids])

    async def aclose(self) -> None:
        await self.stop(*self._closings)


@pytest.fixture
async def servers(server: ZooKeeper) -> AsyncIterator[Servers]:
    async with contextlib.aclosing(Servers(server.connect_string)) as servers:
        yield servers


def kept(path: Path) -> list[str]:
    return sorted(from_bytes(path.read_bytes(), "chat", "/services").entries)


def reasons(view: View[Any]) -> set[str]:
    return {suspicion.reason for suspicion in view.snapshot.suspects.values()}


@contextlib.asynccontextmanager
async def consumer(
    server: ZooKeeper, path: Path, *, guard: Guard | None = None, **options: Any
) -> AsyncIterator[tuple[Registry, View[Any]]]:
    """A process that asks for nothing but the file."""
    async with asyncio.timeout(DEADLINE):
        registry = await aioregistry.connect(server.connect_string, wait=False, guard=guard, **options)
    async with registry:
        async with asyncio.timeout(DEADLINE):
            view = await registry.discover("chat", keep=path)
        async with view:
            yield registry, view


async def seen(server: ZooKeeper, path: Path, *ids: str) -> None:
    """Let a process see and keep these, and end."""
    async with aioregistry.connect(server.connect_string) as registry, registry.discover("chat", keep=path) as view:
        await view.wait_for(lambda snapshot: set(snapshot) == set(ids), DEADLINE)
    assert kept(path) == sorted(ids)


async def test_a_consumer_restarted_in_an_outage_serves_with_what_was_known(
    server: ZooKeeper, servers: Servers, path: Path
) -> None:
    await servers.start("a", "b", "c", "d")
    await seen(server, path, "a", "b", "c", "d")
    server.stop()
    await servers.stop("d")  # nobody is told
    async with consumer(server, path, guard=Guard(hold=0.5)) as (_, view), view.changes() as changes:
        ordered = OrderedConsumer(changes.start.entries)
        assert not view.fresh
        assert list(view.snapshot) == ["a", "b", "c", "d"]
        assert reasons(view) == {"file"}
        balancer, strict = view.balancer(), view.balancer(suspects="never")
        assert {balancer.pick().id for _ in range(4)} == {"a", "b", "c", "d"}
        with pytest.raises(NoInstances):
            strict.pick()

        server.start()
        for id in ("a", "b", "c"):
            await servers.registrations[id].wait_live(DEADLINE)
        server.expire(view.snapshot.entries["d"].owner)
        await view.wait_for(lambda snapshot: set(snapshot.confirmed) == {"a", "b", "c"}, DEADLINE)
        await view.wait_for(lambda snapshot: "d" not in snapshot, DEADLINE)
        assert view.fresh
        assert view.snapshot.suspects == {}
        assert {strict.pick().id for _ in range(3)} == {"a", "b", "c"}
        first = await anext(changes)
        assert isinstance(first, Resynced)
        ordered.apply(first)
        while ordered.entries != view.snapshot.entries:
            ordered.apply(await asyncio.wait_for(anext(changes), DEADLINE))
    assert kept(path) == ["a", "b", "c"]


async def test_those_that_come_back_late_are_held_until_then(server: ZooKeeper, servers: Servers, path: Path) -> None:
    await servers.start("a", "b", "c")
    await seen(server, path, "a", "b", "c")
    server.stop()
    await servers.aclose()
    async with consumer(server, path, guard=Guard()) as (_, view):
        server.start("lost")
        await until(lambda: view.fresh)
        assert reasons(view) <= {"disruption", "new leader"}
        assert set(view.snapshot.suspects) == {"a", "b", "c"}
        await servers.start("a", "b")
        await view.wait_for(lambda snapshot: set(snapshot.confirmed) == {"a", "b"}, DEADLINE)
        assert set(view.snapshot.suspects) == {"c"}
        assert view.balancer().pick().id in {"a", "b"}


async def test_a_consumer_restarted_right_after_an_outage_misses_nobody(
    server: ZooKeeper, servers: Servers, path: Path
) -> None:
    """It waits for a connection, and reads a list that is empty, as nobody has registered anew yet."""
    await servers.start("a", "b", "c")
    await seen(server, path, "a", "b", "c")
    server.stop()
    await servers.aclose()
    server.start("lost")
    async with aioregistry.connect(server.connect_string) as registry, registry.discover("chat", keep=path) as view:
        assert view.fresh
        assert reasons(view) == {"disruption"}
        assert set(view.snapshot) == {"a", "b", "c"}
        assert view.balancer().pick().id in {"a", "b", "c"}
        await servers.start("a", "b")
        await view.wait_for(lambda snapshot: set(snapshot.confirmed) == {"a", "b"}, DEADLINE)
        assert set(view.snapshot.suspects) == {"c"}


async def test_without_a_guard_zookeeper_is_believed_at_once(server: ZooKeeper, servers: Servers, path: Path) -> None:
    await servers.start("a", "b")
    await seen(server, path, "a", "b")
    server.stop()
    await servers.aclose()
    async with consumer(server, path, guard=None) as (_, view):
        assert reasons(view) == {"file"}
        server.start("lost")
        await until(lambda: view.fresh)
        assert len(view.snapshot) == 0


async def test_a_chain_of_restarts_goes_on_with_the_same(server: ZooKeeper, servers: Servers, path: Path) -> None:
    await servers.start("a", "b")
    await seen(server, path, "a", "b")
    server.stop()
    data, since = path.read_bytes(), set()
    for _ in range(3):
        async with consumer(server, path) as (_, view):
            assert list(view.snapshot) == ["a", "b"]
            since.add(view.snapshot.stale_since)
        assert path.read_bytes() == data
    assert len(since) == 1
    async with consumer(server, path) as (_, view):
        server.start()
        await until(lambda: view.fresh)
        assert view.snapshot.suspects == {}
        assert list(view.snapshot) == ["a", "b"]


async def test_a_consumer_that_is_killed_has_kept_what_it_saw(server: ZooKeeper, servers: Servers, path: Path) -> None:
    await servers.start("a", "b")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "tests.integration.keeping", server.connect_string, str(path)),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE):
            while b"a b" not in await process.stdout.readline():
                pass
            await servers.start("c")
            while b"a b c" not in await process.stdout.readline():
                pass
            while not path.exists() or kept(path) != ["a", "b", "c"]:
                await asyncio.sleep(0.01)
    finally:
        process.kill()
        await process.wait()
    server.stop()
    async with consumer(server, path) as (_, view):
        assert list(view.snapshot) == ["a", "b", "c"]
    server.start()


async def test_a_registry_that_is_suspended_begins_with_the_file_too(
    server: ZooKeeper, servers: Servers, path: Path
) -> None:
    await servers.start("a")
    await seen(server, path, "a")
    async with aioregistry.connect(server.connect_string) as registry:
        server.stop()
        await until(lambda: not registry.session.connected)
        async with registry.discover("chat", keep=path) as view:
            assert reasons(view) == {"file"}
            server.start()
            await until(lambda: view.fresh)
            assert view.snapshot.suspects == {}


async def test_a_file_that_cannot_be_written_is_told_and_nothing_else_suffers(
    server: ZooKeeper, servers: Servers, tmp_path: Path
) -> None:
    events: list[str] = []
    directory = tmp_path / "gone"
    directory.mkdir()
    async with (
        aioregistry.connect(server.connect_string, on_event=lambda name, fields: events.append(name)) as registry,
        registry.discover("chat", keep=directory / "chat.kept") as view,
    ):
        await until((directory / "chat.kept").exists)
        (directory / "chat.kept").unlink()
        directory.rmdir()
        await servers.start("a")
        await view.wait_for(lambda snapshot: "a" in snapshot, DEADLINE)
    assert "discovery.keep_failed" in events


async def test_what_is_wrong_is_said_before_anything_is_asked(server: ZooKeeper, servers: Servers, path: Path) -> None:
    await servers.start("a")
    await seen(server, path, "a")
    data = path.read_bytes()
    async with aioregistry.connect(f"{server.connect_string}/prod") as registry:
        with pytest.raises(InvalidArgument, match=r"base_path='/services', not of '/prod/services'"):
            async with registry.discover("chat", keep=path):
                pass
        with pytest.raises(InvalidArgument, match=r"service='chat', not of 'mail'"):
            async with registry.discover("mail", keep=path):
                pass
        with pytest.raises(InvalidArgument, match="there is no directory"):
            _ = registry.discover("chat", keep=path / "below")
    assert path.read_bytes() == data
