"""Transports of httpx and httpx2 by the name that TLS has to prove: no connection serves another.

Their pools know a connection by scheme, address and port. Where two names lead to one address, as two services on one
port do, the second would be served by a connection whose certificate was checked for the first: a client that can write
to the registry would get the second's requests without its certificate. So each name has a transport, and with it a
pool, of its own (RFC 9110, section 4.3.4: the origin is the name, not the address).
"""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from aioregistry import _foreign as foreign
from aioregistry._errors import InvalidArgument

from ._tasks import spawn

__all__ = ["MOST_NAMES", "Lane", "Lanes", "another_like", "name_of"]

MOST_NAMES: Final = 100
"""Names whose transports are kept while they are idle: names may come from outside, and each has connections."""

_SECURE: Final = ("https", "wss")


def name_of(request: Any) -> str | None:
    """Return the name that TLS has to prove for *request* where it is another than the URL's host; None else."""
    url = request.url
    name = request.extensions.get("sni_hostname")
    return name if name and url.scheme in _SECURE and name != url.host else None


class Lane:
    """The transport of one name, and how many requests are on it."""

    __slots__ = ("transport", "users")

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.users = 0

    def leave(self) -> None:
        """One of its requests has ended."""
        self.users -= 1


class Lanes:
    """The transports of all names.

    Args:
        own: the transport for requests whose URL's host is the name to prove, and for those without TLS.
        another: returns one more like it, with connections of its own; or None where it cannot be told how, in which
            case *own* serves all names, but each address and port the first name only.
    """

    def __init__(self, own: Any, another: Callable[[], Any] | None) -> None:
        self.own = own
        self._another = another
        self._lane = Lane(own)
        self._lanes: OrderedDict[str, Lane] = OrderedDict()  # the one that was used last comes last
        self._first: dict[tuple[str, int | None], str | None] = {}  # as many as instances had addresses
        self._closing: dict[asyncio.Task[None], None] = {}

    def enter(self, request: Any) -> Lane:
        """Return the lane of *request*, to be left when its response is closed.

        Raises:
            InvalidArgument: the address was reached under another name before, by a transport of which there is one.
            ForeignError: the function that makes transports raised.
        """
        name = name_of(request)
        if self._another is None:
            self._check_only(request.url, name)
            lane = self._lane
        elif name is None:
            lane = self._lane
        else:
            lane = self._of(name, self._another)
        lane.users += 1
        return lane

    def _check_only(self, url: Any, name: str | None) -> None:
        if url.scheme not in _SECURE:
            return
        first = self._first.setdefault((url.host, url.port), name)
        if first != name:
            raise InvalidArgument(
                "transport",
                self.own,
                f"has connections to {url.host}:{url.port} that may have proved to be {first or url.host}, not "
                f"{name or url.host}: give a function that makes such transports, for one for each name",
            )

    def _of(self, name: str, another: Callable[[], Any]) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(foreign.call(another))
            self._trim()
        self._lanes.move_to_end(name)
        return lane

    def _trim(self) -> None:
        """Close the idle ones that were not used for longest, where there are too many."""
        idle = [name for name, lane in self._lanes.items() if not lane.users]
        for name in idle[: max(len(self._lanes) - MOST_NAMES, 0)]:
            if name != next(reversed(self._lanes)):
                transport = self._lanes.pop(name).transport
                closing = spawn(_close(transport), f"close {name}")
                self._closing[closing] = None
                closing.add_done_callback(self._closing.pop)

    async def aclose(self) -> None:
        """Close all but the first, which is its owner's to close. All are closed, whatever one of them raises."""
        lanes, self._lanes = self._lanes, OrderedDict()
        endings = [*self._closing, *(_close(lane.transport) for lane in lanes.values())]
        ended = await asyncio.gather(*endings, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error


async def _close(transport: Any) -> None:
    try:
        await transport.aclose()
    except Exception:
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        # A transport of the caller's may raise anything, and the others are to be closed all the same.
        raise RuntimeError(f"{transport!r} cannot be closed: it raised {foreign.shown(error)}") from error


def another_like(transport: Any, kind: type[Any]) -> Callable[[], Any] | None:
    """Return a function that makes transports like *transport*, each with its own connections; None if there is no way.

    Args:
        transport: any.
        kind: the package's own transport, whose pool is known. Neither package offers a copy.
    """
    pool: Any = getattr(transport, "_pool", None)
    held = (getattr(pool, "_connections", None), getattr(pool, "_requests", None))
    if not isinstance(transport, kind) or not all(isinstance(each, list) for each in held):
        return None

    def another() -> Any:
        twin: Any = copy.copy(transport)
        its: Any = copy.copy(pool)
        its._connections, its._requests = [], []
        twin._pool = its
        return twin

    return another
