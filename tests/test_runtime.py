"""The real outside: clocks that do not go back, names that hold nothing up, sockets that are closed when given up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aioregistry._runtime import Endpoint, SystemRuntime
from tests.support.tls import serving, trusting
from tests.support.waiting import DEADLINE

NO_SUCH_ADDRESS = 64
"""X509_V_ERR_IP_ADDRESS_MISMATCH."""


@pytest.fixture
def runtime() -> SystemRuntime:
    return SystemRuntime()


class SlowNames:
    """A name server that answers when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.answered = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        self.answered.wait(20)
        if self.error is not None:
            raise self.error
        entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))
        return [entry, entry, (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::2", port, 0, 0))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowNames]:
    names = SlowNames(monkeypatch)
    yield names
    names.answered.set()


class TestClocks:
    def test_go_forward(self, runtime: SystemRuntime) -> None:
        for clock in (runtime.monotonic, runtime.boot):
            assert clock() <= clock()

    def test_boot_counts_sleep_where_the_system_can(self, runtime: SystemRuntime) -> None:
        clock = getattr(time, "CLOCK_BOOTTIME", None)
        expected = time.monotonic() if clock is None else time.clock_gettime(clock)
        assert runtime.boot() == pytest.approx(expected, abs=1)

    def test_boot_without_a_clock_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SystemRuntime, "_BOOT", None)
        assert SystemRuntime().boot() == pytest.approx(time.monotonic(), abs=1)

    def test_wall(self, runtime: SystemRuntime) -> None:
        assert runtime.wall() == pytest.approx(time.time(), abs=1)


class TestRandomness:
    def test_uniform_stays_within(self, runtime: SystemRuntime) -> None:
        assert all(1 <= runtime.uniform(1, 2) <= 2 for _ in range(100))

    def test_shuffle_keeps_everybody(self, runtime: SystemRuntime) -> None:
        endpoints = [Endpoint("zk", 2181, f"10.0.0.{number}") for number in range(20)]
        orders = set()
        for _ in range(5):
            shuffled = list(endpoints)
            runtime.shuffle(shuffled)
            assert sorted(shuffled) == sorted(endpoints)
            orders.add(tuple(shuffled))
        assert len(orders) > 1


class TestResolving:
    @pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1%lo"])
    async def test_an_address_asks_nobody(self, runtime: SystemRuntime, names: SlowNames, address: str) -> None:
        assert await runtime.resolve(address, 2181) == [Endpoint(address, 2181, address)]
        assert names.asked == []

    async def test_a_name_gives_every_address_once(self, runtime: SystemRuntime, names: SlowNames) -> None:
        names.answered.set()
        found = await runtime.resolve("zk", 2181)
        assert found == [Endpoint("zk", 2181, "10.0.0.1"), Endpoint("zk", 2181, "::2")]

    async def test_for_real(self, runtime: SystemRuntime) -> None:
        assert {endpoint.address for endpoint in await runtime.resolve("localhost", 1)} & {"127.0.0.1", "::1"}

    async def test_each_round_asks_anew(self, runtime: SystemRuntime, names: SlowNames) -> None:
        names.answered.set()
        await runtime.resolve("zk", 2181)
        await runtime.resolve("zk", 2181)
        assert names.asked == ["zk", "zk"]

    @pytest.mark.parametrize(
        "error",
        [socket.gaierror(socket.EAI_NONAME, "what glibc says"), UnicodeError("label too long"), MemoryError()],
        ids=repr,
    )
    async def test_a_name_that_is_none(self, runtime: SystemRuntime, names: SlowNames, error: Exception) -> None:
        names.error = error
        names.answered.set()
        with pytest.raises(OSError, check=lambda raised: error in (raised, raised.__cause__)):
            await runtime.resolve("zk", 2181)

    async def test_cancelling_returns_at_once(self, runtime: SystemRuntime, names: SlowNames) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await runtime.resolve("zk", 2181)

    async def test_an_error_that_nobody_waits_for_is_not_reported(
        self, runtime: SystemRuntime, names: SlowNames, caplog: pytest.LogCaptureFixture
    ) -> None:
        names.error = OSError("no such name")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await runtime.resolve("zk", 2181)
        names.answered.set()
        for thread in _look_ups():
            await asyncio.to_thread(thread.join, 10)
        await asyncio.sleep(0)
        names.error = None  # its traceback holds the look-up
        gc.collect()
        assert caplog.records == []

    def test_a_look_up_that_outlives_its_loop(self, runtime: SystemRuntime, names: SlowNames) -> None:
        async def give_up() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await runtime.resolve("zk", 2181)

        asyncio.run(give_up())
        names.answered.set()
        for thread in _look_ups():
            thread.join(10)
            assert not thread.is_alive()

    def test_does_not_hold_up_the_exit(self) -> None:
        script = """
import asyncio, contextlib, socket, threading
from aioregistry._runtime import SystemRuntime
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
async def main():
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await SystemRuntime().resolve("zk", 2181)
asyncio.run(main())
"""
        assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0


class TestConnecting:
    async def test_connects(self, runtime: SystemRuntime) -> None:
        came = asyncio.Event()

        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.set()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            transport = await runtime.connect(asyncio.Protocol, _endpoint_of(server), None)
            async with asyncio.timeout(DEADLINE):
                await came.wait()
            transport.abort()
            await asyncio.sleep(0)

    async def test_refused(self, runtime: SystemRuntime) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await runtime.connect(asyncio.Protocol, Endpoint("zk", bound.getsockname()[1], "127.0.0.1"), None)

    async def test_no_tls_at_the_other_end(self, runtime: SystemRuntime) -> None:
        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            with pytest.raises(ssl.SSLError):
                await runtime.connect(asyncio.Protocol, _endpoint_of(server), ssl.create_default_context())

    @pytest.mark.parametrize(
        ("host", "name"),
        [
            ("localhost", "localhost"),
            ("localhost.", "localhost"),
            ("Zk-1.Example.", "Zk-1.Example"),
            ("10.0.0.7", None),
            ("::1", None),
            ("::1%lo", None),
            ("fe80::1%eth0.1", None),
        ],
    )
    async def test_a_server_is_told_a_name_as_it_is_proved_and_no_address(
        self, host: str, name: str | None, runtime: SystemRuntime
    ) -> None:
        told: list[str | None] = []
        context = serving()
        context.sni_callback = lambda _socket, name, _context: told.append(name)
        checking_nothing = ssl.create_default_context()
        checking_nothing.check_hostname, checking_nothing.verify_mode = False, ssl.CERT_NONE
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context) as server:
            endpoint = Endpoint(host, server.sockets[0].getsockname()[1], "127.0.0.1")
            transport = await runtime.connect(asyncio.Protocol, endpoint, checking_nothing)
            transport.abort()
            await asyncio.sleep(0)
        assert told == [name]

    @pytest.mark.parametrize("host", ["::1%lo", "::1", "127.0.0.1"])
    async def test_an_address_is_proved_as_an_address(self, host: str, runtime: SystemRuntime) -> None:
        """The certificate is for a name, so each is refused; by what it was compared with."""
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=serving()) as server:
            endpoint = Endpoint(host, server.sockets[0].getsockname()[1], "127.0.0.1")
            with pytest.raises(ssl.SSLCertVerificationError) as raised:
                await runtime.connect(asyncio.Protocol, endpoint, trusting())
        assert raised.value.verify_code == NO_SUCH_ADDRESS

    async def test_cancelling_closes_the_socket(self, runtime: SystemRuntime) -> None:
        """In the middle of a TLS handshake that the other end does not take part in."""
        left = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            left.set()
            writer.close()

        async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await runtime.connect(asyncio.Protocol, _endpoint_of(server), ssl.create_default_context())
            async with asyncio.timeout(DEADLINE):
                await left.wait()


def _look_ups() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("aioregistry-resolve")]


def _endpoint_of(server: asyncio.Server) -> Endpoint:
    address, port = server.sockets[0].getsockname()
    return Endpoint("localhost", port, address)


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        (Endpoint("10.0.0.1", 2181, "10.0.0.1"), "10.0.0.1:2181"),
        (Endpoint("::1", 2181, "::1"), "[::1]:2181"),
        (Endpoint("zk", 2181, "10.0.0.1"), "zk(10.0.0.1):2181"),
        (Endpoint("zk", 2181, "::1"), "zk([::1]):2181"),
    ],
)
def test_endpoints_say_name_and_address(endpoint: Endpoint, shown: str) -> None:
    assert str(endpoint) == shown
