"""Every order of events for the core of a view, and what that finds where a stage is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aioregistry._discovery import guard
from aioregistry._discovery.overriding import Overriding
from aioregistry._discovery.recall import Recall
from aioregistry._discovery.suspects import Suspecting
from tests.simulation.explore_core import BEGINNINGS, MOVES, walk

Patch = pytest.MonkeyPatch


def test_three_moves_in_every_order_violate_nothing() -> None:
    found = walk(3, seconds=120.0)
    assert found.violation is None, found.story
    assert found.depth == 3
    assert found.ways > len(BEGINNINGS) * len(MOVES)


def holds_do_not_end(patch: Patch) -> None:
    patch.setattr(guard.Suspects, "due", lambda self, zxid, now: guard.Verdict(()))


def who_comes_back_is_added(patch: Patch) -> None:
    patch.setattr(guard.Suspects, "_come_back", lambda self, change, released: change)


def nobody_is_believed(patch: Patch) -> None:
    patch.setattr(guard.Suspects, "withdrawn", lambda self, *given, listed: guard.Verdict(()))


def the_file_is_taken_for_the_list(patch: Patch) -> None:
    patch.setattr(Recall, "news", lambda self, event, changes: changes)


def overrides_are_forgotten_by_news(patch: Patch) -> None:
    patch.setattr(Overriding, "news", lambda self, event, changes: changes)


def what_is_covered_is_not_told_as_shown(patch: Patch) -> None:
    patch.setattr(Overriding, "_uncovered", lambda self, id: None)


def suspects_are_forgotten(patch: Patch) -> None:
    patch.setattr(Suspecting, "due", lambda self, event, changes: changes)


@pytest.mark.parametrize(
    ("mistake", "guarantee", "among", "depth"),
    [
        (holds_do_not_end, "Guarded", ("a expires", "b expires", "the_clock_goes_on"), 8),
        (suspects_are_forgotten, "Guarded", ("a expires", "b expires", "the_clock_goes_on"), 8),
        (who_comes_back_is_added, "Ordered", ("a expires", "b expires", "a comes"), 4),
        (nobody_is_believed, "Guarded", ("a is_withdrawn", "b is_withdrawn"), 4),
        (the_file_is_taken_for_the_list, "Converged", ("a expires", "is_listed_anew"), 4),
        (overrides_are_forgotten_by_news, "Obeyed", ("a is_overridden", "a expires", "a comes"), 5),
        (what_is_covered_is_not_told_as_shown, "Ordered", ("a is_overridden", "a expires", "a comes"), 5),
    ],
)
def test_a_mistake_is_found(
    mistake: Callable[[Patch], None], guarantee: str, among: tuple[str, ...], depth: int, monkeypatch: Patch
) -> None:
    mistake(monkeypatch)
    found: Any = walk(depth, seconds=60.0, among=among)
    assert str(found.violation).startswith(guarantee), found
