"""Lets some members have less than the share that a strategy gives them. Pure.

The strategy chooses as if all members had their full weight. A choice of weight w is accepted with probability w;
otherwise the strategy chooses again. So each member's share is the strategy's own share times the weight, and a pick
looks at chosen members only. Chance decides each time, so a tiny weight never means never. (In Envoy's scheduler, which
orders endpoints by deadlines, an endpoint of a tiny weight could wait for its first turn for ever.)

For a key, the key decides instead of chance. The same key gets the same answer in every process while the weights stay
the same, and moves once while a weight grows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, TypeVar

from ._keys import share
from ._members import Census, Member
from ._strategies import NOBODY, Draw, Pool, Strategy

__all__ = ["choose_reduced", "reduced_in", "thinned", "weight_of_member"]

P = TypeVar("P")

_DRAWS: Final = 32
"""Choices at most; after them one of the refused ones is accepted, in proportion to their weights. If half of the
members weigh 0.1, a pick takes two choices on average, and 32 do not suffice once in a hundred million."""

_KEYED_DRAWS: Final = 8
"""The same for a key, for which each further choice costs more."""


weight_of_member: Final[Callable[[Member[Any]], float]] = attrgetter("weight")
"""The part of its share that a member gets by an operator's word."""

_NOT_HERE: Final[Mapping[str, Member[Any]]] = MappingProxyType({})


def reduced_in(strategy: Strategy[Any], census: Census) -> Mapping[str, Member[Any]]:
    """Return the members whose weights are to be obeyed by the maker of a pool of *strategy*.

    They are all that weigh less than 1, and change with *census*. They are not members for a strategy that contains
    another: it obeys them itself, as it asks the inner one. So a key that :class:`Sticky` remembers stays where it is,
    and a zone carries what the weights of its instances add up to.
    """
    return _NOT_HERE if getattr(strategy, "weighs_inner", False) else census.reduced


def choose_reduced(pool: Pool[P], key: bytes | None, exclude: frozenset[str], draw: Draw) -> Member[P] | None:
    """Return one of *pool*, in proportion to the weights that operators gave as well."""
    return thinned(pool, key, exclude, weight_of_member, draw, b"override")


def thinned(
    pool: Pool[P],
    key: bytes | None,
    exclude: frozenset[str],
    weight: Callable[[Member[P]], float],
    draw: Draw,
    salt: bytes,
) -> Member[P] | None:
    """Return one of *pool*, as its strategy chooses, in proportion to *weight* as well.

    Args:
        pool: whose strategy chooses.
        key: the key of the call, for a strategy that takes one; else None. A member of weight w keeps that part
            of its own keys then.
        exclude: ids of members that are not to be chosen.
        weight: of a member, above 0 and at most 1.
        draw: random numbers, 0 <= number < 1.
        salt: names the kind of weight, so that two kinds decide about a key independently.
    """
    member = pool.choose(key, exclude)
    if member is None or (weighs := weight(member)) >= 1 or len(pool) == 1:
        return member
    if key is not None:
        return _by_key(pool, key, exclude, weight, salt, member)
    tried: list[tuple[Member[Any], float]] = []
    for _ in range(_DRAWS):
        if draw() < weighs:
            return member
        tried.append((member, weighs))
        member = pool.choose(None, exclude)
        assert member is not None
        weighs = weight(member)
        if weighs >= 1:
            return member
    return _one_of(tried, draw)


def _one_of(tried: list[tuple[Member[Any], float]], draw: Draw) -> Member[Any]:
    rest = draw() * sum(weighs for _, weighs in tried)
    for member, weighs in tried:
        rest -= weighs
        if rest < 0:
            return member
    return tried[-1][0]


def _by_key(
    pool: Pool[P],
    key: bytes,
    exclude: frozenset[str],
    weight: Callable[[Member[P]], float],
    salt: bytes,
    member: Member[P],
) -> Member[P]:
    nearest, best, tried = member, _stretched(key, member, weight, salt), NOBODY
    for _ in range(_KEYED_DRAWS):
        if best < 1:
            break
        tried |= {member.id}
        another = pool.choose(key, exclude | tried)
        if another is None:
            break
        member, stretched = another, _stretched(key, another, weight, salt)
        if stretched < best:
            nearest, best = member, stretched
    return nearest


def _stretched(key: bytes, member: Member[P], weight: Callable[[Member[P]], float], salt: bytes) -> float:
    """Return a number that belongs to the key, the member and the salt; below 1 with the chance of the weight."""
    id = member.id.encode("utf-8", "surrogatepass")
    return share(b"%b:%d:%b%b" % (salt, len(key), key, id)) / weight(member)
