"""A check that an event loop turns."""

from __future__ import annotations

import asyncio
import contextlib

from aioregistry._arguments import check_seconds
from aioregistry._errors import InvalidType

from .check import Check, CheckFailed, Initial

__all__ = ["LoopLagCheck"]

_NAP = 0.05


class LoopLagCheck(Check):
    """Passes when an event loop wakes a sleeper in time: a loop that is blocked, or busy, does not serve clients.

    On the loop of another thread it notices when that loop stands still; on its own loop it notices only afterwards.

    Args:
        loop: the event loop; the one that the check runs on unless given.
        max_lag: seconds that a wake-up may be late; the timeout unless given.
        interval: as for :class:`Check`.
        timeout: as for :class:`Check`.
        rise: as for :class:`Check`.
        fall: as for :class:`Check`.
        initial: as for :class:`Check`.

    Raises:
        InvalidArgument: an argument is wrong; names it and its value.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        max_lag: float | None = None,
        interval: float = 5.0,
        timeout: float = 1.0,
        rise: int = 1,
        fall: int = 3,
        initial: Initial = "failing",
    ) -> None:
        super().__init__(self._measure, interval=interval, timeout=timeout, rise=rise, fall=fall, initial=initial)
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise InvalidType("loop", loop, "give an event loop, or None")
        if max_lag is not None:
            check_seconds("max_lag", max_lag)
        self._loop = loop
        self._max_lag = self.timeout if max_lag is None else float(max_lag)

    async def _measure(self) -> None:
        here = asyncio.get_running_loop()
        if self._loop is None or self._loop is here:
            lag = await _lag(min(_NAP, self.timeout / 4))
        elif self._loop.is_running():
            lag = await _turn(self._loop)
        else:
            raise CheckFailed("the event loop does not run")
        if lag > self._max_lag:
            raise CheckFailed(f"the event loop is {lag:.3g} s late")

    def describe(self) -> str:
        """Return which loop's lag is measured."""
        return "its own loop" if self._loop is None else "another loop"


async def _turn(other: asyncio.AbstractEventLoop) -> float:
    """Return the seconds until the loop of another thread has run a callback."""
    here, turned = asyncio.get_running_loop(), asyncio.Event()

    def answer() -> None:
        with contextlib.suppress(RuntimeError):  # closed: no task waits now
            here.call_soon_threadsafe(turned.set)

    began = here.time()
    try:
        other.call_soon_threadsafe(answer)
    except RuntimeError:
        raise CheckFailed("the event loop is closed") from None
    await turned.wait()
    return here.time() - began


async def _lag(nap: float) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(nap)
    return loop.time() - began - nap
