"""The machine against a model of an ensemble that does all that ensembles do.

The client here does what the supervisor does, one step at a time; between its steps messages are lost, late or half
applied, servers hang, close, lag, are cut off from their leader or serve without quorum, sessions expire, the history
is lost, and both clocks jump. In all cases the machine's claims are true, and once everybody is well again it
serves, with the same session if that is alive, and with the rollback found if there was one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Generation
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from aioregistry._session import decisions
from aioregistry._session import machine as module
from aioregistry._session.machine import step
from aioregistry._session.states import SessionState
from aioregistry._session.vocabulary import (
    Accepted,
    Announce,
    CloseRequested,
    CloseSession,
    Command,
    Dialed,
    Drop,
    Event,
    Handshake,
    Lost,
    Machine,
    Overdue,
    Phase,
    Prime,
    Primed,
    Probe,
    Probed,
    Question,
    Refused,
    RollBack,
    RoundFailed,
)
from tests.support.checkers import Violated, check_honest, check_legal

TIMEOUT = 10.0
SERVERS = 3
FIRST_ZXID = 50
AHEAD = 1_000
"""A log may hold what was never committed: a server that serves alone may know more than the quorum ever will."""

# ---------------------------------------------------------------- the ensemble


class Manner(enum.Enum):
    """How a server treats those who come."""

    SERVES = enum.auto()
    DOWN = enum.auto()  # refuses connections
    CLOSES = enum.auto()  # without a word, as while electing or when overloaded
    HANGS = enum.auto()
    CUT_OFF = enum.auto()  # from its leader: answers what it can alone
    ALONE = enum.auto()  # serves reads without a quorum
    REPLACES = enum.auto()  # the session of whoever offers one, which lives on, by another; as ClickHouse Keeper does


@dataclass
class Server:
    zxid: int = FIRST_ZXID
    manner: Manner = Manner.SERVES


@dataclass
class LiveSession:
    password: bytes
    touched: float
    link: int


class End(enum.Enum):
    """The marks that a link carries besides messages."""

    CLOSED = enum.auto()


@dataclass(frozen=True)
class Greeting:
    """The answer to a handshake; id 0 refuses."""

    session_id: int
    password: bytes
    history: int
    read_only: bool = False


@dataclass(frozen=True)
class Reply:
    """To a sync, a read, or a probe's write."""

    zxid: int
    history: int
    sent: float
    evident: bool


@dataclass
class Link:
    """A connection: what is under way on it, and who still holds its end."""

    number: int
    server: int
    to_server: deque[Any] = field(default_factory=deque)
    to_client: deque[Any] = field(default_factory=deque)
    client_open: bool = True
    server_open: bool = True
    session_id: int = 0
    greeted_at: float = 0.0
    probed_at: float = 0.0
    probed_by_write: bool = False
    zxid: int = 0
    evidence: float = float("-inf")


@dataclass(frozen=True)
class Sync:
    sent: float


@dataclass(frozen=True)
class Read:
    pass


