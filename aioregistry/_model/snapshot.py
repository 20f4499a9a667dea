"""The state of a service at one moment: its instances, with what ZooKeeper knows of their nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, ValuesView
from types import MappingProxyType
from typing import Final, Generic, NoReturn, TypeVar

import msgspec

from aioregistry._reprs import shown_half_made

from .instance import ServiceInstance, with_payload_type
from .override import Override

__all__ = ["Entry", "Invalid", "Snapshot", "Suspicion"]

P = TypeVar("P")
Q = TypeVar("Q")

_NO_OVERRIDES: Final[Mapping[str, Override]] = MappingProxyType({})


class Suspicion(msgspec.Struct, frozen=True, gc=False):
    """Why an instance is shown that ZooKeeper does not list, or has not been asked about yet."""

    reason: str
    """``"mass removal"``, ``"disruption"`` or ``"new leader"``: what the guard went by when it held a removal back.
    ``"file"``: known from a kept snapshot only."""
    since: float
    """Seconds since the epoch: when it became suspect."""
    until: float
    """Seconds since the epoch: when it is let go unless it comes back. Later by as long as the view is not fresh.
    Infinite for an instance known from a file: that ends when everything was read."""


class Entry(msgspec.Struct, Generic[P], frozen=True, gc=False):
    """An instance as a consumer sees it, with the facts of its node in ZooKeeper.

    Within one history of the ensemble ``(czxid, mzxid)`` identifies a state of a node; the version does not, for every
    new node starts at 0.
    """

    instance: ServiceInstance[P]
    owner: int
    """The session that owns the node, 0 for a persistent one; compare by equality only."""
    czxid: int
    mzxid: int
    version: int
    created: float
    """Seconds since the epoch, by the server's clock."""
    modified: float
    suspicion: Suspicion | None = None
    """None for a listed instance; otherwise its node is gone, or it is known from a file only."""
    weight: float = 1.0
    """The part of its share of calls that it gets: below 1 while an operator's override says so."""

    def with_payload_type(self, payload_type: type[Q]) -> Entry[Q]:
        """Return this entry with its instance's payload converted, see :func:`with_payload_type`."""
        instance = with_payload_type(self.instance, payload_type)
        return Entry(
            instance,
            self.owner,
            self.czxid,
            self.mzxid,
            self.version,
            self.created,
            self.modified,
            self.suspicion,
            self.weight,
        )

    def with_suspicion(self, suspicion: Suspicion | None) -> Entry[P]:
        """Return this entry with another ``suspicion``."""
        return Entry(
            self.instance,
            self.owner,
            self.czxid,
            self.mzxid,
            self.version,
            self.created,
            self.modified,
            suspicion,
            self.weight,
        )


class Invalid(msgspec.Struct, frozen=True, gc=False):
    """A node that is listed and shows no instance: the reason, and the node's zxids and owner (0 where unreadable)."""

    id: str
    reason: str
    owner: int = 0
    czxid: int = 0
    mzxid: int = 0


