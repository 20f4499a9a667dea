"""Several claimants of one id, interleaved on a model tree with ZooKeeper's rules.

Each claimant does what the worker does, one step at a time: look, plan, send, be answered or not. Between its steps
anything may happen, except that a write that is under way is overtaken by more than one change of the node. That is
the limit of a fence made of versions, which :func:`test_the_limit_of_the_fence` shows and ``docs/guarantees.md`` names.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from aioregistry._errors import NoNode, ServerError
from aioregistry._protocol import Create, Delete, EventKind, GetData, Message, Multi, MultiReply, SetData
from aioregistry._registration import transactions
from aioregistry._registration.plan import Action, Desired, Goal, Node, plan
from aioregistry._registration.transactions import change, creation, parent_creation, target_of
from tests.support.checkers import Loss, Violated, check_owned, check_published, check_single, check_withdrawn
from tests.support.model_tree import Change, ModelTree

TARGET = target_of("/services", "chat", "10.0.0.7:7000", ())
PATH = TARGET.path
GHOST = "ghost"


class Habits(NamedTuple):
    """The rules that a claimant goes by; replaced piece by piece to show that the checkers can fail."""

    plan: Callable[[Desired, Node | None, int, Sequence[int], int], Action] = plan
    takeover: Callable[..., Message[Any]] = transactions.takeover
    withdrawal: Callable[..., Message[Any]] = transactions.withdrawal
    keeps_claim: bool = True


class Fate(enum.Enum):
    ANSWERED = enum.auto()
    REQUEST_LOST = enum.auto()
    REPLY_LOST = enum.auto()


@dataclass
class Sent:
    action: Action
    message: Message[Any]
    seen: int
    """How often the node had changed when what was planned from was read."""


class Claimant:
    """One process, and what it knows."""

    def __init__(self, name: str, tree: ModelTree, habits: Habits, goal: Goal, *, standby: bool) -> None:
        self.name = name
        self.tree, self.habits = tree, habits
        self.session_id = tree.open_session()
        self.earlier_ids: list[int] = []
        self.goal, self.standby = goal, standby
        self.data = name.encode()
        self.claim: int | None = None
        self.claims = 0
        self.known = tree.zxid
        """The quorum's zxid, as far as this process has heard of it."""
        self.sight: tuple[Node | None, int] | None = None
        self.sent: Sent | None = None
        self.held = False
        self.displaced = False
        self.ended = False
        self.withdrawn: bool | None = None
        self.marked = True

    @property
    def wants(self) -> bool:
        return not self.ended and self.goal is not Goal.WITHDRAWN

    @property
    def sessions(self) -> list[int]:
        return [*self.earlier_ids, self.session_id]

    def look(self, changes: int) -> None:
        self.sight = (read(self.tree), changes)
        if self.claim is None or not self.habits.keeps_claim:
            self._claim()

    def create_at_once(self, changes: int) -> None:
        """Create the node without having looked, as where the service is known to be there."""
        if self.claim is None and self.sent is None and self.goal is not Goal.WITHDRAWN:
            self.sight = (None, changes)
            self.sent = Sent(Action.CREATE, creation(TARGET, self.data), changes)

    def plan(self) -> None:
        """Plan from what was seen, and send what follows."""
        if self.sight is None or self.claim is None or self.sent is not None:
            return
        node, seen = self.sight
        action = self.habits.plan(Desired(self.goal, self.data), node, self.session_id, self.earlier_ids, self.claim)
        self.held = action is Action.KEEP
        message = self._prepared(action, node)
        self.sent = None if message is None else Sent(action, message, seen)

    def _prepared(self, action: Action, node: Node | None) -> Message[Any] | None:
        match action:
            case Action.CREATE:
                self.claims += self.goal is Goal.LISTED_IN_TURN  # anew: it waited until the node went
                return creation(TARGET, self.data)
            case Action.SET:
                assert node is not None
                return change(TARGET, self.data, node.version)
            case Action.TAKE_OVER:
                assert node is not None
                return self.habits.takeover(TARGET, self.data, node.version)
            case Action.WITHDRAW:
                assert node is not None
                return self.habits.withdrawal(TARGET, node.version, node.czxid, marked=self.marked)
            case Action.KEEP:
                self.goal, self.displaced = Goal.LISTED, False
            case Action.YIELD:
                self.displaced, self.goal, self.ended = True, Goal.LISTED_IN_TURN, not self.standby
            case Action.REFUSE_CONFLICT | Action.REFUSE_OBSTACLE:
                self.ended = True
            case Action.FINISH:
                self.ended, self.withdrawn = True, True
        return None

    def deliver(self, fate: Fate, changes: Callable[[], int]) -> None:
        """Let what was sent be applied or not, and answered or not."""
        sent, self.sent, self.sight, self.held = self.sent, None, None, False
        if sent is None:
            return
        unclaimed = self.claim is None
        if unclaimed and fate is not Fate.ANSWERED:
            self._claim(self.known)
        if fate is Fate.REQUEST_LOST:
            return
        error = applied(self.tree, self.session_id, sent.message)
        if unclaimed and fate is Fate.ANSWERED:
            self._claim(self.tree.zxid)  # that of the node, or of the failure
        if isinstance(error, NoNode) and sent.action is Action.CREATE:
            make_parents(self.tree, self.session_id, PATH)
        if isinstance(error, NoNode) and sent.action is Action.WITHDRAW and error.path != PATH:
            make_parents(self.tree, self.session_id, str(TARGET.marker))
        if fate is Fate.ANSWERED:
            self.look(changes())

    def expire(self, *, at_server: bool) -> None:
        """Get another session: the old one ended, or lives on at the server for a while."""
        if at_server:
            self.tree.end_session(self.session_id)
        self.earlier_ids.append(self.session_id)
        self.session_id = self.tree.open_session()
        self.sent, self.sight, self.held = None, None, False

    def _claim(self, zxid: int | None = None) -> None:
        self.claim = self.tree.zxid if zxid is None else zxid
        self.claims += 1


