"""The history of the console in SQLite: writing it, and removing the oldest. Blocking, for threads.

A row of ``span`` is a state of an instance, from ``since`` to ``until``; of one that lasts ``until`` is null. A row of
``event`` is what happened. A row of ``period`` is when something lasted: recording, an outage, a leader's epoch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from aioregistry._errors import InvalidArgument
from aioregistry._files import followed
from aioregistry._reasons import reason_of

from .states import Mark, State, marks
from .timeline import reconcile

__all__ = [
    "Event",
    "History",
    "Operation",
    "Period",
    "PeriodOver",
    "Reconcile",
    "ServiceNames",
    "StateChange",
    "reason_of_failure",
]

APPLICATION: Final = 0x61696F72  # "aior"
VERSION: Final = 1
PATIENCE: Final = 5.0
"""Seconds that another program may hold the file."""

_PAGES_AT_ONCE: Final = 2000
_SHARE_AT_ONCE: Final = 20
"""The part of the past events that is removed at once: a twentieth."""

_MAGIC: Final = b"SQLite format 3\0"

_SCHEMA: Final = (
    """CREATE TABLE span (
        service TEXT NOT NULL, id TEXT NOT NULL, since REAL NOT NULL, until REAL,
        state TEXT NOT NULL, owner TEXT NOT NULL, place TEXT NOT NULL, payload TEXT NOT NULL, reason TEXT NOT NULL,
        czxid INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX span_lasts ON span (service, id) WHERE until IS NULL",
    "CREATE INDEX span_of ON span (service, id, since)",
    "CREATE INDEX span_since ON span (since)",
    "CREATE INDEX span_until ON span (until)",
    """CREATE TABLE event (
        at REAL NOT NULL, kind TEXT NOT NULL, service TEXT NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL)""",
    "CREATE INDEX event_at ON event (at)",
    "CREATE INDEX event_of ON event (service, id, at)",
    "CREATE TABLE period (kind TEXT NOT NULL, since REAL NOT NULL, until REAL, text TEXT NOT NULL)",
    "CREATE INDEX period_of ON period (kind, since)",
)


# ---------------------------------------------------------------- records


class StateChange(NamedTuple):
    """An instance changed, came or went: its present state, or None if it is gone."""

    at: float
    service: str
    id: str
    state: State | None


class Reconcile(NamedTuple):
    """These are all instances of a service; one that is recorded differently has changed meanwhile.

    Args:
        at: seconds since the epoch.
        service: its name.
        states: by id.
        begins: whether a recording begins with it: what differs then happened while nothing was recorded.
    """

    at: float
    service: str
    states: Mapping[str, State]
    begins: bool


class ServiceNames(NamedTuple):
    """With these services a recording begins; others that are recorded as lasting ended while nothing was."""

    at: float
    names: frozenset[str]


class Event(NamedTuple):
    """Something happened."""

    at: float
    kind: str
    service: str
    id: str
    text: str


class Period(NamedTuple):
    """Something begins; what lasted of the same kind ends."""

    at: float
    kind: str
    text: str


class PeriodOver(NamedTuple):
    """The lasting event of a kind is over."""

    at: float
    kind: str


Operation = StateChange | Reconcile | ServiceNames | Event | Period | PeriodOver


