"""kazoo as most programs use it: an ephemeral node made at the start, and made again after KazooState.LOST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import NodeExistsError

from benchmarks.contender import SESSION_TIMEOUT, Tell
from benchmarks.workload import Sample

PATIENCE = 60.0


class NaiveKazoo:
    """Registers; a contender for the faults only."""

    def __init__(self) -> None:
        self.client: KazooClient
        self.registered: Sequence[Sample] = ()
        self.lost = False

    async def open(self, address: str) -> None:
        self.client = KazooClient(address, timeout=SESSION_TIMEOUT)
        self.client.add_listener(self._state_changed)
        self.client.start(timeout=PATIENCE)

    async def cold_sync(self, service: str) -> list[Any]:
        raise NotImplementedError

    async def follow(self, service: str, tell: Tell) -> None:
        raise NotImplementedError

    async def register(self, samples: Sequence[Sample]) -> None:
        self.registered = samples
        self._publish()

    async def close(self) -> None:
        self.client.stop()
        self.client.close()

    def _state_changed(self, state: str) -> None:
        if state == KazooState.LOST:
            self.lost = True
        elif state == KazooState.CONNECTED and self.lost:
            self.lost = False
            self.client.handler.spawn(self._publish)

    def _publish(self) -> None:
        for sample in self.registered:
            try:
                self.client.create(sample.path, sample.document, ephemeral=True, makepath=True)
            except NodeExistsError:
                self.client.set(sample.path, sample.document)


def contender() -> NaiveKazoo:
    return NaiveKazoo()
