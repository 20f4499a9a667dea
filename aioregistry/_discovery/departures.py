"""Watches for deliberate leaves: see :mod:`aioregistry._markers`, which says what they are and when they are believed.

One watch serves all views of a session. It is set before the services are read, so that no marker is missed for what
is read then. Where the server has no recursive watches, or hides the root, it is as if there were no markers.

ZooKeeper sends no event when an ACL is changed, so it is asked for with each marker: as soon as one came and went,
before the node is read whose removal it explains, so that the answers come in that order. One question serves a tick's
markers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aioregistry._errors import ConnectionLost, NoNode, RegistryError, ServerError, UnsupportedServer
from aioregistry._incident_log import IncidentLog
from aioregistry._markers import Marker, Withdrawal, WithdrawalFinder, distrust
from aioregistry._protocol import AclEntry, EventKind, GetAcl, WatchedEvent
from aioregistry._session import ReadingSessionPort, TreeWatchPort

__all__ = ["Departures"]

log = logging.getLogger("aioregistry.discovery")


class _Acl(NamedTuple):
    """The ACL of a node, which one that is, and how often its ACL was changed; as of a zxid."""

    entries: Sequence[AclEntry]
    czxid: int
    aversion: int
    zxid: int


class _Question:
    """The ACLs that decide about some markers of one service."""

    def __init__(self) -> None:
        self.withdrawals: list[Withdrawal] = []
        self.root: _Acl | str = ""  # or why it is not known


class Departures:
    """Watches the markers of one session, while it has users.

    Args:
        session: watched through.
        services: the path of the services.
        root: the parent of the markers; None where there is no place for it.
        told: called with name, id and czxid of whatever is withdrawn; must not raise.
    """

    def __init__(
        self, session: ReadingSessionPort, services: str, root: str | None, told: Callable[[str, str, int], None]
    ) -> None:
        self._session = session
        self._services = services
        self._root = root
        self._told = told
        self._withdrawals = WithdrawalFinder(services, root or "")
        self._users = 0
        self._watch: TreeWatchPort | None = None
        self._arming = asyncio.Lock()
        self._known: tuple[int, int] | None = None  # the root as it was seen last: its czxid and aversion
        self._asked: dict[str, _Question] = {}  # by service, the latest
        self._of_this_tick: set[str] = set()
        self._repeated = IncidentLog(log)

    def acquire(self) -> None:
        """Somebody wants to know, from the next :meth:`arm` on; each is to be released."""
        self._users += 1
        if self._watch is None and self._root is not None:
            self._watch = self._session.watches.listen_tree(self._root, self._fired)

    def release(self) -> None:
        """One user stops watching; the watch goes with the last."""
        self._users -= 1
        if not self._users and self._watch is not None:
            self._watch.close()
            self._watch = None
            self._repeated.close()

    async def arm(self) -> None:
        """Set the watch on the present connection, if it has a user; returns also if that is impossible."""
        async with self._arming:  # one request, though every service that is followed begins with this
            if self._watch is not None and self._session.connected:
                self._withdrawals.interrupted()
                with contextlib.suppress(ConnectionLost, ServerError, UnsupportedServer):
                    await self._watch.arm()
                    self._look_at_root()

    # ------------------------------------------------------------------ events

    def saw(self, event: WatchedEvent) -> bool:
        """This happened to the node of a service that is followed, or below; return whether its deletion comes next."""
        if self._watch is None:
            return False
        self._event(event)
        return self._withdrawals.awaited is not None

    def _fired(self, event: WatchedEvent) -> None:
        if event.path == self._root:
            self._look_at_root()
        self._event(event)

    def _event(self, event: WatchedEvent) -> None:
        withdrawal = self._withdrawals.event(event.kind, event.path)
        if withdrawal is not None:
            self._asked[withdrawal.marker.name].withdrawals.append(withdrawal)
        elif event.kind is EventKind.DELETED and (awaited := self._withdrawals.awaited) is not None:
            self._ask(awaited.name)

    # ------------------------------------------------------------------ whom to believe

    def _look_at_root(self) -> None:
        self._known = None
        _ = self._session.submit(GetAcl(str(self._root)), self._root_seen)

    def _root_seen(self, answer: asyncio.Future[Any]) -> None:
        acl = _acl_of(answer)
        self._known = None if isinstance(acl, str) else (acl.czxid, acl.aversion)

    def _ask(self, name: str) -> None:
        if name in self._of_this_tick:
            return
        self._of_this_tick.add(name)
        asyncio.get_running_loop().call_soon(self._of_this_tick.discard, name)
        question = self._asked[name] = _Question()
        _ = self._session.submit(GetAcl(str(self._root)), lambda answer: self._root_answered(question, answer))
        _ = self._session.submit(
            GetAcl(f"{self._services}/{name}"), lambda answer: self._answered(name, question, answer)
        )

    def _root_answered(self, question: _Question, answer: asyncio.Future[Any]) -> None:
        self._withdrawals.interrupted()
        question.root = _acl_of(answer)

    def _answered(self, name: str, question: _Question, answer: asyncio.Future[Any]) -> None:
        if self._asked.get(name) is question:
            del self._asked[name]
        root, service = question.root, _acl_of(answer)
        known, self._known = self._known, None if isinstance(root, str) else (root.czxid, root.aversion)
        why: str | None
        if isinstance(root, str):
            why = root
        elif known != (root.czxid, root.aversion):
            why = "its ACL was changed a moment before"
        elif isinstance(answer.exception(), NoNode):  # reaped with the last that left: no ACL to ask
            why = None
        elif isinstance(service, str):
            why = service
        else:
            why = distrust(root.entries, service.entries)
        for marker, proven in question.withdrawals:
            refused = (
                why if proven else "the client that deleted the node did not write it first, and may not be allowed to"
            )
            if refused is None and not isinstance(root, str) and marker.czxid > root.zxid:
                refused = f"no node was created with zxid {marker.czxid:#x} yet"
            if refused is None:
                self._told(*marker)
            else:
                self._refuse(marker, refused)

    def _refuse(self, marker: Marker, why: str) -> None:
        service, id, _ = marker
        if self._watch is not None:
            self._repeated.tell(
                "refused", logging.WARNING, "the withdrawal of %s/%s is not proven by its marker in %s: %s",
                service, id, self._root, why, service=service, id=id,
            )  # fmt: skip
        self._session.emit("discovery.marker_refused", service=service, id=id, reason=why)


def _acl_of(answer: asyncio.Future[Any]) -> _Acl | str:
    error = answer.exception()
    if error is not None:
        assert isinstance(error, RegistryError)
        return str(error)
    zxid, (entries, stat) = answer.result()
    return _Acl(entries, stat.czxid, stat.aversion, zxid)
