"""Interrupting an operation wherever the process stands: not only at the operation's own awaits, but after each step of
any task, and after each callback of any connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NamedTuple, Self

import anyio

from aioregistry._runtime import Endpoint, SystemRuntime

Operation = Callable[[], Coroutine[Any, Any, Any]]

_FOR_EVER = 3600.0


class Outcome(NamedTuple):
    """How an operation ended that was to be interrupted."""

    reached: bool
    """It was interrupted, and did not end before."""
    cancelled: bool
    """It did not finish."""
    value: Any


class Ticks:
    """Counts what happens in the running loop from entering on: steps of tasks made since then, callbacks of
    connections made through `runtime`."""

    def __init__(self) -> None:
        self.runtime = _TickingRuntime(self)
        self._left = 0
        self._interrupt: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._factory = self._loop.get_task_factory()
        self._loop.set_task_factory(self._make_task)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.set_task_factory(self._factory)

    def tick(self) -> None:
        self._left -= 1
        if self._left == 0 and self._interrupt is not None:
            interrupt, self._interrupt = self._interrupt, None
            interrupt()

    async def interrupt(self, how: str, operation: Operation, at: int) -> Outcome:
        """Run *operation* in a task of its own, and cancel it at the *at*-th tick: by "asyncio" once, by a scope of
        "anyio" again and again until it gives in. Raises what it raises.
        """
        run = {"asyncio": self._run, "anyio": self._run_in_scope}[how]
        task = asyncio.create_task(run(operation, at))
        await asyncio.wait([task])
        reached = self._interrupt is None
        if task.cancelled():
            return Outcome(reached, cancelled=True, value=None)
        return Outcome(reached, *task.result())

    async def _run(self, operation: Operation, at: int) -> tuple[bool, Any]:
        task = asyncio.current_task()
        assert task is not None
        self._left, self._interrupt = at, task.cancel
        value = await operation()
        self._left = 0  # who ends is not interrupted any more
        return False, value

    async def _run_in_scope(self, operation: Operation, at: int) -> tuple[bool, Any]:
        with anyio.move_on_after(_FOR_EVER) as scope:
            self._left, self._interrupt = at, scope.cancel
            value = await operation()
            self._left = 0
            return False, value
        return True, None

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        counted = _Counted(coroutine, self.tick)
        return self._factory(loop, counted, **options) if self._factory else asyncio.Task(counted, loop=loop, **options)


class _Counted(Coroutine[Any, Any, Any]):
    def __init__(self, coroutine: Coroutine[Any, Any, Any], tick: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._tick = tick

    def send(self, value: Any) -> Any:
        try:
            return self._coroutine.send(value)
        finally:
            self._tick()

    def throw(self, *error: Any) -> Any:
        try:
            return self._coroutine.throw(*error)
        finally:
            self._tick()

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


class _TickingRuntime(SystemRuntime):
    def __init__(self, ticks: Ticks) -> None:
        super().__init__()
        self._ticks = ticks

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint, tls: ssl.SSLContext | None
    ) -> asyncio.Transport:
        return await super().connect(lambda: _TickingProtocol(factory(), self._ticks), endpoint, tls)


class _TickingProtocol(asyncio.Protocol):
    def __init__(self, protocol: asyncio.Protocol, ticks: Ticks) -> None:
        self._protocol = protocol
        self._ticks = ticks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocol.connection_made(transport)
        self._ticks.tick()

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)
        self._ticks.tick()

    def eof_received(self) -> bool | None:
        keep_open = self._protocol.eof_received()
        self._ticks.tick()
        return keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        self._ticks.tick()
