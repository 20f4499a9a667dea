"""A command as a process: signals end it in order, errors are one line and an exit code."""

from __future__ import annotations

import argparse
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
from . import logs, options

DONE, FAILED, USAGE, DISPLACED = range(4)

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The signals by which users, supervisors and closed terminals ask a process to end; images of containers name
SIGQUIT, too (``STOPSIGNAL``)."""

# The remedy, where the error itself does not name it.
ADVICE: dict[type[Exception], str] = {
    ConnectTimeout: "is ZooKeeper running there? --zookeeper or AIOREGISTRY_ZOOKEEPER names its servers",
    NoAuth: "the ACL of that node does not let this client in",
}


def run(
    command: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
    arguments: argparse.Namespace,
    *,
    heeds_signals: bool = False,
) -> int:
    """Run *command* to its end, or to a signal that asks to end, which cancels it; return the exit code.

    Args:
        command: gets the arguments; its shared options have their values, and ``form`` makes its lines for
            stderr; ``own_lines`` holds back of the log what the command says itself.
        arguments: as parsed.
        heeds_signals: whether the command itself does what signals ask for.
    """
    arguments.form = logs.Format(as_json=options.wants_json(arguments))
    try:
        options.apply(arguments)
    except InvalidArgument as error:
        return _refuse(error, arguments)
    as_json = getattr(arguments, "log_format", "text") == "json"
    arguments.form = logs.Format(as_json=as_json)
    arguments.own_lines = logs.OwnLines()
    handler = logs.begin(getattr(arguments, "verbose", 0), arguments.own_lines, as_json=as_json)
    try:
        return _ended(command, arguments, heeds_signals=heeds_signals)
    finally:
        logs.end(handler)


def _ended(
    command: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
    arguments: argparse.Namespace,
    *,
    heeds_signals: bool,
) -> int:
    try:
        running = command(arguments)  # imports what the command needs, which a signal may interrupt
        return asyncio.run(running if heeds_signals else _until_signalled(running))
    except BrokenPipeError:
        _forget_stdout()
        return DONE
    except InvalidArgument as error:
        return _refuse(error, arguments)
    except RegistrationDisplaced as error:
        return _fail(DISPLACED, error, arguments.form)
    except (RegistryError, OSError) as error:
        return _fail(FAILED, error, arguments.form)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


async def _until_signalled(command: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(command)

    signals = [number for number in _ENDING if not is_ignored(number)]

    def stop() -> None:
        # A second signal finds the default action: a user who insists need not wait for the withdrawal.
        for number in signals:
            loop.remove_signal_handler(number)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not task.cancelling():  # code within gave up, and gave no reason
            raise RegistryError("the command was cancelled from within: please report this") from None
        return DONE  # being ended is how these commands are done


def is_ignored(number: signal.Signals) -> bool:
    """Return whether a signal is to be ignored, as nohup(1) asks for."""
    # SIGINT is another matter: shells let every background process of a script ignore it.
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def cancel_this_task() -> Callable[[], object]:
    """Return what ends the running command as a signal does."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancel


def _refuse(error: InvalidArgument, arguments: argparse.Namespace) -> int:
    """Tell of a wrong value by the name under which the user gave it: an option, a variable, or a key of a file."""
    settings, flags = getattr(arguments, "settings", None), getattr(arguments, "flags", {})
    field = error.field if settings is None else settings.sources.get(error.field, error.field)
    key = field.replace("-", "_")
    # Without a value of the option, the wrong one comes from elsewhere: an address from the environment.
    name = flags.get(key, field) if getattr(arguments, key, error.value) is not None else field
    return _fail(USAGE, error, arguments.form, str(InvalidArgument(name, error.value, error.reason)))


def _fail(code: int, error: Exception, form: logs.Format, text: str | None = None) -> int:
    advice = next((f" ({text})" for kind, text in ADVICE.items() if isinstance(error, kind)), "")
    said = " ".join((str(error) if text is None else text).split()) or type(error).__name__
    with contextlib.suppress(OSError):  # a terminal that went away; the exit code tells
        print(form.said(f"{said}{advice}", logging.ERROR, error=type(error).__name__), file=sys.stderr)
    return code


def _forget_stdout() -> None:
    # The reader of our output has gone, which is how `| head` ends us; Python would complain when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
