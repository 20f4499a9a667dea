"""The traces of outages, expiries and new leaders on the console's timeline."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiozk import ACL

import aioregistry
from aioregistry import Registry
from aioregistry._console import following as following_module
from aioregistry._console.following import FollowedService, Following
from aioregistry.server import Ensemble
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.console.served import DEADLINE, instance, served
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer


def suspected(line: Any) -> set[str]:
    """The ids that became suspect: at once, or after they had left, where the server told of them before the others."""
    return {
        event[4] for event in line["events"] if event[1] == "held" or (event[1] == "joined" and "suspect" in event[6])
    }


def instead_of_taking(
    monkeypatch: pytest.MonkeyPatch, then: Callable[[FollowedService, Callable[[], None]], None]
) -> None:
    """Have *then* called with a service that has changed, and with what records that."""
    take = Following._take

    def taken(self: Following, service: FollowedService, *arguments: Any) -> None:
        then(service, partial(take, self, service, *arguments))

    monkeypatch.setattr(Following, "_take", taken)


async def test_sessions_that_expire_together_are_held_and_come_back_with_another_owner(
    zookeeper: ZooKeeperServer, servers: str, chroot: str, history: Path, proxy: ZooKeeperProxy
) -> None:
    window = {"since": time.time() - 600, "until": time.time() + 600}
    async with (
        served(servers, history) as console,
        aioregistry.connect(proxy.address + chroot, session_timeout=4) as owner,
        aioregistry.connect(servers) as other,
        # Else the server reaps the service meanwhile, and the console follows it no more.
        other.register(instance("chat", "stays")),
        contextlib.AsyncExitStack() as stack,
    ):
        for number in range(6):
            _ = await stack.enter_async_context(owner.register(instance("chat", f"i{number}"), wait=False))
        async with asyncio.timeout(DEADLINE):
            while (console.console.service("chat") or [0] * 3)[2] != 7:
                await asyncio.sleep(0.05)
        proxy.silence()
        held = await console.until("/api/timeline", lambda line: len(suspected(line)) == 6, **window)
        assert {event[6] for event in held["events"] if event[1] == "held"} <= {"mass removal", "disruption"}
        found = await console.until(
            "/api/instance", lambda found: found["instance"]["state"] == "suspect", service="chat", id="i1"
        )
        assert found["instance"]["suspicion"]["since"] <= time.time() + 1
        proxy.cut()
        proxy.heal()
        line = await console.until(
            "/api/timeline", lambda line: sum(event[1] == "released" for event in line["events"]) >= 6, **window
        )
        assert sum(event[1] == "owner" for event in line["events"]) >= 6
        lanes = (await console.browser.get("/api/timeline", params={**window, "service": "chat"})).json()
        assert [len(lane[2]) >= 1 for lane in lanes["instances"]] == [True] * 7


async def test_leaders_outages_and_the_consoles_own_sessions_are_on_the_timeline(history: Path) -> None:
    window = {"since": time.time() - 600, "until": time.time() + 600}

    def happened(*kinds: str) -> Callable[[Any], bool]:
        return lambda line: set(kinds) <= {event[1] for event in line["events"]}

    async with (
        Ensemble() as ensemble,
        aioregistry.connect(ensemble.connect_string) as registry,
        registry.register(instance("chat", "a")) as chat,
        served(ensemble.connect_string, history) as console,
    ):
        await console.until("/api/instance", lambda found: found["instance"] is not None, service="chat", id="a")
        ensemble.change_leader()
        await chat.update(payload="in the new epoch")
        line = await console.until("/api/timeline", happened("leader", "outage", "connected"), **window)
        assert {"outage", "leader"} <= {period[0] for period in line["periods"]}
        async with asyncio.timeout(DEADLINE):
            while not console.console.registry.session.connected:
                await asyncio.sleep(0.05)
        ensemble.expire(console.console.registry.session.id)
        await console.until("/api/timeline", happened("session"), **window)
        assert console.console.status()["outage"] is None


async def test_a_service_that_is_deleted_ends(
    registry: Registry, servers: str, history: Path, judge: Judge, chroot: str
) -> None:
    window = {"since": time.time() - 600, "until": time.time() + 600}
    async with served(servers, history) as console, registry.register(instance("chat", "a")):
        # Instances that are there at first neither begin nor have just begun.
        await console.until("/api/instance", lambda found: found["instance"] is not None, service="chat", id="a")
        async with registry.register(instance("brief", "a")):
            await console.until("/api/instance", lambda found: found["instance"] is not None, service="brief", id="a")
        async with asyncio.timeout(DEADLINE):
            while await judge.children(f"{chroot}/services/brief"):
                await asyncio.sleep(0.05)
        await judge.delete(f"{chroot}/services/brief")
        line = await console.until(
            "/api/timeline",
            lambda line: sum(event[1] == "service" for event in line["events"]) == 2,
            **{**window, "service": "brief"},
        )
        assert [event[6] for event in line["events"] if event[1] == "service"] == ["ended", "began"]
        assert console.console.names() == ["chat"]


async def test_a_page_shows_the_state_that_its_history_ends_with(
    registry: Registry, servers: str, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser asks again when a row has changed: one that is ahead of the history would leave the history behind."""
    held: list[Callable[[], None]] = []
    holding = False

    def held_back(service: FollowedService, take: Callable[[], None]) -> None:
        if holding:
            held.append(take)
        else:
            take()

    instead_of_taking(monkeypatch, held_back)
    about = {"service": "chat", "id": "a"}
    async with served(servers, history) as console, registry.register(instance("chat", "a")) as chat:
        await console.until("/api/instance", lambda found: found["instance"] is not None, **about)
        holding = True
        await chat.update(enabled=False)
        async with asyncio.timeout(DEADLINE):
            while not held:
                await asyncio.sleep(0.02)
        found = (await console.browser.get("/api/instance", params=about)).json()
        assert found["instance"]["state"] == "enabled"
        for each in held:
            each()
        holding = False
        found = (await console.browser.get("/api/instance", params=about)).json()
        assert found["instance"]["state"] == "draining"
        assert [event[6] for event in found["events"] if event[1] == "state"] == ["enabled → draining"]


