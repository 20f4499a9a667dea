"""Signals that ask a process to end, for programs without a server that handles them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from aioregistry import UsageError
from aioregistry import _foreign as foreign

__all__ = ["ENDING", "Asked", "cancelled_when_told_to_end", "told_to_end"]

ENDING: Final = tuple(
    number for name in ("SIGTERM", "SIGINT", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)
"""The signals by which supervisors, users, and closed terminals ask a process to end."""


_TOLD_WITHIN: Final = 0.1
"""Seconds after which it is noticed that uvicorn is to end; uvicorn looks as often."""


class Asked:
    """Whether this process was asked to end: once, or again.

    Attributes:
        came: the signals, in order.
    """

    def __init__(self) -> None:
        self.came: list[signal.Signals] = []
        self.once = asyncio.Event()
        self.twice = asyncio.Event()

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Take note of each signal of :data:`ENDING`; afterwards these are handled as before.

        A signal that is ignored stays ignored, as SIGHUP is under nohup.

        Raises:
            UsageError: this is not the main thread, where alone signals can be handled, or the loop cannot.
        """
        if threading.current_thread() is not threading.main_thread():
            raise UsageError("signals are handled in the main thread only: run this on its event loop")
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in ENDING}
        added: list[signal.Signals] = []
        try:
            for number, before in handlers.items():
                if before is not signal.SIG_IGN:
                    try:
                        loop.add_signal_handler(number, self._note, number)
                    except NotImplementedError:
                        raise UsageError("this event loop cannot handle signals: await drain() by yourself") from None
                    added.append(number)
            yield
        finally:
            for number in added:
                loop.remove_signal_handler(number)
                signal.signal(number, handlers[number])

    def _note(self, number: signal.Signals) -> None:
        (self.twice if self.came else self.once).set()
        self.came.append(number)


async def cancelled_when_told_to_end(scope: anyio.CancelScope) -> None:
    """Cancel *scope* when the uvicorn server of this process is told to end."""
    while not told_to_end():  # noqa: ASYNC110 - uvicorn sets a flag and notifies no task
        await asyncio.sleep(_TOLD_WITHIN)
    scope.cancel()


def told_to_end() -> bool:
    """Whether the uvicorn server of this process, which handles SIGTERM by a method of its own, was told to end."""
    try:
        return foreign.call(_should_exit)
    except foreign.ForeignError:  # a handler of other code, that is not a server
        return False


def _should_exit() -> bool:
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
