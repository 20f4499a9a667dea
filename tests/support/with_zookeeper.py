"""Run a command beside a ZooKeeper of its own: `python -m tests.support.with_zookeeper COMMAND ARGUMENT…`.

The command finds the server in the environment, as AIOREGISTRY_ZOOKEEPER.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.support.zookeeper import ZooKeeperServer


def run(command: list[str]) -> int:
    with ZooKeeperServer() as server:
        server.launch()
        server.wait_until_serving()
        process = subprocess.Popen(command, env=os.environ | {"AIOREGISTRY_ZOOKEEPER": server.address})
        # The keyboard interrupts the command too, which ends in its own time; the server goes last.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
