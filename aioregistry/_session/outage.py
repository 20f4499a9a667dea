"""When to say that there is no connection: in time, and then ever more rarely. Pure."""

from __future__ import annotations

__all__ = ["Outage"]

_FIRST_AT_MOST = 10.0
_PAUSE_AT_MOST = 600.0

# A connection that served for less than so many seconds is not an end of an outage: a server that closes on everybody
# at once would begin a new one with each.
_LASTING = 1.0


class Outage:
    """A time without a connection that serves.

    It is logged first after a third of the session timeout: every address was tried by then, and two thirds are left to
    do something about it. An outage that is over before needs no attention.

    Args:
        began: when it began, in seconds of any clock.
        timeout: the session timeout in seconds.
    """

    def __init__(self, began: float, timeout: float) -> None:
        self.began = began
        first = min(timeout / 3, _FIRST_AT_MOST)
        self.due = began + first
        """When it is to be logged next."""
        self.told = False
        """The log says that it lasts, and not yet that it is over."""
        self.explained = False
        """It was told why, too."""
        self.interrupted = False
        """There were connections in it, which did not last."""
        self._served = float("inf")
        self._pause = 3 * first

    def served(self, now: float) -> None:
        """A connection serves from *now* on."""
        self.told = self.explained = False
        self._served = now

    def lost(self, now: float) -> bool:
        """The connection is lost *now*; return whether it did not last, so that this outage goes on."""
        self.interrupted = now - self._served < _LASTING
        return self.interrupted

    def tell(self, now: float) -> float:
        """Note that the log says *now* that it lasts; return for how long."""
        self.told = True
        self.due = now + self._pause
        self._pause = min(2 * self._pause, _PAUSE_AT_MOST)
        return now - self.began
