"""The options that are numbers: the tables of the pages have each, with its true default, a reason and Envoy's word."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioregistry import Ejection, Guard, InvalidArgument, OwnZone, Sticky, WarmUp
from aioregistry._discovery.subscriptions import CHANGES_KEPT
from aioregistry._discovery.view import View

DOCS = Path(__file__).parents[2] / "docs"

TABLES: list[tuple[Callable[..., Any], str, str]] = [
    (Ejection, "balancing.md", "{option}"),
    (OwnZone, "balancing.md", "OwnZone({option})"),
    (Sticky, "balancing.md", "Sticky({option})"),
    (WarmUp, "balancing.md", "WarmUp({option})"),
    (View.balancer, "balancing.md", "view.balancer({option})"),
    (Guard, "guard.md", "{option}"),
]


def numbers(taker: Callable[..., Any]) -> dict[str, float]:
    defaults = {name: each.default for name, each in inspect.signature(taker).parameters.items()}
    return {
        name: default
        for name, default in defaults.items()
        if isinstance(default, int | float) and not isinstance(default, bool)
    }


def rows(page: str) -> dict[str, list[str]]:
    """The cells of each table's row, by the first, without the marks of code."""
    found: dict[str, list[str]] = {}
    for line in (DOCS / page).read_text().splitlines():
        if line.startswith("| "):
            first, *others = (cell.strip() for cell in line.strip("|").split(" | "))
            found[first.strip("` ")] = others
    return found


def test_a_consumer_of_changes_may_lag_as_far_as_the_docstring_says() -> None:
    assert f"lags by more than {CHANGES_KEPT} changes" in (View.changes.__doc__ or "")


@pytest.mark.parametrize(("taker", "page", "shown"), TABLES, ids=[each[0].__name__ for each in TABLES])
def test_every_number_has_its_row(taker: Callable[..., Any], page: str, shown: str) -> None:
    table, options = rows(page), numbers(taker)
    assert options
    for name, default in options.items():
        spellings = {
            shown.format(option=f"{name}={spelt}") for spelt in (repr(default), f"{default:g}", f"{default:_}")
        }
        row = next((table[each] for each in spellings if each in table), None)
        assert row is not None, f"{page} has no row for {name}={default!r}"
        means, why, envoy = row
        assert means
        assert why
        assert envoy


@pytest.mark.parametrize(
    ("field", "least", "most"), [("hold", 0.001, 86_400), ("within", 0.001, 86_400), ("longest", 0.001, 86_400)]
)
def test_the_bounds_of_a_guards_seconds_are_taken_and_nothing_outside(field: str, least: float, most: float) -> None:
    others = {"hold": 0.001, "longest": 86_400.0}
    for value in (least, most):
        assert getattr(Guard(**{**others, field: value}), field) == value
    for value in (math.nextafter(least, -math.inf), math.nextafter(most, math.inf)):
        with pytest.raises(InvalidArgument) as refused:
            Guard(**{**others, field: value})
        assert (refused.value.field, refused.value.value) == (field, value)


def test_a_guards_share_is_one_and_its_longest_hold_no_shorter_than_the_usual_one() -> None:
    assert [Guard(share=share).share for share in (0, 1)] == [0, 1]
    for share in (-0.001, 1.001):
        with pytest.raises(InvalidArgument) as refused:
            Guard(share=share)
        assert (refused.value.field, refused.value.value) == ("share", share)
    assert Guard(hold=7, longest=7).longest == 7
    with pytest.raises(InvalidArgument) as refused:
        Guard(hold=7, longest=6.9)
    assert (refused.value.field, refused.value.value) == ("longest", 6.9)
