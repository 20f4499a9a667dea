"""`python -m tests.simulation.explore`: every order of events for several claimants of one id, breadth first; and for a
session (`explore_session.py`).

Each claimant does what the worker does: look, plan, send, be answered or not. A state is a value: the node, and what
every claimant knows of it; zxids count by their order only. What was visited is not visited again, so that the search
is closed: whatever any number of steps can do is seen, with so many faults in all.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

from aioregistry.registration.plan import Goal, Node
from tests.registration.test_claimants import GHOST, PATH, Claimant, Fate, Habits, make_parents
from tests.simulation.explore_session import explore_session
from tests.support.checkers import Loss, Violated, check_owned, check_published, check_single
from tests.support.model_tree import Change, ModelNode, ModelTree

Move = tuple[str, Callable[["Scene"], None], int]
"""What it is called, what it does, and how many faults it costs."""


class Scene:
    """The node of a ghost, and claimants of its id."""

    def __init__(self, claimants: int, habits: Habits) -> None:
        self.tree = ModelTree()
        make_parents(self.tree, 0, PATH)
        self.ghost = Claimant(GHOST, self.tree, habits, Goal.LISTED, standby=False)
        self.ghost.look(0)
        self.ghost.plan()
        self.ghost.deliver(Fate.ANSWERED, lambda: 0)
        self.changes = 0
        self.faults = 0
        self.owners: list[str | None] = [GHOST]
        self.of_session = {self.ghost.session_id: GHOST}
        self.claimants = [
            Claimant(f"claimant {number}", self.tree, habits, Goal.LISTED, standby=number == claimants)
            for number in range(1, claimants + 1)
        ]
        for claimant in self.claimants:
            self.of_session[claimant.session_id] = claimant.name
        self.losses: list[Loss] = []
        self.taken: Counter[str | None] = Counter()
        """How often each took the id from another, or from itself."""
        self._changed_at = 0
        self.tree.on_change.append(self.changed)

    def changed(self, change: Change) -> None:
        if change.path != PATH:
            return
        same_transaction = change.zxid == self._changed_at
        self.changes += not same_transaction
        self._changed_at = change.zxid
        if change.after is None and change.before is not None:
            self._lost(change, change.before)
        if change.before is None and change.after is not None:
            if not same_transaction:
                self.owners.append(None)
            self.owners.append(self.of_session[change.after.owner])
            self.taken[self.owners[-1]] += same_transaction

    def _lost(self, change: Change, node: ModelNode) -> None:
        loser, remover = self.of_session[node.owner], self.of_session[change.by]
        if GHOST not in (loser, remover) and loser != remover:
            claim = next(each.claim for each in self.claimants if each.name == remover)
            assert claim is not None, "who writes has looked"
            self.losses.append(Loss(loser, remover, node.czxid, claim))

    # ------------------------------------------------------------ what can happen

    def moves(self, most_faults: int) -> Iterator[Move]:
        may_fail = self.faults < most_faults
        for number, claimant in enumerate(self.claimants):
            if claimant.ended:
                continue
            if claimant.sent is None:
                yield f"{claimant.name} looks", lambda scene, n=number: scene.look(n), 0  # type: ignore[misc]
                yield f"{claimant.name} plans", lambda scene, n=number: scene.plan(n), 0  # type: ignore[misc]
            else:
                yield from self._answers(number, claimant, may_fail=may_fail)
            if may_fail:
                yield f"{claimant.name} expires", lambda scene, n=number: scene.expire(n), 1  # type: ignore[misc]
        if may_fail and self.ghost.session_id in self.tree.sessions:
            yield "the ghost expires", Scene.end_ghost, 1

    def _answers(self, number: int, claimant: Claimant, *, may_fail: bool) -> Iterator[Move]:
        assert claimant.sent is not None
        # The limit of a fence made of versions (docs/guarantees.md): one change while a transaction is under way.
        in_time = self.changes - claimant.sent.seen <= 1
        for fate in Fate:
            if (fate is Fate.ANSWERED or may_fail) and (in_time or fate is Fate.REQUEST_LOST):
                what = f"{claimant.name}: {claimant.sent.action.name} {fate.name}"
                cost = int(fate is not Fate.ANSWERED)
                yield what, lambda scene, n=number, f=fate: scene.deliver(n, f), cost  # type: ignore[misc]

    def look(self, number: int) -> None:
        self.claimants[number].look(self.changes)
        self.believe(number)

    def believe(self, number: int) -> None:
        """What is held goes by what was seen last, as the worker's does."""
        claimant = self.claimants[number]
        node = None if claimant.sight is None else claimant.sight[0]
        claimant.held = claimant.held and node is not None and node.owner == claimant.session_id

    def plan(self, number: int) -> None:
        self.claimants[number].plan()

    def deliver(self, number: int, fate: Fate) -> None:
        self.claimants[number].deliver(fate, lambda: self.changes)
        self.believe(number)

    def expire(self, number: int) -> None:
        claimant = self.claimants[number]
        claimant.expire(at_server=True)
        self.of_session[claimant.session_id] = claimant.name

    def end_ghost(self) -> None:
        self.tree.end_session(self.ghost.session_id)

    # ------------------------------------------------------------ what must hold

    def judge(self) -> None:
        check_published(listed=None, wanted=(), losses=self.losses)
        for claimant in self.claimants:
            if self.taken[claimant.name] > claimant.claims:
                claims: dict[Hashable, int] = {each.name: each.claims for each in self.claimants}
                check_single(self.owners, claims, self.owners)
        node = self.tree.node(PATH)
        for claimant in self.claimants:
            # What is held lags behind by what is under way: it is judged by whoever has seen the latest.
            if claimant.held and claimant.sight == (self._node(), self.changes):
                check_owned(live=True, session_id=claimant.session_id, owner=None if node is None else node.owner)

    def _node(self) -> Node | None:
        node = self.tree.node(PATH)
        return None if node is None else Node(node.owner, node.version, node.czxid, node.data)

    # ------------------------------------------------------------ as a value

    def key(self) -> Hashable:
        sights = [claimant.sight for claimant in self.claimants]
        nodes = [self._node(), *(sight[0] for sight in sights if sight is not None)]
        zxids = {claimant.claim for claimant in self.claimants if claimant.claim is not None}
        zxids |= {node.czxid for node in nodes if node is not None}
        rank = {zxid: place for place, zxid in enumerate(sorted(zxids))}
        return (
            self._shown(self._node(), rank),
            self.ghost.session_id in self.tree.sessions,
            self.faults,
            tuple(self._known(claimant, rank) for claimant in self.claimants),
        )

    def _known(self, claimant: Claimant, rank: dict[int, int]) -> Hashable:
        sent, sight = claimant.sent, claimant.sight
        return (
            None if claimant.claim is None else rank[claimant.claim],
            None if sight is None else (self._shown(sight[0], rank), min(self.changes - sight[1], 2)),
            None if sent is None else (sent.action, repr(vars(sent.message)), min(self.changes - sent.seen, 2)),
            (claimant.held, claimant.displaced, claimant.ended, claimant.goal, self.taken[claimant.name]),
            min(claimant.claims, 4),
        )

    def _shown(self, node: Node | None, rank: dict[int, int]) -> Hashable:
        if node is None:
            return None
        name = self.of_session[node.owner]
        return name, node.owner in self.tree.sessions, node.version, rank[node.czxid]


