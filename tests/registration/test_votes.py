"""The voters on whether an instance is enabled: every set of voters, and every order in which they change."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

from aioregistry._document import decode
from aioregistry._errors import HandleClosed, InvalidArgument, RequestTooLarge
from aioregistry._model import STATUSES, ServiceInstance
from aioregistry._registration import Registration, Voter, status_of, vote
from aioregistry._registration.votes import STATUS_OF
from tests.support.fake_session import FakeSession, quiet
from tests.support.model_tree import ModelTree

VOTERS: tuple[Voter, ...] = get_args(Voter)
SETS = [frozenset(some) for size in range(len(VOTERS) + 1) for some in itertools.combinations(VOTERS, size)]
ME = ServiceInstance("chat", address="10.0.0.7", port=7000, payload={"load": 0})


def test_every_voter_has_a_status_of_those_that_a_document_may_say() -> None:
    assert set(STATUS_OF) == set(VOTERS)
    assert set(STATUS_OF.values()) == set(STATUSES)


@pytest.mark.parametrize("against", SETS, ids=lambda against: "+".join(sorted(against)) or "nobody")
def test_which_status_wins(against: frozenset[Voter]) -> None:
    if "maintenance" in against:
        assert status_of(against) == "maintenance"
    elif against & {"draining", "owner"}:
        assert status_of(against) == "draining"
    elif "health" in against:
        assert status_of(against) == "failing"
    else:
        assert status_of(against) is None


def registration(session: FakeSession, instance: ServiceInstance[Any] = ME) -> Registration[Any]:
    return Registration(session.as_session, instance, base_path="/services")


def published(session: FakeSession, registered: Registration[Any]) -> ServiceInstance[Any]:
    return decode(session.tree.nodes[registered.path].data)


@pytest.fixture
async def session() -> FakeSession:
    session = FakeSession(ModelTree())
    session.connect()
    return session


async def say(registered: Registration[Any], voter: Voter, *, up: bool) -> None:
    if voter == "owner":
        await registered.update(enabled=up)
    else:
        vote(registered, voter, up=up)
        await quiet()


@pytest.mark.parametrize("order", list(itertools.permutations(VOTERS)), ids="-".join)
async def test_it_is_enabled_only_if_everybody_agrees(session: FakeSession, order: tuple[Voter, ...]) -> None:
    against: set[Voter] = set()
    async with registration(session) as registered:
        for up in (False, True):
            for voter in order:
                against = against - {voter} if up else against | {voter}
                await say(registered, voter, up=up)
                now = published(session, registered)
                assert (now.enabled, now.status) == (not against, status_of(against))
                assert (registered.instance.enabled, registered.instance.status) == (now.enabled, now.status)
        assert published(session, registered) == ME


async def test_an_update_of_the_payload_changes_nothing_of_that(session: FakeSession) -> None:
    async with registration(session) as registered:
        await say(registered, "health", up=False)
        await registered.update(payload={"load": 1})
        now = published(session, registered)
        assert (now.payload, now.enabled, now.status) == ({"load": 1}, False, "failing")


async def test_what_is_said_before_it_is_listed_is_in_its_first_document(session: FakeSession) -> None:
    registered = registration(session)
    vote(registered, "health", up=False)
    async with registered:
        node = session.tree.nodes[registered.path]
        assert (decode(node.data).status, node.version) == ("failing", 0)


async def test_an_instance_that_was_given_as_disabled_is_its_owners_to_enable(session: FakeSession) -> None:
    async with registration(session, ME.replace(enabled=False, status="failing")) as registered:
        assert published(session, registered).status == "draining"  # whatever was given
        await registered.update(enabled=True)
        assert published(session, registered).enabled


async def test_a_vote_that_changes_nothing_writes_nothing(session: FakeSession) -> None:
    async with registration(session) as registered:
        for up in (True, False, False):
            await say(registered, "health", up=up)
        assert session.tree.nodes[registered.path].version == 1


async def test_a_vote_while_disconnected_is_published_later(session: FakeSession) -> None:
    async with registration(session) as registered:
        session.disconnect()
        vote(registered, "maintenance", up=False)
        assert published(session, registered).enabled
        session.connect()
        await registered.wait_live(5)
        await quiet()
        assert published(session, registered).status == "maintenance"
        session.expire()
        session.connect()
        await registered.wait_live(5)
        assert published(session, registered).status == "maintenance"


async def test_draining_is_for_good(session: FakeSession) -> None:
    async with registration(session) as registered:
        await registered.drain()
        await registered.update(enabled=True, payload={"load": 2})
        now = published(session, registered)
        assert (now.payload, now.enabled, now.status) == ({"load": 2}, False, "draining")
    with pytest.raises(HandleClosed):
        await registered.drain()
    vote(registered, "health", up=False)  # nobody is there to hear of it
    assert registered.instance.status == "draining"


async def test_what_changed_is_told(session: FakeSession) -> None:
    async with registration(session) as registered:
        for voter, up in (("health", False), ("maintenance", False), ("health", True), ("maintenance", True)):
            vote(registered, voter, up=up)  # type: ignore[arg-type]
        told = [fields for name, fields in session.emitted if name == "registration.enabled"]
        assert [(each["enabled"], each["status"]) for each in told] == [
            (False, "failing"),
            (False, "maintenance"),
            (True, None),
        ]


async def test_an_unknown_voter_is_refused(session: FakeSession) -> None:
    async with registration(session) as registered:
        with pytest.raises(InvalidArgument, match="voter"):
            vote(registered, "weather", up=False)  # type: ignore[arg-type]


async def test_room_is_kept_for_what_others_may_have_to_say(session: FakeSession) -> None:
    """A document that just fits must still fit when its instance fails."""
    session.max_request = 1000
    size = 0
    while True:
        try:
            fitting = registration(session, ME.replace(payload="x" * (size + 1)))
        except RequestTooLarge:
            break
        await fitting.aclose()
        size += 1
    async with registration(session, ME.replace(payload="x" * size)) as registered:
        await say(registered, "maintenance", up=False)
        session.expire(at_server=False)  # what is sent next has the document twice
        session.connect()
        await registered.wait_live(5)
        assert published(session, registered).status == "maintenance"
