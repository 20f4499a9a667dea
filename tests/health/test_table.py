"""Every state meets every result, with every number in a row that matters."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._health.table import _TABLE, STARTING, CheckHealth, CheckState, Result, after, patience, pause

PASSED, FAILED, OVERDUE = Result
COUNTS = range(1, 5)


def test_the_table_has_every_state_and_every_result() -> None:
    assert set(_TABLE) == set(itertools.product(CheckState, Result))


@pytest.mark.parametrize(("rise", "fall"), [*itertools.product(COUNTS, COUNTS)])
def test_every_row_of_results(rise: int, fall: int) -> None:
    """Against a plain reading of the rules, for all rows of up to seven results."""
    for length in range(8):
        for row in itertools.product((PASSED, FAILED), repeat=length):
            health = STARTING
            for result in row:
                health = after(health, result, rise=rise, fall=fall)
            assert health.state is expected(row, rise, fall), row


def expected(row: tuple[Result, ...], rise: int, fall: int) -> CheckState:
    if PASSED not in row:
        return CheckState.STARTING
    state = CheckState.PASSING
    rest = row[row.index(PASSED) + 1 :]
    run = 0
    for result in rest:
        against = FAILED if state is CheckState.PASSING else PASSED
        run = run + 1 if result is against else 0
        if run == (fall if state is CheckState.PASSING else rise):
            state = CheckState.FAILING if state is CheckState.PASSING else CheckState.PASSING
            run = 0
    return state


@given(st.lists(st.sampled_from(Result)), st.integers(1, 5), st.integers(1, 5))
def test_overdue_is_failing_at_once_but_before_the_first_success(row: list[Result], rise: int, fall: int) -> None:
    health = STARTING
    for result in [*row, OVERDUE]:
        health = after(health, result, rise=rise, fall=fall)
        assert 0 <= health.against < max(rise, fall)
    assert health == CheckHealth(CheckState.FAILING if PASSED in row else CheckState.STARTING)


def test_what_is_to_count_as_well_before_its_first_result_falls_by_failures() -> None:
    health = CheckHealth(CheckState.PASSING)
    states = []
    for _ in range(3):
        health = after(health, FAILED, rise=1, fall=3)
        states.append(health.state)
    assert states == [CheckState.PASSING, CheckState.PASSING, CheckState.FAILING]


@given(
    st.floats(0.001, 1e6),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 20),
)
def test_failures_in_a_row_are_in_time(interval: float, share: float, draw: float, fall: int) -> None:
    """As long as a run takes no longer than an interval, counting is as fast as the time that is promised."""
    timeout = interval * max(share, 0.001)
    end = sum(timeout + pause(interval=interval, took=timeout, draw=draw) for _ in range(fall)) + timeout
    assert end <= patience(interval=interval, timeout=timeout, fall=fall) * (1 + 1e-9)


def test_the_longest_time_until_a_check_fails_is_its_intervals_and_a_timeout() -> None:
    assert patience(interval=10, timeout=2, fall=3) == 32


def test_a_pause_is_shortened_by_chance_and_never_negative() -> None:
    assert pause(interval=10, took=0, draw=0) == 10
    assert pause(interval=10, took=0, draw=1) == 9
    assert pause(interval=10, took=2, draw=0) == 8
    assert pause(interval=10, took=20, draw=0) == 0
