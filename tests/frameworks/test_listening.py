"""An instance is not claimed before its server has its sockets, and none is listed where nobody listens.

The system tells who has a port; that is tested on real sockets, and on real servers as real processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
import uvloop
from aiohttp import web
from starlette.applications import Starlette

from aioregistry import InvalidArgument, Registry, View
from aioregistry.integrations import _term as module
from aioregistry.integrations import aiohttp as by_aiohttp
from aioregistry.integrations._listening import (
    DECISIONS,
    Decision,
    Holder,
    Judgement,
    ServerStatus,
    Socket,
    holder,
    judged,
    opened,
    own_sockets,
    serves,
)
from aioregistry.integrations.membership import Hosting, Membership, NotYet, Readiness, hosting
from aioregistry.integrations.starlette import lifespan
from aioregistry.integrations.uvicorn import Server, run
from aioregistry.testing._ports import ReservedPort
from tests.frameworks.load import ROOT, TIMEOUT
from tests.frameworks.serving import SERVICE
from tests.support.waiting import until

HERE = "127.0.0.1"
ELSEWHERE = "192.0.2.7"  # of no machine (RFC 5737)


def test_every_case_is_decided() -> None:
    assert set(DECISIONS) == set(itertools.product(Holder, ServerStatus))


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "10.0.0.7", True),
        ("::", "10.0.0.7", True),
        ("::ffff:10.0.0.7", "10.0.0.7", True),
        ("::1", "0:0::1", True),
        ("::1", "127.0.0.1", False),
        ("10.0.0.7", "chat-1.example", True),
        ("10.0.0.7", None, True),
    ],
)
def test_what_a_socket_serves(host: str, address: str | None, expected: bool) -> None:
    sockets = [Socket(1, "", 0, listening=True), Socket(2, host, 8000, listening=True)]
    assert serves(sockets, address, 8000) is expected
    assert not serves(sockets, address, 8001)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HERE, 0)) as listening:
        yield listening


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def test_this_processs_sockets(listener: socket.socket, tmp_path: Path) -> None:
    before = own_sockets()
    with (
        socket.create_server((HERE, 0)) as accepting,
        socket.socket() as bound,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        socket.create_connection(listener.getsockname()) as connected,
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as sixth,
    ):
        bound.bind((HERE, 0))
        datagrams.bind((HERE, 0))
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        known = {each.number for each in before}
        found = {(each.host, each.port, each.listening) for each in own_sockets() if each.number not in known}
        assert found == {
            (HERE, port_of(accepting), True),
            (HERE, port_of(bound), False),
            ("", 0, True),
            ("::1", port_of(sixth), True),
        }
        assert port_of(connected) not in {port for _, port, _ in found}
        assert opened(before, own_sockets())
    assert not opened(before, own_sockets())


def test_where_the_system_does_not_show_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aioregistry.integrations._listening._DESCRIPTORS", tmp_path / "nothing")
    assert own_sockets() == []
    assert judged([], HERE, [1], ServerStatus.LISTENING) == Judgement(Decision.LIST, 0)


def test_who_has_a_port(listener: socket.socket, port: int) -> None:
    taken = port_of(listener)
    mine = own_sockets()
    for address in (HERE, "localhost", "localhost.", ELSEWHERE, "chat-1.example", None):
        assert holder(mine, address, taken) is Holder.HERE
        # Without them it is somebody else's, wherever the address leads from.
        assert holder([], address, taken) is Holder.OTHER
    assert holder([], "127.0.0.2", taken) is Holder.NOBODY
    assert holder([], "::1", taken) is Holder.NOBODY
    for address in (HERE, "localhost", None):
        assert holder([], address, port) is Holder.NOBODY
    for address in (ELSEWHERE, "chat-1.example"):
        assert holder([], address, port) is Holder.UNKNOWN


def test_a_port_that_its_owner_shares_is_in_nobodys_way() -> None:
    with socket.socket() as sharing:
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sharing.bind((HERE, 0))
        sharing.listen()
        assert holder([], HERE, port_of(sharing)) is Holder.NOBODY


def test_the_worst_of_two_ports_decides(listener: socket.socket, port: int) -> None:
    taken, mine = port_of(listener), own_sockets()
    assert judged(mine, HERE, [taken], ServerStatus.LISTENING) == Judgement(Decision.LIST, taken)
    assert judged(mine, HERE, [taken, port], ServerStatus.LISTENING) == Judgement(Decision.REFUSE, port)
    assert judged(mine, HERE, [taken, port], ServerStatus.STARTING).decision is Decision.LIST
    assert judged([], HERE, [port, taken], ServerStatus.STARTING) == Judgement(Decision.WAIT, taken)
    with ReservedPort() as bound:  # it may listen later; once the server does, it does not
        assert judged(own_sockets(), HERE, [bound.number], ServerStatus.STARTING).decision is Decision.LIST
        assert judged(own_sockets(), HERE, [bound.number], ServerStatus.LISTENING).decision is Decision.REFUSE


def test_two_may_bind_a_port_and_one_of_them_listens() -> None:
    """As two `uvicorn --workers` do that start at once: the second one's workers are about to fail."""
    with socket.socket() as ours, socket.socket() as theirs:
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind((HERE, 0))
        theirs.bind(ours.getsockname())
        port = port_of(ours)
        mine = [each for each in own_sockets() if each.port == port][:1]
        assert judged(mine, HERE, [port], ServerStatus.STARTING).decision is Decision.LIST
        theirs.listen()
        assert judged(mine, HERE, [port], ServerStatus.STARTING).decision is Decision.WAIT
    with socket.socket() as exclusive:
        exclusive.bind((HERE, 0))
        assert judged(own_sockets(), HERE, [port_of(exclusive)], ServerStatus.STARTING).decision is Decision.LIST


