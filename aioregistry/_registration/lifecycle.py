"""The stages of a registration, the ways between them, and the status of each. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aioregistry._errors import RegistrationDisplaced

from .plan import Goal

__all__ = ["GOALS", "LEAVING", "LINES", "MOVES", "OVER", "Stage", "Status", "Turn", "moved", "status"]


class Status(enum.Enum):
    """The status of a registration at the moment of asking."""

    REGISTERING = "registering"
    """Not listed, or not known to be; being worked on as far as there is a connection."""
    LIVE = "live"
    """Listed: seen as ours on this connection, and the quorum has answered within the session timeout."""
    UNCERTAIN = "uncertain"
    """Was listed; the connection was lost since, or is so new that the node was not looked at yet."""
    PRESUMED_GONE = "presumed gone"
    """Was listed; the quorum has not answered for a session timeout, so that it may have ended the session."""
    DISPLACED = "displaced"
    """A newer claimant has the id. With ``on_displaced="standby"`` it is claimed again when that one's node goes."""
    FAILED = "failed"
    """Ended by an error, which :meth:`Registration.wait_closed` returns."""
    CLOSED = "closed"
    """Withdrawn, or ended without knowing that, by closing the registration or its session."""


LINES: Final[Mapping[Status, str]] = MappingProxyType(
    {
        Status.REGISTERING: "is not listed at the moment, and will be as soon as possible",
        Status.LIVE: "is listed: {where}, by session {session}",
        Status.UNCERTAIN: "may still be listed: {why}",
        Status.PRESUMED_GONE: "is probably not listed any more: ZooKeeper has not answered for {timeout:g} s, and may "
        "have ended session {session}; it will be listed again as soon as there is a connection",
        Status.DISPLACED: "is displaced: a newer claimant has the id",
        Status.FAILED: "has failed, and is not kept listed any more",
    }
)
"""The log's words for a registration, behind the path of its node; of a closed one whether it is withdrawn."""


class Stage(enum.Enum):
    """The stages of a registration, from entering on."""

    CLAIMING = "it was never listed"
    LISTED = "it was listed, and is listed again whenever it is found missing"
    STANDBY = "a newer claimant has the id; it is claimed again when that one's node goes"
    CLOSING = "its owner closes it, and waits for the withdrawal"
    ENDED = "it ended by itself; its node, if it left one, is withdrawn"
    CLOSED = "its owner has closed it, and has stopped waiting; its node, if it left one, is withdrawn"


class Turn(enum.Enum):
    """The events that lead from one stage to the next."""

    SEEN = "the node was seen as ours"
    DISPLACED = "a newer claimant has the id, and this one stands by"
    CLOSE = "its owner closes it"
    END = "it ends: by an error, a displacement, the end of the session or of the closing"


def _row(seen: Stage, displaced: Stage | None, close: Stage, end: Stage) -> Mapping[Turn, Stage]:
    turns = {Turn.SEEN: seen, Turn.DISPLACED: displaced, Turn.CLOSE: close, Turn.END: end}
    return MappingProxyType({turn: stage for turn, stage in turns.items() if stage is not None})


# fmt: off
_S = Stage
MOVES: Final[Mapping[Stage, Mapping[Turn, Stage]]] = MappingProxyType(
    {
        #                 seen,       displaced,  close,      end
        _S.CLAIMING: _row(_S.LISTED,  _S.STANDBY, _S.CLOSING, _S.ENDED),
        _S.LISTED:   _row(_S.LISTED,  _S.STANDBY, _S.CLOSING, _S.ENDED),
        # A registration that stands by waits for a node to go, and claims the id by creating its own: it cannot be
        # displaced.
        _S.STANDBY:  _row(_S.LISTED,  None,       _S.CLOSING, _S.ENDED),
        # Its node may be seen as long as it is not withdrawn, and it no longer yields to others.
        _S.CLOSING:  _row(_S.CLOSING, None,       _S.CLOSING, _S.CLOSED),
        _S.ENDED:    _row(_S.ENDED,   None,       _S.CLOSED,  _S.ENDED),
        _S.CLOSED:   _row(_S.CLOSED,  None,       _S.CLOSED,  _S.CLOSED),
    }
)
# fmt: on

GOALS: Final[Mapping[Stage, Goal]] = MappingProxyType(
    {
        Stage.LISTED: Goal.LISTED,
        Stage.STANDBY: Goal.LISTED_IN_TURN,
        Stage.CLOSING: Goal.WITHDRAWN,
        Stage.ENDED: Goal.WITHDRAWN,
        Stage.CLOSED: Goal.WITHDRAWN,
    }
)
"""The node's desired end; at first that is the owner's choice."""

OVER: Final = frozenset({Stage.ENDED, Stage.CLOSED})
"""All waiting tasks were notified; a withdrawal may go on."""

LEAVING: Final = frozenset({Stage.CLOSING, *OVER})
"""Nothing is wanted any more but that no node of ours is left."""


def moved(stage: Stage, turn: Turn) -> Stage:
    """Return the stage after *turn*; one that cannot happen in *stage* raises KeyError."""
    return MOVES[stage][turn]


def status(
    stage: Stage, *, cause: Exception | None, displaced: bool, owned: bool, presumed_expired: bool, seen_here: bool
) -> Status:
    """Return the known facts of a registration.

    Args:
        stage: the stage that it has reached.
        cause: why it ended by itself.
        displaced: the node was that of a newer claimant when it was seen last.
        owned: the node was seen as ours, in the session that there is now.
        presumed_expired: the servers may have ended that session.
        seen_here: the node was seen on the connection that there is now.
    """
    if stage in OVER:
        return _ended_as(cause)
    if displaced:
        return Status.DISPLACED
    if not owned:
        return Status.CLOSED if stage is Stage.CLOSING else Status.REGISTERING
    if presumed_expired:
        return Status.PRESUMED_GONE
    return Status.LIVE if seen_here else Status.UNCERTAIN


def _ended_as(cause: Exception | None) -> Status:
    if cause is None:
        return Status.CLOSED
    return Status.DISPLACED if isinstance(cause, RegistrationDisplaced) else Status.FAILED
