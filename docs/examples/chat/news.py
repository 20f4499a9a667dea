"""The meaning of the registry's changes for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aioregistry import Change, Entry, Removed, Resynced, Updated

from .wire import ServerState

NEWS: Final[Mapping[ServerState, str]] = {
    "listed": "The registry lists {}.",
    "leaving": "{} is leaving: no room is given to it.",
    "suspect": "{} is suspect: it went together with others, and may come back.",
}


def news(change: Change[Any]) -> list[tuple[str, str]]:
    """Return what *change* means to people."""
    if isinstance(change, Resynced):
        return [each for difference in change.changes for each in news(difference)]
    if isinstance(change, Removed):
        return [("unlisted", f"The registry no longer lists {change.id}.")]
    before, now = state(change.previous_entry) if isinstance(change, Updated) else None, state(change.entry)
    return [] if now == before else [(now, NEWS[now].format(change.id))]


def state(entry: Entry[Any]) -> ServerState:
    """Return what *entry* says of a server."""
    if entry.suspicion is not None:
        return "suspect"
    return "listed" if entry.instance.enabled else "leaving"
