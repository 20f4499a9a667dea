"""The answers of a server's AdminServer, as the values that four-letter words have. Pure.

Its answers are JSON, and another program may listen there: an answer of another form has no value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from aioregistry._addresses import split_authority
from aioregistry._errors import InvalidArgument

from .words import ClientConnection, number

__all__ = ["DEFAULT", "AdminPlace", "Answer", "Unusable", "admin_place", "answer", "connections", "monitor", "settings"]

DEFAULT: Final = "http://:8080/commands"
"""ZooKeeper's own (admin.serverPort, admin.commandURL)."""

Answer: TypeAlias = Mapping[str, Any]
"""A JSON object."""

_OFF: Final = "off"
_OK: Final = 200
_LONGEST_HOST: Final = 100
_SETTINGS: Final = {
    "min_session_timeout": "minSessionTimeout",
    "max_session_timeout": "maxSessionTimeout",
    "max_client_cnxns": "maxClientCnxns",
}
"""Their names in ``conf``."""


class AdminPlace(NamedTuple):
    """Where each server's AdminServer is, on that server's own host."""

    scheme: str
    port: int
    path: str


class Unusable(Exception):
    """An answer has no facts; says why not."""


def admin_place(text: str) -> AdminPlace | None:
    """Return where the AdminServers are by an option; None for not asking them.

    Raises:
        InvalidArgument: *text* is a URL without a host, or not a URL.
    """
    if text == _OFF:
        return None
    wrong = InvalidArgument(
        "admin-server", text, f"must be {_OFF}, or a URL without a host, such as {DEFAULT}: each has a host already"
    )
    if not text.isascii() or any(c.isspace() or not c.isprintable() for c in text):
        raise wrong
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    host, _ = split_authority(parts.netloc) or (None, None)
    if parts.scheme not in ("http", "https") or host != "" or parts.query or parts.fragment:
        raise wrong
    return AdminPlace(parts.scheme, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/"))


def answer(raw: bytes) -> Answer:
    """Return the JSON object of an HTTP answer.

    Raises:
        Unusable: it is not such an answer, or says an error; with the reason.
    """
    head, _, body = raw.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
        raise Unusable("it speaks no HTTP")
    if status[1] != b"%d" % _OK:
        raise Unusable(f"it answers with HTTP status {status[1][:3].decode()}")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Unusable("its answer is not JSON") from None
    if not isinstance(found, dict) or found.get("error") is not None:
        raise Unusable("it does not know the command")
    return found


def connections(found: Answer) -> list[ClientConnection]:
    """Return the connections that the command ``connections`` reports.

    Raises:
        Unusable: it says nothing of connections.
    """
    listed = [found.get("connections"), found.get("secure_connections", [])]
    if not all(isinstance(each, list) for each in listed):
        raise Unusable("it does not list its connections")
    return [_connection(each) for some in listed for each in some or () if isinstance(each, dict)]


def _connection(fields: Answer) -> ClientConnection:
    values = dict(_scalars(fields))
    host = values.get("remote_socket_address", "").rpartition(":")[0][:_LONGEST_HOST]
    session = fields.get("session_id", 0)
    known = isinstance(session, int) and not isinstance(session, bool) and -(2**63) <= session < 2**63
    timeout, established = number(values, "session_timeout") / 1000, number(values, "established") / 1000
    return ClientConnection(host, session if known else 0, timeout, established)


def monitor(found: Answer) -> dict[str, str]:
    """Return what the command ``monitor`` says, by the names of ``mntr``."""
    return {f"zk_{name}": value for name, value in _scalars(found)}


def settings(found: Answer) -> dict[str, str]:
    """Return what the command ``configuration`` says, by the names of ``conf``."""
    return {_SETTINGS[name]: value for name, value in _scalars(found) if name in _SETTINGS}


def _scalars(found: Answer) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        if isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 2**63):
            yield name, str(value)
