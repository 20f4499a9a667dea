"""How much to ask for at once, and when again. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["RETRY", "Pace"]

RETRY: Final = 1.0
"""Seconds, at most, until a server that refused a read (it was overloaded, say) is asked again."""


class Pace:
    """How many nodes to ask for at once, and how many to have asked for before an answer comes.

    A heartbeat's answer waits behind the answers that are under way, so those are bounded: a few batches, each of about
    a quarter of what one request may take. The size of nodes is unknown before they are read: it begins small.
    """

    _FIRST = 64
    _MOST = 1024
    _WINDOW = 3  # one being read by the server, one on the way, one being decoded here
    _GROWTH = 4

    def __init__(self, max_bytes: int) -> None:
        self._target = max_bytes // 4
        self._ceiling = self._MOST
        self.batch = self._FIRST

    @property
    def window(self) -> int:
        """How many nodes may have been asked for and not answered."""
        return self._WINDOW * self.batch

    def answered(self, nodes: int, size: int) -> None:
        """An answer about *nodes* had *size* bytes."""
        affordable = self._target * nodes // max(size, 1)
        self.batch = max(1, min(affordable, self.batch * self._GROWTH, self._ceiling))

    def refused(self) -> None:
        """A batch was refused, or the connection ended under it: it may have been too large."""
        self._ceiling = self.batch = max(1, self.batch // 2)

    def completed(self) -> None:
        """All was read: the sizes were good, and may grow again."""
        self._ceiling = min(self._MOST, self._ceiling * 2)
