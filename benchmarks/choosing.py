"""The worth of the rules of choosing when things fail: `python -m benchmarks.choosing [--seeds N]`. Needs no server.

Pure virtual time: real pickers, one for each consumer, and servers of a limited capacity. Each row is one scenario
without a rule and with it, the mean of the seeds: the share of calls that failed, and the busiest instance's calls as a
multiple of its fair share. Without means what was done before there was the rule. `docs/balancing.md` shows the table.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from statistics import fmean
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry import (
    Ejection,
    Guard,
    LeastOutstanding,
    NoInstances,
    OwnZone,
    Ring,
    RoundRobin,
    ServiceInstance,
    Weighted,
)
from aioregistry._discovery.evidence import Refusals
from aioregistry._discovery.guard import Moment, Suspects
from aioregistry._model import Added, Entry, Removed, Snapshot, Suspicion, Updated
from aioregistry.balancing import NOBODY, Census, Draw, Member, Picker, Pool, Strategy, Subset, Traits
from aioregistry.balancing._members import Load

DOUBT: Final = Suspicion("disruption", 0.0, 30.0)


class Outcome(NamedTuple):
    """The figures of a scenario."""

    failed: float
    """Share of the calls."""

    busiest: float
    """Calls of the busiest instance in any second, or round, as a multiple of the mean."""


@dataclass
class Server:
    """A process that serves, as many calls a second as it can.

    Args:
        capacity: calls a second; a tenth of a second's worth is taken at once.
    """

    capacity: float
    alive: bool = True
    _tokens: float = field(init=False)
    _filled: float = 0.0

    def __post_init__(self) -> None:
        self._tokens = self.capacity / 10

    def serves(self, now: float) -> bool:
        """Whether a call that comes now is served."""
        self._tokens = min(self.capacity / 10, self._tokens + (now - self._filled) * self.capacity)
        self._filled = now
        served = self.alive and self._tokens >= 1
        self._tokens -= served
        return served


def entry(id: str, *, suspect: bool = False, **payload: object) -> Entry[Any]:
    listed = Entry(ServiceInstance("chat", id=id, address="10.0.0.7", port=7000, payload=payload), 1, 1, 1, 0, 0.0, 0.0)
    return listed.with_suspicion(DOUBT) if suspect else listed


def snapshot(entries: Iterable[Entry[Any]]) -> Snapshot[Any]:
    return Snapshot("chat", {each.instance.id: each for each in entries}, {}, as_of=1)


def names(number: int) -> list[str]:
    return [f"i{index:03d}" for index in range(number)]


class Consumer:
    """A picker, and what its view makes of refusals, as its guard does.

    Args:
        believes: whether one failure of any kind drops a suspect, as it did before there were rules for it.
    """

    def __init__(
        self,
        listed: Snapshot[Any],
        strategy: Strategy[Any] | str,
        draw: random.Random,
        *,
        believes: bool = False,
        **options: Any,
    ) -> None:
        self._believes = believes
        self.picker: Picker[Any] = Picker(listed, strategy, draw=draw.random, **options)
        self._refusals = Refusals()
        self._suspects: set[str] = set()

    def lose(self, ids: Iterable[str]) -> None:
        """These become suspect, where calls have been reported before."""
        self.picker.report(self.picker.pick(None, 0.0), True, 0.0, 0.0)
        self._suspects = set(ids)
        for id in sorted(self._suspects):
            self.picker.apply(Updated(entry(id, suspect=True), entry(id), 2), 0.0)

    def confirm(self, id: str, now: float) -> None:
        """*id* is listed again."""
        self._suspects.discard(id)
        self.picker.apply(Updated(entry(id), entry(id, suspect=True), 3), now)

    def report(self, member: Member[Any], good: bool, alive: bool, now: float) -> None:
        self.picker.report(member, good, now, now)
        if good:
            self._refusals.answered(member.id, now)
        elif self._believes and member.suspect:
            self.picker.apply(Removed(entry(member.id), 4), now)
        elif not alive:
            self._refusals.refused(member.id, now, now)
            for id in self._refusals.condemn(self._suspects, now):
                self._suspects.discard(id)
                self._refusals.forget(id)
                self.picker.apply(Removed(entry(id), 4), now)


class Calls:
    """Consumers that call at an even rate, and what became of their calls.

    Args:
        draw: chance.
        servers: by id.
        rate: calls a second of all consumers together.
        attempts: for each call, each at another instance.
        lost: share of the calls that time out on a slow path, whichever instance serves them.
        keyed: whether each call has a key of its own.
        blind: whether another instance is looked for by choosing again, up to 32 times, and once for a key.

    Attributes:
        failed: of each call so far, whether it did.
    """

    def __init__(
        self,
        draw: random.Random,
        servers: Mapping[str, Server],
        rate: float,
        attempts: int = 1,
        *,
        lost: float = 0.0,
        keyed: bool = False,
        blind: bool = False,
    ) -> None:
        self._draw = draw
        self._servers = servers
        self.rate = rate
        self.failed: list[bool] = []
        self._attempts = attempts
        self._lost = lost
        self._keyed = keyed
        self._blind = blind
        self._by_second: dict[int, Counter[str]] = {}

    def run(self, consumers: Sequence[Consumer], seconds: float, start: float = 0.0) -> None:
        for number in range(round(seconds * self.rate)):
            now = start + number / self.rate
            self.failed.append(not self._call(self._draw.choice(consumers), now))

    def _call(self, consumer: Consumer, now: float) -> bool:
        tried: set[str] = set()
        key = f"key {self._draw.randrange(1000)}" if self._keyed else None
        for _ in range(self._attempts):
            member = self._another(consumer.picker, key, now, tried)
            if member is None:
                return False
            server = self._servers[member.id]
            good = server.serves(now) and not (self._lost and self._draw.random() < self._lost)
            self._by_second.setdefault(int(now), Counter())[member.id] += 1
            consumer.report(member, good, server.alive, now)
            if good:
                return True
            tried.add(member.id)
        return False

    def _another(self, picker: Picker[Any], key: str | None, now: float, tried: set[str]) -> Member[Any] | None:
        draws = 32 if self._blind and tried and key is None else 1
        for _ in range(draws):
            try:
                member = picker.pick(key, now, NOBODY if self._blind else frozenset(tried))
            except NoInstances:
                return None
            if member.id not in tried:
                return member
        return None

    def outcome(self) -> Outcome:
        share = self.rate / len(self._servers)
        busiest = max(max(counts.values()) for counts in self._by_second.values())
        return Outcome(fmean(self.failed), busiest / share)


# ---------------------------------------------------------------- scenarios: seed and whether the rule holds → outcome


def comeback(seed: int, with_rule: bool, strategy: Strategy[Any] | str = "round-robin") -> Outcome:
    """A hundred that live are suspect; they come back over 8 s, and each takes three times its share of calls."""
    return comeback_of(random.Random(seed), with_rule, strategy).outcome()


def comeback_of(draw: random.Random, with_rule: bool, strategy: Strategy[Any] | str) -> Calls:
    ids, rate = names(100), 2000.0
    calls = Calls(draw, {id: Server(3 * rate / len(ids)) for id in ids}, rate)
    listed = snapshot(entry(id) for id in ids)
    panic = 0.5 if with_rule else 0.0
    consumers = [Consumer(listed, strategy, draw, panic=panic) for _ in range(20)]
    for consumer in consumers:
        consumer.lose(ids)
    times = sorted((draw.uniform(0.0, 8.0), id) for id in ids)
    now = 0.0
    for time, id in [*times, (10.0, "")]:
        calls.run(consumers, time - now, now)
        now = time
        for consumer in consumers if id else ():
            consumer.confirm(id, now)
    return calls


def all_dead(seed: int, with_rule: bool) -> Outcome:
    """All of them are dead, and five new ones come: the dead are to be found out."""
    draw = random.Random(seed)
    ids, rate = names(40), 200.0
    new = [f"new{number}" for number in range(5)]
    calls = Calls(draw, {id: Server(rate, alive=id in new) for id in [*ids, *new]}, rate, attempts=3)
    panic = 0.5 if with_rule else 0.0
    listed = snapshot(entry(id) for id in ids)
    consumers = [Consumer(listed, "round-robin", draw, ejection=Ejection(), panic=panic) for _ in range(4)]
    for consumer in consumers:
        consumer.lose(ids)
        for id in new:
            consumer.picker.apply(Added(entry(id), 3), 0.0)
    calls.run(consumers, 30.0)
    return calls.outcome()


def retry_beyond_the_zone(seed: int, with_rule: bool) -> Outcome:
    """The own zone is one dead instance; ten elsewhere are well. Without: a retry chooses again, as before."""
    draw = random.Random(seed)
    zones = {id: "ours" if id == "i000" else "theirs" for id in names(11)}
    servers = {id: Server(1e6, alive=zone == "theirs") for id, zone in zones.items()}
    calls = Calls(draw, servers, 10.0, attempts=3, blind=not with_rule)
    listed = snapshot(entry(id, zone=zone) for id, zone in zones.items())
    calls.run([Consumer(listed, OwnZone("ours", RoundRobin()), draw)], 60.0)
    return calls.outcome()


def slow_path(seed: int, with_rule: bool) -> Outcome:
    """Six that live are suspect, and one call in twenty times out. Without: a failed call drops a suspect."""
    draw = random.Random(seed)
    ids = names(6)
    calls = Calls(draw, {id: Server(1e6) for id in ids}, 10.0, lost=0.05)
    consumer = Consumer(snapshot(map(entry, ids)), "round-robin", draw, believes=not with_rule, ejection=Ejection())
    consumer.lose(ids)
    calls.run([consumer], 30.0)
    return calls.outcome()


def retry_to_suspects(seed: int, with_rule: bool) -> Outcome:
    """One is confirmed and dead, five are suspect and live; these are picked last. Without: it chooses again."""
    draw = random.Random(seed)
    ids = names(6)
    calls = Calls(draw, {id: Server(1e6, alive=id != "i000") for id in ids}, 10.0, attempts=3, blind=not with_rule)
    consumer = Consumer(snapshot(map(entry, ids)), "round-robin", draw, panic=0.0)
    consumer.lose(ids[1:])
    calls.run([consumer], 60.0)
    return calls.outcome()


def retry_by_key(seed: int, with_rule: bool) -> Outcome:
    """One of ten on a ring is dead, and its keys go to their next. Without: a retry chooses for the same key."""
    draw = random.Random(seed)
    ids = names(10)
    servers = {id: Server(1e6, alive=id != "i000") for id in ids}
    calls = Calls(draw, servers, 10.0, attempts=3, keyed=True, blind=not with_rule)
    calls.run([Consumer(snapshot(map(entry, ids)), Ring(), draw)], 60.0)
    return calls.outcome()


def retry_by_weight(seed: int, with_rule: bool) -> Outcome:
    """Nine in ten of the calls go to one that is dead. Without: a retry chooses again."""
    draw = random.Random(seed)
    servers = {"heavy": Server(1e6, alive=False), "light": Server(1e6)}
    calls = Calls(draw, servers, 10.0, attempts=3, blind=not with_rule)
    listed = snapshot([entry("heavy", weight=99), entry("light", weight=1)])
    calls.run([Consumer(listed, Weighted("weight"), draw)], 60.0)
    return calls.outcome()


def black_hole(seed: int, with_rule: bool) -> Outcome:
    """One of three swallows packets. Two requests a second have 3 s each, for three attempts one after the other.

    With the rule an attempt may take its share of the time that is left, and one that the deadline ends counts against
    the instance. Without, the first attempt has all of the time, and its end is reported as a cancellation: nothing.
    """
    draw = random.Random(seed)
    ids, total, attempts = names(3), 3.0, 3
    picker = Picker(snapshot(map(entry, ids)), "round-robin", ejection=Ejection(), draw=draw.random)
    failed: list[bool] = []
    by_second: dict[int, Counter[str]] = {}
    # An event at a moment: a request's next attempt, or the end of the one that waits for a connection.
    agenda: list[tuple[float, int, _Request, Member[Any] | None]]
    agenda = [(number / 2, number, _Request(number / 2 + total), None) for number in range(1200)]
    heapify(agenda)
    while agenda:
        now, number, request, waited = heappop(agenda)
        if waited is not None:
            if with_rule:
                picker.report(waited, False, request.since, now)
            else:
                picker.dismiss(waited, request.since)
            request.tried |= {waited.id}
        left = attempts - len(request.tried)
        if not left or now >= request.until:
            failed.append(True)
            continue
        member = picker.pick(None, now, request.tried)
        by_second.setdefault(int(now), Counter())[member.id] += 1
        if member.id == ids[0]:
            share = (request.until - now) / left if with_rule else request.until - now
            request.since = now
            heappush(agenda, (now + share, number, request, member))
            continue
        picker.report(member, True, now, now)
        failed.append(False)
    busiest = max(max(counts.values()) for counts in by_second.values())
    return Outcome(fmean(failed), busiest / (2.0 / len(ids)))


@dataclass
class _Request:
    until: float
    since: float = 0.0
    tried: frozenset[str] = frozenset()


def lockstep(seed: int, with_rule: bool) -> Outcome:
    """A rolling restart of 20 before 1,000 consumers, which then pick in rounds. Without: those that come go last."""
    return lockstep_of(seed, RoundRobin() if with_rule else InOrder())


def lockstep_of(seed: int, strategy: Strategy[Any] | str) -> Outcome:
    draw = random.Random(seed)
    ids, consumers = names(20), 1000
    pickers = [Picker(snapshot(entry(id) for id in ids), strategy, draw=draw.random) for _ in range(consumers)]
    for picker in pickers:  # each is somewhere in its lap
        for _ in range(draw.randrange(len(ids))):
            picker.pick(None, 0.0)
    for id in ids:
        for picker in pickers:
            picker.apply(Removed(entry(id), 2), 0.0)
            picker.apply(Added(entry(id), 3), 0.0)
    rounds = [Counter(picker.pick(None, 0.0).id for picker in pickers) for _ in range(20)]
    return Outcome(0.0, max(max(counts.values()) for counts in rounds) / (consumers / len(ids)))


class InOrder:
    """Round robin as it was: members in the order in which they came."""

    keyed = False

    def traits(self, instance: ServiceInstance[Any]) -> Traits:  # noqa: ARG002 - they do not matter
        return Traits()

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:  # noqa: ARG002 - knows its members
        return _Row()


class _Row:
    def __init__(self) -> None:
        self._members: list[Member[Any]] = []
        self._cursor = 0

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Member[Any]) -> None:
        self._members.append(member)

    def discard(self, member: Member[Any]) -> None:
        place = self._members.index(member)
        del self._members[place]
        self._cursor -= place < self._cursor

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:  # noqa: ARG002
        self._cursor = self._cursor % len(self._members) + 1
        return self._members[self._cursor - 1]


def low_traffic(seed: int, with_rule: bool) -> Outcome:
    """Two calls a second to 20 instances, one of which is dead.

    Without: an instance begins again once it has stayed in for longer than it was out, whether it was called or not;
    and it returns to the end of a round robin, as it did then.
    """
    return low_traffic_of(seed, Ejection(), by_time=not with_rule)


def low_traffic_of(seed: int, ejection: Ejection | None, *, by_time: bool = False) -> Outcome:
    strategy = InOrder() if by_time else RoundRobin()
    draw = random.Random(seed)
    ids = names(20)
    calls = Calls(draw, {id: Server(1e6, alive=id != "i000") for id in ids}, 2.0)
    consumer = Consumer(snapshot(map(entry, ids)), strategy, draw, ejection=ejection)
    for second in range(1200):
        calls.run([consumer], 1.0, float(second))
        if by_time:
            _trust_those_that_stayed_in(consumer.picker, second + 1.0)
    return calls.outcome()


def _trust_those_that_stayed_in(picker: Picker[Any], now: float) -> None:
    for outliers in picker._outliers:
        for id in list(outliers.probation):
            record = outliers.records[id]
            if now - record.until > record.pause:
                record.pauses = 0


def half_open(seed: int, with_rule: bool) -> Outcome:
    """One of four takes calls and fails each after a second; 40 calls a second. Without: all may call it on its return.

    Its returns are what is looked at: the first three failures are those of any threshold.
    """
    draw = random.Random(seed)
    ids, rate = names(4), 40
    picker = Picker(snapshot(map(entry, ids)), "random", ejection=Ejection(), draw=draw.random)
    failed: list[bool] = []
    by_second: dict[int, Counter[str]] = {}
    under_way: deque[tuple[float, Member[Any]]] = deque()  # those at the sick one, by when they began
    for number in range(600 * rate):
        now = number / rate
        while under_way and under_way[0][0] + 1.0 <= now:
            since, member = under_way.popleft()
            picker.report(member, False, since, now)
        if not with_rule:
            picker._readmit(now)
            for outliers in picker._outliers:
                outliers.probation.clear()
        member = picker.pick(None, now)
        sick = member.id == ids[0]
        if sick:
            under_way.append((now, member))
        else:
            picker.report(member, True, now, now)
        if now >= 5.0:  # it was set aside, and returned
            failed.append(sick)
            by_second.setdefault(int(now), Counter())[member.id] += 1
    returns = max(counts[ids[0]] for counts in by_second.values())
    return Outcome(fmean(failed), returns / (rate / len(ids)))


def outstanding(seed: int, with_rule: bool, manner: str = "disabled") -> Outcome:
    """Of four with 100 calls each under way one goes and is back at once. Without: its calls are forgotten.

    Args:
        seed: decides about everything.
        with_rule: whether the calls are those of the address.
        manner: how it goes and comes: "disabled" and enabled, "expired" and registered again, under "another id", or
            under an id that was "listed before" the old one went.
    """
    draw = random.Random(seed)
    four = {id: at(id, port) for port, id in enumerate(names(4), 7000)}
    picker = Picker(snapshot(four.values()), LeastOutstanding(), draw=draw.random)
    under_way: list[Load] = []  # as picks hold them
    for _ in range(400):
        under_way.append(picker.pick(None, 0.0).load)
        under_way[-1].calls += 1
    before = four["i000"]
    back = at("i100" if manner in {"another id", "listed before"} else "i000", 7000)
    if manner == "listed before":
        picker.apply(Added(back, 2), 0.0)
        picker.apply(Removed(before, 3), 0.0)
    elif manner == "disabled":
        off = at("i000", 7000, enabled=False)
        picker.apply(Updated(off, before, 2), 0.0)
        picker.apply(Updated(back, off, 3), 0.0)
    else:
        picker.apply(Removed(before, 2), 0.0)
        picker.apply(Added(back, 3), 0.0)
    counts: Counter[str] = Counter()
    if not with_rule:
        picker._members[back.instance.id].load = Load()
    for _ in range(100):
        member = picker.pick(None, 0.0)
        under_way.append(member.load)
        member.load.calls += 1
        counts[member.id] += 1
    return Outcome(0.0, max(counts.values()) / 25)


def at(id: str, port: int, *, enabled: bool = True) -> Entry[Any]:
    listed = ServiceInstance("chat", id=id, address="10.0.0.7", port=port, enabled=enabled)
    return Entry(listed, 1, 1, 1, 0, 0.0, 0.0)


def minute_long_sessions(seed: int, with_rule: bool) -> Outcome:
    """Three that are cut off together, with sessions of a minute, expire within a heartbeat's twenty seconds."""
    draw = random.Random(seed)
    timeout_ms = 60_000 if with_rule else None
    entries = {
        id: Entry(
            ServiceInstance("chat", id=id, address="10.0.0.7", session_timeout_ms=timeout_ms), 1, 1, 1, 0, 0.0, 0.0
        )
        for id in names(3)
    }
    empty = 0
    for _ in range(200):
        suspects: Suspects[Any] = Suspects(Guard(), 1)
        listed = dict(entries)
        for moment, id in sorted((draw.uniform(60.0, 80.0), id) for id in entries):
            removal = Removed(listed.pop(id), 2)
            at = Moment(moment, moment)
            suspects.take([removal], listed=len(listed), zxid=2, at=at, gone=lambda _: True)
        empty += not len(suspects)
    return Outcome(empty / 200, 0.0)


