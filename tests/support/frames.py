"""A proxy that lets a test see, change, drop and answer the frames between clients and a server, on the test's loop."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from typing import NamedTuple, Self

__all__ = ["Frame", "FrameProxy", "failed"]


class Frame(NamedTuple):
    """One frame, without its length.

    ``up`` is to the server. The first each way on a connection are the handshake, with ``opcode`` and ``xid`` 0. That
    of a reply is the one of its request.
    """

    up: bool
    connection: int
    opcode: int
    xid: int
    body: bytes


Filter = Callable[[Frame], "bytes | None"]
"""The frame that goes on instead: b"" for nothing, None to close the connection."""


def failed(reply: Frame, code: int) -> bytes:
    """The reply as one that failed."""
    return reply.body[:12] + struct.pack(">i", code)


class FrameProxy:
    """Hands frames on through *filter*, which may be changed at any time.

    Attributes:
        accepted: how many connections were made.
        used: those of them that a request was sent on: a busy machine may be too slow for the first handshake.
    """

    def __init__(self, target: tuple[str, int], filter: Filter = lambda frame: frame.body) -> None:
        self.target, self.filter = target, filter
        self.accepted = 0
        self.used: set[int] = set()
        self._connections: dict[asyncio.Task[None], None] = {}
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.cut()
        if self._connections:
            await asyncio.wait(self._connections)

    def cut(self) -> None:
        """Close every connection; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = None
        self.accepted += 1
        number = self.accepted
        opcodes: dict[int, int] = {}
        with contextlib.suppress(OSError):
            upstream, up_writer = await asyncio.open_connection(*self.target)
            ends = (writer, up_writer)
            self._writers += ends
            try:
                pumps = [
                    asyncio.ensure_future(self._pump(reader, up_writer, True, number, opcodes)),
                    asyncio.ensure_future(self._pump(upstream, writer, False, number, opcodes)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
            finally:
                for end in ends:
                    end.transport.abort()
                    self._writers.remove(end)
        writer.transport.abort()
        del self._connections[task]

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up: bool,
        number: int,
        opcodes: dict[int, int],
    ) -> None:
        first = True
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                body = await reader.readexactly(size)
                opcode = xid = 0
                if not first:
                    xid, second = struct.unpack_from(">ii", body)
                    if up:
                        self.used.add(number)
                        opcodes[xid] = second
                    opcode = opcodes.get(xid, 0)
                first = False
                answer = self.filter(Frame(up, number, opcode, xid, body))
                if answer is None:
                    return
                if answer:
                    writer.write(struct.pack(">i", len(answer)) + answer)
