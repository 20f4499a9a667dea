"""The picker: changes and reports go in, picks come out.

A pick is decided in a row: is the instance admitted (enabled, through the filter, with a weight), is it set
aside for failing, is it suspect while enough are confirmed, and then the strategy chooses among the others. All but
the choice is done when something changes, so that a pick looks at no instance but the one it returns.

**Panic.** Suspects come last and failing instances are not picked, as long as enough instances are well. If those are
fewer than a share of all that are known (Envoy's panic threshold), or weigh less than that share of what all weigh
together, both are picked like all others. After an outage the first to come back would get every call otherwise; and
when a dependency that all share fails, every check fails, and to pick no instance does not help. For suspects a panic
takes reports: if no caller says how calls went, nothing speaks against those that are dead. Failing instances live, as
their sessions prove, so they need no reports. Until a suspect answers a call, all that speaks for it is that it lived
once: beside instances that are confirmed it gets half a share, unless keys choose, which would move.
"""

# Longer than 450 lines: the state of an instance and the counts about it change together, in this class alone.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from aioregistry._arguments import as_written, check_choice, check_number, check_optional
from aioregistry._errors import InvalidArgument, NoInstances
from aioregistry._model import Added, Change, Entry, Removed, Snapshot, Updated

from ._admission import ADDRESS, Admission, Outside, Subset
from ._ejection import Ejection, Ejections
from ._keys import key_for
from ._members import FAILING, SUSPECT, WELL, Census, Filter, Loads, Member, Traits, place_of
from ._named import strategy_of
from ._newcomers import Newcomers
from ._panic import UNANSWERED, panics, units_of
from ._strategies import NOBODY, Draw, Pool, Remembering, Strategy
from ._thinning import choose_reduced, reduced_in, thinned
from ._warm_up import warm_up_of

__all__ = ["OfSuspects", "Picker", "Subset"]

P = TypeVar("P")

OfSuspects: TypeAlias = Literal["last", "never", "equal"]
"""When suspects are picked: ``"last"``, ``"never"`` or ``"equal"``."""

_OF_SUSPECTS: Final = ("last", "never", "equal")

NO_ARRIVALS: Final[Mapping[str, float]] = MappingProxyType({})
"""No member is new."""

_OF_ONE: Final = (Added, Updated, Removed)
"""Changes of one instance."""

_FIRST, _LAST = 0, 1
"""The ranks: a pool is picked from while those before it are empty."""


