"""Those who watch a world: the checkers of the guarantees, at every step that matters and at the quiet end."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from aioregistry import Removed, Resynced, Status
from aioregistry._document import encode
from aioregistry.server import _acl as access
from aioregistry.server._history import OWN, Transaction
from aioregistry.server._operations import Created, DataChanged, Deleted
from tests.simulation.engine import Engine
from tests.simulation.process import BASE, Followed, Held, Process, Stage
from tests.simulation.servers import Servers
from tests.simulation.timeline import Timeline
from tests.simulation.wellness import Wellbeing
from tests.support.checkers import (
    Loss,
    Violated,
    check_beating,
    check_converged,
    check_guarded,
    check_honest,
    check_legal,
    check_owned,
    check_published,
    check_single,
    check_withdrawn,
)

SLACK: Final = 3.0
"""Seconds for what is under way when a promised time is over, the sampling included."""

TICKS_OF_GRACE: Final = 1.5


class Move(NamedTuple):
    """A transaction that changed a path's node: the version before and behind it, None where there is no node."""

    zxid: int
    before: int | None
    after: int | None

    @property
    def fenced(self) -> bool:
        """A claimant that waits with the version before fails behind it, unless another node comes to that version."""
        return self.before is None or self.before != self.after


@dataclass
class Record:
    """The events of one path within one history."""

    owner: int | None = None
    czxid: int = 0
    owners: list[str | None] = field(default_factory=list)
    claims: dict[str, int] = field(default_factory=dict)
    version: int | None = None
    """Of the node."""
    moves: list[Move] = field(default_factory=list)
    """The events of the node, in order."""
    last_gap: int = 0
    """The zxid of the last transaction that left no instance there."""


