"""The options of a guard: when it holds removals back, and for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aioregistry._arguments import check_number
from aioregistry._errors import InvalidArgument

__all__ = ["Guard"]

_LONGEST_OPTION: Final = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Guard:
    """When a view holds removals back, and for how long.

    Args:
        hold: seconds that a suspect stays unless it comes back; its published session timeout if that is longer.
        share: a share of the instances, from 0 to 1. If more than this disappear within the period without an
            explanation, they become suspects. With 1 the guard never holds a removal back.
        within: seconds that the period lasts in quiet times; the published session timeout of an instance if that is
            longer.
        longest: the longest hold and the longest period, in seconds, whatever session timeout an instance publishes.

    Raises:
        InvalidArgument: an argument is wrong; names it and its value.
    """

    hold: float = 30.0
    share: float = 0.2
    within: float = 10.0
    longest: float = 300.0

    def __post_init__(self) -> None:
        check_number("hold", self.hold, at_least=0.001, at_most=_LONGEST_OPTION)
        check_number("share", self.share, at_least=0.0, at_most=1.0)
        check_number("within", self.within, at_least=0.001, at_most=_LONGEST_OPTION)
        check_number("longest", self.longest, at_least=0.001, at_most=_LONGEST_OPTION)
        if self.longest < self.hold:
            raise InvalidArgument("longest", self.longest, f"must not be less than hold={self.hold:g}")
