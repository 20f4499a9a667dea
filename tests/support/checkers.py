"""One checker for each guarantee, for every kind of test: unit, property, simulation, real ZooKeeper.

A checker is given facts that any world can observe, and raises :class:`Violated` with the guarantee's name.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass


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


def check_withdrawn(*, withdrawn: bool | None, sessions: Collection[int], owner: int | None) -> None:
    """Closing withdraws before it returns, or says ``withdrawn=False``.

    Args:
        withdrawn: what a closed registration says.
        sessions: that it had.
        owner: of the node after closing returned, None where there is none.
    """
    if withdrawn is None:
        raise Violated("Withdrawn", "closed, and does not say whether it is withdrawn")
    if withdrawn and owner in sessions:
        raise Violated("Withdrawn", f"says withdrawn, and there is a node of its session {owner:#x}")
