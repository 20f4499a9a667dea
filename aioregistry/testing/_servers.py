"""ZooKeepers for tests: the embedded server on a thread of its own, or a real one behind a proxy, by the same face.

Everything here may be called from any thread, has happened when it returns, and needs no event loop: it works in
synchronous tests, and in asynchronous ones on whatever loop.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
import uuid
from abc import ABC, abstractmethod
from typing import Any, Final, Literal, NoReturn, Self, TypeAlias

from aiozk import exc

import aioregistry
from aioregistry._errors import InvalidArgument, RequestTimeout, UsageError, session_name
from aioregistry._session import parse_connect_string
from aioregistry.server import Backup
from aioregistry.server import ZooKeeperServer as Server

from ._network import COMMAND_TIMEOUT, on_network, run_on_network
from ._proxy import ZooKeeperProxy

__all__ = ["AnyZooKeeper", "Data", "EmbeddedOnly", "RealZooKeeper", "ZooKeeper"]

Data: TypeAlias = Literal["kept", "lost"] | Backup

# Tests want sessions that end soon, and sessions that never do: a wide range, and ticks that do not round much.
QUICK: Final[dict[str, Any]] = {"tick_time": 0.05, "min_session_timeout": 0.1, "max_session_timeout": 600.0}


class AnyZooKeeper(ABC):
    """The controls of a test's ZooKeeper of any kind; a context manager, running from the beginning."""

    # ------------------------------------------------------------------ where it is

    @property
    @abstractmethod
    def host(self) -> str:
        """The address to connect to."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The port, the same after a restart."""

    @property
    @abstractmethod
    def address(self) -> str:
        """``host:port``."""

    @property
    def connect_string(self) -> str:
        """The connect string for clients, with a chroot if the test has only a part of a server."""
        return self.address

    def new_part(self) -> str:
        """Make an empty part of this server, under a chroot of its own, and return the connect string of that.

        So tests that share a server do not see each other's services.
        """
        chroot = f"/part-{uuid.uuid4().hex}"
        run_on_network(_make(self.connect_string, chroot))
        return self.connect_string + chroot

    # ------------------------------------------------------------------ what may happen to sessions and connections

    @abstractmethod
    def expire(self, session_id: int) -> None:
        """End a session as if its client had been silent for the session timeout.

        Args:
            session_id: as ``registry.session.id`` has it.
        """

    @abstractmethod
    def drop(self, session_id: int | None = None) -> None:
        """End the connections of a session, or all, without a word. The sessions live on.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """

    @abstractmethod
    def freeze(self, session_id: int | None = None) -> None:
        """Let the connections of a session, or all that are there, stand still until :meth:`thaw`.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """

    @abstractmethod
    def thaw(self) -> None:
        """Let every frozen connection go on, first with the bytes that came meanwhile."""

    @abstractmethod
    def refuse_connections(self, refuse: bool = True) -> None:
        """Refuse new connections, or take them again. Connections that are there stay.

        Args:
            refuse: False takes them again.
        """

    @abstractmethod
    def lose_reply(self, opcode: int) -> None:
        """Apply the next request of this kind, then end its connection instead of answering it.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.
        """

    # ------------------------------------------------------------------ its end

    @abstractmethod
    def close(self) -> None:
        """End for good."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ZooKeeper(AnyZooKeeper):
    """An embedded server of a test's own; a context manager, running from the beginning.

    Args:
        options: of :class:`aioregistry.server.ZooKeeperServer`. Unless given, ticks are 0.05 s and sessions may ask for
            0.1 to 600 s.

    Raises:
        InvalidArgument: an option is out of its range.
    """

    def __init__(self, **options: Any) -> None:
        self.server: Server = Server(**QUICK | options)
        self.start()

    # ------------------------------------------------------------------ where it is

    @property
    def host(self) -> str:
        """The address to connect to."""
        return self.server.host

    @property
    def port(self) -> int:
        """The port, the same after a restart."""
        return self.server.port

    @property
    def address(self) -> str:
        """``host:port``."""
        return self.server.address

    # ------------------------------------------------------------------ what may happen to sessions and connections

    def expire(self, session_id: int) -> None:
        """End a session as if its client had been silent for the session timeout.

        Args:
            session_id: as ``registry.session.id`` has it.
        """
        on_network(lambda: self.server.expire(session_id))

    def drop(self, session_id: int | None = None) -> None:
        """End the connections of a session, or all, without a word. The sessions live on.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        on_network(lambda: self.server.drop(session_id))

    def freeze(self, session_id: int | None = None) -> None:
        """Let the connections of a session, or all that are there, stand still until :meth:`thaw`.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        on_network(lambda: self.server.freeze(session_id))

    def thaw(self) -> None:
        """Let every frozen connection go on, first with the bytes that came meanwhile."""
        on_network(self.server.thaw)

    def refuse_connections(self, refuse: bool = True) -> None:
        """Refuse new connections, or take them again. Connections that are there stay.

        Args:
            refuse: False takes them again.
        """
        on_network(lambda: self.server.refuse_connections(refuse))

    def lose_reply(self, opcode: int) -> None:
        """Apply the next request of this kind, then end its connection instead of answering it.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.
        """
        on_network(lambda: self.server.lose_reply(opcode))

    # ------------------------------------------------------------------ what only the embedded server can do

    def delay(self, opcode: int, seconds: float) -> None:
        """Hold the next request of this kind, and those behind it on its connection, for so long.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.
            seconds: how long, in seconds.
        """
        on_network(lambda: self.server.delay(opcode, seconds))

    def fail(self, opcode: int, code: int) -> None:
        """Answer the next request of this kind with an error code, and do nothing else about it.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.
            code: the error, by its number in ZooKeeper's protocol, such as -101 for NoNode.
        """
        on_network(lambda: self.server.fail(opcode, code))

    def sweep_containers(self) -> None:
        """Delete empty containers, and nodes whose time is over, now."""
        on_network(self.server.sweep_containers)

    def stop(self) -> None:
        """Go down: every connection ends, and new ones are refused. Data and sessions are kept for the next start."""
        run_on_network(self.server.stop())

    def start(self, data: Data = "kept") -> None:
        """Come back on the same port.

        Args:
            data: ``"kept"`` goes on with the data from before, sessions included; ``"lost"`` starts empty; a backup
                goes back to it.

        Raises:
            UsageError: it runs already.
        """
        run_on_network(self.server.start(data))

    def backup(self) -> Backup:
        """Return the data of this moment, to start with another time."""
        return on_network(self.server.backup)

    # ------------------------------------------------------------------ its end

    def close(self) -> None:
        """Go down for good, and give the port back."""
        run_on_network(self.server.__aexit__(None, None, None))

    def __repr__(self) -> str:
        return repr(self.server)


def _one_server(address: str) -> tuple[str, int]:
    try:
        servers, chroot = parse_connect_string(address)
    except InvalidArgument as error:
        raise InvalidArgument("address", error.value, error.reason) from None
    if len(servers) != 1 or chroot or not address.rstrip().endswith(f":{servers[0][1]}"):
        raise InvalidArgument("address", address, "give one server as host:port")
    return servers[0]


class EmbeddedOnly(UsageError, AttributeError):
    """A real ZooKeeper cannot be told to do that."""


class RealZooKeeper(AnyZooKeeper):
    """A part of a real ZooKeeper, under a chroot of the test's own, seen through a proxy.

    The chroot is made at the beginning and deleted at the end with all that is in it. Faults of connections happen in
    the proxy. A real server cannot make some faults on request: asking for one raises :class:`UsageError`.

    Args:
        address: ``host:port`` of one server.

    Raises:
        InvalidArgument: the address is not an address.
        ConnectTimeout: there is no ZooKeeper.
    """

    def __init__(self, address: str) -> None:
        self._target = _one_server(address)
        self._real = address
        self.chroot: str = f"/aioregistry-test-{uuid.uuid4().hex}"
        run_on_network(_make(address, self.chroot))
        self.proxy: ZooKeeperProxy = ZooKeeperProxy(self._target)

    @property
    def host(self) -> str:
        """The proxy's."""
        return self.proxy.host

    @property
    def port(self) -> int:
        """The proxy's."""
        return self.proxy.port

    @property
    def address(self) -> str:
        """``host:port`` of the proxy."""
        return self.proxy.address

    @property
    def connect_string(self) -> str:
        """With the chroot."""
        return self.address + self.chroot

    def expire(self, session_id: int) -> None:
        """End a session by closing it from another connection: to everybody else that is the same as its expiry.

        Args:
            session_id: as ``registry.session.id`` has it.

        Raises:
            InvalidArgument: the session was not opened here.
            RequestTimeout: its end could not be seen within ten seconds.
        """
        if session_id not in self.proxy.passwords:
            raise InvalidArgument("session_id", session_id, "is not a session that was opened here")
        deadline = time.monotonic() + COMMAND_TIMEOUT
        # Its owner may take it back between our handshake and our closing it: only a refusal proves the end.
        while not _is_over(self._target, session_id, self.proxy.passwords[session_id]):
            if time.monotonic() > deadline:
                raise RequestTimeout(f"session {session_name(session_id)} was not over within {COMMAND_TIMEOUT:g} s")

    def drop(self, session_id: int | None = None) -> None:
        """End the connections of a session, or all; the sessions live on.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        if session_id is None:
            self.proxy.cut()
        else:
            self.proxy.cut_session(session_id)

    def freeze(self, session_id: int | None = None) -> None:
        """Let the connections of a session, or all that are there, stand still until :meth:`thaw`.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        self.proxy.freeze(session_id)

    def thaw(self) -> None:
        """Let every frozen connection go on, first with the bytes that came meanwhile."""
        self.proxy.thaw()

    def refuse_connections(self, refuse: bool = True) -> None:
        """Refuse new connections, or take them again. Connections that are there stay.

        Args:
            refuse: False takes them again.
        """
        if refuse:
            self.proxy.refuse()
        else:
            self.proxy.accept()

    def lose_reply(self, opcode: int) -> None:
        """Let the next request of this kind through, and end its connection when the reply comes.

        Args:
            opcode: the kind of request, by its number in ZooKeeper's protocol, such as 1 for create and 14 for multi.
        """
        _ = self.proxy.lose_next_reply(opcode)

    def close(self) -> None:
        """Delete the chroot with all that is in it."""
        self.proxy.close()
        run_on_network(_remove(self._real, self.chroot))

    def __getattr__(self, name: str) -> NoReturn:
        if name in vars(ZooKeeper):
            raise EmbeddedOnly(f"{name}() needs the embedded server: a real ZooKeeper cannot do it on request")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"<RealZooKeeper {self._real} {self.chroot}>"


