"""Bad input costs one clear error, or one event, and nothing else: the process keeps what it had."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import json
import logging
import random
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

import aioregistry
from aioregistry import (
    Added,
    AuthenticationFailed,
    ChrootMissing,
    ConnectTimeout,
    HandleClosed,
    InvalidArgument,
    Registration,
    Registry,
    Removed,
    RequestTooLarge,
    ServiceInstance,
    SessionState,
    Status,
    UsageError,
    View,
)
from aioregistry.testing._network import on_network
from aioregistry.testing._ports import ReservedPort
from aioregistry.testing._proxy import TcpProxy, ZooKeeperProxy
from tests.cli.command import Command
from tests.support import wire
from tests.support.checkers import check_contained, check_converged, check_owned
from tests.support.inside import password_of, session_of
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE, until
from tests.support.wire import Operation
from tests.support.zookeeper import ZooKeeperServer

LONG = 60.0
"""Seconds: the timeout of sessions, which none of this is to end."""
SOON = 0.3
"""Seconds: the deadline of connecting to what never answers as it should."""
SLACK = 5.0
"""Seconds that a busy machine may add to a bound; whoever keeps none takes LONG."""
SERVICE = "/services/chat"
NAN, INFINITY = float("nan"), float("inf")


def instance(id: str = "a", **fields: Any) -> ServiceInstance[Any]:
    return ServiceInstance("chat", id=id, address="127.0.0.1", port=7000, **fields)


def document(id: str, **fields: object) -> bytes:
    return json.dumps({"name": "chat", "id": id, "address": "127.0.0.1", "port": 7000} | fields).encode()


class Bystander:
    """The process's handles before: a session with a live registration and a fresh view."""

    def __init__(self, registry: Registry, registration: Registration[Any], view: View[Any], judge: Judge) -> None:
        self.registry, self.registration, self.view = registry, registration, view
        self._judge = judge
        self._session_id = registry.session.id

    async def lost(self) -> list[str]:
        """The parts of it that are not as they were."""
        session = session_of(self.registry)
        kept = {
            "the session": session.id == self._session_id and session.state is SessionState.CONNECTED,
            "the connection": session.generation == 1,
            "the registration": self.registration.status is Status.LIVE,
            "the node": await self._judge.owner(self.registration.path) == self._session_id,
            "the view": self.view.fresh and set(await self.view.sync(DEADLINE)) == {"bystander"},
        }
        return [what for what, is_kept in kept.items() if not is_kept]


@pytest.fixture
async def bystander(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> AsyncIterator[Bystander]:
    mine: ServiceInstance[Any] = ServiceInstance("bystanders", id="bystander", payload="here")
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG) as registry,
        registry.register(mine) as registration,
        registry.discover("bystanders") as view,
    ):
        yield Bystander(registry, registration, view, judge)


# ---------------------------------------------------------------- host lists


