"""Registrations on a real ZooKeeper: what depends on the server's own rules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiozk.protocol.acl import ACL

from aioregistry._document import decode
from aioregistry._errors import NodeNotEphemeral, RegistrationConflict, RegistrationDisplaced, RegistrationError
from aioregistry._model import ServiceInstance
from aioregistry._protocol import Create2, GetData, Multi, SetData, Sync
from aioregistry._registration import Registration, Status
from aioregistry._runtime import SystemRuntime
from aioregistry._session import Session, parse_connect_string
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support import wire
from tests.support.checkers import check_owned, check_published, check_single, check_withdrawn
from tests.support.inside import password_of
from tests.support.judge import Chronicle, Judge
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 100.0
AGES = 60.0
"""No session here ends by the clock."""
CHAT = ServiceInstance("chat", address="10.0.0.7", port=7000, payload={"load": 0})
CREATOR_ALL = (ACL.make("auth", "", read=True, write=True, create=True, delete=True, admin=True),)

NewSession = Callable[..., Any]


@pytest.fixture
async def new_session(zookeeper: ZooKeeperServer) -> AsyncIterator[NewSession]:
    """A function that gives a connected session; all are closed at the end."""
    sessions: list[Session] = []

    async def connect(address: str = zookeeper.address, *, timeout: float = AGES, **options: Any) -> Session:
        session = Session(
            parse_connect_string(address), timeout=timeout, runtime=SystemRuntime(), max_request=0xFFFFF, **options
        )
        sessions.append(session)
        session.start()
        await session.wait_connected(DEADLINE)
        return session

    yield connect
    for session in sessions:
        await session.close(DEADLINE)


def registration(session: Session, chroot: str, instance: Any = CHAT, **options: Any) -> Registration[Any]:
    return Registration(session, instance, base_path=f"{chroot}/services", **options)


async def opened(registration: Registration[Any]) -> Registration[Any]:
    return await registration


async def check(judge: Judge, session: Session, registered: Registration[Any]) -> None:
    await registered.wait_live(DEADLINE)
    node = await judge.node(registered.path)
    assert node is not None
    check_owned(live=registered.status is Status.LIVE, session_id=session.id, owner=node.stat.owner)
    assert decode(node.data) == registered.instance


async def check_gone(judge: Judge, session: Session, registered: Registration[Any]) -> None:
    owner = await judge.owner(registered.path)
    check_withdrawn(withdrawn=registered.withdrawn, sessions=[*session.earlier_ids, session.id], owner=owner)
    assert registered.withdrawn


async def check_no_gap(chronicle: Chronicle, session: Session) -> None:
    await chronicle.catch_up()
    assert None not in chronicle.owners
    assert chronicle.owners[-1] in (chronicle.owners[0], session.id)


async def test_a_life(judge: Judge, chroot: str, new_session: NewSession) -> None:
    session = await new_session()
    async with registration(session, chroot) as registered:
        await check(judge, session, registered)
        await registered.update(payload={"load": 1}, enabled=False)
        await check(judge, session, registered)
        await judge.set_data(registered.path, b"by hand")
        await judge.node_until(registered.path, lambda node: node is not None and node.data != b"by hand")
        await check(judge, session, registered)
        await judge.delete(registered.path)
        await judge.node_until(registered.path, lambda node: node is not None)
        await check(judge, session, registered)
    await check_gone(judge, session, registered)


@pytest.mark.since(3, 6)
async def test_the_leave_can_be_told_from_an_expiry(
    zookeeper: ZooKeeperServer, chroot: str, new_session: NewSession
) -> None:
    """`create(M), delete(M), set(node), delete(node)` in one transaction: [E] of the facts."""
    session = await new_session()
    async with await wire.connect(zookeeper.address) as watcher:
        await watcher.add_watch(chroot)
        async with registration(session, chroot) as registered:
            (czxid,) = [(await watcher.get_data(registered.path)).stat.czxid]
        marker = f"{chroot}/services-withdrawn/chat:10.0.0.7%3A7000:{czxid:x}"
        seen: list[tuple[int, str]] = []
        async with asyncio.timeout(DEADLINE):
            while (2, registered.path) not in seen:
                event = await watcher.event()
                seen.append((event.type, event.path))
        assert seen[-4:] == [(1, marker), (2, marker), (3, registered.path), (2, registered.path)]
        assert await watcher.get_children(f"{chroot}/services-withdrawn") == []


async def test_parents_that_are_reaped(judge: Judge, chroot: str, new_session: NewSession) -> None:
    """The shared server sweeps empty containers twice a second."""
    session = await new_session()
    for _ in range(2):
        async with registration(session, chroot) as registered:
            await check(judge, session, registered)
        await judge.children_until(chroot, lambda names: names == ["services-withdrawn"], timeout=DEADLINE)


async def test_an_expiry_while_the_parents_are_reaped(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, new_session: NewSession
) -> None:
    session = await new_session()
    async with registration(session, chroot) as registered:
        for _ in range(3):
            await wire.force_expiry(zookeeper.address, session.id, password_of(session))
            async with registered.statuses() as statuses:
                async for status in statuses:
                    if status is Status.LIVE and registered.owner == session.id:
                        break
            await check(judge, session, registered)


@pytest.mark.parametrize("lost", [Sync, GetData, Create2], ids=lambda message: message.__name__)
async def test_listing_survives_a_lost_reply(
    judge: Judge, chroot: str, proxy: ZooKeeperProxy, new_session: NewSession, lost: Any
) -> None:
    session = await new_session(proxy.address)
    loss = proxy.lose_next_reply(lost.opcode)
    async with asyncio.timeout(DEADLINE), registration(session, chroot) as registered:
        await loss.wait()
        await check(judge, session, registered)
    await check_gone(judge, session, registered)


async def test_a_takeover_survives_a_lost_reply(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, proxy: ZooKeeperProxy, new_session: NewSession
) -> None:
    session = await new_session(proxy.address)
    async with await wire.connect(zookeeper.address) as ghost:
        path = f"{chroot}/services/chat/{CHAT.id}"
        await judge.make(f"{chroot}/services/chat")
        await ghost.create(path, b"ghost", flags=wire.EPHEMERAL)
        async with Chronicle(zookeeper.address, path) as chronicle:
            loss = proxy.lose_next_reply(Multi.opcode)
            async with asyncio.timeout(DEADLINE), registration(session, chroot) as registered:
                await loss.wait()
                await check(judge, session, registered)
                await check_no_gap(chronicle, session)
    await check_gone(judge, session, registered)


async def test_an_update_and_a_withdrawal_survive_lost_replies(
    judge: Judge, chroot: str, proxy: ZooKeeperProxy, new_session: NewSession
) -> None:
    session = await new_session(proxy.address)
    async with asyncio.timeout(DEADLINE), registration(session, chroot, close_timeout=DEADLINE) as registered:
        loss = proxy.lose_next_reply(SetData.opcode)
        await registered.update(payload={"load": 1})
        await loss.wait()
        await check(judge, session, registered)
        loss = proxy.lose_next_reply(Multi.opcode)
    await loss.wait()
    await check_gone(judge, session, registered)


async def test_a_ghost_dies_under_its_successor(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, new_session: NewSession
) -> None:
    path = f"{chroot}/services/chat/{CHAT.id}"
    await judge.make(f"{chroot}/services/chat")
    ghost = await wire.connect(zookeeper.address)
    await ghost.create(path, b"ghost", flags=wire.EPHEMERAL)
    session = await new_session()
    async with Chronicle(zookeeper.address, path) as chronicle, registration(session, chroot) as registered:
        await ghost.close()
        await check(judge, session, registered)
        await check_no_gap(chronicle, session)


async def test_three_processes_find_one_ghost(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, new_session: NewSession
) -> None:
    path = f"{chroot}/services/chat/{CHAT.id}"
    await judge.make(f"{chroot}/services/chat")
    async with await wire.connect(zookeeper.address) as ghost:
        await ghost.create(path, b"ghost", flags=wire.EPHEMERAL)
        sessions = [await new_session() for _ in range(3)]
        names: dict[int, str] = {session.id: f"process {number}" for number, session in enumerate(sessions)}
        names[ghost.session_id] = "ghost"
        async with Chronicle(zookeeper.address, path) as chronicle:
            entering = [
                asyncio.ensure_future(opened(registration(session, chroot, on_displaced="stop")))
                for session in sessions
            ]
            await asyncio.wait(entering, timeout=DEADLINE)
            winners = [each.result() for each in entering if each.exception() is None]
            # One that was quick may have been listed, and displaced by one that claimed the id a moment later.
            live = [winner for winner in winners if winner.status is Status.LIVE]
            for winner in winners:
                if winner not in live:
                    assert isinstance(await winner.wait_closed(), RegistrationDisplaced)
            losers = [each.exception() for each in entering if each.exception() is not None]
            assert all(isinstance(loser, RegistrationDisplaced) for loser in losers)
            assert len(live) == 1
            node = await judge.node(path)
            check_published(listed=node and node.data, wanted=[node.data if node else b""])
            await chronicle.catch_up()
            owners = [None if owner is None else names[owner] for owner in chronicle.owners]
        present = owners[-1]
        told = set(names.values()) - {present or ""}
        check_single(owners, dict.fromkeys(names.values(), 1), told)
        for winner in winners:
            await winner.aclose()
    assert await judge.owner(path) is None


async def test_a_rolling_restart(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, new_session: NewSession
) -> None:
    """A successor starts while its predecessor is shutting down, again and again: the node is there all the time."""
    path = f"{chroot}/services/chat/{CHAT.id}"
    session = await new_session()
    old = await registration(session, chroot)
    async with Chronicle(zookeeper.address, path) as chronicle:
        for _ in range(10):
            session = await new_session()
            entering = asyncio.ensure_future(opened(registration(session, chroot)))
            await judge.node_until(path, lambda node: node is not None and node.stat.owner == session.id)  # noqa: B023
            await old.aclose()
            old = await entering
            await check(judge, session, old)
        await check_no_gap(chronicle, session)
        assert len(chronicle.owners) <= 11
    await old.aclose()
    await check_gone(judge, session, old)


async def test_what_is_in_the_way(judge: Judge, chroot: str, new_session: NewSession) -> None:
    path = f"{chroot}/services/chat/{CHAT.id}"
    await judge.make(path, b"precious")
    session = await new_session()
    with pytest.raises(NodeNotEphemeral, match="not ephemeral"):
        _ = await registration(session, chroot)
    node = await judge.node(path)
    assert node is not None
    assert node.data == b"precious"


@pytest.mark.parametrize("on_conflict", ["fail", "wait"])
async def test_on_conflict(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, new_session: NewSession, on_conflict: str
) -> None:
    path = f"{chroot}/services/chat/{CHAT.id}"
    await judge.make(f"{chroot}/services/chat")
    other = await wire.connect(zookeeper.address)
    await other.create(path, b"other", flags=wire.EPHEMERAL)
    session = await new_session()
    if on_conflict == "fail":
        with pytest.raises(RegistrationConflict):
            _ = await registration(session, chroot, on_conflict="fail")
        await other.close()
        return
    entering = asyncio.ensure_future(opened(registration(session, chroot, on_conflict="wait")))
    await judge.ask(wire.sync("/"))
    assert await judge.owner(path) == other.session_id
    assert not entering.done()
    await other.close()
    async with asyncio.timeout(DEADLINE), await entering as registered:
        await check(judge, session, registered)


async def test_with_credentials_of_its_own(chroot: str, new_session: NewSession) -> None:
    """Nobody else may read what is registered so; its owner may do everything that a registration has to."""
    session = await new_session(auth=[("digest", b"chat:secret")])
    stranger = await new_session()
    async with registration(session, chroot, acl=CREATOR_ALL) as registered:
        await registered.wait_live(DEADLINE)
        await registered.update(payload={"load": 2})
        with pytest.raises(RegistrationError, match="not authorised"):
            _ = await registration(stranger, chroot, acl=CREATOR_ALL)
        assert registered.status is Status.LIVE
    assert registered.withdrawn


async def test_without_a_place_for_the_marker(judge: Judge, chroot: str, new_session: NewSession) -> None:
    """A client that may write below the service only withdraws without the trace."""
    everything = {"read": True, "write": True, "create": True, "delete": True, "admin": True}
    owner = await new_session(auth=[("digest", b"owner:secret")])
    await judge.make(f"{chroot}/mine/services/chat")
    locked = [ACL.make("world", "anyone", read=True), ACL.make("auth", "", **everything)]
    await owner.request(Create2(f"{chroot}/locked", b"", locked))
    await owner.request(Create2(f"{chroot}/locked/services", b""))
    session = await new_session()
    async with Registration(session, CHAT, base_path=f"{chroot}/locked/services") as registered:
        await check(judge, session, registered)
    await check_gone(judge, session, registered)


async def test_a_thousand_through_an_expiry(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, new_session: NewSession
) -> None:
    session = await new_session()
    instances: list[ServiceInstance[Any]] = [
        ServiceInstance("chat", address="10.0.0.7", port=port) for port in range(1, 1001)
    ]
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(6 * DEADLINE):
        many = [registration(session, chroot, each, close_timeout=DEADLINE) for each in instances]
        entered = await asyncio.gather(*map(opened, many))
        for each in entered:
            _ = stack.push_async_exit(each)
        old = session.id
        await wire.force_expiry(zookeeper.address, old, password_of(session))
        await asyncio.gather(*(back_in_another_session(each, old) for each in entered))
        assert len(await judge.children(f"{chroot}/services/chat")) == 1000
        await asyncio.gather(*(each.aclose() for each in entered))
    assert await judge.children(f"{chroot}/services/chat") == []


async def back_in_another_session(registered: Registration[Any], old: int) -> None:
    async with registered.statuses() as statuses:
        async for status in statuses:
            if status is Status.LIVE and registered.owner != old:
                return


async def test_cuts_without_end(judge: Judge, chroot: str, proxy: ZooKeeperProxy, new_session: NewSession) -> None:
    session = await new_session(proxy.address)
    async with registration(session, chroot, close_timeout=DEADLINE) as registered:
        owner = registered.owner
        for number in range(75):
            updating = asyncio.ensure_future(registered.update(payload={"load": number}))
            await asyncio.sleep(0.001 * (number % 7))
            if number % 3:  # a request that is never answered between three cuts is taken for their cause
                proxy.cut()
            async with asyncio.timeout(DEADLINE):
                await updating
        await check(judge, session, registered)
        assert registered.owner == owner
        assert registered.instance.payload == {"load": 74}
    await check_gone(judge, session, registered)
