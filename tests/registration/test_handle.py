"""The handle: statuses, waiting, and what it refuses."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from aioregistry._document import decode
from aioregistry._errors import (
    HandleClosed,
    InvalidArgument,
    RequestTimeout,
    RequestTooLarge,
    SessionFailed,
    UsageError,
)
from aioregistry._model import ServiceInstance, ServiceType
from aioregistry._protocol import Sync
from aioregistry._registration import Registration, Status
from tests.support.fake_session import FakeRuntime, FakeSession, Fate, quiet, until
from tests.support.model_tree import ModelTree
from tests.support.waiting import DEADLINE

PATH = "/services/chat/10.0.0.7:7000"
CHAT = ServiceInstance("chat", address="10.0.0.7", port=7000, payload={"load": 0})


def registration(session: FakeSession, instance: Any = CHAT, base_path: str = "/services", **options: Any) -> Any:
    return Registration(session.as_session, instance, base_path=base_path, **options)


@pytest.fixture
async def session() -> FakeSession:
    session = FakeSession(ModelTree())
    session.connect()
    return session


def sleep(session: FakeSession, seconds: float) -> None:
    assert isinstance(session.runtime, FakeRuntime)
    session.runtime.asleep += seconds


# ---------------------------------------------------------------- statuses


async def test_the_statuses_of_a_life(session: FakeSession) -> None:
    registered = registration(session)
    assert registered.status is Status.REGISTERING
    statuses = registered.statuses()
    await registered
    session.disconnect()
    session.connect()
    await registered.wait_live(5)
    session.expire()
    session.connect()
    await registered.wait_live(5)
    await registered.aclose()
    assert [status async for status in statuses] == [
        Status.REGISTERING,
        Status.LIVE,
        Status.UNCERTAIN,
        Status.LIVE,
        Status.UNCERTAIN,
        Status.REGISTERING,
        Status.LIVE,
        Status.CLOSED,
    ]
    assert [status async for status in registered.statuses()] == [Status.CLOSED]


async def test_the_node_tells_the_timeout_that_the_servers_granted(session: FakeSession) -> None:
    def told() -> tuple[int | None, int]:
        node = session.tree.nodes[PATH]
        return decode(node.data).session_timeout_ms, node.version

    async with registration(session, CHAT.replace(session_timeout_ms=5)) as registered:
        assert told() == (30_000, 0)
        session.disconnect()
        session.timeout = 12.0  # the same session, on a server with other bounds
        session.connect()
        await quiet()
        assert told() == (12_000, 1)
        assert registered.instance == CHAT
        assert registered.instance.session_timeout_ms == 12_000
        session.expire()
        session.timeout = 6.0
        session.connect()
        await registered.wait_live(5)
        assert told() == (6_000, 0)


async def test_without_a_session_the_timeout_is_not_known_yet() -> None:
    session = FakeSession(ModelTree())
    async with registration(session, wait=False) as registered:
        assert registered.instance.session_timeout_ms is None
        session.connect()
        await registered.wait_live(5)
        node = session.tree.nodes[PATH]
        assert (decode(node.data).session_timeout_ms, node.version) == (30_000, 0)


async def test_asleep_for_longer_than_the_session_lives(session: FakeSession) -> None:
    """The status is computed when it is read: nobody had the time to change it."""
    async with registration(session) as registered:
        sleep(session, session.timeout - 1.0)
        assert str(registered.status) == "Status.LIVE"
        sleep(session, 2.0)
        assert str(registered.status) == "Status.PRESUMED_GONE"
        session.reconnect()
        await registered.wait_live(5)


async def test_a_status_that_changes_with_time_alone_is_told(session: FakeSession) -> None:
    session.timeout = 0.05
    async with registration(session) as registered, registered.statuses() as statuses:
        assert await anext(statuses) is Status.LIVE
        session.disconnect()
        assert await anext(statuses) is Status.UNCERTAIN
        assert await anext(statuses) is Status.PRESUMED_GONE
        session.connect()
        assert await anext(statuses) is Status.UNCERTAIN
        assert await anext(statuses) is Status.LIVE


async def test_a_quorum_that_was_silent_and_answers_again(session: FakeSession) -> None:
    session.timeout = 0.05
    async with asyncio.timeout(DEADLINE), registration(session) as registered, registered.statuses() as statuses:
        assert await anext(statuses) is Status.LIVE
        answers = asyncio.Event()
        session.fate = lambda message: answers.set() if isinstance(message, Sync) else None
        assert await anext(statuses) is Status.PRESUMED_GONE
        assert session.connected
        await answers.wait()
        assert await anext(statuses) is Status.LIVE


async def test_never_live_on_an_invented_session(session: FakeSession) -> None:
    async with registration(session) as registered:
        session.disconnect()
        sleep(session, session.timeout)
        session.connect(read_only=True)
        await quiet()
        assert registered.status is Status.PRESUMED_GONE
        session.disconnect()
        session.connect()
        await registered.wait_live(5)


async def test_a_failure_is_raised_by_the_stream(session: FakeSession) -> None:
    async with registration(session) as registered:
        statuses = registered.statuses()
        session.fail(SessionFailed("wrong credentials"))
        assert [await anext(statuses) for _ in range(3)] == [Status.LIVE, Status.UNCERTAIN, Status.FAILED]
        with pytest.raises(SessionFailed):
            await anext(statuses)


async def test_a_slow_consumer_gets_the_latest(session: FakeSession) -> None:
    async with registration(session) as registered, registered.statuses() as statuses:
        for _ in range(200):
            session.reconnect()
            await registered.wait_live(5)
        await registered.aclose()
        seen = [status async for status in statuses]
    assert len(seen) == 64
    assert seen[-1] is Status.CLOSED


async def test_statuses_are_emitted(session: FakeSession) -> None:
    async with registration(session):
        owner = session.id
    fields = [fields for name, fields in session.emitted if name == "registration.status"]
    assert fields == [
        {"path": PATH, "status": "live", "owner": owner},
        {"path": PATH, "status": "closed", "owner": None},
    ]


async def test_repr_tells_the_truth(session: FakeSession) -> None:
    registered = registration(session)
    assert repr(registered).startswith("<Registration chat/10.0.0.7:7000 REGISTERING since 0.0s>")
    async with registered:
        assert repr(registered).startswith(f"<Registration chat/10.0.0.7:7000 LIVE owner={session.id:#x} since ")
        sleep(session, session.timeout)
        assert "PRESUMED_GONE" in repr(registered)
    assert "CLOSED" in repr(registered)


async def test_the_log_says_what_is_known_in_words(session: FakeSession, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aioregistry.registration")
    async with registration(session) as registered, registered.statuses() as statuses:
        name = f"{session.id:#x}"
        assert await anext(statuses) is Status.LIVE
        session.disconnect()
        assert await anext(statuses) is Status.UNCERTAIN
        sleep(session, session.timeout)
        session.connect(read_only=True)
        assert await anext(statuses) is Status.PRESUMED_GONE
        session.disconnect()
        session.connect()
        assert await anext(statuses) is Status.UNCERTAIN
        assert await anext(statuses) is Status.LIVE
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    listed = logging.INFO, f"{PATH} is listed: 10.0.0.7:7000, by session {name}"
    kept = f"the connection was lost, and ZooKeeper keeps session {name} for up to {session.timeout:g} s without one"
    gone = f"ZooKeeper has not answered for {session.timeout:g} s, and may have ended session {name}"
    assert told == [
        listed,
        (logging.INFO, f"{PATH} may still be listed: {kept}"),
        (
            logging.INFO,
            f"{PATH} is probably not listed any more: {gone}; it will be listed again as soon as there is a connection",
        ),
        (
            logging.DEBUG,
            f"{PATH} may still be listed: after the reconnect the library has not checked its node in ZooKeeper yet",
        ),
        listed,
        (logging.INFO, f"{PATH} is withdrawn, as the program asked"),
    ]


async def test_the_log_says_whether_it_is_enabled(session: FakeSession, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioregistry.registration")
    async with registration(session) as registered:
        await registered.update(enabled=False)
        await registered.update(enabled=True)
    told = [record.getMessage() for record in caplog.records]
    assert [line for line in told if "enabled" in line] == [
        f"{PATH} is not enabled: draining",
        f"{PATH} is enabled again",
    ]


# ---------------------------------------------------------------- waiting


async def test_wait_live_times_out(session: FakeSession) -> None:
    async with registration(session) as registered:
        session.disconnect()
        with pytest.raises(RequestTimeout, match=r"not LIVE within timeout=0\.01 s, but UNCERTAIN"):
            await registered.wait_live(timeout=0.01)
        session.connect()
        await registered.wait_live(timeout=5)


async def test_wait_live_of_what_is_closed(session: FakeSession) -> None:
    async with registration(session) as registered:
        pass
    with pytest.raises(HandleClosed):
        await registered.wait_live()


async def test_wait_closed(session: FakeSession) -> None:
    async with registration(session) as registered:
        waiting = asyncio.ensure_future(registered.wait_closed())
        await quiet()
        assert not waiting.done()
    assert await waiting is None


async def test_not_waiting_for_a_server() -> None:
    session = FakeSession(ModelTree())
    async with registration(session, wait=False) as registered:
        assert registered.status is Status.REGISTERING
        updating = asyncio.ensure_future(registered.update(payload={"load": 3}))
        await quiet()
        session.connect()
        await registered.wait_live(5)
        await updating
        assert decode(session.tree.nodes[PATH].data).payload == {"load": 3}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"on_conflict": "fight"}, "on_conflict='fight'"),
        ({"on_displaced": "fight"}, "on_displaced='fight'"),
        ({"close_timeout": -1.0}, "close_timeout=-1.0"),
        ({"close_timeout": float("nan")}, "close_timeout=nan"),
        ({"base_path": "services"}, "base_path='services'"),
        ({"base_path": "/a//b"}, "base_path='/a//b'"),
        ({"instance": "chat"}, "instance='chat'"),
        ({"instance": CHAT.replace(service_type=ServiceType.STATIC)}, "service_type='STATIC'"),
        ({"instance": CHAT.replace(service_type=ServiceType.PERMANENT)}, "service_type='PERMANENT'"),
    ],
)
async def test_wrong_arguments(session: FakeSession, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        registration(session, **options)
    assert named in str(caught.value)


async def test_too_large_at_first(session: FakeSession) -> None:
    with pytest.raises(RequestTooLarge, match=r"jute\.maxbuffer"):
        registration(session, CHAT.replace(payload="x" * session.max_request))


async def test_too_large_an_update_changes_nothing(session: FakeSession) -> None:
    async with registration(session) as registered:
        with pytest.raises(RequestTooLarge):
            await registered.update(payload="x" * session.max_request)
        assert registered.instance.payload == {"load": 0}
        assert registered.status is Status.LIVE


async def test_the_largest_can_be_taken_over(session: FakeSession) -> None:
    """An accepted instance fits into every request that it may need later."""
    room = session.max_request // 2 - 400
    async with registration(session, CHAT.replace(payload="x" * room)) as registered:
        session.expire(at_server=False)
        session.connect()
        await registered.wait_live(5)


async def test_a_wrong_update_changes_nothing(session: FakeSession) -> None:
    async with registration(session) as registered:
        with pytest.raises(InvalidArgument, match="payload"):
            await registered.update(payload=float("inf"))
        assert registered.instance.payload == {"load": 0}


async def test_an_update_that_is_not_listed_in_time_is_still_intended(session: FakeSession) -> None:
    async with registration(session) as registered:
        session.disconnect()
        with pytest.raises(RequestTimeout, match="not listed as desired"):
            await registered.update(payload={"load": 1}, timeout=0.01)
        with pytest.raises(RequestTimeout):
            await registered.drain(timeout=0.01)
        session.connect()
        await registered.update(timeout=5)
        now = decode(session.tree.nodes[PATH].data)
        assert (now.payload, now.status) == ({"load": 1}, "draining")
        for wrong in (0, -1, float("nan"), "1"):
            with pytest.raises(InvalidArgument, match="timeout"):
                await registered.update(payload={"load": 2}, timeout=wrong)
        assert registered.instance.payload == {"load": 1}


async def test_before_it_is_entered(session: FakeSession) -> None:
    registered = registration(session)
    for operation in (registered.update, registered.wait_live, registered.wait_closed):
        with pytest.raises(UsageError, match="not entered"):
            await operation()
    await registered
    await registered.aclose()


async def test_after_it_was_closed(session: FakeSession) -> None:
    async with registration(session) as registered:
        pass
    with pytest.raises(HandleClosed):
        await registered.update(payload={})
    with pytest.raises(UsageError):
        await registered
    await registered.aclose()


async def test_from_another_loop(session: FakeSession) -> None:
    async with registration(session) as registered:
        raised: list[type[BaseException]] = []

        def elsewhere() -> None:
            try:
                asyncio.run(registered.update(payload={}))
            except UsageError as error:
                raised.append(type(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert raised == [UsageError]


async def test_the_registration_time_is_set_once(session: FakeSession) -> None:
    async with registration(session) as registered:
        assert decode(session.tree.nodes[PATH].data).registration_time_ms == 1_763_680_000_000
        session.expire()
        session.connect()
        await registered.wait_live(5)
        assert decode(session.tree.nodes[PATH].data) == registered.instance
    given = CHAT.replace(registration_time_ms=5)
    async with registration(session, given) as registered:
        assert registered.instance.registration_time_ms == 5


async def test_an_unanswered_close_ends_in_a_third_of_the_session_timeout(session: FakeSession) -> None:
    session.timeout = 0.3
    async with registration(session) as registered:
        session.fate = lambda message: Fate.UNANSWERED
        session.timeout = 0.03
        await until(lambda: registered.status is not None)
    assert registered.withdrawn is False
