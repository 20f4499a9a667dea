"""A server's part in the registry, without a server: order, readiness, outages, siblings, bounds."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest
from aiozk import ACL

import aioregistry
from aioregistry import (
    ConnectTimeout,
    InvalidArgument,
    NoAuth,
    NodeNotEphemeral,
    Registry,
    Removed,
    ServiceInstance,
    Snapshot,
    Status,
    Updated,
    UsageError,
    View,
)
from aioregistry.integrations import membership as module
from aioregistry.integrations._advertised import NoAddress
from aioregistry.integrations.membership import Hosting, Membership, NotYet, Readiness, hosting
from aioregistry.testing._proxy import Direction, ZooKeeperProxy
from tests.support.judge import Judge

TIMEOUT = 30.0
ID = "10.0.0.7:8000"


@pytest.fixture
async def observed(registry: Registry) -> AsyncIterator[View[Any]]:
    async with registry.discover("api") as view:
        yield view


def member(servers: str, **options: Any) -> Membership:
    return Membership(servers, "api", **{"port": 8000, "address": "10.0.0.7", "drain": 0.05, **options})


async def until(condition: Any) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.005)


def listed(snapshot: Snapshot[Any]) -> bool:
    return len(snapshot) > 0


def draining_is_told(snapshot: Snapshot[Any]) -> bool:
    return ID in snapshot and not snapshot[ID].enabled


def gone(snapshot: Snapshot[Any]) -> bool:
    return len(snapshot) == 0


# ---------------------------------------------------------------- from entering to leaving


async def test_listed_while_entered_and_again_later(servers: str, observed: View[Any]) -> None:
    membership = member(servers, payload={"zone": "eu-1"}, wait=True)
    for _ in range(2):
        async with membership as entered:
            assert entered is membership
            assert membership.readiness() == Readiness(True, "live", None)
            snapshot = await observed.wait_for(listed, TIMEOUT)
            assert snapshot[ID] == ServiceInstance("api", address="10.0.0.7", port=8000, payload={"zone": "eu-1"})
            assert repr(membership) == "<Membership api live>"
        await observed.wait_for(gone, TIMEOUT)
        assert repr(membership) == "<Membership api not entered>"


async def test_consumers_are_told_before_it_is_withdrawn(servers: str, observed: View[Any]) -> None:
    seen: list[bool | None] = []

    async def watch() -> None:
        async with observed.snapshots() as snapshots:
            async for snapshot in snapshots:
                seen.append(snapshot[ID].enabled if ID in snapshot else None)
                if len(seen) > 1 and seen[-1] is None:
                    return

    watching = asyncio.create_task(watch())
    async with member(servers, wait=True, drain=0.3) as membership:
        await observed.wait_for(listed, TIMEOUT)
        await asyncio.gather(membership.drain(), membership.drain())
        assert membership.readiness() == Readiness(False, "draining", "the server is about to end")
        assert membership.registration.withdrawn
        await membership.announce()  # too late
    async with asyncio.timeout(TIMEOUT):
        await watching
    assert [key for key, _ in itertools.groupby(seen)] == [None, True, False, None]


async def test_it_is_not_listed_before_it_is_announced(servers: str, observed: View[Any]) -> None:
    async with member(servers, wait=True).connected() as membership:
        with pytest.raises(NotYet, match="'api' is not registered yet"):
            print(membership.registration)
        assert membership.readiness().status == "starting"
        assert gone(await observed.sync())
        await membership.announce()
        await membership.announce()
        assert membership.ready
        assert listed(await observed.sync())
    assert gone(await observed.sync())


async def test_what_was_never_listed_ends_without_waiting(servers: str) -> None:
    async with member(servers, drain=60).connected():
        pass


class User(msgspec.Struct):
    name: str


async def test_views_are_typed(servers: str, registry: Registry) -> None:
    users = ServiceInstance("users", id="a", payload={"name": "Ada"})
    async with registry.register(users), member(servers, discover={"users": User}, wait=True) as membership:
        assert membership.view("users").snapshot["a"].payload == User("Ada")
        assert await membership.registry.services() == ["api", "users"]
        with pytest.raises(InvalidArgument, match=r"name='other': is not discovered here: discover= names 'users'"):
            print(membership.view("other"))
    with pytest.raises(UsageError, match="comes first"):
        print(membership.view("users"))


async def test_a_membership_is_entered_once_at_a_time(servers: str) -> None:
    async with member(servers) as membership:
        with pytest.raises(UsageError, match="entered already"):
            await membership.__aenter__()


@pytest.mark.parametrize("scope", [asyncio.timeout, anyio.move_on_after])
async def test_cancelled_it_drains_all_the_same(servers: str, observed: View[Any], scope: Any) -> None:
    async def serve() -> None:
        async with member(servers, wait=True, drain=0.3):
            started.set()
            await asyncio.sleep(3600)

    started = asyncio.Event()
    if scope is asyncio.timeout:
        serving = asyncio.create_task(serve())
        await started.wait()
        serving.cancel()
    else:

        async def scoped() -> None:
            with anyio.CancelScope() as cancellable:
                async with member(servers, wait=True, drain=0.3):
                    cancellable.cancel()
                    await asyncio.sleep(3600)

        serving = asyncio.create_task(scoped())
    await observed.wait_for(draining_is_told, TIMEOUT)
    await observed.wait_for(gone, TIMEOUT)
    await asyncio.wait([serving])


async def test_cancelled_while_it_drains_it_withdraws_at_once(servers: str, observed: View[Any]) -> None:
    async def serve() -> None:
        async with member(servers, wait=True, drain=60, session_timeout=60):
            raise OSError("the server failed")

    serving = asyncio.create_task(serve())
    await observed.wait_for(draining_is_told, TIMEOUT)
    serving.cancel()
    await observed.wait_for(gone, TIMEOUT)
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_listed_before_it_knows_it_is_drained_all_the_same(
    proxy: ZooKeeperProxy, chroot: str, observed: View[Any]
) -> None:
    async def serve() -> None:
        async with member(f"{proxy.address}{chroot}", drain=60, session_timeout=60).connected() as membership:
            await until(lambda: membership.registry.session.connected)
            proxy.delay(0.3, Direction.TO_CLIENT)  # what it did is seen by others before it is answered
            await membership.announce()
            await observed.wait_for(listed, TIMEOUT)

    serving = asyncio.create_task(serve())
    await observed.wait_for(draining_is_told, TIMEOUT)
    serving.cancel()
    await observed.wait_for(gone, TIMEOUT)
    await asyncio.wait([serving])


# ---------------------------------------------------------------- ZooKeeper is away


async def test_it_starts_without_zookeeper(proxy: ZooKeeperProxy, chroot: str, observed: View[Any]) -> None:
    proxy.refuse()
    async with member(f"{proxy.address}{chroot}", discover=["users"]) as membership:
        reason = "the view of 'users' is not synced yet: ZooKeeper has not answered yet"
        assert membership.readiness() == Readiness(False, "starting", reason)
        with pytest.raises(NotYet, match="'users' is not synced yet"):
            print(membership.view("users"))
        proxy.accept()
        await until(lambda: membership.ready)
        assert gone(membership.view("users").snapshot)
        assert listed(await observed.sync())


async def test_with_wait_it_does_not(proxy: ZooKeeperProxy) -> None:
    proxy.refuse()
    membership = member(proxy.address, wait=True, connect_timeout=0.2)
    with pytest.raises(ConnectTimeout):
        await membership.__aenter__()
    assert repr(membership) == "<Membership api not entered>"


async def test_cancelled_while_it_starts_it_leaves_nothing_behind(proxy: ZooKeeperProxy) -> None:
    proxy.silence()
    membership = member(proxy.address, wait=True, discover=["users"], close_timeout=0.2)
    entering = asyncio.create_task(membership.__aenter__())
    await until(lambda: proxy.open_connections)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert repr(membership) == "<Membership api not entered>"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("ready_in_outage", [True, False])
async def test_ready_in_an_outage(proxy: ZooKeeperProxy, chroot: str, ready_in_outage: bool) -> None:
    servers = f"{proxy.address}{chroot}"
    async with member(servers, wait=True, ready_in_outage=ready_in_outage, session_timeout=1) as membership:
        proxy.refuse()
        proxy.cut()
        await until(lambda: membership.registration.status is Status.UNCERTAIN)
        assert membership.readiness() == Readiness(ready_in_outage, "uncertain", "ZooKeeper does not answer")
        await until(lambda: membership.registration.status is Status.PRESUMED_GONE)
        assert membership.ready is ready_in_outage
        proxy.accept()
        await until(lambda: membership.registration.status is Status.LIVE)
        assert membership.ready


async def test_leaving_in_an_outage_is_bounded(proxy: ZooKeeperProxy, chroot: str) -> None:
    async with asyncio.timeout(TIMEOUT):
        async with member(f"{proxy.address}{chroot}", wait=True, close_timeout=0.2):
            proxy.refuse()
            proxy.cut()


# ---------------------------------------------------------------- what may go wrong


async def test_displaced_it_is_not_ready(servers: str, registry: Registry) -> None:
    newer = ServiceInstance("api", address="10.0.0.7", port=8000)
    async with member(servers, wait=True) as membership, registry.register(newer):
        await until(lambda: "claimed" in str(membership.readiness().reason))
        assert membership.readiness()[:2] == (False, "displaced")
        assert repr(membership) == "<Membership api displaced, not ready>"


async def test_a_registration_that_fails_is_told(servers: str, chroot: str, judge: Judge) -> None:
    await made(judge, f"{chroot}/services/api/{ID}")
    async with member(servers) as membership:
        await until(lambda: ID in str(membership.readiness().reason))
        assert membership.readiness()[:2] == (False, "failed")
    for workers in ("each", "one"):
        with pytest.raises(NodeNotEphemeral):
            await member(servers, workers=workers, wait=True).__aenter__()


async def made(judge: Judge, path: str) -> None:
    names = path.split("/")
    for depth in range(3, len(names) + 1):
        await judge.make("/".join(names[:depth]))


async def test_a_view_that_cannot_be_had_is_told(servers: str, caplog: pytest.LogCaptureFixture) -> None:
    owner = aioregistry.connect(
        servers,
        auth=[("digest", "a:b")],
        acl=[ACL.make("auth", "", read=True, write=True, create=True, delete=True, admin=True)],
    )
    async with owner as registry, registry.register(ServiceInstance("users", id="a")):
        async with member(servers, discover=["users"]) as membership:
            await until(lambda: str(membership.readiness().reason).startswith("'users' cannot be viewed: "))
            assert not membership.ready
            with pytest.raises(NoAuth):
                print(membership.view("users"))
        with pytest.raises(NoAuth):
            await member(servers, discover=["users"], wait=True).__aenter__()
    assert "view users: " in caplog.text


async def test_the_address_is_found_when_it_can_be(
    servers: str, observed: View[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = iter([NoAddress("no name server"), None])

    async def found(*_: object) -> str:
        if (failure := next(attempts)) is not None:
            raise failure
        return "10.0.0.8"

    monkeypatch.setattr(module, "advertised_address", found)
    async with member(servers, address=None) as membership:
        await until(lambda: membership.readiness().reason == "no name server")
        with pytest.raises(NotYet, match="no name server"):
            print(membership.registration)
        await until(lambda: membership.ready)
        assert list(await observed.sync()) == ["10.0.0.8:8000"]
    assert "api is not registered yet: no name server" in caplog.text
    attempts = iter([NoAddress("no name server")])
    with pytest.raises(NoAddress):
        await member(servers, address=None, wait=True).__aenter__()


# ---------------------------------------------------------------- workers and servers


async def test_siblings_stand_by_and_take_over(servers: str, observed: View[Any]) -> None:
    options: dict[str, Any] = {"workers": "one", "wait": True, "ready_in_outage": False}
    async with member(servers, payload=1, **options) as first, member(servers, payload=2, **options) as second:
        assert first.readiness() == Readiness(True, "live", None)
        assert second.readiness() == Readiness(True, "registering", "a sibling is listed")
        await first.drain()
        await observed.wait_for(lambda snapshot: ID in snapshot and snapshot[ID].payload == 2, TIMEOUT)
        await until(lambda: second.readiness() == Readiness(True, "live", None))


async def test_siblings_that_end_together_are_not_listed_again(servers: str, observed: View[Any]) -> None:
    options: dict[str, Any] = {"workers": "one", "wait": True}
    async with (
        member(servers, **options) as first,
        member(servers, **options) as second,
        observed.changes() as changes,
    ):
        await asyncio.gather(second.drain(), first.drain())
        assert isinstance(await anext(changes), Updated)
        assert isinstance(await anext(changes), Removed)
        assert gone(await observed.sync())
        assert first.registration.withdrawn
        assert second.registration.withdrawn


async def test_a_worker_of_gunicorn_has_an_id_of_its_own(servers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/23.0.0")
    async with member(servers, wait=True) as membership:
        assert membership.registration.instance.id == f"{ID}#{os.getpid()}"
    async with member(servers, wait=True, id="api-1", workers="one") as membership:
        assert membership.registration.instance.id == "api-1"


async def test_under_a_server_it_is_listed_when_that_listens(servers: str, observed: View[Any]) -> None:
    host = Hosting()
    token = hosting.set(host)
    try:
        async with member(servers, drain=60, wait=True) as membership, member(servers).connected() as unannounced:
            assert not host.listening
            assert membership.readiness().status == "starting"
            host.listen()
            await until(lambda: membership.ready)
            draining = asyncio.create_task(host.drain())
            await observed.wait_for(draining_is_told, TIMEOUT)
            assert draining_is_told(await observed.sync())
            assert not draining.done()
            await host.withdraw()
            assert gone(await observed.sync())
            assert membership.registration.withdrawn
            assert unannounced.readiness().status == "draining"
            await asyncio.wait([draining])
        async with member(servers, id="late") as late:
            await until(lambda: late.ready)
            await host.drain()
            assert late.registration.withdrawn
    finally:
        hosting.reset(token)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"servers": "zk:port"}, "servers", "zk:port"),
        ({"service": "a/b"}, "name", "a/b"),
        ({"port": 0}, "port", 0),
        ({"port": None}, "port", None),
        ({"port": "8000"}, "port", "8000"),
        ({"port": 70000}, "port", 70000),
        ({"address": "0.0.0.0"}, "address", "0.0.0.0"),
        ({"address": "a b"}, "address", "a b"),
        ({"id": ""}, "id", ""),
        ({"id": "a/b"}, "id", "a/b"),
        ({"payload": object}, "payload", object),
        ({"workers": "some"}, "workers", "some"),
        ({"workers": 2}, "workers", 2),
        ({"discover": "users"}, "discover", "users"),
        ({"discover": None}, "discover", None),
        ({"discover": ["a/b"]}, "discover", "a/b"),
        ({"discover": [7]}, "discover", 7),
        ({"discover": [["users"]]}, "discover", ["users"]),
        ({"discover": {"users": 7}}, "discover['users']", 7),
        ({"drain": -1}, "drain", -1),
        ({"drain": float("inf")}, "drain", float("inf")),
        ({"drain": "2"}, "drain", "2"),
        ({"drain": True}, "drain", True),
        ({"wait": 1}, "wait", 1),
        ({"ready_in_outage": None}, "ready_in_outage", None),
        ({"session_timeout": 0}, "session_timeout", 0),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], field: str, value: object) -> None:
    given: dict[str, Any] = {"servers": "127.0.0.1:2181", "service": "api", "port": 8000} | options
    with pytest.raises(InvalidArgument) as raised:
        Membership(given.pop("servers"), given.pop("service"), **given)
    assert (raised.value.field, raised.value.value) == (field, value)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="timeout"):
        Membership("127.0.0.1:2181", "api", port=8000, timeout=3)


def test_a_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_IP", "pod-7")
    with pytest.raises(InvalidArgument, match=r"POD_IP='pod-7'"):
        Membership("127.0.0.1:2181", "api", port=8000)


def test_what_is_never_entered_costs_no_warning() -> None:
    Membership("127.0.0.1:2181", "api", port=8000)
    gc.collect()