class Ensemble:
    """The quorum's history, and servers that know more or less of it."""

    def __init__(self) -> None:
        self.servers = [Server() for _ in range(SERVERS)]
        self.sessions: dict[int, LiveSession] = {}
        self.zxid = FIRST_ZXID
        self.history = 0
        self.quorum = True
        self.now = 0.0
        self.invented: set[int] = set()
        self.replaced: set[int] = set()
        self._ids = 0

    def commit(self) -> int:
        self.zxid += 1
        return self.zxid

    def next_id(self) -> int:
        self._ids += 1
        return self._ids

    def expire(self, slack: float) -> None:
        """End the sessions that nobody heard of for their timeout; a server rounds up to its next tick."""
        for session_id, session in list(self.sessions.items()):
            if self.quorum and self.now - session.touched > TIMEOUT + slack:
                del self.sessions[session_id]
                self.commit()

    def restart_timers(self) -> None:
        """As a new leader does."""
        for session in self.sessions.values():
            session.touched = self.now

    def lose_history(self, zxid: int, survivors: Mapping[int, LiveSession]) -> None:
        """Put everybody back to an older copy, or to nothing."""
        self.history += 1
        self.zxid = zxid
        self.sessions = dict(survivors)
        for server in self.servers:
            server.zxid = zxid

    # ---- what a server does with one message

    def answer(self, link: Link, message: Any, links: Mapping[int, Link]) -> None:
        server = self.servers[link.server]
        handlers: dict[type[Any], Callable[[Link, Any, Mapping[int, Link]], None]] = {
            Handshake: self._handshake,
            Sync: self._sync,
            Read: self._read,
            Probe: self._probe,
            CloseSession: self._close,
        }
        if message is End.CLOSED:
            self.hang_up(link)
            return
        if server.manner is Manner.CUT_OFF and not isinstance(message, Read):
            return  # it asks its leader, and waits
        if not self.quorum and server.manner is not Manner.ALONE:
            self.hang_up(link)
            return
        handlers[type(message)](link, message, links)

    def _handshake(self, link: Link, asked: Handshake, links: Mapping[int, Link]) -> None:
        server = self.servers[link.server]
        if server.manner is Manner.ALONE:
            self._alone(link, asked)
        elif asked.last_zxid > server.zxid:
            self.hang_up(link)
        elif asked.session_id == 0 or server.manner is Manner.REPLACES:
            if asked.session_id:
                self.replaced.add(asked.session_id)
            server.zxid = self.commit()
            link.session_id = self.next_id()
            password = bytes([link.session_id % 256])
            self.sessions[link.session_id] = LiveSession(password, self.now, link.number)
            link.to_client.append(Greeting(link.session_id, password, self.history))
        else:
            self._again(link, asked, links)

    def _again(self, link: Link, asked: Handshake, links: Mapping[int, Link]) -> None:
        session = self.sessions.get(asked.session_id)
        if session is None or session.password != asked.password:
            link.to_client.append(Greeting(0, b"", self.history))
            return
        before = links.get(session.link)
        if before is not None and before is not link:
            self.hang_up(before)
        session.link, session.touched = link.number, self.now
        link.session_id = asked.session_id
        link.to_client.append(Greeting(asked.session_id, asked.password, self.history))

    def _alone(self, link: Link, asked: Handshake) -> None:
        if not asked.read_only:
            self.hang_up(link)
        elif asked.session_id:
            link.to_client.append(Greeting(0, b"", self.history, read_only=True))
        else:
            link.session_id = self.next_id()
            self.invented.add(link.session_id)
            link.to_client.append(Greeting(link.session_id, b"invented", self.history, read_only=True))

    def _touch(self, link: Link) -> bool:
        session = self.sessions.get(link.session_id)
        if session is None or session.link != link.number:
            self.hang_up(link)
            return False
        session.touched = self.now
        return True

    def _sync(self, link: Link, asked: Sync, _: Mapping[int, Link]) -> None:
        server = self.servers[link.server]
        if server.manner is Manner.ALONE:
            self._reply(link, server.zxid + AHEAD, asked.sent, evident=False)
        elif self._touch(link):
            server.zxid = self.zxid
            self._reply(link, server.zxid, asked.sent, evident=True)

    def _reply(self, link: Link, zxid: int, sent: float, *, evident: bool) -> None:
        link.to_client.append(Reply(zxid, self.history, sent, evident))

    def _read(self, link: Link, _asked: Read, __: Mapping[int, Link]) -> None:
        server = self.servers[link.server]
        self._reply(link, server.zxid + (AHEAD if server.manner is Manner.ALONE else 0), 0.0, evident=False)

    def _probe(self, link: Link, asked: Probe, _: Mapping[int, Link]) -> None:
        if self.servers[link.server].manner is not Manner.ALONE and self._touch(link):
            self.servers[link.server].zxid = self.commit() if asked.write else self.zxid
            self._reply(link, self.zxid, 0.0, evident=True)

    def _close(self, link: Link, _asked: CloseSession, __: Mapping[int, Link]) -> None:
        if self.sessions.get(link.session_id) is not None:
            del self.sessions[link.session_id]
            self.servers[link.server].zxid = self.commit()
        self.hang_up(link)

    def hang_up(self, link: Link) -> None:
        if link.server_open:
            link.server_open = False
            link.to_server.clear()
            link.to_client.append(End.CLOSED)


# ---------------------------------------------------------------- the world


