"""The table of moves: complete, the one that is judged by, and the one in the docs."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from aioregistry._session.attempts import REMEDIES, AttemptOutcome, Attempts, failed_in_words
from aioregistry._session.states import ENDED, MOVES, SERVING, SessionState, diagram
from tests.support.checkers import Violated, check_legal

PAGE = Path(__file__).parents[2] / "docs" / "session.md"
GENERATED = re.compile(r"<!-- states: generated -->\n\n```mermaid\n(.*?)\n```\n\n<!-- states: end -->", re.DOTALL)


@pytest.mark.parametrize(("state", "following"), list(product(SessionState, SessionState)))
def test_the_table_and_the_checker_agree(state: SessionState, following: SessionState) -> None:
    if following in MOVES[state]:
        check_legal([following.value], before=state.value)
    else:
        with pytest.raises(Violated, match=f"Legal: from {state.value} to {following.value}"):
            check_legal([following.value], before=state.value)


def test_every_state_is_in_the_table() -> None:
    assert set(MOVES) == set(SessionState)


def test_what_has_ended_moves_nowhere() -> None:
    assert {state for state in SessionState if not MOVES[state]} == ENDED


def test_from_everywhere_else_it_can_end() -> None:
    assert all(following >= ENDED for state, following in MOVES.items() if state not in ENDED)


def test_serving_is_only_left_by_losing_the_connection_or_ending() -> None:
    assert {SessionState.CONNECTED, SessionState.RECONNECTED} == SERVING
    for state in SERVING:
        assert MOVES[state] == {SessionState.SUSPENDED} | ENDED


def test_the_diagram_shows_every_move_and_no_other() -> None:
    drawn = set(re.findall(r"^ +(\S+) --> (\S+)$", diagram(), re.MULTILINE))
    moves = {(state.value, other.value) for state, following in MOVES.items() for other in following}
    ends = {(state.value, "[*]") for state in ENDED}
    assert drawn == moves | ends | {("[*]", "disconnected")}


def test_the_diagram_in_the_docs_is_the_table() -> None:
    found = GENERATED.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None, "docs/session.md has lost its markers"
    assert found[1] == diagram(), "put states.diagram() between the markers of docs/session.md"


def test_every_outcome_of_an_attempt_is_counted_in_words_but_those_that_did_not_fail() -> None:
    fine = {AttemptOutcome.PENDING, AttemptOutcome.ACCEPTED}
    assert {outcome for outcome in AttemptOutcome if not failed_in_words({outcome: 1})} == fine
    assert failed_in_words({AttemptOutcome.SILENT: 1}) == "1 attempt failed: without an answer in time"
    assert failed_in_words({AttemptOutcome.REFUSED: 93}) == "93 attempts failed: all refused"
    ended = {AttemptOutcome.SILENT: 5, AttemptOutcome.REFUSED: 106, AttemptOutcome.ACCEPTED: 2}
    assert failed_in_words(ended) == "111 attempts failed: 106 refused, 5 without an answer in time"


def test_every_outcome_of_an_attempt_has_a_remedy() -> None:
    assert set(REMEDIES) == set(AttemptOutcome)
    assert [outcome for outcome, remedy in REMEDIES.items() if not remedy] == [AttemptOutcome.PENDING]
    attempts = Attempts()
    assert attempts.remedies() == ""
    attempts.begin("a:1", "no connection yet", 1.0)
    assert attempts.remedies() == ""
    for address in ("b:1", "c:1"):
        attempts.note(address, AttemptOutcome.REFUSED, "the connection was refused", 1.0)
    attempts.note("d:1", AttemptOutcome.NO_QUORUM, "has no quorum", 1.0)
    assert attempts.remedies() == f"{REMEDIES[AttemptOutcome.REFUSED]}; {REMEDIES[AttemptOutcome.NO_QUORUM]}"