@pytest.mark.parametrize(
    ("servers", "named"),
    [
        ("", "''"),
        ("  ", "'  '"),
        (",", "','"),
        ("zk1,,zk2", "'zk1,,zk2'"),
        ("zk1 zk2:2181", "'zk1 zk2:2181'"),
        ("zk1:2181 zk2:2181", "'zk1:2181 zk2:2181'"),
        ("zk1:0", "'0'"),
        ("zk1:65536", "'65536'"),
        ("zk1:-1", "'-1'"),
        ("zk1:http", "'http'"),
        ("zk1:", "zk1:"),
        ("zk1:2181,zk2:99999", "'99999'"),
        ("zk1:２１８１", "'２１８１'"),
        ("[::1", "'[::1'"),
        ("[::1]2181", "'[::1]2181'"),
        ("[::1]:0", "'0'"),
        ("[zk1]:2181", "'[zk1]:2181'"),
        ("-zk:2181", "'-zk'"),
        ("zk_1..example:2181", "'zk_1..example'"),
        ("http://zk1:2181", "'http://zk1:2181'"),
        ("256.256.256.256:2181", "'256.256.256.256'"),
        ("::1:2181", "[::1]:2181"),
        ("/chroot", "'/chroot'"),
        ("zk1:2181//chroot", "'//chroot'"),
        ("zk1:2181/a/../b", "'/a/../b'"),
        ("zk1:2181/a\0", r"'/a\x00'"),
        ("zk1:2181/a,zk2:2181/b", "'zk1:2181/a,zk2:2181/b'"),
        (None, "None"),
        (2181, "2181"),
        (b"zk1:2181", "b'zk1:2181'"),
        (["zk1:2181"], "['zk1:2181']"),
    ],
)
def test_host_lists_are_refused_at_once(servers: Any, named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _ = aioregistry.connect(servers)
    check_contained(told=[str(caught.value)], names=["servers=", named])


@pytest.mark.parametrize(
    "servers", [" {0} ", "{0} , {0}", "{0},[::1]:1", "localhost:{1},{0}", "{0},no-such-host.invalid:2181"]
)
async def test_host_lists_that_look_odd_do(zookeeper: ZooKeeperServer, chroot: str, servers: str) -> None:
    addresses = servers.format(zookeeper.address, zookeeper.port)
    async with aioregistry.connect(f"{addresses}{chroot}/", session_timeout=LONG) as registry:
        assert await registry.services() == []


@pytest.mark.parametrize(
    ("servers", "named"),
    [
        ("[::1]:{0}", "[::1]:{0}"),
        ("no-such-host.invalid:{0}", "no-such-host.invalid:{0}: the name was not resolved"),
        ("127.0.0.1:{0}/chroot", "127.0.0.1:{0}"),
    ],
)
async def test_hosts_that_nobody_answers_at(bystander: Bystander, servers: str, named: str) -> None:
    with ReservedPort() as port:
        hosts = servers.format(port.number)
        async with asyncio.timeout(SOON + SLACK):
            with pytest.raises(ConnectTimeout) as caught:
                _ = await aioregistry.connect(hosts, session_timeout=LONG, connect_timeout=SOON)
    names = [hosts, named.format(port.number), f"{SOON} s"]
    check_contained(told=[str(caught.value)], names=names, lost=await bystander.lost())


async def test_a_chroot_is_made_by_a_registration_or_missed(
    zookeeper: ZooKeeperServer, judge: Judge, bystander: Bystander, caplog: pytest.LogCaptureFixture
) -> None:
    chroot = f"{bystander.registry.base_path}/deep/down"
    missing = aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG, create_chroot=False)
    with pytest.raises(ChrootMissing) as caught:
        _ = await missing
    check_contained(told=[str(caught.value)], names=[f"chroot={chroot!r}"], lost=await bystander.lost())
    assert await judge.node(chroot) is None
    caplog.clear()
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}", session_timeout=LONG) as registry,
        registry.discover("chat") as view,
    ):
        assert (list(view.snapshot), await registry.services()) == ([], [])
        told = [record.getMessage() for record in caplog.records if record.name == "aioregistry.registry"]
        check_contained(told=told, names=[f"chroot={chroot!r}"])
        assert await judge.node(chroot) is None
        async with registry.register(instance()):
            await view.wait_for(lambda snapshot: len(snapshot) == 1, timeout=LONG)
        assert await judge.node(chroot) is not None


async def test_a_missing_chroot_is_told_to_whoever_does_not_wait(
    proxy: ZooKeeperProxy, judge: Judge, chroot: str, caplog: pytest.LogCaptureFixture
) -> None:
    missing = f"{chroot}/typo"
    proxy.lose_next_reply(wire.EXISTS)
    async with aioregistry.connect(f"{proxy.address}{missing}", session_timeout=LONG, wait=False) as registry:
        async with asyncio.timeout(LONG):
            while not (told := [each.getMessage() for each in caplog.records if each.name == "aioregistry.registry"]):
                await asyncio.sleep(0.01)
        check_contained(told=told, names=[f"chroot={missing!r}"])
        assert await registry.services() == []
        proxy.cut()
        assert await registry.services() == []
    assert [each.name for each in caplog.records].count("aioregistry.registry") == 1
    assert await judge.node(missing) is None


async def test_a_chroot_that_is_not_found_in_time(proxy: ZooKeeperProxy, bystander: Bystander) -> None:
    for _ in range(1000):
        proxy.lose_next_reply(wire.EXISTS)
    async with asyncio.timeout(SOON + SLACK):
        with pytest.raises(ConnectTimeout) as caught:
            _ = await aioregistry.connect(f"{proxy.address}/lost", session_timeout=LONG, connect_timeout=SOON)
    names = [f"servers='{proxy.address}/lost'", f"{SOON} s", "chroot='/lost'"]
    check_contained(told=[str(caught.value)], names=names, lost=await bystander.lost())


# ---------------------------------------------------------------- options


