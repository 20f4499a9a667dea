"""Strategies that treat all alike, and what every strategy is.

A strategy is what a caller asks for: checked when it is made, immutable, shared freely. It makes pools, which hold the
members that may be chosen now. Members come and go one at a time; nothing is ever built anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from aioregistry._errors import InvalidArgument
from aioregistry._model import ServiceInstance

from ._members import Census, Member, Traits

__all__ = ["Draw", "LeastOutstanding", "Pool", "Random", "Remembering", "RoundRobin", "Strategy", "check_strategy"]

P = TypeVar("P")

Draw: TypeAlias = Callable[[], float]
"""Returns a random number, 0 <= number < 1."""


class Pool(Protocol[P]):
    """The members that a strategy chooses among."""

    def __len__(self) -> int:
        """How many there are."""

    def add(self, member: Member[P]) -> None:
        """*member*, which is not here, may be chosen from now on."""

    def discard(self, member: Member[P]) -> None:
        """*member*, which is here, with the traits that it came with, may not be chosen any more."""

    def choose(self, key: bytes | None) -> Member[P]:
        """Return one of the members, of which there is one at least."""


@runtime_checkable
class Remembering(Protocol):
    """A pool in which keys are remembered."""

    def remember_with(self, other: Any) -> None:
        """Remember from now on what *other* does, an equal pool of the same strategy."""


class Strategy(Protocol[P]):
    """How to choose.

    Attributes:
        keyed: whether a choice needs a key.
    """

    @property
    def keyed(self) -> bool:
        """Whether a choice needs a key."""

    def traits(self, instance: ServiceInstance[P]) -> Traits:
        """Return what the pools go by; raises :class:`InvalidArgument` where *instance* does not tell."""

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:
        """Return an empty pool; *census* counts all members, in this pool or not."""


def check_strategy(field: str, value: object) -> None:
    """Raise :class:`InvalidArgument` unless *value* is a strategy (and not the class of one)."""
    if isinstance(value, type) or not all(hasattr(value, name) for name in ("keyed", "traits", "pool")):
        raise InvalidArgument(field, value, "must be a strategy, as RoundRobin()")


_ALIKE = Traits()


class _Alike:
    """Every instance is as good as any other."""

    __slots__ = ()
    keyed = False

    def traits(self, instance: ServiceInstance[Any]) -> Traits:  # noqa: ARG002 - none of them matters
        return _ALIKE

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class RoundRobin(_Alike):
    """One after the other: among n instances each is picked once in n picks. O(1).

    Who comes, or comes back, is picked after all the others; who is updated keeps its turn.
    """

    __slots__ = ()

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:  # noqa: ARG002 - leaves nothing to chance
        """Return an empty pool."""
        return _Circle()


class _Circle:
    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: OrderedDict[str, Member[Any]] = OrderedDict()  # linked: its first is at hand after any removal

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Member[Any]) -> None:
        self._members[member.id] = member

    def discard(self, member: Member[Any]) -> None:
        del self._members[member.id]

    def choose(self, key: bytes | None) -> Member[Any]:  # noqa: ARG002 - the protocol's
        id = next(iter(self._members))
        self._members.move_to_end(id)
        return self._members[id]


class Random(_Alike):
    """Any of them, with equal chance. O(1)."""

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

    def choose(self, key: bytes | None) -> Member[Any]:  # noqa: ARG002 - the protocol's
        return self._members[int(self._draw() * len(self._members))]


class LeastOutstanding(_Alike):
    """Of two, drawn at random, the one with fewer calls under way. O(1).

    The second choice is what matters: the longest queue among n grows as log log n instead of log n (M. Mitzenmacher,
    "The Power of Two Choices in Randomized Load Balancing", 1996), and clients that know only of their own calls do not
    all run to the same idle instance. Calls count while the ``with`` block of a pick runs.
    """

    __slots__ = ()

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:  # noqa: ARG002 - knows its members
        """Return an empty pool."""
        return _TwoChoices(draw)


class _TwoChoices(_Urn):
    __slots__ = ()

    def choose(self, key: bytes | None) -> Member[Any]:  # noqa: ARG002 - the protocol's
        members, draw = self._members, self._draw
        number = len(members)
        first = int(draw() * number)
        if number == 1:
            return members[first]
        second = int(draw() * (number - 1))
        second += second >= first  # another one, each with equal chance
        one, other = members[first], members[second]
        return other if other.outstanding < one.outstanding else one
