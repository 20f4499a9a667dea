"""`aioregistry top`: all services at a glance in a terminal, live; the extra `top`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from typing import Any, ClassVar

import aioregistry
from aioregistry import Registry, RegistryError, View

from .options import connection
from .overview import INSTANCE_HEAD, SERVICE_HEAD, instance_rows, service_row
from .process import DONE

try:
    from textual.app import App, ComposeResult
    from textual.binding import BindingType
    from textual.containers import Vertical
    from textual.widgets import DataTable, Footer, Static
except ModuleNotFoundError as missing:
    raise RegistryError("top needs textual: pip install 'aioregistry-zookeeper[top]'") from missing

__all__ = ["Top", "top"]

_REDRAWN_EVERY = 1.0  # second: no age on the screen is wrong by more
_SERVICES_FOLLOWED = 1000
"""A view each; of more services the first by name are followed, and the head says so."""


async def top(arguments: argparse.Namespace) -> int:
    """Show the services, and one service's instances, until q or a signal."""
    async with aioregistry.connect(**connection(arguments), wait=False) as registry:
        await Top(registry, arguments.name).run_async()
    return DONE


class Top(App[None]):
    """The screen: a head with the session, a table of services, and below it the instances of the chosen one.

    Args:
        registry: entered; need not be connected.
        name: of a service to show alone; all unless given.
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
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._changed: set[str] = set()
        self._rows: dict[str, tuple[str, ...]] = {}
        self._beyond = 0
        self._laid_out = False
        self._chosen: str | None = name
        self._stack = contextlib.AsyncExitStack()

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
            self.run_worker(self._follow_names(), exit_on_error=True)
        self.set_interval(_REDRAWN_EVERY / 4, self._draw)
        self._draw()

    async def on_unmount(self) -> None:
        """Let go of every view."""
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        await self._stack.aclose()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the instances of the service under the cursor."""
        if event.data_table.id == "services" and event.row_key.value is not None:
            self._chosen = event.row_key.value
            self._draw_instances()

    # ------------------------------------------------------------------ following

    async def _follow_names(self) -> None:
        async with self._source.watch_services() as names:
            async for present in names:
                self._beyond = max(len(present) - _SERVICES_FOLLOWED, 0)
                self._follow(present[:_SERVICES_FOLLOWED])

    def _follow(self, names: Any) -> None:
        for name in names:
            if name not in self._opening:
                self._opening[name] = asyncio.create_task(self._open(name))
        for name in set(self._opening) - set(names):
            self._opening.pop(name).cancel()
            self._rows.pop(name, None)
            if (view := self._views.pop(name, None)) is not None:
                self.run_worker(view.aclose())

    async def _open(self, name: str) -> None:
        view: View[Any] = await self._stack.enter_async_context(self._source.discover(name))
        self._views[name] = view
        async with view.snapshots() as snapshots:
            async for _ in snapshots:
                self._changed.add(name)
                await asyncio.sleep(_REDRAWN_EVERY / 4)  # so a busy service costs no more than an idle one

    # ------------------------------------------------------------------ drawing

    def _draw(self) -> None:
        if not self._laid_out:
            return
        session = self._source.session
        beyond = f"; {self._beyond} more services are not followed" if self._beyond else ""
        where = f" {session.server}" if session.server is not None else ""
        head = f"{session.state.value}{where}: {len(self._views)} services{beyond}"
        self.query_one("#head", Static).update(head)
        now = time.time()
        for name, view in self._views.items():
            if name in self._changed or not view.fresh:
                self._rows[name] = tuple(map(str, service_row(name, view.snapshot, now)))
        self._changed.clear()
        _show(self._table("services"), dict(sorted(self._rows.items())))
        self._draw_instances()

    def _draw_instances(self) -> None:
        view = self._views.get(self._chosen or "")
        rows = [] if view is None else [*instance_rows(view.snapshot, time.time())]
        _show(self._table("instances"), {f"{row.state == 'invalid'}{row.id}": row for row in rows})

    def _table(self, id: str) -> DataTable[str]:
        return self.query_one(f"#{id}", DataTable)


def _show(table: DataTable[str], rows: dict[str, tuple[str, ...]]) -> None:
    """Give *table* these rows by key; what has not changed stays as it is, and so does the cursor."""
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
    """Return *cell* as text in which brackets are no markup: anybody may name a service."""
    from rich.text import Text

    return Text(cell)
