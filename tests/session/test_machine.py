"""The machine, every phase with every event: what has a place in the table, and what can be reached."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from aioregistry._session import decisions
from aioregistry._session import machine as module
from aioregistry._session.machine import step
from aioregistry._session.states import MOVES, SessionState
from aioregistry._session.vocabulary import (
    Accepted,
    Announce,
    CloseRequested,
    CloseSession,
    Command,
    CredentialsRefused,
    Dialed,
    Drop,
    Event,
    Failed,
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
from tests.support.checkers import check_legal

TIMEOUT = 10.0
NO_SESSION = bytes(16)

# The supervisor's possible reports in each phase. Others cannot happen there: it dials, and counts rounds, only
# while it is offline; a handshake is answered once, and so is a probe; credentials are sent before a probe, and while
# priming. Late words of an earlier connection never get as far as the table.
PRODUCIBLE: dict[Phase, set[type[Any]]] = {
    Phase.OFFLINE: {Dialed, RoundFailed},
    Phase.HANDSHAKING: {Accepted, Refused, Lost, Overdue},
    Phase.ASKING: {Accepted, Refused, Lost, Overdue},
    Phase.PROBING: {Probed, CredentialsRefused, Lost, Overdue},
    Phase.PRIMING: {Primed, CredentialsRefused, Lost, Overdue},
    Phase.SERVING: {Lost, Overdue},
    Phase.CLOSING: {Lost, Overdue, Primed},  # closed while it was being primed
    Phase.ENDED: set(),
}
ALWAYS: set[type[Any]] = {CloseRequested, Failed}

EXAMPLES: dict[type[Any], Any] = {
    Dialed: Dialed,
    RoundFailed: lambda number: RoundFailed(0.0, 0.5),
    Accepted: lambda number: Accepted(number, 1, b"password", TIMEOUT, False, 0.0),
    Refused: lambda number: Refused(number, False),
    Lost: Lost,
    Overdue: Overdue,
    Primed: Primed,
    Probed: lambda number: Probed(number, 1, 0.0, 0.0, True),
    CredentialsRefused: CredentialsRefused,
    CloseRequested: lambda number: CloseRequested(),
    Failed: lambda number: Failed(),
}


def test_every_event_has_an_example() -> None:
    assert set(EXAMPLES) == set(Event.__args__)


@pytest.mark.parametrize(("phase", "kind"), list(product(Phase, EXAMPLES)), ids=str)
def test_the_table_has_what_can_happen_and_nothing_else(phase: Phase, kind: type[Any]) -> None:
    expected = kind in PRODUCIBLE[phase] | ALWAYS
    assert ((phase, kind) in module.TABLE) == expected
    if not expected:
        number = 0 if phase in (Phase.OFFLINE, Phase.ENDED) else 1
        with pytest.raises(KeyError):
            step(Machine(TIMEOUT, phase=phase, connection=number), EXAMPLES[kind](number))


def test_a_step_to_where_the_table_does_not_lead_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Phase.SERVING, Lost
    row = module.TABLE[place]._replace(decide=lambda machine, event: (machine._replace(phase=Phase.ENDED), ()))
    monkeypatch.setattr(module, "TABLE", {**module.TABLE, place: row})
    with pytest.raises(KeyError, match="leads from"):
        step(Machine(TIMEOUT, phase=Phase.SERVING, connection=1, state=SessionState.CONNECTED), Lost(1))


PAGE = Path(__file__).parents[2] / "docs" / "internals.md"
GENERATED = re.compile(r"<!-- phases: generated -->\n\n```mermaid\n(.*?)\n```\n\n<!-- phases: end -->", re.DOTALL)


def test_the_diagram_in_the_docs_is_the_table() -> None:
    found = GENERATED.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None, "docs/internals.md has lost its markers"
    assert found[1] == module.diagram(), "put machine.diagram() between the markers of docs/internals.md"


def test_a_move_that_is_none_raises() -> None:
    with pytest.raises(KeyError, match="is not a move of a session"):
        step(Machine(TIMEOUT, phase=Phase.SERVING, connection=1, state=SessionState.EXPIRED), Lost(1))


def test_rounds_of_silence_are_counted_up_to_two() -> None:
    machine = Machine(TIMEOUT, phase=Phase.OFFLINE, session_id=7, last_zxid=5)
    counted = []
    for number in range(4):
        machine, _ = step(machine._replace(silent=1), RoundFailed(float(number), 0.5))
        counted.append((machine.silent_rounds, machine.silent, machine.failures))
    assert counted == [(1, 0, 1), (2, 0, 2), (2, 0, 3), (2, 0, 4)]
    machine, _ = step(machine, RoundFailed(9.0, 0.5))
    assert machine.silent_rounds == 0, "an ensemble that is away is not silent"


# ---------------------------------------------------------------- walking everything that can be reached


def events(machine: Machine) -> Iterator[Event]:
    """The possible events of *machine*, with few but telling values."""
    number = machine.connection
    offered = machine.phase is Phase.HANDSHAKING or machine.question is Question.RECOGNISE
    granted = [machine.session_id if machine.session_id and offered else fresh_id(machine)]
    if machine.session_id and offered and not machine.earlier_ids:
        granted.append(fresh_id(machine))  # some servers grant another one to whoever offers one
    for kind in PRODUCIBLE[machine.phase] | ALWAYS:
        if kind is Dialed:
            yield Dialed(1)
        elif kind is Accepted:
            for id, read_only, sent in product(granted, (False, True), (0.0, 100.0)):
                yield Accepted(number, id, b"password", TIMEOUT, read_only, sent)
        elif kind is Refused:
            yield from (Refused(number, read_only) for read_only in (False, True))
        elif kind is Probed:
            writes = (False, True) if machine.probe[0] == machine.session_id else (True,)
            for zxid, now, write in product((-1, 0, 3, 7), (0.0, 100.0), writes):
                yield Probed(number, zxid, now, now, write)
        elif kind is RoundFailed:
            yield from (RoundFailed(now, 0.5) for now in (0.0, 100.0))
        else:
            yield EXAMPLES[kind](number)


def fresh_id(machine: Machine) -> int:
    return next(number for number in (7, 8, 9) if number not in (machine.session_id, *machine.earlier_ids[-1:]))


def learning(machine: Machine) -> Iterator[Machine]:
    """*machine* as it is, and with what the connection's replies may tell before the next event."""
    yield machine
    if machine.phase in (Phase.PRIMING, Phase.SERVING) and not machine.read_only:
        yield machine._replace(last_zxid=max(machine.last_zxid, 5), evidence=max(machine.evidence, 100.0))


