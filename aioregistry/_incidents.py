"""When to say something that can repeat: one line, then counts at growing pauses, then a summary. Pure.

A log that repeats a line for each of 10,000 instances hides what matters, and costs its reader a disk. A log that drops
repetitions hides how bad it was. So the first occurrence is told at once, what follows is counted, and each line tells
how many there were. Kubernetes aggregates its events in the same way (``client-go``, ``EventCorrelator``).

An :class:`Incident` knows no clock, no timer and no log: it is given the time. Rooms that log use
:class:`aioregistry._incident_log.IncidentLog`, which has them::

    self._repeated = IncidentLog(log)  # one for each view, session, … ; a kind of occurrence is an incident in it
    self._repeated.tell("held", logging.WARNING, "%s: %d held back: %s", name, len(ids), shown)
    ...
    self._repeated.close()  # when the owner ends: writes what was counted and not yet told
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "QUIET", "Incident", "Report"]

FIRST_PAUSE = 1.0
"""Seconds between the first line and the first count."""

LONGEST_PAUSE = 60.0
"""Seconds that two counts are apart at most; the pause doubles up to this."""

QUIET = 5.0
"""Seconds without an occurrence after which an incident is over."""


class Report(NamedTuple):
    """What is to be told of an incident now."""

    new: int
    """Occurrences that no line has told yet."""
    total: int
    """Occurrences since the incident began."""
    seconds: float
    """How long after the first occurrence the last one came."""
    over: bool
    """This is the last line of the incident."""


class Incident:
    """One incident, from its first occurrence at *now* until it has been quiet for a while.

    The first occurrence is the caller's to tell, at once. Times are seconds of any clock that never steps back.

    Args:
        now: when it occurred first.
    """

    def __init__(self, now: float) -> None:
        self._first = self._last = self._told_at = now
        self._pause = FIRST_PAUSE
        self._total = self._told = 1

    def occurred(self, now: float) -> None:
        """Count one more occurrence."""
        self._total += 1
        self._last = now

    @property
    def due(self) -> float:
        """When :meth:`report` is to be called next."""
        quiet = self._last + QUIET
        return quiet if self._total == self._told else min(self._told_at + self._pause, quiet)

    def report(self, now: float, *, ending: bool = False) -> Report | None:
        """Return what is to be told at *now*, or None.

        The report whose ``over`` is set ends the incident. An incident of one occurrence was told by its first line:
        its last report has a ``total`` of 1, of which nothing is to be written.

        Args:
            now: the time.
            ending: its owner ends: it is over in any case.
        """
        new, seconds = self._total - self._told, self._last - self._first
        if ending or now >= self._last + QUIET:
            self._told = self._total
            return Report(new, self._total, seconds, over=True)
        if not new or now < self._told_at + self._pause:
            return None
        self._told, self._told_at = self._total, now
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return Report(new, self._total, seconds, over=False)
