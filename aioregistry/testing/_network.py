"""The thread that servers and proxies of tests run on.

A test's blocked event loop blocks the test's client only, never the network; and what runs here may be used from tests
with an event loop of any kind, or without one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

__all__ = ["COMMAND_TIMEOUT", "network", "on_network", "run_on_network"]

T = TypeVar("T")

COMMAND_TIMEOUT: Final = 10.0
"""Seconds that a command may take on the network's thread."""


@functools.cache
def network() -> asyncio.AbstractEventLoop:
    """Return the event loop of all proxies and servers, on a daemon thread that ends with the process."""
    loop = asyncio.SelectorEventLoop()  # asyncio's own, whatever loop the tests run on
    threading.Thread(target=loop.run_forever, name="aioregistry.testing", daemon=True).start()
    return loop


def on_network(command: Callable[[], T]) -> T:
    """Run *command* on the network's thread; return its result or raise its exception."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = command()
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            done.set_exception(error)
        else:
            # One turn later: an aborted transport closes its socket in the turn after the command.
            network().call_soon(done.set_result, result)

    network().call_soon_threadsafe(run)
    return done.result(COMMAND_TIMEOUT)


def run_on_network(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* on the network's thread to its end; return its result or raise its exception.

    One that takes longer than COMMAND_TIMEOUT is cancelled, and TimeoutError raised.
    """

    async def bounded() -> T:
        async with asyncio.timeout(COMMAND_TIMEOUT):
            return await coroutine

    return asyncio.run_coroutine_threadsafe(bounded(), network()).result()
