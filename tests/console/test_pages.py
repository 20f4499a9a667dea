"""The console's pages in a real browser, on a real ZooKeeper: live, by keyboard, on a phone, in the dark, harmless."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import APIResponse, Browser, BrowserContext, Page, Route, expect

import aioregistry
from aioregistry import InvalidArgument, Registration, Registry, ServiceInstance
from aioregistry._console.console import Settings
from aioregistry._console.passwords import hashed, read_passwords
from aioregistry._console.serving import Place, serve
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support.browsers import chromium
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 60.0
HOSTILE = "\u202e<img src=x onerror=alert(1)>"

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=DEADLINE * 1000)


@dataclass
class Shown:
    """A console with some services, and who may disturb them."""

    url: str
    registry: Registry
    chat: Registration[Any]
    proxy: ZooKeeperProxy


def instance(service: str, id: str, payload: object = None) -> ServiceInstance[object]:
    return ServiceInstance(service, id=id, address="10.0.0.7", port=7000, payload=payload)


@contextlib.asynccontextmanager
async def serving(servers: str, settings: Settings) -> AsyncIterator[str]:
    """The address of a console."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = {"servers": servers, "base_path": "/console-pages", "session_timeout": 20.0}
        place = Place(sockets=[listening], certificate=None, key=None, history=None, days=1.0, limit=2**26)
        ready = asyncio.Event()
        task = asyncio.create_task(serve(connection, settings, place, ready.set))
        try:
            async with asyncio.timeout(DEADLINE):
                await ready.wait()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            await _ended(task)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(zookeeper: ZooKeeperServer) -> AsyncIterator[Shown]:
    """One console for all: it reaches ZooKeeper through a proxy, and its services do not."""
    async with contextlib.AsyncExitStack() as stack:
        proxy = stack.enter_context(ZooKeeperProxy((zookeeper.host, zookeeper.port)))
        registry = await stack.enter_async_context(aioregistry.connect(zookeeper.address, base_path="/console-pages"))
        chat = registry.register(instance("chat", "a", {"zone": "eu-1"}))
        _ = await stack.enter_async_context(chat)
        for number in range(200):
            _ = await stack.enter_async_context(registry.register(instance("many", f"i{number:03}"), wait=number == 7))
        await registry.overrides.drain("many", "i007", reason="new disk", seconds=3600)
        hostile = registry.register(instance(HOSTILE, HOSTILE, {HOSTILE: "</pre><script>alert(1)</script>"}))
        _ = await stack.enter_async_context(hostile)
        settings = Settings(allow_drain=True, warm_up=3600.0)
        url = await stack.enter_async_context(serving(proxy.address, settings))
        yield Shown(url, registry, chat, proxy)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def undisturbed(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """A test that failed halfway leaves neither an outage nor an instance that is drained to the next."""
    yield
    if "shown" in request.fixturenames:
        shown: Shown = request.getfixturevalue("shown")
        shown.proxy.accept()
        with contextlib.suppress(InvalidArgument):  # there is none
            await shown.registry.overrides.enable("chat", "a")
        if not shown.chat.instance.enabled:
            await shown.chat.update(enabled=True)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@contextlib.asynccontextmanager
async def opened(browser: Browser, **options: Any) -> AsyncIterator[tuple[BrowserContext, Page, list[str]]]:
    """A page, and what its browser complains of: errors of its code, and what the policy has kept out."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.set_default_timeout(DEADLINE * 1000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    try:
        yield context, page, wrong
    finally:
        await context.close()


# A window that does not move: a page that is drawn anew while it is looked at is another one.
WHOLE = "from=2020-01-01T00:00:00Z&to=2090-01-01T00:00:00Z"
PAGES = {
    "/": "#services-list .row",
    "/?service=chat&id=a": "#instance pre",
    "/?service=many": "#instances-list .row",
    "/?service=many&id=i007": "#instance form",
    f"/timeline?{WHOLE}": "#lanes svg",
    f"/timeline?{WHOLE}&service=chat": "#lanes svg",
    "/compare?a=2020-01-01T00:00:00Z&now=yes": "#totals",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_and_nothing_is_wider_than_a_phone(shown: Shown, browser: Browser, scheme: Any) -> None:
    async with opened(browser, color_scheme=scheme) as (_, page, wrong):
        for path, there in PAGES.items():
            await page.goto(shown.url + path)
            await expect(page.locator(there).first).to_be_visible()
            await _is_fit_for_all(page, path)
        assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_where_users_log_in(browser: Browser, zookeeper: ZooKeeperServer, scheme: Any) -> None:
    passwords = read_passwords("users", [f"ann:{hashed('correct horse', b'0' * 16)}"])
    async with (
        serving(zookeeper.address, Settings(passwords=passwords)) as url,
        opened(browser, color_scheme=scheme) as (_, page, wrong),
    ):
        await page.goto(url)
        await expect(page.get_by_label("Password")).to_be_visible()
        await _is_fit_for_all(page, "login")
        await page.get_by_label("User").fill("ann")
        await page.get_by_label("Password").fill("wrong")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        await _is_fit_for_all(page, "failed login")
        assert wrong == []


async def _is_fit_for_all(page: Page, name: str) -> None:
    """Axe finds nothing in it, and nothing is wider than a phone."""
    await page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    for width, height in ((390, 844), (1280, 800)):
        await page.set_viewport_size({"width": width, "height": height})
        found = await page.evaluate("axe.run()")
        nodes = [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]]
        assert nodes == [], (name, width)
        assert len(found["passes"]) > 10
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, name


async def test_names_and_payloads_of_others_are_only_text(shown: Shown, browser: Browser) -> None:
    async with opened(browser) as (_, page, wrong):
        await page.goto(shown.url)
        link = page.get_by_role("link", name="<img src=x")
        await expect(link).to_have_text("\\u202e<img src=x onerror=alert(1)>")
        await link.click()
        await page.locator("#instances-list a").click()
        await expect(page.locator("#instance pre").first).to_contain_text("</pre><script>")
        await expect(page.locator("#instance h2").first).to_have_text("\\u202e<img src=x onerror=alert(1)>")
        await page.goto(f"{shown.url}/timeline?q=%3Cscript%3Ealert(1)%3C/script%3E")
        await expect(page.locator("#timeline-count")).to_contain_text("events from")
        assert await page.locator("img").count() == 0
        assert wrong == []


async def test_a_list_holds_only_what_is_seen(shown: Shown, browser: Browser) -> None:
    async with opened(browser) as (_, page, _wrong):
        await page.goto(f"{shown.url}/?service=many")
        await expect(page.locator("#instances-count")).to_contain_text("200 instances")
        assert await page.locator("#instances-list .row").count() < 60
        await page.locator("#instances-list").focus()
        await page.keyboard.press("End")
        await expect(page.locator("#instances-list .row", has_text="i199")).to_have_attribute("aria-selected", "true")


async def test_everything_is_reached_by_keyboard_and_by_its_address(shown: Shown, browser: Browser) -> None:
    async with opened(browser) as (_, page, _wrong):
        await page.goto(f"{shown.url}/?q=chat")
        await expect(page.locator("#services-list .row")).to_have_count(1)
        await page.locator("#services-list").focus()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{shown.url}/?service=chat")
        await page.locator("#instances-list .row").first.wait_for()
        await page.locator("#instances-list").focus()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{shown.url}/?service=chat&id=a")
        await expect(page.locator("#instance-title")).to_have_text("a")
        await page.go_back()
        await expect(page.locator("#instance")).to_be_hidden()

        await page.goto(f"{shown.url}/timeline?range=600&service=chat&kinds=joined,left")
        await page.locator("#lanes svg").wait_for()
        await page.locator("#lanes").focus()
        await page.keyboard.press("+")
        await expect(page).to_have_url(re.compile(r"service=chat&kinds=joined%2Cleft&from=\S+&to="))
        address = page.url
        await page.goto(shown.url)
        await page.goto(address)
        await expect(page.locator("#timeline input[name=service]")).to_have_value("chat")
        assert await page.locator("#timeline input[value=state]").is_checked() is False
        assert page.url == address


async def test_an_instance_is_drained_and_enabled_and_the_page_follows(shown: Shown, browser: Browser) -> None:
    async with opened(browser) as (_, page, wrong):
        await page.goto(f"{shown.url}/?service=chat&id=a")
        await page.get_by_label("Reason").fill("new <disk>")
        await page.get_by_role("button", name="Take into maintenance").click()
        await expect(page.locator("#instances-list .state")).to_have_text("maintenance")
        await expect(page.locator("#instance dl")).to_contain_text("new <disk>")
        await expect(page.locator("#instance ol")).to_contain_text("override set: new <disk>")
        await page.get_by_label("Reason").fill("it is <in>")
        await page.get_by_role("button", name="End its maintenance").click()
        await expect(page.locator("#instances-list .state")).to_have_text("enabled")
        await expect(page.locator("#instance ol")).to_contain_text("override ended: it is <in> (by somebody)")
        await shown.chat.update(enabled=False)
        await expect(page.locator("#instances-list .state")).to_have_text("draining")
        await expect(page.locator("#instance ol")).to_contain_text("enabled → draining")
        await shown.chat.update(enabled=True)
        await expect(page.locator("#instances-list .state")).to_have_text("enabled")
        assert wrong == []


async def test_an_older_answer_does_not_replace_a_newer_one(shown: Shown, browser: Browser) -> None:
    async with opened(browser) as (_, page, wrong):
        await page.goto(f"{shown.url}/?service=chat&id=a")
        facts = page.locator("#instance dl")
        await expect(facts).to_contain_text("Stateenabled")
        held: list[tuple[Route, APIResponse]] = []
        asked, answered = asyncio.Event(), asyncio.Event()

        async def hold_the_first(route: Route) -> None:
            answer = await route.fetch()
            if held:
                await route.fulfill(response=answer)
                answered.set()
            else:
                held.append((route, answer))
                asked.set()

        await page.route("**/api/instance?*", hold_the_first)
        async with asyncio.timeout(DEADLINE):
            await shown.chat.update(enabled=False)
            await asked.wait()
            await shown.chat.update(enabled=True)
            await answered.wait()
        ((route, old),) = held
        assert (await old.json())["instance"]["state"] == "draining"
        async with page.expect_response(lambda response: response.url == old.url):
            await route.fulfill(response=old)
        await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert "Stateenabled" in (await facts.text_content() or "")
        assert wrong == []


async def test_what_is_written_into_a_form_stays_while_the_page_follows(shown: Shown, browser: Browser) -> None:
    async with opened(browser) as (_, page, wrong):
        await page.goto(f"{shown.url}/?service=chat&id=a")
        reason, facts = page.get_by_label("Reason"), page.locator("#instance dl")
        await reason.fill("half a rea")
        await shown.chat.update(enabled=False)
        await expect(facts).to_contain_text("Statedraining")
        await expect(reason).to_be_focused()
        await reason.press_sequentially("son")
        await page.locator("#instance-title").click()
        await shown.chat.update(enabled=True)
        await expect(facts).to_contain_text("Stateenabled")
        await expect(reason).to_have_value("half a reason")
        await expect(page.locator("#instance h2", has_text="History")).to_have_count(1)
        assert wrong == []


async def test_an_instance_that_is_new_is_shown_as_warming_up(shown: Shown, browser: Browser) -> None:
    async with opened(browser) as (_, page, wrong):
        await page.goto(f"{shown.url}/?service=many")
        await expect(page.locator("#instances-count")).to_contain_text("200 instances")
        async with shown.registry.register(instance("many", "a-new-one")):
            row = page.locator("#instances-list .row", has_text="a-new-one")
            await expect(row).to_contain_text("warming up, new for")
            await row.click()
            await expect(page.locator("#instance dl")).to_contain_text("warming up, new for")
            await page.goto(shown.url)
            row = page.locator("#services-list .row", has_text="many")
            await expect(row).to_contain_text(re.compile(r"201, \d+ new"))
        assert wrong == []


async def test_a_user_logs_in_and_out(browser: Browser, zookeeper: ZooKeeperServer) -> None:
    passwords = read_passwords("users", [f"ann:{hashed('correct horse', b'0' * 16)}"])
    async with (
        serving(zookeeper.address, Settings(passwords=passwords)) as url,
        opened(browser) as (_, page, wrong),
    ):
        await page.goto(f"{url}/timeline?range=600")
        await page.get_by_label("User").fill("ann")
        await page.get_by_label("Password").fill("wrong")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("alert")).to_have_text("User or password is wrong.")
        await page.get_by_label("User").fill("ann")
        await page.get_by_label("Password").fill("correct horse")
        await page.get_by_role("button", name="Log in").click()
        await expect(page).to_have_url(f"{url}/timeline?range=600")
        await expect(page.locator("header .user")).to_have_text("ann")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_role("button", name="Log in")).to_be_visible()
        assert wrong == []


async def test_an_outage_is_told_what_was_known_stays_and_the_timeline_has_it(shown: Shown, browser: Browser) -> None:
    async with opened(browser) as (_, page, _wrong):
        await page.goto(shown.url)
        await expect(page.locator("#status")).to_contain_text("Connected to")
        shown.proxy.refuse()
        shown.proxy.cut()
        await expect(page.locator("#status")).to_contain_text("No connection to ZooKeeper since")
        await expect(page.locator("#services-list .row")).to_have_count(3)
        await expect(page.locator("#services-list .row", has_text="chat")).to_contain_text("ago")
        shown.proxy.accept()
        await expect(page.locator("#status")).to_contain_text("Connected to")
        await expect(page.locator("#services-list .row", has_text="chat")).to_contain_text("now")
        await page.goto(f"{shown.url}/timeline?range=600&kinds=outage,connected")
        await expect(page.locator("#events-list")).to_contain_text("outage over")
        await expect(page.locator("#lanes .outage").first).to_be_attached()
