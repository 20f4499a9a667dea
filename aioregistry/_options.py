"""The keyword arguments of the registry's methods as types, for those that pass them on.

Each is documented where it is taken: :func:`aioregistry.connect`, :meth:`aioregistry.Registry.register` and
:meth:`aioregistry.Registry.discover`; and :meth:`aioregistry.View.balancer`.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, Required, TypedDict, TypeVar

from aiozk.protocol.acl import ACL

from ._discovery import Guard, KeptAt, WatchMode
from ._health import Checks
from ._registration import OnConflict, OnDisplaced
from ._runtime import Runtime
from .balancing import Ejection, Filter, OfSuspects

if TYPE_CHECKING:
    from .events import EventCallback

P = TypeVar("P")

__all__ = ["BalancerOptions", "ConnectOptions", "DiscoverOptions", "DrainOptions", "RegisterOptions"]


class ConnectOptions(TypedDict, total=False):
    """Of :func:`aioregistry.connect`."""

    session_timeout: float
    connect_timeout: float | None
    close_timeout: float | None
    wait: bool
    base_path: str
    create_chroot: bool
    auth: Sequence[tuple[str, str | bytes]]
    acl: Sequence[ACL]
    tls: ssl.SSLContext | None
    allow_read_only: bool
    max_request: int
    watches: WatchMode
    guard: Guard | None
    on_event: EventCallback | Sequence[EventCallback] | None
    runtime: Runtime | None


class RegisterOptions(TypedDict, total=False):
    """Of :meth:`aioregistry.Registry.register`."""

    wait: bool
    on_conflict: OnConflict
    on_displaced: OnDisplaced
    close_timeout: float | None
    checks: Checks | None


class DiscoverOptions(TypedDict, total=False):
    """Of :meth:`aioregistry.Registry.discover`, but for the payload's type."""

    guard: Guard | None
    keep: KeptAt | None


class DrainOptions(TypedDict, total=False):
    """Of ``registry.overrides.drain``, but for the service and the id."""

    reason: Required[str]
    weight: float | None
    seconds: float | None
    any_incarnation: bool
    by: str | None


class BalancerOptions(TypedDict, Generic[P], total=False):
    """Of :meth:`aioregistry.View.balancer`, but for the strategy."""

    where: Filter[P] | None
    ejection: Ejection | None
    suspects: OfSuspects
    panic: float
