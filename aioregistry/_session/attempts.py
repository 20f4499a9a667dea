"""The outcomes of connecting by address, to explain why there is no connection. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

__all__ = ["REMEDIES", "Attempt", "AttemptOutcome", "Attempts", "failed_in_words", "outage_attempts"]

# Addresses move: of more than these the one that was tried longest ago is forgotten.
_KEPT = 64


class AttemptOutcome(enum.Enum):
    """How an attempt to connect ended."""

    PENDING = "pending"
    """It is under way, and nothing came of an earlier one."""
    UNRESOLVED = "unresolved"
    """The name gave no address."""
    REFUSED = "refused"
    """The connection was refused: nothing listens there."""
    UNREACHABLE = "unreachable"
    """The connection failed in another way."""
    SILENT = "silent"
    """Nothing came in time."""
    CLOSED = "closed"
    """The server closed the connection."""
    TLS = "tls"
    """The certificate does not fit, or the other end speaks no TLS."""
    FOREIGN = "foreign"
    """The peer that answered does not speak ZooKeeper's protocol."""
    UNAUTHENTICATED = "unauthenticated"
    """The server wants credentials that it was not given."""
    FAILED = "failed"
    """The server accepted the session and then answered with an error."""
    ENDED = "ended"
    """The server said that the session has ended."""
    NO_QUORUM = "no quorum"
    """The server is cut off from its quorum."""
    ACCEPTED = "accepted"
    """The server accepted the session."""


REMEDIES: Final[Mapping[AttemptOutcome, str]] = MappingProxyType(
    {
        AttemptOutcome.PENDING: "",
        AttemptOutcome.UNRESOLVED: "correct the name, or look at the name server",
        AttemptOutcome.REFUSED: "start ZooKeeper there, or correct the address",
        AttemptOutcome.UNREACHABLE: "look at the network to it",
        AttemptOutcome.SILENT: "look whether it hangs, or a firewall drops the packets",
        AttemptOutcome.CLOSED: "look into its log",
        AttemptOutcome.TLS: "compare its certificate with the TLS settings here",
        AttemptOutcome.FOREIGN: "correct the port, or the TLS settings here",
        AttemptOutcome.UNAUTHENTICATED: "give the credentials that it wants",
        AttemptOutcome.FAILED: "look into its log",
        AttemptOutcome.ENDED: "look into its log",
        AttemptOutcome.NO_QUORUM: "start the other members of the ensemble",
        AttemptOutcome.ACCEPTED: "look into its log",
    }
)
"""The remedy for an address where attempts end so."""


_IN_WORDS: Final[Mapping[AttemptOutcome, str]] = MappingProxyType(
    {
        AttemptOutcome.UNRESOLVED: "without an address for the name",
        AttemptOutcome.REFUSED: "refused",
        AttemptOutcome.UNREACHABLE: "unreachable",
        AttemptOutcome.SILENT: "without an answer in time",
        AttemptOutcome.CLOSED: "closed by the server",
        AttemptOutcome.TLS: "failed in TLS",
        AttemptOutcome.FOREIGN: "answered by something else than ZooKeeper",
        AttemptOutcome.UNAUTHENTICATED: "without the credentials that the server wants",
        AttemptOutcome.FAILED: "answered with an error",
        AttemptOutcome.ENDED: "after the end of the session",
        AttemptOutcome.NO_QUORUM: "at a server without its quorum",
    }
)
"""Attempts that ended so, after their number; those that are missing did not fail."""


class Attempt(NamedTuple):
    """The last answer of one address, and how often in a row; ``str()`` of it is one line for people."""

    outcome: AttemptOutcome
    """How it ended, or that it is under way."""
    reason: str
    """The same in words, with the details."""
    since: float
    """When this outcome was first met without another in between, in seconds since the epoch."""
    at: float
    """When it was met last, in seconds since the epoch."""
    times: int
    """How often in a row."""

    def __str__(self) -> str:
        return self.reason if self.times == 1 else f"{self.reason} ({self.times} times in {self.at - self.since:.1f} s)"


