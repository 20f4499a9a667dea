"""The part of a session that the rooms above use. Their tests' sessions are checked by this, as the real one is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from aioregistry._errors import RegistryError
from aioregistry._protocol import Message, Reply, WatchedEvent
from aioregistry._runtime import Endpoint, Runtime

from .attempts import Attempt
from .connect_string import ConnectString
from .states import SessionState

__all__ = ["ReadingSessionPort", "SessionPort", "TreeWatchPort", "TreeWatchesPort", "WatchPort", "WatchesPort"]

T = TypeVar("T")

Callback = Callable[[WatchedEvent], None]


class WatchPort(Protocol):
    """A listener to one path."""

    def close(self) -> None:
        """Stop listening."""


class TreeWatchPort(WatchPort, Protocol):
    """A listener to a path and everything below."""

    async def arm(self) -> None:
        """Set the recursive watch on the present connection."""


class WatchesPort(Protocol):
    def listen(self, path: str, callback: Callback) -> WatchPort:
        """Call *callback* for each event on exactly *path*."""


class TreeWatchesPort(WatchesPort, Protocol):
    def listen_tree(self, path: str, callback: Callback) -> TreeWatchPort:
        """Call *callback* for each event on *path* and below, once the watch is armed."""


class SessionPort(Protocol):
    """The part that registrations use; each member is as :class:`~aioregistry._session.Session` says."""

    @property
    def runtime(self) -> Runtime: ...
    @property
    def connect_string(self) -> ConnectString: ...
    @property
    def max_request(self) -> int: ...
    @property
    def failure(self) -> RegistryError | None: ...
    @property
    def closed_id(self) -> int: ...
    @property
    def watches(self) -> WatchesPort: ...
    @property
    def state(self) -> SessionState: ...
    @property
    def connected(self) -> bool: ...
    @property
    def attempts(self) -> Mapping[str, Attempt]: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def id(self) -> int: ...
    @property
    def earlier_ids(self) -> Sequence[int]: ...
    @property
    def timeout(self) -> float: ...
    @property
    def generation(self) -> int: ...
    @property
    def history(self) -> int: ...
    @property
    def last_zxid(self) -> int: ...
    @property
    def server(self) -> Endpoint | None: ...
    @property
    def presumed_expired(self) -> bool: ...
    def evidence_age(self) -> float: ...
    def supports(self, opcode: int) -> bool | None: ...
    def submit(
        self, message: Message[T], answered: Callable[[asyncio.Future[Reply[Any]]], None] | None = None
    ) -> asyncio.Future[Reply[T]]: ...
    async def request(self, message: Message[T]) -> Reply[T]: ...
    def executed(self, message: Message[Any]) -> None: ...
    def observe(self, callback: Callable[[], None]) -> Callable[[], None]: ...
    def emit(self, name: str, **fields: object) -> None: ...


class ReadingSessionPort(SessionPort, Protocol):
    """The part that discovery uses, too."""

    @property
    def watches(self) -> TreeWatchesPort: ...
    async def read(self, message: Message[T]) -> Reply[T]: ...
    async def wait_connected(self, timeout: float | None = None) -> None: ...