# ---------------------------------------------------------------- a membership, in this process


@pytest.fixture
async def view(registry: Registry) -> AsyncIterator[View[Any]]:
    async with registry.discover(SERVICE) as view:
        yield view


def membership(servers: str, port: int, **options: Any) -> Membership:
    return Membership(servers, SERVICE, **{"port": port, "address": HERE, "drain": 0, **options})


@contextlib.asynccontextmanager
async def another_process_listens(host: str = HERE) -> AsyncIterator[tuple[int, Process]]:
    program = f"""
import socket, sys
with socket.create_server(({host!r}, 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    sys.stdin.read()
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield int(await process.stdout.readline()), process
    finally:
        process.stdin.close()
        await process.wait()


@pytest.mark.parametrize("wait", [True, False])
async def test_a_port_of_another_process_is_not_claimed(
    servers: str, view: View[Any], caplog: pytest.LogCaptureFixture, wait: bool
) -> None:
    async with another_process_listens() as (port, other), membership(servers, port, wait=wait) as entered:
        await until(lambda: "another server" in str(entered.readiness().reason))
        assert entered.readiness()[:2] == (False, "starting")
        assert len(await view.sync()) == 0
        with pytest.raises(NotYet) as raised:
            print(entered.registration)
        assert f"{HERE}:{port}" in str(raised.value)
        (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert f"{HERE}:{port}" in warning.getMessage()
        assert other.stdin is not None
        other.stdin.close()  # and now the port is free
        await until(lambda: entered.ready)
        assert list(await view.sync()) == [f"{HERE}:{port}"]


async def test_what_waits_for_its_port_ends_without_a_trace(servers: str, view: View[Any]) -> None:
    async with another_process_listens() as (port, _):
        before = asyncio.all_tasks()
        async with membership(servers, port, wait=True):
            assert asyncio.all_tasks() > before
        assert asyncio.all_tasks() == before
        assert len(await view.sync()) == 0


async def test_a_port_of_another_process_is_claimed_where_that_is_meant(servers: str, view: View[Any]) -> None:
    async with (
        another_process_listens() as (port, _),
        membership(servers, port, wait=True, check_port=False) as entered,
    ):
        assert entered.ready
        assert list(await view.sync()) == [f"{HERE}:{port}"]


async def test_behind_a_proxy_it_is_listed_when_it_listens(servers: str, view: View[Any], tmp_path: Path) -> None:
    async with another_process_listens() as (port, _), membership(servers, port, wait=True) as entered:
        assert not entered.ready
        server = await asyncio.start_unix_server(lambda *_: None, tmp_path / "socket")
        await until(lambda: entered.ready)
        assert list(await view.sync()) == [f"{HERE}:{port}"]
        server.close()


async def test_it_is_listed_in_the_end_whoever_has_the_port(
    servers: str, view: View[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LISTENS_WITHIN", 0.2)
    async with another_process_listens() as (port, _), membership(servers, port) as entered:
        await until(lambda: "another server" in str(entered.readiness().reason))
        await until(lambda: entered.ready)


async def test_one_server_of_this_process_does_not_displace_another(
    servers: str, view: View[Any], listener: socket.socket
) -> None:
    port = port_of(listener)
    async with membership(servers, port, wait=True) as first:
        owner = first.registration.owner
        async with membership(servers, port, wait=True) as second:
            assert first.registration.owner == owner
            assert first.ready
            assert "another server" in str(second.readiness().reason)
        async with membership(servers, port, wait=True, id="other") as third:
            assert third.ready
        assert first.ready
    async with membership(servers, port, wait=True) as again:
        assert again.ready


# ---------------------------------------------------------------- ports that nobody listens on


@contextlib.contextmanager
def under(host: Hosting) -> Iterator[None]:
    token = hosting.set(host)
    try:
        yield
    finally:
        hosting.reset(token)


async def test_a_server_that_listens_elsewhere_is_refused(
    servers: str, view: View[Any], listener: socket.socket, port: int
) -> None:
    host = Hosting()
    with under(host):
        async with membership(servers, port) as entered:
            with pytest.raises(InvalidArgument) as raised:
                host.listen()
            assert (raised.value.field, raised.value.value) == ("port", port)
            assert f"{HERE}:{port_of(listener)}" in raised.value.reason
            assert not host.listening
            assert entered.readiness().status == "starting"
        async with membership(servers, port_of(listener), ssl_port=port):
            with pytest.raises(InvalidArgument) as raised:
                host.listen()
            assert (raised.value.field, raised.value.value) == ("port", port)
        async with membership(servers, port_of(listener), address="127.0.0.2"):
            with pytest.raises(InvalidArgument) as raised:
                host.listen()
            assert (raised.value.field, raised.value.value) == ("address", "127.0.0.2")
        async with membership(servers, port, check_port=False) as meant:
            host.listen()
            await until(lambda: meant.ready)


async def test_an_address_that_is_found_and_not_listened_at_is_refused(
    servers: str, view: View[Any], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(*_: object) -> str:
        return "127.0.0.2"

    monkeypatch.setattr(module, "advertised_address", found)
    host = Hosting()
    with under(host):
        async with membership(servers, port_of(listener), address=None) as entered:
            host.listen()
            await until(lambda: "127.0.0.2" in str(entered.readiness().reason))
            assert not entered.ready
            assert len(await view.sync()) == 0


@pytest.mark.parametrize("address", [ELSEWHERE, "chat-1.example"])
async def test_what_may_be_wrong_is_a_warning(
    servers: str, view: View[Any], listener: socket.socket, port: int, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = Hosting()
    with under(host):
        async with membership(servers, port, address=address) as entered:
            host.listen()
            await until(lambda: entered.ready)
            (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
            assert f"{address}:{port}" in warning.getMessage()
            assert f"{HERE}:{port_of(listener)}" in warning.getMessage()
        caplog.clear()
        async with membership(servers, port_of(listener), address=address) as entered:
            await until(lambda: entered.ready)
        assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_a_server_that_opens_other_sockets_later_is_warned_of(
    servers: str, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_ALL_OPEN_WITHIN", 0.05)

    def warned() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    async with membership(servers, port, wait=True) as entered:
        assert entered.ready
        assert warned() == []
        with socket.create_server((HERE, 0)) as elsewhere:
            await until(warned)
            assert f"{HERE}:{port}" in warned()[0]
            assert f"{HERE}:{port_of(elsewhere)}" in warned()[0]
            await until(lambda: looked(entered))
    caplog.clear()
    async with membership(servers, port, wait=True) as entered:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((HERE, port))
            listening.listen()
            await until(lambda: looked(entered))
    assert warned() == []


def looked(entered: Membership) -> bool:
    term = entered._term
    return term is not None and term._looking is not None and term._looking.done()


@pytest.mark.parametrize("port_of_server", [0, None])
def test_run_refuses_a_port_that_it_does_not_serve(
    zookeeper: Any, chroot_name: str, port: int, port_of_server: int | None
) -> None:
    with ReservedPort() as reserved:
        app = Starlette(lifespan=lifespan(membership(f"{zookeeper.address}/{chroot_name}", port)))
        with pytest.raises(InvalidArgument) as raised:
            run(app, port=reserved.number if port_of_server is None else 0, log_level="critical")
        assert (raised.value.field, raised.value.value) == ("port", port)


@pytest.fixture
def chroot_name() -> str:
    return "listening"


def test_aiohttps_run_refuses_a_port_that_it_does_not_serve(zookeeper: Any, chroot_name: str, port: int) -> None:
    app = web.Application()
    app.cleanup_ctx.append(by_aiohttp.member(membership(f"{zookeeper.address}/{chroot_name}", port)))
    with pytest.raises(InvalidArgument) as raised:
        by_aiohttp.run_app(app, host=HERE, port=0, print=None)
    assert (raised.value.field, raised.value.value) == ("port", port)


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_aiohttps_run_leaves_the_signals_as_they_were(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The next one that asks the process to end is heard."""

    async def end(_: web.Application) -> AsyncIterator[None]:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        yield

    app = web.Application()
    app.cleanup_ctx.append(end)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    by_aiohttp.run_app(app, host=HERE, port=0, print=None, loop=make())
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_runner_refuses_a_port_that_it_does_not_serve(servers: str, port: int) -> None:
    app = web.Application()
    app.cleanup_ctx.append(by_aiohttp.member(membership(servers, port)))
    runner = by_aiohttp.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HERE, 0).start()
    with pytest.raises(InvalidArgument) as raised:
        runner.announce()
    assert (raised.value.field, raised.value.value) == ("port", port)
    await runner.cleanup()


