"""The hashes of keys: the same in every process, on every machine, in every version of Python."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final, Protocol

from aioregistry._errors import InvalidArgument, InvalidType

__all__ = ["POINTS", "PROBES", "key_bytes", "key_for", "points", "probes", "share"]

PROBES: Final = 8
"""The places of a key: as many as one digest of blake2b holds."""

POINTS: Final = 16
"""The places of an instance: two digests."""

_eight = struct.Struct("<8Q").unpack
_GRAIN: Final = 2.0**-53
"""Places are multiples of it: their differences are exact, and do not round up to 1."""


def key_bytes(key: object) -> bytes:
    """Return *key* as bytes; a string is the same key as its UTF-8.

    Raises:
        InvalidArgument: it is neither str nor bytes.
    """
    if isinstance(key, str):
        return key.encode("utf-8", "surrogatepass")
    if isinstance(key, bytes):
        return key
    raise InvalidType("key", key, f"must be str or bytes, not {type(key).__name__}")


class _Choosing(Protocol):
    @property
    def keyed(self) -> bool: ...


def key_for(strategy: _Choosing, key: object) -> bytes:
    """Return *key* as bytes, for *strategy*.

    Raises:
        InvalidArgument: it is neither str nor bytes, is missing, or is given to a strategy without keys.
    """
    if not strategy.keyed:
        raise InvalidArgument("key", key, f"{strategy!r} does not take a key")
    if key is None:
        raise InvalidArgument("key", key, f"{strategy!r} needs one")
    return key_bytes(key)


def probes(key: bytes) -> list[float]:
    """Return the places of *key* on a circle of circumference 1."""
    return _places(blake2b(key, person=b"key").digest())


def points(id: str) -> list[float]:
    """Return the places of the instance *id* on a circle of circumference 1."""
    name = id.encode("utf-8", "surrogatepass")
    digests = (blake2b(name, person=b"instance", salt=bytes((part,))).digest() for part in range(POINTS // PROBES))
    return [place for digest in digests for place in _places(digest)]


def share(key: bytes) -> float:
    """Return a number that belongs to *key*, 0 <= number < 1, independent of its places."""
    return (int.from_bytes(blake2b(key, digest_size=8, person=b"share").digest(), "little") >> 11) * _GRAIN


def _places(digest: bytes) -> list[float]:
    return [(number >> 11) * _GRAIN for number in _eight(digest)]
