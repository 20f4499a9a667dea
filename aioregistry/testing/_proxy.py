"""A TCP proxy before a ZooKeeper server that understands frames: it counts requests, and loses single replies."""

from __future__ import annotations

import struct
from collections import Counter, deque

from ._network import on_network
from ._tcp import Direction, Link, Loss, TcpProxy

__all__ = ["Direction", "Link", "Loss", "TcpProxy", "ZooKeeperProxy"]


class _Frames:
    """Cuts one direction of a ZooKeeper connection into frames (length included)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4])
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
        return frames


_GREETING = struct.Struct(">iiiqi16s")
"""A ConnectResponse with its length: protocol version, timeout, session id and password."""


class _ZooKeeperLink(Link):
    """Follows the frames of a session: each request, and the reply that answers it."""

    proxy: ZooKeeperProxy

    def __init__(self, proxy: ZooKeeperProxy) -> None:
        super().__init__(proxy)
        self._frames = {Direction.TO_SERVER: _Frames(), Direction.TO_CLIENT: _Frames()}
        self._handshakes: set[Direction] = set()
        self._doomed_xid: int | None = None
        self._loss: Loss | None = None
        self._is_session: bool | None = None
        self.session_id = 0

    def filter(self, direction: Direction, data: bytes) -> bytes:
        if self._is_session is None:
            self._is_session = not data[:1].isalpha()  # a four-letter word has no frames
        if not self._is_session:
            return data
        delivered = bytearray()
        for frame in self._frames[direction].feed(data):
            if direction not in self._handshakes:
                self._handshakes.add(direction)  # ConnectRequest and ConnectResponse have no header
                if direction is Direction.TO_CLIENT:
                    self._follow_greeting(frame)
            elif direction is Direction.TO_SERVER:
                self._follow_request(*struct.unpack_from(">ii", frame, 4))
            elif self._loss is not None and struct.unpack_from(">i", frame, 4)[0] == self._doomed_xid:
                self._lose_reply(bytes(delivered))
                return b""
            delivered += frame
        return bytes(delivered)

    def _follow_greeting(self, frame: bytes) -> None:
        if len(frame) >= _GREETING.size:
            _, _, _, self.session_id, _, password = _GREETING.unpack_from(frame)
            self.proxy.passwords[self.session_id] = password

    def _follow_request(self, xid: int, opcode: int) -> None:
        self.proxy.requests[opcode] += 1
        loss = self.proxy.losses.get(opcode)
        if loss and self._loss is None:
            self._doomed_xid = xid
            self._loss = loss.popleft()

    def _lose_reply(self, before: bytes) -> None:
        assert self._loss is not None
        self._write(self.to_client, before)
        self.cut(reset=False)  # in order: the replies before the lost one must arrive
        self._loss.happen()


class ZooKeeperProxy(TcpProxy):
    """A proxy before a ZooKeeper server's client port that understands frames.

    `requests` counts the requests that went to the server by opcode (connects excluded), `passwords` has those of the
    sessions that were opened or resumed through it.
    """

    def __init__(self, target: tuple[str, int], *, listen: tuple[str, int] | None = None) -> None:
        self.requests: Counter[int] = Counter()
        self.losses: dict[int, deque[Loss]] = {}
        self.passwords: dict[int, bytes] = {}
        super().__init__(target, listen=listen)

    def new_link(self) -> Link:
        """Return a link that follows the frames of the next connection."""
        return _ZooKeeperLink(self)

    def lose_next_reply(self, opcode: int) -> Loss:
        """Let the next request of this kind through, then drop its reply and cut that connection.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.

        Returns:
            The moment of the loss: the server has applied the request (or refused it), the client will never know.
        """
        moment = Loss()
        on_network(lambda: self.losses.setdefault(opcode, deque()).append(moment))
        return moment

    def cut_session(self, session_id: int) -> None:
        """End the connections of a session by a reset.

        Args:
            session_id: as ``registry.session.id`` has it.
        """

        def cut() -> None:
            for link in self._links_of(session_id):
                link.cut(reset=True)

        on_network(cut)

    def freeze(self, session_id: int | None = None) -> None:
        """Deliver nothing more on the connections of a session, or on all that are there, until `thaw`.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        on_network(lambda: self._set_frozen(self._links_of(session_id), True))

    def thaw(self) -> None:
        """Deliver the bytes that `freeze` held."""
        on_network(lambda: self._set_frozen(self._links_of(None), False))

    def _links_of(self, session_id: int | None) -> list[Link]:
        return [
            link
            for link in self._links
            if session_id is None or (isinstance(link, _ZooKeeperLink) and link.session_id == session_id)
        ]

    def _set_frozen(self, links: list[Link], frozen: bool) -> None:
        for link in links:
            link.frozen = frozen
            link.flush()

    def restore(self) -> None:
        """Become an honest proxy again: no reply is lost, no connection frozen."""
        on_network(self.losses.clear)
        self.thaw()
        super().restore()