def alike(machine: Machine) -> Machine:
    """*machine* without the differences that make an infinite number of machines of a few."""
    return machine._replace(
        failures=min(machine.failures, 2),
        silent=min(machine.silent, 1),
        generation=min(machine.generation, 1),
        history=min(machine.history, 1),
        fresh_at=50.0 if machine.fresh_at <= 100.0 else min(machine.fresh_at, 150.0),  # past or to come at 100
        earlier_ids=machine.earlier_ids[-1:],
    )


def walk(start: Machine) -> Iterator[tuple[Machine, Event, Machine, tuple[Command, ...]]]:
    """Every step that can be made, breadth first."""
    seen = {start: None}
    pending = deque([start])
    while pending:
        for before in learning(pending.popleft()):
            for event in events(before):
                after, commands = step(before, event)
                yield before, event, after, commands
                if (following := alike(after)) not in seen:
                    seen[following] = None
                    pending.append(following)


@pytest.fixture(scope="module")
def steps() -> list[tuple[Machine, Event, Machine, tuple[Command, ...]]]:
    return [made for read_only in (False, True) for made in walk(Machine(TIMEOUT, read_only))]


Steps = list[tuple[Machine, Event, Machine, tuple[Command, ...]]]


class TestEverywhere:
    def test_it_gets_everywhere(self, steps: Steps) -> None:
        assert {after.phase for _, _, after, _ in steps} == set(Phase)
        assert {type(command) for *_, commands in steps for command in commands} == set(Command.__args__)

    def test_every_pair_of_the_table_is_met(self, steps: Steps) -> None:
        assert {(before.phase, type(event)) for before, event, _, _ in steps} == set(module.TABLE)

    def test_every_successor_of_the_table_is_met(self, steps: Steps) -> None:
        met: dict[Any, set[Any]] = {}
        for before, event, after, commands in steps:
            successor = after.phase, decisions.transition_of(before, commands)
            met.setdefault((before.phase, type(event)), set()).add(successor)
        assert met == {place: set(row.successors) for place, row in module.TABLE.items()}

    def test_it_is_legal_and_every_move_is_made(self, steps: Steps) -> None:
        made = set()
        for before, _, after, commands in steps:
            told = [command.state for command in commands if isinstance(command, Announce)]
            check_legal([state.value for state in told], before=before.state.value)
            assert (told[-1] if told else before.state) is after.state
            made |= set(zip([before.state, *told], told, strict=False))
        assert made == {(state, other) for state, following in MOVES.items() for other in following}

    def test_there_is_a_connection_unless_it_is_offline(self, steps: Steps) -> None:
        for _, _, after, _ in steps:
            assert (after.connection == 0) == (after.phase in (Phase.OFFLINE, Phase.ENDED))

    def test_a_connection_that_is_left_is_dropped_once(self, steps: Steps) -> None:
        for before, _, after, commands in steps:
            left = [before.connection] if before.connection and not after.connection else []
            assert [command.connection for command in commands if isinstance(command, Drop)] == left

    def test_a_handshake_is_sent_only_on_a_new_connection(self, steps: Steps) -> None:
        for before, event, after, commands in steps:
            sent = [command for command in commands if isinstance(command, Handshake)]
            assert bool(sent) == isinstance(event, Dialed)
            for handshake in sent:
                assert before.phase is Phase.OFFLINE
                assert handshake.connection == after.connection
                asked = (handshake.session_id, handshake.password, handshake.last_zxid)
                if before.question is Question.RECOGNISE:
                    assert asked == (before.session_id, before.password, 0)
                    assert before.session_id
                elif after.phase is Phase.ASKING:
                    assert asked == (0, NO_SESSION, 0)
                    assert not handshake.read_only
                else:
                    assert asked == (before.session_id, before.password, before.last_zxid)
                    assert handshake.read_only == (before.allow_read_only and not before.session_id)

    def test_requests_can_be_sent_while_it_serves_and_at_no_other_time(self, steps: Steps) -> None:
        for _, _, after, _ in steps:
            assert after.connected is (after.phase is Phase.SERVING)

    def test_it_reads_only_on_the_connection_that_was_accepted_so(self, steps: Steps) -> None:
        for before, event, after, _ in steps:
            accepted = isinstance(event, Accepted) and after.phase is Phase.PRIMING
            assert after.read_only is (
                bool(after.connection) and (event.read_only if accepted else before.read_only)  # type: ignore[union-attr]
            )

    def test_a_session_that_is_probed_is_forgotten_with_the_probe(self, steps: Steps) -> None:
        """Its password is a secret."""
        for _, _, after, _ in steps:
            assert (after.probe == (0, b"", 0.0)) == (after.phase is not Phase.PROBING)

    def test_whatever_a_quorum_grants_or_ends_leaves_no_suspicion(self, steps: Steps) -> None:
        for before, _, after, _ in steps:
            taken = after.phase is Phase.PRIMING and before.phase is not Phase.PRIMING and not after.read_only
            if taken or (before.session_id and not after.session_id):
                assert (after.silent, after.silent_rounds, after.question) == (0, 0, Question.OFFER)
                assert after.fresh_at == after.behind_since == float("inf")

    def test_each_command_belongs_to_its_phase(self, steps: Steps) -> None:
        for before, event, after, commands in steps:
            kinds = {type(command) for command in commands}
            assert (Prime in kinds) == (after.phase is Phase.PRIMING)
            assert (Probe in kinds) == (after.phase is Phase.PROBING)
            probe_is_done = isinstance(event, Probed) and event.zxid > 0 and after.phase is Phase.OFFLINE
            probe_is_done &= RollBack not in kinds  # what an older copy has of our session is left to its timeout
            closed_while_up = before.phase in (Phase.PRIMING, Phase.SERVING) and isinstance(event, CloseRequested)
            assert (CloseSession in kinds) == (probe_is_done or closed_while_up)

    def test_what_comes_from_another_connection_changes_nothing(self, steps: Steps) -> None:
        for machine in {after for _, _, after, _ in steps}:
            for kind, example in EXAMPLES.items():
                if kind not in (Dialed, RoundFailed, CloseRequested, Failed):
                    assert step(machine, example(99)) == (machine, ())


