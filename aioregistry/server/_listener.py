"""The address of a server: a listening socket while it is up, and a reserved port while it is down."""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Callable
from typing import Final

from aioregistry._reasons import words_of
from aioregistry.server._settings import Settings

BACKLOG: Final = 1024
"""Connections that may wait to be accepted: thousands may come at once."""


class Listener:
    """Where clients connect to; the port stays the same over restarts.

    Args:
        settings: for host, port and TLS.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listening: asyncio.Server | None = None
        self._give_port_back: Callable[[], object] = lambda: None
        self.port: int = settings.port
        """0 before the first time unless one was given."""

    @property
    def address(self) -> str:
        """``host:port``."""
        host = self._settings.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def open(self, factory: Callable[[], asyncio.Protocol]) -> None:
        """Take connections.

        Raises:
            OSError: the port cannot be had.
        """
        host = self._settings.host
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                factory, host, self.port, ssl=self._settings.ssl, backlog=BACKLOG
            )
        except OSError as error:
            reason = f"{host}:{self.port} cannot be listened on: {words_of(error)}"
            raise OSError(error.errno, reason) from error
        self.port = self._listening.sockets[0].getsockname()[1]
        self._give_port_back()

    def close(self, *, keep_port: bool) -> None:
        """Stop taking connections; no other process gets the port if it is kept."""
        if self._listening is not None:
            family = self._listening.sockets[0].family
            self._listening.close()
            self._listening = None
            if keep_port:
                reserved = _reserved(family, self._settings.host, self.port)
                self._give_port_back = weakref.finalize(self, os.close, reserved)
        if not keep_port:
            self._give_port_back()


def _reserved(family: int, host: str, port: int) -> int:
    # Bound and not listening: clients are refused, no client's own connection gets the port meanwhile, and
    # servers that set SO_REUSEADDR, as asyncio's do, can share it.
    holder = socket.socket(family)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
    except OSError:
        holder.close()
        raise
    return holder.detach()
