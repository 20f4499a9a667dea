"""Ports that stay ours while no process listens on them."""

from __future__ import annotations

import socket
from typing import Self

__all__ = ["ReservedPort"]


class ReservedPort:
    """A free TCP port, kept from everybody who does not know its number.

    A killed server's port would otherwise be free for the taking until its restart: by another test run, or by a
    client's own outgoing connection, which may even connect to itself. The reservation is a bound socket that never
    listens, so connecting is refused as long as no server of ours listens; SO_REUSEADDR, set only after the bind,
    lets servers that set it too (Java's and asyncio's do) share the port.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        try:
            # Every address: an ensemble's proxies listen on the same numbers on other loopback addresses.
            self._socket.bind(("", 0))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()
