"""Asks the servers themselves: by four-letter words, and by their AdminServers what those do not allow."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

from aioregistry._reasons import reason_of, words_of

from . import admin_words, words
from .admin_words import AdminPlace, Unusable
from .picture import Server

__all__ = ["ask"]

WORDS: Final = ("srvr", "mntr", "conf", "cons")
MOST_OF_AN_ANSWER: Final = 64 * 2**20
ADMIN_PATIENCE: Final = 10.0
"""Seconds: a firewall often drops packets to a port that clients do not need."""


async def ask(host: str, port: int, tls: ssl.SSLContext | None, admin: AdminPlace | None, patience: float) -> Server:
    """Return a server's description of itself.

    Args:
        host: of it.
        port: for clients.
        tls: for its port for clients; None for plain TCP.
        admin: where its AdminServer is; None if it is not to be asked.
        patience: seconds for one answer.
    """
    address = _shown(host, port)
    answers: dict[str, str] = {}
    for word in WORDS:
        try:
            async with asyncio.timeout(patience):
                answers[word] = (await _told(host, port, tls, word.encode())).decode(errors="replace")
        except TimeoutError:
            return Server(address, f"no answer within {patience:g} s")
        except OSError as error:
            return Server(address, _why(error))
    monitor, settings = words.pairs(answers["mntr"], "\t"), words.pairs(answers["conf"], "=")
    connections = words.connections(answers["cons"])
    silence = ""
    if admin is not None and (connections is None or not monitor or not settings):
        try:
            async with asyncio.timeout(min(ADMIN_PATIENCE, patience)):
                if connections is None:
                    connections = admin_words.connections(await _by_admin(host, tls, admin, "connections"))
                monitor = monitor or admin_words.monitor(await _by_admin(host, tls, admin, "monitor"))
                settings = settings or admin_words.settings(await _by_admin(host, tls, admin, "configuration"))
        except TimeoutError:
            why = f"no answer within {min(ADMIN_PATIENCE, patience):g} s"
        except OSError as error:
            why = _why(error)
        except Unusable as unusable:
            why = str(unusable)
        else:
            why = ""
        silence = f"{_url(host, admin)}: {why}" if why else ""
    return Server(
        address,
        summary=words.summary(answers["srvr"]),
        monitor=monitor,
        settings=settings,
        members=words.members(answers["conf"]),
        connections=connections,
        admin_silence=silence,
    )


async def _by_admin(host: str, tls: ssl.SSLContext | None, admin: AdminPlace, command: str) -> admin_words.Answer:
    context = (tls or ssl.create_default_context()) if admin.scheme == "https" else None
    request = f"GET {admin.path}/{command} HTTP/1.0\r\nHost: {_shown(host, admin.port)}\r\n\r\n"
    return admin_words.answer(await _told(host, admin.port, context, request.encode()))


async def _told(host: str, port: int, tls: ssl.SSLContext | None, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(question)
        return await _read(reader)
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> bytes:
    parts, size = [], 0
    while (part := await reader.read(2**16)) and size <= MOST_OF_AN_ANSWER:
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _why(error: OSError) -> str:
    match error:
        case ssl.SSLError():
            return f"no TLS connection was made: {reason_of(error)}"
        case socket.gaierror():
            return f"the name was not resolved: {words_of(error)}"
        case ConnectionRefusedError():
            return "the connection was refused: nothing listens there"
        case _:
            return f"no connection was made: {words_of(error)}"


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(host: str, admin: AdminPlace) -> str:
    return f"{admin.scheme}://{_shown(host, admin.port)}{admin.path}"
