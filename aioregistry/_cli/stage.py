"""The demo's cast: chat servers that are processes, a gateway that routes users to them, and the log they all tell."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from aioregistry import Added, Change, NoInstances, RegistryError, Removed, Resynced, Updated, View
from aioregistry.balancing import Ring
from aioregistry.testing import TcpProxy

SERVICE = "chat"
PATIENCE = 60.0  # seconds, beside two session timeouts, for what should take one: a loaded machine starts processes
STOP_TIMEOUT = 10.0  # seconds from SIGTERM to SIGKILL


class Missed(RegistryError):
    """Something that should have happened did not, in time."""


@dataclass(frozen=True)
class Happening:
    """One line of the demo: what *who* did, suffered or saw, *at* seconds after the start."""

    at: float
    who: str
    event: str
    server: str | None
    text: str


@dataclass(frozen=True)
class DemoResult:
    """The outcome of a fault.

    Args:
        fault: its name.
        saw: what the gateway saw of the server, in order.
        unlisted: seconds for which the gateway missed the server, None if it never did.
        took: seconds until the condition that *until* names.
        until: how it ended.
        promised: whether the gateway saw what this library promises.
    """

    fault: str
    saw: tuple[str, ...]
    unlisted: float | None
    took: float
    until: str
    promised: bool


class Log:
    """Everything that happened, shown as it happens; whatever the demo measures is the time between two entries.

    Args:
        show: called with every entry.
    """

    def __init__(self, show: Callable[[Happening], object]) -> None:
        self.session_timeout: float = 0.0
        """Seconds, which the servers granted: some steps take as long."""
        self._show = show
        self._start = time.monotonic()
        self._entries: list[Happening] = []
        self._news = asyncio.Event()

    def tell(self, who: str, event: str, text: str, server: str | None = None) -> Happening:
        """Add a line, and return it as a mark in time."""
        happening = Happening(round(time.monotonic() - self._start, 4), who, event, server, text)
        self._entries.append(happening)
        self._show(happening)
        self._news.set()
        return happening

    def after(self, mark: Happening, who: str, server: str | None = None) -> list[Happening]:
        """Return what *who* did or saw (of *server*) since *mark*."""
        later = self._entries[self._entries.index(mark) + 1 :]
        return [entry for entry in later if entry.who == who and server in (None, entry.server)]

    async def first(
        self, mark: Happening, who: str, event: str | tuple[str, ...], server: str | None = None
    ) -> Happening:
        """Return the first such *event* since *mark*, when it has happened.

        Raises Missed after PATIENCE and two session timeouts.
        """
        wanted = (event,) if isinstance(event, str) else event
        patience = PATIENCE + 2 * self.session_timeout
        try:
            async with asyncio.timeout(patience):
                while True:
                    for entry in self.after(mark, who, server):
                        if entry.event in wanted:
                            return entry
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise Missed(
                f"{server or who} was not {' or '.join(wanted)} within {patience:g} s after: {mark.text}"
            ) from None


class ChatServer:
    """A chat server: the process of an `aioregistry register`, whose way to ZooKeeper leads through a proxy of its own.

    Args:
        name: its id.
        port: where it says that it listens.
        zookeeper: host and port of the ZooKeeper server behind the proxy.
        chroot: where in ZooKeeper the demo takes place.
        session_timeout: seconds.
        log: where it tells its statuses.
    """

    def __init__(
        self, name: str, port: int, *, zookeeper: tuple[str, int], chroot: str, session_timeout: float, log: Log
    ) -> None:
        self.name = name
        self.proxy = TcpProxy(zookeeper)
        self._port = port
        self._chroot = chroot
        self._session_timeout = session_timeout
        self._log = log
        self._process: asyncio.subprocess.Process
        self._listener: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self.proxy.close()

    async def start(self) -> Happening:
        """Start the process."""
        command = (
            *(sys.executable, "-m", "aioregistry", "register", SERVICE, "--id", self.name),
            *("--address", "127.0.0.1", "--port", str(self._port), "--payload", json.dumps({"room": self.name})),
            *("--zookeeper", f"{self.proxy.address}{self._chroot}"),
            *("--session-timeout", str(self._session_timeout)),
        )
        # Its standard error is how it speaks to us, and how it learns that we are gone however we went: its next line
        # finds no reader.
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=_environment()
        )
        self._listener = asyncio.create_task(self._listen(self._process))
        return self._log.tell(self.name, "started", f"starts as process {self._process.pid}", self.name)

    async def kill(self) -> Happening:
        """SIGKILL: the process cannot say goodbye."""
        mark = self._log.tell("fault", "killed", f"{self.name} is killed (SIGKILL)", self.name)
        self._process.kill()
        await self._ended()
        return mark

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._ended()
        except TimeoutError:
            self._process.kill()
            await self._ended()

    async def _ended(self) -> None:
        await self._process.wait()
        await self._listener

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            text = line.decode(errors="replace").strip()
            status = text.removeprefix(f"{SERVICE}/{self.name} ")
            self._log.tell(self.name, status.lower(), f"status {status}" if status != text else text, self.name)


class Gateway:
    """Routes users to the chat servers that are listed, and tells what it sees of them.

    Args:
        view: the chat servers.
        users: the users who want to chat.
        log: where it tells what it sees.
    """

    def __init__(self, view: View[Any], users: Iterable[str], log: Log) -> None:
        self._view = view
        self._balancer = view.balancer(Ring())
        self._log = log
        self.routes: dict[str, str | None] = dict.fromkeys(users)

    async def follow(self) -> None:
        """See every change, until cancelled."""
        async with self._view.changes() as changes:
            async for change in changes:
                self._see(change)

    def _see(self, change: Change[Any]) -> None:
        if isinstance(change, Resynced):
            for single in change.changes:
                self._see(single)
        else:
            self._tell(*seen(change))

    def _tell(self, event: str, text: str, server: str) -> None:
        moved = self._route()
        self._log.tell("gateway", event, f"{text}; {_moves(moved)}" if moved else text, server)

    def _route(self) -> dict[str, str | None]:
        """Send every user to the server that a ring of hashes gives it, and return who moved where.

        When a server goes, only its users move.
        """
        moved = {user: wanted for user, present in self.routes.items() if (wanted := self._pick(user)) != present}
        self.routes |= moved
        return moved

    def _pick(self, user: str) -> str | None:
        try:
            with self._balancer.pick(user) as pick:
                return pick.id
        except NoInstances:
            return None


def seen(change: Added[Any] | Removed[Any] | Updated[Any]) -> tuple[str, str, str]:
    """Return a change as the gateway reports it: the event, the text, and the server."""
    name = change.id
    match change:
        case Added():
            return "added", f"sees {name}", name
        case Removed():
            return "removed", f"misses {name}", name
    now, before = change.entry, change.previous_entry
    if now.owner != before.owner:
        return "replaced", f"sees {name} in a new session, never gone", name
    if now.czxid != before.czxid:  # it was deleted, and put back before the gateway looked
        return "replaced", f"sees a new node of {name}, never gone", name
    return "updated", f"sees {name} changed", name


def _environment() -> dict[str, str]:
    # The command line says it all: settings of the user's are for another ensemble, and change its lines.
    return {name: value for name, value in os.environ.items() if not name.startswith("AIOREGISTRY_")}


def _moves(moved: dict[str, str | None]) -> str:
    by_server: dict[str | None, list[str]] = {}
    for user, server in moved.items():
        by_server.setdefault(server, []).append(user)
    return "; ".join(
        f"{', '.join(users)} → {server or 'nowhere'}" for server, users in sorted(by_server.items(), key=str)
    )