async def _make(servers: str, chroot: str) -> None:
    async with aioregistry.connect(servers, connect_timeout=COMMAND_TIMEOUT / 2) as registry:
        await registry.client.create(chroot)


async def _remove(address: str, chroot: str) -> None:
    async with aioregistry.connect(address, connect_timeout=COMMAND_TIMEOUT / 2) as registry:
        client, doomed = registry.client, [chroot]
        for path in doomed:  # which grows: parents before their children
            with contextlib.suppress(exc.NoNode):  # the client is aiozk's
                doomed += [f"{path}/{name}" for name in await client.get_children(path)]
        for path in reversed(doomed):
            with contextlib.suppress(exc.NoNode):
                await client.delete(path, force=True)


_CONNECT = struct.Struct(">iiqiqi16s")
_CONNECTED = struct.Struct(">iiiqi16s")
_CLOSE = struct.Struct(">iii")

ANSWER_TIMEOUT = COMMAND_TIMEOUT / 10
"""Seconds: where a session is ended twice at the same moment, a server may forget to answer one of the two."""


def _is_over(target: tuple[str, int], session_id: int, password: bytes) -> bool:
    """Return whether a session has ended; if not, ask for its end."""
    with socket.create_connection(target, COMMAND_TIMEOUT) as connection, contextlib.suppress(ConnectionError):
        connection.settimeout(ANSWER_TIMEOUT)
        with contextlib.suppress(TimeoutError):
            connection.sendall(_CONNECT.pack(_CONNECT.size - 4, 0, 0, 10_000, session_id, 16, password))
            greeting = b""
            while len(greeting) < _CONNECTED.size:
                if not (more := connection.recv(_CONNECTED.size - len(greeting))):
                    return False
                greeting += more
            if _CONNECTED.unpack(greeting)[3] == 0:
                return True
            connection.sendall(_CLOSE.pack(8, 1, -11))
            while connection.recv(4096):  # the server answers, and closes
                pass
    return False
