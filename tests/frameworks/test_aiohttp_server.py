"""aiohttp's own server, as real processes, on a real ZooKeeper; every client that has an integration asks it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
from aiohttp import web

from aioregistry import Check, InvalidArgument, Registry, Snapshot, UsageError, View
from aioregistry.integrations import httpx as by_httpx
from aioregistry.integrations import httpx2 as by_httpx2
from aioregistry.integrations._aiohttp_server import Ending
from aioregistry.integrations.aiohttp import (
    MEMBERSHIP,
    REGISTRY,
    AppRunner,
    Membership,
    RegistryMiddleware,
    member,
    readiness,
    registry,
    run_app,
    view,
)
from aioregistry.integrations.membership import Hosting, hosting
from aioregistry.testing._ports import ReservedPort
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.frameworks.aiohttp_serving import SERVICE
from tests.frameworks.load import ROOT, TIMEOUT, Consumers, ServerProcess, shown_checks

URL = f"http://{SERVICE}.registry/work"
CONSUMERS = 3  # of each kind and method


@pytest.fixture
def observer(request: pytest.FixtureRequest) -> Registry:
    observer: Registry = request.getfixturevalue("registry")  # a name that the module under test has too
    return observer


@pytest.fixture
async def seen(observer: Registry) -> AsyncIterator[View[Any]]:
    async with observer.discover(SERVICE) as view:
        yield view


def serving(servers: str, server: str, loop: str, **environment: str) -> ServerProcess:
    arguments = ("-W", "error", "-m", "tests.frameworks.aiohttp_serving", server, loop)
    return ServerProcess(*arguments, ZOOKEEPER=servers, **environment)


def enabled(snapshot: Snapshot[Any]) -> set[int | None]:
    return {instance.port for instance in snapshot.values() if instance.enabled}


# ---------------------------------------------------------------- under load

Ask = Callable[[str, str], Awaitable[int | None]]
"""Send a request of a method to a URL; return the port of who answered."""


class Load(Consumers):
    """Consumers that send requests over and over, by every kind of client."""

    def __init__(self, registry: Registry, *, attempts: int = 1, methods: tuple[str, ...] = ("GET", "POST")) -> None:
        super().__init__()
        self.asks: list[Ask] = []
        self._options: Any = {"registry": registry, "attempts": attempts, "ejection": None}
        self._methods = methods
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Load:
        enter = self._stack.enter_async_context
        middleware = await enter(RegistryMiddleware(**self._options))
        session = aiohttp.ClientSession(middlewares=[middleware], timeout=aiohttp.ClientTimeout(TIMEOUT))
        self.asks.append(by_aiohttp(await enter(session)))
        for transport, client in ((by_httpx, httpx.AsyncClient), (by_httpx2, httpx2.AsyncClient)):
            sends: Any = transport.RegistryTransport(**self._options)
            self.asks.append(by_transport(await enter(client(transport=sends, timeout=TIMEOUT))))
        consumers = [(ask, method) for ask in self.asks for method in self._methods] * CONSUMERS
        self._begin(functools.partial(self.ask, *consumer) for consumer in consumers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()
        await self._stack.aclose()

    async def ask(self, ask: Ask, method: str, query: str = "") -> None:
        try:
            port = await ask(method, f"{URL}{query}")
        except (aiohttp.ClientError, httpx.HTTPError, httpx2.HTTPError, OSError) as error:
            self._note_lost(error)
        else:
            self._note(port)


def by_aiohttp(session: aiohttp.ClientSession) -> Ask:
    async def ask(method: str, url: str) -> int | None:
        async with session.request(method, url, data=b"work" if method == "POST" else None) as response:
            response.raise_for_status()
            await response.json()
            return response.request_info.url.port

    return ask


def by_transport(client: Any) -> Ask:
    async def ask(method: str, url: str) -> int | None:
        response = await client.request(method, url, content=b"work" if method == "POST" else None)
        response.raise_for_status()
        response.json()
        port: int | None = response.extensions[by_httpx.INSTANCE].port
        return port

    return ask


async def test_sigterm_under_load_loses_no_request(servers: str, observer: Registry, seen: View[Any]) -> None:
    async with (
        serving(servers, "drained", "uvloop") as first,
        serving(servers, "drained", "asyncio") as second,
        serving(servers, "plain", "asyncio") as third,
    ):
        everybody = {first.port, second.port, third.port}
        await seen.wait_for(lambda snapshot: enabled(snapshot) == everybody, TIMEOUT)
        async with Load(observer) as load:
            await load.until(lambda: min(load.answered[port] for port in everybody) > 30)
            slow = [asyncio.create_task(load.ask(ask, "GET", "?slow")) for ask in load.asks for _ in range(3)]
            first.send(signal.SIGTERM)
            second.send(signal.SIGTERM)
            assert [await first.exit_code(), await second.exit_code()] == [0, 0]
            await asyncio.wait(slow)
            before = load.answered[third.port]
            await load.until(lambda: load.answered[third.port] > before + 50)
            assert enabled(seen.snapshot) == {third.port}
            assert load.lost == []


async def test_by_aiohttps_own_order_requests_are_lost(
    servers: str, proxy: ZooKeeperProxy, chroot: str, observer: Registry, seen: View[Any]
) -> None:
    """The test above would find this: consumers hear of the end when the sockets are closed."""
    async with (
        serving(f"{proxy.address}{chroot}", "plain", "asyncio") as ending,
        serving(servers, "plain", "asyncio") as staying,
    ):
        await seen.wait_for(lambda snapshot: enabled(snapshot) == {ending.port, staying.port}, TIMEOUT)
        async with Load(observer) as load:
            await load.until(lambda: min(load.answered[port] for port in (ending.port, staying.port)) > 10)
            before = len(load.lost)  # who is listed before it listens may have lost some already
            proxy.delay(0.5)  # a slow registry: milliseconds are a loss too, but not every time
            ending.send(signal.SIGTERM)
            await load.until(lambda: len(load.lost) > before)
            assert ending.port in enabled(seen.snapshot)


async def test_a_server_that_is_killed_costs_no_safe_request(servers: str, observer: Registry, seen: View[Any]) -> None:
    async with serving(servers, "plain", "asyncio") as ending, serving(servers, "plain", "uvloop") as staying:
        await seen.wait_for(lambda snapshot: enabled(snapshot) == {ending.port, staying.port}, TIMEOUT)
        async with Load(observer, attempts=2, methods=("GET",)) as load:
            await load.until(lambda: min(load.answered[port] for port in (ending.port, staying.port)) > 10)
            load.lost.clear()
            ending.send(signal.SIGKILL)
            before = load.answered[staying.port]
            await load.until(lambda: load.answered[staying.port] > before + 100)
            assert load.lost == []
            assert ending.port in enabled(seen.snapshot)  # its session has not expired


async def test_a_second_interrupt_hurries_and_withdraws_all_the_same(
    servers: str, seen: View[Any], http: aiohttp.ClientSession
) -> None:
    async with serving(servers, "drained", "asyncio", DRAIN="60") as server:
        await seen.wait_for(lambda snapshot: enabled(snapshot) == {server.port}, TIMEOUT)
        await until_ready(http, server.port)
        server.send(signal.SIGINT)
        await seen.wait_for(lambda snapshot: len(snapshot) == 1 and enabled(snapshot) == set(), TIMEOUT)
        server.send(signal.SIGINT)
        assert await server.exit_code() == 0
        await seen.wait_for(lambda snapshot: len(snapshot) == 0, TIMEOUT)  # the session would last longer than that


def application(*begin: Callable[[], None]) -> web.Application:
    """One that does what it is told as soon as it is started."""

    async def started(_: web.Application) -> None:
        for act in begin:
            asyncio.get_running_loop().call_soon(act)

    app = web.Application()
    app.on_startup.append(started)
    return app


def test_it_runs_as_aiohttps() -> None:
    said: list[str] = []
    with ReservedPort() as port:
        where: dict[str, Any] = {"host": "127.0.0.1", "port": port.number}
        run_app(application(end_when(lambda: bool(said))), print=said.append, **where)
        assert f"http://127.0.0.1:{port.number}" in said[0]
        run_app(application(end_itself), print=None, handle_signals=False, **where)


def end_when(condition: Callable[[], bool]) -> Callable[[], None]:
    def look() -> None:
        if condition():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            asyncio.get_running_loop().call_later(0.001, look)

    return look


def end_itself() -> None:
    raise web.GracefulExit


def test_a_drain_that_fails_is_told_and_ends_all_the_same() -> None:
    class Host(Hosting):
        async def drain(self) -> None:
            raise OSError("disk full")

    told: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    ending = Ending(loop, Host())
    ending.asked()
    with pytest.raises(web.GracefulExit):
        loop.run_forever()
    with pytest.raises(web.GracefulExit):  # while aiohttp waits for its handlers
        ending.asked()
    loop.close()
    assert [str(error) for error in told] == ["disk full"]


@pytest.mark.parametrize("failure", [OSError("disk full"), asyncio.CancelledError()], ids=repr)
async def test_a_runner_whose_drain_fails_ends_all_the_same(failure: BaseException) -> None:
    drained: list[str] = []
    ended: list[web.Application] = []

    class Failing:
        async def drain(self) -> None:
            raise failure

    class Slow:
        async def drain(self) -> None:
            for _ in range(10):
                await asyncio.sleep(0)
            drained.append("slow")

    async def end(app: web.Application) -> None:
        ended.append(app)

    app = web.Application()
    app.on_cleanup.append(end)
    runner = AppRunner(app)
    await runner.setup()
    runner._hosting._terms.extend([Failing(), Slow()])  # type: ignore[list-item]
    with pytest.raises(type(failure)):
        await runner.cleanup()
    assert (drained, ended) == (["slow"], [app])


def test_an_application_that_fails_while_it_is_drained() -> None:
    class Host(Hosting):
        async def drain(self) -> None:
            await asyncio.Event().wait()

    async def fail(app: web.Application) -> None:
        host = hosting.get()
        assert host is not None
        ending = Ending(asyncio.get_running_loop(), Host())
        for _ in range(3):
            ending.asked()
        await asyncio.sleep(0)
        raise OSError("disk full")

    app = web.Application()
    app.on_startup.append(fail)
    with pytest.raises(OSError, match="disk full"):
        run_app(app, print=None)


def test_it_ends_while_it_starts() -> None:
    async def starting(_: web.Application) -> AsyncIterator[None]:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
        yield

    told: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    with ReservedPort() as nobody_listens:
        app = web.Application()
        app.cleanup_ctx.extend([member(Membership(f"127.0.0.1:{nobody_listens.number}", SERVICE, port=1)), starting])
        run_app(app, print=None, loop=loop)
    assert told == []


# ---------------------------------------------------------------- the documentation


async def until_ready(http: aiohttp.ClientSession, port: int) -> None:
    """Others may hear that it is listed before the server does."""
    state = {"ready": True, "status": "live", "reason": None}
    async with asyncio.timeout(TIMEOUT):
        while await answer(http, f"http://127.0.0.1:{port}/ready") != state:
            await asyncio.sleep(0.01)


async def answer(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.get(url) as response:
        return await response.json()


async def test_the_application_of_the_page(servers: str, http: aiohttp.ClientSession, observer: Registry) -> None:
    page = (ROOT / "docs/integrations/aiohttp.md").read_text(encoding="utf-8")
    program = page.partition("```python\n")[2].partition("```")[0]
    for written, meant in (("127.0.0.1:2181", servers), ("0.0.0.0", "127.0.0.1"), ("port=8000", "port=PORT")):
        assert written in program
        program = program.replace(written, meant)
    async with ServerProcess("-W", "error", "-c", program) as server, observer.discover("chat") as view:
        me = f"127.0.0.1:{server.port}"
        await view.wait_for(lambda snapshot: me in snapshot, TIMEOUT)
        await until_ready(http, server.port)
        async with asyncio.timeout(TIMEOUT):
            for path, expected in (("/servers", [me]), ("/services", ["chat"])):
                while await answer(http, f"http://{me}{path}") != expected:
                    await asyncio.sleep(0.01)
        server.send(signal.SIGTERM)
        assert await server.exit_code() == 0
        assert len(await view.sync()) == 0


# ---------------------------------------------------------------- in this process


class Served:
    """An application by an AppRunner."""

    def __init__(self, servers: str, **options: Any) -> None:
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.membership = Membership(servers, SERVICE, port=self.port, **options)
        self.app = web.Application()
        self.app.cleanup_ctx.append(member(self.membership))
        self.runner: web.AppRunner = AppRunner(self.app)

    async def __aenter__(self) -> Served:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()
        self._reserved.release()

    async def get(self, path: str) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.json()

    async def connects(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True


async def test_listed_when_it_listens_and_listening_until_it_is_withdrawn(servers: str, seen: View[Any]) -> None:
    served = Served(servers, drain=0.3)
    async with served:
        assert served.membership.readiness().status == "starting"
        assert isinstance(served.runner, AppRunner)
        served.runner.announce()
        await seen.wait_for(lambda snapshot: enabled(snapshot) == {served.port}, TIMEOUT)
        await served.membership.registration.wait_live(TIMEOUT)
        ending = asyncio.create_task(served.runner.cleanup())
        await seen.wait_for(lambda snapshot: enabled(snapshot) == set(), TIMEOUT)
        assert await served.connects()
        await seen.wait_for(lambda snapshot: len(snapshot) == 0, TIMEOUT)
        await ending
        assert not await served.connects()


async def test_by_aiohttps_own_runner_it_is_drained_while_requests_end(servers: str, seen: View[Any]) -> None:
    served = Served(servers, drain=0.1)
    served.runner = web.AppRunner(served.app)
    begun = asyncio.Event()

    async def work(_: web.Request) -> web.Response:
        begun.set()
        await seen.wait_for(lambda snapshot: len(snapshot) == 0, TIMEOUT)
        return web.json_response("done")

    served.app.add_routes([web.get("/work", work)])
    async with served:
        await seen.wait_for(lambda snapshot: enabled(snapshot) == {served.port}, TIMEOUT)
        answer = asyncio.create_task(served.get("/work"))
        await begun.wait()
    assert await answer == (200, "done")


async def test_what_requests_find(servers: str, seen: View[Any]) -> None:
    served = Served(servers, discover=[SERVICE], drain=0, wait=True)
    served.runner = web.AppRunner(served.app)
    inner = web.Application()

    async def known(request: web.Request) -> web.Response:
        found = registry(request)
        assert found is served.membership.registry
        with pytest.raises(InvalidArgument, match=r"^name='other'"):
            view(request, "other").snapshot  # noqa: B018
        return web.json_response(list(view(request, SERVICE).snapshot))

    inner.add_routes([web.get("/known", known)])
    served.app.add_subapp("/inner", inner)
    served.app.add_routes([web.get("/known", known), web.get("/ready", readiness)])
    async with served:
        assert served.app[MEMBERSHIP] is served.membership
        assert served.app[REGISTRY] is served.membership.registry
        await served.membership.view(SERVICE).wait_for(lambda snapshot: len(snapshot) == 1, TIMEOUT)
        assert await served.get("/known") == (200, [f"127.0.0.1:{served.port}"])
        assert await served.get("/inner/known") == (200, [f"127.0.0.1:{served.port}"])
        assert await served.get("/ready") == (200, {"ready": True, "status": "live", "reason": None})
        await served.membership.drain()
        status, state = await served.get("/ready")
        assert (status, state["ready"], state["status"]) == (503, False, "draining")


async def test_readiness_shows_each_check(servers: str) -> None:
    well = {"database": False, "queue": True}

    async def is_well(name: str) -> bool:
        return well[name]

    checks = {name: Check(functools.partial(is_well, name), interval=0.05, timeout=TIMEOUT, fall=1) for name in well}
    served = Served(servers, checks=checks, drain=0, wait=True)
    served.runner = web.AppRunner(served.app)
    served.app.add_routes([web.get("/ready", readiness)])

    async def shown(expected: int, states: dict[str, str]) -> Any:
        async with asyncio.timeout(TIMEOUT):
            while True:
                status, document = await served.get("/ready")
                if (status, shown_checks(document)) == (expected, states):
                    return document
                await asyncio.sleep(0.02)

    async with served:
        await shown(503, {"database": "starting: it returned False", "queue": "passing"})
        well["database"] = True
        document = await shown(200, {"database": "passing", "queue": "passing"})
        assert (document["ready"], document["reason"]) == (True, None)
        well["queue"] = False
        document = await shown(503, {"database": "passing", "queue": "failing: it returned False"})
        assert (document["ready"], document["reason"]) == (False, "check queue: it returned False")


async def test_a_subapplication_can_be_the_member(servers: str, seen: View[Any]) -> None:
    with ReservedPort() as port:
        inner, outer = web.Application(), web.Application()
        inner.cleanup_ctx.append(member(Membership(servers, SERVICE, port=port.number, drain=0)))
        outer.add_subapp("/inner", inner)
        runner = web.AppRunner(outer)
        await runner.setup()
        await seen.wait_for(lambda snapshot: len(snapshot) == 1, TIMEOUT)
        await runner.cleanup()
        await seen.wait_for(lambda snapshot: len(snapshot) == 0, TIMEOUT)


async def test_an_application_that_is_no_member(servers: str) -> None:
    served = Served(servers)
    served.app = web.Application()
    served.runner = web.AppRunner(served.app)

    async def fails(request: web.Request) -> web.Response:
        with pytest.raises(UsageError, match="is not a member"):
            registry(request).session  # noqa: B018
        return web.json_response("failed")

    served.app.add_routes([web.get("/", fails)])
    async with served:
        assert await served.get("/") == (200, "failed")


def test_what_is_no_membership() -> None:
    with pytest.raises(InvalidArgument, match=r"^membership='zk:2181'"):
        member("zk:2181")  # type: ignore[arg-type]
