"""The remedies for the server's errors: one table. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aioregistry._errors import (
    APIError,
    AuthFailed,
    BadArguments,
    BadVersion,
    ChrootMissing,
    DataInconsistency,
    EphemeralOnLocalSession,
    InvalidACL,
    InvalidCallback,
    MarshallingError,
    NewConfigNoQuorum,
    NoAuth,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    NotReadOnly,
    NoWatcher,
    OperationTimeout,
    PoisonRequest,
    QuotaExceeded,
    ReconfigDisabled,
    ReconfigInProgress,
    RegistryError,
    RequestTooLarge,
    RolledBack,
    RuntimeInconsistency,
    ServerConnectionLoss,
    ServerSessionExpired,
    SessionClosedRequireSASL,
    SessionMoved,
    SystemFault,
    Throttled,
    TransactionAborted,
    Unimplemented,
    UnknownServerError,
    UnknownSession,
)

from .plan import Action

__all__ = ["REMEDIES", "TRUSTING", "Remedy", "remedy"]


class Remedy(enum.Enum):
    """The remedy for an error."""

    PLAN_AGAIN = "the quorum says that the node is not as planned: plan again, by the read behind the write"
    OBSERVE_LATER = "the server could not do it now: back off, then look again"
    REFUSED = "the server will not have it: the end of a registration that was never listed"
    MAKE_PARENTS = "create the nodes above, then plan again"
    OMIT_MARKER = "withdraw without the marker"


REMEDIES: Mapping[type[RegistryError], Remedy] = MappingProxyType(
    {
        BadVersion: Remedy.PLAN_AGAIN,
        NoNode: Remedy.PLAN_AGAIN,
        NodeExists: Remedy.PLAN_AGAIN,
        # The session is about to change, or to be offered to another server; its callback ends the pause.
        ServerSessionExpired: Remedy.OBSERVE_LATER,
        SessionMoved: Remedy.OBSERVE_LATER,
        UnknownSession: Remedy.OBSERVE_LATER,
        # The server's troubles.
        APIError: Remedy.OBSERVE_LATER,
        DataInconsistency: Remedy.OBSERVE_LATER,
        NewConfigNoQuorum: Remedy.OBSERVE_LATER,
        NotReadOnly: Remedy.OBSERVE_LATER,
        OperationTimeout: Remedy.OBSERVE_LATER,
        ReconfigInProgress: Remedy.OBSERVE_LATER,
        RolledBack: Remedy.OBSERVE_LATER,
        RuntimeInconsistency: Remedy.OBSERVE_LATER,
        ServerConnectionLoss: Remedy.OBSERVE_LATER,
        SystemFault: Remedy.OBSERVE_LATER,
        Throttled: Remedy.OBSERVE_LATER,
        UnknownServerError: Remedy.OBSERVE_LATER,
        # Its rules.
        AuthFailed: Remedy.REFUSED,
        BadArguments: Remedy.REFUSED,
        ChrootMissing: Remedy.REFUSED,
        EphemeralOnLocalSession: Remedy.REFUSED,
        InvalidACL: Remedy.REFUSED,
        InvalidCallback: Remedy.REFUSED,
        MarshallingError: Remedy.REFUSED,
        NoAuth: Remedy.REFUSED,
        NoChildrenForEphemerals: Remedy.REFUSED,
        NoWatcher: Remedy.REFUSED,
        NotEmpty: Remedy.REFUSED,
        PoisonRequest: Remedy.REFUSED,
        QuotaExceeded: Remedy.REFUSED,
        ReconfigDisabled: Remedy.REFUSED,
        RequestTooLarge: Remedy.REFUSED,
        SessionClosedRequireSASL: Remedy.REFUSED,
        Unimplemented: Remedy.REFUSED,
    }
)
"""REFUSED ends a registration that was never listed: a rule, an ACL or a quota stands against it, and its owner must
hear of that. For one that was listed an update that waits raises it, and it is tried again: an administrator's
slip must not become a lasting outage of what ran before."""

TRUSTING: Final = frozenset({Remedy.PLAN_AGAIN, Remedy.MAKE_PARENTS, Remedy.OMIT_MARKER})
"""The quorum answered here, so the plan starts from the reads that followed."""

_MARKER_OPERATIONS = 2
"""How many operations of a marked withdrawal come before the node's own: its write, and its deletion."""


def remedy(action: Action | None, error: RegistryError) -> Remedy:
    """Return the remedy if *action* (None: looking) failed with *error*; an error not in the table raises KeyError."""
    if isinstance(error, PoisonRequest) and action is Action.WITHDRAW:
        return Remedy.OMIT_MARKER  # the server may accept the deletion alone
    if not isinstance(error, TransactionAborted):
        return Remedy.MAKE_PARENTS if isinstance(error, NoNode) and action is Action.CREATE else REMEDIES[type(error)]
    usual = REMEDIES[type(error.cause)]
    if action is not Action.WITHDRAW or error.index > _MARKER_OPERATIONS or usual is Remedy.OBSERVE_LATER:
        return usual
    if error.index == _MARKER_OPERATIONS:  # who may not write the node may delete it all the same
        return Remedy.OMIT_MARKER if usual is Remedy.REFUSED else usual
    return Remedy.MAKE_PARENTS if isinstance(error.cause, NoNode) else Remedy.OMIT_MARKER
