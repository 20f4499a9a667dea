"""A network of function calls: connections between machines that are slow, cut, parted, or forgotten by one side."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.engine import Engine, Machine

LATENCY: Final = 0.001
"""Seconds that bytes are under way, unless a fault makes it more."""

MOST_JITTER: Final = 1.0
"""As a part of the latency."""

REFUSED: Final = (111, "Connection refused")

BROKEN: Final = ConnectionResetError(104, "Connection reset by peer")


class Listener:
    """The listener at an address.

    Args:
        machine: that it runs on.
        accept: makes the protocol of a new connection.
        running: whether anybody listens.
    """

    def __init__(self, machine: Machine, accept: Callable[[], asyncio.Protocol], running: Callable[[], bool]) -> None:
        self.machine = machine
        self.accept = accept
        self.running = running
        self.refuses = False
        self.hangs = False


_FRAME: Final = struct.Struct(">ii")
"""The length of a frame, and the xid that it begins with."""
_ZXID: Final = struct.Struct(">q")


class Tap:
    """Is told what a client's machine sends and gets; replaced by who judges."""

    def sent(self, data: bytes) -> None: ...

    def got(self, data: bytes) -> None: ...


class Network:
    """The paths between machines, and their delays. Names are those of machines, and of listeners."""

    def __init__(self, engine: Engine, draw: random.Random) -> None:
        self.engine = engine
        self.draw = draw
        self.listeners: dict[str, Listener] = {}
        self.pipes: dict[Pipe, None] = {}
        self._latency: dict[str, float] = {}
        self._blocked: dict[tuple[str, str], int] = {}
        self._dead: set[str] = set()

    # ------------------------------------------------------------ faults

    def latency(self, name: str, seconds: float | None) -> None:
        """All that *name* sends and gets takes so long, None for as usual."""
        if seconds is None:
            self._latency.pop(name, None)
        else:
            self._latency[name] = seconds

    def block(self, source: str, target: str) -> None:
        """Nothing arrives from *source* at *target*; what is sent meanwhile does when all who blocked it unblock it."""
        self._blocked[source, target] = self._blocked.get((source, target), 0) + 1

    def unblock(self, source: str, target: str) -> None:
        self._blocked[source, target] -= 1
        if not self._blocked[source, target]:
            del self._blocked[source, target]
            for pipe in list(self.pipes):
                if pipe.peer.name == source and pipe.name == target:
                    pipe.look_later()

    def blocks(self, source: str, target: str) -> bool:
        if not self._blocked and not self._dead:
            return False
        return (source, target) in self._blocked or source in self._dead or target in self._dead

    def kill(self, name: str, *, silently: bool) -> None:
        """Nothing ever leaves or reaches *name* again; unless *silently*, its peers hear that they lost it."""
        if not silently:
            for pipe in self.of(name):
                pipe.peer.fail(BROKEN)
        self._dead.add(name)

    def reset(self, name: str) -> int:
        """Both ends of every connection of *name* hear that it broke; return how many there were."""
        pipes = self.of(name)
        for pipe in pipes:
            pipe.fail(BROKEN)
            pipe.peer.fail(BROKEN)
        return len(pipes)

    def forget(self, name: str, *, here: bool) -> int:
        """A router forgets the connections of *name*: one end hears that it broke, the other nothing ever again.

        Args:
            name: a machine.
            here: whether it is the end on that machine that hears.
        """
        pipes = self.of(name)
        for pipe in pipes:
            told = pipe if here else pipe.peer
            told.peer.deaf = True
            told.fail(BROKEN)
        return len(pipes)

    def falsify(self, name: str, zxid: int) -> int:
        """The next reply on every connection of *name* has this *zxid*; return how many connections there are."""
        pipes = self.of(name)
        for pipe in pipes:
            pipe.false_zxid = zxid
        return len(pipes)

    def of(self, name: str) -> list[Pipe]:
        """The open connections' ends on *name*."""
        return [pipe for pipe in self.pipes if pipe.name == name]

    # ------------------------------------------------------------ connecting

    async def connect(
        self, machine: Machine, protocol: Callable[[], asyncio.Protocol], name: str, tap: Tap | None = None
    ) -> asyncio.Transport:
        """Connect *machine* to the listener *name*; raises OSError."""
        await asyncio.sleep(self.delay(machine.name, name))
        while self.blocks(machine.name, name) or self.blocks(name, machine.name) or self.listeners[name].hangs:
            await asyncio.sleep(1.0)  # as the system asks again; the caller has a deadline
        listener = self.listeners[name]
        if listener.refuses or not listener.running():
            raise ConnectionRefusedError(*REFUSED)
        near, far = Pipe(self, machine, machine.name, tap), Pipe(self, listener.machine, name, None)
        near.peer, far.peer = far, near
        self.pipes[near] = self.pipes[far] = None
        near.open(protocol())
        listener.machine.call_soon(far.open, listener.accept())
        return near

    def delay(self, source: str, target: str) -> float:
        slow, latency = self._latency, LATENCY
        if slow:
            latency = max(slow.get(source, LATENCY), slow.get(target, LATENCY))
        return latency * (1.0 + MOST_JITTER * self.draw.random())


