"""A standalone server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aioregistry.server._connection import Connection
from aioregistry.server._deployment import Deployment
from aioregistry.server._dispatcher import Decide
from aioregistry.server._endpoint import Endpoint
from aioregistry.server._history import Transaction
from aioregistry.server._settings import Settings, with_parameters_of
from aioregistry.server._store import Data, Store

__all__ = ["ZooKeeperServer"]


class ZooKeeperServer(Deployment, Endpoint):
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
        super().__init__(settings, Store(lambda: f"the server on {self.address}", settings.empty_tree))

    async def _go_up(self, data: Data, *, listen: bool) -> None:
        history = self._store.begin(data, settings=self.settings, deliver=self.deliver)
        self.replica.begin(history.tree, history.zxid)
        history.start()
        await self.come_up(listen=listen)

    async def _go_down(self, *, keep_ports: bool) -> None:
        self._store.end()
        self.hang_up(keep_port=keep_ports)
        await asyncio.sleep(0)  # for the transports to close

    def __repr__(self) -> str:
        history = self._store.history
        state = "down" if history is None else f"zxid={self.zxid:#x} sessions={len(history.sessions)}"
        return f"<ZooKeeperServer {self.address} {state}>"

    # ------------------------------------------------------------ as an endpoint: its own history

    @property
    def serving(self) -> bool:
        """Whether it takes sessions: it does while it runs."""
        return self._store.history is not None

    @property
    def mode(self) -> str:
        """``"standalone"``, as the four-letter words tell it."""
        return "standalone"

    def propose(self, decide: Decide, done: Callable[[Transaction], None]) -> None:
        done(decide(self._store.running()))

    def catch_up(self, done: Callable[[], None]) -> None:
        done()

    def touch(self, connection: Connection) -> None:
        if self._store.history is not None:
            self._store.history.sessions.touch(connection.session_id, connection.timeout_ms, self.time())

    def revalidate(self, session_id: int, timeout_ms: int, done: Callable[[bool], None]) -> None:
        done(self._store.running().sessions.touch(session_id, timeout_ms, self.time()))
