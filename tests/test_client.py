"""aiozk's client on our session: what it translates, and what becomes of verbs and recipes when connections end."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
from aiozk import WatchEvent, exc, protocol
from aiozk.protocol.response import response_xref
from aiozk.protocol.transaction import TransactionRequest
from aiozk.states import States

from aioregistry import connect
from aioregistry._client import ClientState, RegistryClient, RequestLost, SharedSession, UnlistedError
from aioregistry._errors import (
    ConnectionLost,
    ProtocolError,
    RegistryError,
    RequestTooLarge,
    ServerError,
    TransactionAborted,
    UnknownServerError,
)
from aioregistry._protocol import EventKind, Reply, WatchedEvent
from aioregistry._runtime import Endpoint, SystemRuntime
from aioregistry._session import Session, SessionState, parse_connect_string
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support import wire
from tests.support.inside import password_of
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 100.0
TIMEOUT = 6.0
# The entries that tests/support/messages.py adds to aiozk's table; the library must do without.
OF_THE_TESTS = (CREATE_CONTAINER := 19, 21, 22, 103, 104, 105, 106, 107)
CREATE2, DELETE, EXISTS, GET_DATA, SET_DATA, MULTI = 15, 2, 3, 4, 5, 14


# ---------------------------------------------------------------- translation, on a session that is told what happens


class ScriptedSession:
    """As much of a session as the client uses."""

    def __init__(self) -> None:
        self.connect_string = parse_connect_string("zk:2181")
        self.server = Endpoint("zk", 2181, "192.0.2.1")
        self.state = SessionState.CONNECTED
        self.read_only = False
        self.failure: RegistryError | None = None
        self.watches = self
        self.known: dict[int, bool] = {}
        self.sent: list[Any] = []
        self.outcomes: deque[RegistryError | object] = deque()
        self._observers: list[Callable[[], None]] = []
        self._listeners: list[tuple[str, Callable[[WatchedEvent], None]]] = []

    def supports(self, opcode: int) -> bool | None:
        return self.known.get(opcode)

    def observe(self, callback: Callable[[], None]) -> None:
        self._observers.append(callback)

    def submit(self, message: Any) -> asyncio.Future[Reply[Any]]:
        self.sent.append(message)
        answer: asyncio.Future[Reply[Any]] = asyncio.get_running_loop().create_future()
        outcome = self.outcomes.popleft()
        if isinstance(outcome, RegistryError):
            answer.set_exception(outcome)
        else:
            answer.set_result(Reply(1, outcome))
        return answer

    def listen(self, path: str, callback: Callable[[WatchedEvent], None]) -> Listener:
        self._listeners.append((path, callback))
        return Listener(lambda: self._listeners.remove((path, callback)))

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def become(self, state: SessionState, *, read_only: bool = False) -> None:
        self.state, self.read_only = state, read_only
        for observer in self._observers:
            observer()

    def fire(self, kind: EventKind, path: str) -> None:
        for listened, callback in list(self._listeners):
            if listened == path:
                callback(WatchedEvent(kind, 3, path, -1))


class Listener:
    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close


@pytest.fixture(autouse=True)
def as_aiozk_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for opcode in OF_THE_TESTS:
        monkeypatch.delitem(response_xref, opcode, raising=False)


@pytest.fixture
def scripted() -> ScriptedSession:
    return ScriptedSession()


def shared(scripted: ScriptedSession) -> SharedSession:
    return SharedSession(cast("Session", scripted))


SHOWN = {
    SessionState.DISCONNECTED: States.LOST,
    SessionState.CONNECTED: States.CONNECTED,
    SessionState.SUSPENDED: States.SUSPENDED,
    SessionState.RECONNECTED: States.CONNECTED,
    SessionState.EXPIRED: States.LOST,
    SessionState.CLOSED: States.LOST,
    SessionState.FAILED: States.LOST,
}


@pytest.mark.parametrize("state", SessionState)
async def test_each_state_is_shown_as_one_of_aiozks(scripted: ScriptedSession, state: SessionState) -> None:
    client = shared(scripted)
    scripted.become(SessionState.SUSPENDED)
    scripted.become(state)
    assert client.state.current_state == SHOWN[state]
    assert client.state == SHOWN[state]
    assert client.state.wait_for(SHOWN[state]).done()


@pytest.mark.parametrize("write", [protocol.DeleteRequest(path="/a", version=-1), TransactionRequest()])
async def test_a_server_without_quorum_is_read_only(scripted: ScriptedSession, write: Any) -> None:
    client = shared(scripted)
    scripted.become(SessionState.CONNECTED, read_only=True)
    assert client.state == States.READ_ONLY
    scripted.outcomes.append("value")
    assert await client.send(protocol.ExistsRequest(path="/a", watch=False)) == "value"
    writing = asyncio.create_task(client.send(write))
    await asyncio.sleep(0)
    assert len(scripted.sent) == 1, "a write waits for a quorum"
    scripted.outcomes.append("value")
    scripted.become(SessionState.CONNECTED)
    async with asyncio.timeout(DEADLINE):
        assert await writing == "value"


async def test_waiting_for_a_state_ends_when_it_comes(scripted: ScriptedSession) -> None:
    state = shared(scripted).state
    waiting = state.wait_for(States.SUSPENDED, States.LOST)
    other = state.wait_for(States.LOST)
    scripted.become(SessionState.SUSPENDED)
    assert waiting.done()
    assert not other.done()
    scripted.become(SessionState.EXPIRED)
    assert other.done()


async def test_who_was_removed_or_cancelled_waits_no_more(scripted: ScriptedSession) -> None:
    state = shared(scripted).state
    removed, narrowed = state.wait_for(States.LOST), state.wait_for(States.SUSPENDED, States.LOST)
    cancelled = state.wait_for(States.LOST)
    state.remove_waiting(removed, States.LOST)
    state.remove_waiting(removed, States.LOST)  # twice does no harm
    state.remove_waiting(narrowed, States.SUSPENDED)
    cancelled.cancel()
    scripted.become(SessionState.SUSPENDED)
    assert not narrowed.done()
    scripted.become(SessionState.EXPIRED)
    assert narrowed.done()
    assert not removed.done()


async def test_a_wait_that_is_over_leaves_nothing(scripted: ScriptedSession) -> None:
    scripted.become(SessionState.SUSPENDED)
    client = shared(scripted)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.ensure_safe_state(), 0)
    answered = asyncio.create_task(client.ensure_safe_state())
    await asyncio.sleep(0)
    scripted.become(SessionState.RECONNECTED)
    async with asyncio.timeout(DEADLINE):
        await answered
    assert client.state._waiting == {}


@pytest.mark.parametrize("end", [SessionState.CLOSED, SessionState.FAILED])
async def test_who_waits_hears_of_the_end(scripted: ScriptedSession, end: SessionState) -> None:
    scripted.become(SessionState.SUSPENDED)
    client = shared(scripted)
    waiting = client.state.wait_for(States.CONNECTED)
    sending = asyncio.create_task(client.send(protocol.ExistsRequest(path="/a", watch=False)))
    await asyncio.sleep(0)
    scripted.failure = ProtocolError("why")
    scripted.become(end)
    for refused in (waiting, sending, client.state.wait_for(States.CONNECTED), client.start()):
        with pytest.raises(exc.InvalidClientState, match=end.value) as raised:
            await asyncio.wait_for(refused, DEADLINE)
        assert raised.value.__cause__ is scripted.failure


def server_errors() -> list[ServerError]:
    """One of every code there is."""
    special = (TransactionAborted, UnknownServerError)
    named = [kind("/a") for kind in ServerError.__subclasses__() if kind not in special]
    return [*named, UnknownServerError("/a", number=-999)]


@pytest.mark.parametrize("error", server_errors(), ids=lambda error: type(error).__name__)
async def test_every_error_code_is_raised_as_aiozks(
    scripted: ScriptedSession, error: ServerError, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.outcomes.append(error)
    with pytest.raises(exc.ResponseError) as raised:
        await shared(scripted).send(protocol.DeleteRequest(path="/a", version=-1))
    code = getattr(error, "number", error.code)
    assert raised.value.error_code == code
    assert type(raised.value) is exc.response_error_xref.get(code, UnlistedError)
    assert raised.value.__cause__ is error
    assert str(raised.value)
    assert capsys.readouterr().out == ""


async def test_a_read_is_sent_again_a_write_is_not(scripted: ScriptedSession) -> None:
    client = shared(scripted)
    unsent = ConnectionLost("gone", maybe_applied=False)
    scripted.outcomes.extend([unsent, unsent, "value"])
    assert await client.send(protocol.GetDataRequest(path="/a", watch=False)) == "value"
    lost = ConnectionLost("gone", maybe_applied=True)
    scripted.outcomes.extend([unsent, lost])
    with pytest.raises(RequestLost, match="zk:2181") as raised:
        await client.send(protocol.DeleteRequest(path="/a", version=-1))
    assert raised.value.__cause__ is lost
    assert isinstance(raised.value, exc.ConnectError)
    assert isinstance(raised.value, exc.TimeoutError)


@pytest.mark.parametrize(
    ("known", "version", "containers"),
    [({}, (3, 5, 3), True), ({22: True}, (3, 6, 0), True), ({22: True, CREATE_CONTAINER: False}, (3, 5, 0), False)],
)
def test_features_follow_what_the_server_was_seen_to_have(
    scripted: ScriptedSession, known: dict[int, bool], version: tuple[int, int, int], containers: bool
) -> None:
    scripted.known = known
    client = RegistryClient(cast("Session", scripted))
    assert client.session.conn.version_info == version
    assert client.features.create_with_stat
    assert client.features.containers is containers


async def test_containers_are_created_as_containers_and_the_callers_request_stays(scripted: ScriptedSession) -> None:
    client = shared(scripted)
    for kind in (protocol.CreateRequest, protocol.Create2Request):
        request = kind(path="/a", data=b"x", acl=[protocol.UNRESTRICTED_ACCESS])
        request.set_flags(container=True)
        opcode = request.opcode
        scripted.outcomes.append("value")
        await client.send(request)
        sent = scripted.sent.pop()
        assert sent.opcode == CREATE_CONTAINER
        assert sent.serialize()[4:] == request.serialize()[4:]
        assert request.opcode == opcode


@pytest.mark.parametrize(
    "flags", [{}, {"ephemeral": True}, {"sequential": True}, {"ephemeral": True, "sequential": True}]
)
async def test_other_nodes_are_created_as_asked_for(scripted: ScriptedSession, flags: dict[str, bool]) -> None:
    request = protocol.Create2Request(path="/a", data=b"x", acl=[protocol.UNRESTRICTED_ACCESS])
    request.set_flags(**flags)
    scripted.outcomes.append("value")
    await shared(scripted).send(request)
    assert scripted.sent.pop() is request


async def transaction_of(scripted: ScriptedSession, *operations: Any) -> Any:
    """The message that is sent for a transaction."""
    request = TransactionRequest()
    for operation in operations:
        request.add(operation)
    scripted.outcomes.append("value")
    await shared(scripted).send(request)
    return scripted.sent.pop(), request


async def test_a_transaction_is_sent_as_aiozk_renders_it(scripted: ScriptedSession) -> None:
    sent, request = await transaction_of(scripted, protocol.DeleteRequest(path="/a", version=3))
    assert sent.serialize(7) == request.serialize(7)


async def test_the_codes_in_a_transactions_reply_are_not_printed(
    scripted: ScriptedSession, capsys: pytest.CaptureFixture[str]
) -> None:
    sent, _ = await transaction_of(scripted)
    codes = (0, -103, -125, -999)
    body = b"".join(struct.pack(">i?ii", -1, False, code, code) for code in codes) + struct.pack(">i?i", -1, True, -1)
    responses = sent.decode(body).responses
    assert [type(response) for response in responses] == [exc.RolledBack, exc.BadVersion, UnlistedError, UnlistedError]
    assert [response.error_code for response in responses] == list(codes)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("body", [b"", struct.pack(">i?i", 99, False, 0), struct.pack(">i?ii", -1, False, 0, 0)])
async def test_a_malformed_reply_to_a_transaction_is_an_error_of_the_protocol(
    scripted: ScriptedSession, body: bytes
) -> None:
    sent, _ = await transaction_of(scripted)
    with pytest.raises(ProtocolError):
        sent.decode(body)


async def test_callbacks_hear_of_their_event_and_path_only(scripted: ScriptedSession) -> None:
    client = shared(scripted)
    heard: list[tuple[str, str]] = []
    client.add_watch_callback(WatchEvent.DELETED, "/a", lambda path: heard.append(("deleted", path)))
    client.add_watch_callback(WatchEvent.DATA_CHANGED, "/a", lambda path: heard.append(("changed", path)))
    for kind in EventKind:
        scripted.fire(kind, "/a")
        scripted.fire(kind, "/b")
    assert heard == [], "never from within the connection"
    await asyncio.sleep(0)
    assert heard == [("deleted", "/a"), ("changed", "/a")]


async def test_a_callback_may_unregister_while_it_is_called(scripted: ScriptedSession) -> None:
    client = shared(scripted)
    heard: list[str] = []

    def once(path: str) -> None:
        heard.append(path)
        client.remove_watch_callback(WatchEvent.DELETED, "/a", once)
        client.remove_watch_callback(WatchEvent.DELETED, "/a", once)

    client.add_watch_callback(WatchEvent.DELETED, "/a", once)
    client.add_watch_callback(WatchEvent.DELETED, "/a", once)  # counts once, as in aiozk
    client.add_watch_callback(WatchEvent.DELETED, "/a", heard.append)
    scripted.fire(EventKind.DELETED, "/a")
    scripted.fire(EventKind.DELETED, "/a")
    await asyncio.sleep(0)
    assert heard == ["/a", "/a", "/a"]
    client.remove_watch_callback(WatchEvent.DELETED, "/a", heard.append)
    assert scripted.listeners == 0


async def test_a_client_is_made_without_a_session_of_aiozks_being_started(scripted: ScriptedSession) -> None:
    client = RegistryClient(cast("Session", scripted), "/prod", default_acl=[protocol.WORLD_READABLE])
    assert client.chroot == "/prod"
    assert client.default_acl == [protocol.WORLD_READABLE]
    assert isinstance(client.session.state, ClientState)
    assert client.session.state == States.CONNECTED
    scripted.become(SessionState.SUSPENDED)
    starting = asyncio.create_task(client.start())
    await asyncio.sleep(0)
    assert not starting.done()
    scripted.become(SessionState.RECONNECTED)
    async with asyncio.timeout(DEADLINE):
        await starting
    await client.close()
    assert scripted.sent == []


# ---------------------------------------------------------------- on a real ZooKeeper

# Makes sessions on an address; they end with the test.
OpenSession = Callable[[str], Awaitable[Session]]


@pytest.fixture
async def open_session() -> AsyncIterator[OpenSession]:
    sessions: list[Session] = []

    async def open_(address: str) -> Session:
        session = Session(parse_connect_string(address), timeout=TIMEOUT, runtime=SystemRuntime(), max_request=0xFFFFF)
        sessions.append(session)
        session.start()
        await session.wait_connected(DEADLINE)
        return session

    yield open_
    for session in sessions:
        await session.close(DEADLINE)


@pytest.fixture
async def session(open_session: OpenSession, proxy: ZooKeeperProxy) -> Session:
    """A session through the proxy."""
    return await open_session(proxy.address)


@pytest.fixture
async def client(session: Session, chroot: str) -> RegistryClient:
    """A client through the proxy, in the test's own chroot."""
    client = RegistryClient(session, chroot)
    await client.start()
    return client


