"""A service as a picker sees it, and what measures how it picks."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from aioregistry._model import Added, Entry, InstanceStatus, Removed, ServiceInstance, Snapshot, Suspicion, Updated
from aioregistry.balancing import Picker, Strategy
from aioregistry.balancing._members import Member


def instance(
    id: str, payload: Any = None, *, enabled: bool = True, status: InstanceStatus | None = None
) -> ServiceInstance[Any]:
    fields: dict[str, Any] = {"payload": payload, "enabled": enabled and status is None, "status": status}
    return ServiceInstance("chat", id=id, address="10.0.0.7", port=7000, **fields)


def entry(
    id: str,
    payload: Any = None,
    *,
    enabled: bool = True,
    status: InstanceStatus | None = None,
    owner: int = 1,
    suspect: bool = False,
    weight: float = 1.0,
) -> Entry[Any]:
    listed = Entry(instance(id, payload, enabled=enabled, status=status), owner, 1, 1, 0, 0.0, 0.0, None, weight)
    return listed.with_suspicion(Suspicion("disruption", 0.0, 30.0)) if suspect else listed


def snapshot(payloads: Mapping[str, Any] | Iterable[str]) -> Snapshot[Any]:
    by_id = payloads if isinstance(payloads, Mapping) else dict.fromkeys(payloads)
    return Snapshot("chat", {id: entry(id, payload) for id, payload in by_id.items()}, {}, as_of=1)


def picker(payloads: Mapping[str, Any] | Iterable[str], strategy: Strategy[Any] | str, **options: Any) -> Picker[Any]:
    return Picker(snapshot(payloads), strategy, draw=random.Random(5).random, **options)


def add(chosen: Picker[Any], id: str, payload: Any = None, **fields: Any) -> None:
    chosen.apply(Added(entry(id, payload, **fields), 2), 0.0)


def update(chosen: Picker[Any], id: str, payload: Any = None, **fields: Any) -> None:
    before = entry(id)
    chosen.apply(Updated(entry(id, payload, **fields), before, 2), 0.0)


def remove(chosen: Picker[Any], id: str) -> None:
    chosen.apply(Removed(entry(id), 2), 0.0)


def members_of(chosen: Picker[Any]) -> dict[str, Member[Any]]:
    """Those that may be picked, by id: to say how a call to one went, or to count its calls, without picking it."""
    return chosen._members


def only_pool(chosen: Picker[Any]) -> Any:
    """The contents of a strategy, for tests of its bounds: they cannot be seen from outside."""
    [pool] = chosen._pools.values()
    return pool


def picked(chosen: Picker[Any], number: int) -> list[str]:
    return [chosen.pick(None, 0.0).id for _ in range(number)]


def placed(chosen: Picker[Any], keys: Iterable[str]) -> dict[str, str]:
    return {key: chosen.pick(key, 0.0).id for key in keys}


def check_proportions(counts: Mapping[Hashable, int], weights: Mapping[Any, float]) -> None:
    """Pearson's chi-square test: a good one fails once in a million, and the seeds are fixed."""
    total, whole = sum(counts.values()), sum(weights.values())
    assert set(counts) <= {id for id, weight in weights.items() if weight}
    expected = {id: total * weight / whole for id, weight in weights.items() if weight}
    assert min(expected.values()) >= 5, "too few for the test"
    statistic = sum((counts.get(id, 0) - number) ** 2 / number for id, number in expected.items())
    assert statistic <= critical(len(expected) - 1)


def critical(freedom: int) -> float:
    """The value that chi-square exceeds with a chance of 1e-6, by Wilson and Hilferty (1931)."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 4.7534 * math.sqrt(spread)) ** 3


def counted(ids: Iterable[str]) -> Counter[str]:
    return Counter(ids)
