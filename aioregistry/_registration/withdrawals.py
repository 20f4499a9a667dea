"""The shared state of a session's registrations: whose nodes may be there, and the work for all of them at once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol

from aioregistry._incident_log import IncidentLog

from .expiry import Expiry
from .marker_root import MarkerRoot
from .parents import Parents
from .together import Together

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = ["Withdrawals", "Withdrawing"]

_log = logging.getLogger("aioregistry.registration")


class Withdrawing(Protocol):
    """The worker of a registration, as far as the next one of the same node is concerned."""

    task: asyncio.Task[None] | None

    def hand_over(self) -> tuple[int, deque[int]]:
        """Do nothing more, for another worker decides about the node; return which sessions' nodes may be there."""


class Withdrawals:
    """The workers of one session whose nodes may be there, by path.

    A node must not stay for as long as the session lives because no server answered when its registration was closed.
    So a worker goes on until its node is gone, and gives that up only to the next worker of the same node, which takes
    over the former one's knowledge: a node that it never wrote may be there all the same.
    """

    def __init__(self) -> None:
        self._workers: dict[str, Withdrawing] = {}
        self._closing: dict[Withdrawing, float] = {}
        """Those that are being withdrawn, and since when (boot clock), the earliest first."""
        self._marker_root: MarkerRoot | None = None
        self.repeated: IncidentLog = IncidentLog(_log)
        """The lines that many registrations may log at once."""
        self._together: Together | None = None
        self._expiry: Expiry | None = None
        self.parents: Parents = Parents(self.repeated)

    def together(self, session: SessionPort) -> Together:
        """Return what sends withdrawals of *session*."""
        if self._together is None:
            self._together = Together(session)
        return self._together

    def expiry(self, session: SessionPort) -> Expiry:
        """Return what tells the registrations of *session* that it may have expired."""
        if self._expiry is None:
            self._expiry = Expiry(session)
        return self._expiry

    def marker_root(self, session: SessionPort) -> MarkerRoot:
        """Return what makes the root of the markers, the same for all registrations of *session*."""
        if self._marker_root is None:
            self._marker_root = MarkerRoot(session)
        return self._marker_root

    def begin(self, path: str, worker: Withdrawing) -> Withdrawing | None:
        """*worker* decides about the node at *path* from now on; return the one that did."""
        former = self._workers.get(path)
        self._workers[path] = worker
        return former

    def closing(self, worker: Withdrawing, now: float) -> None:
        """*worker* withdraws from *now* on (boot clock)."""
        self._closing[worker] = now

    def end(self, path: str, worker: Withdrawing, *, gone: bool) -> None:
        """*worker* has ended; *gone*: nothing is left of it."""
        self._closing.pop(worker, None)
        if gone and self._workers.get(path) is worker:
            del self._workers[path]

    async def over(self) -> None:
        """Wait until every worker has ended, as all do with the session."""
        tasks = [worker.task for worker in self._workers.values() if worker.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        self.repeated.close()

    def patience(self, timeout: float, session: SessionPort) -> float:
        """Return how many of *timeout* seconds are left to wait for an answer of servers that may be silent.

        One silence costs one bound, however many are closed in it: who was closed before has waited already.
        """
        if not self._closing:
            return timeout
        waited = session.runtime.boot() - next(iter(self._closing.values()))
        silent = waited > 0.0 and session.evidence_age() >= waited
        return max(timeout - waited, 0.0) if silent else timeout
