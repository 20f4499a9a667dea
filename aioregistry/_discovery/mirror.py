"""The mirror of one service: the server's tree, pieced together from answers and events. Pure.

It takes answers and events, and says what to ask next and what changed. Its owner carries
the questions to the server; it knows neither connection nor clock.

**An event only says where to look.** A takeover deletes and creates a node in one transaction; its watchers get two
events, its readers never see a gap. So an event makes its node *due*, due nodes are read, and the reading is the news:
absent is Removed, there is Added or Updated.

**Order.** Every answer comes with the zxid that the server had applied. On one connection these never decrease, and
the session never goes on with a server behind what it saw. So the mirror has a horizon, the zxid of the newest answer
taken in; an answer older than it is not taken in, and asked for again. Where only older ones come, the horizon is what
is false: a server without quorum, or a proxy, told of more than there is. Then everything is read again without it. An
event that comes while its node is being read
may be newer than that reading: the node is read once more. A question is answered once at most, and not once the
connection is gone.

**Identity** of a node's state is (czxid, mzxid) within one history; versions restart at 0 with every new node. After a
roll-back the same pairs come again with other data: then everything is compared by content.

**Resync.** Persistent watches replay nothing. On every connection everything is listed and read again; what differs is
staged and becomes visible at once when all has been read, as one set of true differences. Until then the last known
state stands. A change that comes from elsewhere (an event, a list) is visible at once.

**Watches.** With a recursive watch, set by the owner before the first question, lists and reads need no watch of their
own. Without, they leave one-shot watches: a child watch where the service's node is, an exists watch where it is not,
a data watch on each node. A node's events then arm nothing: the reading that they cause does.
"""

# Longer than 450 lines: the sets of due, asked and repeated questions change together; its docstring is a tenth of it.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

from aioregistry._errors import NoNode, PoisonRequest, ServerError
from aioregistry._model import Added, Difference, Entry, Invalid, Removed, Updated
from aioregistry._protocol import EventKind, Stat

from .nodes import Node, decoded, is_of

__all__ = ["SERVICE", "FindService", "ListNames", "Mirror", "News", "Question", "ReadNodes"]

SERVICE: Final = ""
"""In the place of a node's name: the service's own node."""


class ListNames(NamedTuple):
    """Which nodes does the service have? To be answered by :meth:`Mirror.listed` or :meth:`Mirror.missing`."""

    watch: bool


class FindService(NamedTuple):
    """Is the service's node there? With an exists watch; by :meth:`Mirror.found` or :meth:`Mirror.missing`."""


class ReadNodes(NamedTuple):
    """What is in these nodes? By :meth:`Mirror.observed`."""

    names: tuple[str, ...]
    watch: bool


Question: TypeAlias = ListNames | FindService | ReadNodes
ReadResult: TypeAlias = tuple[bytes, Stat] | ServerError | PoisonRequest


class News(NamedTuple):
    """The changes since the news before.

    ``resynced``: the mirror was behind and is not any more, ``changes`` are the differences; ``invalid`` are the nodes
    that are not instances and were not known as such.
    """

    changes: tuple[Difference[Any], ...]
    invalid: tuple[Invalid, ...]
    resynced: bool
    missed: tuple[str, ...] = ()
    """Nodes whose events did not come: what changed was found by a look that no event had asked for."""


_MEMBERSHIP = frozenset({EventKind.CREATED, EventKind.DELETED, EventKind.CHILDREN_CHANGED})
_NODE = frozenset({EventKind.CREATED, EventKind.DELETED, EventKind.DATA_CHANGED})
_COUNTED = frozenset({EventKind.CREATED, EventKind.DELETED})
_COUNTER: Final = 0xFFFF_FFFF
"""The lower half of a zxid counts the transactions of an epoch, from one on."""

_OLDER_ANSWERS: Final = 32
"""So many older answers in a row show that the horizon is false: on one connection servers do not go back. Each
question is sent again at once, so that they take a moment only."""

_INT = 2**32


