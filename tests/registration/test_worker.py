"""The worker, through its handle, on a session in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioregistry._document import decode
from aioregistry._errors import (
    ChrootMissing,
    InvalidACL,
    NoAuth,
    NodeNotEphemeral,
    NoNode,
    QuotaExceeded,
    RegistrationConflict,
    RegistrationDisplaced,
    RegistrationError,
    ServerError,
    ServerSessionExpired,
    SessionClosed,
    SessionFailed,
    SystemFault,
    Throttled,
    Unimplemented,
)
from aioregistry._model import ServiceInstance
from aioregistry._protocol import Create, Create2, CreateContainer, Delete, GetData, Message, Multi, SetData, Sync
from aioregistry._registration import Registration, Status, Withdrawals, pauses, worker
from aioregistry._session.backoff import LONGEST_THROTTLED
from tests.support.checkers import check_owned, check_published, check_single, check_withdrawn
from tests.support.fake_session import FakeRuntime, FakeSession, Fate, RandomRuntime, quiet, until
from tests.support.model_tree import CONTAINER_OWNER, ModelTree
from tests.support.waiting import DEADLINE

BASE = "/services"
PATH = "/services/chat/10.0.0.7:7000"
CHAT = ServiceInstance("chat", address="10.0.0.7", port=7000, payload={"load": 0})

DELETED = f"{PATH} was deleted by somebody else; session {{}} lasts, so it is listed again as soon as possible"


def registration(session: FakeSession, instance: ServiceInstance[Any] = CHAT, **options: Any) -> Registration[Any]:
    return Registration(session.as_session, instance, base_path=BASE, **options)


async def opened(registration: Registration[Any]) -> Registration[Any]:
    return await registration


def connected(tree: ModelTree) -> FakeSession:
    session = FakeSession(tree)
    session.connect()
    return session


@pytest.fixture
def tree() -> ModelTree:
    tree = ModelTree()
    tree.make("/services/chat")
    return tree


@pytest.fixture
async def session(tree: ModelTree) -> FakeSession:
    return connected(tree)


@pytest.fixture
async def registered(session: FakeSession) -> AsyncIterator[Registration[Any]]:
    async with registration(session) as registered:
        yield registered


def owner(tree: ModelTree) -> int | None:
    node = tree.node(PATH)
    return None if node is None else node.owner


def listed(tree: ModelTree) -> bytes | None:
    node = tree.node(PATH)
    return None if node is None else node.data


def payload(tree: ModelTree) -> Any:
    data = listed(tree)
    return None if data is None else decode(data).payload


def check_listed(tree: ModelTree, session: FakeSession, registered: Registration[Any]) -> None:
    check_owned(live=registered.status is Status.LIVE, session_id=session.id, owner=owner(tree))
    assert registered.status is Status.LIVE
    assert decode(listed(tree) or b"") == registered.instance


def kinds(messages: list[Message[Any]]) -> list[str]:
    return [type(message).__name__ for message in messages]


def delete_if_there(tree: ModelTree) -> None:
    if tree.node(PATH) is not None:
        tree.delete(PATH)


def leave_a_ghost(tree: ModelTree, *, version: int = 0) -> int:
    ghost = tree.open_session()
    tree.apply(ghost, Create2(PATH, b"ghost", (), 1))
    for _ in range(version):
        tree.apply(ghost, SetData(PATH, b"ghost"))
    return ghost


# ---------------------------------------------------------------- listed


async def test_listed_when_entered_and_gone_when_left(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session) as registered:
        check_listed(tree, session, registered)
        assert registered.owner == session.id
    check_withdrawn(withdrawn=registered.withdrawn, sessions=[session.id], owner=owner(tree))
    assert registered.withdrawn
    assert registered.status is Status.CLOSED


async def test_listing_takes_two_round_trips(session: FakeSession) -> None:
    async with registration(session):
        assert kinds(session.served) == ["Exists", "Sync", "GetData", "Create", "Create2", "GetData"]
        assert session.round_trips == 2


async def test_parents_are_made_as_containers() -> None:
    tree = ModelTree()
    session = connected(tree)
    async with registration(session):
        assert [tree.nodes[path].owner for path in ("/services", "/services/chat")] == [CONTAINER_OWNER] * 2


@pytest.mark.parametrize("asked", [True, False])
async def test_parents_are_plain_where_the_server_has_no_containers(asked: bool) -> None:
    tree = ModelTree()
    session = connected(tree)
    if asked:
        session.known[CreateContainer.opcode] = False
    session.fate = lambda message: Unimplemented() if isinstance(message, CreateContainer) else None
    async with registration(session):
        assert [tree.nodes[path].owner for path in ("/services", "/services/chat")] == [0, 0]
        assert ("CreateContainer" in kinds(session.served)) is not asked


async def test_a_server_that_closes_on_a_container_is_asked_for_plain_parents() -> None:
    tree = ModelTree()
    session = connected(tree)

    def fate(message: Message[Any]) -> Fate | None:
        if isinstance(message, CreateContainer):
            session.known[CreateContainer.opcode] = False
            return Fate.REQUEST_LOST
        return None

    session.fate = fate
    async with asyncio.timeout(DEADLINE):
        entering = asyncio.ensure_future(opened(registration(session)))
        await until(lambda: not session.connected)
        session.connect()
        registered = await entering
    check_listed(tree, session, registered)
    await registered.aclose()


async def test_parents_that_are_reaped_again_and_again(tree: ModelTree, session: FakeSession) -> None:
    tree.delete("/services/chat")
    reaped = 0

    def reap(message: Message[Any]) -> None:
        nonlocal reaped
        if isinstance(message, Create2) and message.path == PATH and tree.node("/services/chat") and reaped < 10:
            tree.delete("/services/chat")
            reaped += 1

    session.fate = reap
    async with registration(session) as registered:
        check_listed(tree, session, registered)
    assert reaped == 10


async def test_what_one_may_not_create_above_does_not_matter_when_it_is_there(session: FakeSession) -> None:
    session.tree.delete("/services/chat")
    session.fate = lambda message: NoAuth("/services") if message.path == "/services" else None
    async with registration(session) as registered:
        check_listed(session.tree, session, registered)


async def test_a_parent_that_cannot_be_made(session: FakeSession) -> None:
    session.tree.delete("/services/chat")
    session.fate = lambda message: NoAuth("/services/chat") if isinstance(message, CreateContainer) else None
    with pytest.raises(RegistrationError, match="not authorised") as caught:
        _ = await opened(registration(session))
    assert isinstance(caught.value.__cause__, NoAuth)


async def test_a_chroot_that_is_not_to_be_made() -> None:
    session = connected(ModelTree())
    with pytest.raises(ChrootMissing, match="/prod/eu"):
        _ = await Registration(session.as_session, CHAT, base_path="/prod/eu/services", chroot="/prod/eu")
    assert session.tree.children("/") == []
    session.tree.make("/prod/eu")
    async with Registration(session.as_session, CHAT, base_path="/prod/eu/services", chroot="/prod/eu") as registered:
        await registered.wait_live(5)
        session.expire()
        session.tree.nodes = ModelTree().nodes  # wiped: it was there once, and may come again
        session.connect()
        await quiet()
        assert registered.status is Status.REGISTERING
        session.tree.make("/prod/eu")
        await registered.wait_live(5)
        await registered.aclose()
    assert registered.withdrawn


# ---------------------------------------------------------------- disruptions


@pytest.mark.usefixtures("registered")
async def test_after_an_expiry_listed_in_one_round_trip(tree: ModelTree, session: FakeSession) -> None:
    session.expire()
    before = session.round_trips
    session.connect()
    await until(lambda: owner(tree) == session.id)
    check_published(listed=listed(tree), wanted=[listed(tree) or b""], round_trips=session.round_trips - before)
    assert session.round_trips - before == 1


async def test_after_an_expiry_the_old_node_may_still_be_there(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    old = session.id
    session.expire(at_server=False)
    session.connect()
    await registered.wait_live(5)
    check_listed(tree, session, registered)
    tree.end_session(old)
    await quiet()
    check_listed(tree, session, registered)


async def test_after_a_reconnect_nothing_is_written(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    before = tree.node(PATH)
    session.served.clear()
    session.reconnect()
    assert registered.status is Status.UNCERTAIN
    await registered.wait_live(5)
    assert kinds(session.served) == ["Sync", "GetData"]
    assert tree.node(PATH) == before


async def test_deleted_by_hand(
    tree: ModelTree, session: FakeSession, registered: Registration[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aioregistry.registration")
    tree.delete(PATH)
    await until(lambda: registered.status is not Status.LIVE)
    assert registered.owner is None
    await registered.wait_live(5)
    check_listed(tree, session, registered)
    assert caplog.messages == [DELETED.format(f"{session.id:#x}")]


@pytest.mark.parametrize("heard", [False, True])
async def test_deleted_by_hand_while_there_is_no_connection(
    tree: ModelTree, session: FakeSession, registered: Registration[Any], caplog: pytest.LogCaptureFixture, heard: bool
) -> None:
    caplog.set_level(logging.WARNING, "aioregistry.registration")
    if not heard:
        session.forget_watches()
    session.disconnect()
    tree.delete(PATH)
    session.connect()
    await registered.wait_live(5)
    assert caplog.messages == [DELETED.format(f"{session.id:#x}")]


@pytest.mark.parametrize("way", ["withdrawn", "expired", "expired, and seen later", "lost history", "never listed"])
async def test_what_goes_for_another_reason_was_not_deleted_by_hand(
    tree: ModelTree, session: FakeSession, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    caplog.set_level(logging.WARNING, "aioregistry.registration")
    if way == "never listed":
        tree.delete("/services/chat")
    async with registration(session) as registered:
        if way.startswith("expired"):
            session.expire(at_server=way == "expired")
            session.connect()
        elif way == "lost history":
            session.roll_back()
            tree.nodes.pop(PATH)
            session.connect()
        await registered.wait_live(5)
    assert registered.withdrawn
    assert [line for line in caplog.messages if "deleted" in line] == []


async def test_a_deletion_is_known_before_anybody_looked(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    session.fate = lambda message: Fate.UNANSWERED
    tree.delete(PATH)
    await quiet()
    assert registered.status is Status.REGISTERING
    session.fate = lambda message: None
    session.reconnect()
    await registered.wait_live(5)


async def test_overwritten_by_hand(tree: ModelTree, session: FakeSession, registered: Registration[Any]) -> None:
    tree.set_data(PATH, b"by hand")
    await until(lambda: listed(tree) != b"by hand")
    await quiet()
    check_listed(tree, session, registered)


async def test_deleted_and_made_by_hand(tree: ModelTree, registered: Registration[Any]) -> None:
    tree.delete(PATH)
    tree.apply(0, Create(PATH, b"precious"))
    cause = await registered.wait_closed()
    assert isinstance(cause, NodeNotEphemeral)
    assert PATH in str(cause)
    assert registered.status is Status.FAILED
    assert listed(tree) == b"precious"


async def test_a_node_that_is_missed_when_looking_is_not_claimed_to_be_live(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    """Its deletion was not heard of, and it cannot be put back."""
    session.forget_watches()
    session.fate = lambda message: NoAuth(PATH) if isinstance(message, Create2) else None
    tree.delete(PATH)
    session.reconnect()
    await quiet()
    assert registered.status is Status.REGISTERING
    session.fate = lambda message: None
    await registered.wait_live(5)


async def test_an_event_that_was_lost_is_made_up_for_now_and_then(
    tree: ModelTree, session: FakeSession, registered: Registration[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PERIOD", 0.02)
    await registered.update(payload={})  # from here on it rests for the short period
    session.forget_watches()
    tree.delete(PATH)
    await until(lambda: owner(tree) == session.id)


async def test_an_event_behind_the_reply_in_the_same_batch_is_newer(tree: ModelTree, session: FakeSession) -> None:
    def delete_behind(message: Message[Any]) -> None:
        if isinstance(message, Sync):
            asyncio.get_running_loop().call_soon(lambda: delete_if_there(tree))

    async with registration(session) as registered:
        session.fate = delete_behind
        session.reconnect()
        await until(lambda: session.round_trips >= 4)
        session.fate = lambda message: None
        await registered.wait_live(5)
        check_listed(tree, session, registered)


async def test_a_rollback_forgets_claim_and_sessions(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session, on_displaced="stop") as registered:
        session.roll_back()
        tree.zxid = 0x10  # another history: what was created here is older than every claim of the other one
        tree.nodes.clear()
        tree.nodes["/"] = ModelTree().nodes["/"]
        tree.make("/services/chat")
        ghost = leave_a_ghost(tree)
        session.connect()
        await registered.wait_live(5)
        check_listed(tree, session, registered)
        newer = tree.open_session()
        assert owner(tree) != ghost
        tree.delete(PATH)
        tree.apply(newer, Create2(PATH, b"newer", (), 1))
        assert isinstance(await registered.wait_closed(), RegistrationDisplaced)


async def test_closing_withdraws_what_a_rollback_brought_back(tree: ModelTree, session: FakeSession) -> None:
    """The node is of a session that was forgotten with the history, and that the registration wrote it with."""
    async with registration(session) as registered:
        brought_back = owner(tree)
        session.roll_back()
        closing = asyncio.ensure_future(registered.aclose())
        session.connect()
        await closing
        assert brought_back in tree.sessions
        assert owner(tree) is None
        assert registered.withdrawn is True


async def test_a_read_only_server_is_left_alone(tree: ModelTree) -> None:
    session = FakeSession(tree)
    session.connect(read_only=True)
    entering = asyncio.ensure_future(opened(registration(session)))
    await quiet()
    assert session.served == []
    session.disconnect()
    session.connect()
    registered = await entering
    check_listed(tree, session, registered)
    await registered.aclose()


# ---------------------------------------------------------------- ghosts and rivals


@pytest.mark.parametrize("version", [0, 1, 5])
async def test_a_ghost_is_taken_over_without_a_gap(tree: ModelTree, session: FakeSession, version: int) -> None:
    ghost = leave_a_ghost(tree, version=version)
    gaps: list[bool] = []
    tree.on_change.append(lambda _: gaps.append(tree.node(PATH) is None))
    async with registration(session) as registered:
        check_listed(tree, session, registered)
        tree.end_session(ghost)
        await quiet()
        check_listed(tree, session, registered)
        assert not any(gaps)


async def test_two_live_processes_change_the_owner_once(tree: ModelTree) -> None:
    sessions = [connected(tree), connected(tree)]
    names = {session.id: f"process {number}" for number, session in enumerate(sessions)}
    owners: list[str | None] = []
    tree.on_change.append(lambda change: owners.append(names.get(owner(tree) or 0)))
    async with registration(sessions[0], on_displaced="stop") as first, registration(sessions[1]) as second:
        cause = await first.wait_closed()
        await quiet()
        assert isinstance(cause, RegistrationDisplaced)
        assert cause.owner == sessions[1].id
        assert (first.status, second.status) == (Status.DISPLACED, Status.LIVE)
        check_single([name for name in owners if name], {"process 0": 1, "process 1": 1}, {"process 0"})
    assert first.withdrawn


async def test_two_that_see_the_same_ghost_at_the_same_moment(tree: ModelTree) -> None:
    leave_a_ghost(tree)
    sessions = [connected(tree), connected(tree)]
    contenders = [asyncio.ensure_future(opened(registration(session, on_displaced="stop"))) for session in sessions]
    await asyncio.wait(contenders)
    winners = [contender.result() for contender in contenders if contender.exception() is None]
    losers = [contender.exception() for contender in contenders if contender.exception() is not None]
    assert [winner.status for winner in winners] == [Status.LIVE]
    assert [type(loser) for loser in losers] == [RegistrationDisplaced]
    await winners[0].aclose()


async def test_the_displaced_does_not_raise_when_left(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session, on_displaced="stop") as first, registration(connected(tree)) as second:
        await first.wait_closed()
        with pytest.raises(RegistrationDisplaced):
            await first.update(payload={})
        with pytest.raises(RegistrationDisplaced):
            await first.wait_live(5)
    assert second.status is Status.CLOSED
    assert first.status is Status.DISPLACED
    with pytest.raises(RegistrationDisplaced):
        await first.update(payload={})


async def test_standby_claims_anew_when_the_id_is_free(tree: ModelTree, session: FakeSession) -> None:
    other = connected(tree)
    async with registration(session) as first:  # which is what is done unless it is told otherwise
        async with registration(other):
            await until(lambda: first.status is Status.DISPLACED)
            with pytest.raises(RegistrationDisplaced):
                await first.update(payload={"load": 7})
            await quiet()
            assert owner(tree) == other.id
        await first.wait_live(5)
        check_listed(tree, session, first)
        assert payload(tree) == {"load": 7}
        session.expire()  # what was claimed anew is kept as any other
        session.connect()
        await first.wait_live(5)


async def test_standby_can_be_displaced_again(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session, on_displaced="standby") as first:
        for _ in range(3):
            async with registration(connected(tree)):
                await until(lambda: first.status is Status.DISPLACED)
            await first.wait_live(5)
    assert owner(tree) is None


async def test_closing_in_standby_touches_nothing(tree: ModelTree, session: FakeSession) -> None:
    other = connected(tree)
    async with registration(session, on_displaced="standby") as first, registration(other) as second:
        await until(lambda: first.status is Status.DISPLACED)
        await first.aclose()
        assert first.withdrawn
        assert first.status is Status.CLOSED
        check_listed(tree, other, second)


async def test_standby_stands_by_through_a_rollback(tree: ModelTree, session: FakeSession) -> None:
    """The claim is forgotten with the history, and the other's node is older than any new one: it is no ghost."""
    other = connected(tree)
    async with registration(session, on_displaced="standby") as first, registration(other) as second:
        await until(lambda: first.status is Status.DISPLACED)
        session.roll_back()
        session.connect()
        await quiet()
        assert first.status is Status.DISPLACED
        check_listed(tree, other, second)


