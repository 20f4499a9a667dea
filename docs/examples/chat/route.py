"""A room's way from the gateway to its chat server, and from one server to the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp

from aioregistry import NoInstances, Pick

from .line import HEARTBEAT, Line
from .room import Room
from .wire import DOWN, Down, Happened, Hello, Message, People, Say, Servers, Up

if TYPE_CHECKING:
    from .gateway import Gateway

CONNECT: Final = 2.0
"""Seconds in which a server has to answer; one that hangs takes connections and says nothing."""

AGAIN: Final = 0.1
"""Seconds between attempts."""

WAITING: Final = 500
"""Messages that may wait for a server here; the pages keep what is more. A line has room for all of them at once."""


class Route:
    """One room, while somebody here is in it.

    A message waits in ``waiting`` until it comes back from the room's server with its place. So whatever becomes
    of the server, a message is not lost: the next one gets it, after all that is known of the room. It does not come
    twice either: a server that knows its id says so instead of placing it again.
    """

    def __init__(self, name: str, gateway: Gateway) -> None:
        self.room = Room(name)
        self.waiting: dict[str, Say] = {}
        self.target: str | None = None  # the server that we are connected to, or try to
        self.server: str | None = None  # the one that had the room last
        self.link: Line[Down] | None = None
        self.everybody = People(())  # at other gateways too
        self._gateway = gateway
        self._begin()

    # ------------------------------------------------------------------ for pages

    def enter(self, line: Line[Up]) -> None:
        """Let a page in."""
        self.room.enter(line)
        line.send(self.everybody)
        line.send(self._servers())
        if self.link is not None:
            line.send(Happened("linked", f"The room is at {self.server}."))

    def leave(self, line: Line[Up]) -> None:
        """Let a page go."""
        self.room.leave(line)
        self._send(Hello(self.room.names))

    def hear(self, line: Line[Up], said: Up) -> None:
        """Do what a page says."""
        match said:
            case Hello(people):
                self.room.people[line] = people[:1]  # who enters by a page is one
                self._send(Hello(self.room.names))
            case Say(id):
                known = self.room.log.get(id)
                if known is not None:  # the page was cut off before it heard of it
                    line.send(known)
                elif id not in self.waiting and len(self.waiting) == WAITING:
                    line.close()  # the page comes back, and says it again
                elif id not in self.waiting:
                    self.waiting[id] = said
                    self._send(said)

    def happened(self, what: str, text: str) -> None:
        """Tell the pages what became of servers."""
        self.room.tell(Happened(what, text))

    def tell_servers(self) -> None:
        """Tell the pages which servers there are."""
        self.room.tell(self._servers())

    # ------------------------------------------------------------------ to servers

    def move(self, pick: Pick[object]) -> None:
        """Move to where the room belongs now, unless it is there."""
        if self.target != pick.id:
            self.end()
            self._begin(pick)
        elif self.link is not None:
            pick.succeeded()  # it answers this room

    def close(self) -> None:
        """Close the lines to all pages."""
        for line in self.room.people:
            line.close()

    def end(self) -> None:
        """Let go of the server."""
        self._task.cancel()
        self.target = self.link = None

    def _begin(self, pick: Pick[object] | None = None) -> None:
        self.target = None if pick is None else pick.id
        self._task = self._gateway.start(self._keep_linked(pick))

    async def _keep_linked(self, first: Pick[object] | None) -> None:
        while True:
            pick, socket = await self._connect(first)
            first = None
            async with Line(socket, DOWN) as link:
                self._arrive(pick.id, link)
                self._gateway.answered(pick.id)
                async for told in link.received():
                    self._take(told)
            self.link = None
            self.happened("lost", f"The connection to {pick.id} broke.")
            self.tell_servers()

    async def _connect(self, first: Pick[object] | None) -> tuple[Pick[object], aiohttp.ClientWebSocketResponse]:
        """Connect to the server that has the room, by *first* if given.

        A server that does not answer is reported, so that another is picked.
        """
        refused = False
        while True:
            pick = await self._pick() if first is None else first
            first = None
            at = pick.instance
            self.target = pick.id
            try:
                with pick:
                    async with asyncio.timeout(CONNECT):
                        url = f"ws://{at.address}:{at.port}/rooms/{self.room.name}"
                        return pick, await self._gateway.http.ws_connect(url, heartbeat=HEARTBEAT)
            except (aiohttp.ClientError, OSError):
                if not refused:
                    self.happened("refused", f"{pick.id} does not answer.")
                refused = True
                self._gateway.failed(pick.id)
                await asyncio.sleep(AGAIN)

    async def _pick(self) -> Pick[object]:
        try:
            return self._gateway.balancer.pick(self.room.name)
        except NoInstances as nothing:
            self.target = None
            self.happened("waiting", f"There is no chat server to talk to ({nothing.reason}); what you say waits.")
            return await self._gateway.balancer.pick_when_available(key=self.room.name)

    def _arrive(self, server: str, link: Line[Down]) -> None:
        """Bring the room along: who is here, what was said, and then what still waits, in its order."""
        link.send(Hello(self.room.names, tuple(self.room.log)))
        for said in self.waiting.values():
            link.send(said)
        self.link = link
        before, self.server = self.server, server
        if before in (None, server):
            self.happened("linked", f"The room is at {server}.")
        else:
            along = f"messages known: {len(self.room.log)}, waiting: {len(self.waiting)}"
            self.happened("moved", f"The room moved from {before} to {server} ({along}).")
        self.tell_servers()

    def _take(self, told: Down) -> None:
        """Pass on what the server tells."""
        match told:
            case Message(id):
                self.waiting.pop(id, None)
                self.room.merge([told])
            case People():
                self.everybody = told
                self.room.tell(told)

    def _send(self, message: Up) -> None:
        if self.link is not None:
            self.link.send(message)

    def _servers(self) -> Servers:
        return Servers(self.server if self.link else None, self._gateway.servers())
