"""The blocks of docs/how-to/logging.md for web servers, under the servers themselves, as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aioregistry.testing._ports import ReservedPort

TIMEOUT = 100.0
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/logging.md"

ASGI = """
import os

from starlette.applications import Starlette

from aioregistry.integrations.starlette import Membership, lifespan

port = int(os.environ["PORT"])
membership = Membership(os.environ["SERVERS"], "chat", id="a", address="127.0.0.1", port=port, drain=0)
app = Starlette(lifespan=lifespan(membership))
"""
WSGI = """
import os

from aioregistry import ServiceInstance, blocking

registry = blocking.connect(os.environ["SERVERS"])
me = registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=7000))


def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
"""
OPENED = """

def post_worker_init(worker):
    from app import me

    me.open()
"""


def block(*words: str) -> str:
    """The one block of the page that has all the words."""
    (found,) = (
        text.removeprefix("python\n")
        for text in PAGE.read_text(encoding="utf-8").split("```")[1::2]
        if all(word in text for word in words)
    )
    return found


@asynccontextmanager
async def running(*command: str, folder: Path, **environment: str) -> AsyncIterator[Process]:
    """`python COMMAND` in a folder; killed with all of its group at the end if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "HOME": str(folder)} | environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def lines_of(process: Process) -> list[str]:
    """The lines of a server that is asked to end as soon as its instance is listed."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(TIMEOUT):
        while "is listed:" not in "".join(lines[-1:]):
            line = await process.stdout.readline()
            assert line, lines
            lines.append(line.decode().rstrip("\n"))
        process.send_signal(signal.SIGTERM)
        rest, _ = await process.communicate()
    return [*lines, *rest.decode().splitlines()]


def uvicorn_command(folder: Path, port: int, *more: str) -> list[str]:
    """The block for uvicorn, with the host and the port of this test, as a program beside the application."""
    setup, call, options = block("LOGGING_CONFIG", "run(").partition("run(")
    options = options.replace('"0.0.0.0"', '"127.0.0.1"').replace("8000", str(port))
    (folder / "app.py").write_text(ASGI)
    (folder / "serve.py").write_text("".join([setup, *more, call, options]))
    return ["serve.py"]


def gunicorn_command(folder: Path, port: int, *more: str) -> list[str]:
    (folder / "app.py").write_text(WSGI)
    (folder / "gunicorn.conf.py").write_text("".join([block("CONFIG_DEFAULTS", "import"), *more, OPENED]))
    return ["-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "app:app"]


COMMANDS = {
    "uvicorn": (uvicorn_command, 'log_config["formatters"]'),
    "gunicorn": (gunicorn_command, 'logconfig_dict["formatters"]'),
}


@pytest.mark.parametrize("server", COMMANDS)
async def test_our_lines_come_out_once_beside_the_servers_own(servers: str, tmp_path: Path, server: str) -> None:
    make, _ = COMMANDS[server]
    with ReservedPort() as port:
        command = make(tmp_path, port.number)
        async with running(*command, folder=tmp_path, SERVERS=servers, PORT=str(port.number)) as process:
            lines = await lines_of(process)
    path = f"/{servers.partition('/')[2]}/services/chat/a"
    for ours in (f"{path} is listed: ", f"{path} is withdrawn"):
        (line,) = (line for line in lines if ours in line)
        assert "INFO" in line.partition(ours)[0]
    own = [line for line in lines if "aioregistry" not in line and path not in line]
    assert own
    assert len(own) == len(set(own)), "a line of the server itself came out twice"


@pytest.mark.parametrize("server", COMMANDS)
async def test_the_line_for_json_gives_our_fields(servers: str, tmp_path: Path, server: str) -> None:
    make, word = COMMANDS[server]
    with ReservedPort() as port:
        command = make(tmp_path, port.number, block(word))
        async with running(*command, folder=tmp_path, SERVERS=servers, PORT=str(port.number)) as process:
            records: list[dict[str, Any]] = [json.loads(line) for line in await lines_of(process)]
    path = f"/{servers.partition('/')[2]}/services/chat/a"
    about = {"logger": "aioregistry.registration", "level": "info", "service": "chat", "id": "a", "path": path}
    (listed,) = (record for record in records if record.get("status") == "live")
    assert {name: listed.get(name) for name in about} == about
    assert listed["message"].startswith(f"{path} is listed: ")
    (session,) = {record["session"] for record in records if record["logger"] == "aioregistry.session"}
    assert session.startswith("0x")
    assert {record["logger"].partition(".")[0] for record in records} == {"aioregistry", server}


async def test_a_handler_at_the_root_is_left_alone_by_uvicorn(servers: str, tmp_path: Path) -> None:
    call = 'logging.basicConfig(level="INFO")'
    assert f"Or call `{call}` in your module" in PAGE.read_text(encoding="utf-8")
    (tmp_path / "app.py").write_text(f"import logging\n\n{call}\n{ASGI}")
    with ReservedPort() as port:
        command = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port.number), "app:app")
        async with running(*command, folder=tmp_path, SERVERS=servers, PORT=str(port.number)) as process:
            lines = await lines_of(process)
    path = f"/{servers.partition('/')[2]}/services/chat/a"
    (listed,) = (line for line in lines if f"{path} is listed: " in line)
    assert listed.startswith("INFO:aioregistry.registration:")
