"""The session machine: what happened, to what state follows and what is to be done. Pure.

The machine is a value; :func:`step` gives the next one and the commands for whoever does the input and output. It
decides everything that can be decided without a socket: which id to offer, when a server's word counts, when a
connection is abandoned, when the ensemble has lost the history that our zxids belong to.

Connecting goes in *rounds*: a round tries every address of the ensemble once. A server that closes without a word
during the handshake does so because our last zxid is ahead of it (``ZooKeeperServer.processConnectRequest`` throws
CloseRequestException), or because it is electing or overloaded. The servers of a round that closed so are asked another
:class:`Question`:

- *Do you know the session?* It is offered without our last zxid, which costs the ensemble no transaction: a leader
  change, when every client is closed on, must not make them all write. A server that does not know the session says so:
  it has ended, by its timeout or with its history. One that does is asked to sync: if its zxid is not below ours then,
  it had been electing or lagging, and the session is taken up there. If it is below, a write that must fail asks the
  quorum; below ours again, the ensemble was put back to a copy that has our session in it, and the session is given up.
- *Who are you?* Whoever has no session to lose, because it ended, asks for a fresh one, which only a quorum can grant,
  and sends a write that must fail. The zxid in that reply's header is the quorum's. Below ours: the history that every
  zxid of ours belongs to is no more. The session is taken in any case.
- The same is asked with a session of ours where silence lasts longer than an election does, rarely, and at a random
  moment: a server that never says a word about our session. If a quorum serves for as long as the session could have
  lived, and nobody took it, it is presumed lost; until then the fresh one is closed, and ours is offered again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from .states import FOLLOWING, News, SessionState

__all__ = [
    "Accepted",
    "Announce",
    "CloseRequested",
    "CloseSession",
    "Command",
    "CredentialsRefused",
    "Dialed",
    "Drop",
    "Event",
    "Failed",
    "Handshake",
    "Lost",
    "Machine",
    "Overdue",
    "Phase",
    "Prime",
    "Primed",
    "Probe",
    "Probed",
    "Question",
    "Refused",
    "RollBack",
    "RoundFailed",
    "Row",
    "diagram",
    "step",
]

R = TypeVar("R", bound=NamedTuple)


class Phase(enum.Enum):
    """What the connection in use is doing; OFFLINE when there is none."""

    OFFLINE = "offline"
    HANDSHAKING = "handshaking"
    ASKING = "asking for a probe session"
    PROBING = "probing"
    PRIMING = "priming"
    SERVING = "serving"
    CLOSING = "closing"
    ENDED = "ended"


class Question(enum.Enum):
    """What the servers of a round are asked."""

    OFFER = "a session, ours if there is one"
    RECOGNISE = "whether they know our session, whatever their zxid"
    FRESH = "for a fresh session, to learn the quorum's zxid"


def _record(kind: type[R]) -> type[R]:
    """Let tuples of different kinds never be equal, and none show a secret.

    What a frozen dataclass does too; making one takes half a millisecond of everybody's import, a named tuple little.
    """

    def equal(self: R, other: object) -> bool:
        return type(self) is type(other) and tuple.__eq__(self, other)

    def unequal(self: R, other: object) -> bool:
        return not equal(self, other)

    def shown(self: R) -> str:
        fields = {field: value for field, value in self._asdict().items() if field not in _SECRETS}
        return f"{type(self).__name__}({', '.join(f'{field}={value!r}' for field, value in fields.items())})"

    for name, method in (("__eq__", equal), ("__ne__", unequal), ("__hash__", tuple.__hash__), ("__repr__", shown)):
        setattr(kind, name, method)
    return kind


_SECRETS = {"password", "probe"}


@_record
class _AboutConnection(NamedTuple):
    connection: int


@_record
class _Bare(NamedTuple):
    pass


# ---------------------------------------------------------------- events


class Dialed(_AboutConnection):
    """A connection to a server is up; nothing was sent on it."""

    __slots__ = ()


@_record
class RoundFailed(NamedTuple):
    """Every address was tried, none accepted, at ``now`` (boot clock); ``chance`` is a random number from 0 to 1."""

    now: float
    chance: float


@_record
class Accepted(NamedTuple):
    """The server accepted a session; ``sent`` is when it was asked (boot clock)."""

    connection: int
    session_id: int
    password: bytes
    timeout: float
    read_only: bool
    sent: float


@_record
class Refused(NamedTuple):
    """The server said that the session offered is no more."""

    connection: int
    read_only: bool


class Lost(_AboutConnection):
    """The connection ended by itself."""

    __slots__ = ()


class Overdue(_AboutConnection):
    """The connection did not answer in time."""

    __slots__ = ()


class Primed(_AboutConnection):
    """Credentials and watches are in place."""

    __slots__ = ()


@_record
class Probed(NamedTuple):
    """The probe, sent at ``sent``, was answered at ``now`` (boot clock); ``zxid`` is the server's.

    After a ``write`` it is the quorum's. A zxid that is not positive says that no quorum was asked.
    """

    connection: int
    zxid: int
    sent: float
    now: float
    write: bool


class CredentialsRefused(_AboutConnection):
    """The server refused our credentials."""

    __slots__ = ()


class CloseRequested(_Bare):
    """This process wants the session to end."""

    __slots__ = ()


class Failed(_Bare):
    """Whoever runs the machine cannot go on."""

    __slots__ = ()


Event = (
    Dialed
    | RoundFailed
    | Accepted
    | Refused
    | Lost
    | Overdue
    | Primed
    | Probed
    | CredentialsRefused
    | CloseRequested
    | Failed
)


# ---------------------------------------------------------------- commands


@_record
class Handshake(NamedTuple):
    """Send a ConnectRequest."""

    connection: int
    session_id: int
    password: bytes
    last_zxid: int
    timeout: float
    read_only: bool


class Drop(_AboutConnection):
    """Close the socket; what comes from it later is not read."""

    __slots__ = ()


@_record
class Prime(NamedTuple):
    """Send credentials, then restore the watches: what changed after ``relative_zxid`` is news to them."""

    connection: int
    relative_zxid: int


@_record
class Probe(NamedTuple):
    """Send a write that must fail, or else a sync, and report the zxid in its reply's header."""

    connection: int
    write: bool


