"""Overrides: what operators say of instances that are not theirs, in nodes beside the services. Pure.

An override is the persistent node ``<services>-overrides/<name>/<id>``: an owner who registers again cannot undo it,
and its author needs no right to the instance's node. Its document is JSON::

    {"enabled": false, "weight": null, "reason": "new disk", "by": "ann@ops1", "seconds": 3600,
     "registrationTimeUTC": 1763680000000}

``enabled`` is never true: no instance is forced up. ``weight`` is the part of its share of calls that the instance
gets, from 0 to 1, for the same reason: to give one instance more, give the others less. ``seconds`` counts from the
node's last change, by the clock of the server that led then; null is for ever. ``registrationTimeUTC`` is that of the
incarnation that is meant; null is any.

Other writers are not trusted: an impossible field makes the document invalid, and numbers are bounded.

**Time.** A client cannot know the server's clock without writing. So an override that one sees being set lasts for its
``seconds`` by one's own clock that never steps back. One that was there before lasts no longer than that either, from
when it was seen. When it seems over by the wall clock, which may be ahead of the server's, the server is asked; until
it answers, the override stays in force.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ._arguments import is_number
from ._bounds import moment
from ._model import Override

__all__ = [
    "LONGEST",
    "LONGEST_TEXT",
    "Known",
    "ServiceOverrides",
    "UnfitOverride",
    "encoded",
    "overrides_root",
    "read_override",
]

LONGEST: Final = 10 * 365 * 86_400.0
"""Seconds that an override lasts at most, but for one that is for ever."""

ASK_AGAIN: Final = 60.0
"""Seconds until the server is asked again, at most, where an override has lasted its time, and it said otherwise."""

LONGEST_TEXT: Final = 1000
"""Characters of a reason, and of a name of an operator."""

_HUGE: Final = 1e308


class UnfitOverride(ValueError):
    """The document cannot be followed; says why."""


def overrides_root(services: str) -> str | None:
    """Return the parent of the overrides for the services below *services*; None where those are in the root.

    It stands beside the services, not among them, where Curator would list it as a service.
    """
    return f"{services}-overrides" if services not in ("", "/") else None


def encoded(
    *,
    enabled: bool | None,
    weight: float | None = None,
    reason: str,
    by: str,
    seconds: float | None,
    registration_time_ms: int | None,
) -> bytes:
    """Return the document of an override."""
    fields = {
        "enabled": enabled,
        "weight": weight,
        "reason": reason,
        "by": by,
        "seconds": seconds,
        "registrationTimeUTC": registration_time_ms,
    }
    return json.dumps(fields).encode()


def read_override(data: bytes, service: str, id: str, mtime_ms: int, version: int) -> Override:
    """Return what the node of an override says, changed last at *mtime_ms*.

    Raises:
        UnfitOverride: its document is not an override.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnfitOverride("it is not JSON") from error
    if not isinstance(document, dict):
        raise UnfitOverride("it is not a JSON object")
    enabled, seconds = document.get("enabled"), document.get("seconds")
    weight, incarnation = document.get("weight"), document.get("registrationTimeUTC")
    if enabled is not None and enabled is not False:
        raise UnfitOverride("enabled is neither false nor null: an override cannot enable an instance")
    if weight is not None and not _is_number(weight):
        raise UnfitOverride("weight is neither a number nor null")
    if seconds is not None and not _is_number(seconds):
        raise UnfitOverride("seconds is neither a number nor null")
    if incarnation is not None and not (_is_number(incarnation) and int(incarnation) == incarnation):
        raise UnfitOverride("registrationTimeUTC is neither a whole number nor null")
    since = moment(mtime_ms)
    return Override(
        service=service,
        id=id,
        enabled=enabled,
        weight=None if weight is None else float(min(max(weight, 0.0), 1.0)),
        reason=_text(document.get("reason")),
        by=_text(document.get("by")),
        since=since,
        until=None if seconds is None else since + min(max(seconds, 0.0), LONGEST),
        registration_time_ms=None if incarnation is None else int(incarnation),
        version=version,
    )


def _is_number(value: object) -> bool:
    # Not math.isfinite, which no whole number of 400 digits survives.
    return is_number(value) and -_HUGE < value < _HUGE


def _text(value: object) -> str:
    # JSON can have half a surrogate, which others cannot show.
    return "" if value is None else str(value)[:LONGEST_TEXT].encode("utf-8", "replace").decode()


class Known(NamedTuple):
    """An override, when it ends, and when the server is to be asked; by its reader's clock that never steps back."""

    override: Override
    ends: float
    asks: float


class ServiceOverrides:
    """The overrides of one service, as far as they are known, and which of them are in force."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def read(self, overrides: Iterable[Override], now: float, wall: float, *, seen_being_set: bool) -> None:
        """These are all there are; those that are new were *seen_being_set*, or had been there before."""
        before, self._known = self._known, {}
        for override in overrides:
            known = before.get(override.id)
            if known is not None and known.override == override:
                self._known[override.id] = known
            else:
                lasts = math.inf if override.until is None else override.until - override.since
                left = lasts if override.until is None or seen_being_set else override.until - wall
                self._known[override.id] = Known(override, now + lasts, now + min(max(left, 0.0), lasts))

    def learn(self, id: str, left: float, now: float) -> None:
        """By the server's clock, the override *id* has *left* seconds; fewer than 0 if it has ended."""
        known = self._known[id]
        ends = min(known.ends, now + max(left, 0.0))
        self._known[id] = known._replace(ends=ends, asks=ends if ends > now else now + min(max(left, 0.0), ASK_AGAIN))

    def in_force(self, now: float) -> Mapping[str, Override]:
        """Return those that have not ended, by id."""
        return {id: known.override for id, known in self._known.items() if known.ends > now}

    def over(self, now: float) -> list[Override]:
        """Return those that seem to have ended: the server is to say so."""
        return [known.override for known in self._known.values() if known.asks <= now]

    def next_end(self, now: float) -> float | None:
        """Return when the next one ends, or seems to; None if all last for ever."""
        ends = [end for known in self._known.values() for end in (known.ends, known.asks) if now < end < math.inf]
        return min(ends, default=None)
