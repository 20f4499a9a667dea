"""A pytest plugin that lets kazoo's own tests run on an embedded ensemble, in the place of Java processes."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from aioregistry.server import Ensemble
from tests.support.embedded import Served, in_thread

# This one alone: pytest's own --deselect takes all whose names begin like that.
HURRIED = {"test_queue.py::KazooLockingQueueTests::test_concurrent_execution": "gives its threads 0.2 s"}


class HandedOver(threading.Condition):
    """A condition that nobody enters before all that were notified have looked.

    The tests of locks wait until a lock has no holder.
    With Python's own condition its next holder may enter before the waiting thread runs, which then waits for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting = self._notified = 0

    def __enter__(self) -> bool:
        entered = super().__enter__()
        while self._notified:
            self.release()
            time.sleep(0.001)
            self.acquire()
        return entered

    def wait(self, timeout: float | None = None) -> bool:
        self._waiting += 1
        try:
            return super().wait(timeout)
        finally:
            self._waiting -= 1
            self._notified = max(0, self._notified - 1)

    def notify_all(self) -> None:
        self._notified = self._waiting
        super().notify_all()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    hurried = [item for item in items if item.nodeid.endswith(tuple(HURRIED))]
    config.hook.pytest_deselected(items=hurried)
    items[:] = [item for item in items if item not in hurried]
    for tests in {item.cls for item in items if isinstance(item, pytest.Function) and item.cls is not None}:
        if hasattr(tests, "make_condition"):
            tests.make_condition = staticmethod(HandedOver)


def count(name: str) -> int:
    """How many objects there are of a type of this name."""
    return sum(type(thing).__name__ == name for thing in gc.get_objects())


# The modules that kazoo's tests import beside pytest: the first two make certificates for Java processes that do not
# run here, the last would only count objects.
for absent in ("OpenSSL", "jks", "objgraph"):
    sys.modules[absent] = ModuleType(absent)
vars(sys.modules["objgraph"])["count"] = count

import kazoo.testing.harness  # noqa: E402


class Server:
    """A server as kazoo's tests know it: its address, and how to stop and start it."""

    def __init__(self, ensemble: Served[Ensemble], number: int) -> None:
        self._ensemble = ensemble
        self._number = number
        self.address = self._member(lambda member: member.address)

    @property
    def running(self) -> bool:
        return bool(self._member(lambda member: member.running))

    def run(self) -> None:
        self._ensemble.run(lambda ensemble: ensemble.members[self._number].start())

    def stop(self) -> None:
        self._ensemble.run(lambda ensemble: ensemble.members[self._number].stop())

    def _member(self, use: Any) -> Any:
        return self._ensemble.call(lambda ensemble: use(ensemble.members[self._number]))


class Cluster(list[Server]):
    """All of them; they stay from test to test."""

    def start(self) -> None:
        for server in self:
            if not server.running:
                server.run()

    def stop(self) -> None:
        """They stay."""

    terminate = reset = stop

    def get_logs(self) -> list[str]:
        return []


@pytest.fixture(scope="session", autouse=True)
def embedded_cluster() -> Iterator[None]:
    # Two seconds are kazoo's own ticks; what it expects of timeouts comes from there.
    with in_thread(Ensemble(3, tick_time=2.0, max_connections_per_client=0), Served[Ensemble]) as ensemble:
        cluster = Cluster(Server(ensemble, number) for number in range(3))
        kazoo.testing.harness.get_global_cluster = lambda: cluster
        yield
