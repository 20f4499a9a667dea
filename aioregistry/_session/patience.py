"""How long a server may be silent: time in which the client did not listen does not count."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

__all__ = ["TURNS", "patience"]

TURNS = 8
"""How often the loop must have had the chance to read an answer before a server is blamed for its silence."""


@contextlib.asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Bound the waiting for a server, as :func:`asyncio.timeout` does; raises TimeoutError.

    A loop that is blocked, or has too much to do, sends late and reads late: by its clock every server is silent, the
    good one is left, and connecting again is still more to do. So the *seconds* are counted in turns: however late the
    loop is, it has listened so many times, and once more at the end.
    """
    loop = asyncio.get_running_loop()
    left = TURNS
    timer: asyncio.TimerHandle

    def turn() -> None:
        nonlocal left, timer
        left -= 1
        if left:
            timer = loop.call_later(seconds / TURNS, turn)
        else:
            bound.reschedule(loop.time())

    async with asyncio.timeout(None) as bound:
        timer = loop.call_later(seconds / TURNS, turn)
        try:
            yield
        finally:
            timer.cancel()
