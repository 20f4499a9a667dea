"""Sessions (pure): ids, passwords, and expiry on ticks. Times are seconds of whatever clock the caller has."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class Session:
    """A session as its server knows it.

    Args:
        id: never 0.
        timeout_ms: as negotiated when it was made.
        owner: the server that it is connected to; another one's connections may not write in its name any more.
        expires: the number of the tick on which it ends unless it is heard of.
        filed: the tick on which that is looked at.
    """

    id: int
    timeout_ms: int
    owner: Hashable = None
    expires: int = 0
    filed: int = 0


class Sessions:
    """The sessions of a server or ensemble, ended on multiples of a tick (``ExpiryQueue``).

    Args:
        tick: seconds.
        first_id: of the sessions to come.
    """

    def __init__(self, tick: float, first_id: int) -> None:
        self._tick = tick
        self._next_id = first_id
        self._by_id: dict[int, Session] = {}
        # Sessions are heard of with every request. That only moves `expires`: a session stays filed where it is, and
        # is filed again when that tick comes.
        self._by_tick: dict[int, dict[int, Session]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[Session]:
        return list(self._by_id.values())

    def get(self, session_id: int) -> Session | None:
        return self._by_id.get(session_id)

    def create(self, timeout_ms: int, owner: Hashable, now: float) -> Session:
        session = Session(self._next_id, timeout_ms, owner)
        self._next_id += 1
        self._track(session, now)
        return session

    def restore(self, timeouts_ms: dict[int, int], now: float) -> None:
        """Go on with sessions that were there before a restart: their timers start again."""
        for session_id, timeout_ms in timeouts_ms.items():
            self._track(Session(session_id, timeout_ms), now)

    def touch(self, session_id: int, timeout_ms: int, now: float) -> bool:
        """A session was heard of; return whether there is such a one."""
        session = self._by_id.get(session_id)
        if session is None:
            return False
        session.expires = int((now + timeout_ms / 1000) / self._tick) + 1
        if session.expires < session.filed:
            self._file(session)
        return True

    def move(self, session_id: int, owner: Hashable) -> None:
        """A living session is connected to another server now."""
        self._by_id[session_id].owner = owner

    def remove(self, session_id: int) -> bool:
        """Forget a session; return whether there was such a one."""
        session = self._by_id.pop(session_id, None)
        if session is not None:
            del self._by_tick[session.filed][session_id]
        return session is not None

    def restart_timers(self, now: float) -> None:
        """As a new leader does."""
        for session in self._by_id.values():
            self.touch(session.id, session.timeout_ms, now)

    def next_tick(self, now: float) -> float:
        return (int(now / self._tick) + 1) * self._tick

    def due(self, now: float) -> list[Session]:
        """The sessions whose time is over; they stay until they are removed."""
        over: list[Session] = []
        tick = 0
        # One at a time: a session that is filed again may be due as well if ticks were missed.
        while later := [each for each in self._by_tick if tick < each and each * self._tick <= now]:
            tick = min(later)
            for session in list(self._by_tick[tick].values()):
                if session.expires <= tick:
                    over.append(session)
                else:
                    self._file(session)
            if not self._by_tick[tick]:
                del self._by_tick[tick]
        return over

    def _track(self, session: Session, now: float) -> None:
        self._by_id[session.id] = session
        self.touch(session.id, session.timeout_ms, now)
        self._file(session)

    def _file(self, session: Session) -> None:
        self._by_tick.get(session.filed, {}).pop(session.id, None)
        session.filed = session.expires
        self._by_tick.setdefault(session.filed, {})[session.id] = session


def first_session_id(server_id: int, time_ms: int) -> int:
    """Where a server begins to count: its id in the highest byte, then the time (``initializeNextSessionId``)."""
    unsigned = (server_id & 0xFF) << 56 | (time_ms << 24 & 0xFFFFFFFFFFFFFFFF) >> 8
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def password_of(session_id: int) -> bytes:
    """A session's password: a function of its id, so that it outlives the server, as the real one's does."""
    return hashlib.sha256(b"aioregistry" + session_id.to_bytes(8, signed=True)).digest()[:16]
