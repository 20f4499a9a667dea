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
    """The overrides of a :class:`ThreadRegistry`, as :class:`aioregistry.Registry` has them."""

    def __init__(self, running: Callable[[], LoopThread], remote: Callable[[], Overrides]) -> None:
        """Take what returns the registry's thread, or raises, and what returns its overrides, on its loop."""
        self._running, self._remote = running, remote

    async def drain(self, name: str, id: str, **options: Unpack[DrainOptions]) -> Override:
        """Take an instance into maintenance, or give it fewer calls; return the override in force then.

        Arguments and errors are those of :meth:`~aioregistry._maintenance.Overrides.drain`.
        """
        return await self._running().run(lambda: self._remote().drain(name, id, **options))

    async def enable(self, name: str, id: str) -> None:
        """End the override of an instance.

        Arguments and errors are those of :meth:`~aioregistry._maintenance.Overrides.enable`.
        """
        await self._running().run(lambda: self._remote().enable(name, id))

    async def list(self, name: str | None = None) -> Sequence[Override]:
        """Return the overrides of the service *name*, or of all.

        Arguments and errors are those of :meth:`~aioregistry._maintenance.Overrides.list`.
        """
        return await self._running().run(lambda: self._remote().list(name))


class BlockingOverrides:
    """The overrides of a blocking registry.

    Each call waits for a connection for *timeout* seconds, or for as long as it takes if that is None, and raises
    :class:`~aioregistry.RequestTimeout` when the time is over; the request may be done all the same.
    """

    def __init__(self, running: Callable[[], LoopThread], remote: Callable[[], Overrides]) -> None:
        """Take what opens the registry, if need be, and returns its thread; and what returns its overrides, there."""
        self._running, self._remote = running, remote

    def drain(self, name: str, id: str, *, timeout: float | None = None, **options: Unpack[DrainOptions]) -> Override:
        """Take an instance into maintenance, or give it fewer calls.

        Args:
            name: the service.
            id: the instance, which must be listed.
            timeout: seconds that the call may take; None waits for a connection for as long as it takes.
            reason: text for other operators; needed.
            weight: from 0 to 1, the part of its share of calls; the instance stays enabled. None, the default, takes
                it into maintenance.
            seconds: how long it lasts, by the server's clock: an hour unless given; None for ever.
            any_incarnation: True rules each process that registers the id later, too. False, the default, rules only
                the process that is registered now.
            by: the operator's name; the user and the host unless given.

        Returns:
            The override in force now. It has replaced an earlier one.

        Raises:
            InvalidArgument: an argument is wrong, no such instance is listed, or its node may not be read and
                *any_incarnation* is False.
            NoAuth: an ACL forbids the write.
            RequestTimeout: there was no answer within *timeout*; the override may be in force.
        """
        remote = self._remote
        what = f"draining {name}/{id}"
        drained: Override = self._running().wait_within(timeout, what, lambda: remote().drain(name, id, **options))
        return drained

    def enable(self, name: str, id: str, *, timeout: float | None = None) -> None:
        """End an override. Checks and the owner may keep the instance disabled.

        Args:
            name: the service.
            id: the instance.
            timeout: seconds that the call may take; None waits for a connection for as long as it takes.

        Raises:
            InvalidArgument: the instance has no override.
            NoAuth: an ACL forbids the deletion.
            RequestTimeout: there was no answer within *timeout*; the override may be over.
        """
        self._running().wait_within(timeout, f"enabling {name}/{id}", lambda: self._remote().enable(name, id))

    def list(self, name: str | None = None, *, timeout: float | None = None) -> Sequence[Override]:
        """Return the overrides of one service, or of all.

        Args:
            name: the service; None for all.
            timeout: seconds that the call may take; None waits for a connection for as long as it takes.

        Returns:
            The overrides, sorted by service and id. An override whose time is over is removed and left out, if an ACL
            lets this client write there; otherwise it is among them, and its ``until`` tells.

        Raises:
            InvalidArgument: *name* cannot be a service's.
            RequestTimeout: there was no answer within *timeout*.
        """
        return self._running().wait_within(timeout, "the list of overrides", lambda: self._remote().list(name))
