"""What can be wrong: one check a kind, in one table in the order of harm. Pure.

A check is told what was gathered and says what it finds; what cannot be known, because a server does not allow the
question, it does not find: :func:`unknown` says so instead.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from aioregistry._addresses import ip_address, only_here
from aioregistry._document import decode
from aioregistry._errors import InvalidInstance, session_name
from aioregistry._model import ServiceInstance
from aioregistry._overrides import UnfitOverride, read_override
from aioregistry._protocol import AclEntry, Permission

from .picture import Node, Picture, Server
from .words import number, release

__all__ = ["CHECKS", "Check", "Finding", "Severity", "Unknown", "examine", "unknown"]

Severity = str
SEVERITIES: Final = ("critical", "warning", "notice")
"""In the order of harm. A notice is nothing that is wrong by itself, and changes no exit code."""


class Finding(NamedTuple):
    """One thing that is wrong.

    Args:
        anchor: of its paragraph in the documentation.
        severity: one of :data:`SEVERITIES`.
        place: a path or the address of a server.
        text: what is wrong there.
        advice: what to do.
    """

    anchor: str
    severity: Severity
    place: str
    text: str
    advice: str


class Unknown(NamedTuple):
    """What could not be found out, and why."""

    anchor: str
    reason: str


class Check(NamedTuple):
    """A kind of finding.

    Args:
        anchor: of its paragraph in the documentation.
        severity: of what it finds.
        title: what is wrong, in a few words.
        advice: what to do.
        find: yields place and text of each.
    """

    anchor: str
    severity: Severity
    title: str
    advice: str
    find: Callable[[Picture], Iterable[tuple[str, str]]]


def examine(picture: Picture) -> list[Finding]:
    """Return everything that is wrong, the most harmful first."""
    return [
        Finding(check.anchor, check.severity, place, text, check.advice)
        for severity in SEVERITIES
        for check in CHECKS
        if check.severity == severity
        for place, text in check.find(picture)
    ]


# ---------------------------------------------------------------- the servers

END_OF_LIFE: Final = (3, 7)
"""The newest release whose support has ended (zookeeper.apache.org/releases.html)."""

FAR_BEHIND: Final = 1000
"""Transactions: servers of a healthy ensemble differ by those of a moment."""

FULL: Final = 0.8
LARGE: Final = 0.5
"""Shares of a limit that are near it."""

SKEW: Final = 5.0
"""Seconds. Overrides end, and ages are told, by the servers' clocks; a second or two of NTP's is no harm."""


def _no_session(picture: Picture) -> Iterator[tuple[str, str]]:
    if picture.connection is not None:
        yield _all(picture.servers), picture.connection


def _refusing(picture: Picture) -> Iterator[tuple[str, str]]:
    for server in picture.servers:
        if server.refusal is not None:
            yield server.address, f"does not answer: {server.refusal}"


def _without_quorum(picture: Picture) -> Iterator[tuple[str, str]]:
    for server in picture.servers:
        what = {"read-only": "serves reads only", "none": "serves nobody"}.get(server.summary.get("mode", ""))
        if what is not None:
            yield server.address, f"{what}: it is not connected to most of its ensemble"


def _behind(picture: Picture) -> Iterator[tuple[str, str]]:
    zxids = {server.address: int(number(server.summary, "zxid")) for server in picture.servers}
    newest = max(zxids.values(), default=0)
    for address, zxid in zxids.items():
        epochs, transactions = (newest >> 32) - (zxid >> 32), (newest & 0xFFFF_FFFF) - (zxid & 0xFFFF_FFFF)
        if zxid and (epochs > 0 or transactions > FAR_BEHIND):
            yield address, f"is at zxid {zxid:#x}, another server at {newest:#x}"
    for server in picture.servers:
        learners, synced = (number(server.monitor, f"zk_{name}") for name in ("learners", "synced_followers"))
        expected = learners - number(server.monitor, "zk_synced_observers")
        if synced < expected:
            yield server.address, f"leads {expected:.0f} followers, of which {synced:.0f} are up to date"


def _mixed(picture: Picture) -> Iterator[tuple[str, str]]:
    releases = {server.address: found for server in picture.servers if (found := _release(server))}
    if len(set(releases.values())) > 1:
        yield _all(picture.servers), ", ".join(f"{address} is {_dotted(found)}" for address, found in releases.items())


def _end_of_life(picture: Picture) -> Iterator[tuple[str, str]]:
    for server in picture.servers:
        found = _release(server)
        if found is not None and found[:2] <= END_OF_LIFE:
            yield server.address, f"is ZooKeeper {_dotted(found)}, whose support has ended"


def _near_limits(picture: Picture) -> Iterator[tuple[str, str]]:
    for server in picture.servers:
        for used, limit, what in (
            ("zk_open_file_descriptor_count", number(server.monitor, "zk_max_file_descriptor_count"), "open files"),
            ("zk_num_alive_connections", number(server.settings, "maxCnxns"), "connections (maxCnxns)"),
            ("zk_watch_count", MOST_WATCHES, "watches"),
        ):
            if limit > 0 and number(server.monitor, used) > FULL * limit:
                yield server.address, f"has {number(server.monitor, used):.0f} {what}, near {limit:.0f}"
        yield from _near_connections_of_one(server)


MOST_WATCHES: Final = 1_000_000
"""No limit of ZooKeeper's, but of its heap: some 100 bytes each, in each of two maps."""


