"""The worth of the rules of choosing, one seed each; the table of docs/balancing.md has five."""

from __future__ import annotations

import pytest

from benchmarks.choosing import (
    SCENARIOS,
    Outcome,
    Scenario,
    all_dead,
    black_hole,
    comeback,
    half_open,
    lockstep,
    lockstep_of,
    low_traffic,
    low_traffic_of,
    measured,
    minute_long_sessions,
    outstanding,
    retry_beyond_the_zone,
    retry_by_key,
    retry_by_weight,
    retry_to_suspects,
    row,
    slow_path,
    zone_cut_off,
)


@pytest.mark.parametrize("strategy", ["round-robin", "random", "least-outstanding"])
def test_a_service_that_comes_back_is_not_run_down(strategy: str) -> None:
    without, with_rule = comeback(1, False, strategy), comeback(1, True, strategy)
    assert without.failed > 0.05
    assert with_rule.failed < 0.01
    assert with_rule.busiest < 3


def test_the_dead_are_found_out_soon() -> None:
    assert all_dead(1, True).failed < 0.03


def test_ordinary_failures_do_not_empty_a_service_of_suspects() -> None:
    assert slow_path(1, False).failed > 0.5
    assert slow_path(1, True).failed < 0.1


@pytest.mark.parametrize("scenario", [retry_beyond_the_zone, retry_by_weight, retry_to_suspects, retry_by_key])
def test_a_retry_finds_another(scenario: Scenario) -> None:
    assert scenario(1, False).failed > 0.05
    assert scenario(1, True).failed == 0


def test_an_instance_that_swallows_packets_fails_no_request() -> None:
    assert black_hole(1, False).failed > 0.3
    assert black_hole(1, True).failed == 0


def test_consumers_do_not_go_in_step() -> None:
    assert lockstep(1, False).busiest == 20  # all at one of twenty
    assert lockstep(1, True).busiest < lockstep_of(1, "random").busiest * 1.15  # what chance gives


def test_where_calls_are_rarer_than_pauses_a_dead_instance_is_found_dead_again() -> None:
    """Without ejection one call in twenty fails; while time counted as evidence, ejection hardly helped."""
    assert low_traffic_of(1, None).failed > 0.04
    assert low_traffic(1, False).failed > 0.02
    assert low_traffic(1, True).failed < 0.007


def test_one_call_at_a_time_probes_who_returns() -> None:
    without, with_rule = half_open(1, False), half_open(1, True)
    assert without.busiest >= 1  # as many as come until the first has failed: ten, and more by chance
    assert with_rule.busiest == 0.1  # one call
    assert with_rule.failed < without.failed / 5


@pytest.mark.parametrize("manner", ["disabled", "expired", "another id", "listed before"])
def test_calls_under_way_are_not_forgotten(manner: str) -> None:
    assert outstanding(1, False, manner).busiest > 1.4
    assert outstanding(1, True, manner).busiest < 1.2


def test_sessions_of_a_minute_leave_no_empty_list() -> None:
    assert minute_long_sessions(1, False).failed > 0
    assert minute_long_sessions(1, True).failed == 0


def test_a_zone_that_is_cut_off_is_not_left_empty() -> None:
    assert zone_cut_off(1, False).failed == 1
    assert zone_cut_off(1, True).failed == 0


def test_a_row_of_the_table() -> None:
    assert row("x", [Outcome(0.125, 3.04), Outcome(0.0, 1.0)]) == "| x | 12.5 % / 3.0 | 0.0 % / 1.0 |"
    assert all(SCENARIOS)
    assert len(list(measured(outstanding, [1]))) == 2
