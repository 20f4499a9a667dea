"""The servers' answers to four-letter words, as values. Pure. A word that is not allowed has no value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["ClientConnection", "connections", "members", "number", "pairs", "release", "summary"]

_CONNECTION: Final = re.compile(r"/?(?P<host>.+?):(?P<port>\d+)\[\d+\]\((?P<fields>.*)\)$")
_NOT_ALLOWED: Final = "is not executed because it is not in the whitelist"


class ClientConnection(NamedTuple):
    """A client of a server, as ``cons`` shows it.

    Args:
        host: its address.
        session: its session id, 0 without a session (four-letter words).
        timeout: of its session, seconds.
        established: when it was made, by the server's clock, seconds since the epoch; 0.0 if the server does not report
            it.
    """

    host: str
    session: int
    timeout: float
    established: float


def _is_allowed(answer: str) -> bool:
    """Return whether *answer* is one, and not the refusal of the word."""
    return bool(answer.strip()) and _NOT_ALLOWED not in answer


def pairs(answer: str, separator: str) -> dict[str, str]:
    """Return the lines ``name SEPARATOR value`` of *answer*, of which others are not part."""
    if not _is_allowed(answer):
        return {}
    lines = (line.partition(separator) for line in answer.splitlines())
    return {name.strip(): value.strip() for name, found, value in lines if found}


def summary(answer: str) -> dict[str, str]:
    """Return what ``srvr`` says, names in lower case; the mode of a server that does not serve is ``none``."""
    if "not currently serving requests" in answer:
        return {"mode": "none"}
    return {name.lower(): value for name, value in pairs(answer, ":").items()}


def members(answer: str) -> int:
    """Return how many members of the ensemble ``conf`` names."""
    return len({name for name in pairs(answer, "=") if re.fullmatch(r"server\.\d+", name)})


def connections(answer: str) -> list[ClientConnection] | None:
    """Return the answer to ``cons``; None if it is empty: the asker is a connection too."""
    if not _is_allowed(answer):
        return None
    return [found for line in answer.splitlines() if (found := _connection(line.strip())) is not None]


def _connection(line: str) -> ClientConnection | None:
    match = _CONNECTION.match(line)
    if match is None:
        return None
    fields = pairs(match["fields"].replace(",", "\n"), "=")
    timeout, established = number(fields, "to"), number(fields, "est")
    return ClientConnection(match["host"], _session(fields.get("sid", "0")), timeout / 1000, established / 1000)


def _session(text: str) -> int:
    try:
        unsigned = int(text, 16)
    except ValueError:
        return 0
    # Java writes it without a sign; ephemeral owners have one.
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def number(values: Mapping[str, str], name: str) -> float:
    """Return the number called *name*, or 0.0 if it is missing."""
    text = values.get(name, "")
    try:
        value = float(int(text, 16) if text.startswith("0x") else text)
    except (ValueError, OverflowError):
        return 0.0
    return value if abs(value) < 2**63 else 0.0  # NaN compares as False


def release(version: str) -> tuple[int, int, int] | None:
    """Return the three numbers that a server's *version* begins with; None where it begins otherwise."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", version)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))
