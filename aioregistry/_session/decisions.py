"""The consequences of each event, decided by the function that the table of the session machine names for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from .states import FOLLOWING, Transition
from .vocabulary import (
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

# A connection whose last answer came within so many seconds of its acceptance counts as a failed attempt: a server that
# closes on everybody at once, because it sheds its load or refuses every request, must not be asked without a
# pause.
_LASTING = 1.0

# With a session of ours a fresh one is asked for so often, in session timeouts.
_FRESH_PAUSE = 0.5

_UNSUSPICIOUS: Mapping[str, Any] = MappingProxyType(
    {
        "silent_rounds": 0,
        "question": Question.OFFER,
        "fresh_at": float("inf"),
        "behind_since": float("inf"),
    }
)
"""Nothing makes us doubt that the ensemble knows our session."""

# Ids of sessions that ended, kept to know an own ghost by. A server deletes a session's nodes with it, so that only
# the last few can still have any.
_EARLIER_IDS_KEPT = 16

Step = tuple[Machine, tuple[Command, ...]]
Handler = Callable[[Machine, Any], Step]


def transition_of(machine: Machine, commands: tuple[Command, ...]) -> Transition | None:
    """Return the changes of the session that the commands of one step report."""
    for command in commands:
        if isinstance(command, Announce):
            return next((news for news, state in FOLLOWING[machine.state].items() if state is command.state), None)
    return None


def _announced(machine: Machine, news: Transition) -> tuple[Machine, tuple[Command, ...]]:
    """Move to the state that follows from *news*; those that the table does not know raise."""
    state = FOLLOWING[machine.state].get(news)
    if state is None:
        raise KeyError(f"{news} from {machine.state} is not a move of a session")
    return machine._replace(state=state), (Announce(state, machine.session_id),)


def ignore(machine: Machine, _event: Event) -> Step:
    return machine, ()


def _offline(machine: Machine, **changes: Any) -> Machine:
    return machine._replace(phase=Phase.OFFLINE, connection=0, read_only=False, probe=(0, b"", 0.0), **changes)


# ---- offline


def on_dialed(machine: Machine, event: Dialed) -> Step:
    asking, fresh = machine.question is not Question.OFFER, machine.question is Question.FRESH
    next_machine = machine._replace(phase=Phase.ASKING if asking else Phase.HANDSHAKING, connection=event.connection)
    return next_machine, (
        Handshake(
            event.connection,
            0 if fresh else machine.session_id,
            bytes(16) if fresh else machine.password,
            0 if asking else machine.last_zxid,
            machine.requested_timeout,
            # A read-only server invents sessions, which prove nothing: never for a probe. And it refuses known ones.
            machine.allow_read_only and not asking and not machine.session_id,
        ),
    )


def on_round_failed(machine: Machine, event: RoundFailed) -> Step:
    failed = machine._replace(silent=0, failures=machine.failures + 1)
    if not machine.silent or not machine.last_zxid:
        # An ensemble that was away restarts the timers of its sessions: ours may live.
        return failed._replace(**_UNSUSPICIOUS), ()
    if machine.silent_rounds == 0:
        # Longer than an election takes, and not for all clients at once.
        fresh_at = event.now + machine.lifetime * (0.5 + 0.5 * event.chance)
    elif machine.question is Question.FRESH:
        fresh_at = event.now + machine.lifetime * _FRESH_PAUSE
    else:
        fresh_at = machine.fresh_at
    return failed._replace(
        silent_rounds=min(machine.silent_rounds + 1, 2),
        question=_next_question(machine, fresh=event.now >= fresh_at),
        fresh_at=fresh_at,
        behind_since=float("inf") if machine.question is Question.FRESH else machine.behind_since,
    ), ()


def _next_question(machine: Machine, *, fresh: bool) -> Question:
    """Return what to ask after a round of silence."""
    if machine.question is Question.OFFER:
        return Question.RECOGNISE if machine.session_id else Question.FRESH
    return Question.FRESH if fresh and machine.question is Question.RECOGNISE else Question.OFFER


# ---- handshaking


def on_accepted(machine: Machine, event: Accepted) -> Step:
    if not event.read_only:
        return _taken(machine, event.session_id, event.password, event.timeout, event.sent)
    if machine.session_id or not machine.allow_read_only:
        return on_unanswered(machine, event)
    # The id is invented by a server without quorum: it never becomes ours, and its acceptance is not evidence.
    reading = machine._replace(phase=Phase.PRIMING, read_only=True, timeout=event.timeout)
    return reading, (Prime(event.connection, machine.last_zxid),)


def _taken(machine: Machine, session_id: int, password: bytes, timeout: float, sent: float) -> Step:
    said: tuple[Command, ...] = ()
    if session_id != machine.session_id:
        # Servers other than Apache's grant another session instead of refusing ours (ClickHouse Keeper), which may live
        # on there until it times out. If there was no session before, the announced one was a read-only server's
        # invention.
        machine, said = _left(machine)
    primed = machine._replace(
        phase=Phase.PRIMING,
        session_id=session_id,
        password=password,
        timeout=timeout,
        evidence=max(machine.evidence, sent),
        accepted=sent,
        read_only=False,
        silent=0,
        probe=(0, b"", 0.0),
        **_UNSUSPICIOUS,
    )
    return primed, (*said, Prime(machine.connection, machine.last_zxid))


def on_refused(machine: Machine, event: Refused) -> Step:
    if event.read_only:
        # ReadOnlyZooKeeperServer refuses every known session: that is not an expiry.
        return on_unanswered(machine, event)
    if not machine.session_id:
        return _offline(machine, failures=machine.failures + 1), (Drop(event.connection),)
    return _ended(machine)


def _ended(machine: Machine) -> Step:
    """A server says that the session has ended."""
    dropped = Drop(machine.connection)
    machine, said = _left(machine)
    return _offline(machine, failures=0), (dropped, *said)


def _left(machine: Machine, *, lost_history: bool = False) -> Step:
    """Leave the session behind, however it ended: forget it, keep its id, and say so where it was known.

    In a new history (*lost_history*) ids of sessions are given again: only the last can have been in a copy of it.
    """
    said: tuple[Command, ...] = ()
    ended = machine.session_id
    if Transition.LEFT in FOLLOWING[machine.state]:  # else it was never announced, or as expired already
        machine, said = _announced(machine, Transition.LEFT)
    if lost_history:
        # zxid 0: to the watches everything is news, since nothing of the new history is known.
        machine = machine._replace(last_zxid=0, history=machine.history + 1, earlier_ids=())
    left = machine._replace(
        session_id=0,
        password=bytes(16),
        evidence=float("-inf"),
        earlier_ids=(*machine.earlier_ids, *([ended] if ended else []))[-_EARLIER_IDS_KEPT:],
        silent=0,
        **_UNSUSPICIOUS,
    )
    return left, said


def on_silently_closed(machine: Machine, event: Lost) -> Step:
    return _offline(machine, silent=machine.silent + 1), (Drop(event.connection),)


def on_unanswered(machine: Machine, event: Accepted | Overdue | Refused) -> Step:
    return _offline(machine), (Drop(event.connection),)


# ---- asking and probing


def on_probe_accepted(machine: Machine, event: Accepted) -> Step:
    if event.read_only:
        return on_probe_failed(machine, event)
    probing = machine._replace(phase=Phase.PROBING, probe=(event.session_id, event.password, event.timeout))
    return probing, (Probe(event.connection, write=event.session_id != machine.session_id),)


def on_probe_refused(machine: Machine, event: Refused) -> Step:
    if event.read_only or machine.question is not Question.RECOGNISE:
        return on_probe_failed(machine, event)
    return _ended(machine)


def on_probe_failed(machine: Machine, event: Accepted | Refused | Lost | Overdue | Probed) -> Step:
    return _offline(machine), (Drop(event.connection),)


def on_probed(machine: Machine, event: Probed) -> Step:
    ours = machine.probe[0] == machine.session_id
    if event.zxid < 0:
        return on_probe_failed(machine, event)
    if event.zxid < machine.last_zxid:
        if not event.write:
            return machine, (Probe(event.connection, write=True),)
        return _put_back(machine, event) if ours else _rolled_back(machine, event, proven=True)
    if ours or not machine.session_id:
        return _taken(machine, *machine.probe, event.sent)
    behind_since = min(machine.behind_since, event.now)
    # A quorum served for as long as our session could have lived, and no server took it. Expiry is rounded up to the
    # next tick, of which the client knows only that the timeout is at least two: half the timeout more covers it.
    if event.now - behind_since >= 1.5 * machine.lifetime:
        return _rolled_back(machine, event, proven=False)
    kept = _offline(
        machine,
        behind_since=behind_since,
        question=Question.OFFER,
        fresh_at=event.now + machine.lifetime * _FRESH_PAUSE,
        failures=machine.failures + 1,
        silent=0,
    )
    return kept, (CloseSession(event.connection), Drop(event.connection))


def _put_back(machine: Machine, event: Probed) -> Step:
    """The ensemble was put back to a copy that has our session in it: what that owns there is a ghost's."""
    found: tuple[Command, ...] = (RollBack(machine.last_zxid, event.zxid, proven=True),)
    machine, said = _left(machine, lost_history=True)
    return _offline(machine, failures=0), (*found, Drop(event.connection), *said)


