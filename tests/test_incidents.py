"""A repetition is told once, then counted, then summed up; nothing is lost, and nothing floods."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._incident_log import _KINDS_KEPT, IncidentLog
from aioregistry._incidents import FIRST_PAUSE, LONGEST_PAUSE, QUIET, Incident, Report
from tests.session.simulation import World, simulated

log = logging.getLogger("aioregistry.test")


class TestIncident:
    def test_one_occurrence_needs_no_more_words(self) -> None:
        incident = Incident(10.0)
        assert incident.due == 10 + QUIET
        assert incident.report(10 + QUIET - 0.1) is None
        assert incident.report(10 + QUIET) == Report(0, QUIET, 1, 0.0, collapsed=False, over=True)

    def test_the_next_are_counted_after_a_pause(self) -> None:
        incident = Incident(0.0)
        incident.occurred(0.1)
        incident.occurred(0.2)
        assert incident.report(0.2) is None
        assert incident.due == FIRST_PAUSE
        assert incident.report(FIRST_PAUSE) == Report(2, FIRST_PAUSE, 3, 0.2, collapsed=True, over=False)
        assert incident.due == 0.2 + QUIET
        assert incident.report(incident.due) == Report(0, 0.2 + QUIET - FIRST_PAUSE, 3, 0.2, collapsed=True, over=True)

    def test_an_end_sums_up_at_once(self) -> None:
        incident = Incident(0.0)
        incident.occurred(0.1)
        assert incident.report(0.1, ending=True) == Report(1, 0.1, 2, 0.1, collapsed=True, over=True)

    @given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
    def test_every_occurrence_is_told_once_and_lines_are_apart(self, gaps: list[float]) -> None:
        now, told = 0.0, [0.0]
        counted = started = 0
        incident: Incident | None = None

        def hear(incident: Incident, until: float) -> Incident | None:
            nonlocal counted
            while incident.due <= until:
                due = incident.due
                report = incident.report(due)
                assert report is not None
                counted += report.new
                if report.over:
                    return None
                told.append(due)
            return incident

        for gap in gaps:
            now += gap
            incident = hear(incident, now) if incident is not None else None
            if incident is None:
                started += 1
                incident, told = Incident(now), [now]
            else:
                incident.occurred(now)
            assert all(after - before >= FIRST_PAUSE - 1e-9 for before, after in itertools.pairwise(told))
        if incident is not None:
            assert hear(incident, now + 10 * LONGEST_PAUSE) is None
        assert started + counted == len(gaps)

    def test_an_incident_that_lasts_is_told_of_ever_more_rarely(self) -> None:
        incident, told, now = Incident(0.0), [0.0], 0.0
        while now < 3600:
            now += 0.05
            incident.occurred(now)
            if incident.report(now):
                told.append(now)
        assert 60 < len(told) < 70
        pauses = [after - before for before, after in itertools.pairwise(told)]
        assert pauses[:7] == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0], abs=0.2)
        assert pauses[-1] == pytest.approx(60.0, abs=0.1)


class TestIncidentLog:
    @simulated
    async def test_two_hundred_at_once_are_three_lines(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        repeated = IncidentLog(log)
        for number in range(200):
            repeated.tell("gone", logging.WARNING, "number %d is gone", number)
        await asyncio.sleep(60)
        assert [record.getMessage() for record in caplog.records] == [
            "number 0 is gone",
            "199 more like this in the last 1.0 s, 200 in all, for example: number 199 is gone",
            "this has stopped: 200 in all, within 0.1 s, the last: number 199 is gone",
        ]
        assert {record.levelno for record in caplog.records} == {logging.WARNING}
        repeated.close()
        assert len(caplog.records) == 3

    @pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
    @simulated
    async def test_a_handful_below_a_warning_is_written_as_it_is_and_at_once(
        self, level: int, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(level)
        repeated = IncidentLog(log)
        for number in range(5):
            repeated.tell("listed", level, "number %d is listed", number, id=str(number))
        whole = [f"number {number} is listed" for number in range(5)]
        assert [record.getMessage() for record in caplog.records] == whole
        assert [vars(record)["id"] for record in caplog.records] == ["0", "1", "2", "3", "4"]
        await asyncio.sleep(60)
        repeated.close()
        assert [record.getMessage() for record in caplog.records] == whole

    @simulated
    async def test_what_follows_a_handful_is_one_line_a_second(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        repeated = IncidentLog(log)
        for number in range(200):
            repeated.tell("listed", logging.INFO, "number %d is listed", number)
        assert len(caplog.records) == 5
        await asyncio.sleep(60)
        assert [record.getMessage() for record in caplog.records][5:] == [
            "195 more like this in the last 1.0 s, 200 in all, for example: number 199 is listed"
        ]
        repeated.close()
        assert len(caplog.records) == 6

    @simulated
    async def test_counts_have_the_fields_that_were_the_same_each_time(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        repeated = IncidentLog(log, service="chat")
        for id in ("a", "a"):
            repeated.tell("same", logging.WARNING, "%s fails", id, id=id, check="port")
        for id in ("a", "b"):
            repeated.tell("gone", logging.WARNING, "%s is gone", id, id=id)
        repeated.close()
        told = [
            {name: value for name, value in vars(record).items() if name in ("service", "id", "check")}
            for record in caplog.records
        ]
        assert told == [
            {"service": "chat", "id": "a", "check": "port"},
            {"service": "chat", "id": "a"},
            {"service": "chat", "id": "a", "check": "port"},
            {"service": "chat"},
        ]

    @simulated
    async def test_counts_show_the_first_line_of_a_traceback(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        repeated = IncidentLog(log)
        for _ in range(2):
            repeated.tell("defect", logging.ERROR, "%s\n%s", "it failed", "Traceback")
        repeated.close()
        first, last = (record.getMessage() for record in caplog.records)
        assert first == "it failed\nTraceback"
        assert last.endswith("it failed")

    @simulated
    async def test_what_trickles_is_counted(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        repeated = IncidentLog(log)
        for number in range(1200):  # a minute of 20 a second
            repeated.tell("gone", logging.WARNING, "number %d is gone", number)
            await asyncio.sleep(0.05)
        await asyncio.sleep(60)
        assert len(caplog.records) < 10
        assert "this has stopped: 1200 in all, within " in caplog.records[-1].getMessage()

    @simulated
    async def test_kinds_do_not_hide_each_other(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        repeated = IncidentLog(log)
        for kind in ("a", "b", "a"):
            repeated.tell(kind, logging.WARNING, "%s", kind)
        assert [record.getMessage() for record in caplog.records] == ["a", "b"]
        repeated.close()
        assert "the last: a" in caplog.records[-1].getMessage()

    @simulated
    async def test_the_second_incident_of_a_kind_is_told_at_once(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        repeated = IncidentLog(log)
        for _ in range(2):
            repeated.tell("a", logging.WARNING, "a")
            await asyncio.sleep(QUIET + 1)
        assert [record.getMessage() for record in caplog.records] == ["a", "a"]

    @simulated
    async def test_kinds_are_bounded(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        repeated = IncidentLog(log)
        for number in range(2 * _KINDS_KEPT):
            repeated.tell(number, logging.WARNING, "%d", number)
            repeated.tell(number, logging.WARNING, "%d", number)
        assert len(repeated._told) == _KINDS_KEPT
        assert len(caplog.records) == 3 * _KINDS_KEPT
        repeated.close()
        assert len(caplog.records) == 4 * _KINDS_KEPT

    @simulated
    async def test_a_closed_one_leaves_no_timer(self, world: World) -> None:
        repeated = IncidentLog(log)
        repeated.tell("a", logging.WARNING, "a")
        assert repeated._alarm.when is not None
        repeated.close()
        repeated.close()
        assert repeated._alarm.when is None
