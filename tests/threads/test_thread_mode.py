"""The registry on a thread of its own, for a program on asyncio whose loop may be blocked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioregistry import (
    Added,
    CheckState,
    Ejection,
    HandleClosed,
    InvalidArgument,
    LoopLagCheck,
    NoInstances,
    Removed,
    RequestTimeout,
    Resynced,
    ServiceInstance,
    SessionState,
    Status,
    Updated,
    UsageError,
    blocking,
    connect,
)
from aioregistry._threads import ThreadRegistry
from aioregistry.testing import ZooKeeper
from tests.support.checkers import OrderedConsumer, check_beating, check_bounded
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer
from tests.threads.flood import WAVES, Flood

DEADLINE = 100.0
T = 4.0  # one test blocks for three times as long


def instance_of(id: str = "a", payload: object = None) -> ServiceInstance[object]:
    return ServiceInstance("chat", id=id, address="10.0.0.7", port=7000, payload=payload)


@pytest.fixture
async def registry(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[ThreadRegistry]:
    async with connect(zookeeper.address + chroot, session_timeout=T, thread=True) as registry:
        yield registry


async def test_the_end_of_a_registration_is_told_after_its_registry_was_closed() -> None:
    with ZooKeeper() as zookeeper:
        async with connect(zookeeper.address, session_timeout=60.0, thread=True) as registry:
            registration = await registry.register(instance_of())
        assert await registration.wait_closed() is None
        with pytest.raises(HandleClosed):
            await registration.wait_live()


async def test_a_caller_that_blocks_for_three_session_timeouts_stays_live(
    registry: ThreadRegistry, judge: Judge, chroot: str
) -> None:
    async with registry.register(instance_of()) as registration:
        session, node = registry.session.id, await judge.node(f"{chroot}/services/chat/a")
        time.sleep(3 * T)
        assert (registration.status, registry.session.state) == (Status.LIVE, SessionState.CONNECTED)
        check_beating(sessions=[session, registry.session.id], silence=0.0, timeout=T)
        now = await judge.node(f"{chroot}/services/chat/a")
        assert node is not None
        assert now is not None  # what it says may be new: the check of the caller's loop may have failed by now
        assert (now.stat.czxid, now.stat.owner) == (node.stat.czxid, node.stat.owner)


async def test_a_caller_that_stands_still_is_published_as_failing(
    zookeeper: ZooKeeperServer, chroot: str, judge: Judge
) -> None:
    node = f"{chroot}/services/chat/a"
    checks = {"loop": LoopLagCheck(asyncio.get_running_loop(), interval=0.1, timeout=0.1, fall=1, initial="passing")}
    async with connect(zookeeper.address + chroot, session_timeout=T, thread=True) as registry:
        async with registry.register(instance_of(), checks=checks):
            assert await enabled(judge, node)
            seen = seen_while_standing_still(zookeeper.address + chroot)
            assert (False, "failing") in seen
            async with asyncio.timeout(DEADLINE):
                while not await enabled(judge, node):
                    await asyncio.sleep(0.01)
        assert await judge.node(node) is None


async def test_a_caller_that_hangs_is_failing_without_an_option_and_well_again_when_it_goes_on(
    zookeeper: ZooKeeperServer, chroot: str, judge: Judge
) -> None:
    """With the thresholds that the product has, and blocked for as long as it takes until others see it."""
    node = f"{chroot}/services/chat/a"
    async with (
        connect(zookeeper.address + chroot, session_timeout=60, thread=True) as registry,
        registry.register(instance_of()) as registration,
    ):
        before = await judge.node(node)
        assert seen_while_standing_still(zookeeper.address + chroot)[-1] == (False, "failing")
        assert [check.state for check in registration.checks.values()] == [CheckState.FAILING]
        await judge.node_until(node, lambda found: found is not None and "enabled" not in json.loads(found.data))
        assert [check.state for check in registration.checks.values()] == [CheckState.PASSING]
        after = await judge.node(node)
        assert before is not None
        assert after is not None
        assert after.stat.czxid == before.stat.czxid, "it was withdrawn"


async def enabled(judge: Judge, path: str) -> bool:
    node = await judge.node(path)
    assert node is not None
    return bool(json.loads(node.data).get("enabled", True))


def seen_while_standing_still(servers: str) -> list[tuple[bool, str | None]]:
    """Another registry's view of the instance while this loop is blocked, until it is not enabled."""
    seen: list[tuple[bool, str | None]] = []
    with blocking.connect(servers, session_timeout=T) as registry, registry.discover("chat") as chat:
        seen += [(each.enabled, each.status) for each in chat.snapshot.values()]
        with chat.changes() as changes:
            while all(up for up, _ in seen):
                change = changes.next(DEADLINE)
                assert isinstance(change, Updated)
                seen.append((change.instance.enabled, change.instance.status))
    return seen


