"""The middleware for aiohttp's client, with real sockets and a real ZooKeeper."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp
import pytest
import yarl
from aiohttp import web

import aioregistry
from aioregistry import InvalidArgument, NoInstances, Ring, ServiceInstance, UsageError
from aioregistry._handles import is_closed
from aioregistry._model import Added, Entry
from aioregistry.integrations._aiohttp_client import check_pools
from aioregistry.integrations.aiohttp import (
    IDEMPOTENT,
    Membership,
    RegistryCookieJar,
    RegistryMiddleware,
    member,
)
from tests.frameworks.peers import Manner, Peer, black_hole, followed, service, views_made
from tests.support.inside import picker_of
from tests.support.reasons import HOSTNAME_MISMATCH, distrust
from tests.support.tls import TlsRelay, trusting
from tests.support.waiting import until
from tests.support.zookeeper import ZooKeeperServer

URL = "http://chat.registry/rooms?of=me"
PATIENCE = aiohttp.ClientTimeout(20)

Make = Callable[..., Any]


@pytest.fixture
def scene(zookeeper: ZooKeeperServer, chroot: str) -> Make:
    return lambda *manners: service(zookeeper, chroot, *manners)


@contextlib.asynccontextmanager
async def client(
    registry: Any = None, *, timeout: aiohttp.ClientTimeout = PATIENCE, **options: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        RegistryMiddleware(registry, **options) as middleware,
        aiohttp.ClientSession(middlewares=[middleware], timeout=timeout) as session,
    ):
        yield session


async def asked(session: aiohttp.ClientSession, method: str = "GET", url: str = URL, **options: Any) -> int:
    """Send a request, read the answer, return its status."""
    async with session.request(method, url, **options) as response:
        await response.read()
        return response.status


async def answered(session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
    return await session.get(URL)


def port_of(response: aiohttp.ClientResponse) -> int | None:
    return response.request_info.url.port


# ---------------------------------------------------------------- where a request goes


async def test_requests_are_balanced_and_connections_kept_by_instance(scene: Make) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat, client(chat.registry) as session:
        for _ in range(6):
            async with session.get(URL) as response:
                assert str(response.url) == URL
                assert port_of(response) in {peer.port for peer in chat.peers}
                assert await response.text() == "ok"
        assert chat.asked() == [3, 3]
        assert [peer.connections for peer in chat.peers] == [1, 1]


async def test_the_request_is_as_it_was_asked_for(scene: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, client(chat.registry) as session:
        await asked(session, "PUT", data=b"body")
        await asked(session, "POST", data=parts())
        expected = [("PUT", b"body"), ("POST", b"onetwo")]
        assert chat.peers[0].asked == [(method, "/rooms?of=me", "chat.registry", body) for method, body in expected]


async def parts() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def test_the_host_header_can_be_the_instances(scene: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, client(chat.registry, authority="instance") as session:
        await asked(session)
        await asked(session, headers={"Host": "mine"})
        assert [request.host for request in chat.peers[0].asked] == [f"127.0.0.1:{chat.peers[0].port}", "mine"]


async def test_middlewares_around_it_send_the_request_again(scene: Make) -> None:
    async def twice(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        (await handler(request)).release()
        return await handler(request)

    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat:
        middlewares: list[aiohttp.ClientMiddlewareType] = [
            twice,
            RegistryMiddleware(chat.registry, authority="instance"),
        ]
        async with aiohttp.ClientSession(middlewares=middlewares) as session:
            assert await asked(session) == 200
        assert [peer.asked[0].host for peer in chat.peers] == [f"127.0.0.1:{peer.port}" for peer in chat.peers]


async def test_a_key_goes_to_its_instance(scene: Make) -> None:
    async with scene(*[Manner.ANSWERS] * 3) as chat:
        by_room = RegistryMiddleware(services={"chat": chat.balancer(Ring())})
        rooms = chat.view.balancer(Ring())
        async with aiohttp.ClientSession(middlewares=[by_room]) as session:
            for number in range(10):
                key = f"room-{number}"
                async with session.get(URL, middlewares=[by_room.keyed(key)]) as response:
                    assert port_of(response) == rooms.pick(key).instance.port
            with pytest.raises(InvalidArgument, match=r"^key=None: "):
                await session.get(URL)


async def test_services_can_be_given_hosts(scene: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, Peer(Manner.ANSWERS) as other:
        odd = ServiceInstance("Chat v2", address="127.0.0.1", port=other.port)
        services = {"mine": chat.balancer(), "v2.chat": "Chat v2"}
        async with chat.registry.register(odd), client(chat.registry, services=services) as session:
            for host in ("mine", "V2.Chat", "chat"):
                await asked(session, url=f"http://{host}.registry:80/")
        assert (len(chat.peers[0].asked), len(other.asked)) == (2, 1)


async def test_other_hosts_pass_where_that_was_asked_for(scene: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, Peer(Manner.ANSWERS) as other:
        async with client(chat.registry, pass_others=True) as session:
            assert await asked(session, url=f"http://127.0.0.1:{other.port}/") == 200
        assert [len(other.asked), *chat.asked()] == [1, 0]


async def test_tls_proves_the_name_that_was_chosen(scene: Make) -> None:
    url = "https://chat.registry:443/"
    async with (
        scene() as chat,
        Peer(Manner.ANSWERS) as peer,
        TlsRelay(("127.0.0.1", peer.port)) as relay,
        chat.registry.register(ServiceInstance("chat", address="localhost", ssl_port=relay.port)),
        client(chat.registry, authority="instance") as by_instance,
        client(chat.registry) as session,
    ):
        await chat.view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
        assert await asked(by_instance, url=url, ssl=trusting()) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError) as raised:
            await session.get(url, ssl=trusting())
        assert distrust(raised.value.certificate_error) == HOSTNAME_MISMATCH
        assert await asked(session, url=url, ssl=trusting(), server_hostname="localhost") == 200


async def test_a_connection_serves_only_the_name_it_was_verified_for(scene: Make) -> None:
    async with (
        scene() as chat,
        Peer(Manner.ANSWERS) as peer,
        TlsRelay(("127.0.0.1", peer.port)) as relay,
        chat.registry.register(ServiceInstance("chat", address="127.0.0.1", ssl_port=relay.port)),
        chat.registry.register(ServiceInstance("pay", address="127.0.0.1", ssl_port=relay.port)),
        client(chat.registry, pass_others=True, ejection=None) as session,
    ):
        trusted: dict[str, Any] = {"ssl": trusting()}
        proved = trusted | {"server_hostname": "localhost"}
        for _ in range(3):
            assert await asked(session, url="https://chat.registry/", **proved) == 200
            for url in ("https://pay.registry/", "https://chat.registry/", f"https://127.0.0.1:{relay.port}/"):
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(url, **trusted)
        assert len(peer.asked) == 3
        assert peer.connections == 1


def test_an_aiohttp_that_pools_by_address_only_is_refused() -> None:
    class Key(NamedTuple):  # as that of 3.13
        host: str
        port: int | None

    with pytest.raises(UsageError):
        check_pools(Key)
    check_pools(aiohttp.client_reqrep.ConnectionKey)


async def test_websockets(servers: str, port: int) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.add_routes([web.get("/", echo)])
    app.cleanup_ctx.append(member(Membership(servers, "chat", port=port, drain=0)))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with (
            aioregistry.connect(servers) as registry,
            client(registry, wait=20) as session,
            session.ws_connect("ws://chat.registry/") as socket,
        ):
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
    finally:
        await runner.cleanup()


# ---------------------------------------------------------------- where a request cannot go


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/", "host='example.org': is not <service>.registry"),
        ("http://127.0.0.1/", "host='127.0.0.1': is not <service>.registry"),
        ("http://chat.registry:8080/", "port=8080: each instance of chat.registry has its own port: leave it out"),
        ("https://chat.registry:80/", "port=80: each instance of chat.registry has its own port: leave it out"),
        ("http://cha%74.registry/", "host='cha%74.registry': the name before .registry must be parts"),
        ("http://chät.registry/", "host='xn--cht-rla.registry': the name before"),
    ],
)
async def test_urls_that_name_no_service(scene: Make, url: str, said: str) -> None:
    async with scene(Manner.ANSWERS) as chat, client(chat.registry) as session:
        with pytest.raises(aiohttp.InvalidUrlClientError) as raised:
            await session.get(url)
        assert str(raised.value.description).startswith(said)
        assert isinstance(raised.value.__cause__, InvalidArgument)
        assert chat.asked() == [0]


async def test_a_redirect_to_elsewhere_is_refused(scene: Make) -> None:
    async with scene(Manner.REDIRECTS) as chat, client(chat.registry) as session:
        with pytest.raises(aiohttp.InvalidUrlClientError, match=r"host='example\.org'"):
            await session.get(URL)


async def test_nothing_to_pick_is_a_connector_error(scene: Make) -> None:
    async with scene() as chat, client(chat.registry) as session:
        with pytest.raises(aiohttp.ClientConnectorError, match="the service is empty") as raised:
            await session.get(URL)
        assert isinstance(raised.value.__cause__, NoInstances)


async def test_what_comes_in_time_is_waited_for(scene: Make) -> None:
    async with scene() as chat, Peer(Manner.ANSWERS) as late, client(chat.registry, wait=20) as session:
        status = asyncio.create_task(asked(session))
        await asyncio.sleep(0.01)  # it waits by now, or finds what came meanwhile
        async with chat.registry.register(ServiceInstance("chat", address="127.0.0.1", port=late.port)):
            assert await status == 200


async def test_waiting_ends(scene: Make) -> None:
    async with scene() as chat:
        async with client(chat.registry, wait=0.05) as session:
            with pytest.raises(aiohttp.ConnectionTimeoutError, match=r"nothing to pick within|did not report"):
                await session.get(URL)
        async with client(chat.registry, wait=20, timeout=aiohttp.ClientTimeout(0.1)) as session:
            with pytest.raises(TimeoutError):
                await session.get(URL)


async def test_an_instance_that_cannot_be_reached_by_the_scheme(scene: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, client(chat.registry) as session:
        with pytest.raises(aiohttp.ClientConnectorError, match="ssl_port=None: chat/a cannot be reached by https"):
            await session.get("https://chat.registry/")


# ---------------------------------------------------------------- what is reported, and repeated


@pytest.mark.parametrize("manner", [None, Manner.HANGS_UP, Manner.SPEAKS_SOMETHING_ELSE])
async def test_a_safe_request_is_repeated(scene: Make, manner: Manner | None) -> None:
    async with scene(manner, manner, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            for method in ("GET", "HEAD", "OPTIONS"):
                assert await asked(session, method) == 200
        assert set(balancer.set_aside) == {"a", "b"}
        assert max(len(peer.asked) for peer in chat.peers[:2]) <= 1


async def test_an_unsafe_one_only_where_it_was_not_sent(scene: Make) -> None:
    async with scene(None, Manner.ANSWERS) as chat, client(chat.registry) as session:
        for data in (b"body", b"body", parts(), parts()):
            assert await asked(session, "POST", data=data) == 200
        assert [request.body for request in chat.peers[1].asked] == [b"body", b"body", b"onetwo", b"onetwo"]


async def test_an_unsafe_one_that_may_have_been_done_is_not(scene: Make) -> None:
    async with scene(Manner.HANGS_UP, Manner.HANGS_UP) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post(URL, data=b"body")
        assert sum(chat.asked()) == 1
        assert len(balancer.set_aside) == 1


async def test_a_body_is_repeated_if_it_can_be(scene: Make) -> None:
    async with scene(Manner.HANGS_UP, Manner.ANSWERS) as chat:
        async with client(chat.registry, repeat={"PATCH"}, ejection=None) as session:
            for _ in range(2):
                assert await asked(session, "PATCH", data=b"body") == 200
        assert [request.body for request in chat.peers[1].asked] == [b"body", b"body"]
    async with scene(Manner.HANGS_UP, Manner.HANGS_UP) as chat, client(chat.registry, repeat={"PATCH"}) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.patch(URL, data=parts())
        assert sum(chat.asked()) == 1


@pytest.mark.parametrize("attempts", [1, 2])
async def test_attempts_are_bounded(scene: Make, attempts: int) -> None:
    options: dict[str, Any] = {"attempts": attempts, "repeat": IDEMPOTENT | {"POST"}}
    async with scene(*[Manner.HANGS_UP] * 3) as chat, client(chat.registry, **options) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(URL)
        assert sorted(chat.asked()) == [0] * (3 - attempts) + [1] * attempts


async def test_aiohttp_begins_an_idempotent_request_once_more(scene: Make) -> None:
    async with scene(Manner.HANGS_UP) as chat, client(chat.registry) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(URL)
        assert chat.asked() == [2]


async def test_no_time_is_no_repetition(scene: Make) -> None:
    async with scene(Manner.HANGS, Manner.HANGS) as chat:
        balancer = chat.balancer()
        timeout = aiohttp.ClientTimeout(20, sock_read=0.1)
        async with client(services={"chat": balancer}, timeout=timeout) as session:
            with pytest.raises(aiohttp.SocketTimeoutError):
                await session.get(URL)
        assert sum(chat.asked()) == 1
        assert len(balancer.set_aside) == 1


async def test_statuses_count_as_failures_where_asked(scene: Make) -> None:
    async with scene(Manner.OVERLOADED, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}, statuses={503}) as session:
            for _ in range(3):
                assert await asked(session) == 200
        assert chat.asked() == [1, 3]
        assert set(balancer.set_aside) == {"a"}
        assert await status_of_all(chat, statuses={503}) == await status_of_all(chat) == 503


async def status_of_all(chat: Any, **options: Any) -> int:
    overloaded = chat.view.balancer(where=lambda instance: instance.id == "a")
    async with client(services={"chat": overloaded}, **options) as session:
        return await asked(session)


async def test_an_answer_that_breaks_off_is_a_failure(scene: Make) -> None:
    async with scene(Manner.CUTS_ITS_ANSWER, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            for _ in range(2):
                with contextlib.suppress(aiohttp.ClientPayloadError):
                    await asked(session)
        assert set(balancer.set_aside) == {"a"}


async def test_an_answer_that_nobody_reads_is_none(scene: Make) -> None:
    async with scene(Manner.BEGINS_ITS_ANSWER) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            for _ in range(2):
                async with session.get(URL) as response:
                    assert response.status == 200
        assert balancer.set_aside == {}


async def test_a_call_is_outstanding_until_its_answer_was_read(scene: Make) -> None:
    async with scene(Manner.BEGINS_ITS_ANSWER, Manner.BEGINS_ITS_ANSWER) as chat:
        services = {"chat": chat.balancer("least-outstanding")}
        async with client(services=services) as session, session.get(URL) as first:
            for _ in range(10):
                async with session.get(URL) as second:
                    assert port_of(second) != port_of(first)


async def test_a_call_that_is_cancelled_says_nothing(scene: Make) -> None:
    async with scene(Manner.HANGS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            request = asyncio.create_task(asked(session))
            await until(lambda: chat.asked() == [1])
            request.cancel()
            await asyncio.wait([request])
        assert request.cancelled()
        assert balancer.set_aside == {}


async def test_its_views_end_with_it(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(Manner.ANSWERS) as chat:
        made = views_made(monkeypatch)
        async with RegistryMiddleware(chat.registry) as middleware:
            async with aiohttp.ClientSession(middlewares=[middleware]) as session:
                await asked(session)
            [view] = made
            assert len(view.snapshot) == 1
        assert followed(made) == set()
        assert not is_closed(chat.view)
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            with pytest.raises(aiohttp.ClientConnectorError, match="the look-up of 'chat' is closed"):
                await session.get(URL)


# ---------------------------------------------------------------- redirects and cookies


@pytest.mark.parametrize("authority", ["service", "instance"])
async def test_a_redirect_built_from_the_host_header_leads_back_to_the_service(scene: Make, authority: str) -> None:
    async with scene(Manner.REDIRECTS_BY_HOST) as chat, client(chat.registry, authority=authority) as session:
        async with session.get(URL) as response:
            assert (response.status, str(response.url)) == (200, "http://chat.registry/there")
        async with session.get(URL, allow_redirects=False) as response:
            assert response.headers["Location"] == "http://chat.registry/there"


@pytest.mark.parametrize(
    ("set_cookie", "sent"),
    [
        ("k=v", ["chat"]),
        ("k=v; Domain=registry", []),
        ("k=v; Domain=.registry", []),
        ("k=v; Domain=chat.registry", ["chat"]),
        ("k=v; Domain=.CHAT.registry", ["chat"]),
        ("k=v; Domain=pay.registry", []),
    ],
)
async def test_no_service_gets_the_cookies_of_another(set_cookie: str, sent: list[str]) -> None:
    jar = RegistryCookieJar()
    jar.update_cookies_from_headers([set_cookie], URL_OF("chat"))
    found = [name for name in ("chat", "pay", "a.chat", "registry") if jar.filter_cookies(URL_OF(name))]
    assert found == sent


async def test_a_service_below_another_keeps_its_cookies_to_itself() -> None:
    jar = RegistryCookieJar()
    jar.update_cookies_from_headers(["k=v; Domain=chat.registry"], URL_OF("a.chat"))
    assert not jar.filter_cookies(URL_OF("chat"))
    jar.update_cookies({"k": "v"}, URL_OF("a.chat"))
    assert [name for name in ("chat", "a.chat") if jar.filter_cookies(URL_OF(name))] == ["a.chat"]


async def test_cookies_of_other_hosts_are_kept_as_ever() -> None:
    jar = RegistryCookieJar()
    jar.update_cookies_from_headers(["k=v; Domain=example.org"], yarl.URL("http://a.example.org/"))
    assert jar.filter_cookies(yarl.URL("http://b.example.org/"))
    jar.update_cookies({"everywhere": "v"})
    assert jar.filter_cookies(yarl.URL("http://c.example.com/"))


def URL_OF(name: str) -> yarl.URL:  # noqa: N802 - in the place of the constant
    return yarl.URL(f"http://{name}.registry/")


# ---------------------------------------------------------------- addresses that no client can use


@pytest.mark.parametrize(
    "address", ["::1%]:80#", "1.2.3.999", "a" * 64 + ".example", "127.0.0.1 ", "1\r\nX: y", "[::1"]
)
async def test_an_address_that_no_url_can_have_counts_as_unreachable(
    scene: Make, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("balancing._admission", "integrations._hosts"):
        monkeypatch.setattr(f"aioregistry.{room}.problem_of", lambda _: None)  # were it taken for one

    class Nowhere(aiohttp.ThreadedResolver):
        async def resolve(self, host: str, *arguments: Any, **options: Any) -> Any:
            host.encode("idna")
            raise OSError(f"no such host: {host}")

    async with scene(Manner.ANSWERS) as chat:
        bad = chat.view.snapshot["a"].replace(id="bad", address="192.0.2.1")
        object.__setattr__(bad, "address", address)
        balancer = chat.balancer()
        picker_of(balancer).apply(Added(Entry(bad, 1, 1, 1, 0, 0.0, 0.0), 1), 0.0)
        async with (
            RegistryMiddleware(services={"chat": balancer}) as middleware,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=Nowhere()), middlewares=[middleware], timeout=PATIENCE
            ) as session,
        ):
            for _ in range(4):
                assert await asked(session, "POST", data=b"body") == 200
        assert set(balancer.set_aside) == {"bad"}
        assert chat.asked() == [4]


# ---------------------------------------------------------------- connections that nobody listens to any more


async def test_an_idle_connection_that_was_closed_says_nothing_about_the_instance(scene: Make) -> None:
    async with scene(Manner.ANSWERS_ONCE, Manner.ANSWERS_ONCE) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}, attempts=2) as session:
            await asyncio.gather(*(asked(session) for _ in range(12)))
            for _ in range(6):
                assert await asked(session) == 200
            assert set(await asyncio.gather(*(asked(session) for _ in range(12)))) == {200}
        assert balancer.set_aside == {}


async def test_what_may_have_been_done_over_one_is_not_repeated(scene: Make) -> None:
    async with scene(Manner.ANSWERS_ONCE) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            await asked(session)
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await asked(session, "POST", data=b"body")
            assert balancer.set_aside == {}
            assert await asked(session, "POST", data=b"body") == 200
        assert [request.method for request in chat.peers[0].asked] == ["GET", "POST", "POST"]


async def test_what_was_not_sent_over_one_is_repeated_whatever_its_method(scene: Make) -> None:
    """The pool has a connection that is closed when it is to be written to."""
    async with scene(Manner.ANSWERS) as chat:
        balancer = chat.balancer()

        async def closing(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            send = request.send

            async def sends(connection: Any) -> aiohttp.ClientResponse:
                if request.method == "POST" and chat.peers[0].connections == 1:
                    connection.transport.close()
                return await send(connection)

            request.send = sends  # type: ignore[assignment,method-assign]
            try:
                return await handler(request)
            finally:
                request.send = send  # type: ignore[method-assign]

        async with (
            RegistryMiddleware(services={"chat": balancer}, attempts=1) as middleware,
            aiohttp.ClientSession(middlewares=[middleware, closing], timeout=PATIENCE) as session,
        ):
            await asked(session)
            assert await asked(session, "POST", data=parts()) == 200
        assert balancer.set_aside == {}
        assert [(request.method, request.body) for request in chat.peers[0].asked] == [
            ("GET", b""),
            ("POST", b"onetwo"),
        ]


async def test_a_new_connection_that_breaks_is_evidence(scene: Make) -> None:
    async with scene(Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            await asked(session)
            chat.peers[0].manner = Manner.HANGS_UP
            with pytest.raises(aiohttp.ClientError):
                await asked(session)
        assert set(balancer.set_aside) == {"a"}


# ---------------------------------------------------------------- the session's time


class Unchangeable(aiohttp.TCPConnector):
    """One whose `connect` cannot be replaced."""

    @property
    def connect(self) -> Any:
        return super().connect


@pytest.mark.parametrize("of", ["session", "session, fixed connector", "request"])
async def test_an_instance_that_swallows_packets_leaves_time_for_the_others(scene: Make, of: str) -> None:
    """There is a total timeout only, as by default."""
    total = aiohttp.ClientTimeout(total=6)
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat:
        with black_hole() as port:
            async with chat.registry.register(ServiceInstance("chat", id="hole", address="127.0.0.1", port=port)):
                await chat.view.wait_for(lambda snapshot: len(snapshot) == 3, 20)
                balancer = chat.balancer()
                async with (
                    RegistryMiddleware(services={"chat": balancer}) as middleware,
                    aiohttp.ClientSession(
                        connector=Unchangeable() if "fixed" in of else aiohttp.TCPConnector(),
                        middlewares=[middleware],
                        timeout=aiohttp.ClientTimeout() if of == "request" else total,
                    ) as session,
                ):
                    options: dict[str, Any] = {"timeout": total} if of == "request" else {}
                    assert [await asked(session, **options) for _ in range(6)] == [200] * 6
                assert set(balancer.set_aside) == {"hole"}


async def test_requests_at_a_time_have_their_own_timeouts(scene: Make) -> None:
    """They share a session, its connector and two middlewares."""
    async with scene() as chat:
        with black_hole() as port:
            async with chat.registry.register(ServiceInstance("chat", id="hole", address="127.0.0.1", port=port)):
                await chat.view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
                async with (
                    RegistryMiddleware(chat.registry, wait=20) as one,
                    RegistryMiddleware(chat.registry, wait=20) as two,
                    aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session,
                ):
                    patient = asyncio.create_task(asked(session, middlewares=[one]))
                    short = aiohttp.ClientTimeout(total=0.3)
                    for middleware in (one, two):
                        with pytest.raises(TimeoutError):
                            await asked(session, middlewares=[middleware], timeout=short)
                    assert not patient.done()
                    patient.cancel()
                    await asyncio.wait([patient])


async def test_a_request_may_take_longer_than_its_session_allows_the_others(scene: Make) -> None:
    class Late(aiohttp.ThreadedResolver):
        async def resolve(self, *args: Any, **options: Any) -> Any:
            await asyncio.sleep(1)  # longer than a third of the session's timeout
            return await super().resolve(*args, **options)

    async with (
        scene() as chat,
        Peer(Manner.ANSWERS) as peer,
        chat.registry.register(ServiceInstance("chat", address="localhost", port=peer.port)),
        RegistryMiddleware(chat.registry, wait=20) as middleware,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Late()),
            middlewares=[middleware],
            timeout=aiohttp.ClientTimeout(total=0.3),
        ) as session,
    ):
        assert await asked(session, timeout=PATIENCE) == 200


@contextlib.asynccontextmanager
async def silent(chat: Any) -> AsyncIterator[list[str]]:
    """An aiohttp server, listed first of all by its id, that takes requests and does not answer; the methods it got."""
    asked: list[str] = []
    over = asyncio.Event()

    async def keep_silent(request: web.Request) -> web.Response:
        asked.append(request.method)
        await over.wait()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", keep_silent)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        instance = ServiceInstance("chat", id="0", address="127.0.0.1", port=runner.addresses[0][1])
        known = len(chat.view.snapshot)
        async with chat.registry.register(instance):
            await chat.view.wait_for(lambda snapshot: len(snapshot) == known + 1, 20)
            yield asked
    finally:
        over.set()
        await runner.cleanup()


@pytest.mark.parametrize("swallows", [False, True], ids=["silent", "swallows packets"])
async def test_an_attempt_of_its_own_length_leaves_time_within_the_timeout_of_one_request(
    scene: Make, swallows: bool
) -> None:
    """It bounds the wait for an answer, too, where a request's timeout is not shared."""
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat, contextlib.AsyncExitStack() as stack:
        if swallows:
            hole = ServiceInstance("chat", id="0", address="127.0.0.1", port=stack.enter_context(black_hole()))
            await stack.enter_async_context(chat.registry.register(hole))
            await chat.view.wait_for(lambda snapshot: len(snapshot) == 3, 20)
            asked_of_it = []
        else:
            asked_of_it = await stack.enter_async_context(silent(chat))
        balancer = chat.balancer()
        options: dict[str, Any] = {"services": {"chat": balancer}, "per_try_timeout": 1}
        async with client(timeout=aiohttp.ClientTimeout(), **options) as session:
            assert [await asked(session, timeout=PATIENCE) for _ in range(6)] == [200] * 6
        assert "0" in balancer.set_aside
        assert asked_of_it == ([] if swallows else ["GET"])


