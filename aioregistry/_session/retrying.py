"""Sending a request again that a server did not accept, in pauses that grow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aioregistry._errors import RegistryError
from aioregistry._protocol import Reply
from aioregistry._runtime import Runtime

from .backoff import throttled_pause

__all__ = ["persist"]

T = TypeVar("T")


async def persist(
    send: Callable[[], asyncio.Future[Reply[T]]],
    errors: tuple[type[RegistryError], ...],
    *,
    patience: float,
    timeout: float,
    runtime: Runtime,
) -> Reply[T]:
    """Send again after *errors*, which prove nothing, until the *patience* is over; raises the last one then.

    Args:
        send: sends it.
        errors: those after which it is sent again.
        patience: seconds.
        timeout: the session timeout in seconds, which the pauses go by.
        runtime: draws their lengths.
    """
    loop = asyncio.get_running_loop()
    until, attempts = loop.time() + patience, 0
    while True:
        try:
            return await send()
        except errors:
            if loop.time() >= until:
                raise
        attempts += 1
        await asyncio.sleep(throttled_pause(attempts, timeout, runtime.uniform))
