"""A chat server: keeps rooms in memory, and itself in the registry.

python -m docs.examples.chat.server --name chat-1 --zookeeper 127.0.0.1:2181
"""

from __future__ import annotations

import argparse
import asyncio
import signal

from aiohttp import web

import aioregistry
from aioregistry import ServiceInstance

from .room import Room
from .wire import ROOM, SERVICE, UP, Hello, Line, Say, Up, accepted

FORGOTTEN_AFTER = 1000  # rooms that nobody is in, kept for who comes back
LEAVING = 5.0  # seconds that rooms get to move away


class ChatServer:
    """The rooms of one server. To whom they are given is decided by those who connect: see gateway.py and where.py."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rooms: dict[str, Room] = {}

    async def enter(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one line into a room."""
        socket = await accepted(request)
        room = self.room(request.match_info["room"])
        async with Line(socket, UP) as line:
            room.enter(line)
            try:
                async for said in line.received():
                    self.hear(room, line, said)
            finally:
                room.leave(line)
                room.tell_people()
        return socket

    def hear(self, room: Room, line: Line[Up], said: Up) -> None:
        """Do what the other end of *line* says."""
        match said:
            case Hello(people, known):
                room.people[line] = people
                room.merge(known)
                room.tell_people()
            case Say(id):
                if (before := room.log.get(id)) is None:
                    room.tell(room.log.place(said, by=self.name))
                else:  # sent again by who did not hear that we have it
                    line.send(before)

    def room(self, name: str) -> Room:
        """Return the room of this name; there is none that is not there."""
        empty = [room for room in self.rooms.values() if not room.people]
        for forgotten in empty[:-FORGOTTEN_AFTER]:
            del self.rooms[forgotten.name]
        return self.rooms.setdefault(name, Room(name))


async def serve(name: str, zookeeper: str, port: int, session_timeout: float) -> None:
    """Be chat server *name* until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    chat = ChatServer(name)
    app = web.Application()
    app.router.add_get(ROOM, chat.enter)
    runner = web.AppRunner(app, shutdown_timeout=LEAVING)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    me = ServiceInstance(SERVICE, id=name, address="127.0.0.1", port=runner.addresses[0][1])
    async with (
        aioregistry.connect(zookeeper, session_timeout=session_timeout) as registry,
        registry.register(me) as registration,
    ):
        await stopped.wait()
        # Leaving in order: from now on no room is given to us, gateways take theirs away, and then we are gone.
        await registration.update(enabled=False)
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat server.")
    parser.add_argument("--name", required=True, help="its id in the registry")
    parser.add_argument("--zookeeper", metavar="HOSTS", default="127.0.0.1:2181")
    parser.add_argument("--port", type=int, default=0, help="a free one unless given")
    parser.add_argument("--session-timeout", metavar="SECONDS", type=float, default=4)
    asyncio.run(serve(**vars(parser.parse_args())))
