"""The effect of an attempt of httpx or httpx2 on a connection, and the meaning of its error. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from ._errand import ErrorClass

__all__ = ["Reused", "Trail", "Unproved", "judged"]

# The meaning of the packages' exceptions, by their names; the first that applies, so that subclasses come before.
_ERROR_CLASSES: Final = {
    "ConnectError": ErrorClass.UNSENT,
    "ConnectTimeout": ErrorClass.UNSENT,
    "PoolTimeout": ErrorClass.INNOCENT,  # too many requests of our own
    "ProxyError": ErrorClass.INNOCENT,
    "LocalProtocolError": ErrorClass.INNOCENT,
    "UnsupportedProtocol": ErrorClass.INNOCENT,
    "TimeoutException": ErrorClass.FAILED,  # the time to answer is used up
    "NetworkError": ErrorClass.BROKEN,
    "RemoteProtocolError": ErrorClass.BROKEN,
}


class Reused(Exception):
    """The connection is not a new one, as was asked for."""


class Unproved(Exception):
    """The connection proved another name than the one that was asked for."""


class Trail:
    """The effect of an attempt on a connection, as far as the transport tells by the extension ``trace``.

    Both packages' own transports do, in the words of their httpcore; of others nothing is known.

    Attributes:
        connecting: it looks for a connection.
        reused: it sent the request over a connection that was there before.
        unsent: it could not hand over the head of the request, so no server has read all of that.
        at_proxy: it looks for a connection, and not to the instance: to a proxy, or to a socket of this machine.
    """

    def __init__(
        self,
        request: Any = None,
        name: str | None = None,
        *,
        to: tuple[str, int | None] | None = None,
        only_fresh: bool = False,
        begins: Callable[[], None] | None = None,
    ) -> None:
        self.connecting = self.reused = self.unsent = self.at_proxy = False
        self._begins = begins  # called once, when it has its place in the pool
        self._connected = False
        self._name = name
        self._proved: str | None = None
        self._only_fresh = only_fresh
        self._to = to
        self._next = None if request is None else request.extensions.get("trace")

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if self._begins is not None:
            self._begins()
            self._begins = None
        _, _, what = event.partition(".")
        if what in {"connect_tcp.started", "connect_unix_socket.started"}:
            self.connecting = self._connected = True
            self.at_proxy = self._to is not None and (info.get("host"), info.get("port")) != self._to
        elif what == "setup_socks5_connection.started":
            self.at_proxy = False
        elif what == "start_tls.started":
            self._proved = info.get("server_hostname")
        elif what == "send_request_headers.started":
            self.at_proxy = False
            if getattr(info.get("request"), "method", b"") != b"CONNECT":
                self._sends(event)
        elif what == "send_request_headers.failed":
            self.unsent = self.reused and type(info.get("exception")).__name__ == "WriteError"
        if self._next is not None:
            await self._next(event, info)

    def _sends(self, event: str) -> None:
        self.connecting, self.reused = False, not self._connected
        # A broken connection of HTTP/2 has been closed: the ones that are left are as good as a new one.
        if self.reused and self._only_fresh and event.startswith("http11."):
            raise Reused
        # A tunnel of httpx's through a proxy does not heed which name it is to prove.
        if self._connected and self._name is not None and self._proved not in {None, self._name}:
            raise Unproved(f"through this proxy, {self._proved} was proved instead of {self._name}")


def judged(http: ModuleType, error: Exception) -> ErrorClass:
    """Return the class of *error*, an exception of the package *http*."""
    for name, error_class in _ERROR_CLASSES.items():
        if isinstance(error, getattr(http, name)):
            return error_class
    return ErrorClass.INNOCENT
