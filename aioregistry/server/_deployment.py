"""A ZooKeeper as a whole, with data of its own: life and controls that a single server and an ensemble share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from aioregistry._errors import wrong_argument
from aioregistry.server._history import Backup
from aioregistry.server._store import Data, Store


class Deployment(ABC):
    """Starts, stops, and hands out its data; a context manager, or ``start()`` and ``stop()`` by hand.

    Its subclasses make the store.
    """

    _store: Store

    # ------------------------------------------------------------ life

    async def start(self, data: Data = "kept", *, listen: bool = True) -> None:
        """Serve, on the same ports as before.

        Args:
            data: ``"kept"`` goes on with the data from before it stopped, sessions included, whose timers start again;
                ``"lost"`` starts empty; a :class:`Backup` goes back to it.
            listen: False leaves the sockets to callers that connect by ``protocol_factory``.

        Raises:
            InvalidArgument: *data* is something else.
            UsageError: it runs already.
            OSError: a port cannot be had.
        """
        if data not in ("kept", "lost") and not isinstance(data, Backup):
            raise wrong_argument("data", data, 'give "kept", "lost" or a Backup', str)
        self._store.refuse_to_run_twice()
        try:
            await self._go_up(data, listen=listen)
        except OSError:
            await self._go_down(keep_ports=False)
            raise

    async def stop(self) -> None:
        """Drop every connection and stop listening; data, sessions and ports are kept for the next start."""
        await self._go_down(keep_ports=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._go_down(keep_ports=False)

    @abstractmethod
    async def _go_up(self, data: Data, *, listen: bool) -> None:
        """Begin a history from *data*, and take connections."""

    @abstractmethod
    async def _go_down(self, *, keep_ports: bool) -> None:
        """End the history, and every connection."""

    # ------------------------------------------------------------ controls

    def backup(self) -> Backup:
        """The present data, to start with another time; later changes do not affect it."""
        return self._store.backup()

    def expire(self, session_id: int) -> None:
        """End a session as if its client had been silent for the session timeout.

        Args:
            session_id: as ``registry.session.id`` has it; does nothing if it is not alive.

        Raises:
            UsageError: it does not run.
        """
        history = self._store.running()
        if history.sessions.get(session_id) is not None:
            history.end_session(session_id)

    def sweep_containers(self) -> None:
        """Look for empty containers and nodes whose time is over now.

        Raises:
            UsageError: it does not run.
        """
        self._store.running().sweep()
