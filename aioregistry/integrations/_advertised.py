"""The address at which others reach this process: given, from the environment, or that of the way to ZooKeeper."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from aioregistry import InvalidArgument, RegistryError
from aioregistry._addresses import IPAddress, ip_address, only_here, problem_of
from aioregistry._arguments import check_seconds
from aioregistry._concurrency import in_daemon_thread
from aioregistry._errors import wrong_argument
from aioregistry._session import parse_connect_string

__all__ = ["AIOREGISTRY_ADDRESS", "POD_IP_VARIABLES", "NoAddress", "advertised_address", "configured_address"]

AIOREGISTRY_ADDRESS: Final = "AIOREGISTRY_ADDRESS"
"""The variable that decides where no address is given: an IP address or a host name."""

POD_IP_VARIABLES: Final = ("POD_IP", "MY_POD_IP")
"""The usual names for ``status.podIP`` of Kubernetes' downward API, which sets no variable by itself: most charts the
one, Kubernetes' own documentation the other."""

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds; the time that a resolver gives its first name server (resolv.conf(5))."""

_WAY_OUT: Final = f"give address= (--address), or set {AIOREGISTRY_ADDRESS}"

_log = logging.getLogger("aioregistry.integrations")


class NoAddress(RegistryError):
    """No address to advertise was found now; a name server that answers, or a route, may give one later."""


async def advertised_address(
    servers: str,
    address: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> str:
    """Return the address that consumers are to reach this process at.

    The first of: *address*; the variable ``AIOREGISTRY_ADDRESS``; the pod's address, ``POD_IP`` or ``MY_POD_IP`` as
    deployments on Kubernetes call it; the address of the interface from which the ensemble is reached, by the routes of
    the system (a UDP socket is connected, nothing is sent).

    A loopback address beside an ensemble elsewhere is logged as a warning: other machines cannot use it.

    Args:
        servers: the connect string, as :func:`aioregistry.connect` takes it.
        address: an IP address, or a host name.
        environment: the process's unless given.
        timeout: seconds that looking up the ensemble's names may take; the event loop is not held up meanwhile.

    Raises:
        InvalidArgument: *address*, or the variable that decides, is not an address; names it and its value.
        NoAddress: the ensemble's names were not found in time, or no route leads to it.
    """
    hosts = parse_connect_string(servers).servers
    check_seconds("timeout", timeout)
    for source, chosen in _configured(address, environment):
        _warn_of_loopback(hosts, chosen, source)
        return chosen
    found = await _interfaces(hosts, timeout)
    if not found:
        raise NoAddress(f"no address from which {_names(hosts)} is reached, within timeout={timeout:g} s; {_WAY_OUT}")
    best = str(min(found, key=lambda each: (each.is_loopback, each.is_link_local)))
    _warn_of_loopback(hosts, best, "the interface to ZooKeeper")
    return best


def configured_address(address: str | None = None, *, environment: Mapping[str, str] | None = None) -> str | None:
    """Return what :func:`advertised_address` returns where that was configured; None where it has to find out.

    Raises InvalidArgument as that does.
    """
    return next((chosen for _, chosen in _configured(address, environment)), None)


# ---------------------------------------------------------------- configuration


def _configured(address: object, environment: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    """Yield where an address was given, and the address: the first decides, and the others are not looked at."""
    variables = os.environ if environment is None else environment
    if address is not None:
        yield "address", _checked_address("address", address)
    if AIOREGISTRY_ADDRESS in variables:
        yield AIOREGISTRY_ADDRESS, _checked_address(AIOREGISTRY_ADDRESS, variables[AIOREGISTRY_ADDRESS])
    for variable in POD_IP_VARIABLES:
        if variable in variables:
            yield variable, _checked_ip(variable, variables[variable])


def _checked_address(field: str, value: object) -> str:
    problem = problem_of(value) if isinstance(value, str) else "it is not text"
    if problem is not None:
        raise wrong_argument(field, value, f"give an IP address or a host name: {problem}", str)
    assert isinstance(value, str), "only text passes the check above"
    return value if ip_address(value) is None else _checked_ip(field, value)


def _checked_ip(field: str, value: str) -> str:
    address = ip_address(value)
    if address is None or problem_of(value) is not None:
        raise InvalidArgument(field, value, "give an IP address")
    if address.is_unspecified or address.is_multicast:
        raise InvalidArgument(field, value, "is not the address of one machine: give one that consumers can connect to")
    return str(address)


# ---------------------------------------------------------------- what the system knows


async def _interfaces(hosts: Sequence[tuple[str, int]], timeout: float) -> list[IPAddress]:
    """Return this machine's addresses towards the hosts, those whose names are found within *timeout* seconds."""
    lookups = [asyncio.create_task(_towards(*host), name=f"address towards {host[0]}") for host in hosts]
    try:
        done, _ = await asyncio.wait(lookups, timeout=timeout)
    finally:
        for lookup in lookups:
            lookup.cancel()
    return [address for lookup in lookups if lookup in done for address in lookup.result()]


async def _towards(host: str, port: int) -> list[IPAddress]:
    """Return this machine's addresses from which *host* is reached, one for each of the host's."""
    found = []
    for family, peer in await _looked_up(host, port):
        # Connecting a UDP socket sends nothing: the system chooses a route, and with it our address.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(peer)
            found.append(ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]))
    return found


_Found = list[tuple[socket.AddressFamily, tuple[object, ...]]]


async def _looked_up(host: str, port: int) -> _Found:
    def look_up() -> _Found:
        with contextlib.suppress(OSError, UnicodeError):
            return [(entry[0], entry[4]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)]
        return []

    # Not loop.getaddrinfo: a name server that hangs must not hold up the end of the process.
    return await in_daemon_thread(look_up, name=f"aioregistry-resolve-{host}")


# ---------------------------------------------------------------- the ensemble


def _warn_of_loopback(hosts: Sequence[tuple[str, int]], chosen: str, source: str) -> None:
    if only_here(chosen, [host for host, _ in hosts]):
        _log.warning(
            "advertising %s (from %s), but ZooKeeper is at %s: other machines cannot reach this process; %s",
            *(chosen, source, _names(hosts), _WAY_OUT),
        )


def _names(hosts: Sequence[tuple[str, int]]) -> str:
    return ",".join(host for host, _ in hosts)
