"""`aioregistry console`: the registry in a browser, live, with its history; the extra `console`."""

from __future__ import annotations

import argparse
import getpass
import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aioregistry import InvalidArgument, RegistryError
from aioregistry._addresses import split_authority
from aioregistry._extras import needs
from aioregistry._reasons import reason_of
from aioregistry._words import printable

from .options import connection
from .process import DONE

try:
    from .._console.console import Settings
    from .._console.passwords import Hash, hashed, read_passwords, without_argon2
    from .._console.serving import Place, serve
except ModuleNotFoundError as missing:
    raise RegistryError(needs("aioregistry console", "jinja2, Starlette and uvicorn", "console")) from missing

__all__ = ["console"]

_MIB: Final = 2**20
_MOST_DAYS: Final = 3650.0
_LEAST_MIB: Final = 1
_MOST_MIB: Final = 2**20
_LONGEST_WARM_UP: Final = 3600.0
"""Seconds; a view remembers for so long that an instance was new."""

_WAITING: Final = 128
_MAX_PORT: Final = 65535
_MOST_DIGITS: Final = 5
_SHORTEST_PASSWORD: Final = 8


async def console(arguments: argparse.Namespace) -> int:
    """Serve until a signal, or print the line of a user for the file of passwords."""
    if arguments.hash_password is not None:
        print(f"{arguments.hash_password}:{_hashed(arguments.hash_password, arguments.hash)}")
        return DONE
    settings = _settings(arguments)
    sockets = _listening(arguments, settings)
    try:
        place = _place(arguments, sockets)
        scheme = "http" if place.certificate is None else "https"

        def ready() -> None:
            # The pages show outages, but perhaps no page is open.
            arguments.own_lines.events |= dict.fromkeys(("session.outage", "session.outage_over"), lambda: True)
            for each in sockets:
                host, port = each.getsockname()[:2]
                print(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)

        await serve(connection(arguments), settings, place, ready)
    finally:
        for each in sockets:
            each.close()
    return DONE


# ---------------------------------------------------------------- who may


def _settings(arguments: argparse.Namespace) -> Settings:
    if arguments.password_file is not None and arguments.user_header is not None:
        raise InvalidArgument("user-header", arguments.user_header, "excludes --password-file: give one of the two")
    if arguments.proxy and arguments.user_header is None:
        raise InvalidArgument("proxy", arguments.proxy[0], "names users in a header: give --user-header too")
    return Settings(
        hosts=frozenset(name.lower().rstrip(".") for name in arguments.allow_host),
        passwords=None if arguments.password_file is None else _passwords(arguments.password_file),
        user_header=None if arguments.user_header is None else _header(arguments.user_header),
        proxies=frozenset(map(_proxy, arguments.proxy)) or frozenset({"127.0.0.1", "::1"}),
        allow_drain=arguments.allow_drain,
        warm_up=_warm_up(arguments.warm_up),
        secure=arguments.https_cert is not None,
    )


def _passwords(path: str) -> dict[str, Hash]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InvalidArgument("password-file", path, "is not UTF-8") from None
    except (OSError, ValueError) as error:
        raise InvalidArgument("password-file", path, f"cannot be read: {reason_of(error)}") from None
    return dict(read_passwords(path, lines))


def _header(name: str) -> str:
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise InvalidArgument("user-header", name, "is not the name of a header, such as X-Forwarded-User")
    return name


def _warm_up(seconds: float) -> float:
    if not 0 <= seconds <= _LONGEST_WARM_UP:
        raise InvalidArgument("warm-up", seconds, f"is not a number of seconds up to {_LONGEST_WARM_UP:g}")
    return seconds


def _proxy(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidArgument("proxy", text, "is not an IP address") from None


def _hashed(user: str, scheme: str) -> str:
    """Return the hash of a password that is asked for, or read from standard input where that is not a terminal."""
    if scheme == "argon2" and (missing := without_argon2("--hash argon2")) is not None:
        raise InvalidArgument("hash", scheme, missing)
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(password) < _SHORTEST_PASSWORD:
        raise InvalidArgument("password", "<hidden>", f"is shorter than {_SHORTEST_PASSWORD} characters")
    line = f"{user}:{hashed(password, os.urandom(16), scheme)}"
    try:
        _ = read_passwords("standard input", [line])
    except InvalidArgument:
        raise InvalidArgument("hash-password", user, "is not the name of a user, which a line can begin with") from None
    return line.partition(":")[2]


# ---------------------------------------------------------------- where


def _listening(arguments: argparse.Namespace, settings: Settings) -> list[socket.socket]:
    host, port = _split(arguments.listen)
    wrong = f"is not an address to listen on: give HOST:PORT, such as 127.0.0.1:{port or 8765}"
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else wrong
        raise InvalidArgument("listen", arguments.listen, f"cannot be listened on: {reason}") from None
    addresses = dict.fromkeys((family, address[0]) for family, _, _, _, address in found)
    is_open = settings.passwords is None and settings.user_header is None
    if is_open and not all(ipaddress.ip_address(str(at).partition("%")[0]).is_loopback for _, at in addresses):
        why = "can be reached from other machines: give --password-file or --user-header, so that users have to log in"
        raise InvalidArgument("listen", arguments.listen, why)
    return _bound(arguments.listen, [(family, str(address)) for family, address in addresses], port)


def _split(listen: str) -> tuple[str, int]:
    host, port = split_authority(listen) or ("", None)
    if port is None or not (port.isascii() and port.isdigit() and len(port) <= _MOST_DIGITS and int(port) <= _MAX_PORT):
        raise InvalidArgument(
            "listen", listen, "is not an address to listen on: give HOST:PORT, such as 127.0.0.1:8765"
        )
    return host, int(port)


def _bound(listen: str, addresses: Sequence[tuple[int, str]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses:
            # The port that is free for the first is used for the others too.
            number = sockets[0].getsockname()[1] if sockets and port == 0 else port
            sockets.append(
                socket.create_server(
                    (address, number), family=socket.AddressFamily(family), backlog=_WAITING, dualstack_ipv6=False
                )
            )
    except OSError as error:
        for each in sockets:
            each.close()
        raise InvalidArgument("listen", listen, f"cannot be listened on: {reason_of(error)}") from None
    return sockets


def _place(arguments: argparse.Namespace, sockets: Sequence[socket.socket]) -> Place:
    days, size = arguments.history_days, arguments.history_size
    if not 0 < days <= _MOST_DAYS:
        raise InvalidArgument("history-days", days, f"is not a number of days up to {_MOST_DAYS:.0f}")
    if not _LEAST_MIB <= size <= _MOST_MIB:
        raise InvalidArgument("history-size", size, f"is not a number of MiB within {_LEAST_MIB}..{_MOST_MIB}")
    _check_certificate(arguments.https_cert, arguments.https_key)
    return Place(
        sockets=sockets,
        certificate=arguments.https_cert,
        key=arguments.https_key,
        history=None if arguments.history is None else Path(arguments.history),
        days=days,
        limit=size * _MIB,
    )


def _check_certificate(certificate: str | None, key: str | None) -> None:
    if certificate is None:
        if key is not None:
            raise InvalidArgument("https-key", key, "is the key of a certificate: give that as --https-cert")
        return
    for field, path in (("https-cert", certificate), ("https-key", key)):
        try:
            if path is not None:
                _ = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise InvalidArgument(field, path, f"cannot be read: {reason_of(error)}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError):
        why = "is not a certificate in PEM with its key, not encrypted, in " + ("the same file" if key is None else key)
        raise InvalidArgument("https-cert", certificate, printable(why)) from None
