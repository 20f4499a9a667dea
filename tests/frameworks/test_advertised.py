"""The advertised address: who decides, what is refused, what is warned of, and that the loop is not held up."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from aioregistry import InvalidArgument
from aioregistry.integrations import _advertised as advertised
from aioregistry.integrations._advertised import NoAddress, advertised_address, configured_address

REMOTE = "zk1:2181,zk2:2181/prod"
LOCAL = "127.0.0.1:2181"


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        ("10.0.0.7", {"AIOREGISTRY_ADDRESS": "bad value", "POD_IP": "bad value"}, "10.0.0.7"),
        ("chat-7.example.org", {}, "chat-7.example.org"),
        ("2001:DB8::7", {}, "2001:db8::7"),
        (None, {"AIOREGISTRY_ADDRESS": "chat_7", "POD_IP": "10.1.0.7"}, "chat_7"),
        (None, {"POD_IP": "10.1.0.7", "MY_POD_IP": "10.1.0.8"}, "10.1.0.7"),
        (None, {"MY_POD_IP": "fd00::7"}, "fd00::7"),
    ],
)
async def test_what_was_given_decides(address: str | None, environment: dict[str, str], expected: str) -> None:
    assert await advertised_address(REMOTE, address, environment=environment) == expected
    assert configured_address(address, environment=environment) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", ""),
        ("address", 7),
        ("address", "a b"),
        ("address", "10.0.0.256"),
        ("address", "10.0.0.7:80"),
        ("address", "0.0.0.0"),
        ("address", "::"),
        ("address", "224.0.0.1"),
        ("AIOREGISTRY_ADDRESS", ""),
        ("address", "10.0.0.07"),
        ("address", "1.2.3.4."),
        ("address", "::1%]:80#"),
        ("address", "\uff41.com"),
        ("AIOREGISTRY_ADDRESS", "chat..example"),
        ("AIOREGISTRY_ADDRESS", "::1%\r\nX: y"),
        ("POD_IP", "fe80::1%a b"),
        ("AIOREGISTRY_ADDRESS", "0.0.0.0"),
        ("POD_IP", ""),
        ("POD_IP", "pod-7"),
        ("MY_POD_IP", "::"),
    ],
)
async def test_a_wrong_address_is_named_with_its_source(field: str, value: Any) -> None:
    address, environment = (value, {}) if field == "address" else (None, {field: value})
    with pytest.raises(InvalidArgument) as raised:
        await advertised_address(REMOTE, address, environment=environment)
    assert (raised.value.field, raised.value.value) == (field, value)


@pytest.mark.parametrize(("field", "options"), [("servers", {}), ("timeout", {"timeout": 0})])
@pytest.mark.parametrize("value", [7, "zk:port", "zk1,,zk2", ""])
async def test_other_wrong_arguments_are_named(field: str, options: dict[str, Any], value: Any) -> None:
    with pytest.raises(InvalidArgument, match=field):
        await advertised_address(value if field == "servers" else LOCAL, **options)


async def test_the_environment_is_the_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOREGISTRY_ADDRESS", "10.0.0.9")
    assert await advertised_address(REMOTE) == configured_address() == "10.0.0.9"
    assert configured_address(environment={}) is None


# ---------------------------------------------------------------- the interface that reaches ZooKeeper


class Routes:
    """The system's names and routes, as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[str] | threading.Event] = {}
        self.routes: dict[str, str] = {}
        system = SimpleNamespace(getaddrinfo=self._resolve, socket=self._socket, SOCK_DGRAM=socket.SOCK_DGRAM)
        monkeypatch.setattr(advertised, "socket", system)  # not the module itself: event loops need it

    def _resolve(self, host: str, port: int, **_: object) -> list[Any]:
        found = self.names.get(host)
        if isinstance(found, threading.Event):
            found.wait(30)
        if not isinstance(found, list):
            raise socket.gaierror(f"{host} is unknown")
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, 0, 0, "", (each, port)) for each in found]

    def _socket(self, family: int, kind: int) -> Any:
        assert kind == socket.SOCK_DGRAM
        return FakeSocket(self.routes)


class FakeSocket:
    def __init__(self, routes: dict[str, str]) -> None:
        self._routes = routes
        self._address = ""

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self, peer: tuple[str, int]) -> None:
        assert peer[1] == 2181
        if peer[0] not in self._routes:
            raise OSError("no route")
        self._address = self._routes[peer[0]]

    def getsockname(self) -> tuple[str, int]:
        return self._address, 40000


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Routes:
    return Routes(monkeypatch)