async def test_a_refused_server_has_closed_its_sockets(servers: str, port: int) -> None:
    app = Starlette(lifespan=lifespan(membership(servers, port)))
    with socket.create_server((HERE, 0)) as listening:
        where = listening.getsockname()
        with pytest.raises(InvalidArgument):
            await Server(uvicorn.Config(app, log_level="critical")).serve(sockets=[listening])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*where)


# ---------------------------------------------------------------- servers as processes


@contextlib.asynccontextmanager
async def process(servers: str, *arguments: str, fd: str = "", **environment: str) -> AsyncIterator[Process]:
    common = {"ZOOKEEPER": servers, "FRAMEWORK": "starlette", "DRAIN": "0"}
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        stdin=DEVNULL,
        stderr=PIPE,
        cwd=ROOT,
        env=os.environ | common | environment,
        pass_fds=[int(fd)] if fd else [],
        start_new_session=True,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
        await started.communicate()


UVICORN = ("-m", "uvicorn", "--factory", "tests.frameworks.serving:app")


def by_uvicorn(port: int) -> tuple[str, ...]:
    return (*UVICORN, "--host", HERE, "--port", str(port))


COMMANDS: dict[str, tuple[tuple[str, ...] | None, dict[str, str]]] = {
    "uvicorn": (None, {}),
    "uvicorn, wait": (None, {"WAIT": "yes"}),
    "uvicorn, slow": (None, {"STARTUP": "0.5"}),
    "uvicorn, slow, wait": (None, {"STARTUP": "0.5", "WAIT": "yes"}),
    "aiohttp": (("-m", "tests.frameworks.aiohttp_serving", "plain", "asyncio"), {}),
    "aiohttp, drained": (("-m", "tests.frameworks.aiohttp_serving", "drained", "asyncio"), {}),
}


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_second_server_on_a_port_displaces_nobody(servers: str, view: View[Any], port: int, name: str) -> None:
    command, options = COMMANDS[name]
    environment = {"PORT": str(port), **options}
    arguments = by_uvicorn(port) if command is None else command
    async with process(servers, *arguments, **environment):
        await view.wait_for(lambda snapshot: len(snapshot) == 1, TIMEOUT)
        await answers(port)
        changes: list[Any] = []
        following = asyncio.create_task(follow(view, changes))
        async with process(servers, *arguments, **environment) as second, asyncio.timeout(TIMEOUT):
            assert await second.wait() != 0
        await view.sync()
        assert changes == []
        following.cancel()
        await answers(port)


