"""The server's clock, for overrides that seem to be over: only a write tells it, and it must end no override itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ._protocol import GetData, SetData

__all__ = ["server_time"]


async def server_time(request: Callable[[Any], Awaitable[Any]], root: str, place: str) -> float:
    """Return the server's time, in seconds since the epoch, by a write beside the overrides of the service at *place*.

    The node of a service may itself be an override: of the id ``chat`` where ``team`` and ``team/chat`` are services.
    A write there would change when that one ends, so then it is the root that is written. The data stay as they are.

    Raises:
        ServerError: the server refused; BadVersion where another client was quicker.
        ConnectionLost: there was no answer.
    """
    path = f"{root}/{place}"
    data, stat = (await request(GetData(path))).value
    if data:
        path = root
        data, stat = (await request(GetData(path))).value
    written = (await request(SetData(path, data, stat.version))).value
    return float(written.mtime) / 1000
