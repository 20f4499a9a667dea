"""The applications of the documentation are served, as they are written there, on a real ZooKeeper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from typing import Any

import aiohttp
import pytest

from aioregistry import Registry
from tests.frameworks.load import ROOT, TIMEOUT, ServerProcess

APPLICATION = re.compile(r"^```python\n((?:(?!^```).)*^    run\(app,(?:(?!^```).)*)^```$", re.MULTILINE | re.DOTALL)


def application(page: str) -> str:
    (found,) = APPLICATION.findall((ROOT / page).read_text(encoding="utf-8"))
    return str(found)


async def until_answer(http: aiohttp.ClientSession, url: str, expected: Any) -> None:
    """Ask until the answer is the expected one."""
    answer = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            while answer != expected:
                async with http.get(url) as response:
                    answer = await response.json()
    assert answer == expected


@pytest.mark.parametrize(
    ("page", "service", "answers"),
    [
        ("README.md", "api", {"/servers": []}),
        ("docs/integrations/fastapi.md", "chat", {"/servers": {"SELF": "eu-1"}, "/services": ["chat"]}),
        ("docs/integrations/starlette.md", "chat", {"/servers": ["SELF"], "/services": ["chat"]}),
    ],
)
async def test_the_application_of_a_page(
    page: str, service: str, answers: dict[str, Any], servers: str, registry: Registry, http: aiohttp.ClientSession
) -> None:
    program = application(page)
    for written, meant in {
        "127.0.0.1:2181": servers,
        "port=8000, ": "port=PORT, drain=0.1, ",
        "port=8000)": "port=PORT)",
        "0.0.0.0": "127.0.0.1",
    }.items():
        assert written in program
        program = program.replace(written, meant)
    async with ServerProcess("-W", "error", "-c", program) as server, registry.discover(service) as view:
        me = f"127.0.0.1:{server.port}"
        await view.wait_for(lambda snapshot: me in snapshot, TIMEOUT)
        # Others may know that it is listed before it does.
        await until_answer(http, f"http://{me}/ready", {"ready": True, "status": "live", "reason": None})
        for path, expected in answers.items():
            await until_answer(http, f"http://{me}{path}", json.loads(json.dumps(expected).replace("SELF", me)))
        server.send(signal.SIGTERM)
        assert await server.exit_code() == -signal.SIGTERM
        assert len(await view.sync()) == 0
