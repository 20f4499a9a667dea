"""The own zone first."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

from aioregistry._arguments import check_count, check_number
from aioregistry._errors import InvalidArgument
from aioregistry._model import ServiceInstance
from aioregistry._reprs import shown_half_made

from ._keys import share
from ._members import Census, Field, Member, Traits, check_field, check_name, field_of
from ._strategies import NOBODY, Draw, Pool, Remembering, Strategy, check_strategy
from ._thinning import choose_reduced, reduced_in

__all__ = ["OwnZone"]

P = TypeVar("P")


@shown_half_made
class OwnZone(Generic[P]):
    """Picks instances of your own zone, as far as they suffice; the other picks spill over to the other zones.

    The zone suffices while it has *at_least* instances, and the share *healthy* of its instances can be picked. Below
    that it gets the part of the picks that it can carry (two thirds if it has two instances and needs three), so that
    the rest does not overload the neighbours at once, as in Envoy's zone-aware routing. With a strategy that takes a
    key the key decides, so that a key stays where it is.

    Args:
        zone: your own zone, as payloads name it.
        strategy: how to choose within the zone, and among the others.
        field: the payload's field that holds the zone (``metadata.zone`` is one in another), or a function of the
            instance; an instance without one is in no zone.
        at_least: instances that the zone needs to carry all picks.
        healthy: share of the zone's instances, disabled and filtered ones not counted, that must not be set aside for
            the zone to carry all picks; from 0 (spill only where no instance is left) to 1.

    Raises:
        InvalidArgument: an argument is wrong, or *strategy* knows of zones itself.
    """

    __slots__ = ("_at_least", "_field", "_healthy", "strategy", "zone")
    weighs_inner = True

    def __init__(
        self, zone: str, strategy: Strategy[P], *, field: Field[P] = "zone", at_least: int = 1, healthy: float = 0.7
    ) -> None:
        check_name("zone", zone)
        _check_zoneless(strategy)
        check_field("field", field)
        check_count("at_least", at_least)
        check_number("healthy", healthy, at_least=0, at_most=1)
        self.zone: str = zone
        self.strategy: Strategy[P] = strategy
        self._field = field
        self._at_least = at_least
        self._healthy = healthy

    @property
    def keyed(self) -> bool:
        """Whether a choice needs a key."""
        return self.strategy.keyed

    def traits(self, instance: ServiceInstance[P]) -> Traits:
        """Return the traits of the inner strategy, and whether *instance* is local."""
        return Traits(self.strategy.traits(instance).weight, field_of(self._field, instance, "field") == self.zone)

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:
        """Return an empty pool."""
        inner = self.strategy
        return _Zones(self, inner.pool(draw, census), inner.pool(draw, census), draw, census)

    def carried(self, live: float, known: int) -> float:
        """Return the share of the picks that the zone can carry with *live* of *known* instances; may be above 1."""
        return live / max(self._at_least, self._healthy * known)

    def __repr__(self) -> str:
        return f"OwnZone({self.zone!r}, {self.strategy!r})"


def _check_zoneless(strategy: object) -> None:
    check_strategy("strategy", strategy)
    while strategy is not None:
        if isinstance(strategy, OwnZone):
            raise InvalidArgument("strategy", strategy, "contains an OwnZone already: use it once")
        strategy = getattr(strategy, "strategy", None)


class _Zones:
    __slots__ = (
        *("_census", "_draw", "_reduced", "_zone"),
        *("_elsewhere", "_here", "_local", "_missing", "_others", "_short"),
    )

    def __init__(self, zone: OwnZone[Any], local: Pool[Any], others: Pool[Any], draw: Draw, census: Census) -> None:
        self._zone = zone
        self._local = local
        self._others = others
        self._here = self._elsewhere = 0  # how many are in the one, and in the other
        self._draw = draw
        self._census = census
        self._reduced = reduced_in(zone.strategy, census)
        self._short: dict[str, float] = {}  # by how much local members weigh less than 1
        self._missing = 0.0  # in sum

    def __len__(self) -> int:
        return self._here + self._elsewhere

    def add(self, member: Member[Any]) -> None:
        if member.traits.local:
            self._local.add(member)
            self._here += 1
        else:
            self._others.add(member)
            self._elsewhere += 1
        if member.weight < 1 and member.traits.local:
            self._short[member.id] = 1 - member.weight
            self._missing = math.fsum(self._short.values())

    def discard(self, member: Member[Any]) -> None:
        if member.traits.local:
            self._local.discard(member)
            self._here -= 1
        else:
            self._others.discard(member)
            self._elsewhere -= 1
        if self._short and self._short.pop(member.id, None) is not None:
            self._missing = math.fsum(self._short.values())

    def remember_with(self, other: _Zones) -> None:
        for mine, others in ((self._local, other._local), (self._others, other._others)):
            if isinstance(mine, Remembering):
                mine.remember_with(others)

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:
        if not self._here and not self._elsewhere:
            return None
        first, second, left = self._local, self._others, self._elsewhere
        if not self._stays(key):  # the first is not empty: one that is alone has all picks
            first, second, left = second, first, self._here
        member = self._of(first, key, exclude) if self._reduced else first.choose(key, exclude)
        if member is None and left:
            member = self._of(second, key, exclude)
        return member

    def _of(self, pool: Pool[Any], key: bytes | None, exclude: frozenset[str]) -> Member[Any] | None:
        if self._reduced:
            return choose_reduced(pool, key if self._zone.keyed else None, exclude, self._draw)
        return pool.choose(key, exclude)

    def _stays(self, key: bytes | None) -> bool:
        live = self._here
        if not live or not self._elsewhere:
            return live > 0
        carried = self._zone.carried(live - self._missing, self._census.local)
        return carried >= 1 or (self._draw() if key is None else share(key)) < carried
