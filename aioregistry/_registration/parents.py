"""The nodes above the instances of one session: found out about by one of its registrations, and made by one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from aioregistry._errors import ChrootMissing, ConnectionLost, NodeExists, NoNode, PoisonRequest, Unimplemented
from aioregistry._incident_log import IncidentLog
from aioregistry._protocol import Create, CreateContainer, Message

from .transactions import Target, ancestors, parent_creation

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = ["Parents"]


class Parents:
    """Which parents are there, as far as a session's registrations have seen.

    Without it ten thousand registrations of a new service would each find out that it is missing, and make it.
    """

    def __init__(self, repeated: IncidentLog) -> None:
        self._repeated = repeated
        self._known: set[str] = set()
        self._first: dict[str, Hashable] = {}
        """The object that finds out about a parent."""
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._made: dict[str, asyncio.Future[None]] = {}
        self._unanswered: dict[str, Message[Any]] = {}
        """Creations whose answers were lost, by their paths."""

    def known(self, parent: str) -> bool:
        """Return whether *parent* was seen."""
        return parent in self._known

    def seen(self, session: SessionPort, parent: str) -> None:
        """*parent* is there."""
        self._known.add(parent)
        for path in [path for path in self._unanswered if f"{parent}/".startswith(f"{path}/")]:
            session.executed(self._unanswered.pop(path))

    def begin(self, parent: str, who: Hashable, wake: Callable[[], None]) -> bool:
        """Return whether *who* may go on; else *wake* is called when another task has found out, or has given up."""
        if parent in self._known:
            return True
        if self._first.setdefault(parent, who) is who:
            return True
        self._waiting.setdefault(parent, []).append(wake)
        return False

    def end(self, parent: str, who: Hashable) -> None:
        """*who* has found out, or has given up."""
        if self._first.get(parent) is who:
            del self._first[parent]
            for wake in self._waiting.pop(parent, ()):
                wake()

    async def make(self, session: SessionPort, target: Target, path: str) -> None:
        """Create the missing nodes above *path*, or wait until another client has; raises the error if it cannot."""
        parent = path.rpartition("/")[0]
        self._known.discard(parent)
        if (under_way := self._made.get(parent)) is not None:
            await asyncio.wait([under_way])
            return  # whatever came of it: it is planned again
        made = self._made[parent] = asyncio.get_running_loop().create_future()
        try:
            await self._make(session, target, path)
            self._known.add(parent)
        finally:
            del self._made[parent]
            made.set_result(None)

    async def _make(self, session: SessionPort, target: Target, path: str) -> None:
        missing: list[str] = []
        # The nearest first: mostly it is the service alone that is missing.
        for parent in reversed(ancestors(path)):
            if parent == target.chroot and not target.create_chroot:
                raise ChrootMissing(parent)
            try:
                await self._make_one(session, target, parent)
            except NoNode:
                missing.append(parent)
            else:
                break
        for parent in reversed(missing):
            await self._make_one(session, target, parent)

    async def _make_one(self, session: SessionPort, target: Target, path: str) -> None:
        with contextlib.suppress(NodeExists):
            if session.supports(CreateContainer.opcode) is not False:
                with contextlib.suppress(Unimplemented, PoisonRequest):
                    await self._send(session, parent_creation(target, path, container=True))
                    self._tell(target, path)
                    return
            await self._send(session, parent_creation(target, path, container=False))
            self._tell(target, path)

    def _tell(self, target: Target, path: str) -> None:
        if path == target.chroot:
            text = (
                "made chroot=%r, which did not exist; if it is misspelt, consumers do not look for this instance there"
            )
            self._repeated.tell("chroot", logging.WARNING, text, path, path=path)

    async def _send(self, session: SessionPort, creation: Create | CreateContainer) -> None:
        self._unanswered.pop(creation.path, None)
        try:
            await session.submit(creation)
        except ConnectionLost:
            self._unanswered[creation.path] = creation
            raise
