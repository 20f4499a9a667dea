"""The checks of the servers. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from .picture import Picture, Server
from .places import all_of
from .words import number, release

__all__ = ["behind", "end_of_life", "mixed", "near_limits", "refusing", "without_quorum"]

END_OF_LIFE: Final = (3, 7)
"""The newest release that is no longer supported (zookeeper.apache.org/releases.html)."""

FAR_BEHIND: Final = 1000
"""Transactions: servers of a healthy ensemble differ by those of a moment."""

FULL: Final = 0.8
"""The share of a limit that is near it."""

MOST_WATCHES: Final = 1_000_000
"""No limit of ZooKeeper's, but of its heap: some 100 bytes each, in each of two maps."""


def refusing(picture: Picture) -> Iterator[tuple[str, str]]:
    for server in picture.servers:
        if server.refusal is not None:
            yield server.address, f"does not answer: {server.refusal}"


def without_quorum(picture: Picture) -> Iterator[tuple[str, str]]:
    for server in picture.servers:
        what = {"read-only": "serves reads only", "none": "does not serve"}.get(server.summary.get("mode", ""))
        if what is not None:
            yield server.address, f"{what}: it is not connected to most of its ensemble"


def behind(picture: Picture) -> Iterator[tuple[str, str]]:
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


def mixed(picture: Picture) -> Iterator[tuple[str, str]]:
    releases = {server.address: found for server in picture.servers if (found := _release(server))}
    if len(set(releases.values())) > 1:
        yield (
            all_of(picture.servers),
            ", ".join(f"{address} is {_dotted(found)}" for address, found in releases.items()),
        )


def end_of_life(picture: Picture) -> Iterator[tuple[str, str]]:
    for server in picture.servers:
        found = _release(server)
        if found is not None and found[:2] <= END_OF_LIFE:
            yield server.address, f"is ZooKeeper {_dotted(found)}, which is no longer supported"


def near_limits(picture: Picture) -> Iterator[tuple[str, str]]:
    for server in picture.servers:
        for used, limit, what in (
            ("zk_open_file_descriptor_count", number(server.monitor, "zk_max_file_descriptor_count"), "open files"),
            ("zk_watch_count", MOST_WATCHES, "watches"),
        ):
            if limit > 0 and number(server.monitor, used) > FULL * limit:
                yield server.address, f"has {number(server.monitor, used):.0f} {what}, near {limit:.0f}"
        yield from _near_connections_of_one(server)


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


def _release(server: Server) -> tuple[int, int, int] | None:
    return release(server.summary.get("zookeeper version", ""))


def _dotted(found: Iterable[int]) -> str:
    return ".".join(map(str, found))
