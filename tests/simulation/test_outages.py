"""The worth of the guard in an outage, in small: the table of docs/guard.md is `python -m benchmarks.outages`."""

from __future__ import annotations

from collections import Counter

from benchmarks.outages import (
    CONSUMERS,
    MEASURED,
    TICK,
    Tally,
    all_die,
    measured,
    most_die,
    rolling_restart,
    row,
    the_instances_are_cut_off,
    two_thirds_are_cut_off,
)

SMALL = 4


def test_who_has_a_guard_reaches_what_zookeeper_lost_sight_of() -> None:
    found = measured(the_instances_are_cut_off, [0], instances=SMALL)
    (without,), (guarded,), (reporting,) = found.values()
    assert without.nothing > 10 / TICK
    assert without.dead == guarded.dead == guarded.nothing == reporting.dead == reporting.nothing == 0
    assert guarded.reached >= MEASURED / TICK - 2


def test_who_is_left_does_not_get_every_call_where_calls_are_reported() -> None:
    (without,), (_,), (reporting,) = measured(two_thirds_are_cut_off, [0], instances=6).values()
    assert without.reached == reporting.reached
    assert without.busiest(6) > 2.5  # two of six, which live, are shown
    assert reporting.busiest(6) < 2


def test_the_guard_keeps_a_service_for_its_hold_when_all_are_dead_unless_calls_tell() -> None:
    """Refusals of all for five seconds, without an answer, are enough: with reports it costs no more than no guard."""
    (without,), (guarded,), (reporting,) = measured(all_die, [0], instances=SMALL).values()
    assert without.reached == guarded.reached == reporting.reached == 0
    assert guarded.seconds_on_dead > without.seconds_on_dead + 25.0
    assert reporting.seconds_on_dead < without.seconds_on_dead + 6.0


def test_reports_let_the_dead_go_while_others_answer() -> None:
    (without,), (guarded,), (reporting,) = measured(most_die, [0]).values()
    assert abs(guarded.seconds_on_dead - without.seconds_on_dead) < 3.0  # it hears nothing, so suspects come last
    assert reporting.seconds_on_dead < without.seconds_on_dead + 1.0
    assert reporting.nothing == 0


def test_a_withdrawal_is_never_held_and_the_same_seed_gives_the_same() -> None:
    once, again = (measured(rolling_restart, [3], instances=SMALL) for _ in range(2))
    assert once == again
    assert all(tally.dead == tally.nothing == 0 for tallies in once.values() for tally in tallies)


def test_a_row_of_the_table() -> None:
    assert Tally(by_window={0: Counter(a=50, b=50), 1: Counter(a=75)}).busiest(4) == 3.0
    tallies = [Tally(reached=90, dead=10), Tally(reached=70, nothing=30)]
    assert row("x", dict.fromkeys(CONSUMERS, tallies)).startswith("| x | 80.0 % / 0.5 s / 1.5 s / 0.0 |")
