"""The common part of all clients' integrations: their arguments, and the views that they open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

import aioregistry
from aioregistry import InvalidArgument, RequestTimeout, Ring, ServiceInstance, Weighted
from aioregistry.integrations import _routing as routing
from aioregistry.integrations.aiohttp import RegistryMiddleware
from aioregistry.integrations.httpx import RegistryTransport
from aioregistry.integrations.httpx2 import RegistryTransport as RegistryTransport2
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.frameworks.peers import Manner, Peer, followed, service, views_made
from tests.support.judge import Judge
from tests.support.waiting import until
from tests.support.zookeeper import ZooKeeperServer


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "services"),
        ({"registry": "zk:2181"}, "registry"),
        ({"services": ["chat"]}, "services"),
        ({"services": {"chat": "chat"}}, r"services\['chat'\]"),
        ({"services": {"chat": 7}}, r"services\['chat'\]"),
        ({"services": {"Chat": "chat"}}, "services"),
        ({"attempts": 0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"attempts": 1.5}, "attempts"),
        ({"repeat": "GET"}, "repeat"),
        ({"repeat": {"get"}}, "repeat"),
        ({"repeat": 7}, "repeat"),
        ({"statuses": 503}, "statuses"),
        ({"statuses": {200}}, "statuses"),
        ({"statuses": {"503"}}, "statuses"),
        ({"wait": 0}, "wait"),
        ({"wait": float("inf")}, "wait"),
        ({"wait": "5"}, "wait"),
        ({"wait": True}, "wait"),
        ({"ejection": True}, "ejection"),
        ({"strategy": "best"}, "strategy"),
        ({"strategy": Ring}, "strategy"),
        ({"strategy": 7}, "strategy"),
        ({"authority": "both"}, "authority"),
        ({"pass_others": 1}, "pass_others"),
    ],
)
@pytest.mark.parametrize("client", [RegistryMiddleware, RegistryTransport])
def test_a_wrong_argument_is_named(client: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}="):
        client(**options)


@pytest.mark.parametrize("client", [RegistryMiddleware, RegistryTransport, RegistryTransport2])
def test_an_option_that_is_none_is_told_in_the_name_of_what_was_called(client: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{client.__name__}\(\).*'attemps'"):
        client(services={}, attemps=3)


def by(registry: Any, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=RegistryTransport(registry, **options), timeout=20)


@pytest.mark.parametrize("client", [RegistryMiddleware, RegistryTransport])
@pytest.mark.parametrize("name", ["", "Chat//v2", ".."])
async def test_a_name_of_no_service_is_told_at_once(
    client: Any, name: str, zookeeper: ZooKeeperServer, chroot: str
) -> None:
    async with service(zookeeper, chroot) as chat:
        with pytest.raises(InvalidArgument) as raised:
            client(chat.registry, services={"chat": name})
        assert (raised.value.field, raised.value.value) == ("services['chat']", name)


async def test_a_strategy_that_does_not_fit_the_service_is_told(zookeeper: ZooKeeperServer, chroot: str) -> None:
    weighted: Weighted[Any] = Weighted(lambda instance: -1)
    async with service(zookeeper, chroot, Manner.ANSWERS) as chat, by(chat.registry, strategy=weighted) as session:
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="=-1"):
                await session.get("http://chat.registry/")


@contextlib.asynccontextmanager
async def asking(http: str, registry: Any) -> AsyncIterator[Callable[[str], Any]]:
    """A client: what asks a service and tells the status, or None where there is no instance."""
    url = "http://{}.registry/".format
    if http == "aiohttp":
        async with (
            RegistryMiddleware(registry) as middleware,
            aiohttp.ClientSession(middlewares=[middleware]) as session,
        ):

            async def ask(name: str) -> int | None:
                try:
                    async with session.get(url(name)) as response:
                        return response.status
                except aiohttp.ClientConnectorDNSError:
                    return None

            yield ask
        return
    package, transport = {"httpx": (httpx, RegistryTransport), "httpx2": (httpx2, RegistryTransport2)}[http]
    sends: Any = transport(registry)
    async with package.AsyncClient(transport=sends, timeout=20) as client:

        async def ask(name: str) -> int | None:
            try:
                return int((await client.get(url(name))).status_code)
            except package.ConnectError:
                return None

        yield ask


@pytest.mark.parametrize("http", ["httpx", "httpx2", "aiohttp"])
async def test_names_of_nobody_shut_nobody_out(
    http: str, zookeeper: ZooKeeperServer, chroot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the first to be left, then what was asked for least lately; and what was left is found again."""
    monkeypatch.setattr(routing, "MOST_VIEWS", 3)
    async with service(zookeeper, chroot, Manner.ANSWERS) as chat, contextlib.AsyncExitStack() as stack:
        port = chat.peers[0].port
        for name in ("mail", "pay", "shop"):
            other = ServiceInstance(name, address="127.0.0.1", port=port)
            _ = await stack.enter_async_context(chat.registry.register(other))
        made = views_made(monkeypatch)
        async with asking(http, chat.registry) as ask:
            for name, kept in [
                ("nobody", ["nobody"]),
                ("chat", ["nobody", "chat"]),
                ("mail", ["nobody", "chat", "mail"]),
                ("pay", ["chat", "mail", "pay"]),
                ("chat", ["mail", "pay", "chat"]),
                ("shop", ["pay", "chat", "shop"]),
                ("anybody", ["chat", "shop", "anybody"]),
                ("somebody", ["chat", "shop", "somebody"]),
                ("mail", ["chat", "shop", "mail"]),
            ]:
                assert await ask(name) == (None if name.endswith("body") else 200)
                await until(lambda kept=kept: followed(made) == set(kept))  # type: ignore[misc]
        assert followed(made) == set()


