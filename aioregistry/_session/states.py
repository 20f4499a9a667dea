"""The states of a session, and the only moves between them.

A ZooKeeper session lives on the ensemble, not in this process. A connection is a means to keep it alive, and losing
one says nothing about the session: the server goes on counting, and whoever reconnects in time still owns every
ephemeral node it made. Only a server can say that a session has ended, and it says so only to those who ask (a
handshake that offers the old id). Hence the states:

- ``DISCONNECTED``: no session was ever accepted.
- ``CONNECTED``: a *new* session. Nothing of an earlier one is left: ephemeral nodes are (or will be) deleted,
  watches are gone.
- ``SUSPENDED``: no connection. The session may live or be dead; nobody here can know.
- ``RECONNECTED``: the *same* session on another connection. Everything it owns is still there.
- ``EXPIRED``: a server said that the session has ended (or the ensemble proved to have lost the history it belonged
  to). A new session is being asked for.
- ``CLOSED``: this process ended it.
- ``FAILED``: it cannot go on, by wrong credentials or a defect; trying again would not help.

Read-only service, presumed expiry and the age of the evidence are not states but facts beside them: they change
with the clock or the server, not with a move here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ENDED", "MOVES", "SERVING", "SessionState", "diagram"]


class SessionState(enum.Enum):
    """What is known of the session; see the module's text."""

    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    SUSPENDED = "suspended"
    RECONNECTED = "reconnected"
    EXPIRED = "expired"
    CLOSED = "closed"
    FAILED = "failed"


_END = frozenset({SessionState.CLOSED, SessionState.FAILED})

MOVES: Mapping[SessionState, frozenset[SessionState]] = MappingProxyType(
    {
        SessionState.DISCONNECTED: frozenset({SessionState.CONNECTED}) | _END,
        SessionState.CONNECTED: frozenset({SessionState.SUSPENDED}) | _END,
        SessionState.SUSPENDED: frozenset({SessionState.RECONNECTED, SessionState.EXPIRED}) | _END,
        SessionState.RECONNECTED: frozenset({SessionState.SUSPENDED}) | _END,
        SessionState.EXPIRED: frozenset({SessionState.CONNECTED}) | _END,
        SessionState.CLOSED: frozenset(),
        SessionState.FAILED: frozenset(),
    }
)
"""Guarantee *Legal*: from each state, the states that may follow."""

SERVING = frozenset({SessionState.CONNECTED, SessionState.RECONNECTED})
ENDED = _END


def diagram() -> str:
    """Return the moves as a Mermaid state diagram, as it stands in the docs."""
    lines = ["stateDiagram-v2", "    [*] --> disconnected"]
    for state, following in MOVES.items():
        lines += [f"    {state.value} --> {other.value}" for other in sorted(following, key=lambda each: each.value)]
    lines += [f"    {state.value} --> [*]" for state, following in MOVES.items() if not following]
    return "\n".join(lines)