class Attempts(Mapping[str, Attempt]):
    """The last attempt at each address in one outage, in the order they were first tried."""

    def __init__(self) -> None:
        self._last: dict[str, Attempt] = {}
        self.ended: Counter[AttemptOutcome] = Counter()
        """How many have ended, by outcome, of all outages."""
        self.over = False
        """The outage is over: the next notes belong to another."""

    def begin(self, address: str, reason: str, now: float) -> None:
        """Note the attempt under way, unless there is a more useful answer of *address*."""
        last = self._present().get(address)
        if last is None or last.outcome is AttemptOutcome.PENDING:
            self._put(address, Attempt(AttemptOutcome.PENDING, reason, now, now, 1))

    def note(self, address: str, outcome: AttemptOutcome, reason: str, now: float) -> None:
        """Note how an attempt ended; *now* is in seconds since the epoch."""
        self.ended[outcome] += 1
        last = self._present().get(address)
        if last is None or last.outcome is not outcome:
            self._put(address, Attempt(outcome, reason, now, now, 1))
        else:
            self._put(address, Attempt(outcome, reason, last.since, now, last.times + 1))

    def resolved(self, address: str) -> None:
        """The name was resolved: from now on its addresses are reported instead."""
        last = self._last.get(address)
        if last is not None and last.outcome in (AttemptOutcome.PENDING, AttemptOutcome.UNRESOLVED):
            del self._last[address]

    @property
    def finished(self) -> bool:
        """An attempt of the present outage has ended: there is a reason to tell."""
        return not self.over and any(last.outcome is not AttemptOutcome.PENDING for last in self._last.values())

    def words(self) -> dict[str, str]:
        """Return a line for each address."""
        return {address: str(attempt) for address, attempt in self._last.items()}

    def remedies(self) -> str:
        """Return what to do about it, each once, as one line; empty where that is not known."""
        found = dict.fromkeys(REMEDIES[attempt.outcome] for attempt in self._last.values())
        return "; ".join(remedy for remedy in found if remedy)

    def _present(self) -> dict[str, Attempt]:
        if self.over:
            self.over = False
            self._last.clear()
        return self._last

    def _put(self, address: str, attempt: Attempt) -> None:
        if address not in self._last and len(self._last) >= _KEPT:
            del self._last[min(self._last, key=lambda known: self._last[known].at)]
        self._last[address] = attempt

    def __getitem__(self, address: str) -> Attempt:
        return self._last[address]

    def __iter__(self) -> Iterator[str]:
        return iter(self._last)

    def __len__(self) -> int:
        return len(self._last)

    def __repr__(self) -> str:
        return f"<Attempts {self.words()}>"


def failed_in_words(ended: Mapping[AttemptOutcome, int]) -> str:
    """Return how many attempts failed, and how, with the most frequent first; empty where there was no failure."""
    failed = {outcome: times for outcome, times in ended.items() if outcome in _IN_WORDS and times > 0}
    if not failed:
        return ""
    total = sum(failed.values())
    if total == 1:
        return f"1 attempt failed: {_IN_WORDS[next(iter(failed))]}"
    each = sorted(failed, key=lambda outcome: -failed[outcome])
    shown = [f"{'all' if len(failed) == 1 else failed[outcome]} {_IN_WORDS[outcome]}" for outcome in each]
    return f"{total} attempts failed: {', '.join(shown)}"


class _Tried(Protocol):
    @property
    def connected(self) -> bool: ...
    @property
    def attempts(self) -> Mapping[str, Attempt]: ...


def outage_attempts(session: _Tried) -> dict[str, str]:
    """Return what each address answered, in words, while *session* has no connection; else nothing."""
    return {} if session.connected else {address: str(attempt) for address, attempt in session.attempts.items()}
