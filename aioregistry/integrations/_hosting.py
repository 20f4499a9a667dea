"""How a server that knows when its sockets open and close tells the memberships that were entered under it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final, Protocol

from ._listening import Socket, own_sockets

__all__ = ["Hosted", "Hosting", "hosting"]


class Hosted(Protocol):
    """A membership that is entered, as far as its server speaks to it."""

    def check_ports(self, sockets: list[Socket]) -> None:
        """Raise InvalidArgument if no process listens on the port, although the server listens now."""

    def register_if_wanted(self) -> None:
        """Begin to register the server, if it was announced."""

    async def drain(self) -> None:
        """Tell consumers to send nothing new, give them the time, and withdraw."""

    async def hurry(self) -> None:
        """Withdraw without the wait for consumers."""


class Hosting:
    """The server's part for the memberships that are entered while it starts: report when it listens, and drain them.

    Made by the server, and set as :data:`hosting` while the application starts.
    """

    def __init__(self) -> None:
        self._listening = False
        self._terms: list[Hosted] = []

    @property
    def listening(self) -> bool:
        """Whether the server accepts connections."""
        return self._listening

    def listen(self) -> None:
        """Announce the memberships that wait: the server accepts connections from now on.

        Raises:
            InvalidArgument: a membership's port, or the address that was configured, is not open: neither this process
                nor another one listens there; no membership is announced.
        """
        sockets = own_sockets()
        for term in self._terms:
            term.check_ports(sockets)
        self._listening = True
        for term in self._terms:
            term.register_if_wanted()

    async def drain(self) -> None:
        """Drain every membership, at the same time; see :meth:`Membership.drain`.

        Raises the error of the first one that failed, when all are done.
        """
        # The server closes its sockets then, whatever became of one.
        for failure in await asyncio.gather(*(term.drain() for term in self._terms), return_exceptions=True):
            if failure is not None:
                raise failure

    async def withdraw(self) -> None:
        """Wait no longer for consumers, and withdraw every membership, within ``close_timeout``."""
        await asyncio.gather(*(term.hurry() for term in self._terms))

    def enter(self, term: Hosted) -> None:
        """Take note that *term* begins under this server."""
        self._terms.append(term)

    def leave(self, term: Hosted) -> None:
        """Take note that *term* has ended."""
        self._terms.remove(term)


hosting: Final[ContextVar[Hosting | None]] = ContextVar("hosting", default=None)
"""The context variable that holds the :class:`Hosting` of the server whose application starts, or None."""