class TestTheSession:
    def test_only_a_quorum_gives_one(self, steps: Steps) -> None:
        for before, event, after, _ in steps:
            if after.session_id in (before.session_id, 0):
                continue
            if isinstance(event, Accepted):
                assert not event.read_only
                assert (after.session_id, after.password) == (event.session_id, event.password)
            else:
                assert isinstance(event, Probed)
                assert (after.session_id, after.password, after.timeout) == before.probe

    def test_it_ends_only_by_a_word_of_the_quorum(self, steps: Steps) -> None:
        for before, event, after, commands in steps:
            if not before.session_id or after.session_id == before.session_id:
                continue
            if isinstance(event, Refused):
                assert before.phase is Phase.HANDSHAKING or before.question is Question.RECOGNISE
                assert not event.read_only
            elif isinstance(event, Accepted):
                assert before.phase is Phase.HANDSHAKING
                assert not event.read_only
                assert after.session_id == event.session_id
            else:
                assert isinstance(event, Probed)
                (found,) = [command for command in commands if isinstance(command, RollBack)]
                assert found.proven == (0 <= event.zxid < before.last_zxid)
                assert found.proven or event.now - before.behind_since >= 1.5 * TIMEOUT

    def test_it_is_forgotten_when_it_ended(self, steps: Steps) -> None:
        met = set()
        for before, event, after, _ in steps:
            if before.session_id in (0, after.session_id) or isinstance(event, Probed):
                continue
            met.add(type(event))
            assert before.session_id in after.earlier_ids
            assert after.last_zxid == before.last_zxid
            if isinstance(event, Refused):
                assert after.password == NO_SESSION
                assert after.evidence == float("-inf")
            else:
                assert isinstance(event, Accepted)
                assert after.evidence == event.sent
        assert met == {Refused, Accepted}

    def test_expired_is_told_of_the_one_that_ended(self, steps: Steps) -> None:
        for before, _, _, commands in steps:
            for command in commands:
                if isinstance(command, Announce) and command.state is SessionState.EXPIRED:
                    assert command.session_id == before.session_id
                    assert before.state is SessionState.SUSPENDED

    def test_a_lost_history_takes_its_zxids_and_ids_with_it(self, steps: Steps) -> None:
        met = set()
        for before, event, after, commands in steps:
            if any(isinstance(command, RollBack) for command in commands):
                assert isinstance(event, Probed)
                met.add(event.zxid < before.last_zxid)
                assert after.history == before.history + 1
                primed = [command for command in commands if isinstance(command, Prime)]
                if before.probe[0] == before.session_id:
                    assert (after.earlier_ids, after.last_zxid, primed) == ((before.session_id,), 0, [])
                else:
                    assert (after.earlier_ids, after.last_zxid) == ((), event.zxid)
                    assert primed == [Prime(before.connection, 0)]
            else:
                assert after.history == before.history
        assert met == {True, False}

    def test_evidence_is_as_old_as_its_request(self, steps: Steps) -> None:
        for before, event, after, _ in steps:
            if after.evidence > before.evidence:
                assert isinstance(event, (Accepted, Probed))
                assert after.evidence == event.sent
                assert not (isinstance(event, Accepted) and event.read_only)

    def test_a_server_without_quorum_tells_nothing(self, steps: Steps) -> None:
        met = False
        for before, event, after, _ in steps:
            if isinstance(event, Accepted) and event.read_only and after.phase is Phase.PRIMING:
                met = True
                assert before.allow_read_only
                assert not before.session_id
                kept = ("session_id", "password", "evidence", "last_zxid", "earlier_ids", "behind_since")
                assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
        assert met

    def test_reconnected_is_the_same_session_and_connected_another(self, steps: Steps) -> None:
        for before, _, after, _ in steps:
            if after.phase is Phase.SERVING:
                assert after.state in (SessionState.CONNECTED, SessionState.RECONNECTED)
                assert (after.state is SessionState.RECONNECTED) == (before.state is SessionState.SUSPENDED)
                assert after.generation == before.generation + 1


