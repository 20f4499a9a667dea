"""A process that forks while it is registered: `python -m tests.integration.forking SERVERS`.

The child says, as a line of JSON, what it was told for using its parent's handles, and who was registered while it was
registered itself, through handles of its own; then the parent says how it fares.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import aioregistry
from aioregistry import Registration, Registry, ServiceInstance, UsageError, View
from tests.support.inside import session_of


def instance(id: str) -> ServiceInstance[Any]:
    return ServiceInstance("chat", id=id, address="127.0.0.1", port=7000)


def told(use: Callable[[], Any]) -> str:
    """The error that *use* gets, at once or when it is first awaited."""
    try:
        result = use()
        if inspect.iscoroutine(result):
            result.send(None)
    except UsageError as error:
        return str(error)
    return "nothing"


async def registered(servers: str) -> list[str]:
    async with (
        aioregistry.connect(servers) as registry,
        registry.register(instance("child")),
        registry.discover("chat") as view,
    ):
        return sorted(view.snapshot)


def be_child(servers: str, registry: Registry, registration: Registration[Any], view: View[Any]) -> None:
    uses: dict[str, Callable[[], Any]] = {
        "register": lambda: registry.register(instance("other")),
        "services": registry.services,
        "update": lambda: registration.update(payload=1),
        "snapshot": lambda: view.snapshot,
        "sync": view.sync,
        "leave": view.aclose,
        "withdraw": registration.aclose,
        "close": registry.aclose,
    }
    said = {"told": {name: told(use) for name, use in uses.items()}, "registered": asyncio.run(registered(servers))}
    print(json.dumps(said), flush=True)


async def main(servers: str) -> None:
    async with (
        aioregistry.connect(servers) as registry,
        registry.register(instance("parent")) as registration,
        registry.discover("chat") as view,
    ):
        child = os.fork()
        if child == 0:
            try:
                be_child(servers, registry, registration, view)
            except BaseException:  # noqa: BLE001 - whatever it is: the child must not go on as its parent
                traceback.print_exc()
            finally:
                os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        listed = sorted(await view.sync())
        state = {"status": registration.status.name, "connections": session_of(registry).generation, "listed": listed}
        print(json.dumps(state), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
