"""The listeners to events of nodes, which all rooms above share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from aioregistry._errors import (
    TRANSIENT,
    MarshallingError,
    PoisonRequest,
    RegistryError,
    Unimplemented,
    UnsupportedServer,
)
from aioregistry._protocol import AddWatch, Message, MultiRead, RemoveWatches, Reply, WatchedEvent, WatcherType
from aioregistry._runtime import Endpoint

from .watch_table import WatchTable

__all__ = ["SessionWatches", "TreeWatch", "Watch"]


class _Session(Protocol):
    """The part of a session that its watches need."""

    @property
    def server(self) -> Endpoint | None: ...
    @property
    def connected(self) -> bool: ...
    def supports(self, opcode: int) -> bool | None: ...
    def submit(self, message: Message[Any]) -> asyncio.Future[Reply[Any]]: ...
    async def persist(
        self, send: Callable[[], asyncio.Future[Reply[Any]]], errors: tuple[type[RegistryError], ...]
    ) -> Reply[Any]: ...


class SessionWatches:
    """The listeners to events, shared by all rooms above."""

    def __init__(self, session: _Session, table: WatchTable) -> None:
        self._session, self._table = session, table
        self._asking = asyncio.Lock()
        """While it is not known whether the server has recursive watches: one request finds out for all."""

    def listen(self, path: str, callback: Callable[[WatchedEvent], None]) -> Watch:
        """Call *callback* for each event on exactly *path*.

        Reads with ``watch=True`` arm the watches, and reconnecting restores them.
        """
        return Watch(self._session, self._table, path, callback)

    def listen_tree(self, path: str, callback: Callable[[WatchedEvent], None]) -> TreeWatch:
        """Call *callback* for each event on *path* and below, once :meth:`TreeWatch.arm` has set the watch."""
        return TreeWatch(self._session, self._table, path, callback, self._asking)


class Watch:
    """A listener to one path, until closed."""

    def __init__(
        self, session: _Session, table: WatchTable, path: str, callback: Callable[[WatchedEvent], None]
    ) -> None:
        self._session, self._table, self._path, self._callback = session, table, path, callback
        self._closed = False
        self._listen()

    def close(self) -> None:
        """Stop listening, from now on; may be called again."""
        if not self._closed:
            self._closed = True
            self._unlisten()

    def _listen(self) -> None:
        self._table.listen(self._path, self._fired)

    def _unlisten(self) -> None:
        self._table.unlisten(self._path, self._fired)

    def _fired(self, event: WatchedEvent) -> None:
        if not self._closed:  # by another listener to the same event
            self._callback(event)


class TreeWatch(Watch):
    """A listener to a path and everything below, shared on the server with others on the same path."""

    def __init__(
        self,
        session: _Session,
        table: WatchTable,
        path: str,
        callback: Callable[[WatchedEvent], None],
        asking: asyncio.Lock,
    ) -> None:
        self._asking = asking
        super().__init__(session, table, path, callback)

    async def arm(self) -> None:
        """Set the recursive watch on the present connection, unless it is set; to be called again after each reconnect.

        Raises :class:`UnsupportedServer` if the server lacks them, :class:`ConnectionLost`.
        """
        session = self._session
        # Again where a read with a one-shot watch on the same path, sent meanwhile, has replaced it.
        while not self._closed and not self._table.is_tree_armed(self._path):
            if session.supports(AddWatch.opcode) is not None:
                await self._set()
                continue
            async with self._asking:
                if not self._closed:
                    await self._set()

    async def _set(self) -> None:
        session = self._session
        if session.supports(AddWatch.opcode) is False or session.supports(MultiRead.opcode) is False:
            raise UnsupportedServer(f"{session.server} has no recursive watches")
        try:
            await session.persist(lambda: session.submit(AddWatch(self._path)), TRANSIENT)
        except (Unimplemented, MarshallingError, PoisonRequest) as error:
            raise UnsupportedServer(f"{session.server} has no recursive watches") from error

    def _listen(self) -> None:
        self._table.listen_tree(self._path, self._fired)

    def _unlisten(self) -> None:
        if self._table.unlisten_tree(self._path, self._fired) and self._session.connected:
            _ = self._session.submit(RemoveWatches(self._path, WatcherType.ANY))
