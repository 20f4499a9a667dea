"""A chat server: keeps rooms in memory, and itself in the registry.

python -m docs.examples.chat.server --name chat-1 --zookeeper 127.0.0.1:2181
"""

from __future__ import annotations

import argparse
import socket

from aiohttp import web

from aioregistry.integrations.aiohttp import Membership, member, readiness, run_app

from .line import Line, accepted
from .page import only_our_pages
from .room import Room
from .wire import ROOM, SERVICE, UP, Hello, Say, Up

FORGOTTEN_AFTER = 1000  # empty rooms, kept for people who come back
LEAVING = 1.0  # seconds that gateways get to take the rooms away; they need milliseconds


class ChatServer:
    """The rooms of one server. Which ones those are is decided by who connects to it: see gateway.py and where.py."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rooms: dict[str, Room] = {}

    async def enter(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one line into a room."""
        websocket = await accepted(request)
        room = self.room(request.match_info["room"])
        async with Line(websocket, UP) as line:
            room.enter(line)
            try:
                async for said in line.received():
                    self.hear(room, line, said)
            finally:
                room.leave(line)
                room.tell_people()
        return websocket

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
        """Return the room of this name, an empty one if it is new."""
        empty = [room for room in self.rooms.values() if not room.people]
        for forgotten in empty[:-FORGOTTEN_AFTER]:
            del self.rooms[forgotten.name]
        return self.rooms.setdefault(name, Room(name))


def server_app(name: str, zookeeper: str, port: int, session_timeout: float) -> web.Application:
    """Return chat server *name*, to listen on *port* of this machine."""
    membership = Membership(
        zookeeper, SERVICE, id=name, address="127.0.0.1", port=port, drain=LEAVING, session_timeout=session_timeout
    )
    app = web.Application(middlewares=[only_our_pages])  # no page is here: for apps and gateways
    app.cleanup_ctx.append(member(membership))
    app.router.add_get(ROOM, ChatServer(name).enter)
    app.router.add_get("/ready", readiness)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat server.")
    parser.add_argument("--name", required=True, help="its id in the registry")
    parser.add_argument("--zookeeper", metavar="HOSTS", default="127.0.0.1:2181")
    parser.add_argument("--port", type=int, default=0, help="a free one unless given")
    parser.add_argument("--session-timeout", metavar="SECONDS", type=float, default=4)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", arguments.port)) as listening:
        app = server_app(arguments.name, arguments.zookeeper, listening.getsockname()[1], arguments.session_timeout)
        # Told to stop, it is drained first, while it serves; a gateway that is still connected then is cut off.
        run_app(app, sock=listening, print=None, shutdown_timeout=0)
