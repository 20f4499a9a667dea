"""Which process has a port: this one, another one, or neither; and whether its instance may be listed.

Servers run the startup of an application before they open their sockets, after it, or in a parent process. No interface
tells an application which of these is the case. The system does: the sockets of a process are among its file
descriptors, and binding tells whether another process has a port.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = [
    "DECISIONS",
    "Decision",
    "Holder",
    "Judgement",
    "ServerStatus",
    "Socket",
    "holder",
    "judged",
    "listening",
    "opened",
    "own_sockets",
    "serves",
    "tcp",
]

_DESCRIPTORS: Final = Path("/dev/fd")  # Linux, macOS, the BSDs
_WILDCARDS: Final = ("0.0.0.0", "::")


class Socket(NamedTuple):
    """A stream socket of this process that is bound, and not connected. ``port`` is 0 for a Unix socket."""

    number: int
    """Of the inode: the same in every process that shares the socket."""
    host: str
    port: int
    listening: bool
    exclusive: bool = True
    """Whether no other process can listen on its port: several may bind one with SO_REUSEADDR, and one may listen."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Holder(enum.Enum):
    """Which process has an address and a port."""

    HERE = "this process"
    NOBODY = "nobody"
    OTHER = "another process"
    UNKNOWN = "unknown from here"


class ServerStatus(enum.Enum):
    """Whether the server listens."""

    STARTING = "it may do so later"
    LISTENING = "it does, and has no more sockets to open"


class Decision(enum.Enum):
    """The steps for an instance with that address and port."""

    LIST = "list it"
    WAIT = "list it when this process listens: it may be about to fail, because another process has the port"
    REFUSE = "refuse it: no process would answer there"
    WARN = "list it with a warning: perhaps no process answers there"


DECISIONS: Final[Mapping[tuple[Holder, ServerStatus], Decision]] = MappingProxyType(
    {
        (Holder.HERE, ServerStatus.STARTING): Decision.LIST,
        (Holder.NOBODY, ServerStatus.STARTING): Decision.LIST,
        (Holder.OTHER, ServerStatus.STARTING): Decision.WAIT,
        (Holder.UNKNOWN, ServerStatus.STARTING): Decision.LIST,  # the address is a router's, a host's of containers, …
        (Holder.HERE, ServerStatus.LISTENING): Decision.LIST,
        (Holder.NOBODY, ServerStatus.LISTENING): Decision.REFUSE,
        (Holder.OTHER, ServerStatus.LISTENING): Decision.WARN,  # a proxy of this machine may lead here
        (Holder.UNKNOWN, ServerStatus.LISTENING): Decision.WARN,
    }
)


_GRAVITY: Final[Mapping[Decision, int]] = MappingProxyType(
    {Decision.LIST: 0, Decision.WARN: 1, Decision.WAIT: 2, Decision.REFUSE: 3}
)


class Judgement(NamedTuple):
    """The steps for an instance; ``port`` is the one that decides, 0 where all are well."""

    decision: Decision
    port: int


# ---------------------------------------------------------------- pure


def serves(sockets: Iterable[Socket], address: str | None, port: int) -> bool:
    """Return whether who connects to *address* and *port* of this machine comes to one of *sockets*.

    Of an address that is not an IP address, or None, only the port is compared.
    """
    asked = _ip(address)
    return any(
        each.port == port and (asked is None or each.host in _WILDCARDS or _ip(each.host) == asked) for each in sockets
    )


def tcp(sockets: Iterable[Socket]) -> list[Socket]:
    """Return those of *sockets* that are not Unix sockets."""
    return [each for each in sockets if each.port]


def _ip(host: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host or "")
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if mapped is None else mapped


def listening(sockets: Iterable[Socket]) -> list[Socket]:
    """Return those of *sockets* that accept connections."""
    return [each for each in sockets if each.listening]


def opened(before: Iterable[Socket], now: Iterable[Socket]) -> bool:
    """Return whether a socket listens *now* that did not *before*."""
    known = {each.number for each in listening(before)}
    return any(each.number not in known for each in listening(now))


