"""The registry on a real ZooKeeper: what belongs to no room alone."""

from __future__ import annotations

import asyncio
from typing import assert_type

import pytest

import aioregistry
from aioregistry import (
    AuthenticationFailed,
    ChrootMissing,
    InvalidArgument,
    RegistryError,
    RequestTimeout,
    ServiceInstance,
    SessionClosed,
    Status,
    View,
)
from aioregistry._protocol import Exists
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support.inside import session_of
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 100.0
ME = ServiceInstance("chat", address="10.0.0.7", port=7000, payload={"zone": "eu-1"})


async def test_the_session_shows_facts_only(zookeeper: ZooKeeperServer) -> None:
    async with aioregistry.connect(zookeeper.address) as registry:
        assert {name for name in dir(registry.session) if not name.startswith("_")} == {
            *("id", "state", "states", "connected", "server", "attempts", "timeout", "read_only", "presumed_expired"),
        }
        assert repr(registry.session).startswith(f"<Session {registry.session.id:#x} CONNECTED ")


async def test_leaving_the_registry_ends_who_is_entering_a_registration(
    zookeeper: ZooKeeperServer, chroot: str
) -> None:
    async with aioregistry.connect(zookeeper.address + chroot) as rival, rival.register(ME):
        async with asyncio.timeout(DEADLINE), aioregistry.connect(zookeeper.address + chroot) as registry:
            waiting = asyncio.ensure_future(registry.register(ME, on_conflict="wait").__aenter__())
            await session_of(registry).request(Exists(registry.base_path))  # it has looked by then
        with pytest.raises(RegistryError):
            _ = await waiting


async def test_leaving_the_registry_ends_who_is_entering_a_view(zookeeper: ZooKeeperServer, chroot: str) -> None:
    with ZooKeeperProxy((zookeeper.host, zookeeper.port)) as proxy:
        async with asyncio.timeout(DEADLINE):
            async with aioregistry.connect(proxy.address + chroot, close_timeout=0.2) as registry:
                proxy.refuse()
                proxy.cut()
                entering = asyncio.ensure_future(registry.discover("chat").__aenter__())
                await asyncio.sleep(0)
            with pytest.raises(SessionClosed):
                _ = await entering


async def test_services_are_waited_for_as_long_as_is_said(zookeeper: ZooKeeperServer, chroot: str) -> None:
    with ZooKeeperProxy((zookeeper.host, zookeeper.port)) as proxy:
        async with (
            asyncio.timeout(DEADLINE),
            aioregistry.connect(proxy.address + chroot, close_timeout=0.2) as registry,
            registry.register(ME),
        ):
            assert await registry.services(timeout=DEADLINE) == ["chat"]
            proxy.refuse()
            proxy.cut()
            with pytest.raises(RequestTimeout):
                await registry.services(timeout=0.01)
            with pytest.raises(InvalidArgument):
                await registry.services(timeout=0)


async def test_a_registrations_longer_bound_does_not_hold_up_the_registry(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    """The server is silent: leaving ends with the registry's bound, and the withdrawal's own of ten minutes with it."""
    with ZooKeeperProxy((zookeeper.host, zookeeper.port)) as proxy:
        async with asyncio.timeout(DEADLINE):
            async with aioregistry.connect(proxy.address + chroot, close_timeout=0.2) as registry:
                registration = await registry.register(ME, close_timeout=600)
                proxy.silence()
        assert registration.withdrawn is False
        assert registration.status is Status.CLOSED


async def test_a_missing_chroot_is_an_error_of_the_registration_that_did_not_wait(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    missing = f"{chroot}/missing"
    async with (
        asyncio.timeout(DEADLINE),
        aioregistry.connect(zookeeper.address + missing, wait=False, create_chroot=False) as registry,
    ):
        with pytest.raises(ChrootMissing, match=missing):
            _ = await registry.register(ME)
    assert await judge.node(missing) is None


async def test_a_missing_chroot_is_made_by_the_registration_that_did_not_wait(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    path = f"{chroot}/missing"
    async with (
        asyncio.timeout(DEADLINE),
        aioregistry.connect(zookeeper.address + path, wait=False) as registry,
        registry.register(ME) as registration,
    ):
        assert await judge.owner(registration.path) == registry.session.id


async def test_credentials_that_are_refused_are_no_matter_of_time(zookeeper: ZooKeeperServer) -> None:
    """The refusal and the end of the connection come together; trying again would be of no use."""
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(AuthenticationFailed, match="nonesuch"):
            _ = await aioregistry.connect(zookeeper.address, auth=[("nonesuch", "secret")], connect_timeout=600)


async def test_service_names_are_followed(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    async with asyncio.timeout(DEADLINE), aioregistry.connect(zookeeper.address + chroot) as registry:
        names = registry.watch_services()
        assert await anext(names) == ()
        async with registry.register(ME):
            assert await anext(names) == ("chat",)


async def test_the_type_of_a_views_payloads_is_that_asked_for(zookeeper: ZooKeeperServer, chroot: str) -> None:
    async with (
        asyncio.timeout(DEADLINE),
        aioregistry.connect(zookeeper.address + chroot) as registry,
        registry.discover("chat", payload_type=dict[str, int]) as chat,
        registry.register(ME.replace(payload={"load": 1})),
    ):
        _ = assert_type(chat, View[dict[str, int]])
        snapshot = await chat.wait_for(lambda snapshot: len(snapshot) == 1)
        assert snapshot[ME.id].payload["load"] == 1


async def test_services_right_under_the_chroot_leave_nothing_beside_it(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    beside = await judge.children("/")
    async with aioregistry.connect(zookeeper.address + chroot, base_path="/") as registry:
        async with registry.register(ME) as registration:
            assert registration.path == f"{chroot}/{ME.name}/{ME.id}"
        assert registration.withdrawn
    assert await judge.children("/") == sorted({*beside, chroot.strip("/")})
