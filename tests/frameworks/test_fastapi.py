"""FastAPI applications on uvicorn and a real ZooKeeper."""

from __future__ import annotations

import asyncio
import functools
from typing import Annotated, Any

import aiohttp
import msgspec
from fastapi import Depends, FastAPI, WebSocket

from aioregistry import Check, Registry, ServiceInstance, View
from aioregistry.integrations.fastapi import Membership, lifespan, membership, readiness, registry, view
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.frameworks.load import TIMEOUT, served, shown_checks


class User(msgspec.Struct):
    name: str


Users = Annotated[View[User], Depends(view("users"))]


async def names(users: Users) -> list[str]:
    return [instance.payload.name for instance in users.snapshot.values()]


async def services(registry: Annotated[Registry, Depends(registry)]) -> list[str]:
    return await registry.services()


async def myself(member: Annotated[Membership, Depends(membership)]) -> str:
    return member.registration.instance.id


async def talk(websocket: WebSocket, users: Users) -> None:
    await websocket.accept()
    await websocket.send_json(await names(users))
    await websocket.close()


def application(member: Membership) -> FastAPI:
    app = FastAPI(lifespan=lifespan(member))
    app.get("/names")(names)
    app.get("/services")(services)
    app.get("/myself")(myself)
    app.get("/ready")(readiness)
    app.add_api_websocket_route("/talk", talk)
    return app


async def test_dependencies(servers: str, port: int, registry: Registry, http: aiohttp.ClientSession) -> None:
    member = Membership(servers, "api", port=port, discover={"users": User}, drain=0)
    async with (
        registry.register(ServiceInstance("users", id="a", payload={"name": "Ada"})),
        served(application(member), port) as url,
        registry.discover("api") as api,
    ):
        await api.wait_for(lambda snapshot: len(snapshot) == 1, TIMEOUT)
        answers = {"names": ["Ada"], "services": ["api", "users"], "myself": f"127.0.0.1:{port}"}
        for path, expected in answers.items():
            async with http.get(f"http://{url}/{path}") as response:
                assert await response.json() == expected
        async with http.ws_connect(f"ws://{url}/talk") as websocket:
            assert await websocket.receive_json() == ["Ada"]
        async with http.get(f"http://{url}/ready") as response:
            assert response.status == 200


async def test_before_zookeeper_answers_it_is_503(
    proxy: ZooKeeperProxy, port: int, http: aiohttp.ClientSession
) -> None:
    proxy.refuse()
    member = Membership(proxy.address, "api", port=port, discover={"users": User})
    async with served(application(member), port) as url:
        async with http.get(f"http://{url}/names") as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            detail = "the view of 'users' is not synced yet: ZooKeeper has not answered yet"
            assert await response.json() == {"detail": detail}
        async with http.get(f"http://{url}/ready") as response:
            assert response.status == 503
            answer = await response.json()
            assert answer.pop("attempts")[proxy.address]["outcome"] == "refused"
            assert answer == {"ready": False, "status": "starting", "reason": detail}


async def test_readiness_shows_each_check(servers: str, port: int, http: aiohttp.ClientSession) -> None:
    well = {"database": False, "queue": True}

    async def is_well(name: str) -> bool:
        return well[name]

    checks = {name: Check(functools.partial(is_well, name), interval=0.05, timeout=TIMEOUT, fall=1) for name in well}
    member = Membership(servers, "api", port=port, discover={"users": User}, checks=checks, drain=0)

    async def shown(status: int, states: dict[str, str]) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT):
            while True:
                async with http.get(f"http://{url}/ready") as response:
                    document: dict[str, Any] = await response.json()
                    if (response.status, shown_checks(document)) == (status, states):
                        return document
                await asyncio.sleep(0.02)

    async with served(application(member), port) as url:
        await shown(503, {"database": "starting: it returned False", "queue": "passing"})
        well["database"] = True
        document = await shown(200, {"database": "passing", "queue": "passing"})
        assert (document["ready"], document["status"]) == (True, "live")
        well["queue"] = False
        document = await shown(503, {"database": "passing", "queue": "failing: it returned False"})
        assert (document["ready"], document["status"]) == (False, "failing")
        assert document["reason"] == "check queue: it returned False"