@pytest.mark.parametrize("lag_check", [True, False])
async def test_every_registration_has_a_check_of_the_caller_s_loop_unless_it_is_not_wanted(
    zookeeper: ZooKeeperServer, chroot: str, lag_check: bool
) -> None:
    async with (
        connect(zookeeper.address + chroot, session_timeout=T, thread=True, lag_check=lag_check) as registry,
        registry.register(instance_of()) as registration,
    ):
        assert set(registration.checks) == ({"loop"} if lag_check else set())


async def test_the_face_is_that_of_a_registry(registry: ThreadRegistry) -> None:
    async with registry.discover("chat") as chat, registry.register(instance_of(payload=1)) as registration:
        snapshot = await chat.wait_for(lambda snapshot: "a" in snapshot, DEADLINE)
        assert chat.snapshot is snapshot or chat.snapshot == snapshot
        assert chat.fresh
        assert await registry.services() == ["chat"]
        await registration.wait_live(DEADLINE)
        changes = chat.changes()
        assert changes.start["a"].payload == 1
        await registration.update(payload=2)
        assert (await chat.sync(DEADLINE))["a"].payload == 2
        assert isinstance(await anext(changes), Updated)
        await registration.aclose()
        assert registration.withdrawn
        assert registration.status is Status.CLOSED
        assert await registration.wait_closed() is None
        assert isinstance(await anext(changes), Removed)
    with pytest.raises(HandleClosed):
        _ = chat.snapshot
    assert registry.session.state is SessionState.CONNECTED


async def test_every_stream_reaches_across_and_ends_with_the_registry(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async with connect(zookeeper.address + chroot, session_timeout=T, thread=True) as registry:
        chat, registration = await registry.discover("chat"), await registry.register(instance_of())
        snapshots, statuses, names = chat.snapshots(), registration.statuses(), registry.watch_services()
        async with asyncio.timeout(DEADLINE):
            while "a" not in await anext(snapshots):
                pass
            while await anext(statuses) is not Status.LIVE:
                pass
            while "chat" not in await anext(names):
                pass
        rest = [
            asyncio.create_task(_rest(stream)) for stream in (snapshots, statuses, names, registry.session.states())
        ]
    async with asyncio.timeout(DEADLINE):
        last = await asyncio.gather(*rest)
    assert last[1][-1:] == [Status.CLOSED]


async def _rest(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


async def test_operators_may_override_from_a_loop_of_their_own(registry: ThreadRegistry) -> None:
    async with registry.register(instance_of()), registry.discover("chat") as chat:
        override = await registry.overrides.drain("chat", "a", reason="new disk", seconds=None)
        assert (await registry.overrides.list(), await registry.overrides.list("chat")) == ([override], [override])
        await chat.wait_for(lambda snapshot: snapshot["a"].status == "maintenance", DEADLINE)
        with pytest.raises(InvalidArgument, match="weight="):
            await registry.overrides.drain("chat", "a", reason="x", weight=2)
        for wrong in (
            registry.overrides.drain("chat", "absent", reason="x"),
            registry.overrides.drain("absent", "absent", reason="x"),
            registry.overrides.enable("chat", "absent"),
        ):
            with pytest.raises(InvalidArgument) as raised:
                await wrong
            assert (raised.value.field, raised.value.value) == ("id", "absent")
        with pytest.raises(InvalidArgument, match="seconds="):
            await registry.overrides.drain("chat", "a", reason="x", seconds=0)
        await registry.overrides.enable("chat", "a")
        assert await registry.overrides.list() == []
    with pytest.raises(UsageError, match="thread=True"):
        _ = registry.client


async def test_what_operators_said_is_removed_when_it_is_listed_and_over(
    registry: ThreadRegistry, judge: Judge, chroot: str
) -> None:
    path = f"{chroot}/services-overrides/chat/a"
    await judge.make(path, b'{"enabled":false,"seconds":0.001}')
    assert await registry.overrides.list() == []
    assert await judge.node(path) is None


async def test_what_a_stream_has_told_is_in_the_snapshot(registry: ThreadRegistry) -> None:
    async with registry.discover("chat") as chat:
        changes = chat.changes()
        for number in range(20):
            async with registry.register(instance_of(f"i{number}")):
                change = await anext(changes)
                assert isinstance(change, Added)
                assert change.id in chat.snapshot
            change = await anext(changes)
            assert isinstance(change, Removed)
            assert change.id not in chat.snapshot


async def test_a_predicate_is_refused_by_its_name_and_ends_nothing_but_its_waiting(registry: ThreadRegistry) -> None:
    def over(_: object) -> bool:
        raise StopAsyncIteration

    async with registry.discover("chat") as chat:
        with pytest.raises(TypeError, match="predicate="):
            await chat.wait_for(5)  # type: ignore[arg-type]
        with pytest.raises(UsageError) as raised:
            await chat.wait_for(over, DEADLINE)
        assert isinstance(raised.value.__cause__, StopAsyncIteration)


async def test_handles_say_what_they_are_of(registry: ThreadRegistry) -> None:
    async with registry.register(instance_of()) as registration, registry.discover("chat") as chat:
        assert repr(registration).startswith("<ThreadRegistration of <Registration chat/a LIVE")
        assert repr(chat).startswith("<ThreadView of <View")


async def test_mistakes_are_told_at_once_and_on_the_caller_s_side(
    registry: ThreadRegistry, zookeeper: ZooKeeperServer
) -> None:
    with pytest.raises(InvalidArgument, match="port"):
        _ = registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=0))
    with pytest.raises(InvalidArgument, match="name"):
        _ = registry.discover("a//b")
    with pytest.raises(InvalidArgument, match="session_timeout"):
        _ = connect(zookeeper.address, session_timeout=0, thread=True)
    with pytest.raises(InvalidArgument, match="thread"):
        _ = connect(zookeeper.address, thread=1)  # type: ignore[call-overload]
    no_mappings: tuple[Any, ...] = (5, [], "loop")
    for checks in no_mappings:
        with pytest.raises(TypeError, match="checks"):
            _ = registry.register(instance_of(), checks=checks)
    unopened = registry.discover("chat")
    with pytest.raises(UsageError):
        _ = unopened.snapshot
    await unopened.aclose()


