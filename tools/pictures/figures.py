"""Plots of what `python -m benchmarks` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .svg import Picture

__all__ = ["bars"]

COLOURS: Final = ("#4c78a8", "#b3b3b3", "#f2a65a", "#54a24b", "#c27ba0", "#8c6d4f")

# As wide as a phone is, nearly: there it shrinks by a fifth, and its letters of 13 can still be read.
PAGE: Final = 440.0
EDGE, BAR, LABEL, FIGURE = 14.0, 15.0, 24.0, 62.0
WIDTH: Final = PAGE - 2 * EDGE - FIGURE


def bars(title: str, unit: str, most: float, rows: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> str:
    """Return bars in groups: for each of *rows* one of each of *names*, below its name. A value of None means never.

    A value above *most* is cut there, and its number says how long it would be.
    """
    group = LABEL + BAR * len(names) + 10
    legend = 64 + 20 * ((len(names) + 1) // 2)
    picture = Picture(PAGE, legend + group * len(rows) + 6, title)
    picture.text(EDGE, 26, title, 14, "start")
    picture.text(EDGE, 46, unit, 13, "start")
    for place, name in enumerate(names):
        x, y = EDGE + PAGE / 2 * (place % 2), 56 + 20 * (place // 2)
        picture.rect(x, y, 12, 12, COLOURS[place])
        picture.text(x + 18, y + 10.5, name, 12, "start")
    for number, (row, values) in enumerate(rows.items()):
        top = legend + group * number
        picture.line(EDGE, top, PAGE - EDGE, top, "#eef0f2")
        picture.text(EDGE, top + LABEL - 6, row, 13, "start")
        for place, value in enumerate(values):
            across = top + LABEL + BAR * place
            length = WIDTH if value is None else WIDTH * min(value, most) / most
            colour = "#fbc4c0" if value is None else COLOURS[place]
            picture.rect(EDGE, across, max(length, 1.5), BAR - 2, colour)
            shown = "never" if value is None else _figure(value)
            picture.text(EDGE + length + 6, across + 11, shown, 12, "start")
    return str(picture)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
