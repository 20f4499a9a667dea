"""`aioregistry top`: all services at a glance in a terminal, live; the extra `top`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import aioregistry
from aioregistry import Registry, RegistryError, SessionState, UsageError, View

from .._extras import needs
from .._words import printable
from .options import connection
from .overview import INSTANCE_HEAD, SERVICE_HEAD, instance_rows, service_row
from .process import DONE

try:
    from textual.app import App, ComposeResult
    from textual.binding import BindingType
    from textual.containers import Vertical
    from textual.widgets import DataTable, Footer, Static
except ModuleNotFoundError as missing:
    raise RegistryError(needs("aioregistry top", "textual", "top")) from missing

__all__ = ["Top", "top"]

_REDRAWN_EVERY = 1.0  # second: no age on the screen is wrong by more
_SERVICES_FOLLOWED = 1000
"""A view each; of more services the first by name are followed, and the head says so."""


async def top(arguments: argparse.Namespace) -> int:
    """Show the services, and one service's instances, until q or a signal; raises UsageError without a terminal."""
    # textual reads the one and draws on another: without a terminal it would draw into a file, and read for ever.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("top needs a terminal; `aioregistry list --watch` writes into a pipe or a file too")
    async with aioregistry.connect(**connection(arguments), wait=False) as registry:
        screen = Top(registry, arguments.name)
        await screen.run_async()
    if screen.failure is not None:
        raise screen.failure
    return DONE


class Top(App[None]):
    """The screen: a head with the session, a table of services, and below it the instances of the chosen one.

    Args:
        registry: entered; need not be connected.
        name: of a service to show alone; all unless given.

    Attributes:
        failure: why nothing can be followed any more, which ends the screen; None where the user ended it.
    """

    CSS = """
    #head { height: 1; background: $panel; }
    #services { height: 1fr; }
    #instances { height: 2fr; border-top: solid $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "Quit"), ("tab", "focus_next", "Other table")]
    ENABLE_COMMAND_PALETTE = False
    TITLE = "aioregistry"

    def __init__(self, registry: Registry, name: str | None = None) -> None:
        super().__init__()
        self._source = registry
        self._only = name
        self._views: dict[str, View[Any]] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._changed: set[str] = set()
        self._rows: dict[str, tuple[str, ...]] = {}
        self._refused: dict[str, str] = {}
        """Services that cannot be followed, and why; the latest answer of each."""
        self._beyond = 0
        self._laid_out = False
        self._chosen: str | None = name
        self._shown: dict[str, dict[str, tuple[str, ...]]] = {}
        self.failure: RegistryError | None = None

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="head", markup=False)
        with Vertical():
            services: DataTable[str] = DataTable(id="services", cursor_type="row", zebra_stripes=True)
            instances: DataTable[str] = DataTable(id="instances", cursor_type="row", zebra_stripes=True)
            yield services
            yield instances
        yield Footer()

    async def on_mount(self) -> None:
        """Begin to follow."""
        self._table("services").add_columns(*SERVICE_HEAD)
        self._table("instances").add_columns(*INSTANCE_HEAD)
        self._laid_out = True
        if self._only is not None:
            self._follow([self._only])
        else:
            self.run_worker(self._follow_names())
        self.set_interval(_REDRAWN_EVERY / 4, self._draw)
        self._draw()

    async def on_unmount(self) -> None:
        """Let go of every view."""
        tasks = [*self._following.values(), *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the instances of the service under the cursor."""
        if event.data_table.id == "services" and event.row_key.value is not None:
            self._chosen = event.row_key.value
            self._draw_instances()

    # ------------------------------------------------------------------ following

    async def _follow_names(self) -> None:
        try:
            async with self._source.watch_services() as names:
                async for present in names:
                    self._beyond = max(len(present) - _SERVICES_FOLLOWED, 0)
                    self._follow(present[:_SERVICES_FOLLOWED])
        except RegistryError as error:
            self._end_with(error)

    def _follow(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._following:
                self._following[name] = asyncio.create_task(self._follow_one(name))
        for name in set(self._following) - set(names):
            task = self._following.pop(name)
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()

    async def _follow_one(self, name: str) -> None:
        view: View[Any] | None = None
        try:
            async with self._source.discover(name) as view, view.snapshots() as snapshots:
                self._views[name] = view
                self._refused.pop(name, None)
                async for _ in snapshots:
                    self._changed.add(name)
                    await asyncio.sleep(_REDRAWN_EVERY / 4)  # so a busy service costs no more than an idle one
        except RegistryError as error:
            if self._only is not None or self._source.session.state is SessionState.FAILED:
                self._end_with(error)
            else:
                self._refused[name] = printable(str(error))
        finally:
            if self._views.get(name) is view:  # and not that of one who came again meanwhile
                self._views.pop(name, None)
                self._rows.pop(name, None)

    def _end_with(self, error: RegistryError) -> None:
        self.failure = error
        self.exit()

    # ------------------------------------------------------------------ drawing

    def _draw(self) -> None:
        if not self._laid_out:
            return
        session = self._source.session
        beyond = f"; {self._beyond} more services are not followed" if self._beyond else ""
        where = f" {session.server}" if session.server is not None else ""
        refused = "".join(f"; {printable(name)}: {why}" for name, why in sorted(self._refused.items()))
        head = f"{session.state.value}{where}: {len(self._views)} services{beyond}{refused}"
        self.query_one("#head", Static).update(head)
        now = time.time()
        for name, view in self._views.items():
            if name in self._changed or not view.fresh:
                self._rows[name] = tuple(map(str, service_row(name, view.snapshot, now)))
        self._changed.clear()
        self._show("services", dict(sorted(self._rows.items())))
        self._draw_instances()

    def _draw_instances(self) -> None:
        view = self._views.get(self._chosen or "")
        rows = [] if view is None else [*instance_rows(view.snapshot, time.time())]
        self._show("instances", {f"{row.state == 'invalid'}{row.id}": row for row in rows})

    def _show(self, id: str, rows: dict[str, tuple[str, ...]]) -> None:
        if self._shown.get(id) != rows:
            self._shown[id] = rows
            _show(self._table(id), rows)

    def _table(self, id: str) -> DataTable[str]:
        return self.query_one(f"#{id}", DataTable)


def _show(table: DataTable[str], rows: dict[str, tuple[str, ...]]) -> None:
    """Give *table* these rows by key; unchanged rows stay as they are, and so does the cursor."""
    if [key.value for key in table.rows] != [*rows]:
        at = table.cursor_row
        table.clear()
        for key, cells in rows.items():
            table.add_row(*map(_plain, cells), key=key)
        table.move_cursor(row=min(at, len(rows) - 1) if rows else 0)
        return
    for number, cells in enumerate(rows.values()):
        for column, cell in enumerate(cells):
            if str(table.get_cell_at((number, column))) != cell:  # type: ignore[arg-type] # a Coordinate is a pair
                table.update_cell_at((number, column), _plain(cell))  # type: ignore[arg-type]


def _plain(cell: str) -> Any:
    """Return *cell* as text in which brackets are not markup: every client may name a service."""
    from rich.text import Text

    return Text(cell)