def _rolled_back(machine: Machine, event: Probed, *, proven: bool) -> Step:
    found: tuple[Command, ...] = (RollBack(machine.last_zxid, event.zxid, proven),)
    probe = machine.probe
    left, said = _left(machine, lost_history=True)
    primed, commands = _taken(left._replace(earlier_ids=()), *probe, event.sent)
    return primed._replace(last_zxid=event.zxid), (*found, *said, *commands)


# ---- priming and serving


def on_primed(machine: Machine, _event: Primed) -> Step:
    serving = machine._replace(phase=Phase.SERVING, generation=machine.generation + 1)
    return _announced(serving, Transition.SERVES)


def on_priming_lost(machine: Machine, event: Lost | Overdue) -> Step:
    return _offline(machine, failures=machine.failures + 1), (Drop(event.connection),)


def on_serving_lost(machine: Machine, event: Lost | Overdue) -> Step:
    lasted = machine.evidence - machine.accepted >= _LASTING
    offline = _offline(machine, failures=0 if lasted else machine.failures + 1, silent=0, **_UNSUSPICIOUS)
    suspended, said = _announced(offline, Transition.SUSPENDED)
    return suspended, (Drop(event.connection), *said)


# ---- ending


def on_failed(machine: Machine, _event: Event) -> Step:
    dropped = () if machine.connection == 0 else (Drop(machine.connection),)
    failed, said = _announced(_offline(machine)._replace(phase=Phase.ENDED), Transition.FAILED)
    return failed, (*dropped, *said)


def on_close_connected(machine: Machine, _event: CloseRequested) -> Step:
    closed, said = _announced(machine._replace(phase=Phase.CLOSING), Transition.CLOSED)
    return closed, (CloseSession(machine.connection), *said)


def on_close_offline(machine: Machine, _event: CloseRequested) -> Step:
    dropped = () if machine.connection == 0 else (Drop(machine.connection),)
    closed, said = _announced(_offline(machine)._replace(phase=Phase.ENDED), Transition.CLOSED)
    return closed, (*dropped, *said)


def on_closing_over(machine: Machine, event: Lost | Overdue) -> Step:
    return _offline(machine)._replace(phase=Phase.ENDED), (Drop(event.connection),)
