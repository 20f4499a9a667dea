"""aiozk's own client: gathered reads, and every own node looked at again after each reconnect."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any

from aiozk import ZKClient, exc
from aiozk.states import States

from benchmarks.contender import SESSION_TIMEOUT, Tell
from benchmarks.workload import BASE_PATH, Sample


class Aiozk:
    """Registers and reads. Its watcher lists everything again at each change: nothing to follow with."""

    def __init__(self) -> None:
        self.client: ZKClient
        self.keeper: asyncio.Task[None] | None = None

    async def open(self, address: str) -> None:
        self.client = ZKClient(address, session_timeout=SESSION_TIMEOUT)
        await self.client.start()

    async def cold_sync(self, service: str) -> list[Any]:
        path = f"{BASE_PATH}/{service}"
        names = await self.client.get_children(path, watch=True)
        documents = await asyncio.gather(*(self.client.get_data(f"{path}/{name}", watch=True) for name in names))
        return [json.loads(document)["payload"] for document in documents]

    async def follow(self, service: str, tell: Tell) -> None:
        raise NotImplementedError

    async def register(self, samples: Sequence[Sample]) -> None:
        await self._publish(samples)
        self.keeper = asyncio.create_task(self._keep(samples))

    async def close(self) -> None:
        if self.keeper is not None:
            self.keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.keeper
        await self.client.close()

    async def _keep(self, samples: Sequence[Sample]) -> None:
        state = self.client.session.state
        while True:
            await state.wait_for(States.SUSPENDED, States.LOST)
            await state.wait_for(States.CONNECTED)
            await self._publish(samples)

    async def _publish(self, samples: Sequence[Sample]) -> None:
        await self.client.ensure_path(f"{BASE_PATH}/{samples[0].service}")
        await asyncio.gather(*map(self._publish_one, samples))

    async def _publish_one(self, sample: Sample) -> None:
        with contextlib.suppress(exc.NoNode):
            _, stat = await self.client.get(sample.path)
            if stat.ephemeral_owner == self.client.session.session_id:
                return
            await self.client.delete(sample.path, force=True)
        await self.client.create(sample.path, sample.document, ephemeral=True)


def contender() -> Aiozk:
    return Aiozk()
