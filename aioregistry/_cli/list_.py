"""`aioregistry list`: the services, or one service's instances."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from aioregistry import Entry, Invalid, InvalidArgument, Registry, Snapshot, Stream
from aioregistry._errors import session_name
from aioregistry._paths import check_name

from .._words import document, payload_of, place, printable, to_json, why_unavailable
from .answers import columns, in_time, moment, printed, require_service
from .outages import connected
from .output import Output
from .process import DONE, cancel_this_task
from .selection import Condition, condition, selected

T = TypeVar("T")

HEAD: Final = ("ID", "ADDRESS", "OWNER", "AGE", "STATE", "PAYLOAD")
CLEAR: Final = "\x1b[H\x1b[2J"  # cursor to the top left, and everything erased (ECMA-48)
REDRAWN_EVERY: Final = 1.0  # second: no age on a terminal is wrong by more


class Wanted(NamedTuple):
    """The instances and columns to show.

    Args:
        conditions: that must hold for an instance.
        sort: by what; None for the order of the ids.
        reverse: whether the order is turned around.
        as_json: whether as JSON.
        in_lines: whether as one line, for a reader of many states.
    """

    conditions: Sequence[Condition]
    sort: str | None
    reverse: bool
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
    return Wanted(conditions, arguments.sort, arguments.reverse, arguments.json, arguments.watch)


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
    listed = sorted(names, reverse=wanted.reverse)
    if wanted.as_json:
        return _array([{"name": name} for name in listed], wanted)
    return "".join(f"{printable(name)}\n" for name in listed)


def _shown(snapshot: Snapshot[Any], wanted: Wanted) -> str:
    rows = selected(_rows(snapshot), wanted.conditions, wanted.sort, reverse=wanted.reverse)
    if wanted.as_json:
        return _array([row.fields for row in rows], wanted)
    return _table([HEAD, *(row.cells for row in rows)])


def _array(objects: Sequence[Mapping[str, Any]], wanted: Wanted) -> str:
    return to_json([*objects], indent=None if wanted.in_lines else 2) + "\n"


class Row(NamedTuple):
    """An instance, or a node that is not an instance.

    Args:
        fields: those of its JSON.
        state: the text of the column.
        cells: of the table.
    """

    fields: Mapping[str, Any]
    state: str
    cells: tuple[str, ...]

    def get(self, column: str) -> Any:
        """Return the value of a column, for conditions and for the order."""
        return self.state if column == "state" else self.fields.get(column)


def _rows(snapshot: Snapshot[Any]) -> Iterator[Row]:
    for id in snapshot:
        yield _row(snapshot.entries[id])
    for invalid in snapshot.invalid.values():
        yield _invalid_row(invalid)


def _row(entry: Entry[Any]) -> Row:
    instance, owner, created = entry.instance, session_name(entry.owner), moment(entry.created, "milliseconds")
    state = why_unavailable(instance) or "listed"
    age = "?" if created is None else _age(time.time() - entry.created)
    fields = {**document(instance), "owner": owner, "created": created, "invalid": None}
    shown = state
    if entry.weight < 1 and instance.enabled:
        fields["override_weight"] = entry.weight
        shown = f"{state}, weight {entry.weight:g}"
    return Row(fields, state, (instance.id, place(instance), owner, age, shown, payload_of(instance)))


def _invalid_row(invalid: Invalid) -> Row:
    owner = session_name(invalid.owner)
    fields = {"id": invalid.id, "owner": owner, "created": None, "invalid": invalid.reason}
    return Row(fields, "invalid", (invalid.id, "-", owner, "-", "invalid", invalid.reason))


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