async def test_what_is_asked_for_now_is_never_left(
    zookeeper: ZooKeeperServer, chroot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "MOST_VIEWS", 1)
    async with service(zookeeper, chroot, Manner.HANGS) as chat, by(chat.registry) as session:
        made = views_made(monkeypatch)
        waiting = asyncio.create_task(session.get("http://chat.registry/"))
        await until(lambda: chat.asked() == [1])
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await session.get("http://nobody.registry/")
        assert followed(made) == {"chat", "nobody"}
        waiting.cancel()
        await asyncio.wait([waiting])
        with pytest.raises(httpx.ConnectError):
            await session.get("http://anybody.registry/")
        await until(lambda: followed(made) == {"anybody"})


@pytest.mark.parametrize("manner", [Manner.BEGINS_ITS_ANSWER, Manner.CUTS_ITS_ANSWER])
async def test_an_answer_may_end_after_its_service_was_left(
    zookeeper: ZooKeeperServer, chroot: str, monkeypatch: pytest.MonkeyPatch, manner: Manner
) -> None:
    monkeypatch.setattr(routing, "MOST_VIEWS", 1)
    async with service(zookeeper, chroot, manner) as chat, by(chat.registry) as session:
        made = views_made(monkeypatch)
        async with session.stream("GET", "http://chat.registry/") as answer:
            assert followed(made) == {"chat"}
            with pytest.raises(httpx.ConnectError):
                await session.get("http://nobody.registry/")
            await until(lambda: followed(made) == {"nobody"})
            if manner is Manner.CUTS_ITS_ANSWER:
                with pytest.raises(httpx.RemoteProtocolError):
                    await answer.aread()
        assert followed(made) == {"nobody"}
        async with session.stream("GET", "http://chat.registry/") as answer:
            assert answer.status_code == 200


async def test_a_service_that_cannot_be_read_is_tried_again(
    zookeeper: ZooKeeperServer, chroot: str, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: aioregistry.Registry, name: str) -> Any:
        raise aioregistry.NoAuth(name)

    async with service(zookeeper, chroot) as chat, by(chat.registry) as session, Peer(Manner.ANSWERS) as peer:
        with monkeypatch.context() as refusing:
            refusing.setattr(aioregistry.Registry, "discover", refuse)
            with pytest.raises(httpx.ConnectError, match="not authorised"):
                await session.get("http://chat.registry/")
        async with chat.registry.register(ServiceInstance("chat", address="127.0.0.1", port=peer.port)):
            await chat.view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
            assert (await session.get("http://chat.registry/")).text == "ok"


async def test_many_first_requests_open_one_view(
    zookeeper: ZooKeeperServer, chroot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(zookeeper, chroot, Manner.ANSWERS) as chat, by(chat.registry) as session:
        made = views_made(monkeypatch)
        requests = [asyncio.create_task(session.get("http://chat.registry/")) for _ in range(5)]
        cancelled = requests.pop(0)
        await until(lambda: len(made) > 0)
        cancelled.cancel()  # who was first to ask takes nothing from the others
        assert [(await request).text for request in requests] == ["ok"] * 4
        assert len(made) == 1


async def test_without_the_registry_a_request_ends(proxy: ZooKeeperProxy, chroot: str) -> None:
    proxy.refuse()
    async with aioregistry.connect(f"127.0.0.1:{proxy.port}{chroot}", wait=False) as registry:
        transport = RegistryTransport(registry)
        async with httpx.AsyncClient(transport=transport, timeout=0.1) as session:
            with pytest.raises(httpx.ConnectTimeout, match="did not report 'chat' within") as raised:
                await session.get("http://chat.registry/")
        assert isinstance(raised.value.__cause__, RequestTimeout)


async def test_a_registry_that_was_closed(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async with service(zookeeper, chroot, Manner.ANSWERS) as chat, by(chat.registry) as session:
        await session.get("http://chat.registry/")
        await chat.registry.aclose()
        for host in ("chat", "other"):
            with pytest.raises(httpx.ConnectError, match="closed"):
                await session.get(f"http://{host}.registry/")
