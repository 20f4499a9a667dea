"""The checks of sessions: those of the instances and the doctor's own. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from aioregistry._errors import session_name

from .picture import Picture, Server
from .places import all_of, decoded, instances, path_of, why_silent
from .words import number

__all__ = ["ghosts", "no_session", "short_timeouts", "sync_limit", "timeouts", "why_ghosts_are_unknown"]

SHORTEST: Final = 2.0
LONGEST: Final = 60.0
"""Seconds; a garbage collection, or a virtual machine that is moved, takes a second, and users wait at most a
minute for a crash to be noticed."""

SHOWN: Final = 5
"""Instances that are named of those with the same fault in a service."""


def no_session(picture: Picture) -> Iterator[tuple[str, str]]:
    if picture.connection is not None:
        yield all_of(picture.servers), picture.connection


def ghosts(picture: Picture) -> Iterator[tuple[str, str]]:
    connected = _connected_sessions(picture)
    if connected is None:
        return
    for name, id, node in instances(picture):
        owner = node.stat.ephemeral_owner if node.stat is not None else 0
        if owner and owner not in connected:
            text = f"is owned by session {session_name(owner)}, which has no connection to any server"
            yield path_of(picture, name, id), text


def _connected_sessions(picture: Picture) -> set[int] | None:
    """Those that have a connection to any server; None where one of the servers was not asked or did not say."""
    if why_ghosts_are_unknown(picture) is not None:
        return None
    return {each.session for server in picture.servers for each in server.connections or ()}


def why_ghosts_are_unknown(picture: Picture) -> str | None:
    """Return why it is unknown which sessions have a connection; None if it is known."""
    if picture.connection is not None:
        return None  # it is said that nothing could be read
    silent = [why_silent(server, "cons") for server in picture.servers if server.connections is None]
    if silent:
        return "; ".join(silent)
    size = _size_of_ensemble(picture)
    if size is None:
        return "no server says how many there are: allow conf (4lw.commands.whitelist)"
    if size > len(picture.servers):
        return f"the ensemble has {size} servers, and --zookeeper names {len(picture.servers)}"
    return None


def _size_of_ensemble(picture: Picture) -> int | None:
    leaders = (server.monitor for server in picture.servers if "zk_learners" in server.monitor)
    known = max(
        picture.members,
        *(server.members for server in picture.servers),
        *(int(number(monitor, "zk_learners")) + 1 for monitor in leaders),
        0,
    )
    is_alone = any(server.summary.get("mode") == "standalone" for server in picture.servers)
    return known or (1 if is_alone else None)


def timeouts(picture: Picture) -> Iterator[tuple[str, str]]:
    if picture.granted and not math.isclose(picture.granted, picture.requested, abs_tol=0.001):
        asked, granted = picture.requested, picture.granted
        yield all_of(picture.servers), f"{asked:g} s of session timeout were asked for, and {granted:g} s granted"
    bounds = {server.address: found for server in picture.servers if (found := _bounds(server))}
    if len(set(bounds.values())) > 1:
        told = ", ".join(f"{address} {low:g} to {high:g} s" for address, (low, high) in bounds.items())
        yield all_of(picture.servers), f"they grant different session timeouts: {told}"
    for name, id, timeout in _timeouts(picture):
        if timeout < SHORTEST or timeout > LONGEST:
            effect = "a pause of its process unlists it" if timeout < SHORTEST else "its death is noticed late"
            yield path_of(picture, name, id), f"has a session timeout of {timeout:g} s: {effect}"
        elif timeout in {high for _, high in bounds.values()}:
            yield path_of(picture, name, id), f"has a session timeout of {timeout:g} s, the most that the servers grant"


def _timeouts(picture: Picture) -> Iterator[tuple[str, str, float]]:
    """Yield service, id and session timeout of each instance, by the servers, or else by what it publishes."""
    told = {each.session: each.timeout for server in picture.servers for each in server.connections or ()}
    published = {(name, id): instance.session_timeout_ms for name, id, instance, _ in decoded(picture)}
    for name, id, node in instances(picture):
        owner = node.stat.ephemeral_owner if node.stat is not None else 0
        timeout = told.get(owner, 0.0) or (published.get((name, id)) or 0) / 1000
        if owner and timeout:
            yield name, id, timeout


def short_timeouts(picture: Picture) -> Iterator[tuple[str, str]]:
    limit = sync_limit(picture)
    if limit is None:
        return
    why = f"a leader may miss its followers for {limit:g} s (syncLimit × tickTime) and call living sessions expired"
    for server in picture.servers:
        bounds = _bounds(server)
        if bounds is not None and bounds[1] <= limit:
            yield server.address, f"grants no session timeout above {bounds[1]:g} s: {why}"
    short: dict[tuple[str, float], list[str]] = defaultdict(list)
    for name, id, timeout in _timeouts(picture):
        if timeout <= limit:
            short[name, timeout].append(id)
    for (name, timeout), ids in short.items():
        shown = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
        yield path_of(picture, name), f"{timeout:g} s of session timeout is not enough for {shown}: {why}"


def sync_limit(picture: Picture) -> float | None:
    """Return for how many seconds a leader may not notice that its followers are gone.

    That is 0.0 for a server that has no followers, and None if no server reports it.
    """
    told = max(
        (number(server.settings, "syncLimit") * number(server.settings, "tickTime") for server in picture.servers),
        default=0.0,
    )
    modes = {server.summary.get("mode") for server in picture.servers if server.refusal is None}
    return told / 1000 if told else 0.0 if modes == {"standalone"} else None


def _bounds(server: Server) -> tuple[float, float] | None:
    low, high = (number(server.settings, name) / 1000 for name in ("minSessionTimeout", "maxSessionTimeout"))
    return (low, high) if high else None
