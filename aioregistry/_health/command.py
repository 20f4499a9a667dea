"""A check that runs a program."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from aioregistry._concurrency import in_daemon_thread
from aioregistry._errors import InvalidArgument, InvalidType, wrong_argument
from aioregistry._reasons import reason_of

from .check import Check, CheckFailed, Initial

__all__ = ["CommandCheck", "words_of_line"]

_LITERAL: Final = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
"""The parts of a line in which a shell sees no operators."""

_OPERATORS: Final = frozenset("|&;<>()")


class CommandCheck(Check):
    """Passes when a program ends with exit code 0.

    It runs without a shell and without input, in a process group of its own, and its output is dropped. When its time
    is over, or when it has ended, all processes of the group are killed.

    Args:
        command: the program and its arguments, as a sequence, or as a text that is split as a shell splits it.
        interval: as for :class:`Check`.
        timeout: as for :class:`Check`.
        rise: as for :class:`Check`.
        fall: as for :class:`Check`.
        initial: as for :class:`Check`.

    Raises:
        InvalidArgument: an argument is wrong, or there is no such program; names it and its value.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        interval: float = 5.0,
        timeout: float = 1.0,
        rise: int = 1,
        fall: int = 3,
        initial: Initial = "failing",
    ) -> None:
        super().__init__(self._run, interval=interval, timeout=timeout, rise=rise, fall=fall, initial=initial)
        self._words = _words(command)
        if shutil.which(self._words[0]) is None:
            raise InvalidArgument("command", command, f"there is no program {self._words[0]!r}")

    async def _run(self) -> None:
        process = _started(self._words)
        try:
            code = await in_daemon_thread(process.wait, name="aioregistry-check")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # no process is left; or another user's
                os.killpg(process.pid, signal.SIGKILL)
        if code < 0:
            raise CheckFailed(f"{self._words[0]} was ended by {_signal_name(-code)}")
        if code:
            raise CheckFailed(f"{self._words[0]} ended with exit code {code}")

    def describe(self) -> str:
        """Return the command, as you would type it in a shell."""
        return shlex.join(self._words)


def _started(words: list[str]) -> subprocess.Popen[bytes]:
    # Not asyncio's: a cancellation while that starts a program kills the program and not its children.
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise CheckFailed(f"{words[0]} was not started: {reason_of(error)}") from error


def words_of_line(field: str, line: str) -> list[str]:
    """Return the words of *line*, as a shell splits it.

    Raises:
        InvalidArgument: it is for a shell, which does not run it; or it has a quotation without an end.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        raise InvalidArgument(field, line, "has a quotation without an end") from None
    if not _OPERATORS.isdisjoint(_LITERAL.sub("", line)):
        raise InvalidArgument(field, line, "is run without a shell: give sh -c '…' for a line of one")
    return words


def _words(command: object) -> list[str]:
    words: list[Any]
    if isinstance(command, str):
        words = words_of_line("command", command)
    else:
        words = list(command) if isinstance(command, Sequence) and not isinstance(command, bytes) else []
    if not all(isinstance(word, str) for word in words) or not isinstance(command, Sequence):
        raise InvalidType("command", command, "give a program and its arguments as strings")
    if not words or any("\0" in word for word in words) or not words[0]:
        raise wrong_argument("command", command, "give a program and its arguments as strings", str, list, tuple)
    return words


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
