"""A log of what can repeat: the thin part around :mod:`aioregistry._incidents`, with a clock, a timer and a logger."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import NamedTuple

from ._concurrency import Alarm
from ._incidents import Incident
from ._runtime import running_loop

__all__ = ["IncidentLog"]

_KINDS_KEPT = 64

_WHOLE_BELOW_WARNING = 5
"""How many lines of one kind are written as they are, of a level below WARNING.

A process has a handful of registrations, and each change of each is to be read in full when it happens. A WARNING calls
somebody, once for each incident: of those only the first is written as it is.
"""

_LEAST_TOLD = 0.1
"""Seconds; a shorter time is written as this, because a 0 looks like an error."""


class _Told(NamedTuple):
    incident: Incident
    level: int
    last: str
    fields: Mapping[str, object]


class IncidentLog:
    """Writes the first of what can repeat at once, then a count at most once a second, then a summary.

    Occurrences of one kind are one incident until that kind has been quiet for five seconds. Of a WARNING the first is
    written as it is, of a lower level the first five. Used on one event loop.

    Args:
        log: takes the lines.
        about: what every record carries as fields, for machines: ``session``, ``service``, ``id`` or ``path``.
    """

    def __init__(self, log: logging.Logger, **about: object) -> None:
        self._log, self._about = log, about
        self._told: dict[Hashable, _Told] = {}
        self._alarm = Alarm()

    def tell(self, kind: Hashable, level: int, message: str, *args: object, **about: object) -> None:
        """Tell of one occurrence, with *message* and *args* as for :meth:`logging.Logger.log`.

        Args:
            kind: what repeats, such as ``"stall"``; occurrences of different kinds do not count together. The kinds
                must be few: of more than 64 at a time the oldest ends, with its summary.
            level: of the line; the counts and the summary have the highest level that the incident had.
            message: a line of its own, as if nothing repeated; counts show the first line of it, not a traceback below.
            args: merged into *message*.
            about: fields of this record; counts and the summary have those that were the same each time.
        """
        now, fields = running_loop().time(), {**self._about, **about}
        told = self._told.get(kind)
        if told is None:
            if len(self._told) >= _KINDS_KEPT:
                self._report(next(iter(self._told)), now, ending=True)
            self._log.log(level, message, *args, extra=fields)
            whole = 1 if level >= logging.WARNING else _WHOLE_BELOW_WARNING
            self._told[kind] = _Told(Incident(now, whole), level, "", fields)
        else:
            if told.incident.occurred(now):
                self._log.log(level, message, *args, extra=fields)
            last = (message % args if args else message).partition("\n")[0]
            same = {name: value for name, value in told.fields.items() if fields.get(name) == value}
            self._told[kind] = _Told(told.incident, max(level, told.level), last, same)
            self._report(kind, now)
        self._alarm.set_no_later_than(self._told[kind].incident.due, self._due)

    def close(self) -> None:
        """End every incident, with a summary of each that repeated; may be called again."""
        self._alarm.cancel()
        for kind in list(self._told):
            # Closing comes before the next report is due: report the counted events, whatever the time.
            self._report(kind, float("-inf"), ending=True)

    def _report(self, kind: Hashable, now: float, *, ending: bool = False) -> None:
        told = self._told[kind]
        report = told.incident.report(now, ending=ending)
        if report is None:
            return
        if report.over:
            del self._told[kind]
        if not report.collapsed or (report.over and not report.new and told.level < logging.WARNING):
            return  # everything is in the log, and nothing waits for its end
        level, total, last, about = told.level, report.total, told.last, told.fields
        if report.over:
            seconds = max(report.seconds, _LEAST_TOLD)
            text = "this has stopped: %d in all, within %.1f s, the last: %s"
            self._log.log(level, text, total, seconds, last, extra=about)
        else:
            text = "%d more like this in the last %.1f s, %d in all, for example: %s"
            self._log.log(level, text, report.new, report.since, total, last, extra=about)

    def _due(self) -> None:
        now = running_loop().time()
        for kind in list(self._told):
            self._report(kind, now)
        if self._told:
            self._alarm.set_no_later_than(min(told.incident.due for told in self._told.values()), self._due)
