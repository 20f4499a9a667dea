"""The events of a registry, each a class of its own, with typed fields.

``connect(on_event=…)`` calls a function with an event's name and a dict of its fields. :func:`typed` has it called with
an object instead::

    def on_event(event: events.Event) -> None:
        if isinstance(event, events.SessionStall):
            print("heartbeats stopped for", event.seconds, "s")

    registry = aioregistry.connect("zk1,zk2,zk3/prod", on_event=[metrics, events.typed(on_event)])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeAlias

__all__ = [
    "EVENTS",
    "CheckChanged",
    "Event",
    "EventCallback",
    "InstanceHeld",
    "InstanceRefused",
    "InstanceReleased",
    "InstanceSetAside",
    "KeepFailed",
    "KeptDamaged",
    "KeptRecalled",
    "MarkerRefused",
    "NodeInvalid",
    "NodesMissed",
    "OverrideEnded",
    "OverrideSet",
    "PanicChanged",
    "RegistrationEnabled",
    "RegistrationStatus",
    "RegistrationTakeover",
    "ServiceSynced",
    "SessionMoved",
    "SessionOutage",
    "SessionOutageOver",
    "SessionPoison",
    "SessionRollback",
    "SessionStall",
    "event_of",
    "typed",
]

EventCallback: TypeAlias = Callable[[str, dict[str, object]], None]
"""The type of ``on_event``: called synchronously, with a name and fields; it must not block."""


@dataclass(frozen=True)
class Event:
    """Something worth a metric. ``name`` is how ``on_event`` calls it."""

    name: ClassVar[str]


@dataclass(frozen=True)
class SessionMoved(Event):
    """The session moved to ``state``.

    ``session`` is its id, of an expired session the former one; ``generation`` counts the connections accepted so far;
    ``attempts`` has the answer of each address, in words.
    """

    name = "session.state"
    state: str
    session: int
    generation: int
    attempts: Mapping[str, str]


@dataclass(frozen=True)
class SessionOutage(Event):
    """There was no connection for ``seconds``.

    It comes once for each outage, with the first WARNING that has a reason; ``reason`` has the answer of each address.
    """

    name = "session.outage"
    seconds: float
    reason: str


@dataclass(frozen=True)
class SessionOutageOver(Event):
    """An outage with a ``session.outage`` is over, after ``seconds``; ``server`` is the one connected to."""

    name = "session.outage_over"
    seconds: float
    server: str


@dataclass(frozen=True)
class SessionRollback(Event):
    """The ensemble lost its history: zxid ``ours`` was seen, the quorum is at ``theirs``; ``proven`` or presumed."""

    name = "session.rollback"
    ours: int
    theirs: int
    proven: bool


@dataclass(frozen=True)
class SessionPoison(Event):
    """A ``request`` of ``size`` bytes costs the connection whenever it is sent.

    ``limit`` is the size in bytes from which on the server seems to refuse requests, or None if that is unknown.
    """

    name = "session.poison"
    request: str
    size: int
    server: str
    limit: int | None


@dataclass(frozen=True)
class SessionStall(Event):
    """The event loop was blocked, or the system slept, for ``seconds`` while a heartbeat was due.

    ``timeout`` is the session timeout, in seconds.
    """

    name = "session.stall"
    seconds: float
    timeout: float


@dataclass(frozen=True)
class RegistrationStatus(Event):
    """A registration's status changed; ``owner`` is the session that owns its node, or None."""

    name = "registration.status"
    path: str
    status: str
    owner: int | None


@dataclass(frozen=True)
class RegistrationEnabled(Event):
    """An instance is now published as enabled, or not; ``status`` says why not."""

    name = "registration.enabled"
    path: str
    enabled: bool
    status: str | None


@dataclass(frozen=True)
class CheckChanged(Event):
    """A check of an instance begins to pass or to fail.

    ``probe`` is the subject of the check (its URL, say), and ``reason`` says why it fails.
    """

    name = "health.check"
    path: str
    check: str
    probe: str
    state: str
    reason: str | None


@dataclass(frozen=True)
class RegistrationTakeover(Event):
    """A registration is about to take over a ghost's node from the session ``owner``."""

    name = "registration.takeover"
    path: str
    owner: int


