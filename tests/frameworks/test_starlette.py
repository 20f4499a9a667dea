"""Starlette applications on uvicorn and a real ZooKeeper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from aioregistry import InvalidArgument, Registry, ServiceInstance, UsageError
from aioregistry.integrations.starlette import Membership, lifespan, membership, readiness, registry, view
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.frameworks.load import TIMEOUT, served


async def users(request: Request) -> JSONResponse:
    found = view(request, "users").snapshot
    return JSONResponse({"services": await registry(request).services(), "users": list(found)})


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(list(view(websocket, "users").snapshot))
    await websocket.close()


async def drain(request: Request) -> JSONResponse:
    await membership(request).drain()
    return await readiness(request)


def application(servers: str, port: int, **options: Any) -> Starlette:
    routes = [
        Route("/users", users),
        Route("/ready", readiness),
        Route("/drain", drain, methods=["POST"]),
        WebSocketRoute("/talk", talk),
    ]
    member = Membership(servers, "api", port=port, discover=["users"], drain=0, **options)
    return Starlette(routes=[*routes, Mount("/below", routes=routes)], lifespan=lifespan(member))


async def test_registry_and_views_in_requests_and_websockets(
    servers: str, port: int, registry: Registry, http: aiohttp.ClientSession
) -> None:
    async with (
        registry.register(ServiceInstance("users", id="a")),
        served(application(servers, port, wait=True), port) as url,
        registry.discover("api") as api,
    ):
        await api.wait_for(lambda snapshot: f"127.0.0.1:{port}" in snapshot, TIMEOUT)
        for prefix in ("", "/below"):
            async with http.get(f"http://{url}{prefix}/users") as response:
                assert await response.json() == {"services": ["api", "users"], "users": ["a"]}
        async with http.ws_connect(f"ws://{url}/talk") as websocket:
            assert await websocket.receive_json() == ["a"]


async def test_readiness_follows_the_registration(
    servers: str, port: int, registry: Registry, http: aiohttp.ClientSession
) -> None:
    async with served(application(servers, port, wait=True), port) as url:
        async with registry.discover("api") as api:  # it listens, and then is listed
            await api.wait_for(lambda snapshot: len(snapshot) == 1, TIMEOUT)
        async with http.get(f"http://{url}/ready") as response:
            assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")
            assert await response.json() == {"ready": True, "status": "live", "reason": None}
        async with http.post(f"http://{url}/drain") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "draining"


async def test_it_starts_while_zookeeper_is_away(proxy: ZooKeeperProxy, port: int, http: aiohttp.ClientSession) -> None:
    proxy.refuse()
    async with served(application(proxy.address, port), port) as url, http.get(f"http://{url}/ready") as response:
        assert response.status == 503
        assert (await response.json())["status"] == "starting"


async def test_the_own_lifespan_runs_within(servers: str, port: int, registry: Registry) -> None:
    events: list[object] = []
    member = Membership(servers, "api", port=port, discover=["users"], drain=0, wait=True)

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[dict[str, str]]:
        events.append(("startup", len(member.view("users").snapshot), await listed()))
        yield {"own": "state"}
        events.append(("shutdown", len(member.view("users").snapshot), await listed()))

    async def listed() -> bool:
        return bool(await api.sync())

    run = lifespan(member, own)
    async with registry.discover("api") as api:
        for _ in range(2):
            async with run(Starlette()) as state:
                events.append((state, await listed()))
    given = {"own": "state", "aioregistry": member}
    assert events == [("startup", 0, False), (given, True), ("shutdown", 0, False)] * 2


async def test_a_startup_that_fails_leaves_nothing_behind(servers: str, registry: Registry) -> None:
    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[None]:
        raise OSError("no disk")
        yield

    member = Membership(servers, "api", port=8000, check_port=False, wait=True)
    with pytest.raises(OSError, match="no disk"):
        await lifespan(member, own)(Starlette()).__aenter__()
    assert await registry.services() == []
    with pytest.raises(UsageError, match="comes first"):
        await member.announce()


async def test_an_error_of_the_server_still_withdraws(servers: str, registry: Registry) -> None:
    member = Membership(servers, "api", port=8000, check_port=False, wait=True, drain=0)
    running = lifespan(member)(Starlette())
    async with registry.discover("api") as api:
        await running.__aenter__()
        assert len(await api.sync()) == 1
        error = OSError("no socket")
        assert not await running.__aexit__(OSError, error, None)
        assert len(await api.sync()) == 0


def test_without_the_lifespan_it_says_what_to_do() -> None:
    connection = HTTPConnection({"type": "http", "app": Starlette()})
    with pytest.raises(UsageError, match=r"lifespan=lifespan\(membership\)"):
        membership(connection)


@pytest.mark.parametrize(("field", "arguments"), [("membership", [None]), ("within", [None, 7])])
def test_a_wrong_argument_is_named(field: str, arguments: list[Any]) -> None:
    if field == "within":
        arguments[0] = Membership("127.0.0.1", "api", port=8000)
    with pytest.raises(InvalidArgument, match=f"{field}="):
        lifespan(*arguments)
