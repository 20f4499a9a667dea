"""The checks of the clocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .picture import Picture
from .places import all_of, instances, readable

__all__ = ["clock_of_publisher", "measured_skew", "skewed"]

SKEW: Final = 5.0
"""Seconds. Overrides end, and ages are told, by the servers' clocks; a second or two of NTP's is harmless."""


def skewed(picture: Picture) -> Iterator[tuple[str, str]]:
    skew = measured_skew(picture)
    if skew is not None and abs(skew) > SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        yield all_of(picture.servers), f"the server's clock is {abs(skew):.0f} s {direction} this machine's"
    elif skew is None:
        latest = max((node.stat.ctime for _, _, node in instances(picture) if node.stat is not None), default=0) / 1000
        if latest - picture.now > SKEW:
            yield all_of(picture.servers), f"a node was created {latest - picture.now:.0f} s from now, by this clock"


def measured_skew(picture: Picture) -> float | None:
    """By the server's time of our own connection, which we know too."""
    for server in picture.servers:
        for connection in server.connections or ():
            if connection.session == picture.session != 0 and connection.established:
                return connection.established - picture.connected_at
    return None


def clock_of_publisher(picture: Picture) -> Iterator[tuple[str, str]]:
    for place, instance, node in readable(picture):
        published, stat = instance.registration_time_ms, node.stat
        if stat is not None and published is not None and published / 1000 - stat.mtime / 1000 > SKEW:
            ahead = (published - stat.mtime) / 1000
            yield place, f"was registered {ahead:.0f} s after the server wrote its node, by its own clock"
