"""Priming: credentials, the operations that the server knows, and the watches, before a connection is used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from aioregistry._errors import (
    TRANSIENT,
    ConnectionLost,
    MarshallingError,
    PoisonRequest,
    RegistryError,
    SessionClosedRequireSASL,
    Unimplemented,
)
from aioregistry._protocol import AddWatch, Exists, GetData, MultiRead, Reply

from .attempts import AttemptOutcome
from .backoff import HEARTBEATS_PER_TIMEOUT
from .connection import Connection
from .credentials import Credentials
from .driver import Driver
from .features import Features
from .isolation import Isolation
from .patience import patience
from .retrying import persist
from .vocabulary import Primed

__all__ = ["Priming"]


class Priming:
    """Makes an accepted connection ready.

    Args:
        driver: the machine at work.
        features: takes note of the operations that the server knows.
        credentials: presented first.
        max_request: the servers' jute.maxbuffer in bytes.
        isolation: the known requests that cost connections.
    """

    def __init__(
        self,
        driver: Driver,
        features: Features,
        *,
        credentials: Credentials,
        max_request: int,
        isolation: Isolation,
    ) -> None:
        self._driver, self._features = driver, features
        self._credentials, self._max_request = credentials, max_request
        self._isolation = isolation

    async def run(self) -> None:
        """Prime the connection in use, or leave it."""
        connection = self._driver.connection
        assert connection is not None
        connection.isolate(self._isolation, self._poison_found)
        deadline = self._driver.timeout / HEARTBEATS_PER_TIMEOUT
        try:
            async with patience(deadline):
                await self._credentials.present(connection)
                await self._learn(connection)
                await self._restore_watches(connection)
        except TimeoutError:
            connection.silent("it did not answer")
            self._driver.leave(connection, f"accepted the session, then did not answer within {deadline:.3g} s")
            return
        except ConnectionLost:
            return  # reported already
        except RegistryError as error:
            # An expiry between the acceptance and this, a server that is overloaded, or is no longer of the version
            # that was found at its address.
            if not isinstance(error, PoisonRequest):
                self._features.forget(connection.endpoint)
            if connection.closed:
                return  # reported already
            wants = isinstance(error, SessionClosedRequireSASL)
            outcome = AttemptOutcome.UNAUTHENTICATED if wants else AttemptOutcome.FAILED
            self._driver.leave(connection, f"accepted the session, then failed: {error}", outcome)
            return
        self._driver.note(connection.endpoint, AttemptOutcome.ACCEPTED, "accepted the session")
        self._driver.step(Primed(connection.number))

    async def _persist(self, send: Callable[[], asyncio.Future[Reply[Any]]]) -> Reply[Any]:
        timeout = self._driver.timeout
        # It ends before the connection does, so that the server's answer is reported.
        longest = timeout / HEARTBEATS_PER_TIMEOUT / 2
        return await persist(send, TRANSIENT, patience=longest, timeout=timeout, runtime=self._driver.runtime)

    async def _learn(self, connection: Connection) -> None:
        # An unknown opcode costs the connection and the requests behind it, so it is sent alone, before all other
        # requests, and once per server. MultiRead came with the recursive watches (3.6).
        server = connection.endpoint
        self._features.reconsider(server)
        if self._features.supports(server, MultiRead.opcode) is None:
            try:
                asking = partial(connection.submit, MultiRead([GetData("/")]))
                await self._persist(asking)
            except PoisonRequest as error:
                if connection.closed:
                    raise
                self._tell("no multi-read", logging.INFO, "%s seems not to support MultiRead: %s", server, error)
                self._features.presume_no_multi_read(server)
            except (Unimplemented, MarshallingError):
                text = "%s does not support MultiRead: using one-shot watches and single reads"
                self._tell("no multi-read", logging.INFO, text, server)
                # Most versions close the connection with that answer: the server is not announced before it has
                # answered.
                await connection.submit(Exists("/"))

    async def _restore_watches(self, connection: Connection) -> None:
        recursive = self._features.supports(connection.endpoint, AddWatch.opcode) is True
        # A request that was too long may be so by any amount; halving it finds a size that fits soon.
        limit = self._isolation.limit(str(connection.endpoint))
        most = self._max_request if limit is None else min(self._max_request, limit // 2)
        requests = self._driver.watched.restore(self._driver.news_since, recursive=recursive, max_request=most)
        for request, answer in [(request, connection.submit(request)) for request in requests]:
            try:
                try:
                    await answer
                except TRANSIENT:
                    await self._persist(partial(connection.submit, request))
            except PoisonRequest as error:
                if connection.closed:
                    raise
                # Registrations and views look again after each connect, and leave new watches with that.
                self._tell("unrestored", logging.WARNING, "watches are not restored: %s", error)

    def _poison_found(self, error: PoisonRequest) -> None:
        self._tell(("poison", error.request), logging.WARNING, "%s", error)
        self._driver.observers.emit(
            "session.poison", request=error.request, size=error.size, server=error.server, limit=error.limit
        )

    def _tell(self, kind: Hashable, level: int, text: str, *args: object) -> None:
        self._driver.repeated.tell(kind, level, text, *args, session=self._driver.name)
