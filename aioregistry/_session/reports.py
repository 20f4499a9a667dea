"""What the log says of the session's states, and of the time without a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aioregistry._concurrency import Alarm
from aioregistry._incident_log import IncidentLog
from aioregistry._runtime import Endpoint

from .attempts import Attempts, told
from .outage import Outage
from .states import SessionState

__all__ = ["Reports"]

log = logging.getLogger("aioregistry.session")


class Reports:
    """Writes the log's lines about one session.

    Args:
        attempts: what each address answered last.
        emit: the hook for events.
        repeated: takes what can repeat.
        session: returns the session's id, as it is shown.
        remaining: returns for how many seconds more the session lasts without a connection, as far as is known; None
            where there is no session.
    """

    def __init__(
        self,
        attempts: Attempts,
        emit: Callable[..., None],
        repeated: IncidentLog,
        session: Callable[[], str],
        remaining: Callable[[], float | None],
    ) -> None:
        self._attempts, self._emit, self._repeated = attempts, emit, repeated
        self._session, self._remaining = session, remaining
        self._outage: Outage | None = None
        """The present one, or the last."""
        self._alarm = Alarm()

    def suspended(self, session: str, why: str) -> None:
        """The connection in use was lost, because of *why*."""
        text = "session %s is suspended: %s"
        self._repeated.tell(SessionState.SUSPENDED, logging.INFO, text, session, why, session=session)

    def changed(self, state: SessionState, session: str, where: object) -> None:
        """The session is in a *state* without a connection that serves."""
        level = logging.WARNING if state in (SessionState.EXPIRED, SessionState.FAILED) else logging.INFO
        text = "session %s is %s (%s)"
        self._repeated.tell(state, level, text, session, state.value, where, session=session)

    def outage_begins(self, timeout: float) -> None:
        """There is no connection from now on."""
        now = asyncio.get_running_loop().time()
        if self._outage is None or not self._outage.lost(now):
            self._outage = Outage(now, timeout)
        self._alarm.set_at(self._outage.due, self._tell_of_outage)

    def round_is_over(self) -> None:
        """Every address was tried once more: where it was told that there is no connection, but not why, that is told.

        One that is told of before any attempt has ended, because names are slow or the loop was blocked, is told of
        twice.
        """
        outage = self._outage
        if outage is not None and outage.told and not outage.explained and self._attempts.finished:
            self._tell(outage, asyncio.get_running_loop().time() - outage.began, explained=True)

    def outage_is_over(self, state: SessionState, session: str, server: Endpoint | None) -> None:
        """A connection to *server* serves."""
        self._alarm.cancel()
        self._attempts.over = True
        outage = self._outage
        assert outage is not None
        now = asyncio.get_running_loop().time()
        was_told, explained, lasted = outage.told, outage.explained, now - outage.began
        outage.served(now)
        line = "session %s is %s (%s) after %.1f s without a connection"
        words = session, state.value, server, lasted
        if was_told:
            log.info(line, *words, extra={"session": session})
            if explained:
                self._emit("session.outage_over", seconds=lasted, server=str(server))
        else:
            self._repeated.tell(state, logging.INFO, line, *words, session=session)

    def close(self) -> None:
        """Tell nothing more of an outage."""
        self._alarm.cancel()

    def _tell_of_outage(self) -> None:
        outage = self._outage
        assert outage is not None
        again, lasted = outage.told, outage.tell(asyncio.get_running_loop().time())
        self._alarm.set_at(outage.due, self._tell_of_outage)
        self._tell(outage, lasted, explained=again or self._attempts.finished)

    def _tell(self, outage: Outage, lasted: float, *, explained: bool) -> None:
        reason = told(self._attempts.words())
        if outage.interrupted:
            reason += "; connections made meanwhile lasted less than a second"
        session, remedies = self._session(), self._attempts.remedies()
        follows = _follows(session, self._remaining()) + (f"; what to do: {remedies}" if remedies else "")
        log.warning("no connection to ZooKeeper for %.1f s: %s%s", lasted, reason, follows, extra={"session": session})
        if explained and not outage.explained:
            outage.explained = True
            self._emit("session.outage", seconds=lasted, reason=reason)


def _follows(session: str, remaining: float | None) -> str:
    """Return what an outage means for what is registered."""
    if remaining is None:
        return ""
    if remaining > 0:
        return f"; session {session} lasts {remaining:.1f} s more, and what it registered stays listed until then"
    return f"; session {session} has probably ended, and what it registered is listed again when there is a connection"
