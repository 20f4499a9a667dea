"""Checks of arguments, the same everywhere: flags, numbers, seconds, choices, things of a type. Pure.

Each check raises :class:`InvalidArgument`, and where the value is of a type that cannot be meant :class:`InvalidType`,
which is a TypeError too.
"""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Iterable
from fractions import Fraction
from typing import Final, Literal, TypeGuard, TypeVar

from ._errors import InvalidArgument, InvalidType, wrong_argument

__all__ = [
    "UNSET",
    "Unset",
    "as_written",
    "check_callable",
    "check_choice",
    "check_count",
    "check_flag",
    "check_number",
    "check_optional",
    "check_seconds",
    "is_number",
    "is_whole",
    "key_and_timeout",
]

T = TypeVar("T", bound=str)


class Unset(enum.Enum):
    """The value of an argument that was not given, where None is a value of its own."""

    UNSET = enum.auto()


UNSET: Final[Literal[Unset.UNSET]] = Unset.UNSET


def check_flag(field: str, flag: object) -> bool:
    """Return *flag* if it is True or False."""
    if not isinstance(flag, bool):
        raise InvalidType(field, flag, "give True or False")
    return flag


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether *value* is an int; True and False, which Python counts as ints, are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether *value* is an int or a float, infinity and NaN included; True and False are not."""
    return is_whole(value) or isinstance(value, float)


def check_count(field: str, number: object, *, at_most: int | None = None) -> None:
    """Raise unless *number* is an int of 1 or more, and not above *at_most*."""
    if not is_whole(number) or number < 1 or (at_most is not None and number > at_most):
        bounds = "of 1 or more" if at_most is None else f"from 1 to {at_most}"
        raise wrong_argument(field, number, f"must be an int {bounds}", int)


def check_number(
    field: str, number: object, *, at_least: float, at_most: float = math.inf, of: str | None = None
) -> None:
    """Raise unless *number* is within the bounds; *of* names whose it is."""
    if not is_number(number) or not at_least <= number <= at_most:  # NaN compares as False
        bounds = f"from {at_least:g} to {at_most:g}" if math.isfinite(at_most) else f"of {at_least:g} or more"
        owner = "" if of is None else f"of {of}: "
        raise wrong_argument(field, number, f"{owner}must be a number {bounds}", int, float)


def as_written(share: float) -> Fraction:
    """Return *share* as its decimal digits say: 0.29 of 100 is 29 then, and 0.29 * 100 is less than that."""
    return Fraction(repr(float(share)))


def check_seconds(field: str, seconds: object, *, at_most: float = sys.float_info.max, or_zero: bool = False) -> None:
    """Raise unless *seconds* is a number above 0 and not above *at_most*; with *or_zero* 0 is one, too."""
    if not is_number(seconds) or not (0 < seconds <= at_most or (or_zero and seconds == 0)):  # NaN compares as False
        limit = "" if at_most == sys.float_info.max else f" and at most {at_most:.0f}"
        least = "of 0 or more" if or_zero else "above 0"
        raise wrong_argument(field, seconds, f"give a number of seconds {least}{limit}", int, float)


def check_choice(field: str, value: object, choices: Iterable[T]) -> T:
    """Return *value* if it is one of *choices*."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise wrong_argument(field, value, f"must be one of {', '.join(map(repr, known))}", str)
    return value


def check_callable(field: str, value: object) -> None:
    """Raise unless *value* can be called."""
    if not callable(value):
        raise InvalidType(field, value, "give something that can be called")


def check_optional(field: str, value: object, expected: type) -> None:
    """Raise unless *value* is an *expected*, or None."""
    if value is not None and not isinstance(value, expected):
        article = "an" if expected.__name__[0] in "AEIOU" else "a"
        raise InvalidType(field, value, f"give {article} {expected.__name__}, or None")


def key_and_timeout(
    first: str | bytes | float | None, key: str | bytes | None, timeout: float | None
) -> tuple[str | bytes | None, float | None]:
    """Return the key and the seconds, of which either may be given *first*, without its name."""
    if isinstance(first, str | bytes):
        if key is not None:
            raise InvalidArgument("key", key, f"is given twice: {first!r} is a key too")
        key = first
    elif first is not None:
        if timeout is not None:
            raise InvalidArgument("timeout", timeout, f"is given twice: {first!r} is one too")
        timeout = first
    if timeout is not None:
        check_seconds("timeout", timeout)
    return key, timeout
