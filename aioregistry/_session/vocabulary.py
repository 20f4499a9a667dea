"""The words of the session machine, as values: its events, its actions, and its memory. Pure."""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeVar

from .states import SessionState

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
]

R = TypeVar("R", bound=NamedTuple)


class Phase(enum.Enum):
    """The state of the connection in use; OFFLINE without a connection."""

    OFFLINE = "offline"
    HANDSHAKING = "handshaking"
    ASKING = "asking for a probe session"
    PROBING = "probing"
    PRIMING = "priming"
    SERVING = "serving"
    CLOSING = "closing"
    ENDED = "ended"


class Question(enum.Enum):
    """The question to the servers of a round."""

    OFFER = "a session, ours if there is one"
    RECOGNISE = "whether they know our session, whatever their zxid"
    FRESH = "for a fresh session, to learn the quorum's zxid"


def _record(kind: type[R]) -> type[R]:
    """Let tuples of different kinds never be equal, and never show a secret.

    A frozen dataclass does that too; making one takes half a millisecond of everybody's import, a named tuple little.
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
    """Every address was tried and refused, at ``now`` (boot clock); ``chance`` is a random number from 0 to 1."""

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
    """The server said that the session offered has ended."""

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

    After a ``write`` it is the quorum's. A negative zxid says that no quorum was asked; 0 is that of an ensemble that
    has written nothing yet.
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
    """The driver of the machine cannot go on."""

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
    """Close the socket; later bytes from it are not read."""

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
    """All that the session knows, as a value.

    ``last_zxid`` and ``evidence`` (boot clock; when the last request that the quorum answered was sent) are folded
    in by the driver of the machine, from the replies of the connection in use.
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
    """The question of the next connection."""
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