def test_nothing_that_is_shown_has_the_password() -> None:
    machine = Machine(TIMEOUT, password=b"tell nobody", probe=(1, b"tell nobody", 1.0))
    shown = [machine, Handshake(1, 1, b"tell nobody", 0, 1.0, False), Accepted(1, 1, b"tell nobody", 1.0, False, 0.0)]
    assert all("tell nobody" not in repr(each) for each in shown)


# ---------------------------------------------------------------- single moves worth a name


NEVER, AT_NO_TIME = float("inf"), float("-inf")


def test_a_machine_to_which_nothing_has_happened() -> None:
    assert tuple(Machine(TIMEOUT)) == (
        *(TIMEOUT, False, SessionState.DISCONNECTED, Phase.OFFLINE, 0, 0, NO_SESSION, 0.0, False, 0),
        *(AT_NO_TIME, 0.0, (), 0, 0, 0, 0, 0, Question.OFFER, NEVER, (0, b"", 0.0), NEVER),
    )
    assert Machine(TIMEOUT).lifetime == TIMEOUT
    assert Machine(TIMEOUT, timeout=4.0).lifetime == 4.0, "what was granted counts"


def test_a_server_without_a_quorum_grants_the_time_for_reading_and_nothing_else() -> None:
    before = Machine(TIMEOUT, allow_read_only=True, last_zxid=5, phase=Phase.HANDSHAKING, connection=1)
    after, commands = step(before, Accepted(1, 9, b"invented", 4.0, True, 100.0))
    assert after == before._replace(phase=Phase.PRIMING, read_only=True, timeout=4.0)
    assert commands == (Prime(1, 5),)


