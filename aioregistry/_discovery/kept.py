"""The last snapshot of a service as the bytes of a file, and back. Pure.

A kept snapshot is a file of text, a line for each instance after two that say what it is::

    aioregistry-kept 1 5f0c…
    {"service":"chat","base_path":"/services","known_at":1763680000.0,"as_of":9,"instances":1}
    {"owner":72057594037927936,"czxid":7,"mzxid":9,"version":1,"created":…,"modified":…,"instance":{"name":"chat",…}}

The first line is the same in every version of the format: its name, the version, and a SHA-256 over those two and all
that follows. So whatever happened to a file (a byte that flipped, in the version too; an end that is missing) shows as
damage, and what a file that is whole says of itself can be believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from aioregistry._document import decode, encode, names_itself
from aioregistry._errors import InvalidInstance
from aioregistry._model import Entry

__all__ = ["VERSION", "Damaged", "Foreign", "Kept", "from_bytes", "to_bytes"]

VERSION: Final = 1
"""Of the format; a file of another one is refused."""

_FIRST_LINE: Final = re.compile(rb"(aioregistry-kept (\d{1,9}) )([0-9a-f]{64})\n")


class Kept(NamedTuple):
    """The contents of a file: the last snapshot of a service below a path."""

    service: str
    base_path: str
    known_at: float
    """When the quorum is known to have said so last, in seconds since the epoch."""
    as_of: int
    """The zxid of the latest observation included."""
    entries: Mapping[str, Entry[Any]]
    """By id, payloads as JSON."""


class Damaged(ValueError):
    """The bytes are not those that were written; says why."""


class Foreign(ValueError):
    """The file is whole, and not the one that was asked for: another ``field`` than wanted has the value ``found``."""

    def __init__(self, field: str, found: object, wanted: object) -> None:
        super().__init__(field, found, wanted)
        self.field = field
        self.found = found
        self.wanted = wanted

    def __str__(self) -> str:
        return f"holds a snapshot of {self.field}={self.found!r}, not of {self.wanted!r}"


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    service: str
    base_path: str
    known_at: Annotated[float, msgspec.Meta(ge=0)]
    as_of: int
    instances: int


class _Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    owner: int
    czxid: int
    mzxid: int
    version: int
    created: float
    modified: float
    instance: msgspec.Raw
    id: str = ""
    """Of the node, if its document has another one (DYNAMIC_SEQUENTIAL) or lacks it."""


_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)

_encode_line = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_line = msgspec.json.Decoder(_Line).decode


def to_bytes(kept: Kept) -> bytes:
    """Return the file of *kept*; instances in the order of their ids, so that equal states give equal files."""
    head = _Head(kept.service, kept.base_path, kept.known_at, kept.as_of, len(kept.entries))
    lines = [_line(kept.entries[id]) for id in sorted(kept.entries)]
    body = b"".join([line + b"\n" for line in (_encode_line(head), *lines)])
    title = b"aioregistry-kept %d " % VERSION
    return title + _digest(title, body) + b"\n" + body


def from_bytes(data: bytes, service: str, base_path: str) -> Kept:
    """Return the snapshot in the file *data*, of this service below this path.

    Raises:
        Damaged: it is not what :func:`to_bytes` wrote, of this version or another.
        Foreign: it is whole, and of another version, service or base path.
    """
    first = _FIRST_LINE.match(data)
    if first is None:
        raise Damaged("it does not begin as a kept snapshot does")
    title, version, digest = first.groups()
    body = data[first.end() :]
    if _digest(title, body) != digest:
        raise Damaged("its checksum does not match")
    _check("format version", int(version), VERSION)
    return _kept(body, service, base_path)


def _check(field: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Foreign(field, found, wanted)


def _digest(title: bytes, body: bytes) -> bytes:
    digest = hashlib.sha256(title)
    digest.update(body)
    return digest.hexdigest().encode()


def _line(entry: Entry[Any]) -> bytes:
    instance = entry.instance
    document = msgspec.Raw(encode(instance))
    id = "" if names_itself(instance) else instance.id
    return _encode_line(
        _Line(entry.owner, entry.czxid, entry.mzxid, entry.version, entry.created, entry.modified, document, id)
    )


def _kept(body: bytes, service: str, base_path: str) -> Kept:
    if not body.endswith(b"\n"):
        raise Damaged("its last line does not end")
    first, *lines = body[:-1].split(b"\n")
    try:
        head = _decode_head(first)
    except _UNREADABLE as error:
        raise Damaged("its checksum matches, and line 2 does not describe a snapshot") from error
    _check("service", head.service, service)
    _check("base_path", head.base_path, base_path)
    numbered = enumerate(lines, 3)
    entries = {entry.instance.id: entry for entry in [_entry(service, line, number) for number, line in numbered]}
    if not len(entries) == len(lines) == head.instances:
        raise Damaged(f"it says instances={head.instances}, and holds {len(entries)} in {len(lines)} lines")
    return Kept(service, base_path, head.known_at, head.as_of, entries)


def _entry(service: str, line: bytes, number: int) -> Entry[Any]:
    try:
        node = _decode_line(line)
        instance = decode(bytes(node.instance), name=service, id=node.id or None)
    except InvalidInstance as error:
        raise Damaged(f"its checksum matches, and line {number} holds no instance") from error
    except _UNREADABLE as error:
        raise Damaged(f"its checksum matches, and line {number} holds no entry of a snapshot") from error
    return Entry(instance, node.owner, node.czxid, node.mzxid, node.version, node.created, node.modified)
