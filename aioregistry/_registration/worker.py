"""The worker of a registration: one plain task that looks, plans, acts, and looks again until nothing is left to do.

Every change of the session wakes it, every event of its node, a new desire, and a timer. It does the same whatever
woke it, since it acts on the observed node. Everything goes through this one task, so that a late re-registration can
never undo a withdrawal.

`exchanges.py` sends its requests, and knows the node as last seen; `progress.py` has the waiting tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from aioregistry._concurrency import Alarm
from aioregistry._errors import (
    ChrootMissing,
    ConnectionLost,
    NodeNotEphemeral,
    PoisonRequest,
    RegistrationConflict,
    RegistrationDisplaced,
    RegistrationError,
    RegistryError,
    ServerError,
    SessionClosed,
    SessionFailed,
    session_name,
)
from aioregistry._protocol import EventKind, Message, Sync, WatchedEvent
from aioregistry._session import outage_attempts
from aioregistry._session.states import ENDED

from .exchanges import Exchanges
from .lifecycle import GOALS, Stage, Turn
from .pauses import Pauses
from .plan import Action, Desired, Goal, Node, plan
from .progress import Progress
from .remedies import TRUSTING, Remedy, remedy
from .revisions import Revisions
from .sights import Observation, Ownership, node_there
from .transactions import Target, change, creation, takeover
from .withdrawals import Withdrawals

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = ["Worker"]

_log = logging.getLogger("aioregistry.registration")

PERIOD: Final = 60.0
"""Seconds between two looks that nothing asked for, at most; at least half of it. Events can be lost: from 3.8.4 on a
server hides those of nodes that it thinks we may not read. 1,000 registrations make some 45 small requests a second
of it."""


class Worker:
    """Brings one node to its desired state, and keeps it there.

    Args:
        session: the session; its state, answers and events are all the worker knows.
        target: the node.
        data: the first data of the node.
        first_goal: until the node was ours for the first time.
        standby: when displaced, wait for the node to go and claim again, instead of ending.
        changed: called after each change of ``progress`` or ``ownership``.
        withdrawals: those of the session: who had the node before, and who will.
    """

    def __init__(
        self,
        session: SessionPort,
        target: Target,
        data: bytes,
        *,
        first_goal: Goal,
        standby: bool,
        changed: Callable[[], None],
        withdrawals: Withdrawals,
    ) -> None:
        self.progress: Progress = Progress(target.path)
        self.task: asyncio.Task[None] | None = None

        self._session = session
        self._target = target
        self._revisions = Revisions(data)
        self._first_goal = first_goal
        self._standby = standby
        self._changed = changed
        self._withdrawals = withdrawals

        self._exchanges = Exchanges(session, target, self._revisions, withdrawals, self._saw)
        self._repeated = withdrawals.repeated
        self._parents, self._parent = withdrawals.parents, target.path.rpartition("/")[0]
        self._pauses = Pauses()
        self._waiting_for = 0
        """The session that has the id and was reported, or 0."""
        self._listed_by: tuple[int, int] | None = None
        """The session that owned the node when it was last seen, if that was ours, and the session's history."""

        self._woken = asyncio.Event()
        self._next_look = Alarm()
        self._finished = False
        self._detach: list[Callable[[], None]] = []

    # ------------------------------------------------------------------ what its owner asks

    def start(self) -> None:
        """Begin."""
        if (former := self._withdrawals.begin(self._target.path, self)) is not None:
            self._exchanges.writer, self._exchanges.written_as = former.hand_over()
        watch = self._session.watches.listen(self._target.path, self._on_event)
        self._detach = [watch.close, self._session.observe(self._on_session)]
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"registration {self._target.path}")
        self.task.add_done_callback(self._on_done)

    def hand_over(self) -> tuple[int, deque[int]]:
        """Do nothing more, for another worker decides about the node; return which sessions' nodes may be there."""
        if self.task is not None:
            self.task.cancel()
        return self._exchanges.writer, self._exchanges.written_as.copy()

    def publish(self, data: bytes) -> None:
        """Let the node hold *data* from now on."""
        self._revisions.desire(data)
        self._woken.set()

    async def published(self) -> None:
        """Wait until the node holds the state that is desired now, or a later one.

        Raises why it will not: the cause of the end, a displacement, or a server's refusal (after which the worker
        goes on trying).
        """
        if self.progress.ended or self.progress.displaced is not None:
            raise self.progress.ending()
        await self._revisions.listed()

    def leave(self) -> None:
        """Begin to withdraw, if that needs no look; :meth:`close` is to follow.

        Of ten thousand that close at once the tasks alone take long: by then the withdrawals are on their way.
        """
        sight, session = self._exchanges.sight, self._session
        if self.progress.leaving or not session.connected or session.read_only:
            return
        if sight is None or self._exchanges.claim is None:
            return
        self.progress.move(Turn.CLOSE)
        if self._planned(sight) is Action.WITHDRAW:
            self._exchanges.begin_withdrawal(sight)

    def close(self) -> None:
        """Withdraw from now on; :meth:`end` is to follow.

        A node that is still listed then is withdrawn in the background, until that is done, the session has ended,
        or another worker takes it over.
        """
        self.progress.move(Turn.CLOSE)
        if not self._finished:
            self._withdrawals.closing(self, self._session.runtime.boot())
        self._woken.set()

    def end(self) -> None:
        """Tell the waiters that it has ended."""
        self._tell_end(None)

    @property
    def withdrawn(self) -> bool | None:
        """Whether no node of ours is left; None before the closing has ended."""
        return self._surely_gone() if self.progress.stage is Stage.CLOSED else None

    @property
    def ownership(self) -> Ownership | None:
        """The evidence that the node is ours."""
        return self._exchanges.ownership

    def look(self) -> None:
        """Look at the node, though nothing may have happened to it."""
        self._exchanges.overtaken()
        self._woken.set()

    # ------------------------------------------------------------------ what wakes it

    def _on_session(self) -> None:
        if self._exchanges.on_new_connection():
            self.look()
        self._woken.set()
        self._changed()

    def _on_event(self, event: WatchedEvent) -> None:
        # Events and replies come in the order of what happened: an event is newer than a reply that came before it,
        # and older than one that is still awaited. The event of our own write comes before its reply.
        if not self._exchanges.is_reading:
            self.look()
        if event.kind is EventKind.DELETED and not self.progress.leaving:  # while leaving, the deletion is expected
            self._exchanges.ownership = None
            self._changed()

    # ------------------------------------------------------------------ the task

    async def _run(self) -> None:
        while not self._finished:
            self._woken.clear()
            if self._session.state in ENDED:
                self._stop(self._session.failure)
            elif self.progress.leaving and self._surely_gone():
                self._stop(None)
            else:
                pause = await self._settle()
                if not self._finished:
                    await self._rest(pause)

    async def _rest(self, pause: float | None) -> None:
        """Wait until woken, or for *pause* seconds if given."""
        if pause is not None:
            self._next_look.set_in(pause, self.look)
        try:
            await self._woken.wait()
        finally:
            self._next_look.cancel()

    async def _settle(self) -> float | None:
        """Plan, act and look until nothing is left to do; return how many seconds to rest, None: until woken."""
        begun = self.progress.leaving or self._exchanges.claim is not None
        if not begun and not self._parents.begin(self._parent, self, self._woken.set):
            return None  # somebody else finds out about the service's node
        try:
            while not self._finished and self._session.connected and not self._session.read_only:
                if (pause := await self._step()) is not None:
                    return pause
        except (ConnectionLost, SessionClosed, SessionFailed):
            pass  # the write may have been applied or not: the next connection looks
        finally:
            self._parents.end(self._parent, self)
        return None

    async def _step(self) -> float | None:
        """Do the next thing; return the seconds to rest after it, if any."""
        exchanges = self._exchanges
        sight = exchanges.sight or exchanges.foregone(leaving=self.progress.leaving)
        action = None if sight is None else self._planned(sight)
        try:
            if exchanges.withdrawing or action is Action.WITHDRAW:
                action = Action.WITHDRAW
                error = await exchanges.withdraw(sight)
            else:
                message = Sync(self._target.path) if sight is None or action is None else _PREPARE[action](self, sight)
                if message is None:
                    self._pauses.succeeded()
                    return self._session.runtime.uniform(PERIOD / 2, PERIOD)
                error = await exchanges.exchange(action, message)
        except (ServerError, PoisonRequest) as unreadable:
            error = unreadable
        return None if error is None else await self._remedied(action, error)

    def _planned(self, sight: Observation) -> Action:
        session, claim = self._session, self._exchanges.claim
        desired = Desired(GOALS.get(self.progress.stage, self._first_goal), self._revisions.desired.data)
        # The session keeps its last few ids only, those of the present history. Of a server that grants a new session
        # each time, and lets the old ones live, they may all be of sessions that wrote nothing.
        earlier_ids = (*session.earlier_ids, *self._exchanges.written_as)
        # Without a claim, only an absent node is planned for.
        return plan(desired, sight.node, session.id, earlier_ids, 0 if claim is None else claim)

    def _saw(self, ours: Node | None) -> None:
        by = self._session.id, self._session.history
        sight, before, self._listed_by = self._exchanges.sight, self._listed_by, None if ours is None else by
        # Nodes go with their session, and with the disks of the servers.
        if before == by and sight is not None and sight.node is None and not self.progress.leaving:
            text = "%s was deleted by somebody else; session %s lasts, so it is listed again as soon as possible"
            told = self._target.path, session_name(self._session.id)
            self._repeated.tell("deleted", logging.WARNING, text, *told, **self._target.about)
        if ours is not None:
            self.progress.displaced, self._waiting_for = None, 0
            self.progress.move(Turn.SEEN)
            self._revisions.seen(ours.data)
        self._changed()

    # ------------------------------------------------------------------ acting: what to send; None: nothing

    def _create(self, sight: Observation) -> Message[Any]:  # noqa: ARG002
        self._exchanges.writes()
        return creation(self._target, self._revisions.send())

    def _set(self, sight: Observation) -> Message[Any]:
        return change(self._target, self._revisions.send(), node_there(sight).version)

    def _take_over(self, sight: Observation) -> Message[Any]:
        node = node_there(sight)
        owner = session_name(node.owner)
        text, told = "%s: taking over from session %s", (self._target.path, owner)
        self._repeated.tell("takeover", logging.INFO, text, *told, **self._target.about)
        self._session.emit("registration.takeover", path=self._target.path, owner=node.owner)
        self._exchanges.writes()
        return takeover(self._target, self._revisions.send(), node.version)

    def _keep(self, sight: Observation) -> None:  # noqa: ARG002
        self._revisions.tell(None)

    def _wait(self, sight: Observation) -> None:
        """The watch that was armed with the read wakes us."""
        owner = node_there(sight).owner
        if owner == self._waiting_for:
            return
        self._waiting_for = owner
        text = "%s: session %s has this id; it is listed here when that node goes"
        told = self._target.path, session_name(owner)
        self._repeated.tell("waiting", logging.WARNING, text, *told, **self._target.about)
        if self.progress.displaced is not None:
            self.progress.displaced = RegistrationDisplaced(self._target.path, owner)
            self._changed()

    def _yield(self, sight: Observation) -> None:
        displaced = RegistrationDisplaced(self._target.path, node_there(sight).owner)
        then = "; it is listed again when that node goes" if self._standby else ""
        self._repeated.tell("displaced", logging.WARNING, "%s%s", displaced, then, **self._target.about)
        self.progress.displaced, self._waiting_for = displaced, displaced.owner
        if not self._standby:
            self._end(displaced)
            return
        self.progress.move(Turn.DISPLACED)
        self._revisions.tell(displaced)
        self._changed()

    def _refuse_conflict(self, sight: Observation) -> None:
        self._end(RegistrationConflict(self._target.path, node_there(sight).owner))

    def _refuse_obstacle(self, sight: Observation) -> None:  # noqa: ARG002
        self._end(NodeNotEphemeral(self._target.path))

    def _finish(self, sight: Observation) -> None:  # noqa: ARG002
        self._stop(None)

    # ------------------------------------------------------------------ errors

    async def _remedied(self, action: Action | None, error: RegistryError) -> float | None:
        """React to *error*; return the seconds to rest after it, if any."""
        self._pauses.failed()
        what = remedy(action, error)
        if what is Remedy.MAKE_PARENTS:
            try:
                path = str(self._target.marker) if action is Action.WITHDRAW else self._target.path
                await self._parents.make(self._session, self._target, path)
            except (ServerError, PoisonRequest, ChrootMissing) as obstacle:
                error = obstacle
                what = Remedy.OMIT_MARKER if action is Action.WITHDRAW else remedy(None, obstacle)
        if what is Remedy.OMIT_MARKER:
            if not self._exchanges.marked:
                what = Remedy.REFUSED  # the deletion alone fails too
            self._exchanges.marked = False
        if what is Remedy.REFUSED and self._refused(error):
            return None
        if self._pauses.is_free(overtaken=what in TRUSTING):
            return None
        session = self._session
        pause = self._pauses.length(error, session.timeout, session.runtime.uniform)
        text = "%s%s: %s; looking again in %.2f s"
        told = (self._target.path, " cannot be withdrawn" if self.progress.leaving else "", error, pause)
        if self._pauses.failures == 1:
            self._repeated.tell("failed", logging.WARNING, text, *told, **self._target.about)
        else:
            _log.debug(text, *told, extra=self._target.about)
        return pause

    def _refused(self, error: RegistryError) -> bool:
        """Tell whom it concerns; return whether that is the end."""
        refusal = error if isinstance(error, ChrootMissing) else self._refusal(error)
        if self.progress.leaving:
            self._tell_end(None)
            self.progress.let_go()
        elif self.progress.was_listed:
            self._revisions.tell(refusal)
        else:
            self._end(refusal)
        return self._finished

    def _refusal(self, error: RegistryError) -> RegistrationError:
        refusal = RegistrationError(self._target.path, f"the server refuses: {error}")
        refusal.__cause__ = error
        return refusal

    # ------------------------------------------------------------------ the end

    def _surely_gone(self) -> bool:
        return self._exchanges.writer in (0, self._session.closed_id)

    def _end(self, cause: Exception | None) -> None:
        """It will not be listed any more. Where a node of ours may be there, that is withdrawn."""
        self._tell_end(cause)
        if self._surely_gone():
            self._stop(None)

    def _stop(self, cause: Exception | None) -> None:
        """Do nothing more."""
        self._finished = True
        self._tell_end(cause)
        self.progress.let_go()

    def _tell_end(self, cause: Exception | None) -> None:
        if self.progress.ended:
            return
        if isinstance(cause, RegistrationError):
            cause.attempts = outage_attempts(self._session)
        self.progress.end(cause)
        self._exchanges.ownership = None
        self._revisions.tell(self.progress.ending())
        self._changed()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        for detach in self._detach:
            detach()
        if not task.cancelled() and (defect := task.exception()) is not None:
            _log.error("%s: the worker failed", self._target.path, exc_info=defect, extra=self._target.about)
            cause = RegistrationError(self._target.path, f"a defect of aioregistry: {defect!r}")
            cause.__cause__ = defect
            self._stop(cause)
        self._stop(None)
        self._withdrawals.end(self._target.path, self, gone=self._surely_gone())


_PREPARE: Final[Mapping[Action, Callable[[Worker, Observation], Message[Any] | None]]] = MappingProxyType(
    {
        Action.CREATE: Worker._create,
        Action.KEEP: Worker._keep,
        Action.SET: Worker._set,
        Action.TAKE_OVER: Worker._take_over,
        Action.WAIT: Worker._wait,
        Action.YIELD: Worker._yield,
        Action.REFUSE_CONFLICT: Worker._refuse_conflict,
        Action.REFUSE_OBSTACLE: Worker._refuse_obstacle,
        Action.FINISH: Worker._finish,
    }
)