@pytest.mark.parametrize(
    ("names", "ways", "expected"),
    [
        ({"zk1": ["10.9.0.1"]}, {"10.9.0.1": "10.0.0.7"}, "10.0.0.7"),
        ({"zk2": ["fd00::1"]}, {"fd00::1": "fd00::7"}, "fd00::7"),
        ({"zk1": ["10.9.0.1", "fd00::1"]}, {"fd00::1": "fd00::7"}, "fd00::7"),
        ({"zk1": ["127.0.0.1"], "zk2": ["10.9.0.2"]}, {"127.0.0.1": "127.0.0.1", "10.9.0.2": "10.0.0.7"}, "10.0.0.7"),
        ({"zk1": ["fe80::1"], "zk2": ["fd00::1"]}, {"fe80::1": "fe80::7%eth0", "fd00::1": "fd00::7"}, "fd00::7"),
        ({"zk1": ["fe80::1"]}, {"fe80::1": "fe80::7%eth0"}, "fe80::7"),
    ],
)
async def test_the_interface_to_zookeeper(
    routes: Routes, names: dict[str, list[str] | threading.Event], ways: dict[str, str], expected: str
) -> None:
    routes.names, routes.routes = names, ways
    assert await advertised_address(REMOTE, environment={}) == expected


@pytest.mark.parametrize("names", [{}, {"zk1": ["10.9.0.1"]}])
async def test_no_way_to_zookeeper(routes: Routes, names: dict[str, list[str] | threading.Event]) -> None:
    routes.names = names
    with pytest.raises(NoAddress, match=r"zk1,zk2 is reached.*give address= \(--address\), or set AIOREGISTRY_ADDRESS"):
        await advertised_address(REMOTE, environment={})


async def test_a_name_server_that_hangs_holds_nothing_up(routes: Routes) -> None:
    hanging = threading.Event()
    routes.names, routes.routes = {"zk1": hanging, "zk2": ["10.9.0.2"]}, {"10.9.0.2": "10.0.0.7"}
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    try:
        assert await advertised_address(REMOTE, environment={}, timeout=0.1) == "10.0.0.7"
        with pytest.raises(NoAddress, match=r"zk1 is reached, within timeout=0.1 s"):
            await advertised_address("zk1", environment={}, timeout=0.1)
    finally:
        hanging.set()
        ticking.cancel()
    assert ticks > 2
    for thread in threading.enumerate():
        if thread.name.startswith("aioregistry-resolve"):
            assert thread.daemon  # does not hold up the exit either
            await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)  # what it found is heard, and of no use any more


@pytest.mark.parametrize("servers", [LOCAL, "127.0.0.1", "localhost:2181"])
async def test_the_real_system_tells_of_loopback(servers: str, caplog: pytest.LogCaptureFixture) -> None:
    assert await advertised_address(servers, environment={}) in ("127.0.0.1", "::1")
    assert caplog.text == ""


async def test_the_real_system_tells_of_ipv6(caplog: pytest.LogCaptureFixture) -> None:
    for servers in ("[::1]:2181/prod", "::1"):
        assert await advertised_address(servers, environment={}) == "::1"


# ---------------------------------------------------------------- loopback


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "chat.localhost"])
@pytest.mark.parametrize(("servers", "warned"), [(REMOTE, True), (f"{LOCAL},zk2", True), ("localhost,[::1]:1", False)])
async def test_loopback_for_a_remote_ensemble_is_warned_of(
    servers: str, warned: bool, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aioregistry.integrations")
    assert await advertised_address(servers, environment={"AIOREGISTRY_ADDRESS": address}) == address
    assert (f"advertising {address} (from AIOREGISTRY_ADDRESS), but ZooKeeper is at" in caplog.text) is warned


async def test_a_loopback_interface_is_warned_of_too(routes: Routes, caplog: pytest.LogCaptureFixture) -> None:
    routes.names, routes.routes = {"zk1": ["127.0.1.1"]}, {"127.0.1.1": "127.0.0.1"}
    assert await advertised_address("zk1", environment={}) == "127.0.0.1"
    assert "advertising 127.0.0.1 (from the interface to ZooKeeper), but ZooKeeper is at zk1: " in caplog.text
