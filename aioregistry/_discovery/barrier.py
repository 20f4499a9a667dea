"""A barrier: once passed, the server shows every write that any client had an answer to before the barrier began.

``sync`` does not say so much. A follower answers it when its leader has sent all that was committed; the leader itself
answers it as a read, and may not have applied yet what a follower has acknowledged to its client. A write takes its
place among the others, and a server answers it when it has applied what comes before it. So the barrier is a write that
must fail: it changes nothing, needs no rights (a refusal has its place, too), and costs the quorum one transaction.

Many callers share one: a caller that comes while one is under way waits for the next, so a session has at most one
under way.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aioregistry._concurrency import release
from aioregistry._errors import (
    BadVersion,
    NoAuth,
    NoNode,
    PoisonRequest,
    ServerError,
    ServerSessionExpired,
    SessionMoved,
    Throttled,
)
from aioregistry._incident_log import IncidentLog
from aioregistry._protocol import Delete, Sync
from aioregistry._session import ReadingSessionPort

__all__ = ["Barrier"]

log = logging.getLogger("aioregistry.discovery")

_MUST_FAIL: Final = Delete("/aioregistry-barrier", version=0x7FFF_FFFF)
_PASSED: Final = (NoNode, NoAuth, BadVersion)
"""The answers of the quorum: the leader decides them, and they come in the order of the writes."""
_BY_THE_CALLER: Final = (SessionMoved, ServerSessionExpired, Throttled)
"""Errors that say nothing about what the server can do: another connection or attempt may pass."""
_REFUSALS: Final = (ServerError, PoisonRequest)


class Barrier:
    """The barriers of one session."""

    def __init__(self, session: ReadingSessionPort) -> None:
        self._session = session
        self._under_way: list[asyncio.Future[None]] = []
        self._next: list[asyncio.Future[None]] = []
        self._repeated = IncidentLog(log)
        self._told: int | None = None  # the connection that was already reported to have no barrier

    def passed(self) -> asyncio.Future[None]:
        """Return a future that is done when a barrier that begins now is passed.

        It fails with the same errors as the session's requests. On a server that takes no write (it has no quorum, or
        knows no such request), a ``sync`` has to do, or nothing where it refuses that, too; a warning says so.
        Cancelling the future stops the waiting only.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next.append(waiter)
        waiter.add_done_callback(self._forget)
        if not self._under_way:
            self._begin()
        return waiter

    def close(self) -> None:
        """Log the counted incidents that are not in the log yet."""
        self._repeated.close()

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        if waiter.cancelled() and waiter in self._next:
            self._next.remove(waiter)

    def _begin(self) -> None:
        self._under_way, self._next = self._next, []
        if self._session.read_only:
            self._fall_back("it has no quorum")
        else:
            _ = self._session.submit(_MUST_FAIL, self._answered)

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        error = answer.exception()
        if isinstance(error, _REFUSALS) and not isinstance(error, (*_PASSED, *_BY_THE_CALLER)):
            self._fall_back(str(error))
        else:
            self._end(None if isinstance(error, _PASSED) else error)

    def _fall_back(self, why: str) -> None:
        session = self._session
        if self._told != session.generation:
            self._told = session.generation
            where = session.server or session.connect_string
            text = "%s cannot confirm that its data is current: %s; after sync() a view may still be old"
            self._repeated.tell("unconfirmed", logging.WARNING, text, where, why)
        _ = session.submit(Sync("/"), self._synced)

    def _synced(self, answer: asyncio.Future[Any]) -> None:
        error = answer.exception()
        refused = isinstance(error, _REFUSALS) and not isinstance(error, _BY_THE_CALLER)
        self._end(None if refused else error)

    def _end(self, error: BaseException | None) -> None:
        ended, self._under_way = self._under_way, []
        release(ended, error)
        if self._next and not self._under_way:
            self._begin()
