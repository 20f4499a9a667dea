"""The example in docs/examples/chat: two people in one room keep talking while their chat server is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, WebSocketRoute, expect

import aioregistry
from aioregistry import Ring, ServiceInstance
from aioregistry.integrations.aiohttp import RegistryMiddleware
from aioregistry.server import ZooKeeperServer
from docs.examples.chat.gateway import gateway_app
from docs.examples.chat.line import QUEUED
from docs.examples.chat.route import WAITING
from docs.examples.chat.server import ChatServer
from docs.examples.chat.wire import ROOM
from tests.cli.command import Command
from tests.support.browsers import chromium
from tests.support.processes import is_running
from tests.support.zookeeper import ZooKeeperServer as RealZooKeeperServer

DEADLINE = 100.0
ROOMS = [f"room-{number}" for number in range(60)]

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=DEADLINE * 1000)


# ---------------------------------------------------------------- what is started


class Launcher(Command):
    """The one command that starts it all."""

    module = "docs.examples.chat"


class Gateway(Command):
    """Another gateway."""

    module = "docs.examples.chat.gateway"


@dataclass
class Chat:
    """The processes that the launcher started."""

    process: Launcher
    page: str
    where: str
    http: aiohttp.ClientSession

    async def processes(self) -> dict[str, int]:
        """The chat servers' processes, by name."""
        async with self.http.get(f"{self.page}stage") as answer:
            pids: dict[str, int] = await answer.json()
            return pids

    async def kill(self, server: str) -> None:
        os.kill((await self.processes())[server], signal.SIGKILL)

    async def start_server(self) -> None:
        async with self.http.post(f"{self.page}stage/servers") as answer:
            assert answer.status == 200

    async def server_of(self, room: str) -> str | None:
        """Where the HTTP service says that *room* is."""
        async with self.http.get(self.where, params={"room": room}) as answer:
            assert answer.status in (200, 503)
            server: str | None = (await answer.json()).get("server")
            return server

    async def servers_of(self, rooms: Iterable[str]) -> dict[str, str | None]:
        return {room: await self.server_of(room) for room in rooms}

    async def until(self, servers: Mapping[str, str | None]) -> None:
        """Wait until the HTTP service, which has a view of its own, says so too."""
        async with asyncio.timeout(DEADLINE):
            while await self.servers_of(servers) != servers:
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def launched(*arguments: str) -> AsyncIterator[Chat]:
    """`python -m docs.examples.chat`, with every warning an error, in its children too."""
    timeout = aiohttp.ClientTimeout(DEADLINE)
    async with (
        Launcher(*arguments, PYTHONWARNINGS="error") as process,
        aiohttp.ClientSession(timeout=timeout) as http,
    ):
        addresses: dict[str, str] = {}
        while len(addresses) < 2:
            said, address = (await process.line()).split(":  ")
            addresses[said] = address.split()[0]
        where, _, _ = addresses["Ask where a room is"].partition("?")
        try:
            yield Chat(process, addresses["Open this twice"], where, http)
        finally:
            with contextlib.suppress(ProcessLookupError):  # killed by the test
                process.send(signal.SIGTERM)
            code, _, stderr = await process.end()
    assert code in (0, -signal.SIGKILL)
    assert "Traceback" not in stderr, stderr


