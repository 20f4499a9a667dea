"""SVG as text: the few shapes that the pictures are made of."""

from __future__ import annotations

from html import escape
from typing import Final

__all__ = ["GREY", "INK", "Picture"]

INK: Final = "#1f2328"
GREY: Final = "#8b949e"
FONT: Final = "font-family='DejaVu Sans, Verdana, sans-serif'"


class Picture:
    """An SVG image of a *width* and *height*, with a *title* for those who cannot see it.

    Its ground is white, so that it can be read on a dark page.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        self._size = (width, height)
        self._title = title
        self._shapes: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> None:
        """Draw a rectangle with its upper left corner at (*x*, *y*)."""
        where = f"x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}'"
        self._shapes.append(f"<rect {where} rx='4' fill='{fill}' stroke='{stroke}'/>")

    def text(self, x: float, y: float, text: str, size: float = 13, anchor: str = "middle", fill: str = INK) -> None:
        """Write *text* with its base line at (*x*, *y*)."""
        style = f"{FONT} font-size='{size:g}' text-anchor='{anchor}' fill='{fill}'"
        self._shapes.append(f"<text x='{x:g}' y='{y:g}' {style}>{escape(text, quote=False)}</text>")

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str = INK, arrow: bool = False) -> None:
        """Draw a line, with an arrow at its end if *arrow*."""
        head = " marker-end='url(#arrow)'" if arrow else ""
        where = f"x1='{x1:.5g}' y1='{y1:.5g}' x2='{x2:.5g}' y2='{y2:.5g}'"
        self._shapes.append(f"<line {where} stroke='{stroke}' stroke-width='1.3'{head}/>")

    def __str__(self) -> str:
        width, height = self._size
        head = (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}' "
            f"viewBox='0 0 {width:g} {height:g}' role='img'>\n"
            f"<title>{escape(self._title, quote=False)}</title>\n"
            "<defs><marker id='arrow' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' markerHeight='8' "
            f"orient='auto'><path d='M0,0 L8,4 L0,8 z' fill='{INK}'/></marker></defs>\n"
            f"<rect width='{width:g}' height='{height:g}' rx='6' fill='#ffffff'/>\n"
        )
        return head + "\n".join(self._shapes) + "\n</svg>\n"
