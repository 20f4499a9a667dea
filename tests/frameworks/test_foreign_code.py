"""Code of the callers' that fails within an integration costs the request that it was asked for, and no instance."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from aioregistry import LeastOutstanding, RegistryError
from aioregistry.integrations._lanes import Lanes
from aioregistry.integrations._signals import told_to_end
from aioregistry.integrations.aiohttp import RegistryMiddleware
from aioregistry.integrations.httpx import RegistryTransport as Transport1
from aioregistry.integrations.httpx2 import RegistryTransport as Transport2
from tests.balancing.service import members_of
from tests.frameworks.peers import Manner, Scene, service
from tests.support.inside import picker_of
from tests.support.raising import ODD, raising
from tests.support.zookeeper import ZooKeeperServer

PACKAGES: dict[ModuleType, Any] = {httpx: Transport1, httpx2: Transport2}
DEADLINE = 100.0


def blamed(scene: Scene, balancer: Any) -> list[Any]:
    """The instances that are set aside, and the calls to each that count as under way."""
    members = members_of(picker_of(balancer)).values()
    return [dict(balancer.set_aside), [member.load.calls for member in members]]


async def ended(work: Awaitable[object]) -> BaseException | None:
    """The exception of *work*, in a task of its own: some of it would end the test's."""
    task: asyncio.Future[object] = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=DEADLINE)
    assert done
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception()


@pytest.mark.parametrize("kind", ODD)
async def test_what_a_transport_raises_reaches_its_caller_and_blames_nobody(
    kind: str, zookeeper: ZooKeeperServer, chroot: str
) -> None:
    async with service(zookeeper, chroot, Manner.ANSWERS, Manner.ANSWERS) as chat:
        for http, transport in PACKAGES.items():

            class Broken(http.AsyncBaseTransport):  # type: ignore[name-defined]
                async def handle_async_request(self, request: Any) -> Any:
                    raising(kind)

            balancer = chat.balancer(LeastOutstanding())
            sends = transport(services={"chat": balancer}, transport=Broken)
            async with http.AsyncClient(transport=sends, timeout=DEADLINE) as client:
                assert await ended(client.get("http://chat.registry/")) is not None
            assert blamed(chat, balancer) == [{}, [0, 0]]
        balancer = chat.balancer(LeastOutstanding())

        async def broken(request: Any, handler: Any) -> Any:
            raising(kind)

        middleware = RegistryMiddleware(services={"chat": balancer})
        async with aiohttp.ClientSession(middlewares=[middleware, broken]) as session:
            assert await ended(session.get("http://chat.registry/")) is not None
        aside, under_way = blamed(chat, balancer)
        assert under_way == [0, 0]
        # A ValueError is also what aiohttp raises for an address that cannot be looked up.
        assert not aside or kind == "plain"


@pytest.mark.parametrize("kind", ODD)
async def test_a_function_that_makes_no_transport_fails_the_request(
    kind: str, zookeeper: ZooKeeperServer, chroot: str
) -> None:
    async with service(zookeeper, chroot, Manner.ANSWERS) as chat:
        for http, transport in PACKAGES.items():
            makers: list[Callable[[], Any]] = [http.AsyncHTTPTransport]

            def make() -> Any:
                return makers.pop()() if makers else raising(kind)  # noqa: B023

            balancer = chat.balancer()
            sends = transport(services={"chat": balancer}, transport=make)
            async with http.AsyncClient(transport=sends, timeout=DEADLINE) as client:
                url, proved = "https://127.0.0.1:1/", {"sni_hostname": "chat.registry"}
                request = http.Request("GET", url, extensions=proved)
                with pytest.raises(http.LocalProtocolError):
                    await sends._pass(request)
                assert (await client.get("http://chat.registry/")).status_code == 200


@pytest.mark.parametrize("kind", ODD)
async def test_transports_are_closed_whatever_one_of_them_raises(kind: str) -> None:
    closed: list[int] = []

    class Counted:
        def __init__(self, number: int) -> None:
            self.number = number

        def aclose(self) -> Any:
            closed.append(self.number)
            if self.number == 1:
                raising(kind)
            return asyncio.sleep(0)

    lanes = Lanes(None, iter_of(Counted))
    for number in range(3):
        lanes.enter(httpx.Request("GET", "https://10.0.0.7:1/", extensions={"sni_hostname": f"n{number}"}))
    assert isinstance(await ended(lanes.aclose()), Exception)
    assert closed == [0, 1, 2]


def iter_of(make: Callable[[int], Any]) -> Callable[[], Any]:
    numbers = iter(range(10))
    return lambda: make(next(numbers))


@pytest.mark.parametrize("kind", ODD)
async def test_somebody_elses_signal_handler_is_no_server_that_ends(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler:
        @property
        def should_exit(self) -> bool:
            raising(kind)

        def handle(self) -> None:
            raise AssertionError

    monkeypatch.setattr(signal, "getsignal", lambda _: Handler().handle)
    assert told_to_end() is False


@pytest.mark.parametrize("kind", ODD)
async def test_a_strategy_that_raises_when_it_chooses_fails_the_request_in_the_packages_words(
    kind: str, zookeeper: ZooKeeperServer, chroot: str
) -> None:
    class Undecided(LeastOutstanding):
        def pool(self, draw: Any, census: Any) -> Any:
            pool = super().pool(draw, census)

            class Pool:
                def choose(self, *_: Any) -> Any:
                    raising(kind)

                def __len__(self) -> int:
                    return len(pool)

                def __getattr__(self, name: str) -> Any:
                    return getattr(pool, name)

            return Pool()

    async with service(zookeeper, chroot, Manner.ANSWERS) as chat:
        balancer = chat.balancer(Undecided())
        with pytest.raises(RegistryError, match="raised"):
            balancer.pick()
        sends = Transport1(services={"chat": balancer})
        async with httpx.AsyncClient(transport=sends, timeout=DEADLINE) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://chat.registry/")
