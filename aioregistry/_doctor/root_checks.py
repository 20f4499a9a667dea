"""The checks of the nodes above the instances, and of the access to all of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aioregistry._errors import session_name
from aioregistry._protocol import AclEntry, Permission

from .picture import Node, Picture
from .places import full_path, instances, roots

__all__ = ["missing_root", "open_to_all", "strange_roots", "typing_error", "unprotected"]

SHOWN: Final = 5
"""Places that are named of those where the registry could be instead."""


def missing_root(picture: Picture) -> Iterator[tuple[str, str]]:
    if picture.connection is None and picture.base is None and not picture.refused and not _better(picture):
        yield full_path(picture, picture.base_path), "is not there: nothing was ever registered here"


def typing_error(picture: Picture) -> Iterator[tuple[str, str]]:
    better = _better(picture)
    if better:
        found = ", ".join(f"{place} has {count}" for place, count in [*better.items()][:SHOWN])
        more = f", and {len(better) - SHOWN} more places have some" if len(better) > SHOWN else ""
        yield full_path(picture, picture.base_path), f"has no services, but {found}{more}"


def _better(picture: Picture) -> dict[str, int]:
    empty = picture.connection is None and not picture.services and not picture.refused
    return {place: count for place, count in picture.elsewhere.items() if count} if empty else {}


def strange_roots(picture: Picture) -> Iterator[tuple[str, str]]:
    for path in picture.refused:
        yield full_path(picture, path), "may not be listed by these credentials"
    for node in roots(picture):
        owner = node.stat.ephemeral_owner if node.stat is not None else 0
        if owner:
            yield full_path(picture, node.path), f"is ephemeral: it goes with session {session_name(owner)}"
    base = picture.base
    for root in (picture.withdrawn, picture.overrides_root):
        if base is None or root is None or base.acl is None or root.acl is None:
            continue
        strangers = [entry for entry in root.acl if _may_write(entry) and not _is_covered(entry, base.acl)]
        if strangers and not any(entry.scheme == "world" for entry in strangers):
            who = ", ".join(f"{entry.scheme}:{entry.id}" for entry in strangers)
            yield full_path(picture, root.path), f"belongs to {who}, who may not write to the services"


def open_to_all(picture: Picture) -> Iterator[tuple[str, str]]:
    if not _is_guarded(picture):
        return
    for node in _guarded_nodes(picture):
        may = _open_rights(node)
        if may:
            yield (
                full_path(picture, node.path),
                f"every client may {', '.join(may)} it, while other nodes are protected",
            )


def unprotected(picture: Picture) -> Iterator[tuple[str, str]]:
    if not _is_guarded(picture) and any(_open_rights(node) for node in _guarded_nodes(picture)):
        yield full_path(picture, picture.base_path), "has no access control: any client of ZooKeeper may write it"


def _is_guarded(picture: Picture) -> bool:
    return any(node.acl is not None and not _open_rights(node) for node in _guarded_nodes(picture))


def _guarded_nodes(picture: Picture) -> Iterator[Node]:
    yield from roots(picture)
    yield from picture.service_nodes.values()
    yield from picture.between
    yield from picture.overrides.values()
    yield from (node for _, _, node in instances(picture))


_RIGHTS: Final = {
    Permission.WRITE: "change",
    Permission.CREATE: "create below",
    Permission.DELETE: "delete below",
    Permission.ADMIN: "open",
}


def _open_rights(node: Node) -> list[str]:
    mask = 0
    for entry in node.acl or ():
        if (entry.scheme, entry.id) == ("world", "anyone"):
            mask |= entry.permissions
    return [word for right, word in _RIGHTS.items() if mask & right]


def _may_write(entry: AclEntry) -> bool:
    return bool(entry.permissions & ~Permission.READ)


def _is_covered(entry: AclEntry, acl: Sequence[AclEntry]) -> bool:
    return any(
        _may_write(each) and (each.scheme, each.id) in ((entry.scheme, entry.id), ("world", "anyone")) for each in acl
    )