class World(RuleBasedStateMachine):
    """One client among three servers."""

    # Habits of the supervisor, replaced one by one to show that the world notices.
    dates_evidence_by_sending: ClassVar[bool] = True
    learns_from_everybody: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.ensemble = Ensemble()
        self.machine = Machine(TIMEOUT, allow_read_only=True)
        self.drift = 0.0  # how far the client's clock has run ahead of the servers'
        self.links: dict[int, Link] = {}
        self.untried = list(range(SERVERS))
        self.question = (0, Question.OFFER)
        self.granted: dict[int, int] = {}  # id → history
        self.history_of_zxid = 0  # that the machine's last zxid belongs to
        self.contact: dict[int, float] = {}  # id → sending of the last request that the quorum answered
        self.states = ["disconnected"]
        self.offered: list[int] = []
        self.rollbacks: list[RollBack] = []
        self.ended_by_hand: set[int] = set()
        self.healed_at = 0

    @property
    def boot(self) -> float:
        return self.ensemble.now + self.drift

    # ---- the client, as the supervisor is

    def learned(self) -> Machine:
        link = self.links.get(self.machine.connection)
        if link is None or (
            not self.learns_from_everybody
            and (self.machine.phase in (Phase.ASKING, Phase.PROBING) or self.machine.read_only)
        ):
            return self.machine
        return self.machine._replace(
            last_zxid=max(self.machine.last_zxid, link.zxid),
            evidence=max(self.machine.evidence, link.evidence),
        )

    def happen(self, event: Event) -> None:
        before = self.learned()
        self.machine, commands = step(before, event)
        left = before.session_id != self.machine.session_id and before.session_id != 0
        if left and before.history == self.machine.history and before.session_id not in self.machine.earlier_ids:
            raise Violated("Owned", f"session {before.session_id} was left and is not remembered as ours")
        for command in commands:
            self.carry_out(before, command)

    def carry_out(self, before: Machine, command: Command) -> None:
        match command:
            case Handshake():
                if command.session_id:
                    self.offered.append(command.session_id)
                self.links[command.connection].to_server.append(command)
            case Drop():
                link = self.links[command.connection]
                link.client_open = False
                link.to_client.clear()
                link.to_server.append(End.CLOSED)
            case Probe() | CloseSession():
                link = self.links[command.connection]
                link.probed_at, link.probed_by_write = self.boot, getattr(command, "write", False)
                link.to_server.append(command)
            case Announce():
                self.announced(before, command)
            case RollBack():
                self.rolled_back(before, command)
            case Prime():
                pass

    def announced(self, before: Machine, told: Announce) -> None:
        check_legal([told.state.value], before=self.states[-1])
        self.states.append(told.state.value)
        if told.state is not SessionState.EXPIRED or not told.session_id:
            return
        assert told.session_id == before.session_id
        lost = self.granted[told.session_id] != self.ensemble.history
        presumed = bool(self.rollbacks) and not self.rollbacks[-1].proven
        replaced = told.session_id in self.ensemble.replaced
        if told.session_id in self.ensemble.sessions and not lost and not presumed and not replaced:
            raise Violated("Legal", f"session {told.session_id} is told expired, and alive")

    def rolled_back(self, before: Machine, found: RollBack) -> None:
        self.rollbacks.append(found)
        if found.proven and self.history_of_zxid == self.ensemble.history:
            raise Violated("Legal", f"a rollback was proven and there was none: {found}, {before}")

    def received(self, link: Link, message: Any) -> None:
        """The reports of the connection's callbacks."""
        number = link.number
        if message is End.CLOSED:
            self.happen(Lost(number))
        elif isinstance(message, Greeting):
            self.greeted(link, message)
        else:
            self.replied(link, message)

    def greeted(self, link: Link, greeting: Greeting) -> None:
        session_id, number, sent = greeting.session_id, link.number, link.greeted_at
        if not session_id:
            self.happen(Refused(number, greeting.read_only))
            return
        if not greeting.read_only:
            self.granted.setdefault(session_id, greeting.history)
            self.contact[session_id] = max(self.contact.get(session_id, 0.0), sent)
        self.happen(Accepted(number, session_id, greeting.password, TIMEOUT, greeting.read_only, sent))

    def replied(self, link: Link, reply: Reply) -> None:
        if self.machine.phase is Phase.PROBING:
            self.contact[link.session_id] = link.probed_at
            sent = link.probed_at if self.dates_evidence_by_sending else self.boot
            before = self.machine.history
            self.happen(Probed(link.number, reply.zxid, sent, self.boot, link.probed_by_write))
            if self.machine.history > before:
                self.history_of_zxid = reply.history
            return
        link.zxid = max(link.zxid, reply.zxid)
        if reply.evident:
            link.evidence = max(link.evidence, reply.sent if self.dates_evidence_by_sending else self.boot)
            self.contact[link.session_id] = max(self.contact[link.session_id], reply.sent)
        if not self.machine.read_only and reply.zxid > self.machine.last_zxid:
            self.history_of_zxid = reply.history

    # ---- rules: what goes well

    @rule(steps=st.integers(1, 12), choice=st.integers(0, SERVERS - 1))
    def work(self, steps: int, choice: int) -> None:
        """Let the client, and the server that it talks to, do the next thing, and the next."""
        for _ in range(steps):
            link = self.links.get(self.machine.connection)
            if self.machine.phase is Phase.OFFLINE:
                self.dial(choice)
            elif link is None:
                return
            elif link.to_client:
                self.received(link, link.to_client.popleft())
            elif link.to_server and link.server_open:
                self.serve(link)
            elif self.machine.phase is Phase.PRIMING:
                self.happen(Primed(link.number))
            elif self.machine.phase is Phase.SERVING:
                link.to_server.append(Sync(self.boot) if steps % 2 else Read())

    def dial(self, choice: int) -> None:
        """Try the next server of the round; behind the last, the round has failed."""
        asked = (self.machine.session_id, self.machine.question)
        if asked != self.question:
            self.question, self.untried = asked, list(range(SERVERS))
        if not self.untried:
            self.untried = list(range(SERVERS))
            self.happen(RoundFailed(self.boot, 0.5))
            return
        server = self.untried.pop(choice % len(self.untried))
        if self.ensemble.servers[server].manner is Manner.DOWN:
            return
        number = len(self.links) + 1
        self.links[number] = Link(number, server, greeted_at=self.boot)
        self.happen(Dialed(number))

    def serve(self, link: Link) -> None:
        manner = self.ensemble.servers[link.server].manner
        if manner in (Manner.CLOSES, Manner.DOWN):
            self.ensemble.hang_up(link)
        elif manner is not Manner.HANGS:
            self.ensemble.answer(link, link.to_server.popleft(), self.links)

    @rule(count=st.integers(1, 5), server=st.integers(0, SERVERS - 1))
    def others_write(self, count: int, server: int) -> None:
        """And one server hears of it."""
        if self.ensemble.quorum:
            self.ensemble.zxid += count
        self.ensemble.servers[server].zxid = self.ensemble.zxid

    @rule()
    def get_well(self) -> None:
        for number in range(SERVERS):
            self.behave(number, Manner.SERVES)

    # ---- rules: what goes wrong

    @rule(pick=st.randoms(use_true_random=False))
    def serve_somebody(self, pick: Any) -> None:
        """Let a server work off one message of any connection, even of one that the client has left."""
        if busy := [link for link in self.links.values() if link.to_server and link.server_open]:
            self.serve(pick.choice(busy))

    @precondition(lambda self: self.machine.connection)
    @rule()
    def lose_patience(self) -> None:
        """Any time: how long that takes is the supervisor's to decide."""
        self.happen(Overdue(self.machine.connection))

    @precondition(lambda self: self.machine.connection)
    @rule(applied=st.booleans())
    def cut(self, applied: bool) -> None:
        """End the connection in use; what is under way is lost, or applied and its answer lost."""
        link = self.links[self.machine.connection]
        while applied and link.to_server and link.server_open:
            self.ensemble.answer(link, link.to_server.popleft(), self.links)
        link.to_client.clear()
        link.to_server.clear()
        link.server_open = False
        link.to_client.append(End.CLOSED)

    @rule(server=st.integers(0, SERVERS - 1), manner=st.sampled_from(Manner))
    def behave(self, server: int, manner: Manner) -> None:
        before, self.ensemble.servers[server].manner = self.ensemble.servers[server].manner, manner
        if {before, manner} & {Manner.ALONE, Manner.DOWN}:  # who leaves the quorum, or joins it, closes its connections
            for link in self.links.values():
                if link.server == server:
                    self.ensemble.hang_up(link)

    @rule(manner=st.sampled_from([Manner.CLOSES, Manner.HANGS, Manner.DOWN, Manner.ALONE]))
    def all_behave(self, manner: Manner) -> None:
        for number in range(SERVERS):
            self.behave(number, manner)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 9.9, 10.1, 16.0]), slack=st.sampled_from([0.0, 0.5]))
    def time_passes(self, seconds: float, slack: float) -> None:
        self.ensemble.now += seconds
        self.ensemble.expire(slack * TIMEOUT)

    @rule(seconds=st.sampled_from([1.0, 12.0]))
    def clock_jumps(self, seconds: float) -> None:
        """The client's, ahead: a clock that counts sleep on one side only."""
        self.drift += seconds

    @rule(regained=st.booleans())
    def elect(self, regained: bool) -> None:
        """A new leader restarts the timers, now or when there is a quorum again."""
        self.ensemble.quorum = regained
        if regained:
            self.ensemble.restart_timers()

    @rule()
    def somebody_ends_our_session(self) -> None:
        if self.ensemble.sessions.pop(self.machine.session_id, None) is not None:
            self.ended_by_hand.add(self.machine.session_id)
            self.ensemble.commit()

    @rule(zxid=st.integers(0, FIRST_ZXID), keep=st.booleans())
    def wipe_or_restore(self, zxid: int, keep: bool) -> None:
        """Back to an older state, in which our session may or may not be."""
        ensemble = self.ensemble
        if zxid >= ensemble.zxid:
            return
        for link in self.links.values():
            ensemble.hang_up(link)
        ensemble.lose_history(zxid, ensemble.sessions if keep else {})
        ensemble.restart_timers()

    @precondition(lambda self: len(self.links) > 8)
    @rule()
    def close(self) -> None:
        self.happen(CloseRequested())

    # ---- what holds at any time

    @invariant()
    def one_connection_at_a_time(self) -> None:
        held = [link.number for link in self.links.values() if link.client_open]
        assert held in ([], [self.machine.connection])

    @invariant()
    def the_session_is_one_that_a_quorum_gave(self) -> None:
        assert self.machine.session_id in {0, *self.granted}
        assert not self.ensemble.invented & {self.machine.session_id, *self.machine.earlier_ids}

    @invariant()
    def sessions_are_offered_one_after_the_other(self) -> None:
        """Never two of ours in turns: each would take the other's connection."""
        firsts = list(dict.fromkeys(self.offered))
        assert sorted(self.offered, key=firsts.index) == self.offered

    @invariant()
    def claims_are_honest(self) -> None:
        machine = self.learned()
        if machine.phase is not Phase.SERVING or machine.read_only:
            return
        check_honest(
            claimed=self.boot - machine.evidence < machine.lifetime,
            contact_age=self.boot - self.contact[machine.session_id],
            timeout=machine.lifetime,
        )

    @invariant()
    def who_claims_is_alive(self) -> None:
        """Unless somebody ended it by hand, or took it away with its history."""
        machine, ensemble = self.learned(), self.ensemble
        fresh = self.boot - machine.evidence < machine.lifetime
        if machine.session_id and fresh and self.granted[machine.session_id] == ensemble.history:
            alive = machine.session_id in ensemble.sessions
            assert alive or machine.session_id in self.ended_by_hand or machine.state is SessionState.CLOSED

    # ---- afterwards everybody is well

    def teardown(self) -> None:
        if self.machine.phase in (Phase.CLOSING, Phase.ENDED):
            return
        self.heal()
        ensemble, held, rollbacks_before = self.ensemble, self.learned(), len(self.rollbacks)
        alive = held.session_id in ensemble.sessions and held.session_id not in ensemble.replaced
        self.settle()
        machine, rollbacks = self.machine, self.rollbacks[rollbacks_before:]
        assert machine.phase is Phase.SERVING
        assert not machine.read_only
        assert machine.session_id in ensemble.sessions
        presumed = [found for found in rollbacks if not found.proven]
        # The fresh session and the write of a probe bring the quorum two transactions closer to us.
        if held.last_zxid > self.healed_at + 2:
            assert [found.proven for found in rollbacks] == [True]
        elif held.last_zxid <= self.healed_at:
            assert rollbacks == presumed
            if alive and not presumed:
                assert machine.session_id == held.session_id

    def heal(self) -> None:
        ensemble = self.ensemble
        self.get_well()
        for server in ensemble.servers:
            server.zxid = ensemble.zxid
        if not ensemble.quorum:
            self.elect(regained=True)
        for link in self.links.values():
            if link.number != self.machine.connection:
                link.server_open = False
        self.healed_at = ensemble.zxid

    def settle(self) -> None:
        """Nothing fails any more: it takes a few rounds."""
        for _ in range(100):
            if self.machine.phase is Phase.OFFLINE:
                self.dial(0)
                continue
            link = self.links[self.machine.connection]
            if self.machine.phase is Phase.SERVING:
                link.to_server.append(Sync(self.boot))
            self.converse(link)
            if self.machine.phase is Phase.SERVING and link.evidence == self.boot:
                return

    def converse(self, link: Link) -> None:
        while link.to_server and link.server_open:
            self.ensemble.answer(link, link.to_server.popleft(), self.links)
        heard = bool(link.to_client)
        while link.to_client:  # dropping it clears it
            self.received(link, link.to_client.popleft())
        if self.machine.phase is Phase.PRIMING:
            self.happen(Primed(link.number))
        elif not heard or self.machine.read_only:
            self.happen(Overdue(link.number))


