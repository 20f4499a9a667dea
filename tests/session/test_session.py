"""The session on simulated servers: when it does what, to the millisecond, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import re
import ssl
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aioregistry._errors import (
    AuthenticationFailed,
    ConnectionLost,
    ConnectTimeout,
    NoNode,
    RequestTooLarge,
    SessionClosed,
    SessionFailed,
    SessionMoved,
    Throttled,
    UnsupportedServer,
)
from aioregistry._protocol import (
    AddWatch,
    Create,
    Delete,
    EventKind,
    Exists,
    GetChildren,
    GetData,
    MultiRead,
    Sync,
    WatchedEvent,
)
from aioregistry._runtime import SystemRuntime
from aioregistry._session import Session, SessionState, parse_connect_string
from aioregistry._session.attempts import AttemptOutcome
from aioregistry._session.backoff import PATIENCE
from aioregistry._session.names import HEAD_START
from aioregistry._session.patience import TURNS
from tests.session import scripted_server as script
from tests.session.scripted_server import Ensemble, Server
from tests.session.simulation import LATENCY, World, simulate, simulated
from tests.support.checkers import check_honest, check_legal
from tests.support.inside import connection_of, driver_of, password_of
from tests.support.raising import ODD, raising
from tests.support.waiting import DEADLINE

T = 12.0
ROUND_TRIP = 2 * LATENCY
MAX_REQUEST = 0xFFFFF

DISCONNECTED, CONNECTED, SUSPENDED, RECONNECTED, EXPIRED, CLOSED, FAILED = SessionState


class Client:
    """A session among simulated servers, and all that it told."""

    def __init__(self, world: World, ensemble: Ensemble, servers: int = 1, *, hosts: str = "", **options: Any) -> None:
        self.world = world
        self.ensemble = ensemble
        self.servers = [ensemble.server(f"10.0.0.{number + 1}") for number in range(servers)]
        for server in self.servers:
            world.servers[server.name, 2181] = server
        hosts = hosts or ",".join(server.name for server in self.servers)
        defaults: dict[str, Any] = {"timeout": T, "runtime": world, "max_request": MAX_REQUEST, "hooks": [self._told]}
        self.session = Session(parse_connect_string(hosts), **(defaults | options))
        self.states: list[tuple[float, SessionState]] = []
        self.told: list[tuple[str, dict[str, object]]] = []
        self._change: asyncio.Future[None] | None = None
        self.session.observe(self._changed)

    def _changed(self) -> None:
        self.states.append((self.world.loop.now, self.session.state))
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    def _told(self, name: str, fields: dict[str, object]) -> None:
        self.told.append((name, fields))

    @property
    def names(self) -> list[SessionState]:
        return [state for _, state in self.states]

    def stalls(self) -> list[object]:
        return [fields["seconds"] for name, fields in self.told if name == "session.stall"]

    def at(self, state: SessionState) -> float:
        """When it was last told."""
        return [moment for moment, told in self.states if told is state][-1]

    async def connected(self) -> Client:
        self.session.start()
        await self.session.wait_connected(100)
        return self

    async def until(self, state: SessionState, timeout: float = 1000) -> None:
        async with asyncio.timeout(timeout):
            while self.session.state is not state:
                self._change = self.world.loop.create_future()
                await self._change

    async def again(self, state: SessionState, timeout: float = 1000) -> None:
        """Wait until *state* is told once more."""
        told = self.names.count(state)
        async with asyncio.timeout(timeout):
            while self.names.count(state) == told:
                self._change = self.world.loop.create_future()
                await self._change

    async def end(self) -> None:
        await self.session.close(1)
        check_legal([state.value for state in self.names])
        await asyncio.sleep(2 * LATENCY)


def client_of(world: World, servers: int = 1, **options: Any) -> Client:
    return Client(world, Ensemble(timeout=T), servers, **options)


def server_of(client: Client) -> Server:
    """Whom it is connected to."""
    endpoint = client.session.server
    assert endpoint is not None
    return next(server for server in client.servers if server.name == endpoint.address)


# ---------------------------------------------------------------- connecting


class TestConnecting:
    @simulated
    async def test_to_a_new_session(self, world: World) -> None:
        client = client_of(world)
        session = client.session
        assert (session.state, session.connected, session.id, session.timeout) == (DISCONNECTED, False, 0, T)
        assert session.evidence_age() == float("inf")
        assert session.presumed_expired
        assert session.server is None
        await client.connected()
        assert client.names == [CONNECTED]
        assert [session.id] == list(client.ensemble.sessions)
        assert password_of(session) == client.ensemble.sessions[session.id].password
        assert (session.generation, session.history, session.earlier_ids) == (1, 0, ())
        assert session.connected
        assert not session.read_only
        assert session.last_zxid == client.ensemble.zxid
        assert session.evidence_age() < 10 * LATENCY
        assert "CONNECTED" in repr(session)
        await client.end()

    @simulated
    async def test_the_timeout_is_taken_from_every_answer(self, world: World) -> None:
        client = await client_of(world).connected()
        for timeout in (4.0, 40.0):
            client.servers[0].timeout = timeout
            client.servers[0].close_all()
            await client.again(RECONNECTED)
            assert client.session.timeout == timeout
            client.states.clear()
            await asyncio.sleep(timeout / 3 + 1)
            assert client.servers[0].asked.count(script.SYNC) >= 1
        await client.session.close(1)

    @simulated
    async def test_all_are_tried_in_an_order_of_chance(self, world: World) -> None:
        client = client_of(world, 3)
        world.servers.clear()
        client.session.start()
        await asyncio.sleep(30)
        rounds = [tuple(world.dialed[at : at + 3]) for at in range(0, len(world.dialed) - 2, 3)]
        assert all(len(set(tried)) == 3 for tried in rounds)
        assert len(set(rounds)) == 6
        await client.end()

    @simulated
    async def test_a_server_that_swallows_packets_does_not_cost_the_session(self, world: World) -> None:
        client = await client_of(world, 3).connected()
        first = server_of(client)
        session_id = client.session.id
        others = [server for server in client.servers if server is not first]
        world.servers[others[0].name, 2181] = None
        del world.servers[first.name, 2181]
        for _ in range(10):
            server_of(client).close_all()
            await client.until(SUSPENDED)
            await client.until(RECONNECTED, timeout=1)
        assert (client.session.id, server_of(client)) == (session_id, others[1])
        await client.end()

    @simulated
    async def test_servers_that_do_not_answer_the_handshake_do_not_cost_the_session(self, world: World) -> None:
        client = await client_of(world, 5).connected()
        await asyncio.sleep(T / 3 - 0.5)
        session_id, last = client.session.id, server_of(client)
        for server in client.servers:
            server.hears_nothing = server is not client.servers[-1]
        last.close_all()
        await client.until(SUSPENDED)
        await client.until(RECONNECTED, timeout=T)
        assert client.session.id == session_id
        assert server_of(client) is client.servers[-1]
        await client.end()

    @simulated
    async def test_one_handshake_at_a_time(self, world: World) -> None:
        client = client_of(world, 4)
        asking: list[int] = []

        def asked() -> None:
            asking.append(len([pipe for pipe in world.open_pipes if pipe.written]))

        for server in client.servers:
            server.hears_nothing, server.on_handshake = True, asked
        client.session.start()
        await asyncio.sleep(3 * T)
        assert len(asking) > 8
        assert set(asking) == {1}
        await client.end()

    @simulated
    async def test_a_handshake_has_a_fifth_of_the_timeout_in_the_end(self, world: World) -> None:
        """A server that starts takes connections that it never answers: who waits long at once finds out late."""
        client = client_of(world)
        moments: list[float] = []
        client.servers[0].hears_nothing = True
        client.servers[0].on_handshake = lambda: moments.append(world.loop.now)
        client.session.start()
        await asyncio.sleep(5 * T)
        waits = [after - before for before, after in itertools.pairwise(moments)]
        for wait, patience in zip(waits, [PATIENCE * 2**count for count in range(4)] + [T / 5] * 5, strict=False):
            assert wait == pytest.approx(patience, abs=0.01)
        await client.end()

    @simulated
    async def test_retries_never_end_and_never_sleep_long(self, world: World) -> None:
        client = client_of(world)
        accept = world.servers.pop((client.servers[0].name, 2181))
        client.session.start()
        await asyncio.sleep(2_000)
        world.servers[client.servers[0].name, 2181] = accept
        await client.session.wait_connected(0.3)
        assert 8 * 2_000 * 0.7 < len(world.dialed) < 8 * 2_000 * 1.3  # eight a second
        await client.end()

    @simulated
    async def test_a_server_that_closes_at_once_is_not_asked_without_a_pause(self, world: World) -> None:
        client = await client_of(world).connected()
        server = client.servers[0]
        server.unknown.add(script.GET_DATA)
        for _ in range(100):
            await client.session.wait_connected(10)
            _ = client.session.submit(GetData("/"))
            await client.until(SUSPENDED)
        assert world.loop.now > 10
        server.unknown.clear()
        await asyncio.sleep(T)
        server.close_all()
        moment = world.loop.now
        await client.again(RECONNECTED)
        assert world.loop.now - moment < 0.02  # it had lasted: at once again
        await client.end()

    @simulated
    async def test_a_connection_that_came_up_and_went_is_passed_over(self, world: World) -> None:
        client = client_of(world, 2)
        rude, fine = client.servers
        rude.first_words = b"\x00\x00\x00\x01!"
        client.session.start()
        await client.session.wait_connected(10)
        assert server_of(client) is fine
        await client.end()


class TestNames:
    @simulated
    async def test_are_looked_up_anew_for_every_round(self, world: World) -> None:
        client = client_of(world, 2, hosts="zk:2181")
        world.names["zk"] = ["10.0.0.1"]
        await client.connected()
        world.names["zk"] = ["10.0.0.2"]
        del world.servers["10.0.0.1", 2181]
        client.servers[0].close_all()
        await client.again(RECONNECTED)
        assert server_of(client) is client.servers[1]
        assert str(client.session.server) == "zk(10.0.0.2):2181"
        await client.end()

    @simulated
    async def test_that_fail_are_asked_again(self, world: World) -> None:
        client = client_of(world, hosts="zk:2181")
        world.names["zk"] = OSError("no such name")
        client.session.start()
        await asyncio.sleep(20)
        assert len(world.resolved) > 20
        world.names["zk"] = ["10.0.0.1"]
        await client.session.wait_connected(1)
        await client.end()

    @simulated
    async def test_that_hang_hold_the_others_up_for_a_moment(self, world: World) -> None:
        client = client_of(world, hosts="hangs,fails,10.0.0.1")
        world.names |= {"hangs": None, "fails": OSError("no such name")}
        await client.connected()
        assert world.loop.now == pytest.approx(HEAD_START, abs=0.02)
        await client.end()

    @pytest.mark.parametrize(
        "answer",
        [OSError(-3, "try again"), OSError(-2, "no such name"), None, []],
        ids=["again", "none", "hangs", "empty"],
    )
    @simulated
    async def test_the_last_addresses_serve_while_the_names_are_away(self, answer: Any, world: World) -> None:
        client = client_of(world, 2, hosts="zk:2181")
        world.names["zk"] = ["10.0.0.1", "10.0.0.2"]
        await client.connected()
        session_id = client.session.id
        world.names["zk"] = answer
        for _ in range(5):
            server_of(client).close_all()
            await client.again(RECONNECTED, timeout=0.5)
            await asyncio.sleep(T)
        assert client.session.id == session_id
        await client.end()

    @simulated
    async def test_one_look_up_that_hangs_does_not_keep_the_fresh_answer(self, world: World) -> None:
        client = client_of(world, 2, hosts="zk:2181")
        world.names["zk"] = ["10.0.0.1"]
        await client.connected()
        world.names["zk"] = None
        del world.servers["10.0.0.1", 2181]
        client.servers[0].close_all()
        await client.until(SUSPENDED)
        await asyncio.sleep(0.2)
        world.names["zk"] = ["10.0.0.2"]
        await client.until(RECONNECTED, timeout=1.5)
        assert server_of(client) is client.servers[1]
        await client.end()

    @simulated
    async def test_look_ups_that_hang_are_few(self, world: World) -> None:
        client = client_of(world, hosts="zk,zoo")
        world.names |= {"zk": None, "zoo": None}
        client.session.start()
        await asyncio.sleep(100 * T)
        assert (world.resolved.count("zk"), world.resolved.count("zoo")) == (3, 3)
        await client.end()

    @simulated
    async def test_an_old_answer_does_not_replace_a_newer_one(self, world: World) -> None:
        client = client_of(world, 2, hosts="zk:2181")
        world.names["zk"] = late = world.loop.create_future()
        client.session.start()
        await asyncio.sleep(1.2)  # the second look-up hangs too
        world.names["zk"] = ["10.0.0.2"]
        await client.session.wait_connected(5)
        late.set_result(["10.0.0.1"])
        await asyncio.sleep(1)
        for _ in range(3):
            world.names["zk"] = OSError("away")
            server_of(client).close_all()
            await client.again(RECONNECTED, timeout=0.5)
            assert server_of(client) is client.servers[1]
        await client.end()

    @simulated
    async def test_that_take_five_seconds_are_followed_when_they_are_answered(self, world: World) -> None:
        client = client_of(world, 2, hosts="zk:2181")
        world.names["zk"] = ["10.0.0.1"]
        await client.connected()
        world.names["zk"] = late = world.loop.create_future()
        world.servers["10.0.0.1", 2181] = None  # swallows everything
        client.servers[0].close_all()
        await client.until(SUSPENDED)
        await asyncio.sleep(5)
        late.set_result(["10.0.0.2"])
        await client.until(RECONNECTED, timeout=0.5)
        assert server_of(client) is client.servers[1]
        await client.end()

    @simulated
    async def test_that_hang_are_waited_for_once(self, world: World) -> None:
        """A session that follows an expired one begins at once although the names are still away."""
        client = client_of(world, hosts="zk:2181")
        world.names["zk"] = ["10.0.0.1"]
        await client.connected()
        world.names["zk"] = None
        client.servers[0].close_all()
        await client.until(SUSPENDED)
        await client.until(RECONNECTED, timeout=2 * HEAD_START)
        await asyncio.sleep(T)
        client.ensemble.expire(client.session.id)
        await client.until(SUSPENDED)
        moment = world.loop.now
        await client.again(CONNECTED)
        assert world.loop.now - moment < HEAD_START
        await client.end()

    @simulated
    async def test_that_raise_what_they_should_not(self, world: World) -> None:
        client = client_of(world, hosts="odd,10.0.0.1")
        world.names["odd"] = ZeroDivisionError("odd")
        await client.connected()
        await client.end()


REASONS: dict[str, tuple[Callable[[World, Server], Any], str]] = {
    "refuses": (lambda world, server: world.servers.clear(), "the connection was refused"),
    "swallows": (
        lambda world, server: world.servers.update({(server.name, 2181): None}),
        f"no connection within {T / 5:g} s",
    ),
    "hears nothing": (lambda world, server: setattr(server, "hears_nothing", True), "did not answer the handshake"),
    "closes": (lambda world, server: setattr(server, "closes", True), "the server closed the connection"),
    "HTTP": (lambda world, server: setattr(server, "raw", b"HTTP/1.1 400 Bad Request"), "the server speaks HTTP"),
    "garbage": (lambda world, server: setattr(server, "raw", bytes(range(200, 240))), "not a ZooKeeper"),
    "endless": (lambda world, server: setattr(server, "raw", b"\x00" * (1 << 20)), "malformed reply to Connect"),
    "speaks first": (
        lambda world, server: setattr(server, "first_words", b"\x00\x00\x00\x02hi"),
        "malformed reply to Connect",
    ),
    "never primed": (
        lambda world, server: server.silent_to.update({script.MULTI_READ, script.EXISTS}),
        f"accepted the session, then did not answer within {T / 3:g} s",
    ),
    "throttles": (
        lambda world, server: server.errors.update({script.MULTI_READ: script.THROTTLED}),
        "accepted the session, then failed: operation throttled",
    ),
}


class TestConnectTimeout:
    @pytest.mark.parametrize("manner", REASONS)
    @simulated
    async def test_names_the_server_and_the_reason(self, manner: str, world: World) -> None:
        client = client_of(world)
        misbehave, reason = REASONS[manner]
        misbehave(world, client.servers[0])
        client.session.start()
        with pytest.raises(ConnectTimeout) as raised:
            await client.session.wait_connected(20)
        assert world.loop.now == pytest.approx(20, abs=0.001)
        assert (raised.value.servers, raised.value.timeout) == ("10.0.0.1:2181", 20)
        assert reason in raised.value.attempts["10.0.0.1:2181"]
        assert "no ZooKeeper session on servers='10.0.0.1:2181' within timeout=20 s (10.0.0.1:2181: " in str(
            raised.value
        )
        await client.end()

    @pytest.mark.parametrize(
        ("manner", "reason"),
        [("swallows", "no connection yet"), ("hears nothing", "has not answered the handshake yet")],
    )
    @simulated
    async def test_tells_what_is_under_way(self, manner: str, reason: str, world: World) -> None:
        client = client_of(world)
        REASONS[manner][0](world, client.servers[0])
        client.session.start()
        with pytest.raises(ConnectTimeout) as raised:
            await client.session.wait_connected(0.2)
        assert raised.value.attempts == {"10.0.0.1:2181": reason}
        await client.end()

    @simulated
    async def test_tells_of_every_server_although_one_hangs(self, world: World) -> None:
        client = client_of(world, 2)
        world.servers = {("10.0.0.1", 2181): None}
        client.session.start()
        with pytest.raises(ConnectTimeout) as raised:
            await client.session.wait_connected(1)
        assert raised.value.attempts == {
            "10.0.0.1:2181": "no connection yet",
            "10.0.0.2:2181": "the connection was refused: nothing listens there",
        }
        await client.end()

    @simulated
    async def test_tells_of_names(self, world: World) -> None:
        client = client_of(world, hosts="hangs,fails:7")
        world.names |= {"hangs": None, "fails": OSError("no such name")}
        client.session.start()
        with pytest.raises(ConnectTimeout) as raised:
            await client.session.wait_connected(2)
        told = raised.value.attempts
        assert list(told) == ["hangs:2181", "fails:7"]
        assert told["hangs:2181"].startswith("the name was not resolved in time")
        assert told["fails:7"].startswith("the name was not resolved: no such name")
        await client.end()

    @simulated
    async def test_forgets_what_is_over(self, world: World) -> None:
        client = await client_of(world).connected()
        world.servers.clear()
        client.servers[0].close_all()
        await client.until(SUSPENDED)
        with pytest.raises(ConnectTimeout, match="the connection was refused"):
            await client.session.wait_connected(5)
        ((address, attempt),) = client.session.attempts.items()
        assert (address, attempt.outcome) == ("10.0.0.1:2181", AttemptOutcome.REFUSED)
        assert 20 < attempt.times < 60
        assert attempt.at - attempt.since == pytest.approx(5, abs=0.5)
        world.servers[client.servers[0].name, 2181] = client.servers[0]
        await client.session.wait_connected(5)
        (attempt,) = client.session.attempts.values()
        assert attempt.outcome is AttemptOutcome.ACCEPTED
        client.servers[0].close_all()
        await client.until(SUSPENDED)
        (attempt,) = client.session.attempts.values()
        assert (attempt.outcome, attempt.times) == (AttemptOutcome.CLOSED, 1)
        await client.end()


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


class TestOutages:
    @simulated
    async def test_one_warning_names_the_addresses_and_what_they_answered(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        world.names["zk"] = OSError("away")
        client = await client_of(world, 3, hosts="10.0.0.1,10.0.0.2,10.0.0.3,zk").connected()
        world.servers = {("10.0.0.2", 2181): None, ("10.0.0.3", 2181): client.servers[2]}
        client.servers[2].closes = True
        caplog.clear()
        for server in client.servers:
            server.close_all()
        began = world.loop.now
        await client.until(SUSPENDED)
        await asyncio.sleep(T)
        (warning,) = lines(caplog, logging.WARNING)
        assert warning.startswith("no connection to ZooKeeper for 4.0 s: ")
        for told in (
            "10.0.0.1:2181: the connection was refused",
            "10.0.0.2:2181: no connection within",
            "10.0.0.3:2181: the server closed the connection",
            "zk:2181: the name was not resolved: away",
        ):
            assert told in warning
        name = f"{client.session.id:#x}"
        assert (
            f"; the instances of session {name} stay listed for 8.0 s more, "
            "and may be removed then if there is still no connection; what to do: "
        ) in warning
        assert "; what to do: start ZooKeeper there, or correct the address; " in warning
        await asyncio.sleep(T)
        *_, warning = lines(caplog, logging.WARNING)
        assert (
            f"; session {name} has probably ended, and its instances will be listed again as soon as there is a "
            "connection; what to do: "
        ) in warning
        client.servers[2].closes = False
        await client.until(RECONNECTED)
        *_, over = lines(caplog, logging.WARNING)
        head, _, tail = over.partition("): ")
        began_at, _, failed = head.partition(" UTC, ")
        assert began_at.startswith(f"the outage is over after {world.loop.now - began:.1f} s (since 20")
        assert re.fullmatch(
            r"\d+ attempts failed"
            r"(?:[:,] \d+ (?:refused|closed by the server|without an (?:answer in time|address for the name))){4}",
            failed,
        )
        total, *each = map(int, re.findall(r"\d+", failed))
        assert total == sum(each)
        assert tail == (
            f"session {name} is reconnected to 10.0.0.3:2181 "
            "and had not ended, so its instances were listed all the time"
        )
        assert [line for line in lines(caplog, logging.INFO) if "reconnected" in line] == []
        await client.end()

    @simulated
    async def test_a_first_connection_is_asked_for_aloud(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        client = client_of(world)
        world.servers.clear()
        client.session.start()
        await asyncio.sleep(T)
        (warning,) = lines(caplog, logging.WARNING)
        assert "10.0.0.1:2181: the connection was refused" in warning
        await client.end()

    @simulated
    async def test_one_that_lasts_is_told_of_with_growing_pauses(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = client_of(world)
        world.servers.clear()
        client.session.start()
        await asyncio.sleep(3600)
        told = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert 8 < len(told) < 16
        await client.end()
        caplog.clear()
        await asyncio.sleep(3600)
        assert caplog.records == []

    @simulated
    async def test_a_moment_without_a_connection_is_none(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        client = await client_of(world, 2).connected()
        for _ in range(10):
            server_of(client).close_all()
            await client.again(RECONNECTED)
            await asyncio.sleep(2 * T)
        assert lines(caplog, logging.WARNING) == []
        await client.end()

    @pytest.mark.parametrize("served", [1.5, 2.0, 3.9])
    def test_one_begins_with_the_loss_though_nothing_was_answered_before_it(
        self, served: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first heartbeat goes after a third of the timeout: until then there is no later answer to count from."""

        async def scenario(world: World) -> None:
            client = await client_of(world).connected()
            await asyncio.sleep(served)
            world.servers.clear()
            client.servers[0].close_all()
            await client.until(SUSPENDED)
            lost = world.loop.now
            await asyncio.sleep(T / 3 - 0.1)
            assert lines(caplog, logging.WARNING) == []
            await asyncio.sleep(0.2)
            (warning,) = lines(caplog, logging.WARNING)
            assert warning.startswith(f"no connection to ZooKeeper for {T / 3:.1f} s: 10.0.0.1:2181: ")
            assert "meanwhile" not in warning
            world.servers[client.servers[0].name, 2181] = client.servers[0]
            await client.until(RECONNECTED)
            (over,) = [fields for name, fields in client.told if name == "session.outage_over"]
            assert over["seconds"] == world.loop.now - lost
            await client.end()

        simulate(scenario)

    @simulated
    async def test_one_that_is_told_before_any_attempt_has_ended_is_explained_once(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = client_of(world)
        world.servers.clear()
        client.session.start()
        world.block(T / 3 + 1)
        await asyncio.sleep(1)
        first, second = lines(caplog, logging.WARNING)
        assert first.startswith("no connection to ZooKeeper for 5.0 s: ")
        assert "refused" not in first
        assert second.startswith("no connection to ZooKeeper for 5.0 s: ")
        assert "10.0.0.1:2181: the connection was refused" in second
        (reason,) = [fields["reason"] for name, fields in client.told if name == "session.outage"]
        assert "10.0.0.1:2181: the connection was refused" in str(reason)
        await asyncio.sleep(T - 2)
        assert len(lines(caplog, logging.WARNING)) == 2
        await client.end()

    @simulated
    async def test_one_that_ends_before_it_was_explained_has_no_events(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = client_of(world)
        client.session.start()
        world.block(T / 3 + 1)
        await client.session.wait_connected(100)
        warning, over = lines(caplog, logging.WARNING)
        assert warning.startswith("no connection to ZooKeeper for 5.0 s: ")
        assert over.startswith("the outage is over after ")
        assert [name for name, _ in client.told if name.startswith("session.outage")] == []
        await client.end()

    @simulated
    async def test_the_first_connection_is_no_end_of_one(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        client = await client_of(world).connected()
        name = f"{client.session.id:#x}"
        (first,) = lines(caplog, logging.INFO)
        assert first == (
            f"session {name} is connected to 10.0.0.1:2181; session timeout {T:g} s; "
            f"servers: {client.session.connect_string}"
        )
        client.servers[0].close_all()
        await client.until(RECONNECTED)
        _, lost, back = lines(caplog, logging.INFO)
        assert lost == f"session {name} lost its connection to 10.0.0.1:2181: the server closed the connection"
        assert back.startswith("after 0.")
        assert back.endswith(
            f" s without a connection: session {name} is reconnected to 10.0.0.1:2181 and had not ended, "
            "so its instances were listed all the time"
        )
        assert [vars(record)["status"] for record in caplog.records] == ["connected", "suspended", "reconnected"]
        await client.end()
        assert lines(caplog, logging.INFO)[3:] == [f"session {name} is closed, as the program asked"]
        assert lines(caplog, logging.WARNING) == []

    @pytest.mark.parametrize("lasting", [False, True])
    def test_the_end_of_a_session_is_told_with_what_took_its_place(
        self, lasting: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario(world: World) -> None:
            client = await client_of(world).connected()
            old = f"{client.session.id:#x}"
            address = client.servers[0].name, 2181
            if lasting:
                world.servers.clear()
            client.servers[0].ensemble.expire(client.session.id)
            await client.until(SUSPENDED)
            if lasting:
                await asyncio.sleep(2 * T)
                world.servers[address] = client.servers[0]
            await client.until(CONNECTED)
            new = f"{client.session.id:#x}"
            told = lines(caplog, logging.WARNING)
            head = "the outage is over after " if lasting else "after 0."
            assert len(told) == (3 if lasting else 1)
            assert told[-1].startswith(head)
            assert told[-1].endswith(
                f": session {old} had ended; session {new} took its place on 10.0.0.1:2181, "
                f"and the instances are being listed again"
            )
            await client.end()

        simulate(scenario)

    @simulated
    async def test_one_that_goes_on_after_the_session_ended_says_so(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = await client_of(world).connected()
        old = f"{client.session.id:#x}"
        client.servers[0].ensemble.expire(client.session.id)
        await client.until(EXPIRED)
        world.servers.clear()
        client.servers[0].close_all()
        await asyncio.sleep(T)
        *_, warning = lines(caplog, logging.WARNING)
        assert f"; session {old} has ended, and its instances will be listed again as soon as " in warning
        await client.end()

    @simulated
    async def test_ends_that_come_one_after_another_are_few_lines(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        """200 within 20 s: the first is told, then their number ever more rarely, then the sum."""
        client = await client_of(world).connected()
        for _ in range(200):
            id = client.session.id
            client.ensemble.expire(id)
            await client.again(CONNECTED)
            assert client.session.id != id
            await asyncio.sleep(0.1)
        assert len(client.ensemble.sessions) == 1
        await client.end()
        warnings = lines(caplog, logging.WARNING)
        assert "had ended" in warnings[0]
        assert " in all, within " in warnings[-1]
        assert len(caplog.records) < 20

    @simulated
    async def test_connections_that_do_not_last_are_one(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        client = await client_of(world).connected()
        client.servers[0].unknown.add(script.GET_DATA)
        for _ in range(200):
            await client.session.wait_connected(10)
            _ = client.session.submit(GetData("/"))
            await client.until(SUSPENDED)
        assert world.loop.now > T
        client.servers[0].unknown.clear()
        await client.until(RECONNECTED)
        warnings = lines(caplog, logging.WARNING)
        assert warnings
        assert "10.0.0.1:2181: the server closed the connection" in warnings[0]
        assert "; connections made meanwhile lasted less than a second; " in warnings[0]
        assert len(caplog.records) < 20
        await client.end()


# ---------------------------------------------------------------- the same session, another one


class TestReconnecting:
    @simulated
    async def test_a_closed_socket_is_suspended_in_the_callback_that_reports_it(self, world: World) -> None:
        client = await client_of(world).connected()
        (pipe,) = world.open_pipes
        pipe.protocol.connection_lost(None)
        assert client.session.state is SUSPENDED
        assert not client.session.connected
        await client.until(RECONNECTED)
        await client.end()

    @simulated
    async def test_gives_the_same_session_at_once(self, world: World) -> None:
        client = await client_of(world, 3).connected()
        session_id = client.session.id
        await asyncio.sleep(T)
        for generation in range(2, 6):
            server_of(client).close_all()
            await client.until(SUSPENDED)
            await client.until(RECONNECTED, timeout=0.3)
            assert (client.session.id, client.session.generation) == (session_id, generation)
        assert client.names == [CONNECTED, *[SUSPENDED, RECONNECTED] * 4]
        assert list(client.ensemble.sessions) == [session_id]
        await client.end()

    @simulated
    async def test_offers_the_highest_zxid(self, world: World) -> None:
        client = await client_of(world).connected()
        client.ensemble.set("/a")
        await client.session.request(Exists("/a"))
        client.servers[0].close_all()
        await client.again(RECONNECTED)
        assert client.servers[0].handshakes[-1] == (client.session.id, client.ensemble.zxid, False)
        await client.end()

    @simulated
    async def test_after_an_expiry_gives_another_at_once(self, world: World) -> None:
        client = await client_of(world).connected()
        first = client.session.id
        await asyncio.sleep(T)
        client.ensemble.expire(first)
        await client.until(SUSPENDED)
        await client.until(CONNECTED, timeout=0.05)
        assert client.names == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]
        assert client.session.id != first
        assert client.session.earlier_ids == (first,)
        assert client.session.history == 0
        told = [fields for name, fields in client.told if name == "session.state"]
        assert [(fields["state"], fields["session"]) for fields in told][1:] == [
            ("suspended", first),
            ("expired", first),
            ("connected", client.session.id),
        ]
        await client.end()

    @simulated
    async def test_id_is_zero_between_two(self, world: World) -> None:
        client = await client_of(world).connected()
        ids: list[int] = []
        client.session.observe(lambda: ids.append(client.session.id))
        client.ensemble.expire(client.session.id)
        await client.until(CONNECTED, timeout=1)
        await client.until(EXPIRED) if EXPIRED not in client.names else None
        await client.until(CONNECTED)
        assert ids[1] == 0
        await client.end()

    @simulated
    async def test_only_a_server_ends_it(self, world: World) -> None:
        """However long that takes, and whatever the clock says."""
        client = await client_of(world).connected()
        session_id = client.session.id
        accept = world.servers.pop((client.servers[0].name, 2181))
        client.servers[0].close_all()
        await asyncio.sleep(100 * T)
        assert (client.session.state, client.session.id, client.session.presumed_expired) == (
            SUSPENDED,
            session_id,
            True,
        )
        world.servers[client.servers[0].name, 2181] = accept
        await client.until(RECONNECTED, timeout=1)
        assert client.session.id == session_id
        assert not client.session.presumed_expired
        await client.end()

    @simulated
    async def test_a_server_that_lags_is_passed_over(self, world: World) -> None:
        client = await client_of(world, 2).connected()
        session_id = client.session.id
        behind = next(server for server in client.servers if server is not server_of(client))
        behind.behind = True
        for _ in range(10):
            client.ensemble.servers[1 - client.servers.index(behind)].close_all()
            await client.until(SUSPENDED)
            await client.until(RECONNECTED, timeout=1)
        assert client.session.id == session_id
        await client.end()


class TestLostHistory:
    @pytest.mark.parametrize("servers", [1, 3])
    @simulated
    async def test_is_proven_and_not_waited_for(self, servers: int, world: World) -> None:
        client = await client_of(world, servers).connected()
        first = client.session.id
        await asyncio.sleep(T)
        client.ensemble.wipe()
        moment = world.loop.now
        await client.until(SUSPENDED)
        await client.until(CONNECTED, timeout=1)
        assert world.loop.now - moment < 0.3
        assert client.names == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]
        assert (client.session.history, client.session.earlier_ids) == (1, ())
        assert client.session.last_zxid == client.ensemble.zxid
        assert list(client.ensemble.sessions) == [client.session.id]
        ((_, found),) = [told for told in client.told if told[0] == "session.rollback"]
        assert found["proven"]
        assert found["ours"] == 0x101
        expired = [fields for name, fields in client.told if fields.get("state") == "expired"]
        assert [fields["session"] for fields in expired] == [first]
        await client.end()

    @simulated
    async def test_is_found_although_one_server_hangs(self, world: World) -> None:
        client = await client_of(world, 3).connected()
        client.servers[0].hears_nothing = True
        world.servers[client.servers[1].name, 2181] = None
        client.ensemble.wipe()
        await client.until(SUSPENDED)
        await client.until(CONNECTED, timeout=2 * T)
        assert client.session.history == 1
        await client.end()

    @simulated
    async def test_is_not_found_where_servers_close_for_another_reason(self, world: World) -> None:
        client = await client_of(world, 3).connected()
        session_id = client.session.id
        for server in client.servers:
            server.closes = True
            server.close_all()
        await asyncio.sleep(5 * T)
        for server in client.servers:
            server.closes = False
        await client.until(RECONNECTED, timeout=1)
        assert (client.session.id, client.session.history) == (session_id, 0)
        await client.end()

    @simulated
    async def test_a_probe_leaves_nothing_behind(self, world: World) -> None:
        client = await client_of(world).connected()
        session_id = client.session.id
        client.servers[0].closes_on_known = True
        client.servers[0].close_all()
        before = client.ensemble.zxid
        await asyncio.sleep(1.4 * T)
        assert client.session.state is SUSPENDED
        assert before < client.ensemble.zxid <= before + 9  # three transactions, half a timeout apart
        assert set(client.ensemble.sessions) - {session_id} == set() or len(client.ensemble.sessions) <= 2
        client.servers[0].closes_on_known = False
        await client.until(RECONNECTED, timeout=1)
        await asyncio.sleep(1)
        assert list(client.ensemble.sessions) == [session_id]
        await client.end()

    @simulated
    async def test_is_presumed_after_one_and_a_half_timeouts_of_a_quorum_that_serves(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].closes_on_known = True
        client.servers[0].close_all()
        moment = world.loop.now
        await client.until(SUSPENDED)
        await client.until(CONNECTED)
        assert 2 * T < world.loop.now - moment < 3.1 * T
        ((_, found),) = [told for told in client.told if told[0] == "session.rollback"]
        assert not found["proven"]
        client.servers[0].closes_on_known = False
        await client.end()

    @simulated
    async def test_an_election_costs_no_transaction(self, world: World) -> None:
        """All servers close without a word, and serve again: whoever was closed on takes up its session."""
        client = await client_of(world, 3).connected()
        for _ in range(50):
            before = client.ensemble.zxid
            for server in client.servers:
                server.closes = True
                server.close_all()
            await asyncio.sleep(world.uniform(0.1, T / 2 - 0.1))
            for server in client.servers:
                server.closes = False
            await client.until(RECONNECTED, timeout=1)
            assert client.ensemble.zxid == before
            await asyncio.sleep(2)
        assert len(client.ensemble.sessions) == 1
        await client.end()

    @simulated
    async def test_an_older_copy_that_has_our_session_is_found(self, world: World) -> None:
        client = await client_of(world, 3).connected()
        first, before = client.session.id, client.ensemble.zxid
        client.ensemble.zxid += 10
        await client.session.request(Sync("/"))
        client.ensemble.zxid = before
        for server in client.servers:
            server.close_all()
        moment = world.loop.now
        await client.until(SUSPENDED)
        await client.until(CONNECTED, timeout=1)
        assert world.loop.now - moment < 0.3
        assert client.names == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]
        ((_, found),) = [told for told in client.told if told[0] == "session.rollback"]
        assert (found["proven"], found["ours"]) == (True, before + 10)
        assert (client.session.history, client.session.earlier_ids) == (1, (first,))
        assert client.session.id != first
        await client.end()

    @simulated
    async def test_servers_that_close_on_everybody_are_asked_eight_times_a_second(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].closes = True
        client.servers[0].close_all()
        world.dialed.clear()
        await asyncio.sleep(1_000)
        assert 7_000 < len(world.dialed) < 9_000
        client.servers[0].closes = False
        await client.until(RECONNECTED, timeout=0.5)
        await client.end()

    @simulated
    async def test_a_throttled_probe_proves_nothing(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].closes_on_known = True
        client.servers[0].errors[script.DELETE] = script.THROTTLED
        client.servers[0].close_all()
        await asyncio.sleep(10 * T)
        assert (client.session.state, client.session.history) == (SUSPENDED, 0)
        client.servers[0].closes_on_known = False
        await client.until(RECONNECTED, timeout=1)
        await client.end()

    @simulated
    async def test_evidence_of_a_probe_is_as_old_as_its_sending(self, world: World) -> None:
        client = await client_of(world).connected()
        ages: list[float] = []

        def expired() -> None:
            if client.session.state is CONNECTED:
                ages.append(client.session.evidence_age())

        client.session.observe(expired)
        client.servers[0].silent_to.add(script.DELETE)
        client.ensemble.wipe()
        await client.until(SUSPENDED)
        while script.DELETE not in client.servers[0].asked:
            await asyncio.sleep(LATENCY / 4)
        (link,) = client.servers[0].links
        link.reply(1, 2, script.NO_NODE)
        world.block(T / 5)  # the answer lies in the buffer
        await client.until(CONNECTED)
        assert ages[0] >= T / 5
        await client.end()


class TestReadOnly:
    @simulated
    async def test_is_refused_unless_asked_for(self, world: World) -> None:
        client = client_of(world)
        client.servers[0].read_only = True
        client.session.start()
        with pytest.raises(ConnectTimeout):
            await client.session.wait_connected(10)
        await client.end()

    @simulated
    async def test_serves_and_claims_nothing(self, world: World) -> None:
        client = client_of(world, allow_read_only=True)
        server = client.servers[0]
        server.read_only, server.timeout = True, 6.0
        await client.connected()
        session = client.session
        assert (session.state, session.read_only, session.id) == (CONNECTED, True, 0)
        assert session.presumed_expired
        assert await session.request(Exists("/"))
        assert session.last_zxid == 0  # what a server without quorum has may be undone
        await asyncio.sleep(5.9)
        assert server.asked.count(script.EXISTS) == 3  # by its own timeout, not the one asked for
        server.read_only, server.timeout = False, None
        await client.until(SUSPENDED, timeout=1)
        await client.until(EXPIRED, timeout=1)
        await client.until(CONNECTED, timeout=1)
        assert not session.read_only
        assert [session.id] == list(client.ensemble.sessions)
        await client.end()

    @pytest.mark.parametrize("known", [False, True])
    def test_one_that_says_so_unasked_is_told_of_as_what_it_is(
        self, known: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario(world: World) -> None:
            client = client_of(world)
            if known:
                await client.connected()
            client.servers[0].read_only = True
            client.servers[0].close_all()
            if not known:
                client.session.start()
            monkeypatch.setattr(
                script.Link, "_greet_alone", lambda link, session_id, _: greet_alone(link, session_id, True)
            )
            await asyncio.sleep(T / 3 + 1)
            (warning,) = lines(caplog, logging.WARNING)
            assert "10.0.0.1:2181: has no quorum" in warning
            assert client.session.attempts["10.0.0.1:2181"].outcome is AttemptOutcome.NO_QUORUM
            await client.end()

        greet_alone: Any = script.Link._greet_alone
        simulate(scenario)

    @simulated
    async def test_is_no_word_about_a_session(self, world: World) -> None:
        client = await client_of(world, allow_read_only=True).connected()
        session_id = client.session.id
        client.servers[0].read_only = True
        client.servers[0].close_all()
        await asyncio.sleep(3 * T)
        assert (client.session.state, client.session.id) == (SUSPENDED, session_id)
        client.servers[0].read_only = False
        await client.until(RECONNECTED, timeout=1)
        await client.end()


# ---------------------------------------------------------------- heartbeats


class TestHeartbeats:
    @simulated
    async def test_are_a_sync_every_third_of_the_timeout(self, world: World) -> None:
        client = await client_of(world).connected()
        await asyncio.sleep(10 * T - 1)
        asked = [opcode for opcode in client.servers[0].asked if opcode != script.MULTI_READ]
        assert set(asked) == {script.SYNC}
        assert len(asked) == 29
        assert client.names == [CONNECTED]
        assert client.session.evidence_age() < T / 3
        await client.end()

    @simulated
    async def test_writes_are_as_good(self, world: World) -> None:
        client = await client_of(world).connected()
        for _ in range(20):
            await asyncio.sleep(T / 4)
            with pytest.raises(NoNode):
                await client.session.request(Delete("/absent"))
        assert script.SYNC not in client.servers[0].asked
        await client.end()

    @simulated
    async def test_reads_are_not(self, world: World) -> None:
        client = await client_of(world).connected()
        for _ in range(38):
            await asyncio.sleep(T / 20)
            await client.session.request(Exists("/"))
        assert client.servers[0].asked.count(script.SYNC) == 5
        await client.end()

    @pytest.mark.parametrize("traffic", [None, Exists("/"), Delete("/absent")], ids=repr)
    @pytest.mark.parametrize("begins", [0.0, 0.9, 4.1])
    @simulated
    async def test_silence_is_noticed_after_two_thirds_of_the_timeout(
        self, traffic: Any, begins: float, world: World
    ) -> None:
        """Counted from the last request that was answered; not later, whatever is being sent meanwhile."""
        client = await client_of(world).connected()
        await asyncio.sleep(begins)
        if traffic is not None:
            for _ in range(3):
                await asyncio.gather(client.session.request(traffic), return_exceptions=True)
        since = world.loop.now - client.session.evidence_age()
        client.servers[0].silent = True
        while client.session.state is CONNECTED:
            if traffic is not None:
                _ = client.session.submit(traffic)
            await asyncio.sleep(0.1)
        assert client.at(SUSPENDED) - since == pytest.approx(2 * T / 3, abs=0.01)
        client.servers[0].silent = False
        await client.until(RECONNECTED, timeout=T)
        await client.end()

    @simulated
    async def test_a_server_that_answers_all_but_syncs_is_left(self, world: World) -> None:
        """A follower that was cut off from its leader answers pings and reads for as long as it does not know."""
        client = await client_of(world, 2).connected()
        cut_off = server_of(client)
        session_id = client.session.id
        cut_off.silent_to |= {script.SYNC, script.DELETE, script.CREATE}
        cut_off.hears_nothing = True  # whose session it is only the leader could tell
        since = world.loop.now - client.session.evidence_age()
        while client.session.state is CONNECTED:
            _ = client.session.submit(Exists("/"))
            check_honest(claimed=not client.session.presumed_expired, contact_age=world.loop.now - since, timeout=T)
            await asyncio.sleep(0.05)
        assert client.at(SUSPENDED) - since == pytest.approx(2 * T / 3, abs=0.01)
        await client.until(RECONNECTED, timeout=T)
        assert (client.session.id, server_of(client) is cut_off) == (session_id, False)
        await client.end()

    @simulated
    async def test_an_answer_to_a_write_that_comes_late_gives_its_time(self, world: World) -> None:
        """The server is slow: what it answers proves its life up to when that was sent."""
        client = await client_of(world).connected()
        server = client.servers[0]
        await asyncio.sleep(T / 3 - 1)
        server.silent_to |= {script.DELETE, script.SYNC}
        sent = world.loop.now
        write = client.session.submit(Delete("/absent"))
        await asyncio.sleep(1.5)
        assert server.asked[-2:] == [script.DELETE, script.SYNC]
        (link,) = server.links
        link.reply(2, client.ensemble.zxid, script.NO_NODE)
        await client.until(SUSPENDED)
        assert isinstance(write.exception(), NoNode)
        assert client.at(SUSPENDED) - sent == pytest.approx(2 * T / 3, abs=0.01)
        server.silent_to.clear()
        await client.end()

    @simulated
    async def test_an_error_is_no_evidence_and_no_reason_to_hurry(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].errors[script.SYNC] = script.THROTTLED
        since = world.loop.now - client.session.evidence_age()
        await client.until(SUSPENDED)
        turn = T / 3 / TURNS
        assert client.at(SUSPENDED) - since == pytest.approx(2 * T / 3, abs=turn)
        assert TURNS - 1 <= client.servers[0].asked.count(script.SYNC) <= TURNS + 1
        client.servers[0].errors.clear()
        await client.end()

    @simulated
    async def test_why_it_was_left_is_what_pending_requests_hear(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].silent = True
        waiting = client.session.submit(Create("/a", b""))
        await client.until(SUSPENDED)
        error = waiting.exception()
        assert isinstance(error, ConnectionLost)
        assert error.maybe_applied
        assert "did not answer a sync within 4 s" in str(error)
        client.servers[0].silent = False
        await client.end()


class TestStalls:
    @simulated
    async def test_are_told_and_not_blamed_on_the_server(self, world: World) -> None:
        client = await client_of(world).connected()
        for seconds in (T / 2, T, 3 * T):
            await asyncio.sleep(T / 3 - 0.1)
            world.block(seconds)
            await asyncio.sleep(1)
        assert client.names == [CONNECTED]
        assert len(client.stalls()) == 3
        assert client.stalls()[0] == pytest.approx(T / 2, abs=0.5)
        await client.end()

    @simulated
    async def test_of_no_consequence_are_not_told(self, world: World) -> None:
        client = await client_of(world).connected()
        for _ in range(50):
            world.block(T / 20)
            await asyncio.sleep(T / 10)
        assert client.stalls() == []
        await client.end()

    @simulated
    async def test_while_a_beat_is_under_way(self, world: World) -> None:
        client = await client_of(world).connected()
        server = client.servers[0]
        while script.SYNC not in server.asked:
            await asyncio.sleep(LATENCY / 4)
        world.block(T)  # its answer lies in the buffer
        assert client.session.presumed_expired
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert client.session.presumed_expired  # found, and as old as it is
        await asyncio.sleep(1)
        assert not client.session.presumed_expired
        assert client.names == [CONNECTED]
        await client.end()

    @simulated
    async def test_a_server_that_is_silent_is_left_after_as_much_listening_as_without_one(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].silent = True
        await asyncio.sleep(T / 2)  # it was asked at a third
        world.block(T)
        moment = world.loop.now
        await client.until(SUSPENDED)
        assert client.at(SUSPENDED) - moment == pytest.approx(T / 6, abs=T / 3 / TURNS)
        client.servers[0].silent = False
        await client.end()

    @pytest.mark.parametrize("seconds", [0.05, 0.3, 0.9, T / 10, T / 4])
    @simulated
    async def test_a_loop_with_too_much_to_do_leaves_no_server(self, seconds: float, world: World) -> None:
        """Each turn takes so long: whatever was asked is sent late, and the answer is read late."""
        client = await client_of(world, 3).connected()

        def work() -> None:
            world.block(seconds)
            if world.loop.now < 30 * T:
                world.loop.call_later(0.001, work)

        work()
        await asyncio.sleep(30 * T)
        assert client.names == [CONNECTED]
        assert client.session.generation == 1
        await client.end()

    @pytest.mark.parametrize("seconds", [0.3, 0.9])
    @simulated
    async def test_a_loop_with_too_much_to_do_connects_at_the_first_attempt(self, seconds: float, world: World) -> None:
        client = client_of(world, 3)

        def work() -> None:
            world.block(seconds)
            if not client.session.connected and world.loop.now < 30 * T:
                world.loop.call_later(0.001, work)

        client.session.start()
        work()
        await client.session.wait_connected(30 * T)
        assert sum(len(server.handshakes) for server in client.servers) == 1
        await client.end()

    @simulated
    async def test_sleep_ends_every_claim_at_once(self, world: World) -> None:
        client = await client_of(world).connected()
        await asyncio.sleep(1)
        assert not client.session.presumed_expired
        world.sleep(T)
        assert client.session.presumed_expired
        assert client.session.evidence_age() > T
        await asyncio.sleep(T / 3 + 0.1)
        assert not client.session.presumed_expired
        assert client.names == [CONNECTED]
        assert len(client.stalls()) == 1
        await client.end()


# ---------------------------------------------------------------- a session that has moved


@simulated
async def test_a_server_that_says_that_the_session_has_moved_is_left(world: World) -> None:
    """It goes on answering heartbeats, as a follower of 3.5 does: nothing else would end this."""
    client = await client_of(world).connected()
    server = client.servers[0]
    server.errors = {Delete.opcode: SessionMoved.code}
    with pytest.raises(SessionMoved):
        await client.session.request(Delete("/a"))
    await client.again(RECONNECTED)
    assert client.names == [CONNECTED, SUSPENDED, RECONNECTED]
    assert len({offered for offered, _, _ in server.handshakes}) == 2  # none, then the same again
    await client.end()


# ---------------------------------------------------------------- priming


class TestPriming:
    @simulated
    async def test_is_credentials_then_what_the_server_knows_then_watches(self, world: World) -> None:
        client = client_of(world, auth=[("digest", b"a:b"), ("x509", b"c")])
        await client.connected()
        server = client.servers[0]
        assert server.asked == [script.AUTH, script.AUTH, script.MULTI_READ]
        assert client.session.supports(MultiRead.opcode) is True
        assert client.session.supports(AddWatch.opcode) is None
        client.session.watches.listen("/", lambda _: None)
        await client.session.request(GetData("/", watch=True))
        server.asked.clear()
        server.close_all()
        await client.again(RECONNECTED)
        assert server.asked == [script.AUTH, script.AUTH, script.SET_WATCHES]
        await client.end()

    @simulated
    async def test_an_old_server_is_asked_once_and_tells_nobody_before_it_serves(self, world: World) -> None:
        """It answers Unimplemented and closes."""
        client = client_of(world)
        server = client.servers[0]
        server.unknown = {script.MULTI_READ, script.ADD_WATCH, script.SET_WATCHES2}
        await client.connected()
        await asyncio.sleep(1)
        assert client.names == [CONNECTED]
        assert client.session.supports(MultiRead.opcode) is False
        server.close_all()
        await client.again(RECONNECTED)
        assert server.asked.count(script.MULTI_READ) == 1
        watch = client.session.watches.listen_tree("/", lambda _: None)
        with pytest.raises(UnsupportedServer, match=r"10\.0\.0\.1:2181 has no recursive watches"):
            await watch.arm()
        assert script.ADD_WATCH not in server.asked
        watch.close()
        await client.end()

    @simulated
    async def test_an_old_server_that_keeps_the_connection(self, world: World) -> None:
        client = client_of(world)
        client.servers[0].unknown_but_kept = {script.MULTI_READ}
        await client.connected()
        assert client.session.supports(MultiRead.opcode) is False
        assert len(world.dialed) == 1
        await client.end()

    @simulated
    async def test_what_one_server_knows_is_not_what_another_knows(self, world: World) -> None:
        client = await client_of(world, 2).connected()
        known = server_of(client)
        other = next(server for server in client.servers if server is not known)
        other.unknown = {script.MULTI_READ}
        del world.servers[known.name, 2181]
        known.close_all()
        await client.again(RECONNECTED)
        assert client.session.supports(MultiRead.opcode) is False
        await client.end()

    @pytest.mark.parametrize(
        "misbehave",
        [
            lambda server: server.silent_to.add(script.AUTH),
            lambda server: server.errors.update({script.MULTI_READ: script.THROTTLED}),
            lambda server: server.errors.update({script.MULTI_READ: -112}),
            lambda server: server.errors.update({script.AUTH: -1}),
        ],
    )
    @simulated
    async def test_a_server_that_fails_in_the_middle_costs_nothing(
        self, misbehave: Callable[[Server], Any], world: World
    ) -> None:
        client = client_of(world, auth=[("digest", b"a:b")])
        server = client.servers[0]
        misbehave(server)
        client.session.start()
        await asyncio.sleep(3 * T)
        assert client.names == []
        server.silent_to.clear()
        server.errors.clear()
        await client.session.wait_connected(T)
        await client.end()

    @simulated
    async def test_a_server_of_an_older_version_at_the_same_address(self, world: World) -> None:
        client = await client_of(world).connected()
        server = client.servers[0]
        watch = client.session.watches.listen_tree("/", lambda _: None)
        await watch.arm()
        server.unknown = {script.MULTI_READ, script.ADD_WATCH, script.SET_WATCHES2}
        server.close_all()
        await client.again(RECONNECTED, timeout=5)
        assert client.session.supports(AddWatch.opcode) is None
        assert client.session.supports(MultiRead.opcode) is False
        await client.end()

    @simulated
    async def test_a_connection_lost_in_the_middle_of_it(self, world: World) -> None:
        client = client_of(world)
        server = client.servers[0]
        server.silent_to |= {script.MULTI_READ, script.EXISTS}
        client.session.start()
        for _ in range(5):
            while not server.silent_to.intersection(server.asked):
                await asyncio.sleep(LATENCY / 4)
            server.asked.clear()
            server.close_all()
            await asyncio.sleep(0.3)
        assert client.names == []
        assert len(client.ensemble.sessions) == 1  # it is offered again, not replaced
        server.silent_to.clear()
        server.close_all()
        await client.session.wait_connected(1)
        await client.end()


class TestCredentials:
    async def refused(self, world: World, *, schemes: set[str] | None = None) -> Client:
        client = client_of(world, auth=[("digest", b"a:secret"), ("other", b"secret too")])
        client.servers[0].refused_schemes = schemes or {"other"}
        return client

    @simulated
    async def test_refused_end_it_for_everybody(self, world: World) -> None:
        client = await self.refused(world)
        session = client.session
        states = session.states()
        waiting = asyncio.ensure_future(session.wait_connected())
        reading = asyncio.ensure_future(session.read(Exists("/")))
        session.start()
        for each in (waiting, reading):
            with pytest.raises(SessionFailed, match="refused the credentials of scheme='other'") as raised:
                await each
            assert isinstance(raised.value.__cause__, AuthenticationFailed)
        assert await anext(states) is FAILED
        with pytest.raises(AuthenticationFailed):
            await anext(states)
        with pytest.raises(AuthenticationFailed):
            await anext(session.states())
        with pytest.raises(SessionFailed):
            await session.request(Exists("/"))
        with pytest.raises(SessionFailed):
            await session.wait_connected(1)
        assert isinstance(session.failure, AuthenticationFailed)
        assert (session.failure.scheme, session.failure.server) == ("other", "10.0.0.1:2181")
        assert client.names == [FAILED]
        await client.end()
        assert session.state is FAILED

    @simulated
    async def test_are_not_shown(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        client = await self.refused(world)
        with caplog.at_level(logging.DEBUG):
            client.session.start()
            with pytest.raises(SessionFailed) as raised:
                await client.session.wait_connected(1)
        assert "secret" not in caplog.text + str(raised.value) + repr(raised.value.__cause__) + repr(client.session)
        await client.end()

    @simulated
    async def test_that_are_no_longer_good_after_a_reconnect(self, world: World) -> None:
        client = client_of(world, auth=[("digest", b"a:b")])
        await client.connected()
        client.servers[0].refused_schemes = {"digest"}
        client.servers[0].close_all()
        await client.until(FAILED, timeout=1)
        assert client.names == [CONNECTED, SUSPENDED, FAILED]
        await client.end()


# ---------------------------------------------------------------- requests


class TestRequests:
    @simulated
    async def test_before_there_is_a_connection(self, world: World) -> None:
        client = client_of(world)
        with pytest.raises(ConnectionLost, match=r"no connection to 10\.0\.0\.1:2181") as raised:
            await client.session.request(Delete("/a"))
        assert not raised.value.maybe_applied
        client.session.start()
        await client.session.close(1)

    @simulated
    async def test_after_it_was_closed(self, world: World) -> None:
        client = await client_of(world).connected()
        await client.end()
        with pytest.raises(SessionClosed):
            await client.session.request(Exists("/"))
        with pytest.raises(SessionClosed):
            await client.session.wait_connected()
        with pytest.raises(SessionClosed):
            await client.session.read(Exists("/"))

    @simulated
    async def test_cancelling_forgets_the_answer_only(self, world: World) -> None:
        client = await client_of(world).connected()
        creating = asyncio.ensure_future(client.session.request(Create("/a", b"")))
        await asyncio.sleep(0)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert await client.session.request(Exists("/a"))
        await client.end()

    @simulated
    async def test_reads_are_repeated_on_the_next_connection(self, world: World) -> None:
        client = await client_of(world).connected()
        server = client.servers[0]
        server.silent_to.add(script.EXISTS)
        reading = asyncio.ensure_future(client.session.read(Exists("/")))
        for _ in range(3):
            await asyncio.sleep(1)
            server.close_all()
            await client.until(SUSPENDED)
            await client.until(RECONNECTED)
        server.silent_to.clear()
        server.close_all()
        assert (await reading).value
        await client.end()

    @simulated
    async def test_in_one_turn_go_to_one_connection(self, world: World) -> None:
        client = await client_of(world).connected()
        futures = [client.session.submit(each) for each in (Sync("/"), Exists("/"), Create("/a", b""))]
        await asyncio.gather(*futures)
        assert client.servers[0].asked[-3:] == [script.SYNC, script.EXISTS, script.CREATE]
        assert [future.result().zxid for future in futures] == [0x101, 0x101, 0x102]
        await client.end()

    @simulated
    async def test_that_are_too_large_cost_nothing(self, world: World) -> None:
        client = await client_of(world).connected()
        with pytest.raises(RequestTooLarge):
            await client.session.request(Create("/a", bytes(MAX_REQUEST)))
        await client.session.request(Exists("/"))
        assert client.names == [CONNECTED]
        await client.end()

    @simulated
    async def test_errors_of_the_server_are_raised(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].errors[script.EXISTS] = script.THROTTLED
        with pytest.raises(Throttled):
            await client.session.request(Exists("/"))
        await client.end()


class TestWaiting:
    @simulated
    async def test_returns_at_once_where_there_is_a_connection(self, world: World) -> None:
        client = await client_of(world).connected()
        moment = world.loop.now
        await client.session.wait_connected(0)
        assert world.loop.now == pytest.approx(moment)
        await client.end()

    @simulated
    async def test_can_be_cancelled(self, world: World) -> None:
        client = client_of(world)
        world.servers.clear()
        client.session.start()
        waiting = asyncio.ensure_future(client.session.wait_connected())
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert client.session.state is DISCONNECTED
        await client.end()
        assert len(driver_of(client.session).phase_changes) == 0

    @simulated
    async def test_ends_when_the_session_is_closed(self, world: World) -> None:
        client = client_of(world)
        world.servers.clear()
        client.session.start()
        waiting = asyncio.ensure_future(client.session.wait_connected())
        await asyncio.sleep(1)
        await client.end()
        with pytest.raises(SessionClosed):
            await waiting


# ---------------------------------------------------------------- watches


class TestWatches:
    @simulated
    async def test_one_shot(self, world: World) -> None:
        client = await client_of(world).connected()
        told: list[WatchedEvent] = []
        watch = client.session.watches.listen("/a", told.append)
        with pytest.raises(NoNode):
            await client.session.request(Exists("/a", watch=True))
        client.ensemble.set("/a")
        client.ensemble.set("/a")
        await asyncio.sleep(1)
        assert told == [WatchedEvent(EventKind.CREATED, 3, "/a", -1)]
        watch.close()
        watch.close()
        await client.end()

    @pytest.mark.parametrize("servers", [1, 2])
    @simulated
    async def test_what_changed_while_disconnected_is_told(self, servers: int, world: World) -> None:
        """Also by a server that was never asked anything: its first answer carries a zxid of after the change."""
        client = await client_of(world, servers).connected()
        told: list[str] = []
        session, ensemble, first = client.session, client.ensemble, server_of(client)
        for path in ("/changed", "/deleted", "/same", "/parent"):
            ensemble.set(path)
        for path in ("/changed", "/deleted", "/same", "/parent", "/created"):
            session.watches.listen(path, lambda event: told.append(f"{event.kind.name} {event.path}"))
            read = GetChildren(path, watch=True) if path == "/parent" else Exists(path, watch=True)
            await asyncio.gather(session.request(read), return_exceptions=True)
        if servers > 1:
            del world.servers[first.name, 2181]
        first.close_all()
        await client.until(SUSPENDED)
        for path in ("/changed", "/created", "/parent/child"):
            ensemble.set(path)
        ensemble.delete("/deleted")
        await client.until(RECONNECTED)
        await asyncio.sleep(1)
        assert sorted(told) == [
            "CHILDREN_CHANGED /parent",
            "CREATED /created",
            "DATA_CHANGED /changed",
            "DELETED /deleted",
        ]
        ensemble.set("/same")
        await asyncio.sleep(1)
        assert told[-1] == "DATA_CHANGED /same"
        await client.end()

    @simulated
    async def test_after_an_expiry_they_are_armed_again(self, world: World) -> None:
        client = await client_of(world).connected()
        told: list[WatchedEvent] = []
        client.session.watches.listen("/", told.append)
        await client.session.request(GetData("/", watch=True))
        client.ensemble.expire(client.session.id)
        await client.until(SUSPENDED)
        await client.until(CONNECTED)
        client.ensemble.set("/")
        await asyncio.sleep(1)
        assert [event.path for event in told] == ["/"]
        await client.end()

    @simulated
    async def test_after_a_lost_history_everything_is_news(self, world: World) -> None:
        client = await client_of(world).connected()
        told: list[str] = []
        client.ensemble.set("/a")
        for path in ("/a", "/"):
            client.session.watches.listen(path, lambda event: told.append(f"{event.kind.name} {event.path}"))
            await client.session.request(GetData(path, watch=True))
        client.ensemble.wipe()
        client.ensemble.nodes["/"].mzxid = 1
        await client.until(SUSPENDED)
        await client.until(CONNECTED)
        await asyncio.sleep(1)
        assert sorted(told) == ["DATA_CHANGED /", "DELETED /a"]
        await client.end()

    @simulated
    async def test_recursive(self, world: World) -> None:
        client = await client_of(world).connected()
        told: list[str] = []
        watch = client.session.watches.listen_tree("/a", lambda event: told.append(event.path))
        await watch.arm()
        await watch.arm()
        assert client.servers[0].asked.count(script.ADD_WATCH) == 1
        assert client.session.supports(AddWatch.opcode) is True
        for path in ("/a", "/a/b", "/c", "/a/b"):
            client.ensemble.set(path)
        await asyncio.sleep(1)
        assert told == ["/a", "/a/b", "/a/b"]
        watch.close()
        await asyncio.sleep(1)
        assert client.servers[0].asked[-1] == script.REMOVE_WATCHES
        client.ensemble.set("/a")
        await asyncio.sleep(1)
        assert len(told) == 3
        await watch.arm()  # nobody's any more
        assert client.servers[0].asked.count(script.ADD_WATCH) == 1
        await client.end()

    @simulated
    async def test_recursive_and_one_shot_on_one_path(self, world: World) -> None:
        client = await client_of(world).connected()
        tree: list[str] = []
        exact: list[str] = []
        watch = client.session.watches.listen_tree("/", lambda event: tree.append(event.path))
        client.session.watches.listen("/", lambda event: exact.append(event.path))
        await watch.arm()
        await client.session.request(GetData("/", watch=True))
        client.ensemble.set("/a")
        client.ensemble.set("/")
        await asyncio.sleep(1)
        assert (tree, exact) == (["/a", "/"], ["/"])
        client.servers[0].close_all()
        await client.until(SUSPENDED)
        client.ensemble.set("/")
        await client.until(RECONNECTED)
        await asyncio.sleep(1)
        client.ensemble.set("/a")
        await asyncio.sleep(1)
        assert (tree, exact) == (["/a", "/", "/", "/a"], ["/", "/"])
        await client.end()

    @simulated
    async def test_a_read_between_asking_for_a_recursive_one_and_its_answer(self, world: World) -> None:
        client = await client_of(world).connected()
        tree: list[str] = []
        watch = client.session.watches.listen_tree("/", lambda event: tree.append(event.path))
        client.session.watches.listen("/", lambda _: None)
        arming = asyncio.ensure_future(watch.arm())
        await asyncio.sleep(0)
        await client.session.request(GetData("/", watch=True))
        await arming
        assert client.servers[0].asked.count(script.ADD_WATCH) == 2
        client.ensemble.set("/a")
        await asyncio.sleep(1)
        assert tree == ["/a"]
        await client.end()

    @simulated
    async def test_one_that_nobody_wants_when_it_is_set(self, world: World) -> None:
        client = await client_of(world).connected()
        watch = client.session.watches.listen_tree("/", lambda _: None)
        arming = asyncio.ensure_future(watch.arm())
        await asyncio.sleep(0)
        watch.close()
        await arming
        await asyncio.sleep(1)
        assert client.servers[0].asked[-2:] == [script.ADD_WATCH, script.REMOVE_WATCHES]
        await client.end()

    @pytest.mark.parametrize("kept", [False, True])
    @simulated
    async def test_recursive_on_a_server_without(self, kept: bool, world: World) -> None:
        client = await client_of(world).connected()
        unknown = client.servers[0].unknown_but_kept if kept else client.servers[0].unknown
        unknown.add(script.ADD_WATCH)
        watch = client.session.watches.listen_tree("/", lambda _: None)
        with pytest.raises(UnsupportedServer):
            await watch.arm()
        await client.session.wait_connected(5)
        assert client.session.supports(AddWatch.opcode) is False
        with pytest.raises(UnsupportedServer):
            await watch.arm()
        assert client.servers[0].asked.count(script.ADD_WATCH) == 1
        await client.end()

    @simulated
    async def test_arming_without_a_connection(self, world: World) -> None:
        client = client_of(world)
        watch = client.session.watches.listen_tree("/", lambda _: None)
        with pytest.raises(ConnectionLost):
            await watch.arm()
        watch.close()

    @simulated
    async def test_one_closed_by_another_is_not_called(self, world: World) -> None:
        client = await client_of(world).connected()
        told: list[str] = []
        first = client.session.watches.listen("/", lambda _: second.close())
        second = client.session.watches.listen("/", lambda _: told.append("second"))
        await client.session.request(GetData("/", watch=True))
        client.ensemble.set("/")
        await asyncio.sleep(1)
        assert told == []
        first.close()
        await client.end()


class TestDefectsOfOthers:
    """An error in a room above, or in a user's hook, costs a log line and nothing else."""

    @simulated
    async def test_an_observer_that_raises(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        client = client_of(world)
        after: list[SessionState] = []

        def broken() -> None:
            raise ZeroDivisionError

        client.session.observe(broken)
        remove = client.session.observe(lambda: after.append(client.session.state))
        await client.connected()
        client.servers[0].close_all()
        await client.again(RECONNECTED)
        assert after == client.names == [CONNECTED, SUSPENDED, RECONNECTED]
        assert "ZeroDivisionError" in caplog.text
        remove()
        remove()
        await client.end()
        assert after == [CONNECTED, SUSPENDED, RECONNECTED]

    @simulated
    async def test_a_watch_that_raises(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        client = await client_of(world).connected()
        told: list[WatchedEvent] = []

        def broken(_: WatchedEvent) -> None:
            raise ZeroDivisionError

        client.session.watches.listen("/", broken)
        client.session.watches.listen("/", told.append)
        await client.session.request(GetData("/", watch=True))
        client.ensemble.set("/")
        await asyncio.sleep(1)
        assert (len(told), client.names) == (1, [CONNECTED])
        assert "ZeroDivisionError" in caplog.text
        await client.end()

    @simulated
    async def test_a_hook_that_raises(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        def broken(name: str, fields: dict[str, object]) -> None:
            raise ZeroDivisionError

        client = client_of(world, hooks=[broken])
        await client.connected()
        assert "on_event raised on session.state" in caplog.text
        await client.end()


# ---------------------------------------------------------------- the end


def misbehaving(**manners: Any) -> Callable[[Client], None]:
    def apply(client: Client) -> None:
        for server in client.servers:
            for name, value in manners.items():
                setattr(server, name, value)

    return apply


def unreachable(client: Client) -> None:
    client.world.servers.clear()


def swallowed(client: Client) -> None:
    client.world.servers = dict.fromkeys(client.world.servers)


def nameless(client: Client) -> None:
    for server in client.servers:
        client.world.names[server.name] = None


SITUATIONS: dict[str, Callable[[Client], None]] = {
    "all is well": misbehaving(),
    "unreachable": unreachable,
    "swallowed": swallowed,
    "nameless": nameless,
    "hears nothing": misbehaving(hears_nothing=True),
    "closes": misbehaving(closes=True),
    "closes on known": misbehaving(closes_on_known=True),
    "never primed": misbehaving(silent_to={script.MULTI_READ}),
    "silent": misbehaving(silent=True),
    "no probe is answered": misbehaving(closes_on_known=True, silent_to={script.DELETE}),
}


class TestClosing:
    @simulated
    async def test_closing_that_is_cancelled_late_still_ends_what_repeats(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = await client_of(world).connected()
        for _ in range(2):
            client.session._repeated.tell("odd", logging.WARNING, "odd")
        look_up = world.loop.create_future()  # one that does not end though it is cancelled
        monkeypatch.setattr(client.session._connector, "cancel", lambda: [look_up])
        closing = asyncio.create_task(client.session.close(1))
        await client.until(CLOSED)
        await asyncio.sleep(0.5)
        assert lines(caplog, logging.WARNING) == ["odd"]
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert lines(caplog, logging.WARNING)[1:] == ["this has stopped: 2 in all, within 0.1 s, the last: odd"]
        look_up.cancel()

    @simulated
    async def test_what_is_not_answered_before_the_end_is_not_told_how_the_connection_began(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].silent = True
        unanswered = client.session.submit(Exists("/"))
        await client.end()
        with pytest.raises(ConnectionLost, match="the session left it"):
            await unanswered

    @simulated
    async def test_ends_the_session_on_the_server(self, world: World) -> None:
        client = await client_of(world).connected()
        moment = world.loop.now
        await client.session.close(5)
        assert world.loop.now - moment < 10 * LATENCY
        assert client.ensemble.sessions == {}
        assert client.session.state is CLOSED
        await client.session.close(5)
        assert client.names == [CONNECTED, CLOSED]

    @simulated
    async def test_answers_first_what_was_asked(self, world: World) -> None:
        client = await client_of(world).connected()
        asked = client.session.submit(Create("/a", b""))
        await client.session.close(5)
        assert asked.result().value == "/a"

    @simulated
    async def test_is_bounded(self, world: World) -> None:
        client = await client_of(world).connected()
        client.servers[0].silent = True
        moment = world.loop.now
        await client.session.close(2)
        assert world.loop.now - moment == pytest.approx(2)

    @simulated
    async def test_without_ever_being_started(self, world: World) -> None:
        client = client_of(world)
        await client.session.close(1)
        assert client.session.state is CLOSED

    @simulated
    async def test_ends_streams(self, world: World) -> None:
        client = await client_of(world).connected()
        states = client.session.states()
        client.servers[0].close_all()
        await client.again(RECONNECTED)
        await client.end()
        assert [state async for state in states] == [SUSPENDED, RECONNECTED, CLOSED]

    @simulated
    async def test_by_several_at_once(self, world: World) -> None:
        client = await client_of(world).connected()
        await asyncio.gather(*(client.session.close(1) for _ in range(3)))
        assert client.names == [CONNECTED, CLOSED]

    @pytest.mark.parametrize("situation", SITUATIONS)
    @pytest.mark.parametrize("reconnecting", [False, True])
    def test_at_any_time_leaves_nothing(self, situation: str, reconnecting: bool) -> None:
        """No task and no socket, in whatever it is in the middle of; `simulate` looks."""
        for number in range(24):

            async def scenario(world: World, after: float = number * LATENCY * 0.7) -> None:
                client = client_of(world, 2)
                if reconnecting:
                    await client.connected()
                    await asyncio.sleep(1)
                    server_of(client).close_all()
                else:
                    client.session.start()
                SITUATIONS[situation](client)
                await asyncio.sleep(after)
                moment = world.loop.now
                await client.session.close(0.5)
                assert world.loop.now - moment <= 0.5 + 1e-6
                assert client.session.state is CLOSED
                assert len(asyncio.all_tasks()) == 1
                await asyncio.sleep(2 * LATENCY)

            simulate(scenario, seed=number)

    @pytest.mark.parametrize("situation", ["all is well", "swallowed", "hears nothing", "silent"])
    @pytest.mark.parametrize("turns", range(8))
    def test_cancelled_at_any_await_leaves_nothing(self, situation: str, turns: int) -> None:
        async def scenario(world: World) -> None:
            client = client_of(world, 2)
            client.session.start()
            if situation in ("all is well", "silent"):
                await client.session.wait_connected(5)
            SITUATIONS[situation](client)
            await asyncio.sleep(0.01)
            closing = asyncio.ensure_future(client.session.close(5))
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            await asyncio.sleep(2 * LATENCY)
            assert client.session.state in ((CLOSED,) if turns else (CLOSED, CONNECTED, DISCONNECTED))
            if not turns:
                await client.end()

        simulate(scenario)


def supervisor_of_the_session() -> asyncio.Task[Any]:
    (supervisor,) = (task for task in asyncio.all_tasks() if task.get_name() == "aioregistry session")
    return supervisor


class TestFailing:
    async def failing(self, world: World) -> tuple[Client, list[asyncio.Future[Any]]]:
        client = await client_of(world).connected()
        client.servers[0].silent_to.add(script.EXISTS)
        session = client.session
        pending: list[asyncio.Future[Any]] = [
            session.submit(Exists("/")),
            asyncio.ensure_future(session.read(Exists("/"))),
            asyncio.ensure_future(session.request(Exists("/"))),
        ]
        await asyncio.sleep(0.1)
        return client, pending

    async def check(self, client: Client, pending: list[asyncio.Future[Any]], cause: type[object]) -> None:
        session = client.session
        for each in pending:
            with pytest.raises(SessionFailed):
                await each
        with pytest.raises(SessionFailed):
            await session.request(Exists("/"))
        with pytest.raises(SessionFailed):
            await session.wait_connected()
        with pytest.raises(SessionFailed):
            await anext(session.states())
        assert session.state is FAILED
        assert isinstance(session.failure, SessionFailed)
        assert isinstance(session.failure.__cause__, cause)
        await session.close(1)
        assert (session.state, client.names) == (FAILED, [CONNECTED, FAILED])
        await asyncio.sleep(2 * LATENCY)

    @simulated
    async def test_by_a_defect_of_the_supervisor(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        client, pending = await self.failing(world)
        states = client.session.states()

        async def defect(*_: Any) -> None:
            raise ZeroDivisionError

        client.session._keepalive._beat = defect  # type: ignore[method-assign, assignment]
        await asyncio.sleep(T / 2)
        assert "the session's supervisor died" in caplog.text
        await self.check(client, pending, ZeroDivisionError)
        assert await anext(states) is FAILED
        with pytest.raises(SessionFailed, match="ZeroDivisionError"):
            await anext(states)

    @simulated
    async def test_by_cancelling_the_supervisor_from_outside(self, world: World) -> None:
        client, pending = await self.failing(world)
        supervisor_of_the_session().cancel()
        await asyncio.sleep(0.1)
        await self.check(client, pending, type(None))

    @pytest.mark.parametrize("situation", SITUATIONS)
    @simulated
    async def test_in_any_situation_it_leaves_nothing(self, situation: str, world: World) -> None:
        client = client_of(world, 2)
        SITUATIONS[situation](client)
        client.session.start()
        await asyncio.sleep(0.7)
        supervisor = supervisor_of_the_session()
        supervisor.cancel()
        await asyncio.wait([supervisor])
        await asyncio.sleep(0)
        assert client.session.state is FAILED
        await asyncio.sleep(2 * LATENCY)


# ---------------------------------------------------------------- on real sockets


def loops() -> list[Any]:
    import uvloop

    def eager() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        return loop

    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    if hasattr(asyncio, "eager_task_factory"):
        factories["eager"] = eager
    return [pytest.param(factory, id=name) for name, factory in factories.items()]


LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.mark.parametrize("loop_factory", loops())
class TestOnLoopback:
    def run(self, loop_factory: LoopFactory, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(self.whole(scenario))
            gc.collect()

    async def whole(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await scenario()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def served(self, scripted: Server) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(scripted, "127.0.0.1", 0)

    def session_on(self, *servers: asyncio.Server, timeout: float = 5.0, **options: Any) -> Session:
        hosts = ",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
        return Session(
            parse_connect_string(hosts), timeout=timeout, runtime=SystemRuntime(), max_request=MAX_REQUEST, **options
        )

    def test_serves_reconnects_and_closes(self, loop_factory: LoopFactory) -> None:
        async def scenario() -> None:
            ensemble = Ensemble(timeout=5.0)
            scripted = ensemble.server()
            server = await self.served(scripted)
            session = self.session_on(server)
            states = session.states()
            session.start()
            async with asyncio.timeout(DEADLINE):
                assert await anext(states) is CONNECTED
                first = session.id
                await session.request(Create("/a", b""))
                assert (await session.request(Exists("/a"))).zxid == ensemble.zxid
                scripted.close_all()
                assert [await anext(states), await anext(states)] == [SUSPENDED, RECONNECTED]
                ensemble.expire(first)
                assert [await anext(states) for _ in range(3)] == [SUSPENDED, EXPIRED, CONNECTED]
                ensemble.wipe()
                assert [await anext(states) for _ in range(3)] == [SUSPENDED, EXPIRED, CONNECTED]
                assert session.history == 1
                await session.close(5)
            assert ensemble.sessions == {}
            server.close()
            await server.wait_closed()
            assert not scripted.links

        self.run(loop_factory, scenario)

    def test_credentials_refused(self, loop_factory: LoopFactory) -> None:
        async def scenario() -> None:
            scripted = Ensemble().server()
            scripted.refused_schemes = {"digest"}
            async with await self.served(scripted) as server:
                for _ in range(20):  # the answer and the end of the connection come at once
                    session = self.session_on(server, auth=[("digest", b"a:b")])
                    session.start()
                    async with asyncio.timeout(DEADLINE):
                        with pytest.raises(SessionFailed):
                            await session.wait_connected()
                    await session.close(1)

        self.run(loop_factory, scenario)

    @pytest.mark.parametrize("manner", ["hears_nothing", "closes", "silent"])
    def test_closed_in_the_middle_of_connecting(self, loop_factory: LoopFactory, manner: str) -> None:
        async def scenario() -> None:
            scripted = Ensemble().server()
            setattr(scripted, manner, True)
            async with await self.served(scripted) as server:
                for turns in range(12):
                    session = self.session_on(server)
                    session.start()
                    for _ in range(turns):
                        await asyncio.sleep(0.001 * (turns % 3))
                    await session.close(0.1)
                    assert asyncio.all_tasks() == {asyncio.current_task()}
                async with asyncio.timeout(DEADLINE):
                    while scripted.links:
                        await asyncio.sleep(0.001)

        self.run(loop_factory, scenario)

    def test_refused_until_the_server_is_there(self, loop_factory: LoopFactory) -> None:
        async def scenario() -> None:
            ensemble = Ensemble()
            scripted = ensemble.server()
            server = await self.served(scripted)
            port = server.sockets[0].getsockname()[1]
            session = self.session_on(server)
            server.close()
            await server.wait_closed()
            session.start()
            with pytest.raises(ConnectTimeout, match="the connection was refused"):
                await session.wait_connected(0.3)
            server = await asyncio.get_running_loop().create_server(scripted, "127.0.0.1", port)
            await session.wait_connected(10)
            await session.close(5)
            server.close()
            await server.wait_closed()

        self.run(loop_factory, scenario)


class TestForeignCode:
    """Of hooks and callbacks; the guard itself is tested in tests/test_foreign.py."""

    @pytest.mark.parametrize("kind", ODD)
    @simulated
    async def test_a_hook_may_raise_anything_at_every_event(self, kind: str, world: World) -> None:
        asked: list[str] = []

        def hook(name: str, fields: dict[str, object]) -> None:
            asked.append(str(fields.get("state", name)))
            raising(kind)

        client = await client_of(world, hooks=[hook]).connected()
        server_of(client).close_all()
        await client.again(RECONNECTED)
        client.ensemble.expire(client.session.id)
        await client.again(EXPIRED)
        await client.again(CONNECTED)
        await asyncio.sleep(2 * T)  # the supervisor is alive: heartbeats go on
        assert client.session.connected
        assert not client.session.presumed_expired
        await client.end()
        assert asked == [
            *("connected", "suspended", "reconnected", "suspended", "expired", "connected", "closed"),
        ]

    @pytest.mark.parametrize("kind", ODD)
    @simulated
    async def test_observers_and_listeners_may_raise_anything(self, kind: str, world: World) -> None:
        client = client_of(world)
        client.session.observe(lambda: raising(kind))
        told: list[str] = []
        client.session.observe(lambda: told.append("after"))
        await client.connected()
        client.session.watches.listen("/a", lambda _: raising(kind))
        with pytest.raises(NoNode):
            await client.session.request(Exists("/a", watch=True))
        client.ensemble.set("/a")
        await asyncio.sleep(ROUND_TRIP)
        server_of(client).close_all()
        await client.again(RECONNECTED)
        assert len(told) == 3
        await client.end()

    @pytest.mark.parametrize("kind", ODD)
    @simulated
    async def test_reading_an_answer_may_raise_anything(self, kind: str, world: World) -> None:
        class Odd(Exists):
            def read_reply(self, body: bytes, at: int) -> Any:
                raising(kind)

        client = await client_of(world).connected()
        with pytest.raises(ConnectionLost):
            await client.session.request(Odd("/"))
        await client.until(RECONNECTED)
        await client.session.request(Exists("/"))
        await client.end()

    @pytest.mark.parametrize("loop_factory", loops())
    @pytest.mark.parametrize("kind", ODD)
    def test_a_tls_context_may_raise_anything(self, kind: str, loop_factory: LoopFactory) -> None:
        class Odd(ssl.SSLContext):
            def wrap_bio(self, *_: Any, **__: Any) -> Any:
                raising(kind)

        async def scenario() -> None:
            server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            session = Session(
                parse_connect_string(address),
                timeout=5.0,
                runtime=SystemRuntime(),
                max_request=MAX_REQUEST,
                tls=Odd(ssl.PROTOCOL_TLS_CLIENT),
            )
            session.start()
            with pytest.raises(ConnectTimeout):
                await session.wait_connected(0.01)
            async with asyncio.timeout(60):
                while address not in session.attempts or session.attempts[address].times < 2:
                    await asyncio.sleep(0.01)
            assert session.attempts[address].outcome is AttemptOutcome.UNREACHABLE
            await session.close(1)
            assert session.failure is None
            server.close()
            await server.wait_closed()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(scenario())

    @pytest.mark.parametrize("kind", ODD)
    @simulated
    async def test_taking_note_of_an_answer_may_raise_anything(
        self, kind: str, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = await client_of(world).connected()
        connection = connection_of(client.session)
        monkeypatch.setattr(connection, "_on_answer", lambda *_: raising(kind))
        first = client.session.submit(Exists("/"), lambda _: raising(kind))
        second = client.session.submit(Exists("/"))
        assert (await first).value == (await second).value
        assert client.session.connected
        await client.end()
