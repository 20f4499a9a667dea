"""The guard around code of others: one exception comes out, whatever went in, and the end of the process in order."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest

from aioregistry import _foreign as foreign
from tests.support.raising import ODD, raising


@pytest.mark.parametrize("kind", ODD)
def test_whatever_is_raised_comes_out_as_one_exception(kind: str) -> None:
    with pytest.raises(foreign.ForeignError) as raised:
        foreign.call(raising, kind)
    assert type(raised.value.error) is type(ODD[kind]())
    assert raised.value.__cause__ is raised.value.error
    assert type(raised.value.error).__name__ in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "raising" in foreign.traced(raised.value.error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ümläut 日本 😀", "ümläut 日本 😀"),
        ("a\nb\r", "a\\nb\\r"),
        ("\x1b[2J\x07\x00", "\\x1b[2J\\x07\\x00"),
        ("\x85\u2028\u2029", "\\x85\\u2028\\u2029"),
        ("pay\u202etset\u2066", "pay\\u202etset\\u2066"),
        ("\u200b\ufeff\u00ad\u3164\ufe0f", "\\u200b\\ufeff\\xad\\u3164\\ufe0f"),
        ("\ud800\ue000", "\\ud800\\ue000"),
        ("\U000e0001\U000e0100", "\\U000e0001\\U000e0100"),
    ],
)
def test_what_is_printable(text: str, shown: str) -> None:
    assert foreign.printable(text) == shown
    assert foreign.shown(ValueError(f"x{text}x")).isprintable()


@pytest.mark.parametrize("kind", ODD)
async def test_an_async_function_may_raise_anything(kind: str) -> None:
    async def function() -> None:
        raising(kind)

    with pytest.raises(foreign.ForeignError) as raised:
        await foreign.wait(function)
    # A coroutine cannot raise StopIteration: Python makes a RuntimeError of it.
    assert type(raised.value.error) is (RuntimeError if kind == "stop" else type(ODD[kind]()))


async def test_the_cancellation_of_whoever_waits_is_no_error_of_the_function() -> None:
    waiting = asyncio.ensure_future(foreign.wait(asyncio.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


def test_what_is_returned_is_returned() -> None:
    assert foreign.call(max, 1, 2, key=lambda number: -number) == 1


ENDINGS: list[Callable[[], BaseException]] = [
    KeyboardInterrupt,
    lambda: SystemExit(3),
    lambda: BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [SystemExit(3)])]),
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_of_the_process_comes_at_once_where_no_loop_runs(ending: Callable[[], BaseException]) -> None:
    def end() -> None:
        raise ending()

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        foreign.call(end)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_of_the_process_comes_after_what_is_under_way(ending: Callable[[], BaseException]) -> None:
    done = []

    def end() -> None:
        raise ending()

    async def main() -> None:
        with pytest.raises(foreign.ForeignError):
            foreign.call(end)
        done.append("what was under way")
        try:
            await asyncio.sleep(60)
        finally:
            done.append("the rest")

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        asyncio.run(main())
    assert done == ["what was under way", "the rest"]


PROGRAM = """
import asyncio, sys, aioregistry
from aioregistry.server import ZooKeeperServer

async def main():
    def on_event(name, fields):
        if fields.get("status") == "live":
            sys.exit(3)

    async with ZooKeeperServer() as server:
        async with aioregistry.connect(server.address, on_event=on_event) as registry:
            async with registry.register(aioregistry.ServiceInstance("chat", id="a")):
                await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_hook_may_end_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 3, ended.stderr
