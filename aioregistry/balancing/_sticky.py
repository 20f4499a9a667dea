"""Keys that stay with the instance they were given first."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar

from aioregistry._arguments import check_count
from aioregistry._model import ServiceInstance
from aioregistry._reprs import shown_half_made

from ._members import Census, Member, Traits
from ._strategies import NOBODY, Draw, Pool, Remembering, Strategy, check_strategy
from ._thinning import choose_reduced, reduced_in

__all__ = ["Sticky"]

P = TypeVar("P")

_LONGEST: Final = 32
"""Bytes of the longest key that is kept as it is; of longer ones a digest, longer by one, so that it is not a key."""


@shown_half_made
class Sticky(Generic[P]):
    """Another strategy makes a key's first pick; later picks give the same instance, for as long as it can be picked.

    Unlike with :class:`Ring`, no key moves to an instance that comes, and you choose the strategy; but only this
    process remembers the keys, with at most 33 bytes of each. A pick costs O(1), and the cost of the other strategy.

    Args:
        strategy: chooses for keys that are new, and for those whose instance is gone, disabled, set aside or excluded
            from the pick: the key then stays with the new instance.
        keys: the number of keys to remember; beyond that the least recently used one is forgotten.

    Raises:
        InvalidArgument: an argument is wrong.
    """

    __slots__ = ("keys", "strategy")
    keyed = True
    weighs_inner = True

    def __init__(self, strategy: Strategy[P], *, keys: int = 100_000) -> None:
        check_strategy("strategy", strategy)
        check_count("keys", keys)
        self.strategy: Strategy[P] = strategy
        self.keys: int = keys

    def traits(self, instance: ServiceInstance[P]) -> Traits:
        """Return the traits of the inner strategy."""
        return self.strategy.traits(instance)

    def pool(self, draw: Draw, census: Census) -> Pool[Any]:
        """Return an empty pool."""
        return _Memory(self, draw, census)

    def __repr__(self) -> str:
        return f"Sticky({self.strategy!r})"


class _Memory:
    __slots__ = ("_draw", "_inner", "_keyed", "_keys", "_members", "_reduced", "_remembered")

    def __init__(self, sticky: Sticky[Any], draw: Draw, census: Census) -> None:
        self._reduced = reduced_in(sticky.strategy, census)
        self._draw = draw
        self._keyed = sticky.strategy.keyed
        self._inner = sticky.strategy.pool(draw, census)
        self._keys = sticky.keys
        self._members: dict[str, Member[Any]] = {}
        # By id: a restarted instance has its keys again. The instance's present state is looked up when it is needed.
        self._remembered: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._inner)

    def add(self, member: Member[Any]) -> None:
        self._members[member.id] = member
        self._inner.add(member)

    def discard(self, member: Member[Any]) -> None:
        del self._members[member.id]
        self._inner.discard(member)

    def remember_with(self, other: _Memory) -> None:
        self._remembered = other._remembered
        if isinstance(self._inner, Remembering):
            self._inner.remember_with(other._inner)

    def choose(self, key: bytes | None, exclude: frozenset[str] = NOBODY) -> Member[Any] | None:
        assert key is not None
        remembered = self._remembered
        kept = key if len(key) <= _LONGEST else blake2b(key, digest_size=_LONGEST + 1).digest()
        id = remembered.get(kept)
        member = None if id is None or id in exclude else self._members.get(id)
        if member is None:
            if self._reduced:
                member = choose_reduced(self._inner, key if self._keyed else None, exclude, self._draw)
            else:
                member = self._inner.choose(key, exclude)
            if member is None:
                return None
            remembered[kept] = member.id
        remembered.move_to_end(kept)
        if len(remembered) > self._keys:
            remembered.popitem(last=False)
        return member
