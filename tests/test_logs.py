"""Records of aioregistry's loggers, for machines: what they are about is in fields of their own."""

from __future__ import annotations

import json
import logging

import pytest

import aioregistry
from aioregistry import ServiceInstance
from aioregistry.logs import JsonFormatter
from aioregistry.server import ZooKeeperServer
from tests.support.waiting import until


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
