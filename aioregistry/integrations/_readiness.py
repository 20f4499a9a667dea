"""Whether a server is to be sent requests, and what keeps it from that."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry import CheckState, Registration, RegistryError, Status
from aioregistry._session import SessionInfo

__all__ = [
    "OUTAGE",
    "REASONS",
    "WAITING",
    "NotYet",
    "Readiness",
    "detailed",
    "failing_checks",
]

WAITING: Final = "ZooKeeper has not answered yet"

OUTAGE: Final = frozenset({Status.REGISTERING, Status.UNCERTAIN, Status.PRESUMED_GONE})
"""The states that a listed instance can enter because of ZooKeeper alone. REGISTERING: its session has expired."""

REASONS: Final[Mapping[Status, str | None]] = MappingProxyType(
    {
        Status.REGISTERING: "not listed",
        Status.LIVE: None,
        Status.UNCERTAIN: "ZooKeeper does not answer",
        Status.PRESUMED_GONE: "ZooKeeper has not answered for a session timeout",
        Status.DISPLACED: "another process has claimed the id; this one stands by until that goes",
        Status.FAILED: "the registration failed",
        Status.CLOSED: "the registration was closed",
    }
)


_SHOWN: Final = ("enabled", "weight", "reason", "by", "since", "until")
"""The fields of an override that say what, why, by whom and how long."""

_NOTHING: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})


class NotYet(RegistryError):
    """The answer depends on ZooKeeper's first answer, or on this server's sockets; they have not come yet."""


class Readiness(NamedTuple):
    """Whether a server is to be sent requests, and why not."""

    ready: bool
    """True if it is to be sent requests."""
    status: str
    """That of the registration, "starting" before there is one, "draining", or "failing" when a check does not pass."""
    reason: str | None
    """The reason for the status; None where there is nothing to say."""
    checks: Mapping[str, Mapping[str, Any]] = _NOTHING
    """A mapping for each check, by name: its ``state``, ``since`` (seconds since the epoch), and the ``reason`` why it
    failed last."""
    override: Mapping[str, Any] | None = None
    """An operator's override of the instance (``enabled``, ``weight``, ``reason``, ``by``, ``since``, ``until``), or
    None. It does not change ``ready``, because the process serves, and the registry keeps calls away."""
    attempts: Mapping[str, Mapping[str, Any]] = _NOTHING
    """While there is no connection, a mapping for each address of ZooKeeper's: how the last attempt ended (``outcome``,
    and ``reason`` in words), ``since`` when and ``at`` when last (seconds since the epoch), and how many ``times`` in a
    row."""

    def document(self) -> dict[str, Any]:
        """Return the answer of a readiness route; without ``checks``, ``override`` or ``attempts`` if empty."""
        shown = {"ready": self.ready, "status": self.status, "reason": self.reason}
        checks = {"checks": dict(self.checks)} if self.checks else {}
        override = {} if self.override is None else {"override": dict(self.override)}
        attempts = {"attempts": dict(self.attempts)} if self.attempts else {}
        document: dict[str, Any] = _in_utf8(shown | checks | override | attempts)
        return document


def _in_utf8(value: Any) -> Any:
    # Others wrote reasons: half a surrogate in one, which no answer can have, would make the server seem not ready.
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return {_in_utf8(key): _in_utf8(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _shown_checks(registration: Registration[Any] | None) -> Mapping[str, Mapping[str, Any]]:
    """Return the checks of *registration* as routes show them."""
    checks = {} if registration is None else registration.checks
    return {name: check._asdict() | {"state": check.state.value} for name, check in checks.items()}


def _shown_override(registration: Registration[Any] | None) -> Mapping[str, Any] | None:
    """Return what an operator says of the instance of *registration*, as routes show it."""
    override = None if registration is None else registration.override
    return None if override is None else {name: getattr(override, name) for name in _SHOWN}


def _shown_attempts(session: SessionInfo | None) -> Mapping[str, Mapping[str, Any]]:
    """Return what each address answered while *session* has no connection, as routes show it."""
    if session is None or session.connected:
        return _NOTHING
    return {place: last._asdict() | {"outcome": last.outcome.value} for place, last in session.attempts.items()}


def detailed(readiness: Readiness, registration: Registration[Any] | None, session: SessionInfo | None) -> Readiness:
    """Return *readiness* with the states of the checks, the operator's override, and the attempts to connect."""
    return readiness._replace(
        checks=_shown_checks(registration),
        override=_shown_override(registration),
        attempts=_shown_attempts(session),
    )


def failing_checks(registration: Registration[Any]) -> str:
    """Return which checks do not pass, and why."""
    failing = {name: check for name, check in registration.checks.items() if check.state is not CheckState.PASSING}
    return "; ".join(f"check {name}: {check.reason or 'has not passed yet'}" for name, check in failing.items())
