"""The base of our requests: an aiozk ``Request`` that encodes itself, and decodes its reply to plain values."""

from __future__ import annotations

import struct
from typing import ClassVar, Generic, TypeAlias, TypeVar

from aiozk.protocol.primitives import UString

from aioregistry._aiozk_types import Part, Request
from aioregistry._errors import ProtocolError
from aioregistry._protocol.jute import (
    INT,
    malformation,
    write_string,
)

Layout: TypeAlias = tuple[tuple[str, type], ...]
T_co = TypeVar("T_co", covariant=True)


_HEAD = struct.Struct(">ii")


class Message(Request, Generic[T_co]):
    """A request whose reply decodes to ``T_co``."""

    opcode: ClassVar[int]
    special_xid: ClassVar[int | None] = None
    """The xid to send it under, where the protocol fixes it."""
    writes: ClassVar[bool] = False
    """It changes the tree or the session by a transaction of the quorum's."""
    parts: ClassVar[Layout] = ()

    path: str | None = None
    """The node it is about, for error reports."""

    def __init__(self) -> None:
        """Without ``Part``'s: it walks ``parts`` for what every subclass assigns itself."""

    def serialize(self, xid: int | None = None) -> bytes:
        """The request as it is sent, but for the length of its frame."""
        head = INT.pack(self.opcode) if xid is None else _HEAD.pack(xid, self.opcode)
        return head + self.encode()

    def encode(self) -> bytes:
        """The part behind the header; also the operation's part of a transaction."""
        return b""

    def decode(self, body: bytes, at: int = 0) -> T_co:
        """The value of a reply whose header said that all is well.

        Args:
            body: the received bytes.
            at: where in it the reply's own part begins, behind the header.

        Raises:
            ProtocolError: it is cut short, goes on behind its end, or is malformed.
        """
        try:
            value, end = self.read_reply(body, at)
        except (struct.error, UnicodeDecodeError) as error:
            raise ProtocolError(f"malformed reply to {self.subject}: {malformation(error)}") from error
        if end != len(body):
            raise ProtocolError(f"the reply to {self.subject} has {len(body) - at} bytes, its content takes {end - at}")
        return value

    def read_reply(self, body: bytes, at: int) -> tuple[T_co, int]:
        """The value at an offset and the offset behind it, checked no further than ``jute`` does."""
        raise NotImplementedError

    @property
    def subject(self) -> str:
        """Its name and path: what an error report calls it."""
        name = type(self).__name__
        return name if self.path is None else f"{name} {self.path}"

    def __eq__(self, other: object) -> bool:
        # Part compares the parts alone: an Exists would equal a GetData, and other objects would raise AttributeError.
        # Never NotImplemented: Part's __ne__ negates the answer.
        return type(other) is type(self) and bool(Part.__eq__(self, other))

    __hash__: ClassVar[None]  # type: ignore[assignment]  # mutable, like aiozk's

    def __repr__(self) -> str:
        return str(self)


class Silent(Message[None]):
    """A request whose reply is a header alone."""

    def read_reply(self, body: bytes, at: int) -> tuple[None, int]:  # noqa: ARG002  # it has no body
        return None, at


class OnPath(Message[T_co]):
    """A request that holds only a path."""

    parts = (("path", UString),)
    path: str

    def __init__(self, path: str) -> None:
        self.path = path

    def encode(self) -> bytes:
        return write_string(self.path)
