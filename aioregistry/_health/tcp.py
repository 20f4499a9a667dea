"""A check that connects."""

from __future__ import annotations

from aioregistry._errors import InvalidArgument, InvalidType

from .check import Check, Initial
from .dialing import ProbeDialer

__all__ = ["TcpCheck"]


class TcpCheck(Check):
    """Passes when a TCP connection is accepted, which is then closed without a byte.

    Args:
        address: ``"HOST:PORT"``, with IPv6 addresses in brackets; or the host alone, beside *port*.
        port: 1 to 65535, where *address* has no port.
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
        address: str,
        port: int | None = None,
        *,
        interval: float = 5.0,
        timeout: float = 1.0,
        rise: int = 1,
        fall: int = 3,
        initial: Initial = "failing",
    ) -> None:
        super().__init__(self._connect, interval=interval, timeout=timeout, rise=rise, fall=fall, initial=initial)
        if not isinstance(address, str):
            raise InvalidType("address", address, "give HOST:PORT")
        if port is None:
            host, port = _host_and_port(address)
            self._dialer = ProbeDialer("address", address, host, port, tls=None)
        else:
            host = address.removeprefix("[").removesuffix("]")
            self._dialer = ProbeDialer("address", f"{address}:{port}", host, port, tls=None)

    async def _connect(self) -> None:
        async with self._dialer.connected():
            pass

    def describe(self) -> str:
        """Return the host and the port."""
        host = f"[{self._dialer.host}]" if ":" in self._dialer.host else self._dialer.host
        return f"{host}:{self._dialer.port}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, digits = address.rpartition(":")
    if not colon or not (digits.isascii() and digits.isdigit()) or (":" in host and not host.startswith("[")):
        raise InvalidArgument("address", address, "give HOST:PORT, with an IPv6 address in brackets")
    return host.removeprefix("[").removesuffix("]"), int(digits[:6])