class History:
    """A file with the history, open for writing; one process at a time.

    Args:
        path: of the file; it is made where it is missing.
        days: how long past events are kept.
        limit: bytes that the file may have.

    Raises:
        InvalidArgument: the file cannot be used; names field, path and reason.
    """

    def __init__(self, path: Path, *, days: float, limit: int) -> None:
        self.path, self._days, self._limit = path, days, limit
        self._lock, place = _locked(path)
        try:
            self._connection = _opened(path, place)
        except BaseException:
            os.close(self._lock)
            raise
        self.recorded_until = self._last_heartbeat()
        """When the recording before this one ended, seconds since the epoch; None if this is the first."""

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        os.close(self._lock)

    def begin(self, at: float) -> None:
        """Begin a recording. Raises sqlite3.Error."""
        with self._transaction():
            before = self.recorded_until
            if before is not None:
                self._run("UPDATE period SET until = ? WHERE until IS NULL AND kind != 'recording'", min(before, at))
            self._run("INSERT INTO period VALUES ('recording', ?, ?, '')", at, at)
            self._event(Event(at, "recording", "", "", "began"))

    def write(self, operations: Iterable[Operation], now: float) -> None:
        """Write all, or nothing where that fails; until *now* was recorded. Raises sqlite3.Error."""
        with self._transaction():
            for each in operations:
                match each:
                    case StateChange():
                        self._change(each)
                    case Reconcile():
                        self._reconcile(each)
                    case ServiceNames():
                        self._names(each)
                    case Event():
                        self._event(each)
                    case Period():
                        self._end_period(each.at, each.kind)
                        self._run("INSERT INTO period VALUES (?, ?, NULL, ?)", each.kind, each.at, each.text)
                    case PeriodOver():
                        self._end_period(each.at, each.kind)
            self._run(
                "UPDATE period SET until = max(?, since) WHERE rowid = "
                "(SELECT max(rowid) FROM period WHERE kind = 'recording')",
                now,
            )

    def interrupted(self, before: float, now: float) -> None:
        """Nothing was recorded from *before* to *now*; a new recording begins. Raises sqlite3.Error."""
        self.recorded_until = before
        with self._transaction():
            self._run(
                "UPDATE period SET until = max(since, ?) WHERE rowid = "
                "(SELECT max(rowid) FROM period WHERE kind = 'recording')",
                before,
            )
            self._run("INSERT INTO period VALUES ('recording', ?, ?, '')", now, now)
            self._event(Event(now, "recording", "", "", "goes on after a gap"))

    def prune(self, now: float) -> None:
        """Remove events that ended too long ago, and the oldest while the file is too large. Raises sqlite3.Error."""
        self._prune_before(now - self._days * 86_400)
        while self._size() > self._limit:
            oldest = self._oldest_bound()
            if oldest is None:
                break
            self._prune_before(oldest)

    # ------------------------------------------------------------------ rows

    def _change(self, change: StateChange) -> None:
        row = self._run(
            "SELECT state, owner, place, payload, reason, czxid FROM span "
            "WHERE service = ? AND id = ? AND until IS NULL",
            *(change.service, change.id),
        ).fetchone()
        before = None if row is None else State(*row)
        if before == change.state:
            return
        self._end(change.at, change.service, change.id)
        if change.state is not None:
            self._begin(change.at, change.service, change.id, change.state)
        self._mark(change.at, change.service, change.id, marks(before, change.state))

    def _reconcile(self, news: Reconcile) -> None:
        recorded = self._lasting(news.service)
        closing = reconcile({id: state for id, (state, _) in recorded.items()}, news.states)
        gap = self.recorded_until if news.begins else None
        for id in closing.ended:
            state, since = recorded[id]
            # A state that an earlier recording saw is known to have lasted until that recording ended, and no longer.
            self._end(news.at if gap is None else max(gap, since), news.service, id)
            if id not in news.states:
                self._mark(news.at, news.service, id, marks(state, None), unseen=news.begins)
        for id, state in closing.begun.items():
            before = recorded[id][0] if id in recorded else None
            self._begin(news.at, news.service, id, state)
            # In the first recording of all, those that are there are found, and have not joined now.
            if not news.begins or gap is not None:
                self._mark(news.at, news.service, id, marks(before, state), unseen=news.begins)

    def _names(self, news: ServiceNames) -> None:
        rows = self._run("SELECT DISTINCT service FROM span WHERE until IS NULL").fetchall()
        for (service,) in rows:
            if service not in news.names:
                self._reconcile(Reconcile(news.at, service, {}, begins=True))

    def _lasting(self, service: str) -> dict[str, tuple[State, float]]:
        rows = self._run(
            "SELECT id, since, state, owner, place, payload, reason, czxid FROM span "
            "WHERE service = ? AND until IS NULL",
            service,
        )
        return {id: (State(*state), since) for id, since, *state in rows}

    def _begin(self, at: float, service: str, id: str, state: State) -> None:
        self._run("INSERT INTO span VALUES (?, ?, ?, NULL, ?, ?, ?, ?, ?, ?)", service, id, at, *state)

    def _end(self, at: float, service: str, id: str) -> None:
        self._run(
            "UPDATE span SET until = max(?, since) WHERE service = ? AND id = ? AND until IS NULL", at, service, id
        )

    def _mark(self, at: float, service: str, id: str, happened: Iterable[Mark], *, unseen: bool = False) -> None:
        for kind, text in happened:
            self._event(Event(at, kind, service, id, f"{text}; while recording was off" if unseen else text))

    def _event(self, event: Event) -> None:
        self._run("INSERT INTO event VALUES (?, ?, ?, ?, ?)", *event)

    def _end_period(self, at: float, kind: str) -> None:
        self._run("UPDATE period SET until = max(?, since) WHERE kind = ? AND until IS NULL", at, kind)

    # ------------------------------------------------------------------ bounds

    def _size(self) -> int:
        pages, free, size = (self._number(f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def _oldest_bound(self) -> float | None:
        """Return a moment before which the oldest rows end; None where nothing has ended."""
        oldest = "SELECT max(t) FROM (SELECT {0} AS t FROM {1} ORDER BY t LIMIT (SELECT count(*) / ? + 1 FROM {1}))"
        found = [
            self._run(oldest.format(*source), _SHARE_AT_ONCE).fetchone()[0]
            for source in (("until", "span WHERE until IS NOT NULL"), ("at", "event"))
        ]
        known = [moment for moment in found if moment is not None]
        return min(known) + 1e-6 if known else None

    def _prune_before(self, moment: float) -> None:
        with self._transaction():
            self._run("DELETE FROM span WHERE until < ?", moment)
            self._run("DELETE FROM event WHERE at < ?", moment)
            self._run("DELETE FROM period WHERE until < ?", moment)
        self._run(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()

    # ------------------------------------------------------------------ SQLite

    def _last_heartbeat(self) -> float | None:
        found: float | None = self._run("SELECT max(until) FROM period WHERE kind = 'recording'").fetchone()[0]
        return found

    def _number(self, statement: str) -> int:
        return int(self._run(statement).fetchone()[0])

    def _run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._run("ROLLBACK")
            raise


def _locked(path: Path) -> tuple[int, Path]:
    """Return the descriptor of a lock that only one process has, and where *path* leads.

    Two recordings at once would end each other's.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # A link to the file is not another file.
        place, foreign = followed(str(path))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = None if foreign else os.open(f"{place}.lock", flags, 0o600)
    except (OSError, ValueError) as error:
        raise InvalidArgument("history", str(path), f"cannot be written: {reason_of(error)}") from None
    if lock is None:
        raise InvalidArgument("history", str(path), f"{foreign}")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InvalidArgument("history", str(path), "is used by another console") from None
    return lock, place


def _opened(path: Path, place: Path) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "rb") as file:
            # A pipe would be read for ever.
            head = file.read(len(_MAGIC)) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b"-"
        if head and head != _MAGIC:
            # SQLite takes a file that is shorter than its head for an empty one, and writes over it.
            raise InvalidArgument("history", str(path), _REASONS[sqlite3.SQLITE_NOTADB])
        connection = sqlite3.connect(place, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        _prepare(connection, path)
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        why = f"cannot be written: {reason_of(error)}" if isinstance(error, OSError) else reason_of_failure(error)
        raise InvalidArgument("history", str(path), why) from None
    except InvalidArgument:
        if connection is not None:
            connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application, version, tables = (
        connection.execute(question).fetchone()[0]
        for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if tables and application != APPLICATION:
        raise InvalidArgument("history", str(path), "is the database of another program")
    if version > VERSION:
        why = f"was written by a newer aioregistry, in version {version}; this one knows version {VERSION}"
        raise InvalidArgument("history", str(path), why)
    if not tables:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    elif connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise InvalidArgument("history", str(path), "is damaged: move it away to begin a new history")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    # That it can be written is known now, not with the first change.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE period SET until = until WHERE 0")
    connection.execute("COMMIT")


_REASONS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_CORRUPT: "is damaged: move it away to begin a new history",
    sqlite3.SQLITE_NOTADB: "is not an SQLite database",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
    sqlite3.SQLITE_READONLY: "cannot be written: it is read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_IOERR: "cannot be written: the disk fails, or is full",
    sqlite3.SQLITE_BUSY: "is in use by another program",
    sqlite3.SQLITE_LOCKED: "is in use by another program",
    sqlite3.SQLITE_INTERRUPT: "was asked for too much at once",
}


def reason_of_failure(error: Exception) -> str:
    """Return what an error, of SQLite's as a rule, says of a file, in words of our own."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return "cannot be used"
    return _REASONS.get(code & 0xFF, f"cannot be used (SQLite's error {code})")