async def test_an_attempt_that_was_late_is_repeated_as_one_that_broke(scene: Make) -> None:
    async with scene() as chat, silent(chat) as asked_of_it:
        services = {"chat": chat.balancer()}
        async with client(services=services, per_try_timeout=0.2) as session:
            with pytest.raises(aiohttp.SocketTimeoutError):
                await asked(session, "POST", data=b"body")
        assert asked_of_it == ["POST"]
        assert set(services["chat"].set_aside) == {"0"}
    async with scene(Manner.ANSWERS) as chat, silent(chat) as asked_of_it:
        options: dict[str, Any] = {"per_try_timeout": 1, "repeat": {"POST"}, "ejection": None}
        async with client(chat.registry, **options) as session:
            for data in (b"body", b"body"):
                assert await asked(session, "POST", data=data) == 200
        assert set(asked_of_it) == {"POST"}
        assert {request.body for request in chat.peers[0].asked} == {b"body"}


async def test_an_answer_that_has_begun_may_take_longer_than_an_attempt(scene: Make) -> None:
    async with scene() as chat:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\no")
            begun.set()
            await go_on.wait()
            writer.write(b"k")
            writer.close()

        async with await asyncio.start_server(slowly, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            async with chat.registry.register(ServiceInstance("chat", address="127.0.0.1", port=port)):
                options: dict[str, Any] = {"per_try_timeout": 1, "wait": 20}
                async with client(chat.registry, **options) as session, session.get(URL) as response:
                    await asyncio.sleep(1.2)
                    go_on.set()
                    assert await response.text() == "ok"


async def test_an_attempt_does_not_begin_before_the_sessions_own_pool_has_room(scene: Make) -> None:
    async with scene(Manner.BEGINS_ITS_ANSWER, Manner.BEGINS_ITS_ANSWER) as chat:
        balancer = chat.balancer()
        async with (
            RegistryMiddleware(services={"chat": balancer}, per_try_timeout=1) as middleware,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1), middlewares=[middleware], timeout=PATIENCE
            ) as session,
        ):
            held = await session.get(URL)
            second = asyncio.create_task(answered(session))
            await asyncio.sleep(1.2)
            assert not second.done()
            held.close()
            (await second).close()
        assert balancer.set_aside == {}