class Explored(NamedTuple):
    """What a search found.

    Args:
        states: how many there are, or were seen.
        closed: whether these are all.
        violation: the first, and how it came to it.
    """

    states: int
    closed: bool
    violation: Violated | None = None
    story: tuple[str, ...] = ()


def explore(*, claimants: int = 3, faults: int = 3, seconds: float = 600.0, habits: Habits | None = None) -> Explored:
    """Visit every state, the nearest first, for as long as *seconds* allow."""
    until = time.monotonic() + seconds
    first = Scene(claimants, habits or Habits())
    level: dict[Hashable, tuple[Scene, tuple[str, ...]]] = {first.key(): (first, ())}
    seen: set[Hashable] = set(level)
    while level:
        after: dict[Hashable, tuple[Scene, tuple[str, ...]]] = {}
        for scene, story in level.values():
            for name, move, cost in scene.moves(faults):
                if time.monotonic() > until:
                    return Explored(len(seen), closed=False)
                successor = copy.deepcopy(scene)
                move(successor)
                successor.faults += cost
                told = (*story, name)
                try:
                    successor.judge()
                except Violated as violation:
                    return Explored(len(seen), closed=False, violation=violation, story=told)
                key = successor.key()
                if key not in seen:
                    seen.add(key)
                    after[key] = successor, told
        level = after
    return Explored(len(seen), closed=True)


def main(arguments: Any = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.explore", description=__doc__)
    parser.add_argument("--claimants", type=int, default=3)
    parser.add_argument("--faults", type=int, default=3)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=600.0, help="for each of the two (default: %(default)s)")
    options = parser.parse_args(arguments)
    session = explore_session(connections=options.connections, faults=options.faults, seconds=options.seconds)
    closed = "all there are" if session.closed else f"more are left, {session.depth} steps deep"
    print(
        f"session: {options.connections} connections, {options.faults} faults: {session.states} states, {closed}",
        flush=True,
    )
    if session.violation is not None:
        print("\n".join([*session.story, f"VIOLATED {session.violation!r}"]))
        return 1
    found = explore(claimants=options.claimants, faults=options.faults, seconds=options.seconds)
    closed = "all there are" if found.closed else "more are left"
    print(f"plan: {options.claimants} claimants, {options.faults} faults: {found.states} states, {closed}")
    if found.violation is not None:
        print("\n".join([*found.story, f"VIOLATED {found.violation}"]))
    return 0 if found.violation is None else 1


if __name__ == "__main__":
    sys.exit(main())
