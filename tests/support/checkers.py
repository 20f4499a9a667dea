"""One checker for each guarantee, for every kind of test: unit, property, simulation, real ZooKeeper.

A checker is given facts that any world can observe, and raises :class:`Violated` with the guarantee's name.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Violated(AssertionError):
    """A guarantee does not hold."""

    def __init__(self, guarantee: str, what: str) -> None:
        super().__init__(f"{guarantee}: {what}")
        self.guarantee = guarantee


# ---------------------------------------------------------------- Published


@dataclass(frozen=True)
class Loss:
    """The node of a claimant that lived and wanted it, removed by another claimant."""

    loser: Hashable
    remover: Hashable
    czxid: int
    """Of the node that was lost."""
    remover_claim: int
    """The zxid of the remover's claim: what was created later is not its to take."""


A_FEW_ROUND_TRIPS = 4


def check_published(
    *, listed: bytes | None, wanted: Collection[bytes], losses: Iterable[Loss] = (), round_trips: int = 0
) -> None:
    """While a process lives and the ensemble serves, its instance is listed, within a few round trips of a disruption.

    Args:
        listed: what the node holds now that everything is quiet, None where there is none.
        wanted: what the claimants that live, and were not displaced, want it to hold; empty if there is none.
        losses: as far as the world can tell.
        round_trips: from the first accepted connection until it was listed, as far as the world can tell.
    """
    if round_trips > A_FEW_ROUND_TRIPS:
        raise Violated("Published", f"listed after {round_trips} round trips")
    for loss in losses:
        if loss.czxid > loss.remover_claim:
            raise Violated("Published", f"{loss.remover} removed a node that was created after its claim: {loss}")
    if wanted and listed not in wanted:
        raise Violated("Published", f"listed is {listed!r}, wanted is one of {sorted(wanted)!r}")


# ---------------------------------------------------------------- Owned


def check_owned(*, live: bool, session_id: int, owner: int | None) -> None:
    """The node behind a live registration belongs to that registration's current session, never to a ghost's.

    Args:
        live: whether the registration says that it is, now that everything is quiet.
        session_id: of its present session.
        owner: of the node, None where there is none.
    """
    if live and (session_id == 0 or owner != session_id):
        shown = "no node" if owner is None else f"a node of session {owner:#x}"
        raise Violated("Owned", f"live in session {session_id:#x}, and there is {shown}")


# ---------------------------------------------------------------- Single


def check_single(owners: Sequence[Hashable | None], claims: Mapping[Hashable, int], told: Collection[Hashable]) -> None:
    """Two claimants of one id never fight: one change of owner per claim at most, and the one that lost is told.

    Args:
        owners: who had the node, in order; None where there was none, after which whoever comes displaces nobody.
        claims: how often each claimant claimed the id; once when it started, once more each time it had stood by until
            the id was free.
        told: who knows that it was displaced, or has ended otherwise; a ghost is nobody to tell, and is told.
    """
    taken: dict[Hashable, int] = {}
    lost: list[Hashable] = []
    for before, after in itertools.pairwise(owners):
        if before is None or after is None or before == after:
            continue
        lost.append(before)
        taken[after] = taken.get(after, 0) + 1
        if taken[after] > claims[after]:
            raise Violated("Single", f"{after} took the id {taken[after]} times with {claims[after]} claims: {owners}")
    present = next((owner for owner in reversed(owners) if owner is not None), None)
    for loser in lost:
        if loser != present and loser not in told:
            raise Violated("Single", f"{loser} lost the id and was not told: {owners}")


# ---------------------------------------------------------------- Withdrawn