async def follow(view: View[Any], changes: list[Any]) -> None:
    async for change in view.changes():
        changes.append(change)  # noqa: PERF401 - what is there already is asked for


async def answers(port: int, path: str | None = None) -> None:
    """Wait until the server is ready."""
    connector = None if path is None else aiohttp.UnixConnector(path)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.timeout(TIMEOUT):
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with http.get(f"http://{HERE}:{port}/ready") as response:
                    if await response.json() == Readiness(True, "live", None).document():
                        return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("wait", ["yes", "no"])
async def test_a_socket_that_the_parent_listens_on(
    servers: str, view: View[Any], listener: socket.socket, wait: str
) -> None:
    """As gunicorn's arbiter does, and systemd: the port is in use, by us."""
    port = port_of(listener)
    descriptor = str(listener.fileno())
    arguments = (*UVICORN, "--fd", descriptor)
    async with process(servers, *arguments, fd=descriptor, PORT=str(port), WAIT=wait):
        await answers(port)
        assert list(await view.sync()) == [f"{HERE}:{port}"]


@pytest.mark.parametrize("is_free", [True, False])
async def test_a_unix_socket_behind_a_proxy(
    servers: str, view: View[Any], port: int, tmp_path: Path, is_free: bool
) -> None:
    path = str(tmp_path / "socket")
    proxy = contextlib.nullcontext() if is_free else socket.create_server((HERE, port))
    with proxy:
        async with process(servers, *UVICORN, "--uds", path, PORT=str(port), WAIT="yes"):
            await answers(port, path)
            assert list(await view.sync()) == [f"{HERE}:{port}"]


