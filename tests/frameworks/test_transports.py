"""The transports for httpx and httpx2, with clients of both, real sockets and a real ZooKeeper."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from aioregistry import InvalidArgument, NoInstances, Ring, ServiceInstance
from aioregistry._handles import is_closed
from aioregistry._model import Added, Entry
from aioregistry.integrations import _patience as patience
from aioregistry.integrations._lanes import MOST_NAMES, Lanes, name_of
from aioregistry.integrations.httpx import IDEMPOTENT, INSTANCE, KEY
from aioregistry.integrations.httpx import RegistryTransport as Transport1
from aioregistry.integrations.httpx2 import RegistryTransport as Transport2
from tests.frameworks.peers import Manner, Peer, black_hole, followed, service, views_made
from tests.support.inside import picker_of
from tests.support.reasons import HOSTNAME_MISMATCH, distrust
from tests.support.tls import AUTHORITY, TlsRelay, trusting
from tests.support.waiting import until
from tests.support.zookeeper import ZooKeeperServer

PACKAGES: dict[ModuleType, Any] = {httpx: Transport1, httpx2: Transport2}
URL = "http://chat.registry/rooms?of=me"


@pytest.fixture(params=PACKAGES, ids=lambda http: http.__name__)
def http(request: pytest.FixtureRequest) -> ModuleType:
    package: ModuleType = request.param
    return package


@pytest.fixture
def client(http: ModuleType) -> Callable[..., Any]:
    """Return a client by the scene's registry or balancers, with the transport's options and the client's timeout."""

    def make(registry: Any = None, timeout: Any = 20, verify: Any = True, **options: Any) -> Any:
        sends = http.AsyncHTTPTransport(verify=verify, trust_env=False)
        transport = PACKAGES[http](registry, transport=sends, **options)
        return http.AsyncClient(transport=transport, timeout=timeout)

    return make


@pytest.fixture
def scene(zookeeper: ZooKeeperServer, chroot: str) -> Callable[..., Any]:
    return lambda *manners: service(zookeeper, chroot, *manners)


Make = Callable[..., Any]

# ---------------------------------------------------------------- where a request goes


async def test_requests_are_balanced_and_connections_kept_by_instance(scene: Make, client: Make) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat, client(chat.registry) as session:
        answers = [await session.get(URL) for _ in range(6)]
        assert chat.asked() == [3, 3]
        assert [peer.connections for peer in chat.peers] == [1, 1]
        assert {answer.extensions[INSTANCE].id for answer in answers} == {"a", "b"}
        assert {str(answer.url) for answer in answers} == {URL}
        assert [answer.text for answer in answers] == ["ok"] * 6


