"""The events of a registry, each a class of its own: what ``connect(on_event=…)`` tells by name and fields, with types.

A callback gets the event's name and a dict of its fields. :func:`typed` gives it an object instead::

    def told(event: events.Event) -> None:
        if isinstance(event, events.SessionStall):
            print("heartbeats stopped for", event.seconds, "s")

    registry = aioregistry.connect("zk1,zk2,zk3/prod", on_event=[metrics, events.typed(told)])
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
"""What ``on_event`` takes: called synchronously, with a name and fields; it must not block."""


@dataclass(frozen=True)
class Event:
    """Something worth a metric. ``name`` is how ``on_event`` calls it."""

    name: ClassVar[str]


@dataclass(frozen=True)
class SessionMoved(Event):
    """The session's state changed: to ``state``; ``generation`` counts the connections that were accepted so far."""

    name = "session.state"
    state: str
    session: int
    generation: int
    attempts: Mapping[str, str]


@dataclass(frozen=True)
class SessionOutage(Event):
    """There was no connection for ``seconds``; told once for each outage, with its first WARNING."""

    name = "session.outage"
    seconds: float
    reason: str


@dataclass(frozen=True)
class SessionOutageOver(Event):
    """An outage that was told of is over; ``server`` is the one connected to."""

    name = "session.outage_over"
    seconds: float
    server: str


@dataclass(frozen=True)
class SessionRollback(Event):
    """The ensemble lost its history: from zxid ``ours`` back to ``theirs``, ``proven`` or presumed."""

    name = "session.rollback"
    ours: int
    theirs: int
    proven: bool


@dataclass(frozen=True)
class SessionPoison(Event):
    """A request costs the connection whenever it is sent; from ``limit`` bytes on, or None where that is not known."""

    name = "session.poison"
    request: str
    size: int
    server: str
    limit: int | None


@dataclass(frozen=True)
class SessionStall(Event):
    """The event loop was blocked, or the system slept, for ``seconds`` while a heartbeat was due."""

    name = "session.stall"
    seconds: float
    timeout: float


@dataclass(frozen=True)
class RegistrationStatus(Event):
    """A registration's status changed; ``owner`` is the session that owns the node, or None."""

    name = "registration.status"
    path: str
    status: str
    owner: int | None


@dataclass(frozen=True)
class RegistrationEnabled(Event):
    """Whether the instance is to be published as enabled changed; ``status`` says why it is not."""

    name = "registration.enabled"
    path: str
    enabled: bool
    status: str | None


@dataclass(frozen=True)
class CheckChanged(Event):
    """A check of the instance passes or fails from now on, and why."""

    name = "health.check"
    path: str
    check: str
    state: str
    reason: str | None


@dataclass(frozen=True)
class RegistrationTakeover(Event):
    """The node of a ghost is about to be taken over from the session ``owner``."""

    name = "registration.takeover"
    path: str
    owner: int


@dataclass(frozen=True)
class ServiceSynced(Event):
    """A service was read completely, at first or after a reconnect."""

    name = "discovery.synced"
    service: str
    instances: int


@dataclass(frozen=True)
class NodeInvalid(Event):
    """A node that is no instance was found."""

    name = "discovery.invalid"
    service: str
    id: str
    reason: str


@dataclass(frozen=True)
class MarkerRefused(Event):
    """A withdrawal is not believed by its marker, so that the guard judges it."""

    name = "discovery.marker_refused"
    service: str
    id: str
    reason: str


@dataclass(frozen=True)
class NodesMissed(Event):
    """Nodes had changed, and no event had told of it."""

    name = "discovery.missed"
    service: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class InstanceHeld(Event):
    """A view's guard holds a removal back; by what it went."""

    name = "discovery.held"
    service: str
    id: str
    reason: str


@dataclass(frozen=True)
class InstanceReleased(Event):
    """An instance that was held is a suspect no more; how that ended."""

    name = "discovery.released"
    service: str
    id: str
    why: str


@dataclass(frozen=True)
class KeptRecalled(Event):
    """A view begins without a connection, with a kept snapshot that was confirmed last at ``known_at`` (epoch, s)."""

    name = "discovery.recalled"
    service: str
    instances: int
    known_at: float


@dataclass(frozen=True)
class KeepFailed(Event):
    """A kept snapshot could not be written, or is there and not used."""

    name = "discovery.keep_failed"
    service: str
    path: str
    reason: str


@dataclass(frozen=True)
class KeptDamaged(Event):
    """A kept snapshot was damaged, and is now at ``path``."""

    name = "discovery.kept_damaged"
    service: str
    path: str
    reason: str


@dataclass(frozen=True)
class InstanceRefused(Event):
    """A balancer never picks an instance because of what it publishes."""

    name = "discovery.refused"
    service: str
    id: str
    reason: str


@dataclass(frozen=True)
class PanicChanged(Event):
    """A balancer began to pick suspects like all others, because too few instances are confirmed, or ended that."""

    name = "discovery.panic"
    service: str
    panic: bool


@dataclass(frozen=True)
class InstanceSetAside(Event):
    """A balancer set an instance aside that failed, for ``seconds``."""

    name = "discovery.set_aside"
    service: str
    id: str
    seconds: float


EVENTS: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            *(SessionMoved, SessionOutage, SessionOutageOver, SessionRollback, SessionPoison, SessionStall),
            *(RegistrationStatus, RegistrationEnabled, CheckChanged, RegistrationTakeover),
            *(ServiceSynced, NodeInvalid, MarkerRefused, NodesMissed),
            *(InstanceHeld, InstanceReleased, KeptRecalled, KeepFailed, KeptDamaged),
            *(InstanceRefused, PanicChanged, InstanceSetAside),
        )
    }
)
"""Every event by its name."""


def event_of(name: str, fields: Mapping[str, Any]) -> Event:
    """Return the event that ``on_event`` was told by *name* and *fields*.

    Raises:
        KeyError: there is no event of this name.
    """
    return EVENTS[name](**fields)


def typed(callback: Callable[[Event], object]) -> EventCallback:
    """Return what ``on_event`` takes, for a *callback* that takes the event as an object."""

    def told(name: str, fields: dict[str, object]) -> None:
        callback(event_of(name, fields))

    return told