class Mirror:
    """The nodes of the service *name*, as far as they are known.

    Attributes:
        entries: the instances by id; changed in place, and only together with the news.
        invalid: the nodes that are not instances.
        as_of: the zxid of the latest observation that they include.
        synced: all was read on the present connection.
        one_shot: each node has a watch of its own, left by reading it alone.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: dict[str, Entry[Any]] = {}
        self.invalid: dict[str, Invalid] = {}
        self.as_of: int = 0
        self.synced: bool = False
        self.one_shot: bool = False
        self._connected = False
        self._history: int | None = None
        self._horizon = 0
        self._older = 0  # answers in a row
        # A resync under way.
        self._staged: dict[str, Node | None] = {}
        self._listed: int | None = None  # the mark that is settled when all that was listed has been read
        self._rolled_back = False
        self._missing = False  # the list said so: an exists watch comes next
        # Due, asked, and asked but to be asked again; each with its epoch, for marks. The longest due is asked
        # first; taking that from a plain dict passes all that was taken before.
        self._due: OrderedDict[str, int] = OrderedDict()
        self._asked: dict[str, int] = {}
        self._again: dict[str, int] = {}
        self._epoch = 0
        # Looks that no event asked for.
        self._unprompted: set[str] = set()
        self._rotation: list[str] = []
        self._looked_at_everything = False
        # The service's node counts the creations and deletions below it (cversion); the events are counted here
        # likewise.
        self._tally: tuple[int, int] | None = None  # with the czxid of the service's node
        self._tally_counts = True
        self._doubted: int | None = None  # a mark
        # News.
        self._ever_synced = False
        self._changes: list[Difference[Any]] = []
        self._newly_invalid: list[Invalid] = []
        self._missed: list[str] = []
        self._changed = False
        self._resynced = False

    # ------------------------------------------------------------------ connections

    def connected(self, *, one_shot: bool, history: int) -> None:
        """Requests can be sent, and where not *one_shot* the recursive watch is set: everything is due.

        *history* counts roll-backs: with another one than before all zxids are void.
        """
        self.disconnected()
        if self._history is not None and history != self._history:
            self._rolled_back = True
            self._horizon = 0
        self._history = history
        self._connected = True
        self.one_shot = one_shot
        self._require(SERVICE, self._epoch)

    def disconnected(self) -> None:
        """No pending question will be answered, and no event will come; the visible entries stay."""
        self.synced = self._connected = self._missing = False
        self._listed = self._tally = self._doubted = None
        self._tally_counts = True
        for pending in (self._staged, self._due, self._asked, self._again, self._unprompted):
            pending.clear()

    @property
    def misled(self) -> bool:
        """Only older answers come: everything is to be read again, after :meth:`forget_order`."""
        return self._older >= _OLDER_ANSWERS

    def forget_order(self) -> None:
        """Forget how new the answers so far were."""
        self._horizon = self._older = 0

    # ------------------------------------------------------------------ questions

    def ask(self, limit: int) -> Question | None:
        """Return the next question, about at most *limit* nodes, or None; each must be answered in the end."""
        due, asked = self._due, self._asked
        if SERVICE in due:
            asked[SERVICE] = due.pop(SERVICE)
            return FindService() if self._missing else ListNames(self.one_shot)
        if not due:
            return None
        taken = [due.popitem(last=False) for _ in range(min(limit, len(due)))]
        asked.update(taken)
        return ReadNodes(tuple([name for name, _ in taken]), self.one_shot)

    def audit(self, limit: int) -> None:
        """List, read again what could not be read, and the next *limit* of the other nodes: events may not have come.

        Servers hide the events of nodes that this client may not read. So a node that was unreadable for a while may
        have been changed or deleted meanwhile. Where the list or a node is otherwise than known, all are read.
        """
        self._looked_at_everything = False
        if not self._rotation:
            self._rotation = sorted([*self.entries, *self.invalid], reverse=True)
        taken = [self._rotation.pop() for _ in range(min(limit, len(self._rotation)))]
        self._look(name for name in [*self.unreadable(), *taken] if self._known(name) is not None)

    def look_at_everything(self) -> None:
        """List, and read all nodes again."""
        self._looked_at_everything = True
        self._look([*self.entries, *self.invalid])

    def _look(self, names: Iterable[str]) -> None:
        for key in (SERVICE, *names):
            if key not in self._due and key not in self._asked:
                self._unprompted.add(key)
            self._require(key, self._epoch)

    def unreadable(self) -> list[str]:
        """The nodes that could not be read."""
        return [name for name, invalid in self.invalid.items() if not invalid.czxid]

    def mark(self) -> int:
        """Return a mark for :meth:`settled`: the questions due or asked now, and those that follow from them."""
        self._epoch += 1
        return self._epoch - 1

    def settled(self, mark: int) -> bool:
        """Return whether all that was due or asked at *mark* has been answered."""
        pending = chain(self._due.values(), self._asked.values(), self._again.values())
        return all(epoch > mark for epoch in pending)

    def _require(self, key: str, epoch: int) -> None:
        target = self._again if key in self._asked else self._due
        if target.setdefault(key, epoch) > epoch:
            target[key] = epoch

    def _answered(self, key: str) -> int | None:
        """Return the epoch of the question about *key*; None where it was not asked on this connection."""
        epoch = self._asked.pop(key, None)
        if epoch is not None and key in self._again:
            self._due[key] = self._again.pop(key)
        return epoch

    # ------------------------------------------------------------------ what came

    def event(self, kind: EventKind, name: str) -> None:
        """A watch fired for the node *name*, or for :data:`SERVICE`."""
        if self._connected and kind in (_NODE if name else _MEMBERSHIP):
            self._unprompted.discard(name)
            self._require(name, self._epoch)
            if name and self._tally is not None and kind in _COUNTED:
                self._tally = self._tally[0], self._tally[1] + 1

    def listed(self, names: Sequence[str], zxid: int, stat: Stat | None = None) -> None:
        """These are the service's nodes; *stat* is that of the service's own."""
        unprompted = self._is_unprompted(SERVICE)
        epoch = self._taken_in(SERVICE, zxid)
        if epoch is None:
            return
        self._missing = False
        resyncing = not self.synced and self._listed is None
        if unprompted:
            self._compare(names)
        if stat is not None and not self.one_shot:
            self._compare_tally(stat)
        self._forget_all_but(set(names), self._horizon)
        if resyncing and not self._due and not self._asked:
            self._due = OrderedDict.fromkeys(names, epoch)
        else:
            for name in names if resyncing else [name for name in names if self._known(name) is None]:
                self._require(name, epoch)
        self._everything_is_listed()

    def missing(self, zxid: int) -> None:
        """The service's node is not there."""
        unprompted = self._is_unprompted(SERVICE)
        epoch = self._taken_in(SERVICE, zxid)
        if epoch is None:
            return
        if unprompted:
            self._compare(())
        self._forget_all_but(set(), self._horizon)
        # A child watch needs a node; without one, the exists watch must be in place before this is all.
        self._missing = self.one_shot and not self._missing
        if self._missing:
            self._require(SERVICE, epoch)
        else:
            self._everything_is_listed()

    def found(self, zxid: int) -> None:
        """The service's node is there."""
        epoch = self._taken_in(SERVICE, zxid)
        if epoch is not None:
            self._missing = False
            self._require(SERVICE, epoch)

    def observed(self, question: ReadNodes, observations: Sequence[ReadResult], zxid: int | None) -> None:
        """Data and Stat of each node of *question*, or why it cannot be read; *zxid* is None if no server answered."""
        if zxid is not None and not self._reaches(zxid):
            self.refused(question)
            return
        zxid = self._horizon
        # As _answered(), without a call for each of what may be 100,000 nodes.
        asked, again, observe, unprompted = self._asked, self._again, self._observe, self._unprompted
        for name, observation in zip(question.names, observations, strict=True):
            if asked.pop(name, None) is not None:
                if name in again:
                    self._due[name] = again.pop(name)
                observe(name, observation, zxid)
                if unprompted:
                    unprompted.discard(name)
        self._advance()

    def refused(self, question: Question) -> None:
        """There was no answer: ask again."""
        for key in question.names if isinstance(question, ReadNodes) else (SERVICE,):
            epoch = self._answered(key)
            if epoch is not None:
                self._require(key, epoch)

    def take_news(self) -> News | None:
        """Return what became visible since the last call, if anything."""
        if not self._changed and not self._resynced:
            return None
        news = News(tuple(self._changes), tuple(self._newly_invalid), self._resynced, tuple(self._missed))
        self._changes, self._newly_invalid, self._missed = [], [], []
        self._changed = self._resynced = False
        return news

    # ------------------------------------------------------------------ what it means

    def _taken_in(self, key: str, zxid: int) -> int | None:
        epoch = self._answered(key)
        if epoch is None:
            return None
        if not self._reaches(zxid):
            self._require(key, epoch)
            return None
        return epoch

    def _reaches(self, zxid: int) -> bool:
        """Return whether an answer at *zxid* is as new as all that is known, and take note of how new that is now.

        A leader that has begun an epoch says so; its followers tell the last transaction of the one before, and know no
        less. So the beginning of an epoch makes no answer an older one.
        """
        if zxid < self._horizon and self._horizon & _COUNTER:
            self._older += 1
            return False
        self._older = 0
        if zxid & _COUNTER or not self._horizon:
            self._horizon = max(self._horizon, zxid)
        return True

    def _known(self, name: str) -> Node | None:
        if name in self._staged:
            return self._staged[name]
        return self.entries.get(name) or self.invalid.get(name)

    def _is_unprompted(self, key: str) -> bool:
        """Whether no event has asked for the answer about *key* that is there now."""
        return key in self._unprompted and key not in self._again and key not in self._due

    def _compare(self, names: Sequence[str]) -> None:
        """Note which nodes came or went without an event."""
        self._unprompted.discard(SERVICE)
        if not self.synced:
            return
        differing = {*self.entries, *self.invalid} ^ set(names)
        pending = (self._due, self._asked, self._again)
        for name in [name for name in sorted(differing) if not any(name in keys for keys in pending)]:
            self._found_by_a_look(name, None)

    def _compare_tally(self, stat: Stat) -> None:
        """Look at everything where more came or went than events told of: a node may have been replaced unseen."""
        tally, self._tally = self._tally, (stat.czxid, stat.cversion)
        if self._doubted is not None and self.settled(self._doubted):
            # All was read since, and nothing had changed unseen: this server counts otherwise.
            self._tally_counts, self._doubted = False, None
        if not self._tally_counts or tally is None or tally[0] != stat.czxid or (stat.cversion - tally[1]) % _INT == 0:
            return
        self.look_at_everything()
        self._doubted = self.mark()

    def _found_by_a_look(self, name: str, node: Node | None) -> None:
        self._doubted = None
        if node is None or node.czxid:
            known = self._known(name)
            if known is None or known.czxid:  # no event is due for a node that cannot be read
                self._missed.append(name)
        if not self._looked_at_everything:
            self.look_at_everything()

    def _forget_all_but(self, present: set[str], zxid: int) -> None:
        for known in (self.entries, self.invalid, self._staged):
            for name in [name for name in known if name not in present]:
                if self._known(name) is not None:
                    self._visible(name, None, zxid)

    def _observe(self, name: str, observation: ReadResult, zxid: int) -> None:
        known = self._known(name) if self._ever_synced or name in self._staged else None
        node: Node | None
        if type(observation) is tuple:
            data, stat = observation
            if known is not None and not self._rolled_back and is_of(known, stat):
                return
            node = decoded(self.name, name, data, stat)
        elif isinstance(observation, NoNode):
            node = None
        else:
            node = Invalid(name, f"cannot be read: {observation}")
        if node is not known and (known is None or node != known):
            if self.synced and name in self._unprompted and name not in self._due:
                self._found_by_a_look(name, node)
            self._visible(name, node, zxid)

    def _visible(self, name: str, node: Node | None, zxid: int) -> None:
        if self.synced:
            self._apply(name, node, zxid)
        else:
            self._staged[name] = node

    def _apply(self, name: str, node: Node | None, zxid: int) -> None:
        self._changed = True
        self.as_of = zxid  # an absence may never be followed by another observation
        before = self.entries.get(name)
        if isinstance(node, Entry):
            self.entries[name] = node
            self.invalid.pop(name, None)
            self._changes.append(Added(node, zxid) if before is None else Updated(node, before, zxid))
            return
        if before is not None:
            del self.entries[name]
            self._changes.append(Removed(before, zxid, node))
        if node is None:
            self.invalid.pop(name, None)
        else:
            self.invalid[name] = node
            self._newly_invalid.append(node)

    def _everything_is_listed(self) -> None:
        if not self.synced and self._listed is None:
            self._listed = self.mark()
        self._advance()

    def _advance(self) -> None:
        if not self.synced:
            if self._listed is None or not self.settled(self._listed):
                return
            self._finish_resync()
        self.as_of = self._horizon

    def _finish_resync(self) -> None:
        staged, self._staged = self._staged, {}
        for name, node in staged.items():
            if not self._ever_synced and isinstance(node, Entry):
                self.entries[name] = node  # no earlier state was seen: there is no difference to report
            else:
                self._apply(name, node, self._horizon)
        self.synced = self._ever_synced = self._resynced = True
        self._rolled_back = False
        self._listed = None