@pytest.mark.parametrize("of", ["session", "request"])
async def test_a_deadline_of_the_clients_own_counts_against_the_instance(scene: Make, of: str) -> None:
    short = aiohttp.ClientTimeout(total=0.3)
    async with scene() as chat:
        with black_hole() as port:
            async with chat.registry.register(ServiceInstance("chat", id="hole", address="127.0.0.1", port=port)):
                await chat.view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
                balancer = chat.balancer()
                both = (short, short) if of == "session" else (PATIENCE, short)
                async with client(services={"chat": balancer}, timeout=both[0]) as session:
                    with pytest.raises(TimeoutError):
                        await session.get(URL, timeout=both[1])
                assert set(balancer.set_aside) == {"hole"}


@pytest.mark.parametrize("phase", ["total", "connect"])
@pytest.mark.parametrize("limits", [{"limit": 1}, {"limit_per_host": 1}], ids=str)
async def test_a_deadline_that_passes_in_the_sessions_own_pool_blames_nobody(
    scene: Make, limits: Any, phase: str
) -> None:
    async with scene(Manner.BEGINS_ITS_ANSWER) as chat:
        balancer = chat.balancer()
        async with (
            RegistryMiddleware(services={"chat": balancer}) as middleware,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(**limits), middlewares=[middleware], timeout=PATIENCE
            ) as session,
            session.get(URL),
        ):
            with pytest.raises(TimeoutError):
                await session.get(URL, timeout=aiohttp.ClientTimeout(**{phase: 0.3}))
            assert balancer.set_aside == {}


