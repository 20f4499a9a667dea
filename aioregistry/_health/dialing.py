"""A connection of its own for each check, with a deadline that is the caller's."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from aioregistry._addresses import check_address, ip_address
from aioregistry._arguments import is_whole
from aioregistry._errors import InvalidArgument, InvalidType
from aioregistry._reasons import reason_of
from aioregistry._runtime import Endpoint, SystemRuntime, tls_name

from .check import CheckFailed

__all__ = ["ProbeDialer", "checked_port"]

_MAX_PORT = 65535
_MOST_READ = 65536
"""Bytes that a line of an answer may have."""


def checked_port(field: str, value: object, port: object) -> int:
    """Return *port*; raises InvalidArgument for *field* with its *value* where it is not a port to connect to."""
    if not is_whole(port) or not 1 <= port <= _MAX_PORT:
        kind = InvalidArgument if is_whole(port) else InvalidType
        raise kind(field, value, f"its port must be a number from 1 to {_MAX_PORT}")
    return port


class ProbeDialer:
    """Connects to one place.

    Args:
        field: of the argument, for errors.
        value: of the argument, for errors.
        host: a name or an IP address, without brackets.
        port: of the place.
        tls: the context to speak TLS with, or None.

    Raises InvalidArgument if it cannot be connected to.
    """

    def __init__(self, field: str, value: object, host: str, port: object, *, tls: ssl.SSLContext | None) -> None:
        try:
            check_address("host", host)
        except InvalidArgument as error:
            raise InvalidArgument(field, value, error.reason) from None
        address = ip_address(host)
        if address is not None and (address.is_multicast or str(address) == "255.255.255.255"):
            raise InvalidArgument(field, value, "is not the address of one machine: give one")
        self.host = host
        self.port = checked_port(field, value, port)
        self._tls = tls
        self._look_up: asyncio.Task[list[Endpoint]] | None = None

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Give a connection, and end it without a wait for the other side."""
        reader, writer = await self._connect()
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        refused = ""
        try:
            endpoints = await self._addresses()
        except OSError as error:
            raise CheckFailed(f"{self.host}: {reason_of(error)}") from error
        for endpoint in endpoints:
            try:
                return await asyncio.open_connection(
                    endpoint.address,
                    self.port,
                    ssl=self._tls,
                    server_hostname=tls_name(self.host) if self._tls else None,
                    limit=_MOST_READ,
                )
            except OSError as error:
                refused = f"{endpoint}: {reason_of(error)}"
        raise CheckFailed(refused or f"{self.host}: the name has no address")

    async def _addresses(self) -> list[Endpoint]:
        # Cancelling a look-up ends its waiting and not its thread: a name server that hangs gets one at a time.
        look_up = self._look_up
        if look_up is None or look_up.done() or look_up.get_loop() is not asyncio.get_running_loop():
            look_up = self._look_up = asyncio.ensure_future(SystemRuntime().resolve(self.host, self.port))
            look_up.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(look_up)
