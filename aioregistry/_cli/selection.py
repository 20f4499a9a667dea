"""Which instances `aioregistry list` and `watch` show, and in which order (pure)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from aioregistry._arguments import is_number

from .._errors import InvalidArgument

__all__ = ["COLUMNS", "Condition", "Selectable", "Selection", "condition"]

COLUMNS: Final = ("name", "id", "address", "port", "owner", "created", "state", "enabled", "invalid")


class Selectable(Protocol):
    """The fields to select and sort by."""

    def get(self, column: str) -> Any:
        """Return the value of *column*, one of :data:`COLUMNS` or ``"payload"``; None if it is empty."""


R = TypeVar("R", bound=Selectable)


class Condition(NamedTuple):
    """One condition, as in ``--where zone=eu-1``.

    Args:
        key: a column, or a path into the payload.
        value: text.
        equal: whether it must be that value, or must be another.
    """

    key: str
    value: str
    equal: bool

    def holds(self, row: Selectable) -> bool:
        """Return whether it holds for *row*; a row without such a value is not equal to any."""
        found = _looked_up(row, self.key)
        return (found is not None and _text(found) == self.value) is self.equal


def condition(text: str) -> Condition:
    """Return the condition that *text* says: ``KEY=VALUE`` or ``KEY!=VALUE``. Raises InvalidArgument."""
    key, equals, value = text.partition("=")
    equal = not key.endswith("!")
    key = key.removesuffix("!").strip()
    if not equals or not key:
        raise InvalidArgument("where", text, "give KEY=VALUE or KEY!=VALUE, such as zone=eu-1")
    return Condition(key, value.strip(), equal)


class Selection(NamedTuple):
    """The rows to show, and their order.

    Args:
        conditions: that must hold for a row.
        sort: by what; None for the order in which they are given.
        reverse: whether the order is turned around.
    """

    conditions: Sequence[Condition] = ()
    sort: str | None = None
    reverse: bool = False

    def has(self, row: Selectable) -> bool:
        """Return whether every condition holds for *row*."""
        return all(each.holds(row) for each in self.conditions)

    def of(self, rows: Iterable[R]) -> list[R]:
        """Return the *rows* that it has, sorted.

        Numbers are compared as numbers and stand before texts; a row without such a value stands last, also in reverse.
        """
        found, sort = [*filter(self.has, rows)], self.sort
        if sort is None:
            return found[::-1] if self.reverse else found
        known = [row for row in found if _looked_up(row, sort) is not None]
        unknown = [row for row in found if _looked_up(row, sort) is None]
        return sorted(known, key=_order(sort), reverse=self.reverse) + unknown


def _looked_up(row: Selectable, key: str) -> Any:
    """Return what *row* has for *key*: a column of that name, else what the path leads to in the payload, else None.

    ``payload.zone`` is the path ``zone``, for payloads whose keys are called as columns are.
    """
    if key in COLUMNS:
        return row.get(key)
    value = row.get("payload")
    for step in key.removeprefix("payload.").split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _order(key: str) -> Callable[[Selectable], tuple[bool, float, str]]:
    def order(row: Selectable) -> tuple[bool, float, str]:
        value = _looked_up(row, key)
        if is_number(value) and not math.isnan(value):
            return False, value, ""
        return True, 0.0, _text(value)

    return order


def _text(value: Any) -> str:
    """As JSON writes a value that is not a string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)
