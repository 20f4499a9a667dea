"""`aioregistry server`: the embedded server as a process."""

from __future__ import annotations

import argparse
import asyncio
import sys

from ..server import ZooKeeperServer
from .process import DONE

NOTICE = "an in-memory server for development: nothing is kept when it ends; production is a real ensemble"


async def server(arguments: argparse.Namespace) -> int:
    """Serve until cancelled; one line on standard output tells the address when it listens."""
    print(arguments.form.said(NOTICE), file=sys.stderr, flush=True)
    async with ZooKeeperServer(arguments.host, arguments.port, version=arguments.version) as running:
        print(running.address, flush=True)
        await asyncio.get_running_loop().create_future()
    return DONE
