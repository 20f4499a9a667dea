"""The evidence of calls: how many failures suffice to forget an instance that ZooKeeper no longer lists. Pure.

ZooKeeper has lost sight of a suspect, and may be wrong. A failed call may be wrong too: a slow path times out, a pooled
connection was stale, or it is the caller's own network that failed. So one report does not remove an instance. Two
rules do:

- An instance refused connections to two calls, the second of which began after the first had failed, while another
  instance answered: then nothing listens there, and the network between is well.
- No instance answered for five seconds, and all that are in doubt refused connections to two calls meanwhile, the
  second of which began after the first had failed. A refusal is an answer of the host's, so its network is well; what
  is left in doubt is what stands before all of them, a proxy of the caller's own, say, and that is up again in less.

Refusals count from before an instance was in doubt, too: who dies is found out by calls long before its session ends.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final

__all__ = ["REMEMBERED", "SILENCE", "Refusals", "is_refusal"]

SILENCE: Final = 5.0
"""Seconds without any answer: the first pause of an ejection, and longer than most restarts."""

REMEMBERED: Final = 30.0
"""Seconds that a refusal speaks against an instance that is not in doubt: a hold's usual length."""

_MOST_REMEMBERED: Final = 10_000
"""Instances: those of a service, and then those that were called after they had left it."""

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
    """The refusals of instances that did not answer since, and who answered last."""

    __slots__ = ("_answers", "_certain", "_first", "_silent", "_twice")

    def __init__(self) -> None:
        self._first: dict[str, float] = {}
        self._certain: dict[str, float] = {}  # when the last refusal was that made its case certain
        self._silent: dict[str, float] = {}  # the first refusal of each since any instance answered, the earliest first
        self._twice: set[str] = set()  # those of them that refused again, to a call that began after that
        self._answers: dict[str, float] = {}  # the last two ids, each with when it answered last

    def __len__(self) -> int:
        return len(self._first)

    def answered(self, id: str, now: float) -> None:
        """A call to *id* was good."""
        self._first.pop(id, None)
        self._certain.pop(id, None)
        self._silent.clear()
        self._twice.clear()
        self._answers.pop(id, None)
        self._answers[id] = now
        if len(self._answers) > 2:
            del self._answers[next(iter(self._answers))]

    def refused(self, id: str, since: float, now: float) -> None:
        """A call to *id* that began at *since* was refused."""
        first = self._first.setdefault(id, now)
        if since >= self._silent.setdefault(id, now) < now:
            self._twice.add(id)
        if since >= first < now and any(other != id and moment >= first for other, moment in self._answers.items()):
            self._certain[id] = now
        if len(self._first) > _MOST_REMEMBERED:
            self.forget(next(iter(self._first)))

    def condemn(self, ids: Collection[str], now: float) -> set[str]:
        """Return which of *ids*, all that are in doubt, are dead."""
        since = next(iter(self._silent.values()), now)
        if now - since >= SILENCE and self._twice.issuperset(ids):
            return set(ids)
        return {id for id in self._certain.keys() & ids if now - self._certain[id] <= REMEMBERED}

    def forget(self, id: str) -> None:
        """*id* is not a suspect any more, or was registered again."""
        for each in (self._first, self._certain, self._silent):
            each.pop(id, None)
        self._twice.discard(id)
