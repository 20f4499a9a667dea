"""A TCP proxy on loopback that does what networks do to connections, before an embedded server or a real one.

It runs on a thread of its own, so that a test's blocked event loop blocks the test's client only, never the network.
Every command may be called from any thread and has happened when it returns.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import socket
import struct
from collections import deque
from typing import Self

from ._network import COMMAND_TIMEOUT, network, on_network, run_on_network
from ._ports import ReservedPort

__all__ = ["Direction", "Link", "Loss", "TcpProxy"]

CONNECT_TIMEOUT = 10.0
RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


class Direction(enum.Flag):
    """The direction of bytes through a proxy: ``TO_SERVER``, ``TO_CLIENT``, or ``BOTH``."""

    TO_SERVER = enum.auto()
    TO_CLIENT = enum.auto()
    BOTH = TO_SERVER | TO_CLIENT


class Loss:
    """Something that happens once, on the proxies' thread, and can be waited for on any loop or thread."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[None] = concurrent.futures.Future()

    @property
    def happened(self) -> bool:
        """Whether it has happened."""
        return self._future.done()

    def happen(self) -> None:
        """Let it happen; it does so once."""
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float = COMMAND_TIMEOUT) -> None:
        """Wait for it at most *timeout* seconds; raises TimeoutError."""
        # Shielded: a wait that times out must not cancel the moment for the next one who waits.
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._future)), timeout)


class _Signal(enum.Enum):
    """The marks that a pipe carries besides bytes."""

    END = enum.auto()  # FIN
    LOSS = enum.auto()  # the source's socket is gone
    RESET = enum.auto()  # … by a reset


class _End(asyncio.Protocol):
    """One socket of a link. Its input goes into `outgoing`, the pipe to the other end."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.outgoing: _Pipe
        self.incoming: _Pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.link.end_connected(self)

    def data_received(self, data: bytes) -> None:
        self.outgoing.push(data)

    def eof_received(self) -> bool:
        self.outgoing.push(_Signal.END)
        return True  # half-closed: bytes that are still under way to this end are delivered

    def connection_lost(self, exc: Exception | None) -> None:
        self.outgoing.push(_Signal.LOSS if exc is None else _Signal.RESET)

    def pause_writing(self) -> None:
        self.incoming.blocked(True)

    def resume_writing(self) -> None:
        self.incoming.blocked(False)


class _Pipe:
    """One direction of a link: a queue of the sent bytes and their due times."""

    def __init__(self, link: Link, source: _End, sink: _End, direction: Direction) -> None:
        self.link = link
        self.source = source
        self.sink = sink
        self.direction = direction
        self._queue: deque[tuple[float, bytes | _Signal]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._sink_is_full = False

    def push(self, item: bytes | _Signal) -> None:
        self._queue.append((network().time() + self.link.proxy.delay_of(self.direction), item))
        self.flush()

    def blocked(self, sink_is_full: bool) -> None:
        self._sink_is_full = sink_is_full
        self.flush()

    def flush(self) -> None:
        """Deliver the bytes that are due, unless the network is silent: then the kernel's buffers fill, as usual."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        silent = self.link.frozen or self.link.proxy.is_silent(self.direction)
        held = silent or self._sink_is_full or self.sink.transport is None
        self._set_reading(not held)
        while self._queue and not held and not self.link.closed:
            due, item = self._queue[0]
            if due > network().time():
                self._timer = network().call_at(due, self.flush)
                return
            self._queue.popleft()
            self.link.deliver(self, item)
            held = self._sink_is_full

    def drop(self) -> None:
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_reading(self, wanted: bool) -> None:
        transport = self.source.transport
        if transport is not None and not transport.is_closing():
            (transport.resume_reading if wanted else transport.pause_reading)()


