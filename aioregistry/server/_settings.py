"""How a server is set up."""

from __future__ import annotations

import functools
import inspect
import ssl as tls
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from aioregistry._errors import InvalidArgument
from aioregistry.server._profiles import PROFILES, Profile
from aioregistry.server._tree import Tree

P = ParamSpec("P")
S = TypeVar("S")


@dataclass(frozen=True)
class Settings:
    """The options of a server, checked; times in seconds.

    See :class:`aioregistry.server.ZooKeeperServer` for what they mean.
    """

    host: str = "127.0.0.1"
    port: int = 0
    _: KW_ONLY
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
        """Create the first nodes; *config* is the data of ``/zookeeper/config``."""
        return Tree(
            extended_types=self.extended_types,
            x509=self.ssl is not None,
            profile=self.profile,
            config=config,
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def with_parameters_of(
    settings: Callable[P, Settings],
) -> Callable[[Callable[[S, Settings], None]], Callable[Concatenate[S, P], None]]:
    """Let a constructor take what *settings* takes, and get the settings made of it: the parameters are said once."""

    def decorated(construct: Callable[[S, Settings], None]) -> Callable[Concatenate[S, P], None]:
        @functools.wraps(construct)
        def construct_with_settings(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
            construct(self, settings(*args, **kwargs))

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature = inspect.signature(settings)
        told: Any = construct_with_settings
        told.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])
        return construct_with_settings

    return decorated
