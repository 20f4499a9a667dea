"""Programs that a command runs and waits for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO, Final

from aioregistry import InvalidArgument
from aioregistry._concurrency import in_daemon_thread
from aioregistry._health.command import words_of_line

from .child import exit_code_of

__all__ = ["PLACES", "complaint_of", "found", "words_of"]

PLACES: Final = ("/usr/sbin", "/usr/local/sbin")
"""Where packages put servers' programs: folders that are not on the PATH of every user."""

_LONGEST_COMPLAINT: Final = 500


def found(program: str) -> str | None:
    """Return the path of *program*, by PATH or in one of :data:`PLACES`; None where there is no such program."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(PLACES))


def words_of(field: str, command: str) -> list[str]:
    """Return the program and the arguments of *command*.

    Raises InvalidArgument where there is no such program, or where the command is a line for a shell.
    """
    words = words_of_line(field, command)
    if not words or shutil.which(words[0]) is None:
        raise InvalidArgument(field, command, f"there is no program {(words or [''])[0]!r}")
    return words


async def complaint_of(words: Sequence[str], *, timeout: float) -> str | None:
    """Run a program without input; return None when it ends with exit code 0, else how it ended and what it said last.

    Args:
        words: the program and its arguments.
        timeout: seconds after which it is killed, with all of its process group; also when this is cancelled.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = _started(words, output)
        except OSError:
            return f"{words[0]} cannot be run"
        code: int | None = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    code = await in_daemon_thread(process.wait, name="aioregistry-program")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        if code == 0:
            return None
        ended = f"did not end within {timeout:g} s" if code is None else f"ended with {exit_code_of(code)}"
        said = _last_words(output)
    return f"{words[0]} {ended}" + (f": {said}" if said else "")


def _started(words: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )


def _last_words(output: IO[bytes]) -> str:
    end = output.seek(0, os.SEEK_END)
    output.seek(max(0, end - _LONGEST_COMPLAINT))
    return " ".join(output.read().decode("utf-8", "replace").split())
