"""Answers about the past: the timeline, and two moments compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request

from aioregistry._words import printable

from .answers import Refused, text_of
from .reading import Query, Reading
from .states import KINDS, State
from .timeline import Difference, Span, compare, gaps, segments

__all__ = ["Comparison", "Timeline", "event_row"]

_SAID_WITHIN: Final = 10.0
_BINS: Final = 120
_EVENTS: Final = 1000
_LANES: Final = 300
_SPANS: Final = 20_000
_COUNTS: Final = 50_000
_DIFFERENCES: Final = 500
_SHOWN: Final = 300
"""Characters of a payload, where two moments are compared."""

_EARLIEST, _LATEST = 0.0, 4e9


class Timeline:
    """The contents of a page of the timeline.

    Args:
        request: of the page.
        now: seconds since the epoch.
        recording: whether a recording goes on.

    Raises:
        Refused: the request makes no sense.
    """

    def __init__(self, request: Request, now: float, *, recording: bool) -> None:
        self._query = _query(request)
        self._now, self._recording = now, recording

    def __call__(self, reading: Reading) -> dict[str, Any]:
        """Return it; blocks, for threads."""
        query, now = self._query, self._now
        periods = reading.periods(query.since, query.until)
        events = reading.events(query, _EVENTS + 1)
        lanes = _service_lanes(reading, query) if query.service is None else _instance_lanes(reading, query, now)
        return {
            "now": now,
            "bounds": reading.bounds(),
            "since": query.since,
            "until": query.until,
            "periods": [_period(each, now) for each in periods if each[0] != "recording"],
            "gaps": _gaps(periods, query.since, min(query.until, now), now if self._recording else None),
            "events": [event_row(each) for each in events[:_EVENTS]],
            "more": len(events) > _EVENTS,
            **lanes,
        }


class Comparison:
    """The differences between two moments.

    Args:
        request: of the page.
        now: seconds since the epoch.
        recording: whether a recording goes on.

    Raises:
        Refused: the request makes no sense.
    """

    def __init__(self, request: Request, now: float, *, recording: bool) -> None:
        self._earlier, self._later = sorted((_moment(request, "a"), _moment(request, "b")))
        self._service = request.query_params.get("service") or None
        self._now, self._recording = now, recording

    def __call__(self, reading: Reading) -> dict[str, Any]:
        """Return it; blocks, for threads."""
        earlier, later, now = self._earlier, self._later, self._now
        spans = reading.changed(earlier, later, self._service, _SPANS)
        found = list(compare(spans, earlier, later))
        periods = reading.periods(earlier, later)
        return {
            "a": earlier,
            "b": later,
            "bounds": reading.bounds(),
            "totals": [reading.totals(moment, self._service) for moment in (earlier, later)],
            "gaps": _gaps(periods, earlier, min(later, now), now if self._recording else None),
            "differences": [_difference(each) for each in found[:_DIFFERENCES]],
            "more": len(found) > _DIFFERENCES or len(spans) >= _SPANS,
        }


def _gaps(periods: Sequence[tuple[Any, ...]], since: float, until: float, now: float | None) -> list[Any]:
    recordings = [(began, ended) for kind, began, ended, _ in periods if kind == "recording"]
    if recordings and now is not None:
        began, ended = recordings[-1]
        # The one that goes on says so every few seconds.
        recordings[-1] = (began, now if now - ended < _SAID_WITHIN else ended)
    return gaps(recordings, since, until)


def _moment(request: Request, name: str) -> float:
    text = text_of(request, name)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _EARLIEST <= seconds <= _LATEST:
        raise Refused(400, f"{name}={printable(text)[:100]!r} is not a time: give seconds since 1970")
    return seconds


def _query(request: Request) -> Query:
    since, until = _moment(request, "since"), _moment(request, "until")
    if until <= since:
        raise Refused(400, f"until={until} is not after since={since}")
    asked = request.query_params
    kinds = frozenset(asked["kinds"].split(",")) & KINDS.keys() if "kinds" in asked else None
    return Query(since, until, asked.get("service") or None, asked.get("id") or None, kinds, asked.get("q", "")[:200])


def _service_lanes(reading: Reading, query: Query) -> dict[str, Any]:
    lanes: dict[str, list[list[Any]]] = {}
    for service, bin, kind, count in reading.counts(query, _BINS, _COUNTS):
        lanes.setdefault(service, []).append([bin, kind, count])
    busiest = sorted(lanes, key=lambda name: (-sum(count for _, _, count in lanes[name]), name))[:_LANES]
    shown = [[name, printable(name), lanes[name]] for name in sorted(busiest) if name]
    return {"bins": _BINS, "services": shown, "lanes_more": max(len(lanes) - _LANES, 0)}


def _instance_lanes(reading: Reading, query: Query, now: float) -> dict[str, Any]:
    spans = reading.spans(query, _SPANS)
    own: dict[str, list[Span]] = {}
    for span in spans:
        if query.text.casefold() in span.id.casefold():
            own.setdefault(span.id, []).append(span)
    resolution = (query.until - query.since) / 500
    end = min(query.until, now)
    chosen = sorted(own, key=lambda id: (-len(own[id]), id))[:_LANES]
    shown = [[id, printable(id), segments(own[id], query.since, end, resolution)] for id in sorted(chosen)]
    more = max(len(own) - _LANES, 0)
    return {"instances": shown, "lanes_more": more, "spans_more": len(spans) >= _SPANS}


def event_row(row: tuple[Any, ...]) -> list[Any]:
    """Return an event as browsers are sent it."""
    at, kind, service, id, text = row
    return [at, kind, service, printable(service), id, printable(id), printable(text)]


def _period(row: tuple[Any, ...], now: float) -> list[Any]:
    kind, since, until, text = row
    return [kind, since, now if until is None else until, printable(text)]


def _difference(found: Difference) -> list[Any]:
    named = [found.service, printable(found.service), found.id, printable(found.id)]
    return [*named, found.kind, _state(found.before), _state(found.after), found.steps]


def _state(state: State | None) -> dict[str, str] | None:
    if state is None:
        return None
    fields = ("state", "owner", "place", "payload", "reason")
    return {field: printable(getattr(state, field)[:_SHOWN]) for field in fields}
