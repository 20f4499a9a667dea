"""Deliberate leaves, as their markers tell of them.

To watchers an expired session and a withdrawal are the same: the node is deleted. So whoever withdraws creates and
deletes a marker in the same transaction, ``<services>-withdrawn/<name>:<id>:<czxid>``, name and id quoted as in URLs,
czxid in hexadecimal. Nothing of it stays, but one recursive watch on that root sees it come, before the node goes:
events come in the order of what happened.

One watch serves all views of a session. It is set before the services are read, so that no marker is missed for what
is read then. Where the server has no recursive watches, or hides the root, it is as if nobody left markers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from aioregistry._errors import ConnectionLost, ServerError, UnsupportedServer
from aioregistry._protocol import EventKind, WatchedEvent
from aioregistry._session import Session, TreeWatch

__all__ = ["Departures", "read_marker"]

_PARTS = 3


class Departures:
    """Watches the markers of one session, while somebody wants to know.

    Args:
        session: watched through.
        root: the parent of the markers; None where there is no place for it.
        told: called with name, id and czxid of whatever is withdrawn; must not raise.
    """

    def __init__(self, session: Session, root: str | None, told: Callable[[str, str, int], None]) -> None:
        self._session = session
        self._root = root
        self._told = told
        self._users = 0
        self._watch: TreeWatch | None = None
        self._arming = asyncio.Lock()

    def acquire(self) -> None:
        """Somebody wants to know, from the next :meth:`arm` on; each is to be released."""
        self._users += 1
        if self._watch is None and self._root is not None:
            self._watch = self._session.watches.listen_tree(self._root, self._fired)

    def release(self) -> None:
        """Somebody wants to know no more; the watch goes with the last."""
        self._users -= 1
        if not self._users and self._watch is not None:
            self._watch.close()
            self._watch = None

    async def arm(self) -> None:
        """Set the watch on the present connection, if anybody wants it; returns also where that cannot be."""
        async with self._arming:  # one request, though every service that is followed begins with this
            if self._watch is not None and self._session.connected:
                with contextlib.suppress(ConnectionLost, ServerError, UnsupportedServer):
                    await self._watch.arm()

    def _fired(self, event: WatchedEvent) -> None:
        if event.kind is EventKind.CREATED:
            marker = read_marker(event.path.rpartition("/")[2])
            if marker is not None:
                self._told(*marker)


def read_marker(name: str) -> tuple[str, str, int] | None:
    """Return service, id and czxid that a marker of that *name* tells of; None where it is none."""
    from urllib.parse import unquote  # takes 2 ms: not of everybody who imports aioregistry

    parts = name.split(":")
    if len(parts) != _PARTS:
        return None
    try:
        return unquote(parts[0]), unquote(parts[1]), int(parts[2], 16)
    except ValueError:
        return None
