"""Requests that cost the connection: whoever made one is told, everybody else goes on, and what fits is tried again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

import aioregistry
from aioregistry import PoisonRequest, RegistrationError, Registry, Status
from aioregistry.testing._proxy import TcpProxy
from tests.conftest import StartZooKeeper
from tests.integration.scene import instance_of
from tests.support import wire
from tests.support.frames import Frame, FrameProxy
from tests.support.inside import session_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.zookeeper import ZooKeeperServer

T = 6.0
CREATE2, MULTI, CREATE_CONTAINER, ADD_WATCH, MULTI_READ, GET_DATA, SET_WATCHES, SET_WATCHES2, SET_DATA, SYNC, DELETE = (
    *(15, 14, 19, 106, 22, 4, 101, 105, 5, 9, 2),
)


@contextlib.asynccontextmanager
async def bystanders(registry: Registry) -> AsyncIterator[Callable[[], object]]:
    """A registration and a view of others on the same session; yields what is true while both are well."""
    async with (
        registry.register(instance_of("bystander")) as registration,
        registry.discover("bystander", guard=None) as view,
    ):
        await view.wait_for(lambda snapshot: len(snapshot) == 1, timeout=DEADLINE)
        yield lambda: registration.status is Status.LIVE and view.fresh
        await until(lambda: registration.status is Status.LIVE and view.fresh)
        assert set(await view.sync(DEADLINE)) == {"a"}


def refusing(*opcodes: int) -> Callable[[Frame], bytes | None]:
    """A server that hangs up on these operations."""
    return lambda frame: None if frame.up and frame.opcode in opcodes else frame.body


class TestLargerThanTheServersLimit:
    LIMIT = 100_000

    @pytest.fixture
    async def small(self, start_zookeeper: StartZooKeeper) -> ZooKeeperServer:
        return await start_zookeeper(tick_time_ms=200, jute_max_buffer=self.LIMIT)

    async def test_a_registration_is_told_and_the_others_go_on(
        self, small: ZooKeeperServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        events: list[dict[str, object]] = []

        def on_event(name: str, fields: dict[str, object]) -> None:
            if name == "session.poison":
                events.append(fields)

        async with (
            aioregistry.connect(small.address, session_timeout=T, on_event=on_event) as registry,
            bystanders(registry) as well,
        ):
            with pytest.raises(RegistrationError) as raised:
                async with asyncio.timeout(DEADLINE):
                    _ = await registry.register(instance_of("chat", id="big", payload="x" * 2 * self.LIMIT))
            cause = raised.value.__cause__
            assert isinstance(cause, PoisonRequest)
            assert "/services/chat/big" in cause.request
            assert cause.size > 2 * self.LIMIT
            assert cause.limit == cause.size
            assert cause.server == small.address
            assert [event["request"] for event in events] == [cause.request]
            connections = session_of(registry).generation
            assert connections < 10
            await until(lambda: bool(well()))
            # The known limit of the server spares the next one the way there.
            with pytest.raises(RegistrationError) as again:
                _ = await registry.register(instance_of("chat", id="big2", payload="x" * 3 * self.LIMIT))
            assert isinstance(again.value.__cause__, PoisonRequest)
            assert session_of(registry).generation == connections
            async with registry.register(instance_of("chat", id="big", payload="it fits")) as registration:
                assert registration.status is Status.LIVE
        # Two requests: of each one line when it is found, and one that counts the rest.
        assert len([each for each in caplog.records if "cost the connection" in each.getMessage()]) <= 4

    async def test_an_update_is_told_and_one_that_fits_is_tried_at_once(self, small: ZooKeeperServer) -> None:
        async with (
            Judge(small.address) as judge,
            aioregistry.connect(small.address, session_timeout=T) as registry,
            bystanders(registry),
            registry.register(instance_of("chat", payload="first")) as registration,
        ):
            with pytest.raises(RegistrationError) as raised:
                async with asyncio.timeout(DEADLINE):
                    await registration.update(payload="x" * 2 * self.LIMIT)
            assert isinstance(raised.value.__cause__, PoisonRequest)
            await until(lambda: registration.status is Status.LIVE)
            async with asyncio.timeout(DEADLINE):
                await registration.update(payload="it fits")
            node = await judge.node("/services/chat/a")
            assert node is not None
            assert b"it fits" in node.data
            assert session_of(registry).generation < 10

    async def test_watches_that_are_too_many_for_one_request_are_restored_in_several(
        self, start_zookeeper: StartZooKeeper
    ) -> None:
        server = await start_zookeeper(tick_time_ms=200, jute_max_buffer=8_000)
        with TcpProxy((server.host, server.port)) as proxy:
            async with aioregistry.connect(proxy.address, session_timeout=T) as registry:
                fired: list[str] = []
                for number in range(200):
                    path = f"/watched-{number:03}-{'x' * 100}"
                    session_of(registry).watches.listen(path, lambda event: fired.append(event.path))
                    with contextlib.suppress(aioregistry.ServerError):
                        await session_of(registry).request(exists(path))
                proxy.cut()
                await until(lambda: session_of(registry).generation > 1 and registry.session.connected)
                assert session_of(registry).generation < 12
                async with Judge(server.address) as judge:
                    await judge.make(f"/watched-199-{'x' * 100}")
                await until(lambda: fired == [f"/watched-199-{'x' * 100}"])


def exists(path: str) -> object:
    from aioregistry._protocol import Exists

    return Exists(path, watch=True)


class TestServersThatHangUp:
    """On an operation, as none of Apache's does."""

    @pytest.fixture
    async def frames(self, own_zookeeper: ZooKeeperServer) -> AsyncIterator[FrameProxy]:
        async with FrameProxy((own_zookeeper.host, own_zookeeper.port)) as frames:
            yield frames

    async def test_on_creating(self, frames: FrameProxy, own_zookeeper: ZooKeeperServer) -> None:
        async with (
            Judge(own_zookeeper.address) as judge,
            aioregistry.connect(frames.address, session_timeout=T) as registry,
            bystanders(registry) as well,
        ):
            frames.filter = refusing(CREATE2, MULTI)
            with pytest.raises(RegistrationError) as raised:
                async with asyncio.timeout(DEADLINE):
                    _ = await registry.register(instance_of("chat"))
            assert isinstance(raised.value.__cause__, PoisonRequest)
            assert raised.value.__cause__.limit is None
            await until(lambda: bool(well()))
            assert session_of(registry).generation < 10
            frames.filter = lambda frame: frame.body
            assert await judge.node("/services/chat/a") is None

    async def test_after_creating_leaves_nothing_behind(
        self, frames: FrameProxy, own_zookeeper: ZooKeeperServer
    ) -> None:
        """The server does it, and hangs up instead of saying so; a look shows that it is there."""
        async with (
            Judge(own_zookeeper.address) as judge,
            aioregistry.connect(frames.address, session_timeout=T) as registry,
        ):
            await judge.make("/services/chat")
            frames.filter = lambda frame: None if not frame.up and frame.opcode == CREATE2 else frame.body
            async with asyncio.timeout(DEADLINE), registry.register(instance_of("chat")) as registration:
                assert registration.status is Status.LIVE
            assert await judge.node("/services/chat/a") is None

    @pytest.mark.parametrize("base_path", ["/services", "/"])
    async def test_after_doing_it_each_time_convicts_nobody(
        self, frames: FrameProxy, own_zookeeper: ZooKeeperServer, base_path: str
    ) -> None:
        """Every write is done and its answer lost, in a row, with the parents' creation and without markers too."""
        poison: list[dict[str, object]] = []

        def on_event(name: str, fields: dict[str, object]) -> None:
            if name == "session.poison":
                poison.append(fields)

        done: list[int] = []

        def lost_if_a_write_was_answered(frame: Frame) -> bytes | None:
            if frame.up or frame.opcode not in (CREATE2, MULTI, CREATE_CONTAINER, SET_DATA, DELETE):
                return frame.body
            if frame.body[12:16] != bytes(4):  # an error, by which the next step is found
                return frame.body
            done.append(frame.opcode)
            return None

        async with (
            Judge(own_zookeeper.address) as judge,
            aioregistry.connect(
                frames.address, base_path=base_path, session_timeout=T, on_event=on_event, close_timeout=DEADLINE
            ) as registry,
        ):
            service = f"{base_path.rstrip('/')}/chat"
            frames.filter = lost_if_a_write_was_answered
            async with asyncio.timeout(4 * DEADLINE):
                for _ in range(6):
                    async with registry.register(instance_of("chat")) as registration:
                        pass
                    assert registration.withdrawn
                    assert await judge.node(f"{service}/a") is None
                    with contextlib.suppress(wire.WireError):  # the server has reaped it
                        await judge.delete(service)
                async with registry.register(instance_of("chat")) as registration:
                    for number in range(6):
                        await registration.update(payload=number)
                    node = await judge.node(f"{service}/a")
                    assert node is not None
                    assert b'"payload":5' in node.data
                frames.filter = lambda frame: frame.body
            assert poison == []
            assert min(map(done.count, (CREATE2, SET_DATA, MULTI if base_path == "/services" else DELETE))) >= 6

    @pytest.mark.parametrize(
        "opcodes",
        [(MULTI_READ,), (ADD_WATCH,), (SET_WATCHES, SET_WATCHES2), (MULTI_READ, ADD_WATCH, SET_WATCHES, SET_WATCHES2)],
        ids=["MultiRead", "AddWatch", "SetWatches", "all of them"],
    )
    async def test_on_what_can_be_done_without(self, frames: FrameProxy, opcodes: tuple[int, ...]) -> None:
        frames.filter = refusing(*opcodes)
        async with (
            asyncio.timeout(2 * DEADLINE),
            aioregistry.connect(frames.address, session_timeout=T, connect_timeout=DEADLINE) as registry,
            registry.register(instance_of("chat")) as registration,
            registry.discover("chat", guard=None) as view,
        ):
            assert set(await view.sync(DEADLINE)) == {"a"}
            frames.cut()
            await until(lambda: not registry.session.connected)
            await until(lambda: registration.status is Status.LIVE and view.fresh)
            await registration.update(payload="news")
            await view.wait_for(lambda snapshot: snapshot["a"].payload == "news", timeout=DEADLINE)
            assert session_of(registry).generation < 30

    @pytest.mark.parametrize("opcodes", [(GET_DATA,), (GET_DATA, MULTI_READ), (MULTI_READ,)], ids=str)
    async def test_on_reading_for_a_while(
        self, frames: FrameProxy, own_zookeeper: ZooKeeperServer, opcodes: tuple[int, ...]
    ) -> None:
        async with (
            aioregistry.connect(own_zookeeper.address, session_timeout=T) as publisher,
            publisher.register(instance_of("chat", id="a")),
            publisher.register(instance_of("chat", id="b")) as b,
            aioregistry.connect(frames.address, session_timeout=T) as registry,
            registry.discover("chat", guard=None) as view,
        ):
            frames.filter = refusing(*opcodes)
            frames.cut()
            await b.update(payload="new")
            async with asyncio.timeout(DEADLINE):
                while session_of(registry).generation < 5 and getattr(view.snapshot.get("b"), "payload", None) != "new":
                    await asyncio.sleep(0.01)
            frames.filter = lambda frame: frame.body
            async with asyncio.timeout(DEADLINE):  # no look and no sync asks for it
                while set(view.snapshot) != {"a", "b"} or view.snapshot["b"].payload != "new":
                    await asyncio.sleep(0.01)

    async def test_another_server_is_tried_at_once(self, frames: FrameProxy, own_zookeeper: ZooKeeperServer) -> None:
        def closed(_: Frame) -> None:
            return None

        async with FrameProxy((own_zookeeper.host, own_zookeeper.port)) as others:
            others.filter = closed
            frames.filter = refusing(CREATE2, MULTI)
            async with aioregistry.connect(f"{frames.address},{others.address}", session_timeout=T) as registry:
                with pytest.raises(RegistrationError) as raised:
                    async with asyncio.timeout(DEADLINE):
                        _ = await registry.register(instance_of("chat"))
                assert isinstance(raised.value.__cause__, PoisonRequest)
                others.filter = lambda frame: frame.body
                frames.filter = closed
                frames.cut()
                await until(lambda: registry.session.connected and str(registry.session.server) == others.address)
                async with asyncio.timeout(DEADLINE), registry.register(instance_of("chat")) as registration:
                    assert registration.status is Status.LIVE

    async def test_on_sync(self, frames: FrameProxy, own_zookeeper: ZooKeeperServer) -> None:
        """A write that must fail says as much as a sync: heartbeats, registrations and views go on by that."""
        async with (
            aioregistry.connect(frames.address, session_timeout=3.0) as registry,
            bystanders(registry) as well,
        ):
            frames.filter = refusing(SYNC)
            async with asyncio.timeout(2 * DEADLINE):
                generation = session_of(registry).generation
                while session_of(registry).generation == generation or not well():  # the next heartbeat costs it
                    await asyncio.sleep(0.01)
                async with registry.register(instance_of("chat")) as registration, registry.discover("chat") as view:
                    assert set(await view.sync()) == {"a"}
                    assert registration.status is Status.LIVE
                generation, age = session_of(registry).generation, 0.0
                while session_of(registry).generation == generation and age < 4.0:  # seconds: of several heartbeats
                    await asyncio.sleep(0.5)
                    age += 0.5
                    if session_of(registry).generation == generation:
                        assert well(), registry.session
                assert session_of(registry).generation < 12

    async def test_on_containers_and_markers(self, frames: FrameProxy, own_zookeeper: ZooKeeperServer) -> None:
        frames.filter = refusing(CREATE_CONTAINER, MULTI)
        async with (
            Judge(own_zookeeper.address) as judge,
            aioregistry.connect(frames.address, session_timeout=T) as registry,
        ):
            registration = registry.register(instance_of("chat"), close_timeout=DEADLINE)
            async with asyncio.timeout(DEADLINE), registration:
                assert registration.status is Status.LIVE
            assert registration.withdrawn
            assert await judge.node("/services/chat/a") is None


