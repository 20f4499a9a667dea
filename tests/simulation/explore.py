"""`python -m tests.simulation.explore`: every order of events for several claimants of one id; and for a session
(`explore_session.py`).

Each claimant does what the worker does: look, plan, send, be answered or not. A state is a value: the node, and what
every claimant knows of it; zxids count by their order only. A visited state is not visited again, so that the search
is closed: whatever any number of steps can do is seen, with so many faults in all.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from aioregistry._protocol import Message, Multi
from aioregistry._registration.plan import Action, Goal, Node
from tests.registration.test_claimants import GHOST, PATH, Claimant, Fate, Habits, make_parents
from tests.simulation.explore_session import OneSession
from tests.simulation.search import Key, Model, Move, search, shallow
from tests.support.checkers import Loss, check_owned, check_published, check_single
from tests.support.model_tree import Change, ModelNode, ModelTree

FENCED = frozenset({Action.SET, Action.TAKE_OVER, Action.WITHDRAW})
"""The operations that go by the version of the node that was seen."""


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

    def what_goes_well(self) -> Iterator[Move[Scene]]:
        for number, claimant in enumerate(self.claimants):
            if claimant.ended:
                continue
            if claimant.sent is None:
                yield f"{claimant.name} looks", lambda scene, n=number: scene.look(n)  # type: ignore[misc]
                yield f"{claimant.name} plans", lambda scene, n=number: scene.plan(n)  # type: ignore[misc]
                if claimant.claim is None:
                    yield f"{claimant.name} creates at once", lambda scene, n=number: scene.create_at_once(n)  # type: ignore[misc]
            elif not self._beyond_the_fence(claimant):
                yield self._delivery(number, Fate.ANSWERED)

    def what_goes_wrong(self) -> Iterator[Move[Scene]]:
        for number, claimant in enumerate(self.claimants):
            if claimant.ended:
                continue
            if claimant.sent is not None:
                yield self._delivery(number, Fate.REQUEST_LOST)
                if not self._beyond_the_fence(claimant):
                    yield self._delivery(number, Fate.REPLY_LOST)
            yield f"{claimant.name} expires", lambda scene, n=number: scene.expire(n)  # type: ignore[misc]
        if self.ghost.session_id in self.tree.sessions:
            yield "the ghost expires", Scene.end_ghost

    def _delivery(self, number: int, fate: Fate) -> Move[Scene]:
        claimant = self.claimants[number]
        assert claimant.sent is not None
        return f"{claimant.name}: {claimant.sent.action.name} {fate.name}", lambda scene: scene.deliver(number, fate)

    def _beyond_the_fence(self, claimant: Claimant) -> bool:
        """The limit of a fence made of versions (docs/guarantees.md): two changes brought the version seen back."""
        assert claimant.sent is not None
        assert claimant.sight is not None, "what is sent was planned from it"
        planned_from, present = claimant.sight[0], self._node()
        if claimant.sent.action not in FENCED or planned_from is None or present is None:
            return False
        if self.changes - claimant.sent.seen < 2:
            return False
        return present.version == planned_from.version and present.czxid != planned_from.czxid

    def look(self, number: int) -> None:
        self.claimants[number].look(self.changes)
        self.believe(number)

    def believe(self, number: int) -> None:
        """The held state goes by the last sight, as the worker's does."""
        claimant = self.claimants[number]
        node = None if claimant.sight is None else claimant.sight[0]
        claimant.held = claimant.held and node is not None and node.owner == claimant.session_id

    def create_at_once(self, number: int) -> None:
        self.claimants[number].create_at_once(self.changes)

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
            # The held state lags behind by the requests under way: the claimant with the latest sight judges it.
            if claimant.held and claimant.sight == (self._node(), self.changes):
                check_owned(live=True, session_id=claimant.session_id, owner=None if node is None else node.owner)

    def _node(self) -> Node | None:
        node = self.tree.node(PATH)
        return None if node is None else Node(node.owner, node.version, node.czxid, node.data)

    # ------------------------------------------------------------ as a value

    def twin(self) -> Scene:
        """A copy of all that may change."""
        other = shallow(self)
        other.tree = tree = shallow(self.tree)
        tree.nodes, tree.sessions, tree.on_change = tree.nodes.copy(), tree.sessions.copy(), [other.changed]
        other.ghost = shallow(self.ghost)
        other.claimants = [shallow(claimant) for claimant in self.claimants]
        for claimant in (other.ghost, *other.claimants):
            claimant.tree, claimant.earlier_ids = tree, claimant.earlier_ids.copy()
        other.owners, other.losses = self.owners.copy(), self.losses.copy()
        other.of_session, other.taken = self.of_session.copy(), self.taken.copy()
        return other

    def keys(self) -> Iterator[Key]:
        """The state that the future depends on, once for each order of claimants that differ by their names only."""
        nodes = [self._node(), *(claimant.sight[0] for claimant in self.claimants if claimant.sight is not None)]
        # Nodes that are created from now on are younger than all claims: these count by the nodes that they are behind.
        rank = sorted({node.czxid for node in nodes if node is not None})
        *alike, standby = self.claimants
        for order in itertools.permutations(alike):
            names = {claimant.name: place for place, claimant in enumerate((self.ghost, *order, standby))}
            yield (
                self._shown(self._node(), rank, names),
                self.ghost.session_id in self.tree.sessions,
                *(self._known(claimant, rank, names) for claimant in (*order, standby)),
            )

    def _known(self, claimant: Claimant, rank: list[int], names: dict[str, int]) -> Hashable:
        sent, sight = claimant.sent, claimant.sight
        return (
            None if claimant.claim is None else bisect_right(rank, claimant.claim),
            None if sight is None else (self._shown(sight[0], rank, names), min(self.changes - sight[1], 2)),
            None if sent is None else (sent.action, shape(sent.message)),
            (claimant.held, claimant.displaced, claimant.ended, claimant.goal),
            claimant.claims - self.taken[claimant.name],
        )

    def _shown(self, node: Node | None, rank: list[int], names: dict[str, int]) -> Hashable:
        if node is None:
            return None
        owner = names[self.of_session[node.owner]]
        return owner, node.owner in self.tree.sessions, node.version, rank.index(node.czxid)


