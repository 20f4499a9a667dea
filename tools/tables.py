"""Writes the tables of the documentation that come from code, or from a recorded run: `python -m tools.tables`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from aioregistry.events import EVENTS
from benchmarks import picking
from benchmarks.report import RESULTS

__all__ = ["TABLES", "filled", "main"]

ROOT: Final = Path(__file__).parents[1]


def events() -> str:
    """Return the table of events: name, class, fields, and when it comes."""
    rows = ["| event | fields | when | class |", "| --- | --- | --- | --- |"]
    for name, kind in EVENTS.items():
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind))
        when = " ".join((inspect.getdoc(kind) or "").split()).replace("``", "`")
        rows.append(f"| `{name}` | {fields} | {when} | `{kind.__name__}` |")
    return "\n".join(rows)


def costs() -> str:
    """Return the costs of the strategies, as `python -m benchmarks.picking` measured them last."""
    return picking.table(json.loads((RESULTS / "picking.json").read_text(encoding="utf-8")))


TABLES: Final[Mapping[str, tuple[str, Callable[[], str]]]] = {
    "events": ("docs/reference/events.md", events),
    "costs": ("docs/balancing.md", costs),
}
"""The page and the maker of each table, by the name between its marks."""


def filled(name: str, page: str) -> str:
    """Return the text of a *page* with the table of this *name* as it is today.

    Raises:
        ValueError: the page does not have its two marks, once.
    """
    marks = re.compile(rf"(<!-- {name}: generated -->\n\n).*?(<!-- {name}: end -->)", re.DOTALL)
    _, make = TABLES[name]
    text, places = marks.subn(lambda found: f"{found[1]}{make()}\n\n{found[2]}", page)
    if places != 1:
        raise ValueError(f"{places} places for the table {name}: a page has one")
    return text


def main() -> int:
    """Write every table; return 0."""
    for name, (place, _) in TABLES.items():
        path = ROOT / place
        path.write_text(filled(name, path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
