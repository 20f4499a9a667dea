"""The pictures of the documentation are those that the code, the benchmarks and the recorded runs give."""

from __future__ import annotations

import re

import pytest

from aioregistry._session.states import ENDED, MOVES, SessionState
from tools.pictures import __main__ as pictures
from tools.pictures import rooms, states, timelines

DRAWN = dict(pictures.pictures())


@pytest.mark.parametrize("name", sorted(DRAWN.keys() - {"rooms.svg"}))  # `nox -s docs` draws the rooms
def test_a_picture_is_up_to_date(name: str) -> None:
    assert (pictures.FOLDER / name).read_text(encoding="utf-8") == DRAWN[name], "python -m tools.pictures draws it anew"


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