@pytest.fixture
async def rival(open_session: OpenSession, zookeeper: ZooKeeperServer, chroot: str) -> RegistryClient:
    """A second client in the same chroot, with a session of its own straight to the server."""
    return RegistryClient(await open_session(zookeeper.address), chroot)


async def state(session: Session, *wanted: SessionState) -> None:
    """Wait until the session is in one of these states."""
    async with asyncio.timeout(DEADLINE), session.states() as states:
        while session.state not in wanted:
            await anext(states)


async def reconnected(session: Session, generation: int) -> None:
    """Wait for the next connection after the one that was the *generation*th."""
    async with asyncio.timeout(DEADLINE), session.states() as states:
        while session.generation == generation or not session.connected:
            await anext(states)


async def cut(session: Session, proxy: ZooKeeperProxy) -> None:
    """Cut the session's connection and wait for the next one."""
    generation, kept = session.generation, session.id
    proxy.cut()
    await reconnected(session, generation)
    assert session.id == kept


async def watched(zookeeper: ZooKeeperServer, path: str) -> None:
    """Wait until somebody has a one-shot watch on the path."""
    async with asyncio.timeout(DEADLINE):
        while path not in (await zookeeper.four_letter("wchp")).splitlines():
            await asyncio.sleep(0.01)


async def test_verbs_work_in_the_chroot(client: RegistryClient, judge: Judge, chroot: str) -> None:
    assert await client.create("/a", b"1") == "/a"
    assert await client.create("/a/b-", ephemeral=True, sequential=True) == "/a/b-0000000000"
    assert await client.get_children("/a") == ["b-0000000000"]
    data, stat = await client.get("/a")
    assert (data, stat.version) == (b"1", 0)
    assert (await client.set("/a", b"2", 0)).version == 1
    with pytest.raises(exc.BadVersion):
        await client.set("/a", b"3", 0)
    node = await judge.node(f"{chroot}/a")
    assert node is not None
    assert node.data == b"2"
    with pytest.raises(exc.NotEmpty):
        await client.delete("/a", force=True)
    with pytest.raises(exc.NodeExists):
        await client.create("/a")
    with pytest.raises(exc.NoNode):
        await client.get("/absent")
    assert not await client.exists("/absent")
    await client.deleteall("/a")
    assert await judge.node(f"{chroot}/a") is None


