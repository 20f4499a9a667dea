"""Where an instance says that it is reached, compared with the sockets of this process, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from aioregistry import InvalidArgument, ServiceInstance

from ._listening import Socket, listening, serves, tcp

__all__ = ["OCCUPIED", "ON_BEHALF", "at", "check_has_port", "pauses", "ports_of", "refused", "warning"]

_FIRST_PAUSE: Final = 0.05
_LONGEST_SOCKET_PAUSE: Final = 2.0
"""Seconds between two looks at this process's sockets, at first and in the end."""


def pauses(seconds: float) -> Iterator[float]:
    """Yield pauses, each half as long again as the one before, that are *seconds* together."""
    pause = _FIRST_PAUSE
    while seconds > 0:
        yield min(pause, seconds)
        seconds -= pause
        pause = min(1.5 * pause, _LONGEST_SOCKET_PAUSE)


def ports_of(instance: ServiceInstance[Any]) -> list[int]:
    return [port for port in (instance.port, instance.ssl_port) if port is not None]


def check_has_port(instance: ServiceInstance[Any]) -> None:
    """Raise InvalidArgument where consumers cannot connect to *instance*, which is a server's."""
    if not ports_of(instance):
        raise InvalidArgument("port", None, "a server is listed by a port: give the one that consumers connect to")


def refused(address: str | None, port: int, sockets: list[Socket]) -> InvalidArgument:
    reason = f"no process listens at {at(address, port)}: {_listens(sockets)}; {_WAY_OUT}"
    by_address = serves(listening(sockets), None, port)
    return InvalidArgument("address", address, reason) if by_address else InvalidArgument("port", port, reason)


def warning(instance: ServiceInstance[Any], port: int, sockets: list[Socket]) -> str:
    """Return a warning if *instance*, which is listed, is perhaps not reached at *port*."""
    return f"{instance.name} is listed at {at(instance.address, port)}, but {_listens(sockets)}; {_WAY_OUT}"


def at(address: str | None, port: int) -> str:
    return f"port {port}" if address is None else str(Socket(0, address, port, listening=True))


def _listens(sockets: list[Socket]) -> str:
    return f"this process listens on {', '.join(map(str, sorted(tcp(listening(sockets)))))} only"


OCCUPIED: Final = "another server has {}, and this process does not listen yet"
ON_BEHALF: Final = "give check_port=False where that server is listed by this process, or leads to it"
_WAY_OUT: Final = (
    "give the address and the port that the server listens on, or check_port=False where something leads there"
)