class Picker(Generic[P]):
    """Chooses among the instances of a service. Pure: time and chance are given, nothing waits.

    An instance with an unfit weight or address (``aioregistry/_addresses.py``), or at which a function of
    the caller's fails, is refused: it is never picked, and nothing else suffers from it. One that publishes no address
    is picked: how it is reached is then the caller's to know.

    Args:
        snapshot: the instances at first.
        strategy: how to choose, or its name.
        where: which instances are admitted; unless given all that are enabled and, if they are Spring Cloud's, in
            service.
        ejection: when those that fail are set aside; never unless given. The share that remains is one of the instances
            that are well, one of the suspects, and one of those whose checks fail.
        suspects: whether they are picked ``"last"``, ``"never"``, or like the others (``"equal"``).
        panic: share of the admitted and failing instances, and of their weight, from 0 (never) to 1 (while there is a
            failing instance or a suspect). A panic begins when less than that is well, by more than a sixteenth of all,
            and ends when that share is well: failing instances are picked like all others, and so are suspects that are
            to come last, once a call was reported.
        arrivals: since when instances are new, by id; kept up by its owner, before changes are reported.
        draw: random numbers, 0 <= number < 1.

    Attributes:
        refused: why, by id.
        in_panic: whether failing instances and suspects are picked now because too few are well.

    Raises:
        InvalidArgument: an argument is wrong; or instances were refused, not for their addresses, and no other is
            admitted: then it is the arguments that do not fit this service.
    """

    def __init__(
        self,
        snapshot: Snapshot[P],
        strategy: Strategy[P] | str = "round-robin",
        *,
        where: Filter[P] | None = None,
        ejection: Ejection | None = None,
        suspects: OfSuspects = "last",
        panic: float = 0.5,
        arrivals: Mapping[str, float] = NO_ARRIVALS,
        draw: Draw,
    ) -> None:
        check_choice("suspects", suspects, _OF_SUSPECTS)
        check_number("panic", panic, at_least=0, at_most=1)
        check_optional("ejection", ejection, Ejection)
        self.service: str = snapshot.name
        self.strategy: Strategy[P] = strategy_of(strategy)
        self._keyed = self.strategy.keyed
        self.refused: dict[str, InvalidArgument] = {}
        self.in_panic: bool = False
        self._hears = False  # whether a caller ever reported how a call went
        self._admission = Admission(self.strategy, where)
        self._of_suspects = suspects
        self._panic = as_written(panic)
        self._draw = draw
        self._ejections = Ejections(ejection, draw)
        self._failed, self._outliers = self._ejections.failed, self._ejections.kinds  # asked for by every pick
        warm_up = warm_up_of(self.strategy)
        self._arrivals = arrivals
        self._newcomers = None if warm_up is None else Newcomers(warm_up)
        self._census = Census(self._newcomers)
        self._doubtful = Census()  # suspects, and those that fail
        self._reduced = reduced_in(self.strategy, self._census)
        self._members: dict[str, Member[P]] = {}
        self._suspects: dict[str, Member[P]] = {}  # those of them
        self._unwell = Census()  # of the members: those that fail, and suspects that are to come last
        self._numbers = [0, 0, 0]  # of members, by their kind
        self._failing: dict[str, Entry[P]] = {}  # members during a panic, and else outside
        self._idle: dict[str, int] = {}  # what each of those outside weighs, in units
        self._idle_weight = 0
        self._suspects_equal = False  # for now, by the panic
        self._weighs_suspects = False  # for now: beside others that are confirmed
        self._loads = Loads()
        self._outside: dict[str, Outside] = {}
        self._reasons: Counter[Outside] = Counter()
        self._pools: dict[int, Pool[P]] = {}  # by rank, in order
        for entry in snapshot.entries.values():
            self._put(entry)
        self._look_for_panic()
        misfits = (error for error in self.refused.values() if error.field != ADDRESS)
        if not self._members and (misfit := next(misfits, None)) is not None:
            raise misfit

    # ------------------------------------------------------------------ changes in

    def apply(self, change: Change[P], now: float) -> list[InvalidArgument]:
        """Take note of *change* at *now*; return why instances are refused now that were not before. O(log n) for each.

        An Added of a known instance counts as an update; a Removed of an unknown one is ignored.
        """
        refused = []
        for each in (change,) if isinstance(change, _OF_ONE) else change.changes:
            if isinstance(each, Removed):
                self._drop(each.id)
            elif (error := self._put(each.entry)) is not None:
                refused.append(error)
        self._look_for_panic()
        if self._failed:
            self._readmit(now)
        return refused

    def _put(self, entry: Entry[P]) -> InvalidArgument | None:
        id = entry.instance.id
        standing = self._admission.judge(entry.instance) if entry.weight else Outside.WEIGHTLESS
        suspect, failing = entry.suspicion is not None, not entry.instance.enabled
        if isinstance(standing, Traits) and suspect and self._of_suspects == "never":
            standing = Outside.SUSPECT
        idle = 0
        if isinstance(standing, Traits) and failing and not self.in_panic:
            idle = units_of(standing.weight, entry.weight)
            standing = Outside.FAILING
        if isinstance(standing, Traits):
            member = self._members.get(id)
            if member is not None:
                self._change(member, entry, standing, suspect, failing)
            else:
                self._forget_outside(id)
                load, rank = self._loads.take(entry.instance), self._rank(suspect)
                self._add(
                    Member(entry.instance, standing, load, rank, suspect=suspect, failing=failing, weight=entry.weight)
                )
            if failing:
                self._failing[id] = entry
            if self._newcomers is not None and (since := self._arrivals.get(id)) is not None:
                self._newcomers.note(id, since)
            return None
        news = standing if isinstance(standing, InvalidArgument) and id not in self.refused else None
        self._drop(id)
        self._leave_out(id, standing)
        if standing is Outside.FAILING:
            self._failing[id] = entry
            self._idle[id] = idle
            self._idle_weight += idle
        return news

    def _rank(self, suspect: bool) -> int:
        return _LAST if suspect and self._of_suspects == "last" and not self._suspects_equal else _FIRST

    @property
    def healthy(self) -> tuple[int, int]:
        """The number of instances that are well, and the number of all that are admitted or failing."""
        known = len(self._members)
        well = known - self._unwell.total
        return well, known if self.in_panic else known + len(self._failing)

    @property
    def healthy_weight(self) -> tuple[int, int]:
        """The sum of the weights of those that are well, and of all that might be picked, in units."""
        known = self._census.weight
        return known - self._unwell.weight, known + self._idle_weight

    def _look_for_panic(self) -> None:
        """Move suspects and failing instances where they belong, if that is elsewhere than before."""
        if not self._unwell.total and not self._failing and not self.in_panic:
            return
        panic = (self._hears or bool(self._failing)) and any(
            panics(well, known, self._panic, already=self.in_panic)
            for well, known in (self.healthy, self.healthy_weight)
        )
        if panic != self.in_panic:
            self.in_panic = panic
            for entry in list(self._failing.values()):
                self._put(entry)
        equal = panic and self._hears
        if equal != self._suspects_equal:
            self._suspects_equal = equal
            for member in self._suspects.values():
                self._move(member, self._rank(True))
        # A key would move away and back again.
        self._weighs_suspects = equal and self._of_suspects == "last" and not self._keyed and self.healthy[0] > 0

    def _leave_out(self, id: str, why: Outside | InvalidArgument) -> None:
        if isinstance(why, InvalidArgument):
            self.refused[id] = why
            why = Outside.REFUSED
        self._outside[id] = why
        self._reasons[why] += 1

    def _add(self, member: Member[P]) -> None:
        self._members[member.id] = member
        if member.suspect:
            self._suspects[member.id] = member
        self._count(member, 1)
        self._pool(member.rank).add(member)

    def _count(self, member: Member[P], number: int) -> None:
        self._census.count(member, number)
        self._numbers[member.kind] += number
        if member.failing or member.suspect:
            self._doubtful.count(member, number)
            if member.failing or self._of_suspects == "last":
                self._unwell.count(member, number)

    def _change(self, member: Member[P], entry: Entry[P], traits: Traits, suspect: bool, failing: bool) -> None:
        instance = entry.instance
        if place_of(instance) != place_of(member.instance):
            self._loads.leave(member, moves=True)
            member.load = self._loads.take(instance)
        member.instance = instance
        if (suspect, failing) != (member.suspect, member.failing):
            self._change_standing(member, suspect, failing)
        if traits != member.traits or entry.weight != member.weight:
            inside = not self._is_out(member)
            if inside:
                self._pools[member.rank].discard(member)
            self._count(member, -1)
            member.traits, member.weight = traits, entry.weight
            self._count(member, 1)
            if inside:
                self._pool(member.rank).add(member)

    def _change_standing(self, member: Member[P], suspect: bool, failing: bool) -> None:
        """Begin again with *member*: how it failed before speaks no more for or against it."""
        if self._is_out(member):
            self._pool(member.rank).add(member)
        self._forget_failures(member)
        self._count(member, -1)
        member.suspect, member.failing, member.answered = suspect, failing, False
        member.kind = SUSPECT if suspect else FAILING if failing else WELL
        self._count(member, 1)
        self._failing.pop(member.id, None)
        if suspect:
            self._suspects[member.id] = member
        else:
            self._suspects.pop(member.id, None)
        self._move(member, self._rank(suspect))

    def _move(self, member: Member[P], rank: int) -> None:
        if rank == member.rank:
            return  # it keeps its turn
        inside = not self._is_out(member)
        if inside:
            self._pools[member.rank].discard(member)
        member.rank = rank
        if inside:
            self._pool(rank).add(member)

    def _drop(self, id: str) -> None:
        """Forget *id*, however it was known."""
        member = self._members.pop(id, None)
        if member is None:
            self._forget_outside(id)
            return
        if member.failing:
            self._failing.pop(id, None)
        if member.suspect:
            self._suspects.pop(id, None)
        self._loads.leave(member)
        if self._newcomers is not None:
            self._newcomers.forget(id)
        self._count(member, -1)
        if not self._is_out(member):
            self._pools[member.rank].discard(member)
        self._forget_failures(member)

    def _forget_outside(self, id: str) -> None:
        outside = self._outside.pop(id, None)
        if outside is not None:
            self._reasons[outside] -= 1
            self.refused.pop(id, None)
            self._failing.pop(id, None)
            self._idle_weight -= self._idle.pop(id, 0)

    def _forget_failures(self, member: Member[P]) -> None:
        if self._failed:
            self._outliers[member.kind].forget(member.id)

    def _pool(self, rank: int) -> Pool[P]:
        pool = self._pools.get(rank)
        if pool is None:
            pool = self.strategy.pool(self._draw, self._census)
            if self._pools and isinstance(pool, Remembering):  # a key's instance may change its rank
                pool.remember_with(next(iter(self._pools.values())))
            self._pools = dict(sorted({**self._pools, rank: pool}.items()))
        return pool

    # ------------------------------------------------------------------ parts that are judged as services of their own

    def subsets(self) -> tuple[Subset[P], ...]:
        """Return the parts of the service that callers of this picker see: those of the filter and of the own zone."""
        census, doubtful = self._census, self._doubtful
        local: Subset[P] = Subset(self._admission.admits_local, lambda: census.local - doubtful.local)
        if not self._admission.filters:
            return (local,)
        return Subset(self._admission.admits, lambda: census.total - doubtful.total), local

    # ------------------------------------------------------------------ reports in

    def report(self, member: Member[P], good: bool, since: float, now: float) -> float | None:
        """Take note of how a call to *member* went that began at *since*; return the seconds it is set aside for."""
        if good:
            member.answered = True
        if not self._hears:
            self._hears = True
            self._look_for_panic()
        if not self._outliers or self._members.get(member.id) is not member:
            return None
        self._readmit(now)
        outliers = self._outliers[member.kind]
        if good:
            if outliers.succeeded(member.id, since):
                self._pool(member.rank).add(member)
            return None
        was_out = member.id in outliers.out
        pause = outliers.failed(member.id, since, now, self._numbers[member.kind])
        if pause is not None and not was_out:
            self._pools[member.rank].discard(member)
        return pause

    def dismiss(self, member: Member[P], since: float) -> None:
        """Take note that a call to *member* that began at *since* is over, and how it went says nothing."""
        if not self._outliers or self._members.get(member.id) is not member:
            return
        if self._outliers[member.kind].said_nothing(member.id, since):
            self._pool(member.rank).add(member)

    def _is_out(self, member: Member[P]) -> bool:
        return bool(self._failed) and member.id in self._outliers[member.kind].out

    def _readmit(self, now: float) -> None:
        for kind, outliers in enumerate(self._outliers):
            if outliers.out:
                for id in outliers.returned(now, self._numbers[kind]):
                    member = self._members[id]
                    self._pool(member.rank).add(member)

    # ------------------------------------------------------------------ picks out

    def pick(self, key: str | bytes | None, now: float, exclude: frozenset[str] = NOBODY) -> Member[P]:
        """Return the member that the strategy chooses at *now*, for *key* if it takes one.

        Where all of a rank are in *exclude*, the next rank has its turn; those that are set aside have no turn. Where
        *exclude* leaves nothing else, the call shares an instance with the call that probes it, if no other does.

        Raises:
            InvalidArgument: *key* is neither str nor bytes, is missing, or is given to a strategy without keys.
            NoInstances: there is no instance to choose; it gives the reason.
        """
        hashed = None
        if key is not None or self._keyed:
            hashed = key_for(self.strategy, key)
        newcomers = self._newcomers
        if newcomers is not None and newcomers.since:
            newcomers.at(now, self._census.total, panic=self.in_panic)
        if self._failed:
            self._readmit(now)
        for pool in self._pools.values():
            if not len(pool):
                continue
            if self._weighs_suspects or self._reduced:
                member = self._choose_weighed(pool, hashed, exclude)
            else:
                member = pool.choose(hashed, exclude)
            if member is not None:
                if self._failed and member.id in self._outliers[member.kind].probation:
                    self._probe(member, now)
                return member
        if exclude and self._failed and (member := self._shared_probe(hashed, exclude)) is not None:
            return member
        raise self._nothing(now) from next(iter(self.refused.values()), None)

    def _choose_weighed(self, pool: Pool[P], hashed: bytes | None, exclude: frozenset[str]) -> Member[P] | None:
        if self._weighs_suspects:
            return thinned(pool, None, exclude, self._part_of, self._draw, b"")
        return choose_reduced(pool, hashed, exclude, self._draw)

    def _part_of(self, member: Member[P]) -> float:
        """The part of its share that *member* gets by what speaks for it, and by operators if the pool does not ask."""
        weight = member.weight if self._reduced else 1.0
        return weight * UNANSWERED if member.suspect and not member.answered else weight

    def _probe(self, member: Member[P], now: float) -> None:
        if self._outliers[member.kind].picked(member.id, now, self._numbers[member.kind]):
            self._pools[member.rank].discard(member)

    def _shared_probe(self, hashed: bytes | None, exclude: frozenset[str]) -> Member[P] | None:
        """Return the strategy's choice among the instances that one call probes now; the probes go on.

        To refuse the call would fail it for certain. The instance may be well by now, and the call was tried elsewhere.
        One call shares a probe, not all that fail elsewhere meanwhile: that would be all calls to another instance, at
        one that may not have recovered.
        """
        probed = [self._members[id] for id in self._ejections.shareable(exclude)]
        for member in probed:
            self._pool(member.rank).add(member)
        chosen = (pool.choose(hashed, exclude) for pool in self._pools.values() if len(pool)) if probed else ()
        found = next((member for member in chosen if member is not None), None)
        for member in probed:
            self._pools[member.rank].discard(member)
        if found is not None:
            self._outliers[found.kind].shared.add(found.id)
        return found

    def next_return(self) -> float | None:
        """Return when the first of those set aside, or probed, may be picked again, or None."""
        return self._ejections.next_return()

    @property
    def out(self) -> frozenset[str]:
        """The instances that may not be picked: set aside, or probed by a call since they returned."""
        return self._ejections.out

    @property
    def aside(self) -> Mapping[str, float]:
        """The instances that are set aside, and when each returns, by id."""
        return self._ejections.aside

    def warming_up(self, now: float) -> Mapping[str, float]:
        """Return the weights of new instances at *now*, by id."""
        if self._newcomers is None:
            return {}
        self._newcomers.at(now, self._census.total, panic=self.in_panic)
        return self._newcomers.weights

    def _nothing(self, now: float) -> NoInstances:
        counts = {reason.value: self._reasons[reason] for reason in Outside if self._reasons[reason]}
        out, due = len(self.out), self.next_return()
        kinds = {"set aside": out, "excluded": len(self._members) - out}
        counts |= {kind: number for kind, number in kinds.items() if number}
        return NoInstances(self.service, counts, None if due is None else due - now)

    def __repr__(self) -> str:
        if not hasattr(self, "_pools"):
            return "<Picker, not made>"  # an argument was refused
        outside = "".join(f", {number} {reason.value}" for reason, number in self._reasons.items() if number)
        aside = f", {len(self.aside)} set aside" if self.aside else ""
        return f"<Picker {self.service} {self.strategy!r}: {len(self._members)} admitted{aside}{outside}>"
