"""What a guard is asked for: when it holds removals back, and for how long. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from aioregistry._errors import InvalidArgument, wrong_argument

__all__ = ["Guard"]

_LONGEST_OPTION: Final = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Guard:
    """When a view holds removals back, and for how long.

    Args:
        hold: seconds that a suspect stays unless it comes back; longer where its published session timeout is.
        share: of the instances; when more than it go unexplained within the period, they become suspect. From 0 to 1;
            with 1 nothing is ever held.
        within: seconds of the period in quiet times; longer for an instance whose published session timeout is.
        longest: seconds that neither a hold nor a period exceeds, whatever session timeout an instance publishes.

    Raises:
        InvalidArgument: an argument is wrong; names it and its value.
    """

    hold: float = 30.0
    share: float = 0.2
    within: float = 10.0
    longest: float = 300.0

    def __post_init__(self) -> None:
        _check_number("hold", self.hold, 0.001, _LONGEST_OPTION)
        _check_number("share", self.share, 0.0, 1.0)
        _check_number("within", self.within, 0.001, _LONGEST_OPTION)
        _check_number("longest", self.longest, 0.001, _LONGEST_OPTION)
        if self.longest < self.hold:
            raise InvalidArgument("longest", self.longest, f"must not be less than hold={self.hold:g}")


def _check_number(field: str, number: object, at_least: float, at_most: float) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise wrong_argument(field, number, "must be a number", int, float)
    if not at_least <= number <= at_most:
        raise InvalidArgument(field, number, f"must be within {at_least:g}..{at_most:g}")
