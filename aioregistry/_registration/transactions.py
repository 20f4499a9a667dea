"""The writes of a registration. Pure: sent by the worker, and run against a model of the server by the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aioregistry._markers import marker_name, marker_prefix, root_of
from aioregistry._protocol import Create, Create2, CreateContainer, CreateFlag, Delete, Multi, SetData

__all__ = [
    "Target",
    "ancestors",
    "change",
    "creation",
    "marker_root",
    "marker_root_creation",
    "parent_creation",
    "takeover",
    "target_of",
    "withdrawal",
]


_ANY_VERSION: Final = -1


class Target(NamedTuple):
    """Where a registration writes, and with which ACL.

    ``marker`` is None where there is no place for it. ``chroot`` is a node above, or empty; it is made
    where it is missing if ``create_chroot``. ``service`` is the name as it is below the base path.
    """

    path: str
    acl: Sequence[Any]
    marker: str | None
    chroot: str = ""
    create_chroot: bool = False
    service: str = ""

    @property
    def about(self) -> dict[str, object]:
        """The fields of a log record that is about this instance."""
        return {"service": self.service, "id": self.path.rpartition("/")[2], "path": self.path}


def target_of(
    base_path: str, name: str, id: str, acl: Sequence[Any], chroot: str = "", *, create_chroot: bool = False
) -> Target:
    """Return the node of instance *id* of service *name*, and the beginning of the marker that it is withdrawn with."""
    services = base_path.rstrip("/")
    root = root_of(services)
    marker = None if root is None else f"{root}/{marker_prefix(name, id)}"
    return Target(f"{services}/{name}/{id}", acl, marker, chroot, create_chroot, name)


def ancestors(path: str) -> list[str]:
    """Return the nodes above *path*, the uppermost first."""
    segments = path.split("/")[1:-1]
    return ["/" + "/".join(segments[: count + 1]) for count in range(len(segments))]


def parent_creation(target: Target, path: str, *, container: bool) -> Create | CreateContainer:
    """Return the creation of a node above the target's or its marker.

    The root of the markers is never a container: a server reaps those that are empty, and then any client could make
    it, and have the markers for his own.
    """
    if path == marker_root(target):
        return marker_root_creation(target)
    return CreateContainer(path, acl=target.acl) if container else Create(path, b"", target.acl)


def marker_root(target: Target) -> str | None:
    """Return the parent of the target's marker."""
    return None if target.marker is None else target.marker.rpartition("/")[0]


def marker_root_creation(target: Target) -> Create:
    """Return the creation of the root of the markers, which only clients that may write the instances may write to."""
    return Create(str(marker_root(target)), b"", target.acl)


def creation(target: Target, data: bytes) -> Create2:
    """Return the creation of the node."""
    return Create2(target.path, data, target.acl, CreateFlag.EPHEMERAL)


def change(target: Target, data: bytes, version: int) -> SetData:
    """Return the change of the node's data."""
    return SetData(target.path, data, version)


def takeover(target: Target, data: bytes, version: int) -> Multi:
    """Return the transaction that replaces a ghost's node of this *version* by one of ours.

    A version is not an identity, because every new node starts at 0 and a deletion checks nothing else: two claimants
    that saw the same ghost would both succeed, and the deletion of a dying process would hit its successor's node.
    So the new node's version differs from the old one's.
    """
    operations = [Delete(target.path, version), creation(target, data)]
    if version == 0:
        return Multi([*operations, SetData(target.path, data, 0)])
    return Multi(operations)


def withdrawal(target: Target, version: int, czxid: int, *, marked: bool) -> Multi | Delete:
    """Return the deletion of the node.

    Where *marked*, a marker comes and goes in the same transaction: to watchers an expiry and a deletion are the
    same, and this is what tells a deliberate leave. The write of the node is what proves it, see :mod:`.._markers`; it
    is fenced by the version, and the deletion by the write.
    """
    if not marked:
        return Delete(target.path, version)
    marker = marker_name(str(target.marker), czxid)
    return Multi(
        [
            Create(marker, b"", target.acl),
            Delete(marker, 0),
            SetData(target.path, b"", version),
            Delete(target.path, _ANY_VERSION),
        ]
    )
