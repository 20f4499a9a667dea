"""Tells the registrations of a session when that may have expired: one timer, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aioregistry._concurrency import Alarm

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = ["Expiry"]

SHORTEST_RECHECK: Final = 0.01
"""Seconds: the loop's clock may run a little ahead of the one that counts the system's sleep."""


class Expiry:
    """Calls back when the quorum has not answered for a session timeout.

    Args:
        session: whose evidence of life counts.
    """

    def __init__(self, session: SessionPort) -> None:
        self._session = session
        self._waiting: dict[Callable[[], None], None] = {}
        self._alarm = Alarm()

    def tell(self, callback: Callable[[], None]) -> None:
        """Call *callback* once, when the session is presumed to have expired."""
        self._waiting[callback] = None
        # The evidence is renewed all the time, so that the alarm is early; it is late where a timeout became shorter.
        self._alarm.set_no_later_than(self._due(), self._look)

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call *callback*; it may be unknown."""
        self._waiting.pop(callback, None)
        if not self._waiting:
            self._alarm.cancel()

    def _due(self) -> float:
        left = max(self._session.timeout - self._session.evidence_age(), SHORTEST_RECHECK)
        return asyncio.get_running_loop().time() + left

    def _look(self) -> None:
        if not self._session.presumed_expired:
            self._alarm.set_at(self._due(), self._look)
            return
        waiting, self._waiting = self._waiting, {}
        for callback in waiting:
            callback()
