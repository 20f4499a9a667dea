"""Waiting for a snapshot that a predicate of the caller's accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import anyio

from aioregistry import _foreign as foreign
from aioregistry._arguments import check_callable, check_seconds
from aioregistry._errors import HandleClosed, RequestTimeout, UsageError
from aioregistry._model import Snapshot
from aioregistry._streams import Stream

__all__ = ["accepted", "first_accepted"]

P = TypeVar("P")


async def first_accepted(
    name: str,
    snapshots: Callable[[], Stream[Snapshot[P]]],
    predicate: Callable[[Snapshot[P]], bool],
    timeout: float | None,
    outage_attempts: Callable[[], Mapping[str, str]],
) -> Snapshot[P]:
    """Return the first of *snapshots* that *predicate* accepts, as :meth:`aioregistry.View.wait_for` says.

    Args:
        name: of the service.
        snapshots: returns a stream, the present snapshot first.
        predicate: of the caller.
        timeout: seconds; None waits for as long as it takes.
        outage_attempts: returns what each address answered while there is no connection.
    """
    check_callable("predicate", predicate)
    if timeout is not None:
        check_seconds("timeout", timeout)
    with anyio.move_on_after(timeout):
        async with snapshots() as stream:
            async for snapshot in stream:
                if accepted(predicate, snapshot):
                    return snapshot
        raise HandleClosed(f"View of {name!r} was closed")
    raise RequestTimeout(f"no snapshot of {name!r} was accepted within timeout={timeout:g} s", outage_attempts())


def accepted(predicate: Callable[[Snapshot[P]], bool], snapshot: Snapshot[P]) -> bool:
    """Return whether *predicate* accepts *snapshot*; raises its exception, or UsageError for a misleading one."""
    try:
        return foreign.call(predicate, snapshot)
    except foreign.ForeignError as failure:
        error = failure.error
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
            raise error from error.__cause__
        raise UsageError(f"the predicate raised {failure}") from error