def check_withdrawn(
    *,
    withdrawn: bool | None,
    sessions: Collection[int],
    owner: int | None,
    took: float = 0.0,
    bound: float = float("inf"),
) -> None:
    """Closing withdraws before it returns, or says ``withdrawn=False`` in time; who was killed is gone in time.

    Args:
        withdrawn: what a closed registration says; True of one whose process was killed.
        sessions: that it had.
        owner: of the node after closing returned, None where there is none.
        took: seconds until closing returned, or until the node of the killed was gone.
        bound: the seconds that were promised.
    """
    if took > bound:
        raise Violated("Withdrawn", f"it took {took:.3g} s, promised were {bound:.3g} s")
    if withdrawn is None:
        raise Violated("Withdrawn", "closed, and does not say whether it is withdrawn")
    if withdrawn and owner in sessions:
        raise Violated("Withdrawn", f"says withdrawn, and there is a node of its session {owner:#x}")


# ---------------------------------------------------------------- Converged


def check_converged(*, seen: Mapping[str, Hashable], held: Mapping[str, Hashable]) -> None:
    """The confirmed part of a view equals the server's state one resync after that falls quiet, whatever happened.

    Args:
        seen: what the view says of each node, suspects left out, by id: its identity (czxid, mzxid), its data, or both.
        held: the same of the server.
    """
    missing, extra = sorted(held.keys() - seen.keys()), sorted(seen.keys() - held.keys())
    other = sorted(id for id in seen.keys() & held.keys() if seen[id] != held[id])
    if missing or extra or other:
        raise Violated("Converged", f"not seen: {missing}; seen and gone: {extra}; seen otherwise than it is: {other}")


# ---------------------------------------------------------------- Guarded


def check_guarded(
    *,
    suspects: Mapping[str, float],
    holds: Mapping[str, float],
    listed: Collection[str],
    withdrawn: Collection[str] = (),
    fewest: int = 0,
) -> None:
    """Instances that go together unexplained stay as suspects until they come back, fail, or their hold is over.

    Nothing that is listed is suspect, nor what was withdrawn before the view's eyes.

    Args:
        suspects: for how many seconds they have been, while the view was fresh; by id.
        holds: the seconds that each may be.
        listed: by the server, as the view knows it.
        withdrawn: whose markers the view saw.
        fewest: how many must be suspect, as far as the world can tell.
    """
    if both := sorted(suspects.keys() & set(listed)):
        raise Violated("Guarded", f"suspect and listed: {both}")
    if held := sorted(suspects.keys() & set(withdrawn)):
        raise Violated("Guarded", f"held though they withdrew: {held}")
    if late := {id: seconds for id, seconds in suspects.items() if seconds > holds[id]}:
        raise Violated("Guarded", f"suspect for longer than their hold: {late}")
    if len(suspects) < fewest:
        raise Violated("Guarded", f"{len(suspects)} are held of {fewest} that went together")


# ---------------------------------------------------------------- Ordered


class Seen(Protocol):
    """A consumer's sight of a node."""

    @property
    def czxid(self) -> int: ...
    @property
    def mzxid(self) -> int: ...


