"""Balancers, as users see them.

A balancer's driver (:mod:`.balancer_driver`) follows the view and has the instances.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Generic, TypeVar

from aioregistry._arguments import key_and_timeout
from aioregistry._errors import InvalidArgument
from aioregistry._reprs import shown_half_made

from .balancer_driver import BalancerDriver
from .pick import Pick

__all__ = ["PANIC", "Balancer", "BaseBalancer"]

P = TypeVar("P")

PANIC: Final = 0.5
"""The default of :meth:`aioregistry.View.balancer`'s ``panic``: that of Envoy's ``healthy_panic_threshold``."""


@shown_half_made
class BaseBalancer(Generic[P]):
    """The part of a balancer that does not wait: it is the same for tasks and for threads without a loop."""

    def __init__(self, driver: BalancerDriver[P]) -> None:
        self._driver = driver

    @property
    def refused(self) -> Mapping[str, InvalidArgument]:
        """The instances that are never picked because of their published data, and why, by id."""
        return self._driver.refused

    @property
    def set_aside(self) -> Mapping[str, float]:
        """The instances that are set aside for having failed, and for how many seconds more, by id."""
        return self._driver.set_aside

    @property
    def in_panic(self) -> bool:
        """Whether failing instances and suspects are picked like all others now, because too few instances are well."""
        return self._driver.picker.in_panic

    @property
    def warming_up(self) -> Mapping[str, float]:
        """The present weights of new instances, by id, from the least weight to 1; empty without WarmUp."""
        return self._driver.warming_up

    def pick(self, key: str | bytes | None = None, *, exclude: Collection[str] = ()) -> Pick[P]:
        """Return an instance at once; use it as a ``with`` block around the call.

        Args:
            key: the key, for the strategies that choose by one (:class:`~aioregistry.Ring`,
                :class:`~aioregistry.Sticky`), and only for them. A string is the same key as its UTF-8.
            exclude: the ids of instances that are not to be picked, because they were tried for the same call, say. If
                they are all instances of the zone, another zone's are picked; if they are all confirmed ones, suspects
                are. A key goes to its next instance. The cost of a pick grows with their number.

        Raises:
            NoInstances: no instance can be picked; says whether the service is empty, or why.
            InvalidArgument: *key* is of the wrong type, is missing, or is given to a strategy without keys; or
                *exclude* is not a collection of ids.
            RegistryError: the strategy is the caller's own, and raised.
            HandleClosed: the view was closed.
        """
        return self._driver.pick(key, exclude)

    def __repr__(self) -> str:
        return f"<Balancer of {self._driver.picker!r}>"


class Balancer(BaseBalancer[P]):
    """Chooses among the instances of a view, which feeds it; made by :meth:`View.balancer`.

    It needs no closing: it ends with its view, and one that is dropped costs nothing. While the registry is away it
    goes on with the last known instances, as the view does.

    A balancer refuses an instance whose weight is unfit (negative, not a number), whose address leads nowhere
    (10.0.0.07, ``a b``), or for which a function of the caller's fails. Such an instance is never picked, is logged,
    and is reported to the hook as ``discovery.refused``; others are not affected. An instance that publishes no address
    is picked.
    """

    async def pick_when_available(
        self,
        first: str | bytes | float | None = None,
        /,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Pick[P]:
        """Return an instance as soon as there is one to pick, at once if there is. Cancelling leaves nothing behind.

        Args:
            first: the key, or the timeout, without its name.
            key: as :meth:`pick` takes it.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: no instance came in time; its ``__cause__`` is the :class:`NoInstances` that says why.
            InvalidArgument: as :meth:`pick` does.
            HandleClosed: the view was closed meanwhile.
        """
        key, timeout = key_and_timeout(first, key, timeout)
        return await self._driver.pick_when_available(key, timeout)
