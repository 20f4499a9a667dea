"""Maintenance by operators: setting, ending and listing overrides; see :mod:`aioregistry._overrides`."""

from __future__ import annotations

import contextlib
import getpass
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from ._arguments import check_flag, check_seconds
from ._document import decode
from ._errors import (
    ConnectionLost,
    InvalidArgument,
    InvalidInstance,
    NoAuth,
    NodeExists,
    NoNode,
    NotEmpty,
    ServerError,
    wrong_argument,
)
from ._incident_log import IncidentLog
from ._model import Override
from ._override_clock import server_time
from ._overrides import LONGEST, LONGEST_TEXT, UnfitOverride, encoded, overrides_root, read_override
from ._paths import check_name, check_segment, place_of
from ._protocol import Create, Delete, Exists, GetChildren, GetData, Message, SetData, Stat
from ._session import Session

__all__ = ["HOUR", "Overrides", "check_weight"]

log = logging.getLogger("aioregistry.registry")

T = TypeVar("T")

HOUR: Final = 3600.0
"""Seconds that an override lasts unless told otherwise."""


class Overrides:
    """The overrides by which operators rule instances that are not theirs; ``registry.overrides``.

    An instance in maintenance stays listed. Views show it as not enabled, with the status ``"maintenance"``, so that no
    balancer picks it; an owner who is aioregistry publishes the same for readers in Java. An instance with a weight
    gets that part of its share of calls, from all balancers of aioregistry. An override ends by its time, by the
    server's clock, and is kept in a node of its own, which no re-registration touches.

    Calls wait until there is a connection; the caller sets the deadline. Cancelling one leaves the
    override as it was or as it was to be.
    """

    def __init__(self, session: Session, services: str, acl: Sequence[Any], check: Callable[[], None]) -> None:
        self._session = session
        self._services = services
        self._root = overrides_root(services)
        self._acl = acl
        self._check = check
        self._repeated = IncidentLog(log)  # programs list overrides again and again

    def close(self) -> None:
        """Log the counted incidents that are not in the log yet; for the registry."""
        self._repeated.close()

    async def drain(
        self,
        name: str,
        id: str,
        *,
        reason: str,
        weight: float | None = None,
        seconds: float | None = HOUR,
        any_incarnation: bool = False,
        by: str | None = None,
    ) -> Override:
        """Take the instance *id* of the service *name* into maintenance, or give it fewer calls.

        Return the override in force then. It replaces the one of an earlier call.

        Args:
            name: the service.
            id: the instance.
            reason: the reason, shown to other operators; 1000 characters at most.
            weight: the part of its share of calls that the instance gets, from 0 (nothing) to 1. It stays enabled then.
                None, the default, takes it into maintenance. Above 1 is refused: to give one instance more, give the
                others less.
            seconds: until it ends; None is for ever.
            any_incarnation: whether a process that registers the id later is meant too. False reads the instance's
                node, which says which incarnation is there.
            by: who says so; the user and the host unless given.

        Raises:
            InvalidArgument: an argument is wrong, there is no such instance, or *any_incarnation* is False and this
                client may not read the instance's node; names it and its value.
            NoAuth: this client may not write there.
        """
        self._check()
        path = self._path(name, id)
        if not _is_text(reason):
            why = f"say why, in {LONGEST_TEXT} characters at most: other operators read it"
            raise wrong_argument("reason", reason, why, str)
        if weight is not None:
            check_weight(weight)
        if seconds is not None:
            check_seconds("seconds", seconds, at_most=LONGEST)
        check_flag("any_incarnation", any_incarnation)
        if by is not None and not _is_text(by):
            raise wrong_argument("by", by, f"give a string of {LONGEST_TEXT} characters at most, or None", str)
        registered = await self._registered(name, id, any_incarnation=any_incarnation)
        data = encoded(
            enabled=False if weight is None else None,
            weight=weight,
            reason=reason,
            by=_whoever() if by is None else by,
            seconds=seconds,
            registration_time_ms=registered,
        )
        stat = await self._write(path, data)
        return read_override(data, name, id, stat.mtime, stat.version)

    async def enable(self, name: str, id: str) -> None:
        """End the override of the instance *id* of the service *name*.

        Its owner and its checks may still say that it is not enabled.

        Raises:
            InvalidArgument: there is no such override; names it.
            NoAuth: this client may not remove it.
        """
        self._check()
        path = self._path(name, id)
        absent = InvalidArgument("id", id, f"is not overridden: no override of {name!r} has it")
        with contextlib.suppress(NoNode, NoAuth):  # an ACL may let a client remove a node that it may not read
            data, _ = (await self._session.read(GetData(path))).value
            if not data:  # a part of a longer name
                raise absent
        tried = False
        while True:
            try:
                await self._session.wait_connected()
                await self._session.request(Delete(path))
            except ConnectionLost as lost:
                tried = tried or lost.maybe_applied
            except NoNode:
                if tried:
                    return
                raise absent from None
            except NotEmpty:  # it is also a part of a longer name that has overrides
                with contextlib.suppress(NoNode):
                    _ = await self._persisted(SetData(path, b""))
                return
            else:
                return

    async def list(self, name: str | None = None) -> Sequence[Override]:
        """Return the overrides of the service *name*, or of all, in the order of services and ids.

        Those that have ended by the server's clock are removed, and are not among them, if this client may write there
        (it asks the server for its time by a write, as views do); else they are, and their ``until`` says so. Makes no
        node.

        Raises:
            InvalidArgument: *name* is not a name of a service, or the registry's ``base_path`` is ``/``, which has no
                place for overrides.
        """
        self._check()
        if name is not None:
            check_name("name", name)
        root = self._required_root()
        found: list[Override] = []
        places = [""] if name is None else [place_of(name)]
        while places:
            place = places.pop()
            for child in await self._children(f"{root}/{place}" if place else root):
                override, has_more = await self._look(place, child)
                if override is not None:
                    found.append(override)
                if has_more and name is None:
                    places.append(f"{place}/{child}" if place else child)
        left = await self._without_those_over(found)
        return sorted(left, key=lambda override: (override.service, override.id))

    # ------------------------------------------------------------------ nodes

    def _path(self, name: str, id: str) -> str:
        check_name("name", name)
        check_segment("id", id)
        return f"{self._required_root()}/{place_of(name)}/{id}"

    def _required_root(self) -> str:
        if self._root is None:
            raise InvalidArgument(
                "base_path",
                self._services or "/",
                "has no parent that could hold overrides: give one below the root",
            )
        return self._root

    async def _registered(self, name: str, id: str, *, any_incarnation: bool) -> int | None:
        """Return when the instance was registered, as it says itself; None where any incarnation is meant."""
        path = f"{self._services}/{place_of(name)}/{id}"
        try:
            data, _ = (await self._session.read(GetData(path))).value
        except NoNode:
            raise InvalidArgument("id", id, f"is not an instance of the service {name!r}") from None
        except NoAuth:
            if any_incarnation:  # a node that is not there is NoNode, whatever one may read
                return None
            why = f"the ACL of {path} does not let you read which incarnation is there"
            raise InvalidArgument(
                "any_incarnation", any_incarnation, f"{why}: give any_incarnation=True (--any-incarnation)"
            ) from None
        try:
            registered = decode(data, name=name, id=id).registration_time_ms
        except InvalidInstance as error:
            raise InvalidArgument("id", id, f"is a node of {name!r} that shows no instance: {error.reason}") from error
        return None if any_incarnation else registered

    async def _write(self, path: str, data: bytes) -> Stat:
        while True:
            try:
                return await self._persisted(SetData(path, data))
            except NoNode:
                made = await self._make(path, data)
            if made is not None:
                return made

    async def _make(self, path: str, data: bytes) -> Stat | None:
        """Make the node, and its parents where they are missing; return None if others wrote it meanwhile.

        It is written once: to those that follow, a second write is another override.
        """
        assert self._root is not None
        below = path.removeprefix(f"{self._root}/").split("/")
        for each in (self._root, *(f"{self._root}/{'/'.join(below[:n])}" for n in range(1, len(below)))):
            with contextlib.suppress(NodeExists):
                _ = await self._persisted(Create(each, b"", self._acl))
        try:
            _ = await self._persisted(Create(path, data, self._acl))
            stat = (await self._session.read(Exists(path))).value
        except (NodeExists, NoNode):
            return None
        return stat if stat.version == 0 else None

    async def _children(self, path: str) -> Sequence[str]:
        try:
            return sorted((await self._session.read(GetChildren(path))).value)
        except NoNode:
            return []

    async def _look(self, place: str, child: str) -> tuple[Override | None, bool]:
        path = f"{self._root}/{place}/{child}" if place else f"{self._root}/{child}"
        try:
            data, stat = (await self._session.read(GetData(path))).value
        except NoNode:
            return None, False
        if not place or not data:
            return None, stat.num_children > 0
        try:
            return read_override(data, place, child, stat.mtime, stat.version), stat.num_children > 0
        except UnfitOverride as unfit:
            self._repeated.tell(
                ("unfit", str(unfit)), logging.WARNING, "the override %s is ignored: %s", path, unfit, path=path
            )
            return None, stat.num_children > 0

    async def _without_those_over(self, found: Sequence[Override]) -> Sequence[Override]:
        """Remove the overrides that are over by the server's clock, if it is allowed; return the others of *found*."""
        now = self._session.runtime.wall()
        seem: dict[str, list[Override]] = {}  # by place
        for override in found:
            if override.until is not None and override.until <= now:
                seem.setdefault(override.service, []).append(override)
        gone = {override for place, overrides in seem.items() for override in await self._removed(place, overrides)}
        return [override for override in found if override not in gone]

    async def _removed(self, place: str, overrides: Sequence[Override]) -> Sequence[Override]:
        root = self._required_root()
        path, removed = f"{root}/{place}", []
        if self._session.read_only:
            return ()
        try:
            server = await server_time(self._session.request, root, place)
            for override in overrides:
                if override.until is not None and override.until <= server:
                    with contextlib.suppress(NoNode):
                        _ = await self._session.request(Delete(f"{path}/{override.id}", override.version))
                    removed.append(override)
                    text, about = (
                        "the override of %s/%s has ended and is removed",
                        {"service": place, "id": override.id},
                    )
                    self._repeated.tell("removed", logging.INFO, text, place, override.id, **about)
        except (ServerError, ConnectionLost) as error:  # another client was quicker, or an ACL forbids it
            log.debug("overrides of %s that have ended are left: %s", place, error)
        return removed

    async def _persisted(self, message: Message[T]) -> T:
        """Send what may be done twice until it is answered."""
        while True:
            await self._session.wait_connected()
            try:
                return (await self._session.request(message)).value
            except ConnectionLost:
                continue


def check_weight(weight: object) -> None:
    """Raise :class:`InvalidArgument` unless *weight* is a part of a share."""
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 <= weight <= 1:  # type: ignore[operator] # NaN compares as False
        raise wrong_argument("weight", weight, "give a number from 0 to 1: the part of its share of calls", int, float)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= LONGEST_TEXT


def _whoever() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
