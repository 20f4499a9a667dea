"""aioregistry: an asyncio-native service registry on Apache ZooKeeper.

Live services stay listed, dead ones are removed, and the API tells you when it cannot be sure. :func:`connect` is the
way in.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._connect import connect
    from ._discovery import Changes, Guard, View
    from ._discovery.balancer import Balancer
    from ._discovery.pick import Pick
    from ._errors import (
        AuthenticationFailed,
        ChrootMissing,
        ConnectionLost,
        ConnectTimeout,
        HandleClosed,
        InvalidArgument,
        InvalidType,
        NoAuth,
        NodeNotEphemeral,
        NoInstances,
        PoisonRequest,
        RegistrationConflict,
        RegistrationDisplaced,
        RegistrationError,
        RegistryError,
        RequestTimeout,
        RequestTooLarge,
        ServerError,
        SessionClosed,
        SessionFailed,
        UnsupportedServer,
        UsageError,
    )
    from ._health import Check, CheckState, CheckStatus
    from ._health.command import CommandCheck
    from ._health.http import HttpCheck
    from ._health.loop_lag import LoopLagCheck
    from ._health.tcp import TcpCheck
    from ._model import (
        Added,
        Change,
        Entry,
        Invalid,
        Invalidated,
        Override,
        Removed,
        Resynced,
        ServiceInstance,
        ServiceType,
        Snapshot,
        Suspicion,
        Updated,
    )
    from ._registration import Registration, Status
    from ._registry import Registry
    from ._session import Attempt, AttemptOutcome, SessionState
    from ._streams import Stream
    from .balancing import Ejection, LeastOutstanding, OwnZone, Random, Ring, RoundRobin, Sticky, WarmUp, Weighted

__all__ = [
    "Added",
    "Attempt",
    "AttemptOutcome",
    "AuthenticationFailed",
    "Balancer",
    "Change",
    "Changes",
    "Check",
    "CheckState",
    "CheckStatus",
    "ChrootMissing",
    "CommandCheck",
    "ConnectTimeout",
    "ConnectionLost",
    "Ejection",
    "Entry",
    "Guard",
    "HandleClosed",
    "HttpCheck",
    "Invalid",
    "InvalidArgument",
    "InvalidType",
    "Invalidated",
    "LeastOutstanding",
    "LoopLagCheck",
    "NoAuth",
    "NoInstances",
    "NodeNotEphemeral",
    "Override",
    "OwnZone",
    "Pick",
    "PoisonRequest",
    "Random",
    "Registration",
    "RegistrationConflict",
    "RegistrationDisplaced",
    "RegistrationError",
    "Registry",
    "RegistryError",
    "Removed",
    "RequestTimeout",
    "RequestTooLarge",
    "Resynced",
    "Ring",
    "RoundRobin",
    "ServerError",
    "ServiceInstance",
    "ServiceType",
    "SessionClosed",
    "SessionFailed",
    "SessionState",
    "Snapshot",
    "Status",
    "Sticky",
    "Stream",
    "Suspicion",
    "TcpCheck",
    "UnsupportedServer",
    "Updated",
    "UsageError",
    "View",
    "WarmUp",
    "Weighted",
    "connect",
]

__version__ = "0.1.0"

# Loaded when first used: the command line answers --help without asyncio, aiozk and msgspec, which take five times as
# long.
_ROOMS = {
    "balancing": (
        "Ejection",
        "LeastOutstanding",
        "OwnZone",
        "Random",
        "Ring",
        "RoundRobin",
        "Sticky",
        "WarmUp",
        "Weighted",
    ),
    "_connect": ("connect",),
    "_discovery": ("Changes", "Guard", "View"),
    "_discovery.balancer": ("Balancer",),
    "_discovery.pick": ("Pick",),
    "_health": ("Check", "CheckState", "CheckStatus"),
    "_health.command": ("CommandCheck",),
    "_health.http": ("HttpCheck",),
    "_health.loop_lag": ("LoopLagCheck",),
    "_health.tcp": ("TcpCheck",),
    "_model": (
        "Added",
        "Change",
        "Entry",
        "Invalid",
        "Invalidated",
        "Override",
        "Removed",
        "Resynced",
        "ServiceInstance",
        "ServiceType",
        "Snapshot",
        "Suspicion",
        "Updated",
    ),
    "_registration": ("Registration", "Status"),
    "_registry": ("Registry",),
    "_session": ("Attempt", "AttemptOutcome", "SessionState"),
    "_streams": ("Stream",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_ROOM_OF.get(name, '_errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
