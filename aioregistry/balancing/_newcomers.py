"""Which members are new, and what each weighs for that. Pure."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, Protocol

__all__ = ["Newcomers", "Rule"]

_HEAP_SLACK: Final = 16


class Rule(Protocol):
    """What a new member weighs."""

    seconds: float

    def weight(self, age: float) -> float:
        """Return the weight after *age* seconds; 1 from `seconds` on."""


class _Identified(Protocol):
    id: str


class Newcomers:
    """The members that are new, and what each weighs now. Every step is O(log n) at most.

    True where some weigh less than others.
    """

    __slots__ = ("_cold", "_due", "_now", "_rule", "_since")

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._now = 0.0
        self._since: dict[str, float] = {}  # of all that are new
        self._cold: dict[str, float] = {}  # of those that weigh less than others for that
        self._due: list[tuple[float, str]] = []  # a heap: when each is new no more; has some that were forgotten

    def __bool__(self) -> bool:
        return bool(self._cold)

    def note(self, id: str, since: float) -> None:
        """The member *id* is new since then."""
        if self._since.get(id) == since:
            return
        self._since[id] = self._cold[id] = since
        heappush(self._due, (since + self._rule.seconds, id))
        if len(self._due) > 2 * len(self._since) + _HEAP_SLACK:
            self._due = [(moment + self._rule.seconds, each) for each, moment in self._since.items()]
            heapify(self._due)

    def forget(self, id: str) -> None:
        """*id* is a member no more."""
        self._since.pop(id, None)
        self._cold.pop(id, None)

    def at(self, now: float, total: int, *, panic: bool = False) -> None:
        """It is *now*, and there are *total* members.

        While more than half of them are new, or there is a *panic*, those that are new get their full weight, and keep
        it: a panic picks failing instances like all others, and one that is well must not get fewer calls than they do.
        """
        self._now = now
        while self._due and self._due[0][0] <= now:
            end, id = heappop(self._due)
            if id in self._since and self._since[id] + self._rule.seconds <= end:
                self.forget(id)
        if self._cold and (panic or 2 * len(self._since) > total):
            self._cold.clear()

    def weight(self, member: _Identified) -> float:
        """Return what *member* weighs now, at most 1."""
        since = self._cold.get(member.id)
        return 1.0 if since is None else self._rule.weight(self._now - since)

    @property
    def weights(self) -> dict[str, float]:
        """What those weigh that weigh less than others, by id."""
        return {id: self._rule.weight(self._now - since) for id, since in self._cold.items()}