class CloseSession(_AboutConnection):
    """Ask the server to end the session of this connection; it answers by closing it."""

    __slots__ = ()


@_record
class RollBack(NamedTuple):
    """The ensemble lost our history: ``proven``, or presumed after the longest the session could have lived."""

    ours: int
    theirs: int
    proven: bool


@_record
class Announce(NamedTuple):
    """The public state of this session is now this; an expired one has its former id."""

    state: SessionState
    session_id: int


Command = Handshake | Drop | Prime | Probe | CloseSession | RollBack | Announce


# ---------------------------------------------------------------- the machine


@_record
class Machine(NamedTuple):
    """The whole of what the session knows, as a value.

    ``last_zxid`` and ``evidence`` (boot clock; when the last request that the quorum answered was sent) are folded
    in by whoever runs the machine, from the replies of the connection in use.
    """

    requested_timeout: float
    allow_read_only: bool = False
    state: SessionState = SessionState.DISCONNECTED
    phase: Phase = Phase.OFFLINE
    connection: int = 0
    session_id: int = 0
    password: bytes = bytes(16)
    timeout: float = 0.0
    read_only: bool = False
    last_zxid: int = 0
    evidence: float = float("-inf")
    accepted: float = 0.0
    """When the session was last asked for and granted (boot clock)."""
    earlier_ids: tuple[int, ...] = ()
    generation: int = 0
    history: int = 0
    failures: int = 0
    """Attempts that failed in a row, whole rounds or connections that did not last; 0 retries at once."""
    silent: int = 0
    """Servers of this round that closed during the handshake without a word."""
    silent_rounds: int = 0
    """Rounds in a row in which a server closed so; 2 stands for more."""
    question: Question = Question.OFFER
    """What the next connection asks."""
    fresh_at: float = float("inf")
    """When a fresh session may be asked for although there is ours (boot clock)."""
    probe: tuple[int, bytes, float] = (0, b"", 0.0)
    """The session that is probed: id, password, timeout."""
    behind_since: float = float("inf")
    """Since when every fresh session showed that a quorum serves although no server took our session (boot clock)."""

    @property
    def connected(self) -> bool:
        """Requests can be sent."""
        return self.phase is Phase.SERVING

    @property
    def lifetime(self) -> float:
        """The session's timeout as negotiated, or as it will be asked for."""
        return self.timeout or self.requested_timeout