def test_the_last_sixteen_sessions_are_remembered() -> None:
    machine = serving()
    for id in range(8, 28):
        machine = made(machine, Lost(machine.connection), Dialed(id), Accepted(id, id, b"", TIMEOUT, False, 0.0))
        machine = made(machine, Primed(id))
    assert machine.earlier_ids == tuple(range(11, 27))


def made(machine: Machine, *happened: Event) -> Machine:
    for event in happened:
        machine, _ = step(machine, event)
    return machine


def serving(**fields: Any) -> Machine:
    machine = made(Machine(TIMEOUT), Dialed(1), Accepted(1, 7, b"password", TIMEOUT, False, 0.0), Primed(1))
    return machine._replace(**fields)


class TestRetries:
    def test_a_connection_that_lasted_is_followed_at_once(self) -> None:
        assert made(serving(evidence=1.0, failures=5), Lost(1)).failures == 0

    def test_one_that_did_not_is_a_failure(self) -> None:
        """Or a server that accepts everybody and closes at once would be asked without a pause."""
        machine = serving()
        for count in range(1, 5):
            machine = made(machine, Lost(machine.connection))
            assert machine.failures == count
            number = count + 1
            machine = made(machine, Dialed(number), Accepted(number, 7, b"", TIMEOUT, False, 0.5), Primed(number))

    def test_it_lasted_if_it_answered_long_after_its_own_acceptance(self) -> None:
        machine = made(serving(), Lost(1), Dialed(2), Accepted(2, 7, b"", TIMEOUT, False, 100.0), Primed(2))
        assert made(machine, Lost(2)).failures == 2
        assert made(machine._replace(evidence=100.9), Lost(2)).failures == 2
        assert made(machine._replace(evidence=101.0), Lost(2)).failures == 0

    def test_a_refusal_is_followed_at_once(self) -> None:
        offline = made(serving(), Lost(1), FAILED, FAILED)
        assert offline.failures == 3
        assert made(offline, Dialed(2), Refused(2, False)).failures == 0

    def test_each_failed_round_counts(self) -> None:
        assert made(Machine(TIMEOUT), FAILED, FAILED, FAILED).failures == 3

    def test_rounds_of_silence_count_too(self) -> None:
        """Or a server that accepts everybody and closes would be asked twice as often as one that refuses."""
        machine = serving(last_zxid=5, evidence=10.0)
        for count in range(8):
            machine = silent(machine)
            assert machine.failures == max(count, 0)


FAILED = RoundFailed(0.0, 0.5)

PRIMING = (Dialed(3), Accepted(3, 7, b"", TIMEOUT, False, 0.5))


