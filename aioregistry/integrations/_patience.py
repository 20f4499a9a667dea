"""The timeouts of httpx and httpx2, for a request of several attempts."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aioregistry._concurrency import SHORTEST_WAIT

__all__ = ["Patience"]


class Patience:
    """The timeouts of one request, which its attempts share: together they take no longer than one may."""

    def __init__(self, timeouts: Mapping[str, float | None]) -> None:
        self._left = dict(timeouts)
        self._since = time.monotonic()

    def left(self, phase: str) -> float | None:
        """Seconds; None has no end."""
        seconds = self._left.get(phase)
        return None if seconds is None else max(seconds - (time.monotonic() - self._since), SHORTEST_WAIT)

    def spent(self, phase: str) -> None:
        """The time since this was last called went into *phase*."""
        now = time.monotonic()
        seconds = self._left.get(phase)
        if seconds is not None:
            self._left[phase] = max(seconds - (now - self._since), 0.0)
        self._since = now

    def share(self, attempts: int) -> dict[str, float | None]:
        """The timeouts of the next of *attempts*: one that cannot be reached leaves time for the others."""
        connect = self._left.get("connect")
        return self._left if connect is None else {**self._left, "connect": connect / attempts}

    @property
    def used_up(self) -> bool:
        return self._left.get("read") == 0 or self._left.get("connect") == 0