async def test_an_update_under_way_hears_of_the_displacement(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session, on_displaced="standby") as first:
        session.disconnect()
        updating = asyncio.ensure_future(first.update(payload={"load": 3}))
        async with registration(connected(tree)):
            session.connect()
            with pytest.raises(RegistrationDisplaced):
                await updating
        await first.wait_live(5)
        assert payload(tree) == {"load": 3}


@pytest.mark.parametrize("version", [0, 3])
async def test_wait_takes_its_turn_when_the_other_session_ends(
    tree: ModelTree, session: FakeSession, version: int
) -> None:
    ghost = leave_a_ghost(tree, version=version)
    entering = asyncio.ensure_future(opened(registration(session, on_conflict="wait")))
    await quiet()
    assert not entering.done()
    assert owner(tree) == ghost
    tree.end_session(ghost)
    registered = await entering
    check_listed(tree, session, registered)
    await registered.aclose()


async def test_those_who_wait_take_turns(tree: ModelTree) -> None:
    ghost = leave_a_ghost(tree)
    sessions = [connected(tree) for _ in range(3)]
    entering = {asyncio.ensure_future(opened(registration(each, on_conflict="wait"))) for each in sessions}
    await quiet()
    tree.end_session(ghost)
    for _ in range(3):
        done, entering = await asyncio.wait(entering, return_when=asyncio.FIRST_COMPLETED)
        (entered,) = done
        await quiet()
        assert entered.result().status is Status.LIVE
        await entered.result().aclose()


