"""The console's standard error without ``-v``: nobody may have a page open."""

from __future__ import annotations

from pathlib import Path

import httpx

from aioregistry._console.passwords import hashed
from aioregistry.server import ZooKeeperServer
from tests.cli.command import Command


async def test_outages_and_failed_logins_are_on_stderr(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"ann:{hashed('correct horse', b'0' * 16)}\n")
    options = ("--listen", "127.0.0.1:0", "--password-file", str(users), "--session-timeout", "2")
    async with ZooKeeperServer() as server, Command("console", "--zookeeper", server.address, *options) as command:
        url = await command.line()
        async with httpx.AsyncClient(base_url=url, timeout=100) as http:
            form = {"user": "ann", "password": "wrong", "next": "/"}
            answer = await http.post("/login", data=form, headers={"origin": url.rstrip("/")})
        assert answer.status_code == 401
        assert "'ann'" in (await command.error_lines_until("a login as "))[-1]
        await server.stop()
        told = (await command.error_lines_until("no connection to ZooKeeper for "))[-1]
        assert server.address in told
        await server.start()
        assert (await command.error_lines_until("the outage is over after "))[-1].startswith("aioregistry: warning: ")
