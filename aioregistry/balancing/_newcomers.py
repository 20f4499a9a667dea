"""Which members are new, and what each weighs for that. Pure."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, Protocol

__all__ = ["Newcomers", "Ramp"]

_HEAP_SLACK: Final = 16


class Ramp(Protocol):
    """The weight of a new member."""

    seconds: float

    def weight(self, age: float) -> float:
        """Return the weight after *age* seconds; 1 from `seconds` on."""


class _Identified(Protocol):
    id: str


class Newcomers:
    """The members that are new, and what each weighs now. Every step is O(log n) at most.

    Attributes:
        since: when each of all that are new was seen first, by id.
        cold: the same of those that weigh less than others for that.
    """

    __slots__ = ("_due", "_now", "_rule", "cold", "since")

    def __init__(self, rule: Ramp) -> None:
        self._rule = rule
        self._now = 0.0
        self.since: dict[str, float] = {}
        self.cold: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []  # a heap: when each stops being new; has some that were forgotten

    def note(self, id: str, since: float) -> None:
        """The member *id* is new since then."""
        if self.since.get(id) == since:
            return
        self.since[id] = self.cold[id] = since
        heappush(self._due, (since + self._rule.seconds, id))
        if len(self._due) > 2 * len(self.since) + _HEAP_SLACK:
            self._due = [(moment + self._rule.seconds, each) for each, moment in self.since.items()]
            heapify(self._due)

    def forget(self, id: str) -> None:
        """*id* is not a member any longer."""
        self.since.pop(id, None)
        self.cold.pop(id, None)

    def at(self, now: float, total: int, *, panic: bool = False) -> None:
        """It is *now*, and there are *total* members.

        While more than half of them are new, or there is a *panic*, those that are new get their full weight, and keep
        it: a panic picks failing instances like all others, and one that is well must not get fewer calls than they do.
        """
        self._now = now
        while self._due and self._due[0][0] <= now:
            end, id = heappop(self._due)
            if id in self.since and self.since[id] + self._rule.seconds <= end:
                self.forget(id)
        if self.cold and (panic or 2 * len(self.since) > total):
            self.cold.clear()

    def weight(self, member: _Identified) -> float:
        """Return what *member* weighs now, at most 1."""
        since = self.cold.get(member.id)
        return 1.0 if since is None else self._rule.weight(self._now - since)

    @property
    def weights(self) -> dict[str, float]:
        """The weights of those that weigh less than others, by id."""
        return {id: self._rule.weight(self._now - since) for id, since in self.cold.items()}