async def test_fail_does_not_touch_what_another_session_holds(tree: ModelTree, session: FakeSession) -> None:
    ghost = leave_a_ghost(tree)
    with pytest.raises(RegistrationConflict) as caught:
        _ = await opened(registration(session, on_conflict="fail"))
    assert caught.value.owner == ghost
    assert owner(tree) == ghost


async def test_two_that_would_fail_at_the_same_moment(tree: ModelTree) -> None:
    entering = [asyncio.ensure_future(opened(registration(connected(tree), on_conflict="fail"))) for _ in range(2)]
    await asyncio.wait(entering)
    assert sorted(type(each.exception()).__name__ for each in entering) == ["NoneType", "RegistrationConflict"]
    for each in entering:
        if each.exception() is None:
            await each.result().aclose()


async def test_fail_is_about_the_beginning(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session, on_conflict="fail") as registered:
        session.expire(at_server=False)  # its own ghost is in the way
        session.connect()
        await registered.wait_live(5)


async def test_a_persistent_node_in_the_way(tree: ModelTree, session: FakeSession) -> None:
    tree.make(PATH, b"precious")
    with pytest.raises(NodeNotEphemeral, match=PATH):
        _ = await opened(registration(session))
    assert listed(tree) == b"precious"


# ---------------------------------------------------------------- lost replies


