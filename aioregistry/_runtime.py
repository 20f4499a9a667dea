"""The outside as one object: clocks, randomness, name resolution and connecting.

Everything in aioregistry that is not computed from its arguments comes through a :class:`Runtime`, so that a
simulated world replaces one object and a seed replays a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from ._concurrency import in_daemon_thread
from ._errors import UsageError

__all__ = ["Endpoint", "Runtime", "SystemRuntime", "running_loop", "tls_name"]


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running asyncio loop; raises :class:`UsageError` outside of one (a plain thread, or trio)."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError("aioregistry runs on asyncio: no asyncio event loop is running in this thread") from None


class Endpoint(NamedTuple):
    """A resolved address of a server, with the name it was asked for by (for TLS and for messages)."""

    host: str
    """The name or address that the connect string has."""
    port: int
    """The TCP port."""
    address: str
    """The IP address; that of the name, where *host* is one."""

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"{shown}:{self.port}" if self.address == self.host else f"{self.host}({shown}):{self.port}"


class Runtime:
    """The library's needs from the outside; subclassed by :class:`SystemRuntime` and by simulated worlds."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never steps back (it may stand still while the system sleeps)."""
        raise NotImplementedError

    def boot(self) -> float:
        """Return seconds of a clock that never steps back and counts system sleep, as a session timeout does."""
        raise NotImplementedError

    def wall(self) -> float:
        """Return seconds since the epoch."""
        raise NotImplementedError

    def uniform(self, low: float, high: float) -> float:
        """Return a random number between *low* and *high*."""
        raise NotImplementedError

    def shuffle(self, items: list[Endpoint]) -> None:
        """Shuffle *items* in place."""
        raise NotImplementedError

    async def resolve(self, host: str, port: int) -> list[Endpoint]:
        """Return every address of *host*; raises OSError if it has no address.

        Cancelling returns at once. The real look-up then goes on in a thread of its own until the system ends it:
        the caller bounds how many are under way.
        """
        raise NotImplementedError

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint, tls: ssl.SSLContext | None
    ) -> asyncio.Transport:
        """Connect *factory*'s protocol to *endpoint*; raises OSError or ssl.SSLError. Cancelling closes the socket."""
        raise NotImplementedError


class SystemRuntime(Runtime):
    """The real outside."""

    # CLOCK_BOOTTIME counts suspend on Linux; elsewhere time.monotonic is the best there is (on macOS and Windows it
    # is documented to count neither reliably).
    _BOOT = getattr(time, "CLOCK_BOOTTIME", None)

    def __init__(self) -> None:
        self._random = random.Random()

    def monotonic(self) -> float:
        return time.monotonic()

    def boot(self) -> float:
        return time.monotonic() if self._BOOT is None else time.clock_gettime(self._BOOT)

    def wall(self) -> float:
        return time.time()

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def shuffle(self, items: list[Endpoint]) -> None:
        self._random.shuffle(items)

    async def resolve(self, host: str, port: int) -> list[Endpoint]:
        with contextlib.suppress(ValueError):
            return [Endpoint(host, port, str(ipaddress.ip_address(host)))]
        # Not loop.getaddrinfo: a name server that hangs must not hold up the end of the process.
        return await in_daemon_thread(lambda: _look_up(host, port), name=f"aioregistry-resolve-{host}")

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint, tls: ssl.SSLContext | None
    ) -> asyncio.Transport:
        name = None if tls is None else tls_name(endpoint.host)
        if tls is not None:
            # A caller's context may raise anything. uvloop asks it in a callback, where the error would go unnoticed.
            tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
        transport, _ = await asyncio.get_running_loop().create_connection(
            factory, endpoint.address, endpoint.port, ssl=tls, server_hostname=name
        )
        return transport


def tls_name(host: str) -> str:
    """Return the name that a certificate must have for *host*, and that the client sends to the server.

    It is without the dot that ends a fully qualified name (RFC 6066, section 3), and without the zone of an IPv6
    address, which means something on this machine only (RFC 4007, section 6).
    """
    return host.partition("%")[0].removesuffix(".")


def _look_up(host: str, port: int) -> list[Endpoint]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as failure:
        raise OSError(f"{host!r} is not a host name") from failure
    except OSError:
        raise
    except Exception as failure:
        raise OSError(f"the look-up of {host!r} failed: {type(failure).__name__}") from failure
    return list(dict.fromkeys(Endpoint(host, port, str(entry[4][0])) for entry in found))
