"""`aioregistry list`: the services, or one service's instances."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from aioregistry import Entry, Invalid, Registry, RegistryError, RequestTimeout, Snapshot
from aioregistry._errors import session_name
from aioregistry._paths import check_name

from .outages import connected
from .output import Output
from .process import DONE
from .text import document, payload_of, place, printable, to_json


async def list_(arguments: argparse.Namespace) -> int:
    """Print what is there now and end."""
    if arguments.name is not None:
        check_name("name", arguments.name)  # before anything is waited for
    async with Output(sys.stderr, lambda: None) as errors, connected(arguments, errors) as registry:
        try:
            async with asyncio.timeout(arguments.session_timeout):
                text = await _text(registry, arguments)
        except TimeoutError:
            raise RequestTimeout(f"no answer within --session-timeout {arguments.session_timeout:g} s") from None
    # Only now: a pager that stands still holds up nothing any more.
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "backslashreplace"))
    sys.stdout.flush()
    return DONE


async def _text(registry: Registry, arguments: argparse.Namespace) -> str:
    if arguments.name is None:
        return await _services(registry, arguments.json)
    return await _instances(registry, arguments.base_path, arguments.name, arguments.json)


async def _services(registry: Registry, as_json: bool) -> str:
    names = await registry.services()
    return _array({"name": name} for name in names) if as_json else "".join(f"{printable(name)}\n" for name in names)


async def _instances(registry: Registry, base_path: str, name: str, as_json: bool) -> str:
    async with registry.discover(name, guard=None) as view:
        snapshot = view.snapshot
    if not snapshot and not snapshot.invalid:
        path = f"{base_path.rstrip('/')}/{name.strip('/')}"
        if not await registry.client.exists(path):
            raise RegistryError(
                f"there is no service {name!r} below {base_path}: aioregistry list shows those there are"
            )
    return _array(_objects(snapshot)) if as_json else _table(_rows(snapshot))


def _array(objects: Iterable[dict[str, Any]]) -> str:
    return to_json(list(objects), indent=2) + "\n"


def _objects(snapshot: Snapshot[Any]) -> Iterator[dict[str, Any]]:
    for id in snapshot:
        entry = snapshot.entries[id]
        owner, created = session_name(entry.owner), _moment(entry.created)
        yield {**document(entry.instance), "owner": owner, "created": created, "invalid": None}
    for invalid in snapshot.invalid.values():
        yield {"id": invalid.id, "owner": session_name(invalid.owner), "created": None, "invalid": invalid.reason}


def _rows(snapshot: Snapshot[Any]) -> Iterator[tuple[str, ...]]:
    yield "ID", "ADDRESS", "OWNER", "AGE", "STATE", "PAYLOAD"
    for id in snapshot:
        yield _row(snapshot.entries[id])
    for invalid in snapshot.invalid.values():
        yield _invalid_row(invalid)


def _row(entry: Entry[Any]) -> tuple[str, ...]:
    instance = entry.instance
    state = "listed" if instance.enabled else "draining"
    age = "?" if _moment(entry.created) is None else _age(time.time() - entry.created)
    return instance.id, place(instance), session_name(entry.owner), age, state, payload_of(instance)


def _invalid_row(invalid: Invalid) -> tuple[str, ...]:
    return invalid.id, "-", session_name(invalid.owner), "-", "invalid", invalid.reason


def _moment(seconds: float) -> str | None:
    """Return a time as text; None where it is none that a calendar has: it is whatever the server says."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


def _age(seconds: float) -> str:
    """Return *seconds* in the largest two units that say something."""
    total = max(0, int(seconds))  # a server's clock may be ahead of ours
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in units:
        count, total = divmod(total, size)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    cells = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "".join(f"{line}\n" for line in lines)