@pytest.mark.parametrize(
    ("before", "last", "counted"),
    [
        ((), FAILED, 1),
        ((Dialed(3),), Overdue(3), 0),  # the round that it is of counts
        ((Dialed(3),), Lost(3), 0),
        ((Dialed(3),), Refused(3, True), 0),
        ((Dialed(3),), Refused(3, False), -5),  # an expiry: another session is asked for at once
        (PRIMING, Lost(3), 1),
        (PRIMING, Overdue(3), 1),
        ((*PRIMING, Primed(3)), Lost(3), 1),
        ((*PRIMING, Primed(3)), Overdue(3), 1),
    ],
    ids=str,
)
def test_a_step_counts_so_many_failures(before: tuple[Event, ...], last: Event, counted: int) -> None:
    machine = made(offline(), *before)
    assert (machine.failures, made(machine, last).failures) == (5, 5 + counted)


def test_a_refusal_where_there_is_no_session_is_one_failure() -> None:
    machine = made(Machine(TIMEOUT)._replace(failures=5), Dialed(1))
    assert made(machine, Refused(1, False)).failures == 6


def offline() -> Machine:
    """One that lost its connection, and has failed five times since."""
    return made(serving(last_zxid=5), Lost(1))._replace(failures=5)


def silent(machine: Machine, now: float = 0.0, chance: float = 0.5) -> Machine:
    """A round in which a server closed without a word; while a connection serves, its end."""
    if machine.connection:
        return made(machine, Lost(machine.connection))
    return made(machine, Dialed(2), Lost(2), RoundFailed(now, chance))


