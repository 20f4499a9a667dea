"""The history in SQLite, and the thread that writes it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioregistry import InvalidArgument
from aioregistry._console.reading import Query, Reading
from aioregistry._console.recorder import HistoryUnavailable, Recorder
from aioregistry._console.states import State
from aioregistry._console.store import (
    _REASONS,
    Event,
    History,
    Period,
    PeriodOver,
    Reconcile,
    ServiceNames,
    StateChange,
    reason_of_failure,
)
from tests.support.waiting import until

DEADLINE = 60.0
NOBODY = 65534
MIB = 2**20


def state(word: str = "enabled", owner: str = "0x1", payload: str = "") -> State:
    return State(word, owner, "10.0.0.1:80", payload, "", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@contextlib.contextmanager
def opened(path: Path, limit: int = 256 * MIB, days: float = 30) -> Iterator[History]:
    history = History(path, days=days, limit=limit)
    try:
        yield history
    finally:
        history.close()


def events(path: Path, **more: object) -> list[tuple[str, str]]:
    with Reading(path) as reading:
        rows = reading.events(Query(0, 1e9, **more), 1000)  # type: ignore[arg-type] # as the test says
        return [(kind, id) for _, kind, _, id, _ in reversed(rows)]


def test_what_happened_is_found_again(path: Path) -> None:
    with opened(path) as history:
        history.begin(100)
        history.write(
            [ServiceNames(100, frozenset({"chat"})), Reconcile(100, "chat", {"a": state()}, begins=True)], 101
        )
        history.write([StateChange(110, "chat", "b", state()), StateChange(120, "chat", "a", None)], 121)
        history.write(
            [StateChange(130, "chat", "b", state("failing")), StateChange(131, "chat", "b", state("failing"))], 131
        )
        history.write([Period(140, "outage", "refused"), Event(140, "outage", "", "", "refused")], 141)
        history.write([PeriodOver(150, "outage")], 151)
        with Reading(path) as reading:
            spans = reading.spans(Query(0, 1000, "chat"), 100)
            assert [(each.id, each.since, each.until, each.state.state) for each in spans] == [
                ("a", 100, 120, "enabled"),
                ("b", 110, 130, "enabled"),
                ("b", 130, None, "failing"),
            ]
            assert reading.totals(115, None) == {"enabled": 2}
            assert reading.totals(135, "chat") == {"failing": 1}
            assert {each.id for each in reading.changed(105, 115, None, 10)} == {"b"}
            assert reading.periods(0, 1000) == [("recording", 100, 151, ""), ("outage", 140, 150, "refused")]
            assert reading.bounds() == (100, 151)
            assert reading.counts(Query(100, 200, kinds=frozenset({"joined", "left"})), 10, 99) == [
                ("chat", 1, "joined", 1),
                ("chat", 2, "left", 1),
            ]
        found = [("recording", ""), ("joined", "b"), ("left", "a"), ("state", "b"), ("outage", "")]
        assert events(path) == found
        assert events(path, text="FAIL") == [("state", "b")]
        assert events(path, text="%") == []
        assert events(path, service="chat", id="a") == [("left", "a")]
        assert events(path, kinds=frozenset()) == []


def test_what_changed_while_nothing_was_recorded_is_said_to_have(path: Path) -> None:
    with opened(path) as history:
        history.begin(100)
        both = {"stays": state(), "goes": state(), "changes": state()}
        history.write(
            [Reconcile(100, "chat", both, begins=True), Reconcile(100, "old", {"a": state()}, begins=True)], 110
        )
        history.write([Period(105, "outage", "")], 111)
    with opened(path) as history:
        assert history.recorded_until == 111
        history.begin(200)
        now = {"stays": state(), "changes": state("failing"), "comes": state()}
        history.write([ServiceNames(200, frozenset({"chat"})), Reconcile(201, "chat", now, begins=True)], 202)
        history.write([Reconcile(210, "chat", {**now, "later": state()}, begins=False)], 211)
        with Reading(path) as reading:
            spans = {(each.id, each.since): each.until for each in reading.spans(Query(0, 999, "chat"), 99)}
            assert spans == {
                ("stays", 100): None,
                ("goes", 100): 111,
                ("changes", 100): 111,
                ("changes", 201): None,
                ("comes", 201): None,
                ("later", 210): None,
            }
            assert [each.until for each in reading.spans(Query(0, 999, "old"), 9)] == [111]
            assert ("outage", 105, 111, "") in reading.periods(0, 999)
            texts = {id: text for _, _, _, id, text in reading.events(Query(150, 999), 99) if id}
            assert all("while recording was off" in texts[id] for id in ("goes", "changes", "comes", "a"))
            assert "nothing" not in texts["later"]


def test_a_recording_that_was_interrupted_has_a_gap_and_what_changed_meanwhile_is_said_to_have(path: Path) -> None:
    with opened(path) as history:
        history.begin(100)
        history.write([Reconcile(100, "chat", {"a": state(), "b": state()}, begins=True)], 110)
        history.interrupted(115, 200)
        assert history.recorded_until == 115
        history.write([Reconcile(200, "chat", {"b": state()}, begins=True)], 210)
        with Reading(path) as reading:
            assert reading.periods(0, 999) == [("recording", 100, 115, ""), ("recording", 200, 210, "")]
            assert [(each.id, each.until) for each in reading.spans(Query(0, 999, "chat"), 9)] == [
                ("a", 115),
                ("b", None),
            ]
        assert events(path) == [("recording", ""), ("recording", ""), ("left", "a")]


def test_what_is_over_for_too_long_goes_and_nothing_younger(path: Path) -> None:
    with opened(path, days=2) as history:
        history.begin(100)
        history.write([Event(at, "joined", "chat", f"{at}", "") for at in (199, 200, 201)], 210)
        history.prune(200 + 2 * 86_400)
        assert events(path) == [("joined", "200"), ("joined", "201")]


def test_a_history_is_its_owners_alone_and_says_what_it_is(path: Path) -> None:
    with opened(path):
        for file in (path, path.parent / f"{path.name}.lock"):
            assert file.stat().st_mode & 0o777 == 0o600
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        assert (application.to_bytes(4), version) == (b"aior", 1)


def test_every_known_failure_has_words_of_our_own() -> None:
    for code, words in _REASONS.items():
        error = sqlite3.OperationalError("whatever SQLite says")
        error.sqlite_errorcode = code | 0x300  # SQLite's extended codes
        assert reason_of_failure(error) == words
    unknown = sqlite3.OperationalError("whatever SQLite says")
    unknown.sqlite_errorcode = 1
    assert reason_of_failure(unknown) == "cannot be used (SQLite's error 1)"
    assert reason_of_failure(ValueError()) == "cannot be used"


def test_a_history_is_bounded_by_age_and_by_size(path: Path) -> None:
    with opened(path, limit=MIB, days=1) as history:
        history.begin(0)
        for second in range(40):
            word = "failing" if second % 2 else "enabled"
            long = state(word, payload="x" * 300)
            changes = [StateChange(second * 1000 + n, "chat", f"i{n}", long) for n in range(100)]
            history.write(changes, second * 1000 + 999)
        history.prune(86_400 + 1500)
        with Reading(path) as reading:
            assert min(at for at, *_ in reading.events(Query(0, 1e9), 10_000)) >= 1500
        history.prune(40_000)
        size = sum(each.stat().st_size for each in path.parent.glob("history.sqlite"))
        assert size < 2 * MIB
        with Reading(path) as reading:
            assert reading.totals(40_000, None) == {"failing": 100}  # what lasts is never let go


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read as one" * 20, b"x"])
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"history=.*is not an SQLite database"):
        History(path, days=1, limit=MIB)
    assert path.read_bytes() == content


def test_a_damaged_history_is_refused(path: Path) -> None:
    with opened(path) as history:
        history.begin(0)
        history.write([StateChange(n, "chat", f"i{n}", state(payload="y" * 500)) for n in range(500)], 1)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(40_960))
    with pytest.raises(InvalidArgument, match="is damaged: move it away"):
        History(path, days=1, limit=MIB)


def test_a_history_of_a_newer_version_and_of_another_program_is_refused(path: Path) -> None:
    with opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(InvalidArgument, match="was written by a newer aioregistry, in version 99"):
        History(path, days=1, limit=MIB)
    stranger = path.with_name("other.sqlite")
    with contextlib.closing(sqlite3.connect(stranger)) as other:
        other.execute("CREATE TABLE accounts (name TEXT)")
    with pytest.raises(InvalidArgument, match="is the database of another program"):
        History(stranger, days=1, limit=MIB)


def test_one_console_at_a_time(path: Path) -> None:
    with opened(path), pytest.raises(InvalidArgument, match="is used by another console"):
        History(path, days=1, limit=MIB)
    with opened(path):
        pass


def test_a_link_to_a_history_is_the_same_history(path: Path) -> None:
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    with opened(path), pytest.raises(InvalidArgument, match="is used by another console"):
        History(link, days=1, limit=MIB)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant another user's link")
@pytest.mark.parametrize("planted", ["history.sqlite", "history.sqlite.lock", "folder"])
def test_a_link_of_another_user_is_not_followed(tmp_path: Path, planted: str) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.mkdir()
    shared.mkdir()
    link = shared / planted
    link.symlink_to(home if planted == "folder" else home / ".profile")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    path = link / "history.sqlite" if planted == "folder" else shared / "history.sqlite"
    with pytest.raises(InvalidArgument) as raised:
        History(path, days=1, limit=MIB)
    assert (raised.value.field, raised.value.value) == ("history", str(path))
    assert list(home.iterdir()) == []


def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(InvalidArgument, match="is not an SQLite database"):
        History(path, days=1, limit=MIB)
    with pytest.raises(InvalidArgument, match=r"history=.*cannot be written"):
        History(Path("a\0b"), days=1, limit=MIB)


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"history=.*cannot be written"):
        History(tmp_path / "missing" / "history.sqlite", days=1, limit=MIB)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidArgument, match="history="):
        History(tmp_path / "folder", days=1, limit=MIB)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]  # and no file beside it that says who uses it


# ---------------------------------------------------------------- the thread


class FullDisk(History):
    """A history whose disk can be full."""

    full = False

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        if self.full:
            error = sqlite3.OperationalError("full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super()._run(statement, *values)


async def test_a_full_disk_costs_history_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioregistry._console.recorder._TRIED_AGAIN_AFTER", 0.05)
    history = FullDisk(path, days=1, limit=256 * MIB)
    with Recorder(history) as recorder:
        assert recorder.put(StateChange(time.time(), "chat", "a", state()))
        await until(lambda: recorder.ask(lambda reading: reading.totals(time.time() + 9, None)) == {"enabled": 1})
        history.full = True
        assert recorder.put(StateChange(time.time(), "chat", "b", state()))
        await until(lambda: recorder.failure is not None)
        assert recorder.failure == "cannot be written: the disk is full"
        assert not recorder.put(StateChange(time.time(), "chat", "c", state()))
        history.full = False
        await until(lambda: recorder.failure is None)
        assert recorder.has_lost_all()
        assert not recorder.has_lost_all()
        whole = {id: state() for id in "abc"}
        assert recorder.put(Reconcile(time.time(), "chat", whole, begins=True))
        await until(lambda: recorder.ask(lambda reading: reading.totals(time.time() + 9, None)) == {"enabled": 3})
        recordings = recorder.ask(lambda reading: reading.periods(0, 1e10))
        assert [kind for kind, *_ in recordings] == ["recording", "recording"]
    warnings = [record.getMessage() for record in caplog.records if record.name == "aioregistry.console"]
    assert len(warnings) == 2
    assert "recording is paused" in warnings[0]
    assert "recording to the history" in warnings[1]


class Defective(History):
    """A history that fails once, and once more when it begins again; not as SQLite does."""

    failed = failed_again = False

    def _change(self, change: StateChange) -> None:
        if not self.failed:
            self.failed = True
            raise RuntimeError("a defect")
        super()._change(change)

    def interrupted(self, before: float, now: float) -> None:
        if not self.failed_again:
            self.failed_again = True
            raise RuntimeError("another defect")
        super().interrupted(before, now)


async def test_a_defect_is_told_and_does_not_end_the_recording(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioregistry._console.recorder._TRIED_AGAIN_AFTER", 0.05)
    with Recorder(Defective(path, days=1, limit=256 * MIB)) as recorder:
        assert recorder.put(StateChange(time.time(), "chat", "a", state()))
        await until(recorder.has_lost_all)
        await until(lambda: recorder.failure is None)
        assert recorder.put(StateChange(time.time(), "chat", "a", state()))
        await until(lambda: recorder.ask(lambda reading: reading.totals(time.time() + 9, None)) == {"enabled": 1})
    told = [record for record in caplog.records if record.name == "aioregistry.console" and record.exc_info]
    assert [record.levelname for record in told] == ["WARNING"]


async def test_what_waits_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioregistry._console.recorder._WAITING", 10)
    history = History(path, days=1, limit=256 * MIB)
    recorder = Recorder(history)  # whose thread does not run: a disk that stands still
    accepted = [recorder.put(Event(0, "state", "chat", str(n), "")) for n in range(20)]
    assert accepted == [True] * 10 + [False] * 10
    history.close()


async def test_everything_is_written_at_the_end(path: Path) -> None:
    history = History(path, days=1, limit=256 * MIB)
    with Recorder(history) as recorder:
        for number in range(3000):
            assert recorder.put(StateChange(number, "chat", f"i{number}", state()))
    with Reading(path) as reading:
        assert reading.totals(1e9, None) == {"enabled": 3000}


async def test_a_question_finds_what_was_put_before_it(path: Path) -> None:
    """A page that was told of a change asks once, and showed a history without it for good."""
    with Recorder(History(path, days=1, limit=256 * MIB)) as recorder:
        for number in range(50):
            assert recorder.put(StateChange(number, "chat", f"i{number}", state()))
            assert recorder.ask(lambda reading: reading.totals(1e9, None)) == {"enabled": number + 1}


async def test_a_question_that_cannot_be_answered_says_why(path: Path) -> None:
    history = History(path, days=1, limit=256 * MIB)
    with Recorder(history) as recorder:

        def wrong(reading: Reading) -> None:
            reading._ask("SELECT nonsense")

        with pytest.raises(HistoryUnavailable, match="the history cannot be used"):
            recorder.ask(wrong)
        assert recorder.ask(lambda reading: reading.totals(0, None)) == {}
