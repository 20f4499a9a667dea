from __future__ import annotations

import struct

from aiozk.protocol import UNRESTRICTED_ACCESS, CreateRequest, WatchEvent
from aiozk.protocol.acl import ACL
from aiozk.protocol.primitives import Vector
from aiozk.protocol.stat import Stat as AiozkStat
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._protocol import (
    OPEN_ACL,
    AddWatchMode,
    CreateFlag,
    EventKind,
    Permission,
    Stat,
    WatcherType,
)
from aioregistry._protocol.records import OPEN_ACL_BYTES, STAT, read_stat, write_acl
from tests.protocol.rendering import plain, rendered

ints = st.integers(-(2**31), 2**31 - 1)
longs = st.integers(-(2**63), 2**63 - 1)
stats = st.builds(Stat, longs, longs, longs, longs, ints, ints, ints, longs, ints, ints, longs)


@settings(deadline=None)
@given(stats, st.binary(max_size=8))
def test_a_stat_is_what_aiozk_takes_it_for(stat: Stat, before: bytes) -> None:
    body = before + STAT.pack(*stat)
    theirs, _ = AiozkStat.parse(body, len(before))
    assert rendered(theirs) == body[len(before) :]
    assert plain(theirs) == stat
    ours, at = read_stat(body, len(before))
    assert (type(ours), ours, at) == (Stat, stat, len(body))


def test_open_acl() -> None:
    assert OPEN_ACL_BYTES == rendered(Vector.of(ACL)([UNRESTRICTED_ACCESS])) == write_acl(OPEN_ACL)
    assert b"world" in OPEN_ACL_BYTES
    assert struct.unpack_from(">ii", OPEN_ACL_BYTES) == (1, 0b11111)


def test_an_acl_is_rendered_with_all_its_entries() -> None:
    acl = [ACL.make("digest", "user:hash", read=True), *OPEN_ACL]
    assert write_acl(acl) == rendered(Vector.of(ACL)(acl))


def test_constants_are_those_of_aiozk() -> None:
    assert (EventKind.CREATED, EventKind.DELETED) == (WatchEvent.CREATED, WatchEvent.DELETED)
    assert EventKind.DATA_CHANGED == WatchEvent.DATA_CHANGED
    assert EventKind.CHILDREN_CHANGED == WatchEvent.CHILDREN_CHANGED
    assert CreateFlag.EPHEMERAL == CreateRequest.EPHEMERAL_FLAG
    assert CreateFlag.PERSISTENT_SEQUENTIAL == CreateRequest.SEQUENTIAL_FLAG
    assert CreateFlag.EPHEMERAL_SEQUENTIAL == CreateRequest.EPHEMERAL_FLAG | CreateRequest.SEQUENTIAL_FLAG
    assert CreateFlag.CONTAINER == CreateRequest.CONTAINER_FLAG


def test_numbers_on_the_wire_are_zookeepers() -> None:
    """EventType, AddWatchMode, WatcherType, Perms and CreateMode of its 3.9."""
    assert [each.value for each in EventKind] == [-1, 1, 2, 3, 4, 5, 6, 7]
    assert [each.value for each in AddWatchMode] == [0, 1]
    assert [each.value for each in WatcherType] == [1, 2, 3, 4, 5]
    assert [each.value for each in Permission] == [1, 2, 4, 8, 16]
    assert [each.value for each in CreateFlag] == [0, 1, 2, 3, 4, 5]
