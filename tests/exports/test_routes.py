"""The routes, as an ASGI server asks them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

import aioregistry
from aioregistry import InvalidArgument, Registry, ServiceInstance, Snapshot
from aioregistry._exports import FORMATS
from aioregistry.integrations.exports import Exports
from aioregistry.integrations.membership import Membership
from aioregistry.testing._ports import ReservedPort
from tests.cli.command import Command
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 100.0
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


async def test_what_an_ensemble_has_forgotten_is_handed_on_as_before_and_said_to_be_held(
    own_zookeeper: ZooKeeperServer, tmp_path: Path
) -> None:
    """It comes back with an older history, in which there is no instance: the guard's suspects are exported."""
    out, ids = tmp_path / "chat.json", ["a", "b", "c", "d", "e"]
    address = own_zookeeper.address
    export = ("export", "--format", "prometheus", "--out", str(out), "--wait", "0.05:1", "--zookeeper", address, "chat")
    async with Judge(address) as judge:
        for number, id in enumerate(ids):
            document = {"name": "chat", "id": id, "address": f"10.0.0.{number}", "port": 7000, "payload": {"zone": id}}
            document["sessionTimeoutMs"] = 300_000  # so long is the hold: longer than this takes on any machine
            await judge.make(f"/services/chat/{id}", json.dumps(document).encode())
        async with (
            aioregistry.connect(address, session_timeout=60) as registry,
            registry.discover("chat") as chat,
            asking(Exports({"chat": chat})) as client,
            Command(*export) as command,
        ):
            before = {format: (await client.get(f"/{format}")).text for format in FORMATS}
            assert all(text.count("10.0.0.") == len(ids) for text in before.values())
            await command.error_lines_until("written, with 5 instances")
            written = out.read_text()
            await asyncio.to_thread(own_zookeeper.kill)
            await asyncio.to_thread(own_zookeeper.wipe)
            await own_zookeeper.start()
            await chat.wait_for(lambda snapshot: snapshot.suspects.keys() == set(ids), timeout=DEADLINE)
            assert {format: (await client.get(f"/{format}")).text for format in FORMATS} == before
            told = await command.error_lines_until("5 of chat went together, unexplained")
            assert "kept for a while: " in told[-1]
            assert out.read_text() == written
            await judge.make("/services/chat/a", json.dumps({"name": "chat", "id": "a", "port": 1}).encode())
            await chat.wait_for(lambda snapshot: snapshot.suspects.keys() == set(ids) - {"a"}, timeout=DEADLINE)
            await command.error_lines_until("4 of chat went together, unexplained")


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


def disabled(count: int) -> Callable[[Snapshot[Any]], bool]:
    return lambda seen: len(seen) == 4 and sum(not each.enabled for each in seen.values()) == count


async def test_a_list_that_collapses_is_kept_and_told_of_once(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = [ServiceInstance("chat", id=f"{n}", address=f"10.0.0.{n}", port=7000) for n in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        chat = await stack.enter_async_context(registry.discover("chat"))
        api = await stack.enter_async_context(registry.discover("api"))
        views = {"chat": chat, "api": api}
        kept = await stack.enter_async_context(asking(Exports(views, minimum=2)))
        plain = await stack.enter_async_context(asking(Exports(views)))
        of_chat = {"service": "chat"}
        assert (await kept.get("/json", params=of_chat)).status_code == 503  # there is no former list
        handles = [await stack.enter_async_context(registry.register(each)) for each in fleet]
        await chat.wait_for(lambda seen: len(seen) == 4, timeout=DEADLINE)
        before = {format: (await kept.get(f"/{format}", params=of_chat)).text for format in FORMATS}
        assert before == {format: (await plain.get(f"/{format}", params=of_chat)).text for format in FORMATS}
        assert (await kept.get("/json")).status_code == 503  # the other service never had enough
        for handle in handles:
            await handle.update(enabled=False)
        await chat.wait_for(disabled(4), timeout=DEADLINE)
        for _ in range(3):
            assert {format: (await kept.get(f"/{format}", params=of_chat)).text for format in FORMATS} == before
        assert (await plain.get("/prometheus")).json() == []
        warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [text for text in warned if "former instances are kept" in text] == [
            "0 of chat left, fewer than the minimum of 2: its former instances are kept"
        ]
        for handle in handles[:2]:
            await handle.update(enabled=True)
        await chat.wait_for(disabled(2), timeout=DEADLINE)
        assert [each["id"] for each in (await kept.get("/json", params=of_chat)).json()["chat"]] == ["0", "1"]


@pytest.mark.parametrize("minimum", [-1, 1.0, True, "1", None])
def test_a_minimum_that_is_no_number_of_instances_is_refused(minimum: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Exports({"chat": cast(Any, None)}, minimum=minimum)
    assert (raised.value.field, raised.value.value) == ("minimum", minimum)


@pytest.mark.parametrize("arguments", [(None,), ({},), ({"chat": None}, "api"), ({"chat": None}, 7)])
def test_what_is_wrong_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidArgument):
        Exports(*arguments)
