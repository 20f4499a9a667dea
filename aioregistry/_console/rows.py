"""The rows that browsers get for services and instances: short JSON, harmless to look at. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from aioregistry import Entry, Invalid, Override, Snapshot
from aioregistry._errors import session_name
from aioregistry._words import document, payload_of, place, printable, state_of

from .states import reason_of_override

__all__ = ["STATES", "InstanceRows", "JsonRow", "ages", "instance_detail", "invalid_detail", "service_row"]

STATES: Final = ("enabled", "failing", "draining", "maintenance", "suspect", "invalid")

JsonRow = list[Any]

_PREVIEW: Final = 120


def service_row(name: str, snapshot: Snapshot[Any] | None, refusal: str | None, new: Mapping[str, float]) -> JsonRow:
    """Return the row of a service.

    It has the name, the name as it is shown, the counts, since when it is stale, why it cannot be followed, how many
    instances are new, and since when the newest is.

    Args:
        name: of the service.
        snapshot: of it; None before it was read.
        refusal: why it cannot be followed; None where it can.
        new: since when instances are new, by id, seconds since the epoch.
    """
    shown = printable(name)
    if snapshot is None:
        return [name, shown, None, *[0] * len(STATES), None, None if refusal is None else printable(refusal), 0, None]
    states = Counter(state_of(entry) for entry in snapshot.entries.values())
    states["invalid"] = len(snapshot.invalid)
    counts = [states[state] for state in STATES]
    return [
        name,
        shown,
        len(snapshot.entries),
        *counts,
        snapshot.stale_since,
        None,
        len(new),
        max(new.values(), default=None),
    ]


def ages(row: JsonRow) -> bool:
    """Return whether the row of a service has new instances, so that time alone makes it another one."""
    return row[-1] is not None


class _Made(NamedTuple):
    """The row of an instance or of another node, and all that it shows."""

    shown: tuple[Entry[Any] | Invalid, Override | None, float | None]
    row: JsonRow

    def shows(self, node: Entry[Any] | Invalid, override: Override | None, new: float | None) -> bool:
        # A view makes another entry, and another override, for each change.
        return self.shown[0] is node and self.shown[1] is override and self.shown[2] == new


class InstanceRows:
    """The rows of a service's instances and of its other nodes: each is made once for all browsers that show it.

    A row has the id, the id as it is shown, address, state, owner, since when the node is there, why it is in this
    state, the beginning of its payload, since when it is new, the part of its share that an operator gives it, and a
    stamp, which is another one when the instance's page has something else to show.
    """

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}

    def fill(self, rows: dict[str, JsonRow], snapshot: Snapshot[Any], new: Mapping[str, float]) -> Iterator[None]:
        """Fill *rows* by id, instances first, in the order of ids; yields after each row that was not there yet.

        Args:
            rows: empty.
            snapshot: of the service.
            new: since when instances are new, by id, seconds since the epoch.
        """
        made: dict[str, _Made] = {}
        overrides = snapshot.overrides
        nodes: dict[str, Entry[Any] | Invalid] = {id: snapshot.entries[id] for id in snapshot}
        for id, invalid in sorted(snapshot.invalid.items()):
            nodes.setdefault(id, invalid)
        for id, node in nodes.items():
            known, override, since = self._made.get(id), overrides.get(id), new.get(id)
            if known is None or not known.shows(node, override, since):
                row = _invalid_row(id, node) if isinstance(node, Invalid) else _instance_row(id, node, override, since)
                known = _Made((node, override, since), row)
                yield
            made[id], rows[id] = known, known.row
        self._made = made


def _instance_row(id: str, entry: Entry[Any], override: Override | None, new: float | None) -> JsonRow:
    return [
        *(id, printable(id), printable(place(entry.instance)), state_of(entry), session_name(entry.owner)),
        *(entry.created, printable(_reason(entry, override)), _preview(entry), new, entry.weight),
        _stamp(entry, override),
    ]


def _stamp(entry: Entry[Any], override: Override | None) -> JsonRow:
    suspicion = entry.suspicion
    return [
        f"{entry.czxid:x} {entry.mzxid:x}",  # JavaScript has no 64 bits for a number
        *(() if override is None else (override.since, override.version)),
        *(() if suspicion is None else (suspicion.since, _finite(suspicion.until))),
    ]


def _invalid_row(id: str, node: Invalid) -> JsonRow:
    return [
        *(id, printable(id), "-", "invalid", session_name(node.owner), None, printable(node.reason), "", None, 1.0),
        [f"{node.czxid:x} {node.mzxid:x}"],
    ]


def instance_detail(entry: Entry[Any], override: Override | None, new: float | None) -> dict[str, Any]:
    """Return all that is known of an instance."""
    instance = entry.instance
    return {
        "id": instance.id,
        "shown": printable(instance.id),
        "place": printable(place(instance)),
        "state": state_of(entry),
        "reason": printable(_reason(entry, override)),
        "owner": session_name(entry.owner),
        "created": entry.created,
        "modified": entry.modified,
        "czxid": f"{entry.czxid:#x}",
        "mzxid": f"{entry.mzxid:#x}",
        "version": entry.version,
        "weight": entry.weight,
        "new": new,
        "suspicion": None
        if entry.suspicion is None
        else {"since": entry.suspicion.since, "until": _finite(entry.suspicion.until)},
        "override": None if override is None else _override(override, applies=override.applies_to(instance)),
        "document": _lines({key: value for key, value in document(instance).items() if key != "payload"}),
        "payload": None if instance.payload is None else _lines(json.loads(payload_of(instance))),
    }


def invalid_detail(node: Invalid) -> dict[str, Any]:
    """Return all that is known of a node that shows no instance."""
    return {
        "id": node.id,
        "shown": printable(node.id),
        "state": "invalid",
        "reason": printable(node.reason),
        "owner": session_name(node.owner),
        "czxid": f"{node.czxid:#x}",
        "mzxid": f"{node.mzxid:#x}",
    }


def _lines(value: Any) -> list[str]:
    return [printable(line) for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n")]


def _override(override: Override, *, applies: bool) -> dict[str, Any]:
    return {
        "reason": printable(override.reason),
        "by": printable(override.by),
        "since": override.since,
        "until": override.until,
        "applies": applies,
    }


def _reason(entry: Entry[Any], override: Override | None) -> str:
    if entry.suspicion is not None:
        return entry.suspicion.reason
    if override is not None and override.applies_to(entry.instance):
        return reason_of_override(override)
    return ""


def _preview(entry: Entry[Any]) -> str:
    if entry.instance.payload is None:
        return ""
    text = payload_of(entry.instance)
    return printable(text if len(text) <= _PREVIEW else f"{text[:_PREVIEW]}…")


def _finite(seconds: float) -> float | None:
    return seconds if abs(seconds) < 1e15 else None
