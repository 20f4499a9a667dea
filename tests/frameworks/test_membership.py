"""A server's part in the registry, without a server: order, readiness, outages, siblings, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import itertools
import os
import re
import signal
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

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
    Registration,
    RegistrationConflict,
    RegistrationDisplaced,
    Registry,
    Removed,
    ServiceInstance,
    SessionState,
    Snapshot,
    Status,
    Updated,
    UsageError,
    View,
)
from aioregistry.integrations import _term
from aioregistry.integrations import membership as module
from aioregistry.integrations._advertised import NoAddress
from aioregistry.integrations.aiohttp import member as aiohttp_member
from aioregistry.integrations.membership import Hosting, Membership, NotYet, Readiness, hosting
from aioregistry.integrations.starlette import lifespan as starlette_lifespan
from aioregistry.testing._ports import ReservedPort
from aioregistry.testing._proxy import Direction, ZooKeeperProxy
from tests.support.judge import Judge
from tests.support.raising import ODD, raising
from tests.support.waiting import until

TIMEOUT = 100.0
REAL_SLEEP = asyncio.sleep
ID = "10.0.0.7:8000"


@pytest.fixture
async def observed(registry: Registry) -> AsyncIterator[View[Any]]:
    async with registry.discover("api") as view:
        yield view


def member(servers: str, **options: Any) -> Membership:
    """One that no server has: whoever has the port on this machine has nothing to do with it."""
    where = {"port": 8000, "address": "10.0.0.7", "check_port": False}
    return Membership(servers, "api", **{**where, "drain": 0.05, **options})


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
    pauses = Pauses()
    with mock.patch.object(asyncio, "sleep", pauses):
        async with member(servers, drain=60).connected() as membership:
            await until_connected(membership)
    assert 60 not in pauses.seconds
    with mock.patch.object(asyncio, "sleep", pauses):
        async with member(servers, drain=60, wait=True):
            pass
    assert 60 in pauses.seconds  # what the first would have seen


class Pauses:
    """In the place of ``asyncio.sleep``: what was asked for, and at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await REAL_SLEEP(0)


async def until_connected(membership: Membership) -> None:
    async with membership.registry.session.states() as states:
        async for state in states:
            if state is SessionState.CONNECTED:
                return


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


@contextlib.asynccontextmanager
async def by_task() -> AsyncIterator[Callable[[], object]]:
    task = asyncio.current_task()
    assert task is not None
    yield task.cancel


@contextlib.asynccontextmanager
async def by_scope() -> AsyncIterator[Callable[[], object]]:
    with anyio.CancelScope() as scope:
        yield scope.cancel


@pytest.mark.parametrize("cancellable", [by_task, by_scope])
async def test_cancelled_it_drains_all_the_same(servers: str, observed: View[Any], cancellable: Any) -> None:
    async def serve() -> None:
        async with cancellable() as cancel, member(servers, wait=True, drain=0.3) as membership:
            entered.set_result((cancel, membership.registration))
            await asyncio.sleep(3600)

    entered: asyncio.Future[tuple[Callable[[], object], Registration[Any]]] = asyncio.Future()
    serving = asyncio.create_task(serve())
    async with asyncio.timeout(TIMEOUT):
        cancel, registration = await entered
        await observed.wait_for(listed)
        async with observed.changes() as changes:
            cancel()
            # Told to send nothing new, and withdrawn: a session that merely ends does neither.
            told, withdrawn = await anext(changes), await anext(changes)
        assert isinstance(told, Updated)
        assert not told.instance.enabled
        assert isinstance(withdrawn, Removed)
        await asyncio.wait([serving])
    assert registration.withdrawn
    assert serving.cancelled() is (cancellable is by_task)


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
    with pytest.raises(asyncio.CancelledError):
        await serving


# ---------------------------------------------------------------- ZooKeeper is away


async def test_it_starts_without_zookeeper(proxy: ZooKeeperProxy, chroot: str, observed: View[Any]) -> None:
    proxy.refuse()
    async with member(f"{proxy.address}{chroot}", discover=["users"]) as membership:
        reason = "the view of 'users' is not synced yet: ZooKeeper has not answered yet"
        assert membership.readiness()[:3] == (False, "starting", reason)
        await until(lambda: proxy.address in membership.readiness().attempts)
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
        assert membership.readiness()[:3] == (ready_in_outage, "uncertain", "ZooKeeper does not answer")
        await until(lambda: membership.registration.status is Status.PRESUMED_GONE)
        assert membership.ready is ready_in_outage
        [(address, last)] = membership.readiness().document()["attempts"].items()
        assert address == proxy.address
        assert last["outcome"] in {"refused", "closed"}
        assert last["since"] <= last["at"]
        assert last["times"] >= 1
        proxy.accept()
        await until(lambda: membership.registration.status is Status.LIVE)
        assert "attempts" not in membership.readiness().document()
        assert membership.ready


