"""Several registrations of one id in one session, one after the other: what one wrote is never left by the next.

Each order of what may happen, up to so many events, is played with real handles; and random longer ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from aioregistry import RegistrationError
from aioregistry._errors import NoAuth, RegistryError
from aioregistry._handles import is_open
from aioregistry._model import ServiceInstance
from aioregistry._protocol import Create2, Delete, Message, Multi, SetData
from aioregistry._registration import Registration, Status, Withdrawals, has_ended
from tests.support.checkers import check_withdrawn
from tests.support.fake_session import FakeSession, Fate, quiet, until
from tests.support.model_tree import ModelTree

PATH = "/services/chat/10.0.0.7:7000"
CHAT = ServiceInstance("chat", address="10.0.0.7", port=7000, payload={"worker": 0})


class Place:
    """One id of one session, its registrations so far, and what is known to have happened."""

    def __init__(self) -> None:
        self.tree = ModelTree()
        self.tree.make("/services/chat")
        self.session = FakeSession(self.tree)
        self.session.connect()
        self.withdrawals = Withdrawals()
        self.handles: list[Registration[Any]] = []
        self.tasks: list[asyncio.Future[Any]] = []

    @property
    def open(self) -> Registration[Any] | None:
        """The registration that decides about the id."""
        return self.handles[-1] if self.handles and not has_ended(self.handles[-1]) else None

    @property
    def owner(self) -> int | None:
        node = self.tree.node(PATH)
        return None if node is None else node.owner

    def register(self, **options: Any) -> Registration[Any]:
        instance = CHAT.replace(payload={"worker": len(self.handles)})
        handle = Registration(
            self.session.as_session,
            instance,
            base_path="/services",
            close_timeout=0.0001,
            withdrawals=self.withdrawals,
            **options,
        )
        self.handles.append(handle)
        return handle

    def check(self) -> None:
        sessions = [*self.session.earlier_ids, self.session.id]
        # A former one may have said so truly before the last one was listed.
        if self.open is None and self.handles and self.handles[-1].withdrawn is not None:
            check_withdrawn(withdrawn=self.handles[-1].withdrawn, sessions=sessions, owner=self.owner)

    async def over(self) -> None:
        """Everybody has closed, and ZooKeeper is well: nothing is left."""
        self.session.fate = lambda message: None
        if self.session.connected:
            self.session.disconnect()
        self.session.arrive()
        await self.leave()
        self.check()
        self.session.connect()
        await until(lambda: all(task.done() for task in self.tasks))
        for handle in self.handles:
            if is_open(handle):
                await handle.aclose()
        await until(lambda: self.workers() == [])
        self.check()
        assert self.owner is None
        assert self.session.observers == []
        if self.handles:
            assert self.handles[-1].withdrawn is not False

    def workers(self) -> list[Any]:
        return list(self.withdrawals._workers.values())

    # ------------------------------------------------------------------ what may happen

    async def begin(self) -> None:
        """Register, and do not wait."""
        if self.open is None:
            self.tasks.append(asyncio.ensure_future(self._enter(self.register(wait=False))))
            await quiet()

    async def _enter(self, handle: Registration[Any]) -> None:
        with contextlib.suppress(RegistryError):
            _ = await handle

    async def give_up(self) -> None:
        """Register, wait, and lose patience."""
        if self.open is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await self._enter(self.register())

    async def cancel_soon(self) -> None:
        """Register, wait, and be cancelled when the request is on its way."""
        if self.open is None:
            entering = asyncio.ensure_future(self._enter(self.register()))
            for _ in range(3):
                await asyncio.sleep(0)
            entering.cancel()
            await asyncio.wait([entering])

    async def leave(self) -> None:
        """Close the registration that decides."""
        if self.open is not None and is_open(self.open):
            await self.open.aclose()

    async def update(self) -> None:
        if self.open is not None and is_open(self.open):
            payload = {"worker": len(self.handles), "update": len(self.tasks)}
            self.tasks.append(asyncio.ensure_future(self._updated(self.open, payload)))
            await quiet()

    async def _updated(self, handle: Registration[Any], payload: Any) -> None:
        with contextlib.suppress(RegistryError):
            await handle.update(payload=payload)

    async def disconnect(self) -> None:
        if self.session.connected:
            self.session.disconnect()
            await quiet()

    async def connect(self) -> None:
        if not self.session.connected:
            self.session.connect()
            await quiet()

    async def lose_the_next_request(self) -> None:
        self._lose(Fate.REQUEST_LOST)

    async def lose_the_next_reply(self) -> None:
        self._lose(Fate.REPLY_LOST)

    async def delay_the_next_request(self) -> None:
        self._lose(Fate.ARRIVES_LATE)

    def _lose(self, fate: Fate) -> None:
        def lose(message: Message[Any]) -> Fate | None:
            if not isinstance(message, Create2 | SetData | Multi | Delete):  # those of the node itself
                return None
            self.session.fate = lambda message: None
            return fate

        self.session.fate = lose

    async def arrive(self) -> None:
        self.session.arrive()

    async def expire(self) -> None:
        """As a quorum does."""
        if self.session.id:
            self.session.expire()
            await quiet()

    async def be_told_of_an_expiry(self) -> None:
        """By a leader that cannot commit it: the session lives on, and its node."""
        if self.session.id:
            self.session.expire(at_server=False)
            await quiet()


EVENTS: dict[str, Callable[[Place], Any]] = {
    name: getattr(Place, name)
    for name in (
        *("begin", "give_up", "cancel_soon", "leave", "update", "disconnect", "connect", "arrive"),
        *("lose_the_next_request", "lose_the_next_reply", "delay_the_next_request", "expire", "be_told_of_an_expiry"),
    )
}


async def play(names: tuple[str, ...]) -> None:
    place = Place()
    try:
        for name in names:
            await EVENTS[name](place)
            place.check()
        await place.over()
    except BaseException as failure:
        failure.add_note(" → ".join(names))
        raise


BEGINNINGS = {
    "listed": ("begin",),
    "never listed": ("disconnect", "begin"),
    "left while ZooKeeper is away": ("begin", "disconnect", "leave"),
    "left, told of an expiry": ("begin", "be_told_of_an_expiry", "leave"),
    "cancelled": ("cancel_soon",),
    "the reply is lost": ("lose_the_next_reply", "begin"),
    "the request is late": ("delay_the_next_request", "begin"),
}


@pytest.mark.parametrize("more", [2, pytest.param(3, marks=pytest.mark.soak)])
@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS.keys())
async def test_every_order(beginning: tuple[str, ...], more: int) -> None:
    for rest in itertools.product(EVENTS, repeat=more):
        await play((*beginning, *rest))


@pytest.mark.parametrize("seed", range(10))
async def test_long_orders(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(20):
        await play(tuple(draw.choices(list(EVENTS), k=14)))


# ---------------------------------------------------------------- examples


async def test_a_second_that_wrote_nothing_leaves_nothing() -> None:
    """ZooKeeper is away: the first cannot withdraw, and the second, which saw no server, must not say that it has."""
    await play(("begin", "disconnect", "leave", "begin", "leave", "connect"))
    place = Place()
    for event in (place.begin, place.disconnect, place.leave, place.begin, place.leave):
        await event()
    assert [handle.withdrawn for handle in place.handles] == [False, False]
    await place.connect()
    await until(lambda: place.handles[-1].withdrawn)
    assert place.owner is None
    await place.over()


@pytest.mark.parametrize("successors", [1, 2, 3])
async def test_those_that_lose_patience_leave_nothing(successors: int) -> None:
    place = Place()
    for event in (place.begin, place.disconnect, place.leave, *[place.give_up] * successors):
        await event()
    assert [handle.withdrawn for handle in place.handles] == [False] * (successors + 1)
    await place.over()


async def test_a_creation_that_arrives_after_the_second_closed() -> None:
    place = Place()
    for event in (place.delay_the_next_request, place.begin, place.leave, place.begin, place.leave):
        await event()
    assert [handle.withdrawn for handle in place.handles] == [False, False]
    await place.arrive()
    assert place.owner == place.session.id
    await place.over()


@pytest.mark.parametrize("refused", [SetData, Create2])
async def test_a_second_that_is_refused_withdraws_what_the_first_left(refused: type[Message[Any]]) -> None:
    place = Place()
    for event in (place.begin, place.disconnect, place.leave):
        await event()
    if refused is Create2:
        place.tree.end_session(place.session.id)
        place.session.expire(at_server=False)
    place.session.fate = lambda message: NoAuth(PATH) if isinstance(message, refused) else None
    await place.begin()
    await place.connect()
    if refused is Create2:
        assert isinstance(await place.handles[-1].wait_closed(), RegistrationError)
    await place.leave()
    await until(lambda: place.workers() == [])
    assert place.owner is None
    await place.over()


async def test_a_second_is_listed_and_the_first_does_not_say_that_it_was_withdrawn() -> None:
    place = Place()
    for event in (place.begin, place.disconnect, place.leave, place.begin, place.connect):
        await event()
    first, second = place.handles
    assert second.status is Status.LIVE
    assert place.owner == place.session.id
    assert first.withdrawn is False
    await place.over()


async def test_a_withdrawal_that_is_refused_is_taken_over() -> None:
    place = Place()
    await place.begin()
    place.session.fate = lambda message: NoAuth(PATH) if isinstance(message, Multi | Delete) else None
    await place.leave()
    assert place.handles[0].withdrawn is False
    await place.begin()
    await place.leave()
    assert place.handles[1].withdrawn is False
    assert place.owner == place.session.id
    await place.over()
