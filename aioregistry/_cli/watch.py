"""`aioregistry watch`: the present instances, then a line per change."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Final

from aioregistry import (
    Change,
    Entry,
    Guard,
    Invalid,
    Invalidated,
    Registry,
    RegistryError,
    Resynced,
    Snapshot,
)
from aioregistry._paths import check_name

from .._words import described, document, printable, to_json
from .answers import in_time, without_service
from .outages import connected
from .output import Output
from .process import DONE, cancel_this_task
from .selected_changes import Present, SelectedChanges, Told
from .selection import Selection, condition

_WIDTH: Final = len("unmatched") + 1


async def watch(arguments: argparse.Namespace) -> int:
    """Print the present state of a service and every change, until cancelled or until the reader is gone."""
    check_name("name", arguments.name)  # before anything is waited for
    selection = Selection([*map(condition, arguments.where)], arguments.sort, arguments.reverse)
    form = (_Json if arguments.json else _Text)(arguments.name, selection)
    async with (
        Output(sys.stdout, cancel_this_task()) as output,
        Output(sys.stderr, lambda: None) as errors,
        connected(arguments, errors) as registry,
        registry.discover(arguments.name, guard=Guard() if arguments.guard else None) as view,
        view.changes(invalid=True) as changes,
    ):
        for line in form.state(view.snapshot):
            await output.line(line)
        await _tell_of_no_service(registry, arguments, view.snapshot, errors)
        async for change in changes:
            for line in form.change(change):
                await output.line(line)
    return DONE


async def _tell_of_no_service(
    registry: Registry, arguments: argparse.Namespace, snapshot: Snapshot[Any], errors: Output
) -> None:
    """Say that a service is waited for: its name may be misspelt."""
    if snapshot or snapshot.invalid:
        return
    with contextlib.suppress(RegistryError, OSError):  # an outage is told of elsewhere; standard error may be gone
        missing = await in_time(without_service(registry, arguments), registry, arguments)
        if missing is not None:
            await errors.line(arguments.form.said(f"{missing}; waiting for it", logging.WARNING))


class _Form(ABC):
    """Makes the lines for the selected instances of the service *name*."""

    def __init__(self, name: str, selection: Selection) -> None:
        self._name = name
        self._is_part = bool(selection.conditions)
        self._selected = SelectedChanges(selection)

    def state(self, snapshot: Snapshot[Any]) -> Iterator[str]:
        """Give the lines for the present state."""
        yield from self._state(snapshot, self._selected.present(snapshot))

    def change(self, news: Change[Any] | Invalidated) -> Iterator[str]:
        """Give the lines for a change, if it concerns the selection."""
        if isinstance(news, Resynced):
            yield from self._resynced(news.snapshot, *self._selected.caught_up(news))
            return
        for told in self._selected.of(news):
            yield self._line(told)

    @abstractmethod
    def _state(self, snapshot: Snapshot[Any], present: Present) -> Iterator[str]:
        """Give the lines for the first state."""

    @abstractmethod
    def _resynced(self, snapshot: Snapshot[Any], changes: list[Told], present: Present) -> Iterator[str]:
        """Give the lines for a state after which changes may be missing."""

    @abstractmethod
    def _line(self, told: Told) -> str:
        """Return the line for a change."""


class _Json(_Form):
    def _state(self, snapshot: Snapshot[Any], present: Present) -> Iterator[str]:
        yield from self._states("snapshot", snapshot.as_of, present)

    def _resynced(self, snapshot: Snapshot[Any], changes: list[Told], present: Present) -> Iterator[str]:
        invalid = [told.node for told in changes if isinstance(told.node, Invalid)]
        yield from self._states("resynced", snapshot.as_of, present._replace(invalid=invalid + present.invalid))

    def _states(self, kind: str, zxid: int, present: Present) -> Iterator[str]:
        yield to_json({"kind": kind, "zxid": zxid, "instances": [*map(_document, present.entries)]})
        for invalid in present.invalid:
            yield self._line(Told("invalid", invalid, zxid))

    def _line(self, told: Told) -> str:
        node = told.node
        if isinstance(node, Invalid):
            rest = {"instance": {"name": self._name, "id": node.id}, "reason": node.reason}
        else:
            rest = {"instance": _document(node)}
        return to_json({"kind": told.kind, "zxid": told.zxid, **rest})


def _document(entry: Entry[Any]) -> dict[str, Any]:
    fields = document(entry.instance)
    return fields if entry.suspicion is None else fields | {"suspect": True}


class _Text(_Form):
    def _state(self, snapshot: Snapshot[Any], present: Present) -> Iterator[str]:
        yield f"{printable(snapshot.name)}: {self._counted(snapshot, present)}"
        yield from (f"{'':{_WIDTH}}{_described(entry)}" for entry in present.entries)
        yield from map(_invalid, present.invalid)

    def _resynced(self, snapshot: Snapshot[Any], changes: list[Told], present: Present) -> Iterator[str]:
        without = "without a change to those that match" if self._is_part else "without a change"
        yield (
            f"{'resynced':{_WIDTH}}{self._counted(snapshot, present)}; caught up after a lost connection or a slow "
            f"reader, {'with these changes:' if changes else without}"
        )
        for told in changes:
            yield self._line(told)
        yield from map(_invalid, present.invalid)

    def _counted(self, snapshot: Snapshot[Any], present: Present) -> str:
        listed = f"{len(snapshot.confirmed)} listed"
        if not self._is_part:
            return listed
        matching = sum(entry.suspicion is None for entry in present.entries)
        return f"{listed}, {matching} of them {'matches' if matching == 1 else 'match'}"

    def _line(self, told: Told) -> str:
        if isinstance(told.node, Invalid):
            return _invalid(told.node)
        still = "  (still listed)" if told.kind == "unmatched" and told.node.suspicion is None else ""
        return f"{told.kind:{_WIDTH}}{_described(told.node)}{still}"


def _invalid(invalid: Invalid) -> str:
    return f"{'invalid':{_WIDTH}}{printable(f'{invalid.id}  {invalid.reason}')}"


def _described(entry: Entry[Any]) -> str:
    doubt = "" if entry.suspicion is None else f"  suspect: {printable(entry.suspicion.reason)}"
    return f"{described(entry.instance)}{doubt}"