class Judges:
    """They see everything, and share nothing with the library but its public face.

    Args:
        engine: for the time.
        timeline: what they note is in it.
        judged: the one guarantee that is judged; all of them unless given.
        undisturbed: whether nothing happens to servers, network and machines, so that no session has a reason to end.
    """

    def __init__(
        self, engine: Engine, timeline: Timeline, judged: str | None = None, *, undisturbed: bool = False
    ) -> None:
        self._judged = judged
        self._undisturbed = undisturbed
        self.engine = engine
        self.timeline = timeline
        self.servers: Servers
        self._wellbeing = Wellbeing(lambda: self.servers, SLACK)
        self.processes: list[Process] = []
        self.violations: list[Violated] = []
        self.limits = 0
        """How often the limit of the fence was seen (docs/guarantees.md)."""
        self.lost_histories = 0
        """How often the servers went back to an older state, or to none."""
        self._records: dict[str, Record] = {}
        self._withdrawn: set[str] = set()
        """The paths of nodes that were ever withdrawn, with a marker."""
        self._of_session: dict[int, Process] = {}
        self._disrupted = 0.0

    # ------------------------------------------------------------ what is told

    def violated(self, violation: Violated) -> None:
        if self._judged not in (None, violation.guarantee):
            return
        self.timeline.note("JUDGES", f"VIOLATED {violation}")
        self.violations.append(violation)

    def session_event(self, process: Process, event: str, fields: dict[str, object]) -> None:
        """A registry's hook was called."""
        if process.stage is Stage.KILLED:
            return
        shown = " ".join(f"{key}={_shown(value)}" for key, value in fields.items())
        if event == "discovery.released" and fields["why"] == "withdrawn":
            path = f"{BASE}/{fields['service']}/{fields['id']}"
            if path not in self._withdrawn:
                self.violated(Violated("Guarded", f"{process.name}: {path} was let go, and never withdrawn"))
        self.timeline.note(process.name, f"{event} {shown}")
        if event != "session.state":
            return
        state = str(fields["state"])
        self._judge(partial(check_legal, [state], before=process.state), process.name)
        process.state = state
        session = fields["session"]
        if not isinstance(session, int) or not session:
            return
        if state == "reconnected" and session != process.sessions[-1]:
            self.violated(Violated("Legal", f"{process.name} reconnected to another session"))
        if session not in process.sessions:
            process.sessions.append(session)
            self._of_session[session] = process

    def told(self, followed: Followed, change: Any) -> None:
        """A consumer took a change."""
        if followed.history_lost:
            return
        for each in change.changes if isinstance(change, Resynced) else (change,):
            if isinstance(each, Removed) or each.entry.suspicion is not None:
                record = self._records.get(f"{BASE}/{followed.service}/{each.id}", Record())
                if record.last_gap < each.entry.czxid:
                    self.violated(Violated("Ordered", f"{each!r}, which was listed all the time"))

    def disrupted(self) -> None:
        """The timers of all sessions started anew."""
        self._disrupted = self.engine.now

    def history_lost(self) -> None:
        """Zxids, owners and claims of before mean nothing any more."""
        self.lost_histories += 1
        self._records.clear()
        for process in self.processes:
            process.first_sights.clear()
            process.last_sights.clear()
            for followed in process.followed:
                followed.history_lost = True
        self._disrupted = self.engine.now

    def committed(self, transaction: Transaction, writer: int, fences: Mapping[str, int]) -> None:
        """A transaction became history."""
        paths: dict[str, list[Created | Deleted | DataChanged]] = {}
        for change in transaction.changes:
            if isinstance(change, Created | Deleted | DataChanged) and change.path.startswith(f"{BASE}/"):
                paths.setdefault(change.path, []).append(change)
        if any(change.path.startswith(f"{BASE}-withdrawn/") for change in transaction.changes if _has_path(change)):
            self._withdrawn |= {path for path, changes in paths.items() if isinstance(changes[-1], Deleted)}
        for path, changes in paths.items():
            self._changed(path, changes, transaction, writer, fences.get(path))

    def _changed(
        self,
        path: str,
        changes: list[Created | Deleted | DataChanged],
        transaction: Transaction,
        writer: int,
        fence: int | None,
    ) -> None:
        what = " ".join(type(change).__name__ for change in changes)
        process = self._of_session.get(writer)
        by = "operator" if writer == OWN else process.name if process else f"{writer:#x}"
        if transaction.ended is not None:
            by = f"end of {transaction.ended:#x}"
        self.timeline.note("servers", f"{path} {what} by {by} at {transaction.zxid:#x}")
        record = self._records.setdefault(path, Record())
        before, czxid = record.owner, record.czxid
        self._apply(record, changes, transaction.zxid)
        if record.owner is None or writer == OWN:
            record.last_gap = transaction.zxid
        claimant = self._claimant(path, writer)
        if claimant is not None:
            self._claimed(record, claimant, path, before, czxid, transaction, writer, fence)
        self._note_owner(record, path)
        present = {owner for owner in record.owners if owner is not None}
        claims: dict[Hashable, int] = {owner: record.claims.get(owner, 1) for owner in present}
        self._judge(partial(check_single, record.owners, claims, present), path)

    def _apply(self, record: Record, changes: list[Created | Deleted | DataChanged], zxid: int) -> None:
        before = record.version
        for change in changes:
            if isinstance(change, Created):
                record.owner, record.czxid, record.version = change.owner or None, zxid, 0
            elif isinstance(change, Deleted):
                record.owner = record.version = None
            else:
                record.version = change.version
        record.moves.append(Move(zxid, before, record.version))

    def _claimed(
        self,
        record: Record,
        claimant: str,
        path: str,
        before: int | None,
        czxid: int,
        transaction: Transaction,
        writer: int,
        fence: int | None,
    ) -> None:
        record.claims.setdefault(claimant, 1)
        if before is None and record.owner is not None and self._stood_by(claimant):
            record.claims[claimant] += 1
        loser = None if before is None else self._claimant(path, before)
        if loser is not None and loser != claimant and self._lives(loser):
            process = self._of_session[writer]
            claim = process.first_sights.get(path, transaction.zxid)
            loss = Loss(loser, claimant, czxid, claim)
            if czxid > claim and beyond_the_fence(process, path, claim, czxid, fence, record.moves):
                self.limits += 1
                self.timeline.note("JUDGES", f"known limit of the fence: {loss}")
                return
            self._judge(partial(check_published, listed=None, wanted=(), losses=[loss]), path)

    def _note_owner(self, record: Record, path: str) -> None:
        owner = None if record.owner is None else self._claimant(path, record.owner) or f"{record.owner:#x}"
        if not record.owners or record.owners[-1] != owner:
            record.owners.append(owner)

    def closed(self, held: Held, took: float, timeout: float) -> None:
        """A process has left; its close timeout is a third of *timeout*."""
        node = self.servers.node(held.claim.path)
        withdrawn = held.registration.withdrawn
        if held.registration.status is not Status.CLOSED:
            return  # it was displaced, or failed, before
        judgement = partial(
            check_withdrawn,
            withdrawn=withdrawn,
            sessions=held.process.sessions,
            owner=None if node is None else node.owner,
            took=took,
            bound=timeout / 3 + SLACK if not held.process.stood_still else float("inf"),
        )
        self._judge(judgement, held.name)

    def says_withdrawn(self, held: Held) -> None:
        """A registration was closed while its process stays: what it says of its node, now and later."""
        if held.registration.withdrawn is not True or any(
            other.claim == held.claim and other.number > held.number for other in held.process.held
        ):
            return  # it promises nothing, or it has a successor, who answers for the node
        node = self.servers.node(held.claim.path)
        owner = None if node is None else node.owner
        self._judge(partial(check_withdrawn, withdrawn=True, sessions=held.process.sessions, owner=owner), held.name)

    def synced(self, followed: Followed, path: str, czxid: int, who: str) -> None:
        """A sync that began after *path* was made has returned."""
        id = path.rpartition("/")[2]
        node = self.servers.node(path)
        seen = followed.view.snapshot.entries.get(id)
        if node is not None and node.created == czxid and (seen is None or seen.czxid != czxid):
            self.violated(Violated("Converged", f"{who}: sync() missed {path} of {czxid:#x}, written before it began"))

    # ------------------------------------------------------------ while it goes on

    def sample(self) -> None:
        """Look at what everybody claims now."""
        if not self.servers.can_write():
            self._disrupted = self.engine.now
        for process in self.processes:
            if process.stage is Stage.UP and not process.machine.stands_still:
                self.ask(process)
            elif process.stage is Stage.KILLED:
                self._is_gone(process)
            else:
                self._wellbeing.interrupted(process)

    def ask(self, process: Process) -> None:
        """What does this process claim, and by what right?"""
        with process.machine.as_running():
            self._ask(process)

    def _ask(self, process: Process) -> None:
        age = process.machine.boot() - process.evidence
        timeout = process.registry.session.timeout
        if self._undisturbed and process.sessions:
            beating = partial(check_beating, sessions=process.sessions, silence=age, timeout=timeout)
            self._judge(beating, process.name)
        claims: dict[str, bool] = {}
        for held in process.held:
            claims[held.name] = live = held.registration.status is Status.LIVE
            self._has_its_node(held, live=live, timeout=timeout)
            self._judge(partial(self._wellbeing.sample, process, held, live=live), held.name)
            held.was_live |= live
            if held.was_live and held.registration.status is Status.FAILED:
                self.violated(Violated("Published", f"{held.name} was live, and has given up"))
            if held.registration.status is Status.CLOSED and not held.closed:
                self.violated(Violated("Published", f"{held.name} is closed, and nobody has closed it"))
            displaced = held.registration.displaced
            if displaced is not None and displaced.owner in process.sessions:
                what = f"{held.name} was displaced by {displaced.owner:#x}, which was its own process' session"
                self.violated(Violated("Published", what))
        for followed in process.followed:
            claims[f"{process.name} of {followed.service}"] = followed.view.fresh
            if followed.warmth is not None:
                self._judge(followed.warmth.judge, f"{process.name} of {followed.service}")
        for who, claimed in claims.items():
            self._judge(partial(check_honest, claimed=claimed, contact_age=age, timeout=timeout), who)

    def _has_its_node(self, held: Held, *, live: bool, timeout: float) -> None:
        """A claim to be live may be wrong for as long as its evidence may be old, and no longer."""
        node = self.servers.node(held.claim.path)
        session = held.process.registry.session.id
        if not live or (node is not None and node.owner == session) or self.servers.ensemble.history is None:
            held.wrong_since = None
        elif held.wrong_since is None:
            held.wrong_since = self.engine.now
        elif self.engine.now - held.wrong_since > timeout + SLACK:
            owner = None if node is None else node.owner
            self._judge(partial(check_owned, live=True, session_id=session, owner=owner), held.name)

    def _is_gone(self, process: Process) -> None:
        """A killed process is gone within its timeout and a tick and a half, if the servers were there all the time."""
        since = max(process.killed_at, self._disrupted)
        bound = process.registry.session.timeout + TICKS_OF_GRACE * self.servers.tick + SLACK
        took = self.engine.now - since
        if took <= bound:
            return
        for held in process.held:
            node = self.servers.node(held.claim.path)
            owner = None if node is None else node.owner
            self._judge(partial(check_withdrawn, withdrawn=True, sessions=process.sessions, owner=owner), held.name)

    # ------------------------------------------------------------ the quiet end

    def quiet(self) -> None:
        """All faults have ended long ago: everything is as it should be."""
        self.sample()
        for path in sorted({held.claim.path for process in self.processes for held in process.held}):
            self._judge_path(path)
        for process in self._living():
            for held in process.held:
                node = self.servers.node(held.claim.path)
                live = held.registration.status is Status.LIVE
                owner = None if node is None else node.owner
                session = process.registry.session.id
                self._judge(partial(check_owned, live=live, session_id=session, owner=owner), held.name)
            self._judge(partial(self._wellbeing.quiet, process), process.name)
            with process.machine.as_running():
                self._judge_views(process)

    def _judge_path(self, path: str) -> None:
        node = self.servers.node(path)
        candidates = [held for process in self._living() for held in process.held if held.claim.path == path]
        wanting = [held for held in candidates if not held.told]
        wanted = [_document(held) for held in wanting]
        listed = None if node is None else node.data
        self._judge(partial(check_published, listed=listed, wanted=wanted), path)
        if wanting and node is not None and not any(held.registration.status is Status.LIVE for held in wanting):
            self.violated(Violated("Published", f"{path} is listed, and nobody says that it is live"))
        record = self._records.get(path, Record())
        told = {held.name for process in self.processes for held in process.held if held.told or not _lives(process)}
        strangers = {owner for owner in record.owners if owner is not None and owner.startswith("0x")}
        claims: dict[Hashable, int] = {
            owner: record.claims.get(owner, 1) for owner in record.owners if owner is not None
        }
        self._judge(partial(check_single, record.owners, claims, told | strangers), path)

    def _judge_views(self, process: Process) -> None:
        for followed in process.followed:
            path = f"{BASE}/{followed.service}"
            held: dict[str, object] = {}
            for name in self.servers.children(path):
                node = self.servers.node(f"{path}/{name}")
                assert node is not None
                readable = access.permits(node.acl, access.READ, ())
                held[name] = (node.created, node.mzxid) if readable else (0, 0)
            snapshot = followed.view.snapshot
            listed = snapshot.confirmed.entries
            seen: dict[str, object] = {id: (entry.czxid, entry.mzxid) for id, entry in listed.items()}
            seen |= {id: (invalid.czxid, invalid.mzxid) for id, invalid in snapshot.invalid.items()}
            who = f"{process.name} of {followed.service}"
            self._judge(partial(check_converged, seen=seen, held=held), who)
            self._judge(partial(self._wellbeing.views, followed), who)
            # It was fresh for longer than any hold by now.
            suspects = dict.fromkeys(snapshot.suspects, float("inf"))
            holds = dict.fromkeys(suspects, 0.0)
            self._judge(partial(check_guarded, suspects=suspects, holds=holds, listed=held), who)
            if not followed.view.fresh:
                self.violated(Violated("Converged", f"{who}: everything is well, and the view is not fresh"))
            # A consumer that was slow has not taken all of it yet.
            if followed.consumer is not None and not process.part.pace:
                self._judge(partial(followed.consumer.check, snapshot.entries), who)

    def over(self, left: Iterable[str]) -> None:
        """Everybody has left: nothing is."""
        for record_path in sorted(self._records):
            node = self.servers.node(record_path)
            process = None if node is None else self._of_session.get(node.owner)
            if node is not None and process is not None:
                judgement = partial(check_withdrawn, withdrawn=True, sessions=process.sessions, owner=node.owner)
                self._judge(judgement, record_path)
        for what in left:
            self.violated(Violated("Bounded", f"left behind: {what}"))

    # ------------------------------------------------------------ who is who

    def _living(self) -> list[Process]:
        return [process for process in self.processes if _lives(process)]

    def _claimant(self, path: str, session: int) -> str | None:
        """The registration that writes *path* in the name of *session*."""
        process = self._of_session.get(session)
        if process is None:
            return None
        # One that was closed may have a successor, which the node is.
        held = [each for each in process.held if each.claim.path == path]
        return next((each.name for each in (*(one for one in held if not one.closed), *held)), None)

    def _lives(self, claimant: str) -> bool:
        return any(held.name == claimant and not held.told for process in self._living() for held in process.held)

    def _stood_by(self, claimant: str) -> bool:
        return any(
            held.name == claimant and held.claim.on_displaced == "standby"
            for process in self.processes
            for held in process.held
        )

    def _judge(self, check: Callable[[], None], who: str) -> None:
        try:
            check()
        except Violated as violation:
            what = str(violation).partition(": ")[2]
            self.violated(Violated(violation.guarantee, f"{who}: {what}"))


