"""FastAPI applications on uvicorn and a real ZooKeeper."""

from __future__ import annotations

from typing import Annotated

import aiohttp
import msgspec
from fastapi import Depends, FastAPI, WebSocket

from aioregistry import Registry, ServiceInstance, View
from aioregistry.integrations.fastapi import Membership, lifespan, membership, readiness, registry, view
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.frameworks.load import TIMEOUT, served


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
            assert await response.json() == {"ready": False, "status": "starting", "reason": detail}
