"""The one sequence of transactions that a server, or the members of an ensemble, agree on.

As a real ensemble's leader does, it checks writes, numbers them, keeps the sessions and ends those that fell silent.
Every transaction, the failed ones included, is handed to the replicas, which apply it when it reaches them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, NamedTuple

from aioregistry.server._codes import Code, Malformed, Refused
from aioregistry.server._operations import Caller, Change, DeleteContainer, Moment, Operation, Result
from aioregistry.server._sessions import Session, Sessions, first_session_id
from aioregistry.server._settings import Settings
from aioregistry.server._tree import Aborted, Tree

OWN: Final = 0
"""The session, so to say, in whose name a server itself writes."""


class OperationFailed(NamedTuple):
    """An operation of a transaction that was not applied."""

    code: int


class Transaction(NamedTuple):
    """One step of the history.

    *results* are those of its operations; of a failed one *code* tells why. *created* and *ended* name sessions.
    """

    zxid: int
    code: int = Code.OK
    changes: tuple[Change, ...] = ()
    results: tuple[Result | OperationFailed, ...] = ()
    created: Session | None = None
    ended: int | None = None


@dataclass(frozen=True)
class Backup:
    """The data that outlives a server: nodes, sessions with their timeouts, the last zxid."""

    tree: Tree
    zxid: int
    timeouts_ms: dict[int, int]


class History:
    """Transactions in order, over the tree that is always up to date.

    Args:
        tree: as it is at *zxid*.
        zxid: the last one.
        settings: ticks, clocks, and the server id that goes into the ids of sessions.
        deliver: called with every transaction.
        may_commit: whether sessions can be ended, and containers swept, by themselves: they wait where it says no.
    """

    def __init__(
        self,
        tree: Tree,
        zxid: int,
        *,
        settings: Settings,
        deliver: Callable[[Transaction], None],
        may_commit: Callable[[], bool] = lambda: True,
    ) -> None:
        self.tree = tree
        self.zxid: int = zxid
        self._settings = settings
        self._deliver = deliver
        self._may_commit = may_commit
        first_id = first_session_id(settings.server_id, int(settings.clock() * 1000))
        self.sessions: Sessions = Sessions(settings.tick_time, first_id)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @classmethod
    def of_backup(
        cls,
        backup: Backup,
        *,
        settings: Settings,
        deliver: Callable[[Transaction], None],
        may_commit: Callable[[], bool] = lambda: True,
    ) -> History:
        """Go on from a backup, which stays as it is."""
        history = cls(
            backup.tree.copy(),
            backup.zxid,
            settings=settings,
            deliver=deliver,
            may_commit=may_commit,
        )
        history.sessions.restore(backup.timeouts_ms, asyncio.get_running_loop().time())
        return history

    def backup(self) -> Backup:
        return Backup(self.tree.copy(), self.zxid, {session.id: session.timeout_ms for session in self.sessions.all()})

    # ------------------------------------------------------------ time

    def start(self) -> None:
        """End sessions and sweep containers from now on."""
        self._tick()
        self._plan_sweep()

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._may_commit():
            for session in self.sessions.due(now):
                self.end_session(session.id)
        self._timers["tick"] = loop.call_at(self.sessions.next_tick(now), self._tick)

    def _plan_sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timers["sweep"] = loop.call_later(self._settings.container_check_interval, self._sweep)

    def _sweep(self) -> None:
        if self._may_commit():
            self.sweep()
        self._plan_sweep()

    def sweep(self) -> None:
        """Remove empty containers and nodes whose time is over."""
        for path in self.tree.expendable(self._moment(0).time_ms):
            self.write(Caller(OWN), DeleteContainer(path), via=None)

    # ------------------------------------------------------------ transactions

    def write(self, caller: Caller, operation: Operation, via: Hashable) -> Transaction:
        """Apply an operation that came by the server *via*, or number its failure."""
        moment = self._next()
        try:
            self._require_owner(caller.session, via)
            result, changes = self.tree.execute(operation, caller, moment)
        except Refused as refusal:
            return self._commit(Transaction(moment.zxid, refusal.code))
        except Malformed:
            return self._commit(Transaction(moment.zxid, Code.MARSHALLING_ERROR))
        return self._commit(Transaction(moment.zxid, changes=tuple(changes), results=(result,)))

    def write_all(self, caller: Caller, operations: list[Operation], via: Hashable) -> Transaction:
        """Apply all operations, or nothing, and say why for each: 0 before the culprit, -2 behind it."""
        moment = self._next()
        try:
            self._require_owner(caller.session, via)
            results, changes = self.tree.execute_all(operations, caller, moment)
        except Aborted as failure:
            codes = [Code.OK] * failure.index + [failure.code]
            codes += [Code.RUNTIME_INCONSISTENCY] * (len(operations) - len(codes))
            return self._commit(Transaction(moment.zxid, results=tuple(map(OperationFailed, codes))))
        except Refused as refusal:
            return self._commit(Transaction(moment.zxid, refusal.code))
        except Malformed:
            return self._commit(Transaction(moment.zxid, Code.MARSHALLING_ERROR))
        return self._commit(Transaction(moment.zxid, changes=tuple(changes), results=tuple(results)))

    def fail(self, code: int) -> Transaction:
        """Number a write that cannot even be read."""
        return self._commit(Transaction(self._next().zxid, code))

    def create_session(self, timeout_ms: int, owner: Hashable) -> Transaction:
        now = asyncio.get_running_loop().time()
        session = self.sessions.create(timeout_ms, owner, now)
        return self._commit(Transaction(self._next().zxid, created=session))

    def end_session(self, session_id: int) -> Transaction:
        """Delete what the session owns, and forget it."""
        moment = self._next()
        self.sessions.remove(session_id)
        changes = self.tree.end_session(session_id, moment)
        return self._commit(Transaction(moment.zxid, changes=tuple(changes), ended=session_id))

    def begin_epoch(self) -> None:
        """Number on as a new leader does, and start the timers of all sessions again."""
        self.zxid = ((self.zxid >> 32) + 1) << 32
        self.sessions.restart_timers(asyncio.get_running_loop().time())

    def _require_owner(self, session_id: int, via: Hashable) -> None:
        if session_id == OWN:
            return
        session = self.sessions.get(session_id)
        if session is None:
            raise Refused(Code.SESSION_EXPIRED)
        if session.owner is None:
            session.owner = via
        elif session.owner is not via:
            raise Refused(Code.SESSION_MOVED)

    def _moment(self, zxid: int) -> Moment:
        return Moment(zxid, int(self._settings.clock() * 1000))

    def _next(self) -> Moment:
        self.zxid += 1
        return self._moment(self.zxid)

    def _commit(self, transaction: Transaction) -> Transaction:
        self._deliver(transaction)
        return transaction