def beyond_the_fence(
    process: Process, path: str, claim: int, czxid: int, fence: int | None, moves: Sequence[Move]
) -> bool:
    """Whether a node was taken by the one limit that a fence made of versions has (docs/guarantees.md).

    A claimant had seen another node, which was its to take; it went by the version of that one; since then the node
    had changed at least twice, and by that the version had come back. And all who took part were fenced themselves:
    where each leaves another version than it took, one change is not enough.

    Args:
        process: that took it.
        path: of the node.
        claim: zxid of the claim.
        czxid: of the node that was taken.
        fence: the version that the transaction went by, None where it went by none.
        moves: all that happened to the path, the taking included.
    """
    seen = process.last_sights.get(path)
    if seen is None or seen.czxid == czxid or not (seen.czxid <= claim or seen.owner in process.sessions):
        return False
    *between, taking = [move for move in moves if move.zxid > seen.zxid]
    by_version = fence == seen.version == taking.before
    return by_version and len(between) >= 2 and all(move.fenced for move in (*between, taking))


def _lives(process: Process) -> bool:
    return process.stage is Stage.UP


def _document(held: Held) -> bytes:
    return encode(held.registration.instance)


def _has_path(change: object) -> bool:
    return isinstance(change, Created | Deleted | DataChanged)


def _shown(value: object) -> str:
    if isinstance(value, int) and value > 0xFFFF:
        return f"{value:#x}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
