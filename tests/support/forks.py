"""A forked child of a test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from aioregistry import UsageError
from tests.support.waiting import DEADLINE

__all__ = ["outcomes_of", "told_by_child"]


def told_by_child(act: Callable[[], list[str]]) -> list[str]:
    """Return what *act* returns in a forked child, or the exception that it raises there.

    The child ends with that, or by a signal at the deadline: it never goes on with the tests of its parent.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(int(DEADLINE))
            try:
                told = act()
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                told = [repr(error)]
            os.write(writing, "\n".join(told).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read().split("\n")
    os.waitpid(child, 0)
    return told


def outcomes_of(uses: Iterable[Callable[[], object]]) -> list[str]:
    """Return for each of the *uses* whether it was done or refused, or what else it raised."""
    return [_outcome_of(use) for use in uses]


def _outcome_of(use: Callable[[], object]) -> str:
    try:
        use()
    except UsageError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - shown by the assertion
        return repr(error)
    return "done"