async def test_leaving_in_an_outage_is_bounded(proxy: ZooKeeperProxy, chroot: str) -> None:
    async with asyncio.timeout(TIMEOUT):
        async with member(f"{proxy.address}{chroot}", wait=True, close_timeout=0.2) as membership:
            registration = membership.registration
            proxy.refuse()
            proxy.cut()
    assert registration.withdrawn is False


# ---------------------------------------------------------------- what may go wrong


async def test_displaced_it_is_not_ready_and_stands_by(servers: str, registry: Registry) -> None:
    newer = ServiceInstance("api", address="10.0.0.7", port=8000)
    async with member(servers, wait=True) as membership:
        async with registry.register(newer):
            await until(lambda: not membership.ready)
            reason = "another process has claimed the id; this one stands by until that goes"
            assert membership.readiness() == Readiness(False, "displaced", reason)
            assert repr(membership) == "<Membership api displaced, not ready>"
        await until(lambda: membership.ready)  # no restart, nobody's hand
        assert membership.readiness() == Readiness(True, "live", None)


async def test_displaced_it_stops_where_it_is_told_to(servers: str, registry: Registry) -> None:
    newer = ServiceInstance("api", address="10.0.0.7", port=8000)
    async with member(servers, wait=True, on_displaced="stop") as membership, registry.register(newer):
        assert isinstance(await membership.registration.wait_closed(), RegistrationDisplaced)
        await until(lambda: "claimed" in str(membership.readiness().reason))
        assert membership.readiness()[:2] == (False, "displaced")


async def test_it_takes_nobodys_id_where_it_is_told_not_to(servers: str, registry: Registry) -> None:
    older = ServiceInstance("api", address="10.0.0.7", port=8000, payload="older")
    async with registry.register(older) as registration:
        with pytest.raises(RegistrationConflict):
            await member(servers, wait=True, on_conflict="fail").__aenter__()
        async with member(servers, on_conflict="wait") as waiting:
            await until(lambda: waiting.readiness().status == "registering")
            assert not waiting.ready
            assert registration.status is Status.LIVE
            await registration.aclose()
            await until(lambda: waiting.ready)


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
    assert any(message.startswith("view users: ") for message in caplog.messages)


