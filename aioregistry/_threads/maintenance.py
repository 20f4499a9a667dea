"""The overrides of operators, for callers on other loops and in plain threads than the registry's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Unpack

    from aioregistry._maintenance import Overrides
    from aioregistry._model import Override
    from aioregistry._options import DrainOptions

    from .loop import LoopThread

__all__ = ["BlockingOverrides", "ThreadOverrides"]


class ThreadOverrides:
    """The overrides of a :class:`ThreadRegistry`, as :class:`aioregistry.Registry` has them.

    Args:
        running: returns the thread of the registry, and raises unless that is open.
        remote: returns the registry's; called on its loop.
    """

    def __init__(self, running: Callable[[], LoopThread], remote: Callable[[], Overrides]) -> None:
        self._running, self._remote = running, remote

    async def drain(self, name: str, id: str, **options: Unpack[DrainOptions]) -> Override:
        """Take an instance into maintenance, or give it fewer calls; return what is in force then."""
        return await self._running().run(lambda: self._remote().drain(name, id, **options))

    async def enable(self, name: str, id: str) -> None:
        """End the override of an instance."""
        await self._running().run(lambda: self._remote().enable(name, id))

    async def list(self, name: str | None = None) -> Sequence[Override]:
        """Return the overrides of the service *name*, or of all."""
        return await self._running().run(lambda: self._remote().list(name))


class BlockingOverrides:
    """The overrides of a blocking registry.

    Each call waits for a connection for *timeout* seconds, or for as long as it takes if that is None, and raises
    :class:`RequestTimeout` when the time is over; what was asked for may be done all the same.

    Args:
        running: opens the registry, if this is its first use, and returns its thread.
        remote: returns the registry's; called on its loop.
    """

    def __init__(self, running: Callable[[], LoopThread], remote: Callable[[], Overrides]) -> None:
        self._running, self._remote = running, remote

    def drain(self, name: str, id: str, *, timeout: float | None = None, **options: Unpack[DrainOptions]) -> Override:
        """Take an instance into maintenance, or give it fewer calls; return what is in force then."""
        remote = self._remote
        what = f"draining {name}/{id}"
        drained: Override = self._running().wait_within(timeout, what, lambda: remote().drain(name, id, **options))
        return drained

    def enable(self, name: str, id: str, *, timeout: float | None = None) -> None:
        """End the override of an instance."""
        self._running().wait_within(timeout, f"enabling {name}/{id}", lambda: self._remote().enable(name, id))

    def list(self, name: str | None = None, *, timeout: float | None = None) -> Sequence[Override]:
        """Return the overrides of the service *name*, or of all."""
        return self._running().wait_within(timeout, "the list of overrides", lambda: self._remote().list(name))
