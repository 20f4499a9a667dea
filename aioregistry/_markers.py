"""The markers of deliberate leaves: their text, the order they come in, and whose are believed. Pure.

To watchers an expired session and a withdrawal are the same: the node is deleted. So a withdrawal creates and deletes a
marker in the same transaction, ``<services>-withdrawn/<name>:<id>:<czxid>``, name and id quoted as in URLs, czxid in
hexadecimal; then it writes the node before it deletes it. Nothing of it stays, but watchers see it come.

A withdrawal takes its instance out of a view at once, where a mass of expiries would be held back. So only those may
mark one that could withdraw the instance itself. A marker counts if all of these hold:

- its text is exactly what :func:`marker_name` makes of service, id and czxid;
- its node came and went, and the instance's node was written and went right after, with neither an event nor an answer
  in between: those of one transaction come together, so that a marker alone proves nothing, whichever client makes it
  and whenever;
- that write is the proof that the instance's own ACL lets its writer change it: the server judges that, then and there.
  A deletion proves less, because it is the parent's ACL that allows it, which may be open where the instance's is not.
  The instance's ACL cannot be asked for: its node is gone when the marker is seen;
- no node was created with that czxid after the deletion was seen;
- a client that may create nodes below the root, or change its ACL, may also delete the service's nodes, or change the
  ACL of theirs; and the root is the one, with the ACL, that it was before the marker came. See :func:`distrust`. Where
  the service's node is gone too, as ZooKeeper reaps a container that is empty, the rest is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ._protocol import AclEntry, EventKind, Permission

__all__ = [
    "Marker",
    "Withdrawal",
    "WithdrawalFinder",
    "distrust",
    "marker_name",
    "marker_prefix",
    "read_marker",
    "root_of",
]

_PARTS: Final = 3
_LARGEST_ZXID: Final = 2**63 - 1
_MAY_MARK: Final = Permission.CREATE | Permission.ADMIN
_MAY_WITHDRAW: Final = Permission.DELETE | Permission.ADMIN


class Marker(NamedTuple):
    """The subject of a marker: the node of instance *id* of service *name* that *czxid* created."""

    name: str
    id: str
    czxid: int


def root_of(services: str) -> str | None:
    """Return the node that the markers of the services below *services* are made in; None where that is the root.

    It stands beside the services, not among them, where Curator would list it as a service.
    """
    return f"{services}-withdrawn" if services else None


def marker_prefix(name: str, id: str) -> str:
    """Return the common beginning of the names of all markers of an id."""
    from urllib.parse import quote  # takes 2 ms: not of everybody who imports aioregistry

    # quote() escapes the colon, so that the parts can be told apart again.
    return f"{quote(name, safe='')}:{quote(id, safe='')}"


def marker_name(prefix: str, czxid: int) -> str:
    """Return the name, or path, of the node that marks the withdrawal of the node that *czxid* created."""
    return f"{prefix}:{czxid:x}"


def read_marker(text: str) -> Marker | None:
    """Return the withdrawal that a node of this name marks; None unless :func:`marker_name` writes that name."""
    from urllib.parse import unquote

    parts = text.split(":")
    if len(parts) != _PARTS:
        return None
    try:
        marker = Marker(unquote(parts[0]), unquote(parts[1]), int(parts[2], 16))
        exact = marker_name(marker_prefix(marker.name, marker.id), marker.czxid) == text
    except ValueError:  # no number, or what cannot be quoted
        return None
    return marker if exact and marker.name and marker.id and 0 < marker.czxid <= _LARGEST_ZXID else None


class Withdrawal(NamedTuple):
    """A marked deletion; *proven* where the node was written first, by the same transaction."""

    marker: Marker
    proven: bool


class WithdrawalFinder:
    """Finds withdrawals in the events of one connection, which are to be told in the order of their coming.

    Args:
        services: the path of the services.
        root: that of their markers.
    """

    def __init__(self, services: str, root: str) -> None:
        self._services = services
        self._root = root
        self._path = ""
        self._marker: Marker | None = None
        self._complete = False
        self._written = False

    @property
    def awaited(self) -> Marker | None:
        """The marker that came and went, where nothing was received since but that its instance was written."""
        return self._marker if self._complete else None

    def event(self, kind: EventKind, path: str) -> Withdrawal | None:
        """Return the withdrawal, if this event is its last."""
        marker, complete, written = self._marker, self._complete, self._written
        if marker is not None and not complete and kind is EventKind.DELETED and path == self._path:
            self._complete = True
            return None
        of_its_node = complete and marker is not None and path == f"{self._services}/{marker.name}/{marker.id}"
        if of_its_node and kind is EventKind.DATA_CHANGED and not written:
            self._written = True
            return None
        self.interrupted()
        if kind is EventKind.CREATED:
            parent, _, text = path.rpartition("/")
            if parent == self._root:
                self._path, self._marker = path, read_marker(text)
            return None
        return Withdrawal(marker, written) if marker and of_its_node and kind is EventKind.DELETED else None

    def interrupted(self) -> None:
        """Something else was received, or the connection is another."""
        self._marker, self._complete, self._written = None, False, False


def distrust(root: Sequence[AclEntry], service: Sequence[AclEntry]) -> str | None:
    """Return why markers are not believed, by the ACLs of their *root* and the *service*'s node; None if they are."""
    for entry in root:
        if entry.permissions & _MAY_MARK and not any(_covers(each, entry) for each in service):
            return f"{entry.scheme}:{entry.id} may write there, and may not withdraw from the service"
    return None


def _covers(allowed: AclEntry, entry: AclEntry) -> bool:
    if not allowed.permissions & _MAY_WITHDRAW:
        return False
    # A server hides the digests of an ACL that one may not change (FinalRequestProcessor): "user:x" may stand for any
    # user.
    known = not (entry.scheme == "digest" and entry.id.endswith(":x"))
    return allowed.scheme == "world" or (known and (allowed.scheme, allowed.id) == (entry.scheme, entry.id))