async def test_an_answer_that_is_too_slow_in_coming_counts_against_the_instance(scene: Make) -> None:
    async with scene(Manner.BEGINS_ITS_ANSWER) as chat:
        balancer = chat.balancer()
        short = aiohttp.ClientTimeout(total=0.5)
        async with client(services={"chat": balancer}, timeout=short) as session, session.get(URL) as response:
            with pytest.raises(TimeoutError):
                await response.read()
        assert set(balancer.set_aside) == {"a"}


async def test_a_cancellation_from_outside_says_nothing(scene: Make) -> None:
    async with scene(Manner.HANGS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await session.get(URL)
        assert balancer.set_aside == {}


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("before", ["a proxy that refuses", "a proxy that swallows packets"])
async def test_what_stands_before_all_instances_says_nothing_about_one(scene: Make, before: str, attempts: int) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat, Peer(None) as nobody:
        balancer = chat.balancer()
        with black_hole() as hole:
            proxy = f"http://127.0.0.1:{nobody.port if before == 'a proxy that refuses' else hole}"
            short = aiohttp.ClientTimeout(total=0.3)
            async with client(services={"chat": balancer}, timeout=short, attempts=attempts) as session:
                with pytest.raises((aiohttp.ClientProxyConnectionError, TimeoutError)):
                    await session.get(URL, proxy=proxy)
        assert balancer.set_aside == {}


async def test_a_session_whose_own_limit_is_reached_blames_nobody(scene: Make) -> None:
    """It waits for a connection of its own to be given back, for longer than the share of an attempt."""
    async with scene(Manner.BEGINS_ITS_ANSWER, Manner.BEGINS_ITS_ANSWER) as chat:
        balancer = chat.balancer()
        async with (
            RegistryMiddleware(services={"chat": balancer}, attempts=50) as middleware,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1), middlewares=[middleware], timeout=PATIENCE
            ) as session,
        ):
            held = await session.get(URL)
            second = asyncio.create_task(answered(session))
            await asyncio.sleep(1.0)  # more than twice the share of an attempt: of 20 s for 50
            assert not second.done()
            assert balancer.set_aside == {}
            held.close()
            (await second).close()
        assert balancer.set_aside == {}
