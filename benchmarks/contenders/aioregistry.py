"""aioregistry by its public names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import aioregistry
from aioregistry import Added, Registration, Registry, Removed, Resynced, ServiceInstance, Updated, View
from benchmarks.contender import ADDED, REMOVED, SESSION_TIMEOUT, UPDATED, Tell
from benchmarks.workload import Sample

PATIENCE = 60.0
KINDS: dict[type, str] = {Added: ADDED, Updated: UPDATED, Removed: REMOVED}


class Aioregistry:
    """Registers and discovers."""

    def __init__(self) -> None:
        self.registry: Registry
        self.view: View[Any]
        self.registrations: list[Registration[Any]] = []
        self.following: asyncio.Task[None] | None = None

    async def open(self, address: str) -> None:
        # One of the faults is a server that comes late.
        self.registry = await aioregistry.connect(address, session_timeout=SESSION_TIMEOUT, connect_timeout=PATIENCE)

    async def cold_sync(self, service: str) -> list[Any]:
        self.view = await self.registry.discover(service)
        return [instance.payload for instance in self.view.snapshot.values()]

    async def follow(self, service: str, tell: Tell) -> None:
        await self.cold_sync(service)
        self.following = asyncio.create_task(self._follow(tell))

    async def register(self, samples: Sequence[Sample]) -> None:
        self.registrations = [self.registry.register(instance(sample)) for sample in samples]
        await asyncio.gather(*self.registrations)

    async def close(self) -> None:
        await self.registry.aclose()
        if self.following is not None:
            await self.following

    async def _follow(self, tell: Tell) -> None:
        async with contextlib.aclosing(self.view.changes()) as changes:
            async for change in changes:
                for single in change.changes if isinstance(change, Resynced) else (change,):
                    tell(KINDS[type(single)], single.id)


def instance(sample: Sample) -> ServiceInstance[Any]:
    return ServiceInstance(sample.service, address=sample.address, port=sample.port, payload=sample.payload)


def contender() -> Aioregistry:
    return Aioregistry()
