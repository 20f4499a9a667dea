"""A TCP proxy on loopback that does what networks do to connections.

It runs on a thread of its own, so that a test's blocked event loop blocks the test's client only, never the network.
Every command may be called from any thread and has happened when it returns.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import functools
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Self, TypeVar

from tests.support.ports import ReservedPort

T = TypeVar("T")

COMMAND_TIMEOUT = 10.0
CONNECT_TIMEOUT = 10.0
RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


class Direction(enum.Flag):
    TO_SERVER = enum.auto()
    TO_CLIENT = enum.auto()
    BOTH = TO_SERVER | TO_CLIENT


@functools.cache
def _network() -> asyncio.AbstractEventLoop:
    """The event loop of all proxies, on a daemon thread that ends with the process."""
    loop = asyncio.SelectorEventLoop()  # asyncio's own, whatever loop the tests run on
    threading.Thread(target=loop.run_forever, name="proxies", daemon=True).start()
    return loop


def on_network(command: Callable[[], T]) -> T:
    """Run `command` on the proxies' thread; return or raise what it did."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = command()
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            done.set_exception(error)
        else:
            # One turn later: an aborted transport closes its socket in the turn after the command.
            _network().call_soon(done.set_result, result)

    _network().call_soon_threadsafe(run)
    return done.result(COMMAND_TIMEOUT)


