"""The results of reading a node of a service. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

from aioregistry._bounds import moment
from aioregistry._document import decode
from aioregistry._errors import InvalidInstance
from aioregistry._model import Entry, Invalid
from aioregistry._protocol import Stat

__all__ = ["Node", "decoded", "is_of"]

Node: TypeAlias = Entry[Any] | Invalid


def decoded(service: str, name: str, data: bytes, stat: Stat) -> Node:
    """Return the entry that the node *name* of the *service* shows."""
    czxid, mzxid, ctime, mtime, version, _, _, owner, _, children, _ = stat
    try:
        instance = decode(data, name=service, id=name)
    except InvalidInstance as error:
        reason = error.reason if data or not children else f"{error.reason}: is {service}/{name} a service?"
        return Invalid(name, reason, owner, czxid, mzxid)
    created = moment(ctime)
    if mzxid == czxid:  # never changed: sharing equal numbers saves 56 bytes an instance
        return Entry(instance, owner, czxid, czxid, version, created, created)
    return Entry(instance, owner, czxid, mzxid, version, created, moment(mtime))


def is_of(known: Node, stat: Stat) -> bool:
    """Return whether *known* was read from a node with this Stat.

    Within one history its zxids would do. A new history that has overtaken the zxids of a lost one cannot be told from
    one that went on, and there other nodes may have got the same: their owner or their time of birth differs.
    """
    born = known.created if isinstance(known, Entry) else moment(stat.ctime)
    return (known.mzxid, known.czxid, known.owner, born) == (
        stat.mzxid,
        stat.czxid,
        stat.ephemeral_owner,
        moment(stat.ctime),
    )