def losing(session: FakeSession, kind: type[Message[Any]], fate: Fate) -> list[Message[Any]]:
    """Let *fate* strike the first request of *kind*; returns where it is written down."""
    struck: list[Message[Any]] = []

    def decide(message: Message[Any]) -> Fate | None:
        if isinstance(message, kind) and not struck:
            struck.append(message)
            return fate
        return None

    session.fate = decide
    return struck


FATES = [Fate.REQUEST_LOST, Fate.REPLY_LOST]


def check_told_if_executed(session: FakeSession, struck: list[Message[Any]], fate: Fate, *, expires: bool) -> None:
    """The session is told of what was done though its answer was lost, and of nothing else."""
    done = struck[0].writes and fate is Fate.REPLY_LOST and not expires
    assert session.found_executed == (struck if done else [])


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("kind", [Sync, GetData, Create2])
async def test_listing_survives_a_loss(
    tree: ModelTree, session: FakeSession, kind: type[Message[Any]], fate: Fate
) -> None:
    struck = losing(session, kind, fate)
    entering = asyncio.ensure_future(opened(registration(session)))
    await until(lambda: struck)
    session.connect()
    registered = await entering
    check_listed(tree, session, registered)
    check_told_if_executed(session, struck, fate, expires=False)
    await registered.aclose()


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("expires", [False, True])
async def test_a_takeover_survives_a_loss(tree: ModelTree, session: FakeSession, fate: Fate, expires: bool) -> None:
    leave_a_ghost(tree)
    struck = losing(session, Multi, fate)
    entering = asyncio.ensure_future(opened(registration(session)))
    await until(lambda: struck)
    if expires:
        session.expire()
    session.connect()
    registered = await entering
    check_listed(tree, session, registered)
    check_told_if_executed(session, struck, fate, expires=expires)
    await registered.aclose()


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("expires", [False, True])
async def test_an_update_survives_a_loss(
    tree: ModelTree, session: FakeSession, registered: Registration[Any], fate: Fate, expires: bool
) -> None:
    struck = losing(session, SetData, fate)
    updating = asyncio.ensure_future(registered.update(payload={"load": 9}))
    await until(lambda: struck)
    if expires:
        session.expire()
    session.connect()
    await updating
    assert payload(tree) == {"load": 9}
    check_listed(tree, session, registered)
    check_told_if_executed(session, struck, fate, expires=expires)


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("expires", [False, True])
async def test_a_withdrawal_survives_a_loss(
    tree: ModelTree, session: FakeSession, registered: Registration[Any], fate: Fate, expires: bool
) -> None:
    struck = losing(session, Multi, fate)
    closing = asyncio.ensure_future(registered.aclose())
    await until(lambda: struck)
    if expires:
        session.expire()
    session.connect()
    await closing
    check_withdrawn(withdrawn=registered.withdrawn, sessions=[*session.earlier_ids, session.id], owner=owner(tree))
    assert registered.withdrawn
    check_told_if_executed(session, struck, fate, expires=expires)