async def test_run_ends_where_nobody_listens_on_the_port(servers: str, view: View[Any], port: int) -> None:
    with ReservedPort() as other:
        arguments = ("-m", "tests.frameworks.serving", "drained", "asyncio")
        async with process(servers, *arguments, PORT=str(other.number), PUBLISHED=str(port)) as serving:
            assert serving.stderr is not None
            told = (await serving.stderr.read()).decode().splitlines()
            assert await serving.wait() == 1
        assert f"port={port}" in told[-1]
        assert f"{HERE}:{other.number}" in told[-1]
        assert len(await view.sync()) == 0


@pytest.mark.parametrize("name", ["uvicorn", "aiohttp"])
async def test_another_server_says_where_nobody_listens(servers: str, view: View[Any], port: int, name: str) -> None:
    with ReservedPort() as other:
        command, options = COMMANDS[name]
        arguments = by_uvicorn(other.number) if command is None else command
        environment = {"PORT": str(other.number), "PUBLISHED": str(port), **options}
        async with process(servers, *arguments, **environment) as serving, asyncio.timeout(TIMEOUT):
            assert serving.stderr is not None
            async for line in serving.stderr:
                if f"{HERE}:{port}".encode() in line and f"{HERE}:{other.number}".encode() in line:
                    break
            else:
                raise AssertionError("it ended without a word")
