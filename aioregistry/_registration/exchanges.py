"""The requests for one node, a round trip at a time, and the knowledge of the node by the answers.

Every write is followed by a read of the node in the same tick, and a look is a Sync followed by the same read. Either
way one round trip, in which the quorum was asked, gives the sight that is planned from next. The last sight
is planned from without looking again, as long as the connection lasts and the watch did not fire: the version fences
it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aioregistry._errors import ConnectionLost, PoisonRequest, RegistryError
from aioregistry._protocol import GetData, Message, Reply, Sync

from .plan import Action, Node, executed
from .remedies import TRUSTING, Remedy, remedy
from .revisions import Revisions
from .sights import Observation, Ownership, Refusal, claim_of, error_of, node_read, node_there
from .transactions import Target, withdrawal
from .withdrawals import Withdrawals

if TYPE_CHECKING:
    from aioregistry._session import SessionPort

__all__ = ["SESSIONS_KEPT", "Exchanges"]

SESSIONS_KEPT: Final = 16
"""Ids of sessions that wrote the node, kept to know it by."""


class _Request(NamedTuple):
    """The requests that were sent, and their session."""

    message: Message[Any]
    session: int


class Exchanges:
    """Those of one registration.

    Args:
        session: sends them.
        target: the node.
        revisions: the data of the writes.
        withdrawals: those of the session, with what all its registrations share.
        saw: called after each sight, with the node where it is ours, else with None.

    Attributes:
        claim: the zxid since which the id is claimed; None until a quorum has given one.
        sight: the last one, as far as it can still be planned from.
        ownership: the evidence that the node is ours.
        writer: the session under whose id a node of ours may be there, or 0.
            Set by whatever may create one, also where it is not known to have arrived. A session's nodes go with
            it, but a leader that has lost its quorum says of a session that it ended, which may live on: so nothing
            clears this but a look, by a session that a quorum has granted, later than all that was sent. The server
            fences what an earlier connection sent: it is refused once the session is on another (SessionMoved), or has
            ended.
        written_as: the sessions under whose ids a node of ours may ever have been there, the last few.
            Of earlier histories too: the servers' disks, once wiped, may be restored afterwards, with our node on them.
        marked: whether a withdrawal leaves a marker.
    """

    def __init__(
        self,
        session: SessionPort,
        target: Target,
        revisions: Revisions,
        withdrawals: Withdrawals,
        saw: Callable[[Node | None], None],
    ) -> None:
        self.claim: int | None = None
        self.sight: Observation | None = None
        self.ownership: Ownership | None = None
        self.writer: int = 0
        self.written_as: deque[int] = deque(maxlen=SESSIONS_KEPT)
        self.marked: bool = target.marker is not None

        self._session = session
        self._target = target
        self._revisions = revisions
        self._withdrawals = withdrawals
        self._tell = saw
        self._parents, self._parent = withdrawals.parents, target.path.rpartition("/")[0]
        self._marker_root = withdrawals.marker_root(session)
        self._history = session.history
        self._generation = session.generation
        self._stale = False
        """Something happened to the node since it was last read."""
        self._reading: asyncio.Future[Any] | None = None
        self._withdrawal: asyncio.Future[Any] | None = None
        """The answer of one that was sent before the worker's task came to it."""
        self._last_request = _Request(Sync(target.path), 0)
        self._unanswered: tuple[Action, _Request] | None = None
        """The last write, where its answer was lost and no look has shown yet what became of it."""

    # ------------------------------------------------------------------ what happens meanwhile

    def on_new_connection(self) -> bool:
        """Return whether there is another connection than before, so that it is to be looked again."""
        session = self._session
        if session.history != self._history:
            # zxids of different histories cannot be compared, and the nodes seen there are not the ones here.
            self._history, self.claim, self.ownership = session.history, None, None
        if session.generation == self._generation:
            return False
        self._generation = session.generation
        return True

    def overtaken(self) -> None:
        """Neither the last sight nor the read under way is planned from any more."""
        self.sight, self._stale = None, True

    @property
    def is_reading(self) -> bool:
        """Whether a read of the node is on its way."""
        return self._reading is not None and not self._reading.done()

    @property
    def withdrawing(self) -> bool:
        """Whether a withdrawal is on its way whose answer has not been waited for yet."""
        return self._withdrawal is not None

    def writes(self) -> None:
        """A node of ours may be there from now on."""
        self.writer = self._session.id
        if self.writer not in self.written_as:
            self.written_as.append(self.writer)

    def foregone(self, *, leaving: bool) -> Observation | None:
        """Return what needs no look: a node that was never there, or of a session that ended, so that it goes soon.

        To create it at once saves a round trip; where it is still there, or somebody else's, NodeExists says so. The
        first registration of a service looks, which tells whether its parents and the root of the markers are there.
        """
        ownership = self.ownership
        if not leaving and self.claim is None and self.writer == 0 and self._parents.known(self._parent):
            return Observation(None, 0)
        if leaving or ownership is None or ownership.owner not in self._session.earlier_ids:
            return None
        self.ownership = None
        return Observation(None, 0)

    # ------------------------------------------------------------------ one round trip

    async def exchange(self, action: Action | None, message: Message[Any]) -> Refusal | None:
        """Send *message*, and a read of the node in the same tick; return what *message* failed with.

        Where the quorum answered the one, the other is as new as that, and is taken note of. Raises what the reading
        failed with.
        """
        session = self._session
        self.sight, self._stale = None, False
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
        # Replies come in order, and a lost connection takes them all: the first request is answered by now.
        if self.claim is None and action is Action.CREATE:
            self.claim = claim_of(answer, known)
        self._note_unanswered(action, answer)
        error = error_of(answer)
        node, zxid = node_read(reading)
        trusted = error is None or remedy(action, error) in TRUSTING
        if node is not None:
            self._parents.seen(session, self._parent)
        if trusted and self.claim is None:
            # Also by a sight that an event has overtaken since: who came in between is newer, and no ghost.
            self.claim = zxid
        if trusted and not self._stale:
            self._saw(Observation(node, zxid))
        return error

    def begin_withdrawal(self, sight: Observation) -> None:
        """Withdraw the node as last seen, perhaps together with others; :meth:`withdraw` must follow."""
        self._withdrawal = self._send_withdrawal(sight)

    async def withdraw(self, sight: Observation | None) -> Refusal | None:
        """Withdraw the node as last seen, unless that was begun; return the error that it failed with.

        Its success says all that a look behind it would: that the node, ours by the version, is gone.
        """
        answer, self._withdrawal = self._withdrawal, None
        if answer is None:
            assert sight is not None, "a node is withdrawn by a sight of it"
            answer = self._send_withdrawal(sight)
        self.sight, self._reading, self._stale = None, None, False
        try:
            await asyncio.wait([answer])
        except asyncio.CancelledError:
            answer.cancel()  # a request that was not sent yet is dropped
            raise
        self._note_unanswered(Action.WITHDRAW, answer)
        error = error_of(answer)
        if error is None:
            self._saw(Observation(None, answer.result().zxid))
        elif remedy(Action.WITHDRAW, error) in (Remedy.MAKE_PARENTS, Remedy.OMIT_MARKER) and not self._stale:
            self.sight = sight  # it is the marker that was refused, and nothing of the transaction was applied
        return error

    def _send_withdrawal(self, sight: Observation) -> asyncio.Future[Reply[Any]]:
        node = node_there(sight)
        message = withdrawal(self._target, node.version, node.czxid, marked=self.marked)
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
            # A node of another session is gone, whatever became of the request.
            if request.session == session.id and executed(action, self._revisions.sent.data, node, session.id):
                session.executed(request.message)
        self.sight = sight
        if node is not None and node.owner == session.id:
            self.writer = node.owner
            self.ownership = Ownership(node.owner, session.generation)
            self._tell(node)
        else:
            self.writer = node.owner if node is not None and self._was_ours(node.owner) else 0
            self.ownership = None
            self._tell(None)

    def _was_ours(self, owner: int) -> bool:
        # A history that is rolled back brings back nodes of sessions that the session forgot with the newer one.
        return owner in self._session.earlier_ids or owner in self.written_as
