"""Waiting for a condition of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["DEADLINE", "until"]

DEADLINE = 100.0
"""Seconds that anything may take that is waited for; far more than it takes."""

_INSTANT = 0.002


async def until(condition: Callable[[], object], *, timeout: float = DEADLINE) -> None:
    """Wait until *condition* holds; raises TimeoutError where it does not in time."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(_INSTANT)
