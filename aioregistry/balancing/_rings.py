"""Consistent hashing: a key stays with its instance while others come and go.

The ring is that of multi-probe consistent hashing (B. Appleton, M. O'Reilly, 2015): instances and keys have several
places each on a circle, and a key goes to the instance that is nearest, clockwise, to any of the key's places. A
weight stretches the circle: the distance to an instance counts divided by its weight.

How near an instance is to a key depends on these two alone. That is the whole proof of minimal movement: an instance
that comes takes only the keys to which it is nearest, one that goes leaves only its own, and a weight that
grows only attracts. And every process that sees the same instances picks the same one, whatever it saw before.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any, Final, Generic, TypeAlias, TypeVar

from aioregistry._model import ServiceInstance
from aioregistry._reprs import shown_half_made

from ._keys import points, probes
from ._members import Census, Member, Traits, Weight, check_field, weight_of
from ._strategies import NOBODY, Draw, Pool

__all__ = ["Ring"]

P = TypeVar("P")

_FULL: Final = 8  # points in an arc, on average, at most; a quarter of that at least
_Arc: TypeAlias = tuple[list[float], list[Member[Any]]]  # points in order, and whose each is


@shown_half_made
class Ring(Generic[P]):
    """Picks by consistent hashing of a key: the key stays with one instance for as long as that can be picked.

    When one of n goes, its share of the keys (1/n if all weigh the same) is spread over the others; when one comes,
    it takes its share, evenly from all; no other key moves. All processes agree. O(1), whatever the size of the
    service: eight look-ups for each power of eight among the weights. If a key's instance is excluded from a pick, the
    key goes to the next on the circle, the same in every process.

    Args:
        weight: the payload's field that holds the weight, or a function of the instance; None weighs all the same. Only
            proportions count. An instance of weight 0 is never picked.

    Raises:
        InvalidArgument: *weight* is neither.
    """

    __slots__ = ("_weight",)
    keyed = True

    def __init__(self, weight: Weight[P] | None = None) -> None:
        if weight is not None:
            check_field("weight", weight)
        self._weight = weight

    def traits(self, instance: ServiceInstance[P]) -> Traits:
        """Return the weight; raises :class:`InvalidArgument` where it is not a weight."""
        return Traits() if self._weight is None else Traits(weight_of(self._weight, instance))

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:  # noqa: ARG002 - leaves nothing to chance
        """Return an empty pool."""
        return _Rings()

    def __repr__(self) -> str:
        return "Ring()" if self._weight is None else f"Ring({self._weight!r})"


class _Rings:
    """One circle for each power of eight of weight, the heaviest first.

    On each of them weights differ by a factor of eight at most, so that the search for the nearest ends after a few
    places, however far the weights of all are apart. More circles cost look-ups, fewer of them longer searches; eight
    was measured to be best.
    """

    __slots__ = ("_circles", "_number")

    def __init__(self) -> None:
        self._circles: dict[int, _Circle] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def add(self, member: Member[Any]) -> None:
        power = _power(member)
        circle = self._circles.get(power)
        if circle is None:
            circle = _Circle(8.0**power)
            self._circles = dict(sorted({**self._circles, power: circle}.items(), reverse=True))
        for place in points(member.id):
            circle.add(place, member)
        self._number += 1

    def discard(self, member: Member[Any]) -> None:
        power = _power(member)
        circle = self._circles[power]
        for place in points(member.id):
            circle.discard(place, member)
        if not circle.number:
            del self._circles[power]
        self._number -= 1

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:
        assert key is not None
        starts = probes(key)
        best, nearest = math.inf, None
        for circle in self._circles.values():
            best, nearest = circle.nearest(starts, best, nearest, exclude)
        return nearest


def _power(member: Member[Any]) -> int:
    """The least power of eight that is not below the member's weight."""
    fraction, power_of_two = math.frexp(member.traits.weight)
    return math.ceil((power_of_two - (fraction == 0.5)) / 3)


class _Circle:
    """Places in order, in arcs of equal length: hashes are spread evenly, so that each arc holds a few."""

    __slots__ = ("_arcs", "_heaviest", "number")

    def __init__(self, heaviest: float) -> None:
        self.number = 0
        self._heaviest = heaviest
        self._arcs: list[_Arc] = [([], [])]  # a power of two of them

    def add(self, place: float, member: Member[Any]) -> None:
        places, owners = self._arcs[int(place * len(self._arcs))]
        position = bisect_left(places, place)
        places.insert(position, place)
        owners.insert(position, member)
        self.number += 1
        if self.number > _FULL * len(self._arcs):
            self._halve()

    def discard(self, place: float, member: Member[Any]) -> None:
        places, owners = self._arcs[int(place * len(self._arcs))]
        position = owners.index(member, bisect_left(places, place))
        del places[position], owners[position]
        self.number -= 1
        if len(self._arcs) > 1 and 4 * self.number < _FULL * len(self._arcs):
            self._join()

    def nearest(
        self, starts: list[float], best: float, nearest: Member[Any] | None, exclude: frozenset[str]
    ) -> tuple[float, Member[Any] | None]:
        """Return the least weighted distance from any of *starts*, and to whom; at most *best*, to *nearest*.

        Members whose id is in *exclude* are passed over.
        """
        arcs, heaviest = self._arcs, self._heaviest
        farthest = best * heaviest  # no member on this circle weighs so much that a farther place could be nearer
        for start in starts:
            index = int(start * len(arcs))
            places, owners = arcs[index]
            position = bisect_left(places, start)
            for _ in range(self.number):
                while position == len(places):
                    index = (index + 1) % len(arcs)
                    places, owners = arcs[index]
                    position = 0
                distance = places[position] - start
                if distance < 0:
                    distance += 1
                if distance > farthest:
                    break
                member = owners[position]
                stretched = distance / member.traits.weight
                if (
                    stretched < best or (stretched == best and nearest is not None and member.id < nearest.id)
                ) and member.id not in exclude:
                    best, nearest, farthest = stretched, member, stretched * heaviest
                position += 1
        return best, nearest

    def _halve(self) -> None:
        """Halve every arc; the cost is shared by the changes that made it necessary."""
        number = 2 * len(self._arcs)
        halves: list[_Arc] = []
        for index, (places, owners) in enumerate(self._arcs):
            middle = bisect_left(places, (2 * index + 1) / number)
            halves += [(places[:middle], owners[:middle]), (places[middle:], owners[middle:])]
        self._arcs = halves

    def _join(self) -> None:
        """Join every two arcs."""
        pairs = zip(self._arcs[::2], self._arcs[1::2], strict=True)
        self._arcs = [(one[0] + other[0], one[1] + other[1]) for one, other in pairs]
