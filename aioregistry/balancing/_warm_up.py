"""New instances get few calls at first: their caches are empty, and their code is not compiled yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from aioregistry._arguments import check_number
from aioregistry._errors import InvalidArgument
from aioregistry._model import ServiceInstance
from aioregistry._reprs import shown_half_made

from ._arrivals import HOUR
from ._members import Census, Member, Traits
from ._named import strategy_of
from ._newcomers import Newcomers
from ._strategies import NOBODY, Draw, Pool, Remembering, Strategy
from ._thinning import choose_reduced, reduced_in, thinned

__all__ = ["WarmUp", "warm_up_of"]

P = TypeVar("P")


@shown_half_made
class WarmUp(Generic[P]):
    """Lets a new instance's weight grow from *least* to 1; another strategy chooses. O(1), and the cost of that one.

    An instance is new from the moment when the view first sees a ``registrationTimeUTC`` that its id did not have
    before. It is new again when it is enabled after it was not: its checks pass, or its maintenance is over. An
    instance of the view's first list is not new. An instance that only registers again after an outage is not new
    either. While more than half of the instances are new, all are picked alike; otherwise the others would get too
    many calls. In a panic, too: an instance that is well again must not get fewer calls than those that fail.

    This is Envoy's slow start mode, and its formula. If *strategy* takes a key, the key decides whether it goes to a
    new instance: keys move over one by one, each once. In an own zone the weights count among the instances of the
    zone; a zone that has only new instances picks among them.

    Args:
        strategy: how to choose; may be given by name.
        seconds: until the weight is 1.
        least: the weight at first; above 0, at most 1.
        aggression: 1 lets the weight grow with time; above 1 it grows faster at first, below 1 slower. At a fraction t
            of the time it is t to the power of 1 / *aggression*, and *least* at least.

    Raises:
        InvalidArgument: an argument is wrong, or *strategy* warms up itself.
    """

    __slots__ = ("_exponent", "aggression", "least", "seconds", "strategy")
    weighs_inner = True

    def __init__(
        self,
        strategy: Strategy[P] | str = "round-robin",
        *,
        seconds: float = 30.0,
        least: float = 0.1,
        aggression: float = 1.0,
    ) -> None:
        inner = strategy_of(strategy)
        if warm_up_of(inner) is not None:
            raise InvalidArgument("strategy", strategy, "warms up already: wrap it once")
        check_number("seconds", seconds, at_least=0.001, at_most=HOUR)
        check_number("least", least, at_least=0.000_001, at_most=1)
        check_number("aggression", aggression, at_least=0.01, at_most=100)
        self.strategy: Strategy[P] = inner
        self.seconds: float = seconds
        self.least: float = least
        self.aggression: float = aggression
        self._exponent = 1 / aggression

    @property
    def keyed(self) -> bool:
        """Whether a choice needs a key."""
        return self.strategy.keyed

    def traits(self, instance: ServiceInstance[P]) -> Traits:
        """Return the traits of the inner strategy."""
        return self.strategy.traits(instance)

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:
        """Return an empty pool."""
        inner = self.strategy.pool(draw, census)
        newcomers = census.newcomers
        if newcomers is None:
            return inner
        return _Warming(inner, newcomers, reduced_in(self.strategy, census), draw, keyed=self.keyed)

    def weight(self, age: float) -> float:
        """Return the weight of an instance that has been new for *age* seconds."""
        if age >= self.seconds:
            return 1.0
        grown: float = (max(age, 0.0) / self.seconds) ** self._exponent
        return max(self.least, grown)

    def __repr__(self) -> str:
        options = f"seconds={self.seconds:g}, least={self.least:g}, aggression={self.aggression:g}"
        return f"WarmUp({self.strategy!r}, {options})"


def warm_up_of(strategy: object) -> WarmUp[Any] | None:
    """Return the warm-up that *strategy* is, or has in it, or None."""
    while strategy is not None and not isinstance(strategy, WarmUp):
        strategy = getattr(strategy, "strategy", None)
    return strategy


class _Warming:
    __slots__ = ("_draw", "_inner", "_keyed", "_newcomers", "_reduced")

    def __init__(
        self, inner: Pool[Any], newcomers: Newcomers, reduced: Mapping[str, Member[Any]], draw: Draw, *, keyed: bool
    ) -> None:
        self._keyed = keyed
        self._inner = inner
        self._newcomers = newcomers
        self._reduced = reduced
        self._draw = draw

    def __len__(self) -> int:
        return len(self._inner)

    def add(self, member: Member[Any]) -> None:
        self._inner.add(member)

    def discard(self, member: Member[Any]) -> None:
        self._inner.discard(member)

    def remember_with(self, other: _Warming) -> None:
        if isinstance(self._inner, Remembering):
            self._inner.remember_with(other._inner)

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:
        cold = self._newcomers.cold
        if not cold and not self._reduced:
            return self._inner.choose(key, exclude)
        decides = key if self._keyed else None  # an outer strategy's key means nothing to one without keys
        if not cold:
            return choose_reduced(self._inner, decides, exclude, self._draw)
        weight = self._both if self._reduced else self._newcomers.weight
        return thinned(self._inner, decides, exclude, weight, self._draw, b"warm-up")

    def _both(self, member: Member[Any]) -> float:
        return self._newcomers.weight(member) * member.weight