# A connection that served for less than this many seconds counts as a failed attempt: a server that closes on everybody
# at once, because it sheds its load or refuses what is sent to it, must not be asked without a pause.
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


def step(machine: Machine, event: Event) -> Step:
    """Return the machine after *event*, and the commands to carry out, in order.

    An event of a connection other than the one in use changes nothing: a superseded socket is never listened to.
    Raises KeyError for an event that has no place in the present phase, which is a defect of the caller, and for a
    step to where the table does not lead, which is one of ours.
    """
    connection = getattr(event, "connection", None)
    if connection is not None and connection != machine.connection and not isinstance(event, Dialed):
        return machine, ()
    row = _TABLE[machine.phase, type(event)]
    after, commands = row.decide(machine, event)
    if (target := (after.phase, _news(machine, commands))) not in row.targets:
        raise KeyError(f"{type(event).__name__} leads from {machine.phase} not to {target}")
    return after, commands


def _news(machine: Machine, commands: tuple[Command, ...]) -> News | None:
    """Return what the commands of one step tell of the session."""
    for command in commands:
        if isinstance(command, Announce):
            return next((news for news, state in FOLLOWING[machine.state].items() if state is command.state), None)
    return None


def _announced(machine: Machine, news: News) -> tuple[Machine, tuple[Command, ...]]:
    """Move to the state that follows from *news*; those that the table does not know raise."""
    state = FOLLOWING[machine.state].get(news)
    if state is None:
        raise KeyError(f"{news} from {machine.state} is no move of a session")
    return machine._replace(state=state), (Announce(state, machine.session_id),)


def _ignore(machine: Machine, _event: Event) -> Step:
    return machine, ()


def _offline(machine: Machine, **changes: Any) -> Machine:
    return machine._replace(phase=Phase.OFFLINE, connection=0, read_only=False, probe=(0, b"", 0.0), **changes)


# ---- offline


def _on_dialed(machine: Machine, event: Dialed) -> Step:
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


def _on_round_failed(machine: Machine, event: RoundFailed) -> Step:
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


def _on_accepted(machine: Machine, event: Accepted) -> Step:
    if not event.read_only:
        return _taken(machine, event.session_id, event.password, event.timeout, event.sent)
    if machine.session_id or not machine.allow_read_only:
        return _on_unanswered(machine, event)
    # The id is invented by a server without quorum: it never becomes ours, and its acceptance is no evidence.
    reading = machine._replace(phase=Phase.PRIMING, read_only=True, timeout=event.timeout)
    return reading, (Prime(event.connection, machine.last_zxid),)


def _taken(machine: Machine, session_id: int, password: bytes, timeout: float, sent: float) -> Step:
    said: tuple[Command, ...] = ()
    if session_id != machine.session_id:
        # Servers other than Apache's grant another session instead of refusing ours (ClickHouse Keeper), which may live
        # on there until it times out. Where there was none, what was announced was a read-only server's invention.
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


def _on_refused(machine: Machine, event: Refused) -> Step:
    if event.read_only:
        # ReadOnlyZooKeeperServer refuses every known session: that is no expiry.
        return _on_unanswered(machine, event)
    if not machine.session_id:
        return _offline(machine, failures=machine.failures + 1), (Drop(event.connection),)
    return _ended(machine)


def _ended(machine: Machine) -> Step:
    """A server says that the session is no more."""
    dropped = Drop(machine.connection)
    machine, said = _left(machine)
    return _offline(machine, failures=0), (dropped, *said)


def _left(machine: Machine, *, lost_history: bool = False) -> Step:
    """Leave the session behind, however it ended: forget it, keep its id, and say so where it was known.

    In a new history (*lost_history*) ids of sessions are given anew: only the last can have been in a copy of it.
    """
    said: tuple[Command, ...] = ()
    ended = machine.session_id
    if News.LEFT in FOLLOWING[machine.state]:  # else it was never announced, or as expired already
        machine, said = _announced(machine, News.LEFT)
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


def _on_silently_closed(machine: Machine, event: Lost) -> Step:
    return _offline(machine, silent=machine.silent + 1), (Drop(event.connection),)


def _on_unanswered(machine: Machine, event: Accepted | Overdue | Refused) -> Step:
    return _offline(machine), (Drop(event.connection),)


# ---- asking and probing


