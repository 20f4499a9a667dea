"""The names of the servers: the addresses that were known last serve while they are looked up again.

A name server that is away, slow or wrong must cost no session of a ZooKeeper that is well. So the last addresses count
until a fresh answer replaces them ("Serving Stale Data to Improve DNS Resiliency", RFC 8767), and no task waits for a
look-up longer than a moment where there is something to try meanwhile ("Happy Eyeballs", RFC 8305, section 3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aioregistry._concurrency import Notifier
from aioregistry._reasons import reason_of
from aioregistry._runtime import Endpoint, Runtime

from .attempts import AttemptOutcome, Attempts
from .backoff import lookup_deadline, may_look_up

__all__ = ["HEAD_START", "Names"]

HEAD_START = 0.05
"""Seconds that a round waits for fresh addresses before it tries those known before: RFC 8305's Resolution Delay."""


class _Name:
    """One server's name and port: what it means, and the look-ups under way."""

    def __init__(self) -> None:
        self.known: tuple[Endpoint, ...] = ()
        self.answered = -1
        """The number of the look-up that gave them."""
        self.running: dict[asyncio.Task[list[Endpoint]], tuple[int, float]] = {}
        """Look-ups under way: their numbers and when they began (the loop's time)."""
        self.late = False
        """The last look-up failed, or takes long: no task waits for the next one."""


class Names:
    """Looks up the *servers*, and remembers their addresses.

    Args:
        servers: host and port of each.
        runtime: asks the name server.
        attempts: takes what went wrong, by server.
        on_answer: called after each look-up.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        runtime: Runtime,
        attempts: Attempts,
        on_answer: Callable[[], None],
    ) -> None:
        self._names = {server: _Name() for server in servers}
        self._runtime = runtime
        self._attempts = attempts
        self._on_answer = on_answer
        self._lookups = 0
        self._until = float("-inf")
        self._answered = Notifier()

    def ask(self, timeout: float) -> None:
        """Begin a look-up of each name, but for those that have too many under way; *timeout* is the session's."""
        now = asyncio.get_running_loop().time()
        self._until = now + lookup_deadline(timeout)
        for server, name in self._names.items():
            ages = [now - began for _, began in name.running.values()]
            if ages and max(ages) >= lookup_deadline(timeout):
                name.late = True
                self._failed(server, "the name was not resolved in time")
            if may_look_up(ages):
                self._look_up(server, name, now)

    async def first_answers(self) -> None:
        """Wait a moment for those that are usually there in a moment."""
        await self._wait(HEAD_START, lambda name: bool(name.running) and not name.late)

    async def another(self) -> bool:
        """Wait for the next answer; return False if it is not worth waiting for.

        That is where every name has an address, or the moment that a round gives to its look-ups is over.
        """
        left = self._until - asyncio.get_running_loop().time()
        before = self._lookups_done()
        await self._wait(left, lambda name: bool(name.running) and not name.known and before == self._lookups_done())
        return before != self._lookups_done()

    def endpoints(self) -> list[Endpoint]:
        """Return every address, as known last."""
        return list(dict.fromkeys(endpoint for name in self._names.values() for endpoint in name.known))

    def cancel(self) -> list[asyncio.Task[list[Endpoint]]]:
        """Give up every look-up under way; return the tasks to wait for."""
        tasks = [task for name in self._names.values() for task in name.running]
        for task in tasks:
            task.cancel()
        return tasks

    def _lookups_done(self) -> int:
        return self._lookups - sum(len(name.running) for name in self._names.values())

    async def _wait(self, seconds: float, wanted: Callable[[_Name], bool]) -> None:
        await self._answered.until(lambda: not any(map(wanted, self._names.values())), seconds)

    def _look_up(self, server: tuple[str, int], name: _Name, now: float) -> None:
        number = self._lookups
        self._lookups += 1
        task = asyncio.get_running_loop().create_task(
            self._runtime.resolve(*server), name=f"aioregistry look-up of {server[0]}"
        )
        name.running[task] = number, now
        task.add_done_callback(lambda done: self._done(server, name, done))
        self._attempts.begin(_shown(server), "the name is being looked up", self._runtime.wall())

    def _done(self, server: tuple[str, int], name: _Name, task: asyncio.Task[list[Endpoint]]) -> None:
        number, _ = name.running.pop(task)
        if task.cancelled():
            return
        if error := task.exception():
            name.late = True
            self._failed(server, f"the name was not resolved: {reason_of(error)}")
        elif not (found := task.result()):
            name.late = True
            self._failed(server, "the name was not resolved: it has no address")
        else:
            name.late = False
            self._attempts.resolved(_shown(server))
            if number > name.answered:  # a late answer to a look-up that hung is older than this one
                name.known, name.answered = tuple(found), number
        self._answered.notify()
        self._on_answer()

    def _failed(self, server: tuple[str, int], why: str) -> None:
        if self._attempts.over:  # the name is no longer needed
            return
        known = "; the addresses known before are tried" if self._names[server].known else ""
        self._attempts.note(_shown(server), AttemptOutcome.UNRESOLVED, why + known, self._runtime.wall())


def _shown(server: tuple[str, int]) -> str:
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
