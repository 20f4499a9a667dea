"""The session: a state machine kept alive by one task."""

from __future__ import annotations

from .attempts import Attempt, AttemptOutcome, outage_attempts
from .backoff import throttled_patience, throttled_pause
from .connect_string import ConnectString, parse_connect_string
from .info import SessionInfo
from .port import ReadingSessionPort, SessionPort, TreeWatchPort, WatchPort
from .session import Session
from .states import SessionState
from .watches import TreeWatch, Watch

__all__ = [
    "Attempt",
    "AttemptOutcome",
    "ConnectString",
    "ReadingSessionPort",
    "Session",
    "SessionInfo",
    "SessionPort",
    "SessionState",
    "TreeWatch",
    "TreeWatchPort",
    "Watch",
    "WatchPort",
    "outage_attempts",
    "parse_connect_string",
    "throttled_patience",
    "throttled_pause",
]