class Person:
    """Somebody in a room, at a gateway or right at a chat server, as an app would be."""

    def __init__(self, name: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.name = name
        self.server: str | None = None
        self.servers: list[str] = []
        self.happened: list[str] = []
        self.people: list[str] = []
        self._messages: dict[str, tuple[int, str, str]] = {}
        self._said = itertools.count(1)
        self._socket = socket
        self._news = asyncio.Condition()

    @property
    def waits(self) -> bool:
        """Whether there is no server for the room."""
        return [what for what in self.happened if what in ("linked", "moved", "waiting")][-1:] == ["waiting"]

    async def say(self, text: str) -> None:
        await self._socket.send_json(
            {"kind": "say", "id": f"{self.name}-{next(self._said)}", "name": self.name, "text": text}
        )

    async def until(self, holds: Callable[[Self], bool]) -> None:
        async with asyncio.timeout(DEADLINE), self._news:
            await self._news.wait_for(lambda: holds(self))

    def texts(self) -> list[str]:
        """The messages, in the order of the room."""
        return [text for *_, text in sorted(self._messages.values())]

    async def listen(self) -> None:
        await self._socket.send_json({"kind": "hello", "people": [self.name]})
        async for frame in self._socket:
            async with self._news:
                self._take(json.loads(frame.data))
                self._news.notify_all()

    def _take(self, told: dict[str, Any]) -> None:
        match told:
            case {"kind": "message", "at": at, "id": id, "text": text}:
                self._messages[id] = min((at, id, text), self._messages.get(id, (at, id, text)))
            case {"kind": "servers", "room": server, "all": servers}:
                self.server = server
                self.servers = [each["id"] for each in servers]
            case {"kind": "people", "names": names}:
                self.people = names
            case {"kind": "happened", "what": what}:
                self.happened.append(what)


@contextlib.asynccontextmanager
async def people(http: aiohttp.ClientSession, **urls: str) -> AsyncIterator[list[Person]]:
    """Somebody of each name at each URL."""
    async with contextlib.AsyncExitStack() as stack:
        entered = []
        for name, url in urls.items():
            entered.append(Person(name, await stack.enter_async_context(http.ws_connect(url))))
        listeners = [asyncio.create_task(person.listen()) for person in entered]
        yield entered
        for listener in listeners:
            listener.cancel()
        await asyncio.wait(listeners)


@contextlib.asynccontextmanager
async def bystanders(chat: Chat) -> AsyncIterator[dict[str, Person]]:
    """People in other rooms, by room, who have arrived."""
    rooms = ROOMS[:12]
    async with people(chat.http, **{room: f"{chat.page}rooms/{room}" for room in rooms}) as persons:
        for person in persons:
            await person.until(lambda person: person.server is not None)
        yield {person.name: person for person in persons}


@contextlib.asynccontextmanager
async def pages(browser: Browser, chat: Chat, room: str, *names: str) -> AsyncIterator[list[Page]]:
    """Somebody of each name with the page open at *room*, who has arrived. Nothing may be wrong in any page."""
    wrong: list[str] = []

    async def opened(stack: contextlib.AsyncExitStack, name: str) -> Page:
        page = await (await stack.enter_async_context(await browser.new_context())).new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(home) else None)
        await page.goto(f"{chat.page}?name={name}&room={room}")
        await expect(page.locator("#status")).to_have_attribute("data-state", "connected")
        return page

    home = (chat.page, "data:,")
    async with contextlib.AsyncExitStack() as stack:
        yield [await opened(stack, name) for name in names]
        assert wrong == []


async def server_shown(page: Page) -> str:
    return str(await page.locator("#servers [aria-current]").get_attribute("data-server"))


async def say(page: Page, text: str) -> None:
    await page.fill("#text", text)
    await page.press("#text", "Enter")


async def talk(page: Page, name: str, enough: asyncio.Event) -> list[str]:
    """Say one number after the other until it is enough; return what was said."""
    said: list[str] = []
    while not enough.is_set():
        said.append(f"{name} {len(said)}")
        await say(page, said[-1])
    return said


async def events(page: Page) -> list[str]:
    shown = await page.locator("#happened li").evaluate_all("items => items.map(item => item.dataset.what)")
    return [str(what) for what in shown]


# ---------------------------------------------------------------- in a browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat() -> AsyncIterator[Chat]:
    async with launched("--session-timeout", "15") as chat:
        yield chat


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def test_somebody_enters_by_the_door(chat: Chat, browser: Browser) -> None:
    page = await browser.new_page()
    await page.goto(f"{chat.page}?name={'Ada' * 20}&room=a+b")
    await page.get_by_label("Your name").fill("Ada")
    await page.get_by_label("Room").fill("Zürich-1")
    await page.get_by_role("button", name="Enter").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("#Zürich-1")
    await expect(page.get_by_role("status")).to_have_text(re.compile(r"connected to chat-\d"))
    await say(page, "<b>Hello</b>")
    await expect(page.get_by_role("log", name="Messages").get_by_role("listitem")).to_contain_text(["<b>Hello</b>✓"])
    await expect(page.locator("#people")).to_have_text("Ada")
    await page.close()


async def test_the_page_puts_messages_in_their_place(browser: Browser, chat: Chat) -> None:
    def gateway(socket: WebSocketRoute) -> None:
        for id, at in (("c", 3), ("a", 1), ("b", 3), ("d", 5), ("d", 2)):
            socket.send(json.dumps({"kind": "message", "id": id, "at": at, "by": "chat-1", "name": "Ada", "text": id}))

    page = await browser.new_page()
    await page.route_web_socket(re.compile("/rooms/lobby"), gateway)
    await page.goto(f"{chat.page}?name=Grace&room=lobby")
    await expect(page.locator("#messages span")).to_have_text(["a", "d", "b", "c"])
    await say(page, "one")
    await say(page, "two")
    await expect(page.locator("#messages span")).to_have_text(["a", "d", "b", "c", "one", "two"])
    await expect(page.locator("#messages .unsaid")).to_have_count(2)
    await page.close()


