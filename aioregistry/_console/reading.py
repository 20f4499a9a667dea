"""The queries of a history, on a connection that only reads. Blocking, for threads."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from .states import State
from .timeline import Span

__all__ = ["Query", "Reading"]

PATIENCE: Final = 5.0
"""Seconds that a question may take."""

_Row = tuple[Any, ...]


class Query(NamedTuple):
    """The selection that a timeline shows.

    Args:
        since: seconds since the epoch.
        until: seconds since the epoch.
        service: all unless given.
        id: all of the service unless given.
        kinds: of events; all unless given.
        text: in the names, ids or texts of events; any unless given.
    """

    since: float
    until: float
    service: str | None = None
    id: str | None = None
    kinds: frozenset[str] | None = None
    text: str = ""


class Reading:
    """A connection that only reads; used by one thread at a time. Its methods raise sqlite3.Error.

    Args:
        path: of a history that is open.
    """

    def __init__(self, path: Path) -> None:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE, check_same_thread=False)
        self._until = 0.0
        self._connection.set_progress_handler(self._overdue, 10_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _overdue(self) -> int:
        return time.monotonic() > self._until

    def _ask(self, statement: str, *values: Any) -> list[_Row]:
        self._until = time.monotonic() + PATIENCE
        return self._connection.execute(statement, values).fetchall()

    def bounds(self) -> tuple[float | None, float | None]:
        """Return when the history begins and until when it goes."""
        ((since, until),) = self._ask("SELECT min(since), max(until) FROM period WHERE kind = 'recording'")
        return since, until

    def events(self, query: Query, limit: int) -> list[_Row]:
        """Return the latest events: at, kind, service, id, text; the newest first, *limit* at most."""
        where, values = _conditions(query)
        return self._ask(
            f"SELECT at, kind, service, id, text FROM event WHERE {where} ORDER BY at DESC, rowid DESC LIMIT ?",
            *values,
            limit,
        )

    def counts(self, query: Query, bins: int, limit: int) -> list[_Row]:
        """Return the number of events: service, number of the bin, kind, how often."""
        where, values = _conditions(query)
        width = max(query.until - query.since, 1e-3) / bins
        return self._ask(
            f"SELECT service, min(CAST((at - ?) / ? AS INTEGER), ?) AS bin, kind, count(*) FROM event "
            f"WHERE {where} GROUP BY service, bin, kind ORDER BY service, bin LIMIT ?",
            *(query.since, width, bins - 1, *values, limit),
        )

    def spans(self, query: Query, limit: int) -> list[Span]:
        """Return the states of the instances of a service that overlap the time, by id and time."""
        assert query.service is not None
        only, values = ("AND id = ?", (query.id,)) if query.id is not None else ("", ())
        return _spans(
            self._ask(
                f"SELECT * FROM span WHERE service = ? {only} AND since <= ? AND (until IS NULL OR until >= ?) "
                "ORDER BY id, since LIMIT ?",
                *(query.service, *values, query.until, query.since, limit),
            )
        )

    def changed(self, earlier: float, later: float, service: str | None, limit: int) -> list[Span]:
        """Return the states that began or ended between two moments."""
        only, values = ("AND service = ?", (service,)) if service is not None else ("", ())
        return _spans(
            self._ask(
                f"SELECT * FROM span WHERE since > ? AND since <= ? {only} UNION "
                f"SELECT * FROM span WHERE until > ? AND until <= ? {only} ORDER BY 1, 2, 3 LIMIT ?",
                *(earlier, later, *values, earlier, later, *values, limit),
            )
        )

    def totals(self, moment: float, service: str | None) -> dict[str, int]:
        """Return how many instances were in which state."""
        only, values = ("AND service = ?", (service,)) if service is not None else ("", ())
        return dict(
            self._ask(
                f"SELECT state, count(*) FROM span WHERE since <= ? AND (until IS NULL OR until > ?) {only} GROUP BY 1",
                *(moment, moment, *values),
            )
        )

    def periods(self, since: float, until: float) -> list[_Row]:
        """Return the periods that overlap the time: kind, since, until, text; in the order of time."""
        return self._ask(
            "SELECT kind, since, until, text FROM period WHERE since <= ? AND (until IS NULL OR until >= ?) "
            "ORDER BY since LIMIT 2000",
            *(until, since),
        )


def _spans(rows: Iterable[_Row]) -> list[Span]:
    return [Span(service, id, since, until, State(*state)) for service, id, since, until, *state in rows]


def _conditions(query: Query) -> tuple[str, Sequence[Any]]:
    parts, values = ["at >= ?", "at <= ?"], [query.since, query.until]
    found: list[Any] = list(values)
    for column, value in (("service", query.service), ("id", query.id)):
        if value is not None:
            parts.append(f"{column} = ?")
            found.append(value)
    if query.kinds is not None:
        parts.append(f"kind IN ({', '.join('?' * len(query.kinds)) or 'NULL'})")
        found += sorted(query.kinds)
    if query.text:
        pattern = "%" + "".join(f"\\{c}" if c in "%_\\" else c for c in query.text) + "%"
        parts.append("(service LIKE ? ESCAPE '\\' OR id LIKE ? ESCAPE '\\' OR text LIKE ? ESCAPE '\\')")
        found += [pattern] * 3
    return " AND ".join(parts), found
