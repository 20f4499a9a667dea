"""Every strategy is in the lists by which strategies are tried and described, and one of the caller's own is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aioregistry
from aioregistry import ServiceInstance, balancing
from aioregistry.balancing import Census, Draw, Member, Pool, Random, Strategy, Traits
from aioregistry.integrations._arguments import AnyStrategy, RoutingOptions
from tests.balancing import test_cost, test_overridden, test_picker
from tests.balancing.service import picked, picker
from tests.discovery import test_options

PAGE = Path(__file__).parents[2] / "docs" / "balancing.md"


def strategies() -> Iterator[type]:
    """Yield each class that the package exports as a strategy."""
    for name in balancing.__all__:
        value = getattr(balancing, name)
        if isinstance(value, type) and value is not Strategy and hasattr(value, "traits") and hasattr(value, "pool"):
            yield value


def contained(tried: Iterable[object]) -> set[type]:
    """Return the classes of strategies, and of those that they contain."""
    found: set[type] = set()
    for strategy in tried:
        inner: object = strategy
        while inner is not None:
            found.add(type(inner))
            inner = getattr(inner, "strategy", None)
    return found


KINDS = list(strategies())


def test_there_are_strategies() -> None:
    assert {each.__name__ for each in KINDS} >= {"Random", "Ring", "WarmUp"}


@pytest.mark.parametrize(
    "tried",
    [
        pytest.param(test_picker.STRATEGIES_TO_TRY, id="test_picker"),
        pytest.param([strategy for strategy, _, _ in test_cost.MOST], id="test_cost"),
        pytest.param(
            [around(leaf) for around in test_overridden.AROUND for leaf in test_overridden.LEAVES], id="test_overridden"
        ),
    ],
)
def test_every_strategy_is_tried(tried: list[object]) -> None:
    assert set(KINDS) <= contained(tried)


@pytest.mark.parametrize("kind", KINDS)
def test_its_numbers_have_rows(kind: type) -> None:
    assert not test_options.numbers(kind) or kind in [taker for taker, _, _ in test_options.TABLES]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_exported_and_in_both_tables(kind: type) -> None:
    assert getattr(aioregistry, kind.__name__) is kind
    assert kind.__name__ in aioregistry.__all__
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{kind.__name__}(")]
    described, costs = rows[0], rows[1]
    assert described.count(" | ") == costs.count(" | ") == 3


# ---------------------------------------------------------------- one of the caller's own


class Own:
    """Chooses as Random does."""

    keyed = False

    def traits(self, instance: ServiceInstance[Any]) -> Traits:
        return Traits()

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:
        return OwnPool(Random().pool(draw, census))


class OwnPool:
    def __init__(self, pool: Pool[Any]) -> None:
        self._pool = pool

    def __len__(self) -> int:
        return len(self._pool)

    def add(self, member: Member[Any]) -> None:
        self._pool.add(member)

    def discard(self, member: Member[Any]) -> None:
        self._pool.discard(member)

    def choose(self, key: bytes | None, exclude: frozenset[str] = balancing.NOBODY) -> Member[Any] | None:
        return self._pool.choose(key, exclude)


# mypy reads these: a strategy of the caller's own fits wherever one of the library's does.
TAKEN: list[AnyStrategy] = [Own(), *test_picker.STRATEGIES_TO_TRY, *balancing.STRATEGIES]
OPTIONS: list[RoutingOptions] = [{"strategy": each} for each in TAKEN]


def test_the_integrations_take_every_strategy_and_the_callers_own() -> None:
    assert set(KINDS) | {Own} <= contained(each["strategy"] for each in OPTIONS)


def test_one_of_the_callers_own_picks() -> None:
    assert set(picked(picker({"a": {}, "b": {}}, Own()), 100)) == {"a", "b"}