def _near_connections_of_one(server: Server) -> Iterator[tuple[str, str]]:
    limit = number(server.settings, "maxClientCnxns")
    by_host: dict[str, int] = defaultdict(int)
    for connection in server.connections or ():
        by_host[connection.host] += 1
    for host, count in by_host.items():
        if limit > 0 and count > FULL * limit:
            yield (
                server.address,
                f"has {count} connections of {host}, and refuses more than {limit:.0f} (maxClientCnxns)",
            )


def _skewed(picture: Picture) -> Iterator[tuple[str, str]]:
    skew = _measured_skew(picture)
    if skew is not None and abs(skew) > SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        yield _all(picture.servers), f"the server's clock is {abs(skew):.0f} s {direction} this machine's"
    elif skew is None:
        latest = max((node.stat.ctime for _, _, node in _instances(picture) if node.stat is not None), default=0) / 1000
        if latest - picture.now > SKEW:
            yield _all(picture.servers), f"a node was created {latest - picture.now:.0f} s from now, by this clock"


def _measured_skew(picture: Picture) -> float | None:
    """By the server's time of our own connection, which we know too."""
    for server in picture.servers:
        for connection in server.connections or ():
            if connection.session == picture.session != 0 and connection.established:
                return connection.established - picture.connected_at
    return None


def _clock_of_publisher(picture: Picture) -> Iterator[tuple[str, str]]:
    for place, instance, node in _readable(picture):
        published, stat = instance.registration_time_ms, node.stat
        if stat is not None and published is not None and published / 1000 - stat.mtime / 1000 > SKEW:
            ahead = (published - stat.mtime) / 1000
            yield place, f"was registered {ahead:.0f} s after the server wrote its node, by its own clock"


# ---------------------------------------------------------------- the roots


def _missing_root(picture: Picture) -> Iterator[tuple[str, str]]:
    if picture.connection is None and picture.base is None and not picture.refused and not _better(picture):
        yield _full(picture, picture.base_path), "is not there: nothing was ever registered here"


def _typing_error(picture: Picture) -> Iterator[tuple[str, str]]:
    better = _better(picture)
    if better:
        found = ", ".join(f"{place} has {count}" for place, count in sorted(better.items(), key=_most))
        yield _full(picture, picture.base_path), f"has no services, but {found}"


