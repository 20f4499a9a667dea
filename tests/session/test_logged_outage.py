"""The log of an outage in docs/how-to/logging.md consists of lines that are logged."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from aioregistry._registration.lifecycle import LINES
from aioregistry._session import Session, SessionState, parse_connect_string
from tests.session.scripted_server import Ensemble
from tests.session.simulation import World, simulate

PAGE = Path(__file__).parents[2] / "docs/how-to/logging.md"
LINE = re.compile(r"\d\d:\d\d:\d\d (?P<level>[A-Z]+) (?P<message>.*)")
T = 15.0


def shown() -> list[tuple[str, str]]:
    """The lines of the page: level and message."""
    _, _, outage = PAGE.read_text(encoding="utf-8").partition("## Read an outage")
    block = outage.partition("```text\n")[2].partition("```")[0]
    found = [LINE.fullmatch(line) for line in block.splitlines()]
    return [(line["level"], line["message"]) for line in found if line is not None]


def phrases(level: str, message: str) -> list[str]:
    """The parts of a line, without what differs from outage to outage."""
    for pattern, name in (
        (r"0x[0-9a-f]+", "ID"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME"),
        (r"\d+(\.\d+){3}:\d+", "ADDRESS"),
        (r"\d+(\.\d+)?", "N"),
    ):
        message = re.sub(pattern, name, message)
    first, *others = [part for part in re.split(r"[:;,()] *", message) if part]
    return [f"{level} {first}", *others]


async def an_outage(world: World) -> None:
    """Of a session with one server: it is away, closes at once, is silent, and has forgotten the session then."""
    ensemble = Ensemble(timeout=T)
    server = ensemble.server("10.0.0.1")
    address = server.name, 2181
    world.servers[address] = server
    session = Session(parse_connect_string(server.name), timeout=T, runtime=world, max_request=2**20)
    session.start()
    await session.wait_connected(100)
    del world.servers[address]
    server.close_all()
    await asyncio.sleep(60)
    server.closes = True
    world.servers[address] = server
    await asyncio.sleep(60)
    server.closes, server.silent = False, True
    await asyncio.sleep(60)
    ensemble.sessions.clear()
    server.silent = False
    async with asyncio.timeout(1000):
        while session.state is not SessionState.CONNECTED:
            await asyncio.sleep(1)
    await session.close(1)


def test_the_session_lines_of_the_page_are_those_of_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioregistry.session")
    simulate(an_outage)
    logged = {part for record in caplog.records for part in phrases(record.levelname, record.getMessage())}
    lines = [line for line in shown() if not line[1].startswith("/services/")]
    assert len(lines) >= 6
    assert [part for line in lines for part in phrases(*line) if part not in logged] == []


def test_the_registrations_lines_of_the_page_are_those_of_its_statuses() -> None:
    patterns = [re.sub(r"\\{[\w:]+\\}", ".+", re.escape(line)) for line in LINES.values()]
    lines = [line for line in shown() if line[1].startswith("/services/")]
    assert len(lines) >= 4
    for level, message in lines:
        path, _, said = message.partition(" ")
        assert (level, path) == ("INFO", "/services/chat/c1")
        assert any(re.fullmatch(pattern, said) for pattern in patterns), message


def test_a_line_that_is_not_logged_is_found() -> None:
    level, message = next(line for line in shown() if line[0] == "WARNING")
    other = phrases(level, message.replace("the connection was refused", "nobody was there"))
    assert len(set(other) - set(phrases(level, message))) == 1
    assert set(phrases("INFO", message)) - set(phrases(level, message))