def read(tree: ModelTree) -> Node | None:
    try:
        data, stat = tree.apply(0, GetData(PATH))
    except NoNode:
        return None
    return Node(stat.ephemeral_owner, stat.version, stat.czxid, data)


def applied(tree: ModelTree, session_id: int, message: Message[Any]) -> ServerError | None:
    try:
        result = tree.apply(session_id, message)
    except ServerError as error:
        return error
    if isinstance(result, MultiReply) and result.failed is not None:
        return result.failed.error
    return None


def make_parents(tree: ModelTree, session_id: int, path: str) -> None:
    for parent in transactions.ancestors(path):
        applied(tree, session_id, parent_creation(TARGET, parent, container=True))


class World(RuleBasedStateMachine):
    """Claimants, ghosts and people around one node."""

    habits: ClassVar[Habits] = Habits()
    most_claimants: ClassVar[int] = 4
    judged: ClassVar[str | None] = None
    """The one guarantee that is judged; all of them unless given."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = ModelTree()
        self.tree.on_change.append(self.changed)
        self.claimants: list[Claimant] = []
        self.of_session: dict[int, str] = {}
        self.owners: list[str | None] = []
        self.losses: list[Loss] = []
        self.changes: list[int] = []
        """The zxids at which the node changed."""
        make_parents(self.tree, 0, PATH)

    # ------------------------------------------------------------------ what is written down

    def changed(self, change: Change) -> None:
        if change.path != PATH:
            return
        if change.before is not None and change.before.owner == 0 and change.by != 0:
            self.violate(Violated("Contained", f"what a person made was touched: {change}"))
        same_transaction = bool(self.changes) and self.changes[-1] == change.zxid
        if not same_transaction:
            self.changes.append(change.zxid)
        if change.kind is EventKind.DELETED:
            self.owners.append(None)
            self.lost(change)
        if change.kind is EventKind.CREATED:
            if same_transaction and self.owners and self.owners[-1] is None:
                self.owners.pop()  # reads never saw the gap
            self.owners.append(self.of_session.get(change.by))

    def lost(self, change: Change) -> None:
        assert change.before is not None
        loser, remover = (self.named(self.of_session.get(session)) for session in (change.before.owner, change.by))
        if loser is None or remover is None or loser is remover or not loser.wants:
            return
        if change.before.owner == loser.session_id:
            assert remover.claim is not None
            self.losses.append(Loss(loser.name, remover.name, change.before.czxid, remover.claim))

    def named(self, name: str | None) -> Claimant | None:
        return next((claimant for claimant in self.claimants if claimant.name == name), None)

    def count(self) -> int:
        return len(self.changes)

    def remember_sessions(self) -> None:
        for claimant in self.claimants:
            self.of_session.update(dict.fromkeys(claimant.sessions, claimant.name))

    def some(self, index: int) -> Claimant | None:
        running = [claimant for claimant in self.claimants if not claimant.ended]
        return running[index % len(running)] if running else None

    # ------------------------------------------------------------------ what may happen

    @precondition(lambda self: len(self.claimants) < self.most_claimants)
    @rule(
        goal=st.sampled_from([Goal.LISTED, Goal.LISTED, Goal.LISTED_IN_TURN, Goal.LISTED_IF_FREE]),
        standby=st.booleans(),
    )
    def a_process_starts(self, goal: Goal, standby: bool) -> None:
        name = f"process {len(self.claimants)}"
        self.claimants.append(Claimant(name, self.tree, self.habits, goal, standby=standby))
        self.remember_sessions()

    @precondition(lambda self: self.tree.node(PATH) is None)
    @rule(version=st.integers(0, 2), same_data=st.booleans())
    def a_process_of_before_left_a_ghost(self, version: int, same_data: bool) -> None:
        session_id = self.tree.open_session()
        self.of_session[session_id] = f"{GHOST} {session_id:#x}"
        make_parents(self.tree, 0, PATH)
        data = b"process 0" if same_data else b"ghost"
        self.tree.apply(session_id, creation(TARGET, data))
        for _ in range(version):
            self.tree.apply(session_id, SetData(PATH, data))

    @rule(index=st.integers(0, 9))
    def goes_on(self, index: int) -> None:
        """Until it has nothing left to do, undisturbed."""
        if (claimant := self.some(index)) is not None:
            self.go_on(claimant)

    def go_on(self, claimant: Claimant) -> None:
        for _ in range(6):
            self.deliver(claimant, Fate.ANSWERED)
            claimant.look(self.count())
            claimant.plan()
            self.check_end(claimant)
            if claimant.sent is None:
                return

    @rule(index=st.integers(0, 9))
    def creates_at_once(self, index: int) -> None:
        if (claimant := self.some(index)) is not None:
            claimant.create_at_once(self.count())

    @rule(index=st.integers(0, 9), looks=st.booleans())
    def sends(self, index: int, looks: bool) -> None:
        """Plan from what is there, or from what was seen before, and send what follows."""
        if (claimant := self.some(index)) is not None:
            if looks and claimant.sent is None:
                claimant.look(self.count())
            claimant.plan()
            self.check_end(claimant)

    @rule()
    def all_send_at_the_same_moment(self) -> None:
        for claimant in [claimant for claimant in self.claimants if not claimant.ended and claimant.sent is None]:
            claimant.look(self.count())
            claimant.plan()
            self.check_end(claimant)

    @rule(index=st.integers(0, 9), fate=st.sampled_from(Fate))
    def is_answered(self, index: int, fate: Fate) -> None:
        if (claimant := self.some(index)) is not None:
            self.deliver(claimant, fate)

    def deliver(self, claimant: Claimant, fate: Fate) -> None:
        if claimant.sent is not None and self.count() - claimant.sent.seen > 1:
            fate = Fate.REQUEST_LOST  # see the limit of the fence
        claimant.deliver(fate, self.count)

    @rule(index=st.integers(0, 9), at_server=st.booleans())
    def a_session_ends(self, index: int, at_server: bool) -> None:
        if (claimant := self.some(index)) is not None:
            claimant.expire(at_server=at_server)
            self.remember_sessions()

    @rule(index=st.integers(0, 9), fate=st.sampled_from([Fate.REQUEST_LOST, Fate.REPLY_LOST]))
    def a_process_is_killed(self, index: int, fate: Fate) -> None:
        if (claimant := self.some(index)) is not None:
            self.deliver(claimant, fate)
            claimant.ended = True

    @rule(index=st.integers(0, 9))
    def the_server_ends_the_session_of_the_dead(self, index: int) -> None:
        living = {session for claimant in self.claimants if not claimant.ended for session in [claimant.session_id]}
        dead = [session for session in self.tree.sessions if session not in living]
        if dead:
            self.tree.end_session(dead[index % len(dead)])

    @rule(index=st.integers(0, 9), number=st.integers(0, 3))
    def updates(self, index: int, number: int) -> None:
        if (claimant := self.some(index)) is not None:
            claimant.data = f"{claimant.name} {number}".encode()

    @rule(index=st.integers(0, 9))
    def closes(self, index: int) -> None:
        if (claimant := self.some(index)) is not None:
            claimant.goal = Goal.WITHDRAWN

    @precondition(lambda self: self.tree.node(PATH) is None)
    @rule()
    def the_empty_service_is_reaped(self) -> None:
        for parent in reversed(transactions.ancestors(PATH)):
            if self.tree.node(parent) is not None and not self.tree.children(parent):
                self.tree.delete(parent)

    @precondition(lambda self: self.tree.node(PATH) is not None)
    @rule()
    def a_person_deletes_the_node(self) -> None:
        self.tree.delete(PATH)

    @precondition(lambda self: self.tree.node(PATH) is not None)
    @rule()
    def a_person_overwrites_the_node(self) -> None:
        self.tree.set_data(PATH, b"by hand")

    @precondition(lambda self: self.tree.node(PATH) is None and self.count() > 6)  # it is the end of all claimants
    @rule()
    def a_person_makes_a_node(self) -> None:
        make_parents(self.tree, 0, PATH)
        self.tree.apply(0, Create(PATH, b"precious"))

    # ------------------------------------------------------------------ what must hold

    def violate(self, violation: Violated) -> None:
        if self.judged in (None, violation.guarantee):
            raise violation

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        try:
            yield
        except Violated as violation:
            self.violate(violation)

    def owner(self) -> int | None:
        node = self.tree.node(PATH)
        return None if node is None else node.owner

    def check_end(self, claimant: Claimant) -> None:
        if claimant.withdrawn is not None:
            with self.judging():
                check_withdrawn(withdrawn=claimant.withdrawn, sessions=claimant.sessions, owner=self.owner())

    def teardown(self) -> None:
        self.quieten()
        self.check()
        living = {claimant.session_id for claimant in self.claimants if not claimant.ended}
        for session in [session for session in self.tree.sessions if session not in living]:
            self.tree.end_session(session)
        self.quieten()
        self.check()
        self.check_published()

    def quieten(self) -> None:
        """Let everybody go on undisturbed, until nobody has anything left to do."""
        for _ in range(12):
            before = self.tree.zxid
            for claimant in self.claimants:
                if not claimant.ended:
                    self.go_on(claimant)
            if self.tree.zxid == before and not any(claimant.sent for claimant in self.claimants):
                return
        self.violate(Violated("Single", f"they never come to rest: {self.owners}"))

    def check(self) -> None:
        # A claimant that waits for its turn says so; it may have lost a node that it did not know it had.
        waiting = {claimant.name for claimant in self.claimants if claimant.goal is Goal.LISTED_IN_TURN}
        ended = {claimant.name for claimant in self.claimants if claimant.ended}
        ghosts = {name for name in self.of_session.values() if name.startswith(GHOST)}
        told = waiting | ended | ghosts
        for claimant in self.claimants:
            with self.judging():
                check_owned(live=claimant.held, session_id=claimant.session_id, owner=self.owner())
        with self.judging():
            check_single(self.owners, {claimant.name: claimant.claims for claimant in self.claimants}, told)

    def check_published(self) -> None:
        node = self.tree.node(PATH)
        wanted = {claimant.data for claimant in self.claimants if claimant.wants}
        with self.judging():
            check_published(listed=None if node is None else node.data, wanted=wanted, losses=self.losses)


TestClaimants = World.TestCase
TestClaimants.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)


# ---------------------------------------------------------------- the checkers can fail


def no_owner_check(
    desired: Desired, observed: Node | None, session_id: int, earlier_ids: Sequence[int], claim: int
) -> Action:
    """``exists → setData``: pit 2."""
    owned = observed if observed is None else observed._replace(owner=session_id)
    return plan(desired, owned, session_id, earlier_ids, claim)


def unfenced_takeover(target: transactions.Target, data: bytes, version: int) -> Multi:
    return Multi([Delete(target.path, version), creation(target, data)])


def blind_deletion(
    desired: Desired, observed: Node | None, session_id: int, earlier_ids: Sequence[int], claim: int
) -> Action:
    if desired.goal is Goal.WITHDRAWN and observed is not None:
        return Action.WITHDRAW
    return plan(desired, observed, session_id, earlier_ids, claim)


def leaving_without_a_word(
    desired: Desired, observed: Node | None, session_id: int, earlier_ids: Sequence[int], claim: int
) -> Action:
    if desired.goal is Goal.WITHDRAWN:
        return Action.FINISH
    return plan(desired, observed, session_id, earlier_ids, claim)


def registering_once(
    desired: Desired, observed: Node | None, session_id: int, earlier_ids: Sequence[int], claim: int
) -> Action:
    """A node that went is not put back: dubbo#869."""
    if observed is None and earlier_ids and desired.goal is not Goal.WITHDRAWN:
        return Action.WAIT
    return plan(desired, observed, session_id, earlier_ids, claim)