@pytest.mark.parametrize("fate", FATES)
async def test_making_the_parents_survives_a_loss(session: FakeSession, fate: Fate) -> None:
    session.tree.delete("/services/chat")
    struck = losing(session, CreateContainer, fate)
    entering = asyncio.ensure_future(opened(registration(session)))
    await until(lambda: struck)
    session.connect()
    registered = await entering
    check_listed(session.tree, session, registered)
    check_told_if_executed(session, struck, fate, expires=False)
    await registered.aclose()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("error", [Throttled, SystemFault, ServerSessionExpired])
@pytest.mark.parametrize("kind", [Sync, GetData, Create2])
async def test_the_servers_troubles_are_waited_out(
    tree: ModelTree, session: FakeSession, kind: type[Message[Any]], error: type[ServerError]
) -> None:
    left = 5

    def trouble(message: Message[Any]) -> ServerError | None:
        nonlocal left
        if isinstance(message, kind) and left:
            left -= 1
            return error(PATH)
        return None

    session.fate = trouble
    async with registration(session) as registered:
        check_listed(tree, session, registered)
    assert left == 0


async def test_what_is_read_without_the_quorum_is_not_trusted(tree: ModelTree, session: FakeSession) -> None:
    """A follower that lags behind a leader that is overloaded: its zxid must not become the claim."""
    stale = tree.zxid - 0x100
    throttled = True

    def lag(message: Message[Any]) -> ServerError | None:
        nonlocal throttled
        if isinstance(message, Sync) and throttled:
            return Throttled(PATH)
        if isinstance(message, GetData) and throttled:
            throttled = False
            return NoNode(PATH, stale)
        return None

    session.fate = lag
    ghost = leave_a_ghost(tree)
    async with registration(session) as registered:
        check_listed(tree, session, registered)
        assert owner(tree) != ghost