async def test_the_address_is_found_when_it_can_be(
    servers: str, observed: View[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = iter([NoAddress("no name server"), None])

    async def found(*_: object) -> str:
        if (failure := next(attempts)) is not None:
            raise failure
        return "10.0.0.8"

    monkeypatch.setattr(_term, "advertised_address", found)
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


async def test_it_tells_what_an_operator_says_of_it_and_stays_ready(servers: str, observed: View[Any]) -> None:
    async with member(servers) as membership, aioregistry.connect(servers) as operator:
        await until(lambda: membership.ready)
        assert "override" not in membership.readiness().document()
        id = membership.registration.instance.id
        for enabled, weight in ((False, None), (None, 0.5)):
            said = await operator.overrides.drain("api", id, reason="new disk", by="ann@ops1", weight=weight)

            def is_told(enabled: bool | None = enabled) -> bool:
                told = override_of(membership)
                return told is not None and told["enabled"] is enabled

            await until(is_told)
            assert override_of(membership) == {
                "enabled": enabled, "weight": weight, "reason": "new disk", "by": "ann@ops1",
                "since": said.since, "until": said.until,
            }  # fmt: skip
            assert membership.readiness()[:3] == (True, "live", None)
        await observed.wait_for(lambda snapshot: snapshot[id].enabled, TIMEOUT)
        await operator.overrides.enable("api", id)
        await until(lambda: override_of(membership) is None)


def override_of(membership: Membership) -> Any:
    return membership.readiness().document().get("override")


def test_half_a_surrogate_is_shown_as_what_others_can_read() -> None:
    checks = {"db\ud800": {"state": "failing", "since": 1.5, "reason": "\udcff"}}
    document = Readiness(False, "failing", "\ud800", checks, {"reason": "a\ud800", "weight": None}).document()
    assert document == {
        "ready": False, "status": "failing", "reason": "?",
        "checks": {"db?": {"state": "failing", "since": 1.5, "reason": "?"}},
        "override": {"reason": "a?", "weight": None},
    }  # fmt: skip


# ---------------------------------------------------------------- programs without a server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
async def test_it_serves_until_a_signal(servers: str, observed: View[Any], number: signal.Signals) -> None:
    before = signal.getsignal(number)
    told: list[bool] = []

    async def jobs() -> None:
        await observed.wait_for(draining_is_told, TIMEOUT)
        told.append(True)

    serving = asyncio.create_task(member(servers).serve_until_signal(jobs))
    await observed.wait_for(listed, TIMEOUT)
    os.kill(os.getpid(), number)
    async with asyncio.timeout(TIMEOUT):
        assert await serving is number
    assert told == [True]
    assert await observed.sync() == {}
    assert signal.getsignal(number) is before


async def test_a_second_signal_ends_it_at_once(servers: str, observed: View[Any]) -> None:
    membership = member(servers, drain=3600)
    async with membership:
        serving = asyncio.create_task(membership.serve_until_signal(3600))
        await observed.wait_for(listed, TIMEOUT)
        os.kill(os.getpid(), signal.SIGTERM)
        await observed.wait_for(draining_is_told, TIMEOUT)
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(TIMEOUT):
            assert await serving is signal.SIGTERM
        assert await observed.sync() == {}
        assert membership.readiness().status == "draining"


async def test_a_signal_ends_it_while_zookeeper_is_away() -> None:
    with ReservedPort() as nobody:
        serving = asyncio.create_task(member(f"127.0.0.1:{nobody.number}", wait=True).serve_until_signal())
        async with asyncio.timeout(TIMEOUT):
            while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                await asyncio.sleep(0.005)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await serving is signal.SIGTERM


@pytest.mark.parametrize("kind", ODD)
async def test_jobs_that_raise_are_told_when_it_is_withdrawn(servers: str, observed: View[Any], kind: str) -> None:
    async def jobs() -> None:
        raising(kind)

    serving = asyncio.create_task(member(servers, drain=0).serve_until_signal(jobs))
    await observed.wait_for(listed, TIMEOUT)
    os.kill(os.getpid(), signal.SIGTERM)
    done, _ = await asyncio.wait([serving], timeout=TIMEOUT)
    assert done
    assert not serving.cancelled()
    assert isinstance(serving.exception(), Exception)
    assert await observed.sync() == {}


async def test_what_ends_the_registration_is_raised(servers: str, registry: Registry, observed: View[Any]) -> None:
    serving = asyncio.create_task(member(servers, on_displaced="stop").serve_until_signal())
    await observed.wait_for(listed, TIMEOUT)
    async with registry.register(ServiceInstance("api", address="10.0.0.7", port=8000)):
        with pytest.raises(RegistrationDisplaced):
            async with asyncio.timeout(TIMEOUT):
                await serving


async def test_cancelling_leaves_the_jobs_alone(servers: str, observed: View[Any]) -> None:
    async def jobs() -> None:
        raise AssertionError("never called")

    before = signal.getsignal(signal.SIGTERM)
    serving = asyncio.create_task(member(servers).serve_until_signal(jobs))
    await observed.wait_for(listed, TIMEOUT)
    serving.cancel()
    await asyncio.wait([serving])
    assert serving.cancelled()
    assert await observed.sync() == {}
    assert signal.getsignal(signal.SIGTERM) is before


async def test_signals_are_the_main_threads_and_seconds_are_seconds(servers: str) -> None:
    with pytest.raises(UsageError, match="main thread"):
        await asyncio.to_thread(asyncio.run, member(servers).serve_until_signal())
    for wrong in (-1, "5", True):
        with pytest.raises(InvalidArgument, match=r"^drain="):
            await member(servers).serve_until_signal(wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- workers and servers


async def test_a_worker_needs_no_port(servers: str, observed: View[Any]) -> None:
    async with Membership(servers, "api", address="10.0.0.7", drain=0, wait=True) as membership:
        [instance] = (await observed.wait_for(listed, TIMEOUT)).values()
        assert re.fullmatch(r"10\.0\.0\.7#[0-9a-f]{8}", instance.id)
        assert instance.port is None
        assert membership.ready
        async with Membership(servers, "api", address="10.0.0.7", drain=0, wait=True) as another:  # by the same process
            assert another.registration.instance.id != instance.id
    with pytest.raises(InvalidArgument, match=r"^id=None"):
        Membership(servers, "api", workers="one")


def test_a_server_needs_one(servers: str) -> None:
    membership = Membership("127.0.0.1:2181", "api")
    for wants in (starlette_lifespan, aiohttp_member):
        with pytest.raises(InvalidArgument, match=r"^port=None"):
            wants(membership)


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
        ({"service": "a//b"}, "name", "a//b"),
        ({"port": 0}, "port", 0),
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
        ({"discover": ["a//b"]}, "discover", "a//b"),
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
        ({"ssl_port": 0}, "ssl_port", 0),
        ({"ssl_port": 70000}, "ssl_port", 70000),
        ({"payload_class": ""}, "payload_class", ""),
        ({"uri_spec": "http"}, "uri_spec", "http"),
        ({"extra": 7}, "extra", 7),
        ({"enabled": "no"}, "enabled", "no"),
        ({"on_conflict": "ask"}, "on_conflict", "ask"),
        ({"on_displaced": "ask"}, "on_displaced", "ask"),
        ({"on_displaced": None}, "on_displaced", None),
        ({"workers": "one", "on_conflict": "takeover"}, "on_conflict", "takeover"),
        ({"workers": "one", "on_displaced": "stop"}, "on_displaced", "stop"),
        ({"workers": ["each"]}, "workers", ["each"]),
        ({"check_port": 1}, "check_port", 1),
        ({"keep": "kept"}, "keep", "kept"),
        ({"keep": "kept", "discover": ["a", "b"]}, "keep", "kept"),
        ({"keep": {"b": "kept"}, "discover": ["a"]}, "keep", "b"),
        ({"keep": 7, "discover": ["a"]}, "keep", 7),
        ({"keep": {"a": 7}, "discover": ["a"]}, "keep", 7),
        ({"close_timeout": -1}, "close_timeout", -1),
        ({"base_path": "services"}, "base_path", "services"),
        ({"watches": "some"}, "watches", "some"),
        ({"guard": 7}, "guard", 7),
        ({"tls": True}, "tls", True),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], field: str, value: object) -> None:
    given: dict[str, Any] = {"servers": "127.0.0.1:2181", "service": "api", "port": 8000} | options
    with pytest.raises(InvalidArgument) as raised:
        Membership(given.pop("servers"), given.pop("service"), **given)
    assert (raised.value.field, raised.value.value) == (field, value)


@pytest.mark.parametrize("option", ["timeout", "sesion_timeout", "on_displace", "runtime"])
def test_an_unknown_option_is_refused_by_name(option: str) -> None:
    with pytest.raises(TypeError) as raised:
        Membership("127.0.0.1:2181", "api", port=8000, **{option: 3})  # type: ignore[arg-type]
    assert option in str(raised.value)
    assert "Membership" in str(raised.value)


# The arguments that Membership does not take, and why.
NOT_TAKEN: dict[Any, dict[str, str]] = {
    aioregistry.connect: {
        "runtime": "for simulated worlds, which connect themselves",
        "thread": "a server that is registered lives on the loop that it serves on",
        "lag_check": "for threads",
    },
    ServiceInstance.__init__: {
        "self": "the instance",
        "name": "the service",
        "service_type": "what is registered is DYNAMIC",
        "registration_time_ms": "set when it is registered",
        "session_timeout_ms": "what the servers grant",
        "status": "why it is not enabled, which the registration says",
    },
    Registry.register: {"self": "the registry", "instance": "made of the membership's own arguments"},
    Registry.discover: {"self": "the registry", "name": "in discover=", "payload_type": "in discover="},
}
OWN_DEFAULTS = {"wait", "payload", "acl", "on_conflict", "on_displaced", "servers", "keep", "guard"}


@pytest.mark.parametrize("source", NOT_TAKEN, ids=lambda source: source.__qualname__)
def test_it_takes_what_connecting_registering_and_discovering_take(source: Any) -> None:
    taken = inspect.signature(Membership).parameters
    given = inspect.signature(source).parameters
    assert given.keys() - taken.keys() == NOT_TAKEN[source].keys()
    for name in given.keys() & taken.keys() - OWN_DEFAULTS:
        if source is not Registry.register or name != "close_timeout":
            assert taken[name].default == given[name].default, name
    if source is aioregistry.connect:
        assert taken["guard"].default == given["guard"].default


async def test_all_of_the_instance_is_listed(servers: str, observed: View[Any]) -> None:
    options: dict[str, Any] = {
        "ssl_port": 8443,
        "payload": {"zone": "a"},
        "payload_class": "com.example.Zone",
        "uri_spec": {"parts": [{"value": "scheme", "variable": True}]},
        "extra": {"weight": 3},
        "enabled": False,
    }
    async with member(servers, wait=True, id="api-1", **options) as membership:
        assert membership.ready  # for those who have connections to it
        snapshot = await observed.sync()
        assert snapshot["api-1"] == ServiceInstance("api", id="api-1", address="10.0.0.7", port=8000, **options)


async def test_a_server_that_speaks_only_tls(servers: str, observed: View[Any]) -> None:
    async with member(servers, wait=True, port=None, ssl_port=8443):
        assert list(await observed.sync()) == ["10.0.0.7:8443"]


async def test_the_last_snapshot_is_kept(
    servers: str, registry: Registry, proxy: ZooKeeperProxy, tmp_path: Path
) -> None:
    files = {"users": tmp_path / "users", "rooms": tmp_path / "rooms"}
    async with registry.register(ServiceInstance("users", id="a")), registry.register(ServiceInstance("rooms", id="b")):
        async with member(servers, wait=True, discover=list(files), keep=files):
            pass
        async with member(servers, wait=True, discover=["users"], keep=tmp_path / "one"):
            pass
    proxy.refuse()
    chroot = servers.partition("/")[2]
    for keep, name in ((files["users"], "users"), (tmp_path / "one", "users"), ({"rooms": files["rooms"]}, "rooms")):
        async with member(f"{proxy.address}/{chroot}", discover=[name], keep=keep) as away:
            await until(lambda: not str(away.readiness().reason).startswith("the view"))
            assert len(away.view(name).snapshot) == 1


async def test_its_own_view_has_it_when_it_is_entered(proxy: ZooKeeperProxy, chroot: str) -> None:
    async with member(f"{proxy.address}{chroot}", wait=True, discover=["api"]).connected() as membership:
        proxy.delay(0.05, Direction.TO_CLIENT)  # the answer and the news come one after the other
        await membership.announce()
        assert list(membership.view("api").snapshot) == [ID]
        assert membership.ready


async def test_ready_when_its_own_view_has_it(servers: str) -> None:
    async with member(servers, discover=["api"], payload={"zone": "a"}) as membership:
        await until(lambda: membership.ready)
        assert list(membership.view("api").snapshot) == [ID]
    async with member(servers, discover={"api": User}, payload={"zone": "a"}) as membership:
        await until(lambda: membership.ready)  # though its own payload is none of that type
        assert list(membership.view("api").snapshot.invalid) == [ID]


def test_without_asyncio_there_is_one_clear_error() -> None:
    """Under trio, or in a plain thread; a coroutine that nobody awaited would be a warning, and warnings are errors."""
    membership = Membership("127.0.0.1:2181", "api", port=8000)
    for entering in (membership.__aenter__, membership.connected().__aenter__):
        with pytest.raises(UsageError) as raised:
            entering().send(None)
        assert "asyncio" in str(raised.value)
        assert "Membership" in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__
    gc.collect()
    assert repr(membership) == "<Membership api not entered>"


@pytest.mark.parametrize(
    "options", [{"auth": [("digest", "secret", 1)]}, {"session_timeout": -1}, {"port": 0}, {"drain": "2"}, {"id": ""}]
)
def test_a_refused_one_can_be_shown(options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"port": 8000, "auth": [("digest", "api:secret")]} | options
    with pytest.raises(InvalidArgument) as raised:
        Membership("127.0.0.1:2181", "api", **given)
    trace = raised.value.__traceback__
    shown = []
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == module.__file__:
            shown += [repr(value) for value in trace.tb_frame.f_locals.values()]
        trace = trace.tb_next
    assert "<Membership, not made>" in shown
    assert not any("secret" in text for text in shown)


async def test_an_entered_one_shows_no_secret(servers: str) -> None:
    async with member(servers, auth=[("digest", "api:secret")]) as membership:
        term = membership._term
        assert term is not None
        assert "secret" not in f"{membership!r} {membership._settings!r} {term!r} {vars(term)!r}"


def test_a_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_IP", "pod-7")
    with pytest.raises(InvalidArgument, match=r"POD_IP='pod-7'"):
        Membership("127.0.0.1:2181", "api", port=8000)


def test_what_is_never_entered_costs_no_warning() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Membership("127.0.0.1:2181", "api", port=8000)
        gc.collect()
    assert told == []