class Pipe(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: Network, machine: Machine, name: str, tap: Tap | None) -> None:
        super().__init__()
        self.network = network
        self.machine = machine
        self.name = name
        self.tap = tap
        self.peer: Pipe
        self.protocol: asyncio.Protocol | None = None
        self.deaf = False
        """Nothing that is sent to it arrives."""
        self.false_zxid: int | None = None
        """The zxid that the next reply arrives with, whatever was sent."""
        self._closed = False
        self._paused = False
        self._inbox: deque[tuple[float, bytes | None]] = deque()
        """The data on the way to it, with their times, in order. None is the end of what the peer sends."""
        # Bytes reach the machine whatever its clock does: not by call_later.
        self._arrival = asyncio.Handle(self.look, (), machine, None)

    def open(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        if self._closed:  # it broke before the server took it
            return
        protocol.connection_made(self)
        self.look()

    # ------------------------------------------------------------ as a transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            return
        if self.tap is not None:
            self.tap.sent(bytes(data))
        self.peer.receive(bytes(data))

    def close(self) -> None:
        self._end()

    abort = close

    def is_closing(self) -> bool:
        return self._closed

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self.look()

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    # ------------------------------------------------------------ what happens to it

    def receive(self, data: bytes | None) -> None:
        """The peer sends this, or its end."""
        if self._closed or self.deaf:
            return
        network = self.network
        when = network.engine.now + network.delay(self.peer.name, self.name)
        if self._inbox:
            when = max(when, self._inbox[-1][0])
        self._inbox.append((when, data))
        self._look_at(when)

    def look(self) -> None:
        """Take what has arrived, unless something holds it up."""
        network, inbox = self.network, self._inbox
        while inbox and not (self._closed or self._paused or self.protocol is None):
            if network.blocks(self.peer.name, self.name):
                return
            when, data = inbox[0]
            if when > network.engine.now:
                return
            inbox.popleft()
            self._take(data)

    def look_later(self) -> None:
        """As `look`, by the machine that it is on."""
        self.machine.call_soon(self.look)

    def _look_at(self, when: float) -> None:
        self.network.engine.at(when, self.machine, self._arrival)

    def _take(self, data: bytes | None) -> None:
        assert self.protocol is not None
        if data is not None:
            if self.tap is not None:  # which knows what the server meant
                self.tap.got(data)
            if self.false_zxid is not None:
                data = self._falsified(data, self.false_zxid)
            self.protocol.data_received(data)
        else:
            self.protocol.eof_received()
            self._end()

    def _falsified(self, data: bytes, zxid: int) -> bytes:
        """Servers write whole frames; what has no xid of a request is a greeting, an event or a ping."""
        changed, at = bytearray(data), 0
        while at + 16 <= len(data):
            size, xid = _FRAME.unpack_from(data, at)
            if xid > 0:
                _ZXID.pack_into(changed, at + 8, zxid)
                self.false_zxid = None
                break
            at += 4 + size
        return bytes(changed)

    def fail(self, error: Exception | None) -> None:
        """This end hears that the connection broke; the other does not hear it from this one."""
        if not self._closed:
            self._close()
            if self.protocol is not None:
                self.machine.call_soon(self.protocol.connection_lost, error)

    def _end(self) -> None:
        if not self._closed:
            self.fail(None)
            self.peer.receive(None)

    def _close(self) -> None:
        self._closed = True
        self._inbox.clear()
        self.network.pipes.pop(self, None)

    def __repr__(self) -> str:
        return f"<Pipe {self.name} to {self.peer.name}{' closed' if self._closed else ''}>"
