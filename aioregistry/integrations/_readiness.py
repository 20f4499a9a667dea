"""Whether a server is to be sent requests, and what keeps it from that."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry import CheckState, Registration, RegistryError, Status

__all__ = ["OUTAGE", "REASONS", "WAITING", "NotYet", "Readiness", "failing_checks", "shown_checks"]

WAITING: Final = "ZooKeeper has not answered yet"

OUTAGE: Final = frozenset({Status.REGISTERING, Status.UNCERTAIN, Status.PRESUMED_GONE})
"""What an instance that was listed can be because of ZooKeeper alone. REGISTERING: its session has expired."""

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


_NO_CHECKS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})


class NotYet(RegistryError):
    """The answer depends on ZooKeeper's first answer, or on this server's sockets; they have not come yet."""


class Readiness(NamedTuple):
    """Whether a server is to be sent requests, and why not.

    ``status`` is that of the registration, "starting" before there is one, "draining", or "failing" when a check does
    not pass; ``reason`` is None where there is nothing to say. ``checks`` has a mapping for each check, by name: its
    ``state``, ``since`` (seconds since the epoch), and the ``reason`` why it failed last.
    """

    ready: bool
    status: str
    reason: str | None
    checks: Mapping[str, Mapping[str, Any]] = _NO_CHECKS

    def document(self) -> dict[str, Any]:
        """Return what a readiness route answers; with ``checks`` where there are some."""
        shown = {"ready": self.ready, "status": self.status, "reason": self.reason}
        return shown | ({"checks": dict(self.checks)} if self.checks else {})


def shown_checks(registration: Registration[Any] | None) -> Mapping[str, Mapping[str, Any]]:
    """Return the checks of *registration* as routes show them."""
    checks = {} if registration is None else registration.checks
    return {name: check._asdict() | {"state": check.state.value} for name, check in checks.items()}


def failing_checks(registration: Registration[Any]) -> str:
    """Return which checks do not pass, and why."""
    failing = {name: check for name, check in registration.checks.items() if check.state is not CheckState.PASSING}
    return "; ".join(f"check {name}: {check.reason or 'has not passed yet'}" for name, check in failing.items())
