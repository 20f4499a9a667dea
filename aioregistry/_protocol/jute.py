"""Reading jute, ZooKeeper's serialization: values out of bytes at an offset, each with the offset behind it.

The readers do not compare a length with the bytes left: a value that is cut short leaves an offset behind the end, on
which the next read raises ``struct.error``, or which the caller finds when it compares the last offset with the length.
Only what neither would catch is checked here: lengths that lead backwards, counts that promise more than there is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import AnyStr

from aioregistry._errors import ProtocolError

INT = struct.Struct(">i")
HEADER = struct.Struct(">iqi")
"""The header of every reply but the first: xid, zxid, error (jute's ``ReplyHeader``)."""
LONG = struct.Struct(">q")

BOOL = struct.Struct(">?")

_unpack_int = INT.unpack_from

NULL = -1
"""The length of a string or buffer that is null in Java."""


def read_int(body: bytes, at: int) -> tuple[int, int]:
    """A 32-bit signed integer."""
    return _unpack_int(body, at)[0], at + 4


def read_buffer(body: bytes, at: int) -> tuple[bytes, int]:
    """A byte string; null, as Java clients write for a node without data, reads as empty."""
    (length,) = _unpack_int(body, at)
    at += 4
    if length < 0:
        return _null(length, b""), at
    return body[at : at + length], at + length


def malformation(error: Exception) -> str:
    """Describe the fault of bytes whose reading raised *error*, in words that are the same on every Python."""
    if isinstance(error, UnicodeDecodeError):
        return "a text in it is not UTF-8"
    return "it is cut short, or promises more than it holds"


def read_string(body: bytes, at: int) -> tuple[str, int]:
    """A UTF-8 string; null reads as empty."""
    (length,) = _unpack_int(body, at)
    at += 4
    if length < 0:
        return _null(length, ""), at
    return body[at : at + length].decode(), at + length


def read_strings(body: bytes, at: int) -> tuple[list[str], int]:
    """A vector of strings, in one loop: the children of a service may be many thousands."""
    count, at = read_count(body, at, smallest=4)
    unpack = _unpack_int
    strings: list[str] = []
    append = strings.append
    for _ in range(count):
        (length,) = unpack(body, at)
        if length < 0:
            raise ProtocolError(f"a string in a list has length {length}")
        at += 4
        end = at + length
        append(body[at:end].decode())
        at = end
    return strings, at


def read_count(body: bytes, at: int, *, smallest: int) -> tuple[int, int]:
    """The count of a vector whose items take at least ``smallest`` bytes each."""
    (count,) = _unpack_int(body, at)
    at += 4
    if not 0 <= count <= (len(body) - at) // smallest:
        raise ProtocolError(f"a list of {count} items in {len(body) - at} bytes")
    return count, at


def write_string(value: str) -> bytes:
    """A string as its length in bytes and its UTF-8."""
    raw = value.encode()
    return INT.pack(len(raw)) + raw


def write_buffer(value: bytes) -> bytes:
    """A byte string as its length and itself."""
    return INT.pack(len(value)) + value


def write_strings(values: Sequence[str]) -> bytes:
    """A vector of strings."""
    return INT.pack(len(values)) + b"".join(map(write_string, values))


def _null(length: int, empty: AnyStr) -> AnyStr:
    if length != NULL:
        raise ProtocolError(f"a string or buffer has length {length}")
    return empty
