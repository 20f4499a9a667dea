"""Outlier ejection: instances that fail are set aside for a while, as many as can be spared.

The rule is that of Envoy's outlier detection for consecutive errors: a threshold, a base time that grows, a cap, a
jitter, a limit to how many. Two things differ: pauses double instead of growing by one base time each, and an instance
that returns is on probation, as behind a half-open circuit breaker: one call at a time is let through, one
failure sets it aside again, and a success ends the probation. Time alone proves nothing: where
calls are rarer than pauses are long, a dead one would have stayed in for longer than it was out each time.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Final

from aioregistry._arguments import as_written, check_count, check_number
from aioregistry._errors import InvalidArgument, InvalidType
from aioregistry._reprs import shown_half_made

from ._members import FAILING, SUSPECT, WELL
from ._strategies import Draw

__all__ = ["Ejection", "Ejections", "Outliers", "Record"]

_MOST_DOUBLINGS: Final = 64
_HEAP_SLACK: Final = 16
_FAILURES_OF_SUSPECTS: Final = 1
"""In a row, that set a suspect aside: all that speaks for it is that it may be alive."""


@shown_half_made
class Ejection:
    """When instances are set aside, and for how long.

    Args:
        failures: the number of failures in a row that set an instance aside.
        pause: seconds of the first pause; each later pause is twice as long. A good call after its return resets that.
        longest: the longest pause, in seconds.
        jitter: share of each pause that is left to chance, so that they do not all return at once: a pause of 10 s with
            a jitter of 0.2 takes between 8 and 10 s.
        remaining: share of the instances that is never set aside, rounded up; of those that are neither disabled nor
            filtered out. It counts separately for the instances that are well, for the suspects, and for those whose
            checks fail. From 0 (all may be set aside) to 1.
        errors: exceptions that count as the instance's failure when they leave the ``with`` block of a pick. Others,
            and cancellation, say nothing about the instance.

    Raises:
        InvalidArgument: an argument is wrong.
    """

    __slots__ = ("_share", "errors", "failures", "jitter", "longest", "pause", "remaining")

    def __init__(
        self,
        *,
        failures: int = 3,
        pause: float = 5.0,
        longest: float = 300.0,
        jitter: float = 0.2,
        remaining: float = 0.5,
        errors: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> None:
        check_count("failures", failures)
        check_number("pause", pause, at_least=0.001, at_most=86_400)
        check_number("longest", longest, at_least=0.001, at_most=86_400)
        if longest < pause:
            raise InvalidArgument("longest", longest, f"must not be less than pause={pause:g}")
        check_number("jitter", jitter, at_least=0, at_most=1)
        check_number("remaining", remaining, at_least=0, at_most=1)
        self.failures: int = failures
        self.pause: float = pause
        self.longest: float = longest
        self.jitter: float = jitter
        self.remaining: float = remaining
        self._share = as_written(remaining)
        self.errors: type[Exception] | tuple[type[Exception], ...] = _checked_errors(errors)

    def spared(self, total: int) -> int:
        """Return how many of *total* may be set aside."""
        return total * (self._share.denominator - self._share.numerator) // self._share.denominator

    def duration(self, pauses: int, draw: Draw) -> float:
        """Return the seconds of the pause after *pauses* in a row."""
        longest = min(self.longest, self.pause * 2.0 ** min(pauses, _MOST_DOUBLINGS))
        return longest * (1 - self.jitter * draw())

    def __repr__(self) -> str:
        return f"Ejection({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__[1:])})"


def _checked_errors(errors: object) -> tuple[type[Exception], ...]:
    kinds = errors if isinstance(errors, tuple) else (errors,)
    if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise InvalidType("errors", errors, "must be a class of exceptions, or a tuple of such classes")
    return kinds


class Record:
    """The memory of an instance that failed."""

    __slots__ = ("failures", "pause", "pauses", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.pauses = 0
        self.pause = 0.0
        self.until = -math.inf  # when the last pause ended, or will


class Outliers:
    """The members that are set aside, by id, from picks, reports, the time and their number.

    Every step is O(log n) at most.

    Args:
        rule: the options.
        draw: random numbers, 0 <= number < 1.
        failures: in a row, that set an instance aside; the rule's unless given.
        records: the records by id, kept here; others may keep records of other instances in it.

    Attributes:
        records: of each that failed, and has had no good call since; it has all that are out, or on probation.
        out: until when each may not be picked, on the caller's clock: set aside, or probed by a call.
        probation: those that have returned and have not answered yet.
        probed: those of them, out meanwhile, that a call probes now.
        shared: those of these that a retry shares with that call.
    """

    __slots__ = ("_draw", "_due", "_failures", "_rule", "out", "probation", "probed", "records", "shared")

    def __init__(
        self,
        rule: Ejection,
        draw: Draw,
        *,
        failures: int | None = None,
        records: dict[str, Record] | None = None,
    ) -> None:
        self._rule = rule
        self._failures = rule.failures if failures is None else failures
        self._draw = draw
        self.records: dict[str, Record] = {} if records is None else records
        self._due: list[tuple[float, str]] = []  # a heap; an instance that was released early stays in it for a while
        self.probed: set[str] = set()  # of those that are out
        self.shared: set[str] = set()
        self.out: dict[str, float] = {}
        self.probation: set[str] = set()

    @property
    def aside(self) -> dict[str, float]:
        """The members that are set aside, and until when."""
        return {id: until for id, until in self.out.items() if id not in self.probed}

    def picked(self, id: str, now: float, total: int) -> bool:
        """*id*, of *total*, which has returned, was picked; return whether it may not be picked for now.

        A call that never tells how it went holds its place for as long as the last pause was.
        """
        if len(self.out) >= self._rule.spared(total):
            return False
        self.probed.add(id)
        self._leave(id, now + self.records[id].pause)
        return True

    def succeeded(self, id: str, since: float) -> bool:
        """A call to *id* that began at *since* was good; return whether it could not be picked before, and now may."""
        if self._heard(id, since) is None:
            return False
        del self.records[id]
        self.probation.discard(id)
        return self._release(id)

    def said_nothing(self, id: str, since: float) -> bool:
        """A call to *id* that began at *since* is over; return what `succeeded` does: another may probe it."""
        return self._heard(id, since) is not None and self._release(id)

    def failed(self, id: str, since: float, now: float, total: int) -> float | None:
        """A call to *id*, one of *total*, that began at *since* failed; return the seconds it is set aside for."""
        if id not in self.records:
            self.records[id] = Record()
        record = self._heard(id, since)
        if record is None:
            return None
        record.failures += 1
        room = id in self.out or len(self.out) < self._rule.spared(total)
        if record.failures < self._failures or not room:
            return None
        self._end_probe(id)
        self.probation.discard(id)
        record.pause = self._rule.duration(record.pauses, self._draw)
        record.pauses += 1
        record.until = now + record.pause
        self._leave(id, record.until)
        return record.pause

    def _heard(self, id: str, since: float) -> Record | None:
        """The record of *id*, unless the call began before its last pause was over: for that it has paid."""
        record = self.records.get(id)
        aside = id in self.out and id not in self.probed
        return None if record is None or aside or since < record.until else record

    def _leave(self, id: str, until: float) -> None:
        self.out[id] = until
        heappush(self._due, (until, id))
        self._trim()

    def _release(self, id: str) -> bool:
        self._end_probe(id)
        return self.out.pop(id, None) is not None

    def _end_probe(self, id: str) -> None:
        self.probed.discard(id)
        self.shared.discard(id)

    def _trim(self) -> None:
        if len(self._due) > 2 * len(self.out) + _HEAP_SLACK:
            self._due = [(until, each) for each, until in self.out.items()]
            heapify(self._due)

    def forget(self, id: str) -> None:
        """*id* is gone."""
        if self.records.pop(id, None) is None:
            return  # it never failed, so that nothing else is known of it
        self.probation.discard(id)
        self._release(id)
        self._trim()

    def next_return(self) -> float | None:
        """Return when the first of those that are out returns, or None if all are in."""
        while self._due and self.out.get(self._due[0][1]) != self._due[0][0]:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def returned(self, now: float, total: int) -> list[str]:
        """Return who may be picked again: whose time is over, and who cannot be spared among *total* left."""
        back = []
        while (due := self.next_return()) is not None and (due <= now or len(self.out) > self._rule.spared(total)):
            _, id = heappop(self._due)
            if id not in self.probed:
                record = self.records[id]
                record.until = min(due, now)
                record.failures = self._failures - 1
                self.probation.add(id)
            self._release(id)
            back.append(id)
        return back


class Ejections:
    """Outlier ejection of a picker's members, with a floor for each kind: well, suspect, failing.

    Those that may be dead, or say themselves that they are unwell, do not make up for those that are well.

    Args:
        rule: the options; without them no member is set aside.
        draw: random numbers, 0 <= number < 1.

    Attributes:
        kinds: the outliers, by the kind of the members; empty without a rule.
        failed: the records of all of them, by id. While it is empty, there is nothing to do.
    """

    __slots__ = ("failed", "kinds")

    def __init__(self, rule: Ejection | None, draw: Draw) -> None:
        self.failed: dict[str, Record] = {}
        self.kinds: tuple[Outliers, ...] = ()
        if rule is not None:
            failures = {SUSPECT: _FAILURES_OF_SUSPECTS}
            self.kinds = tuple(
                Outliers(rule, draw, failures=failures.get(kind), records=self.failed)
                for kind in (WELL, SUSPECT, FAILING)
            )

    def next_return(self) -> float | None:
        """Return when the first of those that are out returns, or None if all are in."""
        returns = (outliers.next_return() for outliers in self.kinds)
        return min((moment for moment in returns if moment is not None), default=None)

    def shareable(self, exclude: frozenset[str]) -> list[str]:
        """Return whom one call alone probes now, but for those that are excluded."""
        return [id for outliers in self.kinds for id in sorted(outliers.probed - outliers.shared - exclude)]

    @property
    def out(self) -> frozenset[str]:
        """The instances that may not be picked: set aside, or probed by a call since they returned."""
        return frozenset(id for outliers in self.kinds for id in outliers.out)

    @property
    def aside(self) -> dict[str, float]:
        """The instances that are set aside, and when each returns, by id."""
        return {id: until for outliers in self.kinds for id, until in outliers.aside.items()}
