"""Which instances may be picked at all, and why others may not. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from aioregistry import _foreign as foreign
from aioregistry._addresses import problem_of
from aioregistry._errors import InvalidArgument
from aioregistry._model import ServiceInstance

from ._members import STATUS, Filter, Traits, filter_of, out_of_service
from ._strategies import Strategy

__all__ = ["ADDRESS", "Admission", "Outside", "Subset"]

P = TypeVar("P")

ADDRESS: Final = "address"
"""The field that a refusal for an address names: the document is wrong then, and not the picker's arguments."""


class Outside(enum.Enum):
    """Why an instance is not admitted; the values are :class:`NoInstances`'s."""

    DISABLED = "disabled"
    FAILING = "failing"
    OUT_OF_SERVICE = "out of service"
    FILTERED = "filtered out"
    REFUSED = "refused"
    SUSPECT = "suspect"
    WEIGHTLESS = "of weight 0"


class Subset(NamedTuple, Generic[P]):
    """Some instances of a service, which callers see as a service of its own."""

    admits: Callable[[ServiceInstance[P]], bool]
    """A function that tells whether an instance is one of them; it raises nothing."""
    confirmed: Callable[[], int]
    """A function that counts those of them that are listed."""


class Admission(Generic[P]):
    """Judges instances one at a time.

    Args:
        strategy: says which traits it uses.
        where: which instances are admitted; unless given all that are enabled and, if they are Spring Cloud's, in
            service.

    Attributes:
        filters: whether *where* is given.
    """

    __slots__ = ("_accepts", "_asks_status", "_strategy", "filters")

    def __init__(self, strategy: Strategy[P], where: Filter[P] | None) -> None:
        self._strategy = strategy
        self._accepts = None if where is None else filter_of(where)
        self._asks_status = isinstance(where, Mapping) and STATUS in where  # then it says itself which may be picked
        self.filters: bool = where is not None

    def judge(self, instance: ServiceInstance[P]) -> Traits | Outside | InvalidArgument:
        """Return the traits that the strategy uses, or why *instance* is never picked.

        An instance whose checks fail is judged as if it were enabled: a picker in panic picks it.
        """
        asked = "where"
        try:
            if not instance.enabled and instance.status != "failing":
                return Outside.DISABLED
            if not self._asks_status and out_of_service(instance):
                return Outside.OUT_OF_SERVICE
            if self._accepts is not None and not foreign.call(self._accepts, instance):
                return Outside.FILTERED
            address = instance.address
            if address is not None and (problem := problem_of(address)) is not None:
                return InvalidArgument(ADDRESS, address, f"of {instance.id}: it cannot be connected to: {problem}")
            asked = "strategy"
            traits = foreign.call(self._strategy.traits, instance)
        except foreign.ForeignError as failure:  # of a comparison or a strategy of the caller's: no view ends with it
            if isinstance(failure.error, InvalidArgument):
                return failure.error
            refusal = InvalidArgument(asked, None, f"of {instance.id}: it raised {failure}")
            refusal.__cause__ = failure.error
            return refusal
        return traits if traits.weight else Outside.WEIGHTLESS

    def admits(self, instance: ServiceInstance[P]) -> bool:
        """Return whether *instance* may be picked whether there is a panic or not."""
        return instance.enabled and isinstance(self.judge(instance), Traits)

    def admits_local(self, instance: ServiceInstance[P]) -> bool:
        """Return whether it may, and is in the own zone."""
        standing = self.judge(instance) if instance.enabled else None
        return isinstance(standing, Traits) and standing.local