def test_whatever_happens() -> None:
    run_state_machine_as_test(
        World,
        settings=settings(
            max_examples=300, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


# ---------------------------------------------------------------- the world bites


def accepts_anybodys_session(machine: Machine, event: Accepted) -> Any:
    return decisions.on_accepted(machine, event._replace(read_only=False))


def takes_a_loss_for_the_end(machine: Machine, event: Lost) -> Any:
    return (
        decisions.on_refused(machine, Refused(event.connection, False))
        if machine.session_id
        else decisions.on_silently_closed(machine, event)
    )


def forgets_what_was_replaced(machine: Machine, event: Accepted) -> Any:
    after, commands = decisions.on_accepted(machine, event)
    return after._replace(earlier_ids=machine.earlier_ids), commands


def never_probes(machine: Machine, event: RoundFailed) -> Any:
    return machine._replace(failures=machine.failures + 1), ()


def believes_any_probe(machine: Machine, event: Probed) -> Any:
    return decisions._rolled_back(machine, event, proven=True)


def never_believes_a_probe(machine: Machine, event: Probed) -> Any:
    return decisions.on_probe_failed(machine, event)


DEFECTS: dict[tuple[Phase, type[Any]], list[Any]] = {
    (Phase.HANDSHAKING, Accepted): [accepts_anybodys_session, forgets_what_was_replaced],
    (Phase.HANDSHAKING, Lost): [takes_a_loss_for_the_end],
    (Phase.OFFLINE, RoundFailed): [never_probes],
    (Phase.PROBING, Probed): [believes_any_probe, never_believes_a_probe],
}


class DatesByArrival(World):
    dates_evidence_by_sending = False


class LearnsFromEverybody(World):
    learns_from_everybody = True


def must_fail(world: type[World]) -> None:
    searching = settings(
        max_examples=2_000,
        stateful_step_count=60,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        phases=[Generation.generate],
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((Violated, AssertionError, KeyError)):
        run_state_machine_as_test(world, settings=searching)


@pytest.mark.parametrize(
    ("place", "defect"),
    [pytest.param(place, defect, id=defect.__name__) for place, defects in DEFECTS.items() for defect in defects],
)
@pytest.mark.soak
def test_a_defect_of_the_machine_is_found(
    place: tuple[Phase, type[Any]], defect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "TABLE", MappingProxyType({**module.TABLE, place: module.TABLE[place]._replace(decide=defect)})
    )
    must_fail(World)


@pytest.mark.parametrize("world", [DatesByArrival, LearnsFromEverybody])
@pytest.mark.soak
def test_a_defect_of_the_supervisor_is_found(world: type[World]) -> None:
    must_fail(world)