async def test_the_page_repeats_what_was_not_acknowledged(browser: Browser, chat: Chat) -> None:
    heard: list[list[dict[str, Any]]] = []
    closing: list[asyncio.Future[None]] = []

    def gateway(socket: WebSocketRoute) -> None:
        here: list[dict[str, Any]] = []
        heard.append(here)

        def hear(frame: str | bytes) -> None:
            here.append(json.loads(frame))
            if len(heard) == 1 and len(here) == 3:  # a hello and two messages
                closing.append(asyncio.ensure_future(socket.close()))
            elif len(heard) == 2 and here[-1]["kind"] == "say":
                socket.send(json.dumps({**here[-1], "kind": "message", "at": len(here), "by": "chat-1"}))

        socket.on_message(hear)

    page = await browser.new_page()
    await page.route_web_socket(re.compile("/rooms/lobby"), gateway)
    await page.goto(f"{chat.page}?name=Grace&room=lobby")
    await expect(page.locator("[data-what=gateway]")).to_be_visible()
    await say(page, "one")
    await say(page, "two")
    await expect(page.locator("#messages small")).to_have_text(["✓ chat-1"] * 2)
    assert heard[0] == heard[1]
    assert await events(page) == ["gateway", "lost", "gateway"]
    await page.close()


async def test_a_new_server_takes_its_share_of_the_rooms_and_no_more(chat: Chat, browser: Browser) -> None:
    async with pages(browser, chat, "lobby", "Ada") as (ada,), bystanders(chat) as others:
        await chat.until({room: other.server for room, other in others.items()})
        before = await chat.servers_of(ROOMS)
        await ada.get_by_role("button", name="Start another").click()
        await expect(ada.locator("#servers [data-server=chat-4]")).to_be_visible()
        async with asyncio.timeout(DEADLINE):
            while "chat-4" not in (await chat.servers_of(ROOMS)).values():
                await asyncio.sleep(0.05)
        after = await chat.servers_of(ROOMS)
        moved = {room for room in ROOMS if before[room] != after[room]}
        assert {after[room] for room in moved} == {"chat-4"}
        assert 0.1 < len(moved) / len(ROOMS) < 0.4  # a quarter; which ones is a matter of their names and the servers'
        for room, other in others.items():
            await other.until(lambda other, room=room: other.server == after[room])  # type: ignore[misc]
            assert ("moved" in other.happened) == (room in moved)