def _most(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _better(picture: Picture) -> dict[str, int]:
    empty = picture.connection is None and not picture.services and not picture.refused
    return {place: count for place, count in picture.elsewhere.items() if count} if empty else {}


def _strange_roots(picture: Picture) -> Iterator[tuple[str, str]]:
    for path in picture.refused:
        yield _full(picture, path), "may not be listed by these credentials"
    for node in _roots(picture):
        owner = node.stat.ephemeral_owner if node.stat is not None else 0
        if owner:
            yield _full(picture, node.path), f"is ephemeral: it goes with session {session_name(owner)}"
    base = picture.base
    for root in (picture.withdrawn, picture.overrides_root):
        if base is None or root is None or base.acl is None or root.acl is None:
            continue
        strangers = [entry for entry in root.acl if _may_write(entry) and not _is_covered(entry, base.acl)]
        if strangers and not any(entry.scheme == "world" for entry in strangers):
            who = ", ".join(f"{entry.scheme}:{entry.id}" for entry in strangers)
            yield _full(picture, root.path), f"belongs to {who}, who may not write to the services"


def _open_to_all(picture: Picture) -> Iterator[tuple[str, str]]:
    if not _is_guarded(picture):
        return
    for node in _guarded_nodes(picture):
        may = _open_rights(node)
        if may:
            yield _full(picture, node.path), f"anybody may {', '.join(may)} it, while other nodes are protected"


def _unprotected(picture: Picture) -> Iterator[tuple[str, str]]:
    if not _is_guarded(picture) and any(_open_rights(node) for node in _guarded_nodes(picture)):
        yield _full(picture, picture.base_path), "has no access control: any client of ZooKeeper may write it"


def _is_guarded(picture: Picture) -> bool:
    return any(node.acl is not None and not _open_rights(node) for node in _guarded_nodes(picture))


def _guarded_nodes(picture: Picture) -> Iterator[Node]:
    yield from _roots(picture)
    yield from picture.service_nodes.values()
    yield from (node for _, _, node in _instances(picture))


_RIGHTS: Final = {
    Permission.WRITE: "change",
    Permission.CREATE: "create below",
    Permission.DELETE: "delete below",
    Permission.ADMIN: "open",
}


def _open_rights(node: Node) -> list[str]:
    mask = 0
    for entry in node.acl or ():
        if (entry.scheme, entry.id) == ("world", "anyone"):
            mask |= entry.permissions
    return [word for right, word in _RIGHTS.items() if mask & right]


def _may_write(entry: AclEntry) -> bool:
    return bool(entry.permissions & ~Permission.READ)


def _is_covered(entry: AclEntry, acl: Sequence[AclEntry]) -> bool:
    return any(
        _may_write(each) and (each.scheme, each.id) in ((entry.scheme, entry.id), ("world", "anyone")) for each in acl
    )


# ---------------------------------------------------------------- the instances


def _persistent(picture: Picture) -> Iterator[tuple[str, str]]:
    for place, instance, node in _readable(picture):
        kind = instance.service_type
        if (
            node.stat is not None
            and not node.stat.ephemeral_owner
            and not str(kind).upper().endswith(("STATIC", "PERMANENT"))
        ):
            yield place, "is persistent: it stays listed when its process is gone"


def _ghosts(picture: Picture) -> Iterator[tuple[str, str]]:
    connected = _connected_sessions(picture)
    if connected is None:
        return
    for name, id, node in _instances(picture):
        owner = node.stat.ephemeral_owner if node.stat is not None else 0
        if owner and owner not in connected:
            text = f"is owned by session {session_name(owner)}, which has no connection to any server"
            yield _place(picture, name, id), text


def _connected_sessions(picture: Picture) -> set[int] | None:
    """Those that have a connection to any server; None where one of the servers was not asked or did not say."""
    if _why_ghosts_are_unknown(picture) is not None:
        return None
    return {each.session for server in picture.servers for each in server.connections or ()}


def _why_ghosts_are_unknown(picture: Picture) -> str | None:
    silent = [server.address for server in picture.servers if server.connections is None]
    if silent:
        return f"{', '.join(silent)} does not allow cons (4lw.commands.whitelist)"
    members = max((server.members for server in picture.servers), default=0)
    learners = max((int(number(server.monitor, "zk_learners")) + 1 for server in picture.servers), default=1)
    if max(members, learners) > len(picture.servers):
        return f"the ensemble has {max(members, learners)} servers, and --zookeeper names {len(picture.servers)}"
    return None


def _duplicates(picture: Picture) -> Iterator[tuple[str, str]]:
    by_place: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for name, id, instance, _ in _decoded(picture):
        port = instance.port if instance.port is not None else instance.ssl_port
        if instance.address and port is not None:
            by_place[name, instance.address.lower(), port].append(id)
    for (name, address, port), ids in by_place.items():
        if len(ids) > 1:
            yield _place(picture, name), f"{_shown_host(address)}:{port} is listed {len(ids)} times: {', '.join(ids)}"


def _unreadable(picture: Picture) -> Iterator[tuple[str, str]]:
    for name, id, node in _instances(picture):
        if node.data is None:
            yield _place(picture, name, id), "may not be read by these credentials"
            continue
        reason = _reason(node.data, name, id)
        if reason is not None:
            yield _place(picture, name, id), reason


def _reason(data: bytes, name: str, id: str) -> str | None:
    try:
        decode(data, name=name, id=id)
    except InvalidInstance as error:
        return error.reason
    return None


def _unreachable(picture: Picture) -> Iterator[tuple[str, str]]:
    for place, instance, _ in _readable(picture):
        if 0 in (instance.port, instance.ssl_port):
            yield place, "is at port 0, to which nobody can connect"
        address = ip_address((instance.address or "").partition("%")[0])
        if address is not None and (address.is_unspecified or address.is_multicast):
            yield place, f"is at {instance.address}, to which nobody can connect"


def _local(picture: Picture) -> Iterator[tuple[str, str]]:
    servers = [server.address.rpartition(":")[0].strip("[]") for server in picture.servers]
    for place, instance, _ in _readable(picture):
        host = instance.address or ""
        address = ip_address(host.partition("%")[0])
        if only_here(host, servers):
            yield place, f"is at {host}, its machine's own, while the ensemble is elsewhere"
        elif address is not None and address.is_link_local and not all(_is_link_local(each) for each in servers):
            yield place, f"is at {host}, which only its own link can reach"


def _is_link_local(host: str) -> bool:
    address = ip_address(host.partition("%")[0])
    return address is not None and address.is_link_local


def _timeouts(picture: Picture) -> Iterator[tuple[str, str]]:
    if picture.granted and not math.isclose(picture.granted, picture.requested, abs_tol=0.001):
        asked, granted = picture.requested, picture.granted
        yield _all(picture.servers), f"{asked:g} s of session timeout were asked for, and {granted:g} s granted"
    bounds = {server.address: found for server in picture.servers if (found := _bounds(server))}
    if len(set(bounds.values())) > 1:
        told = ", ".join(f"{address} {low:g} to {high:g} s" for address, (low, high) in bounds.items())
        yield _all(picture.servers), f"they grant different session timeouts: {told}"
    timeouts = {each.session: each.timeout for server in picture.servers for each in server.connections or ()}
    for name, id, node in _instances(picture):
        timeout = timeouts.get(node.stat.ephemeral_owner, 0.0) if node.stat is not None else 0.0
        if not timeout:
            continue
        if timeout < SHORTEST or timeout > LONGEST:
            effect = "a pause of its process unlists it" if timeout < SHORTEST else "its death is noticed late"
            yield _place(picture, name, id), f"has a session timeout of {timeout:g} s: {effect}"
        elif timeout in {high for _, high in bounds.values()}:
            yield _place(picture, name, id), f"has a session timeout of {timeout:g} s, the most that the servers grant"


SHORTEST: Final = 2.0
LONGEST: Final = 60.0
"""Seconds; a garbage collection, or a virtual machine that is moved, takes a second, and nobody waits longer than a
minute for a crash to be noticed."""


def _bounds(server: Server) -> tuple[float, float] | None:
    low, high = (number(server.settings, name) / 1000 for name in ("minSessionTimeout", "maxSessionTimeout"))
    return (low, high) if high else None


def _large(picture: Picture) -> Iterator[tuple[str, str]]:
    limit = picture.max_request
    for name, id, node in _instances(picture):
        size = len(node.data or b"")
        if size > LARGE * limit:
            yield _place(picture, name, id), f"has {size} bytes, jute.maxbuffer is {limit}"
    lists = {name: list(nodes) for name, nodes in picture.services.items()}
    for place, names in [
        (picture.base_path, [*lists]),
        *((f"{picture.base_path}/{name}", ids) for name, ids in lists.items()),
    ]:
        size = sum(len(each.encode(errors="replace")) + 4 for each in names)
        if size > LARGE * limit:
            yield _full(picture, place), f"the list of its {len(names)} children takes {size} bytes of {limit}"


def _alike(picture: Picture) -> Iterator[tuple[str, str]]:
    groups = [(picture.base_path, list(picture.services))]
    groups += [(f"{picture.base_path}/{name}", list(nodes)) for name, nodes in picture.services.items()]
    for place, names in groups:
        by_look: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_look[_look(name)].append(name)
        for same in by_look.values():
            if len(same) > 1:
                yield (
                    _full(picture, place),
                    f"has names that differ by case or blanks only: {', '.join(map(repr, same))}",
                )


def _look(name: str) -> str:
    visible = (c for c in unicodedata.normalize("NFKC", name).casefold() if unicodedata.category(c) != "Cf")
    return re.sub(r"\s+", "", "".join(visible))


# ---------------------------------------------------------------- the overrides


def _overrides_ending(picture: Picture) -> Iterator[tuple[str, str]]:
    for path, until in _ends_of_overrides(picture):
        if until is not None and until - picture.now < SOON:
            left = until - picture.now
            text = f"ends in {left:.0f} s" if left > 0 else f"ended {-left:.0f} s ago, and is still there"
            yield path, text


def _overrides_endless(picture: Picture) -> Iterator[tuple[str, str]]:
    for path, until in _ends_of_overrides(picture):
        if until is None:
            yield path, "never ends"


SOON: Final = 600.0
"""Seconds: enough for a person to prolong it."""


def _ends_of_overrides(picture: Picture) -> Iterator[tuple[str, float | None]]:
    for (name, id), node in picture.overrides.items():
        if node.stat is None:
            continue
        try:
            override = read_override(node.data or b"", name, id, node.stat.mtime, node.stat.version)
        except UnfitOverride:
            continue  # views do not follow it
        yield _full(picture, node.path), override.until


# ---------------------------------------------------------------- the table

CHECKS: Final = (
    Check("no-session", "critical", "ZooKeeper gives no session",
          "Look at the servers, and at --zookeeper, --tls-ca and --auth-file.", _no_session),
    Check("server-refusing", "critical", "A server does not answer",
          "Start it, or take it out of the connect string.", _refusing),
    Check("no-quorum", "critical", "A server has no quorum",
          "Look at its log, and at its connections to the other servers.", _without_quorum),
    Check("chroot-typo", "critical", "The registry is empty, and another one is not",
          "Compare the chroot and --base-path with those that the services use.", _typing_error),
    Check("base-missing", "critical", "The base path is missing",
          "Compare the chroot and --base-path with those of the services; a registration makes it.", _missing_root),
    Check("root-strange", "critical", "A root is somebody else's",
          "Have the services' owner make it, persistent, with the ACL of the services.", _strange_roots),
    Check("acl-open", "critical", "Anybody may write",
          "Set the ACL that the other nodes have; whoever registers gives it as acl=.", _open_to_all),
    Check("persistent-instance", "critical", "An instance is persistent",
          "Delete the node. Register it by a client that makes ephemeral nodes.", _persistent),
    Check("unreadable", "critical", "A node shows no instance",
          "Mend whatever publishes it: consumers do not see it.", _unreadable),
    Check("unreachable", "critical", "Nobody can connect to an instance",
          "Register it at an address and a port that its consumers can connect to.", _unreachable),
    Check("local-address", "critical", "An instance is at an address of its own machine",
          "Register it at an address that other machines can connect to.", _local),
    Check("ghost", "warning", "An instance's owner is gone",
          "Wait for its session timeout: then it is gone. One that comes back is registered anew.", _ghosts),
    Check("duplicate", "warning", "An address is listed twice",
          "Stop the second registration, or wait for the ghost of the first one to go.", _duplicates),
    Check("override-endless", "warning", "An override never ends",
          "End it with aioregistry enable, or give it an end.", _overrides_endless),
    Check("override-ending", "warning", "An override is about to end",
          "Prolong it with aioregistry drain --for, or let it end.", _overrides_ending),
    Check("session-timeout", "warning", "A session timeout is not what was meant",
          "Ask for what the servers grant, or set minSessionTimeout and maxSessionTimeout on all of them.", _timeouts),
    Check("behind", "warning", "A server is behind",
          "Look at its disk and its network.", _behind),
    Check("mixed-versions", "warning", "The servers are of different versions",
          "Finish the upgrade.", _mixed),
    Check("end-of-life", "warning", "A server's release is not supported any more",
          "Upgrade it.", _end_of_life),
    Check("clock-skew", "warning", "The clocks differ",
          "Have all machines follow the same time (NTP).", _skewed),
    Check("publisher-clock", "warning", "The clock of an instance's machine is ahead",
          "Have its machine follow the time (NTP).", _clock_of_publisher),
    Check("near-maxbuffer", "warning", "A node or a list of nodes is near jute.maxbuffer",
          "Publish less, or split the service; servers close the connection beyond it.", _large),
    Check("near-limits", "warning", "A server is near a limit",
          "Raise the limit, or spread the clients.", _near_limits),
    Check("names-alike", "warning", "Names look the same",
          "Rename one of them: a consumer of the one does not see the other.", _alike),
    Check("unprotected", "notice", "There is no access control",
          "Where the network is not trusted, register with auth= and acl=.", _unprotected),
)  # fmt: skip
"""Every kind of finding, of equal severity in the order of harm."""


def unknown(picture: Picture) -> list[Unknown]:
    """Return what could not be found out."""
    found = []
    if picture.connection is not None:
        found.append(Unknown("no-session", "nothing of the registry could be read"))
    if (reason := _why_ghosts_are_unknown(picture)) is not None:
        found.append(Unknown("ghost", reason))
    if picture.connection is None and _measured_skew(picture) is None:
        found.append(Unknown("clock-skew", "the server does not allow cons, which tells its time"))
    silent = [server.address for server in picture.servers if server.refusal is None and not server.monitor]
    if silent:
        found.append(Unknown("near-limits", f"{', '.join(silent)} does not allow mntr (4lw.commands.whitelist)"))
    return found


# ---------------------------------------------------------------- places


def _instances(picture: Picture) -> Iterator[tuple[str, str, Node]]:
    for name, nodes in picture.services.items():
        for id, node in nodes.items():
            yield name, id, node


def _decoded(picture: Picture) -> Iterator[tuple[str, str, ServiceInstance[Any], Node]]:
    for name, id, node in _instances(picture):
        try:
            instance = decode(node.data or b"", name=name, id=id)
        except InvalidInstance:
            continue
        yield name, id, instance, node


def _readable(picture: Picture) -> Iterator[tuple[str, ServiceInstance[Any], Node]]:
    for name, id, instance, node in _decoded(picture):
        yield _place(picture, name, id), instance, node


def _roots(picture: Picture) -> Iterator[Node]:
    yield from (node for node in (picture.base, picture.withdrawn, picture.overrides_root) if node is not None)


def _place(picture: Picture, *names: str) -> str:
    return _full(picture, "/".join([picture.base_path.rstrip("/"), *names]))


def _full(picture: Picture, path: str) -> str:
    return f"{picture.chroot}{path}"


def _all(servers: Sequence[Server]) -> str:
    return ",".join(server.address for server in servers)


def _release(server: Server) -> tuple[int, int, int] | None:
    return release(server.summary.get("zookeeper version", ""))


def _dotted(found: Iterable[int]) -> str:
    return ".".join(map(str, found))


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
