"""A check that asks a web server, with nothing but asyncio's streams."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import urllib.parse
from collections.abc import Container
from typing import Final

from aioregistry import _foreign as foreign
from aioregistry._addresses import split_authority
from aioregistry._errors import InvalidArgument, InvalidType
from aioregistry._reasons import reason_of

from .check import Check, CheckFailed, Initial
from .dialing import ProbeDialer

__all__ = ["HttpCheck"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_SWITCHING_PROTOCOLS: Final = 101
_SUCCESS: Final = range(200, 300)
_STATUSES: Final = range(100, 600)
_MOST_INTERIM: Final = 8
_MOST_HEADERS: Final = 256
_MOST_BODY: Final = 65536
"""Bytes that are read of an answer behind its status: few servers like it when a connection is cut under them."""
_REST: Final = 0.1
"""Seconds that are spent on it."""


class HttpCheck(Check):
    """Passes when a GET is answered with an expected status: 2xx by default.

    Each call has a connection of its own. The check does not follow redirects, and does not use a proxy. Only the
    status of the answer counts; at most 64 KiB of the rest are read.

    Args:
        url: ``http://`` or ``https://``, without credentials.
        expected_statuses: such as ``range(200, 400)``, for a server that redirects.
        tls: the context for ``https://``; Python's default, which verifies certificate and name, unless given.
        interval: as for :class:`Check`.
        timeout: as for :class:`Check`.
        rise: as for :class:`Check`.
        fall: as for :class:`Check`.
        initial: as for :class:`Check`.

    Raises:
        InvalidArgument: an argument is wrong, or no client can connect there; names it and its value.
    """

    def __init__(
        self,
        url: str,
        *,
        expected_statuses: Container[int] = _SUCCESS,
        tls: ssl.SSLContext | None = None,
        interval: float = 5.0,
        timeout: float = 1.0,
        rise: int = 1,
        fall: int = 3,
        initial: Initial = "failing",
    ) -> None:
        super().__init__(self._get, interval=interval, timeout=timeout, rise=rise, fall=fall, initial=initial)
        _check_options(expected_statuses, tls)
        parts = _parts(url)
        if parts.scheme == "https":
            tls = tls or ssl.create_default_context()
        elif tls is not None:
            raise InvalidArgument("tls", url, "is for https:// only")
        port = _port(url, parts)
        self._url = url
        self._expected = expected_statuses
        self._dialer = ProbeDialer("url", url, parts.hostname or "", port, tls=tls)
        self._request = _request(parts, None if port == _DEFAULT_PORTS[parts.scheme] else port)

    async def _get(self) -> None:
        async with self._dialer.connected() as (reader, writer):
            writer.write(self._request)
            status = await _status(reader)
            if status not in self._expected:
                raise CheckFailed(f"status {status}")
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_REST):
                    await _skip(reader)

    def describe(self) -> str:
        """Return the URL."""
        return self._url


async def _status(reader: asyncio.StreamReader) -> int:
    """Return the status of the answer, behind interim ones (RFC 9110, section 15.2)."""
    for _ in range(_MOST_INTERIM):
        line = await _line(reader)
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise CheckFailed(f"the answer is not HTTP/1: {line[:40]!r}")
        status = int(match[1])
        if status >= _SUCCESS.start or status == _SWITCHING_PROTOCOLS:
            return status
        for _ in range(_MOST_HEADERS):
            if not (await _line(reader)).strip():
                break
    raise CheckFailed("the server sends interim answers without end")


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readline()
    except OSError as error:
        raise CheckFailed(f"no answer: {reason_of(error)}") from error
    except ValueError as error:
        raise CheckFailed("a line of the answer is too long") from error
    if not line:
        raise CheckFailed("the connection was closed before an answer")
    return line


async def _skip(reader: asyncio.StreamReader) -> None:
    left = _MOST_BODY
    while left > 0 and (data := await reader.read(left)):
        left -= len(data)


def _check_options(expected_statuses: object, tls: object) -> None:
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise InvalidType("tls", tls, "give an SSLContext, or None")
    if not isinstance(expected_statuses, Container) or isinstance(expected_statuses, str | bytes):
        raise InvalidType("expected_statuses", expected_statuses, "give statuses, such as range(200, 400)")
    try:
        expects = foreign.call(lambda: any(status in expected_statuses for status in _STATUSES))
    except foreign.ForeignError as failure:
        raise InvalidArgument(
            "expected_statuses", expected_statuses, f"asking it for a status raised {failure}"
        ) from failure.error
    if not expects:
        raise InvalidArgument(
            "expected_statuses", expected_statuses, "has no status of HTTP: give some, such as range(200, 400)"
        )


def _parts(url: object) -> urllib.parse.SplitResult:
    if not isinstance(url, str):
        raise InvalidType("url", url, "give a string: http://HOST:PORT/PATH")
    # Before it is split: urllib leaves out line breaks without a word.
    if any(character.isspace() or not character.isprintable() for character in url):
        raise InvalidArgument("url", url, "has blanks or control characters: give them as %XX")
    try:
        parts = urllib.parse.urlsplit(url)
        hostname = parts.hostname
    except ValueError:
        raise InvalidArgument("url", url, "is not a URL: give http://HOST:PORT/PATH") from None
    if "@" in parts.netloc:
        raise InvalidArgument("url", "<hidden>", "has credentials, which a check does not send: leave them out")
    if parts.scheme not in _DEFAULT_PORTS or not hostname:
        raise InvalidArgument("url", url, "must begin with http:// or https:// and have a host")
    if split_authority(parts.netloc) is None:
        raise InvalidArgument("url", url, "has something beside the brackets of its host: give http://HOST:PORT/PATH")
    return parts


def _port(url: str, parts: urllib.parse.SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        raise InvalidArgument("url", url, "its port must be a number from 1 to 65535") from None
    return _DEFAULT_PORTS[parts.scheme] if port is None else port


def _request(parts: urllib.parse.SplitResult, port: int | None) -> bytes:
    host = parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode()
    if ":" in host:
        host = f"[{host.partition('%')[0]}]"
    target = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        target += "?" + urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    place = host if port is None else f"{host}:{port}"
    lines = [f"GET {target} HTTP/1.1", f"Host: {place}", "User-Agent: aioregistry", "Accept: */*", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode("ascii")
