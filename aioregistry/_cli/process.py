"""A command as a process: signals end it in order, errors are one line and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from .._errors import (
    ConnectTimeout,
    InvalidArgument,
    NoAuth,
    RegistrationDisplaced,
    RegistryError,
)
from .text import printable

DONE, FAILED, USAGE, DISPLACED = range(4)

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What users, supervisors and terminals that go away ask a process to end by."""

# What to do about it, where the error itself does not say so.
ADVICE: dict[type[Exception], str] = {
    ConnectTimeout: "is ZooKeeper running there? --zookeeper or AIOREGISTRY_ZOOKEEPER names its servers",
    NoAuth: "the ACL of that node does not let this client in",
}


def run(command: Coroutine[Any, Any, int]) -> int:
    """Run *command* to its end, or to a signal that asks to end, which cancels it; return the exit code."""
    # A command speaks by its own lines; without a handler Python prints the library's warnings between them.
    logging.getLogger("aioregistry").addHandler(logging.NullHandler())
    logging.getLogger("aioregistry.registry").addHandler(_told_on_stderr())  # what else nobody would say
    try:
        return asyncio.run(_until_signalled(command))
    except BrokenPipeError:
        _forget_stdout()
        return DONE
    except InvalidArgument as error:
        return _fail(USAGE, error)
    except RegistrationDisplaced as error:
        return _fail(DISPLACED, error)
    except (RegistryError, OSError) as error:
        return _fail(FAILED, error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _told_on_stderr() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("aioregistry: warning: %(message)s"))
    return handler


async def _until_signalled(command: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(command)

    signals = [number for number in _ENDING if not _ignored_by_nohup(number)]

    def stop() -> None:
        # A second signal finds the default action: whoever insists need not wait for the withdrawal.
        for number in signals:
            loop.remove_signal_handler(number)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return DONE  # being ended is how these commands are done


def _ignored_by_nohup(number: signal.Signals) -> bool:
    # SIGINT is another matter: shells let every background process of a script ignore it.
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def cancel_this_task() -> Callable[[], object]:
    """Return what ends the running command as a signal does."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancel


def _fail(code: int, error: Exception) -> int:
    advice = next((f" ({text})" for kind, text in ADVICE.items() if isinstance(error, kind)), "")
    line = printable(" ".join(str(error).split())) or type(error).__name__
    with contextlib.suppress(OSError):  # a terminal that went away; the exit code tells
        print(f"aioregistry: {line}{advice}", file=sys.stderr)
    return code


def _forget_stdout() -> None:
    # Whoever read our output has gone, which is how `| head` ends us; Python would complain when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
