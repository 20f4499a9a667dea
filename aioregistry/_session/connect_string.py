"""The connect string: ``host:port,host:port/chroot``, as ZooKeeper's own clients write it."""

from __future__ import annotations

import re
from typing import NamedTuple

from aioregistry._addresses import ends_in_number, ip_address, is_host_name, problem_of
from aioregistry._errors import InvalidArgument, InvalidType
from aioregistry._paths import check_path
from aioregistry._secrets import unshown

__all__ = ["DEFAULT_PORT", "ConnectString", "parse_connect_string"]

DEFAULT_PORT = 2181

_PORT = re.compile(r"\d{1,5}", re.ASCII)
_NUMBER = re.compile(r"-?\d+", re.ASCII)
_SCHEME = re.compile(r"(?<![^,])\s*([A-Za-z][A-Za-z0-9+.:-]*)?://")
_BEHIND_PATH = {"?": "query", "#": "fragment"}
"""The parts of a URL behind its path, by their first character. They may hold a secret, and are not shown."""

_HIDDEN = "<hidden>"
"""In place of what may hold a secret."""


class ConnectString(NamedTuple):
    """Where the servers are, and the path that everything is kept under ("" for the root)."""

    servers: tuple[tuple[str, int], ...]
    chroot: str

    def __str__(self) -> str:
        shown = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers)
        return ",".join(shown) + self.chroot


def parse_connect_string(servers: str) -> ConnectString:
    """Parse a connect string.

    Blanks around commas are allowed; an IPv6 address stands in brackets where a port follows, or where its last group
    could be one; the port is 2181 unless given; a server named twice counts once. Raises :class:`InvalidArgument` that
    names the part that is wrong, and shows nothing of it where it may hold a password.
    """
    servers = unshown(servers)
    if not isinstance(servers, str):
        raise InvalidType("servers", servers, 'give a connect string such as "zk1:2181,zk2:2181/prod"')
    if "@" in servers.partition("/")[0] or (_SCHEME.search(servers) and "@" in servers):
        raise InvalidArgument(
            "servers",
            _HIDDEN,
            "takes no user or password: give credentials as auth=[(scheme, secret)], or by --auth-file",
        )
    if scheme := _SCHEME.search(servers):
        raise _url(servers, scheme)
    hosts, slash, chroot = servers.partition("/")
    if extra := _behind_path(hosts):
        reason = f"has a {_BEHIND_PATH[extra]} behind the {extra!r}, which a connect string cannot have"
        raise InvalidArgument("servers", _without_extra(servers, extra), reason)
    if not hosts.strip():
        raise InvalidArgument("servers", servers, "names no server before its chroot" if slash else "names no server")
    parsed = [_server(part.strip(), servers) for part in hosts.split(",")]
    if "," in chroot:
        raise InvalidArgument("servers", servers, "write the chroot once, behind the last server")
    root = check_path("servers", slash + chroot.rstrip()) if slash else ""
    return ConnectString(tuple(dict.fromkeys(parsed)), "" if root == "/" else root)


def _url(servers: str, scheme: re.Match[str]) -> InvalidArgument:
    """Return the error for a URL, which also names a fault in the rest of it."""
    plain = _SCHEME.sub("", servers).strip()
    extra = _behind_path(plain)
    instead = plain.partition(extra)[0] if extra else plain
    reason = (
        f"is a URL, and a connect string has no scheme: write {_short(instead) or 'zk1:2181,zk2:2181/prod'!r} without"
        f" the {scheme[0].strip()!r}"
    )
    if extra:
        reason += f" and without the {_BEHIND_PATH[extra]} behind the {extra!r}"
    if instead and not _SCHEME.search(instead):
        try:
            parse_connect_string(instead)
        except InvalidArgument as problem:
            reason += f", and correct the rest: {_short(str(problem.value))!r}: {problem.reason}"
    return InvalidArgument("servers", _without_extra(servers, extra), reason)


def _behind_path(text: str) -> str:
    """Return the first character of a query or a fragment, or ""."""
    found = re.search("[?#]", text)
    return found[0] if found else ""


def _without_extra(servers: str, extra: str) -> str:
    before, _, behind = servers.partition(extra) if extra else (servers, "", "")
    return f"{before}{extra}{_HIDDEN if behind else ''}"


def _server(part: str, servers: str) -> tuple[str, int]:
    if not part:
        raise InvalidArgument("servers", servers, "has an empty part between its commas")
    if part.startswith("["):
        return _bracketed(part)
    if _is_ipv6(part):
        return _bare_ipv6(part), DEFAULT_PORT
    host, colon, digits = part.rpartition(":")
    host, port = (host, _port(digits, part)) if colon else (part, DEFAULT_PORT)
    _check_host(host, part)
    return host, port


def _bracketed(part: str) -> tuple[str, int]:
    address, bracket, rest = part[1:].partition("]")
    if not bracket or not (_is_ipv6(address) or _is_ipv4(address)) or (rest and not rest.startswith(":")):
        raise InvalidArgument("servers", part, "write an IPv6 address with a port as [address]:port")
    return address, _port(rest[1:], part) if rest else DEFAULT_PORT


def _bare_ipv6(part: str) -> str:
    before, _, last = part.rpartition(":")
    if _is_ipv6(before) and _PORT.fullmatch(last):
        reason = (
            f"is ambiguous: write [{before}]:{last} if {last} is the port, or [{part}] if it is part of the address"
        )
        raise InvalidArgument("servers", part, reason)
    return part


def _check_host(host: str, part: str) -> None:
    if _is_ipv4(host):
        return
    if problem := _problem(host, part):
        raise InvalidArgument("servers", part, problem)


def _problem(host: str, part: str) -> str:
    """Return the fault of a host, by the likeliest mistake; "" if it has no fault."""
    named = f"{_short(host)!r} is neither a host name nor an address"
    if not host:
        return f"{named}: the host is missing before the port"
    if any(character.isspace() or character == ";" for character in part):
        return f"{named}: separate servers by commas, and leave no blank inside"
    if ":" in host:
        return f"{named}: write host:port, and an IPv6 address in brackets"
    if ends_in_number(host):
        hint = f": is it the port? write host:{host}" if _PORT.fullmatch(host) and host == part else ""
        return f"{_short(host)!r} is not an IPv4 address, and a host name cannot end in a number{hint}"
    return "" if is_host_name(host) else named


def _port(digits: str, part: str) -> int:
    if not digits:
        raise InvalidArgument("servers", part, f"the port '' is missing behind the colon: write {part}{DEFAULT_PORT}")
    if not _NUMBER.fullmatch(digits):
        raise InvalidArgument("servers", part, f"the port {_short(digits)!r} is not a number (digits 0 to 9)")
    if not (_PORT.fullmatch(digits) and 0 < int(digits) < 65536):
        raise InvalidArgument("servers", part, f"the port {_short(digits)!r} is not within 1..65535")
    return int(digits)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}…"


def _is_ipv4(host: str) -> bool:
    return ":" not in host and _is_address(host)


def _is_ipv6(host: str) -> bool:
    return ":" in host and _is_address(host)


def _is_address(host: str) -> bool:
    return ip_address(host) is not None and problem_of(host) is None
