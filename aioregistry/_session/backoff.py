"""How long to wait before connecting again: at once, then with full jitter, for ever.

"Exponential Backoff And Jitter" (M. Brooker, AWS Architecture Blog, 2015) shows full jitter to spread a herd best.
The cap is low on purpose: an ensemble that returns restarts every session's timer, and a client that sleeps through
that first timeout loses its session for nothing (kazoo, measured: invisible for 5.6-7.5 s after an outage of 12 s).
A refused connect costs a dead server nothing, and a live one that refuses is asked eight times a second per client
on average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = [
    "CAP",
    "FIRST",
    "HEARTBEATS_PER_TIMEOUT",
    "LONGEST_THROTTLED",
    "PATIENCE",
    "attempt_deadline",
    "handshake_deadline",
    "lookup_deadline",
    "may_look_up",
    "retry_delay",
    "throttled_patience",
    "throttled_pause",
]

HEARTBEATS_PER_TIMEOUT = 3
"""As Java's client: one may be lost, and the last third is left for another server."""

LONGEST_THROTTLED = 1.0
"""Seconds until a request that was dropped by an overloaded server is sent again, at most."""

FIRST = 0.05
"""Seconds that the second retry waits at most; doubled each time."""

CAP = 0.25
"""Seconds that any retry waits at most."""

PATIENCE = 0.25
"""Seconds that the first of several handshakes in a row may stay unanswered; doubled each time."""


def retry_delay(failures: int, timeout: float, draw: Callable[[float, float], float]) -> float:
    """Return the seconds to wait after *failures* rounds of connecting in a row that failed.

    The first retry goes at once. *timeout* is the session's in seconds, *draw* a uniform random number between two
    bounds.
    """
    if failures == 0:
        return 0.0
    # Doubling is bounded before it is computed: failures counts for ever.
    ceiling = min(CAP, timeout / 12, FIRST * 2 ** min(failures - 1, 10))
    return draw(0.0, ceiling)


def throttled_pause(attempts: int, timeout: float, draw: Callable[[float, float], float]) -> float:
    """Return the seconds until a request is sent again that an overloaded server has dropped *attempts* times.

    Never less than half of what it may be: the server is asked less, not more, while it says that it has too much to
    do. At most a twelfth of the *timeout*, so that several fit into the patience with a heartbeat.
    """
    ceiling = min(LONGEST_THROTTLED, timeout / 12, FIRST * 2 ** min(attempts, 10))
    return draw(ceiling / 2, ceiling)


def throttled_patience(timeout: float) -> float:
    """Return the seconds for which a request that is dropped again and again is repeated: as for a heartbeat."""
    return timeout * 2 / 3


def lookup_deadline(timeout: float) -> float:
    """Return the seconds that a round waits for names; one that takes longer serves a later round."""
    return timeout / 24


# A resolver asks its first name server for 5 s before it turns to the next (resolv.conf(5)): three look-ups, begun 1 s
# and 3 s after the first, cover that.
_LOOKUPS = 3


def may_look_up(ages: Sequence[float]) -> bool:
    """Return whether another look-up of a name may begin beside those under way, which began *ages* seconds ago.

    One that hangs must not hold back a fresh answer, and each may cost a thread.
    """
    return len(ages) < _LOOKUPS and (not ages or min(ages) >= 2.0 ** (len(ages) - 1))


def attempt_deadline(timeout: float, left: float, candidates: int) -> float:
    """Return the seconds that connecting to one server may take, TCP, TLS and handshake together.

    The time *left* of the session, shared by the *candidates*, so that a server that hangs never costs the chance to
    ask the others; reckoned as a tenth of the *timeout* at least, without which no server could answer in time. Where
    nothing is left, or there is no session yet, a whole *timeout* is shared: an ensemble that returns gives as much to
    every session. At most a fifth of the *timeout*, which together with the retry's delay and the lookup stays below a
    third.
    """
    shared = max(left, timeout / 10) if left > 0 else timeout
    return min(shared / max(candidates, 1), timeout / 5)


def handshake_deadline(unanswered: int, took: float, longest: float) -> float:
    """Return the seconds that a handshake may take after *unanswered* ones in a row.

    A server that is starting takes connections that it never answers nor closes: in 3.8.0 closing one of them fails
    in ``NIOServerCnxn`` as long as there is no database. A client that waits long for it finds out late that it serves.
    One that is only slow is given twice as long each time, up to *longest*; one that is far away, where connecting
    *took* long, several times that.
    """
    return min(max(PATIENCE, 4 * took) * 2.0 ** min(unanswered, 10), longest)