class OrderedConsumer:
    """Applies changes one by one, as they come, to the snapshot they started from, and checks each.

    Changes come in order, none twice, none undone, and applied to one snapshot they give the next.

    Args:
        entries: the entries by id of the snapshot that the changes start from.
    """

    def __init__(self, entries: Mapping[str, Seen]) -> None:
        self.entries = dict(entries)
        self._zxid = 0
        # A suspect may be of a history that was lost, or known from a file only.
        confirmed = {id: entry for id, entry in entries.items() if getattr(entry, "suspicion", None) is None}
        self._newest = {id: entry.mzxid for id, entry in confirmed.items()}

    def rolled_back(self) -> None:
        """The ensemble lost its history: zxids before and after cannot be compared."""
        self._zxid = 0
        self._newest.clear()

    def apply(self, change: Any) -> None:
        """Take one change: Added, Updated, Removed, or Resynced with many."""
        if change.zxid < self._zxid:
            raise Violated("Ordered", f"{change!r} came after one of zxid {self._zxid:#x}")
        self._zxid = change.zxid
        if type(change).__name__ == "Resynced":
            ids = [each.id for each in change.changes]
            if len(set(ids)) != len(ids):
                raise Violated("Ordered", f"an id is told twice at once: {change!r}")
            for each in change.changes:
                self._apply_one(each)
            self.check(change.snapshot.entries)
        else:
            self._apply_one(change)

    def check(self, entries: Mapping[str, Seen]) -> None:
        """The changes so far must have given these entries."""
        if self.entries != entries:
            differing = sorted(
                id for id in self.entries.keys() | entries.keys() if self.entries.get(id) != entries.get(id)
            )
            raise Violated("Ordered", f"applied one by one, the changes do not give the snapshot: {differing}")

    def _apply_one(self, change: Any) -> None:
        id, known = change.id, self.entries.get(change.id)
        kind = type(change).__name__
        if (known is None) != (kind == "Added"):
            raise Violated("Ordered", f"{change!r} does not follow what was told before of {id}: {known!r}")
        if kind == "Removed":
            del self.entries[id]
            if getattr(change, "invalid", None) is not None and not change.invalid.czxid:
                # It may not be read, of which there is no event; when it may be read again it is what it was.
                self._newest[id] = min(self._newest.get(id, 0), change.entry.mzxid - 1)
            return
        if kind == "Updated" and change.previous_entry != known:
            raise Violated("Ordered", f"{change!r} claims to follow {change.previous_entry!r}, told was {known!r}")
        newest = self._newest.get(id, 0)
        # Doubt is no state of the node: an instance that becomes suspect is the one that was told before.
        doubted = getattr(change.entry, "suspicion", None) is not None
        # Nor is what operators say, which begins and ends beside it.
        same = change.entry.mzxid == newest and not (doubted or _overridden_otherwise(change.entry, known))
        if change.entry.mzxid < newest or same:
            raise Violated("Ordered", f"{change!r} repeats or undoes what was told: {newest:#x}")
        if not doubted:  # it may be of a history that was lost
            self._newest[id] = change.entry.mzxid
        self.entries[id] = change.entry


def _overridden_otherwise(entry: Any, known: Any) -> bool:
    """Whether an operator has given another weight to what was shown as *known*, or begun or ended its maintenance."""
    if known is None or not hasattr(entry, "instance"):
        return False
    if entry.weight != known.weight:
        return True
    statuses = (entry.instance.status, known.instance.status)  # which equal instances may differ in
    return "maintenance" in statuses and len(set(statuses)) == 2


# ---------------------------------------------------------------- Bounded


def check_bounded(*, given: int, bound: int, delayed: Collection[Hashable] = ()) -> None:
    """Work and memory per consumer are bounded; a slow consumer gets the latest or a resync, and delays nobody else.

    Args:
        given: how many items a slow consumer got when it came back, for all that had happened meanwhile.
        bound: how many are kept for one.
        delayed: what others should have got while it was slow and did not.
    """
    if given > bound:
        raise Violated("Bounded", f"{given} items were kept for one consumer, promised are {bound}")
    if delayed:
        raise Violated("Bounded", f"held up by a slow consumer: {delayed!r}")


# ---------------------------------------------------------------- Honest


def check_honest(*, claimed: bool, contact_age: float, timeout: float) -> None:
    """No handle claims live or fresh without evidence from the quorum younger than the session timeout.

    Args:
        claimed: whether it does.
        contact_age: seconds since the sending of the last request that the quorum answered, as the world knows it; by
            a clock that counts sleep.
        timeout: of the session, seconds.
    """
    if claimed and contact_age >= timeout:
        raise Violated("Honest", f"claimed {contact_age:g} s after the quorum answered; the timeout is {timeout:g} s")


# ---------------------------------------------------------------- Legal

# Written down once more on purpose: the library's own table is what is judged.
_MOVES = {
    "disconnected": {"connected", "closed", "failed"},
    "connected": {"suspended", "closed", "failed"},
    "suspended": {"reconnected", "expired", "closed", "failed"},
    "reconnected": {"suspended", "closed", "failed"},
    "expired": {"connected", "closed", "failed"},
    "closed": set(),
    "failed": set(),
}


