"""When to say that there is no connection: in time, and then ever more rarely. Pure."""

from __future__ import annotations

__all__ = ["Outage"]

_FIRST_AT_MOST = 10.0
_PAUSE_AT_MOST = 600.0


class Outage:
    """A time without a connection that serves.

    It is told first after a third of the session timeout: every address was tried by then, and two thirds are left to
    do something about it. What is over before is nothing that anybody has to look at.

    Args:
        began: when it began, in seconds of any clock.
        timeout: the session timeout in seconds.
    """

    def __init__(self, began: float, timeout: float) -> None:
        self.began = began
        first = min(timeout / 3, _FIRST_AT_MOST)
        self.due = began + first
        """When it is to be told next."""
        self.told = False
        """It was told that it lasts, and not yet that it is over."""
        self._pause = 3 * first

    def tell(self, now: float) -> float:
        """It is told *now* that it lasts; return for how long."""
        self.told = True
        self.due = now + self._pause
        self._pause = min(2 * self._pause, _PAUSE_AT_MOST)
        return now - self.began
