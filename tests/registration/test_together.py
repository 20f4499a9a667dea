"""Withdrawals that are sent together, each answered as if it had been sent alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aioregistry._errors import BadVersion, ConnectionLost, NoNode, PoisonRequest, RolledBack, Throttled
from aioregistry._model import ServiceInstance
from aioregistry._protocol import Create2, Delete, Message, Multi, MultiReply, Reply
from aioregistry._registration import Registration, Status, Withdrawals, begin_withdrawal
from aioregistry._registration.together import MOST_TOGETHER, MOST_UNDER_WAY, Together, divided
from aioregistry._registration.transactions import target_of, withdrawal
from tests.support.fake_session import FakeSession, Fate, quiet, until
from tests.support.model_tree import ModelTree


@pytest.fixture
async def session() -> FakeSession:
    tree = ModelTree()
    tree.make("/services/chat")
    tree.make("/services-withdrawn")
    session = FakeSession(tree)
    session.connect()
    return session


def listed(session: FakeSession, count: int) -> list[Multi | Delete]:
    """Create nodes, and return their withdrawals."""
    withdrawals = []
    for number in range(count):
        target = target_of("/services", "chat", str(number), ())
        session.tree.apply(session.id, Create2(target.path, b"", (), 1))
        withdrawals.append(withdrawal(target, 0, session.tree.nodes[target.path].czxid, marked=True))
    return withdrawals


async def test_one_is_sent_as_it_is(session: FakeSession) -> None:
    (message,) = listed(session, 1)
    reply = await Together(session.as_session).submit(message)
    assert session.served == [message]
    assert reply.value.failed is None


async def test_many_share_transactions(session: FakeSession) -> None:
    together = Together(session.as_session)
    replies = await asyncio.gather(*map(together.submit, listed(session, 3 * MOST_TOGETHER + 1)))
    assert [len(message.ops) for message in session.served if isinstance(message, Multi)] == [400, 400, 400, 4]
    assert all(reply.value.failed is None and len(reply.value.results) == 4 for reply in replies)
    assert session.tree.children("/services/chat") == []


async def test_only_so_many_transactions_are_under_way(session: FakeSession) -> None:
    """The request behind them, the end of the session, is answered soon."""
    together = Together(session.as_session)
    session.fate = lambda message: Fate.UNANSWERED
    answers = [together.submit(message) for message in listed(session, 10 * MOST_TOGETHER)]
    await quiet()
    assert session.unanswered == MOST_UNDER_WAY
    session.disconnect()
    assert {type(error) for error in await asyncio.gather(*answers, return_exceptions=True)} == {ConnectionLost}


async def test_one_that_fails_fails_alone(session: FakeSession) -> None:
    together = Together(session.as_session)
    messages = listed(session, 5)
    session.tree.set_data("/services/chat/2", b"changed")
    replies = await asyncio.gather(*map(together.submit, messages))
    failures = [reply.value.failed for reply in replies]
    assert [failure and (failure.index, type(failure.error)) for failure in failures] == [
        *[None, None, (2, BadVersion), None, None]
    ]
    assert session.tree.children("/services/chat") == ["2"]


async def test_what_costs_the_connection_together_is_sent_alone(session: FakeSession) -> None:
    together = Together(session.as_session)
    submit = session.submit

    def poisoned(message: Message[Any], answered: Any = None) -> asyncio.Future[Reply[Any]]:
        if isinstance(message, Multi) and len(message.ops) > 4:
            future: asyncio.Future[Reply[Any]] = asyncio.get_running_loop().create_future()
            future.add_done_callback(answered)
            future.set_exception(PoisonRequest.__new__(PoisonRequest))
            return future
        return submit(message, answered)

    session.submit = poisoned  # type: ignore[method-assign]
    replies = await asyncio.gather(*map(together.submit, listed(session, 4)))
    assert all(reply.value.failed is None for reply in replies)
    assert session.tree.children("/services/chat") == []


async def test_a_server_in_trouble_says_so_to_all(session: FakeSession) -> None:
    together = Together(session.as_session)
    session.fate = lambda message: Throttled("/")
    answers = await asyncio.gather(*map(together.submit, listed(session, 3)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Throttled}
    assert len(session.served) == 1


async def test_whoever_was_cancelled_is_not_sent(session: FakeSession) -> None:
    together = Together(session.as_session)
    first, second = map(together.submit, listed(session, 2))
    first.cancel()
    await second
    assert session.tree.children("/services/chat") == ["0"]


def test_deletions_alone_are_divided_too() -> None:
    messages: list[Multi | Delete] = [Delete("/a", 0), Multi([Delete("/b", 0), Delete("/c", 0)])]
    assert divided(messages, Reply(5, MultiReply([None, None, None]))) == [
        Reply(5, None),
        Reply(5, MultiReply([None, None])),
    ]
    failed = divided(messages, Reply(5, MultiReply([NoNode("/a"), RolledBack("/b"), RolledBack("/c")])))
    assert isinstance(failed[0], NoNode)
    assert failed[1] is None


async def test_many_that_are_closed_at_once_leave_in_few_transactions(session: FakeSession) -> None:
    withdrawals = Withdrawals()
    many = [
        Registration(
            session.as_session,
            ServiceInstance("chat", id=str(number), address="10.0.0.7", port=7000),
            base_path="/services",
            withdrawals=withdrawals,
            wait=False,
        )
        for number in range(250)
    ]
    for each in many:
        _ = await each
    await until(lambda: all(each.status is Status.LIVE for each in many))
    session.served.clear()
    for each in many:
        begin_withdrawal(each)
    await asyncio.gather(*(each.aclose() for each in many))
    assert all(each.withdrawn for each in many)
    assert session.tree.children("/services/chat") == []
    assert [type(message) for message in session.served] == [Multi] * 3


@pytest.mark.parametrize("connected", [True, False])
async def test_the_end_of_the_session_is_a_withdrawal_once_it_is_answered(
    session: FakeSession, connected: bool
) -> None:
    me = ServiceInstance("chat", id="a", address="10.0.0.7", port=7000)
    registered = await Registration(session.as_session, me, base_path="/services", close_timeout=0.01)
    session.fate = lambda message: Fate.UNANSWERED
    await registered.aclose()
    assert registered.withdrawn is False
    if not connected:
        session.disconnect()
    session.close()
    assert registered.withdrawn is connected
