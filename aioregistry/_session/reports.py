"""The log lines of the session's states, and of the time without a connection."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from aioregistry._concurrency import Alarm
from aioregistry._errors import attempts_told
from aioregistry._incident_log import IncidentLog
from aioregistry._runtime import Endpoint

from .attempts import AttemptOutcome, Attempts, failed_in_words
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
        wall: returns the time, in seconds since the epoch.
    """

    def __init__(
        self,
        attempts: Attempts,
        emit: Callable[..., None],
        repeated: IncidentLog,
        session: Callable[[], str],
        remaining: Callable[[], float | None],
        wall: Callable[[], float],
    ) -> None:
        self._wall = wall
        self._attempts, self._emit, self._repeated = attempts, emit, repeated
        self._session, self._remaining = session, remaining
        self._outage: Outage | None = None
        """The present one, or the last."""
        self._ended_before: Counter[AttemptOutcome] = Counter()
        """How many attempts had ended before it, by outcome."""
        self._alarm = Alarm()
        self._ended = ""
        """The session that has ended, until another one has taken its place; else empty."""

    def suspended(self, session: str, server: str, why: str) -> None:
        """The connection to *server* was lost, because of *why*."""
        text = "session %s lost its connection to %s: %s"
        self._tell_state(SessionState.SUSPENDED, logging.INFO, session, text, session, server, why)

    def expired(self, session: str) -> None:
        """*session* has ended, if there was one. Its successor is told with the next connection."""
        self._ended = session

    def over(self, state: SessionState, session: str, why: object) -> None:
        """The session is CLOSED, or FAILED because of *why*."""
        if state is SessionState.CLOSED:
            self._tell_state(state, logging.INFO, session, "session %s is closed, as the program asked", session)
        else:
            self._tell_state(state, logging.WARNING, session, "session %s has failed: %s", session, why)

    def _tell_state(self, state: SessionState, level: int, session: str, text: str, *args: object) -> None:
        self._repeated.tell((state, level), level, text, *args, session=session, status=state.value)

    def outage_begins(self, timeout: float) -> None:
        """There is no connection from now on."""
        now = asyncio.get_running_loop().time()
        if self._outage is None or not self._outage.lost(now):
            self._outage, self._ended_before = Outage(now, timeout), Counter(self._attempts.ended)
        self._alarm.set_at(self._outage.due, self._tell_of_outage)

    def round_is_over(self) -> None:
        """Every address was tried once more: if the log says that there is no connection, but not why, it says why.

        One that is told of before any attempt has ended, because names are slow or the loop was blocked, is told of
        twice.
        """
        outage = self._outage
        if outage is not None and outage.told and not outage.explained and self._attempts.finished:
            self._tell(outage, asyncio.get_running_loop().time() - outage.began, explained=True)

    def outage_is_over(
        self, state: SessionState, session: str, server: Endpoint | None, *, timeout: float, servers: str
    ) -> None:
        """A connection to *server* serves, one of *servers*; the session has a *timeout*."""
        self._alarm.cancel()
        self._attempts.over = True
        outage = self._outage
        assert outage is not None
        now = asyncio.get_running_loop().time()
        was_told, explained, lasted = outage.told, outage.explained, now - outage.began
        outage.served(now)
        ended, self._ended = self._ended, ""
        if ended or state is SessionState.RECONNECTED:
            what = _regained(session, ended, str(server))
        else:
            what = f"session {session} is connected to {server}; session timeout {timeout:g} s; servers: {servers}"
        text = "after %.1f s without a connection: %s"
        if was_told:
            about: dict[str, object] = {"session": session, "status": state.value}
            about |= {"event": "session.outage_over", "seconds": lasted} if explained else {}
            log.warning("the outage is over after %.1f s (%s): %s", lasted, self._totals(lasted), what, extra=about)
            if explained:
                self._emit("session.outage_over", seconds=lasted, server=str(server))
        elif ended:
            self._tell_state(state, logging.WARNING, session, text, lasted, what)
        elif state is SessionState.RECONNECTED:
            self._tell_state(state, logging.INFO, session, text, lasted, what)
        else:
            self._tell_state(state, logging.INFO, session, "%s", what)

    def _totals(self, lasted: float) -> str:
        """Return, in words, when an outage that has *lasted* so many seconds began, and how its attempts failed."""
        failed = failed_in_words(self._failed())
        return f"since {_moment(self._wall() - lasted)}" + (f", {failed}" if failed else "")

    def _failed(self) -> Counter[AttemptOutcome]:
        """Return how many attempts of this outage have ended, by outcome."""
        return self._attempts.ended - self._ended_before

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
        reason = attempts_told(self._attempts.words())
        if outage.interrupted:
            reason += "; connections made meanwhile lasted less than a second"
        session, remedies = self._session(), self._attempts.remedies()
        # Where all failed alike, the reason says it already.
        is_all = outage.explained and len(self._failed()) > 1
        since = self._totals(lasted) if is_all else f"since {_moment(self._wall() - lasted)}"
        what = _follows(session, self._remaining(), self._ended)
        follows = f"; {since}{what}" + (f"; what to do: {remedies}" if remedies else "")
        about: dict[str, object] = {"session": session}
        about |= {"event": "session.outage", "seconds": lasted} if explained else {}
        log.warning("no connection to ZooKeeper for %.1f s: %s%s", lasted, reason, follows, extra=about)
        if explained and not outage.explained:
            outage.explained = True
            self._emit("session.outage", seconds=lasted, reason=reason)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _regained(session: str, ended: str, server: str) -> str:
    """Return what a connection to *server* means for the registrations."""
    if ended:
        return (
            f"session {ended} had ended; session {session} took its place on {server}, "
            "and the instances are being listed again"
        )
    return f"session {session} is reconnected to {server} and had not ended, so its instances were listed all the time"


def _follows(session: str, remaining: float | None, ended: str) -> str:
    """Return what an outage means for the registrations."""
    if ended:
        return f"; session {ended} has ended, and its instances will be listed again as soon as there is a connection"
    if remaining is None:
        return ""
    if remaining > 0:
        return (
            f"; the instances of session {session} stay listed for {remaining:.1f} s more, "
            "and may be removed then if there is still no connection"
        )
    return (
        f"; session {session} has probably ended, "
        "and its instances will be listed again as soon as there is a connection"
    )