def _on_probe_accepted(machine: Machine, event: Accepted) -> Step:
    if event.read_only:
        return _on_probe_failed(machine, event)
    probing = machine._replace(phase=Phase.PROBING, probe=(event.session_id, event.password, event.timeout))
    return probing, (Probe(event.connection, write=event.session_id != machine.session_id),)


def _on_probe_refused(machine: Machine, event: Refused) -> Step:
    if event.read_only or machine.question is not Question.RECOGNISE:
        return _on_probe_failed(machine, event)
    return _ended(machine)


def _on_probe_failed(machine: Machine, event: Accepted | Refused | Lost | Overdue | Probed) -> Step:
    return _offline(machine), (Drop(event.connection),)


def _on_probed(machine: Machine, event: Probed) -> Step:
    ours = machine.probe[0] == machine.session_id
    if event.zxid <= 0:
        return _on_probe_failed(machine, event)
    if event.zxid < machine.last_zxid:
        if not event.write:
            return machine, (Probe(event.connection, write=True),)
        return _put_back(machine, event) if ours else _rolled_back(machine, event, proven=True)
    if ours or not machine.session_id:
        return _taken(machine, *machine.probe, event.sent)
    behind_since = min(machine.behind_since, event.now)
    # A quorum served for as long as our session could have lived, and nobody took it. Expiry is rounded up to the
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


def _on_primed(machine: Machine, _event: Primed) -> Step:
    serving = machine._replace(phase=Phase.SERVING, generation=machine.generation + 1)
    return _announced(serving, News.SERVES)


def _on_priming_lost(machine: Machine, event: Lost | Overdue) -> Step:
    return _offline(machine, failures=machine.failures + 1), (Drop(event.connection),)


def _on_serving_lost(machine: Machine, event: Lost | Overdue) -> Step:
    lasted = machine.evidence - machine.accepted >= _LASTING
    offline = _offline(machine, failures=0 if lasted else machine.failures + 1, silent=0, **_UNSUSPICIOUS)
    suspended, said = _announced(offline, News.SUSPENDED)
    return suspended, (Drop(event.connection), *said)


# ---- ending


def _fail(machine: Machine, _event: Event) -> Step:
    dropped = () if machine.connection == 0 else (Drop(machine.connection),)
    failed, said = _announced(_offline(machine)._replace(phase=Phase.ENDED), News.FAILED)
    return failed, (*dropped, *said)


def _on_close_connected(machine: Machine, _event: CloseRequested) -> Step:
    closed, said = _announced(machine._replace(phase=Phase.CLOSING), News.CLOSED)
    return closed, (CloseSession(machine.connection), *said)


def _on_close_offline(machine: Machine, _event: CloseRequested) -> Step:
    dropped = () if machine.connection == 0 else (Drop(machine.connection),)
    closed, said = _announced(_offline(machine)._replace(phase=Phase.ENDED), News.CLOSED)
    return closed, (*dropped, *said)


def _on_closing_over(machine: Machine, event: Lost | Overdue) -> Step:
    return _offline(machine)._replace(phase=Phase.ENDED), (Drop(event.connection),)


Target = tuple[Phase, News | None]


class Row(NamedTuple):
    """What an event leads to in a phase: who decides, and between what."""

    decide: Handler
    targets: frozenset[Target]


def _row(decide: Handler, *targets: Phase | Target) -> Row:
    return Row(decide, frozenset(target if isinstance(target, tuple) else (target, None) for target in targets))


