"""Other clients' own tests, from their installed packages, in processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INI = ("mode=auto", "default_fixture_loop_scope=function")


async def run_suite(*arguments: str, environment: Mapping[str, str], deadline: float) -> Counter[str]:
    """Run pytest on a suite that is not ours; how many tests had which outcome.

    Fails with its output if one fails; with what each of its threads does, if it is not done after *deadline* seconds.
    """
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-B", "-m", "pytest", *arguments, "-c", os.devnull, "-p", "no:cacheprovider"),
            *("--color=no", *(f"--override-ini=asyncio_{name}" for name in INI)),
            cwd=ROOT,
            env=os.environ | environment,
            stdout=said,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(deadline):
                await process.wait()
        except TimeoutError:
            process.send_signal(signal.SIGABRT)  # at which faulthandler, which pytest enables, writes all stacks
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said.seek(0)
        output = said.read().decode()
    if process.returncode != 0:
        pytest.fail(output)
    # Complaints of a suite's background threads may follow the summary.
    (summary,) = re.findall(r"^=*.*\d+ passed.* in [\d.]+s.*$", output, re.MULTILINE)
    counts = re.findall(r"(\d+) (passed|failed|skipped|deselected|errors?|xfailed|xpassed)", summary)
    return Counter({outcome: int(count) for count, outcome in counts})
