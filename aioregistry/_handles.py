"""The common part of every public handle: opened once, closed once, on one event loop.

A handle is made without touching the loop, and opened by ``async with handle`` or by ``await handle``; the latter
is ended by ``await handle.aclose()`` or by one later ``async with handle``. It owns plain tasks only, so that it
may be opened in one task and closed in another, as test fixtures and application lifespans do.
"""

from __future__ import annotations

import asyncio
import enum
import os
import warnings
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Self

import anyio

from ._errors import HandleClosed, UsageError
from ._runtime import running_loop

__all__ = ["Handle", "close_together", "discard", "finished", "is_closed", "is_open", "loop_of"]


class _Phase(enum.Enum):
    NEW = "not entered"
    OPENING = "being entered"
    OPEN = "open"
    ENTERED = "entered"
    CLOSING = "being closed"
    CLOSED = "closed"


class Handle:
    """Base of the public context managers; subclasses give ``_open`` and ``_close``.

    Their constructors call this one's last, when every argument was found good.
    """

    _made = False
    _phase = _Phase.CLOSED  # until it is made: one whose arguments were refused has nothing to warn of
    _loop: asyncio.AbstractEventLoop | None = None
    _pid = 0
    _closed_by: asyncio.Task[None] | None = None

    def __init__(self) -> None:
        self._made = True
        self._phase = _Phase.NEW

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A debugger that shows the variables of a traceback meets one whose constructor has refused an argument.
        whole = cls.__dict__.get("__repr__")
        if whole is not None:

            def shown(self: Handle) -> str:
                return whole(self) if self._made else f"<{cls.__name__}, not made>"

            type.__setattr__(cls, "__repr__", shown)  # to type checkers the class keeps the method that it declares

    async def _open(self) -> None:
        """Open; on an exception, cancellation included, whatever was begun must have been undone by the subclass."""
        raise NotImplementedError

    async def _close(self) -> None:
        """Close within the handle's bound; shielded from cancellation by the caller; called once."""
        raise NotImplementedError

    # ------------------------------------------------------------------ opening

    def __await__(self) -> Generator[Any, None, Self]:
        return self._opened().__await__()

    async def __aenter__(self) -> Self:
        if self._phase is _Phase.OPEN:
            self._check()
        else:
            await self._opened()
        self._phase = _Phase.ENTERED
        return self

    async def _opened(self) -> Self:
        if self._phase is not _Phase.NEW:
            raise UsageError(f"{self._title()} is {self._phase.value}: a handle is entered or awaited once")
        self._loop = running_loop()
        self._pid = os.getpid()
        self._phase = _Phase.OPENING
        try:
            await self._open()
        except BaseException:
            self._phase = _Phase.CLOSED
            raise
        self._phase = _Phase.OPEN
        return self

    # ------------------------------------------------------------------ closing

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the handle; may be called again, and by several tasks, which all wait for the one closing.

        Closing is bounded and runs to its end when the caller is cancelled; the cancellation is then raised. Raises
        :class:`UsageError` from another loop, and while a task enters the handle: cancel that task instead.
        """
        if self._phase is _Phase.OPENING:
            raise UsageError(f"{self._title()} is being entered: cancel the task that enters it instead")
        if self._phase is _Phase.NEW:
            self._phase = _Phase.CLOSED
        if self._phase is _Phase.CLOSED:
            return
        self._check_loop()
        if self._closed_by is None:
            self._phase = _Phase.CLOSING
            # A task of its own: a cancelled `async with` body cancels every await in __aexit__ again, at once under
            # anyio's scopes.
            self._closed_by = asyncio.get_running_loop().create_task(self._close_once(), name=f"close {self._title()}")
        await finished(self._closed_by)

    def _discard(self) -> None:
        """It will not be entered: nothing is to be warned of."""
        if self._phase is _Phase.NEW:
            self._phase = _Phase.CLOSED

    async def _close_once(self) -> None:
        try:
            await self._close()
        finally:
            self._phase = _Phase.CLOSED

    # ------------------------------------------------------------------ being used

    @property
    def _is_open(self) -> bool:
        """Whether it was entered or awaited, and not closed since."""
        return self._phase in (_Phase.OPEN, _Phase.ENTERED)

    @property
    def _is_closed(self) -> bool:
        """Whether it can never be used again, also where it was never entered."""
        return self._phase is _Phase.CLOSED

    def _check(self) -> None:
        """Raise :class:`UsageError` unless the handle is open and used from its own loop."""
        if self._phase in (_Phase.NEW, _Phase.OPENING):
            raise UsageError(f"{self._title()} is {self._phase.value}: use `async with` or `await` first")
        if self._phase in (_Phase.CLOSING, _Phase.CLOSED):
            raise HandleClosed(f"{self._title()} is {self._phase.value}")
        self._check_loop()

    def _check_loop(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(f"{self._title()} was opened before a fork: open one in the child process")
        if running_loop() is not self._loop:
            raise UsageError(f"{self._title()} belongs to another event loop or thread")

    def _title(self) -> str:
        return type(self).__name__

    def __del__(self) -> None:
        if self._phase is _Phase.NEW:
            warnings.warn(
                f"{self._title()} was made but never entered or awaited", RuntimeWarning, source=self, stacklevel=1
            )
        elif self._phase is not _Phase.CLOSED and os.getpid() == self._pid:
            warnings.warn(f"{self._title()} was never closed", ResourceWarning, source=self, stacklevel=1)


def is_open(handle: Handle) -> bool:
    """Whether *handle* was entered or awaited, and not closed since."""
    return handle._is_open


def is_closed(handle: Handle) -> bool:
    """Whether *handle* can never be used again, also where it was never entered."""
    return handle._is_closed


def loop_of(handle: Handle) -> asyncio.AbstractEventLoop | None:
    """Return the loop on which *handle* is open; None while it is not."""
    return handle._loop if handle._is_open else None


def discard(handle: Handle) -> None:
    """*handle* will not be entered: nothing is to be warned of."""
    handle._discard()


def close_together(handles: Sequence[Handle], closing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Return one task that closes *handles*, which are open, by *closing*: of thousands a task each takes seconds."""

    async def close() -> None:
        try:
            await closing
        finally:
            for handle in handles:
                handle._phase = _Phase.CLOSED

    task = asyncio.get_running_loop().create_task(close(), name=f"close {len(handles)} handles")
    for handle in handles:
        handle._phase, handle._closed_by = _Phase.CLOSING, task
    return task


async def finished(task: asyncio.Task[None]) -> None:
    """Wait for *task* to end, through cancellations of the caller, which are raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    # Without the shield anyio cancels the waiting again in every turn of the loop for as long as it takes.
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
    if cancelled is not None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure from cancelled
        raise cancelled
    await task
