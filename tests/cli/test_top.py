"""`aioregistry top`: the rows, and the screen by textual's pilot."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from aiozk import ACL
from textual.widgets import DataTable, Static

import aioregistry
from aioregistry import NoAuth, Registry, ServiceInstance
from aioregistry._cli.top import Top
from aioregistry._document import decode
from aioregistry._words import described, shortened
from tests.cli.command import outcome
from tests.support.judge import Judge
from tests.support.waiting import until
from tests.support.zookeeper import ZooKeeperServer

DEADLINE = 100.0


def cells(app: Top, id: str) -> list[list[str]]:
    table: DataTable[Any] = app.query_one(f"#{id}", DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


@pytest.fixture
async def registry(zookeeper: ZooKeeperServer, chroot: str) -> Any:
    async with aioregistry.connect(zookeeper.address + chroot) as registry:
        yield registry


def instance(service: str, id: str, payload: object = None) -> ServiceInstance[object]:
    return ServiceInstance(service, id=id, address="10.0.0.7", port=7000, payload=payload)


async def test_the_screen_shows_services_and_the_instances_of_the_one_under_the_cursor(
    registry: Registry, judge: Judge, chroot: str
) -> None:
    async with (
        registry.register(instance("chat", "a", {"zone": "eu"})) as chat,
        registry.register(instance("pay", "b")),
    ):
        await judge.make(f"{chroot}/services/chat/broken", b"not JSON")
        app = Top(registry)
        async with app.run_test(size=(140, 40)) as pilot:
            await until(lambda: len(cells(app, "services")) == 2 and len(cells(app, "instances")) == 2)
            assert [row[:3] for row in cells(app, "services")] == [["chat", "1", "1"], ["pay", "1", "1"]]
            assert cells(app, "services")[0][7] == "1"  # the node that cannot be read
            assert cells(app, "instances")[0][:3] == ["a", "10.0.0.7:7000", "enabled"]
            assert cells(app, "instances")[1][:3] == ["broken", "-", "invalid"]
            await chat.update(enabled=False)
            await until(lambda: cells(app, "services")[0][2] == "0")
            await pilot.press("down")
            await until(lambda: [row[0] for row in cells(app, "instances")] == ["b"])
            assert "connected" in str(app.query_one("#head", Static).render())
            await pilot.press("q")


async def test_a_service_that_comes_later_is_shown_and_a_name_with_markup_is_harmless(registry: Registry) -> None:
    app = Top(registry)
    async with app.run_test(size=(140, 40)):
        await until(lambda: cells(app, "services") == [])
        async with registry.register(instance("[red]x[nonsense]", "\u202ea[b")):
            await until(lambda: len(cells(app, "services")) == 1)
            await until(lambda: len(cells(app, "instances")) == 1)
            assert cells(app, "services")[0][0] == "[red]x[nonsense]"
            assert cells(app, "instances")[0][0] == "\\u202ea[b"


async def test_what_may_not_be_read_ends_the_screen_with_the_reason(zookeeper: ZooKeeperServer, chroot: str) -> None:
    acl = [ACL.make("auth", "", True, True, True, True, True)]
    servers = zookeeper.address + chroot
    async with (
        aioregistry.connect(servers, auth=[("digest", "ada:x")], acl=acl) as owner,
        owner.register(instance("chat", "a")),
        aioregistry.connect(servers) as stranger,
    ):
        for name in (None, "chat"):
            app = Top(stranger, name)
            async with app.run_test(size=(80, 24)):
                await until(lambda app=app: app.failure is not None)  # type: ignore[misc]
            assert isinstance(app.failure, NoAuth)


async def test_one_service_alone_also_without_a_connection(registry: Registry) -> None:
    async with registry.register(instance("chat", "a")):
        app = Top(registry, "chat")
        async with app.run_test(size=(140, 40)):
            await until(lambda: [row[0] for row in cells(app, "instances")] == ["a"])
    async with aioregistry.connect("127.0.0.1:1", wait=False) as away:
        app = Top(away)
        async with app.run_test(size=(80, 24)):
            await until(lambda: "disconnected" in str(app.query_one("#head", Static).render()))


@pytest.mark.parametrize(
    ("status", "state"),
    [("failing", "failing"), ("maintenance", "maintenance"), ("draining", "draining"), (None, "draining")],
)
def test_a_command_says_why_an_instance_is_not_enabled(status: str | None, state: str) -> None:
    document = {"name": "chat", "id": "a", "enabled": False} | ({} if status is None else {"status": status})
    assert described(decode(json.dumps(document).encode(), name="chat", id="a")).split() == ["a", "?", state]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (9e9, "99999d"), (1e300, "99999d"), (math.nan, "?")],
)
def test_a_time_is_shortened_whatever_a_server_says(seconds: float, text: str) -> None:
    assert shortened(seconds) == text


async def test_without_a_terminal_it_says_so_at_once() -> None:
    code, stdout, stderr = await outcome("top", "--zookeeper", "127.0.0.1:1")
    assert (code, stdout) == (1, "")
    assert "top needs a terminal" in stderr