@dataclass(frozen=True)
class ServiceSynced(Event):
    """A view read its service completely: at first, or after a reconnect."""

    name = "discovery.synced"
    service: str
    instances: int


@dataclass(frozen=True)
class NodeInvalid(Event):
    """A view found a node that shows no instance; ``reason`` says why."""

    name = "discovery.invalid"
    service: str
    id: str
    reason: str


@dataclass(frozen=True)
class MarkerRefused(Event):
    """A view does not believe the marker of a withdrawal, so its guard judges the removal."""

    name = "discovery.marker_refused"
    service: str
    id: str
    reason: str


@dataclass(frozen=True)
class NodesMissed(Event):
    """An audit found nodes that had changed without a watch event: an ACL may hide their events."""

    name = "discovery.missed"
    service: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class InstanceHeld(Event):
    """A view's guard holds the removal of an instance back; ``reason`` is its kind of suspicion."""

    name = "discovery.held"
    service: str
    id: str
    reason: str


@dataclass(frozen=True)
class InstanceReleased(Event):
    """An instance is no longer suspect; ``why`` says how that ended."""

    name = "discovery.released"
    service: str
    id: str
    why: str


@dataclass(frozen=True)
class KeptRecalled(Event):
    """A view begins without a connection, with the instances of its kept snapshot.

    ``known_at`` is when the quorum confirmed them last, in seconds since the epoch.
    """

    name = "discovery.recalled"
    service: str
    instances: int
    known_at: float


@dataclass(frozen=True)
class KeepFailed(Event):
    """A view could not write its kept snapshot, or does not use the one that is there."""

    name = "discovery.keep_failed"
    service: str
    path: str
    reason: str


@dataclass(frozen=True)
class KeptDamaged(Event):
    """A kept snapshot was damaged; it was moved to ``path``."""

    name = "discovery.kept_damaged"
    service: str
    path: str
    reason: str


@dataclass(frozen=True)
class InstanceRefused(Event):
    """A balancer refuses an instance because of its published data, and never picks it."""

    name = "discovery.refused"
    service: str
    id: str
    reason: str


@dataclass(frozen=True)
class PanicChanged(Event):
    """A balancer began to pick failing instances and suspects too, because too few are well, or stopped that."""

    name = "discovery.panic"
    service: str
    panic: bool


@dataclass(frozen=True)
class InstanceSetAside(Event):
    """A balancer set a failing instance aside for ``seconds``."""

    name = "discovery.set_aside"
    service: str
    id: str
    seconds: float


@dataclass(frozen=True)
class OverrideSet(Event):
    """The registry saw an operator's override come into force, or change, of a service that it follows or registers at.

    ``enabled`` is False for maintenance, ``weight`` is the part of its share of calls, ``until`` is in seconds since
    the epoch; each is None where the override says nothing.
    """

    name = "discovery.override_set"
    service: str
    id: str
    enabled: bool | None
    weight: float | None
    reason: str
    by: str
    until: float | None


@dataclass(frozen=True)
class OverrideEnded(Event):
    """An operator's override is over: its time is, or an operator ended it."""

    name = "discovery.override_ended"
    service: str
    id: str


EVENTS: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            *(SessionMoved, SessionOutage, SessionOutageOver, SessionRollback, SessionPoison, SessionStall),
            *(RegistrationStatus, RegistrationEnabled, CheckChanged, RegistrationTakeover),
            *(ServiceSynced, NodeInvalid, MarkerRefused, NodesMissed),
            *(InstanceHeld, InstanceReleased, KeptRecalled, KeepFailed, KeptDamaged),
            *(InstanceRefused, PanicChanged, InstanceSetAside, OverrideSet, OverrideEnded),
        )
    }
)
"""Every event by its name."""


def event_of(name: str, fields: Mapping[str, Any]) -> Event:
    """Return the event that ``on_event`` got as *name* and *fields*.

    Raises:
        KeyError: there is no event of this name.
    """
    return EVENTS[name](**fields)


def typed(callback: Callable[[Event], object]) -> EventCallback:
    """Return a function for ``on_event`` that calls *callback* with the event as an object."""

    def told(name: str, fields: dict[str, object]) -> None:
        callback(event_of(name, fields))

    return told
