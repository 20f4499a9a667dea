"""The session machine: for each event the next state and the actions. Pure.

The machine is a value; :func:`step` gives the next one and the commands for the driver, which does the input and
output. It decides everything that can be decided without a socket: which id to offer, when a server's word counts, when
a connection is abandoned, when the ensemble has lost the history that our zxids belong to.

Connecting goes in *rounds*: a round tries every address of the ensemble once. A server that closes without a word
during the handshake does so because our last zxid is ahead of it (``ZooKeeperServer.processConnectRequest`` throws
CloseRequestException), or because it is electing or overloaded. The servers of a round that closed so are asked another
:class:`Question`:

- *Do you know the session?* It is offered without our last zxid, which costs the ensemble no transaction: a leader
  change, when every client is closed on, must not make them all write. A server that does not know the session says so:
  it has ended, by its timeout or with its history. One that does is asked to sync: if its zxid is not below ours then,
  it had been electing or lagging, and the session is taken up there. If it is below, a write that must fail asks the
  quorum; below ours again, the ensemble was put back to a copy that has our session in it, and the session is given up.
- *Who are you?* A client without a session, because it ended, asks for a fresh one, which only a quorum can grant,
  and sends a write that must fail. The zxid in that reply's header is the quorum's. Below ours: the history that every
  zxid of ours belongs to is lost. The session is taken in any case.
- The same is asked with a session of ours where silence lasts longer than an election does, rarely, and at a random
  moment: a server that never says a word about our session. If a quorum serves for as long as the session could have
  lived, and no server took it, it is presumed lost; until then the fresh one is closed, and ours is offered again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from . import decisions
from .states import Transition
from .vocabulary import (
    Accepted,
    CloseRequested,
    CredentialsRefused,
    Dialed,
    Event,
    Failed,
    Lost,
    Machine,
    Overdue,
    Phase,
    Primed,
    Probed,
    Refused,
    RoundFailed,
)

__all__ = ["Outcomes", "diagram", "step"]


def step(machine: Machine, event: Event) -> decisions.Step:
    """Return the machine after *event*, and the commands to carry out, in order.

    An event of a connection other than the one in use changes nothing: a superseded socket is never listened to.
    Raises KeyError for an event that has no place in the present phase, which is a defect of the caller, and for a
    step to where the table does not lead, which is one of ours.
    """
    connection = getattr(event, "connection", None)
    if connection is not None and connection != machine.connection and not isinstance(event, Dialed):
        return machine, ()
    row = TABLE[machine.phase, type(event)]
    after, commands = row.decide(machine, event)
    if (successor := (after.phase, decisions.transition_of(machine, commands))) not in row.successors:
        raise KeyError(f"{type(event).__name__} leads from {machine.phase} not to {successor}")
    return after, commands


Successor = tuple[Phase, Transition | None]


class Outcomes(NamedTuple):
    """The outcome of an event in a phase: the function that decides, and its choices."""

    decide: decisions.Handler
    successors: frozenset[Successor]


def _row(decide: decisions.Handler, *successors: Phase | Successor) -> Outcomes:
    return Outcomes(decide, frozenset(each if isinstance(each, tuple) else (each, None) for each in successors))


TABLE: Mapping[tuple[Phase, type[Event]], Outcomes] = MappingProxyType(
    {
        (Phase.OFFLINE, Dialed): _row(decisions.on_dialed, Phase.HANDSHAKING, Phase.ASKING),
        (Phase.OFFLINE, RoundFailed): _row(decisions.on_round_failed, Phase.OFFLINE),
        (Phase.OFFLINE, CloseRequested): _row(decisions.on_close_offline, (Phase.ENDED, Transition.CLOSED)),
        (Phase.OFFLINE, Failed): _row(decisions.on_failed, (Phase.ENDED, Transition.FAILED)),
        #
        (Phase.HANDSHAKING, Accepted): _row(
            decisions.on_accepted, Phase.PRIMING, (Phase.PRIMING, Transition.LEFT), Phase.OFFLINE
        ),
        (Phase.HANDSHAKING, Refused): _row(decisions.on_refused, Phase.OFFLINE, (Phase.OFFLINE, Transition.LEFT)),
        (Phase.HANDSHAKING, Lost): _row(decisions.on_silently_closed, Phase.OFFLINE),
        (Phase.HANDSHAKING, Overdue): _row(decisions.on_unanswered, Phase.OFFLINE),
        (Phase.HANDSHAKING, CloseRequested): _row(decisions.on_close_offline, (Phase.ENDED, Transition.CLOSED)),
        (Phase.HANDSHAKING, Failed): _row(decisions.on_failed, (Phase.ENDED, Transition.FAILED)),
        #
        (Phase.ASKING, Accepted): _row(decisions.on_probe_accepted, Phase.PROBING, Phase.OFFLINE),
        (Phase.ASKING, Refused): _row(decisions.on_probe_refused, Phase.OFFLINE, (Phase.OFFLINE, Transition.LEFT)),
        (Phase.ASKING, Lost): _row(decisions.on_silently_closed, Phase.OFFLINE),
        (Phase.ASKING, Overdue): _row(decisions.on_probe_failed, Phase.OFFLINE),
        (Phase.ASKING, CloseRequested): _row(decisions.on_close_offline, (Phase.ENDED, Transition.CLOSED)),
        (Phase.ASKING, Failed): _row(decisions.on_failed, (Phase.ENDED, Transition.FAILED)),
        #
        (Phase.PROBING, Probed): _row(
            decisions.on_probed,
            Phase.PROBING,
            Phase.PRIMING,
            (Phase.PRIMING, Transition.LEFT),
            Phase.OFFLINE,
            (Phase.OFFLINE, Transition.LEFT),
        ),
        (Phase.PROBING, CredentialsRefused): _row(decisions.on_failed, (Phase.ENDED, Transition.FAILED)),
        (Phase.PROBING, Lost): _row(decisions.on_probe_failed, Phase.OFFLINE),
        (Phase.PROBING, Overdue): _row(decisions.on_probe_failed, Phase.OFFLINE),
        (Phase.PROBING, CloseRequested): _row(decisions.on_close_offline, (Phase.ENDED, Transition.CLOSED)),
        (Phase.PROBING, Failed): _row(decisions.on_failed, (Phase.ENDED, Transition.FAILED)),
        #
        (Phase.PRIMING, Primed): _row(decisions.on_primed, (Phase.SERVING, Transition.SERVES)),
        (Phase.PRIMING, CredentialsRefused): _row(decisions.on_failed, (Phase.ENDED, Transition.FAILED)),
        (Phase.PRIMING, Lost): _row(decisions.on_priming_lost, Phase.OFFLINE),
        (Phase.PRIMING, Overdue): _row(decisions.on_priming_lost, Phase.OFFLINE),
        (Phase.PRIMING, CloseRequested): _row(decisions.on_close_connected, (Phase.CLOSING, Transition.CLOSED)),
        (Phase.PRIMING, Failed): _row(decisions.on_failed, (Phase.ENDED, Transition.FAILED)),
        #
        (Phase.SERVING, Lost): _row(decisions.on_serving_lost, (Phase.OFFLINE, Transition.SUSPENDED)),
        (Phase.SERVING, Overdue): _row(decisions.on_serving_lost, (Phase.OFFLINE, Transition.SUSPENDED)),
        (Phase.SERVING, CloseRequested): _row(decisions.on_close_connected, (Phase.CLOSING, Transition.CLOSED)),
        (Phase.SERVING, Failed): _row(decisions.on_failed, (Phase.ENDED, Transition.FAILED)),
        #
        (Phase.CLOSING, Lost): _row(decisions.on_closing_over, Phase.ENDED),
        (Phase.CLOSING, Overdue): _row(decisions.on_closing_over, Phase.ENDED),
        (Phase.CLOSING, Primed): _row(decisions.ignore, Phase.CLOSING),
        (Phase.CLOSING, CloseRequested): _row(decisions.ignore, Phase.CLOSING),
        (Phase.CLOSING, Failed): _row(decisions.ignore, Phase.CLOSING),
        #
        (Phase.ENDED, CloseRequested): _row(decisions.ignore, Phase.ENDED),
        (Phase.ENDED, Failed): _row(decisions.ignore, Phase.ENDED),
    }
)
"""From each phase, the possible events, and where each may lead: the next phase, and the session's state."""


def diagram() -> str:
    """Return the table as a Mermaid state diagram, as it stands in the docs."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.OFFLINE.name.lower()}"]
    arrows: dict[tuple[Phase, Phase], dict[str, None]] = {}
    for (phase, event), row in TABLE.items():
        for successor, news in sorted(row.successors, key=str):
            told = "" if news is None else f" / {news.value}"
            if phase is not successor or told:
                arrows.setdefault((phase, successor), {})[f"{event.__name__}{told}"] = None
    for (phase, successor), why in arrows.items():
        lines.append(f"    {phase.name.lower()} --> {successor.name.lower()}: {', '.join(why)}")
    return "\n".join([*lines, f"    {Phase.ENDED.name.lower()} --> [*]"])