class TestSilence:
    """The questions when servers close without a word, and the use of the answers."""

    def closed_on(self, **fields: Any) -> Machine:
        return silent(silent(serving(last_zxid=5, **fields)))

    def test_every_server_that_closes_in_a_round_counts(self) -> None:
        machine = made(serving(last_zxid=5), Lost(1), Dialed(2), Lost(2))
        assert machine.silent == 1
        assert made(machine, Dialed(3), Lost(3)).silent == 2

    def test_a_server_that_only_reads_ends_every_suspicion_when_it_is_lost(self) -> None:
        machine = Machine(TIMEOUT, allow_read_only=True, last_zxid=5)
        for number in (1, 2):  # a fresh session is asked for, and then one to read with
            machine = made(machine, Dialed(number), Lost(number), RoundFailed(0.0, 0.5))
        machine = made(machine, Dialed(3), Lost(3), Dialed(4), Accepted(4, 9, b"", TIMEOUT, True, 0.0), Primed(4))
        assert (machine.read_only, machine.silent, machine.silent_rounds) == (True, 1, 2)
        machine = made(machine, Lost(4))
        assert (machine.read_only, machine.silent, machine.silent_rounds, machine.fresh_at) == (False, 0, 0, NEVER)

    def test_the_next_question_is_whether_the_session_is_known(self) -> None:
        machine, commands = step(self.closed_on(), Dialed(3))
        assert machine.phase is Phase.ASKING
        assert commands == (Handshake(3, 7, b"password", 0, TIMEOUT, False),)

    def test_not_after_a_round_in_which_none_closed(self) -> None:
        machine = made(serving(last_zxid=5), Lost(1), Dialed(2), Overdue(2), FAILED)
        assert machine.question is Question.OFFER

    def test_not_without_a_zxid_to_be_behind_of(self) -> None:
        assert made(serving(), Lost(1), Dialed(2), Lost(2), FAILED).question is Question.OFFER

    def test_it_alternates_with_the_offer(self) -> None:
        machine, questions = self.closed_on(), []
        for _ in range(6):
            questions.append(machine.question)
            machine = silent(machine)
        assert questions == [Question.RECOGNISE, Question.OFFER] * 3

    def test_a_server_that_is_not_behind_gives_the_session_back(self) -> None:
        """It was electing, or lagging: nothing was written for that."""
        asked = made(self.closed_on(), Dialed(3))
        machine, commands = step(asked, Accepted(3, 7, b"password", 4.0, False, 1.0))
        assert commands == (Probe(3, write=False),)
        machine, commands = step(machine, Probed(3, 5, 1.5, 2.0, False))
        assert commands == (Prime(3, 5),)
        assert (machine.session_id, machine.timeout, machine.evidence) == (7, 4.0, 1.5)
        assert made(machine, Primed(3)).state is SessionState.RECONNECTED

    def test_one_that_is_behind_is_asked_to_write(self) -> None:
        asked = made(self.closed_on(), Dialed(3), Accepted(3, 7, b"password", 4.0, False, 1.0))
        machine, commands = step(asked, Probed(3, 4, 1.5, 2.0, False))
        assert (machine.phase, commands) == (Phase.PROBING, (Probe(3, write=True),))
        caught_up, commands = step(machine, Probed(3, 6, 2.5, 3.0, True))
        assert commands == (Prime(3, 5),)
        assert caught_up.session_id == 7

    def test_a_quorum_that_is_behind_with_our_session_in_it_was_put_back(self) -> None:
        asked = made(self.closed_on(), Dialed(3), Accepted(3, 7, b"password", 4.0, False, 1.0))
        machine, commands = step(asked, Probed(3, 4, 1.5, 2.0, True))
        assert commands == (RollBack(5, 4, True), Drop(3), Announce(SessionState.EXPIRED, 7))
        assert (asked.failures, machine.failures) == (2, 0), "another session is asked for at once"
        assert (machine.session_id, machine.last_zxid, machine.history, machine.earlier_ids) == (0, 0, 1, (7,))
        assert step(machine, Dialed(4))[1] == (Handshake(4, 0, NO_SESSION, 0, TIMEOUT, False),)

    def test_one_that_does_not_know_it_says_so_at_once(self) -> None:
        machine = made(self.closed_on(), Dialed(3))
        machine, commands = step(machine, Refused(3, False))
        assert commands == (Drop(3), Announce(SessionState.EXPIRED, 7))
        assert (machine.session_id, machine.failures, machine.last_zxid) == (0, 0, 5)

    def test_a_server_without_quorum_says_nothing(self) -> None:
        machine = made(self.closed_on(), Dialed(3), Refused(3, True))
        assert (machine.session_id, machine.state) == (7, SessionState.SUSPENDED)

    def without_session(self) -> Machine:
        return silent(made(self.closed_on(), Dialed(3), Refused(3, False)))

    def test_without_a_session_a_fresh_one_is_asked_for(self) -> None:
        machine = self.without_session()
        assert step(machine, Dialed(4))[1] == (Handshake(4, 0, NO_SESSION, 0, TIMEOUT, False),)
        machine = made(machine, Dialed(4), Accepted(4, 8, b"", 4.0, False, 1.0))
        machine, commands = step(machine, Probed(4, 9, 2.0, 2.0, True))
        assert commands == (Prime(4, 5),)
        assert (machine.session_id, machine.history) == (8, 0)

    def test_a_quorum_behind_us_is_proof(self) -> None:
        asked = made(self.without_session(), Dialed(4), Accepted(4, 8, b"new", 4.0, False, 1.0))
        machine, commands = step(asked, Probed(4, 4, 1.5, 2.0, True))
        assert commands == (RollBack(5, 4, True), Prime(4, 0))
        assert (machine.session_id, machine.password, machine.timeout, machine.evidence) == (8, b"new", 4.0, 1.5)

    def test_an_answer_without_a_quorum_proves_nothing(self) -> None:
        asked = made(self.closed_on(), Dialed(3), Accepted(3, 7, b"", TIMEOUT, False, 1.0))
        machine, commands = step(asked, Probed(3, -1, 1.0, 1.0, False))
        assert commands == (Drop(3),)
        assert machine.behind_since == float("inf")

    def test_one_that_has_written_nothing_is_behind_like_any_other(self) -> None:
        asked = made(self.closed_on(), Dialed(3), Accepted(3, 7, b"", TIMEOUT, False, 1.0))
        machine, commands = step(asked, Probed(3, 0, 1.5, 2.0, False))
        assert (machine.phase, commands) == (Phase.PROBING, (Probe(3, write=True),))


