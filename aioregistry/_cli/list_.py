"""`aioregistry list`: the services, or one service's instances."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from aioregistry import Invalid, InvalidArgument, Registry, Snapshot, Stream
from aioregistry._paths import check_name

from .._words import payload_of, place, printable, to_json
from .answers import columns, in_time, printed, require_service
from .outages import connected
from .output import Output
from .process import DONE, cancel_this_task
from .rows import Row, row_of
from .selection import Selection, condition

T = TypeVar("T")

HEAD: Final = ("ID", "ADDRESS", "OWNER", "AGE", "STATE", "PAYLOAD")
CLEAR: Final = "\x1b[H\x1b[2J"  # cursor to the top left, and everything erased (ECMA-48)
REDRAWN_EVERY: Final = 1.0  # second: no age on a terminal is wrong by more


class Wanted(NamedTuple):
    """The instances and columns to show.

    Args:
        selection: of the instances.
        as_json: whether as JSON.
        in_lines: whether as one line, for a reader of many states.
    """

    selection: Selection
    as_json: bool
    in_lines: bool


# ---------------------------------------------------------------- the command


async def list_(arguments: argparse.Namespace) -> int:
    """Print the list and end; with ``--watch`` print it again after each change, until cancelled."""
    wanted = _wanted(arguments)  # before anything is waited for
    async with Output(sys.stderr, lambda: None) as errors, connected(arguments, errors) as registry:
        if arguments.watch:
            await _watch(registry, arguments, wanted)
            return DONE
        text = await in_time(_text(registry, arguments, wanted), registry, arguments)
    # Only now: a pager that stands still holds up nothing any more.
    printed(text)
    return DONE


def _wanted(arguments: argparse.Namespace) -> Wanted:
    if arguments.name is not None:
        check_name("name", arguments.name)
    elif arguments.where:
        raise InvalidArgument("where", arguments.where[0], "selects instances: give the NAME of their service")
    elif arguments.sort not in (None, "name"):
        raise InvalidArgument("sort", arguments.sort, "works on instances: give the NAME of a service")
    conditions = [*map(condition, arguments.where)]
    selection = Selection(conditions, arguments.sort, arguments.reverse)
    return Wanted(selection, arguments.json, arguments.watch)


async def _text(registry: Registry, arguments: argparse.Namespace, wanted: Wanted) -> str:
    if arguments.name is None:
        return _shown_services(await registry.services(), wanted)
    async with registry.discover(arguments.name, guard=None) as view:
        snapshot = view.snapshot
    await _require(registry, arguments, snapshot)
    return _shown(snapshot, wanted)


async def _require(registry: Registry, arguments: argparse.Namespace, snapshot: Snapshot[Any]) -> None:
    """Raise RegistryError where there is no such service; one that is empty at the moment is there."""
    if not snapshot and not snapshot.invalid:
        await require_service(registry, arguments)


# ---------------------------------------------------------------- again and again


async def _watch(registry: Registry, arguments: argparse.Namespace, wanted: Wanted) -> None:
    async with Output(sys.stdout, cancel_this_task()) as output, contextlib.AsyncExitStack() as stack:
        if arguments.name is None:
            names = await stack.enter_async_context(registry.watch_services())
            await _follow(names, lambda news: _shown_services(news, wanted), output, wanted)
            return
        view = await in_time(
            stack.enter_async_context(registry.discover(arguments.name, guard=None)), registry, arguments
        )
        await in_time(_require(registry, arguments, view.snapshot), registry, arguments)
        snapshots = await stack.enter_async_context(view.snapshots())
        await _follow(snapshots, lambda news: _shown(news, wanted), output, wanted)


async def _follow(stream: Stream[T], shown: Callable[[T], str], output: Output, wanted: Wanted) -> None:
    """Show what the *stream* says, from its first word to its end, whenever that looks otherwise than before."""
    on_terminal = sys.stdout.isatty() and not wanted.as_json
    before, news = None, await anext(stream, None)
    while news is not None:
        text = shown(news).removesuffix("\n")
        if text != before:
            gap = "" if before is None or wanted.as_json else "\n"
            await output.line(f"{CLEAR if on_terminal else gap}{text}")
            before = text
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REDRAWN_EVERY if on_terminal else None):
                news = await anext(stream, None)


# ---------------------------------------------------------------- output


def _shown_services(names: Iterable[str], wanted: Wanted) -> str:
    listed = sorted(names, reverse=wanted.selection.reverse)
    if wanted.as_json:
        return _array([{"name": name} for name in listed], wanted)
    return "".join(f"{printable(name)}\n" for name in listed)


def _shown(snapshot: Snapshot[Any], wanted: Wanted) -> str:
    rows = wanted.selection.of(_rows(snapshot))
    if wanted.as_json:
        return _array([row.fields for row in rows], wanted)
    return _table([HEAD, *map(_cells, rows)])


def _array(objects: Sequence[Mapping[str, Any]], wanted: Wanted) -> str:
    return to_json([*objects], indent=None if wanted.in_lines else 2) + "\n"


def _rows(snapshot: Snapshot[Any]) -> list[Row]:
    return [row_of(snapshot.entries[id]) for id in snapshot] + [*map(row_of, snapshot.invalid.values())]


def _cells(row: Row) -> tuple[str, ...]:
    node, owner = row.node, row.fields["owner"]
    if isinstance(node, Invalid):
        return node.id, "-", owner, "-", row.state, node.reason
    age = "?" if row.fields["created"] is None else _age(time.time() - node.created)
    weight = f", weight {node.weight:g}" if "override_weight" in row.fields else ""
    return node.instance.id, place(node.instance), owner, age, f"{row.state}{weight}", payload_of(node.instance)


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
    return "".join(f"{line}\n" for line in columns(tuple(map(printable, row)) for row in rows))
