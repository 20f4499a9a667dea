"""The fate of a registration: the table, whole, and the status that follows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._errors import RegistrationDisplaced, RegistrationError
from aioregistry._registration.lifecycle import GOALS, LEAVING, LINES, MOVES, OVER, Stage, Status, Turn, moved, status
from aioregistry._registration.plan import Goal

WANTED = {Stage.CLAIMING, Stage.LISTED, Stage.STANDBY}
TURNS = list(itertools.product(Stage, Turn))


def test_the_log_has_a_line_for_every_status() -> None:
    assert set(LINES) == set(Status) - {Status.CLOSED}
    said = {"where": "10.0.0.7:7000", "session": "0x1", "timeout": 10.0, "why": "it is"}
    assert all("{" not in line.format_map(said) for line in LINES.values())


def test_every_stage_and_every_turn_is_in_the_table() -> None:
    assert set(MOVES) == set(Stage)
    assert {turn for row in MOVES.values() for turn in row} == set(Turn)
    assert {stage for row in MOVES.values() for stage in row.values()} == set(Stage) - {Stage.CLAIMING}
    assert set(Stage) == WANTED | LEAVING
    assert not WANTED & LEAVING
    assert LEAVING - {Stage.CLOSING} == OVER


@pytest.mark.parametrize(("stage", "turn"), TURNS, ids=lambda each: each.name)
def test_where_each_turn_leads(stage: Stage, turn: Turn) -> None:
    if turn is Turn.DISPLACED:
        # Only whoever wants the node, and does not wait for its going already, yields to a newer claimant.
        if stage not in (Stage.CLAIMING, Stage.LISTED):
            with pytest.raises(KeyError):
                moved(stage, turn)
            return
        expected = Stage.STANDBY
    elif turn is Turn.SEEN:
        expected = Stage.LISTED if stage in WANTED else stage
    elif turn is Turn.CLOSE:
        expected = Stage.CLOSED if stage in OVER else Stage.CLOSING
    else:
        expected = Stage.CLOSED if stage in (Stage.CLOSING, Stage.CLOSED) else Stage.ENDED
    assert moved(stage, turn) is expected


@given(st.lists(st.sampled_from(Turn), max_size=12))
def test_whoever_leaves_is_never_listed_again_and_what_was_closed_stays_so(turns: list[Turn]) -> None:
    stage = Stage.CLAIMING
    for turn in turns:
        if turn not in MOVES[stage]:
            continue
        before, stage = stage, moved(stage, turn)
        assert stage in LEAVING or before not in LEAVING
        assert stage in OVER or before not in OVER
        assert stage is Stage.CLOSED or before is not Stage.CLOSED


def test_what_the_node_is_to_become() -> None:
    assert {stage for stage, goal in GOALS.items() if goal is Goal.WITHDRAWN} == LEAVING
    assert GOALS[Stage.LISTED] is Goal.LISTED
    assert GOALS[Stage.STANDBY] is Goal.LISTED_IN_TURN
    assert Stage.CLAIMING not in GOALS  # at first the owner chooses


DISPLACED, REFUSED = RegistrationDisplaced("/a", 7), RegistrationError("/a", "refused")


def test_which_status_follows() -> None:
    ended_as = {None: Status.CLOSED, DISPLACED: Status.DISPLACED, REFUSED: Status.FAILED}
    either = (False, True)
    for stage, cause, displaced, owned, presumed_expired, seen_here in itertools.product(
        Stage, ended_as, either, either, either, either
    ):
        known = status(
            stage, cause=cause, displaced=displaced, owned=owned, presumed_expired=presumed_expired, seen_here=seen_here
        )
        if stage in OVER:
            expected = ended_as[cause]
        elif displaced:
            expected = Status.DISPLACED
        elif not owned:
            expected = Status.CLOSED if stage is Stage.CLOSING else Status.REGISTERING
        elif presumed_expired:
            expected = Status.PRESUMED_GONE
        else:
            expected = Status.LIVE if seen_here else Status.UNCERTAIN
        assert known is expected