async def test_containers_are_swept_as_containers_are(client: RegistryClient, judge: Judge, chroot: str) -> None:
    await client.create("/container", container=True)
    await client.ensure_path("/parents/of")
    transaction = client.begin_transaction()
    transaction.create("/third", container=True)
    assert (await transaction.commit()).created == {"/third"}
    # Their Stat does not tell them from plain nodes: only the sweep does, and it takes none that never had a child.
    for path in ("/container", "/parents/of", "/third"):
        await client.create(f"{path}/child")
        await client.delete(f"{path}/child")
    await judge.children_until(chroot, lambda names: names == [])


async def test_a_transaction_tells_what_it_did(client: RegistryClient, judge: Judge, chroot: str) -> None:
    await client.create("/kept", b"1")
    transaction = client.begin_transaction()
    transaction.check_version("/kept", 0)
    transaction.create("/made", b"x")
    transaction.create("/gone", container=True)
    transaction.set_data("/kept", b"2")
    transaction.delete("/gone")
    result = await transaction.commit()
    assert (result.checked, result.created) == ({"/kept"}, {"/made", "/gone"})
    assert (result.updated, result.deleted) == ({"/kept"}, {"/gone"})
    assert await judge.children(chroot) == ["kept", "made"]


async def test_a_failed_transaction_tells_every_code(client: RegistryClient, judge: Judge, chroot: str) -> None:
    request = TransactionRequest()
    for operation in (
        protocol.Create2Request(path=f"{chroot}/a", data=b"", acl=[protocol.UNRESTRICTED_ACCESS], flags=0),
        protocol.DeleteRequest(path=f"{chroot}/absent", version=-1),
        protocol.SetDataRequest(path=f"{chroot}/a", data=b"", version=-1),
    ):
        request.add(operation)
    responses = (await client.send(request)).responses
    assert [type(response) for response in responses] == [exc.RolledBack, exc.NoNode, exc.RuntimeInconsistency]
    assert await judge.children(chroot) == []
    failing = client.begin_transaction()
    failing.delete("/absent")
    assert not await failing.commit()


