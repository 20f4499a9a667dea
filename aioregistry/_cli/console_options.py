"""The options of `aioregistry console`: argparse alone, so that `--help` imports nothing else."""

from __future__ import annotations

import argparse
from typing import Any

from .options import WRITING, add_shared

__all__ = ["add_console"]


def add_console(commands: Any) -> argparse.ArgumentParser:
    """Add the command to argparse's *commands*, and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "console",
        help="show all services in a browser, live, with their history",
        description="Serve a console for browsers until SIGINT or SIGTERM: services and instances live, a timeline of "
        "their changes, and maintenance where that is allowed. Prints its address when it listens. Needs the extra "
        "console.",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:8765",
        help="the address to listen on; unless it is on loopback, users have to log in (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name by which browsers reach it, besides localhost and addresses; may be repeated",
    )
    _add_users(parser)
    parser.add_argument(
        "--allow-drain",
        action="store_true",
        help="let users begin and end the maintenance of instances (default: read-only)",
    )
    parser.add_argument(
        "--warm-up",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long a new instance is shown as warming up, as in the balancers' WarmUp (default: %(default)g)",
    )
    group = parser.add_argument_group("history")
    group.add_argument(
        "--history", metavar="FILE", help="keep it in an SQLite database (default: until the command ends)"
    )
    group.add_argument(
        "--history-days", metavar="DAYS", type=float, default=30.0, help="for how long (default: %(default)g)"
    )
    group.add_argument(
        "--history-size", metavar="MIB", type=int, default=256, help="the oldest goes first (default: %(default)s)"
    )
    add_shared(parser, WRITING)
    return parser


def _add_users(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("users")
    group.add_argument("--password-file", metavar="FILE", help="users and hashes of their passwords, one a line")
    group.add_argument(
        "--hash-password", metavar="USER", help="ask for a password, print its line for --password-file, and end"
    )
    group.add_argument(
        "--hash",
        choices=["scrypt", "argon2"],
        default="scrypt",
        help="the hash function of --hash-password (%(default)s)",
    )
    group.add_argument(
        "--user-header", metavar="NAME", help="a reverse proxy names the user in this header, instead of passwords"
    )
    group.add_argument(
        "--proxy",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="of that proxy; may be repeated (default: 127.0.0.1 and ::1)",
    )
    group.add_argument("--https-cert", metavar="FILE", help="speak HTTPS, and show the certificate (PEM) of FILE")
    group.add_argument("--https-key", metavar="FILE", help="its key, where that is not in the same file")
