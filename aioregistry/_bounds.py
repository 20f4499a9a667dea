"""Numbers that a server gives, and the bounds that correct absurd ones: one table for all rooms. Pure.

A number from the wire is never used as it came where a wrong one would do harm. Other numbers are bounded where
they are read: lengths and counts by the bytes that are there (``_protocol/jute.py``), frames by ``_MAX_FRAME``,
the numbers of documents by what Java's readers take (``_document/scalars.py``).
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "LATEST",
    "LONGEST_GRANTED",
    "MOST_EPOCHS",
    "MOST_EPOCHS_AT_ONCE",
    "MOST_TRANSACTIONS_AT_ONCE",
    "PACED",
    "SHORTEST_GRANTED",
    "SYNC_LIMIT",
    "doubts",
    "granted",
    "moment",
    "paced",
    "zxid_doubt",
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

MOST_EPOCHS: Final = 2**24
"""Elections in the life of an ensemble: one every 30 seconds for 16 years. The upper half of a zxid counts them."""

MOST_EPOCHS_AT_ONCE: Final = 2**16
"""Elections between two answers on one connection. Servers close their connections at an election, but a follower tells
the last transaction until there is another one, however many elections ago that was: one every 10 seconds for a week
without a transaction."""

MOST_TRANSACTIONS_AT_ONCE: Final = 2**30
"""Transactions of one epoch between two answers on one connection. Servers do some 100,000 a second, and a connection
is without an answer for a session timeout at most: 60 million in :data:`LONGEST_GRANTED`."""


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
    if timeout <= SYNC_LIMIT:
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


def zxid_doubt(zxid: int, reached: int, *, failed: bool) -> str:
    """Return why no server can mean *zxid*, or "".

    Args:
        zxid: from the header of a reply or an event.
        reached: the highest that came on the same connection before, 0 if this is the first.
        failed: it is an error's, or an event's, which may come without a zxid (-1).
    """
    if zxid < (-1 if failed else 0):
        return f"zxid {zxid} is negative"
    epochs, transactions = (zxid >> 32) - (reached >> 32), zxid - reached
    if zxid >> 32 > MOST_EPOCHS:
        return f"zxid {zxid:#x} counts {zxid >> 32} elections"
    if reached and epochs > MOST_EPOCHS_AT_ONCE:
        return f"zxid {zxid:#x} comes after {reached:#x}, {epochs} elections before"
    if reached and epochs == 0 and transactions > MOST_TRANSACTIONS_AT_ONCE:
        return f"zxid {zxid:#x} comes after {reached:#x}, {transactions} transactions before"
    return ""