async def test_a_deadline_is_a_deadline_there_too(registry: ThreadRegistry) -> None:
    async with registry.discover("chat") as chat:
        with pytest.raises(RequestTimeout):
            await chat.wait_for(lambda _: False, 0.01)


async def test_another_thread_may_not_use_it(registry: ThreadRegistry) -> None:
    async with registry.discover("chat") as chat:
        told: list[BaseException] = []

        def use() -> None:
            try:
                _ = chat.snapshot
            except UsageError as error:
                told.append(error)

        await asyncio.to_thread(use)
        assert len(told) == 1


async def test_entering_that_is_cancelled_leaves_nothing(zookeeper: ZooKeeperServer, chroot: str) -> None:
    before = threading.active_count()
    for turns in range(12):
        task = asyncio.create_task(_entered(zookeeper.address + chroot))
        for _ in range(turns * 3):
            await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task.result().aclose()
    assert threading.active_count() == before


async def _entered(servers: str) -> ThreadRegistry:
    return await connect(servers, session_timeout=T, thread=True)


async def test_ten_thousand_changes_cross_over_each_once_and_what_lags_is_bounded(
    zookeeper: ZooKeeperServer, chroot: str
) -> None:
    flood = Flood(zookeeper.address, f"{chroot}/services/chat")
    async with (
        connect(zookeeper.address + chroot, session_timeout=60, thread=True) as registry,
        registry.discover("chat") as chat,
    ):
        session, quick, slow = registry.session.id, chat.changes(), chat.changes()
        counted = OrderedConsumer(quick.start.entries)
        for _ in range(WAVES):
            wave = await flood.wave()  # nothing but the servers' answers is waited for
            for _ in range(len(wave)):
                change = await asyncio.wait_for(anext(quick), DEADLINE)
                assert isinstance(change, Added)
                counted.apply(change)  # which refuses what comes twice
        assert counted.entries.keys() == flood.ids
        counted.check(chat.snapshot.entries)
        missed = await asyncio.wait_for(anext(slow), DEADLINE)
        assert isinstance(missed, Resynced)
        assert sorted(change.id for change in missed.changes) == sorted(flood.ids)
        check_bounded(given=1, bound=1)
        await flood.wave(1)
        assert isinstance(await asyncio.wait_for(anext(slow), DEADLINE), Added)
        check_beating(sessions=[session, registry.session.id], silence=0.0, timeout=60)


async def test_ten_thousand_updates_cross_over_and_the_newest_arrives(registry: ThreadRegistry) -> None:
    async with registry.discover("chat") as chat, registry.register(instance_of(payload=0)) as registration:
        changes, newest = chat.changes(), 0
        updates = [asyncio.create_task(registration.update(payload=number)) for number in range(1, 10_001)]
        await asyncio.wait(updates)
        async for change in changes:
            newest = chat.snapshot["a"].payload
            if newest == 10_000:
                break
            assert change.zxid <= chat.snapshot.as_of
        assert newest == 10_000


async def test_a_balancer_picks_here_what_is_fed_there(registry: ThreadRegistry) -> None:
    async with registry.discover("chat") as chat:
        balancer = chat.balancer(ejection=Ejection(failures=1))
        with pytest.raises(NoInstances):
            balancer.pick()
        waiting = asyncio.create_task(balancer.pick_when_available(DEADLINE))
        async with registry.register(instance_of("a")), registry.register(instance_of("b")):
            assert (await waiting).id in "ab"
            await chat.wait_for(lambda snapshot: len(snapshot) == 2, DEADLINE)
            assert {balancer.pick().id for _ in range(4)} == {"a", "b"}
            with pytest.raises(ConnectionRefusedError), balancer.pick() as failed:
                raise ConnectionRefusedError
            assert set(balancer.set_aside) == {failed.id}
            assert {balancer.pick().id for _ in range(4)} == {"a", "b"} - {failed.id}
        with pytest.raises(InvalidArgument, match="strategy"):
            chat.balancer("fastest")
    with pytest.raises(HandleClosed):
        balancer.pick()
