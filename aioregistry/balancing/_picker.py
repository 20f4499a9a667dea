"""The picker: changes and reports go in, picks come out.

What may be picked is decided in a row: is the instance admitted (enabled, through the filter, with a weight), is it set
aside for failing, has it a rank worse than others', and then the strategy chooses among what is left. All but the
choice is done when something changes, so that a pick looks at no instance but the one it returns.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from aioregistry._errors import InvalidArgument, NoInstances
from aioregistry._model import Added, Change, Entry, Removed, ServiceInstance, Snapshot, Updated

from ._ejection import Ejection, Outliers
from ._keys import key_bytes
from ._members import Census, Filter, Member, Traits, filter_of
from ._strategies import Draw, LeastOutstanding, Pool, Random, Remembering, RoundRobin, Strategy, check_strategy

__all__ = ["STRATEGIES", "OfSuspects", "Picker", "Rank", "rank_of", "strategy_of"]

P = TypeVar("P")

STRATEGIES: Final[Mapping[str, Callable[[], Strategy[Any]]]] = {
    "least-outstanding": LeastOutstanding,
    "random": Random,
    "round-robin": RoundRobin,
}
"""The strategies that need no argument, by name."""


def strategy_of(strategy: Strategy[P] | str) -> Strategy[P]:
    """Return *strategy*, which may be given by name (see :data:`STRATEGIES`).

    Raises:
        InvalidArgument: it is no strategy, or not the name of one.
    """
    if not isinstance(strategy, str):
        check_strategy("strategy", strategy)
        return strategy
    if strategy not in STRATEGIES:
        known = ", ".join(map(repr, STRATEGIES))
        raise InvalidArgument("strategy", strategy, f"must be one of {known}, or a strategy as Ring()")
    return STRATEGIES[strategy]()


Rank: TypeAlias = Callable[[Entry[Any]], int | None]
"""Of an entry 0 or more, the lowest being picked first; None for one that is not picked at all."""

OfSuspects: TypeAlias = Literal["last", "never", "equal"]
"""When suspects are picked."""

_RANKS: Final[Mapping[str, Rank]] = {
    "last": lambda entry: 0 if entry.suspicion is None else 1,
    "never": lambda entry: 0 if entry.suspicion is None else None,
    "equal": lambda _: 0,
}


def rank_of(suspects: object) -> Rank:
    """Return the ranks by which suspects are picked ``"last"``, ``"never"``, or as if they were none.

    Raises:
        InvalidArgument: it is none of these.
    """
    if not isinstance(suspects, str) or suspects not in _RANKS:
        raise InvalidArgument("suspects", suspects, f"must be one of {', '.join(map(repr, _RANKS))}")
    return _RANKS[suspects]


class _Outside(enum.Enum):
    """Why an instance is not admitted; the values are :class:`NoInstances`'s."""

    DISABLED = "disabled"
    FILTERED = "filtered out"
    REFUSED = "refused"
    SUSPECT = "suspect"
    WEIGHTLESS = "of weight 0"


