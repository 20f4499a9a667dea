"""The desired data of the node, the data of the last write, and the tasks that wait for either."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aioregistry._concurrency import release

__all__ = ["Revision", "Revisions"]


class Revision(NamedTuple):
    """The desired instance at some time; later ones have higher numbers."""

    number: int
    data: bytes


class Revisions:
    """Those of one node.

    Attributes:
        desired: the latest.
        sent: the state of the node after the last write.
    """

    def __init__(self, data: bytes) -> None:
        self.desired = self.sent = Revision(0, data)
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def desire(self, data: bytes) -> None:
        """Let the node hold *data* from now on."""
        self.desired = Revision(self.desired.number + 1, data)

    def send(self) -> bytes:
        """Return the desired state, which is written next."""
        self.sent = self.desired
        return self.sent.data

    async def listed(self) -> None:
        """Wait until the node holds the present desired state or a later one; raises the error of :meth:`tell`."""
        waiter = (self.desired.number, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await waiter[1]
        finally:
            if waiter in self._waiters:  # cancelled
                self._waiters.remove(waiter)

    def seen(self, data: bytes) -> None:
        """The node holds *data*."""
        if data == self.sent.data:
            # Its waiters are released even if another revision is due by now: updates that come faster than a round
            # trip would keep them waiting for ever.
            self._release(None, up_to=self.sent.number)

    def tell(self, error: Exception | None) -> None:
        """The desired instance is listed, or *error* says why it is not: the waiters get that."""
        self._release(error, up_to=self.desired.number)

    def _release(self, error: Exception | None, *, up_to: int) -> None:
        released = [waiter for number, waiter in self._waiters if number <= up_to]
        self._waiters = [each for each in self._waiters if each[0] > up_to]
        release(released, error)
