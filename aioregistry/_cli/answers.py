"""The common part of commands that ask once, print an answer and end."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from aioregistry import Registry, RegistryError, RequestTimeout
from aioregistry._session import outage_attempts

__all__ = ["columns", "in_time", "moment", "printed", "require_service", "without_service"]

T = TypeVar("T")


async def in_time(answer: Awaitable[T], registry: Registry, arguments: argparse.Namespace) -> T:
    """Return *answer*; raises RequestTimeout that names the option where it takes longer than ``--session-timeout``."""
    try:
        async with asyncio.timeout(arguments.session_timeout):
            return await answer
    except TimeoutError:
        message = f"no answer within --session-timeout {arguments.session_timeout:g} s"
        raise RequestTimeout(message, outage_attempts(registry.session)) from None


async def require_service(registry: Registry, arguments: argparse.Namespace) -> None:
    """Raise RegistryError if there is no service of the NAME that was given."""
    if (missing := await without_service(registry, arguments)) is not None:
        raise RegistryError(missing)


async def without_service(registry: Registry, arguments: argparse.Namespace) -> str | None:
    """Return the sentence that there is no service of the NAME that was given; None if there is one."""
    name, base_path = arguments.name, arguments.base_path
    if await registry.client.exists(f"{base_path.rstrip('/')}/{name.strip('/')}"):
        return None
    return f"there is no service {name!r} below {base_path}: `aioregistry list` shows the services"


def printed(text: str) -> None:
    """Write *text* to standard output, also where its encoding lacks some characters."""
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "backslashreplace"))
    sys.stdout.flush()


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the rows as lines whose cells stand below one another."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def moment(seconds: float, timespec: str) -> str | None:
    """Return a time as text; None if no calendar has it: the server may say anything."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec)
    except (ValueError, OverflowError, OSError):
        return None
