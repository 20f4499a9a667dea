"""Runs the checks of one instance, a task each, and knows their joint verdict."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry import _foreign as foreign
from aioregistry._errors import InvalidType, wrong_argument
from aioregistry._incident_log import IncidentLog
from aioregistry._reasons import reason_of
from aioregistry._runtime import Runtime

from .check import Check, CheckFailed, first_health
from .table import CheckHealth, CheckState, Result, after, patience, pause

__all__ = ["CheckStatus", "Checks", "Runner", "checked_checks"]

log = logging.getLogger("aioregistry.health")

Checks = Mapping[str, Check | Callable[[], Awaitable[object]]]

_LONGEST_REASON: Final = 200
_LONGEST_NAME: Final = 100
_EARLY: Final = 0.001
"""Seconds: a timer may be as early as the clock is coarse."""


class CheckStatus(NamedTuple):
    """The state of one check."""

    state: CheckState
    """Starting, passing or failing."""
    since: float
    """Seconds since the epoch: when it came into this state."""
    reason: str | None
    """Why its last run failed; None where that passed, or has not ended yet."""


def checked_checks(checks: object) -> dict[str, Check]:
    """Return *checks* with a :class:`Check` for each; raises InvalidArgument that names the wrong one."""
    if not isinstance(checks, Mapping):
        raise InvalidType("checks", checks, "give a dict of names to async functions or Checks")
    found: dict[str, Check] = {}
    for name, check in checks.items():
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            raise wrong_argument(
                "checks", name, f"the name of a check is printable text, 1 to {_LONGEST_NAME} long", str
            )
        if not isinstance(check, Check) and not callable(check):
            raise InvalidType(f"checks[{name!r}]", check, "give an async function or a Check")
        found[name] = check if isinstance(check, Check) else Check(check)
    return found


class Runner:
    """Runs *checks* from :meth:`start` to :meth:`stop`.

    Args:
        checks: by name.
        title: whose checks these are, for the log.
        about: the same as the fields of a log record.
        runtime: clocks and chance.
        changed: called after each change of a state, and after a first failure, with the name of the check.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        title: str,
        about: Mapping[str, object],
        runtime: Runtime,
        changed: Callable[[str], object],
    ) -> None:
        self._title = title
        self._runtime = runtime
        self._changed = changed
        self._repeated = IncidentLog(log, **about)
        self._followed = {name: _Followed(check, runtime) for name, check in checks.items()}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def passing(self) -> bool:
        """Whether every check passes."""
        return all(each.health.state is CheckState.PASSING for each in self._followed.values())

    @property
    def statuses(self) -> Mapping[str, CheckStatus]:
        """The state of each check, by name."""
        return MappingProxyType({name: each.status for name, each in self._followed.items()})

    def probe(self, name: str) -> str:
        """Return the subject of the check *name*, as text."""
        return self._followed[name].probe

    @property
    def reason(self) -> str | None:
        """Return why not every check passes, in a line; None where all do."""
        failing = [name for name, each in self._followed.items() if each.health.state is not CheckState.PASSING]
        if not failing:
            return None
        return "; ".join(f"{name}: {self._followed[name].reason or 'has not passed yet'}" for name in failing)

    def start(self) -> None:
        """Begin to run them; called once."""
        loop = asyncio.get_running_loop()
        for name, each in self._followed.items():
            self._tasks.append(loop.create_task(self._follow(name, each), name=f"check {name} of {self._title}"))

    def stop(self) -> None:
        """Start no further check, and cancel those that run."""
        for task in self._tasks:
            task.cancel()
        for each in self._followed.values():
            each.cancel()
        self._repeated.close()

    async def over(self) -> None:
        """Wait until the tasks have ended, after :meth:`stop`; not for a check that goes on though it was cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _follow(self, name: str, each: _Followed) -> None:
        check, loop = each.check, asyncio.get_running_loop()
        while True:
            began = loop.time()
            before = each.health.state
            await each.run(began)
            if each.health.state is not before or (each.first and before is CheckState.STARTING):
                self._tell(name, each)
            each.first = False
            draw = self._runtime.uniform(0.0, 1.0)
            await asyncio.sleep(pause(interval=check.interval, took=loop.time() - began, draw=draw))

    def _tell(self, name: str, each: _Followed) -> None:
        state = each.health.state
        if state is CheckState.PASSING:
            text = "%s: check %r (%s) passes"
            self._repeated.tell((name, "passes"), logging.INFO, text, self._title, name, each.probe, check=name)
        else:
            text = "%s: check %r (%s) fails, so the instance is listed as not enabled: %s"
            told = self._title, name, each.probe, each.reason
            self._repeated.tell((name, "fails"), logging.WARNING, text, *told, check=name)
        self._changed(name)


class _Followed:
    """One check: where it stands, and the call that is under way."""

    def __init__(self, check: Check, runtime: Runtime) -> None:
        self.check = check
        self.probe = _probe(check)
        self.health: CheckHealth = first_health(check)
        self.reason: str | None = None
        self.first = True
        self._runtime = runtime
        self._since = runtime.wall()
        self._passed: float | None = None
        """When the last success was begun."""
        self._call: asyncio.Task[object] | None = None

    @property
    def status(self) -> CheckStatus:
        return CheckStatus(self.health.state, self._since, self.reason)

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    async def run(self, began: float) -> None:
        """Call the check once, from the time *began* on, and take its result."""
        check, loop = self.check, asyncio.get_running_loop()
        if self._passed is None:
            self._passed = began  # so that `initial="passing"` is believed for as long as a success
        due = self._passed + patience(interval=check.interval, timeout=check.timeout, fall=check.fall)
        limit = check.timeout
        if self.health.state is CheckState.PASSING and began < due:
            limit = min(limit, due - began)
        reason = await self._called(limit)
        if reason is None:
            self._passed, result = began, Result.PASSED
        else:
            result = Result.OVERDUE if loop.time() + _EARLY >= due else Result.FAILED
        state = self.health.state
        self.reason = reason
        self.health = after(self.health, result, rise=check.rise, fall=check.fall)
        if self.health.state is not state:
            self._since = self._runtime.wall()

    async def _called(self, limit: float) -> str | None:
        """Call the check; return None when it passed, else why it failed."""
        if self._call is not None and not self._call.done():
            self._call.cancel()
            return "it was cancelled when its time was over, and has not ended since"
        self._call = asyncio.get_running_loop().create_task(foreign.wait(lambda: _answer(self.check.probe)))
        self._call.add_done_callback(lambda call: call.cancelled() or call.exception())  # not awaited elsewhere
        await asyncio.wait([self._call], timeout=limit)
        if not self._call.done():
            self._call.cancel()
            return f"no answer within {limit:.3g} s"
        return _reason(self._call)


async def _answer(probe: Callable[[], Awaitable[object]]) -> object:
    answer: object = probe()
    # Only a call can tell: the methods of many asynchronous clients are plain functions that return an awaitable.
    if not inspect.isawaitable(answer):
        kind = type(answer).__name__
        raise CheckFailed(
            f"its function is not async: it returned {kind}, which cannot be awaited; write async def, "
            "and call blocking code by asyncio.to_thread"
        )
    result: object = await answer
    if inspect.isawaitable(result):
        kind = type(result).__name__
        if inspect.iscoroutine(result):
            result.close()  # or Python warns of it once more
        raise CheckFailed(f"its result is another awaitable, a {kind}, of which nothing is known: an await is missing")
    return result


def _reason(call: asyncio.Task[Any]) -> str | None:
    if call.cancelled():
        return "it was cancelled"
    error = call.exception()
    if error is None:
        return "it returned False" if call.result() is False else None
    if isinstance(error, foreign.ForeignError):
        error = error.error
    if isinstance(error, CheckFailed):
        return _short(str(error))
    try:
        return _short(foreign.call(reason_of, error))
    except foreign.ForeignError:
        return type(error).__name__


def _probe(check: Check) -> str:
    try:
        return _short(str(foreign.call(check.describe)))  # a subclass of the caller's own may do anything
    except foreign.ForeignError:
        return type(check).__name__


def _short(text: str) -> str:
    text = foreign.printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
