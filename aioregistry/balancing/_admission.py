"""Which instances may be picked at all, and why others may not. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from aioregistry import _foreign as foreign
from aioregistry._addresses import problem_of
from aioregistry._errors import InvalidArgument
from aioregistry._model import ServiceInstance

from ._members import STATUS, Filter, Traits, filter_of, out_of_service
from ._strategies import Strategy

__all__ = ["ADDRESS", "Admission", "Outside"]

P = TypeVar("P")

ADDRESS: Final = "address"
"""The field that a refusal for an address names: the document is wrong then, and not the picker's arguments."""


class Outside(enum.Enum):
    """Why an instance is not admitted; the values are :class:`NoInstances`'s."""

    DISABLED = "disabled"
    OUT_OF_SERVICE = "out of service"
    FILTERED = "filtered out"
    REFUSED = "refused"
    SUSPECT = "suspect"
    WEIGHTLESS = "of weight 0"


class Admission(Generic[P]):
    """Judges instances one at a time.

    Args:
        strategy: tells what it goes by.
        where: which instances are admitted; unless given all that are enabled and, if they are Spring Cloud's, in
            service.

    Attributes:
        filters: whether *where* is given.
    """

    __slots__ = ("_accepts", "_asks_status", "_strategy", "filters")

    def __init__(self, strategy: Strategy[P], where: Filter[P] | None) -> None:
        self._strategy = strategy
        self._accepts = filter_of(where)
        self._asks_status = isinstance(where, Mapping) and STATUS in where  # then it says itself which may be picked
        self.filters: bool = where is not None

    def judge(self, instance: ServiceInstance[P]) -> Traits | Outside | InvalidArgument:
        """Return what the strategy goes by, or why *instance* is never picked."""
        asked = "where"
        try:
            if not instance.enabled:
                return Outside.DISABLED
            if not self._asks_status and out_of_service(instance):
                return Outside.OUT_OF_SERVICE
            if not foreign.call(self._accepts, instance):
                return Outside.FILTERED
            address = instance.address
            if address is not None and (problem := problem_of(address)) is not None:
                return InvalidArgument(ADDRESS, address, f"of {instance.id}: nobody can connect to it: {problem}")
            asked = "strategy"
            traits = foreign.call(self._strategy.traits, instance)
        except foreign.ForeignError as failure:  # of a comparison or a strategy of the caller's: no view ends with it
            if isinstance(failure.error, InvalidArgument):
                return failure.error
            refusal = InvalidArgument(asked, None, f"of {instance.id}: it raised {failure}")
            refusal.__cause__ = failure.error
            return refusal
        return traits if traits.weight else Outside.WEIGHTLESS
