"""The outcomes of connecting, address by address: what is told of an outage, and what is counted of all."""

from __future__ import annotations

from types import SimpleNamespace

from aioregistry._session.attempts import Attempt, AttemptOutcome, Attempts, failed_in_words, outage_attempts

PENDING, REFUSED, SILENT = AttemptOutcome.PENDING, AttemptOutcome.REFUSED, AttemptOutcome.SILENT


def test_the_last_answer_is_told_with_how_often_it_came_in_a_row() -> None:
    attempts = Attempts()
    attempts.note("a:1", REFUSED, "refused", 10.0)
    assert attempts.words() == {"a:1": "refused"}
    attempts.note("a:1", REFUSED, "refused again", 12.5)
    assert attempts["a:1"] == Attempt(REFUSED, "refused again", 10.0, 12.5, 2)
    assert attempts.words() == {"a:1": "refused again (2 times in 2.5 s)"}
    attempts.note("b:1", SILENT, "silent", 13.0)
    attempts.note("a:1", SILENT, "silent", 14.0)
    assert attempts["a:1"] == Attempt(SILENT, "silent", 14.0, 14.0, 1)
    assert (list(attempts), len(attempts)) == (["a:1", "b:1"], 2)
    assert attempts.ended == {REFUSED: 2, SILENT: 2}


def test_what_is_under_way_is_told_only_where_there_is_no_answer() -> None:
    attempts = Attempts()
    attempts.begin("a:1", "looking it up", 1.0)
    attempts.begin("a:1", "connecting", 2.0)
    assert attempts["a:1"] == Attempt(PENDING, "connecting", 2.0, 2.0, 1)
    assert not attempts.finished
    attempts.note("a:1", REFUSED, "refused", 3.0)
    assert attempts.finished
    attempts.begin("a:1", "connecting", 4.0)
    assert attempts["a:1"] == Attempt(REFUSED, "refused", 3.0, 3.0, 1)
    assert attempts.ended == {REFUSED: 1}


def test_a_name_gives_way_to_its_addresses_unless_it_is_an_address_that_answered() -> None:
    attempts = Attempts()
    attempts.resolved("unknown:1")
    attempts.begin("name:1", "looking it up", 1.0)
    attempts.resolved("name:1")
    assert attempts.words() == {}
    attempts.note("name:1", AttemptOutcome.UNRESOLVED, "has no address", 2.0)
    attempts.resolved("name:1")
    assert attempts.words() == {}
    attempts.note("a:1", REFUSED, "refused", 3.0)
    attempts.resolved("a:1")
    assert attempts.words() == {"a:1": "refused"}


def test_an_outage_that_is_over_is_told_until_the_next_attempt() -> None:
    attempts = Attempts()
    attempts.note("a:1", REFUSED, "refused", 1.0)
    attempts.over = True
    assert (attempts.finished, attempts.words()) == (False, {"a:1": "refused"})
    attempts.begin("b:1", "connecting", 5.0)
    assert (attempts.over, attempts.finished, attempts.words()) == (False, False, {"b:1": "connecting"})
    attempts.over = True
    attempts.note("c:1", SILENT, "silent", 9.0)
    assert (attempts.finished, attempts.words()) == (True, {"c:1": "silent"})
    assert attempts.ended == {REFUSED: 1, SILENT: 1}


def test_of_more_than_64_addresses_the_one_that_was_tried_longest_ago_is_forgotten() -> None:
    attempts = Attempts()
    for number in range(64):
        attempts.note(f"a{number}:1", REFUSED, "refused", float(number))
    attempts.note("a0:1", REFUSED, "refused", 64.0)
    assert (len(attempts), list(attempts)[:2]) == (64, ["a0:1", "a1:1"])
    attempts.note("b:1", SILENT, "silent", 65.0)
    assert len(attempts) == 64
    assert "a1:1" not in attempts
    assert {"a0:1", "a2:1", "b:1"} <= attempts.keys()


def test_what_failed_is_counted_and_what_did_not_is_not() -> None:
    assert failed_in_words({}) == failed_in_words({REFUSED: 0, AttemptOutcome.ACCEPTED: 3}) == ""
    assert failed_in_words({REFUSED: 0, SILENT: 1}) == "1 attempt failed: without an answer in time"
    assert failed_in_words({REFUSED: 1, SILENT: 1}) == "2 attempts failed: 1 refused, 1 without an answer in time"


def test_attempts_are_told_of_a_session_that_has_no_connection() -> None:
    attempts = Attempts()
    attempts.note("a:1", REFUSED, "refused", 1.0)
    assert outage_attempts(SimpleNamespace(connected=False, attempts=attempts)) == {"a:1": "refused"}
    assert outage_attempts(SimpleNamespace(connected=True, attempts=attempts)) == {}
