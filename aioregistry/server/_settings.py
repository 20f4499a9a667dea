"""How a server is set up."""

from __future__ import annotations

import ssl as tls
import time
from collections.abc import Callable
from dataclasses import dataclass

from aioregistry._errors import InvalidArgument
from aioregistry.server._profiles import PROFILES, Profile
from aioregistry.server._tree import Tree


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a server, checked; times in seconds.

    See :class:`aioregistry.server.ZooKeeperServer` for what they mean.
    """

    host: str = "127.0.0.1"
    port: int = 0
    version: str = "3.8"
    tick_time: float = 2.0
    min_session_timeout: float | None = None
    max_session_timeout: float | None = None
    max_buffer: int = 0xFFFFF
    max_connections_per_client: int = 60
    container_check_interval: float = 60.0
    extended_types: bool = True
    ssl: tls.SSLContext | None = None
    super_digest: str | None = None
    server_id: int = 1
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if self.version not in PROFILES:
            raise InvalidArgument("version", self.version, f"one of {', '.join(PROFILES)}")
        for name in ("tick_time", "container_check_interval", "max_buffer"):
            if getattr(self, name) <= 0:
                raise InvalidArgument(name, getattr(self, name), "must be positive")
        if not 0 <= self.port <= 65535:
            raise InvalidArgument("port", self.port, "must be within 0..65535")
        if not 0 <= self.server_id <= 254:
            raise InvalidArgument("server_id", self.server_id, "must be within 0..254")
        if self.min_timeout_ms > self.max_timeout_ms:
            raise InvalidArgument("min_session_timeout", self.min_timeout_ms / 1000, "above max_session_timeout")

    @property
    def profile(self) -> Profile:
        return PROFILES[self.version]

    @property
    def min_timeout_ms(self) -> int:
        return _ms(2 * self.tick_time if self.min_session_timeout is None else self.min_session_timeout)

    @property
    def max_timeout_ms(self) -> int:
        return _ms(20 * self.tick_time if self.max_session_timeout is None else self.max_session_timeout)

    def negotiate(self, timeout_ms: int) -> int:
        """The session timeout that a client gets, milliseconds."""
        return min(max(timeout_ms, self.min_timeout_ms), self.max_timeout_ms)

    def empty_tree(self, config: bytes = b"") -> Tree:
        """What there is at first; *config* is the data of ``/zookeeper/config``."""
        return Tree(
            extended_types=self.extended_types,
            x509=self.ssl is not None,
            profile=self.profile,
            config=config,
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
