"""The example in docs/examples/chat: two people in one room keep talking while their chat server is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, WebSocketRoute, async_playwright, expect

from tests.cli.command import Command
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 30.0
CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *("--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ROOMS = [f"room-{number}" for number in range(60)]

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=DEADLINE * 1000)


# ---------------------------------------------------------------- what is started


class Chat(Command):
    """`python -m docs.examples.chat`, with every warning an error, in its children too."""

    module = "docs.examples.chat"
    page: str
    where: str
    http: aiohttp.ClientSession

    def __init__(self, *arguments: str) -> None:
        super().__init__("--port", "0", "--where-port", "0", *arguments, PYTHONWARNINGS="error")

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE))
        for _ in range(2):
            line = await self.line()
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert found is not None
            if line.startswith("Open"):
                self.page = found[0]
            else:
                self.where = f"{found[0]}where"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.http.close()
        self.send(signal.SIGTERM)
        code, _, stderr = await self.end()
        if error == (None, None, None):
            assert code == 0
            assert "Traceback" not in stderr, stderr

    async def processes(self) -> dict[str, int]:
        """The chat servers' processes, by name."""
        async with self.http.get(f"{self.page}stage") as answer:
            pids: dict[str, int] = await answer.json()
            return pids

    async def kill(self, server: str) -> None:
        os.kill((await self.processes())[server], signal.SIGKILL)

    async def server_of(self, room: str) -> str:
        """Where the HTTP service says that *room* is."""
        async with self.http.get(self.where, params={"room": room}) as answer:
            return str((await answer.json())["server"])

    async def servers_of(self, rooms: Sequence[str]) -> dict[str, str]:
        return {room: await self.server_of(room) for room in rooms}


class Gateway(Command):
    """Another gateway."""

    module = "docs.examples.chat.gateway"


class Person:
    """Somebody in a room, at a gateway or right at a chat server, as an app would be."""

    def __init__(self, name: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.name = name
        self.server: str | None = None
        self.happened: list[str] = []
        self.people: list[str] = []
        self._messages: dict[str, tuple[int, str, str]] = {}
        self._said = itertools.count(1)
        self._socket = socket
        self._news = asyncio.Condition()

    async def say(self, text: str) -> None:
        await self._socket.send_json(
            {"kind": "say", "id": f"{self.name}-{next(self._said)}", "name": self.name, "text": text}
        )

    async def until(self, holds: Callable[[Self], bool]) -> None:
        async with asyncio.timeout(DEADLINE), self._news:
            await self._news.wait_for(lambda: holds(self))

    def texts(self) -> list[str]:
        """What was said, in the order of the room."""
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
            case {"kind": "servers", "room": server}:
                self.server = server
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
    async with Chat("--session-timeout", "15") as chat:
        yield chat


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


async def test_somebody_enters_by_the_door(chat: Chat, browser: Browser) -> None:
    page = await browser.new_page()
    await page.goto(chat.page)
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
        for id, at in {"c": 3, "a": 1, "b": 3, "d": 5}.items():
            socket.send(json.dumps({"kind": "message", "id": id, "at": at, "by": "chat-1", "name": "Ada", "text": id}))
        socket.send(json.dumps({"kind": "message", "id": "d", "at": 2, "by": "chat-2", "name": "Ada", "text": "d"}))

    page = await browser.new_page()
    await page.route_web_socket(re.compile("/rooms/lobby"), gateway)
    await page.goto(f"{chat.page}?name=Grace&room=lobby")
    await expect(page.locator("#messages span")).to_have_text(["a", "d", "b", "c"])
    await say(page, "waits")
    await expect(page.locator("#messages li").last).to_contain_text("waiting…")
    await page.close()


async def test_a_new_server_takes_its_share_of_the_rooms_and_no_more(chat: Chat, browser: Browser) -> None:
    async with pages(browser, chat, "lobby", "Ada") as (ada,), bystanders(chat) as others:
        before = await chat.servers_of(ROOMS)
        assert {room: other.server for room, other in others.items()} == {room: before[room] for room in others}
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


async def test_a_server_that_is_told_to_stop_gives_its_rooms_away_first(chat: Chat, browser: Browser) -> None:
    async with pages(browser, chat, "cellar", "Ada") as (ada,):
        server = await server_shown(ada)
        await say(ada, "before")
        await ada.get_by_role("button", name=f"stop {server}").click()
        await expect(ada.locator("[data-what=moved]")).to_be_visible()
        await say(ada, "after")
        await expect(ada.locator("#messages small")).to_have_text([f"✓ {server}", f"✓ {await server_shown(ada)}"])
        await expect(ada.locator("[data-what=unlisted]")).to_be_visible()
        told = await events(ada)
        assert (told[:3], sorted(told[3:])) == (["gateway", "linked", "leaving"], ["moved", "unlisted"])


async def test_two_people_keep_talking_while_their_server_is_killed(chat: Chat, browser: Browser) -> None:
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
            told = [what for what, _ in itertools.groupby(await events(page))]  # refused once or twice
            assert told == ["gateway", "linked", "lost", "refused", "moved"]
        assert shown[0] == shown[1]
        for room, other in others.items():
            if before[room] == killed:
                await other.until(lambda other: other.server not in (None, killed))
            else:
                assert other.happened == ["linked"]


# ---------------------------------------------------------------- on a real ZooKeeper, and without a browser


async def test_people_at_two_gateways_and_no_server_left(zookeeper: ZooKeeperServer, chroot: str) -> None:
    hosts = ("--zookeeper", f"{zookeeper.address}{chroot}")
    async with (
        Chat(*hosts, "--servers", "2", "--session-timeout", "4") as chat,
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

            await exchange()
            for person in both:
                await person.until(lambda person: person.people == ["Ada", "Grace"] and len(person.texts()) == 4)
            first = ada.server
            assert first is not None
            assert first == grace.server == await chat.server_of("lobby")
            await exchange()
            await chat.kill(first)
            await exchange()
            for person in both:
                await person.until(lambda person: "moved" in person.happened and len(person.texts()) == 12)
            (last,) = {"chat-1", "chat-2"} - {first}
            assert last == ada.server == grace.server

            await chat.kill(last)
            for person in both:  # the sessions of both are over: nobody is listed
                await person.until(lambda person: "waiting" in person.happened)
            await exchange()
            async with chat.http.get(chat.where, params={"room": "lobby"}) as answer:
                assert answer.status == 503
            async with chat.http.post(f"{chat.page}stage/servers"):
                pass
            for person in both:
                await person.until(lambda person: person.server == "chat-3" and len(person.texts()) == 16)
            assert ada.texts() == grace.texts()
            assert sorted(ada.texts()) == sorted(said)
        gateway.send(signal.SIGTERM)
        code, _, stderr = await gateway.end()
        assert code == 0
        assert "Traceback" not in stderr, stderr