class Link:
    """A client's connection and the one made to the server on its behalf."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.client: _End = _End(self)
        self.server: _End = _End(self)
        self.to_server: _Pipe = _Pipe(self, self.client, self.server, Direction.TO_SERVER)
        self.to_client: _Pipe = _Pipe(self, self.server, self.client, Direction.TO_CLIENT)
        self.client.outgoing = self.server.incoming = self.to_server
        self.server.outgoing = self.client.incoming = self.to_client
        self.closed: bool = False
        self.frozen = False
        self._reset = False
        self._ended = Direction(0)
        self._connecting: asyncio.Task[None] | None = None

    def end_connected(self, end: _End) -> None:
        """One of its sockets is connected."""
        if end is self.client:
            if not self.proxy.admit(self):
                self.cut(reset=True)
                return
            assert end.transport is not None
            end.transport.pause_reading()
            self._connecting = network().create_task(self._connect())
        else:
            self.flush()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await network().create_connection(lambda: self.server, *self.proxy.target)
        except OSError:  # TimeoutError is one
            self.cut(reset=True)
        if self.closed:  # cut while it was being made
            self._end(self.server)

    def deliver(self, pipe: _Pipe, item: bytes | _Signal) -> None:
        """Hand *item* to the sink of *pipe*."""
        if isinstance(item, bytes):
            self._write(pipe, self.filter(pipe.direction, item))
        elif item is _Signal.END and self._ended | pipe.direction != Direction.BOTH:
            self._ended |= pipe.direction
            assert pipe.sink.transport is not None
            pipe.sink.transport.write_eof()
        else:
            self.cut(reset=item is _Signal.RESET)

    def _write(self, pipe: _Pipe, data: bytes) -> None:
        if data:
            assert pipe.sink.transport is not None
            self.proxy.count_bytes(pipe.direction, len(data))
            pipe.sink.transport.write(data)

    def filter(self, direction: Direction, data: bytes) -> bytes:  # noqa: ARG002
        """Return what of *data* is to be delivered; may end the link."""
        return data

    def flush(self) -> None:
        """Deliver what may be delivered now."""
        self.to_server.flush()
        self.to_client.flush()

    def cut(self, *, reset: bool) -> None:
        """End both connections, by a reset or in order; bytes under way are lost."""
        if self.closed:
            return
        self.closed = True
        self._reset = reset
        self.proxy.forget(self)
        for pipe in (self.to_server, self.to_client):
            pipe.drop()
        for end in (self.client, self.server):
            self._end(end)

    def _end(self, end: _End) -> None:
        if end.transport is None:
            return
        if self._reset:
            raw: socket.socket = end.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            end.transport.abort()
        else:
            end.transport.close()


class TcpProxy:
    """A proxy from a port of its own to `target`, which need not exist yet.

    Args:
        target: Host and port of the server.
        listen: Host and port to listen on; a port that stays the proxy's own while it refuses, unless one is given.
    """

    def __init__(self, target: tuple[str, int], *, listen: tuple[str, int] | None = None) -> None:
        self.target = target
        self._reserved = ReservedPort() if listen is None else None
        self.host: str
        self.port: int
        self.host, self.port = listen or ("127.0.0.1", self._reserved.number if self._reserved else 0)
        self.connections: int = 0
        self.bytes_to_server: int = 0
        self.bytes_to_client: int = 0
        self._links: dict[Link, None] = {}
        self._silent = Direction(0)
        self._delays = {Direction.TO_SERVER: 0.0, Direction.TO_CLIENT: 0.0}
        self._server: asyncio.Server | None = None
        self.accept()

    @property
    def address(self) -> str:
        """``host:port`` of the proxy."""
        return f"{self.host}:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many connections go through it now."""
        return len(self._links)

    def accept(self) -> None:
        """Listen (again), and accept new connections."""
        run_on_network(self._listen())

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED). Those there are stay."""
        on_network(self._stop_listening)

    def cut(self, *, reset: bool = True) -> None:
        """End every connection at both ends, by a reset or in order; bytes under way are lost.

        Args:
            reset: False ends them in order, by FIN.
        """
        on_network(lambda: self._cut(reset=reset))

    def silence(self, direction: Direction = Direction.BOTH) -> None:
        """Deliver nothing more in *direction*, neither bytes nor the end of a connection.

        Connections made meanwhile are silent too. `heal` delivers the held bytes late, as a network does that comes
        back in time; `cut` before `heal` loses them.

        Args:
            direction: the bytes to the server, those to the client, or both.
        """
        on_network(lambda: self._set_silent(self._silent | direction))

    def heal(self, direction: Direction = Direction.BOTH) -> None:
        """Deliver again in `direction`, the held bytes first.

        Args:
            direction: the bytes to the server, those to the client, or both.
        """
        on_network(lambda: self._set_silent(self._silent & ~direction))

    def delay(self, seconds: float, direction: Direction = Direction.BOTH) -> None:
        """Deliver bytes `seconds` later from now on, in order, with the same bandwidth.

        Args:
            seconds: how much later, in seconds; 0 for at once.
            direction: the bytes to the server, those to the client, or both.
        """

        def change() -> None:
            for single in direction:
                self._delays[single] = seconds

        on_network(change)

    def restore(self) -> None:
        """Become an honest proxy again: no silence, no delay, accepting."""
        self.delay(0.0)
        self.heal()
        self.accept()

    def close(self) -> None:
        """Stop listening, cut open connections, and give the port back."""

        def close() -> None:
            self._stop_listening()
            self._cut(reset=True)

        on_network(close)
        if self._reserved is not None:
            self._reserved.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # The methods below run on the proxies' thread.

    def new_link(self) -> Link:
        """Return a link for the next connection."""
        return Link(self)

    def admit(self, link: Link) -> bool:
        """Take note of a new connection; returns whether it may stay."""
        if self._server is None:  # accepted by the kernel just before it was told to refuse
            return False
        self.connections += 1
        self._links[link] = None
        return True

    def forget(self, link: Link) -> None:
        """A connection has ended."""
        self._links.pop(link, None)

    def is_silent(self, direction: Direction) -> bool:
        """Return whether nothing is delivered that way."""
        return direction in self._silent

    def delay_of(self, direction: Direction) -> float:
        """Return the seconds that bytes in that direction take longer."""
        return self._delays[direction]

    def count_bytes(self, direction: Direction, size: int) -> None:
        """Count delivered bytes."""
        if direction is Direction.TO_SERVER:
            self.bytes_to_server += size
        else:
            self.bytes_to_client += size

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await network().create_server(
                lambda: self.new_link().client, self.host, self.port, backlog=1024
            )

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _cut(self, *, reset: bool) -> None:
        for link in list(self._links):
            link.cut(reset=reset)

    def _set_silent(self, silent: Direction) -> None:
        self._silent = silent
        for link in list(self._links):
            link.flush()
