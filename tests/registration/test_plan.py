"""The plan, against every observation."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, cast

import pytest

from aioregistry import _errors as errors
from aioregistry._errors import NoAuth, NodeExists, NoNode, ServerSessionExpired, TransactionAborted, server_error
from aioregistry._registration.plan import PLANS, Action, Desired, Goal, Node, Sight, classify, executed, plan
from aioregistry._registration.remedies import REMEDIES, Remedy, remedy

SESSION, EARLIER, STRANGER = 0x1000_0001, 0x1000_0000, 0x1000_0002
CLAIM = 100
DATA, OTHER_DATA = b"ours", b"other"

PERSISTENT, CONTAINER = 0, -(2**63)
TTL_OF_ONE_HOUR = (0xFF << 56 | 3_600_000) - 2**64
LONGEST_TTL = (0xFF << 56 | 0xFF_FFFF_FFFF) - 2**64
SERVER_255 = (0xFF << 56 | 0x0193_5AC2_1100_0000) - 2**64  # as SessionTrackerImpl.initializeNextSessionId makes them
SERVER_255_EARLY = (0xFF << 56 | 0x0000_0100_0000_0001) - 2**64

OWNERS = (SESSION, EARLIER, STRANGER, PERSISTENT, CONTAINER, TTL_OF_ONE_HOUR, LONGEST_TTL, SERVER_255, SERVER_255_EARLY)
NO_SESSIONS = (PERSISTENT, CONTAINER, TTL_OF_ONE_HOUR, LONGEST_TTL)
VERSIONS = (0, 1, 2**31 - 1, -(2**31), -2, -1)
CZXIDS = (CLAIM - 1, CLAIM, CLAIM + 1)

NODES = [Node(*each) for each in itertools.product(OWNERS, VERSIONS, CZXIDS, (DATA, OTHER_DATA))]
OBSERVATIONS: list[Node | None] = [None, *NODES]


def planned(goal: Goal, observed: Node | None) -> Action:
    return plan(Desired(goal, DATA), observed, SESSION, (EARLIER,), CLAIM)


def expected(goal: Goal, observed: Node | None) -> Action:
    """The design's table, in its own words."""
    if observed is None:
        return Action.FINISH if goal is Goal.WITHDRAWN else Action.CREATE
    if observed.owner == SESSION:
        listed = Action.KEEP if observed.data == DATA else Action.SET
        return Action.WITHDRAW if goal is Goal.WITHDRAWN else listed
    if observed.owner == EARLIER:
        return Action.WITHDRAW if goal is Goal.WITHDRAWN else Action.TAKE_OVER
    if goal is Goal.WITHDRAWN:
        return Action.FINISH
    if observed.owner in NO_SESSIONS:
        return Action.REFUSE_OBSTACLE
    if goal is Goal.LISTED_IN_TURN:
        return Action.WAIT
    if goal is Goal.LISTED_IF_FREE:
        return Action.REFUSE_CONFLICT
    if observed.czxid > CLAIM:
        return Action.YIELD
    return Action.WAIT if observed.version == -1 else Action.TAKE_OVER


@pytest.mark.parametrize("goal", Goal)
def test_every_observation(goal: Goal) -> None:
    for observed in OBSERVATIONS:
        assert planned(goal, observed) is expected(goal, observed), observed


@pytest.mark.parametrize("goal", Goal)
def test_no_deletion_of_what_is_not_ours_to_delete(goal: Goal) -> None:
    for observed in NODES:
        action = planned(goal, observed)
        if action is Action.TAKE_OVER:
            assert observed.owner != SESSION, "its own live node"
        if action in (Action.TAKE_OVER, Action.WITHDRAW):
            assert observed.owner not in NO_SESSIONS, "what a person made"
        if action in (Action.TAKE_OVER, Action.WITHDRAW) and observed.owner not in (SESSION, EARLIER):
            assert observed.czxid <= CLAIM, "a newer claimant's"
            assert observed.version != -1, "without a fence"


