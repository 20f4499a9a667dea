"""The console's care for its own process."""

from __future__ import annotations

import asyncio
import gc

import pytest

from aioregistry._console import serving
from tests.console.served import DEADLINE


class Reading:
    """Services that are not read yet."""

    unread: int | None = None


@pytest.fixture
def freezes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(serving, "_SETTLED_EVERY", 0.001)
    counts: list[int] = []
    freeze = gc.freeze

    def counted() -> None:
        freeze()
        counts.append(gc.get_freeze_count())

    monkeypatch.setattr(gc, "freeze", counted)
    return counts


async def test_what_is_read_is_kept_from_the_collector_while_there_is_more_and_given_back(freezes: list[int]) -> None:
    before, reading = gc.get_freeze_count(), Reading()
    settling = asyncio.create_task(serving.settle(reading))
    for _ in range(20):  # it waits for the names of the services
        await asyncio.sleep(0.001)
    assert freezes == []
    reading.unread = 2
    async with asyncio.timeout(DEADLINE):
        while len(freezes) < 3:
            await asyncio.sleep(0.001)
    assert min(freezes) > before
    reading.unread = 0
    done = len(freezes) + 1  # one may be under way
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(freezes) <= done
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    assert gc.get_freeze_count() == 0


async def test_nothing_is_kept_where_there_is_no_connection(freezes: list[int]) -> None:
    settling = asyncio.create_task(serving.settle(Reading()))
    for _ in range(20):
        await asyncio.sleep(0.001)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    assert freezes == []