# ---------------------------------------------------------------- what the system knows


def own_sockets() -> list[Socket]:
    """Return the bound stream sockets of this process; nothing where the system does not show its descriptors."""
    try:
        descriptors = [int(each.name) for each in _DESCRIPTORS.iterdir() if each.name.isdigit()]
    except OSError:
        return []
    found = {}
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # another thread has closed it, or it is connected
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode) and (bound := _bound(descriptor, status.st_ino)) is not None:
                found[bound.number] = bound
    return list(found.values())


def _bound(descriptor: int, number: int) -> Socket | None:
    with socket.socket(fileno=os.dup(descriptor)) as shared:
        if shared.type is not socket.SOCK_STREAM:
            return None
        listening = bool(shared.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        if shared.family is socket.AF_UNIX:
            return Socket(number, "", 0, listening) if listening else None
        if shared.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        host, port = shared.getsockname()[:2]
        exclusive = listening or not shared.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        bound = port and (listening or not _connected(shared))
        return Socket(number, host, port, listening, exclusive) if bound else None


def _connected(shared: socket.socket) -> bool:
    try:
        shared.getpeername()
    except OSError:
        return False
    return True


def judged(sockets: Iterable[Socket], address: str | None, ports: Iterable[int], status: ServerStatus) -> Judgement:
    """Return what to do about an instance with *address* and *ports*, and which port decides.

    Args:
        sockets: those of this process.
        address: an IP address or a host name; None compares ports only.
        ports: 1 to 65535 each.
        status: of the server. While it starts, a bound socket counts if no other process can listen on its port. Once
            it listens, only sockets that do so count; where those are Unix sockets only, something else leads to them.
    """
    counted = [each for each in sockets if each.listening or (status is ServerStatus.STARTING and each.exclusive)]
    known = status is ServerStatus.STARTING or tcp(counted)
    judgements = [Judgement(DECISIONS[holder(counted, address, port), status], port) for port in ports if known]
    return max(judgements, default=Judgement(Decision.LIST, 0), key=lambda each: _GRAVITY[each.decision])


def holder(sockets: Iterable[Socket], address: str | None, port: int) -> Holder:
    """Return which process has *address* and *port*.

    Of an address that is not an IP address, or not this machine's, only the port is looked at: the owner of the address
    leads to some port of this machine, to the same one as a rule. Nothing is looked up.

    Args:
        sockets: those of this process that count.
        address: an IP address or a host name; None is any of this machine.
        port: 1 to 65535.
    """
    sockets = list(sockets)
    if serves(sockets, address, port):
        return Holder.HERE
    if address is None:
        return _bind(socket.AF_INET, "", port)
    asked = _ip("127.0.0.1" if address.rstrip(".").lower() == "localhost" else address)
    if asked is not None:
        family = socket.AF_INET if asked.version == 4 else socket.AF_INET6
        found = _bind(family, str(asked), port)
        if found is not Holder.UNKNOWN:
            return found
    found = holder(sockets, None, port)
    return Holder.UNKNOWN if found is Holder.NOBODY else found


_BINDING: Final[Mapping[int | None, Holder]] = MappingProxyType({None: Holder.NOBODY, errno.EADDRINUSE: Holder.OTHER})


def _bind(family: socket.AddressFamily, host: str, port: int) -> Holder:
    """Return which process has *host* and *port*, judged by binding them."""
    refused = _refused(family, host, port)
    if refused == errno.EADDRINUSE and _refused(family, host, port, shared=True) is None:
        return Holder.NOBODY  # its owner lets others bind it too
    return _BINDING.get(refused, Holder.UNKNOWN)  # not this machine's address, or not allowed


def _refused(family: socket.AddressFamily, host: str, port: int, shared: bool = False) -> int | None:
    """Return the number of the error that binding ends with; None where it succeeds."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: a former connection's address (TIME_WAIT) is not in the way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family is socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno
    return None
