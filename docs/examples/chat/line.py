"""One end of a WebSocket, whichever end it is: pages' at the gateway, the gateway's at chat servers, and theirs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, Generic, Self, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from .wire import Down, Up

HEARTBEAT: Final = 5.0
"""Seconds between pings; a machine that vanished closes no connection, and is noticed by this."""

QUEUED: Final = 1000
"""Messages that may wait for a slow reader before it is cut off; it comes back, and is told what it missed."""

R = TypeVar("R")


class Line(Generic[R]):
    """One end of a WebSocket, open while its ``async with`` block runs.

    Messages wait in a queue for a task of its own, so that a slow reader does not delay the others.
    """

    def __init__(
        self, socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, decoder: msgspec.json.Decoder[R]
    ) -> None:
        self._socket = socket
        self._decoder = decoder
        self._queue: asyncio.Queue[str] = asyncio.Queue(QUEUED)
        self._closed = False
        self._tasks: list[asyncio.Task[object]] = []

    async def __aenter__(self) -> Self:
        self._tasks.append(asyncio.create_task(self._write()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._socket.close()

    def send(self, message: Up | Down) -> None:
        """Send *message* after those before it; if the line breaks first, it is lost."""
        try:
            self._queue.put_nowait(msgspec.json.encode(message).decode())
        except asyncio.QueueFull:
            self.close()

    def close(self) -> None:
        """End the line from this side: who reads it comes to the end."""
        if not self._closed:
            self._closed = True
            self._tasks.append(asyncio.create_task(self._socket.close()))

    async def received(self) -> AsyncIterator[R]:
        """Yield what the other end says, until it or the line ends."""
        async for frame in self._socket:
            if frame.type is not aiohttp.WSMsgType.TEXT:  # an error: aiohttp has closed the socket
                return
            try:
                message = self._decoder.decode(frame.data)
            except msgspec.DecodeError as error:
                reason = str(error).encode()[:100]  # of 123 bytes that a closing frame has room for
                await self._socket.close(code=aiohttp.WSCloseCode.INVALID_TEXT, message=reason)
                return
            yield message
            # Frames that are here already are read without a wait: let writers have their turn after each.
            await asyncio.sleep(0)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):  # who reads the line is told of its end
            while True:
                await self._socket.send_str(await self._queue.get())


async def accepted(request: web.Request) -> web.WebSocketResponse:
    """Return the open WebSocket that *request* asks for."""
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT)
    try:
        await socket.prepare(request)
    except ConnectionError:  # who asked has gone, and is not there for this answer either
        raise web.HTTPBadRequest from None
    return socket
