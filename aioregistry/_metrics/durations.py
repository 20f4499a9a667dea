"""How long requests take, by kind: a histogram of few integers. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from .table import Bucket, Labels, Sample

__all__ = ["BOUNDS", "OPERATIONS", "Durations", "Growth"]

BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Seconds; those of ``db.client.operation.duration`` in OpenTelemetry's semantic conventions."""

OPERATIONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "create",
        2: "delete",
        3: "exists",
        4: "getData",
        5: "setData",
        6: "getACL",
        7: "setACL",
        8: "getChildren",
        9: "sync",
        11: "ping",
        12: "getChildren2",
        13: "check",
        14: "multi",
        15: "create2",
        16: "reconfig",
        17: "checkWatches",
        18: "removeWatches",
        19: "createContainer",
        21: "createTTL",
        22: "multiRead",
        100: "auth",
        101: "setWatches",
        102: "sasl",
        103: "getEphemerals",
        104: "getAllChildrenNumber",
        105: "setWatches2",
        106: "addWatch",
        107: "whoAmI",
        -11: "closeSession",
    }
)
"""As ``ZooDefs.OpCode`` of ZooKeeper calls them, by opcode; all others are one kind."""

_OTHER: Final = "other"

_Counts: TypeAlias = tuple[list[int], list[float]]
"""How many requests are in each bucket, and how long they took together."""


class Durations:
    """Counts requests by how long they took."""

    def __init__(self) -> None:
        self._of: dict[int, _Counts] = {}
        self._kinds: dict[str, _Counts] = {}

    def note(self, opcode: int, seconds: float) -> None:
        """A request was answered after *seconds*."""
        counts, totals = self._of.get(opcode) or self._new(opcode)
        place = bisect_left(BOUNDS, seconds)
        counts[place] += 1
        totals[place] += seconds

    def samples(self) -> Iterator[Sample]:
        """Yield the counts so far."""
        for kind, (counts, totals) in self._kinds.items():
            yield Sample("aioregistry.request.duration", (kind,), sum(totals), tuple(map(Bucket, counts, totals)))

    def _new(self, opcode: int) -> _Counts:
        kind, buckets = OPERATIONS.get(opcode, _OTHER), len(BOUNDS) + 1
        counts = self._of[opcode] = self._kinds.setdefault(kind, ([0] * buckets, [0.0] * buckets))
        return counts


class Growth:
    """The increase of histograms since the last look: for receivers that take only values."""

    def __init__(self) -> None:
        self._known: dict[Labels, tuple[Bucket, ...]] = {}

    def of(self, sample: Sample) -> Iterator[Bucket]:
        """Yield how much each bucket of *sample* has grown, where it has, and remember it."""
        known = self._known.get(sample.labels, (Bucket(0, 0.0),) * len(sample.buckets))
        self._known[sample.labels] = sample.buckets
        for now, before in zip(sample.buckets, known, strict=True):
            if now.values > before.values:
                yield Bucket(now.values - before.values, now.total - before.total)
