"""Recorded states as the bars of a timeline, and two moments compared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from .states import State

__all__ = [
    "MIXED",
    "Closing",
    "Difference",
    "Segment",
    "Span",
    "compare",
    "gaps",
    "reconcile",
    "segments",
]

MIXED: Final = "mixed"
"""The state of a segment in which more happened than can be drawn."""


class Span(NamedTuple):
    """A state of an instance, from *since* to *until* (seconds since the epoch; None: it lasts)."""

    service: str
    id: str
    since: float
    until: float | None
    state: State

    def covers(self, moment: float) -> bool:
        """Return whether it was so at *moment*."""
        return self.since <= moment and (self.until is None or self.until > moment)


class Segment(NamedTuple):
    """A stretch that is drawn for an instance: one state, or :data:`MIXED` where several are too short to be seen."""

    since: float
    until: float
    state: str
    changes: int
    """How many states it stands for."""


def segments(spans: Iterable[Span], start: float, end: float, resolution: float) -> list[Segment]:
    """Return what to draw for one instance between *start* and *end*.

    Args:
        spans: of the instance, in the order of time.
        start: seconds since the epoch.
        end: seconds since the epoch.
        resolution: seconds; a shorter bar is drawn together with its neighbours of the same kind.
    """
    drawn: list[Segment] = []
    for span in spans:
        since, until = max(span.since, start), min(end if span.until is None else span.until, end)
        if until < since or span.since > end:
            continue
        new = Segment(since, until, span.state.state, 1)
        last = drawn[-1] if drawn else None
        if last is not None and _joins(last, new, resolution):
            drawn[-1] = _joined(last, new)
        else:
            drawn.append(new)
    return drawn


def _joins(last: Segment, new: Segment, resolution: float) -> bool:
    if new.since - last.until > resolution:
        return False
    too_short = last.until - last.since < resolution and new.until - new.since < resolution
    return last.state == new.state or too_short


def _joined(last: Segment, new: Segment) -> Segment:
    state = last.state if last.state == new.state else MIXED
    return Segment(last.since, max(last.until, new.until), state, last.changes + new.changes)


class Difference(NamedTuple):
    """How an instance differs between two moments.

    Args:
        service: its service.
        id: its id.
        kind: ``came``, ``went``, ``owner``, ``changed``, ``back`` (it is as it was, and was not all the time) or
            ``brief`` (it came and went meanwhile).
        before: None where it was not there.
        after: None where it is not there.
        steps: how many states it had meanwhile, the first and the last included.
    """

    service: str
    id: str
    kind: str
    before: State | None
    after: State | None
    steps: int


def compare(spans: Iterable[Span], earlier: float, later: float) -> Iterator[Difference]:
    """Yield what differs between two moments, in the order of services and ids.

    Args:
        spans: those that begin or end between the moments, at least: what lasted all the time does not differ.
        earlier: seconds since the epoch.
        later: seconds since the epoch.
    """
    known: dict[tuple[str, str], list[Span]] = {}
    for span in spans:
        if span.since <= later and (span.until is None or span.until > earlier):
            known.setdefault((span.service, span.id), []).append(span)
    for (service, id), own in sorted(known.items()):
        before = next((span.state for span in own if span.covers(earlier)), None)
        after = next((span.state for span in own if span.covers(later)), None)
        kind = _kind(before, after, len(own))
        if kind is not None:
            yield Difference(service, id, kind, before, after, len(own))


def _kind(before: State | None, after: State | None, steps: int) -> str | None:
    if before is None:
        return "came" if after is not None else "brief"
    if after is None:
        return "went"
    if before == after:
        return "back" if steps > 1 else None
    return "owner" if before.owner != after.owner else "changed"


class Closing(NamedTuple):
    """The rows to write so that the record is true again: the states that end, and those that begin."""

    ended: Sequence[str]
    begun: Mapping[str, State]


def reconcile(recorded: Mapping[str, State], known: Mapping[str, State]) -> Closing:
    """Return the steps from the states *recorded* as lasting to the *known* ones, by id."""
    ended = [id for id, state in recorded.items() if known.get(id) != state]
    begun = {id: state for id, state in known.items() if recorded.get(id) != state}
    return Closing(ended, begun)


def gaps(recordings: Sequence[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """Return when nothing was recorded between *start* and *end*, of *recordings* in the order of time."""
    edges = [
        (start, start),
        *((max(a, start), min(b, end)) for a, b in recordings if b > start and a < end),
        (end, end),
    ]
    return [(left[1], right[0]) for left, right in pairwise(edges) if right[0] > left[1]]
