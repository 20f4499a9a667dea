"""Time that passes only when nothing is left to do, and a network made of function calls.

Everything runs on one event loop whose clock jumps to the next timer as soon as no callback is ready: a test that
waits for a third of a session timeout takes no time, and what happens at which moment is exact and the same each time.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import selectors
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aioregistry._runtime import Endpoint, Runtime

T = TypeVar("T")

LATENCY = 0.001
"""Seconds that bytes are under way."""

TURN = 1e-9
"""Seconds that a turn of the loop takes: what waits for the last bit of a float must not wait for ever."""


class NothingWillHappen(Exception):
    """Every task waits for something that nobody will do."""


class _VirtualSelector(selectors.DefaultSelector):
    """Never blocks: where it would, the clock jumps."""

    clock: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise NothingWillHappen
            self.clock.now += timeout
        self.clock.now += TURN
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        selector = _VirtualSelector()
        selector.clock = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class Pipe(asyncio.Transport):
    """One end of a connection between two protocols of the same loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.loop = loop
        self.protocol = protocol
        self.peer: Pipe
        self.written: list[bytes] = []
        self._under_way: deque[bytes | None] = deque()
        """The data from the peer, in order: timers of the same moment have none. None is the end of the file."""
        self.closed = False
        self.stuck = 0
        """Bytes that are said to wait because the peer does not read."""
        self.tls: object | None = None
        self.ended_by = ""
        self.latency = LATENCY

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.written.append(bytes(data))
            self.peer.send_to(bytes(data))

    def send_to(self, data: bytes | None) -> None:
        """Let *data* arrive here, after the latency."""
        self._under_way.append(data)
        self.loop.call_later(self.latency, self._arrive)

    def _arrive(self) -> None:
        data = self._under_way.popleft()
        if self.closed:
            return
        if data is not None:
            self.protocol.data_received(data)
        else:  # as asyncio's transports do it
            self.protocol.eof_received()
            self._end(None)

    def close(self) -> None:
        self.ended_by = self.ended_by or "close"
        self._end(None)

    def abort(self) -> None:
        self.ended_by = self.ended_by or "abort"
        self._end(None)

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.tls if name == "ssl_object" else default

    def _end(self, error: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        self.loop.call_soon(self.protocol.connection_lost, error)
        self.peer.send_to(None)

    def reset(self) -> None:
        """End both ends at once, by an error."""
        for end in (self, self.peer):
            if not end.closed:
                end.closed = True
                end.loop.call_soon(end.protocol.connection_lost, ConnectionResetError(104, "Connection reset by peer"))


def connect_pipes(loop: asyncio.AbstractEventLoop, near: asyncio.Protocol, far: asyncio.Protocol) -> tuple[Pipe, Pipe]:
    """Connect two protocols; return their transports."""
    here, there = Pipe(loop, near), Pipe(loop, far)
    here.peer, there.peer = there, here
    near.connection_made(here)
    far.connection_made(there)
    return here, there


class World(Runtime):
    """The outside, simulated: addresses are looked up in tables, sleep is counted where it should be."""

    def __init__(self, loop: VirtualLoop, seed: int = 0) -> None:
        self.loop = loop
        self.slept = 0.0
        self.random = random.Random(seed)
        self.names: dict[str, list[str] | Exception | asyncio.Future[list[str]] | None] = {}
        """Addresses by name; an exception, a future answer, or None for a name server that does not answer."""
        self.servers: dict[tuple[str, int], Callable[[], asyncio.Protocol] | None] = {}
        """The listeners, by address; None swallows them, what is missing refuses."""
        self.resolved: list[str] = []
        self.dialed: list[str] = []
        self.pipes: list[Pipe] = []
        """The client's ends of all connections."""

    def monotonic(self) -> float:
        return self.loop.now

    def boot(self) -> float:
        return self.loop.now + self.slept

    def wall(self) -> float:
        return 1.6e9 + self.boot()

    def uniform(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def shuffle(self, items: list[Endpoint]) -> None:
        self.random.shuffle(items)

    def sleep(self, seconds: float) -> None:
        """The machine sleeps: only the clock that counts sleep goes on."""
        self.slept += seconds

    def block(self, seconds: float) -> None:
        """The caller of this holds up the event loop."""
        self.loop.now += seconds

    async def resolve(self, host: str, port: int) -> list[Endpoint]:
        self.resolved.append(host)
        found = self.names.get(host, [host])
        if found is None:
            await asyncio.Event().wait()
        if isinstance(found, Exception):
            raise found
        if isinstance(found, asyncio.Future):
            found = await asyncio.shield(found)
        return [Endpoint(host, port, address) for address in found or ()]

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint, tls: ssl.SSLContext | None
    ) -> asyncio.Transport:
        self.dialed.append(f"{endpoint.address}:{endpoint.port}")
        await asyncio.sleep(LATENCY)
        key = (endpoint.address, endpoint.port)
        if key not in self.servers:
            raise ConnectionRefusedError(111, "Connection refused")
        accept = self.servers[key]
        if accept is None:
            await asyncio.Event().wait()
        assert accept is not None
        near, _ = connect_pipes(self.loop, factory(), accept())
        self.pipes.append(near)
        return near

    @property
    def open_pipes(self) -> list[Pipe]:
        return [pipe for pipe in self.pipes if not pipe.closed]


def simulate(scenario: Callable[[World], Coroutine[Any, Any, T]], seed: int = 0) -> T:
    """Run *scenario* in a world of its own; whatever a callback raised fails it, and so does a task left behind."""
    raised: list[dict[str, Any]] = []
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _, context: raised.append(context))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        world = World(loop, seed)

        async def whole() -> T:
            result = await scenario(world)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"left behind: {left}"
            assert not world.open_pipes, f"left open: {world.open_pipes}"
            return result

        result = runner.run(whole())
    assert not raised, raised
    return result


def simulated(scenario: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function whose argument ``world`` is a world of its own."""
    signature = inspect.signature(scenario)

    def test(*args: Any, **kwargs: Any) -> None:
        simulate(lambda world: scenario(*args, world=world, **kwargs))

    test.__name__, test.__doc__, test.__module__ = scenario.__name__, scenario.__doc__, scenario.__module__
    parameters = [parameter for name, parameter in signature.parameters.items() if name != "world"]
    test.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return test
