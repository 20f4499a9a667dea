"""Syncs of a mirror: a later read sees whatever the quorum knew before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from aioregistry._concurrency import Notifier
from aioregistry._errors import (
    ConnectionLost,
    NoAuth,
    PoisonRequest,
    RegistryError,
    ServerSessionExpired,
    SessionMoved,
    Throttled,
)
from aioregistry._handles import finished
from aioregistry._session import ReadingSessionPort

from .barrier import Barrier
from .mirror import Mirror
from .pace import RETRY

__all__ = ["Followed", "Syncs"]


class Followed(Protocol):
    """The mirror to sync, and its keeper.

    Attributes:
        path: of the service's node.
        mirror: the nodes as last read.
        refusal: why the service could not be listed when that was tried last.
        generation: of the connection that the mirror is kept on.
        news: of whatever happens to these.
    """

    path: str
    mirror: Mirror
    refusal: NoAuth | PoisonRequest | None
    generation: int
    news: Notifier

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition*; raises what ended the following."""

    def pump(self) -> None:
        """Take in the answers that are there, and ask on."""


class Syncs:
    """The syncs of one mirror: one under way at most, and one that begins after it.

    Args:
        session: whose clock and chance are used.
        followed: the follower to sync.
        barrier: of the session.
    """

    __slots__ = ("_barrier", "_callers", "_followed", "_session", "_syncing", "_to_sync")

    def __init__(self, session: ReadingSessionPort, followed: Followed, barrier: Barrier) -> None:
        self._session = session
        self._followed = followed
        self._barrier = barrier
        self._syncing: asyncio.Task[None] | None = None
        self._to_sync: asyncio.Task[None] | None = None
        self._callers: dict[asyncio.Task[None], int] = {}  # how many wait for each

    async def ended(self) -> None:
        """Wait for those that are under way, after the following has ended."""
        if syncs := [each for each in (self._syncing, self._to_sync) if each is not None]:
            await asyncio.wait(syncs)

    async def sync(self) -> None:
        """Wait until the mirror is as new as the quorum was when this was called; raises what ended the following.

        Also NoAuth, where the service may not be listed. Many callers share one: a caller that comes while one is under
        way waits for the next. The work goes on for as long as a caller waits for it, and has ended when the last one
        that was cancelled returns.
        """
        if self._to_sync is None:
            after, loop = self._syncing, asyncio.get_running_loop()
            self._to_sync = loop.create_task(self._sync(after), name=f"aioregistry syncs {self._followed.path}")
            # Counts as retrieved: the waiter may have been cancelled.
            self._to_sync.add_done_callback(lambda task: task.cancelled() or task.exception())
        syncing = self._to_sync
        self._callers[syncing] = self._callers.get(syncing, 0) + 1
        try:
            # Not asyncio.shield: since Python 3.14 it reports what fails after the waiter was cancelled.
            await asyncio.wait([syncing])
        except asyncio.CancelledError:
            if self._callers[syncing] == 1:
                await self._give_up(syncing)
            raise
        finally:
            self._callers[syncing] -= 1
            if not self._callers[syncing]:
                del self._callers[syncing]
        syncing.result()

    async def _give_up(self, syncing: asyncio.Task[None]) -> None:
        """End the sync if no other task waits for it."""
        if self._to_sync is syncing:  # it has not begun, and the next caller must not wait for a cancelled sync
            self._to_sync = None
        syncing.cancel()
        with contextlib.suppress(asyncio.CancelledError, RegistryError):  # the caller raises its own cancellation
            await finished(syncing)

    async def _sync(self, after: asyncio.Task[None] | None) -> None:
        if after is not None and not after.done():
            await asyncio.wait([after])
        self._syncing, self._to_sync = self._to_sync, None
        while not await self._sync_on_one_connection():
            pass

    async def _sync_on_one_connection(self) -> bool:
        followed, mirror = self._followed, self._followed.mirror
        await followed.until(lambda: mirror.synced or followed.refusal is not None)
        if followed.refusal is not None:
            raise followed.refusal
        generation = followed.generation
        passed = self._barrier.passed()
        passed.add_done_callback(lambda _: followed.news.notify())
        try:
            await followed.until(passed.done)
            passed.result()
        except Throttled:
            await asyncio.sleep(self._session.runtime.uniform(RETRY / 2, RETRY))
            return False
        except (ConnectionLost, SessionMoved, ServerSessionExpired):
            await followed.until(lambda: followed.generation != generation)
            return False
        finally:
            passed.cancel()

        def gone() -> bool:
            return followed.generation != generation or not mirror.synced

        if gone():
            return False
        # The server has sent events for all that the quorum knew by then before it answered, except what it hides.
        mirror.look_at_everything()
        mark = mirror.mark()
        followed.pump()
        await followed.until(lambda: gone() or mirror.settled(mark))
        return not gone()
