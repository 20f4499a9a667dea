"""The least that an installed aioregistry must do; `nox -s package` runs it, far from the sources.

python -I smoke.py VERSION [EXTRA…]
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.resources
import subprocess
import sys
from pathlib import Path

import aioregistry
from aioregistry import RegistryError, ServiceInstance
from aioregistry.server import ZooKeeperServer

EXTRAS = ("aiohttp", "fastapi", "httpx", "httpx2", "starlette", "uvicorn")
# The other extras that an extra brings along.
BROUGHT = {"console": {"starlette", "uvicorn"}, "fastapi": {"starlette"}}
DEADLINE = 30.0


async def registers_and_finds() -> None:
    """One instance on the embedded server, seen by a view."""
    async with ZooKeeperServer() as server, aioregistry.connect(server.address) as registry:
        me = ServiceInstance("chat", address="127.0.0.1", port=7000, payload={"zone": "eu-1"})
        async with registry.register(me), registry.discover("chat") as view:
            snapshot = await view.wait_for(lambda snapshot: len(snapshot) == 1, DEADLINE)
            check(snapshot["127.0.0.1:7000"].payload == {"zone": "eu-1"}, "the payload is another")


def check(holds: bool, otherwise: str) -> None:
    """Raise AssertionError with *otherwise* unless it holds, also where Python leaves asserts out."""
    if not holds:
        raise AssertionError(otherwise)


def integrations(extras: set[str]) -> None:
    """Those that are installed can be imported; the others say what installs them."""
    installed = extras | {also for extra in extras for also in BROUGHT.get(extra, ())}
    for name in EXTRAS:
        try:
            importlib.import_module(f"aioregistry.integrations.{name}")
        except ModuleNotFoundError as missing:
            check(name not in installed, f"{name} is installed: {missing}")
            check(f"install aioregistry-zookeeper[{name}] as" in str(missing), str(missing))
        else:
            check(name in installed, f"{name} is not installed")
    commands(installed)


def commands(installed: set[str]) -> None:
    """Those of an extra can be imported, or say what installs them."""
    for name in ("console", "top"):
        try:
            importlib.import_module(f"aioregistry._cli.{name}")
        except RegistryError as missing:
            check(name not in installed, f"{name} is installed: {missing}")
            check(f"install aioregistry-zookeeper[{name}] as" in str(missing), str(missing))
        else:
            check(name in installed, f"{name} is not installed")
    if "console" in installed:
        package = importlib.resources.files("aioregistry._console")
        for file in ("templates/page.html", "templates/login.html", "static/console.js", "static/console.css"):
            check(bool((package / file).read_bytes()), f"{file} is empty")


def command(version: str) -> None:
    """The command is there and says the version."""
    script = Path(sys.executable).with_name("aioregistry")
    for words in ([str(script)], [sys.executable, "-m", "aioregistry"]):
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=True, timeout=DEADLINE)
        check(done.stdout == f"aioregistry {version}\n", done.stdout)


def main(version: str, *extras: str) -> None:
    """Raise where something is wrong."""
    check("site-packages" in aioregistry.__file__, f"not what was installed: {aioregistry.__file__}")
    check(aioregistry.__version__ == version, aioregistry.__version__)
    command(version)
    integrations(set(extras))
    asyncio.run(registers_and_finds())
    print("works with", ", ".join(extras) or "no extra")


if __name__ == "__main__":
    main(*sys.argv[1:])
