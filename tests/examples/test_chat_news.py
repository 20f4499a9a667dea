"""The chat gateway's news for people, for each kind of change."""

from __future__ import annotations

from typing import Any

import pytest

from aioregistry import Added, Change, Entry, Removed, Resynced, ServiceInstance, Snapshot, Suspicion, Updated
from docs.examples.chat.news import news


def entry(*, enabled: bool = True, suspicion: Suspicion | None = None) -> Entry[Any]:
    instance = ServiceInstance("chat", id="chat-1", address="127.0.0.1", port=7000, enabled=enabled)
    return Entry(instance, 1, 1, 1, 0, 0.0, 0.0, suspicion)


HERE, LEAVING = entry(), entry(enabled=False)
SUSPECT, STILL = (entry(suspicion=Suspicion("disruption", 0.0, until)) for until in (30.0, 40.0))
REMOVED: Removed[Any] = Removed(HERE, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Added(HERE, 2), ["listed"]),
        (Added(SUSPECT, 2), ["suspect"]),
        (Updated(HERE, HERE, 2), []),
        (Updated(LEAVING, HERE, 2), ["leaving"]),
        (Updated(LEAVING, LEAVING, 2), []),
        (Updated(SUSPECT, HERE, 2), ["suspect"]),
        (Updated(STILL, SUSPECT, 2), []),
        (Updated(HERE, SUSPECT, 2), ["listed"]),
        (REMOVED, ["unlisted"]),
        (Resynced((REMOVED, Added(HERE, 2)), Snapshot("chat", {}, {}, as_of=2)), ["unlisted", "listed"]),
    ],
    ids=repr,
)
def test_news(change: Change[Any], told: list[str]) -> None:
    assert [what for what, _ in news(change)] == told