class TestRepliesThatCannotBeRead:
    @pytest.fixture
    async def frames(self, own_zookeeper: ZooKeeperServer) -> AsyncIterator[FrameProxy]:
        async with FrameProxy((own_zookeeper.host, own_zookeeper.port)) as frames:
            yield frames

    async def test_to_setting_a_watch(self, frames: FrameProxy) -> None:
        def empty(frame: Frame) -> bytes:
            return frame.body[:16] if not frame.up and frame.opcode == ADD_WATCH else frame.body

        frames.filter = empty
        async with (
            aioregistry.connect(frames.address, session_timeout=T) as registry,
            registry.register(instance_of("chat")) as registration,
            registry.discover("chat", guard=None) as view,
        ):
            await registration.update(payload="news")
            await view.wait_for(lambda snapshot: snapshot["a"].payload == "news", timeout=DEADLINE)
            assert session_of(registry).generation < 10

    async def test_to_reading_one_of_many(self, frames: FrameProxy, own_zookeeper: ZooKeeperServer) -> None:
        """It is listed as what cannot be read, and the others as what they are."""

        def cut_short(frame: Frame) -> bytes:
            if not frame.up and frame.opcode in (GET_DATA, MULTI_READ) and b"POISON" in frame.body:
                return frame.body[:-3]
            return frame.body

        frames.filter = cut_short
        async with Judge(own_zookeeper.address) as judge, aioregistry.connect(own_zookeeper.address) as publisher:
            await judge.make("/services/chat")
            for number in range(20):
                payload = "POISON" if number == 7 else "good"
                _ = await publisher.register(instance_of("chat", id=f"i{number}", payload=payload))
            async with (
                aioregistry.connect(frames.address, session_timeout=T) as registry,
                registry.register(instance_of("bystander")) as registration,
                asyncio.timeout(2 * DEADLINE),
                registry.discover("chat", guard=None) as view,
            ):
                snapshot = await view.sync(DEADLINE)
                assert len(snapshot) == 19
                assert set(snapshot.invalid) == {"i7"}
                await until(lambda: registration.status is Status.LIVE and view.fresh)
                assert session_of(registry).generation < 25

    async def test_to_the_list_raises(self, frames: FrameProxy) -> None:
        frames.filter = lambda frame: frame.body[:-2] if not frame.up and frame.opcode in (8, 12) else frame.body
        async with (
            aioregistry.connect(frames.address, session_timeout=T) as registry,
            registry.register(instance_of("chat")) as registration,
        ):
            with pytest.raises(PoisonRequest):
                async with asyncio.timeout(DEADLINE):
                    await registry.services()
            with pytest.raises(PoisonRequest):
                async with asyncio.timeout(DEADLINE), registry.discover("chat"):
                    pass
            await until(lambda: registration.status is Status.LIVE)
