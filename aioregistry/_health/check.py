"""A check: what to ask, how often, for how long, and how many answers count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

from aioregistry._arguments import check_choice, check_count, check_seconds
from aioregistry._errors import InvalidType
from aioregistry._reprs import shown_half_made

from .table import STARTING, CheckHealth, CheckState

__all__ = ["Check", "CheckFailed", "first_health"]

Initial = Literal["failing", "passing"]

_MOST_RESULTS: Final = 1_000_000
"""Results in a row: a day of them, ten each second. No float holds the seconds that every int asks for."""


class CheckFailed(Exception):
    """A ready-made check failed; its text is the reason."""


@shown_half_made
class Check:
    """An async function that is called again and again to find out whether an instance is well.

    A call fails if it raises anything, returns False, or takes longer than *timeout*; every other call passes. A call
    that returns another awaitable fails, too: an ``await`` is missing. One call runs at a time. A call that takes
    longer than *timeout* is cancelled; if it goes on nevertheless, it counts as failed until it ends. It runs on the
    loop of the registration: run code that blocks in a thread.

    Args:
        probe: an async function without arguments, or a plain one that returns an awaitable. A plain function that
            returns anything else counts as failed: it would block the loop, and only a call can show it.
        interval: seconds from the start of one call to the start of the next; up to a tenth less, at random.
        timeout: seconds that a call may take.
        rise: successes in a row after which a failing check passes, a million at most; the very first success is enough
            by itself.
        fall: failures in a row after which a passing check fails; a million at most.
        initial: the verdict before its first result: ``"failing"``, or ``"passing"``.

    Raises:
        InvalidArgument: an argument is wrong; names it and its value.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[object]],
        *,
        interval: float = 5.0,
        timeout: float = 1.0,
        rise: int = 1,
        fall: int = 3,
        initial: Initial = "failing",
    ) -> None:
        if not callable(probe):
            raise InvalidType("probe", probe, "give an async function without arguments")
        check_seconds("interval", interval)
        check_seconds("timeout", timeout)
        check_count("rise", rise, at_most=_MOST_RESULTS)
        check_count("fall", fall, at_most=_MOST_RESULTS)
        check_choice("initial", initial, ("failing", "passing"))
        self.probe = probe
        self.interval: float = float(interval)
        self.timeout: float = float(timeout)
        self.rise = rise
        self.fall = fall
        self.initial: Initial = initial

    def describe(self) -> str:
        """Return the subject of the check, as text: its URL, address, command or function."""
        return str(getattr(self.probe, "__qualname__", type(self.probe).__name__))

    def __repr__(self) -> str:
        times = f"interval={self.interval:g} timeout={self.timeout:g} rise={self.rise} fall={self.fall}"
        return f"<{type(self).__name__} {self.describe()} {times}>"


def first_health(check: Check) -> CheckHealth:
    """Return the health that *check* has before its first result."""
    return STARTING if check.initial == "failing" else CheckHealth(CheckState.PASSING)