BROKEN = {
    "no owner check": (Habits(plan=no_owner_check), 1, "Owned"),
    "no owner check, several": (Habits(plan=no_owner_check), 4, "Single"),
    "unfenced takeover": (Habits(takeover=unfenced_takeover), 4, "Published"),
    "claim forgotten": (Habits(keeps_claim=False), 4, "Single"),
    "blind deletion": (Habits(plan=blind_deletion, withdrawal=lambda *_, **__: Delete(PATH)), 4, "Published"),
    "blind deletion, a person's": (Habits(plan=blind_deletion), 4, "Contained"),
    "leaving without a word": (Habits(plan=leaving_without_a_word), 4, "Withdrawn"),
    "registering once": (Habits(plan=registering_once), 4, "Published"),
}


@pytest.mark.parametrize(("habits", "claimants", "guarantee"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.soak
def test_a_broken_plan_is_caught(habits: Habits, claimants: int, guarantee: str) -> None:
    class Broken(World):
        pass

    Broken.habits, Broken.most_claimants, Broken.judged = habits, claimants, guarantee
    with pytest.raises(Violated, match=guarantee):
        run_state_machine_as_test(
            Broken,
            settings=settings(
                max_examples=2000,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                report_multiple_bugs=False,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )


# ---------------------------------------------------------------- examples


def test_the_limit_of_the_fence() -> None:
    """Two more takeovers within one's own round trip bring the version back: nobody fights, and all are told."""
    world = World()
    world.a_process_of_before_left_a_ghost(0, False)
    for _ in range(2):
        world.a_process_starts(Goal.LISTED, False)
    slow, quick = world.claimants
    slow.look(world.count())
    slow.plan()
    for claimant in (quick,):
        claimant.look(world.count())
        claimant.plan()
        claimant.deliver(Fate.ANSWERED, world.count)
    world.a_process_starts(Goal.LISTED, False)
    newest = world.claimants[-1]
    newest.look(world.count())
    newest.plan()
    newest.deliver(Fate.ANSWERED, world.count)
    slow.deliver(Fate.ANSWERED, world.count)
    world.quieten()
    world.check()
    assert [owner for owner in world.owners if owner in ("process 0", "process 1", "process 2")] == [
        "process 1",
        "process 2",
        "process 0",
    ]
    assert [claimant.displaced for claimant in world.claimants] == [False, True, True]


def test_two_that_see_the_same_ghost() -> None:
    world = World()
    world.a_process_of_before_left_a_ghost(0, False)
    for _ in range(2):
        world.a_process_starts(Goal.LISTED, False)
    for step in (lambda each: each.look(world.count()), Claimant.plan):
        for claimant in world.claimants:
            step(claimant)
    for claimant in world.claimants:
        claimant.deliver(Fate.ANSWERED, world.count)
    world.quieten()
    world.check()
    assert [claimant.held for claimant in world.claimants] == [True, False]
    assert [claimant.displaced for claimant in world.claimants] == [False, True]


def test_a_dying_process_leaves_its_successors_node() -> None:
    world = World()
    world.a_process_starts(Goal.LISTED, False)
    old = world.claimants[0]
    world.quieten()
    old.look(world.count())
    old.goal = Goal.WITHDRAWN
    old.plan()  # its deletion is under way
    world.a_process_starts(Goal.LISTED, False)
    new = world.claimants[1]
    new.look(world.count())
    new.plan()
    new.deliver(Fate.ANSWERED, world.count)
    old.deliver(Fate.ANSWERED, world.count)
    world.quieten()
    world.check()
    world.check_published()
    assert new.held
    assert old.withdrawn
