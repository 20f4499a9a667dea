"""The progress of one registration, and the tasks that wait for it."""

from __future__ import annotations

import asyncio

from aioregistry._errors import HandleClosed, RegistrationDisplaced, SessionClosed

from .lifecycle import LEAVING, OVER, Stage, Turn, moved

__all__ = ["Progress"]


class Progress:
    """From entering until nothing more is waited for.

    Args:
        path: of the node.

    Attributes:
        stage: the stage that it has reached.
        cause: why it ended, where it did not end by being closed.
        displaced: set while it is in standby, and for ever after a displacement without.
    """

    def __init__(self, path: str) -> None:
        self.stage: Stage = Stage.CLAIMING
        self.cause: Exception | None = None
        self.displaced: RegistrationDisplaced | None = None
        self._path = path
        self._first_listing: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether it was ever listed, once that is known for good."""
        self._over = asyncio.Event()
        self._left = asyncio.Event()

    @property
    def was_listed(self) -> bool:
        """Whether the node was ever ours."""
        return self._first_listing.done() and self._first_listing.result()

    @property
    def ended(self) -> bool:
        """Whether the waiters know that it is over; a withdrawal may go on."""
        return self.stage in OVER

    @property
    def leaving(self) -> bool:
        """Whether nothing is wanted any more but that no node of ours is left."""
        return self.stage in LEAVING

    def move(self, turn: Turn) -> None:
        """Go on to the stage that *turn* leads to."""
        self.stage = moved(self.stage, turn)
        if turn in (Turn.SEEN, Turn.END) and not self._first_listing.done():
            self._first_listing.set_result(turn is Turn.SEEN)

    def end(self, cause: Exception | None) -> None:
        """Tell the tasks that wait for its end that it has ended by *cause*; None: it was closed."""
        self.cause = cause
        self.move(Turn.END)
        self._over.set()

    def let_go(self) -> None:
        """Tell the task that closes it not to wait any longer."""
        self._left.set()

    def ending(self) -> Exception:
        """Return the error for the waiters: why it ended, or why it will not be published."""
        if self.cause is not None:
            return self.cause
        if self.displaced is not None:
            return self.displaced
        if self.stage in (Stage.CLOSING, Stage.CLOSED):
            return HandleClosed(f"the registration of {self._path} is closed")
        return SessionClosed(f"the session that {self._path} was registered in is closed")

    async def listed(self) -> None:
        """Wait until the node was ours for the first time; raises why, when the end comes before."""
        await asyncio.wait([self._first_listing])  # which outlives the waiter
        if not self.was_listed:
            raise self.ending()

    async def over(self) -> None:
        """Wait for the end."""
        await self._over.wait()

    async def left(self) -> None:
        """Wait until it is withdrawn, or the server refuses that for now."""
        await self._left.wait()
