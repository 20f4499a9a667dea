"""Strategies that treat all alike, and what every strategy is.

A strategy is what a caller asks for: checked when it is made, immutable, shared freely. It makes pools, which hold the
members that may be chosen now. Members come and go one at a time; nothing is ever built again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

from aioregistry._errors import InvalidType
from aioregistry._model import ServiceInstance

from ._members import Census, Member, Traits

__all__ = [
    "NOBODY",
    "Draw",
    "LeastOutstanding",
    "Pool",
    "Random",
    "Remembering",
    "RoundRobin",
    "Strategy",
    "check_strategy",
]

P = TypeVar("P")

Draw: TypeAlias = Callable[[], float]
"""A function that returns a random number, 0 <= number < 1."""


NOBODY: Final[frozenset[str]] = frozenset()
"""An empty set of ids: excludes no member."""


class Pool(Protocol[P]):
    """The members that a strategy chooses among."""

    def __len__(self) -> int:
        """How many there are."""

    def add(self, member: Member[P]) -> None:
        """Add *member*, which is not in the pool."""

    def discard(self, member: Member[P]) -> None:
        """Remove *member*, which is in the pool, and has the traits that it came with."""

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[P] | None:
        """Return one of the members whose ids are not in *exclude*, or None.

        Its cost may grow with *exclude*, which is small, but not with the number of members.
        """


@runtime_checkable
class Remembering(Protocol):
    """A pool in which keys are remembered."""

    def remember_with(self, other: Any) -> None:
        """Remember from now on what *other* does, an equal pool of the same strategy."""


class Strategy(Protocol[P]):
    """How to choose. Implement it to make a strategy of your own; you need not inherit from it.

    These members are optional, for a strategy that contains another:

    - ``strategy`` is the one that it contains; a :class:`WarmUp` in it is found by this name.
    - ``weighs_inner = True`` says that its pools obey the weights that operators give, as they ask the inner pools. In
      this package ``reduced_in`` and ``choose_reduced`` do that. Otherwise the picker chooses from the outer pool again
      where a weight says so.
    - ``remember_with(other)``, of its pools, has a pool remember keys together with *other*: a key's instance may go
      from one pool to the other. See ``Remembering``.
    """

    @property
    def keyed(self) -> bool:
        """Whether a choice needs a key."""

    def traits(self, instance: ServiceInstance[P]) -> Traits:
        """Return the traits that the pools use; raises :class:`InvalidArgument` if *instance* does not have them."""

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:
        """Return an empty pool; *census* counts all members, in this pool or not."""


def check_strategy(field: str, value: object) -> None:
    """Raise :class:`InvalidArgument` unless *value* is a strategy (and not the class of one)."""
    if isinstance(value, type) or not all(hasattr(value, name) for name in ("keyed", "traits", "pool")):
        raise InvalidType(field, value, "must be a strategy, such as RoundRobin()")


_ALIKE = Traits()


class _Alike:
    """Every instance is as good as any other."""

    __slots__ = ()
    keyed = False

    def traits(self, instance: ServiceInstance[Any]) -> Traits:  # noqa: ARG002 - they do not matter
        return _ALIKE

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class RoundRobin(_Alike):
    """Picks one instance after the other: each of n instances once in n picks. O(1).

    Each process has an order of its own. An instance that comes, or comes back, enters it at a random place. If it
    entered at the end, a hundred processes that see the same changes would soon all have the same order, and pick the
    same instance at one moment. An instance that is there for a whole lap is picked once in it, even if others come and
    go. An updated instance keeps its turn.
    """

    __slots__ = ()

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:  # noqa: ARG002 - knows its members
        """Return an empty pool."""
        return _Circle(draw)


class _Circle:
    """A lap in order: a member before the cursor has had its turn in it."""

    __slots__ = ("_cursor", "_draw", "_members", "_places")

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._cursor = 0
        self._members: list[Member[Any]] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Member[Any]) -> None:
        members, places, cursor, end = self._members, self._places, self._cursor, len(self._members)
        place = int(self._draw() * (end + 1))
        members.append(member)
        if place < cursor:
            # Among those who had their turn: the first of the others makes room, and is still to come in this lap.
            members[end] = displaced = members[cursor]
            places[displaced.id] = end
            members[cursor] = displaced = members[place]
            places[displaced.id] = cursor
            self._cursor = cursor + 1
        else:
            members[end] = displaced = members[place]
            places[displaced.id] = end
        members[place] = member
        places[member.id] = place

    def discard(self, member: Member[Any]) -> None:
        members = self._members
        place = self._places.pop(member.id)
        if place < self._cursor:
            self._cursor -= 1
            if place < self._cursor:
                self._put(place, members[self._cursor])
            place = self._cursor
        last = members.pop()
        if place < len(members):
            self._put(place, last)

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:  # noqa: ARG002
        members, cursor = self._members, self._cursor
        if cursor >= len(members):
            if not members:
                return None
            cursor = 0
        if exclude:
            return self._another(cursor, exclude)
        self._cursor = cursor + 1
        return members[cursor]

    def _another(self, cursor: int, exclude: frozenset[str]) -> Member[Any] | None:
        members, self._cursor = self._members, cursor
        # One more than are left out: among so many there is another, if there is one at all.
        for ahead in range(min(len(exclude) + 1, len(members))):
            place = cursor + ahead
            if place >= len(members):
                place -= len(members)
            member = members[place]
            if member.id not in exclude:
                if place >= cursor:
                    # A member that was passed over keeps its turn in this lap.
                    self._put(place, members[cursor])
                    self._put(cursor, member)
                    self._cursor += 1
                return member
        return None

    def _put(self, place: int, member: Member[Any]) -> None:
        self._members[place] = member
        self._places[member.id] = place


class Random(_Alike):
    """Picks any instance, each with the same chance. O(1)."""

    __slots__ = ()

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:  # noqa: ARG002 - knows its members
        """Return an empty pool."""
        return _Urn(draw)


class _Urn:
    __slots__ = ("_draw", "_members", "_places")

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._members: list[Member[Any]] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Member[Any]) -> None:
        self._places[member.id] = len(self._members)
        self._members.append(member)

    def discard(self, member: Member[Any]) -> None:
        place = self._places.pop(member.id)
        last = self._members.pop()
        if last is not member:
            self._members[place] = last
            self._places[last.id] = place

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:  # noqa: ARG002
        members = self._members
        if not exclude:
            return members[int(self._draw() * len(members))] if members else None
        left_out = self._left_out(exclude)
        number = len(members) - len(left_out)
        return members[_shifted(int(self._draw() * number), left_out)] if number else None

    def _left_out(self, exclude: frozenset[str]) -> list[int]:
        places = self._places
        return sorted(places[id] for id in exclude if id in places)


def _shifted(number: int, left_out: Sequence[int]) -> int:
    """Return the place that *number* is where those *left_out*, in order, are not counted."""
    for place in left_out:
        number += number >= place
    return number


class LeastOutstanding(_Alike):
    """Draws two instances at random, and picks the one with fewer calls under way. O(1).

    The second choice is decisive: the longest queue among n grows as log log n instead of log n (M. Mitzenmacher,
    "The Power of Two Choices in Randomized Load Balancing", 1996), and clients that know only of their own calls do not
    all run to the same idle instance. Calls count while the ``with`` block of a pick runs, for the address that serves
    them: an instance that leaves and comes back, or is disabled and enabled, still has those that are under way, and
    one that is listed under another id has those of its former one.
    """

    __slots__ = ()

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:  # noqa: ARG002 - knows its members
        """Return an empty pool."""
        return _TwoChoices(draw)


class _TwoChoices(_Urn):
    __slots__ = ()

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:  # noqa: ARG002
        members, draw = self._members, self._draw
        left_out = self._left_out(exclude) if exclude else ()
        number = len(members) - len(left_out)
        if not number:
            return None
        first = int(draw() * number)
        if number == 1:
            return members[_shifted(first, left_out)]
        second = int(draw() * (number - 1))
        second += second >= first  # another one, each with equal chance
        if left_out:
            first, second = _shifted(first, left_out), _shifted(second, left_out)
        one, other = members[first], members[second]
        return other if other.load.calls < one.load.calls else one
