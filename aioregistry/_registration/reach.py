"""Whether consumers can connect to what is to be listed, as far as its text tells. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

from aioregistry._errors import InvalidArgument
from aioregistry._model import ServiceInstance

__all__ = ["check_reachable", "only_here"]

_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain")
_EVERYBODY: Final = ipaddress.IPv4Address("255.255.255.255")


def check_reachable(instance: ServiceInstance[Any]) -> None:
    """Raise InvalidArgument where it is certain that nobody can connect to *instance*.

    Such an instance is listed like any other, and every consumer that picks it fails.
    """
    address = None if instance.address is None else _ip(instance.address)
    if address is not None and address.is_unspecified:
        raise InvalidArgument("address", instance.address, "is where a server listens: give one that others connect to")
    if address is not None and (address.is_multicast or address == _EVERYBODY):
        raise InvalidArgument("address", instance.address, "is no address of one machine: give one")
    ports = {"port": instance.port, "ssl_port": instance.ssl_port}
    given = {field: port for field, port in ports.items() if port is not None}
    # RFC 6335 reserves port 0. Beside a port that can be used it says that there is no other, as Druid writes it.
    if given and all(port <= 0 for port in given.values()):
        field, port = next(iter(given.items()))
        raise InvalidArgument(field, port, "is no port that others can connect to: give one from 1 to 65535")


def only_here(address: str, servers: Iterable[str]) -> bool:
    """Return whether *address* is this machine's own, while a server of the ensemble is on another machine.

    A name, of an address or a server, is taken for another machine's unless it is one of ``localhost``.
    """
    return _is_loopback(address) and not all(_is_loopback(server) for server in servers)


def _is_loopback(host: str) -> bool:
    address = _ip(host)
    name = host.lower().rstrip(".")
    return address.is_loopback if address is not None else name in _LOCAL_NAMES or name.endswith(".localhost")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
