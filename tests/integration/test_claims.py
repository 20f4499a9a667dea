"""Several who want one id, replies that get lost, and closing at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from typing import Any

import pytest

from aioregistry import (
    HandleClosed,
    Registration,
    RegistrationConflict,
    RegistrationDisplaced,
    Status,
)
from aioregistry.testing._proxy import Direction, ZooKeeperProxy
from tests.cli.command import Command
from tests.integration.scene import PARTITIONS, Peer, instance_of
from tests.support import wire
from tests.support.checkers import check_owned, check_published, check_single, check_withdrawn
from tests.support.judge import Chronicle, Judge
from tests.support.leftovers import nothing_left
from tests.support.waiting import DEADLINE, until
from tests.support.wire import Node
from tests.support.zookeeper import ZooKeeperServer

SHORT = 1.5
"""Seconds: the session timeout where a test waits for the session's end."""

LONG = 6.0
"""Seconds: the session timeout where a test waits for no such thing, and a slow machine should not bring it about."""

SERVICE = "/services/chat"
NODE = "/services/chat/a"
MARKERS = "/services-withdrawn"


class Place:
    """A node on the shared server that is claimed, and everything that was seen of it."""

    def __init__(self, server: ZooKeeperServer, judge: Judge, chroot: str) -> None:
        self.server, self.judge, self.chroot = server, judge, chroot
        self.path = chroot + NODE
        self.chronicle = Chronicle(server.address, self.path)

    @property
    def owners(self) -> list[Hashable]:
        """Those who had the node, in order."""
        return [owner for owner in self.chronicle.owners if owner is not None]

    @property
    def created(self) -> int:
        """How many nodes there were, one after the other."""
        return len({sight.node.stat.czxid for sight in self.chronicle.sights if sight.node})

    def claimant(self, proxy: ZooKeeperProxy | None = None, **options: Any) -> Peer:
        """A process as far as ZooKeeper can tell: a registry of its own."""
        address = self.server.address if proxy is None else proxy.address
        return Peer(address + self.chroot, **{"session_timeout": LONG} | options)

    def process(self, *, session_timeout: float = SHORT) -> Command:
        """A real process."""
        return Command(
            *("register", "chat", "--id", "a", "--address", "127.0.0.1", "--port", "7000"),
            *("--zookeeper", self.server.address + self.chroot, "--session-timeout", str(session_timeout)),
            *("--on-displaced", "stop"),
        )

    async def leave_ghost(self, **fields: Any) -> int:
        """Let a process have died a moment ago, whose session lives for another minute; return the session."""
        await self.judge.make(self.chroot + SERVICE)
        dead = await wire.connect(self.server.address, timeout_ms=60_000)
        document = {"name": "chat", "id": "a", "address": "127.0.0.1", "port": 7000} | fields
        await dead.create(self.path, json.dumps(document).encode(), flags=wire.EPHEMERAL)
        dead.abandon()
        await self.observed()
        return dead.session_id

    async def observed(self) -> Node | None:
        """Return what is there, once it is in the chronicle, which looks now and then only."""
        node = await self.judge.node(self.path)
        await until(lambda: self.chronicle.sights[-1].node == node)
        return node

    async def check_listed(self, peer: Peer, registration: Registration[Any]) -> None:
        """The registration is live, and the node is its own."""
        node = await self.observed()
        live = registration.status is Status.LIVE
        assert live
        check_owned(live=live, session_id=peer.registry.session.id, owner=node.stat.owner if node else None)
        check_published(
            listed=json.dumps(json.loads(node.data)["payload"]).encode() if node else None,
            wanted=[json.dumps(registration.instance.payload).encode()],
        )

    async def check_gone(self, peer: Peer, registration: Registration[Any]) -> None:
        """The registration is withdrawn, and nothing is left of it."""
        owner = await self.judge.owner(self.path)
        check_withdrawn(withdrawn=registration.withdrawn, sessions=peer.sessions, owner=owner)
        assert registration.withdrawn
        assert await self.judge.children(self.chroot + MARKERS) == []


