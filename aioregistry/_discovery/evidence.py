"""What calls say about suspects: when failures are enough to forget one. Pure.

ZooKeeper has lost sight of a suspect, and may be wrong. A failed call may be wrong too: a slow path times out, a pooled
connection was stale, or it is the caller's own network that failed. So one report forgets nobody. A suspect is
forgotten when it refused connections to two calls, the second of which began after the first had failed, while another
instance answered: then nothing listens there, and the network between is well.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import islice
from typing import Final

__all__ = ["Refusals", "is_refusal"]

_MOST_CAUSES: Final = 64
"""Errors that are looked at behind one: chains may be circular."""


def is_refusal(error: BaseException | None) -> bool:
    """Return whether *error*, or what caused it, is a connection that was refused."""
    return any(
        isinstance(each, ConnectionRefusedError) or (isinstance(each, OSError) and each.errno == errno.ECONNREFUSED)
        for each in islice(_causes(error), _MOST_CAUSES)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    pending = [error]
    while pending:
        each = pending.pop()
        if each is not None:
            yield each
            pending += [each.__cause__, each.__context__]
            if isinstance(each, BaseExceptionGroup):
                pending += each.exceptions[:_MOST_CAUSES]


class Refusals:
    """The refusals of suspects that are not enough yet, and who answered last."""

    __slots__ = ("_answers", "_first")

    def __init__(self) -> None:
        self._first: dict[str, float] = {}
        self._answers: dict[str, float] = {}  # the last two ids, each with when it answered last

    def answered(self, id: str, now: float) -> None:
        """A call to *id* was good."""
        self._first.pop(id, None)
        self._answers.pop(id, None)
        self._answers[id] = now
        if len(self._answers) > 2:
            del self._answers[next(iter(self._answers))]

    def refused(self, id: str, since: float, now: float) -> bool:
        """A call to the suspect *id* that began at *since* was refused; return whether that is enough."""
        first = self._first.setdefault(id, now)
        return since >= first < now and any(other != id and moment >= first for other, moment in self._answers.items())

    def forget(self, id: str) -> None:
        """*id* is no suspect any more."""
        self._first.pop(id, None)
