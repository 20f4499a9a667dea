"""A request on its way, and what its answer is worth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from aioregistry._errors import BadVersion, NoAuth, NoNode, RegistryError, ServerError
from aioregistry._protocol import WRITE_OPCODES, Delete, Reply, Sync

__all__ = ["AGREED", "BARRIER", "Answered", "HeldRequest", "Pending", "fail", "is_evidence", "passing"]

Answered: TypeAlias = Callable[["asyncio.Future[Reply[Any]]"], None]

T = TypeVar("T")

# The requests that the quorum decides: an answer to one of these was agreed on after it was sent.
_EVIDENT = WRITE_OPCODES | {Sync.opcode}
# Errors that a server gives by itself, without asking its leader: unimplemented, marshalling, bad arguments,
# credentials refused or wanted, throttled, session expired or moved, not read-only.
_LOCAL_ERRORS = frozenset({-5, -6, -8, -112, -115, -118, -119, -124, -127})

# In the place of a sync, on a server that hangs up on those: the quorum decides about it, too, and nothing changes.
BARRIER = Delete("/aioregistry-barrier", version=0x7FFF_FFFF)
AGREED = (NoNode, NoAuth, BadVersion)
"""The quorum's answers to a write that must fail."""


class Pending(NamedTuple, Generic[T]):
    request: Any
    xid: int
    future: asyncio.Future[Reply[T]]
    sent: float
    answered: Answered | None
    size: int


class HeldRequest(NamedTuple):
    """A request that waits until those before it are answered, or that must be sent apart."""

    pending: Pending[Any]
    payload: bytes
    apart: bool


def is_evidence(request: Any, error: RegistryError | None) -> bool:
    """Whether an answer to *request*, a result or an *error*, was agreed on by the quorum after it was sent."""
    if request.opcode not in _EVIDENT:
        return False
    return error is None or (isinstance(error, ServerError) and error.code not in _LOCAL_ERRORS)


def fail(future: asyncio.Future[Any], error: RegistryError, answered: Answered | None = None) -> None:
    """Let *future* fail, and *answered* be called soon."""
    future.set_exception(error)
    # Counts as retrieved: the owner that dropped the future does not want to know, and the loop would log it as a
    # defect.
    future.exception()
    if answered is not None:
        asyncio.get_running_loop().call_soon(answered, future)


def passing(future: asyncio.Future[Reply[Any]], sync: Any, answered: Answered | None) -> Answered:
    """Return what answers *sync* by the answer to a BARRIER: it says as much, and heartbeats and observations go on."""

    def passed(answer: asyncio.Future[Reply[Any]]) -> None:
        error = answer.exception()
        if future.done():  # the waiter was cancelled
            return
        if isinstance(error, AGREED):
            future.set_result(Reply(error.zxid, sync.path))
        else:
            assert isinstance(error, RegistryError), "a write with this version succeeds nowhere"
            fail(future, error)
        if answered is not None:
            answered(future)

    return passed
