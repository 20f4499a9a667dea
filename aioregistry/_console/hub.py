"""The updates for each browser: all that changed since its last update, and nothing else.

A browser has no queue. Changes are remembered by name; rows are made when they can be sent. So a browser that reads
slowly gets fewer messages, and one that reads nothing costs the names of the services. Rows are made once for all
browsers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from aioregistry import Snapshot
from aioregistry._words import to_json

from .rows import InstanceRows, JsonRow, ages

__all__ = ["Browser", "Hub", "RowSource", "TooManyBrowsers"]

MOST_BROWSERS: Final = 200
MOST_OF_A_USER: Final = 50
"""So that one user's do not keep the others out."""

PAUSE: Final = 0.5
"""Seconds between two messages to a browser."""

KEEP_ALIVE: Final = 15.0
"""Seconds; proxies end connections that are silent."""

_MADE_AT_ONCE: Final = 100


class TooManyBrowsers(Exception):
    """No more browsers can follow now."""


class RowSource(Protocol):
    """Where the rows come from."""

    def status(self) -> dict[str, Any]:
        """Return the message about the session and the whole registry."""

    def names(self) -> list[str]:
        """Return the names of the services."""

    def service(self, name: str) -> JsonRow | None:
        """Return the row of a service, or None if it is unknown."""

    def shown(self, name: str) -> tuple[Snapshot[Any], dict[str, float]] | None:
        """Return a service's snapshot, and since when instances are new; None where there is no such service."""


class Browser:
    """The changes that one browser has not been sent yet.

    Args:
        source: of the rows.
        watched: the service whose instances it shows, or None.
        rows: those of that service, of all browsers that show it.
        user: the user who has logged in; "" without a login.
    """

    def __init__(self, source: RowSource, watched: str | None, rows: InstanceRows, user: str) -> None:
        self.source, self.watched, self.rows, self.user = source, watched, rows, user
        self.woken = asyncio.Event()
        self.services: set[str] = set()
        self.status = True
        self.instances: dict[str, JsonRow] = {}


class Hub:
    """All browsers that follow."""

    def __init__(self) -> None:
        self._browsers: set[Browser] = set()
        self._services: dict[str, JsonRow] = {}
        self._instances: WeakValueDictionary[str, InstanceRows] = WeakValueDictionary()
        """By service, for as long as a browser shows it."""
        self._closed = False

    def __len__(self) -> int:
        return len(self._browsers)

    def service_changed(self, name: str) -> None:
        """Something of a service is otherwise, or it came or went."""
        self._services.pop(name, None)
        for browser in self._browsers:
            browser.services.add(name)
            browser.woken.set()

    def status_changed(self) -> None:
        """Something of the session or of the whole is otherwise."""
        for browser in self._browsers:
            browser.status = True
            browser.woken.set()

    def close(self) -> None:
        """End the streams to all browsers, now and later."""
        self._closed = True
        for browser in self._browsers:
            browser.woken.set()

    def follow(
        self, source: RowSource, watched: str | None, allowed: Callable[[], bool], user: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """Return the messages to one more browser, as server-sent events; endless.

        Args:
            source: of the rows.
            watched: the service whose instances it shows, or None.
            allowed: whether it may still be sent anything: a session of a browser ends by its time.
            user: the user who has logged in; "" without a login.

        Raises:
            TooManyBrowsers: at once.
        """
        if self._closed or not self._has_room(user):
            raise TooManyBrowsers
        rows = self._instances.setdefault(watched or "", InstanceRows())
        return self._messages(Browser(source, watched, rows, user), allowed)

    def _has_room(self, user: str) -> bool:
        theirs = sum(browser.user == user for browser in self._browsers) if user else 0
        return len(self._browsers) < MOST_BROWSERS and theirs < MOST_OF_A_USER

    async def _messages(self, browser: Browser, allowed: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        if not self._has_room(browser.user):
            return  # others that asked in the same moment were faster
        self._browsers.add(browser)
        try:
            yield b"retry: 2000\n\n"
            yield _event("services", {"all": await self._all(browser.source)})
            browser.services.add(browser.watched or "")
            while not self._closed and allowed():
                for event, content in await self._news(browser):
                    yield _event(event, content)
                await asyncio.sleep(PAUSE)
                if not await self._is_woken(browser):
                    yield b": nothing new\n\n"
        finally:
            self._browsers.discard(browser)

    async def _is_woken(self, browser: Browser) -> bool:
        try:
            async with asyncio.timeout(KEEP_ALIVE):
                await browser.woken.wait()
        except TimeoutError:
            return False
        browser.woken.clear()
        return True

    def _service(self, source: RowSource, name: str) -> JsonRow | None:
        row = self._services.get(name)
        if row is None and (row := source.service(name)) is not None and not ages(row):
            self._services[name] = row
        return row

    async def _all(self, source: RowSource) -> list[JsonRow]:
        rows: list[JsonRow] = []
        for number, name in enumerate(source.names(), 1):
            row = self._service(source, name)
            if row is not None:
                rows.append(row)
            if number % _MADE_AT_ONCE == 0:
                await asyncio.sleep(0)
        return rows

    async def _news(self, browser: Browser) -> list[tuple[str, dict[str, Any]]]:
        news: list[tuple[str, dict[str, Any]]] = []
        if browser.status:
            browser.status = False
            news.append(("status", browser.source.status()))
        changed, browser.services = browser.services, set()
        if changed:
            found: list[JsonRow] = []
            gone: list[str] = []
            for number, name in enumerate(sorted(changed), 1):
                row = self._service(browser.source, name)
                if row is not None:
                    found.append(row)
                elif name:
                    gone.append(name)
                if number % _MADE_AT_ONCE == 0:
                    await asyncio.sleep(0)
            if found or gone:
                news.append(("services", {"changed": found, "gone": gone}))
        if browser.watched is not None and browser.watched in changed:
            news.append(("instances", await _news_of(browser, browser.watched)))
        return news


async def _news_of(browser: Browser, name: str) -> dict[str, Any]:
    shown = browser.source.shown(name)
    present: dict[str, JsonRow] = {}
    if shown is not None:
        for number, _ in enumerate(browser.rows.fill(present, *shown), 1):
            if number % _MADE_AT_ONCE == 0:
                await asyncio.sleep(0)
    known, browser.instances = browser.instances, present
    changed = [row for id, row in present.items() if (before := known.get(id)) is not row and before != row]
    gone = [id for id in known if id not in present]
    return {"service": name, "known": shown is not None, "changed": changed, "gone": gone}


def _event(name: str, content: Any) -> bytes:
    return f"event: {name}\ndata: {to_json(content)}\n\n".encode()
