"""Cancelled wherever the process stands, by asyncio and by anyio's scopes, against a real ZooKeeper.

Each operation runs again and again, interrupted a tick later each time, until it ends before it is interrupted. After
each: no task and no socket is left of it, no node either unless it is still meant to be, and what the process had
before it has still.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import aioregistry
from aioregistry import ConnectTimeout, HandleClosed, Registration, Registry, Status, Stream, View
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.integration.scene import PARTITIONS, Peer, instance_of
from tests.integration.ticking import Operation, Outcome, Ticks
from tests.support import wire
from tests.support.checkers import check_owned, check_withdrawn
from tests.support.inside import session_of
from tests.support.judge import Judge
from tests.support.leftovers import nothing_left, other_tasks
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer

TIMEOUT = 10.0
"""Seconds, of the session: nothing here waits for it, and nothing here should bring it about."""

A_WHILE = 0.05
"""Seconds after which what would wait for ever gives up by itself."""

by = pytest.mark.parametrize("how", ["asyncio", "anyio"])


async def turns(count: int) -> None:
    """Let the loop turn *count* times: what needs no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


Prepare = Callable[[], Awaitable[Operation]]


async def at_each_tick(ticks: Ticks, how: str, prepare: Prepare) -> AsyncIterator[Outcome]:
    """Interrupt what *prepare* returns ever later; the last outcome is of the one that was not interrupted.

    No task must be left of one that was cancelled, nor of the other when whoever asked has closed what it opened.
    """
    tasks = other_tasks()
    for at in itertools.count(1):
        outcome = await ticks.interrupt(how, await prepare(), at)
        assert not outcome.cancelled or other_tasks() <= tasks
        yield outcome
        assert other_tasks() <= tasks
        if not outcome.reached:
            assert at > 1
            assert not outcome.cancelled
            return


class Process:
    """A registry with something registered in it, which whatever is cancelled must not touch."""

    def __init__(self, servers: str, judge: Judge, ticks: Ticks) -> None:
        self.servers, self.judge, self.ticks = servers, judge, ticks
        self.peer = Peer(servers, session_timeout=TIMEOUT, runtime=ticks.runtime)
        self.registry: Registry = self.peer.registry
        self.kept: Registration[Any]
        self._names = (f"chat-{number}" for number in itertools.count())

    def register(self, **options: Any) -> Registration[Any]:
        """A registration of a new service, whose node has to be made too."""
        return self.registry.register(instance_of(next(self._names)), **options)

    async def leave_ghost(self, path: str) -> int:
        """Let a process have died a moment ago that had this node; return its session."""
        await self.judge.make(path.rpartition("/")[0])
        dead = await wire.connect(self.judge.addresses[0], timeout_ms=60_000)
        await dead.create(path, b"{}", flags=wire.EPHEMERAL)
        dead.abandon()
        return dead.session_id

    async def at_each_tick(self, how: str, prepare: Prepare) -> AsyncIterator[Outcome]:
        """As the function; what was there before must be there still."""
        async for outcome in at_each_tick(self.ticks, how, prepare):
            yield outcome
            assert self.peer.states == ["connected"]
            assert self.kept.status is Status.LIVE
            check_owned(live=True, session_id=self.registry.session.id, owner=await self.judge.owner(self.kept.path))

    async def check_gone(self, registration: Registration[Any]) -> None:
        owner = await self.judge.owner(registration.path)
        check_withdrawn(withdrawn=registration.withdrawn, sessions=self.peer.sessions, owner=owner)
        assert registration.withdrawn
        assert registration.status is Status.CLOSED