def check_legal(states: Iterable[str], *, before: str = "disconnected") -> None:
    """The session makes only the moves in the table.

    Args:
        states: as they were told, in order.
        before: the state that they started from.
    """
    for state in states:
        if state not in _MOVES[before]:
            raise Violated("Legal", f"from {before} to {state}")
        before = state


# ---------------------------------------------------------------- Contained


def check_contained(
    *, told: Sequence[str], names: Collection[str] = (), secrets: Collection[str] = (), lost: Collection[Hashable] = ()
) -> None:
    """A bad node, address, reply or credential costs one clear error or event, and nothing else.

    Args:
        told: the errors and events there were, as their readers see them.
        names: what a clear one names: field or server, and the value.
        secrets: what none may show.
        lost: what the process had before and has not any more.
    """
    if len(told) != 1:
        raise Violated("Contained", f"told {len(told)} times: {told!r}")
    if missing := [name for name in names if name not in told[0]]:
        raise Violated("Contained", f"{missing} not named by {told[0]!r}")
    if shown := [secret for secret in secrets if any(secret in text for text in told)]:
        raise Violated("Contained", f"{len(shown)} secrets are shown")
    if lost:
        raise Violated("Contained", f"lost by it: {lost!r}")


# ---------------------------------------------------------------- Truthful


def check_truthful(
    *,
    enabled: Sequence[tuple[float, bool]],
    successes: Sequence[float],
    until: float,
    interval: float,
    timeout: float,
    fall: int,
    publishing: float = 0.0,
) -> None:
    """An instance that is published as enabled passed its check within ``interval`` × ``fall`` + ``timeout``.

    Args:
        enabled: what was published, and from when on, in order.
        successes: when each run that passed was begun, in order.
        until: the end of what was seen.
        interval: of the check, in seconds.
        timeout: of the check, in seconds.
        fall: of the check.
        publishing: seconds that it may take beside, from the result to the document.
    """
    bound = interval * fall + timeout + publishing
    ends = [*(at for at, _ in enabled[1:]), until]
    for (begin, published), end in zip(enabled, ends, strict=True):
        if not published:
            continue
        last = begin - bound  # an interval begins with a success, or with the one that is to be found
        passed = [at for at in successes if last <= at <= end]
        if not passed or passed[0] > begin:
            raise Violated("Truthful", f"enabled at {begin:.3f}, and no success within {bound:.3g} s before")
        for before, after in itertools.pairwise([*passed, end]):
            if after - before > bound:
                raise Violated("Truthful", f"enabled until {after:.3f}, and the last success was at {before:.3f}")


# ---------------------------------------------------------------- Obeyed


def check_obeyed(*, seen: Collection[str], picked: Collection[str]) -> None:
    """An instance in maintenance is picked by no view that has seen the override.

    Args:
        seen: the ids of the overrides that the view knew to be in force.
        picked: the ids of the instances that were picked while it did.
    """
    if disobeyed := sorted(set(seen) & set(picked)):
        raise Violated("Obeyed", f"picked in maintenance: {', '.join(disobeyed)}")


# ---------------------------------------------------------------- Beating


def check_beating(*, sessions: Sequence[int], silence: float, timeout: float) -> None:
    """A caller that blocks its own event loop or thread costs no session.

    The ensemble serves meanwhile, and nothing else disturbs the process: these would be other reasons.

    Args:
        sessions: the ids that the registry had, from before its caller was blocked until after that, in order.
        silence: seconds for which the quorum has answered nothing that the registry sent, at most.
        timeout: of the session, in seconds.
    """
    if len(set(sessions)) > 1:
        told = ", ".join(f"{session:#x}" for session in sessions)
        raise Violated("Beating", f"a blocked caller cost its registry a session: {told}")
    if silence >= timeout:
        raise Violated(
            "Beating", f"silent for {silence:.3g} s while the caller was blocked; the timeout is {timeout:g} s"
        )