NO_SECONDS = [0, -1, 0.0, -0.001, NAN, INFINITY, -INFINITY, 10**400, "10", True, [10], 1j]
NO_BASE_PATHS = ["", "services", "services/", "/a//b", "/a/./b", "/a/../b", "/a\0", "/\ud800", None, b"/a", 7]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("session_timeout", "connect_timeout", "close_timeout") for value in NO_SECONDS),
        ("session_timeout", None),
        ("session_timeout", 2**31 / 1000),  # milliseconds are an int in the protocol
        *(("base_path", value) for value in NO_BASE_PATHS),
        *(("max_request", value) for value in (0, -1, 1.5, "1", None, True)),
        *(("watches", value) for value in ("", "persistent", None, 1, ["auto"])),
        *(("acl", value) for value in (None, (), 7, "world", [None])),
        *(("auth", value) for value in (None, 7)),
        *(("tls", value) for value in (True, "cert.pem")),
        *(("on_event", value) for value in ("print", 7)),
        *(("runtime", value) for value in ("simulated", 7)),
    ],
)
def test_options_are_refused_at_once(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _ = aioregistry.connect("zk1", **{field: value})
    assert caught.value.field == field
    check_contained(told=[str(caught.value)], names=[f"{field}="])


@pytest.mark.parametrize("seconds", NO_SECONDS)
async def test_deadlines_are_refused_at_once(bystander: Bystander, seconds: Any) -> None:
    async def refused(call: Callable[[], Any]) -> str:
        with pytest.raises(InvalidArgument) as caught:
            await call()
        return str(caught.value)

    waits = [
        lambda: bystander.registration.wait_live(timeout=seconds),
        lambda: bystander.view.wait_for(lambda _: True, timeout=seconds),
        lambda: bystander.view.sync(timeout=seconds),
    ]
    for wait in waits:
        check_contained(told=[await refused(wait)], names=["timeout="], lost=await bystander.lost())
    with pytest.raises(InvalidArgument, match="close_timeout="):
        _ = bystander.registry.register(instance(), close_timeout=seconds)


@pytest.mark.parametrize(
    ("option", "value"), [("on_conflict", "steal"), ("on_conflict", None), ("on_displaced", ["stop"])]
)
async def test_options_of_a_registration(bystander: Bystander, option: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _ = bystander.registry.register(instance(), **{option: value})
    check_contained(told=[str(caught.value)], names=[f"{option}={value!r}"], lost=await bystander.lost())


# ---------------------------------------------------------------- names, ids and other fields


NO_SEGMENTS = [
    "",
    ".",
    "..",
    "a//b",
    "/",
    "a\0b",
    "\x1f",
    "\x7f",
    "\ud800",
    "\uf8ff",
    "\ufff0",
    "\U0001f600",
    7,
    b"a",
]


@pytest.mark.parametrize("segment", [*NO_SEGMENTS, None])
async def test_names_and_ids_that_are_no_path_segment(bystander: Bystander, segment: Any) -> None:
    attempts: dict[str, Callable[[], object]] = {
        "name": lambda: ServiceInstance(segment, id="a"),
        "id": lambda: ServiceInstance("chat", id=segment, port=7000),
        "name ": lambda: bystander.registry.discover(segment),
    }
    for field, attempt in attempts.items():
        with pytest.raises(InvalidArgument) as caught:
            attempt()
        names = [f"{field.strip()}={segment!r}"]
        check_contained(told=[str(caught.value)], names=names, lost=await bystander.lost())


@pytest.mark.parametrize("segment", ["10.0.0.7:7000#worker", "[::1]:7000", "ä ö", "%2F", "...", "a" * 200, "\uffee"])
async def test_names_and_ids_that_look_odd_do(bystander: Bystander, judge: Judge, segment: str) -> None:
    odd: ServiceInstance[Any] = ServiceInstance(segment, id=segment)
    async with bystander.registry.register(odd) as registration, bystander.registry.discover(segment) as view:
        assert await judge.owner(registration.path) == bystander.registry.session.id
        assert dict(view.snapshot) == {segment: odd}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("port", "7000"),
        ("ssl_port", 1.5),
        ("address", ""),
        ("address", "two words"),
        ("enabled", 1),
        ("service_type", "DYNAMIC"),
        ("uri_spec", {}),
        ("uri_spec", "scheme://"),
        ("registration_time_ms", -1),
        ("registration_time_ms", 2**63),  # a Java long
        ("payload_class", "no class"),
        ("extra", {"name": "other"}),
        ("extra", [1]),
    ],
)
def test_fields_are_refused_at_once(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ServiceInstance("chat", **{"id": "a"} | {field: value})
    check_contained(told=[str(caught.value)], names=[f"{field}={value!r}"])


async def test_what_cannot_be_registered(bystander: Bystander) -> None:
    attempts: dict[str, Any] = {
        "instance='chat'": "chat",
        "service_type='STATIC'": instance(service_type=aioregistry.ServiceType.STATIC),
        "id='bystander'": bystander.registration.instance,
    }
    for named, what in attempts.items():
        with pytest.raises(InvalidArgument) as caught:
            _ = bystander.registry.register(what)
        check_contained(told=[str(caught.value)], names=[named], lost=await bystander.lost())


# ---------------------------------------------------------------- payloads


class NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("not even that")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["itself"] = value
    return value


NO_JSON: dict[str, Any] = {
    "nan": NAN,
    "infinity": {"load": [INFINITY]},
    "object": object(),
    "without repr": NoRepr(),
    "class": object,
    "function": len,
    "coroutine-like": iter([1]),
    "key": {(1, 2): 3},
    "key of none": {None: 1},
    "surrogate": "\ud800",
    "itself": endless(),
    "deep": nested(100_000),
    "large": [NAN, "x" * 10_000_000],
    "java class": {"@class": "java.util.HashMap"},
}


@pytest.mark.parametrize("payload", NO_JSON.values(), ids=NO_JSON.keys())
async def test_payloads_that_are_no_json(bystander: Bystander, judge: Judge, payload: Any) -> None:
    before = await judge.node(bystander.registration.path)
    with pytest.raises(InvalidArgument) as made:
        instance(payload=payload)
    with pytest.raises(InvalidArgument) as updated:
        await bystander.registration.update(payload=payload)
    for caught in (made, updated):
        told = str(caught.value)
        check_contained(told=[told], names=["payload="], lost=await bystander.lost())
        assert len(told) < 1000  # a line in a log
    assert await judge.node(bystander.registration.path) == before
    assert bystander.registration.instance.payload == "here"


@pytest.mark.parametrize("payload", [10**30, -(2**63), 1e308, {"1": None}, nested(50), "\0", "\U0001f600"])
async def test_payloads_that_look_odd_are_seen_as_they_are(bystander: Bystander, payload: Any) -> None:
    async with (
        bystander.registry.register(instance(payload=payload)),
        bystander.registry.discover("chat") as view,
    ):
        assert not view.snapshot.invalid
        assert view.snapshot["a"].payload == payload


async def test_payloads_over_the_servers_limit(bystander: Bystander, judge: Judge) -> None:
    before = await judge.node(bystander.registration.path)
    with pytest.raises(RequestTooLarge) as made:
        _ = bystander.registry.register(instance(payload="x" * 2**20))
    with pytest.raises(RequestTooLarge) as updated:
        await bystander.registration.update(payload="x" * 2**20)
    for caught in (made, updated):
        names = ["instance=", "bytes", "jute.maxbuffer is 1048575"]
        check_contained(told=[str(caught.value)], names=names, lost=await bystander.lost())
    assert await judge.node(bystander.registration.path) == before


async def test_the_largest_payload_can_be_taken_over(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, bystander: Bystander
) -> None:
    """An accepted value passes the server's own limit in every request that it may need."""

    async def fits(size: int) -> bool:
        try:
            registration = bystander.registry.register(instance(payload="x" * size))
        except RequestTooLarge:
            return False
        await registration.aclose()  # never entered
        return True

    largest, too_large = 0, 2**20
    while too_large - largest > 1:
        middle = (largest + too_large) // 2
        largest, too_large = (middle, too_large) if await fits(middle) else (largest, middle)
    ghost = await wire.connect(zookeeper.address)
    await judge.make(f"{chroot}{SERVICE}")
    await ghost.create(f"{chroot}{SERVICE}/a", flags=wire.EPHEMERAL)
    async with ghost, bystander.registry.register(instance(payload="x" * largest)) as registration:
        owner = await judge.owner(registration.path)
        check_owned(live=True, session_id=bystander.registry.session.id, owner=owner)
        await registration.update(payload="y" * largest)
        async with bystander.registry.discover("chat") as view:
            assert view.snapshot["a"].payload == "y" * largest
    assert registration.withdrawn
    assert not await bystander.lost()


# ---------------------------------------------------------------- handles


Use = Callable[[Any], Any]

USES: dict[type, dict[str, Use]] = {
    Registry: {
        "register": lambda registry: registry.register(instance("other")),
        "discover": lambda registry: registry.discover("chat"),
        "services": lambda registry: registry.services(),
        "watch_services": lambda registry: registry.watch_services(),
        "client": lambda registry: registry.client,
    },
    Registration: {
        "update": lambda registration: registration.update(payload=1),
        "wait_live": lambda registration: registration.wait_live(),
    },
    View: {
        "snapshot": lambda view: view.snapshot,
        "fresh": lambda view: view.fresh,
        "snapshots": lambda view: view.snapshots(),
        "changes": lambda view: view.changes(),
        "wait_for": lambda view: view.wait_for(lambda _: True),
        "sync": lambda view: view.sync(),
    },
}


async def use(handle: Any, name: str) -> None:
    """Use a handle in one way, and wait for what comes of it, if one has to."""
    result = USES[type(handle)][name](handle)
    if inspect.iscoroutine(result):
        await result


async def misuses(handle: Any, error: type[UsageError]) -> list[str]:
    """The error that every use of the handle gets."""
    told = []
    for name in USES[type(handle)]:
        with pytest.raises(error) as caught:
            await use(handle, name)
        told.append(str(caught.value))
    return told


@contextlib.asynccontextmanager
async def handles(bystander: Bystander) -> AsyncIterator[list[Any]]:
    """One of each, not entered yet."""
    registry = aioregistry.connect(str(session_of(bystander.registry).connect_string), session_timeout=LONG)
    made = [registry, bystander.registry.register(instance()), bystander.registry.discover("chat")]
    yield made
    for handle in reversed(made):
        await handle.aclose()


async def test_handles_before_they_are_entered_and_after_they_are_closed(bystander: Bystander) -> None:
    async with handles(bystander) as made:
        for handle in made:
            assert all("not entered" in told for told in await misuses(handle, UsageError))
            async with handle:
                pass
            assert all("closed" in told for told in await misuses(handle, HandleClosed))
            await handle.aclose()
        assert not await bystander.lost()


async def test_handles_are_entered_once(bystander: Bystander) -> None:
    async with handles(bystander) as made:
        for handle in made:
            assert await handle is handle
            with pytest.raises(UsageError, match="once"):
                _ = await handle
            async with handle:
                with pytest.raises(UsageError, match="once"):
                    await handle.__aenter__()
                for name in USES[type(handle)]:
                    if name not in ("register", "discover"):
                        await use(handle, name)
            with pytest.raises(UsageError, match="once"):
                await handle.__aenter__()
        assert not await bystander.lost()


async def in_thread(work: Callable[[], Any]) -> str:
    """The exception of *work* on a thread of its own."""

    def run() -> str:
        with pytest.raises(UsageError) as caught:
            work()
        return str(caught.value)

    return await asyncio.to_thread(run)


async def test_handles_belong_to_their_loop(bystander: Bystander) -> None:
    for handle in (bystander.registry, bystander.registration, bystander.view):
        for name in USES[type(handle)]:
            told = await in_thread(lambda handle=handle, name=name: asyncio.run(use(handle, name)))  # type: ignore[misc]
            assert "belongs to another event loop or thread" in told
        told = await in_thread(lambda handle=handle: asyncio.run(handle.aclose()))  # type: ignore[misc]
        assert "belongs to another event loop or thread" in told
    assert not await bystander.lost()


def without_loop(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run *coroutine* to its first wait as trio would: with no asyncio event loop."""
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


async def test_handles_need_asyncio(bystander: Bystander) -> None:
    async with handles(bystander) as made:
        for handle in made:
            assert "asyncio" in await in_thread(lambda handle=handle: without_loop(handle.__aenter__()))  # type: ignore[misc]
        for handle in (bystander.registry, bystander.registration, bystander.view):
            for name in USES[type(handle)]:
                told = await in_thread(lambda handle=handle, name=name: without_loop(use(handle, name)))  # type: ignore[misc]
                assert "asyncio" in told
            assert "asyncio" in await in_thread(lambda handle=handle: without_loop(handle.aclose()))  # type: ignore[misc]
        assert not await bystander.lost()


class Forking(Command):
    """A process that forks while it is registered."""

    module = "tests.integration.forking"


async def test_handles_end_at_a_fork(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    async with Forking(f"{zookeeper.address}{chroot}") as process:
        child = json.loads(await process.line())
        assert child["told"]
        for use, told in child["told"].items():
            assert "before a fork" in told, use
        assert child["registered"] == ["child", "parent"]
        parent = json.loads(await process.line())
        assert parent == {"status": "LIVE", "connections": 1, "listed": ["parent"]}
        assert await process.end() == (0, "", "")
    assert await judge.children(chroot + SERVICE) == []


# ---------------------------------------------------------------- servers that are no ZooKeeper


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def farewell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await reader.read(-1)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(random.Random(7).randbytes(64))
    await reader.read(-1)


async def endless_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(2**16))
        await writer.drain()


async def endless_frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(struct.pack(">i", 2**31 - 1))
    await endless_bytes(reader, writer)


async def negative_frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"\xff\xff\xff\xff")
    await reader.read(-1)


async def half_a_frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(struct.pack(">i", 37) + bytes(10))
    await reader.read(-1)


async def bad_greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(struct.pack(">iiiqi", 20, 0, 10_000, 7, 2**30))  # a password that is longer than its frame
    await reader.read(-1)


async def greeting_and_silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(struct.pack(">iiiqi16s?", 37, 0, 600, 7, 16, bytes(16), False))
    await reader.read(-1)


@contextlib.asynccontextmanager
async def speaking(talk: Talk) -> AsyncIterator[str]:
    """The address of a server that talks like that to whoever comes."""
    conversations: dict[asyncio.Task[None], None] = {}

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await talk(reader, writer)
        writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations[asyncio.create_task(converse(reader, writer))] = None

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


TALKS: list[tuple[Talk, str]] = [
    (http, "the server speaks HTTP"),
    (silence, "the handshake"),
    (farewell, "the server closed the connection"),
    (banner, "the server speaks SSH"),
    (garbage, "the server is not a ZooKeeper"),
    (endless_bytes, "the server spoke first"),
    (endless_frame, "the server is not a ZooKeeper"),
    (negative_frame, "the server is not a ZooKeeper"),
    (half_a_frame, "the handshake"),
    (bad_greeting, "malformed reply to Connect"),
    (greeting_and_silence, "accepted the session"),
]


@pytest.mark.parametrize(("talk", "reason"), TALKS)
async def test_servers_that_are_no_zookeeper(bystander: Bystander, talk: Talk, reason: str) -> None:
    async with speaking(talk) as address, asyncio.timeout(SOON + SLACK):
        with pytest.raises(ConnectTimeout) as caught:
            _ = await aioregistry.connect(address, session_timeout=LONG, connect_timeout=SOON)
    told = str(caught.value)
    check_contained(told=[told], names=[f"servers='{address}'", f"{SOON} s", reason], lost=await bystander.lost())


@pytest.mark.parametrize("talk", [talk for talk, _ in TALKS])
async def test_servers_that_are_no_zookeeper_hide_none(zookeeper: ZooKeeperServer, chroot: str, talk: Talk) -> None:
    async with speaking(talk) as address:
        servers = f"{address},{zookeeper.address}{chroot}"
        async with aioregistry.connect(servers, session_timeout=4.0, connect_timeout=LONG) as registry:
            assert await registry.services() == []


class LyingProxy(TcpProxy):
    """A proxy that adds words of its own to what the server says."""

    def say(self, data: bytes) -> None:
        def write() -> None:
            for link in self._links:
                assert link.client.transport is not None
                link.client.transport.write(data)

        on_network(write)


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize(
    "lie",
    {
        "frame of negative size": struct.pack(">i", -1),
        "frame of gigabytes": struct.pack(">i", 2**31 - 1),
        "empty frame": frame(b""),
        "half a header": frame(bytes(7)),
        "reply that nobody asked for": frame(struct.pack(">iqi", 4711, 1, 0)),
        "event without a body": frame(struct.pack(">iqi", -1, -1, 0)),
        "event of no kind": frame(struct.pack(">iqiii", -1, -1, 0, 99, 3) + frame(b"/services/chat")),
        "event at no path": frame(struct.pack(">iqiii", -1, -1, 0, 3, 3) + frame(b"\xff\xfe")),
        "html": b"<html><body>502 Bad Gateway</body></html>",
    }.items(),
    ids=lambda item: item[0],
)
async def test_a_server_that_talks_nonsense_costs_its_connection(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, bystander: Bystander, lie: tuple[str, bytes]
) -> None:
    with LyingProxy((zookeeper.host, zookeeper.port)) as proxy:
        async with (
            aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=LONG) as registry,
            registry.register(instance()) as registration,
            registry.discover("chat") as view,
        ):
            session, node = registry.session.id, await judge.node(registration.path)
            proxy.say(lie[1])
            await until(lambda: session_of(registry).generation == 2)
            await registration.wait_live(DEADLINE)
            assert registry.session.id == session
            assert await judge.node(registration.path) == node
            assert list(await view.sync(DEADLINE)) == ["a"]
    assert not await bystander.lost()


# ---------------------------------------------------------------- credentials


SECRET = "correct-horse"


@pytest.mark.parametrize(
    "auth",
    [
        SECRET,
        [SECRET],
        [("digest",)],
        [("digest", f"user:{SECRET}", "more")],
        [("", f"user:{SECRET}")],
        [(None, f"user:{SECRET}")],
        [("digest", [SECRET])],
        [("digest", f"user:{SECRET}\ud800")],
        [("digest", "user:right"), f"digest:user:{SECRET}"],
        {"digest": SECRET},
    ],
)
def test_credentials_of_a_wrong_form_are_refused_and_not_shown(auth: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _ = aioregistry.connect("zk1", auth=auth)
    assert SECRET not in repr(caught.value.args)
    told = ["".join(traceback.format_exception(caught.value))]
    check_contained(told=told, names=["auth"], secrets=[SECRET])


async def test_credentials_that_the_server_refuses_are_not_shown(
    zookeeper: ZooKeeperServer, chroot: str, bystander: Bystander, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refused = aioregistry.connect(
        f"{zookeeper.address}{chroot}", session_timeout=LONG, auth=[("kerberos", f"user:{SECRET}")]
    )
    async with asyncio.timeout(SLACK):  # at once: trying again would not help
        with pytest.raises(AuthenticationFailed) as caught:
            _ = await refused
    names = [zookeeper.address, "scheme='kerberos'"]
    check_contained(told=[str(caught.value)], names=names, secrets=[SECRET], lost=await bystander.lost())
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in caplog.text


async def test_secrets_are_nowhere_to_be_read(
    zookeeper: ZooKeeperServer, proxy: ZooKeeperProxy, chroot: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[object] = []
    async with (
        aioregistry.connect(
            f"{proxy.address}{chroot}",
            session_timeout=LONG,
            auth=[("digest", f"user:{SECRET}")],
            on_event=lambda name, fields: said.append((name, fields)),
        ) as registry,
        registry.register(instance()) as registration,
        registry.discover("chat") as view,
    ):
        passwords = [password_of(session_of(registry))]
        proxy.cut()
        await until(lambda: session_of(registry).generation == 2)
        await wire.force_expiry(zookeeper.address, registry.session.id, password_of(session_of(registry)))
        await until(lambda: session_of(registry).generation == 3)
        await registration.wait_live(DEADLINE)
        passwords.append(password_of(session_of(registry)))
        said += [registry, registry.session, registration, view, registry.client, *asyncio.all_tasks()]
        text = "".join([*map(repr, said), *map(str, said), caplog.text])
    assert len(set(passwords)) == 2
    for secret in (SECRET, *(form for password in passwords for form in (repr(password)[2:-1], password.hex()))):
        assert secret not in text


# ---------------------------------------------------------------- nodes


DEEP = b'{"name": "chat", "id": "deep", "address": null, "payload": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"

BAD_NODES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the node is empty"),
    "blank": (b" \n\0", "the node is empty"),
    "text": (b"10.0.0.7:7000", "not JSON at byte 4"),
    "half": (document("half")[:-10], "not JSON at byte 55: it ends too early"),
    "binary": (b"\x9d" + random.Random(7).randbytes(99), "not UTF-8 at byte 0"),
    "latin": ('{"name": "chat", "id": "latin", "address": "Köln"}'.encode("latin-1"), "not UTF-8 at byte 45"),
    "null": (b"null", "not a Curator service instance: it is null, not a JSON object"),
    "array": (b"[]", "not a Curator service instance: it is a list, not a JSON object"),
    "object": (b"{}", "not a Curator service instance: it has no `name`"),
    "no-name": (document("no-name", name=None), "not a Curator service instance: it has no `name`"),
    "port": (document("port", port=2**31), "port is 2147483648, not a whole number"),
    "port-text": (document("port-text", port="http"), "port is 'http', not a whole number"),
    "type": (document("type", serviceType="ETERNAL"), "serviceType is 'ETERNAL', not one of DYNAMIC, "),
    "enabled": (document("enabled", enabled="yes"), "enabled is 'yes', not true or false"),
    "other-name": (document("other-name", name="mail"), "name is 'mail', but the node belongs to service 'chat'"),
    "other-id": (document("a"), "id is 'a', but the node is 'other-id'"),
    "deep": (DEEP, "it is nested deeper than 100 levels"),
    "large": (b"x" * 1_000_000, "not JSON at byte 0: 'x' is unexpected"),
}


async def make_unreadable(connection: wire.Wire, path: str) -> None:
    """A node that only its owner may read."""
    scheme, owner = b"digest", b"nobody:AAAAAAAAAAAAAAAAAAAAAAAAAAA="
    acl = struct.pack(">ii", 1, 31) + frame(scheme) + frame(owner)
    await connection.ask(Operation(wire.CREATE, frame(path.encode()) + frame(b"") + acl + struct.pack(">i", 0)))


@pytest.mark.parametrize("watches", [pytest.param("recursive", marks=pytest.mark.since(3, 6)), "one-shot"])
async def test_bad_nodes_are_listed_with_the_reason(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, bystander: Bystander, watches: Any
) -> None:
    service = f"{chroot}{SERVICE}"
    said: list[dict[str, Any]] = []
    await judge.make(f"{service}/good", document("good"))
    await judge.make(f"{service}/good/below", b"no business of ours")
    for id, (data, _) in BAD_NODES.items():
        await judge.make(f"{service}/{id}", data)
    async with (
        await wire.connect(zookeeper.address) as other,
        aioregistry.connect(
            f"{zookeeper.address}{chroot}",
            session_timeout=LONG,
            watches=watches,
            on_event=lambda name, fields: said.append(fields) if name == "discovery.invalid" else None,
        ) as registry,
    ):
        await make_unreadable(other, f"{service}/secret")
        async with registry.discover("chat") as view:
            assert list(view.snapshot) == ["good"]
            assert view.snapshot.invalid.keys() == {*BAD_NODES, "secret"}
            reasons = {"secret": "not authorised"} | {id: reason for id, (_, reason) in BAD_NODES.items()}
            for id, reason in reasons.items():
                invalid = view.snapshot.invalid[id]
                told = [str(fields) for fields in said if fields["id"] == id]
                check_contained(told=told, names=[reason, invalid.reason], lost=await bystander.lost())

            async with asyncio.timeout(DEADLINE):
                changes = view.changes()
                await judge.set_data(f"{service}/half", document("half"))  # it was under way
                mended = await anext(changes)
                await judge.set_data(f"{service}/good", b"oops")
                broken = await anext(changes)
                await judge.delete(f"{service}/text")
                await judge.delete(f"{service}/half")
                gone = await anext(changes)
            assert isinstance(mended, Added)
            assert mended.id == "half"
            assert isinstance(broken, Removed)
            assert broken.id == "good"
            assert isinstance(gone, Removed)
            assert gone.id == "half"
            snapshot = await view.sync(DEADLINE)
            check_converged(
                seen=dict.fromkeys([*snapshot, *snapshot.invalid], True),
                held=dict.fromkeys(await judge.children(service), True),
            )
            assert "good" in snapshot.invalid
            assert "text" not in snapshot.invalid


@dataclasses.dataclass(frozen=True)
class Load:
    load: int


async def test_payloads_that_do_not_fit_are_listed_with_the_reason(
    judge: Judge, chroot: str, bystander: Bystander
) -> None:
    service = f"{chroot}{SERVICE}"
    for id, payload in {"good": {"load": 1}, "text": "1", "none": None, "other": {"load": "1"}}.items():
        await judge.make(f"{service}/{id}", document(id, payload=payload))
    async with (
        bystander.registry.discover("chat", payload_type=Load) as typed,
        bystander.registry.discover("chat") as untyped,
    ):
        assert {id: each.payload for id, each in typed.snapshot.items()} == {"good": Load(1)}
        reasons = {"text": "it is '1'", "none": "it is None", "other": "load is '1', which is not of type int"}
        for id, reason in reasons.items():
            told = [invalid.reason for invalid in typed.snapshot.invalid.values() if invalid.id == id]
            check_contained(told=told, names=["payload", reason])
        assert len(untyped.snapshot) == 4
        assert not untyped.snapshot.invalid
    with pytest.raises(InvalidArgument, match="payload_type"):
        _ = bystander.registry.discover("chat", payload_type=lambda: None)
    assert not await bystander.lost()
