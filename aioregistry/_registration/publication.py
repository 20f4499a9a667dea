"""The instance that a registration publishes: enabled only if its owner, its checks and operators agree."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from aioregistry import _foreign as foreign
from aioregistry._document import encode
from aioregistry._errors import InvalidArgument, RequestTooLarge
from aioregistry._incident_log import IncidentLog
from aioregistry._model import ServiceInstance

from .transactions import Target, takeover
from .votes import Voter, status_of

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = ["Publication", "Votes"]

P = TypeVar("P")

Votes: TypeAlias = Mapping[Voter, bool]
"""Whether each of these is for an instance's being enabled."""

_TIMEOUT_ROOM: Final = len(',"sessionTimeoutMs":2147483647')  # bytes, for the timeout that is not known yet
_STATUS_ROOM: Final = len(',"enabled":false,"status":"maintenance"')  # bytes, for what others may have to say


class Publication(Generic[P]):
    """The instance of one registration, and who is against its being enabled.

    Each method that changes it returns the document that the node is to hold from now on, or None where that stays.

    Args:
        session: grants the timeout that is published, and limits what a request can carry.
        instance: the owner's instance.
        target: the node.
        passing: whether its checks pass.
        repeated: where it is told that the instance is enabled, or not.

    Raises:
        InvalidArgument: the instance cannot be written.
        RequestTooLarge: not every request that it may need can carry it.
    """

    def __init__(
        self,
        session: SessionPort,
        instance: ServiceInstance[P],
        target: Target,
        *,
        passing: bool,
        repeated: IncidentLog,
    ) -> None:
        self._session = session
        self._target = target
        self._repeated = repeated
        self._against: frozenset[Voter] = frozenset()
        """The reasons that speak against its being enabled."""
        self._unwritable = False
        """The payload could not be written any more when it had to be."""
        if instance.registration_time_ms is None:
            instance = instance.replace(registration_time_ms=int(session.runtime.wall() * 1000))
        against = _counted(self._against, {"owner": instance.enabled})
        instance = instance.replace(session_timeout_ms=_granted_ms(session), status=status_of(against))
        _checked_document(instance, target, session.max_request)
        self._against = _counted(against, {"health": passing})
        self.instance: ServiceInstance[P] = instance.replace(**_composed(self._against))

    def change(self, votes: Votes, **fields: object) -> bytes:
        """Replace *fields*, and count *votes*, as the owner wants it.

        Raises:
            InvalidArgument: a field is wrong, or too large (RequestTooLarge); nothing is changed.
        """
        against = _counted(self._against, votes)
        instance = self.instance.replace(**fields, **_composed(against))
        data = _checked_document(instance, self._target, self._session.max_request)
        self.instance, self._unwritable = instance, False
        self._agree(against)
        return data

    def vote(self, voter: Voter, *, up: bool) -> bytes | None:
        """Count *voter*, which is not the owner, and is not told of errors."""
        against = _counted(self._against, {voter: up})
        if against == self._against:
            return None
        data = self._rewritten(**_composed(against))
        if data is not None:
            self._agree(against)
        return data

    def grant(self) -> bytes | None:
        """Let the node tell what the servers grant now: for so long consumers doubt a mass removal at least."""
        granted = _granted_ms(self._session)
        if granted in (None, self.instance.session_timeout_ms):
            return None
        return self._rewritten(session_timeout_ms=granted)

    def _rewritten(self, **fields: object) -> bytes | None:
        """Replace *fields* and return the document; None where its payload cannot be written any more."""
        if self._unwritable:
            return None
        try:
            instance = foreign.call(self.instance.replace, **fields)
            data = foreign.call(encode, instance)
        except foreign.ForeignError as failure:  # the payload was changed since it was given
            self._unwritable = True
            text = "%s: %s cannot be published, because its payload can no longer be written: %s"
            told = (self._target.path, ", ".join(f"{field}={value!r}" for field, value in fields.items()), failure)
            self._repeated.tell("unpublished", logging.WARNING, text, *told, **self._target.about)
            return None
        self.instance = instance
        return data

    def _agree(self, against: frozenset[Voter]) -> None:
        """*against* are those who are against its being enabled from now on."""
        before, self._against = self._against, against
        if status_of(before) == status_of(against):
            return
        path, enabled, status = self._target.path, self.instance.enabled, self.instance.status
        text = "%s is enabled again" if enabled else "%s is not enabled: %s"
        told = (path,) if enabled else (path, status)
        self._repeated.tell(("enabled", str(status)), logging.INFO, text, *told, **self._target.about)
        self._session.emit("registration.enabled", path=path, enabled=enabled, status=status)


def _counted(against: frozenset[Voter], votes: Votes) -> frozenset[Voter]:
    """Return the voters that are against it after *votes*, where *against* were before."""
    return against.difference(votes).union(voter for voter, up in votes.items() if not up)


def _composed(against: frozenset[Voter]) -> dict[str, Any]:
    """Return the fields that say whether an instance is enabled, where *against* are against it."""
    return {"enabled": not against, "status": status_of(against)}


def _granted_ms(session: SessionPort) -> int | None:
    """Return the timeout that the servers granted; None before the first session."""
    return round(session.timeout * 1000) if session.id else None


def _checked_document(instance: ServiceInstance[Any], target: Target, max_request: int) -> bytes:
    """Return the document of *instance*; raises RequestTooLarge where not every request it may need can carry it."""
    try:
        data = foreign.call(encode, instance)
    except foreign.ForeignError as failure:
        if isinstance(failure.error, InvalidArgument):
            raise failure.error from failure.error.__cause__
        raise InvalidArgument("payload", instance.payload, f"writing it raised {failure}") from failure.error
    size = len(takeover(target, data, 0).serialize(0))  # the largest: it carries the data twice
    if instance.session_timeout_ms is None:
        size += 2 * _TIMEOUT_ROOM
    if instance.enabled:
        size += 2 * _STATUS_ROOM
    if size > max_request:
        raise RequestTooLarge("instance", size, max_request)
    return data