def shape(message: Message[Any]) -> tuple[tuple[str, int | None], ...]:
    """The effect of a request, but for the path and the data, which are always the claimant's own."""
    operations = message.ops if isinstance(message, Multi) else [message]
    return tuple((type(each).__name__, getattr(each, "version", None)) for each in operations)


class OneId:
    """The model that is searched.

    Args:
        claimants: how many; the last of them stands by when it was displaced.
        habits: of the claimants.
    """

    def __init__(self, claimants: int, habits: Habits | None = None) -> None:
        self._claimants = claimants
        self._habits = habits or Habits()

    def first(self) -> Scene:
        return Scene(self._claimants, self._habits)

    def twin(self, world: Scene) -> Scene:
        return world.twin()

    def keys(self, world: Scene) -> Iterable[Key]:
        return world.keys()

    def what_goes_well(self, world: Scene) -> Iterator[Move[Scene]]:
        return world.what_goes_well()

    def what_goes_wrong(self, world: Scene) -> Iterator[Move[Scene]]:
        return world.what_goes_wrong()

    def judge(self, world: Scene) -> None:
        world.judge()

    def judge_new(self, world: Scene) -> None:
        """Nothing more."""


def main(arguments: Any = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.explore", description=__doc__)
    parser.add_argument("--claimants", type=int, default=3)
    parser.add_argument("--faults", type=int, default=3)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=600.0, help="for each of the two (default: %(default)s)")
    options = parser.parse_args(arguments)
    searches: dict[str, Model[Any]] = {
        f"session, {options.connections} connections": OneSession(options.connections),
        f"plan, {options.claimants} claimants": OneId(options.claimants),
    }
    failed = False
    for name, model in searches.items():
        found = search(model, faults=options.faults, seconds=options.seconds)
        print(f"{name}, {options.faults} faults: {found}", flush=True)
        if found.violation is not None:
            print("\n".join([*found.story, f"VIOLATED {found.violation!r}"]))
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