@pytest.fixture
async def process(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> AsyncIterator[Process]:
    async with nothing_left():
        with Ticks() as ticks:
            process = Process(zookeeper.address + chroot, judge, ticks)
            async with process.peer, process.registry.register(instance_of("kept", payload=0)) as process.kept:
                yield process


# ---------------------------------------------------------------- connecting


@by
async def test_connecting(zookeeper: ZooKeeperServer, chroot: str, how: str) -> None:
    registry: Registry
    numbers = itertools.count()

    async def prepare() -> Operation:
        nonlocal registry
        servers = f"{zookeeper.address}{chroot}/{next(numbers)}"  # not there yet: to create it is part of connecting
        registry = aioregistry.connect(servers, session_timeout=TIMEOUT, runtime=ticks.runtime)
        return registry.__aenter__

    with Ticks() as ticks:
        async with nothing_left():
            async for outcome in at_each_tick(ticks, how, prepare):
                if outcome.cancelled:
                    with pytest.raises(HandleClosed):
                        await registry.services()
                else:
                    await registry.aclose()


@by
@pytest.mark.parametrize("partition", ["refused", "silent", "silent-to-client"])
async def test_connecting_in_vain(proxy: ZooKeeperProxy, how: str, partition: str) -> None:
    async def prepare() -> Operation:
        return connect

    async def connect() -> None:
        with contextlib.suppress(ConnectTimeout):
            _ = await aioregistry.connect(
                proxy.address, session_timeout=TIMEOUT, connect_timeout=A_WHILE, runtime=ticks.runtime
            )

    with Ticks() as ticks:
        async with nothing_left(proxy):
            PARTITIONS[partition].begin(proxy)
            async for _ in at_each_tick(ticks, how, prepare):
                pass


@by
async def test_a_whole_life(zookeeper: ZooKeeperServer, judge: Judge, chroot: str, how: str) -> None:
    """All handles are left, also those that are being entered or left when it comes."""

    async def prepare() -> Operation:
        return live

    async def live() -> None:
        async with (
            aioregistry.connect(zookeeper.address + chroot, session_timeout=TIMEOUT, runtime=ticks.runtime) as registry,
            registry.register(instance_of("chat")),
            registry.discover("chat"),
        ):
            pass

    with Ticks() as ticks:
        async with nothing_left():
            async for _ in at_each_tick(ticks, how, prepare):
                assert await judge.node(f"{chroot}/services/chat/a") is None


# ---------------------------------------------------------------- registering


@by
@pytest.mark.parametrize("there", ["nothing", "ghost"])
async def test_entering_a_registration(process: Process, how: str, there: str) -> None:
    registration: Registration[Any]
    ghost: int | None = None

    async def prepare() -> Operation:
        nonlocal registration, ghost
        registration = process.register()
        if there == "ghost":
            ghost = await process.leave_ghost(registration.path)
        return registration.__aenter__

    async for outcome in process.at_each_tick(how, prepare):
        if outcome.cancelled:
            assert await process.judge.owner(registration.path) in (None, ghost)
        else:
            assert await process.judge.owner(registration.path) == process.registry.session.id
            await registration.aclose()
        await process.check_gone(registration)


@by
async def test_entering_a_registration_that_waits_in_turn(process: Process, how: str) -> None:
    registration: Registration[Any]
    ghost: int

    async def prepare() -> Operation:
        nonlocal registration, ghost
        registration = process.register(on_conflict="wait")
        ghost = await process.leave_ghost(registration.path)
        return register

    async def register() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(A_WHILE):
                _ = await registration

    async for _ in process.at_each_tick(how, prepare):
        assert await process.judge.owner(registration.path) == ghost
        await process.check_gone(registration)


@by
async def test_updating(process: Process, how: str) -> None:
    numbers = itertools.count(1)
    number = 0

    async def prepare() -> Operation:
        nonlocal number
        number = next(numbers)
        return lambda: process.kept.update(payload=number)

    async for _ in process.at_each_tick(how, prepare):
        # Cancelling stops the waiting, not the intent.
        await process.judge.node_until(
            process.kept.path, lambda node: node is not None and json.loads(node.data)["payload"] == number
        )


@by
async def test_leaving_a_registration(process: Process, how: str) -> None:
    registration: Registration[Any]

    async def prepare() -> Operation:
        nonlocal registration
        registration = await process.register()
        return registration.__aexit__

    async for _ in process.at_each_tick(how, prepare):
        await process.check_gone(registration)


@by
async def test_body_of_a_registration(process: Process, how: str) -> None:
    """Under anyio's scopes every await in leaving it is cancelled again."""
    registration: Registration[Any]

    async def prepare() -> Operation:
        nonlocal registration
        registration = process.register()
        return serve

    async def serve() -> None:
        async with registration:
            await asyncio.sleep(A_WHILE)

    async for _ in process.at_each_tick(how, prepare):
        await process.check_gone(registration)


# ---------------------------------------------------------------- discovering


@by
async def test_entering_a_view(process: Process, how: str) -> None:
    view: View[Any]

    async def prepare() -> Operation:
        nonlocal view
        view = process.registry.discover("kept")
        return view.__aenter__

    async for outcome in process.at_each_tick(how, prepare):
        if outcome.cancelled:
            with pytest.raises(HandleClosed):
                assert view.snapshot
        else:
            assert list(view.snapshot) == ["a"]
            await view.aclose()


@by
async def test_leaving_a_view(process: Process, how: str) -> None:
    view: View[Any]

    async def prepare() -> Operation:
        nonlocal view
        view = await process.registry.discover("kept")
        return view.__aexit__

    async for _ in process.at_each_tick(how, prepare):
        with pytest.raises(HandleClosed):
            assert view.snapshot


WAITS: dict[str, Callable[[Process, View[Any]], Awaitable[object]]] = {
    "sync": lambda process, view: view.sync(),
    "wait_for": lambda process, view: view.wait_for(lambda snapshot: len(snapshot) > 1, timeout=A_WHILE),
    "services": lambda process, view: process.registry.services(),
    "wait_closed": lambda process, view: process.kept.wait_closed(),
    "snapshots": lambda process, view: second(view.snapshots()),
    "changes": lambda process, view: second(view.changes()),
    "statuses": lambda process, view: second(process.kept.statuses()),
    "states": lambda process, view: second(process.registry.session.states()),
    "watch_services": lambda process, view: second(process.registry.watch_services()),
}


async def second(stream: Stream[Any]) -> None:
    """Wait for the second item of a stream, the first of which may be there from the beginning."""
    async with stream:
        await anext(stream)
        await anext(stream)


@by
@pytest.mark.parametrize("wait", WAITS)
async def test_waiting(process: Process, how: str, wait: str) -> None:
    async def prepare() -> Operation:
        return run

    async def run() -> None:
        with contextlib.suppress(TimeoutError, aioregistry.RequestTimeout):
            async with asyncio.timeout(A_WHILE):
                await WAITS[wait](process, view)

    async with process.registry.discover("kept") as view:
        await run()  # what a registry begins with the first that asks goes on
        async for _ in process.at_each_tick(how, prepare):
            assert view.fresh
            assert list((await view.sync()).entries) == ["a"]


# ---------------------------------------------------------------- streams lose nothing


class Happenings:
    """The acts that make the streams of a process yield something, one after the other."""

    def __init__(self, process: Process, proxy: ZooKeeperProxy, view: View[Any], told: list[Any]) -> None:
        self.process, self.proxy, self.view, self.told = process, proxy, view, told
        self._numbers = itertools.count(1)

    async def update(self) -> None:
        number = next(self._numbers)
        await self.process.kept.update(payload=number)
        await self.view.wait_for(lambda snapshot: snapshot["a"].payload == number)

    async def cut(self) -> None:
        session = session_of(self.process.registry)
        generation = session.generation
        self.proxy.cut()
        await until(lambda: session.generation > generation and self.process.kept.status is Status.LIVE)

    async def found(self) -> None:
        name = f"other-{next(self._numbers)}"
        await self.process.judge.make(f"{self.process.registry.base_path}/{name}")
        await until(lambda: any(name in names for names in self.told))


STREAMS: dict[str, tuple[Callable[[Process, View[Any]], Stream[Any]], Callable[[Happenings], Awaitable[None]]]] = {
    "changes": (lambda process, view: view.changes(), Happenings.update),
    "snapshots": (lambda process, view: view.snapshots(), Happenings.update),
    "statuses": (lambda process, view: process.kept.statuses(), Happenings.cut),
    "states": (lambda process, view: process.registry.session.states(), Happenings.cut),
    "services": (lambda process, view: process.registry.watch_services(), Happenings.found),
}


@by
@pytest.mark.parametrize("kind", STREAMS)
async def test_streams_lose_nothing(proxy: ZooKeeperProxy, judge: Judge, chroot: str, how: str, kind: str) -> None:
    """Beside a stream that is never cancelled, which tells what there is to be had."""
    stream_of, happen = STREAMS[kind]
    received: list[Any] = []
    expected: list[Any] = []
    happening: asyncio.Future[None]

    async def follow(control: Stream[Any]) -> None:
        async for item in control:
            expected.append(item)  # noqa: PERF401 - to be seen at once

    async def take() -> None:
        received.append(await anext(stream))

    async def prepare() -> Operation:
        nonlocal happening
        happening = asyncio.ensure_future(happen(happenings))
        return take

    with Ticks() as ticks:
        process = Process(proxy.address + chroot, judge, ticks)
        async with (
            process.peer,
            process.registry.register(instance_of("kept", payload=0)) as process.kept,
            process.registry.discover("kept") as view,
            stream_of(process, view) as stream,
            stream_of(process, view) as control,
        ):
            following = asyncio.create_task(follow(control))
            happenings = Happenings(process, proxy, view, expected)
            await happen(happenings)
            async with asyncio.timeout(DEADLINE):
                for at in itertools.count(1):
                    await turns(20)  # the control has taken what there is
                    while not caught_up(kind, received, expected):
                        await take()
                    outcome = await ticks.interrupt(how, await prepare(), at)
                    await happening
                    if not outcome.reached:
                        break
            assert at > 2
            following.cancel()
            await asyncio.wait([following])


def caught_up(kind: str, received: list[Any], expected: list[Any]) -> bool:
    """Whether all was received; what is no prefix of it never will be."""
    if kind in ("snapshots", "services"):  # the latest wins
        assert all(item in expected for item in received)
        return bool(received) and received[-1] == expected[-1]
    assert received == expected[: len(received)]
    return len(received) == len(expected)