class Picker(Generic[P]):
    """Chooses among the instances of a service. Pure: time and chance are given, nothing waits.

    An instance whose weight is none, or at which a function of the caller's fails, is refused: it is never picked, and
    nothing else suffers from it.

    Args:
        snapshot: the instances at first.
        strategy: how to choose, or its name.
        where: which instances are admitted; all enabled ones unless given.
        ejection: when those that fail are set aside; never unless given.
        rank: an instance is picked only while there is none of a lower rank that could be; suspects come last unless
            given.
        draw: random numbers, 0 <= number < 1.

    Attributes:
        refused: why, by id.

    Raises:
        InvalidArgument: an argument is wrong; or instances were refused and no other is admitted: then it is the
            arguments that do not fit this service.
    """

    def __init__(
        self,
        snapshot: Snapshot[P],
        strategy: Strategy[P] | str = "round-robin",
        *,
        where: Filter[P] | None = None,
        ejection: Ejection | None = None,
        rank: Rank = _RANKS["last"],
        draw: Draw,
    ) -> None:
        if ejection is not None and not isinstance(ejection, Ejection):
            raise InvalidArgument("ejection", ejection, "must be an Ejection, or None")
        self.service = snapshot.name
        self.strategy = strategy_of(strategy)
        self.refused: dict[str, InvalidArgument] = {}
        self._accepts = filter_of(where)
        self._rank = rank
        self._draw = draw
        self._outliers = None if ejection is None else Outliers(ejection, draw)
        self._census = Census()
        self._members: dict[str, Member[P]] = {}
        self._outside: dict[str, _Outside] = {}
        self._reasons: Counter[_Outside] = Counter()
        self._pools: dict[int, Pool[P]] = {}  # by rank, in order
        # Each process in an order of its own: a hundred that start together shall not go round in step.
        for id in _shuffled(snapshot.entries, draw):
            self._put(snapshot.entries[id])
        if self.refused and not self._members:
            raise next(iter(self.refused.values()))

    # ------------------------------------------------------------------ changes in

    def apply(self, change: Change[P], now: float) -> list[InvalidArgument]:
        """Take note of *change*, at *now*; return why instances were refused that were not before. O(log n) for each.

        An Added of an instance that is there is an update, a Removed of one that is not is nothing.
        """
        refused = []
        for each in (change,) if isinstance(change, Added | Updated | Removed) else change.changes:
            if isinstance(each, Removed):
                self._drop(each.id)
            elif (error := self._put(each.entry)) is not None:
                refused.append(error)
        self._readmit(now)
        return refused

    def _put(self, entry: Entry[P]) -> InvalidArgument | None:
        id = entry.instance.id
        standing = self._judge(entry.instance)
        rank = self._rank(entry)
        member = self._members.get(id)
        if isinstance(standing, Traits) and rank is not None:
            if member is not None:
                self._change(member, entry.instance, standing, rank)
                return None
            self._drop(id)
            self._add(Member(entry.instance, standing, rank))
            return None
        news = standing if isinstance(standing, InvalidArgument) and id not in self.refused else None
        self._drop(id)
        self._leave_out(id, _Outside.SUSPECT if isinstance(standing, Traits) else standing)
        return news

    def _judge(self, instance: ServiceInstance[P]) -> Traits | _Outside | InvalidArgument:
        asked = "where"
        try:
            if not instance.enabled:
                return _Outside.DISABLED
            if not self._accepts(instance):
                return _Outside.FILTERED
            asked = "strategy"
            traits = self.strategy.traits(instance)
        except InvalidArgument as error:
            return error
        except Exception as error:  # noqa: BLE001 - of a comparison or a strategy of the caller's: no view ends with it
            refusal = InvalidArgument(asked, None, f"of {instance.id}: it raised {error!r}")
            refusal.__cause__ = error
            return refusal
        return traits if traits.weight else _Outside.WEIGHTLESS

    def _leave_out(self, id: str, why: _Outside | InvalidArgument) -> None:
        if isinstance(why, InvalidArgument):
            self.refused[id] = why
            why = _Outside.REFUSED
        self._outside[id] = why
        self._reasons[why] += 1

    def _add(self, member: Member[P]) -> None:
        self._members[member.id] = member
        self._census.count(member.traits, 1)
        self._pool(member.rank).add(member)

    def _change(self, member: Member[P], instance: ServiceInstance[P], traits: Traits, rank: int) -> None:
        member.instance = instance
        if traits == member.traits and rank == member.rank:
            return  # it keeps its turn
        inside = not self._is_aside(member.id)
        if inside:
            self._pools[member.rank].discard(member)
        self._census.count(member.traits, -1)
        member.traits, member.rank = traits, rank
        self._census.count(traits, 1)
        if inside:
            self._pool(rank).add(member)

    def _drop(self, id: str) -> None:
        """Forget *id*, however it was known."""
        self.refused.pop(id, None)
        outside = self._outside.pop(id, None)
        if outside is not None:
            self._reasons[outside] -= 1
        member = self._members.pop(id, None)
        if member is None:
            return
        self._census.count(member.traits, -1)
        if not self._is_aside(id):
            self._pools[member.rank].discard(member)
        if self._outliers is not None:
            self._outliers.forget(id)

    def _pool(self, rank: int) -> Pool[P]:
        pool = self._pools.get(rank)
        if pool is None:
            pool = self.strategy.pool(self._draw, self._census)
            if self._pools and isinstance(pool, Remembering):  # a key's instance may change its rank
                pool.remember_with(next(iter(self._pools.values())))
            self._pools = dict(sorted({**self._pools, rank: pool}.items()))
        return pool

    # ------------------------------------------------------------------ reports in

    def report(self, member: Member[P], good: bool, since: float, now: float) -> float | None:
        """Take note of how a call to *member* went that began at *since*; return the seconds it is set aside for."""
        outliers = self._outliers
        if outliers is None or self._members.get(member.id) is not member:
            return None
        self._readmit(now)
        if good:
            outliers.succeeded(member.id, since, now)
            return None
        pause = outliers.failed(member.id, since, now, len(self._members))
        if pause is not None:
            self._pools[member.rank].discard(member)
        return pause

    def _is_aside(self, id: str) -> bool:
        return self._outliers is not None and id in self._outliers.aside

    def _readmit(self, now: float) -> None:
        outliers = self._outliers
        if outliers is not None and outliers.aside:
            for id in outliers.returned(now, len(self._members)):
                member = self._members[id]
                self._pool(member.rank).add(member)

    # ------------------------------------------------------------------ picks out

    def pick(self, key: str | bytes | None, now: float) -> Member[P]:
        """Return the member that the strategy chooses at *now*, for *key* if it takes one.

        Raises:
            InvalidArgument: *key* is neither str nor bytes, is missing, or is given to a strategy that takes none.
            NoInstances: there is none to choose; says why.
        """
        hashed = None
        if key is not None or self.strategy.keyed:
            hashed = self._checked(key)
        if self._outliers is not None:
            self._readmit(now)
        for pool in self._pools.values():
            if len(pool):
                return pool.choose(hashed)
        raise self._nothing(now) from next(iter(self.refused.values()), None)

    def next_return(self) -> float | None:
        """Return when the first of those set aside may be picked again; None where none is."""
        return None if self._outliers is None else self._outliers.next_return()

    @property
    def aside(self) -> Mapping[str, float]:
        """Who is set aside, and when each returns, by id."""
        return {} if self._outliers is None else dict(self._outliers.aside)

    def _checked(self, key: str | bytes | None) -> bytes:
        if not self.strategy.keyed:
            raise InvalidArgument("key", key, f"{self.strategy!r} takes no key")
        if key is None:
            raise InvalidArgument("key", key, f"{self.strategy!r} needs one")
        return key_bytes(key)

    def _nothing(self, now: float) -> NoInstances:
        counts = {reason.value: self._reasons[reason] for reason in _Outside if self._reasons[reason]}
        due = self.next_return()
        if due is None:
            return NoInstances(self.service, counts)
        return NoInstances(self.service, counts | {"set aside": len(self._members)}, due - now)

    def __repr__(self) -> str:
        outside = "".join(f", {number} {reason.value}" for reason, number in self._reasons.items() if number)
        aside = f", {len(self.aside)} set aside" if self.aside else ""
        return f"<Picker {self.service} {self.strategy!r}: {len(self._members)} admitted{aside}{outside}>"


def _shuffled(ids: Iterable[str], draw: Draw) -> list[str]:
    shuffled = sorted(ids)
    for last in range(len(shuffled) - 1, 0, -1):
        other = int(draw() * (last + 1))
        shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
    return shuffled
