"""Session machine × session on the server × network, breadth first: every order of what can happen to one session.

The world is that of the machine's property test (`tests/session/test_machine_and_ensemble.py`), and so is what must
hold in it. Here chance is a choice and every choice is made: what servers and clients do next, which server is tried,
what goes wrong and when. With so many connections and faults in all the states are finite, and a search that ends has
seen whatever can happen.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

from aioregistry.session.machine import CloseRequested, Handshake, Overdue, Phase, Primed
from tests.session.test_machine_and_ensemble import (
    SERVERS,
    Greeting,
    Link,
    Manner,
    Read,
    Reply,
    Sync,
    World,
)

Move = tuple[str, Callable[[World], None], int]
"""What it is called, what it does, and how many faults it costs."""

BLACKOUTS = (Manner.CLOSES, Manner.HANGS, Manner.DOWN, Manner.ALONE)


class ExploredSession(NamedTuple):
    """What a search found.

    Args:
        states: how many there are, or were seen.
        closed: whether these are all.
        depth: after how many steps the last of them was seen.
        violation: the first, and how it came to it.
    """

    states: int
    closed: bool
    depth: int
    violation: AssertionError | None = None
    story: tuple[str, ...] = ()


def explore_session(
    *, connections: int = 2, faults: int = 3, seconds: float = 600.0, world: type[World] = World
) -> ExploredSession:
    """Visit every state, the nearest first, for as long as *seconds* allow."""
    until = time.monotonic() + seconds
    first = world()
    level: dict[Hashable, tuple[World, int, tuple[str, ...]]] = {key(first, 0): (first, 0, ())}
    seen: set[Hashable] = set(level)
    depth = 0
    while level:
        depth += 1
        after: dict[Hashable, tuple[World, int, tuple[str, ...]]] = {}
        for state, spent, story in level.values():
            for name, move, cost in moves(state, connections, may_fail=spent < faults):
                if time.monotonic() > until:
                    return ExploredSession(len(seen), closed=False, depth=depth)
                successor, told = twin(state), (*story, name)
                try:
                    move(successor)
                    judge(successor)
                    value = key(successor, spent + cost)
                    if value not in seen and not unread(successor):
                        twin(successor).teardown()  # … and once everybody is well again
                except AssertionError as violation:
                    return ExploredSession(len(seen), closed=False, depth=depth, violation=violation, story=told)
                if value not in seen:
                    seen.add(value)
                    after[value] = successor, spent + cost, told
        level = after
    return ExploredSession(len(seen), closed=True, depth=depth)


def twin(world: World) -> World:
    other = object.__new__(type(world))
    other.__dict__ = copy.deepcopy(world.__dict__)
    return other


def unread(world: World) -> bool:
    """Whether the client has yet to hear of something, which changes what must become of it."""
    link = world.links.get(world.machine.connection)
    return link is not None and bool(link.to_client)


def judge(world: World) -> None:
    world.one_connection_at_a_time()
    world.the_session_is_one_that_a_quorum_gave()
    world.sessions_are_offered_one_after_the_other()
    world.claims_are_honest()
    world.who_claims_is_alive()


# ---------------------------------------------------------------- what can happen


def moves(world: World, connections: int, *, may_fail: bool) -> Iterator[Move]:
    if world.machine.phase is Phase.ENDED:
        return
    yield from what_goes_well(world, connections)
    if may_fail:
        yield from what_goes_wrong(world)


def what_goes_well(world: World, connections: int) -> Iterator[Move]:
    link = world.links.get(world.machine.connection)
    if world.machine.phase is Phase.OFFLINE:
        if len(world.links) < connections:
            yield from dials(world)
    elif link is not None:
        if link.to_client:
            yield "the client reads", lambda w: w.received(current(w), current(w).to_client.popleft()), 0
        if world.machine.phase is Phase.PRIMING:
            yield "primed", lambda w: w.happen(Primed(w.machine.connection)), 0
        if world.machine.phase is Phase.SERVING and not link.to_server and not link.to_client and link.server_open:
            yield "a sync is sent", lambda w: current(w).to_server.append(Sync(w.boot)), 0
            yield "a read is sent", lambda w: current(w).to_server.append(Read()), 0
    for number, each in world.links.items():
        if each.to_server and each.server_open:
            yield f"the server reads connection {number}", lambda w, n=number: w.serve(w.links[n]), 0  # type: ignore[misc]


def dials(world: World) -> Iterator[Move]:
    """One of those that are the same to whoever comes."""
    asked = (world.machine.session_id, world.machine.probe_next)
    untried = world.untried if asked == world.question else list(range(SERVERS))
    kinds: dict[tuple[Manner, int], int] = {}
    for choice, number in enumerate(untried):
        server = world.ensemble.servers[number]
        kinds.setdefault((server.manner, server.zxid), choice)
    if not untried:
        yield "the round has failed", lambda w: w.dial(0), 0
    for (manner, _), choice in kinds.items():
        yield f"a server is dialed that {manner.name}", lambda w, c=choice: w.dial(c), 0  # type: ignore[misc]


def what_goes_wrong(world: World) -> Iterator[Move]:
    link = world.links.get(world.machine.connection)
    if link is not None:
        yield "patience is lost", lambda w: w.happen(Overdue(w.machine.connection)), 1
        yield "the connection is cut", lambda w: World.cut(w, False), 1
        yield "the connection is cut behind what was sent", lambda w: World.cut(w, True), 1
        here = link.server
        for manner in Manner:
            if manner is not world.ensemble.servers[here].manner:
                yield f"its server {manner.name}", lambda w, s=here, m=manner: w.behave(s, m), 1  # type: ignore[misc]
    for manner in BLACKOUTS:
        yield f"every server {manner.name}", lambda w, m=manner: w.all_behave(m), 1  # type: ignore[misc]
    yield "all are well", lambda w: w.get_well(), 1
    yield "others write", lambda w: w.others_write(1, 0), 1
    for seconds in (3.0, 10.1):
        yield f"{seconds:g} s pass", lambda w, s=seconds: w.time_passes(s, 0.0), 1  # type: ignore[misc]
    yield "the client's clock jumps", lambda w: w.clock_jumps(12.0), 1
    yield "the quorum is lost", lambda w: w.elect(False), 1
    yield "a leader is elected", lambda w: w.elect(True), 1
    yield "the session is ended by hand", lambda w: w.somebody_ends_our_session(), 1
    yield "the history is wiped", lambda w: w.wipe_or_restore(0, False), 1
    yield "an older copy is restored", lambda w: w.wipe_or_restore(50, True), 1
    yield "it is closed", lambda w: w.happen(CloseRequested()), 1


def current(world: World) -> Link:
    return world.links[world.machine.connection]


# ---------------------------------------------------------------- as a value


def key(world: World, spent: int) -> Hashable:
    """What the future depends on: zxids by their order and small distances, times by their age."""
    machine, ensemble = world.learned(), world.ensemble
    zxids = {0, machine.last_zxid, ensemble.zxid}
    zxids |= {server.zxid for server in ensemble.servers}
    for link in world.links.values():
        zxids |= {link.zxid} | {zxid for each in (*link.to_server, *link.to_client) for zxid in zxids_in(each)}
    place: dict[int, int] = {}
    last = at = 0
    for zxid in sorted(zxids):
        at += min(zxid - last, 4)
        place[zxid], last = at, zxid
    known = machine._replace(
        last_zxid=place[machine.last_zxid],
        evidence=age(world.boot, machine.evidence),
        accepted=0.0,
        behind_since=age(world.boot, machine.behind_since),
        failures=0,
        generation=0,
    )
    return (
        spent,
        tuple(known),
        tuple((server.manner, place[server.zxid]) for server in ensemble.servers),
        tuple((id, age(ensemble.now, each.touched), each.link) for id, each in ensemble.sessions.items()),
        (place[ensemble.zxid], ensemble.history, ensemble.quorum, world.history_of_zxid, ensemble._ids),
        tuple(link_key(world, link, place) for link in world.links.values()),
        (tuple(world.untried), world.question, tuple(sorted(world.granted.items()))),
        tuple((id, age(world.boot, sent)) for id, sent in sorted(world.contact.items())),
        (world.states[-1], tuple(dict.fromkeys(world.offered)), tuple(sorted(world.ended_by_hand))),
        tuple(found.proven for found in world.rollbacks),
    )


def link_key(world: World, link: Link, place: dict[int, int]) -> Hashable:
    return (
        (link.server, link.client_open, link.server_open, link.session_id, place[link.zxid]),
        (age(world.boot, link.evidence), age(world.boot, link.greeted_at), age(world.boot, link.probed_at)),
        tuple(message_key(world, each, place) for each in link.to_server),
        tuple(message_key(world, each, place) for each in link.to_client),
    )


def zxids_in(message: Any) -> tuple[int, ...]:
    if isinstance(message, Handshake):
        return (message.last_zxid,)
    return (message.zxid,) if isinstance(message, Reply) else ()


def message_key(world: World, message: Any, place: dict[int, int]) -> Hashable:
    match message:
        case Handshake():
            return "handshake", message.session_id, place[message.last_zxid], message.read_only
        case Greeting():
            return "greeting", message.session_id, message.history, message.read_only
        case Reply():
            return "reply", place[message.zxid], message.history, age(world.boot, message.sent), message.evident
        case Sync():
            return "sync", age(world.boot, message.sent)
    return str(message)


def age(now: float, then: float) -> float:
    return round(now - then, 3)
