"""The options of `aioregistry doctor`: argparse alone, so that `--help` imports nothing else."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_shared

__all__ = ["add_doctor"]


def add_doctor(commands: Any) -> argparse.ArgumentParser:
    """Add the command to argparse's *commands*, and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="find the faults of a registry and its ensemble, and their remedies",
        description="Read a live ensemble and list its faults and those of the registry, the most harmful first, each "
        "with a remedy. Writes nothing. Exit code 0: healthy; 1: a fault was found; 2: usage.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--max-request", metavar="BYTES", type=int, default=0xFFFFF, help="the servers' jute.maxbuffer (%(default)s)"
    )
    parser.add_argument(
        "--admin-server",
        metavar="URL",
        default="http://:8080/commands",
        help="the servers' AdminServer, each on its own host, where cons is not allowed; off: do not ask them "
        "(default: %(default)s)",
    )
    add_shared(parser)
    return parser