async def test_an_app_meets_those_at_the_gateway(chat: Chat, browser: Browser) -> None:
    async with pages(browser, chat, "salon", "Ada") as (ada,):
        async with chat.http.get(chat.where, params={"room": "salon"}) as answer:
            where = await answer.json()
        assert where["server"] == await server_shown(ada)
        async with people(chat.http, app=where["url"]) as (app,):
            await app.until(lambda app: app.people == ["Ada", "app"])
            await expect(ada.locator("#people li")).to_have_text(["Ada", "app"])
            await say(ada, "Who are you?")
            await app.until(lambda app: app.texts() == ["Who are you?"])
            await app.say("An app.")
            await expect(ada.locator("#messages span")).to_have_text(["Who are you?", "An app."])


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("hello", ""),
        ('{"kind": "shout"}', "shout"),
        ('{"kind": "say", "id": "1", "name": "Ada"}', "text"),
        ('{"kind": "say", "id": "1", "name": "", "text": "x"}', "name"),
        ('{"kind": "say", "id": "a b", "name": "Ada", "text": "x"}', "id"),
        ('{"kind": "say", "id": "1", "name": "Ada", "text": 1}', "text"),
    ],
)
async def test_who_speaks_otherwise_is_told_and_cut_off(chat: Chat, said: str, reason: str) -> None:
    async with chat.http.get(chat.where, params={"room": "lobby"}) as answer:
        server = (await answer.json())["url"]
    for url in (f"{chat.page}rooms/lobby", server):
        async with chat.http.ws_connect(url, autoclose=False) as socket:
            await socket.send_str(said)
            while (frame := await socket.receive(DEADLINE)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert frame.data == aiohttp.WSCloseCode.INVALID_TEXT
            assert reason in str(frame.extra)


async def test_what_is_not_there_and_who_may_not(chat: Chat) -> None:
    async def status(method: str, url: str, **headers: str) -> int:
        async with chat.http.request(method, url, headers=headers) as answer:
            return answer.status

    assert await status("GET", f"{chat.page}rooms/a+b") == 404
    assert await status("GET", f"{chat.page}gateway.py") == 404
    assert await status("POST", f"{chat.page}stage/servers/chat-99/kill") == 404
    assert await status("POST", f"{chat.page}stage/servers", Origin="http://elsewhere.example") == 403
    assert await status("GET", f"{chat.page}rooms/lobby", Origin="http://elsewhere.example") == 403
    assert await status("GET", f"{chat.where}?room=") == 422
    assert await status("GET", chat.where.replace("/where", "/ready")) == 200


@pytest.mark.parametrize("host", ["rebound.example:8080", "rebound.example", "127.0.0.1.rebound.example", "[::1", ""])
async def test_a_name_that_leads_here_opens_nothing(chat: Chat, host: str) -> None:
    """DNS rebinding: a page of another site asks for its own name, which is this machine's address now."""
    async with chat.http.get(chat.where, params={"room": "lobby"}) as answer:
        server = (await answer.json())["url"].replace("ws:", "http:", 1)
    headers = {"Host": host, "Origin": f"http://{host}"}
    for method, url in (
        ("GET", f"{chat.page}rooms/lobby"),
        ("GET", chat.page),
        ("POST", f"{chat.page}stage/servers"),
        ("POST", f"{chat.page}stage/servers/chat-1/kill"),
        ("GET", server),
        ("GET", f"{chat.where}?room=lobby"),
    ):
        async with chat.http.request(method, url, headers=headers) as answer:
            assert answer.status in (400, 403), url


async def test_no_page_speaks_to_a_chat_server(chat: Chat) -> None:
    async with chat.http.get(chat.where, params={"room": "lobby"}) as answer:
        server = (await answer.json())["url"]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await chat.http.ws_connect(server, origin=chat.page.rstrip("/"))
    assert refused.value.status == 403
    async with chat.http.ws_connect(f"{chat.page}rooms/lobby", origin=chat.page.rstrip("/")):
        pass  # through the gateway, it does


async def test_a_page_is_one_person(chat: Chat) -> None:
    url = f"{chat.page}rooms/attic"
    async with people(chat.http, Ada=url) as (ada,), chat.http.ws_connect(url) as crowd:
        await crowd.send_json({"kind": "hello", "people": ["Bob", *map(str, range(1000))]})
        await ada.until(lambda ada: len(ada.people) > 1)
        assert ada.people == ["Ada", "Bob"]


async def test_who_says_much_at_once_cuts_nobody_off(chat: Chat) -> None:
    async with chat.http.get(chat.where, params={"room": "hall"}) as answer:
        server = (await answer.json())["url"]
    async with people(chat.http, Ada=server, Bob=server) as (ada, bob):
        await bob.until(lambda bob: bob.people == ["Ada", "Bob"])
        for number in range(2 * QUEUED):
            await ada.say(str(number))
        await bob.until(lambda bob: len(bob.texts()) == 2 * QUEUED)
        assert bob.texts() == [str(number) for number in range(2 * QUEUED)]


# ---------------------------------------------------------------- servers end


async def test_a_server_that_is_told_to_stop_gives_its_rooms_away_first(chat: Chat, browser: Browser) -> None:
    async with pages(browser, chat, "cellar", "Ada") as (ada,):
        server = await server_shown(ada)
        await say(ada, "before")
        await ada.get_by_role("button", name=f"stop {server}").click()
        await expect(ada.locator("[data-what=moved]")).to_be_visible()
        await say(ada, "after")
        # The page hears of the move and of the servers one after the other.
        await expect(ada.locator("#servers [aria-current]")).not_to_have_attribute("data-server", server)
        await expect(ada.locator("#messages small")).to_have_text([f"✓ {server}", f"✓ {await server_shown(ada)}"])
        await expect(ada.locator("[data-what=unlisted]")).to_be_visible()
        told = await events(ada)
        assert (told[:3], sorted(told[3:])) == (["gateway", "linked", "leaving"], ["moved", "unlisted"])


@pytest_asyncio.fixture(loop_scope="module")
async def chat_of_its_own() -> AsyncIterator[Chat]:
    """For a test that leaves a dead server behind, which is listed until its session ends."""
    async with launched("--session-timeout", "15") as chat:
        yield chat


async def test_two_people_keep_talking_while_their_server_is_killed(chat_of_its_own: Chat, browser: Browser) -> None:
    chat = chat_of_its_own
    async with pages(browser, chat, "lobby", "Ada", "Grace") as both, bystanders(chat) as others:
        before = {room: other.server for room, other in others.items()}
        await expect(both[0].locator("#people li")).to_have_text(["Ada", "Grace"])
        killed = await server_shown(both[0])
        enough = asyncio.Event()
        talks = [
            asyncio.create_task(talk(page, name, enough)) for page, name in zip(both, ("Ada", "Grace"), strict=True)
        ]
        for page in both:
            await expect(page.locator("#messages small", has_text=killed).nth(20)).to_be_attached()
        await chat.kill(killed)
        for page in both:
            await expect(page.locator("[data-what=moved]")).to_be_visible()
        heir = await server_shown(both[0])
        for page in both:
            await expect(page.locator("#messages small", has_text=heir).nth(20)).to_be_attached()
        enough.set()
        said = await asyncio.gather(*talks)

        shown = []
        for page in both:
            await expect(page.locator("#messages small", has_text="✓")).to_have_count(sum(map(len, said)))
            shown.append(await page.locator("#messages span").all_text_contents())
            assert [text for text in shown[-1] if text.startswith("Ada")] == said[0]
            assert [text for text in shown[-1] if text.startswith("Grace")] == said[1]
            told = await events(page)
            before_it_moved = told[: told.index("moved")]
            assert {"lost", "aside"} <= set(before_it_moved)
            assert "unlisted" not in before_it_moved  # the gateway did not wait for the registry
        assert shown[0] == shown[1]
        for room, other in others.items():
            if before[room] == killed:
                await other.until(lambda other: other.server not in (None, killed))
            else:
                assert not {"lost", "refused", "moved"} & set(other.happened)


# ---------------------------------------------------------------- on a real ZooKeeper, and without a browser


async def test_people_at_two_gateways_and_no_server_left(zookeeper: RealZooKeeperServer, chroot: str) -> None:
    hosts = ("--zookeeper", f"{zookeeper.address}{chroot}")
    async with (
        launched(*hosts, "--servers", "0", "--session-timeout", "4") as chat,
        Gateway(*hosts, "--port", "0", PYTHONWARNINGS="error") as gateway,
    ):
        line = await gateway.line()
        other = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert other is not None
        urls = {"Ada": f"{chat.page}rooms/lobby", "Grace": f"{other[0]}/rooms/lobby"}
        async with people(chat.http, **urls) as (ada, grace):
            both = (ada, grace)
            said: list[str] = []

            async def exchange() -> None:
                for number, person in enumerate((*both, *both), len(said)):
                    said.append(f"{person.name} {number}")
                    await person.say(said[-1])

            assert await chat.server_of("lobby") is None
            for person in both:
                await person.until(lambda person: person.waits)
            await exchange()  # there is no server to hear it
            first, last = "chat-1", "chat-2"
            await chat.start_server()
            for person in both:
                await person.until(lambda person: person.server == first and len(person.texts()) == 4)
            await chat.start_server()  # the ring leaves this room where it is
            for person in both:
                await person.until(lambda person: person.servers == [first, last] and person.server == first)
                await person.until(lambda person: person.people == ["Ada", "Grace"])
            await chat.until({"lobby": first})
            assert await found_by_registry(f"{zookeeper.address}{chroot}", "lobby") == first

            await exchange()
            await chat.kill(first)
            await exchange()
            for person in both:
                await person.until(lambda person: person.server == last and len(person.texts()) == 12)

            await chat.kill(last)
            for person in both:
                await person.until(lambda person: person.waits)
            await exchange()
            await chat.start_server()
            for person in both:
                await person.until(lambda person: person.server == "chat-3" and len(person.texts()) == 16)
            assert ada.texts() == grace.texts()
            assert sorted(ada.texts()) == sorted(said)
        gateway.send(signal.SIGTERM)
        code, _, stderr = await gateway.end()
        assert code == 0
        assert "Traceback" not in stderr, stderr
        left = (await chat.processes()).values()
        chat.process.send(signal.SIGKILL)
        await chat.process.exit_code()
        async with asyncio.timeout(DEADLINE):  # its children do not outlive it
            while any(map(is_running, left)):
                await asyncio.sleep(0.05)


async def test_who_answers_again_gets_its_rooms_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docs.examples.chat.gateway.PAUSE", 0.5)
    async with contextlib.AsyncExitStack() as stack:
        listening = {name: stack.enter_context(socket.socket()) for name in ("deaf", "other")}
        zookeeper = await stack.enter_async_context(ZooKeeperServer())
        registry = await stack.enter_async_context(aioregistry.connect(zookeeper.address))
        for name, sock in listening.items():
            sock.bind(("127.0.0.1", 0))
            me = ServiceInstance("chat", id=name, address="127.0.0.1", port=sock.getsockname()[1])
            _ = await stack.enter_async_context(registry.register(me))
        view = await stack.enter_async_context(registry.discover("chat"))
        room = next(room for room in ROOMS if view.balancer(Ring()).pick(room).id == "deaf")
        await serve(stack, chat_server("other"), listening["other"])
        page = await serve(
            stack, gateway_app(zookeeper.address), stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        )

        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with people(http, Ada=f"{page}/rooms/{room}") as (ada,):
            await ada.until(lambda ada: ada.server == "other")
            assert ada.happened[:3] == ["refused", "aside", "linked"]
            await ada.say("Hello")
            await serve(stack, chat_server("deaf"), listening["deaf"])
            await ada.until(lambda ada: ada.server == "deaf")
            assert ada.happened[-2:] == ["back", "moved"]
            await zookeeper.stop()
            await ada.say("Is somebody there?")
            await ada.until(lambda ada: ada.texts() == ["Hello", "Is somebody there?"])
            await zookeeper.start()


def chat_server(name: str) -> web.Application:
    """A chat server that somebody else has registered."""
    app = web.Application()
    app.router.add_get(ROOM, ChatServer(name).enter)
    return app


async def serve(stack: contextlib.AsyncExitStack, app: web.Application, listening: socket.socket) -> str:
    runner = web.AppRunner(app, shutdown_timeout=1)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_what_waits_is_bounded_and_arrives_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with contextlib.AsyncExitStack() as stack:
        zookeeper = await stack.enter_async_context(ZooKeeperServer())
        page = await serve(stack, gateway_app(zookeeper.address), stack.enter_context(free_port()))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        room = f"{page}/rooms/lobby"
        async with people(http, Ada=room) as (ada,):
            await ada.until(lambda ada: ada.waits)
            async with http.ws_connect(room) as hasty:
                for number in range(WAITING + 1):
                    await hasty.send_json({"kind": "say", "id": f"hasty-{number}", "name": "Hasty", "text": "Hello?"})
                async with asyncio.timeout(DEADLINE):
                    async for _ in hasty:  # it is cut off
                        pass
            listening = stack.enter_context(free_port())
            await serve(stack, chat_server("chat-1"), listening)
            me = ServiceInstance("chat", id="chat-1", address="127.0.0.1", port=listening.getsockname()[1])
            registry = await stack.enter_async_context(aioregistry.connect(zookeeper.address))
            _ = await stack.enter_async_context(registry.register(me))
            await ada.until(lambda ada: len(ada.texts()) == WAITING)
            assert "lost" not in ada.happened


def free_port() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def test_it_ends_while_it_starts() -> None:
    asked = asyncio.Event()
    conversations: list[asyncio.Task[None] | None] = []

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.current_task())
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(says_nothing, "127.0.0.1", 0) as zookeeper:
        hosts = "{}:{}".format(*zookeeper.sockets[0].getsockname())
        async with Launcher("--zookeeper", hosts) as process:
            async with asyncio.timeout(DEADLINE):
                await asked.wait()
            process.send(signal.SIGTERM)
            code, _, stderr = await process.end()
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*filter(None, conversations))
    assert (code, stderr) == (0, "")


async def test_a_zookeeper_that_is_none() -> None:
    async with Launcher("--zookeeper", "localhost:port") as process:
        code, _, stderr = await process.end()
    assert (code, stderr.count("\n"), stderr.partition(":")[0]) == (1, 1, "InvalidArgument")


async def found_by_registry(hosts: str, room: str) -> str:
    """Where *room* is, says the service that is found in the registry."""
    async with (
        aioregistry.connect(hosts) as registry,
        RegistryMiddleware(registry) as by_registry,
        aiohttp.ClientSession(middlewares=[by_registry]) as http,
        http.get("http://where.registry/where", params={"room": room}) as answer,
    ):
        return str((await answer.json())["server"])
