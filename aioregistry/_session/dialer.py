"""Connecting to one of several addresses: the next attempt starts while the last one hangs.

"Happy Eyeballs" (RFC 8305) for the servers of an ensemble: an address whose packets are swallowed must not cost the
session its life. Only TCP and TLS race; which connection shakes hands is decided one at a time by the caller. The
addresses may change meanwhile, when a name is answered late.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from aioregistry import _foreign as foreign
from aioregistry._concurrency import Notifier
from aioregistry._reasons import reason_of
from aioregistry._runtime import Endpoint

from .attempts import AttemptOutcome
from .connection import Connection
from .patience import patience

__all__ = ["Dialer", "explained"]

# RFC 8305, section 5, recommends 250 ms between attempts.
_STAGGER = 0.25


class Dialer:
    """Gives connections to the *endpoints* one after another, in the order they come up.

    Args:
        endpoints: the addresses, in the order to try them.
        dial: connects to one.
        timeout: seconds that one attempt may take.
        failed: called with an address, and with what went wrong there.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        dial: Callable[[Endpoint], Awaitable[Connection]],
        timeout: float,
        failed: Callable[[Endpoint, AttemptOutcome, str], None],
    ) -> None:
        self._waiting = deque(endpoints)
        self._dial = dial
        self._timeout = timeout
        self._failed = failed
        self._stagger = min(_STAGGER, timeout / 2)
        self._next_start = float("-inf")
        self._tried: set[Endpoint] = set()
        self._dialing: dict[asyncio.Task[Connection | None], Endpoint] = {}
        self._given_up: dict[asyncio.Task[Connection | None], None] = {}
        self._news = Notifier()

    def offer(self, endpoints: Iterable[Endpoint]) -> None:
        """From now on the addresses are these: those not tried yet come up, and an attempt at any other is given up."""
        wanted = dict.fromkeys(endpoints)
        self._waiting = deque(endpoint for endpoint in wanted if endpoint not in self._tried)
        for task, endpoint in list(self._dialing.items()):
            if endpoint not in wanted:
                del self._dialing[task]
                self._give_up(task)
        self._news.notify()

    async def next(self) -> Connection | None:
        """Return the next connection that is up, or None when every address was tried."""
        loop = asyncio.get_running_loop()
        self._next_start = float("-inf")  # a caller that asks for another has no use for the last
        while self._waiting or self._dialing:
            if self._waiting and loop.time() >= self._next_start:
                self._start()
            if not any(task.done() for task in self._dialing):
                await self._news.wait(max(self._next_start - loop.time(), 0) if self._waiting else None)
            for task in [task for task in self._dialing if task.done()]:
                del self._dialing[task]
                self._next_start = float("-inf")
                connection = None if task.cancelled() else task.result()
                if connection is not None:
                    return connection
        return None

    async def aclose(self) -> None:
        """Give up every attempt under way, and close connections made meanwhile, also when this is cancelled."""
        tasks, self._dialing = list(self._dialing), {}
        for task in tasks:
            self._give_up(task)
        if self._given_up:
            await asyncio.wait(list(self._given_up))

    def _start(self) -> None:
        endpoint = self._waiting.popleft()
        self._tried.add(endpoint)
        loop = asyncio.get_running_loop()
        self._next_start = loop.time() + self._stagger
        task = loop.create_task(self._attempt(endpoint), name=f"aioregistry dial {endpoint}")
        self._dialing[task] = endpoint
        task.add_done_callback(lambda _: self._news.notify())

    def _give_up(self, task: asyncio.Task[Connection | None]) -> None:
        self._given_up[task] = None
        task.add_done_callback(self._drop_unused)
        task.cancel()

    def _drop_unused(self, task: asyncio.Task[Connection | None]) -> None:
        del self._given_up[task]
        if not task.cancelled() and (connection := task.result()) is not None:
            connection.drop("not needed")

    async def _attempt(self, endpoint: Endpoint) -> Connection | None:
        try:
            async with patience(self._timeout):
                # The code of the caller's TLS context may raise anything, beside an OSError (ssl.SSLError is one).
                return await foreign.wait(lambda: self._dial(endpoint))
        except TimeoutError:
            self._failed(endpoint, AttemptOutcome.SILENT, f"no connection within {self._timeout:.3g} s")
        except foreign.ForeignError as failure:
            self._failed(endpoint, *explained(failure.error))
        return None


def explained(error: BaseException) -> tuple[AttemptOutcome, str]:
    """Return what an *error* of connecting says of the other end, in our words where they are better."""
    if isinstance(error, ssl.SSLError):
        return AttemptOutcome.TLS, f"no TLS connection was made: {reason_of(error)}"
    if isinstance(error, ConnectionRefusedError):
        return AttemptOutcome.REFUSED, "the connection was refused: nothing listens there"
    if isinstance(error, OSError) and error.errno == errno.ECONNRESET:
        return AttemptOutcome.CLOSED, "the connection was reset while it was made"
    return AttemptOutcome.UNREACHABLE, f"no connection was made: {reason_of(error)}"
