"""The applications of the documentation are served, as they are written there, on a real ZooKeeper."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import aiohttp
import pytest

from aioregistry import Registry
from tests.integrations.load import ROOT, TIMEOUT, ServerProcess

APPLICATION = re.compile(r"^```python\n((?:(?!^```).)*^    run\(app,(?:(?!^```).)*)^```$", re.MULTILINE | re.DOTALL)


def application(page: str) -> str:
    (found,) = APPLICATION.findall((ROOT / page).read_text(encoding="utf-8"))
    return str(found)


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
        async with http.get(f"http://{me}/ready") as response:
            assert await response.json() == {"ready": True, "status": "live", "reason": None}
        for path, expected in answers.items():
            async with http.get(f"http://{me}{path}") as response:
                assert await response.text() == json.dumps(expected, separators=(",", ":")).replace("SELF", me)
        server.send(signal.SIGTERM)
        assert await server.exit_code() == -signal.SIGTERM
        assert len(await view.sync()) == 0
