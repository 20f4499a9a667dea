"""A program that is started, sent signals, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import Final

from aioregistry import RegistryError
from aioregistry._concurrency import in_daemon_thread

__all__ = ["Child", "NotStarted", "exit_code_of"]

_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
"""The exit codes of shells and env(1)."""

_SIGNALLED: Final = 128


class NotStarted(RegistryError):
    """There is no such program, or it cannot be run; ``exit_code`` is the one that a shell would end with."""

    def __init__(self, program: str, reason: str, exit_code: int) -> None:
        super().__init__(f"command={program!r}: {reason}")
        self.exit_code = exit_code


def exit_code_of(code: int) -> int:
    """Return the exit code of a process whose child ended with *code*, where a negative one is a signal's."""
    return _SIGNALLED - code if code < 0 else code


class Child:
    """Runs *words*, a program and its arguments, in a session of its own: a terminal's Ctrl-C goes to us alone.

    Raises NotStarted where it is certain that there is no such program.
    """

    exited: asyncio.Future[int]
    """Its exit code, negative for a signal."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._process: subprocess.Popen[bytes] | None = None
        program = self._words[0]
        if shutil.which(program) is None:
            there = os.sep in program and os.path.exists(program)  # noqa: PTH110 - of a text that may be no path
            raise _not_executable(program) if there else _not_found(program)

    @property
    def program(self) -> str:
        """The program that is run, without its arguments."""
        return self._words[0]

    def start(self) -> None:
        """Start it; raises NotStarted."""
        try:
            self._process = subprocess.Popen(self._words, start_new_session=True)
        except FileNotFoundError:
            raise _not_found(self.program) from None
        except OSError:
            raise _not_executable(self.program) from None
        self.exited = in_daemon_thread(self._process.wait, name="aioregistry-child")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _not_found(program: str) -> NotStarted:
    return NotStarted(program, "there is no such program", _NOT_FOUND)


def _not_executable(program: str) -> NotStarted:
    return NotStarted(program, "it cannot be run: it is not a program, or you may not execute it", _NOT_EXECUTABLE)
