"""A console that follows a registry, asked without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
from starlette.types import ASGIApp

import aioregistry
from aioregistry import ServiceInstance
from aioregistry._console.app import console_app
from aioregistry._console.console import Console, Settings
from aioregistry._console.following import Following
from aioregistry._console.hub import Hub
from aioregistry._console.recorder import Recorder
from aioregistry._console.store import History

DEADLINE = 60.0
ORIGIN = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}


@dataclass
class Served:
    """A console that follows, and a browser."""

    console: Console
    following: Following
    browser: httpx.AsyncClient
    app: ASGIApp

    async def csrf(self) -> str:
        text = (await self.browser.get("/")).text
        return text.partition('data-csrf="')[2].partition('"')[0]

    async def post(self, path: str, fields: Any, **headers: str) -> httpx.Response:
        own = {**ORIGIN, "x-csrf-token": await self.csrf(), "content-type": "application/json", **headers}
        # In ASCII, so that halves of characters can be sent too.
        return await self.browser.post(path, content=json.dumps(fields), headers=own)

    async def until(self, path: str, true: Callable[[Any], bool], **parameters: Any) -> Any:
        async with asyncio.timeout(DEADLINE):
            while not true(found := (await self.browser.get(path, params=parameters)).json()):
                await asyncio.sleep(0.05)
        return found


@contextlib.asynccontextmanager
async def served(servers: str, path: Path, **settings: Any) -> AsyncIterator[Served]:
    address = settings.pop("address", ("127.0.0.1", 4711))
    with Recorder(History(path, days=30, limit=2**28)) as recorder:
        hub = Hub()
        following = Following(recorder, hub)
        async with aioregistry.connect(servers, wait=False, on_event=following.on_event) as registry:
            console = Console(Settings(**settings), registry, following, recorder, hub)
            run = asyncio.create_task(following.run(registry))
            app = console_app(console)
            transport = httpx.ASGITransport(cast(Any, app), client=address)  # the lowest httpx has types of its own
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
                try:
                    # Instances that register from now on have joined; earlier ones are found.
                    async with asyncio.timeout(DEADLINE):
                        while following.unread is None:
                            await asyncio.sleep(0.02)
                    yield Served(console, following, browser, app)
                finally:
                    run.cancel()
                    await asyncio.gather(run, return_exceptions=True)


def instance(service: str, id: str, payload: object = None) -> ServiceInstance[object]:
    return ServiceInstance(service, id=id, address="10.0.0.7", port=7000, payload=payload)
