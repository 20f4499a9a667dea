"""`aioregistry drain`, `enable` and `maintenance`: what operators say of instances that are not theirs."""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import Final, TypeVar

from aioregistry import InvalidArgument, Override
from aioregistry._overrides import LONGEST, LONGEST_TEXT
from aioregistry._paths import check_name, check_segment

from .._words import printable, to_json
from .answers import columns, in_time, moment, printed, require_service
from .outages import connected
from .output import Output
from .process import DONE

__all__ = ["drain", "enable", "maintenance"]

T = TypeVar("T")

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EVER: Final = "ever"


def _seconds(text: str) -> float | None:
    """Return how long ``--for`` says, None for ever.

    Raises:
        InvalidArgument: it says nothing of the kind.
    """
    if text == _EVER:
        return None
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    plain = number.isascii() and number.replace(".", "", 1).isdigit()
    seconds = float(number) * _UNITS[unit] if plain else 0.0
    if not 0 < seconds <= LONGEST:
        why = f"is not a duration up to {LONGEST / 86_400:.0f} days: give 90, 90s, 15m, 1h or 2d, or {_EVER}"
        raise InvalidArgument("for", text, why)
    return seconds


def _weight(text: str) -> float:
    """Return the weight that ``--weight`` gives.

    Raises:
        InvalidArgument: it is not a number from 0 to 1.
    """
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 1:
        raise InvalidArgument("weight", text, "give a number from 0 to 1: the part of its share of calls")
    return weight


def _what(override: Override) -> str:
    return f"gets {override.weight:g} of its share" if override.enabled is None else "is in maintenance"


async def drain(arguments: argparse.Namespace) -> int:
    """Take an instance into maintenance, or give it fewer calls, and print until when."""
    seconds = _seconds(arguments.duration)
    check_name("name", arguments.name)
    check_segment("id", arguments.id)
    weight = None if arguments.weight is None else _weight(arguments.weight)
    if not arguments.reason.strip() or len(arguments.reason) > LONGEST_TEXT:
        why = f"say why, in {LONGEST_TEXT} characters at most: other operators read it"
        raise InvalidArgument("reason", arguments.reason, why)
    async with Output(sys.stderr, lambda: None) as errors, connected(arguments, errors) as registry:
        setting = registry.overrides.drain(
            arguments.name,
            arguments.id,
            reason=arguments.reason,
            weight=weight,
            seconds=seconds,
            any_incarnation=arguments.any_incarnation,
        )
        override = await in_time(setting, registry, arguments)
    until = "for ever" if override.until is None else f"until {_moment(override.until)}"
    print(printable(f"{arguments.name}/{arguments.id} {_what(override)} {until}: {override.reason}"))
    return DONE


async def enable(arguments: argparse.Namespace) -> int:
    """End the override of an instance."""
    check_name("name", arguments.name)
    check_segment("id", arguments.id)
    async with Output(sys.stderr, lambda: None) as errors, connected(arguments, errors) as registry:
        await in_time(registry.overrides.enable(arguments.name, arguments.id), registry, arguments)
    print(printable(f"{arguments.name}/{arguments.id} is no longer overridden"))
    return DONE


async def maintenance(arguments: argparse.Namespace) -> int:
    """Print the instances in maintenance, by whom, why and until when."""
    if arguments.name is not None:
        check_name("name", arguments.name)
    async with Output(sys.stderr, lambda: None) as errors, connected(arguments, errors) as registry:
        overrides = await in_time(registry.overrides.list(arguments.name), registry, arguments)
        if arguments.name is not None and not overrides:
            await in_time(require_service(registry, arguments), registry, arguments)
    if arguments.json:
        text = to_json([_fields(override) for override in overrides], indent=2) + "\n"
    else:
        rows = [("SERVICE", "ID", "WEIGHT", "UNTIL", "BY", "REASON"), *map(_row, overrides)]
        text = "".join(f"{line}\n" for line in columns(rows))
    printed(text)
    return DONE


def _row(override: Override) -> tuple[str, ...]:
    if override.until is None:
        until = "for ever"
    else:
        until = _moment(override.until) + (" (over)" if override.until <= time.time() else "")
    weight = "-" if override.enabled is False or override.weight is None else f"{override.weight:g}"
    return tuple(map(printable, (override.service, override.id, weight, until, override.by, override.reason)))


def _fields(override: Override) -> dict[str, object]:
    return {
        "service": override.service,
        "id": override.id,
        "enabled": override.enabled,
        "weight": override.weight,
        "reason": override.reason,
        "by": override.by,
        "since": _moment(override.since),
        "until": None if override.until is None else _moment(override.until),
        "registration_time_ms": override.registration_time_ms,
    }


def _moment(seconds: float) -> str:
    return moment(seconds, "seconds") or "?"
