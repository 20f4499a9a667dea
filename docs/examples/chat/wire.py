"""What is said over the wire, by pages and gateways to chat servers and back: JSON in WebSocket frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Final, Generic, Literal, Self, TypeVar

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta

SERVICE: Final = "chat"
"""The name under which chat servers are registered."""

ROOM: Final = r"/rooms/{room:[\w-]{1,40}}"
"""What a room is called in URLs, those of chat servers and gateways alike."""

HEARTBEAT: Final = 5.0
"""Seconds between pings; a machine that vanished closes no connection, and is noticed by this."""

QUEUED: Final = 1000
"""Messages that may wait for a slow reader before it is cut off; it comes back, and is told what it missed."""

Name = Annotated[str, Meta(min_length=1, max_length=40)]
MessageId = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z-]{1,64}\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=2000)]


class Say(msgspec.Struct, tag_field="kind", tag="say", frozen=True):
    """Please tell the room. The id is its author's: whoever gets it a second time knows it."""

    id: MessageId
    name: Name
    text: Text


class Message(msgspec.Struct, tag_field="kind", tag="message", frozen=True):
    """Somebody said something: *at* is its place in the room (see room.py), *by* the server that gave it."""

    id: MessageId
    name: Name
    text: Text
    at: int
    by: str


class Hello(msgspec.Struct, tag_field="kind", tag="hello", frozen=True):
    """Who is at this end of the line, and which messages are known here; said first, and when people come or go."""

    people: tuple[Name, ...] = ()
    known: tuple[Message, ...] = ()


class People(msgspec.Struct, tag_field="kind", tag="people", frozen=True):
    """Everybody in the room."""

    names: tuple[str, ...]


class Server(msgspec.Struct, frozen=True):
    """A chat server, as a gateway sees it."""

    id: str
    state: Literal["listed", "leaving", "set aside"]


class Servers(msgspec.Struct, tag_field="kind", tag="servers", frozen=True):
    """From a gateway: which server has the room now, if any, and which there are."""

    room: str | None
    all: tuple[Server, ...]


class Happened(msgspec.Struct, tag_field="kind", tag="happened", frozen=True):
    """From a gateway: what became of the room's server, for people to read."""

    what: str
    text: str


Up = Hello | Say
Down = Message | People | Servers | Happened

UP: Final[msgspec.json.Decoder[Up]] = msgspec.json.Decoder(Up)
DOWN: Final[msgspec.json.Decoder[Down]] = msgspec.json.Decoder(Down)

R = TypeVar("R")


class Line(Generic[R]):
    """One end of a WebSocket, open while its ``async with`` block runs.

    What is sent waits in a queue for a task of its own, so that a slow reader delays nobody else.
    """

    def __init__(
        self, socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, received: msgspec.json.Decoder[R]
    ) -> None:
        self._socket = socket
        self._decoder = received
        self._queue: asyncio.Queue[str] = asyncio.Queue(QUEUED)
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
        self._tasks.append(asyncio.create_task(self._socket.close()))

    async def received(self) -> AsyncIterator[R]:
        """Yield what the other end says, until it or the line ends."""
        async for frame in self._socket:
            if frame.type is not aiohttp.WSMsgType.TEXT:  # an error: aiohttp has closed the socket
                return
            try:
                yield self._decoder.decode(frame.data)
            except msgspec.DecodeError as error:
                reason = str(error).encode()[:100]  # of 123 bytes that a closing frame has room for
                await self._socket.close(code=aiohttp.WSCloseCode.INVALID_TEXT, message=reason)

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
