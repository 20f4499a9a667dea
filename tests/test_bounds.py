"""Numbers that a server gives: what is made of those that cannot be meant."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._bounds import (
    LATEST,
    LONGEST_GRANTED,
    MOST_EPOCHS,
    MOST_EPOCHS_AT_ONCE,
    MOST_TRANSACTIONS_AT_ONCE,
    PACED,
    SHORTEST_GRANTED,
    SYNC_LIMIT,
    doubts,
    granted,
    moment,
    paced,
    zxid_doubt,
)
from aioregistry._parameters import DEFAULT_SESSION_TIMEOUT
from aioregistry._session import SessionState
from tests.session.simulation import World, simulated
from tests.session.test_session import T, client_of


def test_the_numbers_are_those_of_the_docstrings() -> None:
    assert (SHORTEST_GRANTED, LONGEST_GRANTED, PACED, SYNC_LIMIT) == (0.2, 600.0, 1.5, 10.0)
    assert (MOST_EPOCHS, MOST_EPOCHS_AT_ONCE, MOST_TRANSACTIONS_AT_ONCE) == (16_777_216, 65_536, 1_073_741_824)
    assert datetime.fromtimestamp(LATEST, UTC).isoformat() == "9999-12-31T23:59:59+00:00"


@pytest.mark.parametrize(
    ("milliseconds", "seconds"), [(-1, 0.0), (0, 0.0), (1, 0.001), (1500, 1.5), (2**63 - 1, LATEST)]
)
def test_the_time_of_a_node_is_one_of_a_calendar(milliseconds: int, seconds: float) -> None:
    assert moment(milliseconds) == seconds


@given(st.floats(0.001, 2**31 / 1000), st.floats(0.001, 3600.0))
def test_what_is_granted_is_bounded(seconds: float, requested: float) -> None:
    taken = granted(seconds, requested)
    assert min(SHORTEST_GRANTED, requested) <= taken <= max(LONGEST_GRANTED, requested)
    if SHORTEST_GRANTED <= seconds <= LONGEST_GRANTED:
        assert taken == seconds
    assert granted(requested, requested) == requested


@given(st.floats(0.001, 600.0), st.floats(0.001, 600.0))
def test_pauses_go_by_enough(timeout: float, requested: float) -> None:
    assert paced(timeout, requested) == max(timeout, min(PACED, requested))


EPOCH = 2**32


@pytest.mark.parametrize(
    ("zxid", "reached", "failed", "doubted"),
    [
        (0, 0, False, False),
        (-1, 0, True, False),
        (-1, 0, False, True),
        (-2, 0, True, True),
        (-(2**63), 5, True, True),
        (2**63 - 1, 0, False, True),
        (2**63 - 1, 0, True, True),
        ((MOST_EPOCHS + 1) * EPOCH - 1, 0, False, False),
        ((MOST_EPOCHS + 1) * EPOCH, 0, False, True),
        ((3 + MOST_EPOCHS_AT_ONCE) * EPOCH, 3 * EPOCH, False, False),
        ((4 + MOST_EPOCHS_AT_ONCE) * EPOCH, 3 * EPOCH, False, True),
        (3 * EPOCH + MOST_TRANSACTIONS_AT_ONCE, 3 * EPOCH, False, False),
        (3 * EPOCH + MOST_TRANSACTIONS_AT_ONCE + 1, 3 * EPOCH, False, True),
        (3 * EPOCH + MOST_TRANSACTIONS_AT_ONCE + 1, 0, False, False),
        (4 * EPOCH + MOST_TRANSACTIONS_AT_ONCE + 1, 3 * EPOCH, False, False),
        (3 * EPOCH, 4 * EPOCH, False, False),
    ],
)
def test_zxids_that_no_server_can_mean(zxid: int, reached: int, failed: bool, doubted: bool) -> None:
    assert bool(zxid_doubt(zxid, reached, failed=failed)) is doubted


@pytest.mark.parametrize(
    ("timeout", "requested", "told"),
    [
        (DEFAULT_SESSION_TIMEOUT, DEFAULT_SESSION_TIMEOUT, ()),
        (SYNC_LIMIT + 0.001, SYNC_LIMIT + 0.001, ()),
        (SYNC_LIMIT, SYNC_LIMIT, ("10 s is short",)),
        (15.0, 15.0004, ()),
        (60.0, 90.0, ("60 s, not 90 s",)),
        (4.0, 4.0, ("4 s is short",)),
        (4.0, 1.0, ("4 s, not 1 s", "4 s is short")),
    ],
)
def test_what_is_to_be_known_of_a_timeout(timeout: float, requested: float, told: tuple[str, ...]) -> None:
    found = doubts(timeout, requested)
    assert len(found) == len(told)
    assert all(words in each for words, each in zip(told, found, strict=True))


@simulated
async def test_it_is_told_once_for_each_registry(world: World, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(world)
    client.servers[0].timeout = 4.0
    await client.connected()
    for _ in range(3):
        client.servers[0].close_all()
        await client.again(SessionState.RECONNECTED)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert f"not {T:g} s as asked for" in warnings[0]
    assert "syncLimit" in warnings[1]
    await client.end()


@pytest.mark.parametrize(("told", "taken"), [(0.001, SHORTEST_GRANTED), (2**31 / 1000 - 0.001, LONGEST_GRANTED)])
@simulated
async def test_a_session_reckons_with_what_can_be_meant(told: float, taken: float, world: World) -> None:
    client = client_of(world)
    client.servers[0].timeout = told
    await client.connected()
    assert client.session.timeout == taken
    await client.end()


@simulated
async def test_a_server_that_grants_next_to_nothing_and_hangs_up_is_not_asked_in_a_hurry(world: World) -> None:
    client = client_of(world)
    server = client.servers[0]
    server.timeout = 0.001
    await client.connected()
    server.closes = True
    server.close_all()
    await client.until(SessionState.SUSPENDED)
    before = len(server.handshakes)
    await asyncio.sleep(T)
    assert len(server.handshakes) - before <= 20 * T
    await client.end()