@pytest.fixture
async def place(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> AsyncIterator[Place]:
    place = Place(zookeeper, judge, chroot)
    async with place.chronicle:
        yield place


async def turns(count: int) -> None:
    """Let the loop turn *count* times: what needs no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


# ---------------------------------------------------------------- two who live


@pytest.mark.parametrize("seconds", [2 * SHORT, pytest.param(30.0, marks=pytest.mark.soak)])
async def test_two_live_processes_with_one_id(place: Place, seconds: float) -> None:
    async with place.process() as first:
        await first.error_lines_until("LIVE")
        await place.observed()
        async with place.process() as second:
            await second.error_lines_until("LIVE")
            code, _, stderr = await first.end()
            assert code == 3
            assert "displaced" in stderr
            await asyncio.sleep(seconds)  # for a war to show
            former, present = place.owners
            check_single(place.chronicle.owners, {present: 1}, told=[former])
            second.send(signal.SIGTERM)
            assert await second.exit_code() == 0
    assert await place.judge.node(place.path) is None


@pytest.mark.parametrize("seconds", [2 * SHORT, pytest.param(30.0, marks=pytest.mark.soak)])
async def test_two_that_both_stand_by_make_no_war(place: Place, seconds: float) -> None:
    """Nobody ends: the one that lost is still there, and would take the id back if it could."""
    async with (
        place.claimant() as first,
        place.claimant() as second,
        first.registry.register(instance_of("chat"), on_displaced="standby") as loser,
    ):
        await place.observed()
        async with second.registry.register(instance_of("chat"), on_displaced="standby") as winner:
            await until(lambda: loser.status is Status.DISPLACED)
            await asyncio.sleep(seconds)  # for a war to show
            await place.check_listed(second, winner)
            assert place.owners == [first.registry.session.id, second.registry.session.id]
        await loser.wait_live(DEADLINE)  # the other has left
        await place.check_listed(first, loser)
        # Each was told, the one that it was displaced, the other that it was withdrawn.
        told = [first.registry.session.id, second.registry.session.id]
        check_single(place.chronicle.owners, {told[0]: 2, told[1]: 1}, told)


# ---------------------------------------------------------------- one ghost


@pytest.mark.parametrize("count", [2, 3])
async def test_processes_that_find_one_ghost(place: Place, count: int) -> None:
    ghost = await place.leave_ghost()
    async with contextlib.AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(place.process()) for _ in range(count)]
        async with asyncio.timeout(DEADLINE):
            ends = {asyncio.ensure_future(process.exit_code()): process for process in processes}
            ended: set[asyncio.Future[int]] = set()
            while len(ended) < count - 1:
                ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0.01)
        assert [end.result() for end in ended] == [3] * (count - 1)
        ((running, last),) = ((end, process) for end, process in ends.items() if end not in ended)
        await last.error_lines_until("LIVE")
        await place.observed()
        assert place.owners[0] == ghost
        claims = dict.fromkeys(place.owners, 1)
        check_single(place.chronicle.owners, claims, told=place.owners[:-1])
        assert await place.judge.owner(place.path) == place.owners[-1]
        last.send(signal.SIGTERM)
        assert await running == 0
    assert await place.judge.node(place.path) is None


@pytest.mark.parametrize("count", [2, 3])
async def test_claimants_that_see_one_ghost_at_the_same_moment(place: Place, count: int) -> None:
    ghost = await place.leave_ghost()
    async with contextlib.AsyncExitStack() as stack:
        proxies = [stack.enter_context(ZooKeeperProxy((place.server.host, place.server.port))) for _ in range(count)]
        peers = [await stack.enter_async_context(place.claimant(proxy)) for proxy in proxies]
        for proxy in proxies:
            proxy.delay(0.1, Direction.TO_SERVER)  # all have looked before the first transaction arrives
        registrations = [peer.registry.register(instance_of("chat"), on_displaced="stop") for peer in peers]
        results = await asyncio.gather(*(entered(registration) for registration in registrations))
        assert all(proxy.requests[wire.MULTI] for proxy in proxies)  # each found it a ghost's, and tried
        assert Counter(map(type, results)) == {type(None): 1, RegistrationDisplaced: count - 1}
        winner = results.index(None)
        await place.check_listed(peers[winner], registrations[winner])
        assert place.owners == [ghost, peers[winner].registry.session.id]
        await registrations[winner].aclose()


async def entered(registration: Registration[Any]) -> Exception | None:
    """Enter, and return what that raised."""
    try:
        _ = await registration
    except RegistrationDisplaced as error:
        return error
    return None


# ---------------------------------------------------------------- restarts


@pytest.mark.parametrize("what", ["registration", "registry"])
async def test_withdrawal_arrives_after_the_successor_came(place: Place, proxy: ZooKeeperProxy, what: str) -> None:
    await place.judge.make(place.chroot + MARKERS)  # so that one transaction does it
    async with place.claimant(proxy) as old, place.claimant() as new:
        former = await old.registry.register(instance_of("chat"), on_displaced="stop")
        await place.check_listed(old, former)
        proxy.silence(Direction.TO_SERVER)
        ending = asyncio.create_task((former if what == "registration" else old.registry).aclose())
        await turns(20)  # the withdrawal is on its way
        async with new.registry.register(instance_of("chat")) as successor, untouched(successor):
            await place.check_listed(new, successor)
            proxy.heal()
            await ending
            assert proxy.requests[wire.MULTI]
            assert former.withdrawn
            await place.check_listed(new, successor)
            assert place.chronicle.owners[-2:] == [old.sessions[0], new.sessions[0]]


async def test_restarts_at_any_moment(place: Place) -> None:
    """The new process comes before, while and after the old one ends; it is never the new one's node that goes."""
    draw = random.Random(7)
    async with contextlib.AsyncExitStack() as stack:
        old = await stack.enter_async_context(place.claimant())
        former = await old.registry.register(instance_of("chat"), on_displaced="stop")
        for _ in range(25):
            new = await stack.enter_async_context(place.claimant())
            successor = new.registry.register(instance_of("chat"), on_displaced="stop")
            async with untouched(successor):
                entering = asyncio.create_task(after(draw.uniform(0.0, 0.006), successor.__aenter__))
                await after(draw.uniform(0.0, 0.006), old.registry.aclose)
                await entering
                await place.check_listed(new, successor)
            assert await former.wait_closed() is None or former.status is Status.DISPLACED
            old, former = new, successor
        claims = dict.fromkeys(place.owners, 1)
        check_single(place.chronicle.owners, claims, told=place.owners[:-1])


async def test_restart_of_a_process_that_is_still_shutting_down(place: Place) -> None:
    async with place.process() as old:
        await old.error_lines_until("LIVE")
        await place.observed()
        async with place.process() as new:
            await new.error_line()  # it has begun
            old.send(signal.SIGTERM)
            assert await old.exit_code() in (0, 3)
            await new.error_lines_until("LIVE")
            await place.observed()
            former, present = place.owners
            assert await place.judge.owner(place.path) == present
            check_single(place.chronicle.owners, {present: 1}, told=[former])
            new.send(signal.SIGTERM)
            assert await new.exit_code() == 0


@contextlib.asynccontextmanager
async def untouched(registration: Registration[Any]) -> AsyncIterator[None]:
    """Once it is live, nobody takes its node away, however soon it would be put back."""
    async with registration.statuses() as statuses:
        yield
        told = [await anext(statuses)]
        while told[-1] is not Status.LIVE:
            told.append(await anext(statuses))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                told.append(await anext(statuses))
        assert told[-1] is Status.LIVE


async def after(seconds: float, action: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    await asyncio.sleep(seconds)
    await action()


# ---------------------------------------------------------------- who yields


async def test_on_conflict_wait(place: Place) -> None:
    async with place.claimant() as first, place.claimant() as second:
        async with first.registry.register(instance_of("chat")) as holder:
            waiting = second.registry.register(instance_of("chat"), on_conflict="wait")
            entering = asyncio.create_task(waiting.__aenter__())
            await second.registry.services()
            await place.check_listed(first, holder)
            assert waiting.status is Status.REGISTERING
        _ = await entering
        await place.check_listed(second, waiting)
        await waiting.aclose()
    assert place.owners == [*first.sessions, *second.sessions]


async def test_on_conflict_wait_for_a_session_that_times_out(place: Place, proxy: ZooKeeperProxy) -> None:
    async with place.claimant(proxy, session_timeout=SHORT) as first, place.claimant() as second:
        _ = await first.registry.register(instance_of("chat"))
        proxy.refuse()
        proxy.cut()
        async with (
            asyncio.timeout(DEADLINE),
            second.registry.register(instance_of("chat"), on_conflict="wait") as next_,
        ):
            await place.check_listed(second, next_)
        assert place.owners == [*first.sessions, *second.sessions]


async def test_on_conflict_fail(place: Place) -> None:
    async with place.claimant() as first, place.claimant() as second:
        async with first.registry.register(instance_of("chat")) as holder:
            refused = second.registry.register(instance_of("chat"), on_conflict="fail")
            with pytest.raises(RegistrationConflict, match=place.path):
                _ = await refused
            assert refused.status is Status.FAILED
            await place.check_listed(first, holder)
        async with second.registry.register(instance_of("chat"), on_conflict="fail") as free:
            await place.check_listed(second, free)
    assert place.owners == [*first.sessions, *second.sessions]


# ---------------------------------------------------------------- lost replies


@pytest.mark.parametrize("parents", ["there", "missing"])
@pytest.mark.parametrize("opcode", [wire.CREATE2, wire.SYNC, wire.GET_DATA])
async def test_reply_lost_while_it_is_created(place: Place, proxy: ZooKeeperProxy, opcode: int, parents: str) -> None:
    if parents == "there":
        await place.judge.make(place.chroot + SERVICE)
    async with place.claimant(proxy) as peer:
        lost = proxy.lose_next_reply(opcode)
        async with peer.registry.register(instance_of("chat")) as registration:
            assert lost.happened
            await place.check_listed(peer, registration)
        assert place.created == 1
        await place.check_gone(peer, registration)
    assert peer.states == ["connected", "suspended", "reconnected", "closed"]


async def test_reply_to_a_parents_creation_lost(place: Place, proxy: ZooKeeperProxy) -> None:
    async with place.claimant(proxy) as peer:
        lost = proxy.lose_next_reply(wire.CREATE_CONTAINER)
        async with peer.registry.register(instance_of("chat")) as registration:
            assert lost.happened
            await place.check_listed(peer, registration)
        assert place.created == 1


async def test_reply_to_the_takeover_lost(place: Place, proxy: ZooKeeperProxy) -> None:
    ghost = await place.leave_ghost()
    async with place.claimant(proxy) as peer:
        lost = proxy.lose_next_reply(wire.MULTI)
        async with peer.registry.register(instance_of("chat")) as registration:
            assert lost.happened
            await place.check_listed(peer, registration)
            assert place.chronicle.owners[-2:] == [ghost, peer.registry.session.id]
            assert place.created == 2


async def test_reply_to_an_update_lost(place: Place, proxy: ZooKeeperProxy) -> None:
    async with place.claimant(proxy) as peer, peer.registry.register(instance_of("chat")) as registration:
        lost = proxy.lose_next_reply(wire.SET_DATA)
        await registration.update(payload={"load": 1})
        assert lost.happened
        await place.check_listed(peer, registration)
        node = await place.judge.node(place.path)
        assert node is not None
        assert node.stat.version == 1
        assert place.created == 1


@pytest.mark.parametrize("parents", ["there", "missing"])
async def test_reply_to_the_withdrawal_lost(place: Place, proxy: ZooKeeperProxy, parents: str) -> None:
    if parents == "there":
        await place.judge.make(place.chroot + MARKERS)
    async with place.claimant(proxy) as peer:
        async with peer.registry.register(instance_of("chat")) as registration:
            await place.check_listed(peer, registration)
            lost = proxy.lose_next_reply(wire.MULTI)
        assert lost.happened
        await place.check_gone(peer, registration)
    assert place.created == 1


# ---------------------------------------------------------------- races with a reconnect


async def test_updates_race_reconnects(place: Place, proxy: ZooKeeperProxy) -> None:
    draw, numbers = random.Random(11), itertools.count(1)
    async with place.claimant(proxy) as peer, peer.registry.register(instance_of("chat", payload=0)) as registration:

        async def update() -> None:
            number = next(numbers)
            await registration.update(payload=number)
            node = await place.judge.node(place.path)
            assert node is not None
            assert json.loads(node.data)["payload"] >= number  # that, or a later one

        for _ in range(30):
            updates = [after(draw.uniform(0.0, 0.02), update) for _ in range(3)]
            await asyncio.gather(*updates, after(draw.uniform(0.0, 0.02), cutting(proxy)))
            await update()
            await place.check_listed(peer, registration)
        assert place.created == 1
        assert len(peer.sessions) == 1


async def test_closes_race_reconnects(place: Place, proxy: ZooKeeperProxy) -> None:
    draw = random.Random(13)
    async with place.claimant(proxy) as peer:
        for number in range(30):
            registration = await peer.registry.register(instance_of("chat", payload=0))
            # A request that is never answered between three cuts is taken for their cause.
            await registration.update(payload="answered")

            async def update(number: int = number, registration: Registration[Any] = registration) -> None:
                with contextlib.suppress(HandleClosed):
                    await registration.update(payload=number)

            await asyncio.gather(
                after(draw.uniform(0.0, 0.006), cutting(proxy)),
                after(draw.uniform(0.0, 0.006), update),
                after(draw.uniform(0.0, 0.006), registration.aclose),
            )
            assert await peer.registry.services() is not None  # nothing of it is under way any more
            await place.check_gone(peer, registration)
        assert len(peer.sessions) == 1


def cutting(proxy: ZooKeeperProxy) -> Callable[[], Coroutine[Any, Any, None]]:
    async def cut() -> None:
        proxy.cut()

    return cut


# ---------------------------------------------------------------- closing while disconnected


@pytest.mark.parametrize("how", ["noticed", *PARTITIONS])
async def test_registry_closed_while_disconnected(place: Place, proxy: ZooKeeperProxy, how: str) -> None:
    async with nothing_left(proxy):
        async with place.claimant(proxy, session_timeout=SHORT, close_timeout=0.2) as peer:
            registration = await peer.registry.register(instance_of("chat"))
            _ = await peer.registry.discover("chat")
            PARTITIONS["silent" if how == "noticed" else how].begin(proxy)
            if how == "noticed":
                await until(lambda: registration.status is Status.UNCERTAIN)
            async with asyncio.timeout(DEADLINE):
                await peer.registry.aclose()
        check_withdrawn(withdrawn=registration.withdrawn, sessions=peer.sessions, owner=None)
        assert registration.withdrawn is False
        assert registration.status is Status.CLOSED
        assert await registration.wait_closed() is None
    await place.judge.node_until(place.path, lambda node: node is None)


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_registration_closed_while_disconnected(place: Place, proxy: ZooKeeperProxy, how: str) -> None:
    """The session lives on, and so does the will to withdraw."""
    async with place.claimant(proxy) as peer:
        registration = await peer.registry.register(instance_of("chat"), close_timeout=0.1)
        PARTITIONS[how].begin(proxy)
        async with asyncio.timeout(DEADLINE):
            await registration.aclose()
            assert await registration.wait_closed() is None
        assert registration.withdrawn is False
        assert registration.status is Status.CLOSED
        assert await place.judge.owner(place.path) == peer.registry.session.id
        PARTITIONS[how].end(proxy)
        await until(lambda: registration.withdrawn is True)
        await place.check_gone(peer, registration)
        assert len(peer.sessions) == 1


async def test_registered_again_before_the_withdrawal_came_through(place: Place, proxy: ZooKeeperProxy) -> None:
    await place.judge.make(place.chroot + MARKERS)
    async with place.claimant(proxy) as peer:
        former = await peer.registry.register(instance_of("chat", payload=1), close_timeout=0.1)
        await place.check_listed(peer, former)
        PARTITIONS["refused"].begin(proxy)
        await former.aclose()
        assert former.withdrawn is False
        async with (
            peer.registry.register(instance_of("chat", payload=2), wait=False) as present,
            untouched(present),
        ):
            PARTITIONS["refused"].end(proxy)
            await present.wait_live(DEADLINE)
            for _ in range(10):  # whatever else is under way arrives
                await peer.registry.services()
            await place.check_listed(peer, present)
            assert place.created == 1
        await place.check_gone(peer, present)


@pytest.mark.parametrize("how", ["refused", "silent"])
@pytest.mark.parametrize("successors", [1, 2])
@pytest.mark.parametrize("impatient", [False, True], ids=["closed", "timed out"])
async def test_a_successor_that_saw_no_server_withdraws_what_the_former_wrote(
    place: Place, proxy: ZooKeeperProxy, how: str, successors: int, impatient: bool
) -> None:
    """It wrote nothing, but something of this session's is there."""
    async with place.claimant(proxy, session_timeout=60.0) as peer:
        first = await peer.registry.register(instance_of("chat"), close_timeout=0.1)
        PARTITIONS[how].begin(proxy)
        await first.aclose()
        several = [first]
        for _ in range(successors):
            successor = peer.registry.register(instance_of("chat"), wait=impatient, close_timeout=0.1)
            if impatient:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(entered(successor), 0.05)
            else:
                _ = await successor
                await successor.aclose()
            several.append(successor)
        assert [each.withdrawn for each in several] == [False] * len(several)
        assert await place.judge.owner(place.path) == peer.registry.session.id
        PARTITIONS[how].end(proxy)
        await until(lambda: several[-1].withdrawn is True)
        await place.check_gone(peer, several[-1])
        assert len(peer.sessions) == 1


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_registry_closed_while_a_withdrawal_is_under_way(place: Place, proxy: ZooKeeperProxy, how: str) -> None:
    async with nothing_left(proxy):
        async with place.claimant(proxy, session_timeout=SHORT, close_timeout=0.2) as peer:
            registration = await peer.registry.register(instance_of("chat"), close_timeout=0.1)
            PARTITIONS[how].begin(proxy)
            await registration.aclose()
        assert registration.withdrawn is False
    await place.judge.node_until(place.path, lambda node: node is None)
