"""The routes, as an ASGI server asks them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

import aioregistry
from aioregistry import InvalidArgument, Registry, ServiceInstance, Snapshot
from aioregistry.integrations.exports import Exports
from aioregistry.integrations.membership import Membership
from aioregistry.testing._ports import ReservedPort
from tests.support.zookeeper import ZooKeeperServer

CHAT = ServiceInstance("chat", address="10.0.0.7", port=7000)


@pytest.fixture
async def registry(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[Registry]:
    async with aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=60) as registry:
        yield registry


def asking(app: Exports) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=cast(Any, app)), base_url="http://sd")


async def test_what_is_listed_is_answered(registry: Registry) -> None:
    async with contextlib.AsyncExitStack() as stack:
        views = {name: await stack.enter_async_context(registry.discover(name)) for name in ("chat", "api")}
        chat = views["chat"]
        async with asking(Exports(views)) as client:
            empty = await client.get("/prometheus")
            assert (empty.status_code, empty.headers["content-type"], empty.text) == (200, "application/json", "[]\n")
            async with registry.register(CHAT):
                await chat.wait_for(bool, timeout=20)
                groups = (await client.get("/sd/prometheus")).json()
                assert [group["targets"] for group in groups] == [["10.0.0.7:7000"]]
                assert (await client.get("/prometheus", params={"service": "api"})).json() == []
                assert list((await client.get("/json", params={"service": "chat"})).json()) == ["chat"]
                for format in ("envoy", "haproxy", "nginx"):
                    answer = await client.get(f"/{format}/")
                    assert answer.status_code == 200
                    assert "10.0.0.7" in answer.text
                head = await client.head("/prometheus")
                assert (head.status_code, head.text) == (200, "")
            assert (await client.get("/prometheus", params={"service": "nosuch\n"})).status_code == 404
            assert (await client.get("/nosuch")).status_code == 404
            assert (await client.post("/prometheus")).status_code == 405


async def test_what_an_operator_says_of_weights_is_answered(registry: Registry) -> None:
    other = ServiceInstance("chat", address="10.0.0.8", port=7000)
    told = {0.5: ["10.0.0.7:7000 weight=50;", "10.0.0.8:7000 weight=100;"], 0.0: ["10.0.0.8:7000;"]}
    async with (
        registry.register(CHAT),
        registry.register(other),
        registry.discover("chat") as chat,
        asking(Exports({"chat": chat})) as client,
    ):
        for weight, expected in told.items():
            await registry.overrides.drain("chat", CHAT.id, reason="canary", weight=weight)

            def is_seen(snapshot: Snapshot[Any], weight: float = weight) -> bool:
                return CHAT.id in snapshot.entries and snapshot.entries[CHAT.id].weight == weight

            await chat.wait_for(is_seen, timeout=100)
            lines = [line.strip() for line in (await client.get("/nginx")).text.splitlines()]
            assert [line.removeprefix("server ") for line in lines if line.startswith("server ")] == expected


async def test_503_while_it_was_never_synced() -> None:
    with ReservedPort() as port:
        membership = Membership(
            f"127.0.0.1:{port.number}",
            "api",
            address="127.0.0.1",
            port=7000,
            discover=["chat"],
            check_port=False,
            drain=0,
        )
        async with membership, asking(Exports(membership, "chat")) as client:
            answer = await client.get("/prometheus")
            assert answer.status_code == 503
            assert answer.text


async def test_a_lifespan_is_answered() -> None:
    said: list[str] = []
    asked = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, Any]:
        return {"type": next(asked)}

    async def send(message: Any) -> None:
        said.append(message["type"])

    async with asyncio.timeout(20):
        await Exports({"chat": None})({"type": "lifespan"}, receive, send)  # type: ignore[dict-item]
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("arguments", [(None,), ({},), ({"chat": None}, "api"), ({"chat": None}, 7)])
def test_what_is_wrong_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidArgument):
        Exports(*arguments)
