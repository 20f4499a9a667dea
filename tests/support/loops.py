"""A pytest plugin that runs the tests on another event loop: `pytest -p tests.support.loops --loop uvloop`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping

import pytest
import uvloop


def eager_loop() -> asyncio.AbstractEventLoop:
    """asyncio's own loop, whose tasks run at once until their first wait (Python 3.12)."""
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = eager_loop


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", choices=sorted(LOOPS), required=True, help="the event loop that tests run on")


def pytest_asyncio_loop_factories(config: pytest.Config) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    name = config.getoption("--loop")
    return {name: LOOPS[name]}
