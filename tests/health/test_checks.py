"""The ready-made checks, against real servers, programs and loops."""

from __future__ import annotations

import asyncio
import os
import shlex
import ssl
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioregistry import Check, CommandCheck, HttpCheck, InvalidArgument, LoopLagCheck, TcpCheck
from aioregistry._health.check import CheckFailed
from aioregistry.testing._ports import ReservedPort
from tests.support.processes import is_running
from tests.support.tls import serving, trusting

DEADLINE = 100.0


class Web:
    """Answers every request with the same bytes, and remembers the requests."""

    def __init__(self, answer: bytes, *, tls: ssl.SSLContext | None = None, holds: bool = False) -> None:
        self.answer, self.tls, self.holds = answer, tls, holds
        self.requests: list[bytes] = []
        self.over = asyncio.Event()

    async def __aenter__(self) -> Web:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.over.set()
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
            if self.holds:
                await self.over.wait()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort() if self.holds else writer.close()


async def probe(check: Check) -> None:
    async with asyncio.timeout(DEADLINE):
        await check.probe()


def answer(status: int) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" % status


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_an_expected_status_passes(status: int) -> None:
    async with Web(answer(status)) as web:
        await probe(HttpCheck(f"http://127.0.0.1:{web.port}/healthz?deep=1&x=%20"))
        await probe(HttpCheck(f"http://127.0.0.1:{web.port}"))
    host = b"Host: 127.0.0.1:%d\r\n" % web.port
    assert [request.partition(b"\r\n")[0] for request in web.requests] == [
        b"GET /healthz?deep=1&x=%20 HTTP/1.1", b"GET / HTTP/1.1",
    ]  # fmt: skip
    assert all(host in request and b"Connection: close\r\n" in request for request in web.requests)


@pytest.mark.parametrize("status", [101, 301, 302, 400, 404, 500, 503])
async def test_another_status_fails(status: int) -> None:
    async with Web(answer(status)) as web:
        with pytest.raises(CheckFailed, match=f"status {status}"):
            await probe(HttpCheck(f"http://127.0.0.1:{web.port}/"))
        await probe(HttpCheck(f"http://127.0.0.1:{web.port}/", expected_statuses=[status]))
    assert len(web.requests) == 2, "a redirect was followed"


async def test_redirects_pass_by_option() -> None:
    async with Web(answer(302)) as web:
        await probe(HttpCheck(f"http://127.0.0.1:{web.port}/", expected_statuses=range(200, 400)))
    assert len(web.requests) == 1


async def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with Web(interim + answer(200)) as web:
        # Fails by raising: a probe that does not pass raises CheckFailed.
        await probe(HttpCheck(f"http://127.0.0.1:{web.port}/"))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 twohundred OK\r\n\r\n",
        b"HTTP/1.1 200",
        b"x" * 200_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a>\r\n" * 100_000,
    ],
    ids=range(10),
)
async def test_what_is_no_answer_fails(said: bytes) -> None:
    async with Web(said) as web:
        with pytest.raises(CheckFailed):
            await probe(HttpCheck(f"http://127.0.0.1:{web.port}/"))


async def test_an_answer_without_end_passes_by_its_status() -> None:
    async with Web(b"HTTP/1.1 200 OK\r\n\r\n" + b"data: x\n\n" * 50_000, holds=True) as web:
        # Fails by raising: a probe that does not pass raises CheckFailed, and one that reads on is timed out.
        await probe(HttpCheck(f"http://127.0.0.1:{web.port}/events"))


async def test_tls() -> None:
    async with Web(answer(200), tls=serving()) as web:
        await probe(HttpCheck(f"https://localhost:{web.port}/", tls=trusting()))
        with pytest.raises(CheckFailed, match="certificate"):
            await probe(HttpCheck(f"https://localhost:{web.port}/"))
        with pytest.raises(CheckFailed, match="certificate"):
            await probe(HttpCheck(f"https://127.0.0.1:{web.port}/", tls=trusting()))


async def test_tcp() -> None:
    async with Web(b"") as web:
        await probe(TcpCheck(f"127.0.0.1:{web.port}"))
        await probe(TcpCheck("localhost", web.port))
    with ReservedPort() as reserved:
        with pytest.raises(CheckFailed, match="refused"):
            await probe(TcpCheck(f"127.0.0.1:{reserved.number}"))
        with pytest.raises(CheckFailed, match="refused"):
            await probe(HttpCheck(f"http://127.0.0.1:{reserved.number}/"))


async def test_a_name_that_is_not_known() -> None:
    with pytest.raises(CheckFailed, match=r"nosuch\.invalid"):
        await probe(TcpCheck("nosuch.invalid:80"))


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:8000", "ftp://localhost/", "http://", "http:///path", "http://localhost:0/",
        "http://localhost:65536/", "http://localhost:port/", "http://[::1/", "http://a b/", "http://h/a b",
        "http://h/\r\nX: y", "http://h\n/", "http://224.0.0.1/", "http://255.255.255.255/", "http://10.0.0.07/", 7,
        None,
    ],
)  # fmt: skip
def test_urls_that_nobody_answers_are_refused(url: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        HttpCheck(url)
    assert (raised.value.field, raised.value.value) == ("url", url)


def test_a_url_with_credentials_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidArgument) as raised:
        HttpCheck("http://user:secret@localhost/")
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(raised.value)


class Unanswering:
    def __contains__(self, _: object) -> bool:
        raise RuntimeError