async def test_a_defect_ends_the_following_of_one_service_and_is_told(
    registry: Registry, servers: str, history: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defective(service: FollowedService, take: Callable[[], None]) -> None:
        if service.name == "chat":
            raise RuntimeError("a defect")
        take()

    instead_of_taking(monkeypatch, defective)
    async with (
        served(servers, history) as console,
        registry.register(instance("chat", "a")),
        registry.register(instance("pay", "b")),
    ):
        followed = console.following.services
        async with asyncio.timeout(DEADLINE):
            while not ("chat" in followed and followed["chat"].refusal):
                await asyncio.sleep(0.05)
        await console.until("/api/instance", lambda found: found["instance"] is not None, service="pay", id="b")
        assert followed["pay"].refusal is None
    told = [record for record in caplog.records if record.name == "aioregistry.console" and record.exc_info]
    assert [record.levelname for record in told] == ["ERROR"]


async def test_a_service_that_may_not_be_read_is_tried_again_and_says_why(
    registry: Registry,
    servers: str,
    chroot: str,
    history: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(following_module, "_TRIED_AGAIN_AFTER", 0.01)
    monkeypatch.setattr(following_module, "_TRIED_AGAIN_AFTER_AT_MOST", 0.02)
    path, everybody = "/services/secret", ACL.make("world", "anyone", True, True, True, True, True)
    nobody = ACL.make("ip", "192.0.2.7", True, True, True, True, True)  # of no machine (RFC 5737)
    admins = ACL.make("world", "anyone", False, False, True, False, True)
    tries = 0
    discover = Registry.discover

    def counted(self: Registry, name: str, *arguments: Any, **options: Any) -> Any:
        nonlocal tries
        tries += name == "secret"
        return discover(self, name, *arguments, **options)

    monkeypatch.setattr(Registry, "discover", counted)
    async with registry.register(instance("pay", "b")):
        await registry.client.create(path, b"", acl=[nobody, admins])
        async with served(servers, history) as console:
            async with asyncio.timeout(DEADLINE):
                while tries < 4:
                    await asyncio.sleep(0.01)
            row = console.console.service("secret")
            assert row is not None
            assert row[2] is None
            assert path in row[10]
            await console.until("/api/instance", lambda found: found["instance"] is not None, service="pay", id="b")
            await registry.client.set_acl(path, [everybody], force=True)
            async with registry.register(instance("secret", "a")):
                await console.until(
                    "/api/instance", lambda found: found["instance"] is not None, service="secret", id="a"
                )
                row = console.console.service("secret")
                assert row is not None
                assert (row[2], row[10]) == (1, None)
    told = [each for each in caplog.records if each.name == "aioregistry.console" and each.levelname == "WARNING"]
    assert len(told) == 2  # refused, and followed again, however often it was tried
    assert {each.service for each in told} == {"secret"}  # type: ignore[attr-defined]
    assert {each.path for each in told} == {f"{chroot}{path}"}  # type: ignore[attr-defined]
