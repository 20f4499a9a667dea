"""Which instances are handed on, and when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry._model import Entry, ServiceInstance
from aioregistry.balancing import serves

__all__ = ["ALIKE", "Quiet", "Selection", "Services", "Weights", "selected", "usable", "weights_of"]

Services = Mapping[str, tuple[ServiceInstance[Any], ...]]

Weights = Mapping[str, float]
"""The weights that an operator gave to instances, from 0 to 1, by id; those of weight 1 need not be in it."""

ALIKE: Final[Weights] = MappingProxyType({})
"""Every instance weighs 1."""


def weights_of(entries: Iterable[Entry[Any]]) -> Weights:
    """Return the weights of the entries' instances."""
    return {entry.instance.id: entry.weight for entry in entries if entry.weight < 1}


def usable(instances: Iterable[ServiceInstance[Any]], weights: Weights = ALIKE) -> tuple[ServiceInstance[Any], ...]:
    """Return those that are to be sent work and say where, by id; those of weight 0 are not."""
    found = (each for each in instances if serves(each) and each.address and (each.port or each.ssl_port))
    return tuple(sorted((each for each in found if weights.get(each.id, 1.0)), key=lambda instance: instance.id))


class Selection(NamedTuple):
    """The targets that are handed on."""

    services: Services | None
    """None: nothing, since there is no service, or too little of one, and nothing was handed on before."""
    collapsed: tuple[str, ...] = ()
    """The services of which there are fewer than is believed: their former instances are handed on."""
    waiting: tuple[str, ...] = ()
    """The services of which there never were as many as is believed: they are not handed on yet."""


def selected(present: Services, former: Services | None, *, minimum: int) -> Selection:
    """Return the instances to hand on: *present*, but of a service with fewer than *minimum* its *former* ones.

    A service that is not present any more has no instances, which is fewer than any *minimum* but 0. One that is new,
    and has too few instances, holds up no other: it is left out until it has enough. Only at the start, where nothing
    was handed on before, nothing is handed on until all have enough.

    Args:
        present: the instances of each service that there is.
        former: the instances that were handed on last, or None.
        minimum: instances of a service that are believed.
    """
    few = [name for name in {**present, **(former or {})} if len(present.get(name, ())) < minimum]
    if former is None:
        nothing = few or (not present and minimum > 0)
        return Selection(None if nothing else present, waiting=tuple(few))
    collapsed = tuple(name for name in few if name in former)
    waiting = tuple(name for name in few if name not in former)
    enough = {name: instances for name, instances in present.items() if name not in waiting}
    return Selection({**enough, **{name: former[name] for name in collapsed}}, collapsed, waiting)


class Quiet:
    """When to write: after *least* seconds without a change, and at most *most* seconds after the first.

    consul-template's ``wait`` does the same. It begins with the first news, so that a start waits too.
    """

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most
        self._first: float | None = None
        self._last = 0.0

    def changed(self, now: float) -> None:
        """Something changed."""
        if self._first is None:
            self._first = now
        self._last = now

    def written(self) -> None:
        """The changes so far are handed on."""
        self._first = None

    @property
    def due(self) -> float | None:
        """When to write; None while nothing has changed."""
        if self._first is None:
            return None
        return min(self._last + self._least, self._first + self._most)
