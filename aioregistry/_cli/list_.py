"""`aioregistry list`: the services, or one service's instances."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import aioregistry
from aioregistry import Entry, Invalid, Registry, RequestTimeout, Snapshot
from aioregistry._errors import session_name

from .process import DONE
from .text import document, place, printable


async def list_(arguments: argparse.Namespace) -> int:
    """Print what is there now and end."""
    async with aioregistry.connect(
        arguments.zookeeper, session_timeout=arguments.session_timeout, base_path=arguments.base_path
    ) as registry:
        try:
            async with asyncio.timeout(arguments.session_timeout):
                text = await _text(registry, arguments.name, arguments.json)
        except TimeoutError:
            raise RequestTimeout(f"no answer within --session-timeout {arguments.session_timeout:g} s") from None
    # Only now: a pager that stands still holds up nothing any more.
    sys.stdout.write(text)
    sys.stdout.flush()
    return DONE


async def _text(registry: Registry, name: str | None, as_json: bool) -> str:
    return await (_services(registry, as_json) if name is None else _instances(registry, name, as_json))


async def _services(registry: Registry, as_json: bool) -> str:
    names = await registry.services()
    return _array({"name": name} for name in names) if as_json else "".join(f"{name}\n" for name in names)


async def _instances(registry: Registry, name: str, as_json: bool) -> str:
    async with registry.discover(name, guard=None) as view:
        snapshot = view.snapshot
    return _array(_objects(snapshot)) if as_json else _table(_rows(snapshot))


def _array(objects: Iterable[dict[str, Any]]) -> str:
    return json.dumps(list(objects), indent=2) + "\n"


def _objects(snapshot: Snapshot[Any]) -> Iterator[dict[str, Any]]:
    for id in snapshot:
        entry = snapshot.entries[id]
        created = datetime.fromtimestamp(entry.created, UTC).isoformat(timespec="milliseconds")
        yield {**document(entry.instance), "owner": session_name(entry.owner), "created": created, "invalid": None}
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
    payload = json.dumps(document(instance)["payload"], ensure_ascii=False)
    return instance.id, place(instance), session_name(entry.owner), _age(time.time() - entry.created), state, payload


def _invalid_row(invalid: Invalid) -> tuple[str, ...]:
    return invalid.id, "-", session_name(invalid.owner), "-", "invalid", invalid.reason


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
