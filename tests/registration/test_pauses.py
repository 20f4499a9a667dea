"""How long a registration rests after failures in a row: a little, then longer, and never longer than five seconds."""

from __future__ import annotations

import pytest

from aioregistry._errors import NoAuth, RegistryError, Throttled
from aioregistry._registration.pauses import FIRST_PAUSE, FREE_ATTEMPTS, LONGEST_PAUSE, SOON, Pauses

REFUSED, DROPPED = NoAuth("/services/chat/a"), Throttled("/services/chat/a")


def rested(failures: int, error: RegistryError, timeout: float = 3600.0) -> tuple[float, float]:
    """The bounds that the pause after so many failures is drawn from."""
    pauses, bounds = Pauses(), list[tuple[float, float]]()
    for _ in range(failures):
        pauses.failed()

    def draw(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    assert pauses.length(error, timeout, draw) == bounds[0][1]
    return bounds[0]


def test_the_numbers_are_those_of_the_docstrings() -> None:
    assert (FIRST_PAUSE, LONGEST_PAUSE, SOON, FREE_ATTEMPTS) == (0.05, 5.0, 10, 4)


def test_a_pause_doubles_with_each_failure_up_to_the_longest_with_full_jitter() -> None:
    ceilings = [rested(failures, REFUSED) for failures in (0, 1, 2, 3, 6, 7, 10**4)]
    assert ceilings == [(0.0, most) for most in (0.05, 0.1, 0.2, 0.4, 3.2, 5.0, 5.0)]


@pytest.mark.parametrize(
    ("failures", "bounds"), [(0, (0.025, 0.05)), (1, (0.05, 0.1)), (9, (0.5, 1.0)), (10, (0.5, 1.0)), (11, (0.0, 5.0))]
)
def test_an_overloaded_server_is_asked_soon_for_ten_times(failures: int, bounds: tuple[float, float]) -> None:
    assert rested(failures, DROPPED) == pytest.approx(bounds)


def test_so_soon_goes_by_the_session_timeout() -> None:
    assert rested(10, DROPPED, timeout=1.2) == pytest.approx((0.05, 0.1))
    assert rested(7, REFUSED, timeout=1.2) == (0.0, 5.0)


def test_a_success_begins_anew() -> None:
    pauses = Pauses()
    assert pauses.failures == 0
    pauses.failed()
    pauses.failed()
    assert pauses.failures == 2
    assert [pauses.is_free(overtaken=True) for _ in range(FREE_ATTEMPTS + 1)] == [True] * FREE_ATTEMPTS + [False]
    pauses.succeeded()
    assert pauses.failures == 0
    assert pauses.is_free(overtaken=True)


def test_only_what_was_overtaken_is_free_and_four_times_in_a_row_at_most() -> None:
    pauses = Pauses()
    assert not pauses.is_free(overtaken=False)
    free = [pauses.is_free(overtaken=True) for _ in range(6)]
    assert free == [True, True, True, True, False, False]
    assert not pauses.is_free(overtaken=False)
    assert pauses.is_free(overtaken=True)
