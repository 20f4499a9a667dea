"""Session machine × session on the server × network, breadth first: every order of what can happen to one session.

The world is that of the machine's property test (`tests/session/test_machine_and_ensemble.py`), and so is what must
hold in it. Here chance is a choice and every choice is made: what servers and clients do next, which server is tried,
what goes wrong and when. With so many connections and faults in all the states are finite, and a search that ends has
seen whatever can happen.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from aioregistry._session.vocabulary import CloseRequested, Handshake, Overdue, Phase, Primed
from tests.session.test_machine_and_ensemble import (
    FIRST_ZXID,
    SERVERS,
    TIMEOUT,
    Greeting,
    Link,
    LiveSession,
    Manner,
    Read,
    Reply,
    Sync,
    World,
)
from tests.simulation.search import Key, Move, shallow

FAR = 12
"""Transactions: more than can still be made until everybody is well again."""

OLD = 1.5 * TIMEOUT
"""Seconds: what is as old is too old for anything."""

BLACKOUTS = (Manner.CLOSES, Manner.HANGS, Manner.DOWN, Manner.ALONE)


class OneSession:
    """The model that is searched.

    Args:
        connections: how many may be made.
        world: the client's habits.
    """

    def __init__(self, connections: int, world: type[World] = World) -> None:
        self.connections = connections
        self.first = world

    def twin(self, world: World) -> World:
        return twin(world)

    def keys(self, world: World) -> Iterable[Key]:
        return (key(world),)

    def what_goes_well(self, world: World) -> Iterator[Move[World]]:
        return what_goes_well(world, self.connections)

    def what_goes_wrong(self, world: World) -> Iterator[Move[World]]:
        return what_goes_wrong(world)

    def judge(self, world: World) -> None:
        world.one_connection_at_a_time()
        world.the_session_is_one_that_a_quorum_gave()
        world.sessions_are_offered_one_after_the_other()
        world.claims_are_honest()
        world.who_claims_is_alive()

    def judge_new(self, world: World) -> None:
        """Once everybody is well again, it serves; unless the client has yet to hear of something that matters."""
        if not unread(world):
            twin(world).teardown()


def twin(world: World) -> World:
    """A copy of all that may change."""
    other = shallow(world)
    other.ensemble = ensemble = shallow(world.ensemble)
    ensemble.servers = [shallow(server) for server in ensemble.servers]
    ensemble.sessions = {id: shallow(session) for id, session in ensemble.sessions.items()}
    ensemble.invented = set(ensemble.invented)
    ensemble.replaced = set(ensemble.replaced)
    other.links = {number: shallow(link) for number, link in world.links.items()}
    for link in other.links.values():
        link.to_server, link.to_client = link.to_server.copy(), link.to_client.copy()
    for name in ("untried", "granted", "contact", "states", "offered", "rollbacks", "ended_by_hand"):
        setattr(other, name, getattr(world, name).copy())
    return other


def unread(world: World) -> bool:
    """Whether the client has yet to hear of something, which changes what must become of it."""
    link = world.links.get(world.machine.connection)
    return link is not None and bool(link.to_client)


# ---------------------------------------------------------------- what can happen


def what_goes_well(world: World, connections: int) -> Iterator[Move[World]]:
    link = world.links.get(world.machine.connection)
    if world.machine.phase is Phase.ENDED:
        return
    if world.machine.phase is Phase.OFFLINE:
        if len(world.links) < connections:
            yield from dials(world)
    elif link is not None:
        if link.to_client:
            yield "the client reads", lambda w: w.received(current(w), current(w).to_client.popleft())
        if world.machine.phase is Phase.PRIMING:
            yield "primed", lambda w: w.happen(Primed(w.machine.connection))
        if world.machine.phase is Phase.SERVING and not link.to_server and not link.to_client and link.server_open:
            yield "a sync is sent", lambda w: current(w).to_server.append(Sync(w.boot))
            yield "a read is sent", lambda w: current(w).to_server.append(Read())
    for number, each in world.links.items():
        if each.to_server and each.server_open:
            yield f"the server reads connection {number}", lambda w, n=number: w.serve(w.links[n])  # type: ignore[misc]


def dials(world: World) -> Iterator[Move[World]]:
    """One of those that are the same to whoever comes."""
    asked = (world.machine.session_id, world.machine.question)
    untried = world.untried if asked == world.question else list(range(SERVERS))
    kinds: dict[tuple[Manner, int], int] = {}
    for choice, number in enumerate(untried):
        server = world.ensemble.servers[number]
        kinds.setdefault((server.manner, server.zxid), choice)
    if not untried:
        yield "the round has failed", lambda w: w.dial(0)
    for (manner, _), choice in kinds.items():
        yield f"a server is dialed that {manner.name}", lambda w, c=choice: w.dial(c)  # type: ignore[misc]


def what_goes_wrong(world: World) -> Iterator[Move[World]]:
    link = world.links.get(world.machine.connection)
    if world.machine.phase is Phase.ENDED:
        return
    if link is not None:
        yield "patience is lost", lambda w: w.happen(Overdue(w.machine.connection))
        yield "the connection is cut", lambda w: World.cut(w, False)
        yield "the connection is cut behind what was sent", lambda w: World.cut(w, True)
        here = link.server
        for manner in Manner:
            if manner is not world.ensemble.servers[here].manner:
                yield f"its server {manner.name}", lambda w, s=here, m=manner: w.behave(s, m)  # type: ignore[misc]
    for manner in BLACKOUTS:
        yield f"every server {manner.name}", lambda w, m=manner: w.all_behave(m)  # type: ignore[misc]
    yield "all are well", lambda w: w.get_well()
    yield "others write", lambda w: w.others_write(1, 0)
    for seconds in (3.0, 10.1):
        yield f"{seconds:g} s pass", lambda w, s=seconds: w.time_passes(s, 0.0)  # type: ignore[misc]
    yield "the client's clock jumps", lambda w: w.clock_jumps(12.0)
    yield "the quorum is lost", lambda w: w.elect(False)
    yield "a leader is elected", lambda w: w.elect(True)
    yield "the session is ended by hand", lambda w: w.somebody_ends_our_session()
    yield "the history is wiped", lambda w: w.wipe_or_restore(0, False)
    yield "an older copy is restored", lambda w: w.wipe_or_restore(50, True)
    yield "an empty copy with the session in it is restored", lambda w: w.wipe_or_restore(0, True)
    yield "it is closed", lambda w: w.happen(CloseRequested())


def current(world: World) -> Link:
    return world.links[world.machine.connection]


# ---------------------------------------------------------------- as a value


def key(world: World) -> Key:
    """The state that the future depends on, and nothing else.

    Zxids count by how far they are from each other, times by their age until it is too old for anything, sessions by
    their order, histories by whether they are the present one; what nobody will read any more is left out.
    """
    shown = _Shown(world)
    machine, ensemble = shown.machine, world.ensemble
    id, zxid, since = shown.ids.__getitem__, shown.zxids.__getitem__, shown.since
    known = machine._replace(
        session_id=id(machine.session_id),
        last_zxid=zxid(machine.last_zxid),
        evidence=since(machine.evidence),
        behind_since=since(machine.behind_since),
        fresh_at=since(machine.fresh_at),
        probe=(id(machine.probe[0]), b"", 0.0),
        password=b"",
        accepted=0.0,  # it decides about pauses only, as the failures do
        failures=0,
        generation=0,
        history=0,
        earlier_ids=(),
    )
    return (
        tuple(known),
        tuple((server.manner, zxid(server.zxid)) for server in ensemble.servers),
        tuple((id(each), *shown.live(session)) for each, session in ensemble.sessions.items()),
        (zxid(ensemble.zxid), ensemble.quorum, shown.present(world.history_of_zxid)),
        tuple(shown.link(link) for link in world.links.values()),
        (tuple(world.untried), shown.ids.get(world.question[0]), world.question[1]),
        tuple(shown.said_of(each) for each in shown.ids),
        (world.states[-1], id(world.offered[-1]) if world.offered else 0),
        world.rollbacks[-1].proven if world.rollbacks else None,
    )


class _Shown:
    """A world's numbers, as they are in a key."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.machine = machine = world.learned()
        ensemble = world.ensemble
        ids = {0, machine.session_id, machine.probe[0], *ensemble.sessions, *world.offered[-1:]}
        zxids = {0, FIRST_ZXID, machine.last_zxid, ensemble.zxid, *(server.zxid for server in ensemble.servers)}
        for link in world.links.values():
            if link.client_open or link.server_open:
                ids.add(link.session_id)
            if link.client_open:
                zxids.add(link.zxid)
            for message in (*link.to_server * link.server_open, *link.to_client * link.client_open):
                ids.add(getattr(message, "session_id", 0))
                zxids.update(zxids_in(message))
        self.ids = {id: place for place, id in enumerate(sorted(ids))}
        self.zxids: dict[int, int] = {}
        last = at = 0
        for zxid in sorted(zxids):
            at += min(zxid - last, FAR)
            self.zxids[zxid], last = at, zxid

    def since(self, then: float) -> float:
        return age(self.world.boot, then)

    def present(self, history: int) -> bool:
        return history == self.world.ensemble.history

    def live(self, session: LiveSession) -> tuple[Hashable, ...]:
        link = self.world.links[session.link]
        return age(self.world.ensemble.now, session.touched), link.number if link.server_open else 0

    def said_of(self, id: int) -> Hashable:
        """The grants and the news of a session."""
        world = self.world
        heard = self.since(world.contact[id]) if id in world.contact else None
        granted = self.present(world.granted[id]) if id in world.granted else None
        return heard, granted, id in world.offered, id in world.ended_by_hand, id in world.ensemble.replaced

    def link(self, link: Link) -> Hashable:
        ends: list[Hashable] = []
        if link.client_open:
            ends += [self.asked(link), link.probed_by_write, self.since(link.evidence), self.zxids[link.zxid]]
            ends += map(self.message, link.to_client)
        ends.append("server")
        if link.server_open:
            ends += map(self.message, link.to_server)
        if len(ends) > 1:
            ends += [link.server, self.ids[link.session_id]]
        return link.client_open, link.server_open, tuple(ends)

    def asked(self, link: Link) -> float | None:
        """When what the client waits for was asked."""
        if self.machine.phase in (Phase.HANDSHAKING, Phase.ASKING):
            return self.since(link.greeted_at)
        return self.since(link.probed_at) if self.machine.phase is Phase.PROBING else None

    def message(self, message: Any) -> Hashable:
        match message:
            case Handshake():
                return "handshake", self.ids[message.session_id], self.zxids[message.last_zxid], message.read_only
            case Greeting():
                return "greeting", self.ids[message.session_id], self.present(message.history), message.read_only
            case Reply():
                sent = self.since(message.sent) if message.evident else None
                return "reply", self.zxids[message.zxid], self.present(message.history), sent
            case Sync():
                return "sync", self.since(message.sent)
        return type(message).__name__


def zxids_in(message: Any) -> tuple[int, ...]:
    if isinstance(message, Handshake):
        return (message.last_zxid,)
    return (message.zxid,) if isinstance(message, Reply) else ()


def age(now: float, then: float) -> float:
    return min(round(now - then, 3), OLD)
