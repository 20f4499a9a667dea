"""A pytest plugin that lets aiozk's own tests run on our session: every ``aiozk.session.Session`` is one of ours.

The tests disturb aiozk's connection from outside; the same is done to ours: `conn.close()` ends it,
`conn.read_loop_task.cancel()` keeps its answers back, `state.transition_to(SUSPENDED)` ends it too.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import aiozk.client
import aiozk.session

from aioregistry._client import ClientState, SharedSession
from aioregistry._runtime import SystemRuntime
from aioregistry._session import Session, SessionState, parse_connect_string
from aioregistry._session.connection import Connection
from tests.support.inside import connection_of, driver_of, transport_of

MAX_REQUEST = 0xFFFFF


class OwnedSession(SharedSession):
    """Takes aiozk's arguments, owns its session, and can be started again after it was closed, as aiozk's can."""

    last_zxid = 0

    def __init__(
        self, servers: str, timeout: float, retry_policy: object, allow_read_only: bool, read_timeout: float | None
    ) -> None:
        self._servers, self._timeout, self._allow_read_only = servers, timeout, allow_read_only
        self._renew()

    def _renew(self) -> None:
        session = Session(
            parse_connect_string(self._servers),
            timeout=self._timeout,
            runtime=SystemRuntime(),
            allow_read_only=self._allow_read_only,
            max_request=MAX_REQUEST,
        )
        driver = driver_of(session)
        driver.machine = driver.machine._replace(last_zxid=self.last_zxid)
        super().__init__(session)
        self.state = DisturbedState(session)
        self._started = False

    async def start(self) -> None:
        if self._session.state is SessionState.CLOSED:
            self._renew()
        if not self._started:
            self._session.start()
            self._started = True
        await super().start()

    async def close(self) -> None:
        await self._session.close(self._timeout)

    @property
    def conn(self) -> DisturbedConnection:  # type: ignore[override]
        return DisturbedConnection(driver_of(self._session).connection, super().conn.version_info)

    @property
    def timeout(self) -> float:
        return self._session.timeout

    @property
    def xid(self) -> int:
        return connection_of(self._session)._xid

    @xid.setter
    def xid(self, xid: int) -> None:
        connection_of(self._session)._xid = xid

    def set_heartbeat(self) -> None:
        """Our heartbeats need no one to set them."""


class DisturbedState(ClientState):
    def transition_to(self, state: str) -> None:
        assert state == aiozk.session.States.SUSPENDED
        transport_of(connection_of(self._session)).abort()

    def waitings(self, *states: str) -> dict[str, set[asyncio.Future[None]]]:
        return {state: {future for future, wanted in self._waiting.items() if state in wanted} for state in states}


class DisturbedConnection:
    def __init__(self, connection: Connection | None, version_info: tuple[int, int, int]) -> None:
        self.version_info = version_info
        self.read_loop_task: ReadLoop | None = ReadLoop(connection)
        self._connection = connection

    async def close(self, timeout: float) -> None:
        transport_of(self._connection).abort()

    def start_read_loop(self) -> None:
        transport_of(self._connection).resume_reading()


class ReadLoop(NamedTuple):
    connection: Connection | None

    def cancel(self) -> None:
        transport_of(self.connection).pause_reading()


aiozk.session.Session = aiozk.client.Session = OwnedSession
