"""Numbers that a server gives, and what is made of those that cannot be meant: one table for all rooms. Pure.

A number from the wire is never used as it came where a wrong one would do harm. What has no place here is bounded where
it is read: lengths and counts by the bytes that are there (``_protocol/jute.py``), frames by ``_MAX_FRAME``,
the numbers of documents by what Java's readers take (``_document/scalars.py``).
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "LATEST",
    "LONGEST_GRANTED",
    "PACED",
    "SHORTEST_GRANTED",
    "SYNC_LIMIT",
    "doubts",
    "granted",
    "moment",
    "paced",
]

SHORTEST_GRANTED: Final = 0.2
"""Seconds. A server grants two ticks at least, and does not tick every few milliseconds: heartbeats at a third of less
are a busy loop, and no connection is made in a fifth of it. A shorter one that was asked for is taken as it is."""

LONGEST_GRANTED: Final = 600.0
"""Seconds. For so long a view may claim to be fresh without a word from the quorum. To count with less than was granted
costs heartbeats and nothing else. A longer one that was asked for is taken as it is."""

PACED: Final = 1.5
"""Seconds. Pauses between rounds of connecting are a twelfth of the timeout at most: of a timeout below this they would
be no pauses, and a server that grants little and hangs up would be asked hundreds of times a second."""

SYNC_LIMIT: Final = 10.0
"""Seconds that a leader may take to notice that its followers are gone: ``syncLimit`` × ``tickTime``, 5 × 2 s in the
example configuration of ZooKeeper. Servers do not tell theirs."""

LATEST: Final = 253_402_300_799.0
"""Seconds since the epoch: the last of the year 9999, beyond which no calendar shows them. The times of a node come
from the clock of whichever server led when it was written."""


def granted(seconds: float, requested: float) -> float:
    """Return the session timeout to count with, where *requested* seconds were asked for and *seconds* granted."""
    return min(max(seconds, min(SHORTEST_GRANTED, requested)), max(LONGEST_GRANTED, requested))


def doubts(timeout: float, requested: float) -> list[str]:
    """Return the warning about a session timeout, where *requested* seconds were asked for."""
    told = []
    if abs(timeout - requested) >= 0.001:  # of which a server is told milliseconds
        told.append(
            f"the session timeout is {timeout:g} s, not {requested:g} s as asked for: the server has bounds"
            " (minSessionTimeout, maxSessionTimeout)"
        )
    if timeout < SYNC_LIMIT:
        told.append(
            f"a session timeout of {timeout:g} s is short: a leader that lost its followers may take {SYNC_LIMIT:g} s"
            " to notice (syncLimit 5 × tickTime 2 s, unless the servers have less), and until then it may call sessions"
            " expired that live on; choose session_timeout=15 or more there"
        )
    return told


def paced(timeout: float, requested: float) -> float:
    """Return the timeout by which pauses between rounds are reckoned."""
    return max(timeout, min(PACED, requested))


def moment(milliseconds: int) -> float:
    """Return a time that a server gives as seconds since the epoch: never before it, nor after :data:`LATEST`."""
    return min(max(milliseconds, 0) / 1000, LATEST)
