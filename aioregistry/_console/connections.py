"""Connections of browsers: bounded in number, and each has a deadline for a peer that does not go on.

uvicorn ends a connection that has been idle since its last answer. It has no deadline for the first request of a
connection, for one of which only a part arrives, and for a peer that does not read.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["Connections"]

log = logging.getLogger("aioregistry.console")

MOST: Final = 600
"""As many browsers as may follow, each with two more connections for what else it asks."""

ASKED_WITHIN: Final = 10.0
"""Seconds for the head of a request; from the beginning of the connection, or of the request."""

SENT_WITHIN: Final = 30.0
"""Seconds for a peer to read the bytes sent to it."""

_Peer = tuple[str, int]


class Connections:
    """An application, and the connections on which requests for it arrive.

    Args:
        application: answers.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application
        self._by_peer: dict[_Peer, _Connection] = {}
        self._is_full = False

    def __len__(self) -> int:
        return len(self._by_peer)

    def protocol(self, **arguments: Any) -> asyncio.Protocol:
        """Return a protocol for one connection; *arguments* are uvicorn's."""
        return _Connection(self, AutoHTTPProtocol(**arguments))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, on a connection that has no deadline meanwhile but for what its peer has to read."""
        connection = self._by_peer.get(tuple(scope.get("client") or ()))
        if connection is None:
            await self._application(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            try:
                async with asyncio.timeout(SENT_WITHIN):
                    await send(message)
            except TimeoutError:
                connection.abort()  # the application hears that the peer is gone

        connection.begin()
        try:
            await self._application(scope, receive, sent)
        finally:
            connection.end()

    def add(self, peer: _Peer, connection: _Connection) -> bool:
        """Take note of a new connection; return whether there is room for it."""
        if len(self._by_peer) >= MOST:
            if not self._is_full:
                self._is_full = True
                log.warning("the console has %d connections: more are closed at once", MOST)
            return False
        self._by_peer[peer] = connection
        return True

    def remove(self, peer: _Peer, connection: _Connection) -> None:
        """Forget a connection."""
        if self._by_peer.get(peer) is connection:
            del self._by_peer[peer]
            # Told again only after there was room for a while.
            self._is_full = self._is_full and len(self._by_peer) > MOST / 2


class _Connection(asyncio.Protocol):
    """uvicorn's protocol, with a deadline.

    Args:
        connections: all of them.
        protocol: uvicorn's.
    """

    def __init__(self, connections: Connections, protocol: asyncio.Protocol) -> None:
        self._connections, self._protocol = connections, protocol
        self._transport: asyncio.Transport | None = None
        self._peer: _Peer = ("", 0)
        self._answering = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._peer = tuple(transport.get_extra_info("peername") or ("", 0))[:2]
        self._protocol.connection_made(transport)
        if self._connections.add(self._peer, self):
            self._expect()
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._answering:
            self._expect()
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        if self._unread is not None:
            self._unread.cancel()
        self._transport = None
        self._connections.remove(self._peer, self)
        self._protocol.connection_lost(exc)

    def begin(self) -> None:
        """A request is answered."""
        self._answering += 1
        self._expect_nothing()

    def end(self) -> None:
        """It is answered. The next bytes begin another; where nothing comes, uvicorn closes the connection.

        Closing waits for the peer to read, so that has a deadline too.
        """
        self._answering -= 1
        if self._transport is not None and self._unread is None:
            self._unread = asyncio.get_running_loop().call_later(SENT_WITHIN, self._let_go)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> None:
        self._unread = None
        if self._transport is not None and self._transport.get_write_buffer_size():
            self._transport.abort()

    def _expect(self) -> None:
        # Not again with each byte: a peer that sends one now and then would be waited for without an end.
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(ASKED_WITHIN, self.abort)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
