"""Frames: every message is preceded by its length, a 32-bit signed integer."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from aioregistry._errors import ProtocolError

_LENGTH = struct.Struct(">i")

_FOREIGN_PREFIXES = {
    b"HTTP": "the server speaks HTTP: is this the AdminServer's port?",
    b"SSH-": "the server speaks SSH",
    b"\x15\x03\x00\x00": "the server speaks TLS: connect with an ssl context",
    b"\x15\x03\x01\x00": "the server speaks TLS: connect with an ssl context",
    b"\x15\x03\x02\x00": "the server speaks TLS: connect with an ssl context",
    b"\x15\x03\x03\x00": "the server speaks TLS: connect with an ssl context",
}
"""The beginnings of answers from ports of other programs; ``\\x15\\x03`` is a TLS alert, for a request in clear."""


class FrameDecoder:
    """Cuts a stream of bytes into frames, in time linear in the bytes however they are split.

    It holds at most one incomplete frame, and of that only what has arrived: a length alone reserves nothing.

    :param max_frame: the longest frame that is accepted, in bytes, without the length before it.
    """

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self._partial = bytearray()  # an incomplete frame, its length prefix included
        self._missing = 0  # bytes that _partial lacks: of its frame, or of its prefix as long as that is incomplete

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Take received bytes and yield the frames that they complete, without their lengths.

        The iterator does the work and must be exhausted before the next call. Frames before a bad length are yielded
        before it raises; after that the decoder is of no further use.

        :raises ProtocolError: a length is negative or above ``max_frame``.
        """
        at = 0
        while self._partial:
            wanted = self._missing
            self._partial += data[at : at + wanted]
            if len(data) - at < wanted:
                self._missing = wanted - (len(data) - at)
                return
            at += wanted
            self._missing = self._length(self._partial, 0) + 4 - len(self._partial)
            if not self._missing:
                frame = bytes(memoryview(self._partial)[4:])
                self._partial = bytearray()
                yield frame

        size = len(data)
        while (end := at + 4) <= size:
            end += self._length(data, at)
            if end > size:
                break
            yield bytes(data[at + 4 : end])
            at = end
        if at < size:
            self._partial += data[at:]
            self._missing = end - size

    def _length(self, data: bytes | bytearray | memoryview, at: int) -> int:
        length: int = _LENGTH.unpack_from(data, at)[0]
        if 0 <= length <= self.max_frame:
            return length
        prefix = bytes(data[at : at + 4])
        explanation = _FOREIGN_PREFIXES.get(
            prefix, "the server is not a ZooKeeper, or its replies are larger than agreed"
        )
        raise ProtocolError(f"frame length {length} ({prefix!r}) is not within 0..{self.max_frame}: {explanation}")


def frame(payload: bytes) -> bytes:
    """The payload with its length before it."""
    return _LENGTH.pack(len(payload)) + payload


def join_frames(payloads: Iterable[bytes]) -> bytes:
    """Many payloads, each with its length before it, for one write."""
    pack = _LENGTH.pack
    parts: list[bytes] = []
    for payload in payloads:
        parts += (pack(len(payload)), payload)
    return b"".join(parts)