async def test_closing_the_client_leaves_the_session(client: RegistryClient, judge: Judge, chroot: str) -> None:
    await client.create("/mine", ephemeral=True)
    await client.close()
    assert await judge.owner(f"{chroot}/mine") == client.session._session.id
    assert await client.exists("/mine")


async def test_a_registrys_client_is_in_its_chroot_with_its_acl(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    acl = [protocol.UNRESTRICTED_ACCESS, protocol.WORLD_READABLE]
    async with connect(f"{zookeeper.address}{chroot}", acl=acl) as registry:
        client = registry.client
        assert registry.client is client
        await client.start()
        assert await client.create("/a", b"1", ephemeral=True) == "/a"
        assert await judge.owner(f"{chroot}/a") == registry.session.id
        assert await client.get_acl("/a") == acl
        await client.close()
        assert registry.session.connected
    with pytest.raises(exc.InvalidClientState):
        await client.exists("/a")


async def test_a_request_above_jute_maxbuffer_is_refused(client: RegistryClient) -> None:
    with pytest.raises(RequestTooLarge):
        await client.create("/large", bytes(0x100000))
    assert not await client.exists("/large")


async def test_a_lost_answer_to_a_write_is_told_and_nothing_is_applied_twice(
    client: RegistryClient, session: Session, proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    await client.create("/counter", b"0")
    asked: list[tuple[int, Callable[[], Awaitable[object]]]] = [
        (CREATE2, lambda: client.create("/node-", sequential=True)),
        (SET_DATA, lambda: client.set("/counter", b"1", 0)),
        (MULTI, lambda: one_creation(client)),
        (DELETE, lambda: client.delete("/counter")),
    ]
    for opcode, ask in asked:
        loss = proxy.lose_next_reply(opcode)
        with pytest.raises(RequestLost) as raised:
            await ask()
        assert isinstance(raised.value.__cause__, ConnectionLost)
        assert raised.value.__cause__.maybe_applied
        assert loss.happened
        await client.session.ensure_safe_state()
    # node-0000000002: a sequence counts the creations and deletions before it.
    assert await judge.children(chroot) == ["node-0000000001", "once-0000000002"]


async def one_creation(client: RegistryClient) -> object:
    transaction = client.begin_transaction()
    transaction.create("/once-", sequential=True)
    return await transaction.commit()


async def test_a_lost_answer_to_a_read_is_asked_for_again(client: RegistryClient, proxy: ZooKeeperProxy) -> None:
    await client.create("/a", b"1")
    losses = [proxy.lose_next_reply(opcode) for opcode in (GET_DATA, EXISTS)]
    assert await client.get_data("/a") == b"1"
    assert await client.exists("/a")
    assert all(loss.happened for loss in losses)


async def test_a_verb_waits_for_the_next_connection(
    client: RegistryClient, session: Session, proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    proxy.refuse()
    proxy.cut()
    await state(session, SessionState.SUSPENDED)
    assert client.session.state == States.SUSPENDED
    creating = asyncio.create_task(client.create("/a"))
    await asyncio.sleep(0)
    proxy.accept()
    async with asyncio.timeout(DEADLINE):
        assert await creating == "/a"
    assert await judge.children(chroot) == ["a"]


async def test_a_verb_that_waits_ends_with_the_session(
    client: RegistryClient, session: Session, proxy: ZooKeeperProxy
) -> None:
    proxy.refuse()
    proxy.cut()
    await state(session, SessionState.SUSPENDED)
    creating = asyncio.create_task(client.create("/a"))
    await asyncio.sleep(0)
    await session.close(1)
    with pytest.raises(exc.InvalidClientState, match="closed"):
        await asyncio.wait_for(creating, DEADLINE)


async def test_watchers_hear_after_an_expiry(
    client: RegistryClient, session: Session, proxy: ZooKeeperProxy, zookeeper: ZooKeeperServer
) -> None:
    await client.create("/mine", ephemeral=True)
    gone = client.wait_for_events([WatchEvent.DELETED], "/mine")
    assert await client.exists("/mine", watch=True)
    lost, expired = client.session.state.wait_for(States.LOST), session.id
    proxy.refuse()  # or the session would be back before it can be closed
    proxy.cut()
    async with await wire.connect(zookeeper.address, session_id=session.id, password=password_of(session)):
        assert not lost.done()
    proxy.accept()
    async with asyncio.timeout(DEADLINE):
        await lost
        await gone
    assert not await client.exists("/mine")
    assert session.id != expired


# ---------------------------------------------------------------- recipes

# Takes what a recipe gives (a lock, leadership) and returns the call that gives it up.
GiveUp = Callable[[], Awaitable[None]]
Obtain = Callable[[RegistryClient], Coroutine[Any, Any, GiveUp]]


async def acquire_lock(client: RegistryClient) -> GiveUp:
    lock = client.recipes.Lock("/recipe")
    await lock.acquire()
    return cast("GiveUp", lock.release)


async def win_election(client: RegistryClient) -> GiveUp:
    election = client.recipes.LeaderElection("/recipe")
    await election.volunteer()
    await election.wait_for_leadership()
    return cast("GiveUp", election.resign)


both = pytest.mark.parametrize("obtain", [acquire_lock, win_election])


@both
async def test_what_is_held_is_kept_through_a_cut(
    obtain: Obtain,
    client: RegistryClient,
    session: Session,
    proxy: ZooKeeperProxy,
    rival: RegistryClient,
    judge: Judge,
    zookeeper: ZooKeeperServer,
    chroot: str,
) -> None:
    give_up = await obtain(client)
    lost = client.session.state.wait_for(States.LOST)
    (node,) = await judge.children(f"{chroot}/recipe")
    waiting = asyncio.create_task(obtain(rival))
    await watched(zookeeper, f"{chroot}/recipe/{node}")
    await cut(session, proxy)
    assert await judge.owner(f"{chroot}/recipe/{node}") == session.id
    assert not lost.done()
    await rival.exists("/")  # whatever its server told it before this answer has arrived
    assert not waiting.done()
    await give_up()
    async with asyncio.timeout(DEADLINE):
        await (await waiting)()
    assert await judge.children(f"{chroot}/recipe") == []


@both
@pytest.mark.parametrize("deleted", ["while away", "after the return"])
async def test_who_waits_for_a_deletion_only_hears_of_it_after_a_cut(
    obtain: Obtain,
    deleted: str,
    client: RegistryClient,
    session: Session,
    proxy: ZooKeeperProxy,
    rival: RegistryClient,
    judge: Judge,
    zookeeper: ZooKeeperServer,
    chroot: str,
) -> None:
    give_up = await obtain(rival)
    (blocker,) = await judge.children(f"{chroot}/recipe")
    waiting = asyncio.create_task(obtain(client))
    await watched(zookeeper, f"{chroot}/recipe/{blocker}")
    generation = session.generation
    proxy.refuse()
    proxy.cut()
    await state(session, SessionState.SUSPENDED)
    if deleted == "while away":
        await give_up()
        proxy.accept()
    else:
        proxy.accept()
        await reconnected(session, generation)
        await give_up()
    async with asyncio.timeout(DEADLINE):
        await (await waiting)()
    assert await judge.children(f"{chroot}/recipe") == []


async def test_a_lock_whose_creation_was_lost_leaves_no_node(
    client: RegistryClient, proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    await client.ensure_path("/recipe")
    await client.create("/recipe/keeps-it")  # an empty container would be swept
    loss = proxy.lose_next_reply(CREATE2)
    lock = client.recipes.Lock("/recipe")
    with pytest.raises(exc.TimeoutError):
        await lock.acquire(timeout=DEADLINE)
    assert loss.happened
    await judge.children_until(f"{chroot}/recipe", lambda names: names == ["keeps-it"])
    await lock.acquire(timeout=DEADLINE)
    await lock.release()


@both
async def test_giving_up_may_be_repeated_when_its_answer_was_lost(
    obtain: Obtain, client: RegistryClient, proxy: ZooKeeperProxy, rival: RegistryClient
) -> None:
    give_up = await obtain(client)
    proxy.lose_next_reply(DELETE)
    with pytest.raises(RequestLost):
        await give_up()
    await give_up()
    async with asyncio.timeout(DEADLINE):
        await (await obtain(rival))()