async def test_the_request_is_as_it_was_asked_for(scene: Make, client: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, client(chat.registry) as session:
        await session.put(URL, content=b"body")
        await session.post(URL, content=parts())
        asked = [("PUT", b"body"), ("POST", b"onetwo")]
        assert chat.peers[0].asked == [(method, "/rooms?of=me", "chat.registry", body) for method, body in asked]


async def parts() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def test_the_host_header_can_be_the_instances(scene: Make, client: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, client(chat.registry, authority="instance") as session:
        await session.get(URL)
        await session.get(URL, headers={"Host": "mine"})
        assert [asked.host for asked in chat.peers[0].asked] == [f"127.0.0.1:{chat.peers[0].port}", "mine"]


async def test_a_key_goes_to_its_instance(scene: Make, client: Make) -> None:
    async with scene(*[Manner.ANSWERS] * 3) as chat, client(chat.registry, strategy=Ring()) as session:
        rooms = chat.view.balancer(Ring())
        for number in range(10):
            answer = await session.get(URL, extensions={KEY: f"room-{number}"})
            assert answer.extensions[INSTANCE].id == rooms.pick(f"room-{number}").id
        with pytest.raises(InvalidArgument, match=r"^key=None: "):
            await session.get(URL)
        with pytest.raises(InvalidArgument, match=r"^key=7: "):
            await session.get(URL, extensions={KEY: 7})


async def test_services_can_be_given_hosts(scene: Make, client: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, Peer(Manner.ANSWERS) as other:
        odd = ServiceInstance("Chat v2", address="127.0.0.1", port=other.port)
        async with chat.registry.register(odd):
            services = {"mine": chat.balancer(), "v2.chat": "Chat v2"}
            async with client(chat.registry, services=services) as session:
                for host in ("mine", "V2.Chat", "chat"):
                    await session.get(f"http://{host}.registry/")
        assert (len(chat.peers[0].asked), len(other.asked)) == (2, 1)
        assert chat.balancer().pick().id == "a"  # its owner's, and not closed


async def test_other_hosts_pass_where_that_was_asked_for(scene: Make, client: Make) -> None:
    async with scene(Manner.ANSWERS) as chat, Peer(Manner.ANSWERS) as other:
        async with client(chat.registry, pass_others=True) as session:
            answer = await session.get(f"http://127.0.0.1:{other.port}/")
        assert INSTANCE not in answer.extensions
        assert [len(other.asked), *chat.asked()] == [1, 0]


async def test_as_a_mount(scene: Make, http: ModuleType) -> None:
    async with scene(Manner.ANSWERS) as chat, Peer(Manner.ANSWERS) as other:
        mounts = {"all://*.registry": PACKAGES[http](chat.registry)}
        async with http.AsyncClient(mounts=mounts, trust_env=False) as session:
            await session.get(URL)
            await session.get(f"http://127.0.0.1:{other.port}/")
        assert [len(other.asked), *chat.asked()] == [1, 1]


async def test_tls_proves_the_name_that_was_chosen(scene: Make, client: Make, http: ModuleType) -> None:
    async with (
        scene() as chat,
        Peer(Manner.ANSWERS) as peer,
        TlsRelay(("127.0.0.1", peer.port)) as relay,
        chat.registry.register(ServiceInstance("chat", address="localhost", ssl_port=relay.port)),
        client(chat.registry, verify=trusting(), authority="instance") as by_instance,
        client(chat.registry, verify=trusting()) as session,
    ):
        await chat.view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
        assert (await by_instance.get("https://chat.registry/")).text == "ok"
        with pytest.raises(http.ConnectError) as raised:
            await session.get("https://chat.registry/")
        assert distrust(raised.value) == HOSTNAME_MISMATCH
        extensions = {"sni_hostname": "localhost"}
        assert (await session.get("https://chat.registry/", extensions=extensions)).text == "ok"


# ---------------------------------------------------------------- what TLS proved

PROVED = {"sni_hostname": "localhost"}
"""The extension by which the certificate of the tests is the one that is asked for: it is for localhost only."""


@contextlib.asynccontextmanager
async def two_names_of_one_server(scene: Make) -> AsyncIterator[tuple[Any, Peer, TlsRelay]]:
    async with contextlib.AsyncExitStack() as stack:
        chat = await stack.enter_async_context(scene())
        peer = await stack.enter_async_context(Peer(Manner.ANSWERS))
        relay = await stack.enter_async_context(TlsRelay(("127.0.0.1", peer.port)))
        for name in ("chat", "pay"):
            instance = ServiceInstance(name, address="127.0.0.1", ssl_port=relay.port)
            await stack.enter_async_context(chat.registry.register(instance))
        yield chat, peer, relay


def kinds_of_transport(http: ModuleType) -> dict[str, Any]:
    """The possible values of `transport`, each with the options that trust the tests' authority."""

    class Mine(http.AsyncBaseTransport):  # type: ignore[name-defined]
        """Somebody's own around the package's: what is in it is not known."""

        def __init__(self) -> None:
            self.inner = http.AsyncHTTPTransport(verify=trusting(), trust_env=False)

        async def handle_async_request(self, request: Any) -> Any:
            return await self.inner.handle_async_request(request)

        async def aclose(self) -> None:
            await self.inner.aclose()

    return {
        "instance": http.AsyncHTTPTransport(verify=trusting(), trust_env=False),
        "function": lambda: http.AsyncHTTPTransport(verify=trusting(), trust_env=False),
        "wrapper": Mine(),
        "class of wrappers": Mine,
    }


@pytest.mark.parametrize("kind", ["instance", "function", "wrapper", "class of wrappers"])
async def test_a_connection_serves_only_the_name_it_was_verified_for(
    scene: Make, client: Make, http: ModuleType, kind: str
) -> None:
    async with two_names_of_one_server(scene) as (chat, peer, relay):
        given = kinds_of_transport(http)[kind]
        transport = PACKAGES[http](chat.registry, transport=given, pass_others=True, ejection=None)
        async with http.AsyncClient(transport=transport, timeout=20) as session:
            refused = ["https://pay.registry/", "https://chat.registry/", f"https://127.0.0.1:{relay.port}/"]
            for _ in range(3):
                answer = await session.get("https://chat.registry/", extensions=PROVED)
                assert answer.status_code == 200
                for url in refused:
                    with pytest.raises(http.ConnectError):
                        await session.get(url)
                elsewhere = session.get(f"https://127.0.0.1:{relay.port}/", extensions=PROVED)
                assert (await elsewhere).status_code == 200
        assert len(peer.asked) == 6
        assert peer.connections == 1  # kept, by each name


async def test_a_redirect_to_another_name_is_verified_for_that(scene: Make, client: Make, http: ModuleType) -> None:
    async with two_names_of_one_server(scene) as (chat, peer, _):
        peer.manner = Manner.REDIRECTS_TO_PAY
        async with client(chat.registry, verify=trusting()) as session:
            answer = await session.get("https://chat.registry/", extensions=PROVED)
            assert answer.has_redirect_location
            with pytest.raises(http.ConnectError):
                await session.get(answer.headers["Location"])
        assert len(peer.asked) == 1


async def test_without_a_transport_given_each_name_has_its_own(
    scene: Make, http: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    async with two_names_of_one_server(scene) as (chat, peer, _):
        transport = PACKAGES[http](chat.registry)
        async with http.AsyncClient(transport=transport, timeout=20) as session:
            assert (await session.get("https://chat.registry/", extensions=PROVED)).status_code == 200
            with pytest.raises(http.ConnectError):
                await session.get("https://pay.registry/")
        assert len(peer.asked) == 1
        assert set(transport._lanes._lanes) == set()  # closed


async def test_a_tunnel_proves_the_name_or_nothing_is_sent(scene: Make, client: Make, http: ModuleType) -> None:
    """httpx hands no name to a tunnel, which proves the address then; httpx2 does."""
    async with two_names_of_one_server(scene) as (chat, peer, relay), Tunnels() as proxy:
        transport = http.AsyncHTTPTransport(verify=trusting(), trust_env=False, proxy=f"http://127.0.0.1:{proxy.port}")
        instance = ServiceInstance("tunnelled", address="localhost", ssl_port=relay.port)
        async with (
            chat.registry.register(instance),
            http.AsyncClient(transport=PACKAGES[http](chat.registry, transport=transport), timeout=20) as session,
        ):
            for _ in range(2):
                with pytest.raises((http.ProxyError, http.ConnectError)):
                    await session.get("https://tunnelled.registry/")
            assert proxy.tunnels == 2
            # … which has no certificate for that name, but one for its address.
            assert peer.asked == []


class Tunnels:
    """An HTTP proxy that tunnels only; open inside `async with`."""

    def __init__(self) -> None:
        self.tunnels = 0
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def __aenter__(self) -> Tunnels:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        host, _, port = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().rpartition(":")
        self.tunnels += 1
        theirs, ours = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pour(reader, ours))
                both.create_task(_pour(theirs, writer))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            ours.transport.abort()
            writer.transport.abort()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def test_names_are_bounded_and_what_is_in_use_is_kept(http: ModuleType) -> None:
    closed: list[int] = []

    class Counted:
        def __init__(self) -> None:
            self.number = len(made)
            made.append(self)

        async def aclose(self) -> None:
            closed.append(self.number)

    made: list[Counted] = []

    async def use() -> None:
        lanes = Lanes(None, Counted)
        asked = [asks(http, f"n{number}") for number in range(MOST_NAMES + 5)]
        used = [lanes.enter(request) for request in asked]
        assert len(lanes._lanes) == MOST_NAMES + 5  # all are in use
        for lane in used[1:]:
            lane.leave()
        assert lanes.enter(asked[3]).transport is used[3].transport
        lanes.enter(asks(http, "one more"))
        while lanes._closing:
            await asyncio.sleep(0)
        assert closed == [1, 2, 4, 5, 6, 7]
        assert len(lanes._lanes) == MOST_NAMES
        await lanes.aclose()
        assert sorted(closed) == [each.number for each in made]

    asyncio.run(use())


def asks(http: ModuleType, name: str | None, url: str = "https://10.0.0.7:7000/") -> Any:
    return http.Request("GET", url, extensions={} if name is None else {"sni_hostname": name})


def test_which_name_is_to_be_proved(http: ModuleType) -> None:
    assert name_of(asks(http, "chat.registry")) == "chat.registry"
    assert name_of(asks(http, None)) is None
    assert name_of(asks(http, "10.0.0.7")) is None
    assert name_of(asks(http, "chat.registry", "http://10.0.0.7/")) is None
    assert name_of(asks(http, "chat.registry", "wss://10.0.0.7/")) == "chat.registry"


def test_a_transport_of_which_there_is_one_serves_each_address_one_name(http: ModuleType) -> None:
    lanes = Lanes(object(), None)
    for name in ("chat.registry", None):
        lanes.enter(asks(http, name, f"https://10.0.0.{len(str(name))}/"))
        lanes.enter(asks(http, name, f"https://10.0.0.{len(str(name))}/"))
        lanes.enter(asks(http, "pay.registry", f"http://10.0.0.{len(str(name))}/"))
        with pytest.raises(InvalidArgument, match=r"^transport="):
            lanes.enter(asks(http, "pay.registry", f"https://10.0.0.{len(str(name))}/"))


@pytest.mark.parametrize("made", [None, object()])
async def test_a_function_that_makes_no_transports_is_refused(scene: Make, http: ModuleType, made: object) -> None:
    async with scene() as chat:
        with pytest.raises(InvalidArgument, match=r"^transport="):
            PACKAGES[http](chat.registry, transport=lambda: made)


# ---------------------------------------------------------------- addresses that no client can use

UNUSABLE = ["::1%]:80#", "1.2.3.999", "a" * 64 + ".example", "\uff41..com", "127.0.0.1 ", "127.0.0.1\r\nX: y", "[::1"]


@pytest.mark.parametrize("address", UNUSABLE)
async def test_an_address_that_no_url_can_have_counts_as_unreachable(
    scene: Make, http: ModuleType, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the request cannot be built or the address not be looked up, any method goes to another instance."""
    for room in ("balancing._admission", "integrations._hosts"):
        monkeypatch.setattr(f"aioregistry.{room}.problem_of", lambda _: None)  # were it taken for one
    monkeypatch.setattr(socket, "getaddrinfo", only_loopback(socket.getaddrinfo))
    async with scene(Manner.ANSWERS) as chat:
        bad = chat.view.snapshot["a"].replace(id="bad", address="192.0.2.1")
        object.__setattr__(bad, "address", address)
        balancer = chat.balancer()
        picker_of(balancer).apply(Added(Entry(bad, 1, 1, 1, 0, 0.0, 0.0), 1), 0.0)
        async with http.AsyncClient(transport=PACKAGES[http](services={"chat": balancer})) as session:
            for _ in range(4):
                assert (await session.post(URL, content=b"body")).status_code == 200
        assert set(balancer.set_aside) == {"bad"}
        assert chat.asked() == [4]


def only_loopback(found: Callable[..., Any]) -> Callable[..., Any]:
    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in {"127.0.0.1", b"127.0.0.1"}:
            # The answer of the system's resolver, which is not asked here.
            (host.decode() if isinstance(host, bytes) else host).encode("idna")
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return found(host, *arguments, **options)

    return getaddrinfo


# ---------------------------------------------------------------- connections that nobody listens to any more


async def test_an_idle_connection_that_was_closed_says_nothing_about_the_instance(scene: Make, client: Make) -> None:
    """However many there are of them: one new connection answers, and nobody is set aside."""
    async with scene(Manner.ANSWERS_ONCE, Manner.ANSWERS_ONCE) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}, attempts=2) as session:
            await asyncio.gather(*(session.get(URL) for _ in range(12)))
            for _ in range(6):
                assert (await session.get(URL)).status_code == 200
            answers = await asyncio.gather(*(session.get(URL) for _ in range(12)))
            assert {answer.status_code for answer in answers} == {200}
        assert balancer.set_aside == {}


async def test_what_may_have_been_done_over_one_is_not_repeated(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.ANSWERS_ONCE) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            await session.get(URL)
            with pytest.raises(http.TransportError):
                await session.post(URL, content=b"body")
            assert balancer.set_aside == {}
            assert (await session.post(URL, content=b"body")).status_code == 200
        assert [asked.method for asked in chat.peers[0].asked] == ["GET", "POST", "POST"]


async def test_what_was_not_sent_over_one_is_repeated_whatever_its_method(scene: Make, http: ModuleType) -> None:
    """The head of the request could not be handed over: nobody has read it."""

    class Broken(http.AsyncBaseTransport):  # type: ignore[name-defined]
        """In the place of a connection that breaks between the pool's look at it and the write."""

        def __init__(self) -> None:
            self.inner = http.AsyncHTTPTransport(trust_env=False)
            self.broken = 0

        async def handle_async_request(self, request: Any) -> Any:
            if not self.broken:
                self.broken += 1
                trace = request.extensions["trace"]
                await trace("http11.send_request_headers.started", {"request": request})
                await trace("http11.send_request_headers.failed", {"exception": http.WriteError("gone")})
                raise http.ReadError("gone")
            return await self.inner.handle_async_request(request)

        async def aclose(self) -> None:
            await self.inner.aclose()

    async with scene(Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        transport = PACKAGES[http](services={"chat": balancer}, transport=Broken(), attempts=1)
        async with http.AsyncClient(transport=transport) as session:
            assert (await session.post(URL, content=b"body")).status_code == 200
        assert balancer.set_aside == {}
        assert [asked.method for asked in chat.peers[0].asked] == ["POST"]


async def test_a_new_connection_that_breaks_is_evidence(scene: Make, client: Make, http: ModuleType) -> None:
    """The instance closed an idle connection, and hangs up on the next: that is its own doing."""
    async with scene(Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            await session.get(URL)
            chat.peers[0].manner = Manner.HANGS_UP
            with pytest.raises(http.TransportError):
                await session.get(URL)
        assert set(balancer.set_aside) == {"a"}
        assert chat.asked() == [3]


async def test_a_trace_of_the_callers_is_told_too(scene: Make, client: Make) -> None:
    told: list[str] = []

    async def trace(event: str, info: Any) -> None:
        told.append(event)

    async with scene(Manner.ANSWERS) as chat, client(chat.registry) as session:
        await session.get(URL, extensions={"trace": trace})
    assert "connection.connect_tcp.started" in told
    assert "http11.send_request_headers.complete" in told


# ---------------------------------------------------------------- where a request cannot go


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/", "host='example.org': is not <service>.registry"),
        ("http://127.0.0.1/", "host='127.0.0.1': is not <service>.registry"),
        ("http://chat.registry:8080/", "port=8080: each instance of chat.registry has its own port: leave it out"),
        ("http://cha%74.registry/", "host='cha%74.registry': the name before .registry must be parts"),
        ("ftp://chat.registry/", "scheme='ftp': is not one of http, ws, https, wss"),
    ],
)
async def test_urls_that_name_no_service(scene: Make, client: Make, http: ModuleType, url: str, said: str) -> None:
    async with scene(Manner.ANSWERS) as chat, client(chat.registry) as session:
        with pytest.raises(http.UnsupportedProtocol) as raised:
            await session.get(url)
        assert str(raised.value).startswith(said)
        assert isinstance(raised.value.__cause__, InvalidArgument)
        assert chat.asked() == [0]


async def test_a_host_without_a_balancer(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.ANSWERS) as chat, client(services={"mine": chat.balancer()}) as session:
        with pytest.raises(http.UnsupportedProtocol, match=r"^host='chat.registry': is not one of services=\['mine'\]"):
            await session.get(URL)


async def test_a_redirect_to_elsewhere_is_refused(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.REDIRECTS) as chat, client(chat.registry) as session:
        with pytest.raises(http.UnsupportedProtocol, match=r"example\.org"):
            await session.get(URL, follow_redirects=True)


@pytest.mark.parametrize("authority", ["service", "instance"])
async def test_a_redirect_built_from_the_host_header_leads_back_to_the_service(
    scene: Make, client: Make, authority: str
) -> None:
    async with scene(Manner.REDIRECTS_BY_HOST) as chat, client(chat.registry, authority=authority) as session:
        answer = await session.get(URL, follow_redirects=True)
        assert (answer.status_code, str(answer.url)) == (200, "http://chat.registry/there")
        assert [asked.target for asked in chat.peers[0].asked] == ["/rooms?of=me", "/there"]


async def test_nothing_to_pick_is_a_connect_error(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene() as chat, client(chat.registry) as session:
        with pytest.raises(http.ConnectError, match="no instance of 'chat' can be picked") as raised:
            await session.get(URL)
        assert isinstance(raised.value.__cause__, NoInstances)


async def test_what_comes_in_time_is_waited_for(
    scene: Make, client: Make, http: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene() as chat, Peer(Manner.ANSWERS) as late, client(chat.registry, wait=20) as session:
        made = views_made(monkeypatch)
        answer = asyncio.create_task(session.get(URL))
        await until(lambda: len(made) > 0)
        async with chat.registry.register(ServiceInstance("chat", address="127.0.0.1", port=late.port)):
            assert (await answer).text == "ok"


async def test_waiting_ends(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene() as chat:
        for options in ({"wait": 0.05}, {"wait": 20, "timeout": 0.3}):  # the client's time to connect is an end too
            async with client(chat.registry, **options) as session:
                with pytest.raises(http.ConnectTimeout, match=r"nothing to pick within|did not report"):
                    await session.get(URL)


async def test_an_instance_that_cannot_be_reached_by_the_scheme(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat, client(services={"chat": chat.balancer()}) as session:
        with pytest.raises(http.ConnectError, match=r"^ssl_port=None: chat/[ab] cannot be reached by https$"):
            await session.get("https://chat.registry/")
        assert chat.asked() == [0, 0]


# ---------------------------------------------------------------- what is reported, and repeated


@pytest.mark.parametrize("manner", [None, Manner.HANGS_UP, Manner.SPEAKS_SOMETHING_ELSE])
async def test_a_safe_request_is_repeated(scene: Make, client: Make, manner: Manner | None) -> None:
    async with scene(manner, manner, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            for method in ("GET", "HEAD", "OPTIONS"):
                assert (await session.request(method, URL)).status_code == 200
        assert set(balancer.set_aside) == {"a", "b"}
        assert max(len(peer.asked) for peer in chat.peers[:2]) <= 1


async def test_a_response_that_ends_with_its_head_is_as_if_it_had_not_begun(
    scene: Make, client: Make, http: ModuleType
) -> None:
    """Servers send head and body one after the other, and may be killed in between."""
    async with scene(Manner.CUTS_BEHIND_ITS_HEAD, Manner.CUTS_BEHIND_ITS_HEAD, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            assert [(await session.get(URL)).text for _ in range(3)] == ["ok"] * 3
            assert set(balancer.set_aside) == {"a", "b"}
            assert chat.asked()[:2] == [1, 1]
    async with scene(*[Manner.CUTS_BEHIND_ITS_HEAD] * 2) as chat, client(chat.registry) as session:
        with pytest.raises(http.RemoteProtocolError):
            await session.post(URL)
        assert sum(chat.asked()) == 1


async def test_a_connection_in_use_that_breaks_behind_the_head_was_not_idle(scene: Make, client: Make) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            assert [(await session.get(URL)).text for _ in range(2)] == ["ok"] * 2
            chat.peers[0].manner = Manner.CUTS_BEHIND_ITS_HEAD
            assert [(await session.get(URL)).text for _ in range(2)] == ["ok"] * 2
        assert set(balancer.set_aside) == {"a"}
        assert chat.asked() == [2, 3]


async def test_a_stream_of_unknown_length_is_returned_with_its_head(scene: Make, client: Make) -> None:
    async with (
        scene(Manner.BEGINS_A_STREAM) as chat,
        client(chat.registry) as session,
        session.stream("GET", URL) as response,
    ):
        assert response.headers["Content-Type"] == "text/event-stream"


async def test_a_body_of_many_parts_is_whole(scene: Make, client: Make) -> None:
    async with scene(Manner.ANSWERS_AT_LENGTH) as chat, client(chat.registry) as session:
        async with session.stream("GET", URL) as response:
            assert b"".join([part async for part in response.aiter_raw()]) == b"0123456789" * 100_000
        assert (await session.get(URL)).text == "0123456789" * 100_000
        assert (await session.head(URL)).headers["Content-Length"] == "1000000"


async def test_an_unsafe_one_only_where_it_was_not_sent(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(None, Manner.ANSWERS) as chat, client(chat.registry) as session:
        for content in (b"body", parts()):
            assert (await session.post(URL, content=content)).status_code == 200
            assert (await session.post(URL, content=content if content == b"body" else parts())).status_code == 200
        assert {asked.body for asked in chat.peers[1].asked} == {b"body", b"onetwo"}


async def test_an_unsafe_one_that_may_have_been_done_is_not(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.HANGS_UP, Manner.HANGS_UP) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            with pytest.raises(http.TransportError):
                await session.post(URL, content=b"body")
        assert sum(chat.asked()) == 1
        assert len(balancer.set_aside) == 1


async def test_idempotent_ones_where_asked(scene: Make, client: Make, http: ModuleType) -> None:
    options = {"repeat": IDEMPOTENT, "ejection": None}
    async with scene(Manner.HANGS_UP, Manner.HANGS_UP) as chat, client(chat.registry, **options) as session:
        for method, times in (("PUT", 2), ("DELETE", 2), ("POST", 1)):
            before = sum(chat.asked())
            with pytest.raises(http.TransportError):
                await session.request(method, URL)
            assert sum(chat.asked()) - before == times, method


async def test_a_body_that_was_begun_is_not_repeated(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.HANGS_UP, Manner.HANGS_UP) as chat, client(chat.registry, repeat=IDEMPOTENT) as session:
        with pytest.raises(http.TransportError):
            await session.put(URL, content=parts())
        assert sum(chat.asked()) == 1


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_attempts_are_bounded(scene: Make, client: Make, http: ModuleType, attempts: int) -> None:
    async with scene(*[Manner.HANGS_UP] * 4) as chat, client(chat.registry, attempts=attempts) as session:
        with pytest.raises(http.TransportError):
            await session.get(URL)
        assert sorted(chat.asked()) == [0] * (4 - attempts) + [1] * attempts


async def test_each_instance_is_tried_once(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.HANGS_UP, Manner.HANGS_UP) as chat:
        async with client(chat.registry, attempts=5, ejection=None) as session:
            with pytest.raises(http.TransportError):
                await session.get(URL)
        assert chat.asked() == [1, 1]


async def test_a_key_goes_to_its_next(scene: Make, client: Make, http: ModuleType) -> None:
    """Which is the same for all its requests, whether the one it belongs to is set aside or not."""
    async with scene(*[Manner.HANGS_UP] * 2, *[Manner.ANSWERS] * 6) as chat:
        ring = chat.view.balancer(Ring())
        keys = [key for key in map(str, range(400)) if ring.pick(key).id in {"a", "b"}][:4]
        async with client(services={"chat": ring}) as session:
            for key in keys:
                answers = [await session.get(URL, extensions={KEY: key}) for _ in range(3)]
                [id] = {answer.extensions[INSTANCE].id for answer in answers}
                assert id == ring.pick(key, exclude={"a", "b"}).id


async def test_no_time_is_no_repetition(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.HANGS, Manner.HANGS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}, timeout=http.Timeout(20, read=0.1)) as session:
            with pytest.raises(http.ReadTimeout):
                await session.get(URL)
        assert sum(chat.asked()) == 1
        assert len(balancer.set_aside) == 1


async def test_statuses_count_as_failures_where_asked(scene: Make, client: Make) -> None:
    async with scene(Manner.OVERLOADED, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}, statuses={503}) as session:
            for _ in range(3):
                assert (await session.get(URL)).status_code == 200
        assert chat.asked() == [1, 3]
        assert set(balancer.set_aside) == {"a"}


@pytest.mark.parametrize(("method", "asked"), [("GET", [1, 1]), ("POST", [0, 1])])
async def test_a_status_that_is_everybodys_is_the_answer(
    scene: Make, client: Make, method: str, asked: list[int]
) -> None:
    async with scene(Manner.OVERLOADED, Manner.OVERLOADED) as chat:
        async with client(chat.registry, statuses={503}) as session:
            answer = await session.request(method, URL)
        assert (answer.status_code, answer.text) == (503, "busy")
        assert sorted(chat.asked()) == asked


async def test_an_ordinary_status_is_no_failure(scene: Make, client: Make) -> None:
    async with scene(Manner.OVERLOADED) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            assert (await session.get(URL)).status_code == 503
        assert balancer.set_aside == {}


async def test_an_answer_that_breaks_off_is_a_failure(scene: Make, client: Make, http: ModuleType) -> None:
    async with scene(Manner.CUTS_ITS_ANSWER, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}) as session:
            for _ in range(2):
                try:
                    await session.get(URL)
                except http.RemoteProtocolError:
                    break
        assert set(balancer.set_aside) == {"a"}
        assert chat.asked()[0] == 1


async def test_a_client_that_is_closed_leaves_no_call_outstanding(scene: Make, client: Make) -> None:
    async with scene(Manner.BEGINS_ITS_ANSWER, Manner.BEGINS_ITS_ANSWER) as chat:
        balancer = chat.balancer("least-outstanding")
        async with client(services={"chat": balancer}) as session:
            left = await session.send(session.build_request("GET", URL), stream=True)
            assert {balancer.pick().id for _ in range(50)} == {"a", "b"} - {left.extensions[INSTANCE].id}
        assert {balancer.pick().id for _ in range(50)} == {"a", "b"}
        assert balancer.set_aside == {}


async def test_a_call_is_outstanding_until_its_answer_was_read(scene: Make, client: Make) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat:
        balancer = chat.balancer("least-outstanding")
        async with client(services={"chat": balancer}) as session, session.stream("GET", URL) as first:
            other = ({"a", "b"} - {first.extensions[INSTANCE].id}).pop()
            for _ in range(10):
                async with session.stream("GET", URL) as second:
                    assert second.extensions[INSTANCE].id == other
        assert balancer.set_aside == {}


@pytest.mark.parametrize("manner", [Manner.HANGS, Manner.BEGINS_ITS_ANSWER])
async def test_a_call_that_is_cancelled_says_nothing(scene: Make, client: Make, manner: Manner) -> None:
    async with scene(manner) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}, timeout=None) as session:
            request = asyncio.create_task(session.get(URL))
            await until(lambda: chat.asked() == [1])
            for _ in range(20):  # what came is read
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.wait([request])
        assert request.cancelled()
        assert balancer.set_aside == {}


async def test_what_is_nobodys_fault_says_nothing(scene: Make, http: ModuleType) -> None:
    errors = [http.PoolTimeout("all in use"), ValueError("ours")]

    class Fails(http.AsyncBaseTransport):  # type: ignore[name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            raise errors.pop()

    async with scene(Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        transport = PACKAGES[http](services={"chat": balancer}, transport=Fails())
        async with http.AsyncClient(transport=transport) as session:
            for kind in (ValueError, http.PoolTimeout):
                with pytest.raises(kind):
                    await session.get(URL)
        assert balancer.set_aside == {}


@pytest.mark.parametrize("limits", [{}, {"per_try_timeout": 0.1}], ids=str)
@pytest.mark.parametrize("before", ["a proxy that refuses", "a proxy that swallows packets", "a socket that is gone"])
async def test_what_stands_before_all_instances_says_nothing_about_one(
    scene: Make, http: ModuleType, tmp_path: Path, before: str, limits: dict[str, float]
) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat, Peer(None) as nobody:
        balancer = chat.balancer()
        with black_hole() as hole:
            options = {
                "a proxy that refuses": {"proxy": f"http://127.0.0.1:{nobody.port}"},
                "a proxy that swallows packets": {"proxy": f"http://127.0.0.1:{hole}"},
                "a socket that is gone": {"uds": str(tmp_path / "gone")},
            }[before]
            sends = http.AsyncHTTPTransport(trust_env=False, **options)
            transport = PACKAGES[http](services={"chat": balancer}, transport=sends, **limits)
            async with http.AsyncClient(transport=transport, timeout=0.3) as session:
                with pytest.raises((http.ConnectError, http.ConnectTimeout)):
                    await session.get(URL)
        assert balancer.set_aside == {}


def refuses(http: ModuleType, connects: list[tuple[str, int]], port: int, proxy: str | None = None) -> Any:
    """The package's own transport, whose connections to the instance, or to *proxy*, fail without a network."""

    class Refuses(http.AsyncHTTPTransport):  # type: ignore[name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            connects.append((proxy or request.url.raw_host.decode(), port))
            told = dict(zip(("host", "port"), connects[-1], strict=True))
            await request.extensions["trace"]("connection.connect_tcp.started", told)
            raise http.ConnectError("refused")

    return Refuses(trust_env=False)


async def test_a_request_that_reached_no_proxy_is_repeated_whatever_its_method(scene: Make, http: ModuleType) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat:
        balancer = chat.balancer()
        connects: list[tuple[str, int]] = []
        sends = refuses(http, connects, 3128, proxy="proxy.example")
        transport = PACKAGES[http](services={"chat": balancer}, transport=sends)
        async with http.AsyncClient(transport=transport, timeout=20) as session:
            with pytest.raises(http.ConnectError):
                await session.post(URL, content=b"once")
        assert connects == [("proxy.example", 3128)] * 2  # as many as there are instances
        assert balancer.set_aside == {}


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://[::1]", "http://localhost", "https://127.0.0.1"])
async def test_an_instance_at_any_address_is_told_from_a_proxy(scene: Make, http: ModuleType, url: str) -> None:
    """httpcore tells the address that it connects to; a URL leaves out the port that its scheme has anyway."""
    scheme, _, address = url.partition("://")
    port = 443 if scheme == "https" else 80
    ports: dict[str, Any] = {"ssl_port" if scheme == "https" else "port": port}
    async with scene() as chat:
        instance = ServiceInstance("chat", id="a", address=address.strip("[]"), **ports)
        async with chat.registry.register(instance):
            await chat.view.wait_for(lambda snapshot: len(snapshot) == 1, 20)
            balancer = chat.balancer()
            connects: list[tuple[str, int]] = []
            transport = PACKAGES[http](services={"chat": balancer}, transport=refuses(http, connects, port))
            async with http.AsyncClient(transport=transport, timeout=20) as session:
                with pytest.raises(http.ConnectError):
                    await session.get(f"{scheme}://chat.registry/")
            assert connects == [(address.strip("[]"), port)]
            assert set(balancer.set_aside) == {"a"}


# ---------------------------------------------------------------- time


class Clock:
    """In the place of the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


def failing(http: ModuleType, clock: Clock, fail: Callable[[Any], Any], given: list[dict[str, float]]) -> Any:
    """A transport that takes 6 seconds for what *fail* does."""

    class Failing(http.AsyncBaseTransport):  # type: ignore[name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            given.append(request.extensions["timeout"])
            clock.now += 6
            return fail(request)

    return Failing()


async def test_attempts_share_the_time_to_connect(scene: Make, http: ModuleType, clock: Clock) -> None:
    def fail(_: Any) -> Any:
        raise http.ConnectTimeout("nobody there")

    given: list[dict[str, float]] = []
    async with scene(*[Manner.ANSWERS] * 3) as chat:
        transport = PACKAGES[http](services={"chat": chat.view.balancer()}, transport=failing(http, clock, fail, given))
        session = http.AsyncClient(transport=transport, timeout=18)
        with pytest.raises(http.ConnectTimeout, match="nobody there"):
            await session.get(URL)
        assert [timeout["connect"] for timeout in given] == [6, 6, 6]
        given.clear()
        session = http.AsyncClient(transport=transport, timeout=6)
        with pytest.raises(http.ConnectTimeout, match="nobody there"):
            await session.get(URL)
        assert [timeout["connect"] for timeout in given] == [2]  # and then there is no time
        await transport.aclose()


@pytest.mark.parametrize("overloaded", [False, True], ids=["breaks", "answers 503"])
async def test_attempts_share_the_time_to_answer(scene: Make, http: ModuleType, clock: Clock, overloaded: bool) -> None:
    def fail(_: Any) -> Any:
        if overloaded:
            return http.Response(503)
        raise http.ReadError("gone")

    given: list[dict[str, float]] = []
    async with scene(*[Manner.ANSWERS] * 3) as chat:
        balancer = chat.view.balancer()
        sends = failing(http, clock, fail, given)
        transport = type("Mine", (PACKAGES[http],), {})(services={"chat": balancer}, transport=sends, statuses={503})
        for read, shares in ((20, [20, 14, 8]), (10, [10, 4]), (6, [6])):
            given.clear()
            session = http.AsyncClient(transport=transport, timeout=http.Timeout(30, read=read))
            with contextlib.suppress(http.ReadError):
                assert (await session.get(URL)).status_code == 503
            assert [timeout["read"] for timeout in given] == shares
            assert [timeout["connect"] for timeout in given] == [10, 15, 30][: len(shares)]
        await transport.aclose()


@pytest.mark.parametrize("manner", [Manner.HANGS, None], ids=["silent", "swallows packets"])
async def test_an_attempt_of_its_own_length_leaves_time_for_another(
    scene: Make, client: Make, manner: Manner | None
) -> None:
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat, contextlib.AsyncExitStack() as stack:
        if manner is None:
            port = stack.enter_context(black_hole())
        else:
            port = (await stack.enter_async_context(Peer(manner))).port
        slow = ServiceInstance("chat", id="0", address="127.0.0.1", port=port)
        await stack.enter_async_context(chat.registry.register(slow))
        await chat.view.wait_for(lambda snapshot: len(snapshot) == 3, 20)
        balancer = chat.balancer()
        async with client(services={"chat": balancer}, timeout=None, per_try_timeout=1) as session:
            assert [(await session.get(URL)).status_code for _ in range(6)] == [200] * 6
        assert "0" in balancer.set_aside


async def test_an_attempt_that_was_late_is_repeated_as_one_that_broke(
    scene: Make, client: Make, http: ModuleType
) -> None:
    async with scene(Manner.HANGS) as chat:
        balancer = chat.balancer()
        async with client(services={"chat": balancer}, per_try_timeout=0.2) as session:
            with pytest.raises(http.ReadTimeout):
                await session.post(URL, content=b"body")
        assert chat.asked() == [1]
        assert set(balancer.set_aside) == {"a"}


async def test_an_attempt_does_not_begin_before_the_clients_own_pool_has_room(scene: Make, http: ModuleType) -> None:
    async with scene(Manner.BEGINS_ITS_ANSWER) as chat:
        balancer = chat.balancer()
        sends = http.AsyncHTTPTransport(limits=http.Limits(max_connections=1), trust_env=False)
        transport = PACKAGES[http](services={"chat": balancer}, transport=sends, per_try_timeout=1)
        async with http.AsyncClient(transport=transport, timeout=20) as session:
            async with session.stream("GET", URL):
                second = asyncio.create_task(session.send(session.build_request("GET", URL), stream=True))
                await asyncio.sleep(1.2)
                assert not second.done()
            await (await second).aclose()
        assert balancer.set_aside == {}


async def test_a_transport_that_tells_nothing_is_bounded_from_the_beginning(scene: Make, http: ModuleType) -> None:
    class Silent(http.AsyncBaseTransport):  # type: ignore[name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            asked.append(request.url.port)
            await asyncio.Event().wait()

    asked: list[int] = []
    async with scene(Manner.ANSWERS, Manner.ANSWERS) as chat:
        transport = PACKAGES[http](services={"chat": chat.view.balancer()}, transport=Silent(), per_try_timeout=0.05)
        async with http.AsyncClient(transport=transport, timeout=None) as session:
            with pytest.raises(http.ReadTimeout):
                await session.get(URL)
        assert sorted(asked) == sorted(peer.port for peer in chat.peers)


# ---------------------------------------------------------------- ending, and bad arguments


async def test_its_views_end_with_it(scene: Make, client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(Manner.ANSWERS) as chat:
        made = views_made(monkeypatch)
        async with client(chat.registry) as session:
            await session.get(URL)
            [view] = made
            assert len(view.snapshot) == 1
        assert followed(made) == set()
        assert not is_closed(chat.view)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("transport", {"transport": object()}),
        ("authority", {"authority": "both"}),
        ("pass_others", {"pass_others": 1}),
        ("per_try_timeout", {"per_try_timeout": 0}),
        ("per_try_timeout", {"per_try_timeout": "1"}),
    ],
)
async def test_bad_arguments(scene: Make, http: ModuleType, field: str, options: dict[str, Any]) -> None:
    async with scene() as chat:
        with pytest.raises(InvalidArgument, match=f"^{field}="):
            PACKAGES[http](chat.registry, **options)
