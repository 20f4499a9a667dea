"""The session: a state machine kept alive by one task."""

from __future__ import annotations

from .attempts import Attempt, AttemptOutcome
from .backoff import throttled_patience, throttled_pause
from .hosts import Hosts, parse_hosts
from .states import SessionState
from .supervisor import Session, TreeWatch, Watch

__all__ = [
    "Attempt",
    "AttemptOutcome",
    "Hosts",
    "Session",
    "SessionState",
    "TreeWatch",
    "Watch",
    "parse_hosts",
    "throttled_patience",
    "throttled_pause",
]
