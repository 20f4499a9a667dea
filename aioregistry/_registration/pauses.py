"""How long a registration rests after something failed. Pure: chance comes in as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aioregistry._errors import RegistryError, Throttled
from aioregistry._session import throttled_pause

__all__ = ["FIRST_PAUSE", "FREE_ATTEMPTS", "LONGEST_PAUSE", "SOON", "Pauses"]

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
"""Seconds: the bounds of a pause with full jitter, which doubles from the one to the other."""

SOON: Final = 10
"""How many failures in a row are followed by short pauses where an overloaded server dropped the request. Then
pauses are as long as after any other error: thousands of registrations must not keep such a server busy."""

FREE_ATTEMPTS: Final = 4
"""How many plans in a row may be overtaken by others before the next pauses: losing a race costs nothing, spinning
would."""


class Pauses:
    """Counts failures in a row.

    Attributes:
        failures: so many.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._overtaken = 0

    def succeeded(self) -> None:
        """Nothing is left to do."""
        self.failures = self._overtaken = 0

    def failed(self) -> None:
        """Something went wrong."""
        self.failures += 1

    def is_free(self, *, overtaken: bool) -> bool:
        """Return whether the next attempt needs no pause, because this one was merely *overtaken*.

        Counted for itself: after a long refusal the way to the node is made without another pause.
        """
        self._overtaken = self._overtaken + 1 if overtaken else 0
        return 0 < self._overtaken <= FREE_ATTEMPTS

    def length(self, error: RegistryError, timeout: float, draw: Callable[[float, float], float]) -> float:
        """Return the seconds to rest after *error*.

        Args:
            error: what went wrong.
            timeout: the session's, seconds.
            draw: gives a number between two.
        """
        if isinstance(error, Throttled) and self.failures <= SOON:
            # As for every other request that is dropped: one that waited longer than the server was overloaded would
            # leave the node listed, or not listed, for that time.
            return throttled_pause(self.failures, timeout, draw)
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self.failures, 16))
        return draw(0.0, longest)
