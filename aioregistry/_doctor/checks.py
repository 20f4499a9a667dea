"""All checks, one for each kind of fault: one table, in the order of harm. Pure.

A check gets the gathered facts and returns its findings. If a server does not allow a question, the check finds
nothing: :func:`unknown` says so instead. The checks of a kind are in a module of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from . import clock_checks, instance_checks, override_checks, root_checks, server_checks, session_checks
from .findings import SEVERITIES, Check, Finding, Unknown
from .picture import Picture, Server
from .places import why_silent

__all__ = ["CHECKS", "examine", "unknown"]


def examine(picture: Picture) -> list[Finding]:
    """Return everything that is wrong, the most harmful first."""
    return [
        Finding(check.anchor, check.severity, place, text, check.advice)
        for severity in SEVERITIES
        for check in CHECKS
        if check.severity == severity
        for place, text in check.find(picture)
    ]


CHECKS: Final = (
    Check("no-session", "critical", "ZooKeeper gives no session",
          "Look at the servers, and at --zookeeper, --tls-ca, --auth-file and --sasl.", session_checks.no_session),
    Check("server-refusing", "critical", "A server does not answer",
          "Start it, or take it out of the connect string.", server_checks.refusing),
    Check("no-quorum", "critical", "A server has no quorum",
          "Look at its log, and at its connections to the other servers.", server_checks.without_quorum),
    Check("chroot-typo", "critical", "The registry is empty, and another one is not",
          "Compare the chroot and --base-path with those that the services use.", root_checks.typing_error),
    Check("base-missing", "critical", "The base path is missing",
          "Compare the chroot and --base-path with those of the services; a registration makes it.",
          root_checks.missing_root),
    Check("root-strange", "critical", "A root belongs to another user",
          "Have the services' owner make it, persistent, with the ACL of the services.", root_checks.strange_roots),
    Check("acl-open", "critical", "Every client may write",
          "Set the ACL that the other nodes have; give it as acl= where you register.", root_checks.open_to_all),
    Check("persistent-instance", "critical", "An instance is persistent",
          "Delete the node. Register it by a client that makes ephemeral nodes.", instance_checks.persistent),
    Check("unreadable", "critical", "A node shows no instance",
          "Fix the program that publishes it: consumers do not see it.", instance_checks.unreadable),
    Check("unreachable", "critical", "An instance cannot be connected to",
          "Register it at an address and a port that its consumers can connect to.", instance_checks.unreachable),
    Check("local-address", "critical", "An instance is at an address of its own machine",
          "Register it at an address that other machines can connect to.", instance_checks.local),
    Check("ghost", "warning", "An instance's owner is gone",
          "Wait for its session timeout: then it is gone. An instance that comes back is registered again.",
          session_checks.ghosts),
    Check("duplicate", "warning", "An address is listed twice",
          "Stop the second registration, or wait for the ghost of the first one to go.", instance_checks.duplicates),
    Check("override-unreadable", "warning", "An override has no effect",
          "Set it again with aioregistry drain, or remove it with aioregistry enable.",
          override_checks.unreadable_overrides),
    Check("override-endless", "warning", "An override never ends",
          "End it with aioregistry enable, or give it an end.", override_checks.overrides_endless),
    Check("override-ending", "warning", "An override is about to end",
          "Prolong it with aioregistry drain --for, or let it end.", override_checks.overrides_ending),
    Check("session-timeout", "warning", "A session timeout is not as intended",
          "Ask for one within the servers' bounds, or set minSessionTimeout and maxSessionTimeout on all of them.",
          session_checks.timeouts),
    Check("session-timeout-short", "warning", "A session timeout is not above syncLimit ticks",
          "Ask for more (--session-timeout, session_timeout=): 15 s where the servers have 5 ticks of 2 s.",
          session_checks.short_timeouts),
    Check("behind", "warning", "A server is behind",
          "Look at its disk and its network.", server_checks.behind),
    Check("mixed-versions", "warning", "The servers are of different versions",
          "Finish the upgrade.", server_checks.mixed),
    Check("end-of-life", "warning", "A server's release is no longer supported",
          "Upgrade it.", server_checks.end_of_life),
    Check("clock-skew", "warning", "The clocks differ",
          "Have all machines follow the same time (NTP).", clock_checks.skewed),
    Check("publisher-clock", "warning", "The clock of an instance's machine is ahead",
          "Have its machine follow the time (NTP).", clock_checks.clock_of_publisher),
    Check("near-maxbuffer", "warning", "A node or a list of nodes is near jute.maxbuffer",
          "Publish less, or split the service; servers close the connection beyond it.", instance_checks.large),
    Check("near-limits", "warning", "A server is near a limit",
          "Raise the limit, or spread the clients.", server_checks.near_limits),
    Check("names-alike", "warning", "Names look the same",
          "Rename one of them: a consumer of the one does not see the other.", instance_checks.alike),
    Check("unprotected", "notice", "There is no access control",
          "Where the network is not trusted, register with credentials and an ACL (--auth-file and --acl, auth= and "
          "acl=).", root_checks.unprotected),
)  # fmt: skip
"""Every kind of finding, of equal severity in the order of harm."""


def unknown(picture: Picture) -> list[Unknown]:
    """Return what could not be found out."""
    found = []
    if picture.connection is not None:
        found.append(Unknown("no-session", "the registry could not be read"))
    if (reason := session_checks.why_ghosts_are_unknown(picture)) is not None:
        found.append(Unknown("ghost", reason))
    if picture.connection is None and clock_checks.measured_skew(picture) is None:
        found.append(Unknown("clock-skew", "no server tells its time: allow cons (4lw.commands.whitelist)"))
    found += [Unknown(anchor, reason) for anchor, reason in _untold(picture)]
    return found


_TOLD: Final[tuple[tuple[str, str, str, Callable[[Server], bool]], ...]] = (
    # Apache's servers allow it in any case, others do not.
    ("no-quorum", "srvr", "state, release and last transaction", lambda server: "mode" in server.summary),
    ("near-limits", "mntr", "open files and watches", lambda server: bool(server.monitor)),
    ("session-timeout", "conf", "bounds of session timeouts and of connections", lambda server: bool(server.settings)),
)
"""The words by which servers report facts for checks: the checks' anchor, the word, its meaning, whether it came."""


def _untold(picture: Picture) -> Iterator[tuple[str, str]]:
    for anchor, word, what, is_told in _TOLD:
        # One that has no quorum tells nothing else, which is found.
        serving = [each for each in picture.servers if each.refusal is None and each.summary.get("mode") != "none"]
        silent = "; ".join(why_silent(server, word) for server in serving if not is_told(server))
        if silent:
            yield anchor, f"{what}: {silent}"
    if picture.connection is None and session_checks.sync_limit(picture) is None:
        yield "session-timeout-short", "no server tells its syncLimit: allow conf (4lw.commands.whitelist)"
