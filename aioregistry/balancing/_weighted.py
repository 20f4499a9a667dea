"""Choosing at random, in proportion to weights."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from aioregistry._model import ServiceInstance
from aioregistry._reprs import shown_half_made

from ._members import Census, Member, Traits, Weight, check_field, weight_of
from ._strategies import NOBODY, Draw, Pool

__all__ = ["Weighted"]

P = TypeVar("P")

_FIRST_ROOM: Final = 16  # a power of two


@shown_half_made
class Weighted(Generic[P]):
    """Picks at random, each instance with a chance in proportion to its weight. O(log n).

    Args:
        weight: the payload's field that holds the weight, or a function of the instance. An instance of weight 0 is
            never picked. The weight is read when the instance comes or changes, not at each pick.

    Raises:
        InvalidArgument: *weight* is neither.
    """

    __slots__ = ("_weight",)
    keyed = False

    def __init__(self, weight: Weight[P]) -> None:
        check_field("weight", weight)
        self._weight = weight

    def traits(self, instance: ServiceInstance[P]) -> Traits:
        """Return the weight; raises :class:`InvalidArgument` where it is not a weight."""
        return Traits(weight_of(self._weight, instance))

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:  # noqa: ARG002 - knows its members
        """Return an empty pool."""
        return _SumTree(draw)

    def __repr__(self) -> str:
        return f"Weighted({self._weight!r})"


class _SumTree:
    """A binary tree whose leaves are weights, and whose inner nodes are the sums of their two children.

    Each sum is computed from the sums below it, never corrected by a difference: rounding errors do not gather, and an
    empty subtree is exactly 0.
    """

    __slots__ = ("_draw", "_free", "_members", "_places", "_room", "_sums")

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._room = _FIRST_ROOM
        self._sums = [0.0] * (2 * _FIRST_ROOM)  # 1 is the root, 2i and 2i + 1 are the children of i
        self._members: list[Member[Any] | None] = [None] * _FIRST_ROOM
        self._free = list(range(_FIRST_ROOM))[::-1]
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, member: Member[Any]) -> None:
        if not self._free:
            self._grow()
        place = self._free.pop()
        self._places[member.id] = place
        self._members[place] = member
        self._weigh(place, member.traits.weight)

    def discard(self, member: Member[Any]) -> None:
        place = self._places.pop(member.id)
        self._free.append(place)
        self._members[place] = None
        self._weigh(place, 0.0)

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:  # noqa: ARG002
        if exclude:
            return self._another(exclude)
        sums, room = self._sums, self._room
        rest = self._draw() * sums[1]
        node = 1
        while node < room:
            node *= 2
            left = sums[node]
            # Rounding may leave a rest where nothing is left on the right.
            if rest >= left and sums[node + 1]:
                rest -= left
                node += 1
        return self._members[node - room]

    def _another(self, exclude: frozenset[str]) -> Member[Any] | None:
        places = [self._places[id] for id in exclude if id in self._places]
        if len(places) == len(self._places):
            return None
        weights = [self._sums[self._room + place] for place in places]
        for place in places:
            self._weigh(place, 0.0)
        member = self.choose(None)
        for place, weight in zip(places, weights, strict=True):
            self._weigh(place, weight)
        return member

    def _weigh(self, place: int, weight: float) -> None:
        sums = self._sums
        node = self._room + place
        sums[node] = weight
        while node > 1:
            node //= 2
            sums[node] = sums[2 * node] + sums[2 * node + 1]

    def _grow(self) -> None:
        room = self._room
        self._free = list(range(room, 2 * room))[::-1]
        self._members += [None] * room
        leaves = self._sums[room:] + [0.0] * room
        self._room = room = 2 * room
        self._sums = sums = [0.0] * room + leaves
        for node in range(room - 1, 0, -1):
            sums[node] = sums[2 * node] + sums[2 * node + 1]
