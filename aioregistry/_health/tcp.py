"""A check that connects."""

from __future__ import annotations

from aioregistry._addresses import split_authority
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
        shown = address if port is None else f"{address}:{port}"
        host, port = _host_and_port(address) if port is None else (_host(address), port)
        self._dialer = ProbeDialer("address", shown, host, port, tls=None)

    async def _connect(self) -> None:
        async with self._dialer.connected():
            pass

    def describe(self) -> str:
        """Return the host and the port."""
        host = f"[{self._dialer.host}]" if ":" in self._dialer.host else self._dialer.host
        return f"{host}:{self._dialer.port}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, digits = split_authority(address) or ("", None)
    if digits is None or not (digits.isascii() and digits.isdigit()):
        raise InvalidArgument("address", address, "give HOST:PORT, with an IPv6 address in brackets")
    return host, int(digits[:6])


def _host(address: str) -> str:
    """Return a host alone, for which an IPv6 address needs no brackets."""
    found = split_authority(address)
    return address if found is None or found[1] is not None else found[0]
