"""The demo's network: a relay that can be cut and can fall silent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Wire:
    """Relays TCP connections from a loopback port of its own to *target*, honestly until told otherwise.

    Args:
        target: host and port of a server.
    """

    port: int

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._audible = asyncio.Event()
        self._audible.set()
        self._ends: dict[asyncio.StreamWriter, None] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.heal()
        await self._server.wait_closed()

    def cut(self) -> None:
        """End every connection; new ones are relayed."""
        for end in self._ends:
            end.transport.abort()

    def silence(self) -> None:
        """Lose every byte from now on, and tell neither side."""
        self._audible.clear()

    def heal(self) -> None:
        """Relay again; what is connected by now has lost bytes and is cut."""
        self._audible.set()
        self.cut()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, far_writer)
        self._ends |= dict.fromkeys(ends)
        ways = (self._pump(reader, far_writer), self._pump(far_reader, writer))
        pumps = [asyncio.create_task(way) for way in ways]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            del self._ends[end]
            end.transport.abort()
        await asyncio.wait(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self._audible.is_set():
                    writer.write(data)
                    await writer.drain()
        await self._audible.wait()  # the end of a connection is news as well: silence keeps it
