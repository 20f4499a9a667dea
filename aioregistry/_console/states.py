"""The state of an instance at one moment, as the console knows it, and the names of its changes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry import Entry, Invalid, Override, Snapshot
from aioregistry._errors import session_name
from aioregistry._words import payload_of, place, state_of

__all__ = ["KINDS", "Mark", "State", "invalid_state", "marks", "of_entry", "of_snapshot", "reason_of_override"]

LONGEST_PAYLOAD: Final = 2000
"""Characters of a payload that are recorded; the page of an instance shows all of the present one."""

_LONGEST_REASON: Final = 500
_INT64: Final = 2**63 - 1
_HALVES: Final = re.compile("[\ud800-\udfff]")

KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "joined": "joined",
        "left": "left",
        "owner": "owner changed",
        "state": "state changed",
        "changed": "document changed",
        "held": "held back",
        "released": "no longer held",
        "override": "override set",
        "override-over": "override ended",
        "invalid": "not readable",
        "outage": "outage began",
        "connected": "outage over",
        "session": "console has a new session",
        "leader": "new leader of the ensemble",
        "service": "service began or ended",
        "recording": "recording",
    }
)
"""The kinds of events on the timeline, with their texts."""


class State(NamedTuple):
    """An instance, or a node that is not an instance, at one moment.

    Args:
        state: ``enabled``, ``failing``, ``draining``, ``maintenance``, ``suspect`` or ``invalid``.
        owner: the session that owns the node, as ZooKeeper's tools show it.
        place: ``address:port``, or ``-``.
        payload: as JSON, cut where it is long.
        reason: why it is suspect or invalid; else the reason that an operator gave.
        czxid: of the node: another one is another node.
    """

    state: str
    owner: str
    place: str
    payload: str
    reason: str
    czxid: int


class Mark(NamedTuple):
    """Something that happened to an instance: a kind of :data:`KINDS`, and a few words."""

    kind: str
    text: str


def of_entry(entry: Entry[Any], override: Override | None) -> State:
    """Return the state of an instance, which *override* holds back where there is one."""
    reason = ""
    if entry.suspicion is not None:
        reason = entry.suspicion.reason
    elif override is not None and override.applies_to(entry.instance):
        reason = reason_of_override(override)
    payload = "" if entry.instance.payload is None else payload_of(entry.instance)
    return State(
        state_of(entry),
        session_name(entry.owner),
        _cut(place(entry.instance), LONGEST_PAYLOAD),
        _cut(payload, LONGEST_PAYLOAD),
        _cut(reason, _LONGEST_REASON),
        min(max(entry.czxid, 0), _INT64),
    )


def reason_of_override(override: Override) -> str:
    """Return what an operator said of an instance, why and who."""
    weight = "" if override.weight is None else f"weight {override.weight:g}: "
    return f"{weight}{override.reason} (by {override.by})"


def invalid_state(node: Invalid) -> State:
    """Return the state of a node that shows no instance."""
    reason = _cut(node.reason, _LONGEST_REASON)
    return State("invalid", session_name(node.owner), "-", "", reason, min(max(node.czxid, 0), _INT64))


def of_snapshot(snapshot: Snapshot[Any]) -> dict[str, State]:
    """Return the state of each instance and of each other node, by id."""
    overrides = snapshot.overrides
    states = {id: of_entry(entry, overrides.get(id)) for id, entry in snapshot.entries.items()}
    return states | {id: invalid_state(node) for id, node in snapshot.invalid.items() if id not in states}


def marks(before: State | None, after: State | None) -> Iterator[Mark]:
    """Yield the events of an instance between two moments; None means that it was not there."""
    if before == after:
        return
    if before is None:
        assert after is not None
        yield Mark("joined", _arrival(after)) if after.state != "invalid" else Mark("invalid", after.reason)
    elif after is None:
        yield Mark("left", before.state if before.state != "invalid" else "the node that cannot be read")
    else:
        yield from _differences(before, after)


def _arrival(state: State) -> str:
    doubt = f", {state.state}" if state.state != "enabled" else ""
    return f"{state.place}, session {state.owner}{doubt}"


def _differences(before: State, after: State) -> Iterator[Mark]:
    if before.owner != after.owner or (before.czxid != after.czxid and "invalid" not in (before.state, after.state)):
        yield Mark("owner", f"session {before.owner} → {after.owner}")
    if before.state != after.state:
        yield from _moves(before, after)
    elif before.reason != after.reason and after.state not in ("suspect", "invalid"):
        yield Mark("override", after.reason) if after.reason else Mark("override-over", f"is {after.state}")
    if before.place != after.place and "-" not in (before.place, after.place):
        yield Mark("changed", f"{before.place} → {after.place}")
    if before.payload != after.payload and "invalid" not in (before.state, after.state):
        yield Mark("changed", "payload")


def _moves(before: State, after: State) -> Iterator[Mark]:
    match before.state, after.state:
        case _, "suspect":
            yield Mark("held", after.reason)
        case _, "invalid":
            yield Mark("invalid", after.reason)
        case "suspect", now:
            yield Mark("released", f"is {now}")
        # An owner publishes the maintenance in its document, before or after the console reads the override.
        case _, "maintenance" if after.reason:
            yield Mark("override", after.reason)
        case "maintenance", now if before.reason:
            yield Mark("override-over", f"is {now}")
        case then, now:
            yield Mark("state", f"{then} → {now}")


def _cut(text: str, longest: int) -> str:
    """Return *text* as it can be recorded: not too long, and without halves of characters, which UTF-8 cannot write."""
    whole = _HALVES.sub("\ufffd", text)
    return whole if len(whole) <= longest else f"{whole[:longest]}…"
