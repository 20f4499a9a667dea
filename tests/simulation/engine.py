"""Virtual time, and machines of which each has an event loop and clocks of its own.

One queue holds what is to happen on all machines; time jumps to the next entry. A machine whose loop is blocked, or
that sleeps, holds up what is its own and nobody else: its entries are kept until it goes on. While it sleeps its
monotonic clock stands still and its boot clock does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

TURN = 1e-9
"""Seconds that a callback takes: what waits for the last bit of a float must not wait for ever."""

EPOCH = 1.6e9
"""Wall time at the beginning of every world."""


class NothingWillHappen(Exception):
    """Every task waits for something that nobody will do."""


class TooBusy(Exception):
    """More callbacks than any world needs: somebody goes round in circles."""


class Engine:
    """The next event, on any machine.

    Args:
        most_turns: callbacks in all; more raise TooBusy.
    """

    def __init__(self, most_turns: int) -> None:
        self.now = 0.0
        self.turns = 0
        self.most_turns = most_turns
        self._ready: deque[tuple[Machine, asyncio.Handle]] = deque()
        self._later: list[tuple[float, int, Machine, asyncio.Handle]] = []
        self._numbers = 0
        self._running: Machine | None = None

    def soon(self, machine: Machine, handle: asyncio.Handle) -> None:
        self._ready.append((machine, handle))

    def at(self, when: float, machine: Machine, handle: asyncio.Handle) -> None:
        self._numbers += 1
        heapq.heappush(self._later, (when, self._numbers, machine, handle))

    def run(self, machine: Machine, whole: Coroutine[Any, Any, T]) -> T:
        """Let everything happen until *whole*, run on *machine*, is done."""
        main: asyncio.Task[T] = machine.create_task(whole)
        ready = self._ready
        with machine.as_running():
            while not main.done():
                if not ready:
                    self._jump()
                    continue
                there, handle = ready.popleft()
                if not handle._cancelled and not self._is_early(there, handle):
                    self.turns += 1
                    self.now += TURN
                    if self._running is not there:
                        self.switch_to(there)
                    handle._run()
                    if self.turns > self.most_turns:
                        raise TooBusy(f"{self.turns} callbacks by {self.now:.3f} s")
        return main.result()

    def _jump(self) -> None:
        """To the time of what happens next."""
        later, ready = self._later, self._ready
        if not later:
            raise NothingWillHappen
        now = self.now = max(self.now, later[0][0])
        while later and later[0][0] <= now:
            _, _, machine, handle = heapq.heappop(later)
            if not handle._cancelled:
                ready.append((machine, handle))

    def _is_early(self, machine: Machine, handle: asyncio.Handle) -> bool:
        """Whether it waits for its machine, or for its machine's clock."""
        if machine.held is not None:
            machine.held.append(handle)
            return True
        if type(handle) is asyncio.TimerHandle and handle._when > self.now - machine.begin + TURN:  # type: ignore[attr-defined]
            self.at(machine.begin + handle.when(), machine, handle)  # its clock stood still meanwhile
            return True
        return False

    def switch_to(self, machine: Machine | None) -> Machine | None:
        """Have asyncio take *machine* for the running loop; return what it took before."""
        before = self._running
        if before is not machine:  # it asks the system for the process's id each time
            self._running = machine
            events._set_running_loop(machine)
        return before


class Machine(asyncio.AbstractEventLoop):
    """A machine: the event loop of the process on it, and its clocks.

    Args:
        name: shown in traces.
        engine: the world's.
        defect: called with what a callback or a task nobody waited for raised.
    """

    def __init__(self, name: str, engine: Engine, defect: Callable[[Machine, dict[str, Any]], None]) -> None:
        self.name = name
        self.engine = engine
        self.begin = 0.0
        """When its monotonic clock was 0, in the world's time; later with each sleep."""
        self.wall_ahead = 0.0
        """Seconds by which its wall clock is ahead of the world's; below 0 if it is behind."""
        self.held: list[asyncio.Handle] | None = None
        """The work that waits until the machine goes on; None while it runs."""
        self._defect = defect

    # ------------------------------------------------------------ clocks

    def time(self) -> float:
        """The monotonic clock."""
        return self.engine.now - self.begin

    def boot(self) -> float:
        """The clock that counts sleep."""
        return self.engine.now

    def wall(self) -> float:
        return EPOCH + self.engine.now + self.wall_ahead

    # ------------------------------------------------------------ standing still

    @property
    def stands_still(self) -> bool:
        return self.held is not None

    def stand_still(self) -> None:
        """The loop is blocked, or the machine sleeps, from now on."""
        assert self.held is None, f"{self.name} stands still already"
        self.held = []

    def go_on(self, *, slept: float = 0.0) -> None:
        """The held-up work happens now, after so many seconds of sleep that the monotonic clock does not know of."""
        held, self.held = self.held or [], None
        self.begin += slept
        for handle in held:
            self.engine.soon(self, handle)

    @contextlib.contextmanager
    def as_running(self) -> Iterator[None]:
        """Call what checks that it is called on its own loop."""
        before = self.engine.switch_to(self)
        try:
            yield
        finally:
            self.engine.switch_to(before)

    # ------------------------------------------------------------ what asyncio asks of a loop

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self.engine.soon(self, handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.engine.at(self.begin + when, self, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def get_task_factory(self) -> None:
        return None

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._defect(self, context)

    def __repr__(self) -> str:
        return f"<Machine {self.name} at {self.time():.3f}{' standing still' if self.stands_still else ''}>"
