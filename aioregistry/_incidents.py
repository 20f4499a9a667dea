"""When to say something that can repeat: the first at once, then counts at growing pauses, then a summary. Pure.

A log that repeats a line for each of 10,000 instances hides what matters, and costs its reader a disk. A log that drops
repetitions hides how bad it was. So the first occurrences are logged at once, later ones are counted, and each count
tells how many there were. Kubernetes aggregates its events in the same way (``client-go``, ``EventCorrelator``).

An :class:`Incident` knows no clock, no timer and no log: it is given the time. Rooms that log use
:class:`aioregistry._incident_log.IncidentLog`, which has them::

    self._repeated = IncidentLog(log)  # one for each view, session, … ; a kind of occurrence is an incident in it
    self._repeated.tell("held", logging.WARNING, "%s: %d held back: %s", name, len(ids), shown)
    ...
    self._repeated.close()  # when the owner ends: logs the counted incidents that are not in the log yet
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
    """A report that is due of an incident."""

    new: int
    """Occurrences that no line has told yet."""
    since: float
    """Seconds since the last line before this one."""
    total: int
    """Occurrences since the incident began."""
    seconds: float
    """How long after the first occurrence the last one came."""
    collapsed: bool
    """Not each occurrence had a line of its own."""
    over: bool
    """This is the last line of the incident."""


class Incident:
    """One incident, from its first occurrence at *now* until it has been quiet for a while.

    The first occurrences are the caller's to tell, at once. Times are seconds of any clock that never steps back.

    Args:
        now: when it occurred first.
        whole: how many occurrences have a line of their own, the first included.
    """

    def __init__(self, now: float, whole: int = 1) -> None:
        self._whole = whole
        self._first = self._last = self._told_at = now
        self._pause = FIRST_PAUSE
        self._total = self._told = 1

    def occurred(self, now: float) -> bool:
        """Count one more occurrence; return whether it has a line of its own, which the caller writes at once."""
        self._total += 1
        self._last = now
        if self._total > self._whole:
            return False
        self._told, self._told_at = self._total, now
        return True

    @property
    def due(self) -> float:
        """When :meth:`report` is to be called next."""
        quiet = self._last + QUIET
        return quiet if self._total == self._told else min(self._told_at + self._pause, quiet)

    def report(self, now: float, *, ending: bool = False) -> Report | None:
        """Return the report to log at *now*, or None.

        The report whose ``over`` is set ends the incident. Where each occurrence had a line of its own, the last
        report is not ``collapsed``, and nothing is to be written of it.

        Args:
            now: the time.
            ending: its owner ends: it is over in any case.
        """
        new, since, seconds = self._total - self._told, now - self._told_at, self._last - self._first
        collapsed = self._total > self._whole
        if ending or now >= self._last + QUIET:
            self._told = self._total
            return Report(new, since, self._total, seconds, collapsed=collapsed, over=True)
        if not new or now < self._told_at + self._pause:
            return None
        self._told, self._told_at = self._total, now
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return Report(new, since, self._total, seconds, collapsed=collapsed, over=False)
