"""The contents of `aioregistry top`, from snapshots: counts of a service, rows of its instances. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from aioregistry import Snapshot
from aioregistry._errors import session_name

from .._words import payload_of, place, printable, shortened, state_of

__all__ = ["INSTANCE_HEAD", "SERVICE_HEAD", "InstanceRow", "ServiceRow", "instance_rows", "service_row"]


class ServiceRow(NamedTuple):
    """One service at a glance."""

    name: str
    instances: int
    enabled: int
    failing: int
    draining: int
    maintenance: int
    suspect: int
    invalid: int
    known: str
    """"now", or for how long nothing was heard."""


class InstanceRow(NamedTuple):
    """One instance, or one node that is not an instance."""

    id: str
    place: str
    state: str
    owner: str
    age: str
    detail: str


SERVICE_HEAD: Final = tuple(field.upper() for field in ServiceRow._fields)
INSTANCE_HEAD: Final = ("ID", "ADDRESS", "STATE", "OWNER", "AGE", "PAYLOAD OR REASON")


def service_row(name: str, snapshot: Snapshot[Any], now: float) -> ServiceRow:
    """Return the row of a service.

    Args:
        name: of the service.
        snapshot: of it.
        now: seconds since the epoch.
    """
    states = Counter(state_of(entry) for entry in snapshot.entries.values())
    since = snapshot.stale_since
    return ServiceRow(
        *(printable(name), len(snapshot.entries), states["enabled"], states["failing"]),
        *(states["draining"], states["maintenance"], states["suspect"], len(snapshot.invalid)),
        "now" if since is None else f"{shortened(now - since)} ago",
    )


def instance_rows(snapshot: Snapshot[Any], now: float) -> Iterator[InstanceRow]:
    """Yield the rows of a service's instances by id, then those of the nodes that are not instances.

    Args:
        snapshot: of the service.
        now: seconds since the epoch.
    """
    for id in snapshot:
        entry = snapshot.entries[id]
        reason = "" if entry.suspicion is None else f"{entry.suspicion.reason}; "
        yield InstanceRow(
            *(printable(id), printable(place(entry.instance)), state_of(entry), session_name(entry.owner)),
            *(shortened(now - entry.created), printable(reason + payload_of(entry.instance))),
        )
    for node in snapshot.invalid.values():
        yield InstanceRow(printable(node.id), "-", "invalid", session_name(node.owner), "-", printable(node.reason))
