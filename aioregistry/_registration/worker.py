"""The worker of a registration: one plain task that looks, plans, acts, and looks again until nothing is left to do.

It is woken by every change of the session, by every event of its node, by a new desire, and now and then; why does
not matter, since it acts on what it sees. Everything goes through this one task, so that a late re-registration can
never undo a withdrawal.

What it costs: every write is followed by a read of the node in the same tick, and a look is a Sync followed by the
same read. Either way one round trip, in which the quorum was asked, gives the sight that is planned from next. What
the last sight gave is planned from without looking again, as long as the connection lasts and the watch did not
fire: the version fences it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aioregistry._concurrency import Alarm
from aioregistry._errors import (
    ChrootMissing,
    ConnectionLost,
    HandleClosed,
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
from aioregistry._protocol import (
    EventKind,
    GetData,
    Message,
    Reply,
    Sync,
    WatchedEvent,
)
from aioregistry._session.states import ENDED

from .lifecycle import GOALS, LEAVING, OVER, Stage, Turn, moved
from .pauses import Pauses
from .plan import Action, Desired, Goal, Node, executed, plan
from .remedies import Remedy, remedy
from .revisions import Revisions
from .sights import Held, Observation, Refusal, claim_of, error_of, node_read, node_there
from .transactions import Target, change, creation, takeover, withdrawal
from .withdrawals import Withdrawals

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = ["SESSIONS_KEPT", "Worker"]

_log = logging.getLogger("aioregistry.registration")

PERIOD: Final = 60.0
"""Seconds between two looks that nothing asked for, at most; at least half of it. Events can be lost: from 3.8.4 on a
server hides those of nodes that it thinks we may not read. 1,000 registrations make some 45 small requests a second
of it."""

SESSIONS_KEPT: Final = 16
"""Ids of sessions that wrote the node, kept to know it by."""


class _Request(NamedTuple):
    """What was sent, and by which session."""

    message: Message[Any]
    session: int


class Worker:
    """Brings one node to what is desired of it, and keeps it there.

    Args:
        session: the session; its state, answers and events are all the worker knows.
        target: the node.
        data: what the node is to hold at first.
        first_goal: until the node was ours for the first time.
        standby: when displaced, wait for the node to go and claim anew, instead of ending.
        changed: called after each change of what the attributes below tell.
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
        self.held: Held | None = None
        self.displaced: RegistrationDisplaced | None = None
        """Set while in standby, and for ever after a displacement without."""
        self.stage: Stage = Stage.CLAIMING
        self.cause: Exception | None = None
        """Why it ended, where it did not end by being closed."""
        self.task: asyncio.Task[None] | None = None

        self._session = session
        self._target = target
        self._revisions = Revisions(data)
        self._first_goal = first_goal
        self._standby = standby
        self._changed = changed
        self._withdrawals = withdrawals

        self._claim: int | None = None
        self._history = session.history
        self._generation = session.generation
        self._sight: Observation | None = None
        """The last one, as far as it can still be planned from."""
        self._writer = 0
        """The session under whose id a node of ours may be there, or 0.

        Set by whatever may create one, also where it is not known to have arrived. What a session owned goes with it,
        but a leader that has lost its quorum says of a session that it ended, which may live on: so nothing clears this
        but a look, by a session that a quorum has granted, later than all that was sent. The server fences what an
        earlier connection sent: it is refused once the session is on another (SessionMoved), or has ended.
        """
        self._written_as: deque[int] = deque(maxlen=SESSIONS_KEPT)
        """The sessions under whose ids a node of ours may ever have been there, the last few.

        Of earlier histories too: the servers' disks, once wiped, may be restored afterwards, with our node on them.
        """
        self._stale = False
        """Something happened to the node since it was last read."""
        self._reading: asyncio.Future[Any] | None = None
        self._answer: asyncio.Future[Any] | None = None
        """That of a withdrawal which was sent before the task came to it."""
        self._last_request = _Request(Sync(target.path), 0)
        self._unanswered: tuple[Action, _Request] | None = None
        """The last write, where its answer was lost and no look has shown yet what became of it."""
        self._marked = target.marker is not None
        self._marker_root = withdrawals.marker_root(session)
        self._repeated = withdrawals.repeated
        self._parents, self._parent = withdrawals.parents, target.path.rpartition("/")[0]
        self._pauses = Pauses()
        self._waiting_for = 0
        """The session that has the id and was reported, or 0."""

        self._woken = asyncio.Event()
        self._first_listing: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether it was ever listed, once that is known for good."""
        self._next_look = Alarm()
        self._over = asyncio.Event()
        self._left = asyncio.Event()
        """Nothing is to be waited for any more: it is withdrawn, or the server refuses that for now."""
        self._finished = False
        self._detach: list[Callable[[], None]] = []

    # ------------------------------------------------------------------ what its owner asks

    def start(self) -> None:
        """Begin."""
        if (former := self._withdrawals.begin(self._target.path, self)) is not None:
            self._writer, self._written_as = former.hand_over()
        watch = self._session.watches.listen(self._target.path, self._on_event)
        self._detach = [watch.close, self._session.observe(self._on_session)]
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"registration {self._target.path}")
        self.task.add_done_callback(self._on_done)

    def hand_over(self) -> tuple[int, deque[int]]:
        """Do nothing more, for another worker decides about the node; return which sessions' nodes may be there."""
        if self.task is not None:
            self.task.cancel()
        return self._writer, self._written_as.copy()

    def publish(self, data: bytes) -> None:
        """Let the node hold *data* from now on."""
        self._revisions.desire(data)
        self._woken.set()

    async def published(self) -> None:
        """Wait until the node holds what is desired now, or something desired later.

        Raises why it will not: the cause of the end, a displacement, or a server's refusal (after which the worker
        goes on trying).
        """
        if self.ended or self.displaced is not None:
            raise self.ending()
        await self._revisions.listed()

    async def listed(self) -> None:
        """Wait until the node was ours for the first time; raises why, when the end comes before."""
        await asyncio.wait([self._first_listing])  # which outlives whoever waits for it
        if not self._was_listed:
            raise self.ending()

    async def over(self) -> None:
        """Wait for the end."""
        await self._over.wait()

    def ending(self) -> Exception:
        """Return what whoever waits is to be told: why it ended, or why it will not be published."""
        if self.cause is not None:
            return self.cause
        if self.displaced is not None:
            return self.displaced
        if self.stage in (Stage.CLOSING, Stage.CLOSED):
            return HandleClosed(f"the registration of {self._target.path} is closed")
        return SessionClosed(f"the session that {self._target.path} was registered in is closed")

    def leave(self) -> None:
        """Begin to withdraw, if that needs no look; :meth:`close` is to follow.

        Of ten thousand that close at once the tasks alone take long: by then the withdrawals are on their way.
        """
        sight, session = self._sight, self._session
        if self.leaving or sight is None or not session.connected or session.read_only or self._claim is None:
            return
        self._move(Turn.CLOSE)
        if self._planned(sight) is Action.WITHDRAW:
            self._answer = self._send_withdrawal(sight)

    def close(self) -> None:
        """Withdraw from now on; :meth:`end` is to follow.

        What is not withdrawn by then is withdrawn in the background, until that is done, the session has ended, or
        another worker takes it over.
        """
        self._move(Turn.CLOSE)
        if not self._finished:
            self._withdrawals.closing(self, self._session.runtime.boot())
        self._woken.set()

    async def left(self) -> None:
        """Wait until it is withdrawn, or the server refuses that for now."""
        await self._left.wait()

    def end(self) -> None:
        """Tell whoever waits that it has ended."""
        self._tell_end(None)

    @property
    def withdrawn(self) -> bool | None:
        """Whether no node of ours is left; None before the closing has ended."""
        return self._surely_gone() if self.stage is Stage.CLOSED else None

    @property
    def ended(self) -> bool:
        """Whether whoever waited was told that it is over; a withdrawal may go on."""
        return self.stage in OVER

    @property
    def leaving(self) -> bool:
        """Whether nothing is wanted any more but that no node of ours is left."""
        return self.stage in LEAVING

    @property
    def _was_listed(self) -> bool:
        return self._first_listing.done() and self._first_listing.result()

    def _move(self, turn: Turn) -> None:
        self.stage = moved(self.stage, turn)
        if turn in (Turn.SEEN, Turn.END) and not self._first_listing.done():
            self._first_listing.set_result(turn is Turn.SEEN)

    def look(self) -> None:
        """Look at the node, though nothing may have happened to it."""
        self._sight = None
        self._stale = True
        self._woken.set()

    # ------------------------------------------------------------------ what wakes it

    def _on_session(self) -> None:
        session = self._session
        if session.history != self._history:
            # zxids of different histories cannot be compared, and the nodes seen there are not the ones here.
            self._history, self._claim, self.held = session.history, None, None
        if session.generation != self._generation:
            self._generation = session.generation
            self.look()
        self._woken.set()
        self._changed()

    def _on_event(self, event: WatchedEvent) -> None:
        # Events and replies come in the order of what happened: an event is newer than a reply that came before it,
        # and older than one that is still awaited. The event of our own write comes before its reply.
        if self._reading is None or self._reading.done():
            self.look()
        if event.kind is EventKind.DELETED and not self.leaving:  # else that is what is being waited for
            self.held = None
            self._changed()

    # ------------------------------------------------------------------ the task

    async def _run(self) -> None:
        while not self._finished:
            self._woken.clear()
            if self._session.state in ENDED:
                self._stop(self._session.failure)
            elif self.leaving and self._surely_gone():
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
        begun = self.leaving or self._claim is not None
        if not begun and not self._parents.begin(self._parent, self, self._woken.set):
            return None  # somebody else finds out about the service's node
        try:
            while not self._finished and self._session.connected and not self._session.read_only:
                if (pause := await self._step()) is not None:
                    return pause
        except (ConnectionLost, SessionClosed, SessionFailed):
            pass  # what was written may have been applied or not: the next connect looks
        finally:
            self._parents.end(self._parent, self)
        return None

    async def _step(self) -> float | None:
        """Do the next thing; return the seconds to rest after it, if any."""
        sight = self._sight or self._foregone()
        action = None if sight is None else self._planned(sight)
        try:
            if self._answer is not None or action is Action.WITHDRAW:
                action = Action.WITHDRAW
                error = await self._withdrawn_by_now(sight)
            else:
                message = Sync(self._target.path) if sight is None or action is None else _PREPARE[action](self, sight)
                if message is None:
                    self._pauses.succeeded()
                    return self._session.runtime.uniform(PERIOD / 2, PERIOD)
                error = await self._exchange(action, message)
        except (ServerError, PoisonRequest) as unreadable:
            error = unreadable
        return None if error is None else await self._remedied(action, error)

    def _planned(self, sight: Observation) -> Action:
        claim = 0 if self._claim is None else self._claim  # only what is absent is planned for without one
        session = self._session
        desired = Desired(GOALS.get(self.stage, self._first_goal), self._revisions.desired.data)
        # The session keeps its last few ids only, those of the present history. Of a server that grants a new session
        # each time, and lets the old ones live, they may all be of sessions that wrote nothing.
        earlier_ids = (*session.earlier_ids, *self._written_as)
        return plan(desired, sight.node, session.id, earlier_ids, claim)

    def _foregone(self) -> Observation | None:
        """What needs no look: a node that was never there, or of a session that has ended, so that it is about to go.

        To create it at once saves a round trip; where it is still there, or somebody else's, NodeExists says so. The
        first registration of a service looks, which tells whether its parents and the root of the markers are there.
        """
        held = self.held
        if not self.leaving and self._claim is None and self._writer == 0 and self._parents.known(self._parent):
            return Observation(None, 0)
        if self.leaving or held is None or held.owner not in self._session.earlier_ids:
            return None
        self.held = None
        return Observation(None, 0)

    # ------------------------------------------------------------------ one round trip

    async def _exchange(self, action: Action | None, message: Message[Any]) -> Refusal | None:
        """Send *message*, and a read of the node in the same tick; return what *message* failed with.

        Where the quorum answered the one, the other is as new as that, and is taken note of. Raises what the reading
        failed with.
        """
        session = self._session
        self._sight, self._stale = None, False
        if action is None:
            self._marker_root.look(self._target)
        elif action in (Action.CREATE, Action.TAKE_OVER):
            self._marker_root.make(self._target)
        known = session.last_zxid
        self._last_request = _Request(message, session.id)
        answer = session.submit(message)
        reading = self._reading = session.submit(GetData(self._target.path, watch=True))
        try:
            with contextlib.suppress(RegistryError):
                await reading
        except asyncio.CancelledError:
            answer.cancel()
            raise
        # Replies come in order, and a lost connection takes them all: what was asked first is answered by now.
        if self._claim is None and action is Action.CREATE:
            self._claim = claim_of(answer, known)
        self._note_unanswered(action, answer)
        error = error_of(answer)
        node, zxid = node_read(reading)
        trusted = error is None or remedy(action, error) in _TRUSTING
        if node is not None:
            self._parents.seen(session, self._parent)
        if trusted and self._claim is None:
            # Also by a sight that an event has overtaken since: who came in between is newer, and no ghost.
            self._claim = zxid
        if trusted and not self._stale:
            self._saw(Observation(node, zxid))
        return error

    async def _withdrawn_by_now(self, sight: Observation | None) -> Refusal | None:
        """Withdraw what is seen, perhaps with others, unless that was begun; return what it failed with.

        Its success says all that a look behind it would: that the node, ours by the version, is gone.
        """
        answer, self._answer = self._answer, None
        if answer is None:
            assert sight is not None, "what is withdrawn was seen"
            answer = self._send_withdrawal(sight)
        self._sight, self._reading, self._stale = None, None, False
        try:
            await asyncio.wait([answer])
        except asyncio.CancelledError:
            answer.cancel()  # what was not sent yet is not sent any more
            raise
        self._note_unanswered(Action.WITHDRAW, answer)
        error = error_of(answer)
        if error is None:
            self._saw(Observation(None, answer.result().zxid))
        elif remedy(Action.WITHDRAW, error) in (Remedy.MAKE_PARENTS, Remedy.OMIT_MARKER) and not self._stale:
            self._sight = sight  # it is the marker that was refused, and nothing of the transaction was applied
        return error

    def _send_withdrawal(self, sight: Observation) -> asyncio.Future[Reply[Any]]:
        node = node_there(sight)
        message = withdrawal(self._target, node.version, node.czxid, marked=self._marked)
        self._last_request = _Request(message, self._session.id)
        return self._withdrawals.together(self._session).submit(message)

    def _note_unanswered(self, action: Action | None, answer: asyncio.Future[Any]) -> None:
        if action is not None:
            lost = isinstance(answer.exception(), ConnectionLost | PoisonRequest)
            self._unanswered = (action, self._last_request) if lost else None

    def _saw(self, sight: Observation) -> None:
        session, node = self._session, sight.node
        unanswered, self._unanswered = self._unanswered, None
        if unanswered is not None:
            action, request = unanswered
            # What another session owned is gone, whatever became of the request.
            if request.session == session.id and executed(action, self._revisions.sent.data, node, session.id):
                session.executed(request.message)
        self._sight = sight
        if node is not None and node.owner == session.id:
            self._saw_ours(node)
        else:
            self._writer = node.owner if node is not None and self._was_ours(node.owner) else 0
            self.held = None
        self._changed()

    def _was_ours(self, owner: int) -> bool:
        # A history that is rolled back brings back nodes of sessions that the session forgot with the newer one.
        return owner in self._session.earlier_ids or owner in self._written_as

    def _saw_ours(self, node: Node) -> None:
        self._writer = node.owner
        self.held = Held(node.owner, self._session.generation)
        self.displaced, self._waiting_for = None, 0
        self._move(Turn.SEEN)
        self._revisions.seen(node.data)

    # ------------------------------------------------------------------ acting: what to send; None: nothing

    def _create(self, sight: Observation) -> Message[Any]:  # noqa: ARG002
        self._writes()
        return creation(self._target, self._revisions.send())

    def _writes(self) -> None:
        self._writer = self._session.id
        if self._writer not in self._written_as:
            self._written_as.append(self._writer)

    def _set(self, sight: Observation) -> Message[Any]:
        return change(self._target, self._revisions.send(), node_there(sight).version)

    def _take_over(self, sight: Observation) -> Message[Any]:
        node = node_there(sight)
        owner = session_name(node.owner)
        text, told = "%s: taking over from session %s", (self._target.path, owner)
        self._repeated.tell("takeover", logging.INFO, text, *told, **self._target.about)
        self._session.emit("registration.takeover", path=self._target.path, owner=node.owner)
        self._writes()
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
        if self.displaced is not None:
            self.displaced = RegistrationDisplaced(self._target.path, owner)
            self._changed()

    def _yield(self, sight: Observation) -> None:
        displaced = RegistrationDisplaced(self._target.path, node_there(sight).owner)
        then = "; it is listed again when that node goes" if self._standby else ""
        self._repeated.tell("displaced", logging.WARNING, "%s%s", displaced, then, **self._target.about)
        self.displaced, self._waiting_for = displaced, displaced.owner
        if not self._standby:
            self._end(displaced)
            return
        self._move(Turn.DISPLACED)
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
        """Do what follows from *error*; return the seconds to rest after it, if any."""
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
            if not self._marked:
                what = Remedy.REFUSED  # the deletion alone fails too
            self._marked = False
        if what is Remedy.REFUSED and self._refused(error):
            return None
        if self._pauses.is_free(overtaken=what in _TRUSTING):
            return None
        session = self._session
        pause = self._pauses.length(error, session.timeout, session.runtime.uniform)
        text = "%s%s: %s; looking again in %.2f s"
        told = (self._target.path, " cannot be withdrawn" if self.leaving else "", error, pause)
        if self._pauses.failures == 1:
            self._repeated.tell("failed", logging.WARNING, text, *told, **self._target.about)
        else:
            _log.debug(text, *told, extra=self._target.about)
        return pause

    def _refused(self, error: RegistryError) -> bool:
        """Tell whom it concerns; return whether that is the end."""
        refusal = error if isinstance(error, ChrootMissing) else self._refusal(error)
        if self.leaving:
            self._tell_end(None)
            self._left.set()
        elif self._was_listed:
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
        return self._writer in (0, self._session.closed_id)

    def _end(self, cause: Exception | None) -> None:
        """It will not be listed any more. Where a node of ours may be there, that is withdrawn."""
        self._tell_end(cause)
        if self._surely_gone():
            self._stop(None)

    def _stop(self, cause: Exception | None) -> None:
        """Do nothing more."""
        self._finished = True
        self._tell_end(cause)
        self._left.set()

    def _tell_end(self, cause: Exception | None) -> None:
        if self.ended:
            return
        self.cause = cause
        self._move(Turn.END)
        self.held = None
        self._revisions.tell(self.ending())
        self._over.set()
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

_TRUSTING: Final = frozenset({Remedy.PLAN_AGAIN, Remedy.MAKE_PARENTS, Remedy.OMIT_MARKER})
"""Where the quorum answered, so that what was read behind it is planned from."""
