"""The changes of a service, from one snapshot to the next."""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar

import msgspec

from aioregistry._errors import session_name

from .instance import ServiceInstance
from .snapshot import Entry, Invalid, Snapshot

__all__ = ["Added", "Change", "Difference", "Invalidated", "Removed", "Resynced", "Updated"]

P = TypeVar("P")


class Added(msgspec.Struct, Generic[P], frozen=True):
    """An instance came. ``zxid`` is that of the observation, as in every change."""

    entry: Entry[P]
    zxid: int

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.entry.instance.id

    @property
    def instance(self) -> ServiceInstance[P]:
        """The instance that came."""
        return self.entry.instance

    def __repr__(self) -> str:
        return f"<Added {self.instance!r}, zxid {self.zxid:#x}>"


class Updated(msgspec.Struct, Generic[P], frozen=True):
    """An instance's node was changed or replaced (by another owner, say); its data may be the same."""

    entry: Entry[P]
    previous_entry: Entry[P]
    zxid: int

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.entry.instance.id

    @property
    def instance(self) -> ServiceInstance[P]:
        """The instance as it is now."""
        return self.entry.instance

    @property
    def previous(self) -> ServiceInstance[P]:
        """The instance as it was."""
        return self.previous_entry.instance

    def __repr__(self) -> str:
        return f"<Updated {self.instance!r}, owner {session_name(self.entry.owner)}, zxid {self.zxid:#x}>"


class Removed(msgspec.Struct, Generic[P], frozen=True):
    """An instance went: its node is gone, or is no longer an instance."""

    entry: Entry[P]
    zxid: int
    invalid: Invalid | None = None
    """Why the node shows no instance any more; None where it is gone."""

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.entry.instance.id

    @property
    def instance(self) -> ServiceInstance[P]:
        """The instance as it was last."""
        return self.entry.instance

    def __repr__(self) -> str:
        return f"<Removed {self.instance!r}, zxid {self.zxid:#x}>"


class Invalidated(msgspec.Struct, frozen=True):
    """A node stops showing an instance, or does not show one for another reason than before.

    ``snapshot.invalid`` has the node. Only ``View.changes(invalid=True)`` gives this. If an instance's node became
    invalid, a :class:`Removed` with ``invalid`` set comes first.
    """

    invalid: Invalid
    zxid: int

    @property
    def id(self) -> str:
        """The node's name, which would be the instance's id."""
        return self.invalid.id

    def __repr__(self) -> str:
        return f"<Invalidated {self.id!r}: {self.invalid.reason}, zxid {self.zxid:#x}>"


class Resynced(msgspec.Struct, Generic[P], frozen=True):
    """The view was behind and has caught up: after a reconnect, or because this consumer was too slow.

    ``changes`` are the true differences to the last state that the consumer got, one for each id at most; empty if
    there is no difference. Instances that came and went meanwhile are not in it.
    """

    changes: tuple[Added[P] | Updated[P] | Removed[P], ...]
    snapshot: Snapshot[P]

    @property
    def zxid(self) -> int:
        """The zxid of the latest observation included."""
        return self.snapshot.as_of

    @property
    def added(self) -> tuple[ServiceInstance[P], ...]:
        """The instances that came."""
        return tuple(change.instance for change in self.changes if isinstance(change, Added))

    @property
    def updated(self) -> tuple[ServiceInstance[P], ...]:
        """The instances that changed, as they are now."""
        return tuple(change.instance for change in self.changes if isinstance(change, Updated))

    @property
    def removed(self) -> tuple[ServiceInstance[P], ...]:
        """The instances that went, as they were last."""
        return tuple(change.instance for change in self.changes if isinstance(change, Removed))

    def __repr__(self) -> str:
        return f"<Resynced {list(self.changes)!r}, now {self.snapshot!r}>"


Difference: TypeAlias = Added[P] | Updated[P] | Removed[P]
Change: TypeAlias = Added[P] | Updated[P] | Removed[P] | Resynced[P]
"""An item of a stream of changes: :class:`Added`, :class:`Updated`, :class:`Removed` or :class:`Resynced`."""