async def test_absence_is_not_believed_without_the_quorum(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    refused = 0

    def lag(message: Message[Any]) -> ServerError | None:
        nonlocal refused
        if isinstance(message, SetData) and not refused:
            refused += 1
            return Throttled(PATH)
        if isinstance(message, GetData) and refused == 1:
            refused += 1
            return NoNode(PATH, tree.zxid)
        return None

    session.fate = lag
    session.served.clear()
    await registered.update(payload={"load": 2})
    assert "Create2" not in kinds(session.served)
    check_listed(tree, session, registered)


async def test_pauses_begin_anew_after_a_success(
    session: FakeSession, registered: Registration[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []

    def draw(low: float, high: float) -> float:
        drawn.append(high)
        return low

    monkeypatch.setattr(session.runtime, "uniform", draw)
    for load in range(3):
        session.fate = lambda message: Throttled(PATH) if not drawn else None
        await registered.update(payload={"load": load + 1})
        assert drawn[0] == 2 * pauses.FIRST_PAUSE
        drawn.clear()
    session.fate = lambda message: None


async def test_pauses_grow_and_are_bounded(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def draw(low: float, high: float) -> float:
        drawn.append(high)
        return 0.0

    monkeypatch.setattr(session.runtime, "uniform", draw)
    session.fate = lambda message: Throttled(PATH)
    entering = asyncio.ensure_future(opened(registration(session)))
    await until(lambda: len(drawn) > 20)
    session.fate = lambda message: None
    await (await entering).aclose()
    assert drawn[:3] == [0.1, 0.2, 0.4]
    assert drawn[19] == pauses.LONGEST_PAUSE


async def test_a_server_that_is_overloaded_for_a_moment_is_asked_again_soon(
    tree: ModelTree, session: FakeSession, registered: Registration[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []

    def draw(low: float, high: float) -> float:
        drawn.append(high)
        return 0.0

    monkeypatch.setattr(session.runtime, "uniform", draw)
    session.fate = lambda message: Throttled(PATH) if len(drawn) < pauses.SOON else None
    await registered.aclose()
    assert registered.withdrawn
    assert tree.nodes.get(PATH) is None
    assert max(drawn[: pauses.SOON]) <= LONGEST_THROTTLED


@pytest.mark.parametrize("error", [NoAuth, InvalidACL, QuotaExceeded])
async def test_a_refusal_ends_what_was_never_listed(
    tree: ModelTree, session: FakeSession, error: type[ServerError]
) -> None:
    refusals = [error(PATH)]
    session.fate = lambda message: refusals.pop() if isinstance(message, Create2) and refusals else None
    refused = registration(session)
    with pytest.raises(RegistrationError, match=error.meaning) as caught:
        _ = await opened(refused)
    assert isinstance(caught.value.__cause__, error)
    assert refused.status is Status.FAILED
    assert await refused.wait_closed() is caught.value
    assert owner(tree) is None


async def test_a_refused_update_is_told_and_tried_again(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    session.fate = lambda message: QuotaExceeded(PATH) if isinstance(message, SetData) else None
    with pytest.raises(RegistrationError, match="quota"):
        await registered.update(payload={"load": 1})
    assert registered.status is Status.LIVE
    session.fate = lambda message: None
    await until(lambda: payload(tree) == {"load": 1})


async def test_a_refusal_after_an_expiry_is_tried_again(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    session.fate = lambda message: NoAuth(PATH) if isinstance(message, Create2) else None
    session.expire()
    session.connect()
    await quiet()
    assert registered.status is Status.REGISTERING
    session.fate = lambda message: None
    await registered.wait_live(5)


async def test_a_long_refusal_is_followed_by_one_pause_only(
    tree: ModelTree, session: FakeSession, registered: Registration[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the service has gone meanwhile, and has to be made first."""
    pauses = 0

    def draw(low: float, high: float) -> float:
        nonlocal pauses
        pauses += 1
        return 0.0

    monkeypatch.setattr(session.runtime, "uniform", draw)
    session.fate = lambda message: NoAuth(PATH) if isinstance(message, Create2) else None
    session.expire()
    session.connect()
    await until(lambda: pauses > 20)
    tree.apply(tree.open_session(), Delete("/services/chat"))
    refused = pauses
    session.fate = lambda message: None
    await registered.wait_live(5)
    assert pauses <= refused + 1


async def test_a_lost_race_is_run_again_without_spinning(tree: ModelTree, session: FakeSession) -> None:
    """Somebody is always quicker: the first attempts go at once, the later ones pause."""
    rival = tree.open_session()
    drawn: list[float] = []

    def draw(low: float, high: float) -> float:
        drawn.append(high)
        return low

    session.runtime.uniform = draw  # type: ignore[method-assign]

    def be_quicker(message: Message[Any]) -> None:
        if isinstance(message, Multi) and len(drawn) < 3:
            tree.apply(rival, SetData(PATH, b"x"))

    leave_a_ghost(tree)
    session.fate = be_quicker
    async with registration(session) as registered:
        check_listed(tree, session, registered)
    assert len([message for message in session.served if isinstance(message, Multi)]) >= pauses.FREE_ATTEMPTS + 3


async def test_a_closed_session_ends_it(session: FakeSession, registered: Registration[Any]) -> None:
    session.close()
    assert await registered.wait_closed() is None
    assert registered.status is Status.CLOSED
    with pytest.raises(SessionClosed):
        await registered.update(payload={})


async def test_a_failed_session_fails_it(session: FakeSession, registered: Registration[Any]) -> None:
    failure = SessionFailed("wrong credentials")
    session.fail(failure)
    assert await registered.wait_closed() is failure
    assert registered.status is Status.FAILED
    with pytest.raises(SessionFailed):
        await registered.update(payload={})


async def test_a_session_that_fails_while_entering(tree: ModelTree) -> None:
    session = FakeSession(tree)
    entering = asyncio.ensure_future(opened(registration(session)))
    await quiet()
    session.fail(SessionFailed("wrong credentials"))
    with pytest.raises(SessionFailed):
        _ = await entering


async def test_a_defect_reaches_the_handle(
    session: FakeSession, registered: Registration[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(worker, "plan", defect)
    with pytest.raises(RegistrationError, match="defect"):
        await registered.update(payload={})
    cause = await registered.wait_closed()
    assert cause is not None
    assert isinstance(cause.__cause__, ZeroDivisionError)


# ---------------------------------------------------------------- updates


async def test_an_update_takes_one_round_trip(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    before = session.round_trips
    await registered.update(payload={"load": 1})
    assert session.round_trips - before == 1
    assert payload(tree) == {"load": 1}
    check_listed(tree, session, registered)


async def test_updates_are_coalesced(tree: ModelTree, session: FakeSession, registered: Registration[Any]) -> None:
    session.served.clear()
    updates = [asyncio.ensure_future(registered.update(payload={"load": load})) for load in range(100)]
    await asyncio.gather(*updates)
    assert payload(tree) == {"load": 99}
    assert kinds(session.served).count("SetData") <= 2


async def test_updates_that_never_end_keep_nobody_waiting(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    later: list[asyncio.Task[None]] = []

    def update_again(message: Message[Any]) -> None:
        if isinstance(message, SetData) and len(later) < 50:
            later.append(asyncio.ensure_future(registered.update(payload={"load": len(later) + 2})))

    session.fate = update_again
    await registered.update(payload={"load": 1})
    assert len(later) < 10
    assert registered.status is Status.LIVE
    await until(lambda: len(later) == 50)
    await asyncio.gather(*later)
    assert payload(tree) == {"load": 51}


async def test_draining(tree: ModelTree, registered: Registration[Any]) -> None:
    await registered.update(enabled=False)
    instance = decode(listed(tree) or b"")
    assert not instance.enabled
    assert instance.payload == {"load": 0}
    await registered.update(enabled=True)
    assert decode(listed(tree) or b"").enabled


async def test_an_update_while_disconnected_waits(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    session.disconnect()
    updating = asyncio.ensure_future(registered.update(payload={"load": 1}))
    await quiet()
    assert not updating.done()
    session.connect()
    await updating
    assert payload(tree) == {"load": 1}


async def test_a_cancelled_update_is_still_intended(
    tree: ModelTree, session: FakeSession, registered: Registration[Any]
) -> None:
    session.disconnect()
    updating = asyncio.ensure_future(registered.update(payload={"load": 1}))
    await quiet()
    updating.cancel()
    await asyncio.wait([updating])
    session.connect()
    await until(lambda: payload(tree) == {"load": 1})


async def test_cancelled_updates_leave_nothing_behind(session: FakeSession, registered: Registration[Any]) -> None:
    session.disconnect()
    for load in range(10):
        updating = asyncio.ensure_future(registered.update(payload={"load": load}))
        await quiet()
        updating.cancel()
        await asyncio.wait([updating])
    assert registered._worker is not None
    assert registered._worker._revisions._waiters == []
    session.connect()


async def test_an_update_that_changes_nothing_writes_nothing(
    session: FakeSession, registered: Registration[Any]
) -> None:
    session.served.clear()
    await registered.update(payload={"load": 0})
    assert session.served == []


async def test_an_update_of_what_a_successor_has_taken(tree: ModelTree, session: FakeSession) -> None:
    """Its watch has not fired yet: the version fences what is planned from the last sight."""
    async with registration(session) as first:
        session.forget_watches()
        async with registration(connected(tree)) as second:
            with pytest.raises(RegistrationDisplaced):
                await first.update(payload={"load": 5})
            assert payload(tree) == {"load": 0}
            assert second.status is Status.LIVE


# ---------------------------------------------------------------- closing


async def test_the_marker_comes_and_goes(tree: ModelTree, session: FakeSession) -> None:
    seen: list[tuple[str, str]] = []
    async with registration(session):
        czxid = tree.nodes[PATH].czxid
        tree.on_change.append(lambda change: seen.append((change.kind.name, change.path)))
    marker = f"/services-withdrawn/chat:10.0.0.7%3A7000:{czxid:x}"
    assert seen[-4:] == [("CREATED", marker), ("DELETED", marker), ("DATA_CHANGED", PATH), ("DELETED", PATH)]
    assert tree.children("/services") == ["chat"]


async def test_withdrawing_takes_one_round_trip_when_the_root_of_markers_is_there(
    tree: ModelTree, session: FakeSession
) -> None:
    tree.make("/services-withdrawn")
    async with registration(session):
        before = session.round_trips
    assert session.round_trips - before == 1


@pytest.mark.parametrize("where", ["root", "marker"])
async def test_without_a_place_for_the_marker(tree: ModelTree, session: FakeSession, where: str) -> None:
    if where == "marker":
        tree.make("/services-withdrawn")

    def refuse(message: Message[Any]) -> ServerError | None:
        root = isinstance(message, Create) and message.path == "/services-withdrawn"
        return NoAuth(str(message.path)) if root else None

    def refuse_marker(session_id: int, message: Message[Any]) -> Any:
        if isinstance(message, Multi) and str(message.ops[0].path).startswith("/services-withdrawn/"):
            ops = [Create("/absent/marker", b"", ()), *message.ops[1:]]
            reply = apply(session_id, Multi(ops))
            reply.results[0] = NoAuth(message.ops[0].path)
            return reply
        return apply(session_id, message)

    apply = tree.apply
    if where == "marker":
        tree.apply = refuse_marker  # type: ignore[method-assign]
    session.fate = refuse
    async with registration(session) as registered:
        pass
    assert registered.withdrawn
    assert owner(tree) is None
    assert isinstance(session.served[-1], Delete)


async def test_a_withdrawal_that_is_refused(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session) as registered:
        session.fate = lambda message: NoAuth(PATH) if isinstance(message, Multi | Delete) else None
        await registered.aclose()
        assert registered.withdrawn is False
        assert owner(tree) == session.id
        session.fate = lambda message: None
        session.reconnect()  # what is refused for now is tried again, as long as the session lives
        await until(lambda: registered.withdrawn)
    assert owner(tree) is None


async def test_one_silence_costs_one_bound(session: FakeSession) -> None:
    """Several that are closed one after the other do not wait one after the other."""
    assert isinstance(session.runtime, FakeRuntime)
    withdrawals = Withdrawals()
    instances = [CHAT.replace(id=str(number)) for number in range(3)]
    several = [await registration(session, each, withdrawals=withdrawals, close_timeout=0.05) for each in instances]
    session.fate = lambda message: Fate.UNANSWERED
    await several[0].aclose()
    session.runtime.asleep += 0.05  # the clocks of the loop and of the boot differ by what they round
    for each in several[1:]:
        each._close_timeout = 0.1
        await each.aclose()  # would be answered within the second half of the bound, if it were given that
    assert [each.withdrawn for each in several] == [False] * 3
    assert withdrawals.patience(1000.0, session.as_session) < 1000.0
    session.fate = lambda message: None
    session.reconnect()
    assert withdrawals.patience(1000.0, session.as_session) == 1000.0  # it speaks again
    await until(lambda: all(each.withdrawn for each in several))


async def test_closing_leaves_a_successors_node(tree: ModelTree, session: FakeSession) -> None:
    tree.make("/services-withdrawn")
    other = connected(tree)
    async with registration(session) as first:
        session.forget_watches()  # it does not hear of its displacement in time
        async with registration(other) as second:
            await first.aclose()
            assert first.withdrawn
            check_listed(tree, other, second)


async def test_closing_while_disconnected_is_bounded(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session, close_timeout=0.01) as registered:
        session.disconnect()
    assert registered.withdrawn is False
    assert registered.status is Status.CLOSED
    check_withdrawn(withdrawn=registered.withdrawn, sessions=[session.id], owner=owner(tree))


async def test_closing_while_the_server_is_silent_is_bounded(session: FakeSession) -> None:
    async with registration(session, close_timeout=0.01) as registered:
        session.fate = lambda message: Fate.UNANSWERED
    assert registered.withdrawn is False
    session.disconnect()
    await quiet()


async def test_closing_what_was_never_written_needs_no_server(tree: ModelTree) -> None:
    session = FakeSession(tree)
    async with registration(session, wait=False, close_timeout=1000.0) as registered:
        assert registered.status is Status.REGISTERING
        await quiet()
    assert registered.withdrawn


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("ghost", [False, True])
async def test_closing_says_what_it_does_not_know(
    tree: ModelTree, session: FakeSession, fate: Fate, ghost: bool
) -> None:
    """The node may have been made; the connection was lost, and there is none to ask."""
    if ghost:
        leave_a_ghost(tree)
    async with registration(session, wait=False, close_timeout=0.01) as registered:
        struck = losing(session, Multi if ghost else Create2, fate)
        await until(lambda: struck)
    assert registered.withdrawn is False


@pytest.mark.parametrize("at_server", [True, False])
async def test_an_expiry_alone_says_nothing_of_the_node(tree: ModelTree, session: FakeSession, at_server: bool) -> None:
    """A leader that lost its quorum says so of a session that lives: only the next session's look tells."""
    async with registration(session, close_timeout=0.01) as registered:
        session.expire(at_server=at_server)
    assert registered.withdrawn is False
    session.connect()
    await until(lambda: registered.withdrawn)
    assert owner(tree) is None


async def test_closing_after_an_expiry_waits_for_a_look(tree: ModelTree, session: FakeSession) -> None:
    async with registration(session, close_timeout=1000.0) as registered:
        session.expire(at_server=False)
        closing = asyncio.ensure_future(registered.aclose())
        await quiet()
        assert not closing.done()
        session.connect()
        await closing
        check_withdrawn(withdrawn=registered.withdrawn, sessions=session.earlier_ids, owner=owner(tree))
    assert registered.withdrawn
    assert owner(tree) is None


async def test_closing_deletes_what_an_earlier_session_of_ours_left(tree: ModelTree, session: FakeSession) -> None:
    closing: list[asyncio.Task[None]] = []
    refusals = [Throttled(PATH)]

    def close_when_looking(message: Message[Any]) -> ServerError | None:
        if isinstance(message, Create2) and not closing:
            closing.append(asyncio.ensure_future(entered.aclose()))
        return refusals.pop() if isinstance(message, Multi) and refusals else None

    async with registration(session) as entered:
        session.expire(at_server=False)
        session.fate = close_when_looking
        session.connect()
        await until(lambda: closing)
    assert refusals == []
    assert entered.withdrawn
    assert owner(tree) is None


@pytest.mark.parametrize("turns", range(12))
async def test_a_close_races_a_reconnect(tree: ModelTree, session: FakeSession, turns: int) -> None:
    async with registration(session) as registered:
        session.expire()
        session.connect()
        for _ in range(turns):
            await asyncio.sleep(0)
    check_withdrawn(withdrawn=registered.withdrawn, sessions=[*session.earlier_ids, session.id], owner=owner(tree))
    assert registered.withdrawn
    await quiet()
    assert owner(tree) is None


@pytest.mark.parametrize("turns", range(12))
async def test_an_update_and_a_close_race_a_reconnect(tree: ModelTree, session: FakeSession, turns: int) -> None:
    async with registration(session) as registered:
        session.reconnect()
        updating = asyncio.ensure_future(registered.update(payload={"load": 1}))
        for _ in range(turns):
            await asyncio.sleep(0)
    assert registered.withdrawn
    await quiet()
    assert owner(tree) is None
    assert updating.done()
    with contextlib.suppress(RegistrationError, Exception):
        updating.result()


async def test_waiters_hear_of_the_close(session: FakeSession, registered: Registration[Any]) -> None:
    session.disconnect()
    updating = asyncio.ensure_future(registered.update(payload={"load": 1}))
    closed = asyncio.ensure_future(registered.wait_closed())
    await quiet()
    session.connect()
    await registered.aclose()
    assert await closed is None
    await asyncio.wait([updating])


# ---------------------------------------------------------------- many


async def test_a_thousand_are_back_in_one_round_trip(tree: ModelTree) -> None:
    session = FakeSession(tree, runtime=RandomRuntime(1))
    session.connect()
    instances: list[ServiceInstance[Any]] = [
        ServiceInstance("chat", address="10.0.0.7", port=port) for port in range(1, 1001)
    ]
    many = [registration(session, instance) for instance in instances]
    await asyncio.gather(*map(opened, many))
    assert session.round_trips == 2
    session.expire()
    before = session.round_trips
    session.connect()
    await until(lambda: all(each.status is Status.LIVE for each in many))
    check_published(listed=b"", wanted=(), round_trips=session.round_trips - before)
    assert session.round_trips - before == 1
    await asyncio.gather(*(each.aclose() for each in many))
    assert tree.children("/services/chat") == []
    assert session.observers == []
    assert not any(session.watches.listeners.values())
