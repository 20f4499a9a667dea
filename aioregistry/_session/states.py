"""The states of a session, and the only moves between them.

A ZooKeeper session lives on the ensemble, not in this process. A connection is a means to keep it alive, and losing
one says nothing about the session: the server goes on counting, and a client that reconnects in time still owns every
ephemeral node it made. Only a server can say that a session has ended, and it says so only to a client that asks (a
handshake that offers the old id). Hence the states of :class:`SessionState`.

Read-only service, presumed expiry and the age of the evidence are not states but facts beside them: they change
with the clock or the server, not with a move here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ENDED", "FOLLOWING", "MOVES", "SERVING", "SessionState", "Transition", "diagram"]


class SessionState(enum.Enum):
    """The state of a session; docs/session.md has the transitions."""

    DISCONNECTED = "disconnected"
    """No session was ever accepted."""
    CONNECTED = "connected"
    """A *new* session. Nothing of an earlier one is left: its ephemeral nodes are, or will be, deleted, and its watches
    are gone."""
    SUSPENDED = "suspended"
    """No connection. The session may live or be dead; the client cannot know."""
    RECONNECTED = "reconnected"
    """The *same* session on another connection. Everything it owns is still there."""
    EXPIRED = "expired"
    """A server said that the session has ended, or granted another one instead, or the ensemble proved to have lost the
    history that it belonged to. The client asks for a new session."""
    CLOSED = "closed"
    """This process ended it."""
    FAILED = "failed"
    """It cannot go on, by wrong credentials or a defect; trying again would not help."""


class Transition(enum.Enum):
    """The events of a session, as far as those outside are to know."""

    SERVES = "serves"
    """A server has accepted it, and requests can be sent."""
    SUSPENDED = "suspended"
    """The connection ended."""
    LEFT = "left"
    """It has ended, and another takes its place."""
    CLOSED = "closed"
    FAILED = "failed"


_END = {Transition.CLOSED: SessionState.CLOSED, Transition.FAILED: SessionState.FAILED}

FOLLOWING: Mapping[SessionState, Mapping[Transition, SessionState]] = MappingProxyType(
    {
        SessionState.DISCONNECTED: {Transition.SERVES: SessionState.CONNECTED, **_END},
        SessionState.CONNECTED: {Transition.SUSPENDED: SessionState.SUSPENDED, **_END},
        SessionState.SUSPENDED: {
            Transition.SERVES: SessionState.RECONNECTED,
            Transition.LEFT: SessionState.EXPIRED,
            **_END,
        },
        SessionState.RECONNECTED: {Transition.SUSPENDED: SessionState.SUSPENDED, **_END},
        SessionState.EXPIRED: {Transition.SERVES: SessionState.CONNECTED, **_END},
        SessionState.CLOSED: {},
        SessionState.FAILED: {},
    }
)
"""From each state, the moves that are possible, and the state that follows."""

MOVES: Mapping[SessionState, frozenset[SessionState]] = MappingProxyType(
    {state: frozenset(following.values()) for state, following in FOLLOWING.items()}
)
"""Guarantee *Legal*: from each state, the states that may follow."""

SERVING = frozenset({SessionState.CONNECTED, SessionState.RECONNECTED})
ENDED = frozenset(_END.values())


def diagram() -> str:
    """Return the moves as a Mermaid state diagram, as it stands in the docs."""
    lines = ["stateDiagram-v2", "    [*] --> disconnected"]
    for state, following in MOVES.items():
        lines += [f"    {state.value} --> {other.value}" for other in sorted(following, key=lambda each: each.value)]
    lines += [f"    {state.value} --> [*]" for state, following in MOVES.items() if not following]
    return "\n".join(lines)