def zone_cut_off(seed: int, with_rule: bool) -> Outcome:
    """Four of twenty are all of a zone; they are cut off together, and expire within a heartbeat's 3.3 seconds."""
    draw = random.Random(seed)
    moments = ([draw.uniform(10.0, 13.3) for _ in range(4)] for _ in range(200))
    return Outcome(fmean(_empties_the_zone(sorted(each), with_rule) for each in moments), 0.0)


def _empties_the_zone(moments: Sequence[float], with_rule: bool) -> bool:
    zone, listed = names(len(moments)), {id: entry(id) for id in names(20)}
    subset: Subset[Any] = Subset(lambda each: each.id in zone, lambda: sum(id in listed for id in zone))
    suspects: Suspects[Any] = Suspects(Guard(), 1, lambda: [subset] if with_rule else [])
    for moment, id in zip(moments, zone, strict=True):
        at = Moment(moment, moment)
        suspects.take([Removed(listed[id], 2)], listed=len(listed) - 1, zxid=2, at=at, gone=lambda _: True)
        del listed[id]
    return not len(suspects)


Scenario = Callable[[int, bool], Outcome]

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        "100 suspects come back over 8 s, round robin": comeback,
        "the same, random": lambda seed, rule: comeback(seed, rule, "random"),
        "the same, least outstanding": lambda seed, rule: comeback(seed, rule, "least-outstanding"),
        "40 suspects are dead, 5 new instances": all_dead,
        "6 live suspects, 5 % of the calls time out": slow_path,
        "own zone dead, 10 elsewhere": retry_beyond_the_zone,
        "1 confirmed dead, 5 live suspects": retry_to_suspects,
        "one of 10 on a ring dead": retry_by_key,
        "weight 99 dead, weight 1 well": retry_by_weight,
        "one of 3 swallows packets": black_hole,
        "rolling restart before 1,000 consumers": lockstep,
        "one of 20 dead, 2 calls a second": low_traffic,
        "one of four fails after a second, on its return": half_open,
        "one of four disabled and enabled": outstanding,
        "the same, expired and registered again": lambda seed, rule: outstanding(seed, rule, "expired"),
        "the same, under another id": lambda seed, rule: outstanding(seed, rule, "another id"),
        "the same, listed before the old one goes": lambda seed, rule: outstanding(seed, rule, "listed before"),
        "3 instances cut off, sessions of 60 s": minute_long_sessions,
        "4 of 20, all of a zone, cut off": zone_cut_off,
    }
)

# ---------------------------------------------------------------- the table


def measured(scenario: Scenario, seeds: Iterable[int]) -> Iterator[Outcome]:
    """Yield what came of it without the rule and with it, as means of the seeds."""
    seeds = list(seeds)
    for with_rule in (False, True):
        outcomes = [scenario(seed, with_rule) for seed in seeds]
        yield Outcome(fmean(each.failed for each in outcomes), fmean(each.busiest for each in outcomes))


def row(name: str, outcomes: Iterable[Outcome]) -> str:
    cells = [f"{100 * each.failed:.1f} % / {each.busiest:.1f}" for each in outcomes]
    return f"| {' | '.join([name, *cells])} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choosing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each scenario")
    options = parser.parse_args()
    print("| scenario | without | with the rule |\n| --- | --- | --- |")
    for name, scenario in SCENARIOS.items():
        print(row(name, measured(scenario, range(options.seeds))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