@pytest.mark.parametrize(
    "options",
    [
        {"tls": True}, {"expected_statuses": 200}, {"expected_statuses": "200"}, {"interval": 0}, {"timeout": -1},
        {"expected_statuses": []}, {"expected_statuses": {"200"}}, {"expected_statuses": range(100)},
        {"expected_statuses": Unanswering()},
    ],
)  # fmt: skip
def test_options_of_http_that_are_wrong_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        HttpCheck("https://localhost/", **options)
    assert [raised.value.field] == [*options]


def test_tls_without_https_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        HttpCheck("http://localhost/", tls=trusting())


@pytest.mark.parametrize(
    "address",
    ["", "localhost", "localhost:", ":80", "localhost:0", "localhost:99999", "::1:80", "h:-1", "h:1.5", "a b:80", 7],
)
def test_places_that_nobody_connects_to_are_refused(address: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        TcpCheck(address)
    assert (raised.value.field, raised.value.value) == ("address", address)


def test_places_in_both_ways() -> None:
    assert TcpCheck("[::1]:80").describe() == TcpCheck("::1", 80).describe() == "[::1]:80"
    for port in (0, 65536, True, "80"):
        with pytest.raises(InvalidArgument):
            TcpCheck("localhost", port)  # type: ignore[arg-type] # what callers do


# ---------------------------------------------------------------- programs


async def test_a_program_passes_by_its_exit_code() -> None:
    await probe(CommandCheck("true"))
    await probe(CommandCheck(["sh", "-c", "exit 0"]))
    with pytest.raises(CheckFailed, match="exit code 3"):
        await probe(CommandCheck("sh -c 'exit 3'"))
    with pytest.raises(CheckFailed, match="SIGKILL"):
        await probe(CommandCheck(["sh", "-c", "kill -9 $$"]))


@pytest.fixture
async def family(tmp_path: Path) -> AsyncIterator[Path]:
    """A file that a process and its child write their ids to; neither may be left."""
    pids = tmp_path / "pids"
    yield pids
    async with asyncio.timeout(DEADLINE):
        for pid in map(int, pids.read_text().split()):
            while is_running(pid):
                await asyncio.sleep(0.01)


async def test_a_program_that_hangs_is_killed_with_its_children(family: Path) -> None:
    check = CommandCheck(["sh", "-c", f"sleep 1000 & echo $$ $! > {family}.new; mv {family}.new {family}; wait"])
    task = asyncio.ensure_future(probe(check))
    async with asyncio.timeout(DEADLINE):
        while not family.exists():
            await asyncio.sleep(0.01)
    assert all(is_running(pid) for pid in map(int, family.read_text().split()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_program_leaves_behind_is_killed(family: Path) -> None:
    # Fails by raising: the fixture asserts that nobody of the family is left.
    await probe(CommandCheck(["sh", "-c", f"sleep 1000 & echo $$ $! > {family}"]))


async def test_a_program_has_no_input_and_its_output_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    await probe(CommandCheck([sys.executable, "-c", "import sys; print(1); sys.exit(sys.stdin.read() != '')"]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("find . -exec true {} \\;", ["find", ".", "-exec", "true", "{}", ";"]),
        ("echo 'a;b' \"c|d\" e\\&f", ["echo", "a;b", "c|d", "e&f"]),
        ('echo "a\\"|b"', ["echo", 'a"|b']),
    ],
)
def test_what_a_shell_takes_literally_is_no_shell(command: str, words: list[str]) -> None:
    assert CommandCheck(command).describe() == shlex.join(words)


@pytest.mark.parametrize(
    "command",
    [
        "", "   ", "'", "nosuchprogram --flag", ["nosuchprogram"], [], [""], ["true", 1], 7, None, b"true",
        "curl -f http://localhost/ || exit 1", "true; false", "true > /dev/null", "true &", "a\0b", os.sep,
        "echo 'a' | cat", 'echo "\\"" ; true', "echo \\\\; true", "true # | cat",
    ],
)  # fmt: skip
def test_commands_that_are_not_there_are_refused(command: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        CommandCheck(command)
    assert (raised.value.field, raised.value.value) == ("command", command)


# ---------------------------------------------------------------- loops


async def test_a_loop_that_turns() -> None:
    # Fails by raising: a probe that does not pass raises CheckFailed.
    await probe(LoopLagCheck())


async def test_a_loop_that_was_blocked() -> None:
    check = LoopLagCheck(max_lag=0.5)
    task = asyncio.ensure_future(probe(check))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    threading.Event().wait(1.5)
    with pytest.raises(CheckFailed, match="late"):
        await task


async def test_the_loop_of_another_thread() -> None:
    loop, blocked, release = asyncio.new_event_loop(), threading.Event(), threading.Event()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    check = LoopLagCheck(loop)
    try:
        async with asyncio.timeout(DEADLINE):
            while not loop.is_running():
                await asyncio.sleep(0.01)
        await probe(check)

        def block() -> None:
            blocked.set()
            release.wait()

        loop.call_soon_threadsafe(block)
        await asyncio.to_thread(blocked.wait)
        waiting = asyncio.ensure_future(check.probe())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        release.set()
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait([waiting])
    finally:
        release.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    with pytest.raises(CheckFailed, match="does not run"):
        await check.probe()


@pytest.mark.parametrize(("field", "value"), [("loop", 7), ("max_lag", 0), ("max_lag", "1"), ("fall", 0)])
def test_options_of_loops_that_are_wrong_are_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        LoopLagCheck(**{field: value})
    assert (raised.value.field, raised.value.value) == (field, value)
