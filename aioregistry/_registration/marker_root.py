"""Makes the root of the markers before there is anything to mark, with the ACL of the instances.

A client that finds no such root may make it if ``/`` is open to all, as it is by default, and may then write whatever
it likes there: views would believe no marker. So it is made before the first instance is listed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aioregistry._errors import NodeExists, NoNode, ServerError
from aioregistry._protocol import Exists
from aioregistry._session import SessionPort

from .transactions import Target, marker_root, marker_root_creation

__all__ = ["MarkerRoot"]

log = logging.getLogger("aioregistry.registration")


class MarkerRoot:
    """The root that the markers of one session's registrations are made in.

    Args:
        session: whose connections are used; the root is asked for once in each history.
    """

    def __init__(self, session: SessionPort) -> None:
        self._session = session
        self._history = session.history
        self._there: bool | None = None  # None: unknown
        self._under_way = False
        self._told = False

    def look(self, target: Target) -> None:
        """Ask for it, with this tick's other requests, unless that is known."""
        path = marker_root(target)
        if self._history != self._session.history:
            self._history, self._there = self._session.history, None
        if path is not None and self._there is None and not self._under_way:
            self._under_way = True
            _ = self._session.submit(Exists(path), self._seen)

    def make(self, target: Target) -> None:
        """Make it, with this tick's other requests, where it is known to be missing."""
        if self._there is False and not self._under_way:
            self._under_way = True
            _ = self._session.submit(marker_root_creation(target), self._made)

    def _seen(self, answer: asyncio.Future[Any]) -> None:
        self._under_way = False
        error = answer.exception()
        if error is None or isinstance(error, NoNode):
            self._there = error is None

    def _made(self, answer: asyncio.Future[Any]) -> None:
        self._under_way = False
        error = answer.exception()
        if error is None or isinstance(error, NodeExists):
            self._there = True
        elif isinstance(error, ServerError) and not isinstance(error, NoNode) and not self._told:
            # Without it instances are withdrawn without a mark, and views may take that for an expiry.
            self._told = True
            log.warning("the root of the markers of withdrawals could not be made: %s", error)