class Moment:
    """Something that happens once, on the proxies' thread, and can be waited for on any loop or thread."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[None] = concurrent.futures.Future()

    @property
    def happened(self) -> bool:
        return self._future.done()

    def happen(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float = COMMAND_TIMEOUT) -> None:
        # Shielded: a wait that times out must not cancel the moment for the next one who waits.
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._future)), timeout)


class _Signal(enum.Enum):
    """What a pipe carries besides bytes."""

    END = enum.auto()  # FIN
    LOSS = enum.auto()  # the source's socket is gone
    RESET = enum.auto()  # … by a reset


class _End(asyncio.Protocol):
    """One socket of a link. What it reads goes into `outgoing`, the pipe to the other end."""

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
        return True  # half-closed: what is still under way to this end is delivered

    def connection_lost(self, exc: Exception | None) -> None:
        self.outgoing.push(_Signal.LOSS if exc is None else _Signal.RESET)

    def pause_writing(self) -> None:
        self.incoming.blocked(True)

    def resume_writing(self) -> None:
        self.incoming.blocked(False)


class _Pipe:
    """One direction of a link: a queue of what was sent and when it is due."""

    def __init__(self, link: Link, source: _End, sink: _End, direction: Direction) -> None:
        self.link = link
        self.source = source
        self.sink = sink
        self.direction = direction
        self._queue: deque[tuple[float, bytes | _Signal]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._sink_is_full = False

    def push(self, item: bytes | _Signal) -> None:
        self._queue.append((_network().time() + self.link.proxy.delay_of(self.direction), item))
        self.flush()

    def blocked(self, sink_is_full: bool) -> None:
        self._sink_is_full = sink_is_full
        self.flush()

    def flush(self) -> None:
        """Deliver what is due, unless the network is silent. While it is, the kernel's buffers fill, as they would."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held = self.link.proxy.is_silent(self.direction) or self._sink_is_full or self.sink.transport is None
        self._set_reading(not held)
        while self._queue and not held and not self.link.closed:
            due, item = self._queue[0]
            if due > _network().time():
                self._timer = _network().call_at(due, self.flush)
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
        self.client = _End(self)
        self.server = _End(self)
        self.to_server = _Pipe(self, self.client, self.server, Direction.TO_SERVER)
        self.to_client = _Pipe(self, self.server, self.client, Direction.TO_CLIENT)
        self.client.outgoing = self.server.incoming = self.to_server
        self.server.outgoing = self.client.incoming = self.to_client
        self.closed = False
        self._reset = False
        self._ended = Direction(0)
        self._connecting: asyncio.Task[None] | None = None

    def end_connected(self, end: _End) -> None:
        if end is self.client:
            if not self.proxy.admit(self):
                self.cut(reset=True)
                return
            assert end.transport is not None
            end.transport.pause_reading()
            self._connecting = _network().create_task(self._connect())
        else:
            self.flush()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await _network().create_connection(lambda: self.server, *self.proxy.target)
        except OSError:  # TimeoutError is one
            self.cut(reset=True)
        if self.closed:  # cut while it was being made
            self._end(self.server)

    def deliver(self, pipe: _Pipe, item: bytes | _Signal) -> None:
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

    def filter(self, direction: Direction, data: bytes) -> bytes:
        """What of `data` is to be delivered; may end the link."""
        return data

    def flush(self) -> None:
        self.to_server.flush()
        self.to_client.flush()

    def cut(self, *, reset: bool) -> None:
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
        listen: Host and port to listen on; a port that stays the proxy's own while it refuses if none is given.
    """

    def __init__(self, target: tuple[str, int], *, listen: tuple[str, int] | None = None) -> None:
        self.target = target
        self._reserved = ReservedPort() if listen is None else None
        self.host, self.port = listen or ("127.0.0.1", self._reserved.number if self._reserved else 0)
        self.connections = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self._links: dict[Link, None] = {}
        self._silent = Direction(0)
        self._delays = {Direction.TO_SERVER: 0.0, Direction.TO_CLIENT: 0.0}
        self._server: asyncio.Server | None = None
        self.accept()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._links)

    def accept(self) -> None:
        """Listen (again): new connections are taken."""
        asyncio.run_coroutine_threadsafe(self._listen(), _network()).result(COMMAND_TIMEOUT)

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED). Those there are stay."""
        on_network(self._stop_listening)

    def cut(self, *, reset: bool = True) -> None:
        """End every connection at both ends, by a reset or in order; what was under way is lost."""
        on_network(lambda: self._cut(reset=reset))

    def silence(self, direction: Direction = Direction.BOTH) -> None:
        """Deliver nothing more in `direction`, neither bytes nor the end of a connection; connections made meanwhile
        are silent too.

        `heal` delivers late what was held, as a network does that comes back in time; `cut` before `heal` loses it.
        """
        on_network(lambda: self._set_silent(self._silent | direction))

    def heal(self, direction: Direction = Direction.BOTH) -> None:
        """Deliver again in `direction`, first what was held."""
        on_network(lambda: self._set_silent(self._silent & ~direction))

    def delay(self, seconds: float, direction: Direction = Direction.BOTH) -> None:
        """Deliver what comes from now on `seconds` later, in order, without narrowing the line."""

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
        """Stop listening, cut what is open, give the port back."""

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

    # What follows runs on the proxies' thread.

    def new_link(self) -> Link:
        return Link(self)

    def admit(self, link: Link) -> bool:
        if self._server is None:  # accepted by the kernel just before it was told to refuse
            return False
        self.connections += 1
        self._links[link] = None
        return True

    def forget(self, link: Link) -> None:
        self._links.pop(link, None)

    def is_silent(self, direction: Direction) -> bool:
        return direction in self._silent

    def delay_of(self, direction: Direction) -> float:
        return self._delays[direction]

    def count_bytes(self, direction: Direction, size: int) -> None:
        if direction is Direction.TO_SERVER:
            self.bytes_to_server += size
        else:
            self.bytes_to_client += size

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await _network().create_server(
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


class _Frames:
    """Cuts one direction of a ZooKeeper connection into frames (length included)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4])
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
        return frames


class _ZooKeeperLink(Link):
    """Follows the frames of a session: which request was asked, which reply answers it."""

    proxy: ZooKeeperProxy

    def __init__(self, proxy: ZooKeeperProxy) -> None:
        super().__init__(proxy)
        self._frames = {Direction.TO_SERVER: _Frames(), Direction.TO_CLIENT: _Frames()}
        self._handshakes: set[Direction] = set()
        self._doomed_xid: int | None = None
        self._loss: Moment | None = None
        self._is_session: bool | None = None

    def filter(self, direction: Direction, data: bytes) -> bytes:
        if self._is_session is None:
            self._is_session = not data[:1].isalpha()  # a four-letter word has no frames
        if not self._is_session:
            return data
        delivered = bytearray()
        for frame in self._frames[direction].feed(data):
            if direction not in self._handshakes:
                self._handshakes.add(direction)  # ConnectRequest and ConnectResponse have no header
            elif direction is Direction.TO_SERVER:
                self._follow_request(*struct.unpack_from(">ii", frame, 4))
            elif self._loss is not None and struct.unpack_from(">i", frame, 4)[0] == self._doomed_xid:
                self._lose_reply(bytes(delivered))
                return b""
            delivered += frame
        return bytes(delivered)

    def _follow_request(self, xid: int, opcode: int) -> None:
        self.proxy.requests[opcode] += 1
        loss = self.proxy.losses.get(opcode)
        if loss and self._loss is None:
            self._doomed_xid = xid
            self._loss = loss.popleft()

    def _lose_reply(self, before: bytes) -> None:
        assert self._loss is not None
        self._write(self.to_client, before)
        self.cut(reset=False)  # in order: the replies before the lost one must arrive
        self._loss.happen()


class ZooKeeperProxy(TcpProxy):
    """A proxy before a ZooKeeper server's client port that understands frames.

    `requests` counts the requests that went to the server by opcode (connects excluded).
    """

    def __init__(self, target: tuple[str, int], *, listen: tuple[str, int] | None = None) -> None:
        self.requests: Counter[int] = Counter()
        self.losses: dict[int, deque[Moment]] = {}
        super().__init__(target, listen=listen)

    def new_link(self) -> Link:
        return _ZooKeeperLink(self)

    def lose_next_reply(self, opcode: int) -> Moment:
        """Let the next request with `opcode` (a multi is 14) through; when its reply comes, drop it and cut that
        connection.

        Returns:
            The moment of the loss: the server has applied the request (or refused it), the client will never know.
        """
        moment = Moment()
        on_network(lambda: self.losses.setdefault(opcode, deque()).append(moment))
        return moment

    def restore(self) -> None:
        on_network(self.losses.clear)
        super().restore()
