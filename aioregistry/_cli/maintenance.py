"""`aioregistry drain`, `enable` and `maintenance`: what operators say of instances that are not theirs."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Final, TypeVar

from aioregistry import InvalidArgument, Override, RequestTimeout
from aioregistry._overrides import LONGEST
from aioregistry._paths import check_name, check_segment

from .._words import printable, to_json
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
        why = f"is no duration up to {LONGEST / 86_400:.0f} days: give 90, 90s, 15m, 1h or 2d, or {_EVER}"
        raise InvalidArgument("for", text, why)
    return seconds


async def drain(arguments: argparse.Namespace) -> int:
    """Take an instance into maintenance, and print until when."""
    seconds = _seconds(arguments.duration)
    check_name("name", arguments.name)
    check_segment("id", arguments.id)
    if not arguments.reason.strip():
        raise InvalidArgument("reason", arguments.reason, "say why, for whoever wonders")
    async with Output(sys.stderr, lambda: None) as errors, connected(arguments, errors) as registry:
        setting = registry.overrides.drain(
            arguments.name,
            arguments.id,
            reason=arguments.reason,
            seconds=seconds,
            any_incarnation=arguments.any_incarnation,
        )
        override = await _in_time(setting, arguments)
    until = "for ever" if override.until is None else f"until {_moment(override.until)}"
    print(printable(f"{arguments.name}/{arguments.id} is in maintenance {until}: {override.reason}"))
    return DONE


async def enable(arguments: argparse.Namespace) -> int:
    """End the maintenance of an instance."""
    check_name("name", arguments.name)
    check_segment("id", arguments.id)
    async with Output(sys.stderr, lambda: None) as errors, connected(arguments, errors) as registry:
        await _in_time(registry.overrides.enable(arguments.name, arguments.id), arguments)
    print(printable(f"{arguments.name}/{arguments.id} is in maintenance no more"))
    return DONE


async def maintenance(arguments: argparse.Namespace) -> int:
    """Print what is in maintenance, by whom, why and until when."""
    if arguments.name is not None:
        check_name("name", arguments.name)
    async with Output(sys.stderr, lambda: None) as errors, connected(arguments, errors) as registry:
        overrides = await _in_time(registry.overrides.list(arguments.name), arguments)
    if arguments.json:
        text = to_json([_fields(override) for override in overrides], indent=2) + "\n"
    else:
        rows = [("SERVICE", "ID", "UNTIL", "BY", "REASON"), *map(_row, overrides)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        text = "".join(f"{line.rstrip()}\n" for line in lines)
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "backslashreplace"))
    sys.stdout.flush()
    return DONE


async def _in_time(answer: Awaitable[T], arguments: argparse.Namespace) -> T:
    try:
        async with asyncio.timeout(arguments.session_timeout):
            return await answer
    except TimeoutError:
        raise RequestTimeout(f"no answer within --session-timeout {arguments.session_timeout:g} s") from None


def _row(override: Override) -> tuple[str, ...]:
    if override.until is None:
        until = "for ever"
    else:
        until = _moment(override.until) + (" (over)" if override.until <= time.time() else "")
    return tuple(map(printable, (override.service, override.id, until, override.by, override.reason)))


def _fields(override: Override) -> dict[str, object]:
    return {
        "service": override.service,
        "id": override.id,
        "enabled": override.enabled,
        "reason": override.reason,
        "by": override.by,
        "since": _moment(override.since),
        "until": None if override.until is None else _moment(override.until),
        "registration_time_ms": override.registration_time_ms,
    }


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "?"
