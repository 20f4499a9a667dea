"""A server as it was before some operations came: the real one, behind a proxy that does not know them."""

from __future__ import annotations

import struct
from collections.abc import Container

from aioregistry.testing._proxy import Direction, Link, TcpProxy, _Frames
from tests.support import wire

MARSHALLING_ERROR, UNIMPLEMENTED = -5, -6
GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER, SET_WATCHES_2 = 103, 104, 105
SINCE_3_6 = frozenset({wire.MULTI_READ, GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER, SET_WATCHES_2, wire.ADD_WATCH})
"""The opcodes that 3.5 does not know."""


class _OldLink(Link):
    """An unknown request reaches the server as a harmless read, so that its answer comes in its turn."""

    proxy: OldServer

    def __init__(self, proxy: OldServer) -> None:
        super().__init__(proxy)
        self.asked: list[int] = []
        self._frames = {Direction.TO_SERVER: _Frames(), Direction.TO_CLIENT: _Frames()}
        self._greeted = Direction(0)
        self._refused: set[int] = set()

    def filter(self, direction: Direction, data: bytes) -> bytes:
        delivered = bytearray()
        for frame in self._frames[direction].feed(data):
            if direction not in self._greeted:
                self._greeted |= direction  # ConnectRequest and ConnectResponse have no header
                if direction is Direction.TO_SERVER:
                    self.proxy.asked.append(self.asked)
                delivered += frame
            elif direction is Direction.TO_SERVER:
                delivered += self._request(frame)
            elif (xid := struct.unpack_from(">i", frame, 4)[0]) in self._refused:
                delivered += _framed(struct.pack(">iqi", xid, -1, self.proxy.error))
                if self.proxy.closes:
                    self._write(self.to_client, bytes(delivered))
                    self.cut(reset=False)
                    return b""
            else:
                delivered += frame
        return bytes(delivered)

    def _request(self, frame: bytes) -> bytes:
        xid, opcode = struct.unpack_from(">ii", frame, 4)
        self.asked.append(opcode)
        if opcode not in self.proxy.unknown:
            return frame
        self._refused.add(xid)
        read = wire.exists("/")
        return _framed(struct.pack(">ii", xid, read.opcode) + read.body)


class OldServer(TcpProxy):
    """A proxy before a ZooKeeper server's client port.

    Args:
        target: host and port of the server.
        unknown: the opcodes that are answered with *error*.
        error: ZooKeeper's code.
        closes: whether the connection is closed with that answer, as servers do with -6.

    `asked` has the opcodes of each connection on which there was a handshake, in order.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        unknown: Container[int] = SINCE_3_6,
        error: int = UNIMPLEMENTED,
        closes: bool = True,
    ) -> None:
        self.unknown, self.error, self.closes = unknown, error, closes
        self.asked: list[list[int]] = []
        super().__init__(target)

    @property
    def refused(self) -> list[int]:
        """The opcodes that were answered with the error, in order."""
        return [opcode for connection in self.asked for opcode in connection if opcode in self.unknown]

    def new_link(self) -> Link:
        return _OldLink(self)


def _framed(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload
