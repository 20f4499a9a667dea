"""Waiting before connecting again, and how long one attempt may take: bounded by the session's life, for ever."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._session.backoff import (
    CAP,
    FIRST,
    HEARTBEATS_PER_TIMEOUT,
    PATIENCE,
    attempt_deadline,
    handshake_deadline,
    lookup_deadline,
    may_look_up,
    retry_delay,
    throttled_patience,
    throttled_pause,
)

timeouts = st.floats(0.1, 3600)
failures = st.integers(0, 10**9)


def highest(low: float, high: float) -> float:
    return high


def test_the_shares_of_the_timeout_are_what_they_are_meant_to_be() -> None:
    assert lookup_deadline(24.0) == 1.0
    assert throttled_patience(3.0) == 2.0
    assert HEARTBEATS_PER_TIMEOUT == 3


@pytest.mark.parametrize(
    ("attempts", "timeout", "between"),
    [
        (0, 3600.0, (0.025, 0.05)),
        (1, 3600.0, (0.05, 0.1)),
        (100, 3600.0, (0.5, 1.0)),
        (100, 1.2, (0.05, 0.1)),
    ],
)
def test_a_throttled_request_waits_for_half_of_its_pause_at_least(
    attempts: int, timeout: float, between: tuple[float, float]
) -> None:
    assert throttled_pause(attempts, timeout, lambda low, high: low) == pytest.approx(between[0])
    assert throttled_pause(attempts, timeout, highest) == pytest.approx(between[1])


class TestRetryDelay:
    @given(timeouts)
    def test_the_first_goes_at_once(self, timeout: float) -> None:
        assert retry_delay(0, timeout, highest) == 0

    @given(failures, timeouts)
    def test_never_ends_and_never_exceeds_the_cap(self, failures: int, timeout: float) -> None:
        assert 0 <= retry_delay(failures, timeout, highest) <= min(CAP, timeout / 12)

    def test_it_doubles_up_to_a_twelfth_of_the_timeout(self) -> None:
        longest = [retry_delay(failures, 2.4, highest) for failures in (1, 2, 3, 4, 10**6)]
        assert longest == pytest.approx([0.05, 0.1, 0.2, 0.2, 0.2])
        assert retry_delay(10**6, 1e6, highest) == CAP == 0.25

    @given(st.integers(1, 10**9), timeouts)
    def test_has_full_jitter(self, failures: int, timeout: float) -> None:
        assert retry_delay(failures, timeout, lambda low, high: low) == 0

    @given(st.integers(1, 10**9), timeouts, st.integers())
    def test_draws_once_from_what_it_is_given(self, failures: int, timeout: float, seed: int) -> None:
        draws: list[tuple[float, float]] = []

        def draw(low: float, high: float) -> float:
            draws.append((low, high))
            return random.Random(seed).uniform(low, high)

        delay = retry_delay(failures, timeout, draw)
        ((low, high),) = draws
        assert low <= delay <= high

    @given(st.integers(1, 10**6), timeouts)
    def test_grows(self, failures: int, timeout: float) -> None:
        assert retry_delay(failures, timeout, highest) <= retry_delay(failures + 1, timeout, highest)

    def test_the_first_steps(self) -> None:
        assert [retry_delay(count, 60, highest) for count in range(1, 6)] == [FIRST, 0.1, 0.2, CAP, CAP]


class TestAttemptDeadline:
    @given(timeouts, st.floats(0, 1), st.integers(1, 20))
    def test_all_candidates_that_hang_do_not_outlast_the_session(
        self, timeout: float, share: float, candidates: int
    ) -> None:
        left = max(share, 0.1) * timeout
        assert attempt_deadline(timeout, left, candidates) * candidates <= left * (1 + 1e-9)

    @given(failures, timeouts, st.floats(-1e6, 1e6) | st.just(float("-inf")), st.integers(0, 20))
    def test_with_the_retry_and_the_lookup_it_stays_below_a_third_of_the_timeout(
        self, failures: int, timeout: float, left: float, candidates: int
    ) -> None:
        """An ensemble that returns restarts the timers of its sessions: who is deaf for longer loses its own."""
        waited = retry_delay(failures, timeout, highest) + lookup_deadline(timeout)
        assert 0 < waited + attempt_deadline(timeout, left, candidates) < timeout / 3

    @given(timeouts, st.floats(-1e6, 0) | st.just(float("-inf")), st.integers(1, 4))
    def test_where_nothing_is_left_to_save_there_is_time(self, timeout: float, left: float, candidates: int) -> None:
        """A server that is slow, because everybody comes back at once, must be reached in the end."""
        assert attempt_deadline(timeout, left, candidates) == timeout / 5

    @given(timeouts, st.integers(1, 20))
    def test_in_the_last_moment_there_is_still_some(self, timeout: float, candidates: int) -> None:
        assert attempt_deadline(timeout, 1e-9, candidates) == pytest.approx(timeout / 10 / candidates)


class TestLookingUp:
    @given(st.lists(st.floats(0, 1e6), max_size=20))
    def test_is_bounded(self, ages: list[float]) -> None:
        assert may_look_up(ages) == (len(ages) < 3 and min(ages, default=1e9) >= 2.0 ** (len(ages) - 1))

    def test_the_first_steps(self) -> None:
        """One at once, one beside it after a second, one more two seconds after that."""
        running: list[float] = []
        for tick in range(200):
            if may_look_up([tick / 10 - began for began in running]):
                running.append(tick / 10)
        assert running == [0.0, 1.0, 3.0]


class TestHandshakeDeadline:
    @given(failures, timeouts, timeouts)
    def test_never_exceeds_what_the_attempt_may_take(self, unanswered: int, took: float, longest: float) -> None:
        assert 0 < handshake_deadline(unanswered, took, longest) <= longest

    @given(timeouts)
    def test_a_slow_server_gets_all_there_is_in_the_end(self, longest: float) -> None:
        assert handshake_deadline(14, 0.0, longest) == min(longest, PATIENCE * 1024)

    def test_the_first_steps(self) -> None:
        assert [handshake_deadline(count, 0.001, 3) for count in range(5)] == [PATIENCE, 0.5, 1, 2, 3]

    def test_a_server_that_is_far_away(self) -> None:
        assert handshake_deadline(0, 0.2, 3) == pytest.approx(0.8)
