"""A standalone server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self, TypeAlias

from aioregistry._errors import UsageError
from aioregistry.server._connection import Connection
from aioregistry.server._dispatcher import Decide
from aioregistry.server._endpoint import Endpoint
from aioregistry.server._history import Backup, History, Transaction
from aioregistry.server._sessions import Session
from aioregistry.server._settings import Settings, with_parameters_of

__all__ = ["Data", "ZooKeeperServer"]

Data: TypeAlias = Literal["kept", "lost"] | Backup


class ZooKeeperServer(Endpoint):
    """A ZooKeeper server in memory, in this process: for development, demos and tests.

    It is a context manager; ``start()`` and ``stop()`` do the same by hand, and again. It is bound to the running event
    loop while it runs; its controls are plain methods to be called there. It speaks ZooKeeper's client protocol as
    Apache's server does; ``docs/server.md`` lists where it deviates. Nothing is written to disk.

    Args:
        host: the address to listen on.
        port: 0 for a free one, which then stays the same over restarts.
        version: the release to behave like: ``"3.5"`` (no recursive watches, no MultiRead), ``"3.8"`` or ``"3.9"``;
            ``"3.9.5"`` is 3.9 without what 3.9.6 changed.
        tick_time: seconds; sessions end on multiples of it.
        min_session_timeout: the least timeout that sessions get, seconds; None for two ticks.
        max_session_timeout: the greatest, seconds; None for twenty ticks.
        max_buffer: the longest request, bytes (``jute.maxbuffer``); beyond it the connection is dropped.
        max_connections_per_client: connections from one IP address (``maxClientCnxns``); 0 for any number.
        container_check_interval: seconds between looks for empty containers and nodes whose time is over.
        extended_types: whether nodes with a TTL can be made (``extendedTypesEnabled``).
        ssl: a context to speak TLS with; ``x509`` identities are the subjects of the clients' certificates.
        super_digest: ``user:digest`` of the user who may do everything, as in an ACL of the scheme digest, or None.
        server_id: goes into the highest byte of session ids.
        clock: wall time, seconds since the epoch, for the times in Stats.

    Raises:
        InvalidArgument: an option is out of its range.
    """

    @with_parameters_of(Settings)
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._backup = self._empty()
        self._history: History | None = None

    # ------------------------------------------------------------ life

    async def start(self, data: Data = "kept", *, listen: bool = True) -> None:
        """Serve, on the same port as before.

        Args:
            data: ``"kept"`` goes on with the data from before it stopped, sessions included, whose timers start again;
                ``"lost"`` starts empty; a :class:`Backup` goes back to it.
            listen: False leaves the sockets to callers that connect by ``protocol_factory``.

        Raises:
            UsageError: it runs already.
            OSError: the port cannot be had.
        """
        if self._history is not None:
            raise UsageError(f"the server on {self.address} runs already")
        match data:
            case "lost":
                self._backup = self._empty()
            case Backup():
                self._backup = data
        self._history = History.of_backup(self._backup, settings=self.settings, deliver=self.deliver)
        self.replica.begin(self._history.tree, self._history.zxid)
        self._history.start()
        try:
            await self.come_up(listen=listen)
        except OSError:
            await self._stop(keep_port=False)
            raise

    async def stop(self) -> None:
        """Drop every connection and stop listening; data, sessions and the port are kept for the next start."""
        await self._stop(keep_port=True)

    async def _stop(self, *, keep_port: bool) -> None:
        if self._history is not None:
            self._backup = self._history.backup()
            self._history.stop()
            self._history = None
        self.hang_up(keep_port=keep_port)
        await asyncio.sleep(0)  # for the transports to close

    def backup(self) -> Backup:
        """The present data, to start with another time; later changes do not affect it."""
        return self._backup if self._history is None else self._history.backup()

    def expire(self, session_id: int) -> None:
        """End a session as if its client had been silent for the session timeout.

        Args:
            session_id: as ``registry.session.id`` has it; does nothing if it is not alive.

        Raises:
            UsageError: the server does not run.
        """
        history = self._live_history()
        if history.sessions.get(session_id) is not None:
            history.end_session(session_id)

    def sweep_containers(self) -> None:
        """Look for empty containers and nodes whose time is over now."""
        self._live_history().sweep()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop(keep_port=False)

    def __repr__(self) -> str:
        state = "down" if self._history is None else f"zxid={self.zxid:#x} sessions={len(self._history.sessions)}"
        return f"<ZooKeeperServer {self.address} {state}>"

    def _empty(self) -> Backup:
        return Backup(self.settings.empty_tree(), 0, {})

    def _live_history(self) -> History:
        if self._history is None:
            raise UsageError(f"the server on {self.address} does not run")
        return self._history

    # ------------------------------------------------------------ as an endpoint: its own history

    @property
    def serving(self) -> bool:
        """Whether it takes sessions: it does while it runs."""
        return self._history is not None

    @property
    def mode(self) -> str:
        """``"standalone"``, as the four-letter words tell it."""
        return "standalone"

    def live_sessions(self) -> list[Session]:
        """The sessions that are alive: their ids and timeouts."""
        return self._live_history().sessions.all()

    def propose(self, decide: Decide, done: Callable[[Transaction], None]) -> None:
        done(decide(self._live_history()))

    def catch_up(self, done: Callable[[], None]) -> None:
        done()

    def touch(self, connection: Connection) -> None:
        if self._history is not None:
            self._history.sessions.touch(connection.session_id, connection.timeout_ms, self.time())

    def revalidate(self, session_id: int, timeout_ms: int, done: Callable[[bool], None]) -> None:
        done(self._live_history().sessions.touch(session_id, timeout_ms, self.time()))
