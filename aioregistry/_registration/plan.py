"""The next step for a registration's node: one table. Pure.

The owner of a node decides, and for a session that is not ours, the age of the node. The *claim* of a registration is
the zxid of its first observation in the present history. A node of another session that existed at that zxid is stale,
and the registration takes it over; a node that was created later belongs to a newer claimant, which wins. So each
claimant changes the owner at most once, and two never fight. A process that waited until the node went, and then
creates it, thereby claims the id again.

The version that was observed fences the execution of a plan. If the plan is stale by then, it fails with BadVersion,
NoNode or NodeExists; the registration observes the node again and makes a new plan.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["PLANS", "Action", "Desired", "Goal", "Node", "Sight", "classify", "executed", "plan"]


class Node(NamedTuple):
    """A node as it was read; ``owner`` is its Stat's ``ephemeralOwner``."""

    owner: int
    version: int
    czxid: int
    data: bytes


class Goal(enum.Enum):
    """The wishes of a registration for its node."""

    LISTED = "listed"
    """Ours; a ghost's node is taken over."""
    LISTED_IN_TURN = "listed in turn"
    """Ours as soon as no other session holds it."""
    LISTED_IF_FREE = "listed if free"
    """Ours, or an error when another session holds it."""
    WITHDRAWN = "withdrawn"
    """Gone, if it is ours."""


class Desired(NamedTuple):
    """The desired node; ``data`` is of no matter to WITHDRAWN."""

    goal: Goal
    data: bytes


class Sight(enum.Enum):
    """The observed node, as far as it matters."""

    ABSENT = "absent"
    OURS = "ours, with the desired data"
    OURS_OUTDATED = "ours, with other data"
    OURS_EARLIER = "of an earlier session of ours"
    GHOST = "of another session, created before our claim"
    UNFENCED = "of another session, at a version that a takeover cannot fence"
    NEWER = "of another session, created after our claim"
    NOT_EPHEMERAL = "not ephemeral"


class Action(enum.Enum):
    """The possible steps."""

    CREATE = "create the node"
    KEEP = "nothing: the node is as it should be"
    SET = "set the data, by version"
    TAKE_OVER = "delete and create in one fenced transaction"
    WAIT = "nothing until the node changes"
    YIELD = "report that the registration is displaced"
    REFUSE_CONFLICT = "report that the id is taken"
    REFUSE_OBSTACLE = "report a node that no session owns"
    WITHDRAW = "delete the node, by version, and leave a marker of the withdrawal"
    FINISH = "nothing: the registration has no node there"


def _row(*actions: Action) -> Mapping[Goal, Action]:
    return MappingProxyType(dict(zip(Goal, actions, strict=True)))


_A = Action

# fmt: off
PLANS: Mapping[Sight, Mapping[Goal, Action]] = MappingProxyType(
    {
        # sight                   LISTED               LISTED_IN_TURN       LISTED_IF_FREE       WITHDRAWN
        Sight.ABSENT:        _row(_A.CREATE,           _A.CREATE,           _A.CREATE,           _A.FINISH),
        Sight.OURS:          _row(_A.KEEP,             _A.KEEP,             _A.KEEP,             _A.WITHDRAW),
        Sight.OURS_OUTDATED: _row(_A.SET,              _A.SET,              _A.SET,              _A.WITHDRAW),
        Sight.OURS_EARLIER:  _row(_A.TAKE_OVER,        _A.TAKE_OVER,        _A.TAKE_OVER,        _A.WITHDRAW),
        Sight.GHOST:         _row(_A.TAKE_OVER,        _A.WAIT,             _A.REFUSE_CONFLICT,  _A.FINISH),
        Sight.UNFENCED:      _row(_A.WAIT,             _A.WAIT,             _A.REFUSE_CONFLICT,  _A.FINISH),
        Sight.NEWER:         _row(_A.YIELD,            _A.WAIT,             _A.REFUSE_CONFLICT,  _A.FINISH),
        Sight.NOT_EPHEMERAL: _row(_A.REFUSE_OBSTACLE,  _A.REFUSE_OBSTACLE,  _A.REFUSE_OBSTACLE,  _A.FINISH),
    }
)
# fmt: on


def plan(desired: Desired, observed: Node | None, session_id: int, earlier_ids: Container[int], claim: int) -> Action:
    """Return what to do.

    Args:
        desired: the desired state of the node.
        observed: the node as it was read, or None if it does not exist.
        session_id: of the present session.
        earlier_ids: of sessions that this process owned earlier.
        claim: zxid of the first observation in the present history.
    """
    return PLANS[classify(desired.data, observed, session_id, earlier_ids, claim)][desired.goal]


def classify(data: bytes, observed: Node | None, session_id: int, earlier_ids: Container[int], claim: int) -> Sight:
    """Return what *observed* is to a registration that wants it to hold *data*; the rest is as for :func:`plan`."""
    if observed is None:
        return Sight.ABSENT
    if observed.owner in _NO_SESSION:
        return Sight.NOT_EPHEMERAL
    if observed.owner == session_id:
        return Sight.OURS if observed.data == data else Sight.OURS_OUTDATED
    if observed.owner in earlier_ids:
        return Sight.OURS_EARLIER
    if _may_expire_by_age(observed.owner):
        return Sight.NOT_EPHEMERAL
    if observed.czxid > claim:
        return Sight.NEWER
    return Sight.UNFENCED if observed.version == _ANY_VERSION else Sight.GHOST


def executed(action: Action, data: bytes, observed: Node | None, session_id: int) -> bool:
    """Return whether a write whose answer was lost was done, judged by the node *observed* afterwards.

    Args:
        action: the write that was sent.
        data: the data that it would give the node.
        observed: as for :func:`plan`.
        session_id: of the present session.
    """
    ours = observed is not None and observed.owner == session_id
    return not ours if action is Action.WITHDRAW else observed is not None and ours and observed.data == data


# As an expected version it means "whatever it is": a node that has it, after 2^32 - 1 changes, cannot be deleted by
# version.
_ANY_VERSION = -1

# EphemeralType.java: persistent nodes have no owner, containers Long.MIN_VALUE.
_NO_SESSION = frozenset({0, -(2**63)})


def _may_expire_by_age(owner: int) -> bool:
    # EphemeralType.java again: nodes with a TTL have 0xff in the top byte and, being the only such type, 0 in the
    # two bytes below. Session ids of a server with id 255 have 0xff on top too, but a clock below, whose upper half
    # is 0 only in the first hours of the host's uptime: such a node is refused rather than taken over, because what
    # a person made is never deleted.
    return owner >> 40 & 0xFFFFFF == 0xFF0000
