"""Plots of what `python -m benchmarks` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .svg import GREY, Picture

__all__ = ["bars"]

COLOURS: Final = ("#4c78a8", "#b3b3b3", "#f2a65a", "#54a24b", "#c27ba0", "#8c6d4f")
LEFT, WIDTH, BAR = 300.0, 460.0, 13.0


def bars(title: str, unit: str, most: float, rows: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> str:
    """Return bars in groups: for each of *rows* one of each of *names*. A value of None means never.

    A value above *most* is cut there, and its number says how long it would be.
    """
    group = BAR * len(names) + 14
    legend = 44 + 18 * ((len(names) + 2) // 3)
    picture = Picture(LEFT + WIDTH + 90, legend + group * len(rows) + 20, title)
    picture.text(14, 24, f"{title}, {unit}", 14, "start")
    for place, name in enumerate(names):
        x, y = 14 + 270 * (place % 3), 36 + 18 * (place // 3)
        picture.rect(x, y, 12, 12, COLOURS[place])
        picture.text(x + 18, y + 10.5, name, 11, "start")
    for number, (row, values) in enumerate(rows.items()):
        top = legend + group * number
        picture.line(14, top - 5, LEFT + WIDTH + 76, top - 5, "#eef0f2")
        picture.text(LEFT - 10, top + group / 2 - 4, row, 11, "end")
        for place, value in enumerate(values):
            across = top + BAR * place
            length = WIDTH if value is None else WIDTH * min(value, most) / most
            picture.rect(
                LEFT, across, max(length, 1.5), BAR - 2, "#fbc4c0" if value is None else COLOURS[place], "none"
            )
            picture.text(
                LEFT + length + 6, across + 9.5, "never" if value is None else _figure(value), 9.5, "start", GREY
            )
    return str(picture)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
