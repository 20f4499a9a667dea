"""The judge of the truth in a test: an observer with a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple, Self

from tests.support import wire
from tests.support.wire import Node, Operation, Reply, Wire, WireError

NO_NODE, NODE_EXISTS = -101, -110
POLL_INTERVAL = 0.005
CONNECT_TIMEOUT = 0.5  # a server that is starting takes some connections and never answers on them


class Judge:
    """Says what a server or an ensemble holds, as new as the quorum.

    Connects anew, with a session of its own, whenever it has to, so that it outlives what is done to the servers.
    Every question ends with TimeoutError when nobody has answered within `wire.TIMEOUT` seconds.

    Args:
        connect_string: Addresses, separated by commas; the first that serves is asked.
    """

    def __init__(self, connect_string: str) -> None:
        self.addresses = connect_string.split(",")
        self._wire: Wire | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._wire is not None:
            await self._wire.__aexit__()

    async def ask(self, operation: Operation) -> Reply:
        """The reply to a read, or to a write that may be repeated. Raises WireError."""
        async with asyncio.timeout(wire.TIMEOUT), self._lock:
            while True:
                connection = self._wire or await self._connect()
                try:
                    synced = connection.send(wire.sync("/"))
                    asked = connection.send(operation)
                    await connection.reply(synced)
                    reply = await connection.reply(asked)
                except ConnectionError:
                    self._wire = None
                    connection.abandon()
                    continue
                if reply.error:
                    raise WireError(reply.error, reply.zxid)
                return reply

    async def node(self, path: str) -> Node | None:
        """The node's data and Stat, None if there is none."""
        try:
            body = (await self.ask(wire.get_data(path))).body
        except WireError as error:
            if error.code != NO_NODE:
                raise
            return None
        return Node(body.buffer(), body.stat())

    async def owner(self, path: str) -> int | None:
        """The session that owns the node, 0 if it is not ephemeral, None if there is none."""
        node = await self.node(path)
        return None if node is None else node.stat.owner

    async def children(self, path: str) -> list[str]:
        """The names of the children, sorted; none if there is no such node."""
        try:
            return sorted((await self.ask(wire.get_children(path))).body.strings())
        except WireError as error:
            if error.code != NO_NODE:
                raise
            return []

    async def make(self, path: str, data: bytes = b"") -> None:
        """Make a persistent node and the parents it lacks; leave alone what is there."""
        names = path.strip("/").split("/")
        for depth in range(1, len(names) + 1):
            with contextlib.suppress(WireError):
                await self.ask(wire.create("/" + "/".join(names[:depth]), data if depth == len(names) else b""))

    async def set_data(self, path: str, data: bytes) -> None:
        await self.ask(wire.set_data(path, data))

    async def delete(self, path: str) -> None:
        """Delete a node, whoever owns it and whatever its version."""
        await self.ask(wire.delete(path))

    async def node_until(
        self, path: str, accepted: Callable[[Node | None], bool], *, timeout: float = wire.TIMEOUT
    ) -> Node | None:
        """Look until `accepted` says yes, and return what it said yes to. Raises TimeoutError with what was seen
        last."""
        deadline = time.monotonic() + timeout
        while not accepted(node := await self.node(path)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout} s {path} still is {node}")
            await asyncio.sleep(POLL_INTERVAL)
        return node

    async def children_until(
        self, path: str, accepted: Callable[[list[str]], bool], *, timeout: float = wire.TIMEOUT
    ) -> list[str]:
        """As `node_until`, for the names of the children."""
        deadline = time.monotonic() + timeout
        while not accepted(names := await self.children(path)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout} s below {path} there still is {names}")
            await asyncio.sleep(POLL_INTERVAL)
        return names

    async def _connect(self) -> Wire:
        while True:
            for address in self.addresses:
                with contextlib.suppress(OSError):  # TimeoutError is one
                    async with asyncio.timeout(CONNECT_TIMEOUT):
                        self._wire = await wire.connect(address)
                    return self._wire
            await asyncio.sleep(POLL_INTERVAL)


class Sight(NamedTuple):
    """The states from `time` (monotonic) on."""

    time: float
    node: Node | None


class Chronicle:
    """Looks at one path all the time and writes down every change, between `__aenter__` and `__aexit__`.

    It reads in a loop instead of watching, for reads see what other libraries' users see: a takeover in one
    transaction is a change of owner to it, never a gap.
    """

    def __init__(self, connect_string: str, path: str) -> None:
        self.path = path
        self.sights: list[Sight] = []
        self._judge = Judge(connect_string)
        self._task: asyncio.Task[None] | None = None
        self._begun = self._done = 0

    @property
    def owners(self) -> list[int | None]:
        """The owners in order, each once until it changes; None where the node was missing."""
        owners: list[int | None] = []
        for sight in self.sights:
            owner = None if sight.node is None else sight.node.stat.owner
            if not owners or owners[-1] != owner:
                owners.append(owner)
        return owners

    async def __aenter__(self) -> Self:
        await self._look()
        self._task = asyncio.create_task(self._look_on())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._look()
        await self._judge.__aexit__()

    async def catch_up(self) -> None:
        """Wait until it has seen what is there now: it looks now and then only."""
        begun = self._begun
        async with asyncio.timeout(wire.TIMEOUT):
            while self._done <= begun:
                await asyncio.sleep(POLL_INTERVAL)

    async def _look_on(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):  # nobody serves: there is nothing to see
                await self._look()
            await asyncio.sleep(POLL_INTERVAL)

    async def _look(self) -> None:
        self._begun += 1
        number = self._begun
        node = await self._judge.node(self.path)
        self._done = number
        if not self.sights or self.sights[-1].node != node:
            self.sights.append(Sight(time.monotonic(), node))
