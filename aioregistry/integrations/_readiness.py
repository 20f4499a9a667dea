"""Whether a server is to be sent requests, and what keeps it from that."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from aioregistry import RegistryError, Status

__all__ = ["OUTAGE", "REASONS", "WAITING", "NotYet", "Readiness"]

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


class NotYet(RegistryError):
    """What was asked for comes with ZooKeeper's first answer, or with this server's sockets; they have not come yet."""


class Readiness(NamedTuple):
    """Whether a server is to be sent requests, and why not.

    ``status`` is that of the registration, "starting" before there is one, or "draining"; ``reason`` is None where
    there is nothing to say.
    """

    ready: bool
    status: str
    reason: str | None
