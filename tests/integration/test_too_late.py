"""A caller who waits in vain while ZooKeeper is away is told what each of its addresses answered."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import aioregistry
from aioregistry import Registration, Registry, RequestTimeout, ServiceInstance, View, blocking
from aioregistry.testing._proxy import ZooKeeperProxy

ME = ServiceInstance("chat", id="c1", address="10.0.0.8", port=7000)
DEADLINE = 100.0

WAITS: dict[str, Callable[[Registry, Registration[Any], View[Any]], Awaitable[object]]] = {
    "services": lambda registry, *_: registry.services(timeout=0.01),
    "wait_live": lambda _, registration, __: registration.wait_live(timeout=0.01),
    "update": lambda _, registration, __: registration.update(payload={"a": 1}, timeout=0.01),
    "drain": lambda _, registration, __: registration.drain(timeout=0.01),
    "wait_for": lambda *those: those[2].wait_for(lambda _: False, timeout=0.01),
    "sync": lambda *those: those[2].sync(timeout=0.01),
    "pick_when_available": lambda *those: those[2].balancer().pick_when_available(timeout=0.01),
}


async def answered(proxy: ZooKeeperProxy, attempts: Callable[[], dict[str, str]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while proxy.address not in attempts():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("thread", [False, True])
async def test_every_wait_says_it(proxy: ZooKeeperProxy, chroot: str, thread: bool) -> None:
    connect: Any = functools.partial(aioregistry.connect, thread=True) if thread else aioregistry.connect
    async with (
        connect(f"{proxy.address}{chroot}") as registry,
        registry.discover("chat") as view,
        registry.register(ME) as registration,
    ):
        await view.wait_for(lambda snapshot: "c1" in snapshot, DEADLINE)
        with pytest.raises(RequestTimeout) as late:
            await view.wait_for(lambda _: False, timeout=0.01)
        assert late.value.attempts == {}
        await registration.update(enabled=False)
        await view.wait_for(lambda snapshot: not snapshot["c1"].enabled, DEADLINE)
        proxy.refuse()
        proxy.cut()
        await answered(proxy, lambda: {} if registry.session.connected else dict(registry.session.attempts))
        for name, wait in WAITS.items():
            with pytest.raises(RequestTimeout) as late:
                await wait(registry, registration, view)
            assert late.value.attempts.keys() == {proxy.address}, name
            assert f"; no connection to ZooKeeper: {proxy.address}: " in str(late.value), name
        proxy.accept()
        await registration.wait_live(DEADLINE)


BLOCKING_WAITS: dict[str, Callable[[blocking.Registry, blocking.Registration[Any], blocking.View[Any]], object]] = {
    "services": lambda registry, *_: registry.services(timeout=0.01),
    "overrides": lambda registry, *_: registry.overrides.list(timeout=0.01),
    "wait_live": lambda _, registration, __: registration.wait_live(timeout=0.01),
    "wait_closed": lambda _, registration, __: registration.wait_closed(timeout=0.01),
    "update": lambda _, registration, __: registration.update(payload={"a": 1}, timeout=0.01),
    "wait_for": lambda *those: those[2].wait_for(lambda _: False, timeout=0.01),
    "pick_when_available": lambda *those: those[2].balancer().pick_when_available(timeout=0.01),
}


async def test_every_wait_of_a_thread_says_it(proxy: ZooKeeperProxy, chroot: str) -> None:
    def of_a_thread() -> None:
        with (
            blocking.connect(f"{proxy.address}{chroot}") as registry,
            registry.discover("chat") as view,
            registry.register(ME) as registration,
        ):
            view.wait_for(lambda snapshot: "c1" in snapshot, DEADLINE)
            registration.update(enabled=False)
            view.wait_for(lambda snapshot: not snapshot["c1"].enabled, DEADLINE)
            proxy.refuse()
            proxy.cut()
            while registry.session.connected or proxy.address not in registry.session.attempts:
                time.sleep(0.01)
            for name, wait in BLOCKING_WAITS.items():
                with pytest.raises(RequestTimeout) as late:
                    wait(registry, registration, view)
                assert late.value.attempts.keys() == {proxy.address}, name
            proxy.accept()
            registration.wait_live(DEADLINE)

    await asyncio.wait_for(asyncio.to_thread(of_a_thread), DEADLINE)