_TABLE: Mapping[tuple[Phase, type[Event]], Row] = MappingProxyType(
    {
        (Phase.OFFLINE, Dialed): _row(_on_dialed, Phase.HANDSHAKING, Phase.ASKING),
        (Phase.OFFLINE, RoundFailed): _row(_on_round_failed, Phase.OFFLINE),
        (Phase.OFFLINE, CloseRequested): _row(_on_close_offline, (Phase.ENDED, News.CLOSED)),
        (Phase.OFFLINE, Failed): _row(_fail, (Phase.ENDED, News.FAILED)),
        #
        (Phase.HANDSHAKING, Accepted): _row(_on_accepted, Phase.PRIMING, (Phase.PRIMING, News.LEFT), Phase.OFFLINE),
        (Phase.HANDSHAKING, Refused): _row(_on_refused, Phase.OFFLINE, (Phase.OFFLINE, News.LEFT)),
        (Phase.HANDSHAKING, Lost): _row(_on_silently_closed, Phase.OFFLINE),
        (Phase.HANDSHAKING, Overdue): _row(_on_unanswered, Phase.OFFLINE),
        (Phase.HANDSHAKING, CloseRequested): _row(_on_close_offline, (Phase.ENDED, News.CLOSED)),
        (Phase.HANDSHAKING, Failed): _row(_fail, (Phase.ENDED, News.FAILED)),
        #
        (Phase.ASKING, Accepted): _row(_on_probe_accepted, Phase.PROBING, Phase.OFFLINE),
        (Phase.ASKING, Refused): _row(_on_probe_refused, Phase.OFFLINE, (Phase.OFFLINE, News.LEFT)),
        (Phase.ASKING, Lost): _row(_on_silently_closed, Phase.OFFLINE),
        (Phase.ASKING, Overdue): _row(_on_probe_failed, Phase.OFFLINE),
        (Phase.ASKING, CloseRequested): _row(_on_close_offline, (Phase.ENDED, News.CLOSED)),
        (Phase.ASKING, Failed): _row(_fail, (Phase.ENDED, News.FAILED)),
        #
        (Phase.PROBING, Probed): _row(
            _on_probed,
            Phase.PROBING,
            Phase.PRIMING,
            (Phase.PRIMING, News.LEFT),
            Phase.OFFLINE,
            (Phase.OFFLINE, News.LEFT),
        ),
        (Phase.PROBING, Lost): _row(_on_probe_failed, Phase.OFFLINE),
        (Phase.PROBING, Overdue): _row(_on_probe_failed, Phase.OFFLINE),
        (Phase.PROBING, CloseRequested): _row(_on_close_offline, (Phase.ENDED, News.CLOSED)),
        (Phase.PROBING, Failed): _row(_fail, (Phase.ENDED, News.FAILED)),
        #
        (Phase.PRIMING, Primed): _row(_on_primed, (Phase.SERVING, News.SERVES)),
        (Phase.PRIMING, CredentialsRefused): _row(_fail, (Phase.ENDED, News.FAILED)),
        (Phase.PRIMING, Lost): _row(_on_priming_lost, Phase.OFFLINE),
        (Phase.PRIMING, Overdue): _row(_on_priming_lost, Phase.OFFLINE),
        (Phase.PRIMING, CloseRequested): _row(_on_close_connected, (Phase.CLOSING, News.CLOSED)),
        (Phase.PRIMING, Failed): _row(_fail, (Phase.ENDED, News.FAILED)),
        #
        (Phase.SERVING, Lost): _row(_on_serving_lost, (Phase.OFFLINE, News.SUSPENDED)),
        (Phase.SERVING, Overdue): _row(_on_serving_lost, (Phase.OFFLINE, News.SUSPENDED)),
        (Phase.SERVING, CloseRequested): _row(_on_close_connected, (Phase.CLOSING, News.CLOSED)),
        (Phase.SERVING, Failed): _row(_fail, (Phase.ENDED, News.FAILED)),
        #
        (Phase.CLOSING, Lost): _row(_on_closing_over, Phase.ENDED),
        (Phase.CLOSING, Overdue): _row(_on_closing_over, Phase.ENDED),
        (Phase.CLOSING, Primed): _row(_ignore, Phase.CLOSING),
        (Phase.CLOSING, CloseRequested): _row(_ignore, Phase.CLOSING),
        (Phase.CLOSING, Failed): _row(_ignore, Phase.CLOSING),
        #
        (Phase.ENDED, CloseRequested): _row(_ignore, Phase.ENDED),
        (Phase.ENDED, Failed): _row(_ignore, Phase.ENDED),
    }
)
"""From each phase, what may happen, and where that may lead: the next phase, and what is told of the session."""


def diagram() -> str:
    """Return the table as a Mermaid state diagram, as it stands in the docs."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.OFFLINE.name.lower()}"]
    arrows: dict[tuple[Phase, Phase], dict[str, None]] = {}
    for (phase, event), row in _TABLE.items():
        for target, news in sorted(row.targets, key=str):
            told = "" if news is None else f" / {news.value}"
            if phase is not target or told:
                arrows.setdefault((phase, target), {})[f"{event.__name__}{told}"] = None
    for (phase, target), why in arrows.items():
        lines.append(f"    {phase.name.lower()} --> {target.name.lower()}: {', '.join(why)}")
    return "\n".join([*lines, f"    {Phase.ENDED.name.lower()} --> [*]"])
