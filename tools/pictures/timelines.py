"""Timelines, drawn from a recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .svg import GREY, Picture

__all__ = ["draw"]

COLOURS: Final[Mapping[str, str]] = {"good": "#bbe5c6", "doubt": "#fde68a", "bad": "#fbc4c0", "quiet": "#e5e7eb"}
LEFT, WIDTH, LANE = 190.0, 620.0, 46.0


def draw(run: Mapping[str, Any]) -> str:
    """Return the timeline of a *run*: its title, its length in seconds, its lanes of segments, and its marks."""
    lanes, seconds = run["lanes"], float(run["seconds"])
    bottom = 60 + LANE * len(lanes)
    picture = Picture(LEFT + WIDTH + 20, bottom + 40, run["title"])

    def x(moment: float) -> float:
        return round(LEFT + WIDTH * moment / seconds, 1)

    for mark in run["marks"]:
        picture.line(x(mark["at"]), 40, x(mark["at"]), bottom, GREY)
        picture.text(x(mark["at"]), 22 + 13 * mark["row"], mark["text"], 10.5)
    for number, lane in enumerate(lanes):
        y = 50 + LANE * number
        picture.text(LEFT - 10, y + 21, lane["name"], 12, "end")
        for segment in lane["segments"]:
            begin, end = x(segment["from"]), x(segment["to"])
            if end - begin < 0.5:
                continue
            picture.rect(begin, y, end - begin, 32, COLOURS[segment["kind"]], "#ffffff")
            if end - begin > 6.2 * len(segment["text"]):
                picture.text((begin + end) / 2, y + 20, segment["text"], 10.5)
    picture.line(LEFT, bottom, LEFT + WIDTH, bottom)
    for second in range(0, int(seconds) + 1, 2):
        picture.line(x(second), bottom, x(second), bottom + 5)
        picture.text(x(second), bottom + 20, f"{second} s", 11)
    return str(picture)