@shown_half_made
class Snapshot(Mapping[str, ServiceInstance[P]]):
    """A service at one moment: its known instances by id, in the order of their ids. Immutable.

    A snapshot holds facts; ask the view whether they are fresh *now*.

    Attributes:
        name: the service.
        entries: the instances with the facts of their nodes in ZooKeeper, by id, in no particular order.
        invalid: nodes that are not instances, by id, with the reason.
        as_of: the zxid of the latest observation that the snapshot includes, 0 before the first.
        overrides: the overrides of operators, by id. The snapshot shows an instance in maintenance as not enabled; an
            operator's weight is in its entry.
        stale_since: None while the view was fresh; else the time, in seconds since the epoch, of the last evidence that
            the quorum answered: later events are not in the snapshot.
    """

    __slots__ = ("_confirmed", "_ids", "_suspects", "as_of", "entries", "invalid", "name", "overrides", "stale_since")

    name: str
    entries: Mapping[str, Entry[P]]
    invalid: Mapping[str, Invalid]
    as_of: int
    stale_since: float | None
    overrides: Mapping[str, Override]

    def __init__(
        self,
        name: str,
        entries: Mapping[str, Entry[P]],
        invalid: Mapping[str, Invalid],
        *,
        as_of: int,
        stale_since: float | None = None,
        overrides: Mapping[str, Override] = _NO_OVERRIDES,
    ) -> None:
        values = {
            "name": name,
            "entries": _read_only(entries),
            "invalid": _read_only(invalid),
            "as_of": as_of,
            "stale_since": stale_since,
            "overrides": _read_only(overrides),
            "_ids": None,
            "_suspects": None,
            "_confirmed": None,
        }
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @property
    def instances(self) -> tuple[ServiceInstance[P], ...]:
        """The instances, in the order of their ids."""
        entries = self.entries
        return tuple([entries[id].instance for id in self])

    @property
    def suspects(self) -> Mapping[str, Suspicion]:
        """The instances that ZooKeeper no longer lists, by id, and why they are shown nevertheless."""
        suspects: Mapping[str, Suspicion] | None = self._suspects  # type: ignore[attr-defined]
        if suspects is None:
            found = {id: entry.suspicion for id, entry in self.entries.items() if entry.suspicion is not None}
            suspects = MappingProxyType(found)
            object.__setattr__(self, "_suspects", suspects)
        return suspects

    @property
    def confirmed(self) -> Snapshot[P]:
        """This snapshot without the suspects; itself where there are no suspects."""
        if not self.suspects:
            return self
        confirmed: Snapshot[P] | None = self._confirmed  # type: ignore[attr-defined]
        if confirmed is None:
            listed = {id: entry for id, entry in self.entries.items() if entry.suspicion is None}
            confirmed = self._with(listed, self.stale_since)
            object.__setattr__(self, "_confirmed", confirmed)
        return confirmed

    def values(self) -> ValuesView[ServiceInstance[P]]:
        """The instances, in the order of their ids."""
        return _Values(self)

    def with_stale_since(self, stale_since: float | None) -> Snapshot[P]:
        """Return the same facts with another ``stale_since``; they are shared, not copied."""
        return self._with(self.entries, stale_since)

    def _with(self, entries: Mapping[str, Entry[P]], stale_since: float | None) -> Snapshot[P]:
        return Snapshot(
            self.name, entries, self.invalid, as_of=self.as_of, stale_since=stale_since, overrides=self.overrides
        )

    def __getitem__(self, id: str) -> ServiceInstance[P]:
        return self.entries[id].instance

    def __contains__(self, id: object) -> bool:
        return id in self.entries

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        # Sorted by the first iteration: most snapshots are only looked up in.
        ids: tuple[str, ...] | None = self._ids  # type: ignore[attr-defined]
        if ids is None:
            ids = tuple(sorted(self.entries))
            object.__setattr__(self, "_ids", ids)
        return iter(ids)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Snapshot is immutable")

    def __repr__(self) -> str:
        suspects = len(self.suspects)
        bad = f" ({suspects} suspect)" if suspects else ""
        bad += f", {len(self.invalid)} invalid" if self.invalid else ""
        stale = "" if self.stale_since is None else f", stale since {self.stale_since:.3f}"
        return f"<Snapshot {self.name}: {len(self)} instances{bad}, as of zxid {self.as_of:#x}{stale}>"


class _Values(ValuesView[ServiceInstance[P]]):
    """Without a look-up through the snapshot for each of what may be 100,000 instances."""

    _mapping: Snapshot[P]

    def __iter__(self) -> Iterator[ServiceInstance[P]]:
        return iter(self._mapping.instances)


def _read_only(mapping: Mapping[str, Q]) -> Mapping[str, Q]:
    return mapping if isinstance(mapping, MappingProxyType) else MappingProxyType(mapping)
