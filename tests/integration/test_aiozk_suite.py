"""aiozk's own tests, from its installed package, on our session and a real server.

They run in processes of their own, because the plugin replaces ``aiozk.session.Session`` for the whole process; half
of them at a time, each on a server of its own, because they sleep most of the time and clean up `/test_aiozk`.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter
from pathlib import Path

import aiozk
import pytest

from tests.conftest import StartZooKeeper
from tests.support.processes import outcome_of
from tests.support.zookeeper import ZooKeeperServer

ROOT = Path(__file__).parents[2]
AIOZK = Path(aiozk.__file__).parent
DEADLINE = 180.0

# Tests that another session cannot pass: these run aiozk's own session or connection on mocks.
THEIRS = {
    "test_connection.py::test_close_cancels_read_loop_task": "aiozk's connection and its task that reads",
    "test_connection.py::test_close_connection_in_state_closing_do_not_performs_abort": "aiozk's connection",
    "test_connection.py::test_connection_abort": "aiozk's connection",
    "test_session.py::test_close_not_started": "the flag `closing` of aiozk's session",
    "test_session.py::test_close_produces_no_error_log": "what aiozk's session logs of its task that repairs",
    "test_session.py::test_find_server": "how aiozk's session looks for servers, with its retry policy mocked",
    "test_session.py::test_repair_loop_task_cancellation_produces_error_log": "the same task, cancelled from outside",
    "test_session.py::test_send_bad_version": "a mocked connection's error",
    "test_session.py::test_send_canceled": "a mocked connection's error, the retry policy cleared",
    "test_session.py::test_send_connection_error": "a defect: whatever the request is, a lost one is sent again",
    "test_session.py::test_send_good_case": "a mocked connection's answer, the retry policy cleared",
    "test_session.py::test_send_no_node": "a mocked connection's error, the retry policy cleared",
    "test_session.py::test_send_unknown_error": "a mocked connection's error, the retry policy cleared",
    "test_session.py::test_session_close_heartbeat_cancellation": "a mock in the place of aiozk's heartbeat task",
    "test_session.py::test_start_session_twice": "a mocked connection, the task that repairs",
}
PASSING = 70


async def test_aiozks_own_tests_pass_on_our_session(start_zookeeper: StartZooKeeper) -> None:
    # An hour between two sweeps: a test expects that the container of its nodes outlives them.
    settings = {"tick_time_ms": 200, "container_check_interval_ms": 3_600_000}
    servers = await asyncio.gather(*(start_zookeeper(**settings) for _ in range(2)))
    watchers = str(AIOZK / "test" / "test_watchers.py")
    outcomes = await asyncio.gather(
        run_aiozks_tests(servers[0], watchers),
        run_aiozks_tests(servers[1], "--pyargs", "aiozk.test", f"--ignore={watchers}"),
    )
    assert sum(outcomes, Counter()) == {"passed": PASSING, "deselected": len(THEIRS)}


async def run_aiozks_tests(server: ZooKeeperServer, *selection: str) -> Counter[str]:
    """How many had which outcome."""
    options = {"asyncio_mode": "auto", "asyncio_default_fixture_loop_scope": "function"}
    code, told, _ = await outcome_of(
        *(sys.executable, "-B", "-m", "pytest", *selection, "-c", os.devnull, f"--rootdir={AIOZK}", "-W", "error"),
        *("-p", "tests.integration.aiozk_on_ours", "-p", "no:cacheprovider", "--color=no"),
        *(f"--override-ini={name}={value}" for name, value in options.items()),
        *(f"--deselect=test/{name}" for name in THEIRS),
        cwd=ROOT,
        env=os.environ | {"ZK_HOST": server.host, "ZK_PORT": str(server.port)},
        stderr=asyncio.subprocess.STDOUT,
        seconds=DEADLINE,
    )
    output = told.decode()
    if code != 0:
        pytest.fail(output)
    summary = output.splitlines()[-1]
    return Counter({outcome: int(count) for count, outcome in re.findall(r"(\d+) ([a-z]+)", summary)})