class TestPresumption:
    """A quorum serves, and no server ever says a word about our session."""

    def doubting(self, chance: float = 0.5) -> Machine:
        machine, now = silent(silent(serving(last_zxid=5), chance=chance), chance=chance), 0.0
        while machine.question is not Question.FRESH:
            now += 0.1
            machine = silent(machine, now, chance)
        return machine._replace(evidence=now)

    @pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
    def test_silence_is_given_the_time_of_an_election_and_not_the_same_to_all(self, chance: float) -> None:
        assert self.doubting(chance).evidence == pytest.approx(TIMEOUT * (0.5 + 0.5 * chance), abs=0.3)

    def test_the_first_silent_round_says_when(self) -> None:
        machine = silent(silent(serving(last_zxid=5)), 100.0, 0.25)
        assert machine.fresh_at == 100.0 + TIMEOUT * 0.625
        for now in (101.0, 102.0):
            machine = silent(machine, now, 0.75)
            assert machine.fresh_at == 106.25
        assert machine.question is Question.RECOGNISE
        assert silent(machine, 106.2).question is Question.OFFER
        assert silent(machine, 106.25).question is Question.FRESH

    def test_the_round_that_asked_for_a_fresh_one_says_when_it_is_asked_for_next(self) -> None:
        machine = silent(self.doubting(), 100.0)
        assert (machine.question, machine.fresh_at) == (Question.OFFER, 100.0 + TIMEOUT / 2)

    def test_a_fresh_one_that_is_too_early_to_tell_is_closed_and_ours_offered_again(self) -> None:
        asked = self.doubting()._replace(behind_since=100.0, silent=1, failures=3)
        asked = made(asked, Dialed(3), Accepted(3, 8, b"", 4.0, False, 114.0))
        kept, commands = step(asked, Probed(3, 9, 114.0, 114.9, True))
        assert commands == (CloseSession(3), Drop(3))
        assert (kept.phase, kept.question, kept.session_id) == (Phase.OFFLINE, Question.OFFER, 7)
        assert (kept.behind_since, kept.fresh_at) == (100.0, 114.9 + TIMEOUT / 2)
        assert (kept.failures, kept.silent) == (4, 0)
        ended, _ = step(asked, Probed(3, 9, 114.0, 115.0, True))
        assert ended.session_id == 8

    def test_fresh_sessions_are_asked_for_rarely(self) -> None:
        machine, asked = silent(silent(serving(last_zxid=5))), 0
        for tick in range(1000):  # a hundred seconds
            asked += machine.question is Question.FRESH
            machine = silent(machine, tick / 10)
        assert 100 / TIMEOUT < asked < 2.2 * 100 / TIMEOUT

    def test_takes_one_and_a_half_timeouts(self) -> None:
        machine, now = self.doubting(), 100.0
        seen = []
        while machine.session_id == 7:
            if machine.question is Question.FRESH:
                machine = made(machine, Dialed(3), Accepted(3, 8, b"", 4.0, False, now))
                machine, commands = step(machine, Probed(3, 9, now, now, True))
                seen.append((now, commands))
            else:
                machine = silent(machine, now)
            now += 1.0
        (first, kept), (last, found) = seen[0], seen[-1]
        assert kept == (CloseSession(3), Drop(3))
        assert found == (RollBack(5, 9, False), Announce(SessionState.EXPIRED, 7), Prime(3, 0))
        assert 1.5 * TIMEOUT <= last - first <= 2 * TIMEOUT + 2

    @pytest.mark.parametrize("outage", [(Dialed(5), Overdue(5), FAILED), (FAILED,)])
    def test_an_outage_starts_it_anew(self, outage: tuple[Event, ...]) -> None:
        machine = made(self.doubting(), Dialed(3), Accepted(3, 8, b"", 4.0, False, 100.0))
        machine = made(machine, Probed(3, 9, 100.0, 100.0, True))
        machine = silent(machine, 100.0)
        assert machine.behind_since == 100.0
        assert made(machine, *outage).behind_since == float("inf")

    def test_so_does_a_fresh_session_that_is_not_granted(self) -> None:
        machine = self.doubting()._replace(behind_since=100.0)
        assert silent(machine, 101.0).behind_since == float("inf")


def test_records_of_two_kinds_are_never_equal() -> None:
    same, other = Lost(1), Overdue(1)
    assert Lost(1) == same
    assert same != other  # type: ignore[comparison-overlap]
    assert not same == other  # type: ignore[comparison-overlap] # noqa: SIM201 - the other of the two operators
    assert len({Lost(1), same, other}) == 2


def test_no_record_shows_a_password() -> None:
    secret = b"a password of 16"
    shown = repr(
        [Accepted(1, 2, secret, 3.0, False, 4.0), Handshake(1, 2, secret, 3, 4.0, False), Machine(5.0, password=secret)]
    )
    assert "password" not in shown
    assert "Accepted(connection=1, session_id=2, timeout=3.0" in shown
