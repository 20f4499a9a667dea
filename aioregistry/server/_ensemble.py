"""An ensemble in memory: several addresses over one history, each with a replica of its own that may be late.

Elections are decided, not held: there is one history, and the leader has all of it. All that clients can see of an
ensemble is here: members that lag, members cut off that go on answering, connections that end with an election.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from aioregistry._errors import InvalidArgument, UsageError
from aioregistry.server._connection import Connection
from aioregistry.server._deployment import Deployment
from aioregistry.server._dispatcher import Decide
from aioregistry.server._endpoint import Endpoint
from aioregistry.server._history import History, Transaction
from aioregistry.server._settings import Settings
from aioregistry.server._store import Data, Store
from aioregistry.server._tree import Tree

__all__ = ["Ensemble", "Member"]


class Ensemble(Deployment):
    """Members that serve one history; a context manager, or ``start()`` and ``stop()`` by hand.

    Its start starts all members and elects a leader, and its stop stops all.

    Args:
        size: how many members; most of them must be there and not cut off for anything to be written.
        sync_limit: ticks until a member that is cut off stops serving, or its followers give a leader up.
        options: of every member, as :class:`~aioregistry.server.ZooKeeperServer` takes them; ports and server ids are
            the members' own.

    Raises:
        InvalidArgument: an option is out of its range.
    """

    def __init__(self, size: int = 3, *, sync_limit: float = 5.0, **options: Any) -> None:
        if size < 1:
            raise InvalidArgument("size", size, "must be positive")
        settings = Settings(**options)
        self._settings = settings
        self._store = Store(lambda: "the ensemble", self._empty_tree)
        self.notice_after: float = sync_limit * settings.tick_time
        self.members: list[Member] = [
            Member(self, replace(settings, server_id=number), self._store) for number in range(1, size + 1)
        ]
        self._leader: Member | None = None

    @property
    def history(self) -> History | None:
        """The history that all members serve; None while the ensemble does not run."""
        return self._store.history

    @property
    def connect_string(self) -> str:
        """The addresses of all members, as clients take them."""
        return ",".join(member.address for member in self.members)

    @property
    def leader(self) -> Member:
        """The member that leads; also one that was cut off a moment ago.

        Raises:
            UsageError: no member leads.
        """
        if self._leader is None:
            raise UsageError("the ensemble has no leader")
        return self._leader

    @property
    def followers(self) -> list[Member]:
        """The running members that do not lead."""
        return [member for member in self.members if member.running and member is not self._leader]

    # ------------------------------------------------------------ life

    async def _go_up(self, data: Data, *, listen: bool) -> None:
        for member in self.members:
            await member.come_up(listen=listen)
        history = self._store.begin(data, settings=self._settings, deliver=self._broadcast, may_commit=self.can_commit)
        history.start()
        self.elect(self.members[0])

    async def _go_down(self, *, keep_ports: bool) -> None:
        self._store.end()
        self._leader = None
        for member in self.members:
            member.leave()
            member.hang_up(keep_port=keep_ports)
        await asyncio.sleep(0)  # for the transports to close

    # ------------------------------------------------------------ controls

    def change_leader(self, to: Member | None = None) -> None:
        """Have another member lead: a new epoch begins, every connection ends, all sessions' timers start again.

        Args:
            to: the member that is to lead; None for any other that can.
        """
        self.elect(to or next((member for member in self._electable() if member is not self._leader), None))

    # ------------------------------------------------------------ the members' side

    def running_history(self) -> History:
        """Return the history that all members serve.

        Raises:
            UsageError: the ensemble does not run.
        """
        return self._store.running()

    def can_commit(self) -> bool:
        """Whether there is a leader that most members can hear."""
        leader = self._leader
        return leader is not None and not leader.is_cut_off and len(self._electable()) > len(self.members) // 2

    def reaches_quorum(self, member: Member) -> bool:
        """Return whether *member* can hear a leader that most members can hear."""
        return not member.is_cut_off and self.can_commit()

    def leads(self, member: Member) -> bool:
        """Return whether *member* is the leader."""
        return member is self._leader

    def elect(self, preferred: Member | None = None) -> None:
        """Settle which member leads now. Every member that takes part drops its connections."""
        candidates = self._electable()
        for member in candidates:
            member.leave()
        if self.history is None or len(candidates) <= len(self.members) // 2:
            self._leader = None
            return
        self._leader = preferred if preferred in candidates else candidates[0]
        self.history.begin_epoch()
        for member in candidates:
            member.join(self.history)

    def _electable(self) -> list[Member]:
        return [member for member in self.members if member.running and not member.is_cut_off]

    def _broadcast(self, transaction: Transaction) -> None:
        for member in self.members:
            member.receive(partial(member.apply, transaction))

    def _empty_tree(self) -> Tree:
        lines = [
            f"server.{member.settings.server_id}={member.host}:0:0:participant;{member.address}"
            for member in self.members
        ]
        return self._settings.empty_tree("\n".join([*lines, "version=0"]).encode())


class Member(Endpoint):
    """One server of an ensemble. It has the controls of a server, and some for its part in the ensemble."""

    def __init__(self, ensemble: Ensemble, settings: Settings, store: Store) -> None:
        super().__init__(settings, store)
        self._ensemble = ensemble
        self._lag = 0.0
        self._waits_for_syncs = True
        self._serving = False
        self.is_cut_off: bool = False
        self._notice: asyncio.TimerHandle | None = None
        # The leader's messages, and when they are due here.
        self._inbox: deque[tuple[float, Callable[[], None]]] = deque()
        self._reading: asyncio.TimerHandle | None = None
        # The messages to a leader out of reach.
        self._unsent: list[Callable[[], None]] = []

    # ------------------------------------------------------------ controls

    def lag(self, seconds: float, *, syncs: bool = True) -> None:
        """Apply transactions later, from now on.

        Args:
            seconds: how much later, in seconds; 0 for at once.
            syncs: whether a sync waits for the transactions that are still to be applied. A leader's does not always:
                it takes a sync for a read, and may answer before it has applied a transaction that a follower shows
                already.
        """
        self._lag = seconds
        self._waits_for_syncs = syncs

    def cut_off(self) -> None:
        """Cut this member off from all others. Its clients still reach it, and it answers pings and stale reads.

        After the ensemble's ``sync_limit`` it notices and drops them, and the others elect a leader if it led.
        """
        self.is_cut_off = True
        if self._notice is None:
            self._notice = asyncio.get_running_loop().call_later(self._ensemble.notice_after, self._notice_cut)

    def heal(self) -> None:
        """Undo ``cut_off``: a member that has not noticed handles the waiting requests, one that has noticed rejoins.

        Does nothing if it was not cut off.
        """
        if not self.is_cut_off:
            return
        self.is_cut_off = False
        self._forget_notice()
        if self.running and not self._serving:
            self._rejoin()
        self._read_inbox()
        unsent, self._unsent = self._unsent, []
        for send in unsent:
            send()

    async def stop(self) -> None:
        """Go down, as by SIGKILL; the others elect a leader if it led, or stop serving if too few are left."""
        self.leave()
        self.hang_up(keep_port=True)
        if self._ensemble.leads(self) or not self._ensemble.can_commit():
            self._ensemble.elect()
        await asyncio.sleep(0)  # for the transports to close

    async def start(self, *, listen: bool = True) -> None:
        """Come back, with the transactions that were committed meanwhile.

        Args:
            listen: as of :meth:`Ensemble.start`.

        Raises:
            UsageError: it runs already, or the ensemble does not.
            OSError: the port cannot be had.
        """
        self._store.running()
        if self.running:
            raise UsageError(f"the member on {self.address} runs already")
        await self.come_up(listen=listen)
        self._rejoin()

    def expire(self, session_id: int) -> None:
        """End a session of the ensemble as if nothing had been heard of it for its timeout.

        Args:
            session_id: as ``registry.session.id`` has it; does nothing if it is not alive.
        """
        self._ensemble.expire(session_id)

    def __repr__(self) -> str:
        state = self.mode if self._serving else "not serving"
        return f"<Member {self.address} {state}{' cut off' if self.is_cut_off else ''} zxid={self.zxid:#x}>"

    # ------------------------------------------------------------ the ensemble's side

    def join(self, history: History) -> None:
        """Serve the transactions that are committed by now, and later ones."""
        self.replica.begin(history.tree.copy(), history.zxid)
        self._serving = True

    def leave(self) -> None:
        """Stop serving, and forget the transactions and requests under way."""
        self._serving = False
        self._forget_notice()
        self._inbox.clear()
        self._unsent.clear()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self.drop()

    def receive(self, item: Callable[[], None]) -> None:
        """Take *item*, which the leader sends, in order, when it is due."""
        if not self._serving:
            return
        if not (self._lag or self._inbox or self.is_cut_off):
            item()
            return
        self._inbox.append((self.time() + self._lag, item))
        self._read_inbox()

    def apply(self, transaction: Transaction) -> None:
        """Apply a transaction of the leader to this member's replica, and tell its connections."""
        self.replica.tree.replay(transaction.changes)
        self.deliver(transaction)

    def _read_inbox(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        while self._inbox and not self.is_cut_off:
            due, item = self._inbox[0]
            if due > self.time():
                self._reading = asyncio.get_running_loop().call_at(due, self._read_inbox)
                return
            self._inbox.popleft()
            item()

    def _notice_cut(self) -> None:
        self._notice = None
        led = self._ensemble.leads(self)
        self.leave()
        if led or not self._ensemble.can_commit():
            self._ensemble.elect()

    def _forget_notice(self) -> None:
        if self._notice is not None:
            self._notice.cancel()
            self._notice = None

    def _rejoin(self) -> None:
        if self._ensemble.can_commit():
            self.join(self._store.running())
        else:
            self._ensemble.elect()

    # ------------------------------------------------------------ as an endpoint: a part of the ensemble

    @property
    def serving(self) -> bool:
        """Whether it takes sessions: it runs, and has not noticed that it is cut off."""
        return self._serving

    @property
    def mode(self) -> str:
        """``"leader"`` or ``"follower"``, as the four-letter words tell it."""
        return "leader" if self._ensemble.leads(self) else "follower"

    def propose(self, decide: Decide, done: Callable[[Transaction], None]) -> None:
        self._send(partial(self._decide, decide, done))

    def _decide(self, decide: Decide, done: Callable[[Transaction], None]) -> None:
        transaction = decide(self._store.running())
        self.receive(partial(done, transaction))

    def catch_up(self, done: Callable[[], None]) -> None:
        self._send(partial(self.receive, done) if self._waits_for_syncs else done)

    def touch(self, connection: Connection) -> None:
        if self._ensemble.reaches_quorum(self):
            history = self._store.running()
            history.sessions.touch(connection.session_id, connection.timeout_ms, self.time())

    def revalidate(self, session_id: int, timeout_ms: int, done: Callable[[bool], None]) -> None:
        self._send(partial(self._revalidate, session_id, timeout_ms, done))

    def _revalidate(self, session_id: int, timeout_ms: int, done: Callable[[bool], None]) -> None:
        sessions = self._store.running().sessions
        valid = sessions.touch(session_id, timeout_ms, self.time())
        if valid:
            sessions.move(session_id, self)
        self.receive(partial(done, valid))

    def _send(self, request: Callable[[], None]) -> None:
        """To the leader: at once, or when it can be reached again."""
        if self._ensemble.reaches_quorum(self):
            request()
        else:
            self._unsent.append(request)