def test_the_table_knows_every_sight_and_goal() -> None:
    assert set(PLANS) == set(Sight)
    for row in PLANS.values():
        assert set(row) == set(Goal)


def test_every_sight_is_seen() -> None:
    seen = {classify(DATA, observed, SESSION, (EARLIER,), CLAIM) for observed in OBSERVATIONS}
    assert seen == set(Sight)


def test_every_action_is_planned() -> None:
    assert {planned(goal, observed) for goal in Goal for observed in OBSERVATIONS} == set(Action)


def test_a_missing_goal_raises() -> None:
    with pytest.raises(KeyError):
        planned(cast(Any, "idle"), None)


def test_a_node_without_owner_is_nobodys_even_without_a_session() -> None:
    assert classify(DATA, Node(0, 0, 1, DATA), 0, (0,), CLAIM) is Sight.NOT_EPHEMERAL


# ---------------------------------------------------------------- remedies

SERVER_ERRORS = [
    error
    for error in errors.ServerError.__subclasses__()
    if error is not TransactionAborted  # is asked about its cause
]


@pytest.mark.parametrize("error", SERVER_ERRORS)
@pytest.mark.parametrize("action", [None, *Action])
def test_every_error_has_a_remedy(action: Action | None, error: type[errors.ServerError]) -> None:
    assert remedy(action, error("/a")) in Remedy
    for index in range(3):
        assert remedy(action, TransactionAborted(index, error("/a"))) in Remedy


TRIED_AGAIN = (
    "APIError DataInconsistency NewConfigNoQuorum NotReadOnly OperationTimeout ReconfigInProgress RolledBack "
    "RuntimeInconsistency ServerConnectionLoss ServerSessionExpired SessionMoved SystemFault Throttled "
    "UnknownServerError UnknownSession"
)
REFUSED = (
    "AuthFailed BadArguments ChrootMissing EphemeralOnLocalSession InvalidACL InvalidCallback MarshallingError NoAuth "
    "NoChildrenForEphemerals NoWatcher NotEmpty PoisonRequest QuotaExceeded ReconfigDisabled RequestTooLarge "
    "SessionClosedRequireSASL Unimplemented"
)
OVERTAKEN = "BadVersion NoNode NodeExists"
WRITTEN_DOWN = {
    **dict.fromkeys(TRIED_AGAIN.split(), Remedy.OBSERVE_LATER),
    **dict.fromkeys(REFUSED.split(), Remedy.REFUSED),
    **dict.fromkeys(OVERTAKEN.split(), Remedy.PLAN_AGAIN),
}
"""The whole table once more: a row that is another one would be an endless retry, an end where a retry helps, or trust
in a server without quorum."""


def test_each_error_has_the_remedy_that_is_written_down() -> None:
    assert {error.__name__: found for error, found in REMEDIES.items()} == WRITTEN_DOWN


@pytest.mark.parametrize("error", SERVER_ERRORS, ids=lambda error: error.__name__)
def test_each_action_has_the_remedy_that_is_written_down(error: type[errors.ServerError]) -> None:
    usual = WRITTEN_DOWN[error.__name__]
    missing = error is NoNode
    marker = Remedy.MAKE_PARENTS if missing else usual if usual is Remedy.OBSERVE_LATER else Remedy.OMIT_MARKER
    for action in (None, *Action):
        assert remedy(action, error("/a")) is (Remedy.MAKE_PARENTS if missing and action is Action.CREATE else usual)
        for index in range(4):
            expected = marker if action is Action.WITHDRAW and index < 2 else usual
            if action is Action.WITHDRAW and index == 2 and usual is Remedy.REFUSED:
                expected = Remedy.OMIT_MARKER
            assert remedy(action, TransactionAborted(index, error("/a"))) is expected


@pytest.mark.parametrize("action", [None, *Action])
def test_a_withdrawal_that_costs_the_connection_is_made_without_its_marker(action: Action | None) -> None:
    poison = errors.PoisonRequest(
        "Multi", 300, "zk:2181", connections=3, reason="closed", largest_answered=0, limit=None, retry_in=2.0
    )
    assert remedy(action, poison) is (Remedy.OMIT_MARKER if action is Action.WITHDRAW else Remedy.REFUSED)


