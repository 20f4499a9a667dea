"""The map of the rooms: who imports whom, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from .svg import GREY, Picture

__all__ = ["draw", "imports", "layers", "reduced"]

PACKAGE: Final = Path(__file__).parents[2] / "aioregistry"
BOX, ROW, GAP = 26.0, 62.0, 12.0


def imports() -> dict[str, set[str]]:
    """Return the rooms, and for each those that it imports. A room is a file or a folder of the package."""
    found: dict[str, set[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("__init__", "__main__"):
            found.setdefault(room_of(parts), set()).update(named(file, len(parts)))
    return {room: others & (found.keys() - {room}) for room, others in found.items()}


def room_of(parts: tuple[str, ...]) -> str:
    return parts[0].removeprefix("_")


def named(file: Path, depth: int) -> Iterator[str]:
    """The rooms that a *file* names in its imports; *depth* is how many names its module has below the package."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level == depth:
                first = [node.module.split(".")[0]] if node.module else [each.name for each in node.names]
                yield from (room_of((name,)) for name in first)
            elif node.level == 0 and (node.module or "").startswith("aioregistry."):
                yield room_of(((node.module or "").split(".")[1],))


def layers(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Return how many rooms are below each, on the longest way down. Raises RecursionError where there is a circle."""

    @cache
    def height(room: str) -> int:
        return 1 + max((height(other) for other in graph[room]), default=-1)

    return {room: height(room) for room in graph}


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the *graph* without the edges that a longer way shows already."""

    @cache
    def reach(room: str) -> frozenset[str]:
        return frozenset(graph[room]).union(*(reach(other) for other in graph[room]))

    return {
        room: {one for one in others if not any(one in reach(other) for other in others)}
        for room, others in graph.items()
    }


def draw() -> str:
    """Return the map, what uses others above what it uses."""
    graph = imports()
    heights = layers(graph)
    rows: dict[int, list[str]] = {}
    for room in sorted(graph):
        rows.setdefault(heights[room], []).append(room)
    wide = {room: 9.0 * len(room) * 0.8 + 16 for room in graph}
    width = max(sum(wide[room] + GAP for room in row) for row in rows.values()) + 20
    top = max(rows)
    places: dict[str, tuple[float, float]] = {}
    for number, row in rows.items():
        x = (width - sum(wide[room] + GAP for room in row) + GAP) / 2
        for room in row:
            places[room] = (x + wide[room] / 2, 20 + (top - number) * ROW + BOX / 2)
            x += wide[room] + GAP
    picture = Picture(
        width, 40 + top * ROW + BOX, "The rooms of aioregistry; a line leads down to a room that is imported"
    )
    for room, others in sorted(reduced(graph).items()):
        for other in sorted(others):
            (x1, y1), (x2, y2) = places[room], places[other]
            picture.line(x1, y1 + BOX / 2, x2, y2 - BOX / 2, "#c3cad3")
    for room, (x, y) in places.items():
        picture.rect(x - wide[room] / 2, y - BOX / 2, wide[room], BOX, "#dbeafe", GREY)
        picture.text(x, y + 4.5, room, 12)
    return str(picture)
