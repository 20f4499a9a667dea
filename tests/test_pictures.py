"""The pictures of the documentation are those that the code, the benchmarks and the recorded runs give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aioregistry._session.states import ENDED, MOVES, SessionState
from benchmarks.choosing import SCENARIOS
from benchmarks.outages import CONSUMERS, TROUBLES
from tools.pictures import __main__ as pictures
from tools.pictures import rooms, states, timelines

DRAWN = dict(pictures.pictures())
DOCS = Path(__file__).parents[1] / "docs"
LABEL = re.compile(r"<!-- (.*?) -->")
BAR = re.compile(r'<g id="patch_\d+">\s*<path d="([^"]*)" clip-path')
SHARE = re.compile(r" ([\d.]+) %")


def shares_of_table(page: str, heading: str, columns: int) -> list[tuple[str, list[float]]]:
    """The rows of the table of *page* that begins with *heading*: the name, and the first share of each column."""
    _, _, rest = (DOCS / page).read_text(encoding="utf-8").partition(f"| {heading} |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    rows = [line.split("|")[1 : columns + 2] for line in lines]
    return [(name.strip(), [float(SHARE.findall(cell)[0]) for cell in cells]) for name, *cells in rows]


def bars(plot: str, columns: int) -> tuple[list[str], list[list[float]]]:
    """The labels of *plot*, and the shares of each row in percent; the longest bar is 100 %."""
    text = (DOCS / "plots" / plot).read_text(encoding="utf-8")
    ends = [[float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)] for path in BAR.findall(text)]
    widths = [max(each) - min(each) for each in ends]
    shares = [100 * width / max(widths) for width in widths]
    count = len(shares) // columns
    return LABEL.findall(text), [shares[row::count] for row in range(count)]


@pytest.mark.parametrize("name", sorted(DRAWN.keys() - {"rooms.svg"}))  # `nox -s docs` draws the rooms
def test_a_picture_is_up_to_date(name: str) -> None:
    assert (pictures.FOLDER / name).read_text(encoding="utf-8") == DRAWN[name], "python -m tools.pictures draws it anew"


def test_the_plot_of_outages_is_its_table() -> None:
    names, figures = zip(*shares_of_table("guard.md", "trouble", len(CONSUMERS)), strict=True)
    labels, drawn = bars("outages.svg", len(CONSUMERS))
    assert names == tuple(TROUBLES)
    assert [label for label in labels if label in TROUBLES] == [*names]
    assert drawn == [pytest.approx(row, abs=0.1) for row in figures]


def test_the_plot_of_choosing_is_its_table_where_calls_fail() -> None:
    # The table words some scenarios at length: its order is that of the benchmark.
    rows = [figures for _, figures in shares_of_table("balancing.md", "scenario", 2)]
    labels, drawn = bars("choosing.svg", 2)
    failing = [name for name, row in zip(SCENARIOS, rows, strict=True) if any(row)]
    assert [label for label in labels if label in SCENARIOS] == failing
    assert drawn == [pytest.approx(row, abs=0.1) for row in rows if any(row)]


def test_every_move_of_a_session_is_an_arrow() -> None:
    among_the_living = [after for following in MOVES.values() for after in following if after not in ENDED]
    arrows = re.findall(r"marker-end", states.draw())
    assert len(arrows) == len(among_the_living) + len(ENDED)
    assert all(f">{state.name}<" in states.draw() for state in SessionState)


def test_a_room_is_above_what_it_imports() -> None:
    graph = rooms.imports()
    heights = rooms.layers(graph)
    assert graph["session"] >= {"protocol", "errors"}
    assert all(heights[room] > heights[other] for room, others in graph.items() for other in others)


def test_what_a_longer_way_shows_is_left_out() -> None:
    assert rooms.reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_a_timeline_needs_each_segments_kind() -> None:
    lane = {"name": "a", "segments": [{"from": 0, "to": 1, "text": "x", "kind": "unheard of"}]}
    with pytest.raises(KeyError):
        timelines.draw({"title": "t", "seconds": 1, "marks": [], "lanes": [lane]})
