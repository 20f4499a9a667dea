"""A balancer for threads that wait for an instance without a loop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from aioregistry._arguments import key_and_timeout
from aioregistry._concurrency import SHORTEST_WAIT
from aioregistry._errors import NoInstances, RequestTimeout
from aioregistry._reprs import shown_half_made

if TYPE_CHECKING:
    from aioregistry._discovery.balancer import Balancer
    from aioregistry._discovery.pick import Pick
    from aioregistry._errors import InvalidArgument
    from aioregistry._model import Snapshot

    from .streams import BlockingStream

__all__ = ["BlockingBalancer"]

P = TypeVar("P")

_NAP: Final = 1.0
"""Seconds after which a thread that waits for an instance looks again: another thread's answer does not wake it."""


@shown_half_made
class BlockingBalancer(Generic[P]):
    """Chooses among the instances of a view, which feeds it; made by the view's ``balancer()``.

    Any number of threads may pick from it. It needs no closing: it ends with its view.
    """

    def __init__(
        self,
        balancer: Balancer[P],
        snapshots: Callable[[], BlockingStream[Snapshot[P]]],
        outage_attempts: Callable[[], Mapping[str, str]],
    ) -> None:
        self._shared, self._snapshots, self._outage_attempts = balancer, snapshots, outage_attempts

    @property
    def refused(self) -> Mapping[str, InvalidArgument]:
        """The instances that are never picked because of their published data, and why, by id."""
        return self._shared.refused

    @property
    def set_aside(self) -> Mapping[str, float]:
        """The instances that are set aside for having failed, and for how many seconds more, by id."""
        return self._shared.set_aside

    @property
    def in_panic(self) -> bool:
        """Whether failing instances and suspects are picked like all others now, because too few instances are well."""
        return self._shared.in_panic

    @property
    def warming_up(self) -> Mapping[str, float]:
        """The weights of new instances, from the least weight to 1, by id; empty unless the strategy is a WarmUp."""
        return self._shared.warming_up

    def pick(self, key: str | bytes | None = None, *, exclude: Collection[str] = ()) -> Pick[P]:
        """Return an instance at once; use it as a ``with`` block around the call.

        Args:
            key: the key, for the strategies that choose by one (``Ring``, ``Sticky``), and only for them. A string is
                the same key as its UTF-8.
            exclude: the ids of instances that are not to be picked, because they were tried for the same call, say.
                The cost of a pick grows with their number.

        Raises:
            NoInstances: no instance can be picked; says whether the service is empty, or why.
            InvalidArgument: *key* is of the wrong type, is missing, or is given to a strategy without keys; or
                *exclude* is not a collection of ids.
            RegistryError: the strategy is the caller's own, and raised.
            HandleClosed: the view was closed.
        """
        return self._shared.pick(key, exclude=exclude)

    def pick_when_available(
        self,
        first: str | bytes | float | None = None,
        /,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Pick[P]:
        """Return an instance as soon as there is one to pick, at once if there is; this thread waits for it.

        Args:
            first: the key, or the timeout, without its name.
            key: as :meth:`pick` takes it.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            RequestTimeout: no instance came in time; its ``__cause__`` is the :class:`~aioregistry.NoInstances` that
                says why.
            InvalidArgument: as :meth:`pick` does.
            HandleClosed: the view was closed meanwhile.
        """
        key, timeout = key_and_timeout(first, key, timeout)
        until = math.inf if timeout is None else time.monotonic() + timeout
        with self._snapshots() as snapshots:
            while True:
                try:
                    return self.pick(key)
                except NoInstances as error:
                    left = until - time.monotonic()
                    if left <= 0:
                        message = f"nothing to pick within timeout={timeout} s: {error}"
                        raise RequestTimeout(message, self._outage_attempts()) from error
                    back = error.returns_in
                with contextlib.suppress(RequestTimeout, StopIteration):  # a closed view refuses the next pick
                    snapshots.next(min(left, _NAP if back is None else max(back, SHORTEST_WAIT), _NAP))

    def __repr__(self) -> str:
        return repr(self._shared)
