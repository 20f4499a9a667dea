"""The duties of a container's first process: it passes signals on, and reaps every process that has died.

The kernel drops every signal for process 1 that it has no handler for, and gives it all orphans, which stay as zombies
until somebody waits for them. So the work is done in a child, to which process 1 passes every signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

from .child import exit_code_of

__all__ = ["as_init", "passed_on"]

_OWN_FAULTS: Final = frozenset(
    {
        *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP),
        *(signal.SIGKILL, signal.SIGSTOP),
        *(signal.SIGTTIN, signal.SIGTTOU),  # of the process that uses the terminal
    }
)


def passed_on() -> set[signal.Signals]:
    """Return the signals that are for a child as much as for this process; not SIGCHLD, which tells of one."""
    return set(signal.Signals) - _OWN_FAULTS - {signal.SIGCHLD, signal.SIGPIPE}


def as_init(work: Callable[[], int]) -> int:
    """Do *work* in a child process, as process 1 of a container has to; return the exit code.

    In the child, it returns what *work* does.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a process that ignores it cannot wait for a child
    heeded = passed_on() | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # or a terminal's Ctrl-C would come twice
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return work()
    while True:
        number = signal.sigwait(heeded)
        if number == signal.SIGCHLD:
            code = _reaped(child)
            if code is not None:
                return exit_code_of(code)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)


def _reaped(child: int) -> int | None:
    """Wait for all that have ended; return the exit code of *child*, or None."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
