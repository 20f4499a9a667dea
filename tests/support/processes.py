"""Processes: a program that a test runs to its end, and processes that it watches without being their parent."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path

__all__ = ["is_running", "outcome_of"]


async def outcome_of(
    *command: str,
    seconds: float,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stderr: int | None = PIPE,
) -> tuple[int, bytes, bytes]:
    """Run a program without input to its end, and return its exit code, standard output and standard error.

    A program that has not ended after so many seconds is killed, and TimeoutError raised.
    """
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdin=DEVNULL, stdout=PIPE, stderr=stderr
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out, err or b""


def is_running(pid: int) -> bool:
    """Return whether a process runs. A dead one without a parent stays until somebody else reaps it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between opening and reading
        return False
    return state not in {"Z", "X"}
