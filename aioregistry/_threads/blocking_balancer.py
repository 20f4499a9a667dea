"""A balancer for threads that wait for an instance without a loop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from aioregistry._arguments import key_and_timeout
from aioregistry._concurrency import SHORTEST_WAIT
from aioregistry._discovery.balancer import BaseBalancer
from aioregistry._errors import NoInstances, RequestTimeout

if TYPE_CHECKING:
    from aioregistry._discovery.pick import Pick
    from aioregistry._model import Snapshot

    from .balancer import SharedBalancerDriver
    from .streams import BlockingStream

__all__ = ["BlockingBalancer"]

P = TypeVar("P")

_NAP: Final = 1.0
"""Seconds after which a thread that waits for an instance looks again: another thread's answer does not wake it."""


class BlockingBalancer(BaseBalancer[P]):
    """Chooses among the instances of a view, which feeds it; made by the view's ``balancer()``.

    Any number of threads may pick from it. It needs no closing: it ends with its view.
    """

    def __init__(
        self,
        driver: SharedBalancerDriver[P],
        snapshots: Callable[[], BlockingStream[Snapshot[P]]],
        outage_attempts: Callable[[], Mapping[str, str]],
    ) -> None:
        super().__init__(driver)
        self._snapshots, self._outage_attempts = snapshots, outage_attempts

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