def test_a_missing_error_raises() -> None:
    with pytest.raises(KeyError):
        remedy(None, errors.RegistryError())


def test_an_unknown_code_is_tried_again() -> None:
    assert remedy(Action.CREATE, server_error(-4711)) is Remedy.OBSERVE_LATER


@pytest.mark.parametrize(
    ("action", "error", "expected"),
    [
        (Action.CREATE, NoNode("/a"), Remedy.MAKE_PARENTS),
        (Action.SET, NoNode("/a"), Remedy.PLAN_AGAIN),
        (Action.WITHDRAW, NoNode("/a"), Remedy.PLAN_AGAIN),
        (Action.TAKE_OVER, TransactionAborted(0, NoNode("/a")), Remedy.PLAN_AGAIN),
        (Action.TAKE_OVER, TransactionAborted(1, NoAuth("/a")), Remedy.REFUSED),
        (Action.TAKE_OVER, TransactionAborted(0, ServerSessionExpired("/a")), Remedy.OBSERVE_LATER),
        (Action.WITHDRAW, TransactionAborted(0, NoNode("/m")), Remedy.MAKE_PARENTS),
        (Action.WITHDRAW, TransactionAborted(0, NoAuth("/m")), Remedy.OMIT_MARKER),
        (Action.WITHDRAW, TransactionAborted(1, NoAuth("/m")), Remedy.OMIT_MARKER),
        (Action.WITHDRAW, TransactionAborted(0, NodeExists("/m")), Remedy.OMIT_MARKER),
        (Action.WITHDRAW, TransactionAborted(0, ServerSessionExpired("/m")), Remedy.OBSERVE_LATER),
        (Action.WITHDRAW, TransactionAborted(2, NoNode("/a")), Remedy.PLAN_AGAIN),
        (Action.WITHDRAW, TransactionAborted(2, NoAuth("/a")), Remedy.OMIT_MARKER),
        (Action.WITHDRAW, TransactionAborted(3, NoAuth("/a")), Remedy.REFUSED),
    ],
)
def test_remedies_that_depend_on_the_action(action: Action, error: errors.ServerError, expected: Remedy) -> None:
    assert remedy(action, error) is expected


def test_every_remedy_is_used() -> None:
    assert set(REMEDIES.values()) | {Remedy.MAKE_PARENTS, Remedy.OMIT_MARKER} == set(Remedy)


PAGE = Path(__file__).parents[2] / "docs" / "registration.md"
GENERATED = re.compile(r"<!-- plan: generated -->\n\n(.*?)\n\n<!-- plan: end -->", re.DOTALL)


def table() -> str:
    rows = [
        ["observed", *(goal.value for goal in Goal)],
        ["---"] * (1 + len(Goal)),
        *([sight.value, *(actions[goal].value for goal in Goal)] for sight, actions in PLANS.items()),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_table_in_the_docs_is_the_plan() -> None:
    found = GENERATED.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None, "docs/registration.md has lost its markers"
    assert found[1] == table(), f"put this between the markers of docs/registration.md:\n{table()}"


@pytest.mark.parametrize(
    ("observed", "written", "withdrawn"),
    [
        (None, False, True),
        (Node(7, 0, 5, b"new"), True, False),
        (Node(7, 0, 5, b"old"), False, False),
        (Node(8, 0, 5, b"new"), False, True),  # whoever has it now, ours is gone
        (Node(0, 0, 5, b"new"), False, True),
    ],
)
def test_whether_a_write_without_an_answer_was_done(observed: Node | None, written: bool, withdrawn: bool) -> None:
    for action in (Action.CREATE, Action.SET, Action.TAKE_OVER):
        assert executed(action, b"new", observed, 7) is written
    assert executed(Action.WITHDRAW, b"", observed, 7) is withdrawn
