"""Tasks of a membership, whose failures are always asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from aioregistry import _foreign as foreign

__all__ = ["awaited", "first_of", "outcome", "spawn"]

_log = logging.getLogger("aioregistry.integrations")

T = TypeVar("T")


def spawn(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task whose failure is retrieved even if no other task waits for it."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_noted)
    return task


def _noted(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s: %s", task.get_name(), foreign.shown(error))


async def outcome(task: asyncio.Task[T]) -> T:
    """Return or raise the outcome of *task*; cancelling the wait leaves it alone."""
    # Not asyncio.shield: since Python 3.14 it reports what fails after the waiter was cancelled.
    await asyncio.wait([task])
    return task.result()


async def awaited(work: Awaitable[object]) -> None:
    await work


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Wait until one of *works* is over, raise its exception, and cancel the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
