"""Connecting to one of several addresses: the next attempt starts while the last one hangs.

"Happy Eyeballs" (RFC 8305) for the servers of an ensemble: an address whose packets are swallowed must not cost the
session its life. Only TCP and TLS race; which connection shakes hands is decided one at a time by whoever asks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from aioregistry._runtime import Endpoint

from .connection import Connection

__all__ = ["Dialer"]

# RFC 8305, section 5, recommends 250 ms between attempts.
_STAGGER = 0.25


class Dialer:
    """Gives connections to the *endpoints* one after another, in the order they come up.

    Args:
        endpoints: the addresses, in the order to try them.
        dial: connects to one.
        timeout: seconds that one attempt may take.
        failures: takes what went wrong, by address.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        dial: Callable[[Endpoint], Awaitable[Connection]],
        timeout: float,
        failures: dict[str, str],
    ) -> None:
        self._waiting = deque(endpoints)
        self._dial = dial
        self._timeout = timeout
        self._failures = failures
        self._stagger = min(_STAGGER, timeout / 2)
        self._dialing: dict[asyncio.Task[Connection | None], None] = {}

    async def next(self) -> Connection | None:
        """Return the next connection that is up, or None when every address was tried."""
        while self._waiting or self._dialing:
            if self._waiting:
                self._start()
            done, _ = await asyncio.wait(
                self._dialing, timeout=self._stagger if self._waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in [task for task in self._dialing if task in done]:
                del self._dialing[task]
                connection = task.result()
                if connection is not None:
                    return connection
        return None

    async def aclose(self) -> None:
        """Give up every attempt under way, and close what came up meanwhile, also when this is cancelled."""
        tasks, self._dialing = list(self._dialing), {}
        for task in tasks:
            task.add_done_callback(_drop_unused)
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self) -> None:
        endpoint = self._waiting.popleft()
        task = asyncio.get_running_loop().create_task(self._attempt(endpoint), name=f"aioregistry dial {endpoint}")
        self._dialing[task] = None

    async def _attempt(self, endpoint: Endpoint) -> Connection | None:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._dial(endpoint)
        except TimeoutError:
            self._failures[str(endpoint)] = f"no connection within {self._timeout:.3g} s"
        except OSError as error:  # ssl.SSLError is one
            self._failures[str(endpoint)] = str(error) or type(error).__name__
        return None


def _drop_unused(task: asyncio.Task[Connection | None]) -> None:
    if not task.cancelled() and (connection := task.result()) is not None:
        connection.drop("not needed")
