"""The connect string: ``host:port,host:port/chroot``, as ZooKeeper's own clients write it."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from aioregistry._errors import InvalidArgument
from aioregistry._paths import check_path

__all__ = ["DEFAULT_PORT", "Hosts", "parse_hosts"]

DEFAULT_PORT = 2181

# RFC 1123, with the underscore that container platforms put into service names.
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


class Hosts(NamedTuple):
    """Where the servers are, and the path that everything is kept under ("" for the root)."""

    servers: tuple[tuple[str, int], ...]
    chroot: str

    def __str__(self) -> str:
        shown = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers)
        return ",".join(shown) + self.chroot


def parse_hosts(servers: str) -> Hosts:
    """Parse a connect string.

    Blanks around commas are allowed; IPv6 addresses stand in brackets where a port follows; the port is 2181 unless
    given; a server named twice counts once. Raises :class:`InvalidArgument` that names the part that is wrong.
    """
    if not isinstance(servers, str):
        raise InvalidArgument("servers", servers, 'give a connect string such as "zk1:2181,zk2:2181/prod"')
    hosts, slash, chroot = servers.partition("/")
    if not hosts.strip():
        raise InvalidArgument("servers", servers, "names no server")
    parsed = [_server(part.strip(), servers) for part in hosts.split(",")]
    if "," in chroot:
        raise InvalidArgument("servers", servers, "write the chroot once, behind the last server")
    root = check_path("servers", slash + chroot.rstrip()) if slash else ""
    return Hosts(tuple(dict.fromkeys(parsed)), "" if root == "/" else root)


def _server(part: str, servers: str) -> tuple[str, int]:
    if not part:
        raise InvalidArgument("servers", servers, "has an empty part between its commas")
    host, port = _split(part)
    if not _NAME.fullmatch(host) and not _is_address(host):
        raise InvalidArgument("servers", part, f"{host!r} is neither a host name nor an address")
    return host, port


def _split(part: str) -> tuple[str, int]:
    if part.startswith("["):
        address, bracket, rest = part[1:].partition("]")
        if not bracket or not _is_address(address) or (rest and not rest.startswith(":")):
            raise InvalidArgument("servers", part, "write an IPv6 address with a port as [address]:port")
        return address, _port(rest[1:], part) if rest else DEFAULT_PORT
    if _is_address(part):
        return part, DEFAULT_PORT
    host, colon, port = part.rpartition(":")
    return (host, _port(port, part)) if colon else (part, DEFAULT_PORT)


def _port(digits: str, part: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) < 65536):
        raise InvalidArgument("servers", part, f"the port {digits!r} is not within 1..65535")
    return int(digits)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
