"""Serving: heartbeats that pass through the quorum, and the reaction when they are not answered."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aioregistry._protocol import Exists, Sync

from .attempts import AttemptOutcome
from .backoff import HEARTBEATS_PER_TIMEOUT
from .connection import Connection
from .driver import Driver
from .patience import TURNS

__all__ = ["Keepalive"]


class Keepalive:
    """Keeps a connection alive, or leaves a server that is silent."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def run(self) -> None:
        """Keep the connection in use alive, until it stops serving."""
        connection = self._driver.connection
        assert connection is not None
        interval = self._driver.timeout / HEARTBEATS_PER_TIMEOUT
        if self._driver.machine.read_only:
            await self._endure_read_only(connection, interval)
            return
        while self._driver.serves(connection):
            idle = interval - self._driver.evidence_age()
            if idle > 0:
                await self._measured(self._driver.phase_changes.wait(idle), idle)
            else:
                await self._beat(connection, interval)

    async def _beat(self, connection: Connection, interval: float) -> None:
        """Ask the quorum for a sign of life, and leave the server when it has not come for two intervals."""
        driver = self._driver
        sent = driver.runtime.boot()
        beat: asyncio.Future[Any] = connection.submit(Sync("/"))
        heard, turn, refusals, error = 0.0, interval / TURNS, 0, ""
        # An answer may be an error that proves nothing, and a write's may come first. The loop's own lateness does not
        # count: only time in which the loop listened is silence.
        while heard < interval - turn / 2 and driver.serves(connection) and driver.evidence_age() >= interval:
            before = driver.runtime.monotonic()
            if beat.done():
                refusals, error = refusals + 1, str(beat.exception())
                await self._measured(driver.phase_changes.wait(turn), turn)
                if driver.serves(connection):
                    beat = connection.submit(Sync("/"))
            else:
                await self._measured(driver.phase_changes.wait(turn, answer=beat), turn)
            heard += min(driver.runtime.monotonic() - before, turn)
            if connection.evidence >= sent:  # though it may be old by now: then it is asked again
                return
        if driver.serves(connection) and driver.evidence_age() >= interval:
            if refusals:
                why = f"answered each sync within {interval:.3g} s with an error, the last: {error}"
            else:
                why = f"did not answer a sync within {interval:.3g} s"
                connection.silent("it stopped answering")
            told = connection.endpoint, why
            driver.repeated.tell("no answer", logging.WARNING, "%s %s: leaving it", *told, session=driver.name)
            driver.leave(connection, why)

    async def _measured(self, waiting: Any, planned: float) -> None:
        """Await something that takes *planned* seconds at most; tell where the loop was blocked for long meanwhile."""
        before = self._driver.runtime.boot()
        await waiting
        late = self._driver.runtime.boot() - before - planned
        if late < self._driver.timeout / 10:
            return
        why = "the event loop was blocked, or the system slept, for %.3g s; heartbeats stopped meanwhile"
        self._driver.repeated.tell("stall", logging.WARNING, why, late, session=self._driver.name)
        self._driver.observers.emit("session.stall", seconds=late, timeout=self._driver.timeout)

    async def _endure_read_only(self, connection: Connection, interval: float) -> None:
        """Read from a server without quorum for one timeout, then look for a better one."""
        for _ in range(HEARTBEATS_PER_TIMEOUT):
            await self._driver.phase_changes.wait(interval)
            if not self._driver.serves(connection):
                return
            _ = connection.submit(Exists("/"))  # any request keeps the connection
        self._driver.leave(connection, "has no quorum", AttemptOutcome.NO_QUORUM)
