"""The messages to browsers: rows are made once for all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from aioregistry import Entry, ServiceInstance, Snapshot
from aioregistry._console import hub as hub_module
from aioregistry._console.hub import Hub
from aioregistry._console.rows import JsonRow, service_row
from tests.support.waiting import DEADLINE


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PAUSE", 0.0)


class Source:
    """Some services of the same instances, and how often rows of services were made."""

    def __init__(self, *names: str, size: int = 2) -> None:
        self.entries = {f"i{number:04}": entry(f"i{number:04}") for number in range(size)}
        self.new: dict[str, float] = {}
        self.made = 0
        self._names = list(names)

    def status(self) -> dict[str, Any]:
        return {}

    def names(self) -> list[str]:
        return self._names

    def service(self, name: str) -> JsonRow | None:
        if name not in self._names:
            return None
        self.made += 1
        return service_row(name, self._snapshot(name), None, self.new)

    def shown(self, name: str) -> tuple[Snapshot[Any], dict[str, float]] | None:
        return (self._snapshot(name), self.new) if name in self._names else None

    def _snapshot(self, name: str) -> Snapshot[Any]:
        return Snapshot(name, self.entries, {}, as_of=1)


def entry(id: str, **fields: Any) -> Entry[Any]:
    return Entry(ServiceInstance("chat", id=id, address="10.0.0.7", port=7000, **fields), 0x1F, 5, 6, 1, 10.0, 11.0)


async def until(messages: AsyncGenerator[bytes, None], event: str) -> Any:
    async with asyncio.timeout(DEADLINE):
        async for message in messages:
            name, _, data = message.decode().partition("\ndata: ")
            if name == f"event: {event}":
                return json.loads(data)
    raise AssertionError(f"no message {event!r}")


async def test_the_row_of_a_service_is_made_once_for_all_browsers_and_again_after_a_change() -> None:
    hub, source = Hub(), Source("chat", "mail")
    browsers = [hub.follow(source, None, lambda: True) for _ in range(5)]
    for browser in browsers:
        assert [row[0] for row in (await until(browser, "services"))["all"]] == ["chat", "mail"]
    assert source.made == 2
    for browser in browsers:
        await until(browser, "status")
    source.entries = {**source.entries, "z": entry("z")}
    hub.service_changed("chat")
    for browser in browsers:
        news = await until(browser, "services")
        assert [(row[0], row[2]) for row in news["changed"]] == [("chat", 3)]
        await browser.aclose()
    assert source.made == 3


async def test_the_row_of_a_service_with_new_instances_is_not_kept() -> None:
    hub, source = Hub(), Source("chat")
    source.new = {"i0000": 3.0}
    for count in (1, 0):
        browser = hub.follow(source, None, lambda: True)
        ((*_, new, _since),) = (await until(browser, "services"))["all"]
        assert new == count
        source.new = {}  # it is not new any more, which no change tells
        await browser.aclose()


async def test_a_service_that_is_gone_is_told_and_forgotten() -> None:
    hub, source = Hub(), Source("chat", "mail")
    browser = hub.follow(source, "chat", lambda: True)
    await until(browser, "instances")
    source.names().remove("chat")
    hub.service_changed("chat")
    assert await until(browser, "services") == {"changed": [], "gone": ["chat"]}
    assert await until(browser, "instances") == {
        "service": "chat", "known": False, "changed": [], "gone": ["i0000", "i0001"],
    }  # fmt: skip
    await browser.aclose()


async def test_of_many_instances_those_that_changed_are_sent_and_others_get_their_turn_meanwhile() -> None:
    hub, source = Hub(), Source("chat", size=1000)
    browser = hub.follow(source, "chat", lambda: True)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert len((await until(browser, "instances"))["changed"]) == 1000
    assert turns >= 10
    counting.cancel()
    source.entries = {**source.entries, "i0500": entry("i0500", payload="new"), "i0600": entry("i0600")}
    hub.service_changed("chat")
    news = await until(browser, "instances")
    assert [(row[0], row[7]) for row in news["changed"]] == [("i0500", '"new"')]  # the other one looks as before
    await browser.aclose()
