"""Records of aioregistry's loggers, for machines: their subject is in fields of their own."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

import aioregistry
from aioregistry import ServiceInstance
from aioregistry.logs import JsonFormatter
from aioregistry.server import ZooKeeperServer
from tests.support.processes import outcome_of
from tests.support.waiting import until

PAGE = Path(__file__).parents[1] / "docs/how-to/logging.md"
PROGRAM_TIMEOUT = 60.0

REGISTERING = """
import asyncio
import sys

import aioregistry


async def main():
    me = aioregistry.ServiceInstance("chat", address="10.0.0.7", port=7000, id="a")
    async with aioregistry.connect(sys.argv[1]) as registry, registry.register(me):
        pass


asyncio.run(main())
"""


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[dict[str, object]]:
    formatter = JsonFormatter()
    return [json.loads(formatter.format(record)) for record in caplog.records if record.name == f"aioregistry.{logger}"]


async def test_a_registration_and_its_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aioregistry")
    me = ServiceInstance("chat", address="10.0.0.7", port=7000, id="a")
    async with ZooKeeperServer() as server, aioregistry.connect(server.address) as registry, registry.register(me):
        session = f"{registry.session.id & 0xFFFF_FFFF_FFFF_FFFF:#x}"
    told = lines(caplog, "registration")
    about = {"service": "chat", "id": "a", "path": "/services/chat/a"}
    assert {**about, "status": "live"} in [{name: line.get(name) for name in (*about, "status")} for line in told]
    assert all(about.items() <= line.items() for line in told)
    states = [line for line in lines(caplog, "session") if "connected" in str(line["message"])]
    assert states
    assert {line["session"] for line in states} == {session}


async def test_a_view_and_its_nodes(caplog: pytest.LogCaptureFixture) -> None:
    me = ServiceInstance("chat/eu", address="10.0.0.7", port=7000, id="a")
    async with (
        ZooKeeperServer() as server,
        aioregistry.connect(server.address) as registry,
        registry.register(me),
        registry.discover("chat/eu") as view,
    ):
        await view.sync()
        await registry.client.create("/services/chat/eu/odd", data=b"no instance")
        await until(lambda: lines(caplog, "discovery"))
    (line,) = lines(caplog, "discovery")
    assert (line["service"], line["path"]) == ("chat/eu", "/services/chat/eu")


@pytest.mark.parametrize(("formatter", "message"), [("JsonFormatter()", "message"), ("structlog", "event")])
async def test_the_lines_of_the_page_make_json_of_records(formatter: str, message: str) -> None:
    (lines,) = (
        block.removeprefix("python\n")
        for block in PAGE.read_text(encoding="utf-8").split("```")
        if block.startswith("python\n") and formatter in block
    )
    async with ZooKeeperServer() as server:
        code, stdout, stderr = await outcome_of(
            *(sys.executable, "-W", "error", "-c", lines + REGISTERING, server.address), seconds=PROGRAM_TIMEOUT
        )
    assert (code, stdout) == (0, b""), stderr
    told = [json.loads(line) for line in stderr.splitlines()]
    (listed,) = (line for line in told if line.get("status") == "live")
    about = {"service": "chat", "id": "a", "path": "/services/chat/a", "level": "info"}
    assert {name: listed.get(name) for name in about} == about
    assert listed[message].startswith("/services/chat/a ")
