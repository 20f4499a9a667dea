"""Whether consumers can connect to an instance, as far as the text of its address tells. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from aioregistry._addresses import ip_address
from aioregistry._errors import InvalidArgument
from aioregistry._model import ServiceInstance

__all__ = ["check_reachable"]

_EVERYBODY: Final = ipaddress.IPv4Address("255.255.255.255")


def check_reachable(instance: ServiceInstance[Any]) -> None:
    """Raise InvalidArgument if it is certain that *instance* cannot be connected to.

    Such an instance is listed like any other, and every consumer that picks it fails.
    """
    address = None if instance.address is None else ip_address(instance.address)
    if address is not None and address.is_unspecified:
        raise InvalidArgument("address", instance.address, "is where a server listens: give one that others connect to")
    if address is not None and (address.is_multicast or address == _EVERYBODY):
        raise InvalidArgument("address", instance.address, "is not the address of one machine: give one")
    ports = {"port": instance.port, "ssl_port": instance.ssl_port}
    given = {field: port for field, port in ports.items() if port is not None}
    # RFC 6335 reserves port 0. Beside a port that can be used it says that there is no other, as Druid writes it.
    if given and all(port <= 0 for port in given.values()):
        field, port = next(iter(given.items()))
        raise InvalidArgument(field, port, "is not a port that others can connect to: give one from 1 to 65535")
