"""`aioregistry watch`: the present instances, then a line per change."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from aioregistry import Added, Change, Entry, Guard, Invalid, Invalidated, Removed, Resynced, Snapshot, Updated
from aioregistry._paths import check_name

from .._words import described, document, printable, to_json
from .outages import connected
from .output import Output
from .process import DONE, cancel_this_task

KINDS: dict[type, str] = {Added: "added", Updated: "updated", Removed: "removed", Resynced: "resynced"}


async def watch(arguments: argparse.Namespace) -> int:
    """Print the present state of a service and every change, until cancelled or until the reader is gone."""
    check_name("name", arguments.name)  # before anything is waited for
    lines = _json_lines if arguments.json else _lines
    async with (
        Output(sys.stdout, cancel_this_task()) as output,
        Output(sys.stderr, lambda: None) as errors,
        connected(arguments, errors) as registry,
        registry.discover(arguments.name, guard=Guard() if arguments.guard else None) as view,
        view.changes(invalid=True) as changes,
    ):
        for line in lines(arguments.name, view.snapshot):
            await output.line(line)
        async for change in changes:
            for line in lines(arguments.name, change):
                await output.line(line)
    return DONE


def _json_lines(name: str, news: Snapshot[Any] | Change[Any] | Invalidated) -> Iterator[str]:
    match news:
        case Snapshot():
            yield _json("snapshot", news.as_of, instances=_documents(news))
            yield from (_json_invalid(name, invalid, news.as_of) for invalid in news.invalid.values())
        case Resynced():
            yield _json("resynced", news.zxid, instances=_documents(news.snapshot))
            yield from (_json_invalid(name, invalid, news.zxid) for invalid in news.snapshot.invalid.values())
        case Invalidated():
            yield _json_invalid(name, news.invalid, news.zxid)
        case Removed() if news.invalid is not None:
            return  # its node is there; why it shows no instance comes next
        case _:
            yield _json(KINDS[type(news)], news.zxid, instance=_document(news.entry))


def _json(kind: str, zxid: int, **rest: object) -> str:
    return to_json({"kind": kind, "zxid": zxid, **rest})


def _json_invalid(name: str, invalid: Invalid, zxid: int) -> str:
    return _json("invalid", zxid, instance={"name": name, "id": invalid.id}, reason=invalid.reason)


def _documents(snapshot: Snapshot[Any]) -> list[dict[str, Any]]:
    return [_document(snapshot.entries[id]) for id in snapshot]


def _document(entry: Entry[Any]) -> dict[str, Any]:
    fields = document(entry.instance)
    return fields if entry.suspicion is None else fields | {"suspect": True}


def _lines(name: str, news: Snapshot[Any] | Change[Any] | Invalidated) -> Iterator[str]:
    match news:
        case Snapshot():
            yield f"{printable(news.name)}: {len(news.confirmed)} listed"
            yield from (f"          {_described(news.entries[id])}" for id in news)
            yield from map(_invalid, news.invalid.values())
        case Resynced():
            changes = "with these changes:" if news.changes else "without a change"
            listed = f"{len(news.snapshot.confirmed)} listed"
            yield f"resynced  {listed}; caught up after a lost connection or a slow reader, {changes}"
            for change in news.changes:
                yield from _lines(name, change)
            yield from map(_invalid, news.snapshot.invalid.values())
        case Invalidated():
            yield _invalid(news.invalid)
        case Removed() if news.invalid is not None:
            return
        case _:
            yield f"{KINDS[type(news)]:8}  {_described(news.entry)}"


def _invalid(invalid: Invalid) -> str:
    return f"invalid   {printable(f'{invalid.id}  {invalid.reason}')}"


def _described(entry: Entry[Any]) -> str:
    doubt = "" if entry.suspicion is None else f"  suspect: {printable(entry.suspicion.reason)}"
    return f"{described(entry.instance)}{doubt}"
